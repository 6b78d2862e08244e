//! Rules that count over all nodes, with built servers: one session, how many connections, who is banned, and
//! what the server API knows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256, with_claim};

use crate::fleet::until_status;

const KEY: &str = "a-key-of-the-tests-that-is-long-enough";
const LEASE: Duration = Duration::from_secs(3);
/// How long anything may take that has to come to an end.
const DEADLINE: Duration = Duration::from_secs(60);

/// Built servers on one Redis, ready, with these settings beside those of the tests.
fn nodes(redis: &Redis, count: usize, more: &[&str]) -> Vec<Server> {
    let ticket_secret = "a-ticket-secret-of-the-tests".repeat(2);
    let mut set = vec![
        format!("redis.url={}", redis.url()),
        "redis.answer_timeout_ms=1000".to_owned(),
        format!("redis.lease_ms={}", LEASE.as_millis()),
        format!("auth.hmac_secret={SECRET}"),
        format!("auth.ticket_secret={ticket_secret}"),
        format!("api.keys.backend.key={KEY}"),
        "api.keys.backend.scopes=publish,revoke,rooms,connections,disconnect,presence,history"
            .to_owned(),
    ];
    set.extend(more.iter().map(ToString::to_string));
    let words: Vec<_> = set.iter().flat_map(|set| ["--set", set]).collect();
    let nodes: Vec<_> = (0..count).map(|_| Server::start(&words)).collect();
    nodes.iter().for_each(|node| until_status(node, 200));
    nodes
}

const NEWEST: &str = "auth.single_session=newest_wins";

fn path(user: &str) -> String {
    format!("/ws/v2/connect?token={}", hs256(SECRET, &claims(user, "public:*")))
}

/// A connection of this user that is let in, with its `hello`.
fn greeted(node: &Server, user: &str) -> (RawSocket, Value) {
    let mut socket = RawSocket::open(node.addr(), &path(user));
    let hello = socket.expect_json("hello");
    (socket, hello)
}

fn request(node: &Server, head: &str, body: &str) -> Value {
    let mut socket = RawSocket::connect(node.addr());
    let request = format!(
        "{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.send(request.as_bytes());
    let answer = String::from_utf8(socket.read_until_closed()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head} {body}");
    serde_json::from_str(body).unwrap()
}

fn get(node: &Server, path: &str) -> Value {
    request(node, &format!("GET {path}"), "")
}

fn post(node: &Server, path: &str, body: &Value) -> Value {
    request(node, &format!("POST {path}"), &body.to_string())
}

/// Asks again until the answer is as it should be.
fn until(node: &Server, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let answer = get(node, path);
        if is_so(&answer) {
            return answer;
        }
        assert!(begin.elapsed() < DEADLINE, "{path}: {answer}");
    }
}

fn say(socket: &mut RawSocket, id: u64, text: &str) {
    let data = json!({"says": text});
    socket.send_json(&json!({"type": "publish", "id": id, "room": "public:a", "data": data}));
}

fn subscribe(socket: &mut RawSocket) {
    socket.send_json(&json!({"type": "subscribe", "id": 1, "room": "public:a"}));
    socket.expect_json("subscribed");
}

/// D01, T05: the old node is frozen while its user takes over on another, with commands of the old connection in
/// its socket. When it goes on it knows of nothing yet; what it then reads is refused all the same.
#[test]
fn what_waited_in_a_frozen_node_is_refused_when_its_user_has_taken_over_on_another() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let mut nodes = nodes(&redis, 3, &[NEWEST]);
    let (mut bob, _) = greeted(&nodes[2], "bob");
    subscribe(&mut bob);
    for round in 0..5 {
        let user = format!("ann{round}");
        let (mut old, _) = greeted(&nodes[0], &user);
        subscribe(&mut old);
        say(&mut old, 2, "before");
        old.expect_json("ack");
        assert_eq!(bob.expect_json("message")["data"]["says"], "before");
        nodes[0].suspend();
        for id in 3..20 {
            say(&mut old, id, "too late");
        }
        let (mut new, _) = greeted(&nodes[1], &user);
        say(&mut new, 2, "after");
        new.expect_json("ack");
        nodes[0].go_on();
        assert_eq!(old.read_close_code(), 3505);
        say(&mut new, 3, "end");
        new.expect_json("ack");
        for expected in ["after", "end"] {
            assert_eq!(bob.expect_json("message")["data"]["says"], expected, "round {round}");
        }
    }
    let log = get(&nodes[2], "/api/v1/history?room=public:a").to_string();
    assert!(!log.contains("too late"), "{log}");
}

/// D01: a node that could not hear of a take-over, as its Redis does not answer it.
#[test]
fn while_redis_does_not_answer_nobody_is_let_in_anew_and_the_session_that_is_there_says_nothing() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let nodes = nodes(&redis, 1, &[NEWEST]);
    let (mut ann, _) = greeted(&nodes[0], "ann");
    // Whoever is there already and says only now who it is; others get no upgrade.
    let mut bob = RawSocket::open(nodes[0].addr(), "/ws/v2/connect");
    bob.expect_json("hello");
    redis.suspend();
    until_status(&nodes[0], 503);
    say(&mut ann, 1, "into nothing");
    let refused = ann.next_json();
    assert_eq!((&refused["type"], &refused["error"]), (&json!("error"), &json!("unavailable")));
    let token = hs256(SECRET, &claims("bob", "public:*"));
    bob.send_json(&json!({"type": "connect", "id": 1, "token": token}));
    assert_eq!(bob.read_close_code(), 1013);
    redis.go_on();
    until_status(&nodes[0], 200);
    let begin = Instant::now();
    loop {
        say(&mut ann, 2, "again");
        let answer = ann.next_json();
        if answer["type"] == "ack" {
            break;
        }
        assert_eq!(answer["error"], "unavailable", "{answer}");
        assert!(begin.elapsed() < DEADLINE);
    }
}

/// D01: exactly one survives, and nobody is sent back and forth.
#[test]
fn of_two_connections_at_the_same_instant_on_two_nodes_exactly_one_survives() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let nodes = nodes(&redis, 2, &[NEWEST]);
    for round in 0..20 {
        let user = format!("ann{round}");
        // Both are on their way before either is looked at.
        let mut both = [0, 1].map(|node: usize| RawSocket::open(nodes[node].addr(), &path(&user)));
        let begin = Instant::now();
        let survivor = loop {
            let looked =
                both.each_mut().map(|socket| socket.ends_within(Duration::from_millis(50)));
            match looked {
                [true, false] => break 1,
                [false, true] => break 0,
                ended => assert!(begin.elapsed() < DEADLINE && ended == [false; 2], "{ended:?}"),
            }
        };
        let [first, second] = &mut both;
        let (alive, dead) = if survivor == 0 { (first, second) } else { (second, first) };
        assert_eq!(dead.read_close_code(), 3505);
        alive.expect_json("hello");
        say(alive, 1, "here");
        alive.expect_json("ack");
    }
}

#[test]
fn connections_of_a_user_are_counted_over_nodes_and_free_within_a_lease_of_a_node_that_was_killed()
{
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let mut nodes = nodes(&redis, 2, &["limits.connections_per_user_max=2"]);
    let (_one, _) = greeted(&nodes[0], "ann");
    let (two, _) = greeted(&nodes[1], "ann");
    for node in &nodes {
        let mut third = RawSocket::open(node.addr(), &path("ann"));
        assert_eq!(third.read_close_code(), 3506);
    }
    drop(two);
    let (_again, _) = in_deadline(|| let_in(&nodes[1], "ann"));
    nodes[0].kill();
    let killed = Instant::now();
    let (_third, _) = in_deadline(|| let_in(&nodes[1], "ann"));
    assert!(killed.elapsed() < LEASE + Duration::from_secs(1), "{:?}", killed.elapsed());
}

fn let_in(node: &Server, user: &str) -> Option<(RawSocket, Value)> {
    let mut socket = RawSocket::open(node.addr(), &path(user));
    let (opcode, payload) = socket.read_frame();
    let text = String::from_utf8_lossy(&payload).into_owned();
    (opcode == 1 && text.contains("hello")).then_some((socket, Value::Null))
}

fn in_deadline<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(begin.elapsed() < DEADLINE);
    }
}

/// D02: on another node, twice, at the same time, by another user, forged, and after it was taken back.
#[test]
fn a_ticket_counts_on_any_node_for_its_user_only_and_resumes_one_session() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let nodes = nodes(&redis, 2, &[NEWEST]);
    let (mut old, hello) = greeted(&nodes[0], "ann");
    subscribe(&mut old);
    say(&mut old, 2, "read");
    let ack = old.expect_json("ack");
    let ticket = hello["session"].as_str().unwrap().to_owned();
    let resume = json!([{"room": "public:a", "epoch": ack["epoch"], "offset": ack["offset"]}]);
    let come_back = |node: &Server, ticket: &str| {
        let mut socket = RawSocket::open(node.addr(), "/ws/v2/connect");
        let connect = json!({"type": "connect", "id": 1, "session": ticket, "resume": resume});
        socket.send_json(&connect);
        socket
    };
    // Twice at the same time, while the old socket is still open.
    let mut both = [come_back(&nodes[1], &ticket), come_back(&nodes[0], &ticket)];
    assert_eq!(old.read_close_code(), 3505);
    let begin = Instant::now();
    let survivor = loop {
        match both.each_mut().map(|socket| socket.ends_within(Duration::from_millis(50))) {
            [true, false] => break 1,
            [false, true] => break 0,
            ended => assert!(begin.elapsed() < DEADLINE && ended == [false; 2], "{ended:?}"),
        }
    };
    let [first, second] = &mut both;
    let (alive, dead) = if survivor == 0 { (first, second) } else { (second, first) };
    assert_eq!(dead.read_close_code(), 3505);
    // The first `hello` may be of nobody, where that is allowed.
    let resumed = loop {
        let hello = alive.expect_json("hello");
        if hello["user_id"] == "ann" {
            break hello;
        }
    };
    assert_eq!(resumed["resumed"][0]["recovered"], true, "{resumed}");
    say(alive, 2, "to whoever is there");
    assert_eq!(alive.expect_json("message")["data"]["says"], "to whoever is there");
    // Somebody else's.
    let (mut bob, _) = greeted(&nodes[1], "bob");
    bob.send_json(&json!({"type": "connect", "id": 1, "session": ticket}));
    assert_eq!(bob.next_json()["error"], "already_connected");
    // Forged: one letter of it is another.
    let last = if ticket.ends_with('A') { 'B' } else { 'A' };
    let at = ticket.len() / 2;
    let other = if &ticket[at..=at] == "A" { "B" } else { "A" };
    let forged = format!("{}{other}{}{last}", &ticket[..at], &ticket[at + 1..ticket.len() - 1]);
    assert_eq!(come_back(&nodes[1], &forged).read_close_code(), 3500);
    post(&nodes[0], "/api/v1/revoke", &json!({"user_id": "ann"}));
    assert_eq!(alive.read_close_code(), 3507);
    for node in &nodes {
        assert_eq!(come_back(node, &ticket).read_close_code(), 3507);
    }
}

/// A15, A17 and A18 on three nodes: told over one, closed on another.
#[test]
fn a_token_a_user_and_a_connection_that_are_taken_back_over_one_node_end_on_all_within_a_second() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let nodes = nodes(&redis, 3, &[]);
    let with_id = |user: &str, jti: &str| {
        let token = hs256(SECRET, &with_claim(claims(user, "public:*"), "jti", json!(jti)));
        format!("/ws/v2/connect?token={token}")
    };
    for (what, body) in [
        ("token", json!({"token_id": "the-one"})),
        ("user", json!({"user_id": "ann"})),
        ("connection", Value::Null),
    ] {
        let of = if what == "user" { "ann" } else { what };
        let mut sockets: Vec<_> = nodes
            .iter()
            .map(|node| {
                let jti = if what == "token" { "the-one" } else { "another" };
                let mut socket = RawSocket::open(node.addr(), &with_id(of, jti));
                if what == "connection" {
                    socket = RawSocket::open(node.addr(), &path(of));
                }
                let hello = socket.expect_json("hello");
                (socket, hello)
            })
            .collect();
        let bodies = match body {
            Value::Null => {
                let of = |(_, hello): &(RawSocket, Value)| json!({"connection_id": hello["connection_id"]});
                sockets.iter().map(of).collect()
            }
            body => vec![body],
        };
        let asked = Instant::now();
        for body in &bodies {
            post(&nodes[0], "/api/v1/revoke", body);
        }
        for (socket, _) in &mut sockets {
            assert_eq!(socket.read_close_code(), 3507, "{what}");
        }
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(1), "{what}: {took:?}");
        println!("a {what} that was taken back ended on three nodes after {took:?}");
    }
}

/// The ids of all of ann's connections, page by page, over whichever node the next page is asked of.
fn paged_connections(nodes: &[Server]) -> BTreeSet<String> {
    let (mut after, mut ids) = (String::new(), BTreeSet::new());
    for turn in 0.. {
        let path = format!("/api/v1/connections?user_id=ann&limit=3{after}");
        let page = get(&nodes[turn % nodes.len()], &path);
        assert_eq!((&page["incomplete"], &page["missing"]), (&json!(false), &json!([])));
        for one in page["connections"].as_array().unwrap() {
            assert!(ids.insert(one["connection_id"].as_str().unwrap().to_owned()), "twice");
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    ids
}

#[test]
fn the_server_api_of_any_node_knows_the_rooms_and_connections_of_all_and_says_what_is_missing() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let mut nodes = nodes(&redis, 3, &["limits.connections_per_user_max=50"]);
    let mut sockets = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        for _ in 0..4 {
            let (mut socket, _) = greeted(node, "ann");
            subscribe(&mut socket);
            socket.send_json(
                &json!({"type": "subscribe", "id": 2, "room": format!("public:of-{n}")}),
            );
            socket.expect_json("subscribed");
            sockets.push(socket);
        }
    }
    let rooms =
        until(&nodes[1], "/api/v1/rooms?prefix=public:", |answer| answer["incomplete"] == false);
    let listed: Vec<_> = rooms["rooms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|room| (room["room"].as_str().unwrap().to_owned(), room["members"].as_u64().unwrap()))
        .collect();
    let expected = [("public:a", 12), ("public:of-0", 4), ("public:of-1", 4), ("public:of-2", 4)];
    assert_eq!(listed, expected.map(|(room, members)| (room.to_owned(), members)));
    // Room by room, over another node each time.
    let (mut after, mut paged) = (String::new(), Vec::new());
    for turn in 0.. {
        let page = get(&nodes[turn % 3], &format!("/api/v1/rooms?prefix=public:&limit=1{after}"));
        paged.push(page["rooms"][0]["room"].as_str().unwrap().to_owned());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(paged, expected.map(|(room, _)| room.to_owned()));
    let ids = paged_connections(&nodes);
    assert_eq!(ids.len(), 12);
    let sent = post(&nodes[2], "/api/v1/send", &json!({"user_id": "ann", "data": 1}));
    assert_eq!(sent["connections"], 12);
    // A node that does not answer is named, and what the others have is there.
    nodes[2].suspend();
    let part = get(&nodes[0], "/api/v1/connections?user_id=ann&limit=100");
    assert_eq!(part["incomplete"], true);
    assert_eq!(part["missing"].as_array().unwrap().len(), 1);
    assert_eq!(part["connections"].as_array().unwrap().len(), 8);
    nodes[2].go_on();
    until(&nodes[0], "/api/v1/connections?user_id=ann&limit=100", |answer| {
        answer["incomplete"] == false
    });
    // One of another node, by its id, and then all.
    let one = ids.iter().next().unwrap();
    let ended = post(&nodes[1], "/api/v1/disconnect", &json!({"connection_id": one}));
    assert_eq!(ended["disconnected"], 1);
    let ended = post(&nodes[1], "/api/v1/disconnect", &json!({"user_id": "ann", "code": 3501}));
    assert_eq!((&ended["disconnected"], &ended["incomplete"]), (&json!(11), &json!(false)));
    let mut codes: Vec<_> = sockets.iter_mut().map(RawSocket::read_close_code).collect();
    codes.sort_unstable();
    assert_eq!((codes[0], codes[1], codes[11]), (1001, 3501, 3501));
    // Who is gone is no longer waited for once its lease is over.
    nodes[2].kill();
    until(&nodes[0], "/api/v1/rooms", |answer| answer["incomplete"] == false);
}

/// A chat connection of this user; moderators have the role.
fn chat(node: &Server, user: &str, is_moderator: bool) -> RawSocket {
    let roles = if is_moderator { json!(["moderator"]) } else { json!([]) };
    let token = hs256(SECRET, &with_claim(claims(user, "chat:*"), "roles", roles));
    RawSocket::open(node.addr(), &format!("/ws/chat?token={token}"))
}

fn member(node: &Server, user: &str) -> RawSocket {
    let token = hs256(SECRET, &claims(user, "chat:*"));
    let mut socket = RawSocket::open(node.addr(), &format!("/ws/v2/connect?token={token}"));
    socket.expect_json("hello");
    socket.send_json(&json!({"type": "subscribe", "id": 1, "room": "chat:global"}));
    socket
}

#[test]
fn a_ban_over_one_node_puts_out_on_another_and_keeps_out_of_a_third_within_a_second() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let nodes = nodes(&redis, 3, &[]);
    let mut ann = member(&nodes[1], "ann");
    ann.expect_json("subscribed");
    let mut moderator = chat(&nodes[0], "mod", true);
    let begin = Instant::now();
    moderator.send_json(&json!({
        "type": "moderation", "id": 1, "action": "ban", "user_id": "ann", "channel": "global",
    }));
    let out = ann.expect_json("unsubscribed");
    let took = begin.elapsed();
    assert_eq!((&out["room"], out["code"].as_u64()), (&json!("chat:global"), Some(103)));
    assert!(took < Duration::from_secs(1), "{took:?}");
    // A node that has not heard yet would let it in.
    in_deadline(|| {
        let answer = member(&nodes[2], "ann").next_json();
        (answer["error"] == "permission_denied").then_some(())
    });
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    println!("who was banned was out on another node after {took:?}");
}

/// R02, by the minute and over several nodes.
#[test]
fn a_limit_by_the_minute_is_one_over_all_nodes_of_a_user() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let nodes =
        nodes(&redis, 2, &["messages.rate_limit_enabled=true", "messages.requests_per_minute=20"]);
    let mut both = [0, 1].map(|node: usize| greeted(&nodes[node], "ann").0);
    in_deadline(|| {
        let counted = get(&nodes[0], "/api/v1/connections?user_id=ann");
        (counted["connections"].as_array().unwrap().len() == 2).then_some(())
    });
    let begin = Instant::now();
    let mut taken = 0;
    for id in 0..30 {
        for socket in &mut both {
            say(socket, id, "again");
            let answer = socket.next_json();
            assert!(answer["type"] == "ack" || answer["error"] == "rate_limited", "{answer}");
            taken += u64::from(answer["type"] == "ack");
        }
    }
    let most = 20 + 2 + begin.elapsed().as_secs() / 3;
    assert!((15..=most).contains(&taken), "{taken} of {most}");
}

/// R02, over several nodes.
#[test]
fn a_user_s_rate_is_one_over_all_its_nodes() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let nodes = nodes(
        &redis,
        2,
        &["limits.commands_of_user_per_second=1", "limits.commands_of_user_burst=20"],
    );
    let mut both = [0, 1].map(|node: usize| greeted(&nodes[node], "ann").0);
    // Each has half of twenty at once once both know of each other: a user that is on one node has all.
    in_deadline(|| {
        let counted = get(&nodes[0], "/api/v1/connections?user_id=ann");
        (counted["connections"].as_array().unwrap().len() == 2).then_some(())
    });
    let begin = Instant::now();
    let mut taken = 0;
    for id in 0..40 {
        for socket in &mut both {
            socket.send_json(&json!({"type": "status", "id": id}));
            let answer = socket.next_json();
            assert!(answer["type"] == "status" || answer["error"] == "rate_limited", "{answer}");
            taken += u64::from(answer["type"] == "status");
        }
    }
    let most = 20 + 2 + begin.elapsed().as_secs();
    assert!((15..=most).contains(&taken), "{taken} of {most}");
}
