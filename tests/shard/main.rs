//! The shard behaves: one node over the real in-memory broker, hosted without sockets, but for what
//! `sockets` has.
//!
//! Stories that need one connection more or less, not thousands of random ones: those are the
//! simulation's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

mod adopt;
mod contract;
mod delivered_first;
mod draining;
mod extensions;
mod failing_ports;
mod host;
mod joining;
mod letters;
mod limits;
mod listing;
mod moderation;
mod presence;
mod resume;
mod returns;
mod rights;
mod seats;
mod secrecy;
mod selective;
mod slow;
mod sockets;
mod views;

use application::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler};
use application::mailbox::Control;
use application::refusal::Refusal;
use application::shard::Input;
use domain::codes::CloseCode;
use domain::connection::Timing;
use domain::retention::Retention;
use host::{Host, open_policy, open_rules, types};

fn publish(n: u32) -> String {
    format!(r#"{{"type":"publish","id":{n},"room":"public:a","data":{n}}}"#)
}

#[test]
fn everyone_in_the_room_gets_each_message_once_and_in_order() {
    let mut host = Host::new(open_rules());
    let members: Vec<_> = (0..5).map(|_| host.member("public:a")).collect();
    for n in 1..=3 {
        host.say(members[0], &publish(n));
    }
    for slot in &members[1..] {
        let frames = host.frames(*slot);
        let offsets: Vec<_> =
            frames.iter().map(|frame| frame["offset"].as_u64().unwrap()).collect();
        assert_eq!(offsets, [1, 2, 3]);
    }
    let own = host.frames(members[0]);
    assert_eq!(types(&own), ["ack", "message", "ack", "message", "ack", "message"]);
}

#[test]
fn messages_that_gather_leave_as_one_write_per_member() {
    let mut host = Host::new(open_rules());
    let (publisher, reader) = (host.member("public:a"), host.member("public:a"));
    for n in 1..=8 {
        host.say_only(publisher, &publish(n));
    }
    host.settle();
    let line = host.line(reader);
    assert_eq!((line.frames.len(), line.writes), (8, 1));
}

#[test]
fn a_large_room_is_walked_in_steps_and_who_leaves_meanwhile_shifts_nobody() {
    let mut host = Host::new(open_rules());
    let members: Vec<_> = (0..700).map(|_| host.member("public:a")).collect();
    host.say_only(members[699], &publish(1));
    let mut post = application::mailbox::Post::default();
    host.shard.mailbox().take(&mut post);
    host.give(Input::Mail(&mut post));
    host.give(Input::Continue);
    // Two who were served, one who was not, and one who comes now.
    for gone in [0, 5, 650] {
        host.drop_line(members[gone]);
    }
    let late = host.member("public:a");
    host.settle();
    for (n, slot) in members.iter().enumerate().filter(|(n, _)| ![0, 5, 650].contains(n)) {
        let frames = host.frames(*slot);
        let messages = types(&frames).iter().filter(|kind| **kind == "message").count();
        assert_eq!(messages, 1, "member {n}");
    }
    assert!(!types(&host.frames(late)).contains(&"message"));
    host.say(late, &publish(2));
    assert_eq!(types(&host.frames(members[1])), ["message"]);
    assert_eq!(types(&host.frames(members[698])), ["message"]);
}

#[test]
fn without_echo_the_ack_stands_where_the_message_would() {
    let mut host = Host::new(open_rules());
    let (silent, other) = (host.member("public:a"), host.member("public:a"));
    host.say_only(other, &publish(1));
    host.say_only(silent, r#"{"type":"publish","id":7,"room":"public:a","data":"x","echo":false}"#);
    host.say_only(other, &publish(2));
    host.settle();
    let frames = host.frames(silent);
    assert_eq!(types(&frames), ["message", "ack", "message"]);
    assert_eq!(frames[1]["offset"], 2);
    let frames = host.frames(other);
    assert_eq!(types(&frames), ["ack", "ack", "message", "message", "message"]);
}

#[test]
fn without_echo_and_without_membership_the_ack_comes_at_once() {
    let mut host = Host::new(open_rules());
    let slot = host.connect(None);
    host.say(slot, r#"{"type":"publish","id":7,"room":"public:a","data":"x","echo":false}"#);
    assert_eq!(types(&host.frames(slot)), ["hello", "ack"]);
}

#[test]
fn an_unacknowledged_place_is_answered_when_its_publisher_leaves_the_room_first() {
    let mut host = Host::new(open_rules());
    let slot = host.member("public:a");
    host.say_only(
        slot,
        r#"{"type":"publish","id":7,"room":"public:a","data":"x","echo":false}
           {"type":"unsubscribe","id":8,"room":"public:a"}"#,
    );
    host.settle();
    assert_eq!(types(&host.frames(slot)), ["ack", "unsubscribed"]);
}

#[test]
fn a_member_that_comes_back_gets_what_it_missed_and_then_what_is_live() {
    let mut host = Host::new(open_rules());
    let (publisher, reader) = (host.member("public:a"), host.member("public:a"));
    host.say(publisher, &publish(1));
    let epoch = host.frames(reader)[0]["epoch"].as_str().unwrap().to_owned();
    host.drop_line(reader);
    host.say(publisher, &publish(2));
    host.say(publisher, &publish(3));
    let again = host.connect(None);
    host.say(
        again,
        &format!(
            r#"{{"type":"subscribe","id":1,"room":"public:a","since":{{"epoch":"{epoch}","offset":1}}}}"#
        ),
    );
    host.say(publisher, &publish(4));
    let frames = host.frames(again);
    assert_eq!(types(&frames), ["hello", "subscribed", "message"]);
    assert_eq!(frames[1]["recovered"], true);
    let missed = frames[1]["messages"].as_array().unwrap();
    assert_eq!(missed.iter().map(|m| m["data"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(frames[2]["offset"], 4);
}

/// D07: page by page, whatever is published meanwhile.
#[test]
fn live_messages_wait_behind_the_pages_of_a_long_recovery() {
    let mut rules = open_rules();
    rules.limits.page_messages_max = 2;
    let mut host = Host::new(rules);
    let publisher = host.member("public:a");
    for n in 1..=7 {
        host.say(publisher, &publish(n));
    }
    let epoch = host.frames(publisher)[0]["epoch"].as_str().unwrap().to_owned();
    let again = host.connect(None);
    host.hold_calls = true;
    host.say_only(
        again,
        &format!(
            r#"{{"type":"subscribe","id":1,"room":"public:a","since":{{"epoch":"{epoch}","offset":1}}}}"#
        ),
    );
    host.hold_calls = false;
    host.say(publisher, &publish(8));
    host.release_calls();
    host.settle();
    let frames = host.frames(again);
    assert_eq!(types(&frames)[..2], ["hello", "subscribed"]);
    let mut offsets = vec![];
    for frame in &frames[1..] {
        match frame["messages"].as_array() {
            Some(messages) => {
                offsets.extend(messages.iter().map(|m| m["offset"].as_u64().unwrap()))
            }
            None => offsets.push(frame["offset"].as_u64().unwrap()),
        }
    }
    assert_eq!(offsets, (2..=8).collect::<Vec<_>>());
}

#[test]
fn a_page_waits_until_its_client_has_taken_the_one_before() {
    let mut rules = open_rules();
    rules.limits.page_messages_max = 2;
    let mut host = Host::new(rules);
    let publisher = host.member("public:a");
    for n in 1..=5 {
        host.say(publisher, &publish(n));
    }
    let epoch = host.frames(publisher)[0]["epoch"].as_str().unwrap().to_owned();
    let again = host.connect(None);
    host.slow_down(again, true);
    let since = format!(r#"{{"epoch":"{epoch}","offset":0}}"#);
    let subscribe = r#"{"type":"subscribe","id":1,"room":"public:a","since":"#;
    host.say(again, &format!("{subscribe}{since}}}"));
    host.say(again, r#"{"type":"ping","id":2}"#);
    host.pass(5_000);
    assert_eq!(types(&host.frames(again)), ["hello", "subscribed"]);
    host.say(publisher, &publish(6));
    host.slow_down(again, false);
    host.pass(100);
    let frames = host.frames(again);
    assert_eq!(types(&frames), ["page", "page", "pong"]);
    assert_eq!(frames[1]["offset"], 6);
    host.say(publisher, &publish(7));
    assert_eq!(host.frames(again)[0]["offset"], 7);
}

#[test]
fn a_room_that_keeps_nothing_says_what_is_missing() {
    let mut rules = open_rules();
    let mut policy = open_policy();
    policy.retention = Retention::NONE;
    rules.policies.set_namespace("public", policy);
    let mut host = Host::new(rules);
    let publisher = host.member("public:a");
    for n in 1..=4 {
        host.say(publisher, &publish(n));
    }
    let epoch = host.frames(publisher)[0]["epoch"].as_str().unwrap().to_owned();
    let again = host.connect(None);
    host.say(
        again,
        &format!(
            r#"{{"type":"subscribe","id":1,"room":"public:a","since":{{"epoch":"{epoch}","offset":1}}}}"#
        ),
    );
    let frames = host.frames(again);
    assert_eq!(types(&frames), ["hello", "gap", "subscribed"]);
    assert_eq!((&frames[1]["from"], &frames[1]["to"]), (&2.into(), &4.into()));
    assert_eq!(frames[2]["recovered"], false);
}

#[test]
fn a_mailbox_that_overflows_is_filled_from_the_log() {
    let mut rules = open_rules();
    rules.limits.mailbox_publications_max = 4;
    let mut host = Host::new(rules);
    let (publisher, reader) = (host.member("public:a"), host.member("public:a"));
    // Past the mailbox: a publisher of this node would be made to wait.
    for n in 1..=10u8 {
        let key_name = domain::id::ClientId::parse("api").unwrap();
        let policy = open_policy();
        let publish = domain::message::Publish {
            room: domain::room::RoomId::parse("public:a").unwrap(),
            publisher: domain::message::Publisher::ApiKey(key_name),
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
        let broker = std::sync::Arc::clone(&host.broker);
        let publishing = async move {
            use application::ports::Broker;
            broker.publish(publish, &std::sync::Arc::new(policy)).await
        };
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(publishing)
            .unwrap();
    }
    host.settle();
    for slot in [publisher, reader] {
        let frames = host.frames(slot);
        let offsets: Vec<_> =
            frames.iter().map(|frame| frame["offset"].as_u64().unwrap()).collect();
        assert_eq!(offsets, (1..=10).collect::<Vec<_>>());
    }
}

#[test]
fn a_slow_member_is_closed_to_come_back_and_the_others_notice_nothing() {
    let mut host = Host::new(open_rules());
    let (publisher, slow, reader) =
        (host.member("public:a"), host.member("public:a"), host.member("public:a"));
    host.stick(slow);
    host.say(publisher, &publish(1));
    assert_eq!(host.line(slow).closed, Some(CloseCode::SlowConsumer));
    assert_eq!(types(&host.frames(reader)), ["message"]);
    host.say(publisher, &publish(2));
    assert_eq!(types(&host.frames(reader)), ["message"]);
    assert_eq!(host.shard.connections(), 2);
}

#[test]
fn a_user_with_two_tabs_comes_once_and_goes_once() {
    let mut host = Host::new(open_rules());
    let watcher = host.connect(None);
    host.say(watcher, r#"{"type":"subscribe","id":1,"room":"public:a","presence":true}"#);
    host.line(watcher);
    let join = r#"{"type":"subscribe","id":1,"room":"public:a"}"#;
    let tabs = [host.connect(Some("ann")), host.connect(Some("ann"))];
    for tab in tabs {
        host.say(tab, join);
    }
    let frames = host.frames(watcher);
    assert_eq!(types(&frames), ["presence_event"]);
    assert_eq!((&frames[0]["event"], &frames[0]["user_id"]), (&"join".into(), &"ann".into()));
    host.drop_line(tabs[0]);
    assert!(host.frames(watcher).is_empty());
    host.drop_line(tabs[1]);
    assert_eq!(host.frames(watcher)[0]["event"], "leave");
}

#[test]
fn a_connection_that_ends_while_it_joins_leaves_nothing_behind() {
    let mut host = Host::new(open_rules());
    let slot = host.connect(Some("ann"));
    host.hold_calls = true;
    host.say_only(slot, r#"{"type":"subscribe","id":1,"room":"public:a"}"#);
    host.give(Input::Closed(slot, CloseCode::GoingAway));
    host.release_calls();
    host.settle();
    assert_eq!((host.shard.connections(), host.shard.rooms()), (0, 0));
    let asker = host.connect(None);
    host.say(asker, r#"{"type":"presence","id":1,"room":"public:a"}"#);
    assert_eq!(host.frames(asker)[1]["total"], 0);
}

#[test]
fn silence_is_pinged_and_then_closed() {
    let mut host = Host::new(open_rules());
    let slot = host.member("public:a");
    let interval = Timing::default().heartbeat_interval.as_millis() as u64;
    host.pass(interval + 100);
    assert_eq!(types(&host.frames(slot)), ["ping"]);
    host.pass(interval + 100);
    let line = host.line(slot);
    assert_eq!(line.closed, Some(CloseCode::NoPong));
    assert_eq!(types(&line.frames), ["disconnect"]);
}

/// A15. A16.
#[test]
fn a_token_that_ends_is_announced_and_closed_and_a_fresh_one_keeps_the_connection() {
    let mut host = Host::new(open_rules());
    let slots = [host.connect(Some("until:70000:ann")), host.connect(Some("until:70000:ann"))];
    for _ in 0..8 {
        host.pass(10_000);
        for slot in slots {
            if host.line(slot).closed.is_none() {
                host.say_only(slot, r#"{"type":"pong"}"#);
            }
        }
        host.say(slots[0], r#"{"type":"refresh","id":3,"token":"until:900000:ann"}"#);
    }
    assert_eq!(host.line(slots[0]).closed, None);
    assert_eq!(host.line(slots[1]).closed, Some(CloseCode::TokenExpired));
}

/// A10. A19: the token of another user.
#[test]
fn who_authenticates_twice_or_as_somebody_else_is_told_so() {
    let mut host = Host::new(open_rules());
    let slot = host.connect(Some("ann"));
    host.say(slot, r#"{"type":"connect","id":1,"token":"bob"}"#);
    let frames = host.frames(slot);
    assert_eq!(types(&frames), ["hello", "error"]);
    assert_eq!(frames[1]["error"], "already_connected");
    host.say(slot, r#"{"type":"refresh","id":2,"token":"bob"}"#);
    assert_eq!(host.line(slot).closed, Some(CloseCode::Unauthenticated));
}

#[test]
fn commands_behind_a_slow_one_wait_in_order_and_the_socket_is_not_read_when_they_are_many() {
    let mut rules = open_rules();
    rules.limits.inbox_messages_max = 4;
    let mut host = Host::new(rules);
    let slot = host.member("public:a");
    host.hold_calls = true;
    for n in 1..=5 {
        host.say_only(slot, &publish(n));
    }
    assert!(!host.line(slot).reading);
    host.release_calls();
    host.settle();
    let line = host.line(slot);
    assert!(line.reading);
    let acks: Vec<_> = line.frames.iter().filter(|f| f["type"] == "ack").collect();
    assert_eq!(acks.iter().map(|f| f["id"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

#[test]
fn draining_tells_each_when_to_come_back_and_answers_what_is_under_way() {
    let mut host = Host::new(open_rules());
    let slots = [host.member("public:a"), host.member("public:a")];
    host.hold_calls = true;
    host.say_only(slots[0], &publish(1));
    let until = domain::time::Monotonic::from_millis(1_000);
    host.give(Input::Order(Control::Drain { until }));
    assert_eq!(host.line(slots[1]).closed, Some(CloseCode::ServiceRestart));
    assert_eq!(host.line(slots[0]).closed, None);
    host.release_calls();
    let line = host.line(slots[0]);
    assert_eq!(types(&line.frames), ["ack"]);
    assert_eq!(line.closed, Some(CloseCode::ServiceRestart));
}

struct Does(Vec<HandlerEffect>);

#[async_trait::async_trait]
impl MessageHandler for Does {
    fn message_type(&self) -> &str {
        "do"
    }

    fn validate(&self, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    async fn handle(&self, _: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        Ok(self.0.clone())
    }
}

fn reply(n: u8) -> HandlerEffect {
    HandlerEffect::Reply { kind: format!("done_{n}"), data: bytes::Bytes::from(n.to_string()) }
}

#[test]
fn what_a_handler_wants_is_done_in_its_order() {
    let room = domain::room::RoomId::parse("public:a").unwrap();
    let wants = vec![reply(1), HandlerEffect::Join(room), reply(2)];
    let mut rules = open_rules();
    rules.handlers.register(std::sync::Arc::new(Does(wants))).unwrap();
    let mut host = Host::new(rules);
    let slot = host.connect(None);
    host.say(slot, r#"{"type":"do","id":1}"#);
    host.say(slot, &publish(2));
    let frames = host.frames(slot);
    assert_eq!(types(&frames), ["hello", "done_1", "done_2", "subscribed", "ack", "message"]);
}

#[test]
fn a_handler_that_closes_has_said_before_what_it_had_to_say() {
    let mut rules = open_rules();
    let wants = vec![reply(1), HandlerEffect::Close(CloseCode::Normal), reply(2)];
    rules.handlers.register(std::sync::Arc::new(Does(wants))).unwrap();
    let mut host = Host::new(rules);
    let slot = host.connect(None);
    host.say(slot, r#"{"type":"do","id":1}"#);
    let line = host.line(slot);
    assert_eq!(types(&line.frames), ["hello", "done_1", "disconnect"]);
    assert_eq!(line.closed, Some(CloseCode::Normal));
}

#[test]
fn members_of_any_place_in_a_large_room_get_all_but_what_they_sent_without_echo() {
    let mut host = Host::new(open_rules());
    let members: Vec<_> = (0..130).map(|_| host.member("public:a")).collect();
    let publishers = [0, 63, 64, 129];
    for place in publishers {
        let publish = serde_json::json!({"type": "publish", "id": 2, "room": "public:a", "data": place, "echo": false});
        host.say_only(members[place], &publish.to_string());
    }
    host.settle();
    for (place, slot) in members.iter().enumerate() {
        let frames = host.frames(*slot);
        let own: Vec<_> =
            publishers.iter().map(|p| if *p == place { "ack" } else { "message" }).collect();
        assert_eq!(types(&frames), own, "{place}");
        let data = frames.iter().filter(|f| f["type"] == "message").map(|f| f["data"].clone());
        let others: Vec<_> =
            publishers.iter().filter(|p| **p != place).map(|p| serde_json::json!(p)).collect();
        assert_eq!(data.collect::<Vec<_>>(), others, "{place}");
    }
}

#[test]
fn a_joiner_that_read_ahead_of_a_flood_holds_nothing_it_has() {
    let mut rules = open_rules();
    // Room for two messages, far less than the shard is behind.
    rules.limits.held_bytes_max = 600;
    let mut host = Host::new(rules);
    let publisher = host.member("public:a");
    let epoch = host.frames(publisher);
    assert!(epoch.is_empty());
    for n in 1..=20 {
        host.say_only(publisher, &publish(n));
    }
    let late = host.connect(None);
    host.say_only(late, r#"{"type":"subscribe","id":1,"room":"public:a"}"#);
    host.settle();
    host.say(publisher, &publish(21));
    let frames = host.frames(late);
    assert_eq!(types(&frames), ["hello", "subscribed", "message"]);
    assert_eq!((&frames[1]["offset"], &frames[2]["offset"]), (&20.into(), &21.into()));
}
