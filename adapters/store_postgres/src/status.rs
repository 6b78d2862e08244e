//! How the store stands with its server, for readiness and for who counts. It must never block.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is known of the server and counted of it.
#[derive(Debug, Default)]
pub struct Status {
    /// Writers with a connection, a bit for each.
    writers_up: AtomicU64,
    /// How often a writer has lost its connection.
    losses: AtomicU64,
    connects: AtomicU64,
    commits: AtomicU64,
    failures: AtomicU64,
    retries: AtomicU64,
    unreadable: AtomicU64,
}

impl Status {
    /// Whether Postgres answers: what is written now may be expected to be committed. One writer is enough
    /// for that; another one that is on its way back keeps nobody waiting.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.no_writer_is_up()
    }

    /// Connections made.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// Transactions that were committed, and calls that failed.
    #[must_use]
    pub fn commits(&self) -> (u64, u64) {
        (self.commits.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// Transactions that were made again after a failure that passes.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Rows that could not be read and were passed over.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    pub(crate) fn no_writer_is_up(&self) -> bool {
        self.writers_up.load(Ordering::Relaxed) == 0
    }

    /// Said twice is said once.
    pub(crate) fn writer_is_up(&self, writer: usize, is_up: bool) {
        let bit = 1_u64 << (writer % 64);
        if is_up {
            self.writers_up.fetch_or(bit, Ordering::Relaxed);
        } else {
            let before = self.writers_up.fetch_and(!bit, Ordering::Relaxed);
            self.losses.fetch_add(u64::from(before & bit != 0), Ordering::Relaxed);
        }
    }

    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    pub(crate) fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, calls: usize) {
        self.failures.fetch_add(calls as u64, Ordering::Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A row that is none of ours is passed over: it must not keep the others away.
    pub(crate) fn passed_over(&self, table: &'static str, error: &sqlx::Error) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
        tracing::error!(table, %error, "a row could not be read and is passed over");
    }
}
