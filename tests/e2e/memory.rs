//! Little memory: newcomers are refused before it runs out, who is there is served on, and with room
//! again everybody is let in.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::json;
use tests::cgroup::{Controller, Group};
use tests::frame::{self, Frame};
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
    let shown = get(server.addr(), "/metrics").body;
    let refused = shown.lines().find_map(|line| {
        line.strip_prefix(r#"roomkeeper_connections_refused_total{reason="memory"} "#)
    });
    assert!(refused.unwrap().parse::<u64>().unwrap() >= 1, "{shown}");
    assert!(shown.contains(&format!("\nroomkeeper_memory_max_bytes {LIMIT}")), "{shown}");

    drop(ballast);
    until("newcomers are let in", || (knock(server.addr()) == 101).then_some(()));
    assert_eq!(get(server.addr(), "/readyz").status, 200);
    let log = server.log();
    assert_eq!(log.matches("memory is short").count(), 1, "{log}");
    assert_eq!(log.matches("newcomers are let in").count(), 1, "{log}");
    assert_eq!((server.is_running(), group.killed()), (true, 0));
}

/// R11: where no cgroup can be made, or none is wanted.
#[test]
fn a_limit_that_is_set_counts_for_the_process_and_probes_are_answered() {
    // A server of the tests has more than this before anybody has come.
    let server = Server::start(&["--set", "server.memory_bytes_max=16777216"]);
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
    assert!(server.log().contains("server.memory_bytes_max"), "{}", server.log());
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
/// How many of them read nothing of the storm.
const STALLED: usize = 500;
/// Messages to everybody.
const STORM: usize = 60;
/// Letters in each.
const LETTERS: usize = 8_000;

/// Comes in and subscribes to the room of the storm; none where it was refused.
fn join(addr: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&addr, SOON).ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    ask_for_upgrade(&mut stream, addr);
    let mut head = [0; 4_096];
    let count = stream.read(&mut head).ok()?;
    if !head[..count].starts_with(b"HTTP/1.1 101") {
        assert!(head[..count].starts_with(b"HTTP/1.1 503"), "{:?}", &head[..count]);
        return None;
    }
    let subscribe = json!({"type": "subscribe", "id": 1, "room": "public:storm"}).to_string();
    stream.write_all(&Frame::new(frame::TEXT, subscribe.as_bytes()).bytes()).ok()?;
    Some(stream)
}

/// Reads what is there, of everybody in turn, until `done`.
fn drain(crowd: &mut [TcpStream], is_done: &std::sync::atomic::AtomicBool) {
    let mut buffer = vec![0; 256 << 10];
    for stream in crowd.iter() {
        stream.set_nonblocking(true).unwrap();
    }
    while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
        for stream in crowd.iter_mut() {
            match stream.read(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {}
            }
        }
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
}

/// R11.
#[test]
fn five_thousand_and_a_storm_of_broadcasts_in_256_mib_kill_nobody() {
    let Some(group) = Group::make(Controller::Memory) else { return };
    group.limit(LIMIT);
    let mut server = Server::start_under(&group.enter(), &[]);
    let addr = server.addr();
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    bob.subscribe("public:calm");
    let mut crowd: Vec<_> = (0..CROWD).filter_map(|_| join(addr)).collect();
    assert!(!crowd.is_empty());
    let mut most = group.used();
    let stalled = crowd.split_off(crowd.len().saturating_sub(STALLED));
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| drain(&mut crowd, &is_done));
        let storm = "s".repeat(LETTERS);
        for n in 0..STORM {
            ann.publish("public:storm", format!("{n}{storm}"));
            // Rooms that are kept take what their budget gives them.
            ann.publish(&format!("public:kept-{n}"), storm.clone());
            most = most.max(group.used());
        }
        ann.publish("public:calm", "and on");
        assert_eq!(bob.next()["data"], "and on");
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    drop(stalled);
    assert_eq!((server.is_running(), group.killed()), (true, 0));
    assert!(most < LIMIT, "{most}");
    assert_eq!(get(addr, "/healthz").status, 200);
}
