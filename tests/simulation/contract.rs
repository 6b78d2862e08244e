//! What the simulation puts in place of real parts, against the contracts of their ports: if a
//! link, a clock or a source of numbers were not like the real ones, no seed would prove anything.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use application::ports::{Moderation as _, Outbox};
use application::shard::Slot;
use application::testing::clock_contract::ClockContract;
use application::testing::entropy_contract;
use application::testing::moderation_contract::{self, ModerationContract};
use application::testing::outbox_contract::{Heard, OutboxHost};
use domain::id::{ConnectionId, UserId};
use domain::moderation::{Act, Deed};
use domain::time::Wall;

use crate::links::{Down, Link, SimOutbox, Wires};
use crate::ports::{Core, Shared, SimClock, SimEntropy, WALL_START_MS};
use crate::rng::Rng;
use crate::sanctions::{Records, SimModeration};

/// One shard's links, without a world.
struct Links {
    links: Vec<Link>,
    by_slot: BTreeMap<Slot, usize>,
    /// Which link a place had last.
    last: BTreeMap<Slot, usize>,
    rng: Rng,
    heard: BTreeMap<usize, VecDeque<Heard>>,
    unread: BTreeMap<Slot, usize>,
}

impl Links {
    fn new() -> Self {
        Self {
            links: Vec::new(),
            by_slot: BTreeMap::new(),
            last: BTreeMap::new(),
            rng: Rng::new(7),
            heard: BTreeMap::new(),
            unread: BTreeMap::new(),
        }
    }

    /// What was sent arrives, at the moment that the link gives it.
    fn arrive(&mut self, mut sent: Vec<(u64, usize, Down)>) {
        sent.sort_by_key(|(at, link, _)| (*link, *at));
        for (_, link, down) in sent {
            let heard = self.heard.entry(link).or_default();
            match down {
                Down::Closed(code) => heard.push_back(Heard::Closed(code)),
                Down::Bytes(bytes) => {
                    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                        // The rest of a message that was begun when the link stalled.
                        let text = String::from_utf8(piece.to_vec()).unwrap();
                        match heard.back_mut() {
                            Some(Heard::Message(begun)) if !begun.ends_with('\n') => {
                                begun.push_str(&text);
                            }
                            _ => heard.push_back(Heard::Message(text)),
                        }
                    }
                }
            }
        }
    }
}

impl OutboxHost for Links {
    fn queue_bytes_max(&self) -> usize {
        20_000
    }

    fn unread_bytes_max(&self) -> usize {
        1_000
    }

    fn open(&mut self, at: Slot) {
        let index = self.links.len();
        self.links.push(Link::new(0, 0, 0, at, ConnectionId::from_bits(index as u64)));
        self.by_slot.insert(at, index);
        self.last.insert(at, index);
    }

    fn outbox(&mut self, act: &mut dyn FnMut(&mut dyn Outbox)) {
        let (mut sent, mut violation) = (Vec::new(), None);
        let queue_bytes_max = self.queue_bytes_max();
        act(&mut SimOutbox {
            links: &mut self.links,
            by_slot: &mut self.by_slot,
            wires: Wires { now_ms: 0, rng: &mut self.rng, sent: &mut sent },
            queue_bytes_max,
            resumed: &mut Vec::new(),
            paused: &mut 0,
            dropped: &mut 0,
            closed: &mut Vec::new(),
            passed: &mut Vec::new(),
            told: None,
            violation: &mut violation,
        });
        assert_eq!(violation, None);
        self.arrive(sent);
    }

    fn stall(&mut self, at: Slot) {
        self.links[self.last[&at]].stalled = true;
    }

    fn resume(&mut self, at: Slot) {
        let (index, mut sent) = (self.last[&at], Vec::new());
        let mut wires = Wires { now_ms: 0, rng: &mut self.rng, sent: &mut sent };
        self.links[index].flush(index, &mut wires);
        self.arrive(sent);
    }

    fn hear(&mut self, at: Slot) -> Heard {
        match self.heard.entry(self.last[&at]).or_default().pop_front() {
            Some(Heard::Message(text)) => {
                let whole = text.strip_suffix('\n').expect("a whole message");
                Heard::Message(whole.to_owned())
            }
            Some(other) => other,
            None => Heard::Silence,
        }
    }

    fn say(&mut self, from: Slot, _text: &str) {
        *self.unread.entry(from).or_default() += 1;
        self.reads_all(from);
    }

    fn reads_all(&mut self, of: Slot) -> bool {
        if !self.links[self.last[&of]].paused {
            self.unread.remove(&of);
        }
        !self.has_unread(of)
    }

    fn has_unread(&mut self, of: Slot) -> bool {
        self.unread.contains_key(&of)
    }
}

mod links {
    application::outbox_contract_tests!(super::Links::new);
}

#[test]
fn the_simulated_clock_keeps_its_contract() {
    let core = Shared::new(Core::new(Rng::new(1)));
    let pass = |span: Duration| {
        core.lock().now_ms += u64::try_from(span.as_millis()).unwrap();
    };
    let clock = SimClock(core.clone());
    let not_before = Wall::from_millis(WALL_START_MS);
    ClockContract { clock: &clock, pass: &pass, not_before }.check();
}

#[test]
fn the_simulated_randomness_keeps_its_contract() {
    let seeds = std::cell::Cell::new(0);
    entropy_contract::check(&|| {
        seeds.set(seeds.get() + 1);
        Box::new(SimEntropy(Shared::new(Core::new(Rng::new(seeds.get())))))
    });
}

/// Lets time pass until something is done.
fn wait_for<T>(core: &Shared, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let std::task::Poll::Ready(done) = polled {
            return done;
        }
        core.lock().now_ms += 1;
    }
}

#[test]
fn simulated_sanctions_keep_their_contract() {
    let core = Shared::new(Core::new(Rng::new(3)));
    let moderation = SimModeration::open(core.clone(), &Records::default(), 0);
    wait_for(&core, ModerationContract { moderation: &moderation }.check());
}

#[test]
fn a_simulated_process_knows_the_sanctions_that_the_one_before_has_stored_and_no_others() {
    let core = Shared::new(Core::new(Rng::new(4)));
    let records = Records::default();
    let [stored, lost] = ["ann", "bob"].map(|name| UserId::parse(name).unwrap());
    let entry_of = |user: &UserId| moderation_contract::entry(0, Act::Ban(user.clone(), None));
    let before = SimModeration::open(core.clone(), &records, 0);
    wait_for(&core, before.record(&entry_of(&stored))).unwrap();
    core.lock().weather.refuse_moderation = 100;
    wait_for(&core, before.record(&entry_of(&lost))).unwrap_err();
    let after = SimModeration::open(core, &records, 1);
    let (room, now) = (entry_of(&lost).room, moderation_contract::at(1));
    assert!(before.forbids(&lost, &room, Deed::Enter, now).is_some());
    assert!(after.forbids(&stored, &room, Deed::Enter, now).is_some());
    assert_eq!(after.forbids(&lost, &room, Deed::Enter, now), None);
}
