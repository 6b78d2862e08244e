//! The one task that writes: takes whatever waits, makes it one transaction, then answers.
//!
//! It must never answer before the commit, and never delay an idle disk to gather more: what
//! arrives during one commit is the next group.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::sync::Arc;

use application::ports::archive::{ArchiveError, ArchiveRecord, Forget, RoomHead};
use domain::id::Epoch;
use domain::message::TombstoneReason;
use domain::position::{Offset, Position};
use domain::room::RoomId;
use domain::time::Wall;
use sqlx::{Row as _, SqliteConnection};
use tokio::sync::watch;

use crate::matches;
use crate::open::Pools;
use crate::queue::{Command, Queue};
use crate::revocations;
use crate::rows::{self, CHUNK, NewRow, Statements};

/// The most messages that one step of a trim looks at, so that writes never wait long behind it.
pub(crate) const TRIM_ROWS_MAX: u16 = 512;

/// The writer and what it owns until its end.
pub(crate) struct Writer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) pools: Pools,
    /// The lock on the data directory; given back last.
    pub(crate) lock: Option<File>,
    /// Dropped at the end, however it comes; that is what `close` waits for.
    pub(crate) alive: watch::Sender<()>,
}

/// Whatever ends the writer, a panic too, nobody waits for it in vain.
struct AbandonOnDrop(Arc<Queue>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Writer {
    /// Works until the queue is finished and empty, then checkpoints and closes the database.
    pub(crate) async fn run(self) {
        let Self { queue, pools, lock, alive } = self;
        let guard = AbandonOnDrop(Arc::clone(&queue));
        let statements = Statements::new();
        while let Some(mut commands) = queue.take().await {
            let result = commit(&pools, &statements, &mut commands).await;
            let failure = result.err().map(|error| storage_error(&error));
            for command in commands {
                command.answer(failure.as_ref());
            }
        }
        pools.close().await;
        drop(guard);
        drop(lock);
        drop(alive);
    }
}

/// Does all commands in one transaction. `BEGIN` and its end are plain statements: when SQLite
/// itself rolls back (disk full, I/O error), a transaction object of sqlx would keep counting
/// itself as open and refuse every later one.
async fn commit(
    pools: &Pools,
    statements: &Statements,
    commands: &mut [Command],
) -> Result<(), sqlx::Error> {
    let mut connection = pools.writer.acquire().await?;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let rooms = HashMap::new();
    let mut batch = Batch { connection: &mut connection, statements, rooms, rows: Vec::new() };
    let result = batch.apply_all(commands).await;
    let result = match result {
        Ok(()) => sqlx::query("COMMIT").execute(&mut *connection).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = &result {
        // Fails when SQLite has rolled back already, which is just as well.
        drop(sqlx::query("ROLLBACK").execute(&mut *connection).await);
        if matches!(error, sqlx::Error::WorkerCrashed) {
            // The connection's thread is gone; the pool opens another.
            drop(connection.close().await);
        }
    }
    result
}

/// A room as the transaction sees it.
struct StoredRoom {
    id: i64,
    head: RoomHead,
    /// Whether `head.last` is ahead of the table.
    moved: bool,
}

struct Batch<'b> {
    connection: &'b mut SqliteConnection,
    statements: &'b Statements,
    /// Every room that the commands name and that exists.
    rooms: HashMap<RoomId, StoredRoom>,
    /// Checked, not yet inserted.
    rows: Vec<NewRow>,
}

impl Batch<'_> {
    async fn apply_all(&mut self, commands: &mut [Command]) -> Result<(), sqlx::Error> {
        self.load_rooms(commands).await?;
        for command in commands {
            match command {
                Command::OpenRoom { room, fresh, job } => {
                    job.outcome = Ok(self.open_room(room, *fresh).await?);
                }
                Command::Append { records, job } => {
                    // A call that breaks the order is the caller's fault: it alone is refused.
                    job.outcome = self.append(std::mem::take(records));
                }
                Command::Forget { room, what, job } => {
                    job.outcome = Ok(match *what {
                        Forget::Old { first, before } => self.trim(room, first, before).await?,
                        Forget::Message(position) => self.erase(room, position).await?,
                    });
                }
                Command::Revoke { row, job } => {
                    job.outcome = Ok(row.store(self.connection).await?);
                }
                Command::Inbox { change, job } => {
                    job.outcome = Ok(change.carry_out(self.connection).await?);
                }
                Command::Moderation { change, job } => {
                    job.outcome = Ok(change.carry_out(self.connection).await?);
                }
                Command::ForgetRevocations { until, job } => {
                    job.outcome = Ok(revocations::forget(self.connection, *until).await?);
                }
                Command::Spend(spend) => spend.apply(self.connection).await?,
                Command::Matches { order, job } => {
                    for id in &order.delete {
                        matches::delete(self.connection, id).await?;
                    }
                    if let Some(put) = &order.put {
                        matches::store(self.connection, put).await?;
                    }
                    job.outcome = Ok(());
                }
            }
        }
        self.insert_rows().await?;
        self.move_heads().await
    }

    async fn load_rooms(&mut self, commands: &[Command]) -> Result<(), sqlx::Error> {
        let mut names = BTreeSet::new();
        for command in commands {
            match command {
                Command::OpenRoom { room, .. } | Command::Forget { room, .. } => {
                    names.insert(room.clone());
                }
                Command::Append { records, .. } => {
                    names.extend(records.iter().map(|record| record.publication.room.clone()));
                }
                Command::Revoke { .. }
                | Command::ForgetRevocations { .. }
                | Command::Inbox { .. }
                | Command::Moderation { .. }
                | Command::Matches { .. }
                | Command::Spend(_) => {}
            }
        }
        let names: Vec<RoomId> = names.into_iter().collect();
        for chunk in names.chunks(CHUNK) {
            let found = self.statements.find_rooms(chunk).fetch_all(&mut *self.connection).await?;
            for row in found {
                let name: &str = row.try_get("room")?;
                let room = RoomId::parse(name).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
                let last = rows::offset(row.try_get("last_offset")?)?;
                let head = RoomHead::new(rows::epoch(row.try_get("epoch")?), last);
                self.rooms.insert(room, StoredRoom { id: row.try_get("id")?, head, moved: false });
            }
        }
        Ok(())
    }

    async fn open_room(&mut self, room: &RoomId, fresh: Epoch) -> Result<RoomHead, sqlx::Error> {
        if let Some(stored) = self.rooms.get(room) {
            return Ok(stored.head);
        }
        let done = sqlx::query("INSERT INTO rooms (room, epoch, last_offset) VALUES (?, ?, 0)")
            .bind(room.as_str().to_owned())
            .bind(fresh.bits().cast_signed())
            .execute(&mut *self.connection)
            .await?;
        let head = RoomHead::new(fresh, Offset::ZERO);
        let stored = StoredRoom { id: done.last_insert_rowid(), head, moved: false };
        self.rooms.insert(room.clone(), stored);
        Ok(head)
    }

    /// Checks that every record is the next of its room, and only then moves the heads: a refused
    /// call leaves no trace.
    fn append(&mut self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        let mut lasts: HashMap<&RoomId, Offset> = HashMap::new();
        for record in &records {
            let publication = &record.publication;
            let Some(stored) = self.rooms.get(&publication.room) else {
                return Err(refused(record, "its room was never opened"));
            };
            if publication.epoch != stored.head.epoch {
                return Err(refused(record, "its room has another epoch"));
            }
            let last = lasts.entry(&publication.room).or_insert(stored.head.last);
            match publication.offset {
                Some(offset) if last.next() == Some(offset) => *last = offset,
                Some(_) | None => {
                    return Err(refused(record, &format!("its room ends at {}", last.get())));
                }
            }
        }
        for record in records {
            let publication = &record.publication;
            // Both were checked above.
            let stored = self.rooms.get_mut(&publication.room);
            if let (Some(stored), Some(offset)) = (stored, publication.offset) {
                stored.head.last = offset;
                stored.moved = true;
                self.rows.push(NewRow { room_id: stored.id, offset, record });
            }
        }
        Ok(())
    }

    async fn insert_rows(&mut self) -> Result<(), sqlx::Error> {
        let rows = std::mem::take(&mut self.rows);
        let (chunks, rest) = rows.as_chunks::<CHUNK>();
        for chunk in chunks {
            self.statements.insert_messages(chunk).execute(&mut *self.connection).await?;
        }
        for row in rest {
            let row = std::slice::from_ref(row);
            self.statements.insert_messages(row).execute(&mut *self.connection).await?;
        }
        Ok(())
    }

    async fn move_heads(&mut self) -> Result<(), sqlx::Error> {
        let moved = self.rooms.values().filter(|stored| stored.moved);
        let heads: Vec<(i64, Offset)> = moved.map(|room| (room.id, room.head.last)).collect();
        for chunk in heads.chunks(CHUNK) {
            self.statements.move_heads(chunk).execute(&mut *self.connection).await?;
        }
        Ok(())
    }

    /// Forgets the oldest messages that are below `first` or older than `before`, stopping at the
    /// first that is neither: a hole would be worse than a message kept too long. Answers whether
    /// it stopped only because it had looked at enough.
    async fn trim(
        &mut self,
        room: &RoomId,
        first: Offset,
        before: Wall,
    ) -> Result<bool, sqlx::Error> {
        self.insert_rows().await?;
        let Some(stored) = self.rooms.get(room) else { return Ok(false) };
        let epoch = stored.head.epoch.bits().cast_signed();
        let oldest: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT offset, at_ms FROM messages WHERE room_id = ? AND epoch = ? \
             ORDER BY offset LIMIT ?",
        )
        .bind(stored.id)
        .bind(epoch)
        .bind(TRIM_ROWS_MAX)
        .fetch_all(&mut *self.connection)
        .await?;
        let goes = |&&(offset, at): &&(i64, i64)| {
            offset < rows::offset_to_sql(first) || at < before.as_millis()
        };
        let gone = oldest.iter().take_while(goes).count();
        let Some((last_gone, _)) = gone.checked_sub(1).and_then(|last| oldest.get(last)) else {
            return Ok(false);
        };
        sqlx::query("DELETE FROM messages WHERE room_id = ? AND epoch = ? AND offset <= ?")
            .bind(stored.id)
            .bind(epoch)
            .bind(last_gone)
            .execute(&mut *self.connection)
            .await?;
        Ok(gone == usize::from(TRIM_ROWS_MAX))
    }

    /// Takes what one message said out of its row. There is never more to do.
    async fn erase(&mut self, room: &RoomId, position: Position) -> Result<bool, sqlx::Error> {
        self.insert_rows().await?;
        let Some(stored) = self.rooms.get(room) else { return Ok(false) };
        let erase = sqlx::query(
            "UPDATE messages SET tombstone = ?, data = x'', tags = NULL, expires_at_ms = NULL \
             WHERE room_id = ? AND epoch = ? AND offset = ? AND tombstone IS NULL",
        );
        erase
            .bind(rows::tombstone_to_sql(TombstoneReason::Deleted))
            .bind(stored.id)
            .bind(position.epoch.bits().cast_signed())
            .bind(rows::offset_to_sql(position.offset))
            .execute(&mut *self.connection)
            .await?;
        Ok(false)
    }
}

fn refused(record: &ArchiveRecord, why: &str) -> ArchiveError {
    let publication = &record.publication;
    let offset = publication.offset.map_or(0, Offset::get);
    ArchiveError::Storage(format!(
        "refused offset {offset} of epoch {} in {}: {why}",
        publication.epoch, publication.room
    ))
}

/// The text is for the log; what the caller can do about it is the same for all of them.
pub(crate) fn storage_error(error: &sqlx::Error) -> ArchiveError {
    match error {
        sqlx::Error::PoolClosed => ArchiveError::Closed,
        // All readers are busy for longer than a caller should wait.
        sqlx::Error::PoolTimedOut => ArchiveError::Overloaded,
        other => ArchiveError::Storage(other.to_string()),
    }
}
