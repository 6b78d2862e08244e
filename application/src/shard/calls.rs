//! Cold calls: what a shard wants done elsewhere, and what comes back.
//!
//! A call owns its data and never borrows the shard, so it may take as long as it likes, run on
//! any thread, or panic.

use std::future::Future;
use std::pin::Pin;

use domain::id::ConnectionId;
use domain::presence::{PresenceKey, PresenceList};
use domain::principal::RoomPattern;
use domain::protocol::Resume;
use domain::room::RoomId;
use smallvec::SmallVec;

use super::Slot;
use super::letters::LettersPage;
use super::rooms::RoomKey;
use crate::ports::{BrokerError, Receipt, SubscriptionToken};
use crate::refusal::Refusal;
use crate::use_cases::authenticate::{AuthenticateError, Authenticated};
use crate::use_cases::authorize::NotAllowed;
use crate::use_cases::handle_message::Handled;
use crate::use_cases::join_room::{JoinRefused, Joined};
use crate::use_cases::list_presence::PresenceRefused;
use crate::use_cases::publish_message::PublishRefused;
use crate::use_cases::read_history::{HistoryPage, HistoryRefused};
use crate::use_cases::recover_room::RecoveredPage;
use crate::use_cases::refresh_token::{RefreshError, Refreshed};
use crate::use_cases::revalidate::Lost;

/// The work of a cold call.
pub type CallFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Something to do elsewhere. The host runs `future` and hands [`Completion`] back, with
/// [`Outcome::Panicked`] if it panicked; it must not drop it before it is done.
pub struct ColdCall {
    /// What it is for; comes back unchanged.
    pub tag: CallTag,
    /// The work.
    pub future: CallFuture,
}

/// The end of a cold call.
#[derive(Debug)]
pub struct Completion {
    /// What it was for.
    pub tag: CallTag,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a cold call is for.
#[derive(Clone, Debug)]
pub enum CallTag {
    /// A command of a connection; the next waits for it.
    Connection {
        /// Whose.
        slot: Slot,
        /// The command's id.
        command: Option<u64>,
        /// What to undo if the connection is gone by then.
        room: Option<JoinTag>,
    },
    /// A connection that comes back; its next command waits for it.
    Resume {
        /// Whose.
        slot: Slot,
        /// The command's id.
        command: Option<u64>,
        /// What became of each of its rooms so far, in the order of the command.
        rooms: Vec<Resuming>,
    },
    /// A hole of a room, or a look at its position.
    Room(RoomKey),
    /// The rooms of users, all together.
    OwnRooms,
    /// A hole of a user's own room.
    OwnRoom(RoomId),
    /// Whether a connection still has its rights; its commands do not wait for it.
    Rights {
        /// Whose.
        slot: Slot,
        /// Of which token.
        round: u32,
    },
    /// Nobody waits for it.
    Detached,
}

/// A join under way.
#[derive(Clone, Debug)]
pub struct JoinTag {
    /// The slice.
    pub key: RoomKey,
    /// The room.
    pub room: RoomId,
    /// The slice's subscription.
    pub token: SubscriptionToken,
    /// Who joins, over which connection.
    pub listed: Option<(PresenceKey, ConnectionId)>,
}

/// One room of a connection that comes back.
#[derive(Clone, Debug)]
pub enum Resuming {
    /// It is full; the join only asks whether the connection may know that.
    Full(RoomId),
    /// Its join is under way.
    Joining(JoinTag),
    /// It can't even begin.
    Refused(RoomId, Refusal),
}

/// What came of a cold call.
#[derive(Debug)]
pub enum Outcome {
    /// Of finding out who a connection is.
    Authenticated {
        /// Who it is.
        result: Result<Authenticated, AuthenticateError>,
        /// The rooms it wants to be in again.
        resume: Vec<Resume>,
    },
    /// Of coming back: an answer for each join that began.
    Resumed(Vec<Result<Joined, JoinRefused>>),
    /// Of a fresh token.
    Refreshed(Result<Refreshed, RefreshError>),
    /// Of asking again for the rooms that a connection is in.
    Revalidated(Result<Lost, NotAllowed>),
    /// Of a subscription that was only asked how to refuse it.
    Refused {
        /// Why not.
        refusal: Refusal,
        /// Where.
        room: RoomId,
    },
    /// Of the first step of a join.
    Joined(Result<Joined, JoinRefused>),
    /// Of a further page of a join.
    Paged(Result<RecoveredPage, BrokerError>),
    /// Of reading what fills a hole.
    Filled(Result<RecoveredPage, BrokerError>),
    /// Of a look at a room's position.
    Looked(Result<RecoveredPage, BrokerError>),
    /// Of reading anew who is in a room.
    Listed(Result<PresenceList, PresenceRefused>),
    /// Of following a pattern.
    Watched {
        /// Whether it is followed.
        result: Result<(), JoinRefused>,
        /// The pattern.
        pattern: RoomPattern,
    },
    /// Of watching the rooms of users; whether the broker took it.
    OwnRooms(bool),
    /// Of the same for a connection that is to be in one.
    OwnRoomsHeard {
        /// Whether the broker took it.
        is_on: bool,
        /// The rooms it wants to be in again.
        resume: Vec<Resume>,
    },
    /// Of a publish.
    Published {
        /// The broker's answer.
        result: Result<Receipt, PublishRefused>,
        /// Where to.
        room: RoomId,
        /// Whether the publisher wants the message itself too.
        echo: bool,
    },
    /// Of a question for a room's log.
    History {
        /// The page.
        result: Result<HistoryPage, HistoryRefused>,
        /// The room.
        room: RoomId,
    },
    /// Of a question for a room's members.
    Presence {
        /// The list.
        result: Result<PresenceList, PresenceRefused>,
        /// The room.
        room: RoomId,
    },
    /// Of new presence data.
    PresenceUpdated {
        /// Whether it was taken.
        result: Result<(), PresenceRefused>,
        /// The room.
        room: RoomId,
        /// The commands whose place it took.
        beside: SmallVec<[Option<u64>; 1]>,
    },
    /// Of reading what waited for a user.
    Letters(LettersPage),
    /// Of a host's handler.
    Handled(Result<Handled, Refusal>),
    /// A newer connection has taken the user over; nothing was done.
    Replaced,
    /// Of a leave, or of nothing anybody waits for.
    Done,
    /// The work panicked; the fault is in the log.
    Panicked,
}
