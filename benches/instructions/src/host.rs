//! One node with one shard over the broker in memory, whose connections are numbers.
//!
//! It must never copy or keep what is delivered: what a socket costs is not counted here.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use application::mailbox::Post;
use application::node::Node;
use application::ports::outbox::{Batch, Delivered, Ending, Outbox};
use application::ports::session_tickets::NoTickets;
use application::ports::{Clock, Entropy, NoEntropy, NoSpentTokens, TokenError, TokenVerifier};
use application::services::{Ports, Rules};
use application::shard::{Completion, Input, Opening, Shard, Slot};
use application::view::View;
use async_trait::async_trait;
use broker_memory::{Config, MemoryBroker, MemoryRevocations};
use bytes::Bytes;
use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::id::{ClientId, ConnectionId};
use domain::policy::{Access, NamespacePolicy, Policies};
use domain::principal::Principal;
use domain::rate_limit::Rate;
use domain::retention::Retention;
use domain::time::{Monotonic, Now, Wall};

/// Time stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        let wall = Wall::from_millis(1_700_000_000_000);
        Now { monotonic: Monotonic::from_millis(0), wall }
    }
}

struct Counting(AtomicU64);

impl Entropy for Counting {
    fn bits(&self) -> Result<u64, NoEntropy> {
        Ok(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Nobody here has a token.
struct NoTokens;

#[async_trait]
impl TokenVerifier for NoTokens {
    async fn verify(&self, _: &str, _: Wall) -> Result<Principal, TokenError> {
        Err(TokenError::Malformed)
    }
}

/// Counts what it is given.
#[derive(Default)]
struct Counter {
    frames: u64,
    bytes: u64,
    /// The last batch, for whoever wants to know what was said.
    last: Bytes,
}

impl Outbox for Counter {
    fn frame(&mut self, message: &[u8]) -> Bytes {
        websocket_codec::encode_text(message)
    }

    fn deliver(&mut self, _: Slot, batch: &Batch<'_>) -> Delivered {
        self.frames += batch.frames.len() as u64;
        self.bytes += batch.joined.len() as u64;
        if batch.frames.len() == 1 && self.frames < 8 {
            self.last = batch.joined.clone();
        }
        Delivered::Taken
    }

    fn close(&mut self, _: Slot, _: Bytes, _: Ending) {}

    fn set_reading(&mut self, _: Slot, _: bool) {}

    fn queued_bytes(&self, _: Slot) -> usize {
        0
    }
}

pub(crate) struct Host {
    shard: Shard,
    counter: Counter,
    post: Post,
    _node: Node,
}

fn rules() -> Rules {
    let policy = NamespacePolicy {
        subscribe: Access::Anyone,
        publish: Access::Anyone,
        presence: Access::Anyone,
        history: Access::Anyone,
        presence_listed: true,
        retention: Retention::default(),
        default_class: Class::Reliable,
        durable: false,
        replicated: false,
        members_max: 1_000,
        presence_named_max: 1_000,
        patterns: false,
    };
    let mut policies = Policies::default();
    policies.set_namespace("public", policy);
    let mut rules = Rules { policies, allow_anonymous: true, ..Rules::default() };
    rules.limits.commands = Rate::new(0, 0);
    rules
}

impl Host {
    pub(crate) fn new() -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(Counting(AtomicU64::new(0)));
        let broker = MemoryBroker::build(Config::default(), Arc::clone(&entropy), None);
        let ports = Ports {
            broker: Arc::clone(&broker) as _,
            presence: broker as _,
            token_verifier: Arc::new(NoTokens),
            session_tickets: Arc::new(NoTickets),
            inbox: None,
            moderation: None,
            erasure: None,
            authorizer: None,
            revocations: Arc::new(MemoryRevocations::new(Duration::from_secs(3_600))),
            spent_tokens: Arc::new(NoSpentTokens),
            seats: Arc::new(application::seats::NodeSeats::default()),
            peers: Arc::new(application::ports::NoPeers),
            matches: Arc::new(application::ports::NoMatches),
            clock: Arc::new(Still),
            entropy,
        };
        let node = Node::build(ports, rules(), 1);
        let shard = Node::shard(&node.services(), &node.mailboxes()[0]);
        Self { shard, counter: Counter::default(), post: Post::default(), _node: node }
    }

    pub(crate) fn frames(&self) -> u64 {
        self.counter.frames
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.counter.bytes
    }

    /// A new connection of nobody, greeted.
    pub(crate) fn connect(&mut self) -> Slot {
        let slot = self.shard.reserve();
        let opening = Opening {
            connection: ConnectionId::from_bits(1_000 + u64::from(slot.index)),
            client: ClientId::parse("client").expect("a good name"),
            token: None,
            conflicting_tokens: false,
            view: View::V2,
            address: None,
            place: None,
        };
        self.give(Input::Opened(slot, opening));
        self.settle();
        slot
    }

    pub(crate) fn member(&mut self, room: &str) -> Slot {
        let slot = self.connect();
        self.say(slot, &format!(r#"{{"type":"subscribe","id":1,"room":"{room}"}}"#));
        slot
    }

    pub(crate) fn leave(&mut self, slot: Slot) {
        self.give(Input::Closed(slot, CloseCode::GoingAway));
        self.settle();
    }

    /// The epoch that the first member of a room was told.
    pub(crate) fn epoch(&self, room: &str) -> String {
        let said = String::from_utf8_lossy(&self.counter.last);
        assert!(said.contains("subscribed") && said.contains(room), "{said}");
        let (_, behind) = said.split_once(r#""epoch":""#).expect("an epoch");
        behind.split('"').next().expect("an epoch").to_owned()
    }

    pub(crate) fn say(&mut self, slot: Slot, text: &str) {
        self.give(Input::Text(slot, text));
        self.settle();
    }

    fn give(&mut self, input: Input<'_>) {
        let now = Still.now();
        self.shard.handle(input, now, &mut self.counter);
        while let Some(call) = self.shard.poll_call() {
            let outcome = ready(call.future);
            let completion = Completion { tag: call.tag, outcome };
            self.shard.handle(Input::Completed(completion), now, &mut self.counter);
        }
    }

    /// Takes mail and sends until nothing is left to do.
    fn settle(&mut self) {
        loop {
            let mut post = std::mem::take(&mut self.post);
            self.shard.mailbox().take(&mut post);
            let idle = post.mail.is_empty() && post.holes.is_empty();
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
}

/// Over memory nothing waits.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("a cold call over memory does not wait");
}
