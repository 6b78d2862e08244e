//! Little memory: newcomers are refused before it runs out, who is there is served on, and with room
//! again everybody is let in.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tests::cgroup::{Controller, Group};
use tests::frame::{self, Frame};
use tests::hosts::{Part, has};
use tests::process::Process;
use tests::server::Server;

use crate::client::{Client, PATH, SOON, until};
use crate::http::get;

const LIMIT: u64 = 256 << 20;

/// The status of an upgrade.
fn knock(addr: SocketAddr) -> u16 {
    let mut socket = tests::raw::RawSocket::connect(addr);
    let head = socket.upgrade(PATH, &[]);
    if head.starts_with("HTTP/1.1 503") {
        assert!(head.to_lowercase().contains("retry-after: "), "{head}");
    }
    head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status")
}

/// Memory of the group that no server has: a file in a file system that lies in memory.
struct Ballast {
    path: String,
}

impl Ballast {
    fn new(group: &Group, bytes: u64) -> Self {
        let path = format!("/dev/shm/roomkeeper-ballast-{}", std::process::id());
        let [shell, rest @ ..] = &group.enter()[..] else { panic!("words of a command") };
        let mut command = Command::new(shell);
        command.args(rest).args(["sh", "-c", "head -c \"$0\" /dev/zero > \"$1\""]);
        command.args([bytes.to_string(), path.clone()]);
        let ballast = Self { path };
        let exit = Process::start(command).wait(SOON);
        assert_eq!(exit.code, Some(0), "{exit:?}");
        ballast
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// R11: something else of the cgroup takes the memory.
#[test]
fn with_little_memory_left_newcomers_are_refused_until_there_is_more() {
    let Some(group) = Group::make(Controller::Memory) else { return };
    group.limit(LIMIT);
    let mut server = Server::start_under(&group.enter(), &[]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    bob.subscribe("public:inside");
    assert_eq!((knock(server.addr()), get(server.addr(), "/readyz").status), (101, 200));

    let ballast = Ballast::new(&group, LIMIT * 90 / 100 - group.used());
    until("newcomers are refused", || (knock(server.addr()) == 503).then_some(()));
    let ready = get(server.addr(), "/readyz");
    assert_eq!((ready.status, ready.body.trim()), (503, "memory is short"));
    assert_eq!(get(server.addr(), "/healthz").status, 200);
    ann.publish("public:inside", "served on");
    assert_eq!(bob.next()["data"], "served on");
    if has(Part::ServerApi) {
        let refused = r#"roomkeeper_connections_refused_total{reason="memory"}"#;
        assert!(shown(server.addr(), refused) >= 1.0);
        assert_eq!(shown(server.addr(), "roomkeeper_memory_max_bytes"), LIMIT as f64);
    }

    drop(ballast);
    until("newcomers are let in", || (knock(server.addr()) == 101).then_some(()));
    assert_eq!(get(server.addr(), "/readyz").status, 200);
    // It is written down behind the change itself.
    until("the log says so", || server.log().contains("newcomers are let in").then_some(()));
    let log = server.log();
    assert_eq!(log.matches("memory is short").count(), 1, "{log}");
    assert_eq!(log.matches("newcomers are let in").count(), 1, "{log}");
    assert_eq!((server.is_running(), group.killed()), (true, 0));
}

/// R11: where no cgroup can be made, or none is wanted.
#[test]
fn a_limit_that_is_set_counts_for_the_process_and_probes_are_answered() {
    // Any server has more than this before anybody has come.
    let server = Server::start(&["--set", "server.memory_bytes_max=8388608"]);
    until("newcomers are refused", || {
        let mut stream = TcpStream::connect_timeout(&server.addr(), SOON).ok()?;
        stream.set_read_timeout(Some(SOON)).unwrap();
        ask_for_upgrade(&mut stream, server.addr());
        let mut head = [0; 12];
        let count = stream.read(&mut head).unwrap_or(0);
        head[..count].starts_with(b"HTTP/1.1 503").then_some(())
    });
    let ready = get(server.addr(), "/readyz");
    assert_eq!((ready.status, ready.body.trim()), (503, "memory is short"));
    assert_eq!(get(server.addr(), "/healthz").status, 200);
    // The log is written by a thread of its own.
    until("the log says why", || server.log().contains("server.memory_bytes_max").then_some(()));
}

fn ask_for_upgrade(stream: &mut TcpStream, addr: SocketAddr) {
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    // One that was turned away at once can't take it any more.
    let _ = stream.write_all(request.as_bytes());
}

/// How many connections there are.
const CROWD: usize = 5_000;
/// How many of them are in a loud room and read nothing of it.
const STALLED: usize = 500;
/// Messages to everybody, and to those.
const STORM: usize = 60;
/// Messages that rooms keep, each in a room of its own.
const KEPT: usize = 1_500;
/// Letters in a large message.
const LETTERS: usize = 60_000;

/// Comes in and subscribes to a room.
fn join(addr: SocketAddr, room: &str) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&addr, SOON).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    ask_for_upgrade(&mut stream, addr);
    let mut head = [0; 4_096];
    let count = stream.read(&mut head).unwrap();
    assert!(head[..count].starts_with(b"HTTP/1.1 101"), "{:?}", &head[..count]);
    let subscribe = json!({"type": "subscribe", "id": 1, "room": room}).to_string();
    stream.write_all(&Frame::new(frame::TEXT, subscribe.as_bytes()).bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Reads what is there, of everybody in turn, until `is_done`.
fn drain(crowd: &mut [TcpStream], is_done: &AtomicBool) {
    let mut buffer = vec![0; 256 << 10];
    while !is_done.load(Ordering::Relaxed) {
        for stream in crowd.iter_mut() {
            // Nothing there is no fault, and what comes is not looked at.
            let _ = stream.read(&mut buffer);
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The value of one series.
fn shown(addr: SocketAddr, series: &str) -> f64 {
    let text = get(addr, "/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

/// R11. S02: budgets that follow the limit keep a storm below it, so that nobody has to be refused.
#[test]
fn five_thousand_and_a_storm_of_broadcasts_in_256_mib_kill_nobody() {
    if !has(Part::ServerApi) {
        return;
    }
    let Some(group) = Group::make(Controller::Memory) else { return };
    group.limit(LIMIT);
    let mut server =
        Server::start_under(&group.enter(), &["--set", "limits.commands_per_second=0"]);
    let addr = server.addr();
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    bob.subscribe("public:calm");
    let mut crowd: Vec<_> = (STALLED..CROWD).map(|_| join(addr, "public:storm")).collect();
    let stalled: Vec<_> = (0..STALLED).map(|_| join(addr, "public:loud")).collect();
    until("everybody is a member", || {
        (shown(addr, "roomkeeper_members") >= CROWD as f64).then_some(())
    });
    let (mut most, is_done) = (0, AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| drain(&mut crowd, &is_done));
        let large = "s".repeat(LETTERS);
        for n in 0..KEPT {
            if n < STORM {
                ann.publish("public:storm", &large[..2_000]);
            }
            if n < 2 * STORM {
                ann.publish("public:loud", large.as_str());
            }
            // Rooms that are kept take what their budget gives them.
            ann.publish(&format!("public:kept-{n}"), large.as_str());
            most = most.max(group.used());
        }
        ann.publish("public:calm", "and on");
        assert_eq!(bob.next()["data"], "and on");
        is_done.store(true, Ordering::Relaxed);
    });
    let slow = shown(addr, r#"roomkeeper_connections_closed_total{reason="slow_consumer"}"#);
    assert!(slow > 0.0, "nobody was too slow: this was no storm");
    // As many logs are kept as may be, and no more.
    let logs = shown(addr, "roomkeeper_broker_log_bytes");
    let logs_max = shown(addr, "roomkeeper_broker_log_max_bytes");
    assert!(logs_max == LIMIT as f64 / 4.0 && logs > logs_max * 0.9, "{logs} of {logs_max}");
    drop(stalled);
    assert_eq!((server.is_running(), group.killed()), (true, 0));
    assert!(most < LIMIT, "{most}");
    assert_eq!(knock(addr), 101);
}
