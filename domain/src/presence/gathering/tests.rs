//! What is told, and when, of a room in which much happens. It must never ask the code what a follower should know.

use super::*;
use crate::id::{ConnectionId, UserId};
use crate::presence::RoomPresence;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Few, so that a test meets it.
const FEW: usize = 8;

fn user(n: u64) -> PresenceKey {
    PresenceKey::User(UserId::parse(&format!("u{n}")).unwrap())
}

fn at(ms: u64) -> Monotonic {
    Monotonic::from_millis(ms)
}

fn join(room: &mut RoomPresence, n: u64) -> PresenceEvent {
    room.enter(&user(n), ConnectionId::from_bits(n)).unwrap()
}

fn leave(room: &mut RoomPresence, n: u64) -> PresenceEvent {
    room.leave(&user(n), ConnectionId::from_bits(n)).unwrap()
}

/// One room, and what its followers have to be told.
struct Bench {
    room: RoomPresence,
    gathering: Gathering,
    now: u64,
}

impl Bench {
    fn new(named_max: usize) -> Self {
        Self {
            room: RoomPresence::default(),
            gathering: Gathering::new(named_max, usize::MAX),
            now: 0,
        }
    }

    fn join(&mut self, n: u64) -> bool {
        let event = join(&mut self.room, n);
        self.gathering.take(&event, at(self.now))
    }

    fn leave(&mut self, n: u64) -> bool {
        let event = leave(&mut self.room, n);
        self.gathering.take(&event, at(self.now))
    }

    fn show(&mut self, n: u64, data: &str) -> bool {
        let event = self.room.update(&user(n), Bytes::copy_from_slice(data.as_bytes())).unwrap();
        self.gathering.take(&event, at(self.now))
    }

    /// Until the next moment when something is told.
    fn next(&mut self) -> Gathered {
        let due = self.gathering.due().unwrap();
        self.now = self.now.max(due.as_millis());
        self.gathering.tell(at(self.now))
    }

    fn list(&mut self) -> Listed {
        let list = self.room.list(1_000);
        let is_whole = list.members.len() == list.total;
        let count = PresenceCount { seq: list.seq, total: list.total };
        self.gathering.listed(count, is_whole, at(self.now))
    }
}

#[test]
fn a_few_changes_are_told_at_once_and_the_others_of_the_window_in_one() {
    let mut bench = Bench::new(1_000);
    let at_once = (0..30).filter(|n| bench.join(*n)).count();
    assert_eq!(at_once, AT_ONCE_MAX as usize);
    let told = bench.next();
    let span = told.changes.iter().map(|c| (c.from, c.seq, c.total, c.members.len()));
    assert_eq!(span.collect::<Vec<_>>(), [(11, 30, 30, 20)]);
    assert_eq!(bench.now, WINDOW.as_millis() as u64);
    assert!(!bench.join(30), "it goes on");
    assert_eq!(bench.next().changes[0].members.len(), 1);
    assert_eq!(bench.next(), Gathered::default());
    assert!(bench.gathering.is_idle());
    assert!(bench.join(31), "it is quiet again");
}

#[test]
fn what_became_of_a_member_is_told_once_with_the_newest_of_it() {
    let mut bench = Bench::new(1_000);
    (0..10).for_each(|n| assert!(bench.join(n)));
    for n in 10..14 {
        bench.join(n);
    }
    bench.show(10, "1");
    bench.show(10, "2");
    bench.leave(11);
    bench.show(0, "3");
    bench.show(0, "4");
    bench.leave(1);
    bench.leave(12);
    bench.join(12);
    let told = bench.next().changes.remove(0);
    let told = told.members.into_iter();
    let told: BTreeMap<_, _> =
        told.map(|one| (one.who.to_string(), (one.change.word(), one.data))).collect();
    let word = |who: &str| (told[who].0, String::from_utf8(told[who].1.to_vec()).unwrap());
    assert_eq!(word("u10"), ("join", "2".to_owned()));
    // A list that was read in between has it.
    assert_eq!(word("u11"), ("leave", String::new()));
    assert_eq!(word("u0"), ("update", "4".to_owned()));
    assert_eq!(word("u1"), ("leave", String::new()));
    assert_eq!(word("u12"), ("join", String::new()));
    assert_eq!(told.len(), 6);
}

#[test]
fn a_change_that_is_missing_parts_what_is_told() {
    let mut bench = Bench::new(1_000);
    for n in 0..12 {
        bench.join(n);
    }
    drop(join(&mut bench.room, 12));
    for n in 13..15 {
        bench.join(n);
    }
    let spans = bench.next().changes.into_iter().map(|c| (c.from, c.seq)).collect::<Vec<_>>();
    assert_eq!(spans, [(11, 12), (14, 15)]);
}

#[test]
fn a_crowd_is_counted_and_named_again_once_it_is_small_for_a_while() {
    let mut bench = Bench::new(FEW);
    for n in 0..20 {
        bench.join(n);
    }
    let told = bench.next();
    assert_eq!((told.changes.len(), told.count), (0, Some(PresenceCount { seq: 20, total: 20 })));
    assert_eq!(bench.gathering.due(), None, "nothing is to be told of a crowd that stays");
    for n in 0..14 {
        bench.leave(n);
    }
    let told = bench.next();
    assert_eq!(told.count.map(|count| count.total), Some(6));
    assert!(!told.needs_list, "too early");
    let told = bench.next();
    assert_eq!((told.count, told.needs_list), (None, true));
    assert_eq!(bench.now, COUNTED_AT_LEAST.as_millis() as u64);
    // What happens while the list is read is told behind it.
    assert!(!bench.join(30));
    assert_eq!(bench.gathering.due(), None);
    assert_eq!(bench.list(), Listed::Whole);
    assert!(!bench.join(31));
    let told = bench.next().changes.remove(0);
    assert_eq!((told.from, told.seq, told.members.len()), (35, 36, 2));
    assert_eq!(bench.next(), Gathered::default());
    assert!(bench.gathering.is_idle());
}

#[test]
fn a_number_is_told_a_window_after_a_change_also_while_names_are_waited_for() {
    let mut bench = Bench::new(FEW);
    for n in 0..20 {
        bench.join(n);
    }
    bench.next();
    for n in 0..14 {
        bench.leave(n);
    }
    assert_eq!(bench.next().count.map(|count| count.total), Some(6));
    let told_at = bench.now;
    for n in 0..14 {
        bench.join(n);
    }
    assert_eq!(bench.next().count.map(|count| count.total), Some(20));
    assert_eq!(bench.now, told_at + WINDOW.as_millis() as u64);
}

#[test]
fn numbers_never_go_back_where_a_list_was_ahead_of_the_changes() {
    let mut bench = Bench::new(FEW);
    for n in 0..20 {
        bench.join(n);
    }
    bench.next();
    let late: Vec<_> = (0..3).map(|n| leave(&mut bench.room, n)).collect();
    assert!(!bench.gathering.take(&late[0], at(bench.now)));
    assert!(matches!(bench.list(), Listed::Counted(_)));
    for event in &late {
        assert!(!bench.gathering.take(event, at(bench.now)));
    }
    assert_eq!(bench.next(), Gathered::default(), "the list said more than that");
}

#[test]
fn a_list_that_is_older_than_what_is_known_is_not_told_until_another_one_is_too() {
    let mut bench = Bench::new(FEW);
    for n in 0..20 {
        bench.join(n);
    }
    bench.next();
    let (old, newest) =
        (PresenceCount { seq: 15, total: 15 }, PresenceCount { seq: 20, total: 20 });
    let listed = |bench: &mut Bench| bench.gathering.listed(old, false, at(bench.now));
    // It may have been on its way for long.
    assert_eq!(listed(&mut bench), Listed::Counted(newest));
    assert!(bench.next().needs_list);
    // One that was asked for since: the broker has lost the end.
    assert_eq!(listed(&mut bench), Listed::Counted(old));
    assert_eq!(bench.next(), Gathered::default());
    let next = PresenceEvent { seq: 16, total: 16, ..join(&mut bench.room, 99) };
    assert!(!bench.gathering.take(&next, at(bench.now)));
    assert_eq!(bench.next().count, Some(PresenceCount { seq: 16, total: 16 }));
}

#[test]
fn a_list_that_can_t_name_all_is_a_number_and_not_asked_for_again_until_something_changes() {
    let mut bench = Bench::new(2_000);
    for n in 0..1_100 {
        drop(join(&mut bench.room, n));
    }
    // As long as one list can be.
    assert!(matches!(bench.list(), Listed::Counted(_)));
    assert_eq!(bench.next(), Gathered::default(), "it was told with the list");
    assert_eq!(bench.gathering.due(), None);
    for n in 0..200 {
        bench.leave(n);
    }
    assert_eq!(bench.next().count.map(|count| count.total), Some(900));
    assert!(bench.next().needs_list);
    assert_eq!(bench.list(), Listed::Whole);
}

#[test]
fn names_are_counted_beside_data_and_the_bound_may_be_smaller() {
    let mut gathering = Gathering::new(100_000, 10_000);
    let mut room = RoomPresence::default();
    let is_counted = (0..10_000).find(|n| {
        let who = UserId::parse(&format!("{n:0>128}")).unwrap();
        let event = room.enter(&PresenceKey::User(who), ConnectionId::from_bits(*n)).unwrap();
        gathering.take(&event, at(0));
        gathering.is_counted()
    });
    let each = (CHANGE_BYTES + 128) as u64;
    assert_eq!(is_counted, Some(u64::from(AT_ONCE_MAX) + 10_000 / each));
}

#[test]
fn a_list_of_a_crowd_is_told_as_a_number() {
    let mut bench = Bench::new(FEW);
    for n in 0..9 {
        drop(join(&mut bench.room, n));
    }
    assert!(matches!(bench.list(), Listed::Counted(_)));
    assert!(bench.gathering.is_counted());
    bench.leave(0);
    assert_eq!(bench.next().count.map(|count| count.total), Some(8));
    assert!(matches!(bench.list(), Listed::Counted(_)), "a little fewer is not enough");
}

/// D10: data of 4 KiB each, a thousand times: what is gathered is bounded, and so is how often all are listed.
#[test]
fn what_members_show_is_gathered_up_to_a_size_and_then_counted() {
    let mut bench = Bench::new(1_000);
    for n in 0..100 {
        bench.join(n);
    }
    bench.next();
    let (mut lists, mut bytes, mut n) = (0, 0, 0_u64);
    let end = 60_000;
    while bench.now < end {
        for _ in 0..100 {
            bench.show(n % 100, &format!("\"{}{n}\"", "x".repeat(4_000)));
            n += 1;
        }
        let told = bench.next();
        bytes += told.changes.iter().flat_map(|c| &c.members).map(|m| m.data.len()).sum::<usize>();
        if told.needs_list {
            lists += 1;
            bench.list();
        }
        assert!(bench.gathering.bytes <= GATHERED_BYTES_MAX + 4_096);
    }
    assert!(lists <= end / COUNTED_AT_LEAST.as_millis() as u64, "{lists}");
    assert!(bytes as u64 <= (lists + 1) * GATHERED_BYTES_MAX as u64, "{bytes}");
}

/// What a follower of the protocol does with what it is told.
#[derive(Default)]
struct Follower {
    seq: u64,
    members: Option<BTreeMap<String, Bytes>>,
    total: usize,
}

impl Follower {
    fn list(&mut self, room: &RoomPresence) {
        let list = room.list(1_000);
        let known = list.members.iter().map(|m| (m.who.to_string(), m.data.clone()));
        (self.seq, self.total, self.members) = (list.seq, list.total, Some(known.collect()));
    }

    /// The list that everybody is told, or what is told of it.
    fn listed(&mut self, listed: Listed, room: &RoomPresence) {
        self.list(room);
        if matches!(listed, Listed::Counted(_)) {
            self.members = None;
        }
    }

    /// Whether it has to ask.
    fn changes(&mut self, changes: &PresenceChanges) -> bool {
        if changes.seq <= self.seq {
            return false;
        }
        let Some(members) = &mut self.members else { return false };
        if changes.from > self.seq + 1 {
            self.members = None;
            self.seq = changes.seq;
            return true;
        }
        (self.seq, self.total) = (changes.seq, changes.total);
        for ChangedMember { who, change, data } in &changes.members {
            match change {
                PresenceChange::Leave => members.remove(&who.to_string()),
                PresenceChange::Join | PresenceChange::Update => {
                    members.insert(who.to_string(), data.clone())
                }
            };
        }
        false
    }

    fn hear(&mut self, told: &Gathered, room: &RoomPresence) {
        for changes in &told.changes {
            assert!(!self.changes(changes), "nothing is missing");
        }
        if let Some(count) = told.count {
            (self.seq, self.total, self.members) = (count.seq, count.total, None);
        }
        if told.needs_list {
            assert!(room.seq() >= self.seq);
        }
    }
}

proptest! {
    /// H04: whatever happens and whenever lists are read, in the end every follower has the truth, and it never
    /// finds a hole that is none.
    #[test]
    fn a_follower_s_list_is_the_truth_after_any_changes(
        steps in proptest::collection::vec((0u8..12, 0u64..14, 0u64..60), 0..400),
        named_max in 1usize..14,
    ) {
        let mut bench = Bench::new(named_max);
        let mut followers = [Follower::default(), Follower::default(), Follower::default()];
        let mut listing = false;
        followers.iter_mut().for_each(|follower| follower.list(&bench.room));
        for (step, n, ms) in steps {
            let event = match step {
                0..4 => bench.room.enter(&user(n), ConnectionId::from_bits(n)),
                4..7 => bench.room.leave(&user(n), ConnectionId::from_bits(n)),
                7..9 => bench.room.update(&user(n), Bytes::from(ms.to_string())),
                9 => {
                    // Somebody asks by itself, in the middle of what is gathered; and where only numbers are told
                    // they come again behind it.
                    let follower = &mut followers[(n % 2) as usize];
                    if !bench.gathering.is_counted() && follower.members.is_some() {
                        follower.list(&bench.room);
                    }
                    None
                }
                10 => {
                    if std::mem::take(&mut listing) {
                        let listed = bench.list();
                        followers.iter_mut().for_each(|f| f.listed(listed, &bench.room));
                    }
                    None
                }
                _ => {
                    bench.now += ms;
                    None
                }
            };
            if let Some(event) = event
                && bench.gathering.take(&event, at(bench.now))
            {
                let member = ChangedMember { who: event.who, change: event.change, data: event.data };
                let (seq, total) = (event.seq, event.total);
                let alone = PresenceChanges { from: seq, seq, total, members: vec![member] };
                followers.iter_mut().for_each(|follower| prop_assert_none(follower.changes(&alone)));
            }
            let told = bench.gathering.tell(at(bench.now));
            listing |= told.needs_list;
            followers.iter_mut().for_each(|follower| follower.hear(&told, &bench.room));
        }
        // It becomes quiet.
        for _ in 0..8 {
            if std::mem::take(&mut listing) {
                let listed = bench.list();
                followers.iter_mut().for_each(|follower| follower.listed(listed, &bench.room));
            }
            if bench.gathering.due().is_some() {
                let told = bench.next();
                listing |= told.needs_list;
                followers.iter_mut().for_each(|follower| follower.hear(&told, &bench.room));
            }
        }
        let truth = bench.room.list(1_000);
        let named: BTreeMap<_, _> =
            truth.members.iter().map(|m| (m.who.to_string(), m.data.clone())).collect();
        for follower in followers {
            prop_assert_eq!((follower.seq, follower.total), (truth.seq, truth.total));
            prop_assert!(follower.members.is_some() || bench.gathering.is_counted());
            if let Some(members) = follower.members {
                prop_assert_eq!(members, named.clone());
            }
        }
    }
}

fn prop_assert_none(has_to_ask: bool) {
    assert!(!has_to_ask, "nothing is missing");
}
