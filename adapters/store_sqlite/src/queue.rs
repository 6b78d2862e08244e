//! What waits for the writer: bounded by records and by bytes, in the order it came.
//!
//! It must never make a caller wait for room: what does not fit is refused at once. No caller is
//! left without an answer: commands that are dropped drop their reply.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use application::ports::archive::{ArchiveError, ArchiveRecord, Forget, RoomHead, record_bytes};
use domain::id::Epoch;
use domain::room::RoomId;
use domain::time::Wall;
use tokio::sync::{Notify, oneshot};

use crate::config::Limits;
use crate::inbox::{Change, Changed};
use crate::matches::Order;
use crate::moderation;
use crate::revocations::Row;
use crate::spent_tokens::Spend;

/// What the writer is asked for.
pub(crate) enum Command {
    /// Find or make a room.
    OpenRoom { room: RoomId, fresh: Epoch, job: Job<RoomHead> },
    /// Store all records or none.
    Append { records: Vec<ArchiveRecord>, job: Job<()> },
    /// Forget one chunk, or one message; answers whether there may be more to forget.
    Forget { room: RoomId, what: Forget, job: Job<bool> },
    /// Store a revocation.
    Revoke { row: Row, job: Job<()> },
    /// Change an inbox; answers what became of it.
    Inbox { change: Change, job: Job<Changed> },
    /// Remember what a moderator did, or forget sanctions that are over.
    Moderation { change: moderation::Change, job: Job<()> },
    /// Delete the revocations whose time is over.
    ForgetRevocations { until: Wall, job: Job<()> },
    /// Spend a token, or only forget what is over of those that are spent.
    Spend(Spend),
    /// Change the table of matches.
    Matches { order: Order, job: Job<()> },
}

impl Command {
    fn weight(&self) -> Weight {
        match self {
            // What a command without messages holds, roughly; it must not be free.
            Self::OpenRoom { .. }
            | Self::Forget { .. }
            | Self::Revoke { .. }
            | Self::ForgetRevocations { .. }
            | Self::Spend(_) => Weight { records: 1, bytes: 512 },
            Self::Moderation { change, .. } => Weight { records: 1, bytes: change.bytes() },
            Self::Inbox { change, .. } => Weight { records: 1, bytes: change.bytes() },
            Self::Append { records, .. } => Weight {
                records: records.len().max(1),
                bytes: records.iter().map(record_bytes).sum(),
            },
            Self::Matches { order, .. } => Weight { records: 1, bytes: order.bytes() },
        }
    }

    /// Answers the caller: with the failure of the whole transaction, else with its own outcome.
    pub(crate) fn answer(self, failure: Option<&ArchiveError>) {
        match self {
            Self::OpenRoom { job, .. } => job.answer(failure),
            Self::Append { job, .. }
            | Self::Revoke { job, .. }
            | Self::ForgetRevocations { job, .. }
            | Self::Moderation { job, .. }
            | Self::Matches { job, .. } => job.answer(failure),
            Self::Forget { job, .. } => job.answer(failure),
            Self::Inbox { job, .. } => job.answer(failure),
            Self::Spend(spend) => spend.answer(failure),
        }
    }
}

/// A caller's half-finished answer: the outcome is told only once the transaction is committed.
pub(crate) struct Job<T> {
    pub(crate) outcome: Result<T, ArchiveError>,
    reply: oneshot::Sender<Result<T, ArchiveError>>,
}

impl<T> Job<T> {
    /// A job and the end at which its caller waits.
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<T, ArchiveError>>) {
        let (reply, answer) = oneshot::channel();
        (Self { outcome: Err(ArchiveError::Closed), reply }, answer)
    }

    pub(crate) fn answer(self, failure: Option<&ArchiveError>) {
        let answer = failure.map_or(self.outcome, |failure| Err(failure.clone()));
        // A caller that no longer listens is not an error; its records are stored all the same.
        drop(self.reply.send(answer));
    }
}

#[derive(Clone, Copy, Default)]
struct Weight {
    records: usize,
    bytes: usize,
}

impl Weight {
    const fn plus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_add(other.records),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_sub(other.records),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    const fn fits(self, records_max: usize, bytes_max: usize) -> bool {
        self.records <= records_max && self.bytes <= bytes_max
    }
}

/// The queue between callers and the writer.
pub(crate) struct Queue {
    limits: Limits,
    // Held for a push or a take only, never across an await.
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Command>,
    weight: Weight,
    finished: bool,
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default(), wake: Notify::new() }
    }

    /// Puts a command behind the others, or refuses it at once.
    pub(crate) fn push(&self, command: Command) -> Result<(), ArchiveError> {
        let mut state = self.state();
        if state.finished {
            return Err(ArchiveError::Closed);
        }
        let weight = state.weight.plus(command.weight());
        let fits = weight.fits(self.limits.queue_records_max, self.limits.queue_bytes_max);
        if !fits && !state.waiting.is_empty() {
            return Err(ArchiveError::Overloaded);
        }
        state.weight = weight;
        state.waiting.push_back(command);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits until something waits, then takes as much as one transaction may hold. None once the
    /// queue is finished and empty.
    pub(crate) async fn take(&self) -> Option<Vec<Command>> {
        loop {
            {
                let mut state = self.state();
                if !state.waiting.is_empty() {
                    return Some(state.take_batch(&self.limits));
                }
                if state.finished {
                    return None;
                }
            }
            // `notify_one` leaves a permit, so a push between the look and the wait is not lost.
            self.wake.notified().await;
        }
    }

    /// Refuses new commands; those that wait are still taken.
    pub(crate) fn finish(&self) {
        self.state().finished = true;
        self.wake.notify_one();
    }

    /// Refuses new commands and drops those that wait: nobody will take them.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.finished = true;
        state.weight = Weight::default();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything can panic, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_batch(&mut self, limits: &Limits) -> Vec<Command> {
        let mut batch = Vec::new();
        let mut total = Weight::default();
        while let Some(command) = self.waiting.front() {
            let weight = command.weight();
            let grown = total.plus(weight);
            if !batch.is_empty() && !grown.fits(limits.batch_records_max, limits.batch_bytes_max) {
                break;
            }
            total = grown;
            self.weight = self.weight.minus(weight);
            batch.extend(self.waiting.pop_front());
        }
        batch
    }
}
