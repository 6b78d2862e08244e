//! Letters on disk, beside the log and through its writer, so that many of them share a commit.
//!
//! A user's letters stand in blocks, many to a row: `block` is how they are written there, `change` what the
//! writer does with them, `counts` what stands beside them.
//!
//! It must never answer `Ok` to a letter that a restart would lose.

mod block;
mod change;
mod counts;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use application::ports::archive::ArchiveError;
use application::ports::inbox::{Inbox, InboxError, Letter, LetterId, LetterLimits};
use async_trait::async_trait;
use domain::id::UserId;
use domain::time::Wall;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

pub(crate) use self::change::{Change, Changed};

use self::block::Place;
use crate::archive::SqliteArchive;
use crate::queue::{Command, Job};

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
        let count = sqlx::query_scalar("SELECT coalesce(sum(n), 0) FROM letter_pairs");
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

    /// The blocks of a user from `from` on that a page can need.
    async fn blocks(
        &self,
        user: &UserId,
        from: i64,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        // What is in front of a block ends the page before it; looked at without what is in the blocks. Each
        // holds a letter, and one may have been read.
        let query = sqlx::query(
            "SELECT id, letters FROM letter_blocks WHERE id IN ( \
                 SELECT id FROM ( \
                     SELECT id, sum(n) OVER before AS n_before, sum(length) OVER before AS bytes_before FROM ( \
                         SELECT id, n, length(letters) AS length FROM letter_blocks \
                         WHERE user = ?1 AND id >= ?2 ORDER BY id LIMIT ?3 + 1) \
                     WINDOW before AS (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) \
                 WHERE n_before IS NULL OR (n_before < ?3 AND bytes_before < ?4)) \
             ORDER BY id",
        );
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let query = query.bind(user.as_str().to_owned()).bind(from).bind(limit).bind(bytes_max);
        query.fetch_all(self.archive.pools.readers()).await
    }

    async fn read_from(
        &self,
        user: &UserId,
        after: Option<Place>,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<(LetterId, Letter)>, sqlx::Error> {
        let mut from = after.map_or(0, |last| last.block);
        loop {
            let rows = self.blocks(user, from, limit, bytes_max).await?;
            let Some(last) = rows.last() else { return Ok(Vec::new()) };
            from = last.try_get::<i64, _>("id")?.saturating_add(1);
            let page = page(&rows, after, limit, bytes_max)?;
            // Else all in these blocks had been read before.
            if !page.is_empty() || limit == 0 {
                return Ok(page);
            }
        }
    }

    async fn change(&self, change: Change) -> Result<Changed, InboxError> {
        let (job, answer) = Job::new();
        let changed = self.archive.ask(Command::Inbox { change, job }, answer).await;
        changed.map_err(|error| storage(&error))
    }
}

fn storage(error: &ArchiveError) -> InboxError {
    InboxError::Storage(error.to_string())
}

/// The page of a user's letters that these blocks begin.
fn page(
    rows: &[SqliteRow],
    after: Option<Place>,
    limit: u32,
    bytes_max: usize,
) -> Result<Vec<(LetterId, Letter)>, sqlx::Error> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for row in rows {
        let block = row.try_get("id")?;
        let is_before =
            |index| after.is_some_and(|last| last.block == block && index <= last.index);
        for (index, letter) in block::read(block, row.try_get("letters")?) {
            if is_before(index) {
                continue;
            }
            bytes += letter.data.len();
            if page.len() >= limit as usize || (bytes > bytes_max && !page.is_empty()) {
                return Ok(page);
            }
            page.push((Place { block, index }.id(), letter));
        }
    }
    Ok(page)
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
        let n = self.change(put).await?.letters;
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
        let read = self.read_from(user, after.map(Place::of), limit, bytes_max).await;
        read.map_err(|error| storage(&crate::writer::storage_error(&error)))
    }

    async fn remove(&self, user: &UserId, up_to: LetterId) -> Result<(), InboxError> {
        let removed = self.change(Change::Remove { user: user.to_string(), up_to }).await;
        removed.map(|changed| self.went(changed.letters))
    }

    async fn forget(&self, before: Wall) {
        loop {
            match self.change(Change::Forget { before }).await {
                Ok(Changed { blocks: 0, .. }) => return,
                Ok(changed) => self.went(changed.letters),
                Err(error) => {
                    // They are forgotten the next time.
                    let error = &error as &dyn std::error::Error;
                    return tracing::warn!(error, "old letters could not be deleted");
                }
            }
        }
    }
}
