//! Tokens whose signature was found right, so that a client that comes back does not cost it
//! again.
//!
//! Only what is right is remembered, by the SHA-256 of the whole token, and never for longer than
//! the key behind it counts; times are checked with each use. It must never answer for a token
//! that would be refused without it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use application::metrics::Count;
use domain::time::Wall;
use sha2::{Digest as _, Sha256};

use crate::claims::Timed;

/// The longest token that is remembered, in bytes: it bounds what an entry holds. A longer one is
/// verified each time.
pub(crate) const CACHED_TOKEN_BYTES_MAX: usize = 2 << 10;

/// The name under which a token is remembered.
pub(crate) type Digest = [u8; 32];

/// How often the memory spared a signature.
#[derive(Debug, Default)]
pub struct CacheUse {
    /// Tokens that were found.
    pub hits: Count,
    /// Tokens that were looked for and had to be verified.
    pub misses: Count,
}

/// Verified tokens, bounded in number and in time. Those not used for the longest time go first,
/// roughly: a hand goes round, and who was used since its last visit is spared once.
#[derive(Debug)]
pub(crate) struct TokenCache {
    /// Held for a look or a change.
    inner: Mutex<Inner>,
    entries_max: usize,
    life: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    index: HashMap<Digest, usize>,
    entries: Vec<Entry>,
    hand: usize,
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    timed: Arc<Timed>,
    since: Wall,
    /// Of the remote keys that verified it; none for a configured key.
    generation: Option<u64>,
    used: bool,
}

impl TokenCache {
    pub(crate) fn new(entries_max: usize, life: Duration) -> Self {
        Self { inner: Mutex::default(), entries_max, life }
    }

    /// The name of a token that may be remembered.
    pub(crate) fn digest(&self, token: &str) -> Option<Digest> {
        let may = self.entries_max > 0 && token.len() <= CACHED_TOKEN_BYTES_MAX;
        may.then(|| Sha256::digest(token.as_bytes()).into())
    }

    /// What was remembered, if it still counts: `generation` is that of the remote keys now.
    pub(crate) fn find(
        &self,
        digest: &Digest,
        generation: Option<u64>,
        now: Wall,
    ) -> Option<Arc<Timed>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let place = *inner.index.get(digest)?;
        let entry = inner.entries.get_mut(place)?;
        // A clock that was set back makes everything look young.
        let is_young = now >= entry.since && now.since(entry.since) < self.life;
        let has_key = entry.generation.is_none() || entry.generation == generation;
        if !is_young || !has_key {
            return None;
        }
        entry.used = true;
        Some(Arc::clone(&entry.timed))
    }

    /// Remembers a token.
    pub(crate) fn put(
        &self,
        digest: Digest,
        timed: Arc<Timed>,
        generation: Option<u64>,
        now: Wall,
    ) {
        let entry = Entry { digest, timed, since: now, generation, used: false };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match inner.index.get(&digest) {
            Some(place) => *place,
            None if inner.entries.len() < self.entries_max => inner.entries.len(),
            None => inner.make_room(),
        };
        inner.index.insert(digest, place);
        match inner.entries.get_mut(place) {
            Some(old) => *old = entry,
            None => inner.entries.push(entry),
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).index.len()
    }
}

impl Inner {
    /// The place of the entry that goes. Ends after two rounds at the latest.
    fn make_room(&mut self) -> usize {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.entries.len().max(1);
            let Some(entry) = self.entries.get_mut(place) else { return place };
            if !std::mem::take(&mut entry.used) {
                let digest = entry.digest;
                self.index.remove(&digest);
                return place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Claims, Expected};

    fn timed(user: &str) -> Arc<Timed> {
        let expected = Expected { issuer: None, audience: None, leeway: Duration::ZERO };
        let text = format!(r#"{{"sub":"{user}","exp":1800000600}}"#);
        Arc::new(Claims::read(&text, &expected).unwrap().into_timed(&expected).unwrap())
    }

    fn at(seconds: i64) -> Wall {
        Wall::from_millis(seconds * 1_000)
    }

    #[test]
    fn it_never_holds_more_than_it_may_and_spares_what_is_used() {
        let cache = TokenCache::new(3, Duration::from_secs(60));
        let digest = |n: usize| cache.digest(&format!("token {n}")).unwrap();
        for n in 0..3 {
            cache.put(digest(n), timed("ada"), None, at(0));
        }
        let has = |n| cache.inner.lock().unwrap().index.contains_key(&digest(n));
        for n in 3..100 {
            assert!(cache.find(&digest(0), None, at(1)).is_some(), "before {n}");
            cache.put(digest(n), timed("ada"), None, at(1));
            assert!(cache.len() <= 3 && has(n), "after {n}");
        }
    }

    #[test]
    fn what_is_old_or_of_other_keys_or_from_the_future_is_not_found() {
        let cache = TokenCache::new(3, Duration::from_secs(60));
        let digest = cache.digest("a token").unwrap();
        cache.put(digest, timed("ada"), Some(4), at(100));
        assert!(cache.find(&digest, Some(4), at(159)).is_some());
        assert!(cache.find(&digest, Some(4), at(160)).is_none());
        assert!(cache.find(&digest, Some(4), at(99)).is_none());
        assert!(cache.find(&digest, Some(5), at(101)).is_none());
        assert!(cache.find(&digest, None, at(101)).is_none());
    }

    #[test]
    fn a_long_token_and_every_token_of_a_cache_without_room_are_not_remembered() {
        let long = "x".repeat(CACHED_TOKEN_BYTES_MAX + 1);
        assert!(TokenCache::new(3, Duration::MAX).digest(&long).is_none());
        assert!(TokenCache::new(0, Duration::MAX).digest("short").is_none());
    }
}
