//! Letters beside the log, a row each, written through its writers, so that many of them share a commit.
//!
//! It must never answer `Ok` to a letter that a restart would lose, and never give a letter a number below
//! one that a reader may have seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use application::ports::archive::ArchiveError;
use application::ports::inbox::{Inbox, InboxError, Letter, LetterId, LetterLimits};
use async_trait::async_trait;
use bytes::Bytes;
use domain::id::UserId;
use domain::message::Sender;
use domain::time::Wall;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::archive::PostgresArchive;
use crate::error::{decode_error, within};
use crate::queue::{Command, Job};
use crate::rows;

/// The most letters that are forgotten in one transaction.
const FORGOTTEN_AT_ONCE: i64 = 512;

/// What a command holds in memory while it waits, roughly; and a removal besides so much that a transaction
/// takes a thousand of them and not more.
const COMMAND_BYTES: usize = 512;
const REMOVAL_BYTES: usize = 4 << 10;

/// A change of an inbox.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put {
        user: UserId,
        letter: Letter,
        limits: LetterLimits,
    },
    Remove {
        user: UserId,
        up_to: LetterId,
    },
    /// Forgets some of the old ones.
    Forget {
        before: Wall,
    },
}

/// How many letters came or went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changed(u64);

impl Change {
    /// What it weighs in the queue.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { letter, .. } => COMMAND_BYTES + letter.data.len(),
            Self::Remove { .. } => REMOVAL_BYTES,
            Self::Forget { .. } => COMMAND_BYTES,
        }
    }

    /// Part of a writer's transaction, which has the turn.
    pub(crate) async fn carry_out(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Changed, sqlx::Error> {
        match self {
            Self::Put { user, letter, limits } => put(connection, user, letter, limits).await,
            Self::Remove { user, up_to } => {
                let up_to = i64::try_from(up_to.0).unwrap_or(i64::MAX);
                let remove = sqlx::query_scalar(REMOVE).bind(user.as_str()).bind(up_to);
                let gone: i64 = remove.fetch_one(connection).await?;
                Ok(Changed(gone.cast_unsigned()))
            }
            Self::Forget { before } => {
                let forget = sqlx::query_scalar(FORGET).bind(before.as_millis());
                let gone: i64 = forget.bind(FORGOTTEN_AT_ONCE).fetch_one(connection).await?;
                Ok(Changed(gone.cast_unsigned()))
            }
        }
    }
}

/// Takes letters out, and out of the counts.
const REMOVE: &str = "WITH gone AS (DELETE FROM letters WHERE recipient = $1 AND id <= $2 \
         RETURNING recipient, sender), \
     less AS (SELECT recipient, sender, count(*) AS n FROM gone GROUP BY recipient, sender), \
     left_over AS (UPDATE letter_pairs p SET n = p.n - less.n FROM less \
         WHERE p.recipient = less.recipient AND p.sender = less.sender AND p.n > less.n), \
     done AS (DELETE FROM letter_pairs p USING less \
         WHERE p.recipient = less.recipient AND p.sender = less.sender AND p.n <= less.n) \
     SELECT count(*) FROM gone";

/// The same with what is old, whoever's it is.
const FORGET: &str = "WITH gone AS (DELETE FROM letters WHERE id IN (SELECT id FROM letters \
         WHERE at_ms < $1 ORDER BY at_ms LIMIT $2) RETURNING recipient, sender), \
     less AS (SELECT recipient, sender, count(*) AS n FROM gone GROUP BY recipient, sender), \
     left_over AS (UPDATE letter_pairs p SET n = p.n - less.n FROM less \
         WHERE p.recipient = less.recipient AND p.sender = less.sender AND p.n > less.n), \
     done AS (DELETE FROM letter_pairs p USING less \
         WHERE p.recipient = less.recipient AND p.sender = less.sender AND p.n <= less.n) \
     SELECT count(*) FROM gone";

/// Puts a letter where fewer wait than may.
const PUT: &str = "WITH free AS (SELECT 1 WHERE \
         (SELECT coalesce(sum(n), 0) FROM letter_pairs WHERE recipient = $1) < $6 \
         AND coalesce((SELECT n FROM letter_pairs WHERE recipient = $1 AND sender = $2), 0) < $7 \
         AND (SELECT coalesce(sum(n), 0) FROM letter_pairs WHERE sender = $2) < $8), \
     counted AS (INSERT INTO letter_pairs (recipient, sender, n) SELECT $1, $2, 1 FROM free \
         ON CONFLICT (recipient, sender) DO UPDATE SET n = letter_pairs.n + 1) \
     INSERT INTO letters (recipient, sender, at_ms, sender_name, data) \
     SELECT $1, $2, $3, $4, $5 FROM free";

async fn put(
    connection: &mut PgConnection,
    user: &UserId,
    letter: &Letter,
    limits: &LetterLimits,
) -> Result<Changed, sqlx::Error> {
    let sender = &letter.sender;
    let put = sqlx::query(PUT)
        .bind(user.as_str())
        .bind(sender.user.as_ref().map_or("", UserId::as_str))
        .bind(letter.at.as_millis())
        .bind(sender.name.as_deref().map(str::as_bytes))
        .bind(&letter.data[..])
        .bind(i64::from(limits.of_user))
        .bind(i64::from(limits.of_pair))
        .bind(i64::from(limits.of_sender));
    Ok(Changed(put.execute(connection).await?.rows_affected()))
}

fn letter(row: &PgRow) -> Result<Letter, sqlx::Error> {
    let sender: &str = row.try_get("sender")?;
    let user = (!sender.is_empty()).then(|| UserId::parse(sender)).transpose();
    let user = user.map_err(decode_error)?;
    let data: &[u8] = row.try_get("data")?;
    std::str::from_utf8(data).map_err(decode_error)?;
    Ok(Letter {
        sender: Sender { user, name: rows::name(row)?, ..Sender::default() },
        data: Bytes::copy_from_slice(data),
        at: Wall::from_millis(row.try_get("at_ms")?),
    })
}

/// A page of a user's letters: behind which, how many, how many bytes.
const READ: &str = "SELECT id, at_ms, sender, sender_name, data FROM (SELECT s.*, row_number() OVER place AS n, \
         sum(coalesce(octet_length(s.data), 0)) OVER place AS bytes FROM ( \
             SELECT id, at_ms, sender, sender_name, data FROM letters WHERE recipient = $1 AND id > $2 ORDER BY id LIMIT $3) AS s \
     WINDOW place AS (ORDER BY s.id ROWS UNBOUNDED PRECEDING)) AS sized \
     WHERE n = 1 OR bytes <= $4 ORDER BY id";

/// The inboxes in the archive's schema.
pub struct PostgresInbox {
    archive: Arc<PostgresArchive>,
    /// How many letters there are, roughly: neither a change whose caller has gone is counted, nor what
    /// other nodes do, until all are counted again when old ones are forgotten.
    n: AtomicU64,
}

impl PostgresInbox {
    /// Those of the archive's schema.
    ///
    /// # Errors
    /// What the database says.
    pub async fn load(archive: Arc<PostgresArchive>) -> Result<Self, ArchiveError> {
        let this = Self { archive, n: AtomicU64::new(0) };
        this.count_again().await?;
        Ok(this)
    }

    /// Counts all letters, whoever brought them.
    async fn count_again(&self) -> Result<(), ArchiveError> {
        let mut lent = self.archive.readers.lend().await?;
        let count = sqlx::query_scalar("SELECT coalesce(sum(n), 0)::bigint FROM letter_pairs");
        let count = count.fetch_one(&mut lent.connection);
        let count = within(self.archive.answer_timeout(), count).await;
        let n: i64 = lent.back(count)?;
        self.n.store(n.cast_unsigned(), Ordering::Relaxed);
        Ok(())
    }

    fn went(&self, n: u64) {
        let less = |now: u64| Some(now.saturating_sub(n));
        let _ = self.n.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    async fn rows(
        &self,
        user: &UserId,
        after: i64,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<PgRow>, ArchiveError> {
        let mut lent = self.archive.readers.lend().await?;
        let page = sqlx::query(READ)
            .bind(user.as_str())
            .bind(after)
            .bind(i64::from(limit))
            .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX))
            .fetch_all(&mut lent.connection);
        let page = within(self.archive.answer_timeout(), page).await;
        lent.back(page)
    }

    async fn change(&self, change: Change) -> Result<u64, InboxError> {
        let (job, answer) = Job::new();
        let changed = self.archive.ask(Command::Inbox { change, job }, answer).await;
        changed.map(|changed| changed.0).map_err(|error| storage(&error))
    }
}

fn storage(error: &ArchiveError) -> InboxError {
    InboxError::Storage(error.to_string())
}

#[async_trait]
impl Inbox for PostgresInbox {
    async fn put(
        &self,
        user: &UserId,
        letter: Letter,
        limits: LetterLimits,
    ) -> Result<(), InboxError> {
        if self.n.load(Ordering::Relaxed) >= u64::from(limits.of_all) {
            return Err(InboxError::Full);
        }
        let n = self.change(Change::Put { user: user.clone(), letter, limits }).await?;
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
        let mut after = after.map_or(0, |id| i64::try_from(id.0).unwrap_or(i64::MAX));
        loop {
            let rows = self.rows(user, after, limit, bytes_max).await;
            let rows = rows.map_err(|error| storage(&error))?;
            let mut page = Vec::with_capacity(rows.len());
            for row in &rows {
                let id: i64 = row.try_get("id").unwrap_or(after);
                after = after.max(id);
                match letter(row) {
                    Ok(letter) => page.push((LetterId(id.cast_unsigned()), letter)),
                    Err(error) => self.archive.status().passed_over("letters", &error),
                }
            }
            // Else none of these can be read: what is behind them is.
            if !page.is_empty() || rows.is_empty() {
                return Ok(page);
            }
        }
    }

    async fn remove(&self, user: &UserId, up_to: LetterId) -> Result<(), InboxError> {
        let removed = self.change(Change::Remove { user: user.clone(), up_to }).await;
        removed.map(|n| self.went(n))
    }

    async fn forget(&self, before: Wall) {
        loop {
            match self.change(Change::Forget { before }).await {
                Ok(0) => break,
                Ok(n) => self.went(n),
                Err(error) => {
                    // They are forgotten the next time.
                    let error = &error as &dyn std::error::Error;
                    return tracing::warn!(error, "old letters could not be deleted");
                }
            }
        }
        if let Err(error) = self.count_again().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "letters could not be counted");
        }
    }
}
