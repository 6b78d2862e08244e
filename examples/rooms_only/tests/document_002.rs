//! The example as a process: what document 002, "Infrastructure WebSocket Components", says of its
//! components, sentence by sentence.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::process::Process;
use tests::raw::RawSocket;

const DEADLINE: Duration = Duration::from_secs(30);
const ROOM: &str = "room:lobby";

struct Running {
    process: Process,
    addr: SocketAddr,
}

impl Running {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rooms_only"));
        command.arg("127.0.0.1:0");
        let mut process = Process::start(command);
        let line = process.next_line(DEADLINE).expect("it says where it listens");
        let addr = line.strip_prefix("listening on http://").and_then(|addr| addr.parse().ok());
        Self { process, addr: addr.expect("an address") }
    }

    /// A connection, with what it was greeted with.
    fn accept(&self, player: &str) -> (RawSocket, Value) {
        let query = if player.is_empty() { String::new() } else { format!("?token={player}") };
        let mut socket = RawSocket::open(self.addr, &format!("/ws/v2/connect{query}"));
        let hello = socket.expect_json("hello");
        (socket, hello)
    }

    /// One that is registered in the room.
    fn member(&self, player: &str) -> (RawSocket, Value) {
        let (mut socket, hello) = self.accept(player);
        socket.send_json(&json!({"type": "subscribe", "id": 1, "room": ROOM}));
        socket.expect_json("subscribed");
        (socket, hello)
    }

    fn end(mut self) {
        self.process.terminate();
        assert_eq!(self.process.wait(DEADLINE).code, Some(0), "{}", self.process.report());
    }
}

fn ask(socket: &mut RawSocket, mut message: Value, answer: &str) -> Value {
    message["id"] = json!(7);
    socket.send_json(&message);
    socket.expect_json(answer)
}

fn connections(socket: &mut RawSocket, of: &str, name: &str) -> Vec<Value> {
    let answer = ask(socket, json!({"type": "connections", of: name}), "connections");
    answer["data"].as_array().expect("a list").clone()
}

/// Looks until there are so many.
fn until_there_are(socket: &mut RawSocket, of: &str, name: &str, wanted: usize) {
    let begun = Instant::now();
    while connections(socket, of, name).len() != wanted {
        assert!(begun.elapsed() < DEADLINE, "never {wanted} connections of {name}");
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

#[test]
fn connection_acceptance_and_lifecycle_management() {
    let server = Running::start();
    let (mut one, hello) = server.accept("");
    assert_eq!(hello["user_id"], Value::Null);
    assert_eq!(ask(&mut one, json!({"type": "ping"}), "pong")["id"], 7);
    one.send_frame(8, true, true, &1000_u16.to_be_bytes());
    assert_eq!(one.read_close_code(), 1000);
    // Who is there at the end is told when to come back.
    let (mut last, _) = server.accept("");
    let Running { mut process, .. } = server;
    process.terminate();
    last.expect_json("disconnect");
    assert_eq!(last.read_close_code(), 1012);
    drop(last);
    assert_eq!(process.wait(DEADLINE).code, Some(0), "{}", process.report());
}

#[test]
fn message_sending_and_receiving_with_basic_validation() {
    let server = Running::start();
    let (mut one, _) = server.accept("");
    let response = ask(&mut one, json!({"type": "say", "text": "hello"}), "response");
    assert_eq!(response["data"], json!({"text": "HELLO"}));
    for (message, code, field) in [
        (json!({"type": "say"}), 102, "text"),
        (json!({"type": "say", "text": 7}), 102, "text"),
        (json!({"type": "connections", "room": "no room"}), 102, "room"),
        (json!({"type": "connections", "player": "a b"}), 102, "player"),
        (json!({"type": "unknown"}), 101, "type"),
        (json!({"type": "subscribe"}), 102, "room"),
    ] {
        let error = ask(&mut one, message.clone(), "error");
        assert_eq!((&error["code"], &error["field"]), (&json!(code), &json!(field)), "{message}");
    }
    server.end();
}

#[test]
fn rate_limiting_integration_takes_sixty_requests_per_minute_and_says_when_to_come_back() {
    let server = Running::start();
    let (mut one, _) = server.accept("");
    let (mut other, _) = server.accept("");
    for _ in 0..60 {
        ask(&mut one, json!({"type": "say", "text": "x"}), "response");
    }
    let error = ask(&mut one, json!({"type": "say", "text": "x"}), "error");
    assert_eq!(error["code"], 108);
    assert!(error["retry_after_ms"].as_u64().unwrap() > 0, "{error}");
    // Each connection has its own.
    ask(&mut other, json!({"type": "say", "text": "x"}), "response");
    server.end();
}

#[test]
fn connection_registration_and_unregistration_in_a_room_under_a_connection_id() {
    let server = Running::start();
    let (mut watcher, _) = server.accept("");
    let (mut one, hello) = server.member("ann");
    let registered = connections(&mut watcher, "room", ROOM);
    assert_eq!(registered.len(), 1, "{registered:?}");
    assert_eq!(registered[0]["connection_id"], hello["connection_id"]);
    ask(&mut one, json!({"type": "unsubscribe", "room": ROOM}), "unsubscribed");
    assert!(connections(&mut watcher, "room", ROOM).is_empty());
    // Its connection is still there.
    assert_eq!(connections(&mut watcher, "player", "ann").len(), 1);
    server.end();
}

#[test]
fn error_handling_and_cleanup_leaves_nothing_of_a_connection_that_broke() {
    let server = Running::start();
    let (mut watcher, _) = server.accept("");
    let (mut broken, _) = server.member("ann");
    let (gone, _) = server.member("ann");
    broken.send_text("no json");
    assert_eq!(broken.expect_json("error")["code"], 100);
    assert_eq!(connections(&mut watcher, "room", ROOM).len(), 2);
    broken.send_frame(1, true, false, b"without a mask");
    assert_eq!(broken.read_close_code(), 1002);
    gone.reset();
    until_there_are(&mut watcher, "room", ROOM, 0);
    until_there_are(&mut watcher, "player", "ann", 0);
    server.end();
}

#[test]
fn room_based_broadcasting_reaches_the_room_and_nobody_else() {
    let server = Running::start();
    let (mut one, _) = server.member("");
    let (mut other, _) = server.member("");
    let (mut outside, _) = server.accept("");
    ask(&mut outside, json!({"type": "publish", "room": ROOM, "data": "to all"}), "ack");
    for member in [&mut one, &mut other] {
        assert_eq!(member.expect_json("message")["data"], "to all");
    }
    // Had it come, it would have come first.
    ask(&mut outside, json!({"type": "ping"}), "pong");
    server.end();
}

#[test]
fn the_global_connection_registry_maps_players_to_connections_with_their_metadata() {
    let server = Running::start();
    let (mut phone, phone_hello) = server.member("ann");
    let (_desk, desk_hello) = server.accept("ann");
    let (_bob, _) = server.member("bob");
    let of_ann = connections(&mut phone, "player", "ann");
    let id = |value: &Value| value["connection_id"].as_str().unwrap().to_owned();
    let mut ids: Vec<_> = of_ann.iter().map(id).collect();
    let mut wanted = [id(&phone_hello), id(&desk_hello)];
    ids.sort();
    wanted.sort();
    assert_eq!(ids, wanted);
    let of_phone = of_ann.iter().find(|one| id(one) == id(&phone_hello)).unwrap();
    assert_eq!((&of_phone["player"], &of_phone["rooms"]), (&json!("ann"), &json!(1)));
    assert!(of_phone["connected_since"].as_str().unwrap().ends_with('Z'), "{of_phone}");
    assert_eq!(connections(&mut phone, "room", ROOM).len(), 2);
    assert!(connections(&mut phone, "player", "nobody").is_empty());
    server.end();
}
