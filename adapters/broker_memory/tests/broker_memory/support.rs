//! An archive in memory that can be told to wait or to fail, and what else the tests share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use application::mailbox::{Mail, Mailbox, Post};
use application::ports::{
    Archive, ArchiveError, ArchivePage, ArchiveRecord, Broker, BrokerError, DedupKey, Entropy,
    Forget, LogPage, NoEntropy, PublishError, ReadLog, Receipt, RoomHead, RoomTop,
    SubscriptionToken,
};
use async_trait::async_trait;
use broker_memory::MemoryBroker;
use domain::id::Epoch;
use domain::message::{Publication, Publish, TombstoneReason};
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::{Offset, Position};
use domain::principal::RoomPattern;
use domain::room::RoomId;
use tokio::sync::Semaphore;

/// Entropy that counts.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Entropy for Counter {
    fn bits(&self) -> Result<u64, NoEntropy> {
        Ok(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// How appends end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Mode {
    #[default]
    Well,
    /// Nothing is stored, and an error answered.
    FailsBefore,
    /// Everything is stored, and an error answered.
    FailsAfter,
}

#[derive(Default)]
struct Stored {
    rooms: BTreeMap<RoomId, (RoomHead, Offset, Vec<Publication>)>,
    places: HashMap<DedupKey, Position>,
    mode: Mode,
    opens_fail: bool,
    /// Rooms with a row that nobody can read.
    unreadable: BTreeSet<RoomId>,
    batches: Vec<usize>,
    calls: BTreeMap<&'static str, usize>,
    largest_page: usize,
    opening: usize,
    opening_most: usize,
}

impl Stored {
    fn begin_open(&mut self) {
        self.opening += 1;
        self.opening_most = self.opening_most.max(self.opening);
    }
}

/// An archive that outlives the brokers of a test.
pub(crate) struct MemoArchive {
    stored: Mutex<Stored>,
    /// One permit for each append that may go on.
    pub(crate) gate: Semaphore,
    /// One for each question about names.
    pub(crate) find_gate: Semaphore,
    /// One for each read.
    pub(crate) read_gate: Semaphore,
}

impl Default for MemoArchive {
    fn default() -> Self {
        let open = || Semaphore::new(Semaphore::MAX_PERMITS);
        Self { stored: Mutex::default(), gate: open(), find_gate: open(), read_gate: open() }
    }
}

impl MemoArchive {
    /// One whose appends wait for permits.
    pub(crate) fn gated() -> Self {
        Self { gate: Semaphore::new(0), ..Self::default() }
    }

    /// One whose questions about names wait for permits.
    pub(crate) fn find_gated() -> Self {
        Self { find_gate: Semaphore::new(0), ..Self::default() }
    }

    /// One whose reads wait for permits.
    pub(crate) fn read_gated() -> Self {
        Self { read_gate: Semaphore::new(0), ..Self::default() }
    }

    /// No read of the room is answered from now on, or each is again.
    pub(crate) fn set_unreadable(&self, room: RoomId, unreadable: bool) {
        let rooms = &mut self.stored.lock().unwrap().unreadable;
        if unreadable {
            rooms.insert(room)
        } else {
            rooms.remove(&room)
        };
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.stored.lock().unwrap().mode = mode;
    }

    /// What a trim does to the names of what it removes.
    pub(crate) fn forget_places(&self) {
        self.stored.lock().unwrap().places.clear();
    }

    pub(crate) fn set_opens_fail(&self, opens_fail: bool) {
        self.stored.lock().unwrap().opens_fail = opens_fail;
    }

    /// The sizes of the appended batches.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.stored.lock().unwrap().batches.clone()
    }

    pub(crate) fn calls(&self, method: &'static str) -> usize {
        self.stored.lock().unwrap().calls.get(method).copied().unwrap_or(0)
    }

    /// The most rooms that were being opened at the same time.
    pub(crate) fn opening_most(&self) -> usize {
        self.stored.lock().unwrap().opening_most
    }

    /// The most messages that one read has answered since this was last asked.
    pub(crate) fn largest_page(&self) -> usize {
        std::mem::take(&mut self.stored.lock().unwrap().largest_page)
    }

    fn call(&self, method: &'static str) -> std::sync::MutexGuard<'_, Stored> {
        let mut stored = self.stored.lock().unwrap();
        *stored.calls.entry(method).or_default() += 1;
        stored
    }
}

#[async_trait]
impl Archive for MemoArchive {
    async fn open_room(
        &self,
        room: &RoomId,
        fresh: Epoch,
        _known: Option<Position>,
    ) -> Result<RoomHead, ArchiveError> {
        self.stored.lock().unwrap().begin_open();
        tokio::task::yield_now().await;
        let mut stored = self.call("open_room");
        stored.opening -= 1;
        if stored.opens_fail {
            return Err(ArchiveError::Overloaded);
        }
        let fresh = RoomHead::new(fresh, Offset::ZERO);
        let first = Offset::ZERO.next().unwrap();
        Ok(stored.rooms.entry(room.clone()).or_insert((fresh, first, Vec::new())).0)
    }

    async fn append(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        drop(self.call("append"));
        self.gate.acquire().await.unwrap().forget();
        let mut stored = self.stored.lock().unwrap();
        if stored.mode == Mode::FailsBefore {
            return Err(ArchiveError::Storage("full".into()));
        }
        stored.batches.push(records.len());
        for ArchiveRecord { publication, publisher, msg_id } in records {
            let (head, _, messages) = stored.rooms.get_mut(&publication.room).unwrap();
            assert_eq!(publication.epoch, head.epoch);
            assert_eq!(publication.offset, head.last.next(), "an offset is stored once, in order");
            assert_eq!(publication.origin, None);
            head.last = publication.offset.unwrap();
            let position = Position { epoch: head.epoch, offset: head.last };
            messages.push(publication.clone());
            if let Some(msg_id) = msg_id {
                let key = DedupKey { room: publication.room, publisher, msg_id };
                assert!(stored.places.insert(key, position).is_none(), "a msg_id is stored once");
            }
        }
        if stored.mode == Mode::FailsAfter {
            return Err(ArchiveError::Storage("went away".into()));
        }
        Ok(())
    }

    async fn find(&self, keys: Vec<DedupKey>) -> Result<Vec<Option<Position>>, ArchiveError> {
        self.find_gate.acquire().await.unwrap().forget();
        tokio::task::yield_now().await;
        let stored = self.call("find");
        Ok(keys.iter().map(|key| stored.places.get(key).copied()).collect())
    }

    async fn read(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<ArchivePage, ArchiveError> {
        tokio::task::yield_now().await;
        drop(self.call("read"));
        self.read_gate.acquire().await.unwrap().forget();
        let mut stored = self.stored.lock().unwrap();
        let stored = &mut *stored;
        if stored.unreadable.contains(room) {
            return Err(ArchiveError::Storage("a row that is none".into()));
        }
        let (head, first, messages) = stored.rooms.get(room).unwrap();
        assert_eq!(head.epoch, epoch);
        let behind = messages.iter().filter(|message| message.offset.unwrap() > after);
        let mut bytes = 0_usize;
        let fitting = behind.enumerate().take_while(|(n, message)| {
            bytes = bytes.saturating_add(message.data.len());
            *n == 0 || bytes <= bytes_max
        });
        let messages: Vec<_> =
            fitting.take(limit as usize).map(|(_, message)| message.clone()).collect();
        stored.largest_page = stored.largest_page.max(messages.len());
        Ok(ArchivePage { first: *first, messages })
    }

    async fn forget(&self, room: &RoomId, what: Forget) -> Result<(), ArchiveError> {
        let (first, before) = match what {
            Forget::Old { first, before } => (first, before),
            Forget::Message(position) => {
                tokio::task::yield_now().await;
                let mut stored = self.call("erase");
                if stored.mode != Mode::Well {
                    return Err(ArchiveError::Storage("full".into()));
                }
                let (head, _, messages) = stored.rooms.get_mut(room).unwrap();
                assert_eq!(head.epoch, position.epoch);
                for message in messages.iter_mut() {
                    if message.offset == Some(position.offset) && message.tombstone.is_none() {
                        *message = message.clone().into_tombstone(TombstoneReason::Deleted);
                    }
                }
                return Ok(());
            }
        };
        let mut stored = self.call("trim");
        let (head, kept, messages) = stored.rooms.get_mut(room).unwrap();
        let keep_from = messages
            .iter()
            .position(|message| message.offset.unwrap() >= first && message.at >= before)
            .unwrap_or(messages.len());
        messages.drain(..keep_from);
        let none = head.last.next().unwrap();
        *kept = messages.first().map_or(none, |message| message.offset.unwrap());
        Ok(())
    }
}

/// A broker for which every policy is durable.
pub(crate) struct DurableEverywhere(pub(crate) Arc<MemoryBroker>);

fn durable(policy: &NamespacePolicy) -> Arc<NamespacePolicy> {
    Arc::new(NamespacePolicy { durable: true, ..policy.clone() })
}

#[async_trait]
impl Broker for DurableEverywhere {
    async fn publish(
        &self,
        publish: Publish,
        policy: &Arc<NamespacePolicy>,
    ) -> Result<Receipt, PublishError> {
        self.0.publish(publish, &durable(policy)).await
    }

    fn level_of_delivery(&self, policy: &NamespacePolicy) -> Option<AckLevel> {
        self.0.level_of_delivery(&durable(policy))
    }

    async fn subscribe(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        mailbox: &Arc<Mailbox>,
        token: SubscriptionToken,
    ) -> Result<RoomTop, BrokerError> {
        self.0.subscribe(room, &durable(policy), mailbox, token).await
    }

    async fn unsubscribe(&self, room: &RoomId, mailbox: &Arc<Mailbox>, token: SubscriptionToken) {
        self.0.unsubscribe(room, mailbox, token).await;
    }

    async fn watch(
        &self,
        mailbox: &Arc<Mailbox>,
        patterns: &[RoomPattern],
        version: u64,
    ) -> Result<(), BrokerError> {
        self.0.watch(mailbox, patterns, version).await
    }

    async fn read(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        read: ReadLog,
    ) -> Result<LogPage, BrokerError> {
        self.0.read(room, &durable(policy), read).await
    }
}

/// What is in a mailbox now: offset and data of each publication.
pub(crate) fn delivered(mailbox: &Mailbox) -> Vec<(u64, String)> {
    let mut post = Post::default();
    mailbox.take(&mut post);
    let publications = post.mail.iter().map(|mail| match mail {
        Mail::Publication(published) => &published.publication,
        Mail::Presence(..) => panic!("only publications"),
    });
    publications.map(place).collect()
}

/// Offset and data.
pub(crate) fn place(publication: &Publication) -> (u64, String) {
    let offset = publication.offset.map_or(0, Offset::get);
    (offset, String::from_utf8(publication.data.to_vec()).unwrap().replace('"', ""))
}

/// Lets all tasks run until each waits; the runtime of a test has one thread.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Awaits one part of a contract; one that waits for what never comes fails.
pub(crate) async fn within_a_minute(part: impl Future<Output = ()>) {
    let part = tokio::time::timeout(std::time::Duration::from_secs(60), part);
    part.await.expect("nothing that was expected has come");
}
