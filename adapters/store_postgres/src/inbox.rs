//! Letters beside the log, a row each, written through its writers, so that many of them share a commit.
//!
//! It must never answer `Ok` to a letter that a restart would lose, never give a letter a number below one that a
//! reader may have seen, and never give two nodes the letters of one user at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use application::ports::archive::ArchiveError;
use application::ports::inbox::{Inbox, InboxError, Letter, LetterId, LetterLimits};
use application::unsure::Unsure;
use async_trait::async_trait;
use domain::id::UserId;
use domain::message::Sender;
use domain::time::Wall;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};
use tokio::time::Instant;

use crate::archive::PostgresArchive;
use crate::error::{decode_error, random_bits, whole_rows, within};
use crate::letter_turns::{Turning, Turns};
use crate::queue::{Command, Job};
use crate::rows;

/// The most letters that are forgotten in one transaction.
const FORGOTTEN_AT_ONCE: i64 = 512;

/// For how long the name of a letter is known after it was put: longer than it is brought again.
const GIVEN: Duration = Duration::from_secs(120);

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
        /// By which it is known when it is brought again.
        name: i64,
        /// Set once it stands in a transaction, which may be committed from then on.
        has_stood: Arc<AtomicBool>,
    },
    Remove {
        user: UserId,
        up_to: LetterId,
    },
    /// Forgets some of the old ones.
    Forget {
        before: Wall,
    },
    /// Whose turn it is to give letters.
    Turn(Turning),
}

/// How many letters came or went, or turns, and whose those are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changed {
    pub(crate) n: u64,
    pub(crate) whose: BTreeSet<String>,
}

impl From<u64> for Changed {
    fn from(n: u64) -> Self {
        Self { n, ..Self::default() }
    }
}

impl Change {
    /// What it weighs in the queue.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { letter, .. } => COMMAND_BYTES + letter.data.len(),
            Self::Remove { .. } => REMOVAL_BYTES,
            Self::Forget { .. } => COMMAND_BYTES,
            Self::Turn(turning) => COMMAND_BYTES * turning.users().max(1),
        }
    }

    /// Part of a writer's transaction, which has the turn.
    pub(crate) async fn carry_out(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Changed, sqlx::Error> {
        match self {
            Self::Put { user, letter, limits, name, has_stood } => {
                let put = put(connection, user, letter, limits, *name).await;
                has_stood.fetch_or(put.is_ok(), Ordering::Release);
                put
            }
            Self::Remove { user, up_to } => {
                let up_to = i64::try_from(up_to.0).unwrap_or(i64::MAX);
                let remove = sqlx::query_scalar(REMOVE).bind(user.as_str()).bind(up_to);
                let remove = remove.bind(i64::try_from(GIVEN.as_millis()).unwrap_or(i64::MAX));
                let gone: i64 = remove.fetch_one(connection).await?;
                Ok(gone.cast_unsigned().into())
            }
            Self::Forget { before } => {
                let forget = sqlx::query_scalar(FORGET).bind(before.as_millis());
                let gone: i64 = forget.bind(FORGOTTEN_AT_ONCE).fetch_one(connection).await?;
                Ok(gone.cast_unsigned().into())
            }
            Self::Turn(turning) => turning.carry_out(connection).await,
        }
    }
}

/// Takes letters out, and out of the counts. The names of young ones stay, and some go whose time is over: as many as
/// two pages, so that there are never many.
const REMOVE: &str = "WITH gone AS (DELETE FROM letters WHERE recipient = $1 AND id <= $2 \
         RETURNING recipient, sender, put_id, put_ms), \
     given AS (INSERT INTO letters_given (recipient, put_id, until_ms) \
         SELECT recipient, put_id, put_ms + $3 FROM gone WHERE put_id IS NOT NULL \
         AND put_ms + $3 > (extract(epoch FROM clock_timestamp()) * 1000)::bigint \
         ON CONFLICT DO NOTHING), \
     over AS (DELETE FROM letters_given WHERE (recipient, put_id) IN ( \
         SELECT recipient, put_id FROM letters_given \
         WHERE until_ms < (extract(epoch FROM clock_timestamp()) * 1000)::bigint \
         ORDER BY until_ms LIMIT 256)), \
     less AS (SELECT recipient, sender, count(*) AS n FROM gone GROUP BY recipient, sender), \
     left_over AS (UPDATE letter_pairs p SET n = p.n - less.n FROM less \
         WHERE p.recipient = less.recipient AND p.sender = less.sender AND p.n > less.n), \
     done AS (DELETE FROM letter_pairs p USING less \
         WHERE p.recipient = less.recipient AND p.sender = less.sender AND p.n <= less.n) \
     SELECT count(*) FROM gone";

/// The same with what is old, whoever's it is; and turns and names go that are over.
const FORGET: &str = "WITH over AS (DELETE FROM letter_turns \
         WHERE until_ms < (extract(epoch FROM clock_timestamp()) * 1000)::bigint), \
     given AS (DELETE FROM letters_given \
         WHERE until_ms < (extract(epoch FROM clock_timestamp()) * 1000)::bigint), \
     gone AS (DELETE FROM letters WHERE id IN (SELECT id FROM letters \
         WHERE at_ms < $1 ORDER BY at_ms LIMIT $2) RETURNING recipient, sender), \
     less AS (SELECT recipient, sender, count(*) AS n FROM gone GROUP BY recipient, sender), \
     left_over AS (UPDATE letter_pairs p SET n = p.n - less.n FROM less \
         WHERE p.recipient = less.recipient AND p.sender = less.sender AND p.n > less.n), \
     done AS (DELETE FROM letter_pairs p USING less \
         WHERE p.recipient = less.recipient AND p.sender = less.sender AND p.n <= less.n) \
     SELECT count(*) FROM gone";

/// Puts a letter where fewer wait than may, unless it is there, or was given. Answers whether it is known then.
const PUT: &str = "WITH known AS (SELECT 1 FROM letters WHERE recipient = $1 AND put_id = $9 \
         UNION ALL SELECT 1 FROM letters_given WHERE recipient = $1 AND put_id = $9), \
     free AS (SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM known) \
         AND (SELECT coalesce(sum(n), 0) FROM letter_pairs WHERE recipient = $1) < $6 \
         AND coalesce((SELECT n FROM letter_pairs WHERE recipient = $1 AND sender = $2), 0) < $7 \
         AND (SELECT coalesce(sum(n), 0) FROM letter_pairs WHERE sender = $2) < $8), \
     counted AS (INSERT INTO letter_pairs (recipient, sender, n) SELECT $1, $2, 1 FROM free \
         ON CONFLICT (recipient, sender) DO UPDATE SET n = letter_pairs.n + 1), \
     put AS (INSERT INTO letters (recipient, sender, at_ms, sender_name, data, put_id, put_ms) \
         SELECT $1, $2, $3, $4, $5, $9, (extract(epoch FROM clock_timestamp()) * 1000)::bigint \
         FROM free RETURNING 1) \
     SELECT (SELECT count(*) FROM known) + (SELECT count(*) FROM put)";

async fn put(
    connection: &mut PgConnection,
    user: &UserId,
    letter: &Letter,
    limits: &LetterLimits,
    name: i64,
) -> Result<Changed, sqlx::Error> {
    let sender = &letter.sender;
    let put = sqlx::query_scalar(PUT)
        .bind(user.as_str())
        .bind(sender.user.as_ref().map_or("", UserId::as_str))
        .bind(letter.at.as_millis())
        .bind(sender.name.as_deref().map(str::as_bytes))
        .bind(&letter.data[..])
        .bind(i64::from(limits.of_user))
        .bind(i64::from(limits.of_pair))
        .bind(i64::from(limits.of_sender))
        .bind(name);
    let is_there: i64 = put.fetch_one(connection).await?;
    Ok(is_there.cast_unsigned().into())
}

fn letter(row: &PgRow) -> Result<Letter, sqlx::Error> {
    let sender: &str = row.try_get("sender")?;
    let user = (!sender.is_empty()).then(|| UserId::parse(sender)).transpose();
    let user = user.map_err(decode_error)?;
    let data = rows::said(row.try_get("data")?)?;
    Ok(Letter {
        sender: Sender { user, name: rows::name(row)?, ..Sender::default() },
        data,
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
    /// Where other nodes give letters, too.
    turns: Option<Arc<Turns>>,
    /// The names of those that may be there, and since when times are counted.
    unsure: Unsure<i64>,
    begun: Instant,
}

impl PostgresInbox {
    /// Those of the archive's schema.
    ///
    /// # Errors
    /// What the database says.
    pub async fn load(archive: Arc<PostgresArchive>) -> Result<Self, ArchiveError> {
        let turns = archive.is_shared().then(|| Turns::run(&archive));
        let (unsure, begun) = (Unsure::default(), Instant::now());
        let this = Self { archive, n: AtomicU64::new(0), turns, unsure, begun };
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
            .bind(i64::try_from(bytes_max).unwrap_or(i64::MAX));
        let page = whole_rows(page, &mut lent.connection);
        let page = within(self.archive.answer_timeout(), page).await;
        lent.back(page)
    }

    async fn change(&self, change: Change) -> Result<u64, ArchiveError> {
        let (job, answer) = Job::new();
        let changed = self.archive.ask(Command::Inbox { change, job }, answer).await;
        changed.map(|changed| changed.n)
    }

    /// The next letters that can be read, and how far they reach.
    async fn page(
        &self,
        user: &UserId,
        mut after: i64,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<(LetterId, Letter)>, InboxError> {
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
        let known = self.unsure.take(user, &letter, self.begun.elapsed());
        let name = known.unwrap_or_else(|| random_bits().cast_signed());
        let has_stood = Arc::new(AtomicBool::new(false));
        let put = || {
            let (user, letter, has_stood) = (user.clone(), letter.clone(), Arc::clone(&has_stood));
            self.change(Change::Put { user, letter, limits, name, has_stood })
        };
        let mut changed = put().await;
        if changed.is_err() && has_stood.load(Ordering::Acquire) {
            // It may be there: then it is found by its name.
            changed = put().await;
        }
        if let Err(error) = &changed
            && (known.is_some() || has_stood.load(Ordering::Acquire))
        {
            self.unsure.note(user, &letter, name, self.begun.elapsed());
            return Err(InboxError::Unsure(error.to_string()));
        }
        let n = changed.map_err(|error| storage(&error))?;
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
        let after = after.map_or(0, |id| i64::try_from(id.0).unwrap_or(i64::MAX));
        let had_turn = self.turns.as_ref().is_none_or(|turns| turns.has(user));
        let mut page = self.page(user, after, limit, bytes_max).await?;
        let Some(turns) = &self.turns else { return Ok(page) };
        if !had_turn && !page.is_empty() {
            if !turns.claim(user).await.map_err(|error| storage(&error))? {
                return Err(InboxError::Elsewhere);
            }
            // Whoever had the turn before may have removed what was just read.
            page = self.page(user, after, limit, bytes_max).await?;
        }
        if page.is_empty() {
            turns.release(user);
        }
        Ok(page)
    }

    fn release(&self, user: &UserId) {
        if let Some(turns) = &self.turns {
            turns.release(user);
        }
    }

    async fn remove(&self, user: &UserId, up_to: LetterId) -> Result<(), InboxError> {
        let removed = self.change(Change::Remove { user: user.clone(), up_to }).await;
        removed.map(|n| self.went(n)).map_err(|error| storage(&error))
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
