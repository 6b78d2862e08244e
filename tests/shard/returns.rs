//! Coming back again and again: before the server has missed the connection, with nothing said in between, and hours
//! later.

use std::collections::VecDeque;

use application::services::Rules;
use application::shard::Slot;
use domain::rate_limit::Rate;
use domain::retention::Retention;
use domain::time::Wall;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::host::{Host, open_policy, open_rules, ready, types};

const IDLE: &str = "public:idle";
const BUSY: &str = "public:busy";

fn rules(messages_max: u32) -> Rules {
    let mut rules = Rules { allow_anonymous: false, ..open_rules() };
    rules.limits.commands_of_user = Rate::new(0, 0);
    let retention = Retention { messages_max, ..Retention::default() };
    rules
        .policies
        .set_namespace("public", domain::policy::NamespacePolicy { retention, ..open_policy() });
    rules
}

/// A client that keeps what it got of two rooms, and comes back from there.
struct Traveller {
    slot: Slot,
    session: Value,
    rooms: [Value; 2],
}

impl Traveller {
    fn new(host: &mut Host) -> Self {
        let slot = host.connect(Some("ann"));
        let session = host.frames(slot)[0]["session"].clone();
        let rooms = [IDLE, BUSY].map(|room| {
            host.say(slot, &json!({"type": "subscribe", "id": 1, "room": room}).to_string());
            let subscribed = host.frames(slot).pop().unwrap();
            json!({"room": room, "epoch": subscribed["epoch"], "offset": subscribed["offset"]})
        });
        Self { slot, session, rooms }
    }

    /// Reads what is live; answers its texts.
    fn hear(&mut self, host: &mut Host) -> Vec<u64> {
        let frames = host.frames(self.slot);
        frames.iter().filter_map(|frame| self.take(frame)).collect()
    }

    /// A message, which must be the next one of its room.
    fn take(&mut self, message: &Value) -> Option<u64> {
        let room = self.rooms.iter_mut().find(|room| room["room"] == message["room"])?;
        assert_eq!(message["offset"].as_u64(), room["offset"].as_u64().map(|n| n + 1), "{message}");
        room["offset"] = message["offset"].clone();
        message["data"].as_u64()
    }

    /// Comes back over a line of its own, by ticket or, when that has run out, by token. Answers what it had missed,
    /// and the entries of its rooms.
    fn come_back(&mut self, host: &mut Host, token: Option<&str>) -> (Vec<u64>, Vec<Value>) {
        self.slot = host.connect(None);
        let session = if token.is_some() { &Value::Null } else { &self.session };
        let connect = json!({
            "type": "connect", "id": 1, "session": session, "token": token, "resume": self.rooms
        });
        host.say(self.slot, &connect.to_string());
        let frames = host.frames(self.slot);
        let hello = frames.iter().find(|frame| frame["id"] == 1).unwrap();
        assert_eq!(hello["type"], "hello", "{frames:?}");
        self.session = hello["session"].clone();
        let entries = hello["resumed"].as_array().unwrap().clone();
        let mut missed = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            assert_eq!(entry["more"], false);
            if let Some(to) = entry["gap"]["to"].as_u64() {
                self.rooms[at]["offset"] = to.into();
            }
            for message in entry["messages"].as_array().unwrap() {
                missed.extend(self.take(message));
            }
            assert_eq!(self.rooms[at]["offset"], entry["offset"], "it is where the server says");
        }
        (missed, entries)
    }
}

fn publish(host: &mut Host, slot: Slot, room: &str, n: u64) {
    host.say(slot, &json!({"type": "publish", "id": 9, "room": room, "data": n}).to_string());
    assert_eq!(types(&host.frames(slot)), ["ack"]);
}

/// D03: the line before is still there for the server, and gets what the client never reads.
#[test]
fn who_comes_back_before_its_line_is_missed_gets_all_of_it_however_often() {
    const RETURNS: u64 = 100_000;
    let mut host = Host::new(rules(100));
    let mut ann = Traveller::new(&mut host);
    let bob = host.connect(Some("bob"));
    host.frames(bob);
    let (mut lines, mut said) = (VecDeque::from([ann.slot]), 0);
    for turn in 0..RETURNS {
        let before = said;
        for _ in 0..turn % 4 {
            said += 1;
            publish(&mut host, bob, if said % 3 == 0 { IDLE } else { BUSY }, said);
        }
        let (mut missed, _) = ann.come_back(&mut host, None);
        missed.sort_unstable();
        assert_eq!(missed, (before + 1..=said).collect::<Vec<_>>(), "return {turn}");
        lines.push_back(ann.slot);
        // Up to three of its lines are not missed yet.
        while lines.len() as u64 > 1 + turn % 3 {
            host.drop_line(lines.pop_front().unwrap());
        }
        if turn % 5 == 0 {
            said += 1;
            publish(&mut host, bob, BUSY, said);
            assert_eq!(ann.hear(&mut host), [said], "it is live");
        }
    }
}

proptest! {
    /// D05: with and without messages in between, as often as it likes.
    #[test]
    fn many_losses_in_a_row_bring_nothing_twice_and_nothing_too_little(
        steps in proptest::collection::vec((0..3_u64, 0..3_u64), 1..60),
    ) {
        let mut host = Host::new(rules(1_000));
        let mut ann = Traveller::new(&mut host);
        let bob = host.connect(Some("bob"));
        host.frames(bob);
        let (mut said, mut heard) = (0, Vec::new());
        for (live, missed) in steps {
            for _ in 0..live {
                said += 1;
                publish(&mut host, bob, BUSY, said);
            }
            heard.extend(ann.hear(&mut host));
            host.drop_line(ann.slot);
            for _ in 0..missed {
                said += 1;
                publish(&mut host, bob, BUSY, said);
            }
            let (back, entries) = ann.come_back(&mut host, None);
            heard.extend(back);
            prop_assert!(entries.iter().all(|entry| entry["recovered"] == true));
            prop_assert_eq!(&heard, &(1..=said).collect::<Vec<_>>());
        }
    }
}

/// D04: what is said elsewhere takes nothing from a room in which nothing happens, and the one in which it is said
/// tells what it no longer has.
#[test]
fn after_hours_an_idle_room_is_as_it_was_and_a_busy_one_says_what_is_gone() {
    const KEPT: u64 = 50;
    const SAID: u64 = 400;
    let mut host = Host::new(rules(KEPT as u32));
    let mut ann = Traveller::new(&mut host);
    let bob = host.connect(Some("bob"));
    host.frames(bob);
    publish(&mut host, bob, IDLE, 1);
    publish(&mut host, bob, BUSY, 2);
    assert_eq!(ann.hear(&mut host), [1, 2]);
    host.drop_line(ann.slot);
    // Nobody but bob is there, who says something from time to time, for eight hours.
    let mut wall = Wall::from_millis(0);
    for n in 0..SAID {
        for _ in 0..4 {
            host.pass(18_000);
            host.say(bob, r#"{"type":"pong"}"#);
            host.frames(bob);
        }
        publish(&mut host, bob, BUSY, 100 + n);
        wall = host.node.services().ports.clock.now().wall;
        ready(host.broker.sweep(wall));
    }
    assert!(wall.as_millis() - 1_700_000_000_000 >= 8 * 3_600_000);
    let (missed, entries) = ann.come_back(&mut host, Some("ann"));
    assert_eq!((&entries[0]["recovered"], &entries[0]["gap"]), (&json!(true), &Value::Null));
    assert_eq!(entries[0]["messages"], json!([]));
    let gap = json!({"from": 2, "to": SAID + 1 - KEPT, "reason": "retention"});
    assert_eq!((&entries[1]["recovered"], &entries[1]["gap"]), (&json!(false), &gap));
    assert_eq!(missed, (100 + SAID - KEPT..100 + SAID).collect::<Vec<_>>());
    // A retention by age would have told of the idle room, too.
    publish(&mut host, bob, IDLE, 3);
    assert_eq!(ann.hear(&mut host), [3]);
}
