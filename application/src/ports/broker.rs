//! The one source of order: positions publications, keeps rooms' logs and hands publications to
//! the mailboxes of the shards that have members.
//!
//! An implementation must never let a position and its delivery part: what has an offset reaches
//! every subscribed mailbox, or that mailbox is told of the hole.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::id::Epoch;
use domain::message::Publish;
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::Offset;
use domain::principal::RoomPattern;
use domain::recovery::LogBounds;
use domain::room::RoomId;
use domain::time::Wall;
use thiserror::Error;

use crate::mailbox::Mailbox;
use crate::published::Published;

/// Where a publish ended up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// The life of the log.
    pub epoch: Epoch,
    /// Its place; none for classes without one.
    pub offset: Option<Offset>,
    /// Whether it was published before under the same `msg_id`; then this is that one's place.
    pub duplicate: bool,
    /// How safe it is.
    pub level: AckLevel,
}

/// Why a publish was not taken. Nothing was delivered, unless the variant says otherwise.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum PublishError {
    /// The broker or the archive behind it is away or overloaded; the same publish may come again
    /// under its `msg_id`.
    #[error("the broker takes no publish now")]
    Unavailable {
        /// When to come back.
        retry_after: Duration,
    },
    /// The log has given out its last offset.
    #[error("the room's log is full")]
    LogFull,
    /// Its fence is not its user's largest any more: a newer connection speaks for the user.
    #[error("a newer connection speaks for its user")]
    Fenced,
}

/// Why the broker could not answer.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum BrokerError {
    /// It is away or overloaded; come back later.
    #[error("the broker does not answer now")]
    Unavailable {
        /// When to come back.
        retry_after: Duration,
    },
}

/// Where a room stands when a subscription takes effect: everything behind `bounds.last` comes to
/// the mailbox.
#[derive(Clone, Debug)]
pub struct RoomTop {
    /// What the log holds.
    pub bounds: LogBounds,
    /// The newest `latest` message of each key, oldest first. Those that have expired may be among
    /// them: a subscription brings no time.
    pub latest: Vec<Arc<Published>>,
}

/// One subscription of one shard to one room. A later subscription of the same shard to the room
/// has a larger number; ending an earlier one then changes nothing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SubscriptionToken(pub u64);

/// What to read of a room's log.
#[derive(Clone, Copy, Debug)]
pub struct ReadLog {
    /// Read behind this offset; [`Offset::ZERO`] reads from the oldest.
    pub after: Offset,
    /// The most messages to answer.
    pub messages_max: u32,
    /// The most bytes of data to answer; at least one message is answered if there is one.
    pub bytes_max: usize,
    /// For deciding which messages have expired.
    pub now: Wall,
}

/// A piece of a room's log.
#[derive(Clone, Debug)]
pub struct LogPage {
    /// What the log held when it was read.
    pub bounds: LogBounds,
    /// Messages in order of offset. They follow `after` without holes, unless `after` lies below
    /// `bounds.first`: then they begin there.
    pub messages: Vec<Arc<Published>>,
    /// Whether there were more behind them.
    pub more: bool,
}

/// Append-and-publish, subscriptions, and the log.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Broker: Send + Sync {
    /// Gives the publish its position and hands it to all subscribed mailboxes, in one step: for
    /// any two publications of a room, every mailbox gets them in the order of their offsets. A
    /// publish whose `(publisher, room, msg_id)` is remembered MUST NOT be delivered again. In a
    /// durable room nothing is acknowledged before the archive has committed it, nor delivered on one node;
    /// over several nodes delivery need not wait. A broker that several nodes share MUST compare the publish's fence, if it has one, with its user's largest
    /// in the same step; one of a single node leaves that to the [seats](crate::ports::Seats).
    async fn publish(
        &self,
        publish: Publish,
        policy: &Arc<NamespacePolicy>,
    ) -> Result<Receipt, PublishError>;

    /// What the acknowledgement of a publish says that may be given as soon as it has reached a mailbox, in rooms of
    /// this policy. None where it reaches one before the archive or replicas have it: then only the answer to the
    /// publish says when they do.
    fn level_of_delivery(&self, policy: &NamespacePolicy) -> Option<AckLevel>;

    /// Makes the mailbox get every publication of the room from the answered position on.
    /// Subscribing again, with the same token or a larger one, keeps one subscription.
    async fn subscribe(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        mailbox: &Arc<Mailbox>,
        token: SubscriptionToken,
    ) -> Result<RoomTop, BrokerError>;

    /// Ends the mailbox's subscription, unless a larger token has renewed it. Publications that
    /// are on their way may still arrive.
    async fn unsubscribe(&self, room: &RoomId, mailbox: &Arc<Mailbox>, token: SubscriptionToken);

    /// Makes the mailbox get every publication of all rooms that one of the patterns means, beside
    /// those of the rooms it has subscribed to, each once and in the room's order. Takes the place
    /// of what the mailbox watched before, unless that came under a larger version; none ends it.
    /// In effect once answered. There is no position to begin at and no log behind it: what does
    /// not fit into the mailbox MUST be told as a hole of its room.
    async fn watch(
        &self,
        mailbox: &Arc<Mailbox>,
        patterns: &[RoomPattern],
        version: u64,
    ) -> Result<(), BrokerError>;

    /// Reads the log, without holes, up to the newest message when the call began.
    async fn read(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        read: ReadLog,
    ) -> Result<LogPage, BrokerError>;
}
