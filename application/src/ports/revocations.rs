//! What was taken back before its time, remembered for as long as it could be used.
//!
//! An implementation must never forget a revocation early, neither over a restart that its tokens
//! survive nor to make room for another.

use async_trait::async_trait;
use domain::id::ConnectionId;
use domain::principal::Principal;
use domain::revocation::Revocation;
use domain::time::Wall;
use thiserror::Error;

/// Why a revocation is not remembered as it should be. It may be tried again.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum RevokeError {
    /// As many are remembered as may be; the oldest end by themselves.
    #[error("as many revocations are remembered as may be")]
    Full,
    /// It counts, but a restart would forget it: the storage is full, read-only, closed or failing.
    /// The text is for the log.
    #[error("the revocation could not be stored: {0}")]
    Storage(String),
}

/// Revocations by token, user and connection.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Revocations: Send + Sync {
    /// Whether what this connection is there by has been taken back. Asked by shards: it MUST NOT
    /// block for longer than a look into memory. Where it can't know, it MUST answer true.
    fn concerns(&self, principal: &Principal, connection: ConnectionId) -> bool;

    /// Remembers a revocation for as long as configured. `concerns` MUST see it before this waits for
    /// anything, and so does a refusal; before `Ok` it MUST be where a restart finds it, if anything
    /// survives one. Idempotent.
    async fn add(&self, revocation: &Revocation, now: Wall) -> Result<(), RevokeError>;

    /// How many are remembered, those included whose time is over and that are not forgotten yet.
    /// For monitoring; MUST NOT block for longer than a look into memory.
    fn remembered(&self) -> usize;

    /// Forgets those whose time is over; called about once a second. May put it off.
    async fn forget(&self, now: Wall);
}
