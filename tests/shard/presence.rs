//! Presence where much happens: what followers hear is gathered, shared and bounded, and they know who is there all
//! the same.

use application::built_in::BuiltIn;
use application::services::Rules;
use application::shard::Slot;
use application::view::View;
use domain::documents::told::Endpoint;
use domain::policy::{NamespacePolicy, Policies};
use proptest::prelude::*;
use serde_json::{Value, json};
use tests::follower::Follower;

use crate::host::{Host, open_policy, open_rules, types};

const ROOM: &str = "public:crowd";

fn named_up_to(presence_named_max: u32) -> Rules {
    let mut policies = Policies::default();
    let policy = NamespacePolicy { presence_named_max, members_max: 10_000, ..open_policy() };
    policies.set_namespace("public", policy.clone());
    policies.set_namespace("chat", policy.clone());
    policies.set_namespace("user", policy);
    Rules { policies, join_user_room: true, ..open_rules() }
}

fn follow(host: &mut Host, slot: Slot) {
    host.say(
        slot,
        &json!({"type": "subscribe", "id": 1, "room": ROOM, "presence": true}).to_string(),
    );
}

fn show(host: &mut Host, slot: Slot, id: u64, data: &Value) {
    let update = json!({"type": "presence_update", "id": id, "room": ROOM, "data": data});
    host.say(slot, &update.to_string());
}

/// What each of so many has heard of the others who came within the same second, in bytes and frames, and the list
/// that each asked for.
struct Heard {
    bytes: usize,
    frames: usize,
    listed: usize,
}

impl Heard {
    fn of_all_who_join_in_a_second(n_followers: u32, named_max: u32) -> Self {
        let mut host = Host::new(named_up_to(named_max));
        let mut heard = Self { bytes: 0, frames: 0, listed: 0 };
        let mut all = Vec::new();
        let mut ms = 0;
        for n in 0..n_followers {
            let slot = host.connect(Some(&format!("user{n:05}")));
            follow(&mut host, slot);
            host.say(slot, &json!({"type": "presence", "id": 2, "room": ROOM}).to_string());
            all.push(slot);
            let due = u64::from(n + 1) * 1_000 / u64::from(n_followers);
            host.pass(due - ms);
            ms = due;
        }
        host.pass(1_000);
        for slot in all {
            let (bytes, closed) = host.trickle(slot, 0);
            assert_eq!(closed, None);
            for line in bytes.split(|byte| *byte == b'\n') {
                let is = |word: &[u8]| line.starts_with(word);
                if is(br#"{"type":"presence_"#) {
                    heard.bytes += line.len();
                    heard.frames += 1;
                } else if is(br#"{"type":"presence","#) {
                    heard.listed += line.len();
                }
            }
        }
        heard
    }
}

/// H04: what one follower hears grows with how many come, and in frames not even that.
#[test]
fn what_a_follower_hears_of_a_room_that_all_join_grows_with_it_and_no_faster() {
    let [few, many] = [150, 450].map(|n| (n, Heard::of_all_who_join_in_a_second(n as u32, 1_000)));
    for (n, heard) in [&few, &many] {
        // Of a second there are ten windows, and the first tells of ten by themselves.
        assert!(heard.frames <= n * 22, "{} frames", heard.frames);
        assert!(heard.frames > n * 4, "they hear something");
        // Half of the others come behind it; each is named once, in 48 bytes.
        assert!(heard.bytes < n * (n / 2 * 64 + 22 * 128), "{} bytes of {n}", heard.bytes);
    }
    let per_follower = |(n, heard): &(usize, Heard)| heard.bytes / n;
    let growth = per_follower(&many) as f64 / per_follower(&few) as f64;
    assert!((1.5..3.3).contains(&growth), "three times as many: {growth}");
}

/// H04: above a number a follower hears the same of each, so all of them hear as much as there are of them.
#[test]
fn a_crowd_costs_each_follower_the_same_however_large_it_is() {
    let [few, many] = [400, 1_600].map(|n| (n, Heard::of_all_who_join_in_a_second(n as u32, 50)));
    let per_follower = |(n, heard): &(usize, Heard)| (heard.bytes + heard.listed) / n;
    let (of_few, of_many) = (per_follower(&few), per_follower(&many));
    assert!(of_many <= of_few * 13 / 10, "{of_few} bytes, and {of_many} of four times as many");
    assert!(of_many < 12_000, "a list of a hundred and ten numbers: {of_many}");
}

#[test]
fn a_few_who_come_are_told_of_at_once() {
    let mut host = Host::new(named_up_to(1_000));
    let slot = host.connect(None);
    follow(&mut host, slot);
    host.frames(slot);
    for n in 1..10 {
        host.member(ROOM);
        assert_eq!(types(&host.frames(slot)), ["presence_event"], "{n}");
    }
    host.member(ROOM);
    assert!(host.frames(slot).is_empty(), "ten of these a window, its own join among them");
    host.pass(99);
    assert!(host.frames(slot).is_empty());
    host.pass(1);
    let told = host.frames(slot);
    assert_eq!(types(&told), ["presence_events"]);
    assert_eq!(
        (&told[0]["from"], &told[0]["seq"], &told[0]["total"]),
        (&json!(11), &json!(11), &json!(11))
    );
    host.pass(1_000);
    assert!(host.frames(slot).is_empty());
    host.member(ROOM);
    assert_eq!(types(&host.frames(slot)), ["presence_event"], "it is quiet again");
}

#[test]
fn a_crowd_is_counted_and_named_again_with_a_list_when_it_is_gone() {
    let mut host = Host::new(named_up_to(20));
    let slot = host.connect(Some("ann"));
    follow(&mut host, slot);
    let crowd: Vec<_> = (0..130).map(|_| host.member(ROOM)).collect();
    host.pass(100);
    let told = host.frames(slot);
    let last = told.last().unwrap();
    assert_eq!(
        (&last["type"], &last["seq"], &last["total"]),
        (&json!("presence_count"), &json!(131), &json!(131))
    );
    host.say(slot, &json!({"type": "presence", "id": 2, "room": ROOM}).to_string());
    let list = host.frames(slot).remove(0);
    assert_eq!((&list["total"], list["members"].as_array().unwrap().len()), (&json!(131), 100));
    for gone in &crowd[..120] {
        host.drop_line(*gone);
    }
    host.pass(100);
    let told = host.frames(slot);
    assert_eq!((types(&told), &told[0]["total"]), (vec!["presence_count"], &json!(11)));
    host.pass(4_799);
    assert!(host.frames(slot).is_empty(), "not sooner");
    host.pass(1);
    let told = host.frames(slot);
    assert_eq!((types(&told), &told[0]["id"]), (vec!["presence"], &Value::Null));
    assert_eq!(told[0]["members"].as_array().unwrap().len(), 11);
    host.drop_line(crowd[120]);
    host.pass(100);
    let told = host.frames(slot);
    assert_eq!((types(&told), &told[0]["from"]), (vec!["presence_events"], &json!(252)));
}

#[test]
fn those_who_come_together_are_told_of_by_the_endpoints_of_the_documents_one_by_one() {
    let mut rules = named_up_to(1_000);
    BuiltIn::default().register(&mut rules.handlers).unwrap();
    let mut host = Host::new(rules);
    let lobby = View::Document(Endpoint::Lobby);
    let ann = host.connect_by(lobby, Some("ann"));
    host.settle();
    let all: Vec<_> = (0..30)
        .map(|n| {
            let slot = host.connect_by(lobby, Some(&format!("u{n:02}")));
            host.settle();
            slot
        })
        .collect();
    host.drop_line(all[25]);
    host.pass(100);
    let told = host.frames(ann);
    let count = |kind: &str| types(&told).iter().filter(|word| **word == kind).count();
    assert_eq!((count("user_connected"), count("user_disconnected")), (29, 1));
    for (n, slot) in all.iter().enumerate().filter(|(n, _)| *n != 25) {
        let told = host.frames(*slot);
        let own = json!(format!("u{n:02}"));
        let of_itself =
            |frame: &&Value| frame["type"] == "user_connected" && frame["user_id"] == own;
        assert_eq!(told.iter().filter(of_itself).count(), 0, "nobody is told of itself");
    }
}

/// D10: a hundred updates a second for ten seconds.
#[test]
fn data_that_changes_without_a_pause_is_taken_at_a_pace_and_the_newest_wins() {
    let mut host = Host::new(named_up_to(1_000));
    let (slot, follower) = (host.connect(Some("ann")), host.connect(None));
    follow(&mut host, slot);
    follow(&mut host, follower);
    host.frames(slot);
    host.frames(follower);
    host.trickle(follower, 0);
    let data = |n: u64| json!(format!("{n}{}", "x".repeat(4_000)));
    for n in 0..1_000 {
        show(&mut host, slot, n, &data(n));
        host.pass(10);
    }
    host.pass(1_000);
    let answers = host.frames(slot).into_iter().filter(|frame| frame["type"] == "presence_updated");
    let ids: Vec<_> = answers.map(|frame| frame["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (0..1_000).collect::<Vec<_>>(), "each is answered, in order");
    let (bytes, _) = host.trickle(follower, 0);
    assert!(bytes.len() < 130 * 4_200, "{} bytes", bytes.len());
    let told = host.frames(follower);
    let last = told.last().unwrap();
    let last = if last["changes"].is_array() { &last["changes"][0] } else { last };
    assert_eq!(last["data"], data(999));
    let list = json!({"type": "presence", "id": 2, "room": ROOM}).to_string();
    host.say(follower, &list);
    assert_eq!(host.frames(follower)[0]["members"][0]["data"], data(999));
}

/// D10: 64 KiB of it are refused, and not waited for.
#[test]
fn data_that_is_too_large_is_refused_at_once_however_much_waits() {
    let mut host = Host::new(named_up_to(1_000));
    let slot = host.connect(None);
    follow(&mut host, slot);
    (0..30).for_each(|n| show(&mut host, slot, n, &json!(n)));
    host.frames(slot);
    show(&mut host, slot, 99, &json!("x".repeat(60_000)));
    let refused = host.frames(slot).remove(0);
    assert_eq!(
        (&refused["id"], &refused["code"], &refused["field"]),
        (&json!(99), &json!(109), &json!("data"))
    );
}

#[test]
fn updates_that_wait_are_bounded_and_end_with_their_room() {
    let mut host = Host::new(named_up_to(1_000));
    let slot = host.connect(None);
    follow(&mut host, slot);
    (0..20 + 64).for_each(|n| show(&mut host, slot, n, &json!(n)));
    host.frames(slot);
    show(&mut host, slot, 99, &json!(99));
    let refused = host.frames(slot).remove(0);
    assert_eq!((&refused["id"], &refused["code"]), (&json!(99), &json!(108)));
    // Timers look a little later.
    host.pass(2 * refused["retry_after_ms"].as_u64().unwrap());
    let answered = host.frames(slot);
    assert_eq!(answered.iter().filter(|frame| frame["type"] == "presence_updated").count(), 64);
    for n in 0..5 {
        show(&mut host, slot, 100 + n, &json!(n));
    }
    host.say(slot, &json!({"type": "unsubscribe", "id": 200, "room": ROOM}).to_string());
    host.pass(1_000);
    let told = host.frames(slot);
    let codes: Vec<_> = told.iter().filter_map(|frame| frame["code"].as_u64()).collect();
    assert!(codes.len() >= 4 && codes.iter().all(|code| *code == 105), "{told:?}");
    // Nor does anything come to who is back at once.
    host.say(slot, &json!({"type": "subscribe", "room": ROOM, "presence": true}).to_string());
    host.pass(10_000);
    (0..30).for_each(|n| show(&mut host, slot, 210 + n, &json!("old")));
    host.say(slot, &json!({"type": "unsubscribe", "room": ROOM}).to_string());
    host.say(slot, &json!({"type": "subscribe", "room": ROOM, "presence": true}).to_string());
    host.frames(slot);
    host.pass(10_000);
    host.say(slot, &json!({"type": "presence", "id": 250, "room": ROOM}).to_string());
    let list = host.frames(slot).pop().unwrap();
    assert_eq!((&list["id"], &list["members"][0]["data"]), (&json!(250), &json!(null)), "{list}");
    // The ninth room.
    for n in 0..9 {
        let room = format!("public:r{n}");
        host.say(slot, &json!({"type": "subscribe", "room": room}).to_string());
    }
    host.frames(slot);
    let update = |n, id| json!({"type": "presence_update", "id": id, "room": format!("public:r{n}"), "data": id});
    (0..20).for_each(|n| host.say(slot, &update(0, n).to_string()));
    host.frames(slot);
    (0..9).for_each(|n| host.say(slot, &update(n, 300 + n).to_string()));
    let told = host.frames(slot);
    let refused: Vec<_> = told.iter().filter(|frame| frame["code"] == 108).collect();
    assert_eq!((refused.len(), &refused[0]["id"]), (1, &json!(308)));
}

/// A connection that follows, and what it knows.
struct Following {
    slot: Slot,
    knows: Follower,
    has_asked: bool,
}

impl Following {
    fn new(host: &mut Host) -> Self {
        let slot = host.connect(None);
        follow(host, slot);
        let mut this = Self { slot, knows: Follower::default(), has_asked: false };
        this.ask(host);
        this
    }

    fn ask(&mut self, host: &mut Host) {
        if !std::mem::replace(&mut self.has_asked, true) {
            host.say(self.slot, &json!({"type": "presence", "id": 2, "room": ROOM}).to_string());
        }
    }

    /// Reads what has come; what is missing is asked for.
    fn read(&mut self, host: &mut Host) {
        for frame in host.frames(self.slot) {
            self.has_asked &= frame["type"] != "presence" || frame["id"].is_null();
            if self.knows.hear(&frame) {
                self.ask(host);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// H04: over the wire, whatever happens and whenever one comes.
    #[test]
    fn who_follows_knows_who_is_there_in_the_end(
        steps in proptest::collection::vec((0u8..10, 0usize..12, 0u64..120), 0..150),
        named_max in 2u32..20,
    ) {
        let mut host = Host::new(named_up_to(named_max));
        host.shard.set_deliveries_per_step(3);
        let mut followers = vec![Following::new(&mut host)];
        let mut inside: Vec<Slot> = Vec::new();
        for (n, (step, at, ms)) in steps.into_iter().enumerate() {
            match step {
                0..4 => inside.push(host.member(ROOM)),
                4..6 if !inside.is_empty() => {
                    let gone = inside.swap_remove(at % inside.len());
                    host.drop_line(gone);
                }
                6 if !inside.is_empty() => show(&mut host, inside[at % inside.len()], 5, &json!(n)),
                7 if followers.len() < 4 => followers.push(Following::new(&mut host)),
                8 => {
                    // One reads at once, the others when they come to it.
                    let at = at % followers.len();
                    followers[at].read(&mut host);
                }
                _ => host.pass(ms),
            }
        }
        for _ in 0..4 {
            host.pass(6_000);
            followers.iter_mut().for_each(|follower| follower.read(&mut host));
        }
        let asker = host.connect(None);
        host.frames(asker);
        host.say(asker, &json!({"type": "presence", "id": 1, "room": ROOM}).to_string());
        let list = host.frames(asker).remove(0);
        let mut truth = Follower::default();
        truth.hear(&list);
        for Following { knows, .. } in &followers {
            prop_assert_eq!(knows.total, truth.total);
            let is_crowd = truth.total > u64::from(named_max - named_max / 4);
            prop_assert!(knows.members.is_some() || (knows.is_counted && is_crowd));
            prop_assert!(truth.total <= u64::from(named_max) || knows.is_counted);
            if knows.members.is_some() {
                prop_assert_eq!(&knows.members, &truth.members);
            }
        }
    }
}
