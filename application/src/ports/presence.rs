//! Who is in which room, over all shards (and later, all nodes).
//!
//! An implementation must never report a leave while one of the user's connections is still in,
//! and never keep a member whose node is gone for longer than its lease.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use domain::id::ConnectionId;
use domain::presence::{PresenceKey, PresenceList};
use domain::room::RoomId;
use thiserror::Error;

/// Why presence could not be changed or read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum PresenceError {
    /// It is away; come back later.
    #[error("presence does not answer now")]
    Unavailable {
        /// When to come back.
        retry_after: Duration,
    },
    /// The member is not in the room.
    #[error("not a member of this room")]
    NotPresent,
}

/// Presence by user and room. Each change that others can see reaches every mailbox subscribed to
/// the room, in the order of its sequence number. Entering and leaving are idempotent.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Presence: Send + Sync {
    /// One connection of a member entered a room. The first one is a join.
    async fn enter(
        &self,
        room: &RoomId,
        who: &PresenceKey,
        connection: ConnectionId,
    ) -> Result<(), PresenceError>;

    /// One connection of a member left a room. The last one is a leave. MUST be remembered and
    /// carried out later when it can't be done now: a lost leave is a ghost.
    async fn leave(&self, room: &RoomId, who: &PresenceKey, connection: ConnectionId);

    /// A member's data changed; it belongs to the user, not to one connection.
    async fn update(
        &self,
        room: &RoomId,
        who: &PresenceKey,
        data: Bytes,
    ) -> Result<(), PresenceError>;

    /// Who is in a room, at most `members_max` of them.
    async fn list(&self, room: &RoomId, members_max: usize) -> Result<PresenceList, PresenceError>;
}
