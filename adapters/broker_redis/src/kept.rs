//! Revocations in two places: here, where all nodes hear of them at once, and where a loss of Redis leaves them.
//!
//! It must never let in whom either of them knows, and never say that one is remembered before both have it.

use std::sync::Arc;

use application::ports::{Revocations, RevokeError};
use async_trait::async_trait;
use domain::id::ConnectionId;
use domain::principal::Principal;
use domain::revocation::Revocation;
use domain::time::Wall;

use crate::revocations::RedisRevocations;

/// See the module's text.
pub struct KeptRevocations {
    told: Arc<RedisRevocations>,
    kept: Arc<dyn Revocations>,
}

impl KeptRevocations {
    /// Those that all nodes are told of, and where each is kept, as it was found when this node began.
    #[must_use]
    pub fn new(told: Arc<RedisRevocations>, kept: Arc<dyn Revocations>) -> Self {
        Self { told, kept }
    }
}

#[async_trait]
impl Revocations for KeptRevocations {
    fn concerns(&self, principal: &Principal, connection: ConnectionId) -> bool {
        self.told.concerns(principal, connection) || self.kept.concerns(principal, connection)
    }

    async fn add(&self, revocation: &Revocation, now: Wall) -> Result<(), RevokeError> {
        // At once, so that each counts before anything is waited for, whatever becomes of the other.
        let (told, kept) =
            tokio::join!(self.told.add(revocation, now), self.kept.add(revocation, now));
        told.and(kept)
    }

    fn remembered(&self) -> usize {
        self.told.remembered().max(self.kept.remembered())
    }

    async fn forget(&self, now: Wall) {
        tokio::join!(self.told.forget(now), self.kept.forget(now));
    }
}
