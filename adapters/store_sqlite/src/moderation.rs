//! Sanctions and the log of what moderators did, beside the log of messages: looked up in memory,
//! written through its writer.
//!
//! It must never answer `Ok` to an act that a restart would forget, nor store a sanction without its
//! line in the log.

use std::sync::Arc;

use application::ports::archive::ArchiveError;
use application::ports::{EntryId, Moderation, ReadEntriesError, RecordError};
use application::sanctions::SharedSanctions;
use async_trait::async_trait;
use domain::id::UserId;
use domain::moderation::{Act, Deed, Entry, Sanction, Sanctions, SanctionsFull, Until};
use domain::position::Position;
use domain::room::RoomId;
use domain::time::Wall;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use crate::archive::SqliteArchive;
use crate::queue::{Command, Job};
use crate::rows::{self, decode_error};
use crate::writer::storage_error;

/// The most entries of the log; the oldest go first. Some hundreds of megabytes at most.
pub(crate) const ENTRIES_MAX: i64 = 1_000_000;

// The numbers are part of the file format: never reuse one.

const fn sanction_to_sql(sanction: Sanction) -> i64 {
    match sanction {
        Sanction::Mute => 0,
        Sanction::Ban => 1,
    }
}

fn sanction(number: i64) -> Result<Sanction, sqlx::Error> {
    [Sanction::Mute, Sanction::Ban]
        .into_iter()
        .find(|sanction| sanction_to_sql(*sanction) == number)
        .ok_or_else(|| decode_error(format!("{number} is no sanction")))
}

const fn act_to_sql(act: &Act) -> i64 {
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
    Record {
        entry: Entry,
        /// Whether no later one about the same is known.
        counts: bool,
    },
    /// Delete the sanctions whose time is over.
    Forget(Wall),
}

impl Change {
    /// What it holds in memory while it waits, roughly.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Record { entry, .. } => 1_024 + entry.reason.as_ref().map_or(0, String::len),
            Self::Forget(_) => 512,
        }
    }

    /// Part of the writer's transaction.
    pub(crate) async fn carry_out(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<(), sqlx::Error> {
        match self {
            Self::Record { entry, counts } => {
                // First: the set in memory may have made room by these.
                forget(entry.at, connection).await?;
                if *counts {
                    store(entry, connection).await?;
                }
                write_down(entry, connection).await
            }
            Self::Forget(now) => forget(*now, connection).await,
        }
    }
}

/// Deletes the sanctions whose time is over.
async fn forget(now: Wall, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let forget = sqlx::query("DELETE FROM sanctions WHERE until_ms <= ?");
    forget.bind(now.as_millis()).execute(connection).await.map(drop)
}

/// Does what an act says of its user.
async fn store(entry: &Entry, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let (Some(user), Some(sanction)) = (entry.act.user(), entry.act.sanction()) else {
        return Ok(());
    };
    let query = match entry.until() {
        Some(until) => sqlx::query(
            "INSERT INTO sanctions (kind, room, user, until_ms) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (kind, room, user) DO UPDATE SET until_ms = excluded.until_ms",
        )
        .bind(sanction_to_sql(sanction))
        .bind(entry.room.as_str().to_owned())
        .bind(user.as_str().to_owned())
        .bind(until.moment().map(Wall::as_millis)),
        None => sqlx::query("DELETE FROM sanctions WHERE kind = ?1 AND room = ?2 AND user = ?3")
            .bind(sanction_to_sql(sanction))
            .bind(entry.room.as_str().to_owned())
            .bind(user.as_str().to_owned()),
    };
    query.execute(connection).await.map(drop)
}

async fn write_down(entry: &Entry, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let position = match &entry.act {
        Act::Delete(position) => Some(*position),
        Act::Mute(..) | Act::Unmute(_) | Act::Kick(_) | Act::Ban(..) | Act::Unban(_) => None,
    };
    let done = sqlx::query(
        "INSERT INTO moderation_log \
         (at_ms, by_user, room, act, user, epoch, offset, until_ms, reason) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(entry.at.as_millis())
    .bind(entry.by.as_str().to_owned())
    .bind(entry.room.as_str().to_owned())
    .bind(act_to_sql(&entry.act))
    .bind(entry.act.user().map(|user| user.as_str().to_owned()))
    .bind(position.map(|position| position.epoch.bits().cast_signed()))
    .bind(position.map(|position| rows::offset_to_sql(position.offset)))
    .bind(entry.until().and_then(Until::moment).map(Wall::as_millis))
    .bind(entry.reason.clone())
    .execute(&mut *connection)
    .await?;
    let forget = sqlx::query("DELETE FROM moderation_log WHERE id <= ?");
    forget.bind(done.last_insert_rowid() - ENTRIES_MAX).execute(connection).await.map(drop)
}

fn read_entry(row: &SqliteRow) -> Result<(EntryId, Entry), sqlx::Error> {
    let id: i64 = row.try_get("id")?;
    let at = Wall::from_millis(row.try_get("at_ms")?);
    let user: Option<&str> = row.try_get("user")?;
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
            offset: rows::offset(row.try_get("offset")?)?,
        }),
        (number, _) => {
            let number: i64 = number;
            return Err(decode_error(format!("{number} is no act of a moderator")));
        }
    };
    let by = UserId::parse(row.try_get("by_user")?).map_err(decode_error)?;
    let room = RoomId::parse(row.try_get("room")?).map_err(decode_error)?;
    let reason = row.try_get("reason")?;
    // The file has one writer: what counts was found out before it was written.
    Ok((EntryId(id.cast_unsigned()), Entry { at, order: at, by, room, act, reason }))
}

fn read_sanction(row: &SqliteRow) -> Result<((UserId, RoomId, Sanction), Until), sqlx::Error> {
    let user = UserId::parse(row.try_get("user")?).map_err(decode_error)?;
    let room = RoomId::parse(row.try_get("room")?).map_err(decode_error)?;
    let until: Option<i64> = row.try_get("until_ms")?;
    let until = until.map_or(Until::Lifted, |until| Until::At(Wall::from_millis(until)));
    Ok(((user, room, sanction(row.try_get("kind")?)?), until))
}

/// Sanctions and their log in the archive's file.
pub struct SqliteModeration {
    archive: Arc<SqliteArchive>,
    sanctions: SharedSanctions,
}

impl SqliteModeration {
    /// Reads the sanctions that are stored.
    ///
    /// # Errors
    /// What the database says; a node that does not know who is banned must not start.
    pub async fn load(archive: Arc<SqliteArchive>) -> Result<Self, ArchiveError> {
        let rows = sqlx::query("SELECT * FROM sanctions").fetch_all(archive.pools.readers()).await;
        let rows = rows.map_err(|error| storage_error(&error))?;
        let mut set = Sanctions::default();
        for row in &rows {
            let (key, until) = read_sanction(row).map_err(|error| storage_error(&error))?;
            // More than the set holds are there only where lifting could not be stored.
            if set.put(key, until, Wall::default()).is_err() {
                tracing::error!("a user is muted or banned whom there is no room to remember");
            }
        }
        Ok(Self { archive, sanctions: set.into() })
    }
}

#[async_trait]
impl Moderation for SqliteModeration {
    fn forbids(&self, user: &UserId, room: &RoomId, deed: Deed, now: Wall) -> Option<Until> {
        self.sanctions.forbids(user, room, deed, now)
    }

    fn bans_in(&self, room: &RoomId) -> bool {
        self.sanctions.bans_in(room)
    }

    async fn record(&self, entry: &Entry) -> Result<(), RecordError> {
        let (job, answer) = Job::new();
        // Queued while the set is held: of two acts at the same time, the file ends with the one that counts.
        let queued = self.sanctions.change(|set| {
            let counts = set.apply(entry)?;
            let change = Change::Record { entry: entry.clone(), counts };
            Ok::<_, SanctionsFull>(self.archive.send(Command::Moderation { change, job }))
        });
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
        let query =
            sqlx::query("SELECT * FROM moderation_log WHERE id < ? ORDER BY id DESC LIMIT ?");
        let before = before.map_or(i64::MAX, |id| id.0.cast_signed());
        let rows = query.bind(before).bind(limit).fetch_all(self.archive.pools.readers()).await;
        let entries = rows.and_then(|rows| rows.iter().map(read_entry).collect());
        entries.map_err(|error| ReadEntriesError(storage_error(&error).to_string()))
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
