//! The story of one seed: users act while faults fire; then everything heals, everyone gets a
//! canary, and everyone goes. What must hold at the end of each part is checked here.
//!
//! Healing stops new faults only. What they broke has to be mended by the application.

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use application::ports::Presence;
use domain::client::RoomPhase;
use domain::client::life::Lost;
use domain::delivery::Class;
use domain::presence::PresenceList;
use domain::room::RoomId;

use crate::checker::{Checked, Stage, Violation};
use crate::client::Client;
use crate::crowd::NamesMax;
use crate::faults::Counts;
use crate::links::Up;
use crate::mirror::Mirror;
use crate::moderators::MODERATORS_ACT;
use crate::ports::Weather;
use crate::rng::Rng;
use crate::taking::shared_rng;
use crate::ways::{OneRedis, Time};
use crate::world::{ALONE, Event, Over, World};

/// The most time that the acts and faults of a seed take.
const STORY_MS: u64 = 60_000;
/// Longer than any heartbeat, lease, retry or look at positions.
const HEAL_MS: u64 = 22_000;
/// The same where leases are of the real kind, and those who were told not to come back come once they are over.
const HEAL_OVER_REDIS_MS: u64 = 32_000;
const REOPEN_MS: u64 = 16_000;
/// Enough for a message to reach everyone when all is well.
const CANARY_MS: u64 = 1_000;

/// With less, what is held while a hole is filled may be dropped and read again; a message
/// without a position can't be.
const HELD_BYTES_ENOUGH: usize = 100_000;

/// How many of a hundred acts are a writer's, where there are writers.
const WRITERS_ACT: u64 = 40;

/// How many of a hundred acts bring somebody back who was told not to come, where that happens.
const REOPEN: u64 = 6;
/// How many of a hundred seeds with several nodes are over a Redis that they share.
const OVER_REDIS: u64 = 15;

/// What came of one seed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) counts: Counts,
    /// What tells a run from another one; only where that was asked for.
    pub(crate) hash: Option<u64>,
    pub(crate) violation: Option<Violation>,
}

/// Whether nodes share a Redis in a seed, beside the broker that is simulated.
pub(crate) fn is_over_redis(seed: u64) -> bool {
    !Rng::new(seed).percent(ALONE) && shared_rng(seed).percent(OVER_REDIS)
}

/// What is done beside telling a story.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Beside {
    Nothing,
    /// Each event is shown.
    Trace,
    /// Each event is mixed into the hash.
    Hash,
}

/// Runs one seed to its end, or to the first violation.
pub(crate) fn run(seed: u64, trace: bool) -> Report {
    run_beside(seed, if trace { Beside::Trace } else { Beside::Nothing })
}

/// The same, which also tells this run from another one.
pub(crate) fn run_hashed(seed: u64) -> Report {
    run_beside(seed, Beside::Hash)
}

fn run_beside(seed: u64, beside: Beside) -> Report {
    if is_over_redis(seed) { run_over(seed, beside, None).0 } else { tell(seed, beside, None).0 }
}

/// Runs one whose Redis is asked beside the model of it. Answers both as they are in the end.
pub(crate) fn run_mirrored(seed: u64, mirror: Mirror) -> (Report, Option<OneRedis>) {
    run_over(seed, Beside::Nothing, Some(mirror))
}

fn run_over(seed: u64, beside: Beside, mirror: Option<Mirror>) -> (Report, Option<OneRedis>) {
    let runtime = Time::runtime();
    // What waits by this clock finds it in here.
    let _entered = runtime.enter();
    tell(seed, beside, Some(Over { runtime: Rc::clone(&runtime), mirror }))
}

fn tell(seed: u64, beside: Beside, over: Option<Over>) -> (Report, Option<OneRedis>) {
    let mut world = World::new(seed, beside == Beside::Trace, over);
    if beside == Beside::Hash {
        world.begin_hash();
    }
    let violation = world.tell().err();
    let mut core = world.core.lock();
    let (counts, one) = (core.counts.clone(), core.redis.take());
    drop(core);
    (Report { counts, hash: world.hash, violation }, one)
}

impl World {
    fn tell(&mut self) -> Checked {
        let mut end = 0;
        while (self.acts_left > 0 || self.faults_left > 0) && end < STORY_MS {
            end += 500;
            self.run_until(end)?;
        }
        self.heal();
        self.run_until(end + self.heal_ms())?;
        self.check_connected()?;
        self.check_letters()?;
        let canaries = self.say_canaries(Class::Latest)?;
        self.run_until(self.now_ms + CANARY_MS)?;
        self.check_newest(&canaries)?;
        self.say_canaries(Class::Reliable)?;
        self.run_until(self.now_ms + CANARY_MS)?;
        self.check_histories()?;
        self.check_presence()?;
        self.check_seated()?;
        self.leave()?;
        self.run_until(self.now_ms + self.heal_ms())?;
        self.check_nothing_left()
    }

    pub(crate) fn act(&mut self) -> Checked {
        if self.acts_left == 0 || self.healed {
            return Ok(());
        }
        self.acts_left -= 1;
        let next = self.now_ms + self.rng.between(5, 180);
        self.queue.push(next, Event::Act);
        if self.is_over_redis() && self.rng.percent(REOPEN) {
            self.reopen_one();
            return Ok(());
        }
        if self.disk.is_some() && self.rng.percent(MODERATORS_ACT) {
            self.moderate();
            return Ok(());
        }
        let client = self.rng.index(self.clients.len());
        // Few writers have as much to do as many others.
        if !self.writers.is_empty() && self.rng.percent(WRITERS_ACT) {
            let writer = self.rng.index(self.writers.len());
            self.writer_acts(writer);
            return Ok(());
        }
        if self.clients[client].rests { Ok(()) } else { self.scene(client, Client::act) }
    }

    fn heal(&mut self) {
        self.healed = true;
        self.core.lock().weather = Weather::default();
        for client in 0..self.clients.len() {
            self.play(client, Client::heal);
        }
        for link in 0..self.links.len() {
            if self.links[link].stalled && !self.links[link].silent {
                self.unstall(link);
            }
        }
        self.bring_writers_back();
        self.queue.push(self.now_ms, Event::Lift);
        if self.is_over_redis() {
            self.queue.push(self.now_ms + REOPEN_MS, Event::Reopen);
        }
    }

    const fn heal_ms(&self) -> u64 {
        if self.is_over_redis() { HEAL_OVER_REDIS_MS } else { HEAL_MS }
    }

    fn check_connected(&self) -> Checked {
        for client in self.clients.iter().filter(|client| !client.rests) {
            let fail = |text: String| {
                Err(Violation::new("I13", format!("client {}: {text}", client.index)))
            };
            if !client.greeted || !client.machine.is_online() {
                return fail("is not connected".to_owned());
            }
            for (number, view) in client.views.iter().enumerate() {
                if let Some(doubted) = &view.doubted {
                    return Err(doubted.clone());
                }
                let expected = if view.wanted { Stage::On } else { Stage::Off };
                let phase = client.phase(number);
                if view.stage != expected || phase != view.wanted.then_some(RoomPhase::Joined) {
                    return fail(format!("{} is {:?}, {phase:?}", view.room, view.stage));
                }
            }
            if let Some(text) = client.unanswered() {
                return fail(text);
            }
            if let Some(sent) = client.sent.iter().find(|sent| !sent.done) {
                return fail(format!("{} was never acknowledged", sent.data));
            }
        }
        Ok(())
    }

    /// Somebody in each room says something, and changes how it is listed. Answers what was said.
    fn say_canaries(&mut self, class: Class) -> Result<Vec<(usize, String)>, Violation> {
        let mut canaries = Vec::new();
        for view in 0..self.clients[0].views.len() {
            let on = |client: &Client| client.views[view].stage == Stage::On;
            let Some(client) = self.clients.iter().position(on) else { continue };
            let mood = self.rng.bits() >> 20;
            self.scene(client, |client, scene| {
                canaries.push((view, client.say(view, class, false, scene)));
                client.settle(scene)
            })?;
            // One after the other: the smallest mailbox holds little.
            self.run_until(self.now_ms + CANARY_MS / 10)?;
            self.scene(client, |client, scene| {
                if client.views[view].listed {
                    client.update_presence(view, format!("{{\"canary\":{mood}}}"), scene);
                }
                client.settle(scene)
            })?;
            self.run_until(self.now_ms + CANARY_MS / 10)?;
        }
        Ok(canaries)
    }

    fn check_newest(&self, canaries: &[(usize, String)]) -> Checked {
        for (view, data) in canaries {
            for client in &self.clients {
                let own = client.sent.iter().any(|sent| sent.data == *data && !sent.echo);
                let (seen, handed) = (&client.views[*view], &client.handed[*view]);
                if seen.stage == Stage::On
                    && !own
                    && seen.wants(data)
                    && !handed.newest.values().any(|d| d == data)
                {
                    let text = format!("client {} never got {data}", client.index);
                    return Err(Violation::new("I13 (latest)", text));
                }
            }
        }
        Ok(())
    }

    fn check_histories(&self) -> Checked {
        self.check_connected()?;
        let core = self.core.lock();
        for client in &self.clients {
            let rooms = client.views.iter().zip(&client.handed);
            for (view, handed) in rooms.filter(|(view, _)| view.stage == Stage::On) {
                let truth = &core.rooms[&view.room];
                let top = Some((truth.life().epoch, truth.last()));
                let stands = client.machine.position(&view.room);
                let stands = stands.map(|at| (at.epoch, at.offset.get()));
                if view.filter.is_none() && (view.at != top || stands != top) {
                    let text = format!(
                        "client {} is in {} at {:?}, or {stands:?}, the log ends at {top:?}",
                        client.index, view.room, view.at
                    );
                    return Err(Violation::new("I1 (end)", text));
                }
                if view.filter.is_some() {
                    let end = (truth.life().epoch, truth.last());
                    view.clone_position().pass_over(end, truth, core.wall())?;
                    // An older message of a key may be the newest that it wants.
                    continue;
                }
                let silent: Vec<&str> =
                    client.sent.iter().filter(|s| !s.echo).map(|s| s.data.as_str()).collect();
                // Without a position, what did not fit can't be asked for.
                let excused = client.link.is_none_or(|link| {
                    let link = &self.links[link];
                    link.dropped || self.nodes[link.node].shards[link.shard].overflowed
                });
                if excused || self.rules.limits.held_bytes_max < HELD_BYTES_ENOUGH {
                    continue;
                }
                for (key, data) in &handed.newest {
                    let newest = truth.newest(key).map(|p| &p.publication);
                    // Who was away while it counted has missed nothing.
                    let newest = newest.filter(|p| !p.is_expired(core.wall()));
                    let newest = newest.and_then(|p| std::str::from_utf8(&p.data).ok());
                    if newest.is_some_and(|d| d != data && !silent.contains(&d)) {
                        let text = format!("client {}: {key} is {newest:?}", client.index);
                        return Err(Violation::new("I1 (latest)", format!("{text}, not {data}")));
                    }
                }
            }
            // What one connection published first stands first, unless it had to be sent again.
            let mut last = BTreeMap::new();
            let mut once: Vec<_> = client.sent.iter().filter(|sent| sent.tries == 1).collect();
            once.sort_unstable_by_key(|sent| sent.place);
            for sent in once {
                let Some((epoch, offset)) = sent.at else { continue };
                let before = last.insert((sent.link, sent.view, epoch), offset);
                if before.is_some_and(|before| before >= offset) {
                    let text = format!("client {}: {} came too early", client.index, sent.data);
                    return Err(Violation::new("I4", text));
                }
            }
        }
        Ok(())
    }

    /// Who is listed is who is there, and every follower knows it.
    fn check_presence(&mut self) -> Checked {
        for number in 0..self.clients[0].views.len() {
            let view = &self.clients[0].views[number];
            let room = &view.room;
            let mut truth = BTreeMap::<String, usize>::new();
            for client in self.clients.iter().filter(|c| c.views[number].stage == Stage::On) {
                let anonymous = client.link.map(|l| format!("anonymous:{}", self.links[l].id));
                let name = client.user.clone().or(anonymous).unwrap_or_default();
                *truth.entry(name).or_default() += 1;
            }
            if !view.listed {
                truth.clear();
            }
            let listed = self.listed(room);
            let names = listed.members.iter().map(|m| (m.who.to_string(), m.connections));
            let names: BTreeMap<_, _> = names.collect();
            if names != truth {
                return Err(Violation::new("I9", format!("{room} lists {names:?}, not {truth:?}")));
            }
            let members = self.rules.policies.of(room).map_or(0, |p| p.presence_named_max);
            let bytes = self.rules.limits.page_bytes_of_one();
            self.check_followers(number, &listed, NamesMax { members: members.into(), bytes })?;
        }
        Ok(())
    }

    fn check_followers(&mut self, number: usize, listed: &PresenceList, most: NamesMax) -> Checked {
        let data = |m: &domain::presence::PresentMember| {
            let data = if m.data.is_empty() { b"null" } else { &m.data[..] };
            (m.who.to_string(), String::from_utf8_lossy(data).into_owned())
        };
        let expected = listed.members.iter().map(data).collect();
        for client in &mut self.clients {
            let view = &client.views[number];
            if view.stage != Stage::On || !view.present.followed {
                continue;
            }
            let told = view.present.check(&expected, most);
            let handed = client.handed[number].check_crowd(&expected, most);
            for (invariant, checked) in [("I9", told), ("I23 (presence)", handed)] {
                checked.map_err(|text| {
                    let room = &client.views[number].room;
                    let text = format!("client {} knows of {room}: {text}", client.index);
                    Violation::new(invariant, text)
                })?;
            }
        }
        Ok(())
    }

    /// Who is listed, whoever keeps the list.
    fn listed(&self, room: &RoomId) -> PresenceList {
        let memory = self.nodes.iter().filter(|node| node.alive).find_map(|n| n.memory.as_ref());
        let Some(memory) = memory else {
            let core = self.core.lock();
            if core.redis.is_some() {
                return self.listed_in_redis(&core, room);
            }
            return core.presence.get(room).map(|p| p.list(1_000)).unwrap_or_default();
        };
        let mut list = pin!(Presence::list(memory.as_ref(), room, 1_000));
        match list.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(list)) => list,
            other => panic!("a list in memory is there at once, not {other:?}"),
        }
    }

    /// Everyone goes: some say so, some just close, some vanish.
    fn leave(&mut self) -> Checked {
        self.writers_leave();
        for client in 0..self.clients.len() {
            self.clients[client].leaving = true;
            let Some(link) = self.clients[client].link else { continue };
            if self.rng.percent(50) {
                self.scene(client, |client, scene| {
                    for view in 0..client.views.len() {
                        client.views[view].wanted = false;
                        if client.phase(view) == Some(RoomPhase::Joined) {
                            client.unsubscribe(view, scene);
                        }
                    }
                    client.settle(scene)
                })?;
            }
            if self.rng.percent(30) {
                self.links[link].silent = true;
            } else {
                self.send_up(link, Up::Closed);
            }
            self.part(client, Lost::broken("left"));
        }
        Ok(())
    }

    fn check_nothing_left(&self) -> Checked {
        let fail = |text: String| Err(Violation::new("I14", text));
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.alive) {
            for sim in &node.shards {
                let (connections, rooms) = (sim.shard.connections(), sim.shard.rooms());
                if (connections, rooms, sim.calls.len()) != (0, 0, 0) {
                    let calls = sim.calls.len();
                    return fail(format!(
                        "node {number}: {connections} connections, {rooms} rooms, {calls} calls"
                    ));
                }
            }
            for client in 0..self.clients.len() + self.writers.len() {
                let Some(user) = self.user_of(client) else { continue };
                let admitted = node.node.services().directory.connections_of(&user);
                if admitted > 0 {
                    return fail(format!("{user} has {admitted} connections"));
                }
            }
        }
        let core = self.core.lock();
        for (room, sim) in &core.rooms {
            if !sim.subscribers.is_empty() {
                return fail(format!("{room} has {} subscriptions", sim.subscribers.len()));
            }
        }
        let leases = core.leases.len();
        if let Some(text) = core.redis.as_ref().and_then(OneRedis::left) {
            return fail(text);
        }
        drop(core);
        let present: usize =
            self.clients[0].views.iter().map(|view| self.listed(&view.room).members.len()).sum();
        if leases + present == 0 {
            return Ok(());
        }
        fail(format!("{leases} leases and {present} members are left in presence"))
    }
}
