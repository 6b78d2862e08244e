//! What a broken or hostile server may say: the client stays in a documented phase, holds no more than before,
//! and goes on. It must never be enough that a test ends: what the client tells is looked at.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::storm;
use super::support::{World, ack, hello, message, refusal, subscribed};
use crate::client::life::Phase;
use crate::protocol::client_event::{Event, Violation};

const NONSENSE: &[&str] = &[
    "",
    " ",
    "{",
    "[]",
    "[[[[",
    "null",
    "1",
    r#""hello""#,
    "true",
    "{}",
    r#"{"type":1}"#,
    r#"{"type":null}"#,
    r#"{"type":{}}"#,
    "\0",
    "\n\n\n",
    r#"{"type":"__proto__"}"#,
    r#"{"type":"hello""#,
    r#"{"type":"hello"}"#,
    r#"{"type":"hello","features":{},"rooms":7,"resumed":"x","session":4,"heartbeat_interval_ms":"soon"}"#,
    r#"{"type":"hello","heartbeat_interval_ms":-1}"#,
    r#"{"type":"hello","heartbeat_interval_ms":1e308}"#,
    r#"{"type":"hello","resumed":[null,1,{}]}"#,
    r#"{"type":"message"}"#,
    r#"{"type":"message","room":"public:a"}"#,
    r#"{"type":"message","room":"public:a","epoch":1,"offset":1}"#,
    r#"{"type":"message","room":"public:a","epoch":"x","offset":-1}"#,
    r#"{"type":"message","room":"public:a","epoch":"x","offset":1.5}"#,
    r#"{"type":"message","room":"public:a","epoch":"x","offset":1e300}"#,
    r#"{"type":"message","room":"public:a","epoch":"00000000000000a1","offset":9007199254740992,"data":1,"timestamp":"t"}"#,
    r#"{"type":"message","room":"public:a","epoch":"00000000000000a1","offset":9223372036854775808,"data":1,"timestamp":"t"}"#,
    r#"{"type":"message","room":"public:a","epoch":"00000000000000a1","offset":18446744073709551616,"data":1,"timestamp":"t"}"#,
    r#"{"type":"message","room":{"a":1},"offset":1}"#,
    r#"{"type":"tombstone","room":"public:a","offset":"x"}"#,
    r#"{"type":"subscribed","id":1,"room":"public:a"}"#,
    r#"{"type":"subscribed","id":null,"room":"public:a","epoch":"00000000000000a1","offset":1,"recovered":true,"messages":[],"more":false,"timestamp":"t"}"#,
    r#"{"type":"page","room":"public:a","epoch":"00000000000000a1","offset":3,"messages":{},"more":false,"timestamp":"t"}"#,
    r#"{"type":"page","room":"public:a","epoch":"00000000000000a1","offset":0,"messages":[null,7,"x"],"more":false,"timestamp":"t"}"#,
    r#"{"type":"page","room":"public:a","epoch":"00000000000000a1","offset":900,"messages":[],"more":false,"timestamp":"t"}"#,
    r#"{"type":"gap","room":"public:a","epoch":"a","from":"x","to":2,"reason":"retention"}"#,
    r#"{"type":"gap","room":"public:z","epoch":"a","from":1,"to":2,"reason":"retention","timestamp":"t"}"#,
    r#"{"type":"ack","id":1}"#,
    r#"{"type":"ack","id":999999,"room":"public:a","epoch":"a","offset":1,"duplicate":false,"level":"","timestamp":"t"}"#,
    r#"{"type":"ack","id":{},"offset":{}}"#,
    r#"{"type":"unsubscribed"}"#,
    r#"{"type":"unsubscribed","room":"nowhere:x","code":"x"}"#,
    r#"{"type":"presence","room":"public:a","members":7}"#,
    r#"{"type":"presence_event","room":"public:a","seq":"x"}"#,
    r#"{"type":"presence_events","room":"public:a","from":9,"seq":3,"total":1,"changes":[null],"timestamp":"t"}"#,
    r#"{"type":"presence_count","room":"public:a","seq":-1,"total":1,"timestamp":"t"}"#,
    r#"{"type":"error"}"#,
    r#"{"type":"error","id":1,"code":"x"}"#,
    r#"{"type":"error","id":null,"code":999,"message":7,"retry_after_ms":-5}"#,
    r#"{"type":"disconnect"}"#,
    r#"{"type":"disconnect","code":"x","reason":1}"#,
    r#"{"type":"token_expiring"}"#,
    r#"{"type":"refreshed","id":1}"#,
    r#"{"type":"status","id":1}"#,
    r#"{"type":"pong","id":1,"timestamp":"t"}"#,
    r#"{"type":"history","id":1,"messages":7}"#,
    r#"{"type":"unheard_of","id":5,"data":[]}"#,
];

/// K10: nonsense on an open connection. D11: a place beyond those that there are is such.
#[test]
fn nonsense_leaves_the_client_where_it_can_go_on() {
    let deep = "[".repeat(100_000);
    for text in NONSENSE.iter().copied().chain([deep.as_str()]) {
        let mut world = storm::World::new(1, 1);
        world.advance(100);
        world.inject(text);
        world.server.publish("public:a", "\"still here\"");
        world.carry();
        world.advance(60_000);
        let actor = &world.actors[0];
        assert_eq!(actor.machine.phase(), Phase::Open, "{text}");
        assert_eq!(actor.heard["public:a"], ["\"still here\""], "{text}");
        assert_eq!(actor.machine.held(), [3, 0, 0, 0, 0, 0, 0, 0, 1], "{text}");
    }
}

/// K10: nonsense as the first words.
#[test]
fn nonsense_in_place_of_a_greeting_is_no_greeting() {
    for text in NONSENSE {
        let mut world = World::new(super::support::settings());
        world.open();
        world.say_text(text);
        assert_eq!(world.machine.phase(), Phase::Connecting, "{text}");
        world.advance(10_000);
        assert!(world.has_hung_up && world.is_dialing, "{text}");
        world.open();
        world.say(&hello(None));
        assert_eq!(world.machine.phase(), Phase::Open, "{text}");
        world.close();
        assert_eq!((world.machine.held(), world.machine.due(true)), ([0; 9], None), "{text}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..6_u64).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        Just(json!("public:r")),
        Just(json!("00000000000000a1")),
        Just(json!([])),
        Just(json!([{"user_id": "ann", "data": 1, "connections": 1}])),
        (0..6_u64).prop_map(|offset| json!([message(offset)])),
        ".{0,4}".prop_map(Value::from),
    ]
}

fn frame() -> impl Strategy<Value = Value> {
    const TYPES: &[&str] = &[
        "hello",
        "subscribed",
        "page",
        "message",
        "tombstone",
        "gap",
        "ack",
        "unsubscribed",
        "presence",
        "presence_event",
        "presence_events",
        "presence_count",
        "error",
        "disconnect",
        "refreshed",
        "ping",
        "pong",
    ];
    const FIELDS: &[&str] = &[
        "id",
        "room",
        "epoch",
        "offset",
        "messages",
        "more",
        "seq",
        "members",
        "changes",
        "code",
        "from",
        "to",
        "resumed",
        "reconnect_after_ms",
        "duplicate",
        "total",
        "recovered",
        "retry_after_ms",
    ];
    // Somewhere between right and wrong: what is drawn takes the place of a field that makes sense.
    let whole = json!({"room": "public:r", "epoch": "00000000000000a1", "offset": 1, "messages": [],
        "more": false, "recovered": true, "sender": {"user_id": null, "connection_id": null},
        "data": 1, "timestamp": "t", "duplicate": false, "level": "", "reason": "retention",
        "from": 1, "to": 2, "seq": 1, "total": 1, "members": [], "changes": [], "code": 114, "error": "",
        "message": "", "field": null, "event": "join", "user_id": "ann", "reconnect": true,
        "id": 1, "accepted_version": 2, "request_id": "", "client_id": "",
        "connection_id": "0000000000000001", "heartbeat_interval_ms": 25_000});
    let fields = btree_map(proptest::sample::select(FIELDS), value(), 0..5);
    (proptest::sample::select(TYPES), fields).prop_map(move |(kind, fields)| {
        let mut frame = whole.clone();
        for (name, value) in fields {
            frame[name] = value;
        }
        frame["type"] = json!(kind);
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// K11: any frames in any order: the client holds little, ends its requests, and leaves nothing.
    #[test]
    fn frames_of_any_kind_leave_nothing_behind(frames in vec(frame(), 0..12)) {
        let mut world = World::greeted();
        let presence = crate::client::SubscribeOptions { presence: true, ..Default::default() };
        world.join("public:r", presence);
        world.publish("m-1", false);
        for frame in &frames {
            world.say(frame);
            if world.is_dialing {
                world.open();
            }
        }
        let [rooms, retries, requests, ..] = world.machine.held();
        // The publish counts for what it is, for its place in the outbox, and for its bytes.
        prop_assert!(rooms <= 1 && retries <= 1 && requests < 250, "{:?}", world.machine.held());
        world.advance(70_000);
        let n = world.settled.iter().filter(|(name, _)| name == "m-1").count();
        prop_assert_eq!(n, 1, "{:?}", world.settled);
        prop_assert_eq!(world.settled.len(), 2, "{:?}", world.settled);
        world.close();
        prop_assert_eq!((world.machine.held(), world.machine.due(true)), ([0; 9], None));
    }
}

/// K11: what a server says without end is answered once.
#[test]
fn a_hundred_thousand_pings_wait_for_one_answer() {
    let mut world = World::greeted();
    let now = world.now();
    for _ in 0..100_000 {
        world.machine.text(r#"{"type":"ping","timestamp":"t"}"#, now);
    }
    assert!(world.machine.out.has_room());
    assert_eq!(world.machine.out.pop().as_deref(), Some(r#"{"type":"pong"}"#));
    assert_eq!(world.machine.out.pop(), None);
}

/// K11: a server that lists members without end, none of them new enough.
#[test]
fn lists_that_are_too_old_are_asked_for_one_at_a_time() {
    let mut world = World::greeted();
    let presence = crate::client::SubscribeOptions { presence: true, ..Default::default() };
    world.join("public:r", presence);
    world.say(&subscribed(1, 0));
    let list = |id: Option<u64>, seq: u64| {
        json!({"type": "presence", "id": id, "room": "public:r", "seq": seq, "total": 0,
            "members": [], "timestamp": "t"})
    };
    world.say(&list(Some(2), 9));
    world.sent.clear();
    for _ in 0..1000 {
        world.say(&list(None, 1));
    }
    assert_eq!(world.sent.len(), 1, "{:?}", world.sent);
}

/// K11: a server that refuses a list for the moment, each time for another, and makes the client want it again.
#[test]
fn a_list_that_is_refused_again_and_again_is_asked_for_when_its_time_has_come() {
    let mut world = World::greeted();
    let presence = crate::client::SubscribeOptions { presence: true, ..Default::default() };
    world.join("public:r", presence);
    world.say(&subscribed(1, 0));
    world.say(&json!({"type": "presence", "id": 2, "room": "public:r", "seq": 9, "total": 0,
        "members": [], "timestamp": "t"}));
    world.sent.clear();
    for round in 0..10_000_u64 {
        world.say(&refusal(3 + round, 108, Some(3_600_000 - round)));
        world
            .say(&json!({"type": "presence", "id": null, "room": "public:r", "seq": 0, "total": 0,
            "members": [], "timestamp": "t"}));
    }
    let [_, retries, ..] = world.machine.held();
    assert!(retries <= 1 && world.sent.len() <= 2, "{retries} {}", world.sent.len());
}

/// K11: "again at once" is no order that is obeyed as fast as it can be said.
#[test]
fn a_refusal_for_no_time_at_all_is_given_a_moment() {
    let mut world = World::greeted();
    world.publish("m-1", true);
    world.sent.clear();
    for _ in 0..3 {
        world.say(&refusal(1, 114, Some(0)));
        world.advance(99);
        assert!(world.sent.is_empty());
        world.advance(1);
        assert_eq!(std::mem::take(&mut world.sent).len(), 1);
    }
}

/// K11: one text of millions of values that make no sense.
#[test]
fn a_text_full_of_nonsense_is_not_told_of_to_its_end() {
    let mut world = World::greeted();
    let now = world.now();
    world.machine.text(&"[]".repeat(100_000), now);
    let told = world.machine.events.len();
    assert!(told <= 20, "{told}");
    assert_eq!(world.machine.phase(), Phase::Reconnecting);
}

/// K11: a server that makes the client speak and never reads.
#[test]
fn a_server_that_makes_the_client_ask_and_never_reads_is_given_up() {
    let mut world = World::greeted();
    let presence = crate::client::SubscribeOptions { presence: true, ..Default::default() };
    world.join("public:r", presence);
    world.say(&subscribed(1, 0));
    let now = world.now();
    let list = |id: u64, seq: u64| {
        json!({"type": "presence", "id": id, "room": "public:r", "seq": seq, "total": 0,
            "members": [], "timestamp": "t"})
    };
    let missed = |seq: u64| {
        json!({"type": "presence_event", "room": "public:r", "seq": seq, "total": 1, "event": "join",
            "user_id": "ann", "data": null, "timestamp": "t"})
    };
    for round in 0..20_000_u64 {
        let seq = 3 * round;
        world.machine.text(&list(2 + round, seq).to_string(), now);
        world.machine.text(&missed(seq + 2).to_string(), now);
        world.machine.events.clear();
    }
    assert_eq!(world.machine.phase(), Phase::Reconnecting);
    assert!(world.machine.out.is_empty());
}

/// K05: an acknowledgement that is lost, late, twice, of an unknown id, or comes after the end.
#[test]
fn every_publish_is_answered_once_whatever_acknowledgements_come() {
    let mut world = World::joined(0);
    world.publish("m-1", true);
    world.say(&ack(999, 1));
    assert!(world.settled.is_empty());
    for _ in 0..2 {
        world.say(&ack(2, 1));
    }
    world.publish("m-2", true);
    world.advance(60_000);
    world.say(&ack(3, 2));
    let settled: Vec<_> = world.settled.iter().map(|(name, how)| (name.as_str(), *how)).collect();
    assert_eq!(settled, [("m-1", "acked"), ("m-2", "unanswered")]);
    world.publish("m-3", true);
    world.close();
    world.say(&ack(4, 3));
    assert_eq!(world.settled.len(), 3);
    assert_eq!(world.settled[2].1, "not_sent");
}

/// K10: an answer to another question leaves nobody waiting, and no room half joined.
#[test]
fn a_wrong_answer_to_a_join_ends_the_connection() {
    let mut world = World::greeted();
    world.join("public:r", crate::client::SubscribeOptions::default());
    world.say(&json!({"type": "pong", "id": 1, "timestamp": "t"}));
    assert_eq!(world.settled, [("join".to_owned(), "error")]);
    assert!(world.has_hung_up);
    let violation = |event: &&Event| matches!(event, Event::Violation(Violation::Malformed { .. }));
    assert_eq!(world.told.iter().filter(violation).count(), 1);
    assert_eq!(world.machine.room_phase(&super::support::room("public:r")), None);
}
