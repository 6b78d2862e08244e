//! One asks the archive to begin a room's next life, and everybody else who waits for that takes what came of it.
//!
//! It must never let a crowd repeat a question that has just failed, one after the other, and never grow with rooms.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use domain::room::RoomId;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Rooms that share one wait for each other: so many lives begin at once.
const GATES: usize = 64;

pub(crate) struct Gates {
    gates: Vec<Gate>,
    hasher: RandomState,
}

struct Gate {
    turn: Semaphore,
    failures: AtomicU64,
}

/// The right to ask. Dropping it, finished or not, gives it to the next.
pub(crate) struct Turn<'a> {
    gate: &'a Gate,
    _permit: SemaphorePermit<'a>,
}

impl Gates {
    pub(crate) fn new() -> Self {
        let gate = |_| Gate { turn: Semaphore::new(1), failures: AtomicU64::new(0) };
        Self { gates: (0..GATES).map(gate).collect(), hasher: RandomState::new() }
    }

    /// Waits for the turn. None when somebody asked in the meantime and got no answer: it counts for all who
    /// waited.
    pub(crate) async fn enter(&self, room: &RoomId) -> Option<Turn<'_>> {
        let place = self.hasher.hash_one(room) % GATES as u64;
        let gate = self.gates.get(usize::try_from(place).ok()?)?;
        let failures = gate.failures.load(Ordering::Acquire);
        let permit = gate.turn.acquire().await.ok()?;
        let is_same = gate.failures.load(Ordering::Acquire) == failures;
        is_same.then_some(Turn { gate, _permit: permit })
    }
}

impl Turn<'_> {
    /// There was no answer.
    pub(crate) fn fail(self) {
        self.gate.failures.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waited_while_it_failed_does_not_ask_again_and_who_comes_later_does() {
        let gates = Gates::new();
        let room = RoomId::parse("chat:a").unwrap();
        let first = gates.enter(&room).await.unwrap();
        let waits = gates.enter(&room);
        let fail = async { first.fail() };
        let (waited, ()) = tokio::join!(biased; waits, fail);
        assert!(waited.is_none());
        assert!(gates.enter(&room).await.is_some());
    }
}
