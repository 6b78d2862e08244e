//! The connections that read: a few, lent one call at a time.
//!
//! A connection whose call did not come to its end is never lent again: what is left on it would be taken
//! for the next answer. It must never let more callers wait than it was told, nor any for longer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use application::ports::archive::ArchiveError;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::connect::Connector;
use crate::error::{Failure, Remedy, within};

pub(crate) struct Readers {
    connector: Arc<Connector>,
    permits: Semaphore,
    /// Each with how often a writer had lost its connection when it was given back. Held for a push or a pop only.
    idle: Mutex<Vec<(u64, PgConnection)>>,
    n_waiting: AtomicUsize,
    waiting_max: usize,
    closed: AtomicBool,
}

/// A connection for one call. Dropped, it is closed.
pub(crate) struct Lent<'r> {
    pub(crate) connection: PgConnection,
    readers: &'r Readers,
    _permit: SemaphorePermit<'r>,
}

/// One caller that waits.
struct Waits<'r>(&'r AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Readers {
    pub(crate) fn new(connector: Arc<Connector>, readers_max: usize, waiting_max: usize) -> Self {
        Self {
            connector,
            permits: Semaphore::new(readers_max.max(1)),
            idle: Mutex::default(),
            n_waiting: AtomicUsize::new(0),
            waiting_max,
            closed: AtomicBool::new(false),
        }
    }

    /// Lends a connection, a new one where none is idle. Fails at once while the server is known to be
    /// away.
    pub(crate) async fn lend(&self) -> Result<Lent<'_>, ArchiveError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ArchiveError::Closed);
        }
        if self.connector.status.no_writer_is_up() {
            return Err(ArchiveError::Storage("Postgres is away".to_owned()));
        }
        let waits = Waits(&self.n_waiting);
        if self.n_waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            return Err(ArchiveError::Overloaded);
        }
        let permit = tokio::time::timeout(self.connector.answer_timeout, self.permits.acquire());
        let permit = permit.await.map_err(|_| ArchiveError::Overloaded)?;
        let permit = permit.map_err(|_| ArchiveError::Closed)?;
        drop(waits);
        let idle = self.newest();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let made = self.connector.connect().await;
                made.map_err(|failure| self.failed(&failure))?.connection
            }
        };
        Ok(Lent { connection, readers: self, _permit: permit })
    }

    /// An idle connection, unless a writer has lost its own since: then these are lost as well.
    fn newest(&self) -> Option<PgConnection> {
        let losses = self.connector.status.losses();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(before, _)| *before == losses);
        idle.pop().map(|(_, connection)| connection)
    }

    fn failed(&self, failure: &Failure) -> ArchiveError {
        self.connector.status.failed(1);
        failure.to_archive_error()
    }

    /// Ends what is idle; nothing is lent any more.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, connection) in idle {
            drop(within(self.connector.answer_timeout, connection.close()).await);
        }
    }
}

impl Lent<'_> {
    /// Makes one call and gives the connection back, if it is of use still.
    pub(crate) fn back<T>(self, result: Result<T, Failure>) -> Result<T, ArchiveError> {
        let Self { connection, readers, _permit } = self;
        let is_useless =
            result.as_ref().is_err_and(|failure| failure.remedy() == Remedy::Reconnect);
        if !is_useless && !readers.closed.load(Ordering::Acquire) {
            let losses = readers.connector.status.losses();
            let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((losses, connection));
        } else if result.as_ref().is_err_and(Failure::is_end_of_server) {
            // The others are as old, and were lost with the same server.
            readers.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        result.map_err(|failure| readers.failed(&failure))
    }
}
