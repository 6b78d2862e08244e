//! A hundred thousand random disconnects, and worse, in virtual time: nothing is lost, doubled, reordered or
//! leaked, and every publish happens once or is reported as not done.
//!
//! It must never depend on the machine's clock; a failure names its seed, and [`storm`] with that seed replays
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::server::{Server, Whim};
use super::support::{PUBLISH_TIMEOUT, REQUEST_TIMEOUT, outcome, room, settings};
use crate::client::life::{LifeConfig, Lost, Moment, Phase};
use crate::client::{Ask, Effect, Machine, PublishOptions, Settings, SubscribeOptions};
use crate::id::MessageId;
use crate::protocol::client_event::{Event, Violation};
use crate::time::Monotonic;

const ROOMS: [&str; 3] = ["public:a", "public:b", "public:c"];
const CLIENTS: usize = 3;
/// Of one seed.
const DISCONNECTS: usize = 1000;
/// What a request is for that is no publish.
const JOIN: usize = usize::MAX;

/// Numbers that look drawn (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap()
    }

    fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / 4_294_967_296.0
    }
}

/// One message that a client publishes.
struct Published {
    room: usize,
    data: String,
    echo: bool,
    end: Option<&'static str>,
}

/// One client and what it has heard.
pub(super) struct Actor {
    pub(super) machine: Machine<usize>,
    /// Its socket, or the one on its way.
    link: Option<u64>,
    pub(super) heard: BTreeMap<String, Vec<String>>,
    pub(super) gaps: usize,
    published: Vec<Published>,
    /// For whom no answer has come.
    n_joins: usize,
}

/// What travels, or comes to pass.
#[derive(Debug)]
enum What {
    Opens(u64),
    Fails(u64),
    ToServer(u64, String),
    ToClient(u64, String),
    /// The client's end is gone; the server notices.
    Gone(u64),
    Pings,
    Happens,
}

/// A wire between a client and the server: whose it is, and when the last thing said arrives.
struct Wire {
    actor: usize,
    to_server_ms: u64,
    to_client_ms: u64,
    /// Nothing passes any more, and nobody is told.
    is_dead: bool,
}

/// Clients, a server, and time.
pub(super) struct World {
    pub(super) server: Server,
    pub(super) actors: Vec<Actor>,
    rng: Rng,
    now_ms: u64,
    queue: BTreeMap<(u64, u64), What>,
    n_queued: u64,
    wires: BTreeMap<u64, Wire>,
    n_wires: u64,
    delay_ms: u64,
    is_stormy: bool,
    /// How many connections broke that the server had taken.
    disconnects: usize,
}

impl World {
    pub(super) fn new(seed: u64, clients: usize) -> Self {
        let life = LifeConfig { stable_after: Duration::from_millis(50), ..settings().life };
        let settings = Settings { life, ..settings() };
        let actor = || Actor {
            machine: Machine::new(settings.clone()),
            link: None,
            heard: BTreeMap::new(),
            gaps: 0,
            published: Vec::new(),
            n_joins: 0,
        };
        let mut world = Self {
            server: Server::default(),
            actors: (0..clients).map(|_| actor()).collect(),
            rng: Rng(seed),
            now_ms: 0,
            queue: BTreeMap::new(),
            n_queued: 0,
            wires: BTreeMap::new(),
            n_wires: 0,
            delay_ms: 1,
            is_stormy: false,
            disconnects: 0,
        };
        world.queue(0, What::Pings);
        for number in 0..clients {
            world.with(number, |machine, now| machine.start(now));
            for name in ROOMS {
                let options = SubscribeOptions::default();
                let ask = Ask::Subscribe(room(name), options);
                world.with(number, |machine, now| {
                    machine.ask(ask, now.at.after(REQUEST_TIMEOUT), JOIN, now);
                });
            }
        }
        world
    }

    fn queue(&mut self, after_ms: u64, what: What) {
        self.queue_at(self.now_ms + after_ms, what);
    }

    fn queue_at(&mut self, at_ms: u64, what: What) {
        self.n_queued += 1;
        self.queue.insert((at_ms, self.n_queued), what);
    }

    fn now(&mut self) -> Moment {
        Moment { at: Monotonic::from_millis(self.now_ms), random: self.rng.fraction() }
    }

    /// Lets something happen to a client, and carries out what it wants.
    pub(super) fn with(&mut self, number: usize, act: impl FnOnce(&mut Machine<usize>, Moment)) {
        let now = self.now();
        act(&mut self.actors[number].machine, now);
        while let Some(effect) = self.actors[number].machine.effects.pop_front() {
            match effect {
                Effect::BringToken => unreachable!("its clients have no tokens"),
                Effect::Dial => self.dial(number),
                Effect::HangUp { .. } => {
                    if let Some(link) = self.actors[number].link.take() {
                        self.queue(self.delay_ms, What::Gone(link));
                    }
                }
                Effect::Over { .. } => {}
                Effect::End { code, reason } => panic!("client {number} ended: {code} {reason}"),
            }
        }
        let actor = &mut self.actors[number];
        for (asked, answer) in actor.machine.answers.drain(..) {
            if let Some(published) = actor.published.get_mut(asked) {
                let before = published.end.replace(outcome(&answer));
                assert_eq!(before, None, "{} was answered twice", published.data);
            } else {
                assert_eq!(outcome(&answer), "joined");
                actor.n_joins += 1;
            }
        }
        while let Some(event) = actor.machine.events.pop_front() {
            match event {
                Event::Message(message) => {
                    let heard = actor.heard.entry(message.room.as_str().to_owned()).or_default();
                    heard.push(message.data);
                }
                Event::Gap(_) => actor.gaps += 1,
                Event::Violation(Violation::Hole { .. } | Violation::Duplicate { .. }) => {}
                Event::Violation(other) if self.is_stormy => panic!("client {number}: {other}"),
                _ => {}
            }
        }
        while let Some(frame) = self.actors[number].machine.out.pop() {
            self.send(number, frame.to_string());
        }
    }

    fn dial(&mut self, number: usize) {
        self.n_wires += 1;
        let link = self.n_wires;
        let now_ms = self.now_ms;
        let wire =
            Wire { actor: number, to_server_ms: now_ms, to_client_ms: now_ms, is_dead: false };
        self.wires.insert(link, wire);
        self.actors[number].link = Some(link);
        let drawn = if self.is_stormy { self.rng.below(50) } else { 50 };
        match drawn {
            0 => {}
            1..4 => self.queue(self.delay_ms, What::Fails(link)),
            _ => self.queue(self.delay_ms, What::Opens(link)),
        }
    }

    fn send(&mut self, number: usize, frame: String) {
        let Some(link) = self.actors[number].link else { return };
        let Some(wire) = self.wires.get_mut(&link) else { return };
        wire.to_server_ms = wire.to_server_ms.max(self.now_ms + self.delay_ms);
        let at_ms = wire.to_server_ms;
        self.queue_at(at_ms, What::ToServer(link, frame));
    }

    /// Carries what the server says.
    pub(super) fn carry(&mut self) {
        for (link, frame) in std::mem::take(&mut self.server.out) {
            let Some(wire) = self.wires.get_mut(&link) else { continue };
            wire.to_client_ms = wire.to_client_ms.max(self.now_ms + self.delay_ms);
            let at_ms = wire.to_client_ms;
            self.queue_at(at_ms, What::ToClient(link, frame));
        }
    }

    /// Breaks a wire; what is under way is gone.
    fn cut(&mut self, link: u64, lost: Lost) {
        let Some(wire) = self.wires.remove(&link) else { return };
        self.disconnects += usize::from(self.server.close(link));
        if self.actors[wire.actor].link == Some(link) {
            self.actors[wire.actor].link = None;
            self.with(wire.actor, |machine, now| machine.lost(lost, now));
        }
    }

    /// Says something to every client that no server should.
    pub(super) fn inject(&mut self, text: &str) {
        for number in 0..self.actors.len() {
            if self.actors[number].link.is_some() {
                self.with(number, |machine, now| machine.text(text, now));
            }
        }
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        loop {
            let queued = self.queue.first_key_value().map(|((at_ms, _), _)| *at_ms);
            let due = |actor: &Actor| actor.machine.due(true).map(Monotonic::as_millis);
            let rings = self.actors.iter().filter_map(due).min();
            let Some(next) = queued.into_iter().chain(rings).min().filter(|at| *at <= until) else {
                break;
            };
            self.now_ms = self.now_ms.max(next);
            if rings.is_some_and(|at| at <= self.now_ms) {
                for number in 0..self.actors.len() {
                    if due(&self.actors[number]).is_some_and(|at| at <= self.now_ms) {
                        self.with(number, |machine, now| machine.tick(true, now));
                    }
                }
            } else if let Some((_, what)) = self.queue.pop_first() {
                self.pass(what);
            }
        }
        self.now_ms = until;
    }

    fn pass(&mut self, what: What) {
        match what {
            What::Opens(link) => {
                let Some(wire) = self.wires.get(&link) else { return };
                let actor = wire.actor;
                if self.actors[actor].link == Some(link) {
                    self.with(actor, |machine, now| machine.opened(now));
                    self.server.accept(link, actor);
                }
            }
            What::Fails(link) => self.cut(link, Lost::broken("nobody is there")),
            What::ToServer(link, text) => {
                if self.wires.get(&link).is_some_and(|wire| !wire.is_dead) {
                    let whim = self.draw_whim();
                    self.server.hear(link, &text, whim);
                }
            }
            What::ToClient(link, text) => {
                let Some(wire) = self.wires.get(&link).filter(|wire| !wire.is_dead) else { return };
                let actor = wire.actor;
                if self.actors[actor].link == Some(link) {
                    self.with(actor, |machine, now| machine.text(&text, now));
                }
            }
            What::Gone(link) => {
                self.wires.remove(&link);
                self.disconnects += usize::from(self.server.close(link));
            }
            What::Pings => {
                self.server.ping();
                self.queue(25_000, What::Pings);
            }
            What::Happens => self.happen(),
        }
        self.carry();
    }

    fn draw_whim(&mut self) -> Whim {
        let drawn = if self.is_stormy { self.rng.below(40) } else { 40 };
        match drawn {
            0 => Whim::StoresAndRefuses,
            1 => Whim::Refuses,
            2 => Whim::IsSilent,
            3..6 => Whim::ForbidsRepeat,
            _ => Whim::Right,
        }
    }

    /// One thing that happens in a storm.
    fn happen(&mut self) {
        if !self.is_stormy {
            return;
        }
        let number = self.rng.pick(self.actors.len());
        let link = self.actors[number].link;
        match (self.rng.below(32), link) {
            (0..18, Some(link)) => self.cut(link, Lost::broken("")),
            (18, _) => {
                for link in self.wires.keys().copied().collect::<Vec<_>>() {
                    self.cut(link, Lost::broken(""));
                }
            }
            (19, Some(link)) => {
                let code = [1001, 1012, 3001, 3003][self.rng.pick(4)];
                let after = Some(Duration::from_millis(self.rng.below(500)));
                let after = after.filter(|_| code == 1012);
                self.cut(link, Lost { after, ..Lost::new(code, "storm") });
            }
            (20, Some(link)) if self.rng.below(20) == 0 => {
                if let Some(wire) = self.wires.get_mut(&link) {
                    wire.is_dead = true;
                }
            }
            (21, _) => self.delay_ms = 1 + self.rng.below(100),
            (22, Some(link)) => self.server.lose_next(link),
            (23, Some(link)) => self.server.repeat_next(link),
            _ => {
                let number = self.rng.pick(self.actors.len());
                let place = self.rng.pick(ROOMS.len());
                let echo = self.rng.below(4) > 0;
                self.publish(number, place, echo);
            }
        }
        let soon = self.rng.below(100);
        self.queue(soon, What::Happens);
    }

    fn publish(&mut self, number: usize, place: usize, echo: bool) {
        let published = &mut self.actors[number].published;
        let asked = published.len();
        let msg_id = MessageId::parse(&format!("{number}-{asked}")).unwrap();
        let data = format!("\"{msg_id}\"");
        published.push(Published { room: place, data: data.clone(), echo, end: None });
        let options = PublishOptions { echo, ..PublishOptions::default() };
        let ask = Ask::Publish { room: room(ROOMS[place]), data, msg_id, options };
        self.with(number, |machine, now| {
            machine.ask(ask, now.at.after(PUBLISH_TIMEOUT), asked, now);
        });
    }

    /// The storm is over, and everybody comes back.
    fn calm(&mut self) {
        self.is_stormy = false;
        self.delay_ms = 1;
        self.advance(150_000);
        for number in 0..self.actors.len() {
            for place in 0..ROOMS.len() {
                self.publish(number, place, true);
            }
        }
        self.advance(120_000);
    }

    fn check(&self) {
        for name in ROOMS {
            let log = &self.server.logs[name];
            let once: BTreeSet<_> = log.iter().collect();
            assert_eq!(once.len(), log.len(), "{name}: a message was stored twice");
            for (number, actor) in self.actors.iter().enumerate() {
                let silent = actor.published.iter().filter(|one| !one.echo).map(|one| &one.data);
                let silent: BTreeSet<_> = silent.collect();
                let heard = &actor.heard[name];
                let here: BTreeSet<_> = heard.iter().collect();
                // What was not wanted back may come all the same, in its place, when its
                // acknowledgement was lost.
                let wanted = |data: &&String| !silent.contains(data) || here.contains(data);
                let expected: Vec<_> = log.iter().filter(wanted).collect();
                assert_eq!(heard.iter().collect::<Vec<_>>(), expected, "client {number} in {name}");
            }
        }
        for (number, actor) in self.actors.iter().enumerate() {
            assert_eq!((actor.gaps, actor.n_joins), (0, ROOMS.len()), "client {number}");
            assert_eq!(actor.machine.phase(), Phase::Open, "client {number}");
            for Published { room, data, end, .. } in &actor.published {
                let is_there = self.server.logs[ROOMS[*room]].contains(data);
                match end {
                    Some("acked") => assert!(is_there, "{data} was acknowledged"),
                    Some("not_sent") => assert!(!is_there, "{data} was never sent"),
                    Some("unanswered") => {}
                    other => panic!("{data} ended as {other:?}"),
                }
            }
            // Three rooms, the timer of its life, and the places of its own messages that were never
            // acknowledged on this connection.
            let is_open = |one: &&Published| !one.echo && one.end == Some("unanswered");
            let late_max = actor.published.iter().filter(is_open).count();
            let [rooms, retries, requests, late, .., timers] = actor.machine.held();
            assert_eq!(
                (rooms, retries, requests, timers),
                (ROOMS.len(), 0, 0, 1),
                "client {number}"
            );
            assert!(late <= late_max, "client {number}: {late} of {late_max}");
        }
    }
}

/// One seed: how many connections broke, and how the publishes ended.
fn storm(seed: u64) -> (usize, BTreeMap<&'static str, usize>) {
    let mut world = World::new(seed, CLIENTS);
    world.advance(100);
    world.is_stormy = true;
    world.queue(0, What::Happens);
    while world.disconnects < DISCONNECTS {
        world.advance(1000);
    }
    world.calm();
    world.check();
    for number in 0..CLIENTS {
        world.with(number, |machine, now| machine.close(now));
        let machine = &world.actors[number].machine;
        assert_eq!((machine.held(), machine.due(true)), ([0; 9], None), "client {number}");
    }
    let mut ends = BTreeMap::new();
    for one in world.actors.iter().flat_map(|actor| &actor.published) {
        *ends.entry(one.end.unwrap()).or_default() += 1;
    }
    (world.disconnects, ends)
}

fn storms(seeds: std::ops::Range<u64>) {
    let mut ends = BTreeMap::<_, usize>::new();
    let (mut disconnects, n_seeds) = (0, usize::try_from(seeds.end - seeds.start).unwrap());
    for seed in seeds {
        let played = std::panic::catch_unwind(|| storm(seed));
        let Ok((broke, ended)) = played else {
            panic!("the seed was {seed}: `storm({seed})` replays it")
        };
        disconnects += broke;
        for (end, n) in ended {
            *ends.entry(end).or_default() += n;
        }
    }
    assert!(disconnects >= n_seeds * DISCONNECTS, "only {disconnects} connections broke");
    assert!(ends["acked"] > 1000 && ends["unanswered"] > 0, "the storm was too calm: {ends:?}");
}

/// K04: the outbox keeps its order and its ids over every loss. K05: lost acknowledgements.
#[test]
fn twenty_five_thousand_disconnects_lose_double_reorder_and_leak_nothing() {
    storms(0..25);
}

/// The second quarter of a hundred thousand.
#[test]
fn fifty_thousand_disconnects_lose_double_reorder_and_leak_nothing() {
    storms(25..50);
}

/// The third.
#[test]
fn seventy_five_thousand_disconnects_lose_double_reorder_and_leak_nothing() {
    storms(50..75);
}

/// The fourth.
#[test]
fn a_hundred_thousand_disconnects_lose_double_reorder_and_leak_nothing() {
    storms(75..100);
}
