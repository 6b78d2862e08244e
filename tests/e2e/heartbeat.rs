//! Heartbeats: the server asks, and who never answers is let go.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::frame;
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{Client, PATH, values_of};

#[test]
fn who_never_answers_a_ping_is_closed_and_who_does_stays() {
    let server = Server::start(&["--set", "heartbeat.interval_ms=300"]);
    let mut answering = Client::open(&server);
    assert_eq!(answering.hello["heartbeat_interval_ms"], 300);
    let mut silent = RawSocket::open(server.addr(), PATH);
    let addr = server.addr();
    std::thread::scope(|scope| {
        let watched = scope.spawn(move || {
            let mut pings = 0;
            let code = loop {
                let (opcode, payload) = silent.read_frame();
                if opcode == frame::CLOSE {
                    break u16::from_be_bytes([payload[0], payload[1]]);
                }
                let values = values_of(&payload);
                pings += values.iter().filter(|value| value["type"] == "ping").count();
                if let Some(told) = values.iter().find(|value| value["type"] == "disconnect") {
                    assert_eq!((&told["code"], &told["reconnect"]), (&json!(3002), &json!(true)));
                }
            };
            assert!(pings > 0, "closed without a ping");
            code
        });
        // The other one is closed meanwhile; its end is a message in a room that this one hears.
        let told = scope.spawn(move || {
            let code = watched.join().unwrap();
            Client::open_at(addr, PATH).publish("public:ends", code);
        });
        answering.send(&json!({"type": "subscribe", "room": "public:ends"}));
        assert_eq!(answering.expect("message")["data"], 3002);
        told.join().unwrap();
    });
    assert_eq!(answering.call(json!({"type": "ping"}))["type"], "pong");
}

#[test]
fn a_connection_with_traffic_from_the_server_is_not_pinged_but_has_to_speak_all_the_same() {
    let server = Server::start(&["--set", "heartbeat.interval_ms=300"]);
    let mut listener = RawSocket::open(server.addr(), PATH);
    listener.expect_json("hello");
    listener.send_json(&json!({"type": "subscribe", "id": 1, "room": "public:busy"}));
    listener.expect_json("subscribed");
    let addr = server.addr();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = Client::open_at(addr, PATH);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                publisher.publish("public:busy", 1);
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
        });
        let code = listener.read_close_code();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(code, 3002);
    });
}

/// Reads until the server has asked.
fn await_ping(socket: &mut RawSocket) {
    loop {
        let (opcode, payload) = socket.read_frame();
        assert_ne!(opcode, frame::CLOSE, "{payload:?}");
        if values_of(&payload).iter().any(|value| value["type"] == "ping") {
            return;
        }
    }
}

/// The time that passes is what these are about.
fn pass(span: Duration) {
    let until = Instant::now() + span;
    while let Some(rest) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(rest);
    }
}

/// R12: the answers lie in the sockets when the deadline for them has just passed.
#[test]
fn who_has_answered_while_the_server_did_not_run_is_not_missed() {
    let settings = ["--set", "heartbeat.interval_ms=3000", "--set", "heartbeat.timeout_ms=6000"];
    let mut server = Server::start(&settings);
    let mut clients: Vec<_> = (0..20).map(|_| RawSocket::open(server.addr(), PATH)).collect();
    clients.iter_mut().for_each(await_ping);
    // Now 3 s are left for an answer.
    server.suspend();
    for client in &mut clients {
        client.send_json(&json!({"type": "pong"}));
    }
    pass(Duration::from_millis(4_000));
    server.go_on();
    for client in &mut clients {
        client.send_json(&json!({"type": "ping", "id": 7}));
        assert_eq!(client.expect_json("pong")["id"], 7);
    }
}

/// Processes that take as much processor time as they get, for as long as the value lives.
struct Spinners(Vec<std::process::Child>);

impl Spinners {
    fn start(count: usize) -> Self {
        let spin = |_| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", "while :; do :; done"]).spawn().expect("a shell can be started")
        };
        Self((0..count).map(spin).collect())
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// R12: the server has the lowest priority beside four busy processes for each processor.
#[test]
fn beside_processes_that_take_every_processor_nobody_who_answers_is_missed() {
    let words = ["nice", "-n", "19"].map(str::to_owned);
    let settings = ["--set", "heartbeat.interval_ms=1000", "--set", "heartbeat.timeout_ms=2500"];
    let server = Server::start_under(&words, &settings);
    let clients: Vec<_> = (0..50).map(|_| Client::open(&server)).collect();
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let spinners = Spinners::start(4 * processors);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for mut client in clients {
            let is_over = &is_over;
            scope.spawn(move || {
                // Whoever waits for an answer answers the server's pings meanwhile, and fails when
                // it is closed.
                client.socket = client.socket.with_deadline(Duration::from_secs(60));
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    client.expect_ping();
                }
                assert_eq!(client.call(json!({"type": "ping"}))["type"], "pong");
            });
        }
        pass(Duration::from_secs(8));
        drop(spinners);
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// T02.
#[test]
fn a_server_that_was_suspended_for_many_heartbeats_asks_before_it_judges() {
    let mut server = Server::start(&["--set", "heartbeat.interval_ms=300"]);
    let mut clients: Vec<_> = (0..20).map(|_| Client::open(&server)).collect();
    server.suspend();
    pass(Duration::from_secs(3));
    server.go_on();
    for client in &mut clients {
        assert_eq!(client.call(json!({"type": "ping"}))["type"], "pong");
    }
}
