//! Connections that do nothing but stay: what it costs to let them in, to hold them, and to keep
//! them alive.
//!
//! It must never publish.

use std::time::{Duration, Instant};

use crate::client::Manner;
use crate::crowd::{Crowd, LOOK};
use crate::error::BenchError;
use crate::fanout::opening;
use crate::plan::{Idle, Plan};
use crate::report::{Report, Reporter, Results, Server, round};
use crate::usage::Process;

pub(crate) fn run(
    plan: &Plan,
    idle: &Idle,
    progress: &mut Reporter<'_>,
) -> Result<Report, BenchError> {
    let process = Process(plan.pid);
    let before = process.usage()?;
    let rooms = plan.names.rooms(plan.rooms)?;
    // None, where there are none.
    let rooms_of =
        move |member: usize| rooms.get(member % rooms.len().max(1)).into_iter().cloned().collect();
    let mut crowd = Crowd::new(plan, Manner::Staying, Box::new(rooms_of))?;
    let begun = Instant::now();
    crowd.open_all(plan.connections, plan.ramp, progress, &mut |_, _| {})?;
    let opening = opening(plan, begun.elapsed(), before, process.usage()?);
    stay(&mut crowd, idle.settle, "settling", progress)?;
    let (start, pings, begun) = (process.usage()?, crowd.tally().pings, Instant::now());
    stay(&mut crowd, idle.duration, "measuring", progress)?;
    let (end, took) = (process.usage()?, begun.elapsed());
    let server = Server::between(plan.pid, before, start, end, took);
    let each = plan.connections as f64;
    let grown = |server: &Server| {
        let grown = server.resident_bytes as f64 - server.resident_bytes_before as f64;
        round(grown / each, 1)
    };
    let results = Results::Idle {
        seconds: round(took.as_secs_f64(), 3),
        resident_bytes_per_connection: server.as_ref().map(grown),
        cpu_percent_per_1000: server
            .as_ref()
            .map(|s| round(s.cpu_share * 100.0 * 1000.0 / each, 5)),
        pings: crowd.tally().pings - pings,
    };
    let faults = crowd.tally().faults();
    crowd.close_all();
    Ok(Report {
        passed: faults.is_empty(),
        faults,
        opening,
        results,
        deliveries: None,
        errors: crowd.tally().errors.clone(),
        closes: crowd.tally().closes.clone(),
        server,
    })
}

/// Answers what comes, for this long.
fn stay(
    crowd: &mut Crowd<'_>,
    time: Duration,
    phase: &'static str,
    progress: &mut Reporter<'_>,
) -> Result<(), BenchError> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        crowd.turn((begun + time).min(Instant::now() + LOOK), &mut |_, _| {})?;
        let (done, total) = (begun.elapsed().as_millis() as usize, time.as_millis() as usize);
        progress.tell(phase, || crowd.progress("ms", done.min(total), total));
    }
    Ok(())
}
