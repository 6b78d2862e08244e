//! The port's face of the database: hands writes to the writer, reads by itself.
//!
//! It must never write outside the writer's task: that would break both the order and the group
//! commit.

use std::sync::Arc;

use application::ports::archive::{
    Archive, ArchiveError, ArchivePage, ArchiveRecord, DedupKey, Forget, RoomHead,
};
use async_trait::async_trait;
use domain::id::Epoch;
use domain::position::{Offset, Position};
use domain::room::RoomId;
use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use tokio::sync::{oneshot, watch};

use crate::config::Config;
use crate::open::{self, BuildError, Pools};
use crate::queue::{Command, Job, Queue};
use crate::rows::{self, CHUNK, Statements};
use crate::writer::{Writer, storage_error};

/// The archive on one SQLite file.
///
/// # What `Ok` means
/// A write is answered once its transaction is committed with `synchronous=FULL`: SQLite has
/// then flushed its write-ahead log to the disk, so the records survive the end of the process
/// and a power cut alike. `NORMAL` would survive the first only; the flush it saves is paid once
/// per group here, whatever the number of calls in it.
///
/// # Groups
/// Everything that waits while one transaction commits goes into the next. A call that breaks
/// the order of its room is refused alone; when the transaction itself fails (disk full, I/O
/// error, a `msg_id` that is stored already), **all calls of the group fail** and nothing of any
/// of them is stored. They may come again.
pub struct SqliteArchive {
    queue: Arc<Queue>,
    pub(crate) pools: Pools,
    pub(crate) statements: Statements,
    ended: watch::Receiver<()>,
}

impl SqliteArchive {
    /// Opens the log, making the directory and the file if they are missing, and starts the
    /// writer on the current tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`] says what is wrong, where, and what to do.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let (pools, lock) = open::open(&config.place).await?;
        let queue = Arc::new(Queue::new(config.limits));
        let (alive, ended) = watch::channel(());
        let writer = Writer { queue: Arc::clone(&queue), pools: pools.clone(), lock, alive };
        tokio::spawn(writer.run());
        Ok(Self { queue, pools, statements: Statements::new(), ended })
    }

    /// Finishes what waits, moves the write-ahead log into the database and gives the directory
    /// back. From its beginning on, every call answers `Closed`. Closing twice is closing once.
    pub async fn close(&self) {
        self.queue.finish();
        let mut ended = self.ended.clone();
        // Nothing is ever sent; the error says that the writer is gone.
        while ended.changed().await.is_ok() {}
    }

    /// Queues a command without waiting for what comes of it.
    pub(crate) fn send(&self, command: Command) -> Result<(), ArchiveError> {
        self.queue.push(command)
    }

    pub(crate) async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<T, ArchiveError>>,
    ) -> Result<T, ArchiveError> {
        self.send(command)?;
        answer.await.unwrap_or(Err(ArchiveError::Closed))
    }
}

/// An archive that is dropped without `close` still writes what waits, but nobody waits for it.
impl Drop for SqliteArchive {
    fn drop(&mut self) {
        self.queue.finish();
    }
}

#[async_trait]
impl Archive for SqliteArchive {
    /// The file is nobody else's while it is open, so it has whatever a caller can know.
    async fn open_room(
        &self,
        room: &RoomId,
        fresh: Epoch,
        _known: Option<Position>,
    ) -> Result<RoomHead, ArchiveError> {
        let (job, answer) = Job::new();
        self.ask(Command::OpenRoom { room: room.clone(), fresh, job }, answer).await
    }

    async fn append(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        let (job, answer) = Job::new();
        self.ask(Command::Append { records, job }, answer).await
    }

    async fn find(&self, keys: Vec<DedupKey>) -> Result<Vec<Option<Position>>, ArchiveError> {
        self.find_all(&keys).await.map_err(|error| storage_error(&error))
    }

    async fn read(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<ArchivePage, ArchiveError> {
        let page = self.read_page(room, epoch, after, limit, bytes_max).await;
        page.map_err(|error| storage_error(&error))
    }

    async fn forget(&self, room: &RoomId, what: Forget) -> Result<(), ArchiveError> {
        loop {
            let (job, answer) = Job::new();
            let forget = Command::Forget { room: room.clone(), what, job };
            // One step at a time through the queue, so that writes come between the steps.
            if !self.ask(forget, answer).await? {
                return Ok(());
            }
        }
    }
}

impl SqliteArchive {
    async fn find_all(&self, keys: &[DedupKey]) -> Result<Vec<Option<Position>>, sqlx::Error> {
        let mut connection = self.pools.readers().acquire().await?;
        let mut found = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let from = found.len();
            found.resize(from + chunk.len(), None);
            let query = self.statements.find_messages(chunk);
            for row in query.fetch_all(&mut *connection).await? {
                let place: u32 = row.try_get("place")?;
                let position = Position {
                    epoch: rows::epoch(row.try_get("epoch")?),
                    offset: rows::offset(row.try_get("offset")?)?,
                };
                if let Some(found) = found.get_mut(from + place as usize) {
                    *found = Some(position);
                }
            }
        }
        Ok(found)
    }

    /// One statement, so that `first` and the messages are of one moment even while a trim runs.
    async fn read_page(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<ArchivePage, sqlx::Error> {
        let mut connection = self.pools.readers().acquire().await?;
        let mut found = sqlx::query(
            "SELECT rooms.last_offset, (SELECT min(offset) FROM messages \
             WHERE room_id = (SELECT id FROM rooms WHERE room = ?1) AND epoch = ?2) AS first, \
             messages.* FROM rooms LEFT JOIN messages \
             ON messages.room_id = rooms.id AND messages.epoch = ?2 AND messages.offset > ?3 \
             WHERE rooms.room = ?1 ORDER BY messages.offset LIMIT ?4",
        )
        .bind(room.as_str().to_owned())
        .bind(epoch.bits().cast_signed())
        .bind(rows::offset_to_sql(after))
        // The bounds are read even where no message is wanted.
        .bind(limit.max(1))
        .fetch(&mut *connection);
        let mut bytes = 0_usize;
        let mut page = ArchivePage { first: after_last(Offset::ZERO), messages: Vec::new() };
        while let Some(row) = found.try_next().await? {
            page.first = match row.try_get("first")? {
                Some(first) => rows::offset(first)?,
                None => after_last(rows::offset(row.try_get("last_offset")?)?),
            };
            let offset: Option<i64> = row.try_get("offset")?;
            if offset.is_none() || limit == 0 {
                break;
            }
            bytes = bytes.saturating_add(row.try_get::<&[u8], _>("data")?.len());
            if bytes > bytes_max && !page.messages.is_empty() {
                // The statement ends with its stream: what lies behind is never loaded.
                break;
            }
            page.messages.push(rows::publication(room, &row)?);
        }
        Ok(page)
    }
}

/// A full log has nothing behind its last offset; then the last one stands for it.
fn after_last(last: Offset) -> Offset {
    last.next().unwrap_or(last)
}
