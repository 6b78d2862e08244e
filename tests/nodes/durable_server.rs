//! Built servers on one Redis and one Postgres: what any of them acknowledged as durable is there for all of them.

use serde_json::{Value, json};
use tests::postgres::Postgres;
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256, with_claim};

use crate::fleet::until_status;
use crate::postgres_server::{arguments, ask, publish};
use crate::postgres_stores::SOON;

const ROOM: &str = "public:kept";

fn start(redis: &Redis, postgres: &Postgres) -> Server {
    let mut words = arguments();
    for more in ["redis.answer_timeout_ms=1000", "api.keys.backend.scopes=publish,history,revoke"] {
        words.extend(["--set".to_owned(), more.to_owned()]);
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (redis, postgres) = (redis.url(), postgres.url());
    Server::start_with(&words, &[("DATABASE_URL", &postgres), ("REDIS_URL", &redis)])
}

/// Repeats it until it is taken, as clients do.
fn until_published(server: &Server, n: u64) -> Value {
    let begin = std::time::Instant::now();
    loop {
        let (status, receipt) = publish(server, ROOM, n);
        if status == "200" {
            return receipt;
        }
        assert!(begin.elapsed() < SOON, "{status}: {receipt}");
    }
}

/// All of the room's log, page by page: what is in Postgres and what is in Redis don't come in one.
fn history(server: &Server) -> Vec<u64> {
    let (mut all, mut from) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/history?room={ROOM}&limit=100{from}");
        let (status, page) = ask(server, "GET", &path, "");
        assert_eq!((&*status, &page["gap"]), ("200", &Value::Null), "{page}");
        let messages = page["messages"].as_array().unwrap();
        all.extend(messages.iter().filter_map(|message| message["data"]["n"].as_u64()));
        if page["more"] == json!(false) {
            return all;
        }
        from = format!("&epoch={}&offset={}", page["epoch"].as_str().unwrap(), page["offset"]);
    }
}

/// RD13, N01 and N07 in durable rooms.
#[test]
fn what_any_of_three_nodes_acknowledged_as_durable_is_there_after_redis_and_a_node_are_killed() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (mut redis, postgres) = (Redis::start(), Postgres::start());
    let mut nodes = [(); 3].map(|()| start(&redis, &postgres));
    nodes.iter().for_each(|node| until_status(node, 200));
    for n in 1..=30 {
        let (status, receipt) = publish(&nodes[n as usize % 3], ROOM, n);
        assert_eq!((&*status, &receipt["level"]), ("200", &json!("durable")), "{receipt}");
        assert_eq!(receipt["offset"], json!(n));
    }
    redis.start_again();
    nodes[0].kill();
    for n in 31..=40 {
        let receipt = until_published(&nodes[1 + n as usize % 2], n);
        assert_eq!(receipt["level"], json!("durable"));
    }
    // A retry of what was stored before the loss is that message.
    let again = until_published(&nodes[1], 30);
    assert_eq!((&again["duplicate"], &again["offset"]), (&json!(true), &json!(30)));
    nodes[0].restart();
    until_status(&nodes[0], 200);
    for node in &nodes {
        assert_eq!(history(node), (1..=40).collect::<Vec<_>>());
    }
}

/// The close code that greets whoever comes with this token, or none.
fn turned_away(node: &Server, token: &str) -> Option<u16> {
    let mut socket = RawSocket::open(node.addr(), &format!("/ws/v2/connect?token={token}"));
    let first = socket.next_json();
    match first["type"].as_str() {
        Some("hello") => None,
        Some("disconnect") => Some(socket.read_close_code()),
        _ => panic!("{first}"),
    }
}

/// RD13: Redis tells nodes of both, and Postgres keeps them.
#[test]
fn what_was_used_up_or_taken_back_stays_so_when_redis_and_all_nodes_are_lost() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (mut redis, postgres) = (Redis::start(), Postgres::start());
    let mut nodes = [(); 2].map(|()| start(&redis, &postgres));
    nodes.iter().for_each(|node| until_status(node, 200));
    let once = |id: &str| {
        let claims = with_claim(claims("ann", "public:*"), "jti", json!(id));
        hs256(SECRET, &with_claim(claims, "once", json!(true)))
    };
    let of_bob = hs256(SECRET, &claims("bob", "public:*"));
    assert_eq!(turned_away(&nodes[0], &once("spent")), None);
    assert_eq!(turned_away(&nodes[1], &once("spent")), Some(3500), "on another node");
    assert_eq!(turned_away(&nodes[1], &of_bob), None);
    let (status, answer) = ask(&nodes[0], "POST", "/api/v1/revoke", r#"{"user_id":"bob"}"#);
    assert_eq!(status, "200", "{answer}");
    redis.start_again();
    nodes.iter().for_each(|node| until_status(node, 200));
    let all_refuse = |nodes: &[Server]| {
        for node in nodes {
            assert_eq!(turned_away(node, &once("spent")), Some(3500));
            assert_eq!(turned_away(node, &of_bob), Some(3507));
        }
    };
    all_refuse(&nodes);
    nodes.iter_mut().for_each(Server::kill);
    redis.start_again();
    nodes.iter_mut().for_each(Server::restart);
    nodes.iter().for_each(|node| until_status(node, 200));
    all_refuse(&nodes);
    assert_eq!(turned_away(&nodes[1], &once("fresh")), None);
}
