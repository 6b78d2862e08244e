//! A node that stops while what it shares does not answer.

use std::time::{Duration, Instant};

use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;

use crate::fleet::until_status;

const PATH: &str = "/ws/v2/connect";

/// N04: a Redis that does not answer.
#[test]
fn a_drain_ends_in_time_over_a_redis_that_does_not_answer() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let url = format!("redis.url={}", redis.url());
    let set = ["--set", "redis.answer_timeout_ms=500", "--set", "server.drain_window_ms=2000"];
    let mut node = Server::start(&[&["--set", &url][..], &set].concat());
    until_status(&node, 200);
    let mut clients: Vec<_> = (0..20)
        .map(|number| {
            let mut socket = RawSocket::open(node.addr(), PATH);
            socket.expect_json("hello");
            let room = format!("public:r{number}");
            socket.send_json(&serde_json::json!({"type": "subscribe", "id": 1, "room": room}));
            socket.expect_json("subscribed");
            socket
        })
        .collect();
    redis.suspend();
    for socket in &mut clients {
        // What is under way now has no answer from Redis.
        socket.send_json(&serde_json::json!({
            "type": "publish", "id": 2, "room": "public:r0", "data": 1
        }));
    }
    let begun = Instant::now();
    node.terminate();
    for socket in &mut clients {
        assert_eq!(socket.read_close_code(), 1012);
    }
    drop(clients);
    let exit = node.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    redis.go_on();
}
