//! Nodes as the simulation hosts them: shards that get their inputs from a queue of virtual
//! moments, and cold calls that are polled by hand.
//!
//! A killed node is dropped where it stands; a restart is another node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use application::limits::Limits;
use application::mailbox::{Mail, Mailbox, Post};
use application::node::Node;
use application::services::{Ports, Rules};
use application::shard::{ColdCall, Completion, Input, Shard, Slot};
use broker_memory::MemoryRevocations;
use domain::connection::Timing;
use domain::delivery::Class;
use domain::policy::{Access, NamespacePolicy, Policies};
use domain::retention::Retention;
use domain::time::{Monotonic, Now};

use crate::broker::SimBroker;
use crate::faults::Effect;
use crate::hearing::effect_of;
use crate::links::{SimOutbox, Wires};
use crate::ports::{Shared, SimClock, SimEntropy, SimPresence, SimTickets, SimVerifier};
use crate::rng::Rng;
use crate::world::{Event, World};

pub(crate) struct SimShard {
    pub(crate) shard: Shard,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) by_slot: BTreeMap<Slot, usize>,
    pub(crate) calls: BTreeMap<u64, ColdCall>,
    pub(crate) stalled_until_ms: u64,
    /// When it works next; what was planned for another moment is void.
    work_ms: Option<u64>,
    /// How much mail waits.
    n_mail: usize,
    /// How often mail did not fit.
    pub(crate) overflowed: bool,
}

pub(crate) struct SimNode {
    pub(crate) node: Node,
    pub(crate) shards: Vec<SimShard>,
    pub(crate) alive: bool,
    pub(crate) draining: bool,
}

/// The namespaces: what their logs keep, and whether members are listed.
pub(crate) const NAMESPACES: [(&str, u32, bool); 4] =
    [("chat", 200, true), ("short", 6, true), ("none", 0, true), ("quiet", 40, false)];

/// Rules that differ from seed to seed; all limits are small, so that they are met.
pub(crate) fn draw_rules(rng: &mut Rng, lossy: bool) -> Rules {
    let mut policies = Policies::default();
    for (namespace, messages_max, presence_listed) in NAMESPACES {
        let policy = NamespacePolicy {
            subscribe: Access::Anyone,
            publish: Access::Anyone,
            presence: Access::Anyone,
            history: Access::Anyone,
            presence_listed,
            retention: Retention { messages_max, ..Retention::default() },
            default_class: Class::Reliable,
            durable: false,
            members_max: 1_000,
        };
        policies.set_namespace(namespace, policy);
    }
    let limits = Limits {
        outbound_queue_bytes_max: *rng.pick(&[1_500, 6_000, 60_000]),
        inbox_messages_max: *rng.pick(&[3, 64]),
        held_bytes_max: *rng.pick(&[700, 2_500, 100_000]),
        page_messages_max: *rng.pick(&[2, 5, 100]),
        page_bytes_max: *rng.pick(&[300, 5_000]),
        connections_per_user_max: 1_000,
        mailbox_publications_max: *rng.pick(&[3, 12, 1_000]),
        joined_bytes_max: *rng.pick(&[400, 4_000]),
        position_check: lossy.then(|| Duration::from_millis(2_500)),
        ..Limits::default()
    };
    let timing = Timing {
        authentication_timeout: Duration::from_secs(3),
        heartbeat_interval: Duration::from_secs(4),
        heartbeat_timeout: Duration::from_secs(8),
        expiry_notice: Duration::from_secs(4),
        expiry_leeway: Duration::from_secs(1),
    };
    Rules { policies, limits, timing, allow_anonymous: true, ..Rules::default() }
}

impl SimNode {
    pub(crate) fn start(core: &Shared, rules: &Rules, number: usize, rng: &mut Rng) -> Self {
        let ports = Ports {
            broker: Arc::new(SimBroker(core.clone())),
            presence: Arc::new(SimPresence { core: core.clone(), node: number }),
            token_verifier: Arc::new(SimVerifier(core.clone())),
            session_tickets: Arc::new(SimTickets::new(core.clone())),
            authorizer: None,
            revocations: Arc::new(MemoryRevocations::new(Duration::from_secs(86_400))),
            clock: Arc::new(SimClock(core.clone())),
            entropy: Arc::new(SimEntropy(core.clone())),
        };
        let n_shards = 1 + rng.index(2);
        let node = Node::build(ports, rules.clone(), n_shards);
        let mailboxes = node.mailboxes();
        let shards = mailboxes.iter().map(|mailbox| {
            let mut shard = Node::shard(&node.services(), mailbox);
            if rng.percent(50) {
                shard.set_deliveries_per_step(2);
            }
            SimShard {
                shard,
                mailbox: Arc::clone(mailbox),
                by_slot: BTreeMap::new(),
                calls: BTreeMap::new(),
                stalled_until_ms: 0,
                work_ms: None,
                n_mail: 0,
                overflowed: false,
            }
        });
        let shards = shards.collect();
        Self { node, shards, alive: true, draining: false }
    }
}

impl World {
    fn now(&self) -> Now {
        let core = self.core.lock();
        Now { monotonic: Monotonic::from_millis(core.now_ms), wall: core.wall() }
    }

    /// Gives a shard one input, and puts what came of it on its way.
    pub(crate) fn input(&mut self, node: usize, shard: usize, input: Input<'_>) {
        let now = self.now();
        let Some(host) = self.nodes.get_mut(node).filter(|node| node.alive) else { return };
        let sim = &mut host.shards[shard];
        let mut closed = Vec::new();
        let (mut resumed, mut paused, mut dropped) = (Vec::new(), 0, 0);
        let mut outbox = SimOutbox {
            links: &mut self.links,
            by_slot: &mut sim.by_slot,
            wires: Wires { now_ms: self.now_ms, rng: &mut self.rng, sent: &mut self.wires },
            queue_bytes_max: self.rules.limits.outbound_queue_bytes_max,
            resumed: &mut resumed,
            paused: &mut paused,
            dropped: &mut dropped,
            closed: &mut closed,
            violation: &mut self.violation,
        };
        sim.shard.handle(input, now, &mut outbox);
        for (effect, times) in [(Effect::ReadingPaused, paused), (Effect::QueueDropped, dropped)] {
            for _ in 0..times {
                self.core.lock().counts.effect(effect);
            }
        }
        for effect in closed.into_iter().filter_map(effect_of) {
            self.core.lock().counts.effect(effect);
        }
        while let Some(call) = sim.shard.poll_call() {
            self.next_call += 1;
            sim.calls.insert(self.next_call, call);
            let at = self.now_ms + self.rng.below(3);
            let number = self.next_call;
            self.queue.push(at, Event::Poll { node, shard, call: number });
        }
        for (at, link, down) in self.wires.drain(..) {
            self.queue.push(at, Event::Down { link, down });
        }
        for link in resumed {
            self.queue.push(self.now_ms, Event::Resume { link });
        }
        self.plan_work(node, shard);
    }

    /// Makes sure that a shard gets a turn when it has something to do.
    fn plan_work(&mut self, node: usize, shard: usize) {
        let sim = &mut self.nodes[node].shards[shard];
        let at = if sim.shard.has_backlog() || sim.n_mail > 0 {
            Some(self.now_ms + self.rng.below(3))
        } else {
            sim.shard.next_deadline().map(|at| at.as_millis().max(self.now_ms))
        };
        let Some(at) = at.map(|at| at.max(sim.stalled_until_ms)) else { return };
        if sim.work_ms.is_none_or(|planned| planned > at) {
            sim.work_ms = Some(at);
            self.queue.push(at, Event::Work { node, shard });
        }
    }

    /// A shard's turn: what waits is sent before more mail is taken.
    pub(crate) fn work(&mut self, node: usize, shard: usize) {
        let now_ms = self.now_ms;
        let Some(host) = self.nodes.get_mut(node).filter(|node| node.alive) else { return };
        let sim = &mut host.shards[shard];
        if sim.work_ms != Some(now_ms) {
            return;
        }
        sim.work_ms = None;
        if sim.stalled_until_ms > now_ms {
            return self.plan_work(node, shard);
        }
        for control in sim.mailbox.take_orders() {
            self.input(node, shard, Input::Order(control));
        }
        let sim = &mut self.nodes[node].shards[shard];
        if sim.shard.has_backlog() {
            self.input(node, shard, Input::Continue);
        } else if sim.n_mail > 0 {
            let mut post = Post::default();
            sim.mailbox.take(&mut post);
            sim.n_mail = 0;
            self.input(node, shard, Input::Mail(&mut post));
        }
        let due = self.nodes[node].shards[shard].shard.next_deadline();
        if due.is_some_and(|at| at.as_millis() <= now_ms) {
            self.input(node, shard, Input::Tick);
        }
        self.plan_work(node, shard);
    }

    /// Mail arrives, unless the node is gone.
    pub(crate) fn mail(&mut self, mailbox: u64, mail: Mail) {
        let Some((node, shard)) = self.mailboxes.get(&mailbox).copied() else { return };
        if self.core.lock().is_left_over(mailbox, &mail) {
            return;
        }
        let sim = &mut self.nodes[node].shards[shard];
        if sim.n_mail >= self.rules.limits.mailbox_publications_max {
            sim.overflowed = true;
            self.core.lock().counts.effect(Effect::MailboxFull);
        }
        sim.n_mail += 1;
        sim.mailbox.put(mail);
        self.plan_work(node, shard);
    }

    /// Orders wait in mailboxes like mail.
    pub(crate) fn ordered(&mut self, node: usize) {
        for shard in 0..self.nodes[node].shards.len() {
            let at = self.now_ms.max(self.nodes[node].shards[shard].stalled_until_ms);
            let sim = &mut self.nodes[node].shards[shard];
            if sim.work_ms.is_none_or(|planned| planned > at) {
                sim.work_ms = Some(at);
                self.queue.push(at, Event::Work { node, shard });
            }
        }
    }

    pub(crate) fn poll(&mut self, node: usize, shard: usize, number: u64) {
        let Some(host) = self.nodes.get_mut(node).filter(|node| node.alive) else { return };
        let sim = &mut host.shards[shard];
        let Some(call) = sim.calls.get_mut(&number) else { return };
        self.core.lock().wake_ms = None;
        match call.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                let wake = self.core.lock().wake_ms.unwrap_or(self.now_ms + 1);
                self.queue.push(wake, Event::Poll { node, shard, call: number });
            }
            Poll::Ready(outcome) => {
                // Its end waits for the shard like everything else.
                let Some(call) = sim.calls.remove(&number) else { return };
                let completion = Completion { tag: call.tag, outcome };
                if sim.stalled_until_ms > self.now_ms {
                    let at = sim.stalled_until_ms;
                    self.queue.push(at, Event::Completed { node, shard, completion });
                } else {
                    self.input(node, shard, Input::Completed(completion));
                }
            }
        }
    }
}
