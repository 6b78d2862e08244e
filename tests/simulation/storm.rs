//! The faults of a seed as they are done: to clients, links, shards, nodes and the broker.
//!
//! A fault only breaks; it must never mend what it broke. What it is called stands in `faults`.

use std::time::Duration;

use domain::client::life::Lost;
use domain::codes::CloseCode;
use domain::id::Epoch;

use crate::checker::Checked;
use crate::faults::{Effect, FAULTS_MIN, Fault};
use crate::hearing::DROPS;
use crate::links::Up;
use crate::ports::Weather;
use crate::ways::GRACE_MS;
use crate::world::{Event, World};

/// How many of a hundred faults are those of Redis, where it has some.
const REDIS_TROUBLES: u64 = 40;
/// How long after its death a node's leases run out.
const LEASE_MS: u64 = 5_000;

impl World {
    /// One fault, or some bad weather.
    pub(crate) fn fault(&mut self) {
        if self.faults_left == 0 || self.healed {
            return;
        }
        // Weather often passes without harm: the last storm lasts until enough has gone wrong.
        if self.faults_left > 1 || self.core.lock().counts.faults_fired() >= FAULTS_MIN {
            self.faults_left -= 1;
        }
        let next = self.now_ms + self.rng.between(100, 2_200);
        self.queue.push(next, Event::Fault);
        if self.rng.percent(45) {
            self.change_weather();
        }
        let client = self.rng.index(self.clients.len() + self.writers.len());
        let alone = self.disk.is_some();
        // One process at a time: the others are dead.
        let node = if alone { self.nodes.len() - 1 } else { self.rng.index(self.nodes.len()) };
        let troubles = self.core.lock().has_troubles();
        if troubles && self.rng.percent(REDIS_TROUBLES) && self.trouble_redis(node) {
            return;
        }
        let done = match self.rng.below(100) {
            0..35 => self.drop_client(client),
            35..50 => self.slow_reader(client),
            50..60 => self.stall_shard(node),
            60..70 => self.kill(node),
            70..77 => self.drain(node),
            77..84 => self.end_by_order(client),
            _ => alone && self.kill(node),
        };
        match done {
            true => {}
            // What is in memory is lost by kills, and what is on the disk never.
            false if alone => self.change_weather(),
            false => self.lose_log(),
        }
    }

    fn count(&self, fault: Fault) {
        self.core.lock().counts.fault(fault);
    }

    fn change_weather(&mut self) {
        let mut weather = Weather::default();
        let chance = self.rng.between(10, 80);
        for _ in 0..self.rng.between(1, 3) {
            let which =
                if self.disk.is_some() { self.rng.between(11, 21) } else { self.rng.below(11) };
            *match which {
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
                10 => &mut weather.slow_presence,
                11 => &mut weather.slow_appends,
                12 => &mut weather.refuse_appends,
                13 => &mut weather.lose_append_answers,
                14 => &mut weather.slow_disk,
                15 => &mut weather.refuse_disk,
                16 => &mut weather.slow_inbox,
                17 => &mut weather.refuse_inbox,
                18 => &mut weather.lose_inbox_answers,
                19 => &mut weather.slow_moderation,
                20 => &mut weather.refuse_moderation,
                _ => &mut weather.lose_moderation_answers,
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
        let Some(link) = self.link_of(client) else { return false };
        let how = *self.rng.pick(&DROPS);
        self.count(how);
        match how {
            Fault::ClientClosed => self.send_up(link, Up::Closed),
            Fault::LinkSilent => {
                // Neither side is told; the client finds out by the silence.
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
        self.part(client, Lost::broken("cut"));
        true
    }

    fn slow_reader(&mut self, client: usize) -> bool {
        let Some(link) = self.link_of(client) else { return false };
        if self.links[link].stalled {
            return false;
        }
        self.links[link].stalled = true;
        self.links[link].was_stalled = true;
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
        self.close_way(node);
        let mut core = self.core.lock();
        core.docket.forget_waiting();
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
        self.nodes[node].tasks.clear();
        for link in 0..self.links.len() {
            if self.links[link].node == node && self.links[link].client_open {
                self.links[link].server_open = false;
                let client = self.links[link].client;
                if self.links[link].is_thief {
                    self.links[link].client_open = false;
                } else if self.links[link].silent || self.rng.percent(20) {
                    self.links[link].silent = true;
                } else {
                    self.part(client, Lost::broken("the node is gone"));
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
        self.nodes[node].drained_ms = self.now_ms;
        let window = self.rng.between(100, 2_000);
        self.nodes[node].node.drain(Duration::from_millis(window));
        self.ordered(node);
        if self.is_over_redis() {
            // As long as others may come back, and the host's own delays.
            self.queue.push(self.now_ms + window + GRACE_MS + 2_000, Event::Finish { node });
        }
        let at = self.now_ms + window + 6_000;
        self.queue.push(at, Event::Restart { kill: Some(node) });
        true
    }

    fn end_by_order(&mut self, client: usize) -> bool {
        let Some(link) = self.link_of(client) else { return false };
        let node = self.links[link].node;
        match self.user_of(client) {
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

    pub(crate) fn restart(&mut self, kill: Option<usize>) -> Checked {
        if let Some(node) = kill.filter(|node| self.nodes[*node].alive) {
            self.check_drained(node)?;
            self.bury(node);
            self.queue.push(self.now_ms + LEASE_MS, Event::LeaseEnd { node });
        }
        // A disk has one process at a time.
        if self.disk.is_none() || self.nodes.iter().all(|node| !node.alive) {
            self.start_node();
        }
        Ok(())
    }

    pub(crate) fn end_lease(&self, node: usize) {
        let mut core = self.core.lock();
        if core.end_leases(node) > 0 {
            core.counts.effect(Effect::LeaseEnded);
        }
    }
}
