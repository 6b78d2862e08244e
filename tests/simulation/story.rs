//! The story of one seed: users act while faults fire; then everything heals, everyone gets a
//! canary, and everyone goes. What must hold at the end of each part is checked here.
//!
//! Healing stops new faults only. What they broke has to be mended by the application.

use std::time::Duration;

use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::id::{Epoch, UserId};

use crate::checker::{Checked, Stage, Violation};
use crate::faults::{Counts, Effect, Fault};
use crate::hearing::DROPS;
use crate::links::Up;
use crate::ports::Weather;
use crate::world::{Event, World};

/// How long after its death a node's leases run out.
const LEASE_MS: u64 = 5_000;
/// The most time that the acts and faults of a seed take.
const STORY_MS: u64 = 60_000;
/// Longer than any heartbeat, lease, retry or look at positions.
const HEAL_MS: u64 = 22_000;
/// Enough for a message to reach everyone when all is well.
const CANARY_MS: u64 = 1_500;

/// What came of one seed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) counts: Counts,
    pub(crate) hash: u64,
    pub(crate) violation: Option<Violation>,
}

/// Runs one seed to its end, or to the first violation.
pub(crate) fn run(seed: u64, trace: bool) -> Report {
    let mut world = World::new(seed, trace);
    let violation = world.tell().err();
    let counts = world.core.lock().counts.clone();
    Report { counts, hash: world.hash(), violation }
}

impl World {
    fn tell(&mut self) -> Checked {
        let mut end = 0;
        while (self.acts_left > 0 || self.faults_left > 0) && end < STORY_MS {
            end += 500;
            self.run_until(end)?;
        }
        self.heal();
        self.run_until(end + HEAL_MS)?;
        self.check_connected()?;
        let canaries = self.say_canaries(Class::Latest)?;
        self.run_until(end + HEAL_MS + CANARY_MS)?;
        self.check_newest(&canaries)?;
        self.say_canaries(Class::Reliable)?;
        self.run_until(end + HEAL_MS + 2 * CANARY_MS)?;
        self.check_histories()?;
        self.check_presence()?;
        self.leave()?;
        self.run_until(end + 2 * HEAL_MS)?;
        self.check_nothing_left()
    }

    pub(crate) fn act(&mut self) -> Checked {
        if self.acts_left == 0 || self.healed {
            return Ok(());
        }
        self.acts_left -= 1;
        let next = self.now_ms + self.rng.between(5, 180);
        self.queue.push(next, Event::Act);
        let client = self.rng.index(self.clients.len());
        self.scene(client, |client, scene| {
            if client.greeted {
                client.act(scene);
            }
            Ok(())
        })
    }

    /// One fault, or some bad weather.
    pub(crate) fn fault(&mut self) {
        if self.faults_left == 0 || self.healed {
            return;
        }
        self.faults_left -= 1;
        let next = self.now_ms + self.rng.between(100, 2_200);
        self.queue.push(next, Event::Fault);
        if self.rng.percent(45) {
            self.change_weather();
        }
        let client = self.rng.index(self.clients.len());
        let node = self.rng.index(self.nodes.len());
        let done = match self.rng.below(100) {
            0..35 => self.drop_client(client),
            35..50 => self.slow_reader(client),
            50..60 => self.stall_shard(node),
            60..70 => self.kill(node),
            70..77 => self.drain(node),
            77..84 => self.end_by_order(client),
            _ => false,
        };
        if !done {
            self.lose_log();
        }
    }

    fn count(&self, fault: Fault) {
        self.core.lock().counts.fault(fault);
    }

    fn change_weather(&mut self) {
        let mut weather = Weather::default();
        let chance = self.rng.between(10, 80);
        for _ in 0..self.rng.between(1, 3) {
            *match self.rng.below(11) {
                0 => &mut weather.lose_notifications,
                1 => &mut weather.double_notifications,
                2 => &mut weather.delay_notifications,
                3 => &mut weather.refuse_publishes,
                4 => &mut weather.lose_publish_replies,
                5 => &mut weather.refuse_subscriptions,
                6 => &mut weather.slow_reads,
                7 => &mut weather.refuse_reads,
                8 => &mut weather.refuse_presence,
                9 => &mut weather.lose_presence_replies,
                _ => &mut weather.slow_presence,
            } = chance;
        }
        self.core.lock().weather = weather;
        let calm = self.now_ms + self.rng.between(200, 3_000);
        self.queue.push(calm, Event::Calm);
    }

    fn lose_log(&mut self) {
        let mut core = self.core.lock();
        let which = self.rng.index(core.rooms.len());
        let epoch = Epoch::from_bits(core.rng.bits());
        if let Some(room) = core.rooms.values_mut().nth(which) {
            room.lose_log(epoch);
        }
        core.counts.fault(Fault::EpochChanged);
    }

    /// A client loses its connection, in one of the ways there are.
    fn drop_client(&mut self, client: usize) -> bool {
        let Some(link) = self.clients[client].link else { return false };
        let how = *self.rng.pick(&DROPS);
        self.count(how);
        match how {
            Fault::ClientClosed => self.send_up(link, Up::Closed),
            Fault::LinkSilent => {
                // Neither side is told; the client finds out by its own watch.
                self.links[link].silent = true;
                self.links[link].stalled = true;
                return true;
            }
            _ => {
                // What the client has sent last is lost, the node sees the end.
                self.links[link].unread.clear();
                let at = self.now_ms + self.rng.between(0, 300);
                self.queue.push(at, Event::Up { link, up: Up::Closed });
            }
        }
        self.part(client);
        true
    }

    fn slow_reader(&mut self, client: usize) -> bool {
        let Some(link) = self.clients[client].link else { return false };
        if self.links[link].stalled {
            return false;
        }
        self.links[link].stalled = true;
        self.count(Fault::ReaderSlow);
        let at = self.now_ms + self.rng.between(200, 6_000);
        self.queue.push(at, Event::Unstall { link });
        true
    }

    fn stall_shard(&mut self, node: usize) -> bool {
        if !self.nodes[node].alive {
            return false;
        }
        let until = self.now_ms + self.rng.between(50, 1_500);
        let shard = self.rng.index(self.nodes[node].shards.len());
        self.nodes[node].shards[shard].stalled_until_ms = until;
        self.count(Fault::ShardStalled);
        true
    }

    fn kill(&mut self, node: usize) -> bool {
        if !self.nodes[node].alive {
            return false;
        }
        self.count(Fault::NodeKilled);
        self.bury(node);
        let at = self.now_ms + self.rng.between(50, 2_500);
        self.queue.push(at, Event::Restart { kill: None });
        self.queue.push(self.now_ms + LEASE_MS, Event::LeaseEnd { node });
        true
    }

    /// The node is gone with all it knew.
    fn bury(&mut self, node: usize) {
        self.nodes[node].alive = false;
        let mut core = self.core.lock();
        for shard in &mut self.nodes[node].shards {
            for room in core.rooms.values_mut() {
                room.subscribers.remove(&shard.mailbox.id());
            }
            self.mailboxes.remove(&shard.mailbox.id());
            if !shard.calls.is_empty() {
                core.counts.effect(Effect::CallDropped);
            }
        }
        drop(core);
        for shard in &mut self.nodes[node].shards {
            shard.calls.clear();
        }
        for link in 0..self.links.len() {
            if self.links[link].node == node && self.links[link].client_open {
                self.links[link].server_open = false;
                let client = self.links[link].client;
                if self.links[link].silent || self.rng.percent(20) {
                    self.links[link].silent = true;
                } else {
                    self.part(client);
                }
            }
        }
    }

    fn drain(&mut self, node: usize) -> bool {
        if !self.nodes[node].alive || self.nodes[node].draining {
            return false;
        }
        self.count(Fault::NodeDrained);
        self.nodes[node].draining = true;
        let window = self.rng.between(100, 2_000);
        self.nodes[node].node.drain(Duration::from_millis(window));
        self.ordered(node);
        let at = self.now_ms + window + 6_000;
        self.queue.push(at, Event::Restart { kill: Some(node) });
        true
    }

    fn end_by_order(&mut self, client: usize) -> bool {
        let Some(link) = self.clients[client].link else { return false };
        let node = self.links[link].node;
        let user = self.clients[client].user.clone().and_then(|user| UserId::parse(&user).ok());
        match user {
            Some(user) if self.rng.percent(50) => {
                self.count(Fault::UserEnded);
                self.nodes[node].node.disconnect_user(&user, CloseCode::TryAgainLater);
            }
            _ => {
                self.count(Fault::ConnectionEnded);
                self.nodes[node].node.disconnect(self.links[link].id, CloseCode::TryAgainLater);
            }
        }
        self.ordered(node);
        true
    }

    pub(crate) fn restart(&mut self, kill: Option<usize>) {
        if let Some(node) = kill.filter(|node| self.nodes[*node].alive) {
            // It was drained: what is left of it must be nothing, but it is checked at the end.
            self.bury(node);
            self.queue.push(self.now_ms + LEASE_MS, Event::LeaseEnd { node });
        }
        self.start_node();
    }

    pub(crate) fn end_lease(&self, node: usize) {
        let mut core = self.core.lock();
        if core.end_leases(node) > 0 {
            core.counts.effect(Effect::LeaseEnded);
        }
    }

    fn heal(&mut self) {
        self.healed = true;
        self.core.lock().weather = Weather::default();
        for link in 0..self.links.len() {
            if self.links[link].stalled && !self.links[link].silent {
                self.unstall(link);
            }
        }
    }

    fn check_connected(&self) -> Checked {
        for client in &self.clients {
            let fail = |text: String| {
                Err(Violation::new("I13", format!("client {}: {text}", client.index)))
            };
            if !client.greeted {
                return fail("is not connected".to_owned());
            }
            for view in &client.views {
                let expected = if view.wanted { Stage::On } else { Stage::Off };
                if view.stage != expected {
                    return fail(format!("{} is {:?}", view.room, view.stage));
                }
            }
            if let Some((id, asked)) = client.asked.first_key_value() {
                return fail(format!("command {id} has no answer: {asked:?}"));
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
            let on = |client: &crate::client::Client| client.views[view].stage == Stage::On;
            let Some(client) = self.clients.iter().position(on) else { continue };
            let mood = self.rng.bits() >> 20;
            self.scene(client, |client, scene| {
                canaries.push((view, client.say(view, class, scene)));
                let data = format!("{{\"canary\":{mood}}}");
                if client.views[view].listed {
                    client.update_presence(view, &data, scene);
                }
                Ok(())
            })?;
        }
        Ok(canaries)
    }

    fn check_newest(&self, canaries: &[(usize, String)]) -> Checked {
        for (view, data) in canaries {
            for client in &self.clients {
                let own = client.sent.iter().any(|sent| sent.data == *data && !sent.echo);
                let seen = &client.views[*view];
                if seen.stage == Stage::On && !own && !seen.newest.values().any(|d| d == data) {
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
            for view in client.views.iter().filter(|view| view.stage == Stage::On) {
                let truth = &core.rooms[&view.room];
                let top = Some((truth.life().epoch, truth.last()));
                if view.at != top {
                    let text = format!(
                        "client {} is in {} at {:?}, the log ends at {top:?}",
                        client.index, view.room, view.at
                    );
                    return Err(Violation::new("I1 (end)", text));
                }
                let silent: Vec<&str> =
                    client.sent.iter().filter(|s| !s.echo).map(|s| s.data.as_str()).collect();
                for (key, data) in &view.newest {
                    let newest = truth.newest(key).map(|p| &p.publication.data);
                    let newest = newest.and_then(|d| std::str::from_utf8(d).ok());
                    if newest.is_some_and(|d| d != data && !silent.contains(&d)) {
                        let text = format!("client {}: {key} is {newest:?}", client.index);
                        return Err(Violation::new("I1 (latest)", format!("{text}, not {data}")));
                    }
                }
            }
            // What one connection published first stands first, unless it had to be sent again.
            let mut last = std::collections::BTreeMap::new();
            for sent in client.sent.iter().filter(|sent| sent.tries == 1) {
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
    fn check_presence(&self) -> Checked {
        let core = self.core.lock();
        for (number, view) in self.clients[0].views.iter().enumerate() {
            let room = &view.room;
            let mut truth = std::collections::BTreeMap::<String, usize>::new();
            let inside = self.clients.iter().filter(|c| c.views[number].stage == Stage::On);
            for client in inside.clone() {
                let anonymous = client.link.map(|l| format!("anonymous:{}", self.links[l].id));
                let name = client.user.clone().or(anonymous).unwrap_or_default();
                *truth.entry(name).or_default() += 1;
            }
            if !view.listed {
                truth.clear();
            }
            let listed = core.presence.get(room).map(|p| p.list(1_000)).unwrap_or_default();
            let names = listed.members.iter().map(|m| (m.who.to_string(), m.connections));
            if !names.clone().eq(truth.clone()) {
                let names: Vec<_> = names.collect();
                return Err(Violation::new("I9", format!("{room} lists {names:?}, not {truth:?}")));
            }
            for client in inside.filter(|c| c.views[number].present.followed) {
                let told = &client.views[number].present;
                let data = |m: &domain::presence::PresentMember| {
                    let data = if m.data.is_empty() { b"null" } else { &m.data[..] };
                    (m.who.to_string(), String::from_utf8_lossy(data).into_owned())
                };
                let expected: std::collections::BTreeMap<_, _> =
                    listed.members.iter().map(data).collect();
                if told.members.as_ref() != Some(&expected) {
                    let text = format!("client {} believes {:?}", client.index, told.members);
                    return Err(Violation::new("I9", format!("{text} in {room}, not {expected:?}")));
                }
            }
        }
        Ok(())
    }

    /// Everyone goes: some say so, some just close, some vanish.
    fn leave(&mut self) -> Checked {
        for client in 0..self.clients.len() {
            self.clients[client].leaving = true;
            let Some(link) = self.clients[client].link else { continue };
            if self.rng.percent(50) {
                self.scene(client, |client, scene| {
                    for view in 0..client.views.len() {
                        client.views[view].wanted = false;
                        if client.views[view].stage == Stage::On {
                            client.unsubscribe(view, scene);
                        }
                    }
                    Ok(())
                })?;
            }
            if self.rng.percent(30) {
                self.links[link].silent = true;
            } else {
                self.send_up(link, Up::Closed);
            }
            self.part(client);
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
            for client in &self.clients {
                let Some(Ok(user)) = client.user.as_deref().map(UserId::parse) else { continue };
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
        if core.leases.is_empty() {
            return Ok(());
        }
        fail(format!("{} entries are left in presence", core.leases.len()))
    }
}
