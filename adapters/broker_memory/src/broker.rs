//! The broker itself: which stripe, which path, and the port.
//!
//! A durable publish must never take the path around the archive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use application::mailbox::Mailbox;
use application::ports::{
    Archive, ArchiveError, Broker, BrokerError, Entropy, LogPage, NoEntropy, PublishError, ReadLog,
    Receipt, RoomTop, SubscriptionToken,
};
use async_trait::async_trait;
use domain::id::Epoch;
use domain::message::Publish;
use domain::policy::{AckLevel, NamespacePolicy};
use domain::principal::RoomPattern;
use domain::room::RoomId;

use crate::budget::Budget;
use crate::durable::Open;
use crate::queue::Queue;
use crate::room::Room;
use crate::stripe::Stripe;
use crate::sweep::SweepCursor;
use crate::watchers::{Watcher, Watchers};

/// When to come back after something was away or full.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The limits of a [`MemoryBroker`].
#[derive(Clone, Debug)]
pub struct Config {
    /// How many locks the rooms are spread over; at least 1.
    pub stripes: usize,
    /// The most rooms in memory, those that are kept only for their log included. Beyond it a room
    /// that nobody is in gives way: one that keeps nothing, else the longest unused of a few.
    /// Unless an archive keeps it, its log is lost and clients that come back find a new epoch.
    /// Only when all are in use a new room is refused.
    pub rooms_max: usize,
    /// For how long a publish is known by its `msg_id`, and an empty room keeps its epoch after its
    /// last use.
    pub dedup_window: Duration,
    /// The most publishes that are known by their `msg_id`, spread evenly over the stripes; beyond
    /// it the oldest of a stripe are forgotten.
    pub dedup_entries_max: usize,
    /// The most mailboxes of one room: the number of shards.
    pub subscribers_max: usize,
    /// The most bytes of memory for the messages that all rooms keep. Beyond it the room that
    /// publishes drops its oldest.
    pub log_bytes_max: usize,
    /// The most durable publishes that wait for the archive.
    pub commit_entries_max: usize,
    /// The most bytes of them.
    pub commit_bytes_max: usize,
}

impl Default for Config {
    /// 64 stripes, 100,000 rooms, 10 minutes or a million publishes of memory for retries, 256
    /// mailboxes, 512 MiB of logs; 16,384 publishes or 32 MiB wait for the archive.
    fn default() -> Self {
        Self {
            stripes: 64,
            rooms_max: 100_000,
            dedup_window: Duration::from_secs(600),
            dedup_entries_max: 1_000_000,
            subscribers_max: 256,
            log_bytes_max: 512 << 20,
            commit_entries_max: 16_384,
            commit_bytes_max: 32 << 20,
        }
    }
}

/// What a broker uses at the moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Rooms in memory, with or without members.
    pub rooms: usize,
    /// Bytes of all rooms' logs.
    pub log_bytes: usize,
    /// The most of them.
    pub log_bytes_max: usize,
    /// Durable publishes that wait for the archive.
    pub commit_entries: usize,
    /// Bytes of them.
    pub commit_bytes: usize,
}

/// The broker and the presence of one process.
///
/// A room's policy must stay the same for the life of the broker, and `Publish::data` must own its
/// memory: it is kept as it comes, and a small slice would keep all of a large buffer alive.
pub struct MemoryBroker {
    pub(crate) config: Config,
    pub(crate) budget: Budget,
    pub(crate) queue: Queue,
    pub(crate) sweep_cursor: Mutex<SweepCursor>,
    /// Held while they change, before any stripe; never by a publish.
    watchers: Mutex<Vec<Watcher>>,
    /// Each is held for one publish, subscription or page, never across anything that waits.
    stripes: Box<[Mutex<Stripe>]>,
    entropy: Arc<dyn Entropy>,
    archive: Option<Arc<dyn Archive>>,
}

impl MemoryBroker {
    /// A broker without rooms. Without an archive, rooms whose policy asks for one are kept in
    /// memory like all others and their level is `accepted`. With one, the host must spawn
    /// [`MemoryBroker::run_committer`].
    #[must_use]
    pub fn build(
        config: Config,
        entropy: Arc<dyn Entropy>,
        archive: Option<Arc<dyn Archive>>,
    ) -> Arc<Self> {
        let count = config.stripes.max(1);
        let dedup_entries_max = config.dedup_entries_max.div_ceil(count);
        let stripe = || Mutex::new(Stripe::new(config.dedup_window, dedup_entries_max));
        Arc::new(Self {
            budget: Budget::new(config.log_bytes_max, config.rooms_max),
            queue: Queue::new(config.commit_entries_max, config.commit_bytes_max),
            sweep_cursor: Mutex::default(),
            watchers: Mutex::default(),
            stripes: std::iter::repeat_with(stripe).take(count).collect(),
            entropy,
            archive,
            config,
        })
    }

    /// What it uses at the moment, for metrics.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (commit_entries, commit_bytes) = self.queue.size();
        Usage {
            rooms: self.budget.rooms(),
            log_bytes: self.budget.bytes(),
            log_bytes_max: self.config.log_bytes_max,
            commit_entries,
            commit_bytes,
        }
    }

    /// Locks the stripe of a room.
    pub(crate) fn stripe(&self, room: &RoomId) -> MutexGuard<'_, Stripe> {
        // FNV-1a: short names, and the same spread in every run. Names that are chosen to meet in
        // one stripe only share a lock.
        let hash = room.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let at = usize::try_from(hash % self.stripes.len() as u64).unwrap_or(0);
        lock(&self.stripes[at])
    }

    pub(crate) fn stripes(&self) -> &[Mutex<Stripe>] {
        &self.stripes
    }

    pub(crate) fn archive(&self) -> Option<&Arc<dyn Archive>> {
        self.archive.as_ref()
    }

    pub(crate) fn fresh_epoch(&self) -> Result<Epoch, NoEntropy> {
        self.entropy.bits().map(Epoch::from_bits)
    }

    /// The same for what is asked of the archive.
    pub(crate) fn epoch_for_archive(&self) -> Result<Epoch, ArchiveError> {
        self.fresh_epoch().map_err(|error| ArchiveError::Storage(error.to_string()))
    }

    fn archive_of(&self, policy: &NamespacePolicy) -> Option<&Arc<dyn Archive>> {
        self.archive.as_ref().filter(|_| policy.durable)
    }

    /// Runs one step on a room that lives in memory only.
    fn with_room<T>(
        &self,
        id: &RoomId,
        policy: &NamespacePolicy,
        step: impl FnOnce(&mut Room) -> T,
    ) -> Option<T> {
        let mut stripe = self.stripe(id);
        let room = stripe.room(id, &self.budget)?;
        room.retention = policy.retention;
        room.head_or(|| self.fresh_epoch()).ok()?;
        Some(step(room))
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(
        &self,
        publish: Publish,
        policy: &Arc<NamespacePolicy>,
    ) -> Result<Receipt, PublishError> {
        match self.archive_of(policy) {
            Some(_) if publish.class.is_positioned() => self.queue.commit(publish, policy).await,
            // Nothing to store, but its epoch is the archive's.
            Some(archive) => self.publish_beside(archive, publish, policy).await,
            None => {
                let mut stripe = self.stripe(&publish.room);
                let fresh = || self.fresh_epoch();
                stripe.publish(publish, policy.retention, &self.budget, fresh)
            }
        }
    }

    fn level_of_delivery(&self, policy: &NamespacePolicy) -> Option<AckLevel> {
        Some(self.archive_of(policy).map_or(AckLevel::Accepted, |_| AckLevel::Durable))
    }

    async fn subscribe(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        mailbox: &Arc<Mailbox>,
        token: SubscriptionToken,
    ) -> Result<RoomTop, BrokerError> {
        let subscribers_max = self.config.subscribers_max;
        let join = |room: &mut Room| {
            let head = room.head.known()?;
            room.subscribe(head, mailbox, token, subscribers_max)
        };
        let top = match self.archive_of(policy) {
            Some(archive) => {
                let step = |stripe: &mut Stripe| {
                    stripe.touch(room);
                    stripe.rooms.get_mut(room).and_then(join)
                };
                self.with_open(archive, room, policy, Open::Recent, step).await?
            }
            None => self.with_room(room, policy, join).flatten(),
        };
        top.ok_or(BrokerError::Unavailable { retry_after: RETRY_AFTER })
    }

    async fn unsubscribe(&self, room: &RoomId, mailbox: &Arc<Mailbox>, token: SubscriptionToken) {
        let mut stripe = self.stripe(room);
        if let Some(here) = stripe.rooms.get_mut(room) {
            here.unsubscribe(mailbox, token);
        }
        stripe.touch(room);
    }

    async fn watch(
        &self,
        mailbox: &Arc<Mailbox>,
        patterns: &[RoomPattern],
        version: u64,
    ) -> Result<(), BrokerError> {
        let mut watchers = lock(&self.watchers);
        let is_full = watchers.len() >= self.config.subscribers_max;
        let known = watchers.iter_mut().find(|known| known.mailbox.id() == mailbox.id());
        match known {
            Some(known) if known.version > version => return Ok(()),
            Some(known) => {
                known.version = version;
                if known.patterns == patterns {
                    return Ok(());
                }
                known.patterns = patterns.to_vec();
            }
            None if is_full => {
                return Err(BrokerError::Unavailable { retry_after: RETRY_AFTER });
            }
            None => {
                let mailbox = Arc::clone(mailbox);
                watchers.push(Watcher { mailbox, patterns: patterns.to_vec(), version });
            }
        }
        let all = Arc::new(Watchers::new(&watchers));
        for stripe in &self.stripes {
            lock(stripe).watchers = Arc::clone(&all);
        }
        Ok(())
    }

    async fn read(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        read: ReadLog,
    ) -> Result<LogPage, BrokerError> {
        if let Some(archive) = self.archive_of(policy) {
            return self.read_durable(archive, room, policy, &read).await;
        }
        let step = |room: &mut Room| room.read(room.head.known()?, &read, &self.budget);
        let page = self.with_room(room, policy, step).flatten();
        page.ok_or(BrokerError::Unavailable { retry_after: RETRY_AFTER })
    }
}

/// Takes a lock. A panic while it is held could only come from memory running out, and each step
/// leaves whole what it had.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
