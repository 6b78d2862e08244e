//! Durable publishes on their way to the committer.
//!
//! Bounded in number and bytes; what does not fit is refused at once. Nothing may wait here for a
//! committer that does not run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use application::ports::{DedupKey, PublishError, Receipt};
use domain::message::Publish;
use domain::policy::NamespacePolicy;
use domain::room::RoomId;
use domain::time::Wall;
use tokio::sync::{Notify, oneshot};

use crate::broker::{RETRY_AFTER, lock};
use crate::dedup::Place;

/// What a publisher waits for.
pub(crate) type Answer = oneshot::Sender<Result<Receipt, PublishError>>;

/// The answer while the archive or the committer is away.
pub(crate) const AWAY: PublishError = PublishError::Unavailable { retry_after: RETRY_AFTER };

/// One publish that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) publish: Publish,
    pub(crate) policy: Arc<NamespacePolicy>,
    pub(crate) answer: Answer,
}

/// The name of a publish whose append seemed to fail, and the place that it may have.
#[derive(Debug)]
pub(crate) struct Doubtful {
    pub(crate) key: DedupKey,
    pub(crate) place: Place,
    pub(crate) at: Wall,
}

/// What the committer does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Commit these; with none, only settle what is in doubt.
    Commit(Vec<Waiting>),
    /// Wait for more.
    Wait,
    /// Everything is done, and nothing more comes.
    Finish,
}

/// Whether somebody takes from the queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Committer {
    #[default]
    Absent,
    Running,
    /// Finishes what waits.
    Finishing,
}

#[derive(Debug, Default)]
struct Inner {
    committer: Committer,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Rooms of which an append was begun and not known to have ended, with the names of what it
    /// would have stored: at most one batch, since a room in doubt takes nothing. They outlive a
    /// committer.
    doubtful: BTreeMap<RoomId, Vec<Doubtful>>,
    /// Behind which of them settling goes on; none begins with the first.
    settled_to: Option<RoomId>,
    settle: bool,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Held for a push or a take, never across anything that waits.
    inner: Mutex<Inner>,
    wake: Notify,
    entries_max: usize,
    bytes_max: usize,
}

impl Queue {
    /// The most publishes of one commit.
    pub(crate) const BATCH_MAX: usize = 1_024;

    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), wake: Notify::new(), entries_max, bytes_max }
    }

    /// Hands a publish to the committer and waits for its answer. Whoever stops waiting does not
    /// take the publish back.
    pub(crate) async fn commit(
        &self,
        publish: Publish,
        policy: &Arc<NamespacePolicy>,
    ) -> Result<Receipt, PublishError> {
        let (answer, answered) = oneshot::channel();
        self.push(Waiting { publish, policy: Arc::clone(policy), answer })?;
        // The committer went away with the publish, which may have been stored: a retry tells.
        answered.await.unwrap_or(Err(AWAY))
    }

    /// How many publishes wait, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let inner = lock(&self.inner);
        (inner.waiting.len(), inner.bytes)
    }

    fn push(&self, waiting: Waiting) -> Result<(), PublishError> {
        let mut inner = lock(&self.inner);
        let bytes = inner.bytes.saturating_add(bytes(&waiting));
        let is_full = inner.waiting.len() >= self.entries_max || bytes > self.bytes_max;
        if inner.committer != Committer::Running || is_full {
            return Err(AWAY);
        }
        inner.bytes = bytes;
        inner.waiting.push_back(waiting);
        drop(inner);
        self.wake.notify_one();
        Ok(())
    }

    /// Begins to take publishes; false if there is a committer already.
    pub(crate) fn start(&self) -> bool {
        let mut inner = lock(&self.inner);
        let is_first = inner.committer == Committer::Absent;
        if is_first {
            inner.committer = Committer::Running;
        }
        is_first
    }

    /// Takes nothing more; the committer ends after what waits.
    pub(crate) fn finish(&self) {
        let mut inner = lock(&self.inner);
        if inner.committer == Committer::Running {
            inner.committer = Committer::Finishing;
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// The committer is gone: whoever waits hears so, because its answer is dropped.
    pub(crate) fn stop(&self) {
        let mut inner = lock(&self.inner);
        inner.committer = Committer::Absent;
        inner.bytes = 0;
        let dropped = std::mem::take(&mut inner.waiting);
        drop(inner);
        drop(dropped);
    }

    /// What to do next.
    pub(crate) fn next(&self) -> Next {
        let mut inner = lock(&self.inner);
        let settle = std::mem::take(&mut inner.settle);
        let count = inner.waiting.len().min(Self::BATCH_MAX);
        let batch: Vec<Waiting> = inner.waiting.drain(..count).collect();
        inner.bytes = inner.bytes.saturating_sub(batch.iter().map(bytes).sum());
        if settle || !batch.is_empty() {
            return Next::Commit(batch);
        }
        if inner.committer == Committer::Finishing { Next::Finish } else { Next::Wait }
    }

    /// Waits until there may be something to do.
    pub(crate) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Marks a room as in doubt.
    pub(crate) fn doubt(&self, room: RoomId) {
        lock(&self.inner).doubtful.entry(room).or_default();
    }

    /// Keeps a name until its room is out of doubt.
    pub(crate) fn doubt_name(&self, name: Doubtful) {
        if let Some(names) = lock(&self.inner).doubtful.get_mut(&name.key.room) {
            names.push(name);
        }
    }

    /// Clears a room of doubt. Answers the names that were kept for it.
    pub(crate) fn trust(&self, room: &RoomId) -> Vec<Doubtful> {
        lock(&self.inner).doubtful.remove(room).unwrap_or_default()
    }

    /// The rooms in doubt, once round from where settling goes on; at most as many as one commit
    /// can have left.
    pub(crate) fn doubtful(&self) -> Vec<RoomId> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let inner = lock(&self.inner);
        let Inner { doubtful, settled_to, .. } = &*inner;
        let Some(to) = settled_to else {
            return doubtful.keys().take(Self::BATCH_MAX).cloned().collect();
        };
        let behind = doubtful.range::<RoomId, _>((Excluded(to), Unbounded));
        let before = doubtful.range::<RoomId, _>((Unbounded, Included(to)));
        behind.chain(before).take(Self::BATCH_MAX).map(|(room, _)| room.clone()).collect()
    }

    /// Says behind which room settling goes on; none begins with the first.
    pub(crate) fn go_on_behind(&self, room: Option<RoomId>) {
        lock(&self.inner).settled_to = room;
    }

    /// Wakes the committer if a room is in doubt.
    pub(crate) fn settle(&self) {
        let mut inner = lock(&self.inner);
        inner.settle = !inner.doubtful.is_empty();
        let settle = inner.settle;
        drop(inner);
        if settle {
            self.wake.notify_one();
        }
    }
}

/// What a publish costs while it waits.
fn bytes(waiting: &Waiting) -> usize {
    const FIELDS_BYTES: usize = 256;
    FIELDS_BYTES + waiting.publish.room.as_str().len() + waiting.publish.data.len()
}
