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

/// T02.
#[test]
fn a_server_that_was_suspended_for_many_heartbeats_asks_before_it_judges() {
    let mut server = Server::start(&["--set", "heartbeat.interval_ms=300"]);
    let mut clients: Vec<_> = (0..20).map(|_| Client::open(&server)).collect();
    server.suspend();
    // The time that passes is what this is about.
    let until = Instant::now() + Duration::from_secs(3);
    while let Some(rest) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(rest);
    }
    server.go_on();
    for client in &mut clients {
        assert_eq!(client.call(json!({"type": "ping"}))["type"], "pong");
    }
}
