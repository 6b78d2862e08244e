//! Spent tokens in this process's memory, for a node that keeps nothing on disk.
//!
//! They end with the process; tokens do not, so one that was used before a restart counts once more
//! after it. A node that must not allow that needs a store.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use application::ports::{SpendError, Spending, SpentTokens};
use async_trait::async_trait;
use domain::id::TokenId;
use domain::time::Wall;

/// The most that are forgotten with one call: more than it adds, so that they go faster than they
/// come, and few, so that nobody waits for it.
const FORGOTTEN_MAX: usize = 8;

/// See the module's text.
#[derive(Debug)]
pub struct MemorySpentTokens {
    /// Held for one look and one change together: that is what makes one of two the first.
    spent: Mutex<Spent>,
    entries_max: usize,
}

#[derive(Debug, Default)]
struct Spent {
    ids: HashSet<TokenId>,
    /// The same by the moment from which each may be forgotten.
    by_end: BTreeSet<(Wall, TokenId)>,
}

impl Spent {
    fn forget(&mut self, now: Wall) {
        for _ in 0..FORGOTTEN_MAX {
            match self.by_end.first() {
                Some((end, _)) if *end <= now => {}
                Some(_) | None => return,
            }
            if let Some((_, id)) = self.by_end.pop_first() {
                self.ids.remove(&id);
            }
        }
    }
}

impl MemorySpentTokens {
    /// Remembers at most `entries_max`, like
    /// [`SPENT_TOKENS_MAX`](application::ports::spent_tokens::SPENT_TOKENS_MAX).
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self { spent: Mutex::default(), entries_max }
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        // A change that panicked may be half done: an id without its end is remembered for good.
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SpentTokens for MemorySpentTokens {
    async fn spend(&self, id: &TokenId, until: Wall, now: Wall) -> Result<Spending, SpendError> {
        let mut spent = self.spent();
        spent.forget(now);
        if spent.ids.contains(id) {
            return Ok(Spending::Again);
        }
        if spent.ids.len() >= self.entries_max {
            return Err(SpendError::Full);
        }
        spent.ids.insert(id.clone());
        spent.by_end.insert((until, id.clone()));
        Ok(Spending::First)
    }

    fn remembered(&self) -> usize {
        self.spent().ids.len()
    }
}
