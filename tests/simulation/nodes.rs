//! Nodes as the simulation hosts them: shards that get their inputs from a queue of virtual
//! moments, and cold calls that are polled by hand.
//!
//! A killed node is dropped where it stands; a restart is another node.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use application::built_in::BuiltIn;
use application::limits::Limits;
use application::mailbox::{Mailbox, Post};
use application::node::Node;
use application::ports::{Broker, LetterLimits, NoSpentTokens, Presence};
use application::services::{Ports, Rules};
use application::shard::{ColdCall, Completion, Input, Shard, Slot};
use broker_memory::{MemoryBroker, MemoryRevocations};
use domain::connection::Timing;
use domain::delivery::Class;
use domain::drain::DrainMode;
use domain::policy::{Access, NamespacePolicy, Policies};
use domain::retention::Retention;
use domain::time::{Monotonic, Now};

use crate::broker::{Outgoing, SimBroker};
use crate::disk::Disk;
use crate::drains::Parting;
use crate::faults::Effect;
use crate::hearing::effect_of;
use crate::links::{SimOutbox, Wires};
use crate::ports::{
    Shared, SimClock, SimEntropy, SimPresence, SimTickets, SimVerifier, Woken, waker,
};
use crate::rng::Rng;
use crate::sanctions::SimModeration;
use crate::truth::OverRedis;
use crate::witness::Witness;
use crate::world::{Event, World};

pub(crate) struct SimShard {
    pub(crate) shard: Shard,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) by_slot: BTreeMap<Slot, usize>,
    pub(crate) calls: BTreeMap<u64, (ColdCall, Waker)>,
    pub(crate) stalled_until_ms: u64,
    /// When it has done what it was ordered last.
    pub(crate) obeyed_ms: u64,
    /// When it works next; what was planned for another moment is void.
    work_ms: Option<u64>,
    /// How much mail waits.
    n_mail: usize,
    /// How often mail did not fit.
    pub(crate) overflowed: bool,
    /// How those part that were there when a drain began.
    pub(crate) parting: Option<Parting>,
}

/// Something that runs beside the shards.
pub(crate) struct Task {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    waker: Waker,
}

pub(crate) struct SimNode {
    pub(crate) node: Node,
    pub(crate) shards: Vec<SimShard>,
    /// The process's own broker; none where all nodes share the simulated one.
    pub(crate) memory: Option<Arc<MemoryBroker>>,
    /// Its committer and its sweeps.
    pub(crate) tasks: BTreeMap<u64, Task>,
    /// What it has in a seed over Redis.
    pub(crate) over_redis: Option<OverRedis>,
    pub(crate) alive: bool,
    pub(crate) draining: bool,
    /// When its drain was ordered.
    pub(crate) drained_ms: u64,
}

/// One namespace.
pub(crate) struct Namespace {
    pub(crate) name: &'static str,
    /// What a log keeps.
    pub(crate) messages_max: u32,
    presence_listed: bool,
    durable: bool,
}

const fn namespace(name: &'static str, messages_max: u32) -> Namespace {
    Namespace { name, messages_max, presence_listed: true, durable: false }
}

/// The namespaces. Those behind [`KEPT_FROM`] have an archive: only where there is a disk.
pub(crate) const NAMESPACES: [Namespace; 7] = [
    namespace("chat", 200),
    namespace("short", 6),
    namespace("none", 0),
    Namespace { presence_listed: false, ..namespace("quiet", 40) },
    Namespace { durable: true, ..namespace("kept", 200) },
    Namespace { durable: true, ..namespace("kept-short", 6) },
    Namespace { durable: true, ..namespace("kept-none", 0) },
];
pub(crate) const KEPT_FROM: usize = 4;

/// How often a host lets its broker sweep.
const SWEEP_MS: u64 = 1_000;

/// Rules that differ from seed to seed; all limits are small, so that they are met.
///
/// Where one process runs alone, it keeps letters, and everybody is in a room of its own.
pub(crate) fn draw_rules(rng: &mut Rng, lossy: bool, alone: bool) -> Rules {
    let mut policies = Policies::default();
    let own_rooms = alone.then_some(namespace("user", 0));
    for Namespace { name, messages_max, presence_listed, durable } in
        NAMESPACES.into_iter().chain(own_rooms)
    {
        let policy = NamespacePolicy {
            presence_named_max: *rng.pick(&[2, 3, 1_000, 1_000, 1_000, 1_000]),
            replicated: false,
            subscribe: Access::Anyone,
            publish: Access::Anyone,
            presence: Access::Anyone,
            history: Access::Anyone,
            presence_listed,
            retention: Retention { messages_max, ..Retention::default() },
            default_class: Class::Reliable,
            durable,
            members_max: 1_000,
            patterns: false,
        };
        policies.set_namespace(name, policy);
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
        letters: LetterLimits {
            of_user: *rng.pick(&[3, 1_000, 1_000]),
            of_sender: *rng.pick(&[5, 1_000, 1_000]),
            ..Limits::default().letters
        },
        ..Limits::default()
    };
    let timing = Timing {
        authentication_timeout: Duration::from_secs(3),
        heartbeat_interval: Duration::from_secs(4),
        heartbeat_timeout: Duration::from_secs(8),
        expiry_notice: Duration::from_secs(4),
        expiry_leeway: Duration::from_secs(1),
        idle_timeout: None,
    };
    let mut rules = Rules {
        policies,
        limits,
        timing,
        channel_timing: timing,
        allow_anonymous: true,
        join_user_room: alone,
        drain_mode: if alone || lossy { DrainMode::Early } else { DrainMode::Paced },
        ..Rules::default()
    };
    if alone {
        BuiltIn::default().register(&mut rules.handlers).expect("nobody else has handlers here");
    }
    rules
}

fn start_shards(node: &Node, rng: &mut Rng) -> Vec<SimShard> {
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
            obeyed_ms: 0,
            work_ms: None,
            n_mail: 0,
            overflowed: false,
            parting: None,
        }
    });
    shards.collect()
}

impl SimNode {
    pub(crate) fn start(
        core: &Shared,
        rules: &Rules,
        number: usize,
        disk: Option<&Arc<Disk>>,
        rng: &mut Rng,
    ) -> Self {
        let entropy = Arc::new(SimEntropy(core.clone()));
        // Few locks: there are few rooms.
        let config = broker_memory::Config { stripes: 2, ..broker_memory::Config::default() };
        let memory = disk.map(|disk| {
            MemoryBroker::build(config, Arc::clone(&entropy) as _, Some(Arc::clone(disk) as _))
        });
        let over_redis = OverRedis::build(core, &entropy);
        let broker: Arc<dyn Broker> = match &memory {
            Some(memory) => {
                let broker = Arc::clone(memory);
                Arc::new(Witness { broker, core: core.clone() })
            }
            None => {
                let over = over_redis.as_ref().map(|over| Arc::clone(&over.broker));
                Arc::new(SimBroker { core: core.clone(), node: number, over })
            }
        };
        let presence: Arc<dyn Presence> = match (&memory, &over_redis) {
            (Some(memory), _) => Arc::clone(memory) as _,
            (None, Some(over)) => Arc::new(over.presence(core, number)),
            (None, None) => Arc::new(SimPresence { core: core.clone(), node: number }),
        };
        let token_verifier = Arc::new(SimVerifier(core.clone()));
        let clock = Arc::new(SimClock(core.clone()));
        let session_tickets = Arc::new(SimTickets::new(core.clone()));
        let ports = Ports {
            broker,
            presence,
            token_verifier,
            session_tickets,
            inbox: disk.map(|disk| Arc::clone(&disk.inbox) as _),
            moderation: disk.map(|disk| {
                Arc::new(SimModeration::open(core.clone(), &disk.records, number)) as _
            }),
            // No moderator deletes: what is said stays what the checker knows.
            erasure: None,
            authorizer: None,
            revocations: Arc::new(MemoryRevocations::new(Duration::from_secs(86_400))),
            spent_tokens: match &over_redis {
                Some(over) => Arc::clone(&over.spent_tokens),
                None => Arc::new(NoSpentTokens),
            },
            seats: match &over_redis {
                Some(over) => Arc::new(over.seats(core, number)),
                None => Arc::new(application::seats::NodeSeats::default()),
            },
            peers: Arc::new(application::ports::NoPeers),
            matches: Arc::new(application::ports::NoMatches),
            clock,
            entropy,
        };
        let n_shards = 1 + rng.index(2);
        let node = Node::build(ports, rules.clone(), n_shards);
        let shards = start_shards(&node, rng);
        let tasks = BTreeMap::new();
        let (alive, draining, drained_ms) = (true, false, 0);
        Self { node, shards, memory, tasks, over_redis, alive, draining, drained_ms }
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
        if self.nodes.get(node).is_none_or(|node| !node.alive) {
            return;
        }
        let barred = self.barred(node, shard);
        let Some(host) = self.nodes.get_mut(node) else { return };
        let sim = &mut host.shards[shard];
        let (mut closed, mut passed, mut told) = (Vec::new(), Vec::new(), Vec::new());
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
            passed: &mut passed,
            told: (!barred.is_empty()).then_some(&mut told),
            violation: &mut self.violation,
        };
        sim.shard.handle(input, now, &mut outbox);
        for (effect, times) in [(Effect::ReadingPaused, paused), (Effect::QueueDropped, dropped)] {
            for _ in 0..times {
                self.core.lock().counts.effect(effect);
            }
        }
        if let Some(parting) = &mut sim.parting {
            parting.note(self.now_ms, &closed);
        }
        for effect in closed.into_iter().filter_map(|(_, code)| effect_of(code)) {
            self.core.lock().counts.effect(effect);
        }
        while let Some(call) = sim.shard.poll_call() {
            self.next_call += 1;
            let number = self.next_call;
            let waker = waker(Woken::Call { node, shard, call: number }, &self.alarms);
            sim.calls.insert(number, (call, waker));
            let at = self.now_ms + self.rng.below(3);
            self.queue.push(at, Event::Poll { node, shard, call: number });
        }
        for (at, link, down) in self.wires.drain(..) {
            self.queue.push(at, Event::Down { link, down });
        }
        for link in resumed {
            self.queue.push(self.now_ms, Event::Resume { link });
        }
        self.plan_work(node, shard);
        self.check_barred(&barred, &told);
        let given = self.note_given(passed);
        self.violation = self.violation.take().or(given.err());
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
            self.obey(node, shard, control);
        }
        self.nodes[node].shards[shard].obeyed_ms = now_ms;
        let sim = &mut self.nodes[node].shards[shard];
        if sim.shard.has_backlog() {
            self.input(node, shard, Input::Continue);
        } else if sim.n_mail > 0 {
            let mut post = Post::default();
            sim.mailbox.take(&mut post);
            sim.n_mail = 0;
            if self.disk.is_some() && !post.holes.is_empty() {
                sim.overflowed = true;
                self.core.lock().counts.effect(Effect::MailboxFull);
            }
            self.input(node, shard, Input::Mail(&mut post));
        }
        let due = self.nodes[node].shards[shard].shard.next_deadline();
        if due.is_some_and(|at| at.as_millis() <= now_ms) {
            self.input(node, shard, Input::Tick);
        }
        self.plan_work(node, shard);
    }

    /// Mail arrives, unless the node is gone.
    pub(crate) fn mail(&mut self, arrived: Outgoing) {
        let Some((node, shard)) = self.mailboxes.get(&arrived.mailbox).copied() else { return };
        if self.core.lock().is_left_over(&arrived) {
            return;
        }
        let sim = &mut self.nodes[node].shards[shard];
        if sim.n_mail >= self.rules.limits.mailbox_publications_max {
            sim.overflowed = true;
            self.core.lock().counts.effect(Effect::MailboxFull);
        }
        sim.n_mail += 1;
        sim.mailbox.put(arrived.mail);
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
        let Some((call, waker)) = sim.calls.get_mut(&number) else { return };
        self.core.lock().wake_ms = None;
        match call.future.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Pending => {
                // Without a moment it waits for somebody else, who wakes it.
                if let Some(wake) = self.core.lock().wake_ms {
                    self.queue.push(wake, Event::Poll { node, shard, call: number });
                }
            }
            Poll::Ready(outcome) => {
                // Its end waits for the shard like everything else.
                let Some((call, _)) = sim.calls.remove(&number) else { return };
                let completion = Completion { tag: call.tag, outcome };
                if sim.stalled_until_ms > self.now_ms {
                    let at = sim.stalled_until_ms;
                    self.queue.push(
                        at,
                        Event::Completed { node, shard, completion: Box::new(completion) },
                    );
                } else {
                    self.input(node, shard, Input::Completed(completion));
                }
            }
        }
    }

    /// Has something run beside the shards of a node.
    pub(crate) fn spawn(&mut self, node: usize, future: impl Future<Output = ()> + Send + 'static) {
        self.next_call += 1;
        let task = self.next_call;
        let waker = waker(Woken::Task { node, task }, &self.alarms);
        self.nodes[node].tasks.insert(task, Task { future: Box::pin(future), waker });
        self.queue.push(self.now_ms, Event::Task { node, task });
    }

    /// What a host does for a broker of its own.
    pub(crate) fn start_committer(&mut self, node: usize) {
        let Some(memory) = self.nodes[node].memory.clone() else { return };
        self.spawn(node, memory.run_committer());
        self.queue.push(self.now_ms + SWEEP_MS, Event::Sweep { node });
    }

    pub(crate) fn sweep(&mut self, node: usize) {
        let Some(memory) = self.nodes[node].memory.clone() else { return };
        if self.nodes[node].alive {
            let now = self.now().wall;
            let moderation = self.nodes[node].node.services().ports.moderation.clone();
            self.spawn(node, async move {
                memory.sweep(now).await;
                if let Some(moderation) = moderation {
                    moderation.forget(now).await;
                }
            });
            self.queue.push(self.now_ms + SWEEP_MS, Event::Sweep { node });
        }
    }

    pub(crate) fn run_task(&mut self, node: usize, task: u64) {
        let Some(running) = self.nodes[node].tasks.get_mut(&task) else { return };
        self.core.lock().wake_ms = None;
        match running.future.as_mut().poll(&mut Context::from_waker(&running.waker)) {
            Poll::Ready(()) => drop(self.nodes[node].tasks.remove(&task)),
            Poll::Pending => {
                if let Some(wake) = self.core.lock().wake_ms {
                    self.queue.push(wake, Event::Task { node, task });
                }
            }
        }
    }

    /// The real broker puts mail straight into mailboxes, and wakes who waits for it.
    pub(crate) fn notice(&mut self) {
        let mut woken = std::mem::take(&mut *self.alarms.lock().expect("nobody panics with it"));
        if self.is_over_redis() {
            // In there it is chance who of several that wait for one thing is woken first.
            woken.sort_unstable();
            woken.dedup();
        }
        for woken in woken {
            let at = self.now_ms + self.rng.below(2);
            self.queue.push(
                at,
                match woken {
                    Woken::Call { node, shard, call } => Event::Poll { node, shard, call },
                    Woken::Task { node, task } => Event::Task { node, task },
                },
            );
        }
        let Some(node) = self.nodes.len().checked_sub(1) else { return };
        if self.disk.is_none() || !self.nodes[node].alive {
            return;
        }
        for shard in 0..self.nodes[node].shards.len() {
            let sim = &mut self.nodes[node].shards[shard];
            let mut context = Context::from_waker(Waker::noop());
            if pin!(sim.mailbox.arrival()).poll(&mut context).is_ready() {
                sim.n_mail = sim.n_mail.max(1);
                self.plan_work(node, shard);
            }
        }
    }
}
