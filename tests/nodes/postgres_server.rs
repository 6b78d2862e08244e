//! The built server on a Postgres: what is durable is there after it was killed, and it says when Postgres is
//! away.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::postgres::Postgres;
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::{Server, exit_of_with};
use tests::token::{SECRET, claims, hs256, with_claim};

use crate::fleet::until_status;
use crate::passage::Passage;
use crate::postgres_stores::SOON;

pub(crate) const KEY: &str = "a-key-of-the-tests-that-is-long-enough";

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

/// A chat connection, greeted; moderators have the role.
pub(crate) fn chat(node: &Server, user: &str, roles: &Value) -> RawSocket {
    let token = hs256(SECRET, &with_claim(claims(user, "chat:*"), "roles", roles.clone()));
    let mut socket = RawSocket::open(node.addr(), &format!("/ws/chat?token={token}"));
    socket.expect_json("connected");
    socket
}

/// What somebody is told until the answer to a `ping`.
fn heard(socket: &mut RawSocket) -> Vec<Value> {
    socket.send_json(&json!({"type": "ping"}));
    let mut heard = Vec::new();
    loop {
        let next = socket.next_json();
        if next["type"] == "pong" {
            return heard;
        }
        heard.push(next);
    }
}

pub(crate) fn moderate(moderator: &mut RawSocket, action: &str) {
    moderator.send_json(&json!({
        "type": "moderation", "id": 1, "action": action, "user_id": "ann", "channel": "global",
    }));
    while moderator.next_json()["type"] != "ack" {}
}

/// Somebody who asks to be let into the chat's room.
fn member(node: &Server, user: &str) -> RawSocket {
    let token = hs256(SECRET, &claims(user, "chat:*"));
    let mut socket = RawSocket::open(node.addr(), &format!("/ws/v2/connect?token={token}"));
    socket.expect_json("hello");
    socket.send_json(&json!({"type": "subscribe", "id": 1, "room": "chat:global"}));
    socket
}

pub(crate) fn is_let_in(node: &Server, user: &str) -> bool {
    let answer = member(node, user).next_json();
    assert!(answer["type"] == "subscribed" || answer["error"] == "permission_denied", "{answer}");
    answer["type"] == "subscribed"
}

fn until_so(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "in vain: {what}");
    }
}

/// Two nodes that share rooms over Redis and what lasts over Postgres.
fn two_nodes(redis: &Redis, postgres: &Postgres) -> [Server; 2] {
    two_nodes_at([redis.url(), redis.url()], postgres)
}

/// The same, each with an address of its own for Redis.
fn two_nodes_at(redis: [String; 2], postgres: &Postgres) -> [Server; 2] {
    let url = postgres.url();
    let nodes = redis.map(|redis| {
        let set = [
            format!("redis.url={redis}"),
            "redis.answer_timeout_ms=1000".to_owned(),
            format!("auth.hmac_secret={SECRET}"),
            format!("auth.ticket_secret={}", "a-ticket-secret-of-the-tests".repeat(2)),
        ];
        let words: Vec<_> = set.iter().flat_map(|set| ["--set", set]).collect();
        Server::start_with(&words, &[("DATABASE_URL", url.as_str())])
    });
    nodes.iter().for_each(|node| until_status(node, 200));
    nodes
}

/// It hears of nothing over Redis, and asks the store when it is back.
#[test]
fn a_node_that_was_away_learns_what_moderators_did_meanwhile() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let way = Passage::start(runtime.handle(), redis.port());
    let nodes = two_nodes_at([redis.url(), way.url()], &postgres);
    let mut moderator = chat(&nodes[0], "mod", &json!(["moderator"]));
    let mut ann = member(&nodes[1], "ann");
    ann.expect_json("subscribed");
    way.shut();
    until_status(&nodes[1], 503);
    moderate(&mut moderator, "ban");
    way.open();
    until_status(&nodes[1], 200);
    let out = ann.expect_json("unsubscribed");
    assert_eq!((&out["room"], out["code"].as_u64()), (&json!("chat:global"), Some(103)));
    assert!(!is_let_in(&nodes[1], "ann"));
    way.shut();
    until_status(&nodes[1], 503);
    moderate(&mut moderator, "unban");
    way.open();
    until_status(&nodes[1], 200);
    until_so("it is known that the ban was lifted", || is_let_in(&nodes[1], "ann"));
}

/// As of a node that was killed before it could tell anybody, and whose clock was years behind.
#[test]
fn what_stands_in_the_log_of_all_counts_on_a_node_that_was_told_nothing_whatever_its_time() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let nodes = two_nodes(&redis, &postgres);
    let mut members = [member(&nodes[0], "ann"), member(&nodes[1], "ann")];
    members.iter_mut().for_each(|member| drop(member.expect_json("subscribed")));
    postgres.tell(
        "INSERT INTO roomkeeper.moderation_log (at_ms, by_user, room, act, who) \
         VALUES (1000, 'mod', 'chat:global', 3, 'ann')",
    );
    for (member, node) in members.iter_mut().zip(&nodes) {
        let out = member.expect_json("unsubscribed");
        assert_eq!((&out["room"], out["code"].as_u64()), (&json!("chat:global"), Some(103)));
        assert!(!is_let_in(node, "ann"));
    }
}

/// Each line of the log takes the tables a second and a half, and both nodes bring it.
#[test]
fn whoever_is_banned_over_one_node_is_out_on_the_other_however_slow_their_tables_are() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let nodes = two_nodes(&redis, &postgres);
    let roles = json!(["moderator"]);
    let mut moderators = ["m1", "m2", "m3", "m4"].map(|user| chat(&nodes[0], user, &roles));
    let users = ["ann", "bob", "carl", "dora"];
    let mut members = users.map(|user| member(&nodes[1], user));
    members.iter_mut().for_each(|member| drop(member.expect_json("subscribed")));
    postgres.tell(
        "SET search_path = roomkeeper; \
         CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END $$; \
         CREATE TRIGGER slowly BEFORE INSERT ON moderation_log \
         FOR EACH ROW EXECUTE FUNCTION slowly()",
    );
    let begun = Instant::now();
    for (user, moderator) in users.iter().zip(&mut moderators) {
        moderator.send_json(&json!({
            "type": "moderation", "id": 1, "action": "ban", "user_id": user, "channel": "global",
        }));
    }
    for member in &mut members {
        assert_eq!(member.expect_json("unsubscribed")["room"], "chat:global");
    }
    // Nothing is stored yet.
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
}

#[test]
fn on_two_nodes_over_redis_and_postgres_a_ban_is_one_line_and_counts_on_both_and_a_letter_comes_once()
 {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let mut nodes = two_nodes(&redis, &postgres);
    let moderator = json!(["moderator"]);
    let mut one = chat(&nodes[0], "mod", &moderator);
    let mut other = chat(&nodes[1], "judge", &moderator);
    moderate(&mut one, "ban");
    until_so("it counts on the other node", || !is_let_in(&nodes[1], "ann"));
    // Stored behind what this node has heard before, which is stored then, too.
    moderate(&mut other, "unban");
    until_so("it counts on the first node", || is_let_in(&nodes[0], "ann"));
    let lines = |act: u8| {
        let count = format!("SELECT count(*) FROM roomkeeper.moderation_log WHERE act = {act}");
        postgres.ask(&count)
    };
    assert_eq!((&*lines(3), &*lines(4)), ("1", "1"));
    moderate(&mut one, "ban");
    until_so("it counts on the other node", || !is_let_in(&nodes[1], "ann"));
    nodes[1].kill();
    nodes[1].restart();
    until_status(&nodes[1], 200);
    assert!(!is_let_in(&nodes[1], "ann"), "it is known after a start");
    assert_eq!((&*lines(3), &*lines(4)), ("2", "1"));

    // Bob is nowhere; comes to the other node; and comes again to the first.
    one.send_json(&json!({
        "type": "chat_message", "id": 2, "content": "dear bob", "channel": "private", "to_user_id": "bob",
    }));
    while one.next_json()["type"] != "ack" {}
    let letters = |socket: &mut RawSocket| {
        let heard = heard(socket);
        heard.iter().filter(|one| one["content"] == "dear bob").count()
    };
    let mut bob = chat(&nodes[1], "bob", &json!([]));
    let mut n = 0;
    until_so("the letter comes", || {
        n += letters(&mut bob);
        n > 0
    });
    let left = || postgres.ask("SELECT count(*) FROM roomkeeper.letters");
    until_so("it is taken out", || left() == "0");
    drop(bob);
    let mut bob = chat(&nodes[0], "bob", &json!([]));
    assert_eq!((n, letters(&mut bob)), (1, 0));
}
