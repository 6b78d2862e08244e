//! The built server on a Postgres: what is durable is there after it was killed, and it says when Postgres is
//! away.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::postgres::Postgres;
use tests::raw::RawSocket;
use tests::server::{Server, exit_of_with};
use tests::token::SECRET;

use crate::fleet::until_status;
use crate::postgres_stores::SOON;

const KEY: &str = "a-key-of-the-tests-that-is-long-enough";

pub(crate) fn arguments() -> Vec<String> {
    let set = [
        "namespaces.public.durable=true".to_owned(),
        "rooms.\"public:memory\".durable=false".to_owned(),
        format!("auth.hmac_secret={SECRET}"),
        format!("api.keys.backend.key={KEY}"),
        "api.keys.backend.scopes=publish,history,matches".to_owned(),
        "store.answer_timeout_ms=500".to_owned(),
    ];
    set.into_iter().flat_map(|set| ["--set".to_owned(), set]).collect()
}

fn start(postgres: &Postgres) -> Server {
    let words = arguments();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    Server::start_with(&words, &[("DATABASE_URL", &postgres.url())])
}

/// What the server API answers, with its status.
pub(crate) fn ask(server: &Server, method: &str, path: &str, body: &str) -> (String, Value) {
    let mut socket = RawSocket::connect(server.addr());
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.send(request.as_bytes());
    let answer = String::from_utf8(socket.read_until_closed()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].to_owned(), serde_json::from_str(body).unwrap_or_default())
}

pub(crate) fn publish(server: &Server, room: &str, n: u64) -> (String, Value) {
    let body = json!({"room": room, "data": {"n": n}, "msg_id": format!("m{n}")}).to_string();
    ask(server, "POST", "/api/v1/publish", &body)
}

fn history(server: &Server, room: &str) -> Vec<u64> {
    let (_, page) = ask(server, "GET", &format!("/api/v1/history?room={room}&limit=100"), "");
    let messages = page["messages"].as_array().unwrap_or_else(|| panic!("{page}"));
    messages.iter().filter_map(|message| message["data"]["n"].as_u64()).collect()
}

/// PG01 and a killed server: durable rooms are refused while Postgres is dead, and all comes back.
#[test]
fn what_is_durable_is_there_after_a_kill_and_a_dead_postgres_is_said() {
    if !Postgres::is_here() {
        return;
    }
    let mut postgres = Postgres::start();
    let mut server = start(&postgres);
    until_status(&server, 200);
    for n in 1..=20 {
        let (status, receipt) = publish(&server, "public:kept", n);
        assert_eq!((&*status, &receipt["level"]), ("200", &json!("durable")), "{receipt}");
    }
    let epoch = publish(&server, "public:kept", 20).1["epoch"].clone();
    server.kill();
    server.restart();
    until_status(&server, 200);
    assert_eq!(history(&server, "public:kept"), (1..=20).collect::<Vec<_>>());
    let (_, receipt) = publish(&server, "public:kept", 20);
    assert_eq!((&receipt["duplicate"], &receipt["epoch"]), (&json!(true), &epoch));

    postgres.kill();
    until_status(&server, 503);
    assert_eq!(publish(&server, "public:kept", 21).0, "503");
    assert_eq!(publish(&server, "public:memory", 1).0, "200");
    // Whoever comes is let in: all but durable rooms goes on.
    let mut ann = RawSocket::open(server.addr(), "/ws/v2/connect");
    ann.expect_json("hello");
    postgres.start_again();
    until_status(&server, 200);
    assert_eq!(publish(&server, "public:kept", 21).0, "200");
    assert_eq!(history(&server, "public:kept"), (1..=21).collect::<Vec<_>>());
    server.terminate();
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn a_second_server_on_one_schema_is_refused_and_says_what_to_do() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let server = start(&postgres);
    let words = arguments();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (code, _, said) = exit_of_with(&words, &[("DATABASE_URL", &postgres.url())]);
    assert_eq!(code, Some(74), "{said}");
    assert!(said.contains("in use by roomkeeper/") && said.contains("Redis"), "{said}");
    assert_eq!(publish(&server, "public:kept", 1).0, "200");
}

#[test]
fn a_node_on_postgres_has_the_metrics_that_are_documented_for_it() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let server = start(&postgres);
    let document = include_str!("../../docs/observability.md");
    let rows = document.lines().filter(|line| line.starts_with("| `roomkeeper_postgres_"));
    let names = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let listed: BTreeSet<_> =
        names.filter(|name| name.starts_with("roomkeeper_postgres_")).collect();
    let mut socket = RawSocket::connect(server.addr()).with_deadline(SOON);
    socket.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8(socket.read_until_closed()).unwrap();
    let words = text.lines().filter_map(|line| line.split([' ', '{']).next());
    let shown: BTreeSet<_> =
        words.filter(|word| word.starts_with("roomkeeper_postgres_")).collect();
    assert_eq!(shown, listed);
    assert!(text.contains("\nroomkeeper_postgres_up 1.0\n"), "{text}");
}
