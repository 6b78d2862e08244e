//! What waits for the writers: bounded by records and by bytes, in the order it came.
//!
//! It must never make a caller wait for room: what does not fit is refused at once. It must never give two
//! writers what is about the same thing, since the later one could overtake. No caller is left without an
//! answer: commands that are dropped drop their reply.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use application::ports::archive::{ArchiveError, ArchiveRecord, Forget, RoomHead, record_bytes};
use application::ports::succession::{Lives, Successor};
use domain::id::Epoch;
use domain::position::Position;
use domain::room::RoomId;
use domain::time::Wall;
use tokio::sync::{Notify, oneshot};

use crate::config::Limits;
use crate::inbox::{Change, Changed};
use crate::moderation;
use crate::revocations::Row;
use crate::spent_tokens::Spend;

/// What a writer is asked for.
pub(crate) enum Command {
    /// Find or make a room.
    OpenRoom { room: RoomId, fresh: Epoch, known: Option<Position>, job: Job<RoomHead> },
    /// Store all records or none, each the next of its room.
    Append { records: Arc<Vec<ArchiveRecord>>, job: Job<()> },
    /// Store all records or none, in any order, those that are stored already included.
    Place { records: Arc<Vec<ArchiveRecord>>, job: Job<()> },
    /// End an epoch and begin another.
    Succeed { room: RoomId, next: Successor, job: Job<Lives> },
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
}

/// What commands are about that are not about a room.
const REVOCATIONS: u64 = 0;
const INBOX: u64 = 1;
const MODERATION: u64 = 2;
const SPENT: u64 = 3;

/// Rooms by a number: two of one number only wait for each other in vain.
fn key_of(room: &RoomId) -> u64 {
    let mut hasher = DefaultHasher::new();
    room.hash(&mut hasher);
    hasher.finish()
}

impl Command {
    fn weight(&self) -> Weight {
        match self {
            // What a command without messages holds, roughly; it must not be free.
            Self::OpenRoom { .. } => Weight { records: 1, bytes: 512, trips: 0 },
            Self::Succeed { .. } => Weight { records: 1, bytes: 512, trips: 8 },
            Self::Forget { .. } => Weight { records: 1, bytes: 512, trips: 3 },
            Self::Revoke { .. } | Self::ForgetRevocations { .. } => {
                Weight { records: 1, bytes: 512, trips: 1 }
            }
            Self::Spend(_) => Weight { records: 1, bytes: 512, trips: 2 },
            Self::Moderation { change, .. } => {
                Weight { records: 1, bytes: change.bytes(), trips: 4 }
            }
            Self::Inbox { change, .. } => Weight { records: 1, bytes: change.bytes(), trips: 1 },
            Self::Append { records, .. } | Self::Place { records, .. } => Weight {
                records: records.len().max(1),
                bytes: records.iter().map(record_bytes).sum(),
                trips: usize::from(matches!(self, Self::Place { .. })),
            },
        }
    }

    fn keys(&self) -> Vec<u64> {
        match self {
            Self::OpenRoom { room, .. }
            | Self::Succeed { room, .. }
            | Self::Forget { room, .. } => vec![key_of(room)],
            Self::Append { records, .. } | Self::Place { records, .. } => {
                let mut keys: Vec<u64> = Vec::new();
                let mut last: Option<&RoomId> = None;
                for record in records.iter() {
                    // Those of one room often come together.
                    if last != Some(&record.publication.room) {
                        keys.push(key_of(&record.publication.room));
                    }
                    last = Some(&record.publication.room);
                }
                keys
            }
            Self::Revoke { .. } | Self::ForgetRevocations { .. } => vec![REVOCATIONS],
            Self::Inbox { .. } => vec![INBOX],
            Self::Moderation { .. } => vec![MODERATION],
            Self::Spend(_) => vec![SPENT],
        }
    }

    /// Answers the caller: with the failure of the whole transaction, else with its own outcome.
    pub(crate) fn answer(self, failure: Option<&ArchiveError>) {
        match self {
            Self::OpenRoom { job, .. } => job.answer(failure),
            Self::Append { job, .. }
            | Self::Place { job, .. }
            | Self::Revoke { job, .. }
            | Self::ForgetRevocations { job, .. }
            | Self::Moderation { job, .. } => job.answer(failure),
            Self::Succeed { job, .. } => job.answer(failure),
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
    /// How often the server is asked for it alone; what is asked once for the whole batch is not counted.
    trips: usize,
}

impl Weight {
    const fn plus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_add(other.records),
            bytes: self.bytes.saturating_add(other.bytes),
            trips: self.trips.saturating_add(other.trips),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_sub(other.records),
            bytes: self.bytes.saturating_sub(other.bytes),
            trips: self.trips.saturating_sub(other.trips),
        }
    }

    const fn fits(self, records_max: usize, bytes_max: usize) -> bool {
        self.records <= records_max && self.bytes <= bytes_max
    }
}

struct Waiting {
    command: Command,
    weight: Weight,
    keys: Vec<u64>,
}

/// What one transaction is made of.
pub(crate) struct Batch {
    pub(crate) commands: Vec<Command>,
    keys: Vec<u64>,
}

/// The queue between callers and the writers.
pub(crate) struct Queue {
    limits: Limits,
    // Held for a push or a take only, never across an await.
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    weight: Weight,
    /// What the batches under way are about.
    busy: HashSet<u64>,
    finished: bool,
}

/// The most commands that are looked at for one batch: behind so many that have to wait nothing is found
/// for long either.
const LOOKED_AT_MAX: usize = 4_096;

/// How often the server is asked within one transaction, at most: at some milliseconds for each, a batch that
/// can be made at all is made in the time that it has.
const BATCH_TRIPS_MAX: usize = 256;

impl Queue {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default(), wake: Notify::new() }
    }

    /// Puts a command behind the others, or refuses it at once.
    pub(crate) fn push(&self, command: Command) -> Result<(), ArchiveError> {
        let (weight, keys) = (command.weight(), command.keys());
        let mut state = self.state();
        if state.finished {
            return Err(ArchiveError::Closed);
        }
        let grown = state.weight.plus(weight);
        let fits = grown.fits(self.limits.queue_records_max, self.limits.queue_bytes_max);
        if !fits && !state.waiting.is_empty() {
            return Err(ArchiveError::Overloaded);
        }
        state.weight = grown;
        state.waiting.push_back(Waiting { command, weight, keys });
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits until something waits that no batch under way is about, then takes as much of that as one
    /// transaction may hold. None once the queue is finished and nothing is left to be taken. What was
    /// taken MUST be given to [`done`](Self::done) afterwards. Loses nothing when it is dropped.
    pub(crate) async fn take(&self) -> Option<Batch> {
        loop {
            // Begun before the look: a push or an end of a batch between the two is not lost.
            let woken = self.wake.notified();
            {
                let mut state = self.state();
                let batch = state.take_batch(&self.limits);
                if let Some(batch) = batch {
                    let goes_on = !state.waiting.is_empty();
                    drop(state);
                    if goes_on {
                        self.wake.notify_one();
                    }
                    return Some(batch);
                }
                if state.finished && state.waiting.is_empty() {
                    drop(state);
                    // The other writers end, too.
                    self.wake.notify_one();
                    return None;
                }
            }
            woken.await;
        }
    }

    /// A batch has ended, however it did: what waits behind it may be taken.
    pub(crate) fn done(&self, keys: &BatchKeys) {
        let mut state = self.state();
        for key in &keys.0 {
            state.busy.remove(key);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Puts back what was taken and not begun, in front of what came after it.
    pub(crate) fn give_back(&self, batch: Batch) {
        let mut state = self.state();
        for key in &batch.keys {
            state.busy.remove(key);
        }
        for command in batch.commands.into_iter().rev() {
            let (weight, keys) = (command.weight(), command.keys());
            state.weight = state.weight.plus(weight);
            state.waiting.push_front(Waiting { command, weight, keys });
        }
        drop(state);
        self.wake.notify_one();
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
        self.wake.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything can panic, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a batch is about, to be given back.
pub(crate) struct BatchKeys(Vec<u64>);

impl Batch {
    pub(crate) fn split(self) -> (Vec<Command>, BatchKeys) {
        (self.commands, BatchKeys(self.keys))
    }
}

impl State {
    /// What may be done now, in its order: what is about the same as something in front of it that has
    /// to wait waits, too.
    fn take_batch(&mut self, limits: &Limits) -> Option<Batch> {
        let mut batch = Batch { commands: Vec::new(), keys: Vec::new() };
        let (mut total, mut blocked, mut passed) =
            (Weight::default(), HashSet::new(), VecDeque::new());
        let mut looked_at = 0;
        while let Some(waiting) = self.waiting.pop_front() {
            let has_to_wait =
                waiting.keys.iter().any(|key| self.busy.contains(key) || blocked.contains(key));
            let grown = total.plus(waiting.weight);
            let fits = batch.commands.is_empty()
                || grown.trips <= BATCH_TRIPS_MAX
                    && grown.fits(limits.batch_records_max, limits.batch_bytes_max);
            looked_at += 1;
            if has_to_wait {
                blocked.extend(waiting.keys.iter().copied());
                passed.push_back(waiting);
            } else if fits {
                total = grown;
                batch.commands.push(waiting.command);
                batch.keys.extend(waiting.keys);
            } else {
                self.waiting.push_front(waiting);
                break;
            }
            if looked_at == LOOKED_AT_MAX {
                break;
            }
        }
        while let Some(waiting) = passed.pop_back() {
            self.waiting.push_front(waiting);
        }
        if batch.commands.is_empty() {
            return None;
        }
        self.weight = self.weight.minus(total);
        self.busy.extend(batch.keys.iter().copied());
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_asks_the_server_for_each_by_itself_makes_small_batches() {
        let queue = Queue::new(Limits::default());
        for _ in 0..1_000 {
            let change = Change::Forget { before: Wall::default() };
            let (job, _) = Job::new();
            assert!(queue.push(Command::Inbox { change, job }).is_ok());
        }
        let mut sizes = Vec::new();
        for _ in 0..4 {
            let (commands, keys) = queue.take().await.unwrap().split();
            sizes.push(commands.len());
            queue.done(&keys);
        }
        assert_eq!(sizes, [256, 256, 256, 232]);
    }

    #[tokio::test]
    async fn what_is_given_back_is_taken_again_in_its_order() {
        let queue = Queue::new(Limits::default());
        let at = |ms| Change::Forget { before: Wall::from_millis(ms) };
        let push = |ms| {
            let (job, _) = Job::new();
            assert!(queue.push(Command::Inbox { change: at(ms), job }).is_ok());
        };
        push(1);
        push(2);
        let batch = queue.take().await.unwrap();
        push(3);
        queue.give_back(batch);
        let (commands, _) = queue.take().await.unwrap().split();
        let ats = commands.iter().map(|command| match command {
            Command::Inbox { change: Change::Forget { before }, .. } => before.as_millis(),
            _ => 0,
        });
        assert_eq!(ats.collect::<Vec<_>>(), [1, 2, 3]);
    }
}
