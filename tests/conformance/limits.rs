//! More than allowed: commands, connections, rooms, members. Each is told so, keeps what it had,
//! and gets no half of what it asked for.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::token::{SECRET, claims, hs256};

use crate::arena::{Arena, CONNECT, assert_closes, assert_works, new_room, subscribe};

/// Ten at once, twenty a second.
const SLOW: &[&str] =
    &["--set", "limits.commands_per_second=20", "--set", "limits.commands_burst=10"];
/// A canary that stays below that.
const PACE: Duration = Duration::from_millis(200);

fn ping(socket: &mut RawSocket) -> Value {
    socket.send_json(&json!({"type": "ping", "id": 1}));
    socket.next_json()
}

/// R01.
#[test]
fn the_first_command_too_many_is_told_when_to_come_back() {
    let arena = Arena::own_with(SLOW, PACE, CONNECT);
    let mut socket = arena.greeted();
    let answers = (0..12).map(|_| ping(&mut socket)).collect::<Vec<_>>();
    assert!(answers[..10].iter().all(|answer| answer["type"] == "pong"), "{answers:?}");
    let refused = answers.iter().find(|answer| answer["type"] == "error");
    let refused = refused.expect("twelve at once are too many");
    assert_eq!((&refused["code"], &refused["id"]), (&json!(108), &json!(1)), "{refused}");
    let wait = refused["retry_after_ms"].as_u64().expect("it says when to come back");
    assert!((1..=1_000).contains(&wait), "{refused}");
    assert!(!socket.ends_within(Duration::from_millis(wait + 60)));
    assert_eq!(ping(&mut socket)["type"], "pong", "it came back when it was told to");
    arena.finish();
}

/// R01.
#[test]
fn a_steady_client_at_the_limit_is_never_refused() {
    let arena = Arena::own_with(SLOW, PACE, CONNECT);
    let mut socket = arena.greeted();
    for _ in 0..30 {
        assert_eq!(ping(&mut socket)["type"], "pong");
        assert!(!socket.ends_within(Duration::from_millis(50)));
    }
    arena.finish();
}

/// R01.
#[test]
fn who_goes_on_too_fast_regardless_is_closed() {
    let arena = Arena::own_with(SLOW, PACE, CONNECT);
    let mut socket = arena.greeted();
    socket.send_text(&"{\"type\":\"ping\"}".repeat(1_000));
    let disconnect = loop {
        let value = socket.next_json();
        match value["type"].as_str() {
            Some("pong") => {}
            Some("error") => assert_eq!(value["code"], 108, "{value}"),
            _ => break value,
        }
    };
    assert_eq!((&disconnect["code"], &disconnect["reconnect"]), (&json!(3005), &json!(true)));
    assert!(disconnect["reconnect_after_ms"].as_u64().is_some(), "{disconnect}");
    assert_closes(&mut socket, 3005, "a thousand commands at once");
    // One's speed is nobody else's.
    assert_works(&mut arena.greeted());
    arena.finish();
}

/// R07.
#[test]
fn a_connection_too_many_is_answered_with_503_and_takes_nobodys_place() {
    // Two of them are the canary's.
    let arena = Arena::own(&["--set", "server.connections_max=5"]);
    let mut members = (0..3).map(|_| arena.greeted()).collect::<Vec<_>>();
    for _ in 0..20 {
        let mut socket = arena.connect();
        let head = socket.read_head().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 503"), "{head}");
        assert!(head.contains("retry-after: "), "{head}");
        assert!(socket.ends_within(Duration::from_secs(5)), "it is still open");
    }
    members.iter_mut().for_each(assert_works);
    drop(members.pop());
    let room = new_room();
    let end = Instant::now() + Duration::from_secs(10);
    let mut next = loop {
        let mut socket = arena.connect();
        let asked = format!("GET {CONNECT} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n");
        socket.try_send(asked.as_bytes());
        socket.try_send(b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
        socket.try_send(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        let head = socket.try_read_head();
        if head.is_some_and(|head| head.starts_with("HTTP/1.1 101")) {
            break socket;
        }
        assert!(Instant::now() < end, "the place of who left stays taken");
    };
    next.expect_json("hello");
    subscribe(&mut next, &room);
    arena.finish();
}

/// R07.
#[test]
fn a_room_too_many_is_refused_and_not_half_joined() {
    let arena = Arena::own(&["--set", "limits.rooms_per_connection_max=2"]);
    let rooms = [new_room(), new_room(), new_room()];
    let mut socket = arena.greeted();
    subscribe(&mut socket, &rooms[0]);
    subscribe(&mut socket, &rooms[1]);
    let third = json!({"type": "subscribe", "id": 7, "room": rooms[2], "presence": true});
    for _ in 0..3 {
        socket.send_json(&third);
        let error = socket.next_json();
        assert_eq!((&error["code"], &error["id"]), (&json!(107), &json!(7)), "{error}");
        assert_eq!(error["field"], "room");
    }
    let mut other = arena.greeted();
    other.send_json(&json!({"type": "publish", "id": 1, "room": rooms[2], "data": "not for you"}));
    other.expect_json("ack");
    other.send_json(&json!({"type": "presence", "id": 2, "room": rooms[2]}));
    assert_eq!(other.expect_json("presence")["total"], 0);
    socket.send_json(&json!({"type": "status", "id": 8}));
    let status = socket.next_json();
    assert_eq!(status["type"], "status", "a message of a room it is not in: {status}");
    assert_eq!(status["rooms"].as_array().map(Vec::len), Some(2));
    // A room that it leaves makes room for another.
    socket.send_json(&json!({"type": "unsubscribe", "id": 9, "room": rooms[0]}));
    socket.expect_json("unsubscribed");
    subscribe(&mut socket, &rooms[2]);
    arena.finish();
}

/// R07.
#[test]
fn a_member_too_many_is_refused_and_not_half_a_member() {
    let arena = Arena::own(&["--set", "namespaces.public.members_max=3"]);
    let room = new_room();
    let mut members = (0..3).map(|_| arena.member(&room)).collect::<Vec<_>>();
    let mut late = arena.greeted();
    late.send_json(&json!({"type": "subscribe", "id": 7, "room": room}));
    let error = late.next_json();
    assert_eq!((&error["code"], &error["id"]), (&json!(117), &json!(7)), "{error}");
    let total = |socket: &mut RawSocket| {
        socket.send_json(&json!({"type": "presence", "id": 2, "room": room}));
        socket.expect_json("presence")["total"].as_u64()
    };
    assert_eq!(total(&mut late), Some(3));
    members[0].send_json(&json!({"type": "publish", "id": 3, "room": room, "data": 1}));
    members[0].expect_json("ack");
    members[1].expect_json("message");
    assert_works(&mut late);
    let mut leaver = members.pop().expect("three of them");
    leaver.send_json(&json!({"type": "unsubscribe", "id": 4, "room": room}));
    leaver.expect_json("unsubscribed");
    subscribe(&mut late, &room);
    assert_eq!(total(&mut members[0]), Some(3));
    arena.finish();
}

/// R07. A23.
#[test]
fn a_full_room_tells_a_stranger_no_more_than_an_empty_one() {
    let secret = format!("auth.hmac_secret={SECRET}");
    let arena = Arena::own(&["--set", &secret, "--set", "namespaces.chat.members_max=1"]);
    let token = hs256(SECRET, &claims("ann", "chat:*"));
    let mut member = arena.open(&format!("{CONNECT}?token={token}"));
    member.expect_json("hello");
    subscribe(&mut member, "chat:secret");
    // One on each worker.
    for mut stranger in [arena.greeted(), arena.greeted()] {
        let mut answers = ["chat:secret", "chat:nobody"].map(|room| {
            stranger.send_json(&json!({"type": "subscribe", "id": 1, "room": room}));
            stranger.next_json()
        });
        for answer in &mut answers {
            answer.as_object_mut().unwrap().remove("timestamp");
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0]["code"], 103);
    }
    arena.finish();
}

/// R07.
#[test]
fn a_users_connection_too_many_is_closed_and_its_end_makes_place() {
    let secret = format!("auth.hmac_secret={SECRET}");
    let arena = Arena::own(&["--set", &secret, "--set", "limits.connections_per_user_max=2"]);
    let open = |user: &str| {
        let token = hs256(SECRET, &claims(user, "public:*"));
        arena.open(&format!("{CONNECT}?token={token}"))
    };
    let mut first = open("ann");
    let mut second = open("ann");
    first.expect_json("hello");
    second.expect_json("hello");
    let mut third = open("ann");
    assert_eq!(third.expect_json("disconnect")["code"], 3506);
    assert_closes(&mut third, 3506, "a third connection of two");
    open("eve").expect_json("hello");
    assert_works(&mut first);
    drop(second);
    let end = Instant::now() + Duration::from_secs(10);
    while open("ann").next_json()["type"] != "hello" {
        assert!(Instant::now() < end, "the place of who left stays taken");
    }
    arena.finish();
}
