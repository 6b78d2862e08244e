//! The broker's other side: one message is taken out of a room's log, and its place remains.
//!
//! An implementation must never answer that a message is gone while a reader, now or after a restart,
//! could still be given what it said.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::policy::NamespacePolicy;
use domain::position::Position;
use domain::room::RoomId;
use thiserror::Error;

/// Why a message was not taken out.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum EraseError {
    /// The log does not have it: another epoch, never given out, or kept no longer.
    #[error("the room's log has no such message")]
    Unknown,
    /// The broker or the archive behind it is away or overloaded; come back later. It may be gone
    /// already.
    #[error("the broker erases nothing now")]
    Unavailable {
        /// When to come back.
        retry_after: Duration,
    },
}

/// Takes messages out of logs.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Erasure: Send + Sync {
    /// Makes one message a tombstone with the reason `deleted`: who reads its place from the answer on
    /// MUST get that and nothing of what was said. In a durable room the archive MUST have it first.
    /// What is on its way to members may still reach them. Idempotent.
    async fn erase(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        position: Position,
    ) -> Result<(), EraseError>;
}
