//! A shard alone: every cold call is ended by hand, so that any two things can come in any order.

mod echo;
mod holes;
mod joining;
mod listing;
mod own_rooms;

use std::collections::VecDeque;

use bytes::Bytes;
use domain::connection::Timing;
use domain::delivery::Class;
use domain::id::Epoch;
use domain::message::{Origin, Publication, Sender};
use domain::policy::{Access, AckLevel, NamespacePolicy, Policies};
use domain::position::{Offset, Position};
use domain::recovery::{Gap, GapReason};
use domain::retention::Retention;
use domain::room::RoomId;
use domain::tags::Tags;
use domain::time::{Now, Wall};

use super::*;
use crate::directory::Directory;
use crate::limits::Limits;
use crate::mailbox::Mail;
use crate::ports::clock::{MockClock, MockEntropy};
use crate::ports::outbox::{Batch, Delivered, Ending};
use crate::ports::revocations::MockRevocations;
use crate::ports::token_verifier::MockTokenVerifier;
use crate::ports::{Receipt, broker::MockBroker, presence::MockPresence};
use crate::published::Published;
use crate::services::{Ports, Rules};
use crate::use_cases::join_room::Joined;
use crate::use_cases::recover_room::RecoveredPage;
use crate::view::View;

const ROOM: &str = "public:room";
const OLD: Epoch = Epoch::from_bits(1);
const NEW: Epoch = Epoch::from_bits(2);

/// Writes down what is delivered.
#[derive(Default)]
struct Tape(Vec<(Slot, String)>);

impl Outbox for Tape {
    fn frame(&mut self, message: &[u8]) -> Bytes {
        Bytes::copy_from_slice(message)
    }

    fn deliver(&mut self, to: Slot, batch: &Batch<'_>) -> Delivered {
        let text = |frame: &crate::ports::outbox::Frame| {
            (to, String::from_utf8(frame.bytes.to_vec()).unwrap())
        };
        self.0.extend(batch.frames.iter().map(text));
        Delivered::Taken
    }

    fn close(&mut self, to: Slot, _: Bytes, ending: Ending) {
        self.0.push((to, format!("closed {}", ending.code.number())));
    }

    fn set_reading(&mut self, _: Slot, _: bool) {}

    fn queued_bytes(&self, _: Slot) -> usize {
        0
    }
}

struct Bench {
    shard: Shard,
    tape: Tape,
    now: Now,
    connections: u64,
}

fn at(epoch: Epoch, offset: u64) -> Position {
    Position { epoch, offset: Offset::parse(offset).unwrap() }
}

/// A message; without a position for offset 0.
fn message(epoch: Epoch, offset: u64, origin: Option<Origin>) -> Arc<Published> {
    let positioned = offset > 0;
    Arc::new(Published::new(Publication {
        room: RoomId::parse(ROOM).unwrap(),
        epoch,
        offset: positioned.then(|| at(epoch, offset).offset),
        class: if positioned { Class::Reliable } else { Class::Droppable },
        key: None,
        sender: Sender {
            user: None,
            name: None,
            connection: origin.map(|origin| origin.connection),
            trace: None,
        },
        data: Bytes::from(offset.to_string()),
        tags: Tags::default(),
        origin,
        at: Wall::default(),
        expires_at: None,
        tombstone: None,
    }))
}

fn page(messages: Vec<Arc<Published>>, reached: Position) -> RecoveredPage {
    let first = messages.first().and_then(|first| first.publication.offset);
    let after = first.map_or(reached.offset, Offset::previous);
    RecoveredPage { gap: None, after, messages, reached, more: false }
}

fn gap(epoch: Epoch, from: u64, to: u64, reason: GapReason) -> Gap {
    Gap { epoch, from: at(epoch, from).offset, to: at(epoch, to).offset, reason }
}

fn nothing_revoked() -> MockRevocations {
    let mut revocations = MockRevocations::new();
    revocations.expect_concerns().return_const(false);
    revocations
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A shard under rules that differ in something.
    fn with(change: impl FnOnce(&mut Rules)) -> Self {
        let mut policies = Policies::default();
        let policy = NamespacePolicy {
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
            members_max: 10,
            patterns: true,
        };
        policies.set_namespace("public", policy);
        let limits = Limits {
            position_check: Some(std::time::Duration::from_secs(5)),
            held_bytes_max: 4_000,
            ..Limits::default()
        };
        let mut rules = Rules {
            policies,
            limits,
            timing: Timing::default(),
            allow_anonymous: true,
            ..Rules::default()
        };
        change(&mut rules);
        let mut broker = MockBroker::new();
        broker.expect_level_of_delivery().return_const(Some(AckLevel::Accepted));
        let ports = Ports {
            broker: Arc::new(broker),
            presence: Arc::new(MockPresence::new()),
            token_verifier: Arc::new(MockTokenVerifier::new()),
            session_tickets: Arc::new(crate::ports::NoTickets),
            inbox: None,
            moderation: None,
            erasure: None,
            authorizer: None,
            revocations: Arc::new(nothing_revoked()),
            spent_tokens: Arc::new(crate::ports::NoSpentTokens),
            seats: Arc::new(crate::seats::NodeSeats::default()),
            peers: Arc::new(crate::ports::NoPeers),
            matches: Arc::new(crate::ports::NoMatches),
            clock: Arc::new(MockClock::new()),
            entropy: Arc::new(MockEntropy::new()),
        };
        let mailbox = Arc::new(Mailbox::new(1, 100));
        let directory = Arc::new(Directory::default());
        let mailboxes = vec![Arc::clone(&mailbox)];
        let services = Arc::new(Services {
            ports,
            rules,
            directory,
            mailboxes,
            metrics: Arc::default(),
            admission: Arc::default(),
        });
        let now = Now::default();
        let shard = Shard::new(services, mailbox, now);
        Self { shard, tape: Tape::default(), now, connections: 0 }
    }

    fn give(&mut self, input: Input<'_>) {
        self.shard.handle(input, self.now, &mut self.tape);
    }

    /// Opens a connection, whose id is the number of those before it and one.
    fn open(&mut self) -> Slot {
        self.connections += 1;
        let slot = self.shard.reserve();
        let opening = Opening {
            connection: ConnectionId::from_bits(self.connections),
            client: ClientId::parse("c").unwrap(),
            token: None,
            conflicting_tokens: false,
            view: View::V2,
            address: None,
            place: None,
        };
        self.give(Input::Opened(slot, opening));
        slot
    }

    fn say(&mut self, slot: Slot, text: &str) {
        self.give(Input::Text(slot, &text.replace("ROOM", ROOM)));
    }

    /// The next cold call's tag; its work is never done.
    fn call(&mut self) -> Option<CallTag> {
        self.shard.poll_call().map(|call| call.tag)
    }

    fn end(&mut self, tag: Option<CallTag>, outcome: Outcome) {
        let tag = tag.expect("a call was made");
        self.give(Input::Completed(Completion { tag, outcome }));
    }

    fn mail(&mut self, messages: &[Arc<Published>]) {
        let mail: VecDeque<Mail> = messages.iter().cloned().map(Mail::Publication).collect();
        let mut post = Post { mail, ..Post::default() };
        self.give(Input::Mail(&mut post));
    }

    fn hole(&mut self) {
        let mut post = Post::default();
        post.holes.insert(RoomId::parse(ROOM).unwrap());
        self.give(Input::Mail(&mut post));
    }

    /// Sends what waits, and answers in short what one connection has got since the last time.
    fn heard(&mut self, slot: Slot) -> Vec<String> {
        while self.shard.has_backlog() {
            self.give(Input::Continue);
        }
        let (own, rest) =
            std::mem::take(&mut self.tape.0).into_iter().partition(|(s, _)| *s == slot);
        self.tape.0 = rest;
        let own: Vec<(Slot, String)> = own;
        own.iter().map(|(_, text)| shorten(text)).collect()
    }

    fn joined(top: Position, page: RecoveredPage) -> Outcome {
        let latest = Vec::new();
        Outcome::Joined(Ok(Joined { top, page, recovered: false, latest, latest_later: false }))
    }

    /// A live member that stands at a position.
    fn member(&mut self, top: Position) -> Slot {
        let slot = self.open();
        self.say(slot, r#"{"type":"subscribe","id":1,"room":"ROOM"}"#);
        self.let_in(slot, top);
        slot
    }

    /// One that follows presence, too.
    fn follower(&mut self, top: Position) -> Slot {
        let slot = self.open();
        self.say(slot, r#"{"type":"subscribe","id":1,"room":"ROOM","presence":true}"#);
        self.let_in(slot, top);
        slot
    }

    fn let_in(&mut self, slot: Slot, top: Position) {
        let call = self.call();
        self.end(call, Self::joined(top, page(Vec::new(), top)));
        self.heard(slot);
    }

    /// Publishes without echo. Answers the call.
    fn publish(&mut self, slot: Slot, id: u64) -> Option<CallTag> {
        let text = r#"{"type":"publish","id":ID,"room":"ROOM","data":1,"echo":false}"#;
        self.say(slot, &text.replace("ID", &id.to_string()));
        self.call()
    }

    fn published(position: Position) -> Outcome {
        let Position { epoch, offset } = position;
        let level = AckLevel::Accepted;
        let receipt = Receipt { epoch, offset: Some(offset), duplicate: false, level };
        let room = RoomId::parse(ROOM).unwrap();
        Outcome::Published { result: Ok(receipt), room, echo: false }
    }
}

/// Where the message of this connection's command came from.
fn silent(connection: u64, command: u64) -> Option<Origin> {
    let connection = ConnectionId::from_bits(connection);
    Some(Origin { connection, command: Some(command), echo: false })
}

/// The type of a frame, its first epoch's last digit and offset: `message 1/5`.
fn shorten(text: &str) -> String {
    let field = |name: &str| {
        let start = text.find(&format!("\"{name}\":"))? + name.len() + 3;
        let rest = &text[start..];
        Some(rest[..rest.find([',', '}'])?].trim_matches('"').to_owned())
    };
    let kind = field("type").unwrap_or_else(|| text.to_owned());
    let Some(epoch) = field("epoch") else { return kind };
    let offset = field("offset").or_else(|| field("to")).unwrap_or_default();
    format!("{kind} {}/{offset}", epoch.trim_start_matches('0'))
}
