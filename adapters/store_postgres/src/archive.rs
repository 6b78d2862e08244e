//! The port's face of the database: hands writes to the writers, reads by itself.
//!
//! It must never write outside the writers' tasks: that would break both the order and the group commit.

use std::sync::Arc;
use std::time::Duration;

use application::ports::archive::{
    Archive, ArchiveError, ArchivePage, ArchiveRecord, DedupKey, Forget, RoomHead,
};
use async_trait::async_trait;
use domain::id::Epoch;
use domain::position::{Offset, Position};
use domain::room::RoomId;
use tokio::sync::{oneshot, watch};

use crate::config::{Config, Sharing};
use crate::connect::Connector;
use crate::error::{Failure, within};
use crate::open::{self, BuildError};
use crate::queue::{Command, Job, Queue};
use crate::read::{self, Wanted};
use crate::readers::Readers;
use crate::status::Status;
use crate::writer::Writer;

/// The archive in a schema of Postgres.
///
/// # What `Ok` means
/// A write is answered once its transaction is committed with `synchronous_commit` on, at a server with
/// `fsync` on: it survives the end of this process, of Postgres and of its machine.
///
/// # Groups
/// Everything that waits while transactions are under way goes into the next, as far as it is about other
/// rooms than they are. A call that breaks the order of its room is refused alone; so is one whose data can't
/// be stored. When the transaction fails for another reason (no space, a connection lost), **all calls of the
/// group fail**. Where a connection is lost with the commit under way nobody knows whether the group is
/// stored; they are answered `Storage`, and may come again.
///
/// # While Postgres is away
/// Everything is refused with `Storage` as soon as one try to connect has failed, and until one succeeds; they
/// go on for ever, at most a second apart. Nothing is kept for later.
pub struct PostgresArchive {
    queue: Arc<Queue>,
    pub(crate) readers: Readers,
    /// One for whoever commits, which must not wait behind those that read histories; none where there is
    /// only one that reads at all.
    seekers: Option<Readers>,
    connector: Arc<Connector>,
    ended: watch::Receiver<()>,
}

impl PostgresArchive {
    /// Reaches the server, brings the schema up to date and starts the writers on the current tokio runtime.
    ///
    /// # Errors
    /// [`BuildError`] says what is wrong, where, and what to do.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let n_writers = config.writers.clamp(1, Config::WRITERS_MAX);
        let status = Arc::new(Status::default());
        let connector = Arc::new(Connector::new(&config, status)?);
        let connection = open::open(&connector, &config).await?;
        let queue = Arc::new(Queue::new(config.limits));
        let (alive, ended) = watch::channel(());
        let alive = Arc::new(alive);
        let mut writers = Vec::new();
        for place in 0..n_writers {
            let connection = connector
                .connect_writer(place)
                .await
                .map_err(|failure| not_taken(&connector, failure))?;
            writers.push(Writer {
                place,
                queue: Arc::clone(&queue),
                connector: Arc::clone(&connector),
                alive: Arc::clone(&alive),
                connection: Some(connection),
            });
        }
        drop(alive);
        // Only now: nobody changes tables that another one has for itself.
        open::migrate(&connector, connection).await?;
        let first = writers.first_mut().and_then(|writer| writer.connection.as_mut());
        if let Some(first) = first.filter(|_| config.sharing == Sharing::Alone) {
            open::forget_empty_rooms(&connector, &mut first.connection).await;
        }
        for writer in writers {
            connector.status.writer_is_up(writer.place, true);
            tokio::spawn(writer.run());
        }
        let made = |n| Readers::new(Arc::clone(&connector), n, config.reads_waiting_max);
        let (readers, seekers) = match config.readers_max {
            0 | 1 => (made(1), None),
            more => (made(more - 1), Some(made(1))),
        };
        Ok(Self { queue, readers, seekers, connector, ended })
    }

    /// Finishes what waits and ends all connections. From its beginning on, every call answers `Closed`.
    /// Closing twice is closing once.
    pub async fn close(&self) {
        self.queue.finish();
        self.readers.close().await;
        if let Some(seekers) = &self.seekers {
            seekers.close().await;
        }
        let mut ended = self.ended.clone();
        // Nothing is ever sent; the error says that the writers are gone.
        while ended.changed().await.is_ok() {}
    }

    /// How it stands with the server.
    #[must_use]
    pub fn status(&self) -> &Arc<Status> {
        &self.connector.status
    }

    /// Where the server is, for people: host, port and database.
    #[must_use]
    pub fn address(&self) -> String {
        self.connector.place()
    }

    /// Whether other nodes may have the tables, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.connector.is_shared()
    }

    /// How long an answer is waited for.
    pub(crate) fn answer_timeout(&self) -> Duration {
        self.connector.patience()
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

fn not_taken(connector: &Connector, failure: Failure) -> BuildError {
    let place = connector.place();
    match failure {
        Failure::Unfit(who) => BuildError::InUse { schema: connector.schema.clone(), place, who },
        other => BuildError::Unreachable { place, source: Box::new(other) },
    }
}

/// An archive that is dropped without `close` still writes what waits, but nobody waits for it.
impl Drop for PostgresArchive {
    fn drop(&mut self) {
        self.queue.finish();
    }
}

#[async_trait]
impl Archive for PostgresArchive {
    async fn open_room(
        &self,
        room: &RoomId,
        fresh: Epoch,
        known: Option<Position>,
    ) -> Result<RoomHead, ArchiveError> {
        let (job, answer) = Job::new();
        self.ask(Command::OpenRoom { room: room.clone(), fresh, known, job }, answer).await
    }

    async fn append(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        let (job, answer) = Job::new();
        self.ask(Command::Append { records: records.into(), job }, answer).await
    }

    async fn find(&self, keys: Vec<DedupKey>) -> Result<Vec<Option<Position>>, ArchiveError> {
        let mut lent = self.seekers.as_ref().unwrap_or(&self.readers).lend().await?;
        let found = within(self.answer_timeout(), read::find(&mut lent.connection, &keys)).await;
        lent.back(found)
    }

    async fn read(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<ArchivePage, ArchiveError> {
        let mut lent = self.readers.lend().await?;
        let wanted = Wanted { room, after, limit, bytes_max };
        let page = read::epoch(&mut lent.connection, &wanted, epoch, self.status());
        let page = within(self.answer_timeout(), page).await;
        lent.back(page)
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
