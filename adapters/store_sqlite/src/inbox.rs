//! Letters on disk, beside the log and through its writer, so that many of them share a commit.
//!
//! It must never answer `Ok` to a letter that a restart would lose.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use application::ports::archive::ArchiveError;
use application::ports::inbox::{Inbox, InboxError, Letter, LetterId, LetterLimits};
use async_trait::async_trait;
use bytes::Bytes;
use domain::id::UserId;
use domain::message::Sender;
use domain::time::Wall;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use crate::archive::SqliteArchive;
use crate::queue::{Command, Job};
use crate::rows::decode_error;

/// The most letters that are forgotten in one transaction: publishes wait for it.
const FORGOTTEN_AT_ONCE: u32 = if cfg!(test) { 3 } else { 1_000 };

/// A change of an inbox, as the writer carries it out.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put { user: String, letter: Letter, limits: LetterLimits },
    Remove { user: String, up_to: LetterId },
    Forget { before: Wall },
}

impl Change {
    /// What it holds in memory while it waits, roughly.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { letter, .. } => 512 + letter.data.len(),
            Self::Remove { .. } | Self::Forget { .. } => 512,
        }
    }

    /// Part of the writer's transaction; answers how many letters came or went.
    pub(crate) async fn carry_out(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<u64, sqlx::Error> {
        match self {
            Self::Put { user, letter, limits } => {
                let put = sqlx::query(
                    "INSERT INTO letters (user, sender_user, sender_name, at_ms, data) \
                     SELECT ?1, ?2, ?3, ?4, ?5 \
                     WHERE (SELECT count(*) FROM letters WHERE user = ?1) < ?6 \
                     AND (SELECT count(*) FROM letters WHERE sender_user IS ?2) < ?7 \
                     AND (SELECT count(*) FROM letters WHERE sender_user IS ?2 AND user = ?1) < ?8",
                );
                let sender = &letter.sender;
                let put = put
                    .bind(user.clone())
                    .bind(sender.user.as_ref().map(|user| user.as_str().to_owned()))
                    .bind(sender.name.as_deref().map(str::to_owned))
                    .bind(letter.at.as_millis())
                    .bind(letter.data.to_vec())
                    .bind(i64::from(limits.of_user))
                    .bind(i64::from(limits.of_sender))
                    .bind(i64::from(limits.of_pair));
                Ok(put.execute(connection).await?.rows_affected())
            }
            Self::Remove { user, up_to } => {
                let remove = sqlx::query("DELETE FROM letters WHERE user = ? AND id <= ?");
                let remove = remove.bind(user.clone()).bind(up_to.0.cast_signed());
                Ok(remove.execute(connection).await?.rows_affected())
            }
            Self::Forget { before } => {
                let forget = sqlx::query(
                    "DELETE FROM letters WHERE id IN \
                     (SELECT id FROM letters WHERE at_ms < ?1 LIMIT ?2)",
                );
                let forget = forget.bind(before.as_millis()).bind(FORGOTTEN_AT_ONCE);
                Ok(forget.execute(connection).await?.rows_affected())
            }
        }
    }
}

/// The inboxes in the archive's file.
pub struct SqliteInbox {
    archive: Arc<SqliteArchive>,
    /// How many letters there are, roughly: a change whose caller has gone is not counted.
    n: AtomicU64,
}

impl SqliteInbox {
    /// Those of the archive's file.
    ///
    /// # Errors
    /// What the database says.
    pub async fn load(archive: Arc<SqliteArchive>) -> Result<Self, ArchiveError> {
        let count = sqlx::query_scalar("SELECT count(*) FROM letters");
        let n: i64 = count
            .fetch_one(archive.pools.readers())
            .await
            .map_err(|error| crate::writer::storage_error(&error))?;
        Ok(Self { archive, n: AtomicU64::new(n.cast_unsigned()) })
    }

    fn went(&self, n: u64) {
        let less = |now: u64| Some(now.saturating_sub(n));
        let _ = self.n.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    async fn change(&self, change: Change) -> Result<u64, InboxError> {
        let (job, answer) = Job::new();
        let changed = self.archive.ask(Command::Inbox { change, job }, answer).await;
        changed.map_err(|error| storage(&error))
    }
}

fn storage(error: &ArchiveError) -> InboxError {
    InboxError::Storage(error.to_string())
}

fn read(row: &SqliteRow) -> Result<(LetterId, Letter), sqlx::Error> {
    let id: i64 = row.try_get("id")?;
    let user: Option<&str> = row.try_get("sender_user")?;
    let name: Option<&str> = row.try_get("sender_name")?;
    let sender = Sender {
        user: user.map(UserId::parse).transpose().map_err(decode_error)?,
        name: name.map(Into::into),
        ..Sender::default()
    };
    let data: Vec<u8> = row.try_get("data")?;
    let at = Wall::from_millis(row.try_get("at_ms")?);
    Ok((LetterId(id.cast_unsigned()), Letter { sender, data: Bytes::from(data), at }))
}

#[async_trait]
impl Inbox for SqliteInbox {
    async fn put(
        &self,
        user: &UserId,
        letter: Letter,
        limits: LetterLimits,
    ) -> Result<(), InboxError> {
        if self.n.load(Ordering::Relaxed) >= u64::from(limits.of_all) {
            return Err(InboxError::Full);
        }
        let put = Change::Put { user: user.to_string(), letter, limits };
        let n = self.change(put).await?;
        self.n.fetch_add(n, Ordering::Relaxed);
        if n > 0 { Ok(()) } else { Err(InboxError::Full) }
    }

    async fn read(
        &self,
        user: &UserId,
        after: Option<LetterId>,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<(LetterId, Letter)>, InboxError> {
        // The sum ends the page before its rows are read: a window over the index, not over the data.
        let query = sqlx::query(
            "SELECT id, sender_user, sender_name, at_ms, data FROM ( \
                 SELECT *, sum(length(data)) OVER (ORDER BY id) AS bytes, \
                 row_number() OVER (ORDER BY id) AS place FROM ( \
                     SELECT * FROM letters WHERE user = ? AND id > ? ORDER BY id LIMIT ?)) \
             WHERE place = 1 OR bytes <= ? ORDER BY id",
        );
        let after = after.map_or(0, |id| id.0.cast_signed());
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let query = query.bind(user.as_str().to_owned()).bind(after).bind(limit).bind(bytes_max);
        let rows = query.fetch_all(self.archive.pools.readers()).await;
        let rows = rows.map_err(|error| storage(&crate::writer::storage_error(&error)))?;
        let letters: Result<_, _> = rows.iter().map(read).collect();
        letters.map_err(|error| storage(&crate::writer::storage_error(&error)))
    }

    async fn remove(&self, user: &UserId, up_to: LetterId) -> Result<(), InboxError> {
        let removed = self.change(Change::Remove { user: user.to_string(), up_to }).await;
        removed.map(|n| self.went(n))
    }

    async fn forget(&self, before: Wall) {
        loop {
            match self.change(Change::Forget { before }).await {
                Ok(n) => {
                    self.went(n);
                    if n < u64::from(FORGOTTEN_AT_ONCE) {
                        return;
                    }
                }
                Err(error) => {
                    // They are forgotten the next time.
                    let error = &error as &dyn std::error::Error;
                    return tracing::warn!(error, "old letters could not be deleted");
                }
            }
        }
    }
}
