//! Revocations in this process's memory, for a node that keeps nothing on disk.
//!
//! They end with the process, as do the connections and everything else of such a node; tokens do
//! not. A node that must not forget them needs a store.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use application::ports::{Revocations, RevokeError};
use async_trait::async_trait;
use domain::id::ConnectionId;
use domain::principal::Principal;
use domain::revocation::{Revocation, RevokedSet};
use domain::time::Wall;

/// See the module's text.
#[derive(Debug)]
pub struct MemoryRevocations {
    /// Held for one look or one change.
    set: RwLock<RevokedSet>,
    span: Duration,
}

impl MemoryRevocations {
    /// Remembers each for `span`, which should be as long as the longest token lives.
    #[must_use]
    pub fn new(span: Duration) -> Self {
        Self { set: RwLock::default(), span }
    }
}

#[async_trait]
impl Revocations for MemoryRevocations {
    fn concerns(&self, principal: &Principal, connection: ConnectionId) -> bool {
        // A change that panicked may be half done; what was whole before it still counts.
        let set = self.set.read().unwrap_or_else(PoisonError::into_inner);
        set.concerns(principal, connection)
    }

    fn remembered(&self) -> usize {
        self.set.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn add(&self, revocation: &Revocation, now: Wall) -> Result<(), RevokeError> {
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        set.add(revocation, now.after(self.span)).map_err(|_| RevokeError::Full)
    }

    async fn forget(&self, now: Wall) {
        self.set.write().unwrap_or_else(PoisonError::into_inner).forget(now);
    }
}
