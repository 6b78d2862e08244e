//! Who gets which messages: filters over tags, patterns of rooms, and the room of one's own.

use application::services::Rules;
use application::shard::Slot;
use domain::policy::{Access, NamespacePolicy};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::host::{Host, open_policy, open_rules, types};

const GERMAN: &str = r#"{"eq":{"lang":"de"}}"#;

fn tagged(n: u32, lang: &str) -> String {
    let tags = json!({ "lang": lang });
    json!({"type": "publish", "id": n, "room": "public:a", "data": n, "tags": tags}).to_string()
}

fn filtered(host: &mut Host, filter: &str) -> Slot {
    let slot = host.connect(None);
    host.say(slot, &subscribe(filter));
    host.line(slot);
    slot
}

fn subscribe(filter: &str) -> String {
    format!(r#"{{"type":"subscribe","id":1,"room":"public:a","filter":{filter}}}"#)
}

/// What is told of each message: its data, its offset and the offset before it.
fn told(frames: &[Value]) -> Vec<(u64, u64, u64)> {
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let messages = frames.iter().filter(|frame| frame["type"] == "message");
    messages.map(|m| (number(&m["data"]), number(&m["offset"]), number(&m["previous"]))).collect()
}

#[test]
fn a_filtered_member_gets_what_it_asked_for_and_the_offset_before_each() {
    let mut host = Host::new(open_rules());
    let publisher = host.member("public:a");
    host.say(publisher, &tagged(1, "en"));
    let (german, all) = (filtered(&mut host, GERMAN), host.member("public:a"));
    for (n, lang) in [(2, "en"), (3, "de"), (4, "en"), (5, "en"), (6, "de")] {
        host.say(publisher, &tagged(n, lang));
    }
    let frames = host.frames(german);
    assert_eq!(told(&frames), [(3, 3, 1), (6, 6, 3)]);
    assert_eq!(frames[0]["tags"], json!({"lang": "de"}));
    let frames = host.frames(all);
    let offsets: Vec<_> = frames.iter().map(|frame| frame["offset"].as_u64()).collect();
    assert_eq!(offsets, (2..=6).map(Some).collect::<Vec<_>>());
    assert!(frames.iter().all(|frame| frame.get("previous").is_none()));
}

#[test]
fn a_message_is_decided_once_for_each_different_filter_however_many_have_it() {
    let mut host = Host::new(open_rules());
    let publisher = host.member("public:a");
    for n in 0..300 {
        // The same filter in three spellings, and another one.
        let filter = match n % 4 {
            0 => GERMAN,
            1 => r#"{"in":{"lang":["de"]}}"#,
            2 => r#"{"and":[{"eq":{"lang":"de"}}]}"#,
            _ => r#"{"not":{"eq":{"lang":"de"}}}"#,
        };
        filtered(&mut host, filter);
    }
    assert_eq!(host.shard.filter_decisions(), 0);
    for n in 1..=10 {
        host.say(publisher, &tagged(n, "de"));
    }
    assert_eq!(host.shard.filter_decisions(), 2 * 10);
}

#[test]
fn what_passes_a_filter_leaves_as_one_write_too() {
    let mut host = Host::new(open_rules());
    let publisher = host.member("public:a");
    let german = filtered(&mut host, GERMAN);
    for n in 1..=9 {
        host.say_only(publisher, &tagged(n, if n % 3 == 0 { "de" } else { "en" }));
    }
    host.settle();
    let line = host.line(german);
    assert_eq!(told(&line.frames), [(3, 3, 0), (6, 6, 3), (9, 9, 6)]);
    assert_eq!(line.writes, 1);
}

#[test]
fn an_ack_without_echo_comes_in_its_place_whether_the_message_passes_or_not() {
    let mut host = Host::new(open_rules());
    let other = host.member("public:a");
    let german = filtered(&mut host, GERMAN);
    let silent = |n, lang| tagged(n, lang).replacen('{', r#"{"echo":false,"#, 1);
    host.say_only(other, &tagged(1, "de"));
    host.say_only(german, &silent(2, "en"));
    host.say_only(other, &tagged(3, "de"));
    host.say_only(german, &silent(4, "de"));
    host.say_only(other, &tagged(5, "de"));
    host.settle();
    let frames = host.frames(german);
    assert_eq!(types(&frames), ["message", "ack", "message", "ack", "message"]);
    assert_eq!(told(&frames), [(1, 1, 0), (3, 3, 1), (5, 5, 4)]);
}

#[test]
fn one_filter_more_than_a_room_may_have_is_refused_and_a_known_one_is_not() {
    let mut rules = open_rules();
    rules.limits.filters_per_room_max = 2;
    let mut host = Host::new(rules);
    let slots: Vec<_> = (0..4).map(|_| host.connect(None)).collect();
    let filter = |n: usize| subscribe(&format!(r#"{{"eq":{{"n":"{n}"}}}}"#));
    for (n, slot) in slots[..3].iter().enumerate() {
        host.line(*slot);
        host.say(*slot, &filter(n));
    }
    let refused = host.frames(slots[2]).pop().unwrap();
    assert_eq!((&refused["code"], &refused["field"]), (&json!(117), &json!("filter")));
    host.say(slots[3], &filter(1));
    assert_eq!(types(&host.frames(slots[3])), ["hello", "subscribed"]);
    // The place is free again once its last member has left.
    host.drop_line(slots[0]);
    host.say(slots[2], &filter(2));
    assert_eq!(types(&host.frames(slots[2])), ["subscribed"]);
}

#[test]
fn who_leaves_and_comes_with_another_filter_gets_nothing_of_the_old_one() {
    let mut host = Host::new(open_rules());
    let publisher = host.member("public:a");
    let slot = filtered(&mut host, GERMAN);
    host.say_only(publisher, &tagged(1, "de"));
    let leave = r#"{"type":"unsubscribe","room":"public:a"}"#;
    host.say_only(slot, &format!("{leave}{}", subscribe(r#"{"eq":{"lang":"en"}}"#)));
    host.settle();
    host.say(publisher, &tagged(2, "de"));
    host.say(publisher, &tagged(3, "en"));
    // It begins no later than where it joined.
    assert!(matches!(told(&host.frames(slot))[..], [(3, 3, 0 | 1)]));
}

#[test]
fn presence_is_for_followers_with_a_filter_too() {
    let mut host = Host::new(open_rules());
    let slot = host.connect(None);
    host.say(slot, &subscribe(GERMAN).replacen('{', r#"{"presence":true,"#, 1));
    host.line(slot);
    host.member("public:a");
    assert_eq!(types(&host.frames(slot)), ["presence_event"]);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Come(usize),
    Go(usize),
}

/// A client that does what the document says about `previous`.
struct Reader {
    wanted: &'static [usize],
    filter: &'static str,
    slot: Option<Slot>,
    at: Option<(String, u64)>,
    got: Vec<u64>,
}

impl Reader {
    fn take(&mut self, frame: &Value) {
        let offset = frame["offset"].as_u64().unwrap();
        match frame["type"].as_str().unwrap() {
            "message" => {
                let (_, at) = self.at.as_mut().unwrap();
                let previous = frame["previous"].as_u64().unwrap();
                assert!(previous <= *at && *at < offset, "{frame} at {at}");
                *at = offset;
                self.got.push(frame["data"].as_u64().unwrap());
            }
            "subscribed" | "page" => {
                let epoch = frame["epoch"].as_str().unwrap().to_owned();
                self.at.get_or_insert((epoch, offset));
                for message in frame["messages"].as_array().unwrap() {
                    self.take(message);
                }
                let (_, at) = self.at.as_mut().unwrap();
                assert!(*at <= offset, "{frame} at {at}");
                *at = offset;
            }
            other => panic!("{other}"),
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3usize).prop_map(Step::Publish),
        2 => (0..3usize).prop_map(Step::Come),
        1 => (0..3usize).prop_map(Step::Go),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The model: once a reader has come for the first time, it gets every later message that it
    /// wants, once and in order, however often it goes.
    #[test]
    fn whoever_comes_back_with_a_filter_has_missed_nothing_that_it_wants(
        steps in steps(), page in 1u32..4, held in proptest::sample::select(vec![300, 100_000]),
    ) {
        let mut rules = open_rules();
        rules.limits.page_messages_max = page;
        rules.limits.held_bytes_max = held;
        let mut host = Host::new(rules);
        let publisher = host.connect(None);
        let reader = |wanted, filter| Reader { wanted, filter, slot: None, at: None, got: vec![] };
        let mut readers = [
            reader(&[0], r#"{"eq":{"k":"0"}}"#),
            reader(&[0], r#"{"eq":{"k":"0"}}"#),
            reader(&[1, 2], r#"{"not":{"eq":{"k":"0"}}}"#),
        ];
        let mut expected = vec![Vec::new(); readers.len()];
        for (n, step) in steps.iter().chain(&[Step::Come(0), Step::Come(1), Step::Come(2)]).enumerate() {
            match step {
                Step::Publish(kind) => {
                    // Two steps are one turn of the shard now and then.
                    let text = format!(
                        r#"{{"type":"publish","room":"public:a","data":{n},"tags":{{"k":"{kind}"}}}}"#
                    );
                    if n % 2 == 0 { host.say_only(publisher, &text) } else { host.say(publisher, &text) }
                    for (reader, expected) in readers.iter().zip(&mut expected) {
                        if reader.at.is_some() && reader.wanted.contains(kind) {
                            expected.push(n as u64);
                        }
                    }
                }
                Step::Come(at) if readers[*at].slot.is_none() => {
                    host.settle();
                    let reader = &mut readers[*at];
                    let slot = host.connect(None);
                    host.line(slot);
                    let since = reader.at.as_ref().map_or(Value::Null, |(epoch, offset)| {
                        json!({"epoch": epoch, "offset": offset})
                    });
                    let text = subscribe(reader.filter).replacen('{', &format!(r#"{{"since":{since},"#), 1);
                    host.say(slot, &text);
                    host.frames(slot).iter().for_each(|frame| reader.take(frame));
                    reader.slot = Some(slot);
                }
                Step::Go(at) => {
                    host.settle();
                    if let Some(slot) = readers[*at].slot.take() {
                        host.frames(slot).iter().for_each(|frame| readers[*at].take(frame));
                        host.drop_line(slot);
                    }
                }
                Step::Come(_) => {}
            }
        }
        host.settle();
        for (reader, expected) in readers.iter_mut().zip(expected) {
            let slot = reader.slot.take().unwrap();
            host.frames(slot).iter().for_each(|frame| reader.take(frame));
            prop_assert_eq!(&reader.got, &expected);
        }
    }
}

#[test]
fn a_filter_that_is_named_comes_back_with_its_room() {
    let mut host = Host::new(open_rules());
    let publisher = host.member("public:a");
    let slot = host.connect(None);
    host.line(slot);
    host.say(slot, &subscribe(GERMAN));
    let epoch = host.frames(slot)[0]["epoch"].clone();
    host.drop_line(slot);
    for (n, lang) in [(1, "en"), (2, "de"), (3, "en")] {
        host.say(publisher, &tagged(n, lang));
    }
    let slot = host.connect(None);
    host.line(slot);
    let filter: Value = serde_json::from_str(GERMAN).unwrap();
    let room = json!({"room": "public:a", "epoch": epoch, "offset": 0, "filter": filter});
    host.say(slot, &json!({"type": "connect", "id": 1, "resume": [room]}).to_string());
    let frames = host.frames(slot);
    assert_eq!(types(&frames), ["hello"]);
    let back = &frames[0]["resumed"][0];
    assert_eq!((&back["offset"], &back["recovered"]), (&json!(3), &json!(true)));
    assert_eq!(told(back["messages"].as_array().unwrap()), [(2, 2, 0)]);
    host.say(publisher, &tagged(4, "en"));
    host.say(publisher, &tagged(5, "de"));
    assert_eq!(told(&host.frames(slot)), [(5, 5, 3)]);
}

fn game(patterns: bool) -> Rules {
    let mut rules = open_rules();
    let policy = NamespacePolicy { patterns, ..open_policy() };
    rules.policies.set_namespace("game", policy);
    rules
}

const ZONES: &str = r#"{"type":"subscribe","id":1,"pattern":"game:zone/*"}"#;

fn say_in(host: &mut Host, slot: Slot, room: &str, n: u32) {
    let text = json!({"type": "publish", "room": room, "data": n});
    host.say(slot, &text.to_string());
}

fn follower(host: &mut Host, text: &str) -> Slot {
    let slot = host.connect(None);
    host.say(slot, text);
    let frames = host.frames(slot);
    assert_eq!(types(&frames), ["hello", "subscribed"], "{frames:?}");
    slot
}

#[test]
fn a_pattern_brings_the_messages_of_all_its_rooms_each_with_its_rooms_position() {
    let mut host = Host::new(game(true));
    let publisher = host.connect(None);
    say_in(&mut host, publisher, "game:zone/1", 0);
    let slot = follower(&mut host, ZONES);
    for (n, room) in ["game:zone/1", "game:zone/2", "game:zone/1", "game:other"].iter().enumerate()
    {
        say_in(&mut host, publisher, room, n as u32 + 1);
    }
    let frames = host.frames(slot);
    let told: Vec<_> = frames
        .iter()
        .map(|m| (m["room"].as_str().unwrap(), m["offset"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("game:zone/1", 2), ("game:zone/2", 1), ("game:zone/1", 3)]);
    assert!(frames.iter().all(|m| m["pattern"] == "game:zone/*"));
    host.say(slot, r#"{"type":"unsubscribe","id":2,"pattern":"game:zone/*"}"#);
    say_in(&mut host, publisher, "game:zone/1", 9);
    assert_eq!(types(&host.frames(slot)), ["unsubscribed"]);
    assert_eq!(host.shard.rooms(), 0);
}

#[test]
fn who_is_in_a_room_and_follows_a_pattern_over_it_gets_both_each_marked() {
    let mut host = Host::new(game(true));
    let publisher = host.connect(None);
    let slot = follower(&mut host, ZONES);
    host.say(slot, r#"{"type":"subscribe","pattern":"game:*"}"#);
    host.say(slot, r#"{"type":"subscribe","room":"game:zone/1"}"#);
    host.line(slot);
    say_in(&mut host, publisher, "game:zone/1", 1);
    let frames = host.frames(slot);
    let mut marks: Vec<_> =
        frames.iter().map(|m| m.get("pattern").and_then(Value::as_str)).collect();
    marks.sort_unstable();
    assert_eq!(marks, [None, Some("game:*"), Some("game:zone/*")]);
}

#[test]
fn a_pattern_needs_a_policy_that_offers_it_and_a_right_to_every_room_of_it() {
    for (patterns, access) in [(false, Access::Anyone), (true, Access::Granted)] {
        let mut rules = open_rules();
        let policy = NamespacePolicy { patterns, subscribe: access, ..open_policy() };
        rules.policies.set_namespace("game", policy);
        let mut host = Host::new(rules);
        let slot = host.connect(None);
        host.say(slot, ZONES);
        let refused = host.frames(slot).pop().unwrap();
        assert_eq!((&refused["code"], &refused["field"]), (&json!(103), &json!("pattern")));
    }
    let mut host = Host::new(game(true));
    let slot = host.connect(None);
    host.say(slot, r#"{"type":"subscribe","id":1,"pattern":"nowhere:*"}"#);
    assert_eq!(host.frames(slot)[1]["code"], 103);
}

#[test]
fn patterns_have_their_limits_and_are_known_by_name() {
    let mut rules = game(true);
    (rules.limits.patterns_per_connection_max, rules.limits.patterns_max) = (2, 3);
    let mut host = Host::new(rules);
    let (one, other) = (host.connect(None), host.connect(None));
    let pattern = |n: u32| format!(r#"{{"type":"subscribe","id":{n},"pattern":"game:{n}*"}}"#);
    let mut codes = |slot, n| {
        host.line(slot);
        host.say(slot, &pattern(n));
        host.frames(slot)[0]["code"].as_u64()
    };
    assert_eq!([codes(one, 1), codes(one, 1), codes(one, 2)], [None, Some(106), None]);
    assert_eq!(codes(one, 3), Some(107));
    // A pattern that is followed already is no other one.
    assert_eq!([codes(other, 1), codes(other, 3)], [None, None]);
    host.say(other, r#"{"type":"unsubscribe","id":9,"pattern":"game:1*"}"#);
    host.line(other);
    host.say(other, &pattern(4));
    let refused = host.frames(other).pop().unwrap();
    assert_eq!((&refused["code"], &refused["field"]), (&json!(117), &json!("pattern")));
    host.say(other, r#"{"type":"unsubscribe","id":9,"pattern":"game:4*"}"#);
    assert_eq!(host.frames(other)[0]["code"], 105);
    // What a connection had is free again when it is gone.
    host.drop_line(one);
    host.say(other, &pattern(4));
    assert_eq!(types(&host.frames(other)), ["subscribed"]);
}

#[test]
fn a_large_pattern_is_walked_in_steps_and_who_leaves_meanwhile_shifts_nobody() {
    let mut host = Host::new(game(true));
    let publisher = host.connect(None);
    let slots: Vec<_> = (0..700).map(|_| follower(&mut host, ZONES)).collect();
    host.say_only(publisher, r#"{"type":"publish","room":"game:zone/1","data":1}"#);
    let mut post = application::mailbox::Post::default();
    host.shard.mailbox().take(&mut post);
    host.give(application::shard::Input::Mail(&mut post));
    host.give(application::shard::Input::Continue);
    assert!(host.shard.has_backlog());
    host.drop_line(slots[0]);
    let late = follower(&mut host, ZONES);
    host.settle();
    for slot in &slots[1..] {
        assert_eq!(types(&host.frames(*slot)), ["message"]);
    }
    assert!(host.frames(late).is_empty());
    say_in(&mut host, publisher, "game:zone/2", 2);
    assert_eq!(types(&host.frames(late)), ["message"]);
    assert_eq!(types(&host.frames(slots[699])), ["message"]);
}

#[test]
fn who_wants_no_echo_gets_none_over_a_pattern_either() {
    let mut host = Host::new(game(true));
    let (slot, other) = (follower(&mut host, ZONES), follower(&mut host, ZONES));
    let silent = r#"{"type":"publish","id":7,"room":"game:zone/1","data":1,"echo":false}"#;
    host.say_only(slot, silent);
    host.say_only(other, r#"{"type":"publish","room":"game:zone/1","data":2}"#);
    host.settle();
    let frames = host.frames(slot);
    assert_eq!(types(&frames), ["ack", "message"]);
    assert_eq!(frames[1]["data"], 2);
    assert_eq!(types(&host.frames(other)), ["message", "message"]);
}

/// Publishes past the mailboxes that publishers of the node would wait for, so that some is lost.
fn flood(host: &mut Host, room: &str) {
    for n in 0..10u8 {
        let publish = domain::message::Publish {
            room: domain::room::RoomId::parse(room).unwrap(),
            publisher: domain::message::Publisher::ApiKey(
                domain::id::ClientId::parse("api").unwrap(),
            ),
            msg_id: None,
            class: domain::delivery::Class::Reliable,
            key: None,
            sender: domain::message::Sender::default(),
            data: bytes::Bytes::from(n.to_string()),
            tags: domain::tags::Tags::default(),
            ttl: None,
            origin: None,
            at: domain::time::Wall::from_millis(1_700_000_000_000),
            fence: None,
        };
        host.publish_past_the_mailbox(publish);
    }
    host.settle();
}

#[test]
fn a_pattern_that_lost_something_ends_rather_than_going_on_in_silence() {
    let mut rules = game(true);
    rules.limits.mailbox_publications_max = 4;
    let mut host = Host::new(rules);
    let slot = follower(&mut host, ZONES);
    let elsewhere = follower(&mut host, r#"{"type":"subscribe","id":1,"pattern":"game:other*"}"#);
    flood(&mut host, "game:zone/1");
    let frames = host.frames(slot);
    let last = frames.last().unwrap();
    assert_eq!((&last["type"], &last["id"]), (&json!("unsubscribed"), &Value::Null));
    assert_eq!((&last["pattern"], &last["code"]), (&json!("game:zone/*"), &json!(114)));
    assert!(host.frames(elsewhere).is_empty());
    host.say(slot, ZONES);
    assert_eq!(types(&host.frames(slot)), ["subscribed"]);
}

fn users() -> Rules {
    let mut rules = Rules { join_user_room: true, ..game(true) };
    let owner = Access::Owner;
    let policy = NamespacePolicy { subscribe: owner, presence_listed: false, ..open_policy() };
    rules.policies.set_namespace("user", policy);
    rules
}

#[test]
fn a_user_is_in_the_room_of_its_own_and_hello_says_so() {
    let mut host = Host::new(users());
    let (u1, again, u2) =
        (host.connect(Some("u1")), host.connect(Some("u1")), host.connect(Some("u2")));
    let nobody = host.connect(None);
    assert_eq!(host.frames(u1)[0]["rooms"], json!(["user:u1"]));
    assert_eq!(host.frames(nobody)[0]["rooms"], json!([]));
    host.line(again);
    host.line(u2);
    say_in(&mut host, nobody, "user:u1", 1);
    for slot in [u1, again] {
        let frames = host.frames(slot);
        assert_eq!((types(&frames), &frames[0]["room"]), (vec!["message"], &json!("user:u1")));
    }
    assert!(host.frames(u2).is_empty());
    host.say(u1, r#"{"type":"status","id":2}"#);
    assert_eq!(host.frames(u1)[0]["rooms"], json!(["user:u1"]));
    host.say(u1, r#"{"type":"unsubscribe","id":3,"room":"user:u1"}"#);
    say_in(&mut host, nobody, "user:u1", 2);
    assert_eq!(types(&host.frames(u1)), ["unsubscribed"]);
    assert_eq!(types(&host.frames(again)), ["message"]);
    host.say(u1, r#"{"type":"unsubscribe","id":3,"room":"user:u1"}"#);
    assert_eq!(host.frames(u1)[0]["code"], 105);
    // Nothing of it is in the shard's or the connection's count of rooms.
    assert_eq!(host.shard.rooms(), 0);
}

#[test]
fn a_subscription_to_ones_own_room_takes_the_place_of_being_there() {
    let mut host = Host::new(users());
    let (u1, nobody) = (host.connect(Some("u1")), host.connect(None));
    say_in(&mut host, nobody, "user:u1", 1);
    let frames = host.frames(u1);
    let position = json!({"epoch": frames[1]["epoch"], "offset": 0});
    let text = json!({"type": "subscribe", "id": 2, "room": "user:u1", "since": position});
    host.say(u1, &text.to_string());
    say_in(&mut host, nobody, "user:u1", 2);
    let frames = host.frames(u1);
    assert_eq!(types(&frames), ["subscribed", "message"]);
    assert_eq!((&frames[0]["offset"], &frames[1]["offset"]), (&json!(1), &json!(2)));
    host.say(u1, r#"{"type":"status","id":3}"#);
    assert_eq!(host.frames(u1)[0]["rooms"], json!(["user:u1"]));
}

#[test]
fn a_users_own_room_that_is_named_on_the_way_back_is_joined_once() {
    let mut host = Host::new(users());
    let nobody = host.connect(None);
    say_in(&mut host, nobody, "user:u1", 1);
    let first = host.connect(Some("u1"));
    say_in(&mut host, nobody, "user:u1", 2);
    let epoch = host.frames(first)[1]["epoch"].clone();
    let slot = host.connect(Some("u1"));
    host.line(slot);
    let room = json!({"room": "user:u1", "epoch": epoch, "offset": 1});
    host.say(slot, &json!({"type": "connect", "id": 1, "resume": [room]}).to_string());
    let frames = host.frames(slot);
    assert_eq!((types(&frames), &frames[0]["rooms"]), (vec!["hello"], &json!([])));
    assert_eq!(frames[0]["resumed"][0]["messages"][0]["offset"], 2);
    say_in(&mut host, nobody, "user:u1", 3);
    assert_eq!(types(&host.frames(slot)), ["message"]);
}

#[test]
fn a_user_that_may_not_read_its_room_or_whose_name_fits_no_room_is_not_in_it() {
    let mut host = Host::new(users());
    let odd = host.connect(Some("u*1"));
    assert_eq!(host.frames(odd)[0]["rooms"], json!([]));
    let mut closed = users();
    let policy = NamespacePolicy { subscribe: Access::Granted, ..open_policy() };
    closed.policies.set_namespace("user", policy);
    for rules in [closed, Rules { join_user_room: false, ..users() }] {
        let mut host = Host::new(rules);
        let u1 = host.connect(Some("u1"));
        assert_eq!(host.frames(u1)[0]["rooms"], json!([]));
        let nobody = host.connect(None);
        say_in(&mut host, nobody, "user:u1", 1);
        assert!(host.frames(u1).is_empty());
    }
}

#[test]
fn a_user_that_lost_something_is_put_out_of_its_room_rather_than_left_waiting() {
    let mut rules = users();
    rules.limits.mailbox_publications_max = 4;
    let mut host = Host::new(rules);
    let (u1, u2) = (host.connect(Some("u1")), host.connect(Some("u2")));
    host.line(u2);
    flood(&mut host, "user:u1");
    let frames = host.frames(u1);
    let last = frames.last().unwrap();
    assert_eq!(
        (&last["type"], &last["room"], &last["code"]),
        (&json!("unsubscribed"), &json!("user:u1"), &json!(114))
    );
    assert!(host.frames(u2).is_empty());
}

#[test]
fn a_fresh_token_with_the_same_rights_ends_nothing() {
    let mut rules = users();
    let policy = NamespacePolicy {
        subscribe: Access::Authenticated,
        ..game(true)
            .policies
            .of(&domain::room::RoomId::parse("game:a").unwrap())
            .map(|p| (**p).clone())
            .unwrap()
    };
    rules.policies.set_namespace("game", policy);
    let mut host = Host::new(rules);
    let u1 = host.connect(Some("u1"));
    host.say(u1, ZONES);
    host.line(u1);
    host.say(u1, r#"{"type":"refresh","id":2,"token":"u1"}"#);
    // The same rights: nothing ends.
    assert_eq!(types(&host.frames(u1)), ["refreshed"]);
    let nobody = host.connect(None);
    say_in(&mut host, nobody, "user:u1", 1);
    say_in(&mut host, nobody, "game:zone/1", 1);
    assert_eq!(types(&host.frames(u1)), ["message", "message"]);
}

/// A19: fewer rights, in the room of one's own.
#[test]
fn a_fresh_token_that_allows_less_ends_what_it_does_not_allow() {
    let mut rules = users();
    let granted =
        NamespacePolicy { subscribe: Access::Granted, presence_listed: false, ..open_policy() };
    rules.policies.set_namespace("user", granted);
    let mut host = Host::new(rules);
    let (u1, nobody) = (host.connect(Some("granted:user:*:u1")), host.connect(None));
    assert_eq!(host.frames(u1)[0]["rooms"], json!(["user:u1"]));
    host.say(u1, r#"{"type":"refresh","id":2,"token":"u1"}"#);
    let frames = host.frames(u1);
    assert_eq!(types(&frames), ["refreshed", "unsubscribed"]);
    assert_eq!((&frames[1]["room"], &frames[1]["code"]), (&json!("user:u1"), &json!(103)));
    say_in(&mut host, nobody, "user:u1", 1);
    assert!(host.frames(u1).is_empty());
}
