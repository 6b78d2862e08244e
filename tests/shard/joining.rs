//! What comes while a connection is on its way into a room: held, bounded, and never out of order.

use application::services::Rules;
use domain::policy::{Access, NamespacePolicy};
use serde_json::{Value, json};

use crate::host::{Host, open_policy, open_rules, types};

fn publish(host: &mut Host, slot: application::shard::Slot, data: &Value) {
    host.say(slot, &json!({"type": "publish", "room": "public:a", "data": data}).to_string());
}

fn set(host: &mut Host, slot: application::shard::Slot, key: &str, data: &str) {
    let text = json!({"type": "publish", "room": "public:a", "data": data, "class": "latest",
        "key": key});
    host.say(slot, &text.to_string());
}

fn subscribe(epoch: &Value) -> String {
    let since = json!({"epoch": epoch, "offset": 0});
    json!({"type": "subscribe", "id": 1, "room": "public:a", "since": since}).to_string()
}

/// A publisher in a room where little can be held, its epoch, and a newcomer.
fn crowded() -> (Host, application::shard::Slot, Value, application::shard::Slot) {
    let mut rules = open_rules();
    rules.limits.held_bytes_max = 1_000;
    let mut host = Host::new(rules);
    let publisher = host.member("public:a");
    host.say(publisher, r#"{"type":"publish","id":2,"room":"public:a","data":0}"#);
    let frames = host.frames(publisher);
    let epoch = frames.iter().find_map(|frame| frame.get("epoch").cloned()).unwrap();
    let slot = host.connect(None);
    host.frames(slot);
    (host, publisher, epoch, slot)
}

/// What came in a room, in the order in which it came.
fn data(frames: &[Value]) -> Vec<Value> {
    let messages = frames.iter().flat_map(|frame| match frame["messages"].as_array() {
        Some(messages) => messages.clone(),
        None if frame["type"] == "message" => vec![frame.clone()],
        None => Vec::new(),
    });
    messages.map(|message| message["data"].clone()).collect()
}

#[test]
fn who_is_told_that_more_follows_gets_a_page_that_says_that_it_was_all() {
    let (mut host, publisher, epoch, slot) = crowded();
    host.hold_calls = true;
    host.say(slot, &subscribe(&epoch));
    assert_eq!(host.n_held(), 1);
    host.hold_calls = false;
    // More than may be held, and all of it in the log when that is read.
    for n in 1..10 {
        publish(&mut host, publisher, &json!(n));
    }
    host.release_calls();
    host.settle();
    let mut frames = host.frames(slot);
    publish(&mut host, publisher, &json!("live"));
    frames.extend(host.frames(slot));
    assert_eq!((&frames[0]["type"], &frames[0]["more"]), (&json!("subscribed"), &json!(true)));
    let says_all = |frame: &Value| frame["type"] == "page" && frame["more"] == json!(false);
    assert_eq!(frames.iter().filter(|frame| says_all(frame)).count(), 1, "{frames:?}");
    assert_eq!(types(&frames).last().copied(), Some("message"));
    let expected: Vec<Value> = (0..10).map(|n| json!(n)).chain([json!("live")]).collect();
    assert_eq!(data(&frames), expected);
}

#[test]
fn the_newest_value_of_a_key_is_never_lost_to_what_is_in_the_log() {
    let (mut host, publisher, epoch, slot) = crowded();
    set(&mut host, publisher, "k", "old");
    host.hold_calls = true;
    host.say(slot, &subscribe(&epoch));
    // The log is read and the values are looked up; the answer is on its way.
    let outcomes = host.run_held();
    set(&mut host, publisher, "k", "new");
    for n in 1..10 {
        publish(&mut host, publisher, &json!(n));
    }
    host.complete(outcomes);
    host.settle();
    let got = data(&host.frames(slot));
    assert!(got.contains(&json!("new")), "{got:?}");
    for n in 1..10 {
        assert_eq!(got.iter().filter(|data| **data == json!(n)).count(), 1, "{n}: {got:?}");
    }
}

#[test]
fn more_values_than_may_be_held_send_the_joiner_away_to_come_back() {
    let (mut host, publisher, epoch, slot) = crowded();
    host.hold_calls = true;
    host.say(slot, &subscribe(&epoch));
    let outcomes = host.run_held();
    for n in 0..10 {
        set(&mut host, publisher, &format!("k{n}"), "value");
    }
    host.complete(outcomes);
    host.settle();
    assert_eq!(host.line(slot).closed.map(domain::codes::CloseCode::number), Some(3003));
    // Whoever is in the room has them all.
    assert_eq!(data(&host.frames(publisher)).iter().filter(|d| **d == json!("value")).count(), 10);
}

#[test]
fn an_older_value_never_comes_behind_the_newest() {
    let mut host = Host::new(open_rules());
    let publisher = host.member("public:a");
    let slot = host.connect(None);
    host.frames(slot);
    host.hold_calls = true;
    host.say(slot, r#"{"type":"subscribe","id":1,"room":"public:a"}"#);
    host.hold_calls = false;
    for value in ["one", "two"] {
        set(&mut host, publisher, "k", value);
    }
    host.release_calls();
    host.settle();
    set(&mut host, publisher, "k", "three");
    assert_eq!(data(&host.frames(slot)), [json!("two"), json!("three")]);
}

#[test]
fn a_refused_subscribe_leaves_a_user_in_the_room_of_its_own() {
    let mut rules = Rules { join_user_room: true, ..open_rules() };
    let policy = NamespacePolicy {
        subscribe: Access::Owner,
        presence: Access::Granted,
        presence_listed: false,
        ..open_policy()
    };
    rules.policies.set_namespace("user", policy);
    let mut host = Host::new(rules);
    let (u1, nobody) = (host.connect(Some("u1")), host.connect(None));
    assert_eq!(host.frames(u1)[0]["rooms"], json!(["user:u1"]));
    host.hold_calls = true;
    host.say(u1, r#"{"type":"subscribe","id":1,"room":"user:u1","presence":true}"#);
    host.hold_calls = false;
    let say = |host: &mut Host, data: u64| {
        let text = json!({"type": "publish", "room": "user:u1", "data": data});
        host.say(nobody, &text.to_string());
    };
    // It comes while it is asked whether presence may be followed.
    say(&mut host, 1);
    host.release_calls();
    say(&mut host, 2);
    let frames = host.frames(u1);
    assert_eq!((&frames[0]["type"], &frames[0]["code"]), (&json!("error"), &json!(103)));
    assert_eq!(data(&frames), [json!(1), json!(2)]);
    // And it can still leave.
    host.say(u1, r#"{"type":"unsubscribe","id":2,"room":"user:u1"}"#);
    say(&mut host, 3);
    assert_eq!(types(&host.frames(u1)), ["unsubscribed"]);
}

#[test]
fn a_stranger_takes_no_place_in_a_room_while_it_waits_for_its_refusal() {
    let mut rules = open_rules();
    let policy = NamespacePolicy { subscribe: Access::Granted, members_max: 1, ..open_policy() };
    rules.policies.set_namespace("chat", policy);
    let mut host = Host::new(rules);
    let (stranger, friend) = (host.connect(Some("s")), host.connect(Some("granted:chat:*:f")));
    host.frames(stranger);
    host.frames(friend);
    host.hold_calls = true;
    host.say(stranger, r#"{"type":"subscribe","id":1,"room":"chat:a"}"#);
    host.hold_calls = false;
    host.say(friend, r#"{"type":"subscribe","id":1,"room":"chat:a"}"#);
    assert_eq!(types(&host.frames(friend))[0], "subscribed");
    host.release_calls();
    assert_eq!(host.frames(stranger)[0]["code"], 103);
}
