//! Who is muted, kicked or banned, as a shard carries it out: on every connection of the user, on its
//! way in, by patterns and over the endpoints of the documents.

use std::time::Duration;

use application::built_in::BuiltIn;
use application::mailbox::Control;
use application::ports::{Clock as _, Moderation as _};
use application::services::Rules;
use application::shard::Slot;
use application::view::View;
use domain::codes::CloseCode;
use domain::documents::told::Endpoint;
use domain::id::UserId;
use domain::moderation::{Act, Entry};
use domain::room::RoomId;
use serde_json::{Value, json};

use crate::host::{Host, open_policy, open_rules, ready, types};

const ROOM: &str = "public:a";

fn ann() -> UserId {
    UserId::parse("ann").unwrap()
}

/// Shorter than a heartbeat.
fn a_while() -> Option<Duration> {
    Some(Duration::from_secs(5))
}

/// A node whose `chat` is open, with the handlers of the documents' endpoints.
fn rules() -> Rules {
    let mut rules = open_rules();
    rules.policies.set_namespace("chat", open_policy());
    BuiltIn::default().register(&mut rules.handlers).unwrap();
    rules
}

/// What a moderator has done, as the use case leaves it.
fn moderate(host: &mut Host, room: &str, act: Act) {
    let (by, room) = (UserId::parse("mod").unwrap(), RoomId::parse(room).unwrap());
    let is_put_out = matches!(act, Act::Kick(_) | Act::Ban(..));
    let user = act.user().cloned().unwrap();
    let at = host.clock.now().wall;
    let entry = Entry { at, order: at, by, room: room.clone(), act, reason: None };
    ready(host.moderation.record(&entry)).unwrap();
    if is_put_out {
        host.shard.mailbox().order(Control::PutOut(user, room));
    }
    host.settle();
}

fn member(host: &mut Host, user: &str) -> Slot {
    let slot = host.connect(Some(user));
    host.say(slot, &json!({"type": "subscribe", "id": 1, "room": ROOM}).to_string());
    assert_eq!(types(&host.frames(slot)), ["hello", "subscribed"]);
    slot
}

fn publish(room: &str) -> String {
    json!({"type": "publish", "id": 9, "room": room, "data": "x"}).to_string()
}

/// Code, words and wait of the one error that there is.
fn error(frames: &[Value]) -> (u64, String, Value) {
    assert_eq!(types(frames), ["error"]);
    let error = &frames[0];
    let words = error["message"].as_str().unwrap().to_owned();
    (error["code"].as_u64().unwrap(), words, error["retry_after_ms"].clone())
}

#[test]
fn a_muted_user_is_not_heard_in_that_room_until_the_mute_ends() {
    let mut host = Host::new(rules());
    let (slot, other) = (member(&mut host, "ann"), member(&mut host, "bob"));
    moderate(&mut host, ROOM, Act::Mute(ann(), a_while()));
    host.pass(1_000);
    host.say(slot, &publish(ROOM));
    let (code, words, wait) = error(&host.frames(slot));
    assert_eq!((code, wait), (103, json!(4_000)));
    assert!(words.contains("muted"), "{words}");
    let shown = json!({"type": "presence_update", "id": 8, "room": ROOM, "data": {"mood": "loud"}});
    host.say(slot, &shown.to_string());
    assert_eq!(error(&host.frames(slot)).0, 103);
    assert_eq!(types(&host.frames(other)), [""; 0]);
    // Elsewhere it is, and it goes on hearing.
    host.say(slot, &publish("public:b"));
    host.say(other, &publish(ROOM));
    assert_eq!(types(&host.frames(slot)), ["ack", "message"]);
    host.frames(other);
    host.pass(4_000);
    host.say(slot, &publish(ROOM));
    assert_eq!(types(&host.frames(other)), ["message"]);
}

#[test]
fn whoever_is_kicked_leaves_on_every_connection_and_may_come_back() {
    let mut host = Host::new(rules());
    let tabs = [member(&mut host, "ann"), member(&mut host, "ann")];
    let other = member(&mut host, "bob");
    moderate(&mut host, ROOM, Act::Kick(ann()));
    for tab in tabs {
        let frames = host.frames(tab);
        assert_eq!(types(&frames), ["unsubscribed"]);
        assert_eq!((&frames[0]["code"], &frames[0]["id"]), (&json!(103), &Value::Null));
    }
    host.say(other, &publish(ROOM));
    assert_eq!(types(&host.frames(other)), ["ack", "message"]);
    assert_eq!(types(&host.frames(tabs[0])), [""; 0]);
    host.say(tabs[0], &json!({"type": "subscribe", "id": 2, "room": ROOM}).to_string());
    assert_eq!(types(&host.frames(tabs[0])), ["subscribed"]);
    // Kicked from where it is not, it hears nothing of it.
    moderate(&mut host, "public:nowhere", Act::Kick(ann()));
    assert_eq!(types(&host.frames(tabs[0])), [""; 0]);
}

#[test]
fn whoever_is_banned_can_not_subscribe_resume_or_read_until_the_ban_ends() {
    let mut host = Host::new(rules());
    let slot = member(&mut host, "ann");
    host.say(slot, &publish(ROOM));
    let frames = host.frames(slot);
    let epoch = frames[0]["epoch"].clone();
    moderate(&mut host, ROOM, Act::Ban(ann(), a_while()));
    assert_eq!(types(&host.frames(slot)), ["unsubscribed"]);
    for command in [
        json!({"type": "subscribe", "id": 2, "room": ROOM}),
        json!({"type": "history", "id": 2, "room": ROOM}),
        json!({"type": "presence", "id": 2, "room": ROOM}),
        json!({"type": "publish", "id": 2, "room": ROOM, "data": 1}),
    ] {
        host.say(slot, &command.to_string());
        let (code, _, wait) = error(&host.frames(slot));
        assert_eq!((code, wait), (103, json!(5_000)), "{command}");
    }
    let again = host.connect(Some("ann"));
    let since = json!({"room": ROOM, "epoch": epoch, "offset": 0});
    host.say(again, &json!({"type": "connect", "id": 1, "resume": [since]}).to_string());
    let frames = host.frames(again);
    let hello = frames.last().unwrap();
    assert_eq!(hello["type"], "hello", "{hello}");
    assert_eq!(hello["resumed"][0]["error"]["code"], 103, "{hello}");
    host.pass(5_000);
    host.say(slot, &json!({"type": "subscribe", "id": 2, "room": ROOM}).to_string());
    assert_eq!(types(&host.frames(slot)), ["subscribed"]);
}

#[test]
fn a_ban_meets_who_is_on_its_way_in() {
    let mut host = Host::new(rules());
    let slot = host.connect(Some("ann"));
    host.frames(slot);
    host.hold_calls = true;
    host.say_only(slot, &json!({"type": "subscribe", "id": 2, "room": ROOM}).to_string());
    // It was asked whether it may before the ban, and is told after it.
    let done = host.run_held();
    moderate(&mut host, ROOM, Act::Ban(ann(), None));
    host.complete(done);
    host.settle();
    assert_eq!(error(&host.frames(slot)).0, 103);
    let other = member(&mut host, "bob");
    host.say(other, &publish(ROOM));
    assert_eq!(types(&host.frames(slot)), [""; 0]);
}

#[test]
fn who_follows_a_pattern_hears_nothing_of_the_room_that_it_is_banned_from() {
    let mut host = Host::new(rules());
    let slots = ["ann", "bob"].map(|user| {
        let slot = host.connect(Some(user));
        let command = json!({"type": "subscribe", "id": 1, "pattern": "public:*"});
        host.say(slot, &command.to_string());
        assert_eq!(types(&host.frames(slot)), ["hello", "subscribed"]);
        slot
    });
    moderate(&mut host, ROOM, Act::Ban(ann(), None));
    let speaker = host.connect(None);
    for room in [ROOM, "public:b", ROOM] {
        host.say_only(speaker, &publish(room));
    }
    host.settle();
    let rooms = |frames: Vec<Value>| -> Vec<Value> {
        frames.iter().map(|frame| frame["room"].clone()).collect()
    };
    assert_eq!(rooms(host.frames(slots[0])), ["public:b"]);
    assert_eq!(rooms(host.frames(slots[1])), [ROOM, "public:b", ROOM]);
}

#[test]
fn on_the_chat_a_muted_user_neither_speaks_nor_types_and_a_banned_one_is_closed_with_3501() {
    let mut host = Host::new(rules());
    let chat = View::Document(Endpoint::Chat);
    let slot = host.connect_by(chat, Some("ann"));
    assert_eq!(types(&host.frames(slot)), ["connected"]);
    moderate(&mut host, "chat:global", Act::Mute(ann(), a_while()));
    for said in [r#"{"type":"chat_message","content":"hi"}"#, r#"{"type":"typing"}"#] {
        host.say(slot, said);
        let (code, words, wait) = error(&host.frames(slot));
        assert_eq!((code, wait), (103, json!(5_000)));
        assert!(words.contains("muted"), "{words}");
    }
    moderate(&mut host, "chat:global", Act::Ban(ann(), a_while()));
    let frames = host.frames(slot);
    assert_eq!(types(&frames), ["channel_left"]);
    assert_eq!((&frames[0]["channel"], &frames[0]["code"]), (&json!("global"), &json!(103)));
    // It stays for what else there is, and can't come anew.
    host.say(slot, r#"{"type":"ping"}"#);
    assert_eq!(types(&host.frames(slot)), ["pong"]);
    let again = host.connect_by(chat, Some("ann"));
    assert_eq!(host.line(again).closed, Some(CloseCode::Forbidden));
}

#[test]
fn what_waits_behind_a_page_goes_on_when_its_user_is_put_out_of_the_room() {
    let mut rules = rules();
    rules.limits.held_bytes_max = 1_000;
    let mut host = Host::new(rules);
    let bob = member(&mut host, "bob");
    host.say(bob, &publish(ROOM));
    let said = host.frames(bob);
    let epoch = said.iter().find_map(|frame| frame.get("epoch").cloned()).unwrap();
    let slot = host.connect(Some("ann"));
    host.frames(slot);
    host.hold_calls = true;
    let since = json!({"epoch": epoch, "offset": 0});
    host.say(
        slot,
        &json!({"type": "subscribe", "id": 1, "room": ROOM, "since": since}).to_string(),
    );
    host.hold_calls = false;
    // More than may be held for a joiner: the rest is to come in a page, once it has taken the first.
    for _ in 0..20 {
        let data = "x".repeat(100);
        host.say(bob, &json!({"type": "publish", "room": ROOM, "data": data}).to_string());
    }
    host.slow_down(slot, true);
    host.release_calls();
    host.settle();
    host.say(slot, r#"{"type":"status","id":7}"#);
    let before = host.frames(slot);
    assert_eq!((&before[0]["type"], &before[0]["more"]), (&json!("subscribed"), &json!(true)));
    assert!(!types(&before).contains(&"status"), "it waits behind the page: {before:?}");
    moderate(&mut host, ROOM, Act::Kick(ann()));
    host.slow_down(slot, false);
    host.pass(100);
    let after = host.frames(slot);
    assert_eq!(types(&after), ["unsubscribed", "status"]);
}
