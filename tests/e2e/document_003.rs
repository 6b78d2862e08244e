//! Document 003, "WebSocket Architecture & Resilience": what it says of the server, sentence by sentence.
//!
//! What is printed there is compared byte for byte, with the values that differ each time taken out.

use std::time::Duration;

use serde_json::{Value, json};
use tests::foreign::{Tool, node, python, require};
use tests::frame;
use tests::raw::RawSocket;
use tests::server::Server;

use crate::speaker::{one_line, without};

const PATH: &str = "/ws/client";

const HELLO: &str = r#"{
  "type": "hello",
  "server_time": "2025-08-15T10:00:00Z",
  "accepted_version": 1,
  "features": ["heartbeat", "structured_messages", "error_codes", "graceful_reconnect"],
  "request_id": "uuid-here",
  "client_id": "client-uuid",
  "heartbeat_interval_ms": 25000
}"#;

const MESSAGE: &str = r#"{
  "type": "message_type",
  "timestamp": "2025-08-15T10:00:00Z",
  // Additional fields based on message type
}"#;

fn open(server: &Server, query: &str) -> RawSocket {
    RawSocket::open(server.addr(), &format!("{PATH}?{query}"))
}

/// A text frame as it came.
fn text(socket: &mut RawSocket) -> String {
    let (opcode, payload) = socket.read_frame();
    assert_eq!(opcode, frame::TEXT);
    String::from_utf8(payload).unwrap()
}

/// Whether it is `2025-08-15T10:00:00Z` with other digits.
fn is_as_printed(time: &Value) -> bool {
    let shape = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()
    };
    time.as_str().is_some_and(|time| shape(time) == shape("2025-08-15T10:00:00Z"))
}

#[test]
fn server_sends_hello_message_with_capabilities() {
    let server = Server::start(&[]);
    for query in ["client_id=client-uuid&version=1&role=frontend", "client_id=client-uuid"] {
        let mut socket = open(&server, query);
        let hello = text(&mut socket);
        let differs = ["server_time", "request_id"];
        assert_eq!(without(&hello, &differs), without(&one_line(HELLO), &differs));
        let hello: Value = serde_json::from_str(&hello).unwrap();
        assert!(is_as_printed(&hello["server_time"]), "{hello}");
    }
}

#[test]
fn server_validates_version_and_parameters() {
    let server = Server::start(&[]);
    let long = format!("client_id={}", "x".repeat(129));
    for (query, code, reason) in [
        ("client_id=abc-123&version=2", 4400, "unsupported_protocol_version"),
        ("client_id=abc-123&version=one", 4400, "unsupported_protocol_version"),
        ("client_id=abc-123&role=root", 4401, "invalid_client_role"),
        ("client_id=abc-123&role=Admin", 4401, "invalid_client_role"),
        ("", 1008, "policy_violation"),
        ("client_id=", 1008, "policy_violation"),
        ("client_id=a%20b", 1008, "policy_violation"),
        (&long, 1008, "policy_violation"),
    ] {
        // After the upgrade, so that a browser sees it; and nothing comes before it.
        let mut socket = open(&server, query);
        assert_eq!(socket.read_close(), (code, reason.to_owned()), "{query}");
    }
    for role in ["frontend", "admin", "test"] {
        let mut socket = open(&server, &format!("client_id=abc-123&role={role}"));
        socket.expect_json("hello");
    }
}

#[test]
fn a_fault_of_the_server_in_the_handshake_is_4500() {
    // A middleware that is away is the only fault there can be without a token; with one, its keys.
    let folder = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("auth.jwks_url=http://{}/keys", nobody.local_addr().unwrap());
    drop(nobody);
    let _ = folder;
    let server = Server::start(&["--set", &url]);
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJleHAiOjQxMDI0NDQ4MDB9.AAAA";
    let mut socket = open(&server, &format!("client_id=abc-123&token={token}"));
    assert_eq!(socket.read_close().0, 4500);
}

#[test]
fn heartbeat_ping_pong_cycle_begins() {
    let server = Server::start(&["--set", "heartbeat.interval_ms=300"]);
    let mut socket = open(&server, "client_id=abc-123");
    assert_eq!(socket.expect_json("hello")["heartbeat_interval_ms"], 300);
    // Three intervals: who answers stays.
    for _ in 0..3 {
        let ping = text(&mut socket);
        assert_eq!(without(&ping, &["timestamp"]), r#"{"type":"ping","timestamp":"…"}"#);
        socket.send_text(r#"{"type":"pong","timestamp":"2025-08-15T10:00:00Z"}"#);
    }
    // Who does not is closed, without a message of another protocol before it.
    loop {
        let (opcode, payload) = socket.read_frame();
        if opcode == frame::CLOSE {
            assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), 3002);
            break;
        }
        let ping: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(ping["type"], "ping");
    }
}

#[test]
fn the_environment_s_names_set_the_built_server() {
    let names = [
        ("WS_HEARTBEAT_INTERVAL_MS", "300"),
        ("WS_CONNECTION_TIMEOUT_MS", "900"),
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "7"),
        ("WEBSOCKET_CLEANUP_INTERVAL", "8"),
        ("WEBSOCKET_CONNECTION_TIMEOUT", "20"),
    ];
    let server = Server::start_with(&[], &names);
    let mut silent = open(&server, "client_id=abc-123");
    assert_eq!(silent.expect_json("hello")["heartbeat_interval_ms"], 300);
    let mut game = RawSocket::open(server.addr(), "/ws/game");
    assert_eq!(game.next_json()["heartbeat_interval_ms"], 7_000);
    assert_eq!(silent.read_close_code(), 3002);
}

#[test]
fn client_can_send_ping_at_any_time() {
    let server = Server::start(&[]);
    let mut socket = open(&server, "client_id=abc-123");
    socket.expect_json("hello");
    // Clients of this document add what they like.
    for ping in [
        r#"{"type":"ping","timestamp":"2025-08-15T10:00:00Z"}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"ping","timestamp":1755252000000,"client_id":"abc-123","id":"not-a-number"}"#,
    ] {
        socket.send_text(ping);
        let pong = text(&mut socket);
        assert_eq!(without(&pong, &["timestamp"]), r#"{"type":"pong","timestamp":"…"}"#);
    }
}

#[test]
fn status_is_a_request_and_a_response() {
    let server = Server::start(&[]);
    let mut socket = open(&server, "client_id=abc-123&role=admin");
    let hello = socket.expect_json("hello");
    socket.send_text(r#"{"type":"status","timestamp":"2025-08-15T10:00:00Z"}"#);
    let status = socket.expect_json("status");
    assert_eq!(status["request_id"], hello["request_id"]);
    assert_eq!(
        (&status["status"], &status["client_id"], &status["role"], &status["accepted_version"]),
        (&json!("connected"), &json!("abc-123"), &json!("admin"), &json!(1))
    );
    assert!(is_as_printed(&status["connected_since"]) && is_as_printed(&status["timestamp"]));
    assert!(status["uptime_ms"].as_u64().unwrap() < 60_000);
}

#[test]
fn an_unknown_type_is_an_error_and_the_connection_stays() {
    let server = Server::start(&[]);
    let mut socket = open(&server, "client_id=abc-123");
    socket.expect_json("hello");
    for (said, code, field) in [
        (
            r#"{"type":"test_message","timestamp":"2025-08-15T10:00:00Z","payload":{"test":"data"}}"#,
            101,
            json!("type"),
        ),
        // What v2 has is unknown here: there are no rooms.
        (r#"{"type":"subscribe","room":"public:lobby"}"#, 101, json!("type")),
        (r#"{"type":"publish","room":"public:lobby","data":1}"#, 101, json!("type")),
        (r#"{"timestamp":"2025-08-15T10:00:00Z"}"#, 100, json!("type")),
        (r#"{"type":7}"#, 100, json!("type")),
        ("not json", 100, Value::Null),
        ("[]", 100, Value::Null),
        (r#"{"type":"ping","type":"pong"}"#, 100, Value::Null),
    ] {
        socket.send_text(said);
        let error = socket.expect_json("error");
        assert_eq!((&error["code"], &error["field"]), (&json!(code), &field), "{said}: {error}");
        assert!(is_as_printed(&error["timestamp"]), "{error}");
    }
    socket.send_text(r#"{"type":"ping"}"#);
    socket.expect_json("pong");
}

#[test]
fn the_printed_message_is_taken_with_its_line_breaks() {
    let server = Server::start(&[]);
    let mut socket = open(&server, "client_id=abc-123");
    socket.expect_json("hello");
    let comment = "// Additional fields based on message type";
    let filled = MESSAGE.replace(comment, r#""payload": { "test": "data" }"#);
    for (said, code, field) in [
        // No host has such a type here, so the answer shows how far it was read.
        (&*filled, 101, json!("type")),
        // The comment is the document's word for fields; as it stands there it is no JSON.
        (MESSAGE, 100, Value::Null),
    ] {
        socket.send_text(said);
        let error = socket.expect_json("error");
        assert_eq!((&error["code"], &error["field"]), (&json!(code), &field), "{said}");
    }
    socket.send_text(&filled.replace("message_type", "ping"));
    socket.expect_json("pong");
}

#[test]
fn a_role_grants_nothing_and_a_client_that_nobody_knows_is_let_in_all_the_same() {
    let secret = crate::client::secret();
    let server = Server::start(&["--set", &secret, "--set", "auth.allow_anonymous=false"]);
    let mut socket = open(&server, "client_id=abc-123&role=admin");
    socket.expect_json("hello");
    socket.send_text(r#"{"type":"presence","room":"public:lobby"}"#);
    assert_eq!(socket.expect_json("error")["code"], 101);
    // A token that comes all the same has to be right.
    let mut socket = open(&server, "client_id=abc-123&token=nonsense");
    assert_eq!(socket.read_close().0, 3500);
}

#[test]
fn the_legacy_endpoint_is_a_simple_echo_server_without_structured_handshake() {
    let server = Server::start(&[]);
    let mut socket = RawSocket::open(server.addr(), "/ws/some-client");
    socket.send_text("not json, and not answered with an error");
    assert_eq!(text(&mut socket), "not json, and not answered with an error");
    socket.send_text(r#"{"type":"ping"}"#);
    assert_eq!(text(&mut socket), r#"{"type":"ping"}"#);
}

#[test]
fn an_endpoint_that_is_switched_off_is_not_there() {
    let off = ["--set", "server.client_endpoint=false", "--set", "server.echo_endpoint=false"];
    let server = Server::start(&off);
    assert_eq!(crate::http::get(server.addr(), &format!("{PATH}?client_id=a")).status, 404);
}

#[test]
fn a_server_that_stops_ends_the_connection_with_a_code_to_come_back_after() {
    let mut server = Server::start(&["--set", "server.drain_window_ms=1000"]);
    let mut socket = open(&server, "client_id=abc-123").with_deadline(Duration::from_secs(10));
    socket.expect_json("hello");
    server.terminate();
    assert_eq!(socket.read_close(), (1012, "restart".to_owned()));
}

#[test]
fn clients_of_node_and_python_shake_hands_and_see_the_documented_codes() {
    let server = Server::start(&[]);
    let url = format!("ws://{}{PATH}", server.addr());
    let expected = "hello 1 pong status error 101\nclosed 4400\nclosed 4401\nclosed 1008\n";
    if require(Tool::Node) {
        assert_eq!(node("document_003.mjs", &["--url", &url]), expected);
    }
    if require(Tool::Python) {
        assert_eq!(python("document_003.py", &["--url", &url]), expected);
    }
}
