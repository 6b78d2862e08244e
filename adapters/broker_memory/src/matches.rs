//! Matches in this process's memory, for a node that keeps nothing on disk.
//!
//! They end with the process. It must never keep more than it was told to.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use application::ports::{
    CreateMatchError, Created, Matches, MatchesAfter, MatchesKept, MatchesPage, ReadMatchesError,
    UpdateMatchError,
};
use async_trait::async_trait;
use domain::matches::{CreatePlan, Match, MatchId, MatchTable, Phase, UpdatePlan};
use domain::time::Wall;

/// See the module's text.
#[derive(Debug)]
pub struct MemoryMatches {
    /// Held for one look or one change.
    table: RwLock<MatchTable>,
    kept: MatchesKept,
}

impl MemoryMatches {
    /// Keeps so many for so long.
    #[must_use]
    pub fn new(kept: MatchesKept) -> Self {
        Self { table: RwLock::default(), kept }
    }

    fn look(&self) -> RwLockReadGuard<'_, MatchTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> RwLockWriteGuard<'_, MatchTable> {
        // Every change is whole before anything can panic.
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Matches for MemoryMatches {
    async fn create(&self, new: &Match) -> Result<Created, CreateMatchError> {
        let mut table = self.table();
        match table.plan_create(new, self.kept.matches_max) {
            CreatePlan::Already(known) => Ok(Created::Already(known)),
            CreatePlan::Conflict => Err(CreateMatchError::Conflict),
            CreatePlan::Full => Err(CreateMatchError::Full),
            CreatePlan::Put { instead_of } => {
                for id in &instead_of {
                    table.remove(id);
                }
                table.put(new.clone());
                Ok(Created::New)
            }
        }
    }

    async fn update(&self, next: &Match, from: Phase) -> Result<(), UpdateMatchError> {
        let mut table = self.table();
        match table.plan_update(next, from) {
            UpdatePlan::Put => {
                table.put(next.clone());
                Ok(())
            }
            UpdatePlan::Missing => Err(UpdateMatchError::Missing),
            UpdatePlan::Changed => Err(UpdateMatchError::Changed),
        }
    }

    async fn find(&self, id: &MatchId) -> Result<Option<Match>, ReadMatchesError> {
        Ok(self.look().find(id).cloned())
    }

    async fn list(&self, list: &MatchesAfter) -> Result<MatchesPage, ReadMatchesError> {
        let MatchesAfter { phase, after, matches_max, bytes_max } = list;
        let (matches, more) = self.look().page(*phase, after.as_ref(), *matches_max, *bytes_max);
        Ok(MatchesPage { matches, more })
    }

    async fn forget(&self, now: Wall) {
        let mut table = self.table();
        for id in table.ended_until(self.kept.forgotten_until(now), usize::MAX) {
            table.remove(&id);
        }
    }
}
