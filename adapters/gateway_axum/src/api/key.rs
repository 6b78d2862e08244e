//! The keys of the server API.
//!
//! The secret itself is never kept, shown or compared.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::id::ClientId;
use domain::rate_limit::{Rate, RateLimiter};
use domain::scope::KeyRights;
use domain::time::Monotonic;
use sha2::{Digest, Sha256};

/// A key of the server API.
#[derive(Clone)]
pub struct ApiKey {
    /// Names the caller; its `msg_id`s are its own.
    pub name: ClientId,
    /// What it allows.
    pub rights: KeyRights,
    /// The SHA-256 of the secret.
    pub(super) digest: [u8; 32],
    /// How fast it was used. Held for one comparison.
    limiter: Arc<Mutex<RateLimiter>>,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("name", &self.name).field("rights", &self.rights).finish()
    }
}

impl ApiKey {
    /// A key by its name and secret, with what it allows.
    #[must_use]
    pub fn new(name: ClientId, secret: &str, rights: KeyRights) -> Self {
        let digest = Sha256::digest(secret.as_bytes()).into();
        Self { name, rights, digest, limiter: Arc::default() }
    }

    /// Takes one operation, or says when to come back.
    pub(super) fn take(&self, rate: Rate, now: Monotonic) -> Result<(), Duration> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner).take(rate, now)
    }

    /// Counts the operations of one request beyond its first.
    pub(super) fn charge(&self, rate: Rate, operations: usize, now: Monotonic) {
        let operations = u32::try_from(operations).unwrap_or(u32::MAX);
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner).charge(rate, operations, now);
    }
}
