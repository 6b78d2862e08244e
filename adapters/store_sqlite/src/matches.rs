//! Matches on disk, beside the log: looked up in memory, written through its writer.
//!
//! What is to be done is decided over the table in memory, one change at a time, written down, and only then
//! done in memory: nobody must ever see a change that a restart would take back.

mod row;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use application::ports::archive::ArchiveError;
use application::ports::{
    CreateMatchError, Created, Matches, MatchesAfter, MatchesKept, MatchesPage, ReadMatchesError,
    UpdateMatchError,
};
use async_trait::async_trait;
use domain::matches::{CreatePlan, Match, MatchId, MatchTable, Phase, UpdatePlan};
use domain::time::Wall;
use tokio::sync::Semaphore;

use crate::archive::SqliteArchive;
use crate::queue::{Command, Job};

pub(crate) use row::{delete, store};

/// The most matches that one call forgets; the rest waits for the next.
const FORGOTTEN_MAX: usize = 256;

/// What the writer is to do with the table of matches, in one transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    /// These go.
    pub(crate) delete: Vec<MatchId>,
    /// This one is put, in the place of the one of its name if there is one.
    pub(crate) put: Option<Match>,
}

impl Order {
    /// What waits with it, roughly.
    pub(crate) fn bytes(&self) -> usize {
        512 + self.delete.len() * MatchId::BYTES_MAX + self.put.as_ref().map_or(0, Match::bytes)
    }
}

/// Matches in the archive's file.
pub struct SqliteMatches(Arc<Inner>);

struct Inner {
    archive: Arc<SqliteArchive>,
    /// Held for one look or one change, never across an await.
    table: RwLock<MatchTable>,
    /// The one turn to change something: from the decision until it is done in memory.
    turn: Semaphore,
    kept: MatchesKept,
}

impl SqliteMatches {
    /// Reads those that are stored, and keeps so many for so long.
    ///
    /// # Errors
    /// What the database says; a node that does not know its matches must not start.
    pub async fn load(
        archive: Arc<SqliteArchive>,
        kept: MatchesKept,
    ) -> Result<Self, ArchiveError> {
        let mut table = MatchTable::default();
        for stored in row::load(archive.pools.readers()).await? {
            table.put(stored);
        }
        let (table, turn) = (RwLock::new(table), Semaphore::new(1));
        Ok(Self(Arc::new(Inner { archive, table, turn, kept })))
    }
}

impl Inner {
    fn look(&self) -> RwLockReadGuard<'_, MatchTable> {
        // Every change is whole before anything can panic.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what was decided, then does it. Only for who has the turn.
    async fn carry_out(&self, order: Order) -> Result<(), String> {
        let (job, answer) = Job::new();
        let command = Command::Matches { order: order.clone(), job };
        self.archive.ask(command, answer).await.map_err(|error| error.to_string())?;
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for id in &order.delete {
            table.remove(id);
        }
        if let Some(put) = order.put {
            table.put(put);
        }
        Ok(())
    }

    async fn create(&self, new: Match) -> Result<Created, CreateMatchError> {
        // Never closed; without a turn there would be nobody else to wait for.
        let _turn = self.turn.acquire().await.ok();
        let plan = self.look().plan_create(&new, self.kept.matches_max);
        match plan {
            CreatePlan::Already(known) => Ok(Created::Already(known)),
            CreatePlan::Conflict => Err(CreateMatchError::Conflict),
            CreatePlan::Full => Err(CreateMatchError::Full),
            CreatePlan::Put { instead_of } => {
                let order = Order { delete: instead_of, put: Some(new) };
                self.carry_out(order).await.map_err(CreateMatchError::Storage)?;
                Ok(Created::New)
            }
        }
    }

    async fn update(&self, next: Match, from: Phase) -> Result<(), UpdateMatchError> {
        let _turn = self.turn.acquire().await.ok();
        let plan = self.look().plan_update(&next, from);
        match plan {
            UpdatePlan::Put => {
                let order = Order { put: Some(next), ..Order::default() };
                self.carry_out(order).await.map_err(UpdateMatchError::Storage)
            }
            UpdatePlan::Missing => Err(UpdateMatchError::Missing),
            UpdatePlan::Changed => Err(UpdateMatchError::Changed),
        }
    }

    async fn forget(&self, now: Wall) {
        let _turn = self.turn.acquire().await.ok();
        let delete = self.look().ended_until(self.kept.forgotten_until(now), FORGOTTEN_MAX);
        if delete.is_empty() {
            return;
        }
        if let Err(error) = self.carry_out(Order { delete, put: None }).await {
            // They are kept, and forgotten at the next call.
            tracing::warn!(error, "matches that ended long ago could not be deleted");
        }
    }
}

/// Each change is a task of its own: a caller that hangs up must not leave what is on the disk and what is
/// in memory apart.
#[async_trait]
impl Matches for SqliteMatches {
    async fn create(&self, new: &Match) -> Result<Created, CreateMatchError> {
        let (inner, new) = (Arc::clone(&self.0), new.clone());
        let done = tokio::spawn(async move { inner.create(new).await }).await;
        done.unwrap_or_else(|error| Err(CreateMatchError::Storage(error.to_string())))
    }

    async fn update(&self, next: &Match, from: Phase) -> Result<(), UpdateMatchError> {
        let (inner, next) = (Arc::clone(&self.0), next.clone());
        let done = tokio::spawn(async move { inner.update(next, from).await }).await;
        done.unwrap_or_else(|error| Err(UpdateMatchError::Storage(error.to_string())))
    }

    async fn find(&self, id: &MatchId) -> Result<Option<Match>, ReadMatchesError> {
        Ok(self.0.look().find(id).cloned())
    }

    async fn list(&self, list: &MatchesAfter) -> Result<MatchesPage, ReadMatchesError> {
        let MatchesAfter { phase, after, matches_max, bytes_max } = list;
        let (matches, more) = self.0.look().page(*phase, after.as_ref(), *matches_max, *bytes_max);
        Ok(MatchesPage { matches, more })
    }

    async fn forget(&self, now: Wall) {
        let inner = Arc::clone(&self.0);
        if let Err(error) = tokio::spawn(async move { inner.forget(now).await }).await {
            tracing::error!(%error, "forgetting matches ended in a fault");
        }
    }
}
