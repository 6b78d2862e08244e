//! Which connections may be there for a user, over all nodes.
//!
//! An implementation must never count a connection of a node that is gone for longer than its lease, and
//! never let two connections of a user act where only the newest may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::id::{ConnectionId, UserId};
use domain::seats::{Fence, SeatRule};
use thiserror::Error;

/// Over how many nodes a user is connected, as one node knows it; kept up to date behind its back.
#[derive(Debug)]
pub struct Spread(AtomicU32);

impl Default for Spread {
    fn default() -> Self {
        Self(AtomicU32::new(1))
    }
}

impl Spread {
    /// How many nodes, at least one.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.0.load(Ordering::Relaxed).max(1)
    }

    /// It is over this many now.
    pub fn set(&self, nodes: u32) {
        self.0.store(nodes, Ordering::Relaxed);
    }
}

/// A seat that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The number that lets it act; none where others of its user may act beside it.
    pub fence: Option<Fence>,
    /// Over how many nodes its user is connected.
    pub spread: Arc<Spread>,
}

/// Why no seat was taken.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SeatError {
    /// The user has as many connections as it may have, over all nodes.
    #[error("the user has as many connections as allowed")]
    Full,
    /// Nobody can say whether it would be the newest; come back later, or to another node.
    #[error("the seats of users can't be asked for now")]
    Unavailable {
        /// When to come back.
        retry_after: Duration,
    },
}

/// Whether a connection may still act for its user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// As far as is known here.
    Holds,
    /// A newer one has taken the user over.
    Replaced,
    /// Nobody here can know: this node has been out of touch for too long.
    Unknown,
}

/// Has connections ended that were replaced. It must not wait.
pub type EndReplaced = Box<dyn Fn(ConnectionId) + Send + Sync>;

/// The seats of users. Asked once for each connection that is known to be a user's, before it is let in.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Seats: Send + Sync {
    /// Takes a seat. By [`SeatRule::AtMost`] it MUST be refused when the user has that many over all nodes;
    /// where the nodes can't be asked those here count alone. By [`SeatRule::NewestWins`] the answer's
    /// fence MUST be larger than all before of this user on any node, and once it is given none of those
    /// may act any more. Taking it again for the same connection counts once. Whoever is refused, or
    /// does not wait for the answer, MUST leave all the same.
    async fn take(
        &self,
        user: &UserId,
        connection: ConnectionId,
        rule: SeatRule,
    ) -> Result<Taken, SeatError>;

    /// Gives a connection's seat back, if it has one. MUST NOT wait; MUST be remembered and carried out
    /// later when it can't be done now: a lost leave keeps the user's next connection out.
    fn leave(&self, user: &UserId, connection: ConnectionId);

    /// What is known here of a fence. Asked for every command under one: it MUST NOT block for longer
    /// than a look into memory. After this node has been out of touch with the others for a lease it
    /// MUST answer [`Standing::Unknown`].
    fn standing(&self, user: &UserId, fence: Fence) -> Standing;

    /// Whether a fence is the user's largest, on whichever node the larger one was drawn;
    /// [`Standing::Unknown`] where that can't be found out.
    async fn confirm(&self, user: &UserId, fence: Fence) -> Standing;

    /// Has this called with each connection of this node that was replaced, as soon as that is known
    /// here. Several may want it.
    fn on_replaced(&self, end: EndReplaced);
}
