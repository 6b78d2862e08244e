//! Sanctions and the log of what moderators did, beside the log of messages: looked up in memory,
//! written through its writers.
//!
//! It must never answer `Ok` to an act that a restart would forget, nor store a sanction without its
//! line in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use application::ports::archive::ArchiveError;
use application::ports::{ActsOfAll, ActsPage, EntryId, Moderation, ReadEntriesError, RecordError};
use application::sanctions::SharedSanctions;
use async_trait::async_trait;
use domain::id::UserId;
use domain::moderation::{Act, Deed, Entry, Sanction, Sanctions, Until};
use domain::position::Position;
use domain::room::RoomId;
use domain::time::Wall;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::archive::PostgresArchive;
use crate::error::{Failure, decode_error, whole_rows, within};
use crate::queue::{Command, Job};
use crate::rows;

/// The most entries of the log; the oldest go first. Some hundreds of megabytes at most.
pub(crate) const ENTRIES_MAX: i64 = 1_000_000;

// The numbers are part of the tables' format: never reuse one.

const fn sanction_to_sql(sanction: Sanction) -> i16 {
    match sanction {
        Sanction::Mute => 0,
        Sanction::Ban => 1,
    }
}

fn sanction(number: i16) -> Result<Sanction, sqlx::Error> {
    [Sanction::Mute, Sanction::Ban]
        .into_iter()
        .find(|sanction| sanction_to_sql(*sanction) == number)
        .ok_or_else(|| decode_error(format!("{number} is no sanction")))
}

const fn act_to_sql(act: &Act) -> i16 {
    match act {
        Act::Mute(..) => 0,
        Act::Unmute(_) => 1,
        Act::Kick(_) => 2,
        Act::Ban(..) => 3,
        Act::Unban(_) => 4,
        Act::Delete(_) => 5,
    }
}

/// A change as the writer carries it out.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Do what the entry says, and write it down.
    Record(Entry),
    /// Delete the sanctions whose time is over.
    Forget(Wall),
}

impl Change {
    /// What it holds in memory while it waits, roughly.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Record(entry) => 1_024 + entry.reason.as_ref().map_or(0, String::len),
            Self::Forget(_) => 512,
        }
    }

    /// Part of the writer's transaction.
    pub(crate) async fn carry_out(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        match self {
            Self::Record(entry) => {
                // First: the set in memory may have made room by these.
                forget(entry.at, connection).await?;
                if write_down(entry, connection).await? {
                    store(entry, connection).await?;
                }
                Ok(())
            }
            Self::Forget(now) => forget(*now, connection).await,
        }
    }
}

/// Deletes the sanctions whose time is over, by the clock of the server, too: those of nodes may be ahead, and
/// all nodes have these.
async fn forget(now: Wall, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let forget = sqlx::query(
        "DELETE FROM sanctions WHERE until_ms <= \
         least($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)",
    );
    forget.bind(now.as_millis()).execute(connection).await.map(drop)
}

/// Does what an act says of its user, unless a later one of its kind is known: nodes bring them in any order. Which is
/// later is found out as in [`Sanctions::apply`].
async fn store(entry: &Entry, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (Some(user), Some(sanction)) = (entry.act.user(), entry.act.sanction()) else {
        return Ok(());
    };
    let query = match entry.until() {
        Some(until) => sqlx::query(
            "INSERT INTO sanctions (kind, room, who, until_ms) SELECT $1, $2, $3, $4 \
             WHERE NOT EXISTS (SELECT 1 FROM moderation_log WHERE room = $2 AND coalesce(who, '') = $3 \
             AND coalesce(order_ms, at_ms) >= $5 AND (coalesce(order_ms, at_ms), act, by_user) > ($5, $7, $8) AND act = ANY($6)) ON CONFLICT (kind, room, who) DO UPDATE SET until_ms = excluded.until_ms",
        )
        .bind(sanction_to_sql(sanction))
        .bind(entry.room.as_str())
        .bind(user.as_str())
        .bind(until.moment().map(Wall::as_millis)),
        None => sqlx::query(
            "DELETE FROM sanctions WHERE kind = $1 AND room = $2 AND who = $3 \
             AND $4::bigint IS NULL \
             AND NOT EXISTS (SELECT 1 FROM moderation_log WHERE room = $2 AND coalesce(who, '') = $3 \
             AND coalesce(order_ms, at_ms) >= $5 AND (coalesce(order_ms, at_ms), act, by_user) > ($5, $7, $8) AND act = ANY($6))",
        )
        .bind(sanction_to_sql(sanction))
        .bind(entry.room.as_str())
        .bind(user.as_str())
        .bind(None::<i64>),
    };
    let acts: &[i16] = match sanction {
        Sanction::Mute => &[0, 1],
        Sanction::Ban => &[3, 4],
    };
    let query = query.bind(entry.order.as_millis()).bind(acts);
    let query = query.bind(act_to_sql(&entry.act)).bind(entry.by.as_str());
    query.execute(connection).await.map(drop)
}

/// Writes an act down. Says no where it stands there already: each node that obeys it brings it as well.
async fn write_down(entry: &Entry, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let position = match &entry.act {
        Act::Delete(position) => Some(*position),
        Act::Mute(..) | Act::Unmute(_) | Act::Kick(_) | Act::Ban(..) | Act::Unban(_) => None,
    };
    let id: Option<i64> = sqlx::query_scalar(
        "INSERT INTO moderation_log \
         (at_ms, by_user, room, act, who, epoch, msg_offset, until_ms, reason, order_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(entry.at.as_millis())
    .bind(entry.by.as_str())
    .bind(entry.room.as_str())
    .bind(act_to_sql(&entry.act))
    .bind(entry.act.user().map(|user| user.as_str()))
    .bind(position.map(|position| position.epoch.bits().cast_signed()))
    .bind(position.map(|position| rows::offset_to_sql(position.offset)))
    .bind(entry.until().and_then(Until::moment).map(Wall::as_millis))
    .bind(entry.reason.as_deref().map(str::as_bytes))
    .bind(entry.order.as_millis())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(id) = id else { return Ok(false) };
    let forget = sqlx::query("DELETE FROM moderation_log WHERE id <= $1");
    forget.bind(id - ENTRIES_MAX).execute(connection).await?;
    Ok(true)
}

fn read_entry(row: &PgRow) -> Result<(EntryId, Entry), sqlx::Error> {
    let id: i64 = row.try_get("id")?;
    let at = Wall::from_millis(row.try_get("at_ms")?);
    let user: Option<&str> = row.try_get("who")?;
    let user = user.map(UserId::parse).transpose().map_err(decode_error)?;
    let until: Option<i64> = row.try_get("until_ms")?;
    let span = until.map(|until| Wall::from_millis(until).since(at));
    let act = match (row.try_get("act")?, user) {
        (0, Some(user)) => Act::Mute(user, span),
        (1, Some(user)) => Act::Unmute(user),
        (2, Some(user)) => Act::Kick(user),
        (3, Some(user)) => Act::Ban(user, span),
        (4, Some(user)) => Act::Unban(user),
        (5, None) => Act::Delete(Position {
            epoch: rows::epoch(row.try_get("epoch")?),
            offset: rows::offset(row.try_get("msg_offset")?)?,
        }),
        (number, _) => {
            let number: i16 = number;
            return Err(decode_error(format!("{number} is no act of a moderator")));
        }
    };
    let by = UserId::parse(row.try_get("by_user")?).map_err(decode_error)?;
    let room = RoomId::parse(row.try_get("room")?).map_err(decode_error)?;
    let reason: Option<Vec<u8>> = row.try_get("reason")?;
    let reason = reason.map(String::from_utf8).transpose().map_err(decode_error)?;
    let order = Wall::from_millis(row.try_get("order_ms")?);
    Ok((EntryId(id.cast_unsigned()), Entry { at, order, by, room, act, reason }))
}

fn read_sanction(row: &PgRow) -> Result<((UserId, RoomId, Sanction), Until), sqlx::Error> {
    let user = UserId::parse(row.try_get("who")?).map_err(decode_error)?;
    let room = RoomId::parse(row.try_get("room")?).map_err(decode_error)?;
    let until: Option<i64> = row.try_get("until_ms")?;
    let until = until.map_or(Until::Lifted, |until| Until::At(Wall::from_millis(until)));
    Ok(((user, room, sanction(row.try_get("kind")?)?), until))
}

/// The newest lines in front of one, and the oldest behind it.
const IN_FRONT: &str = "SELECT id, at_ms, by_user, room, act, who, epoch, msg_offset, until_ms, reason, \
     coalesce(order_ms, at_ms) AS order_ms FROM moderation_log WHERE id < $1 ORDER BY id DESC LIMIT $2";
const BEHIND: &str = "SELECT id, at_ms, by_user, room, act, who, epoch, msg_offset, until_ms, reason, \
     coalesce(order_ms, at_ms) AS order_ms FROM moderation_log WHERE id > $1 ORDER BY id LIMIT $2";

/// Sanctions and their log in the archive's schema.
pub struct PostgresModeration {
    archive: Arc<PostgresArchive>,
    sanctions: SharedSanctions,
    /// The last line of the log before the sanctions were read.
    begin: EntryId,
    /// The last line behind that which can't be read.
    unreadable: AtomicI64,
}

impl PostgresModeration {
    /// Reads the sanctions that are stored.
    ///
    /// # Errors
    /// What the database says; a node that does not know who is banned must not start.
    pub async fn load(archive: Arc<PostgresArchive>) -> Result<Self, ArchiveError> {
        let mut lent = archive.readers.lend().await?;
        // Before: of what is stored in between some is known already, and nothing is passed over.
        let begin = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM moderation_log")
            .fetch_one(&mut lent.connection);
        let begin = within(archive.answer_timeout(), begin).await;
        let begin: i64 = lent.back(begin)?;
        let mut lent = archive.readers.lend().await?;
        let query = sqlx::query("SELECT kind, room, who, until_ms FROM sanctions");
        let rows = whole_rows(query, &mut lent.connection);
        let rows = within(archive.answer_timeout(), rows).await;
        let rows = lent.back(rows)?;
        let mut set = Sanctions::default();
        for row in &rows {
            let (key, until) =
                read_sanction(row).map_err(|error| Failure::from(error).to_archive_error())?;
            // More than the set holds are there only where lifting could not be stored.
            if set.put(key, until, Wall::default()).is_err() {
                tracing::error!("a user is muted or banned whom there is no room to remember");
            }
        }
        let begin = EntryId(begin.cast_unsigned());
        Ok(Self { archive, sanctions: set.into(), begin, unreadable: AtomicI64::new(0) })
    }

    /// Lines of the log on one side of one, the nearest first.
    async fn rows(
        &self,
        side: &'static str,
        of: i64,
        wanted: usize,
    ) -> Result<Vec<PgRow>, ArchiveError> {
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let mut lent = self.archive.readers.lend().await?;
        let query = sqlx::query(side).bind(of).bind(wanted);
        let rows = whole_rows(query, &mut lent.connection);
        let rows = within(self.archive.answer_timeout(), rows).await;
        lent.back(rows)
    }

    /// The number of the log's last line; 0 where it has none.
    async fn newest(&self) -> Result<i64, ArchiveError> {
        let mut lent = self.archive.readers.lend().await?;
        let query = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM moderation_log");
        let newest = query.fetch_one(&mut lent.connection);
        let newest = within(self.archive.answer_timeout(), newest).await;
        lent.back(newest)
    }
}

#[async_trait]
impl Moderation for PostgresModeration {
    fn forbids(&self, user: &UserId, room: &RoomId, deed: Deed, now: Wall) -> Option<Until> {
        self.sanctions.forbids(user, room, deed, now)
    }

    fn bans_in(&self, room: &RoomId) -> bool {
        self.sanctions.bans_in(room)
    }

    async fn record(&self, entry: &Entry) -> Result<(), RecordError> {
        let (job, answer) = Job::new();
        let command = Command::Moderation { change: Change::Record(entry.clone()), job };
        // Queued while the set is held: of two acts at the same time, the table ends with the one that counts.
        let queued =
            self.sanctions.change(|set| set.apply(entry).map(|_| self.archive.send(command)));
        let queued = queued.map_err(|_| RecordError::Full)?;
        let stored = match queued {
            Ok(()) => answer.await.unwrap_or(Err(ArchiveError::Closed)),
            Err(error) => Err(error),
        };
        stored.map_err(|error| RecordError::Storage(error.to_string()))
    }

    async fn read(
        &self,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Vec<(EntryId, Entry)>, ReadEntriesError> {
        let mut before = before.map_or(i64::MAX, |id| i64::try_from(id.0).unwrap_or(i64::MAX));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut entries = Vec::new();
        // A page that is short says that nothing is behind it: what can't be read is no reason for that.
        loop {
            let wanted = limit.saturating_sub(entries.len());
            let rows = self.rows(IN_FRONT, before, wanted).await;
            let rows = rows.map_err(|error| ReadEntriesError(error.to_string()))?;
            for row in &rows {
                before = row.try_get("id").unwrap_or(before);
                match read_entry(row) {
                    Ok(entry) => entries.push(entry),
                    Err(error) => self.archive.status().passed_over("moderation_log", &error),
                }
            }
            if rows.len() < wanted || entries.len() >= limit {
                return Ok(entries);
            }
        }
    }

    async fn forget(&self, now: Wall) {
        if !self.sanctions.forget(now) {
            return;
        }
        let (job, answer) = Job::new();
        let command = Command::Moderation { change: Change::Forget(now), job };
        if let Err(error) = self.archive.ask(command, answer).await {
            // They are over all the same, and go with the next ones.
            tracing::warn!(error = &error as &dyn std::error::Error, "sanctions were not deleted");
        }
    }
}

/// Lines are written in turns, so their numbers rise as they are committed.
#[async_trait]
impl ActsOfAll for PostgresModeration {
    fn begin(&self) -> EntryId {
        self.begin
    }

    async fn read_on(&self, behind: EntryId, limit: u32) -> Result<ActsPage, ReadEntriesError> {
        let mut reached = i64::try_from(behind.0).unwrap_or(i64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let rows = self.rows(BEHIND, reached, limit).await;
        let rows = rows.map_err(|error| ReadEntriesError(error.to_string()))?;
        let mut acts = Vec::with_capacity(rows.len());
        for row in &rows {
            reached = row.try_get("id").unwrap_or(reached);
            match read_entry(row) {
                Ok((_, act)) => acts.push(act),
                // Said once, however often it is looked at.
                Err(error) if self.unreadable.fetch_max(reached, Ordering::Relaxed) < reached => {
                    self.archive.status().passed_over("moderation_log", &error);
                }
                Err(_) => {}
            }
        }
        let (is_end, mut newest) = (rows.len() < limit, reached);
        if rows.is_empty() {
            newest = self.newest().await.map_err(|error| ReadEntriesError(error.to_string()))?;
        }
        let [reached, newest] = [reached, newest].map(|id| EntryId(id.cast_unsigned()));
        Ok(ActsPage { acts, reached, is_end, newest })
    }
}
