//! Coming back: one `connect` with a ticket and positions, one `hello` with all that was missed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use application::extensions::middleware::{Context, Inbound, Middleware, Who};
use application::refusal::Refusal;
use application::services::Rules;
use application::shard::Slot;
use async_trait::async_trait;
use domain::codes::{CloseCode, ErrorCode};
use domain::policy::Access;
use domain::retention::Retention;
use serde_json::{Value, json};

use crate::host::{Host, TICKET_LIFETIME, open_policy, open_rules, types};

const ROOMS: [&str; 3] = ["public:a", "public:b", "public:c"];

/// Only who says who it is gets in; `closed:*` needs a grant.
fn rules() -> Rules {
    let mut rules = Rules { allow_anonymous: false, ..open_rules() };
    let closed = Access::Granted;
    let policy = domain::policy::NamespacePolicy { subscribe: closed, ..open_policy() };
    rules.policies.set_namespace("closed", policy);
    rules
}

fn publish(host: &mut Host, slot: Slot, room: &str, data: &Value) {
    let text = json!({"type": "publish", "id": 9, "room": room, "data": data}).to_string();
    host.say(slot, &text);
}

/// A user in all rooms; answers its ticket and where it stands.
fn member(host: &mut Host, token: &str) -> (Slot, String, Vec<Value>) {
    let slot = host.connect(Some(token));
    let ticket = host.frames(slot)[0]["session"].as_str().unwrap().to_owned();
    let mut positions = Vec::new();
    for room in ROOMS {
        host.say(slot, &json!({"type": "subscribe", "id": 1, "room": room}).to_string());
        let subscribed = host.frames(slot).pop().unwrap();
        positions.push(entry(room, &subscribed["epoch"], &subscribed["offset"]));
    }
    (slot, ticket, positions)
}

fn entry(room: &str, epoch: &Value, offset: &Value) -> Value {
    json!({"room": room, "epoch": epoch, "offset": offset})
}

fn connect(session: Option<&str>, token: Option<&str>, resume: &[Value]) -> String {
    json!({"type": "connect", "id": 1, "session": session, "token": token, "resume": resume})
        .to_string()
}

/// Connects without a token in the upgrade, says `connect`, and answers everything that came.
fn come_back(host: &mut Host, text: &str) -> (Slot, Vec<Value>) {
    let slot = host.connect(None);
    host.say(slot, text);
    let frames = host.frames(slot);
    (slot, frames)
}

fn offsets(messages: &Value) -> Vec<u64> {
    messages.as_array().unwrap().iter().map(|m| m["offset"].as_u64().unwrap()).collect()
}

#[test]
fn who_comes_back_with_a_ticket_gets_every_room_and_all_it_missed_in_one_frame() {
    let mut host = Host::new(rules());
    let (slot, ticket, positions) = member(&mut host, "ann");
    let (other, ..) = member(&mut host, "bob");
    host.drop_line(slot);
    for n in 1..=3 {
        publish(&mut host, other, "public:a", &json!(n));
    }
    publish(&mut host, other, "public:c", &json!("one"));
    let verified = host.verified.load(Ordering::Relaxed);
    let (slot, frames) = come_back(&mut host, &connect(Some(&ticket), None, &positions));
    assert_eq!(types(&frames), ["hello"]);
    let hello = &frames[0];
    assert_eq!((&hello["id"], &hello["user_id"]), (&json!(1), &json!("ann")));
    assert!(hello["session"].is_string());
    let resumed = hello["resumed"].as_array().unwrap();
    let rooms: Vec<_> = resumed.iter().map(|entry| entry["room"].as_str().unwrap()).collect();
    assert_eq!(rooms, ROOMS);
    for (entry, expected) in resumed.iter().zip([vec![1, 2, 3], vec![], vec![1]]) {
        assert_eq!(offsets(&entry["messages"]), expected);
        assert_eq!(entry["offset"], json!(expected.last().copied().unwrap_or(0)));
        assert_eq!((&entry["recovered"], &entry["more"]), (&json!(true), &json!(false)));
        assert!(entry["gap"].is_null() && entry.get("error").is_none());
    }
    assert_eq!(host.verified.load(Ordering::Relaxed), verified, "no token was verified");
    // And it is live.
    publish(&mut host, other, "public:a", &json!(4));
    publish(&mut host, other, "public:b", &json!(1));
    let live = host.frames(slot);
    let live: Vec<_> = live.iter().map(|m| (m["room"].clone(), m["offset"].clone())).collect();
    assert_eq!(live, [(json!("public:a"), json!(4)), (json!("public:b"), json!(1))]);
}

#[test]
fn a_room_that_can_not_be_had_is_refused_alone_with_its_reason() {
    let mut rules = rules();
    rules.limits.rooms_per_connection_max = 2;
    let mut host = Host::new(rules);
    let at = |room: &str| entry(room, &json!("00000000000000aa"), &json!(0));
    let list = [at("closed:x"), at("public:a"), at("nowhere:x"), at("public:b"), at("public:c")];
    let (slot, frames) = come_back(&mut host, &connect(None, Some("ann"), &list));
    assert_eq!(types(&frames), ["hello"]);
    let codes: Vec<_> = frames[0]["resumed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["error"]["code"].as_u64())
        .collect();
    // What is refused takes no place.
    assert_eq!(codes, [Some(103), None, Some(104), None, Some(107)]);
    assert_eq!(frames[0]["resumed"][0]["error"]["error"], "permission_denied");
    host.say(slot, r#"{"type":"status","id":2}"#);
    assert_eq!(host.frames(slot)[0]["rooms"], json!(["public:a", "public:b"]));
    // The refused rooms left nothing behind.
    host.say(slot, r#"{"type":"unsubscribe","room":"public:b"}"#);
    host.frames(slot);
    host.say(slot, r#"{"type":"subscribe","id":3,"room":"public:c"}"#);
    assert_eq!(types(&host.frames(slot)), ["subscribed"]);
}

#[test]
fn a_gap_stands_in_the_entry_of_its_room() {
    let mut rules = rules();
    let mut policy = open_policy();
    policy.retention = Retention { messages_max: 2, ..Retention::default() };
    rules.policies.set_namespace("public", policy);
    let mut host = Host::new(rules);
    let (slot, ticket, mut positions) = member(&mut host, "ann");
    let (other, ..) = member(&mut host, "bob");
    host.drop_line(slot);
    for n in 1..=5 {
        publish(&mut host, other, "public:a", &json!(n));
    }
    positions[1]["epoch"] = json!("of another life");
    let (_, frames) = come_back(&mut host, &connect(Some(&ticket), None, &positions));
    let resumed = &frames[0]["resumed"];
    assert_eq!(resumed[0]["gap"], json!({"from": 1, "to": 3, "reason": "retention"}));
    assert_eq!(offsets(&resumed[0]["messages"]), [4, 5]);
    assert_eq!(resumed[0]["recovered"], json!(false));
    assert_eq!(resumed[1]["gap"], json!({"from": 1, "to": 0, "reason": "epoch_changed"}));
    assert!(resumed[2]["gap"].is_null());
    assert_eq!(types(&frames), ["hello"]);
}

#[test]
fn what_one_frame_does_not_hold_comes_in_pages_one_at_a_time_before_anything_live() {
    let mut rules = rules();
    rules.limits.resume_bytes_max = 700;
    rules.limits.page_messages_max = 2;
    let mut host = Host::new(rules);
    let (slot, ticket, positions) = member(&mut host, "ann");
    let (other, ..) = member(&mut host, "bob");
    host.drop_line(slot);
    for room in ROOMS {
        for n in 1..=5 {
            publish(&mut host, other, room, &json!(n));
        }
    }
    let slot = host.connect(None);
    host.slow_down(slot, true);
    host.say(slot, &connect(Some(&ticket), None, &positions));
    let frames = host.frames(slot);
    assert_eq!(types(&frames), ["hello"], "the client has not taken it yet");
    let bytes: usize = frames[0]["resumed"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|entry| entry["messages"].as_array().unwrap())
        .map(|message| message.to_string().len())
        .sum();
    assert!(bytes > 0 && bytes <= 700, "{bytes}");
    publish(&mut host, other, "public:c", &json!("live"));
    assert!(host.frames(slot).is_empty());
    // Each look finds what the client has taken, and reads one page more.
    let mut told = frames;
    host.pass(60);
    assert!(host.frames(slot).is_empty());
    host.slow_down(slot, false);
    host.pass(60);
    told.extend(host.frames(slot));
    for room in ROOMS {
        let mut seen = Vec::new();
        for frame in &told {
            let from = match frame["type"].as_str().unwrap() {
                "hello" => frame["resumed"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|entry| entry["room"] == room)
                    .map(|entry| offsets(&entry["messages"]))
                    .unwrap(),
                "page" if frame["room"] == room => offsets(&frame["messages"]),
                "message" if frame["room"] == room => vec![frame["offset"].as_u64().unwrap()],
                _ => Vec::new(),
            };
            seen.extend(from);
        }
        let last = if room == "public:c" { 6 } else { 5 };
        assert_eq!(seen, (1..=last).collect::<Vec<_>>(), "{room}");
    }
    // A command waits behind the pages, and is answered.
    host.say(slot, r#"{"type":"ping","id":5}"#);
    assert_eq!(types(&host.frames(slot)), ["pong"]);
}

#[test]
fn who_leaves_a_room_while_its_pages_are_to_come_gets_them_first_and_nothing_after() {
    let mut rules = rules();
    rules.limits.resume_bytes_max = 0;
    rules.limits.page_messages_max = 1;
    let mut host = Host::new(rules);
    let (slot, ticket, positions) = member(&mut host, "ann");
    let (other, ..) = member(&mut host, "bob");
    host.drop_line(slot);
    for n in 1..=3 {
        publish(&mut host, other, "public:a", &json!(n));
    }
    let slot = host.connect(None);
    host.slow_down(slot, true);
    host.say(slot, &connect(Some(&ticket), None, &positions));
    host.say(slot, r#"{"type":"unsubscribe","id":9,"room":"public:a"}"#);
    assert_eq!(types(&host.frames(slot)), ["hello"]);
    publish(&mut host, other, "public:a", &json!("before it is out"));
    host.slow_down(slot, false);
    host.pass(100);
    publish(&mut host, other, "public:a", &json!("after"));
    let frames = host.frames(slot);
    let out = types(&frames).iter().position(|kind| *kind == "unsubscribed").expect("an answer");
    let in_room = |frame: &Value| frame["room"] == "public:a";
    let told = frames[..out].iter().filter(|frame| in_room(frame) && frame["type"] == "page");
    let told: Vec<u64> = told.flat_map(|frame| offsets(&frame["messages"])).collect();
    assert_eq!(told, [1, 2, 3, 4], "{frames:?}");
    assert!(!frames[out + 1..].iter().any(in_room), "{frames:?}");
    // The other rooms are not touched by it.
    publish(&mut host, other, "public:b", &json!("here"));
    assert_eq!(host.frames(slot).pop().unwrap()["room"], "public:b");
}

#[test]
fn whose_line_drops_while_pages_are_to_come_is_in_no_room_any_more() {
    let mut rules = rules();
    rules.limits.resume_bytes_max = 0;
    let mut host = Host::new(rules);
    let (slot, ticket, positions) = member(&mut host, "ann");
    let (other, ..) = member(&mut host, "bob");
    host.drop_line(slot);
    for room in ROOMS {
        publish(&mut host, other, room, &json!(1));
    }
    let slot = host.connect(None);
    host.slow_down(slot, true);
    host.say(slot, &connect(Some(&ticket), None, &positions));
    let hello = host.frames(slot).remove(0);
    for entry in hello["resumed"].as_array().unwrap() {
        assert_eq!((&entry["messages"], &entry["more"]), (&json!([]), &json!(true)));
        assert_eq!(entry["offset"], json!(0), "where it stood");
    }
    // The connection ends while pages wait: nothing of it is left.
    host.drop_line(slot);
    host.pass(100);
    host.say(other, r#"{"type":"presence","id":3,"room":"public:a"}"#);
    let list = host.frames(other).pop().unwrap();
    assert_eq!(list["total"], json!(1), "{list}");
}

#[test]
fn the_newest_of_each_key_comes_with_the_frame_or_with_the_page_behind_it() {
    for (resume_bytes_max, in_hello) in [(100_000, true), (100, false)] {
        let mut rules = rules();
        rules.limits.resume_bytes_max = resume_bytes_max;
        let mut host = Host::new(rules);
        let (slot, ticket, positions) = member(&mut host, "ann");
        let (other, ..) = member(&mut host, "bob");
        host.drop_line(slot);
        let latest = r#"{"type":"publish","room":"public:a","data":7,"class":"latest","key":"k"}"#;
        host.say(other, latest);
        let (_, frames) = come_back(&mut host, &connect(Some(&ticket), None, &positions));
        let entry = &frames[0]["resumed"][0];
        assert_eq!(entry["messages"].as_array().unwrap().len(), usize::from(in_hello));
        assert_eq!(entry["more"], json!(!in_hello));
        if !in_hello {
            assert_eq!(types(&frames), ["hello", "page"]);
            assert_eq!(frames[1]["messages"][0]["key"], "k");
            assert_eq!(frames[1]["more"], json!(false));
        }
    }
}

#[test]
fn what_is_published_before_a_page_of_newest_values_is_kept_in_a_room_without_history() {
    let mut rules = rules();
    rules.limits.resume_bytes_max = 10;
    let mut policy = open_policy();
    policy.retention = Retention { messages_max: 0, ..Retention::default() };
    rules.policies.set_namespace("public", policy);
    let mut host = Host::new(rules);
    let (other, ..) = member(&mut host, "bob");
    let latest = r#"{"type":"publish","room":"public:a","data":7,"class":"latest","key":"k"}"#;
    host.say(other, latest);
    let (slot, ticket, positions) = member(&mut host, "ann");
    assert_eq!(positions[0]["offset"], json!(0), "a newest value takes no place in the log");
    host.drop_line(slot);
    let slot = host.connect(None);
    host.slow_down(slot, true);
    host.say(slot, &connect(Some(&ticket), None, &positions));
    let mut frames = host.frames(slot);
    assert_eq!(frames[0]["resumed"][0]["more"], json!(true));
    publish(&mut host, other, "public:a", &json!("live"));
    host.slow_down(slot, false);
    host.pass(60);
    frames.extend(host.frames(slot));
    assert_eq!(types(&frames), ["hello", "page", "message"], "{frames:?}");
    assert_eq!((&frames[1]["offset"], &frames[1]["more"]), (&json!(0), &json!(false)));
    assert_eq!(frames[1]["messages"][0]["key"], "k");
    assert_eq!((&frames[2]["offset"], &frames[2]["data"]), (&json!(1), &json!("live")));
}

/// D02
#[test]
fn a_ticket_used_twice_at_once_is_two_connections_and_each_gets_everything() {
    let mut rules = rules();
    rules.limits.connections_per_user_max = 3;
    let mut host = Host::new(rules);
    // The old one is still there, as it is when only its network is gone.
    let (_half_open, ticket, positions) = member(&mut host, "ann");
    let (other, ..) = member(&mut host, "bob");
    for n in 1..=3 {
        publish(&mut host, other, "public:a", &json!(n));
    }
    let text = connect(Some(&ticket), None, &positions);
    let slots = [host.connect(None), host.connect(None)];
    for slot in slots {
        host.say_only(slot, &text);
    }
    publish(&mut host, other, "public:a", &json!(4));
    for slot in slots {
        let frames = host.frames(slot);
        let missed = offsets(&frames[0]["resumed"][0]["messages"]);
        let live = frames[1..].iter().map(|frame| frame["offset"].as_u64().unwrap());
        let all: Vec<_> = missed.into_iter().chain(live).collect();
        assert_eq!(all, [1, 2, 3, 4]);
    }
    // The user's limit counts them like any other.
    let (slot, _) = come_back(&mut host, &text);
    assert_eq!(host.line(slot).closed, Some(CloseCode::ConnectionLimit));
}

/// D02
#[test]
fn a_ticket_that_does_not_count_lets_nobody_in_but_leaves_the_token_its_right() {
    let mut host = Host::new(rules());
    let (_, ticket, _) = member(&mut host, "ann");
    let mut forged = ticket.clone().into_bytes();
    let at = forged.len() / 2;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for session in [forged.as_str(), "", "x", &ticket[..ticket.len() - 1]] {
        let (slot, _) = come_back(&mut host, &connect(Some(session), None, &[]));
        assert_eq!(host.line(slot).closed, Some(CloseCode::Unauthenticated), "{session}");
        let (_, frames) = come_back(&mut host, &connect(Some(session), Some("bob"), &[]));
        assert_eq!((types(&frames), &frames[0]["user_id"]), (vec!["hello"], &json!("bob")));
    }
    let (slot, _) = come_back(&mut host, &connect(Some("x"), Some("bad"), &[]));
    assert_eq!(host.line(slot).closed, Some(CloseCode::Unauthenticated));
    // Its time is over.
    host.pass(u64::try_from(TICKET_LIFETIME.as_millis()).unwrap());
    let (slot, _) = come_back(&mut host, &connect(Some(&ticket), None, &[]));
    assert_eq!(host.line(slot).closed, Some(CloseCode::Unauthenticated));
}

#[test]
fn a_bad_ticket_is_refused_where_nobody_in_particular_would_be_let_in() {
    let mut host = Host::new(open_rules());
    let slot = host.connect(None);
    host.say(slot, &connect(Some("forged"), None, &[]));
    assert_eq!(host.line(slot).closed, Some(CloseCode::Unauthenticated));
}

#[test]
fn a_ticket_ends_with_its_token_and_so_does_the_connection_that_it_opened() {
    let mut host = Host::new(rules());
    let slot = host.connect(Some("until:60000:ann"));
    let ticket = host.frames(slot)[0]["session"].as_str().unwrap().to_owned();
    host.pass(59_000);
    let (back, frames) = come_back(&mut host, &connect(Some(&ticket), None, &[]));
    assert_eq!(types(&frames), ["hello"]);
    host.pass(10_000);
    assert_eq!(host.line(back).closed, Some(CloseCode::TokenExpired));
    let (late, _) = come_back(&mut host, &connect(Some(&ticket), None, &[]));
    assert_eq!(host.line(late).closed, Some(CloseCode::Unauthenticated));
}

#[test]
fn who_only_ever_comes_back_with_tickets_needs_its_token_after_one_lifetime() {
    let mut host = Host::new(rules());
    let (_, mut ticket, _) = member(&mut host, "ann");
    let lifetime_ms = u64::try_from(TICKET_LIFETIME.as_millis()).unwrap();
    let mut back = |host: &mut Host, token: Option<&str>| {
        let (slot, frames) = come_back(host, &connect(Some(&ticket), token, &[]));
        if let Some(hello) = frames.first().filter(|frame| frame["type"] == "hello") {
            ticket = hello["session"].as_str().unwrap_or_default().to_owned();
            host.drop_line(slot);
            return None;
        }
        host.line(slot).closed
    };
    for _ in 0..3 {
        host.pass(lifetime_ms / 4);
        assert_eq!(back(&mut host, None), None);
    }
    host.pass(lifetime_ms / 4);
    assert_eq!(back(&mut host, None), Some(CloseCode::Unauthenticated));
    // The token begins it anew, and the ticket that comes of it.
    assert_eq!(back(&mut host, Some("ann")), None);
    host.pass(lifetime_ms - 1);
    assert_eq!(back(&mut host, None), None);
}

#[test]
fn behind_a_token_in_the_upgrade_connect_may_bring_rooms_but_nobody_else() {
    let mut host = Host::new(rules());
    let (_, anns, positions) = member(&mut host, "ann");
    let slot = host.connect(Some("bob"));
    let bobs = host.frames(slot)[0]["session"].as_str().unwrap().to_owned();
    for (text, field) in [
        (connect(None, Some("bob"), &positions), "token"),
        (connect(Some(&anns), None, &positions), "session"),
    ] {
        host.say(slot, &text);
        let refused = host.frames(slot).remove(0);
        assert_eq!((&refused["code"], &refused["field"]), (&json!(112), &json!(field)));
    }
    host.say(slot, &connect(Some(&bobs), None, &positions));
    let frames = host.frames(slot);
    assert_eq!((types(&frames), &frames[0]["user_id"]), (vec!["hello"], &json!("bob")));
    assert_eq!(frames[0]["resumed"].as_array().unwrap().len(), 3);
    // Once.
    host.say(slot, &connect(None, None, &[]));
    assert_eq!(host.frames(slot)[0]["code"], json!(112));
    // A ticket that does not count changes nothing where a token has.
    let slot = host.connect(Some("bob"));
    host.frames(slot);
    host.say(slot, &connect(Some("forged"), None, &positions));
    assert_eq!(types(&host.frames(slot)), ["hello"]);
}

#[test]
fn who_is_nobody_in_particular_comes_back_without_a_ticket() {
    let mut host = Host::new(open_rules());
    let member = host.member("public:a");
    let slot = host.connect(None);
    let hello = host.frames(slot).remove(0);
    assert!(hello["session"].is_null() && hello["user_id"].is_null());
    publish(&mut host, member, "public:a", &json!(1));
    let epoch = host.frames(member).pop().unwrap()["epoch"].clone();
    host.say(slot, &connect(None, None, &[entry("public:a", &epoch, &json!(0))]));
    let again = host.frames(slot).remove(0);
    assert_eq!(offsets(&again["resumed"][0]["messages"]), [1]);
    assert!(again["session"].is_null());
    // Not once a room was joined.
    host.say(member, &connect(None, None, &[]));
    assert_eq!(host.frames(member)[0]["code"], json!(112));
}

#[test]
fn a_fresh_token_brings_a_fresh_ticket() {
    let mut host = Host::new(rules());
    let slot = host.connect(Some("until:60000:ann"));
    let first = host.frames(slot)[0]["session"].clone();
    host.say(slot, r#"{"type":"refresh","id":2,"token":"until:300000:ann"}"#);
    let refreshed = host.frames(slot).remove(0);
    assert_ne!(refreshed["session"], first);
    host.pass(120_000);
    for (ticket, counts) in [(&first, false), (&refreshed["session"], true)] {
        let text = connect(ticket.as_str(), None, &[]);
        let (slot, frames) = come_back(&mut host, &text);
        assert_eq!(types(&frames) == ["hello"], counts);
        assert_eq!(host.line(slot).closed.is_none(), counts);
    }
}

/// Keeps everybody out of `public:b`, and notes who was asked about.
struct Asks(std::sync::Mutex<Vec<(String, Option<String>)>>);

#[async_trait]
impl Middleware for Asks {
    async fn process_message(
        &self,
        _: &Who,
        message: Inbound<'_>,
        _: &mut Context,
    ) -> Result<(), Refusal> {
        let asked = (message.kind.to_owned(), message.room.map(str::to_owned));
        self.0.lock().unwrap().push(asked);
        match message.room {
            Some("public:b") => Err(Refusal::new(ErrorCode::NotAvailable, "not today")),
            _ => Ok(()),
        }
    }
}

#[test]
fn middleware_is_asked_about_each_room_as_about_a_subscribe() {
    let asks = Arc::new(Asks(std::sync::Mutex::default()));
    let mut rules = rules();
    rules.middleware.push(Arc::clone(&asks) as _);
    let mut host = Host::new(rules);
    let list: Vec<_> =
        ROOMS.iter().map(|room| entry(room, &json!("00000000000000aa"), &json!(0))).collect();
    let (_, frames) = come_back(&mut host, &connect(None, Some("ann"), &list));
    let resumed = &frames[0]["resumed"];
    assert_eq!(resumed[1]["error"]["code"], json!(115));
    assert!(resumed[0].get("error").is_none() && resumed[2].get("error").is_none());
    let asked = asks.0.lock().unwrap();
    let expected: Vec<_> = ROOMS.map(|room| ("subscribe".to_owned(), Some(room.to_owned()))).into();
    assert_eq!(*asked, expected);
}

#[test]
fn a_connection_that_ends_while_it_comes_back_leaves_nothing_behind() {
    let mut host = Host::new(rules());
    let (_, _, positions) = member(&mut host, "ann");
    let (other, ..) = member(&mut host, "bob");
    let slot = host.connect(None);
    host.hold_calls = true;
    host.say(slot, &connect(None, Some("carol"), &positions));
    // The token is verified; then the joins are done, and nobody has heard of it when it ends.
    host.release_one(0);
    assert_eq!(host.n_held(), 1, "the joins, as one call");
    let joined = host.run_held();
    host.drop_line(slot);
    host.complete(joined);
    host.settle();
    for room in ROOMS {
        host.say(other, &json!({"type": "presence", "id": 3, "room": room}).to_string());
        let list = host.frames(other).pop().unwrap();
        assert_eq!(list["total"], json!(2), "{list}");
    }
}

#[test]
fn a_slow_resume_is_not_taken_for_a_client_that_does_not_say_who_it_is() {
    let mut host = Host::new(rules());
    let (_, ticket, positions) = member(&mut host, "ann");
    let slot = host.connect(None);
    host.say_only(slot, &connect(Some(&ticket), None, &[]));
    host.frames(slot);
    host.pass(11_000);
    assert!(host.line(slot).closed.is_none());
    // Joins that take longer than the time for authentication.
    let slot = host.connect(Some("ann"));
    host.frames(slot);
    host.hold_calls = true;
    host.say_only(slot, &connect(None, None, &positions));
    host.pass(11_000);
    let line = host.line(slot);
    assert!(line.closed.is_none() && line.frames.is_empty(), "{line:?}");
    host.release_calls();
    host.settle();
    assert_eq!(types(&host.frames(slot)), ["hello"]);
}
