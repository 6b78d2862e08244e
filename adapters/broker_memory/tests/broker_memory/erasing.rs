//! A deletion while others read: what was read before it must not come back behind it.

use std::sync::Arc;

use application::ports::{
    Archive, ArchiveError, ArchivePage, ArchiveRecord, Broker as _, DedupKey, Erasure as _, Forget,
    ReadLog, RoomHead,
};
use application::testing::broker_contract::{at, policy, publish, room};
use async_trait::async_trait;
use broker_memory::{Config, MemoryBroker};
use domain::id::Epoch;
use domain::policy::NamespacePolicy;
use domain::position::{Offset, Position};
use domain::retention::Retention;
use domain::room::RoomId;
use tokio::sync::Semaphore;

use crate::support::{Counter, MemoArchive, place, settle};

/// An archive whose answers to reads are under way for long, and which is slow to erase.
struct SlowAnswers {
    archive: MemoArchive,
    read: Semaphore,
    erase: Semaphore,
}

#[async_trait]
impl Archive for SlowAnswers {
    async fn open_room(
        &self,
        room: &RoomId,
        fresh: Epoch,
        known: Option<Position>,
    ) -> Result<RoomHead, ArchiveError> {
        self.archive.open_room(room, fresh, known).await
    }

    async fn append(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        self.archive.append(records).await
    }

    async fn find(&self, keys: Vec<DedupKey>) -> Result<Vec<Option<Position>>, ArchiveError> {
        self.archive.find(keys).await
    }

    async fn read(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<ArchivePage, ArchiveError> {
        let page = self.archive.read(room, epoch, after, limit, bytes_max).await;
        self.read.acquire().await.unwrap().forget();
        page
    }

    async fn forget(&self, room: &RoomId, what: Forget) -> Result<(), ArchiveError> {
        self.erase.acquire().await.unwrap().forget();
        self.archive.forget(room, what).await
    }
}

#[tokio::test]
async fn what_was_read_before_a_deletion_is_not_taken_into_memory_behind_it() {
    let archive = Arc::new(SlowAnswers {
        archive: MemoArchive::default(),
        read: Semaphore::new(1),
        erase: Semaphore::new(0),
    });
    let shared = Some(Arc::clone(&archive) as Arc<dyn Archive>);
    let broker = MemoryBroker::build(Config::default(), Arc::new(Counter::default()), shared);
    tokio::spawn(Arc::clone(&broker).run_committer());
    let open = policy(Retention::default());
    let policy = Arc::new(NamespacePolicy { durable: true, ..NamespacePolicy::clone(&open) });
    let said = broker.publish(publish("chat:a", "u1", "a"), &policy).await.unwrap();
    let position = Position { epoch: said.epoch, offset: said.offset.unwrap() };
    let erasing = tokio::spawn({
        let (broker, policy) = (Arc::clone(&broker), Arc::clone(&policy));
        async move { broker.erase(&room("chat:a"), &policy, position).await }
    });
    settle().await;
    // The room leaves memory, and is loaded again with what is about to go.
    broker.sweep(at(100_000)).await;
    let reading = tokio::spawn({
        let (broker, policy) = (Arc::clone(&broker), Arc::clone(&policy));
        let read = ReadLog { after: Offset::ZERO, messages_max: 9, bytes_max: 1 << 20, now: at(1) };
        async move { broker.read(&room("chat:a"), &policy, read).await }
    });
    settle().await;
    assert!(!erasing.is_finished() && !reading.is_finished());
    archive.erase.add_permits(1);
    assert_eq!(erasing.await.unwrap(), Ok(()));
    archive.read.add_permits(100);
    let page = reading.await.unwrap().unwrap();
    let read: Vec<_> = page.messages.iter().map(|message| place(&message.publication)).collect();
    assert_eq!(read, [(1, String::new())]);
}
