//! Revocations beside the log: looked up in memory, written through its writers.
//!
//! It must never answer `Ok` to one that a restart would forget, and never fail to count one only
//! because Postgres is away.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use application::ports::archive::ArchiveError;
use application::ports::{Revocations, RevokeError};
use async_trait::async_trait;
use domain::id::{ConnectionId, TokenId, UserId};
use domain::principal::Principal;
use domain::revocation::{Revocation, RevokedSet};
use domain::time::Wall;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::archive::PostgresArchive;
use crate::error::{Failure, decode_error, whole_rows, within};
use crate::queue::{Command, Job};

// The numbers are part of the tables' format: never reuse one.
const TOKEN: i16 = 0;
const USER: i16 = 1;
const CONNECTION: i16 = 2;

/// A revocation as a row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    kind: i16,
    subject: String,
    issued_until: Option<Wall>,
    forget_at: Wall,
}

impl Row {
    fn new(revocation: &Revocation, forget_at: Wall) -> Self {
        let (kind, subject, issued_until) = match revocation {
            Revocation::Token(id) => (TOKEN, id.to_string(), None),
            Revocation::User { user, issued_until } => {
                (USER, user.to_string(), Some(*issued_until))
            }
            Revocation::Connection(id) => (CONNECTION, id.to_string(), None),
        };
        Self { kind, subject, issued_until, forget_at }
    }

    fn read(row: &PgRow) -> Result<(Revocation, Wall), sqlx::Error> {
        let subject: &str = row.try_get("subject")?;
        let issued_until: Option<i64> = row.try_get("issued_until_ms")?;
        let revocation = match (row.try_get("kind")?, issued_until) {
            (TOKEN, None) => Revocation::Token(TokenId::parse(subject).map_err(decode_error)?),
            (USER, Some(until)) => Revocation::User {
                user: UserId::parse(subject).map_err(decode_error)?,
                issued_until: Wall::from_millis(until),
            },
            (CONNECTION, None) => {
                Revocation::Connection(ConnectionId::parse(subject).map_err(decode_error)?)
            }
            (kind, _) => return Err(decode_error(format!("{kind} is no kind of revocation"))),
        };
        Ok((revocation, Wall::from_millis(row.try_get("forget_at_ms")?)))
    }

    /// Part of the writer's transaction. Of two of one subject the later moments count.
    pub(crate) async fn store(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let store = sqlx::query(
            "INSERT INTO revocations (kind, subject, issued_until_ms, forget_at_ms) \
             VALUES ($1, $2, $3, $4) ON CONFLICT (kind, subject) DO UPDATE SET \
             issued_until_ms = greatest(revocations.issued_until_ms, excluded.issued_until_ms), \
             forget_at_ms = greatest(revocations.forget_at_ms, excluded.forget_at_ms)",
        );
        let until = self.issued_until.map(Wall::as_millis);
        let store = store.bind(self.kind).bind(&self.subject).bind(until);
        store.bind(self.forget_at.as_millis()).execute(connection).await.map(drop)
    }
}

/// Part of the writer's transaction.
pub(crate) async fn forget(connection: &mut PgConnection, until: Wall) -> Result<(), sqlx::Error> {
    let forget = sqlx::query("DELETE FROM revocations WHERE forget_at_ms <= $1");
    forget.bind(until.as_millis()).execute(connection).await.map(drop)
}

/// Revocations in the archive's schema.
pub struct PostgresRevocations {
    archive: Arc<PostgresArchive>,
    /// Held for one look or one change, never across an await.
    set: RwLock<RevokedSet>,
    span: Duration,
}

impl PostgresRevocations {
    /// Reads those that are stored. Each new one is remembered for `span`, which should be as long
    /// as the longest token lives.
    ///
    /// # Errors
    /// What the database says; a node that does not know what is revoked must not start.
    pub async fn load(archive: Arc<PostgresArchive>, span: Duration) -> Result<Self, ArchiveError> {
        let mut lent = archive.readers.lend().await?;
        let query = sqlx::query(
            "SELECT kind, subject, issued_until_ms, forget_at_ms FROM revocations \
             ORDER BY forget_at_ms DESC",
        );
        let rows = whole_rows(query, &mut lent.connection);
        let rows = within(archive.answer_timeout(), rows).await;
        let rows = lent.back(rows)?;
        let mut set = RevokedSet::default();
        for row in &rows {
            let (revocation, forget_at) =
                Row::read(row).map_err(|error| Failure::from(error).to_archive_error())?;
            // The first of them are those that last: what is left out is over soonest, or already.
            if set.add(&revocation, forget_at).is_err() {
                tracing::error!("more revocations are stored than can be remembered");
                break;
            }
        }
        Ok(Self { archive, set: RwLock::new(set), span })
    }
}

#[async_trait]
impl Revocations for PostgresRevocations {
    fn concerns(&self, principal: &Principal, connection: ConnectionId) -> bool {
        let set = self.set.read().unwrap_or_else(PoisonError::into_inner);
        set.concerns(principal, connection)
    }

    fn remembered(&self) -> usize {
        self.set.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn add(&self, revocation: &Revocation, now: Wall) -> Result<(), RevokeError> {
        let forget_at = now.after(self.span);
        {
            let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
            set.add(revocation, forget_at).map_err(|_| RevokeError::Full)?;
        }
        let (job, answer) = Job::new();
        let command = Command::Revoke { row: Row::new(revocation, forget_at), job };
        let stored = self.archive.ask(command, answer).await;
        stored.map_err(|error| RevokeError::Storage(error.to_string()))
    }

    async fn forget(&self, now: Wall) {
        let forgotten = {
            let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
            set.forget(now)
        };
        if forgotten == 0 {
            return;
        }
        let (job, answer) = Job::new();
        let command = Command::ForgetRevocations { until: now, job };
        if let Err(error) = self.archive.ask(command, answer).await {
            // They are forgotten again after the next start.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "old revocations could not be deleted");
        }
    }
}
