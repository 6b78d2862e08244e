//! Nodes and a Postgres whose wall clocks differ, by minutes or by a day: what orders is the place, and who is there is
//! decided by the clock of Redis alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::false_system::FalseSystem;
use tests::postgres::Postgres;
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256, now};

use crate::fleet::until_status;
use crate::postgres_server::{KEY, ask, chat, is_let_in, moderate, publish};
use crate::postgres_stores::SOON;
use crate::stopped::ASKED_ALL_THE_TIME;

/// Short, so that nobody has to wait.
const LEASE: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_millis(500);
/// Five minutes behind, right, and five minutes ahead.
const OFF: [i64; 3] = [-300, 0, 300];
const ROOM: &str = "public:clock";

/// A node whose clock is off.
struct Node {
    server: Server,
    _system: FalseSystem,
}

/// A node for each of these clocks, or none where a lie can't be made.
fn nodes(redis: &Redis, postgres: Option<&Postgres>, off: &[i64]) -> Option<Vec<Node>> {
    let ticket_secret = "a-ticket-secret-of-the-tests".repeat(2);
    let start = |off: &i64| {
        let system = FalseSystem::build()?;
        system.set_clock_off(*off);
        let set = [
            format!("redis.url={}", redis.url()),
            "redis.answer_timeout_ms=1000".to_owned(),
            format!("redis.lease_ms={}", LEASE.as_millis()),
            format!("redis.leave_grace_ms={}", GRACE.as_millis()),
            format!("auth.hmac_secret={SECRET}"),
            format!("auth.ticket_secret={ticket_secret}"),
            format!("api.keys.backend.key={KEY}"),
            "api.keys.backend.scopes=publish,history".to_owned(),
            format!("namespaces.public.durable={}", postgres.is_some()),
        ];
        let set: Vec<_> = set.into_iter().chain(ASKED_ALL_THE_TIME.map(str::to_owned)).collect();
        let words: Vec<_> = set.iter().flat_map(|set| ["--set", set]).collect();
        let url = postgres.map(Postgres::url);
        let lies = system.environment();
        let mut environment: Vec<_> = lies.iter().map(|(name, it)| (*name, it.as_str())).collect();
        environment.extend(url.as_deref().map(|url| ("DATABASE_URL", url)));
        let server = Server::start_with(&words, &environment);
        until_status(&server, 200);
        Some(Node { server, _system: system })
    };
    off.iter().map(start).collect()
}

fn connect(node: &Server, user: &str) -> (RawSocket, Value) {
    let token = hs256(SECRET, &claims(user, "public:*"));
    let path = format!("/ws/v2/connect?token={token}");
    let mut socket = RawSocket::open(node.addr(), &path).with_deadline(SOON);
    let hello = socket.expect_json("hello");
    (socket, hello)
}

fn subscribe(socket: &mut RawSocket, since: &Value) -> Value {
    socket.send_json(&json!({
        "type": "subscribe", "id": 1, "room": ROOM, "presence": true, "since": since,
    }));
    socket.expect_json("subscribed")
}

fn say(socket: &mut RawSocket, n: u64) {
    socket.send_json(&json!({
        "type": "publish", "id": n, "room": ROOM, "data": {"n": n}, "msg_id": format!("m{n}"),
    }));
}

/// Milliseconds since midnight of a timestamp, `2026-11-21T10:57:19.466Z`.
fn of_day(message: &Value) -> i64 {
    let text = message["timestamp"].as_str().unwrap();
    let number = |at: std::ops::Range<usize>| text[at].parse::<i64>().unwrap();
    ((number(11..13) * 60 + number(14..16)) * 60 + number(17..19)) * 1_000 + number(20..23)
}

/// Those who are in the room, by what a node lists.
fn listed(socket: &mut RawSocket) -> Vec<String> {
    socket.send_json(&json!({"type": "presence", "id": 99, "room": ROOM}));
    let list = socket.expect_json("presence");
    let names = list["members"].as_array().unwrap().iter();
    names.map(|member| member["user_id"].as_str().unwrap().to_owned()).collect()
}

/// Looks at presence for a while, and gives who was told to have left.
fn seen_to_leave(socket: &mut RawSocket, span: Duration) -> Vec<String> {
    let (begun, mut gone) = (Instant::now(), Vec::new());
    while begun.elapsed() < span {
        socket.send_json(&json!({"type": "ping"}));
        loop {
            let next = socket.next_json();
            if next["type"] == "presence_event" && next["event"] == "leave" {
                gone.push(next["user_id"].as_str().unwrap().to_owned());
            }
            if next["type"] == "pong" {
                break;
            }
        }
    }
    gone
}

/// Where a message is, and which it is.
fn place(message: &Value) -> (Option<u64>, Option<u64>) {
    (message["offset"].as_u64(), message["data"]["n"].as_u64())
}

/// Who comes back to another node has missed nothing, and comes in by a ticket of the one ahead.
fn come_back(nodes: &[Node], epoch: &Value, said: u64) {
    let (_, hello) = connect(&nodes[2].server, "back");
    let mut back = RawSocket::open(nodes[0].server.addr(), "/ws/v2/connect").with_deadline(SOON);
    back.send_json(&json!({
        "type": "connect", "id": 1, "session": hello["session"],
        "resume": [{"room": ROOM, "epoch": epoch, "offset": 20}],
    }));
    let hello = loop {
        let hello = back.expect_json("hello");
        if hello["id"] == json!(1) {
            break hello;
        }
    };
    let entry = &hello["resumed"][0];
    assert_eq!((&hello["user_id"], &entry["gap"]), (&json!("back"), &Value::Null), "{hello}");
    let missed: Vec<_> = entry["messages"].as_array().unwrap().iter().map(place).collect();
    assert_eq!(missed, (21..=said).map(|n| (Some(n), Some(n))).collect::<Vec<_>>());
}

/// T03: three nodes, ten minutes between the first and the last.
#[test]
fn nodes_whose_clocks_are_ten_minutes_apart_see_one_order_and_the_same_members() {
    const SAID: u64 = 60;
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let Some(mut nodes) = nodes(&redis, None, &OFF) else { return };
    let mut members: Vec<_> = nodes
        .iter()
        .zip(["u0", "u1", "u2"])
        .map(|(node, user)| connect(&node.server, user).0)
        .collect();
    let mut epoch = Value::Null;
    for member in &mut members {
        epoch = subscribe(member, &Value::Null)["epoch"].clone();
    }
    let mut heard = vec![Vec::new(); 3];
    for n in 1..=SAID {
        say(&mut members[n as usize % 3], n);
        for (member, heard) in members.iter_mut().zip(&mut heard) {
            heard.push(member.expect_json("message"));
        }
    }
    for heard in &heard {
        let places: Vec<_> = heard.iter().map(place).collect();
        assert_eq!(places, (1..=SAID).map(|n| (Some(n), Some(n))).collect::<Vec<_>>());
    }
    // They do go by other clocks: what the one ahead said is ten minutes later than what came next.
    let of_a_day = 86_400_000;
    let apart = (of_day(&heard[0][1]) - of_day(&heard[0][2])).rem_euclid(of_a_day);
    assert!((595_000..605_000).contains(&apart), "{apart}");
    // A retry over another node, five and ten minutes later or earlier, is that message.
    for n in [1, 2, 3, SAID] {
        for node in &nodes {
            let (mut again, _) = connect(&node.server, ["u0", "u1", "u2"][n as usize % 3]);
            say(&mut again, n);
            let ack = again.expect_json("ack");
            assert_eq!((&ack["duplicate"], &ack["offset"]), (&json!(true), &json!(n)), "{ack}");
            assert_eq!(ack["epoch"], epoch);
        }
    }
    come_back(&nodes, &epoch, SAID);

    // Nobody's lease has run out for another's clock, and that of a node that is gone does at its time.
    let here = ["u0", "u1", "u2"].map(str::to_owned);
    let gone = seen_to_leave(&mut members[0], 2 * LEASE);
    assert!(gone.iter().all(|user| user == "back"), "{gone:?}");
    for member in &mut members {
        assert_eq!(listed(member), here);
    }
    for (of, left) in [(2, &["u0", "u1"][..]), (0, &["u1"][..])] {
        let begun = Instant::now();
        nodes[of].server.kill();
        while listed(&mut members[1]) != left {
            assert!(begun.elapsed() < LEASE + GRACE + Duration::from_secs(4), "they stay");
        }
        // No sooner than a lease lasts, less what was gone of it.
        assert!(begun.elapsed() > LEASE / 2, "{:?}", begun.elapsed());
    }
}

/// PG13: a day ahead of the nodes and a day behind, which are ten minutes apart themselves.
#[test]
fn a_postgres_whose_clock_is_a_day_off_orders_nothing_and_ends_nothing_by_it() {
    const SAID: u64 = 30;
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    for day in [86_400, -86_400] {
        let Some(system) = FalseSystem::build() else { return };
        system.set_clock_off(day);
        let (mut redis, postgres) = (Redis::start(), Postgres::start_under(&system));
        let clock = postgres.ask("SELECT extract(epoch FROM clock_timestamp())::bigint");
        let off = clock.parse::<i64>().unwrap() - i64::try_from(now()).unwrap();
        assert!((off - day).abs() < 60, "{off}");
        let off = [OFF[0], OFF[2]];
        let Some(mut nodes) = nodes(&redis, Some(&postgres), &off) else { return };
        for n in 1..=SAID {
            let (status, receipt) = publish(&nodes[n as usize % 2].server, ROOM, n);
            assert_eq!((&*status, &receipt["level"]), ("200", &json!("durable")), "{receipt}");
            assert_eq!(receipt["offset"], json!(n));
        }
        let mut moderator = chat(&nodes[0].server, "mod", &json!(["moderator"]));
        moderate(&mut moderator, "ban");
        // A letter waits for its reader, whichever node that comes to.
        moderator.send_json(&json!({
            "type": "chat_message", "id": 2, "content": "dear bob", "channel": "private", "to_user_id": "bob",
        }));
        while moderator.next_json()["type"] != "ack" {}
        let mut bob = chat(&nodes[1].server, "bob", &json!([]));
        let begun = Instant::now();
        while bob.next_json()["content"] != "dear bob" {
            assert!(begun.elapsed() < SOON, "the letter does not come");
        }
        // What is in Postgres alone has the same order, and is kept by the time of who said it.
        redis.start_again();
        let begun = Instant::now();
        for node in &mut nodes {
            node.server.kill();
            node.server.restart();
            until_status(&node.server, 200);
        }
        assert!(begun.elapsed() < SOON);
        for node in &nodes {
            let path = format!("/api/v1/history?room={ROOM}&limit=100");
            let (status, page) = ask(&node.server, "GET", &path, "");
            let messages = page["messages"].as_array().unwrap_or_else(|| panic!("{status} {page}"));
            let read: Vec<_> = messages.iter().map(|message| message["offset"].as_u64()).collect();
            assert_eq!(read, (1..=SAID).map(Some).collect::<Vec<_>>());
            assert!(!is_let_in(&node.server, "ann"), "a ban without an end is over");
        }
    }
}
