//! The example as a process, talked to by Node's `ws` and over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::foreign::{Tool, node, require};
use tests::process::Process;
use tests::raw::RawSocket;

const DEADLINE: Duration = Duration::from_secs(30);

fn start() -> (Process, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_axum_app"));
    command.arg("127.0.0.1:0");
    let mut process = Process::start(command);
    let line = process.next_line(DEADLINE).expect("it says where it listens");
    let addr = line.strip_prefix("listening on http://").and_then(|addr| addr.parse().ok());
    (process, addr.expect("an address"))
}

/// The head and the body of an answer.
fn ask(addr: SocketAddr, method: &str, path: &str) -> (String, String) {
    ask_as("", addr, method, path)
}

/// The same by whoever has this token.
fn ask_as(token: &str, addr: SocketAddr, method: &str, path: &str) -> (String, String) {
    let mut socket = RawSocket::connect(addr);
    // A GET with a length is no upgrade, whatever else it says.
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{length}\r\n"
    );
    socket.try_send(head.as_bytes());
    let head = socket.read_head();
    let body = String::from_utf8(socket.read_until_closed()).expect("a text");
    (head, body)
}

fn log_in(addr: SocketAddr, user: &str) -> String {
    let (_, body) = ask(addr, "POST", &format!("/login/{user}"));
    let answer: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"));
    answer["token"].as_str().expect("a token").to_owned()
}

#[test]
fn its_own_routes_and_roomkeepers_stand_side_by_side() {
    let (mut process, addr) = start();
    assert_eq!(ask(addr, "GET", "/").1, "the application's own page\n");
    assert_eq!(ask(addr, "GET", "/readyz").1, "ok\n");
    let (head, _) = ask(addr, "GET", "/ws/v2/connect");
    assert!(head.starts_with("HTTP/1.1 426"), "{head}");
    let (head, _) = ask(addr, "GET", "/nowhere");
    assert!(head.starts_with("HTTP/1.1 404"), "the application's fallback: {head}");
    process.terminate();
    assert_eq!(process.wait(DEADLINE).code, Some(0), "{}", process.report());
}

#[test]
fn a_client_of_node_meets_its_handler_its_middleware_and_its_authorizer() {
    if !require(Tool::Node) {
        return;
    }
    let (mut process, addr) = start();
    let token = log_in(addr, "ada");
    for (by, guild, status) in
        [("nobody", "owls", "403"), (&token, "o%20wls", "400"), (&token, "owls", "204")]
    {
        let (head, _) = ask_as(by, addr, "POST", &format!("/guilds/{guild}/join"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    let url = format!("ws://{addr}/ws/v2/connect");
    let lines = node("axum_app.mjs", &["--url", &url, "--token", &token]);
    let frames: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answer = |id: u64| frames.iter().find(|frame| frame["id"] == id).expect("an answer");
    // The handler.
    assert_eq!(
        (&answer(1)["type"], &answer(1)["data"]["sides"]),
        (&"dice.rolled".into(), &6.into())
    );
    assert!((1..=6).contains(&answer(1)["data"]["rolled"].as_u64().unwrap()), "{}", answer(1));
    assert_eq!((&answer(2)["code"], &answer(2)["field"]), (&102.into(), &"sides".into()));
    // The authorizer: a guild of hers and one of others.
    assert_eq!(answer(3)["type"], "subscribed");
    assert_eq!((&answer(4)["type"], &answer(4)["code"]), (&"error".into(), &103.into()));
    // The middleware: a calm word passes, a loud one does not.
    assert_eq!(answer(5)["type"], "ack");
    assert_eq!((&answer(6)["code"], &answer(6)["message"]), (&102.into(), &"no shouting".into()));
    process.terminate();
    assert_eq!(process.wait(DEADLINE).code, Some(0), "{}", process.report());
}

#[test]
fn who_is_connected_when_it_stops_is_told_when_to_come_back() {
    let (mut process, addr) = start();
    let token = log_in(addr, "bo");
    let mut socket = RawSocket::open(addr, &format!("/ws/v2/connect?token={token}"));
    socket.expect_json("hello");
    process.terminate();
    let told = socket.expect_json("disconnect");
    assert_eq!((&told["code"], &told["reconnect"]), (&1012.into(), &true.into()));
    assert_eq!(socket.read_close_code(), 1012);
    drop(socket);
    assert_eq!(process.wait(DEADLINE).code, Some(0), "{}", process.report());
}
