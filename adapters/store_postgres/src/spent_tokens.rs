//! Spent tokens beside the log, and nowhere else: that a token has one row is what makes one of two the first,
//! on all nodes.
//!
//! It must never answer `First` to one that a restart would forget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use application::ports::archive::ArchiveError;
use application::ports::{SpendError, Spending, SpentTokens};
use async_trait::async_trait;
use domain::id::TokenId;
use domain::time::Wall;
use sqlx::postgres::PgConnection;

use crate::archive::PostgresArchive;
use crate::error::within;
use crate::queue::{Command, Job};

/// The most that are forgotten with one that is spent: more than it adds, so that they go faster
/// than they come.
const FORGOTTEN_MAX: i64 = 8;
/// The most that are forgotten where there is no room otherwise.
const FORGOTTEN_WHEN_FULL_MAX: i64 = 512;

/// How many rows there may be and are, those on their way to the writer among them.
#[derive(Debug)]
struct Places {
    n_taken: AtomicUsize,
    n_max: usize,
}

/// A place that is given back when this is dropped, wherever that is, unless it is kept.
#[derive(Debug)]
struct Place(Option<Arc<Places>>);

impl Place {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = &self.0 {
            places.give_back(1);
        }
    }
}

impl Places {
    fn take(self: &Arc<Self>) -> Option<Place> {
        let more = |n: usize| (n < self.n_max).then_some(n + 1);
        let taken = self.n_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Place(Some(Arc::clone(self))))
    }

    fn give_back(&self, n_places: usize) {
        let less = |n: usize| Some(n.saturating_sub(n_places));
        let _ = self.n_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// What the writer is asked for: to forget what is over, and then to spend a token, if there is one.
pub(crate) struct Spend {
    token: Option<Token>,
    now: Wall,
    places: Arc<Places>,
    job: Job<Done>,
}

struct Token {
    id: TokenId,
    forget_at: Wall,
    place: Place,
}

/// What the writer did.
#[derive(Clone, Copy)]
struct Done {
    spending: Spending,
    n_forgotten: usize,
}

impl Spend {
    /// Part of the writer's transaction.
    pub(crate) async fn apply(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let n_max = if self.token.is_some() { FORGOTTEN_MAX } else { FORGOTTEN_WHEN_FULL_MAX };
        let forget = sqlx::query(
            "DELETE FROM spent_tokens WHERE id IN (SELECT id FROM spent_tokens \
             WHERE forget_at_ms <= $1 ORDER BY forget_at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)",
        );
        let forget = forget.bind(self.now.as_millis()).bind(n_max);
        let n_forgotten = forget.execute(&mut *connection).await?.rows_affected();
        let mut spending = Spending::Again;
        if let Some(Token { id, forget_at, .. }) = &self.token {
            let add = sqlx::query(
                "INSERT INTO spent_tokens (id, forget_at_ms) VALUES ($1, $2) \
                 ON CONFLICT (id) DO NOTHING",
            );
            let add = add.bind(id.as_str()).bind(forget_at.as_millis());
            if add.execute(connection).await?.rows_affected() == 1 {
                spending = Spending::First;
            }
        }
        let n_forgotten = usize::try_from(n_forgotten).unwrap_or(usize::MAX);
        self.job.outcome = Ok(Done { spending, n_forgotten });
        Ok(())
    }

    /// Answers the caller, like the other commands. Here and not where the caller waits, which may
    /// be gone, it is said what places are taken from now on.
    pub(crate) fn answer(self, failure: Option<&ArchiveError>) {
        let Self { token, places, job, .. } = self;
        if let (Ok(done), None) = (&job.outcome, failure) {
            places.give_back(done.n_forgotten);
            if let (Spending::First, Some(Token { place, .. })) = (done.spending, token) {
                place.keep();
            }
        }
        job.answer(failure);
    }
}

/// Spent tokens in the archive's schema. Each node counts for itself how many there are, and what others
/// add since it started it does not count.
pub struct PostgresSpentTokens {
    archive: Arc<PostgresArchive>,
    places: Arc<Places>,
}

impl PostgresSpentTokens {
    /// Counts those that are stored, and remembers at most `entries_max`, like
    /// [`SPENT_TOKENS_MAX`](application::ports::spent_tokens::SPENT_TOKENS_MAX).
    ///
    /// # Errors
    /// What the database says.
    pub async fn load(
        archive: Arc<PostgresArchive>,
        entries_max: usize,
    ) -> Result<Self, ArchiveError> {
        let count = sqlx::query_scalar("SELECT count(*) FROM spent_tokens");
        let mut lent = archive.readers.lend().await?;
        let counted = count.fetch_one(&mut lent.connection);
        let counted = within(archive.answer_timeout(), counted).await;
        let n_stored: i64 = lent.back(counted)?;
        let n_taken = AtomicUsize::new(usize::try_from(n_stored).unwrap_or(0));
        Ok(Self { archive, places: Arc::new(Places { n_taken, n_max: entries_max }) })
    }

    async fn ask(&self, token: Option<Token>, now: Wall) -> Result<Spending, SpendError> {
        let (job, answer) = Job::new();
        let spend = Spend { token, now, places: Arc::clone(&self.places), job };
        let done = self.archive.ask(Command::Spend(spend), answer).await;
        done.map(|done| done.spending).map_err(|error| SpendError::Storage(error.to_string()))
    }
}

#[async_trait]
impl SpentTokens for PostgresSpentTokens {
    async fn spend(&self, id: &TokenId, until: Wall, now: Wall) -> Result<Spending, SpendError> {
        let mut place = self.places.take();
        if place.is_none() {
            self.ask(None, now).await?;
            place = self.places.take();
        }
        let place = place.ok_or(SpendError::Full)?;
        self.ask(Some(Token { id: id.clone(), forget_at: until, place }), now).await
    }

    fn remembered(&self) -> usize {
        self.places.n_taken.load(Ordering::Relaxed)
    }
}
