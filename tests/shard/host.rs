//! A host for one node in a test: shards, the real in-memory broker, and connections that are
//! lists of frames.
//!
//! Time stands still until a test moves it. Cold calls run at once, in order.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use application::mailbox::Post;
use application::node::Node;
use application::outbound_queue::OutboundQueue;
use application::ports::outbox::{Batch, Delivered, Ending, Outbox};
use application::ports::{
    Authorizer, Clock, Entropy, NoEntropy, NoSpentTokens, TokenError, TokenVerifier,
};
use application::services::{Ports, Rules};
use application::shard::{Completion, Input, Opening, Shard, Slot};
use application::view::View;
use async_trait::async_trait;
use broker_memory::{MemoryBroker, MemoryModeration, MemoryRevocations};
use bytes::Bytes;
use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::id::{ClientId, ConnectionId, UserId};
use domain::policy::{Access, NamespacePolicy, Policies};
use domain::principal::{Action, Grant, Principal, RoomPattern};
use domain::retention::Retention;
use domain::time::{Monotonic, Now, Wall};
use secrecy::SecretString;
use serde_json::Value;
use tickets_hmac::HmacTickets;

/// How long a ticket counts at most.
pub(crate) const TICKET_LIFETIME: Duration = Duration::from_secs(600);

/// Time that only a test moves.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Now {
        let ms = self.0.load(Ordering::Relaxed);
        let wall = Wall::from_millis(1_700_000_000_000 + ms as i64);
        Now { monotonic: Monotonic::from_millis(ms), wall }
    }
}

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn bits(&self) -> Result<u64, NoEntropy> {
        Ok(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// A token is the name of its user; `bad` is none. `until:MS:NAME` ends at that time, and
/// `granted:chat:*:NAME` may subscribe to all rooms of that namespace. It counts how often it is
/// asked.
#[derive(Default)]
struct NamedTokens(Arc<AtomicU64>);

#[async_trait]
impl TokenVerifier for NamedTokens {
    async fn verify(&self, token: &str, _: Wall) -> Result<Principal, TokenError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let granted = token.strip_prefix("granted:").and_then(|rest| rest.split_once(":*:"));
        let (grants, token) = match granted {
            Some((namespace, rest)) => {
                let pattern = RoomPattern::parse(&format!("{namespace}:*"));
                let pattern = pattern.map_err(|_| TokenError::Malformed)?;
                (vec![Grant::new(pattern, &[Action::Subscribe])], rest)
            }
            None => (Vec::new(), token),
        };
        let (expires_at, name) = match token.strip_prefix("until:") {
            Some(rest) => {
                let (ms, name) = rest.split_once(':').ok_or(TokenError::Malformed)?;
                let ms: i64 = ms.parse().map_err(|_| TokenError::Malformed)?;
                (Some(Wall::from_millis(1_700_000_000_000 + ms)), name)
            }
            None => (None, token),
        };
        if name == "bad" {
            return Err(TokenError::Signature);
        }
        let user = UserId::parse(name).map_err(|_| TokenError::Malformed)?;
        Ok(Principal { user: Some(user), expires_at, grants, ..Principal::default() })
    }
}

/// What a connection got.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) frames: Vec<Value>,
    /// How many writes the frames came in.
    pub(crate) writes: usize,
    pub(crate) closed: Option<CloseCode>,
    pub(crate) reading: bool,
}

/// What lies between the outbox and the other end of a line.
#[derive(Debug)]
struct Wire {
    queue: OutboundQueue,
    queue_bytes_max: usize,
    /// The other end takes nothing at the moment.
    stalled: bool,
    refused: bool,
    /// What the other end has taken.
    taken: Vec<u8>,
}

impl Wire {
    fn new() -> Self {
        Self {
            queue: OutboundQueue::default(),
            queue_bytes_max: Lines::QUEUE_BYTES_MAX,
            stalled: false,
            refused: false,
            taken: Vec::new(),
        }
    }

    /// The other end takes so many bytes of what waits.
    fn trickle(&mut self, mut bytes: usize) {
        while let Some(front) = self.queue.front().filter(|_| bytes > 0).cloned() {
            let taken = &front[..bytes.min(front.len())];
            self.queue.advance(taken.len());
            self.taken.extend_from_slice(taken);
            bytes -= taken.len();
        }
    }

    fn flush(&mut self) {
        while let Some(front) = self.queue.front().filter(|_| !self.stalled).cloned() {
            self.queue.advance(front.len());
            self.taken.extend_from_slice(&front);
        }
    }
}

#[derive(Default)]
pub(crate) struct Lines {
    lines: BTreeMap<Slot, Line>,
    /// Of lines that are open.
    wires: BTreeMap<Slot, Wire>,
    /// What closed lines have left to take.
    closed: BTreeMap<Slot, Wire>,
}

impl Lines {
    pub(crate) const QUEUE_BYTES_MAX: usize = 64 << 10;

    pub(crate) fn open(&mut self, slot: Slot) {
        self.lines.insert(slot, Line { reading: true, ..Line::default() });
        self.wires.insert(slot, Wire::new());
    }

    pub(crate) fn stall(&mut self, slot: Slot, stalled: bool) {
        let wire = self.wires.get_mut(&slot).or_else(|| self.closed.get_mut(&slot));
        if let Some(wire) = wire {
            wire.stalled = stalled;
            wire.flush();
        }
    }

    /// What the other end has taken since the last look, and the code if that was all.
    pub(crate) fn taken(&mut self, slot: Slot) -> (Vec<u8>, Option<CloseCode>) {
        let wire = self.wires.get_mut(&slot).or_else(|| self.closed.get_mut(&slot));
        let taken = wire.map(|wire| std::mem::take(&mut wire.taken)).unwrap_or_default();
        (taken, self.lines.get(&slot).and_then(|line| line.closed))
    }

    pub(crate) fn is_read(&self, slot: Slot) -> bool {
        self.lines.get(&slot).is_some_and(|line| line.reading)
    }
}

impl Outbox for Lines {
    fn frame(&mut self, message: &[u8]) -> Bytes {
        let mut line = message.to_vec();
        line.push(b'\n');
        line.into()
    }

    fn deliver(&mut self, to: Slot, batch: &Batch<'_>) -> Delivered {
        let (Some(line), Some(wire)) = (self.lines.get_mut(&to), self.wires.get_mut(&to)) else {
            return Delivered::Gone;
        };
        if wire.refused {
            return Delivered::Refused;
        }
        if wire.stalled {
            for frame in batch.frames {
                if wire.queue.push(frame.clone(), wire.queue_bytes_max).is_err() {
                    wire.refused = true;
                    return Delivered::Refused;
                }
            }
        } else {
            wire.taken.extend_from_slice(batch.joined);
        }
        line.writes += 1;
        read_frames(batch.joined, &mut line.frames);
        Delivered::Taken
    }

    fn close(&mut self, to: Slot, last: Bytes, Ending { code, .. }: Ending) {
        let Some(mut wire) = self.wires.remove(&to) else { return };
        wire.queue.drop_messages();
        if !last.is_empty() {
            wire.queue.push_urgent(last.clone());
        }
        wire.flush();
        self.closed.insert(to, wire);
        if let Some(line) = self.lines.get_mut(&to) {
            read_frames(&last, &mut line.frames);
            line.closed = Some(code);
        }
    }

    fn set_reading(&mut self, of: Slot, reading: bool) {
        if let Some(line) = self.lines.get_mut(&of) {
            line.reading = reading;
        }
    }

    fn queued_bytes(&self, of: Slot) -> usize {
        self.wires.get(&of).map_or(0, |wire| wire.queue.bytes())
    }
}

fn read_frames(bytes: &[u8], frames: &mut Vec<Value>) {
    for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        frames.push(serde_json::from_slice(line).expect("the server sends JSON"));
    }
}

/// One node with one shard.
pub(crate) struct Host {
    pub(crate) clock: Arc<TestClock>,
    pub(crate) broker: Arc<MemoryBroker>,
    pub(crate) moderation: Arc<MemoryModeration>,
    /// How many tokens were verified.
    pub(crate) verified: Arc<AtomicU64>,
    pub(crate) node: Arc<Node>,
    pub(crate) shard: Shard,
    lines: Lines,
    post: Post,
    /// Held back by a test that wants to see what happens before a call ends.
    pub(crate) hold_calls: bool,
    held: Vec<application::shard::ColdCall>,
}

/// A namespace where everyone may do everything.
pub(crate) fn open_policy() -> NamespacePolicy {
    NamespacePolicy {
        subscribe: Access::Anyone,
        publish: Access::Anyone,
        presence: Access::Anyone,
        history: Access::Anyone,
        presence_listed: true,
        presence_named_max: 1_000,
        retention: Retention::default(),
        default_class: Class::Reliable,
        durable: false,
        replicated: false,
        members_max: 1_000,
        patterns: true,
    }
}

/// Rules that let everyone into `public:*`.
pub(crate) fn open_rules() -> Rules {
    let mut policies = Policies::default();
    policies.set_namespace("public", open_policy());
    let mut rules = Rules { policies, allow_anonymous: true, ..Rules::default() };
    rules.limits.commands = domain::rate_limit::Rate::new(0, 0);
    rules
}

impl Host {
    pub(crate) fn new(rules: Rules) -> Self {
        Self::with_authorizer(rules, None)
    }

    /// A node whose host decides itself who may do what.
    pub(crate) fn with_authorizer(rules: Rules, authorizer: Option<Arc<dyn Authorizer>>) -> Self {
        Self::with_ports(rules, |ports| Ports { authorizer, ..ports })
    }

    /// A node with other adapters than those of most tests.
    pub(crate) fn with_ports(rules: Rules, other: impl FnOnce(Ports) -> Ports) -> Self {
        let clock = Arc::new(TestClock::default());
        let entropy: Arc<dyn Entropy> = Arc::new(Counting(AtomicU64::new(0)));
        let broker =
            MemoryBroker::build(broker_memory::Config::default(), Arc::clone(&entropy), None);
        let verified = Arc::new(AtomicU64::new(0));
        let secret = SecretString::from("a secret of thirty-two bytes or more");
        let tickets =
            HmacTickets::build(&[secret], "shard", TICKET_LIFETIME).expect("a good secret");
        let moderation = Arc::new(MemoryModeration::default());
        let ports = Ports {
            broker: Arc::clone(&broker) as _,
            presence: Arc::clone(&broker) as _,
            token_verifier: Arc::new(NamedTokens(Arc::clone(&verified))),
            session_tickets: Arc::new(tickets),
            inbox: None,
            authorizer: None,
            moderation: Some(Arc::clone(&moderation) as _),
            erasure: Some(Arc::clone(&broker) as _),
            revocations: Arc::new(MemoryRevocations::new(Duration::from_secs(3_600))),
            spent_tokens: Arc::new(NoSpentTokens),
            seats: Arc::new(application::seats::NodeSeats::default()),
            peers: Arc::new(application::ports::NoPeers),
            matches: Arc::new(application::ports::NoMatches),
            clock: Arc::clone(&clock) as _,
            entropy,
        };
        let node = Arc::new(Node::build(other(ports), rules, 1));
        let shard = Node::shard(&node.services(), &node.mailboxes()[0]);
        let (lines, post) = (Lines::default(), Post::default());
        let held = Vec::new();
        Self {
            clock,
            broker,
            moderation,
            verified,
            node,
            shard,
            lines,
            post,
            hold_calls: false,
            held,
        }
    }

    pub(crate) fn connect(&mut self, token: Option<&str>) -> Slot {
        self.connect_by(View::V2, token)
    }

    /// Connects by an endpoint; to a match's, if that is one.
    pub(crate) fn connect_by(&mut self, view: View, token: Option<&str>) -> Slot {
        let slot = self.shard.reserve();
        self.lines.open(slot);
        let connection = ConnectionId::from_bits(1_000 + u64::from(slot.index));
        let opening = Opening {
            connection,
            client: ClientId::parse("client").unwrap(),
            token: token.map(str::to_owned),
            conflicting_tokens: false,
            view,
            address: None,
            place: domain::room::RoomId::parse("match:m1").ok(),
        };
        self.give(Input::Opened(slot, opening));
        slot
    }

    /// Connects and joins a room.
    pub(crate) fn member(&mut self, room: &str) -> Slot {
        let slot = self.connect(None);
        self.say(slot, &format!(r#"{{"type":"subscribe","id":1,"room":"{room}"}}"#));
        self.line(slot);
        slot
    }

    pub(crate) fn say(&mut self, slot: Slot, text: &str) {
        self.give(Input::Text(slot, text));
        self.settle();
    }

    /// Like `say`, but what it causes waits for `settle`.
    pub(crate) fn say_only(&mut self, slot: Slot, text: &str) {
        self.give(Input::Text(slot, text));
    }

    pub(crate) fn drop_line(&mut self, slot: Slot) {
        self.lines.lines.remove(&slot);
        self.lines.wires.remove(&slot);
        self.give(Input::Closed(slot, CloseCode::GoingAway));
        self.settle();
    }

    /// It takes nothing any more, and its queue is full.
    pub(crate) fn stick(&mut self, slot: Slot) {
        if let Some(wire) = self.lines.wires.get_mut(&slot) {
            (wire.stalled, wire.queue_bytes_max) = (true, 0);
        }
    }

    /// It takes nothing for a while; what it is told waits.
    pub(crate) fn slow_down(&mut self, slot: Slot, slow: bool) {
        self.lines.stall(slot, slow);
    }

    /// It takes so many bytes of what waits for it. Answers what it has taken since the last look, and the
    /// code when it was closed.
    pub(crate) fn trickle(&mut self, slot: Slot, bytes: usize) -> (Vec<u8>, Option<CloseCode>) {
        if let Some(wire) = self.lines.wires.get_mut(&slot) {
            wire.trickle(bytes);
        }
        self.lines.taken(slot)
    }

    pub(crate) fn give(&mut self, input: Input<'_>) {
        let now = self.clock.now();
        self.shard.handle(input, now, &mut self.lines);
        self.run_calls();
    }

    fn run_calls(&mut self) {
        while let Some(call) = self.shard.poll_call() {
            if self.hold_calls {
                self.held.push(call);
                continue;
            }
            let outcome = ready(call.future);
            let completion = Completion { tag: call.tag, outcome };
            let now = self.clock.now();
            self.shard.handle(Input::Completed(completion), now, &mut self.lines);
        }
    }

    /// How many calls are held back.
    pub(crate) fn n_held(&self) -> usize {
        self.held.len()
    }

    /// Runs one of the calls that are held back, and holds what it leads to.
    pub(crate) fn release_one(&mut self, at: usize) {
        let call = self.held.remove(at);
        let outcome = ready(call.future);
        self.give(Input::Completed(Completion { tag: call.tag, outcome }));
    }

    /// Runs what was held back.
    pub(crate) fn release_calls(&mut self) {
        self.hold_calls = false;
        for call in std::mem::take(&mut self.held) {
            let outcome = ready(call.future);
            self.give(Input::Completed(Completion { tag: call.tag, outcome }));
        }
    }

    /// Runs what was held back; what came of it waits for `complete`.
    pub(crate) fn run_held(&mut self) -> Vec<Completion> {
        self.hold_calls = false;
        let held = std::mem::take(&mut self.held);
        held.into_iter().map(|c| Completion { tag: c.tag, outcome: ready(c.future) }).collect()
    }

    /// Hands in what came of calls.
    pub(crate) fn complete(&mut self, completions: Vec<Completion>) {
        for completion in completions {
            self.give(Input::Completed(completion));
        }
    }

    /// Takes mail and sends until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        loop {
            for order in self.shard.mailbox().take_orders() {
                self.give(Input::Order(order));
            }
            let mut post = std::mem::take(&mut self.post);
            self.shard.mailbox().take(&mut post);
            let idle = post.is_empty();
            if !idle {
                self.give(Input::Mail(&mut post));
            }
            self.post = post;
            while self.shard.has_backlog() {
                self.give(Input::Continue);
            }
            if idle {
                return;
            }
        }
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.clock.0.load(Ordering::Relaxed) + ms;
        while let Some(at) = self.shard.next_deadline().filter(|at| at.as_millis() <= until) {
            self.clock.0.fetch_max(at.as_millis(), Ordering::Relaxed);
            self.give(Input::Tick);
            self.settle();
        }
        self.clock.0.store(until, Ordering::Relaxed);
    }

    /// Publishes without waiting for crowded mailboxes, as another node would.
    pub(crate) fn publish_past_the_mailbox(&self, publish: domain::message::Publish) {
        use application::ports::Broker as _;
        let policy = Arc::new(open_policy());
        ready(self.broker.publish(publish, &policy)).unwrap();
    }

    /// What a connection got since the last look.
    pub(crate) fn line(&mut self, slot: Slot) -> Line {
        let line = self.lines.lines.entry(slot).or_default();
        let fresh = Line { reading: line.reading, closed: line.closed, ..Line::default() };
        std::mem::replace(line, fresh)
    }

    pub(crate) fn frames(&mut self, slot: Slot) -> Vec<Value> {
        self.line(slot).frames
    }
}

pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("a cold call over memory does not wait");
}

/// The `type`s of frames, for short assertions.
pub(crate) fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap_or("?")).collect()
}
