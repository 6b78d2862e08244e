//! Connections that do nothing but stay: what it costs to let them in, to hold them, and to keep
//! them alive.

use std::time::Instant;

use crate::Report;
use crate::arguments::{Arguments, Length};
use crate::back::prepare;
use crate::pool::Pool;
use crate::usage::Process;

/// Connections that are there before anything is measured.
const FIRST: usize = 64;

pub(crate) fn run(arguments: &Arguments) -> Report {
    let Length::Time(time) = arguments.length else {
        let faults = vec!["--messages means nothing to idle".to_owned()];
        return Report { json: "{}".to_owned(), faults };
    };
    let process = Process(arguments.pid);
    let mut target = arguments.target.clone();
    if arguments.tickets {
        target.back = Some(prepare(arguments));
    }
    // The first few bring code into memory and fill what is kept once for all: some 1.4 MB that the others share.
    let first = Pool::open(&target, arguments.addr, FIRST, FIRST.min(arguments.rooms));
    let (memory_before, cpu_before) = (process.memory(), process.cpu());
    let start = Instant::now();
    let (connections, rooms) = (arguments.connections, arguments.rooms);
    let mut pool = Pool::open(&target, arguments.addr, connections, rooms);
    let (open_seconds, cpu_opened) = (start.elapsed().as_secs_f64(), process.cpu());
    pool.rest(arguments.settle);
    let (cpu_idle, pings) = (process.cpu(), pool.pings);
    let start = Instant::now();
    pool.rest(time);
    let (seconds, cpu_end) = (start.elapsed().as_secs_f64(), process.cpu());
    let memory = process.memory().saturating_sub(memory_before);
    drop(first);
    let each = connections as f64;
    let json = format!(
        "{{\"mode\":\"idle\",\"target\":\"{}\",\"connections\":{connections},\"rooms\":{rooms},\
         \"open_seconds\":{open_seconds:.3},\"cpu_us_per_connect\":{:.2},\
         \"memory_bytes_per_connection\":{:.0},\"seconds\":{seconds:.3},\
         \"cpu_percent_per_1000\":{:.5},\"pings\":{}}}",
        arguments.target.name(),
        (cpu_opened - cpu_before).as_secs_f64() * 1e6 / each,
        memory as f64 / each,
        (cpu_end - cpu_idle).as_secs_f64() / seconds * 100.0 * 1000.0 / each,
        pool.pings - pings,
    );
    let mut faults = Vec::new();
    if pool.closed > 0 {
        faults.push(format!("the server closed {} connections", pool.closed));
    }
    faults.extend(pool.refusal.iter().map(|words| format!("the server refused: {words}")));
    Report { json, faults }
}
