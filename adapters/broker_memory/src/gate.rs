//! One asks the archive about a room, and everybody else who wants to know waits for that answer.
//!
//! It must never let a crowd repeat a question that has just failed, one after the other.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The way to one room's archive.
#[derive(Debug)]
pub(crate) struct Gate {
    turn: Semaphore,
    failures: AtomicU64,
}

impl Default for Gate {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), failures: AtomicU64::new(0) }
    }
}

/// The right to ask. Dropping it, finished or not, gives it to the next.
pub(crate) struct Turn<'a> {
    gate: &'a Gate,
    _permit: SemaphorePermit<'a>,
}

impl Gate {
    /// Waits for the turn. None when somebody asked in the meantime and got no answer: it counts
    /// for all who waited.
    pub(crate) async fn enter(&self) -> Option<Turn<'_>> {
        let failures = self.failures.load(Ordering::Acquire);
        let permit = self.turn.acquire().await.ok()?;
        let same = self.failures.load(Ordering::Acquire) == failures;
        same.then_some(Turn { gate: self, _permit: permit })
    }
}

impl Turn<'_> {
    /// There was no answer.
    pub(crate) fn fail(self) {
        self.gate.failures.fetch_add(1, Ordering::AcqRel);
    }
}
