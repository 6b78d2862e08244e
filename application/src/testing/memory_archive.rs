//! An archive that forgets everything with its process, for tests of what stands before one.
//!
//! It passes the same contract as the real ones; it must never be used where something should
//! last.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use domain::id::Epoch;
use domain::message::{Publication, TombstoneReason};
use domain::position::{Offset, Position};
use domain::recovery::EarlierLives;
use domain::room::RoomId;
use domain::time::Wall;

use crate::ports::archive::{
    Archive, ArchiveError, ArchivePage, ArchiveRecord, DedupKey, Forget, RoomHead,
};
use crate::ports::succession::{Lives, LivesPage, Succession, Successor, holes};

/// The archive; it can be told to fail.
#[derive(Debug, Default)]
pub struct MemoryArchive {
    // Held within one call only, and no call awaits.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rooms: BTreeMap<RoomId, Room>,
    failures: u32,
}

#[derive(Clone, Debug)]
struct Room {
    head: RoomHead,
    /// Where the present epoch begins.
    behind: Offset,
    /// Where earlier epochs ended, the latest first.
    ended: Vec<Position>,
    messages: BTreeMap<Offset, ArchiveRecord>,
}

impl MemoryArchive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next `calls` calls, whichever they are, answer `Storage` and change nothing.
    pub fn fail_next(&self, calls: u32) {
        self.lock().failures = calls;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything can panic, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless this call was told to fail.
    fn state(&self) -> Result<MutexGuard<'_, State>, ArchiveError> {
        let mut state = self.lock();
        match state.failures.checked_sub(1) {
            Some(left) => {
                state.failures = left;
                Err(ArchiveError::Storage("told to fail".to_owned()))
            }
            None => Ok(state),
        }
    }
}

#[async_trait]
impl Archive for MemoryArchive {
    async fn open_room(
        &self,
        room: &RoomId,
        fresh: Epoch,
        _known: Option<Position>,
    ) -> Result<RoomHead, ArchiveError> {
        let new = Room::new(fresh, Offset::ZERO);
        Ok(self.state()?.rooms.entry(room.clone()).or_insert(new).head)
    }

    async fn append(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        self.store(records, Room::append)
    }

    async fn find(&self, keys: Vec<DedupKey>) -> Result<Vec<Option<Position>>, ArchiveError> {
        let state = self.state()?;
        Ok(keys.iter().map(|key| state.rooms.get(&key.room)?.find(key)).collect())
    }

    async fn read(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<ArchivePage, ArchiveError> {
        let state = self.state()?;
        let Some(room) = state.rooms.get(room) else {
            return Ok(ArchivePage { first: behind(Offset::ZERO), messages: Vec::new() });
        };
        let of_epoch = |record: &ArchiveRecord| record.publication.epoch == epoch;
        let first = room.messages.iter().find(|(_, record)| of_epoch(record));
        Ok(ArchivePage {
            first: first.map_or_else(|| behind(room.head.last), |(offset, _)| *offset),
            messages: room.page(after, limit, bytes_max, of_epoch),
        })
    }

    async fn forget(&self, room: &RoomId, what: Forget) -> Result<(), ArchiveError> {
        let mut state = self.state()?;
        let Some(room) = state.rooms.get_mut(room) else { return Ok(()) };
        match what {
            Forget::Old { first, before } => room.trim(first, before),
            Forget::Message(position) => room.erase(position),
        }
        Ok(())
    }
}

#[async_trait]
impl Succession for MemoryArchive {
    async fn lives(&self, room: &RoomId) -> Result<Option<Lives>, ArchiveError> {
        Ok(self.state()?.rooms.get(room).map(Room::lives))
    }

    async fn succeed(&self, room: &RoomId, next: Successor) -> Result<Lives, ArchiveError> {
        let mut state = self.state()?;
        let new = || Room::new(next.epoch, next.behind);
        let room = state.rooms.entry(room.clone()).or_insert_with(new);
        if Some(room.head.epoch) == next.of && next.of != Some(next.epoch) {
            if room.has_ended(next.epoch) {
                return Err(ArchiveError::Storage("the room has had that epoch".to_owned()));
            }
            room.ended.insert(0, Position { epoch: room.head.epoch, offset: room.head.last });
            room.behind = room.head.last.max(next.behind);
            let earlier = EarlierLives::new(room.ended.iter().copied());
            room.head = RoomHead { epoch: next.epoch, last: room.behind, earlier };
        }
        Ok(room.lives())
    }

    async fn place(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        self.store(records, Room::place)
    }

    async fn read_lives(
        &self,
        room: &RoomId,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Option<LivesPage>, ArchiveError> {
        let state = self.state()?;
        let Some(room) = state.rooms.get(room) else { return Ok(None) };
        let lives = room.lives();
        let first = room.messages.keys().next().copied();
        let first = first.unwrap_or_else(|| behind(lives.last));
        let messages = room.page(after, limit, bytes_max, |_| true);
        let reached = messages.last().and_then(|message| message.offset).unwrap_or(after);
        let is_end = room.messages.keys().next_back().is_none_or(|newest| *newest <= reached);
        let holes = holes(after, first, &messages, is_end.then_some(lives.last));
        Ok(Some(LivesPage { lives, first, messages, holes }))
    }
}

impl MemoryArchive {
    fn store(
        &self,
        records: Vec<ArchiveRecord>,
        store: fn(&mut Room, ArchiveRecord) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut state = self.state()?;
        // Checked on copies, so that a refused record undoes those before it.
        let mut changed: HashMap<RoomId, Room> = HashMap::new();
        for record in records {
            let name = record.publication.room.clone();
            if !changed.contains_key(&name) {
                let room = state.rooms.get(&name).cloned().ok_or_else(|| refused(&record))?;
                changed.insert(name.clone(), room);
            }
            if let Some(room) = changed.get_mut(&name) {
                store(room, record)?;
            }
        }
        state.rooms.extend(changed);
        Ok(())
    }
}

impl Room {
    fn new(epoch: Epoch, behind: Offset) -> Self {
        let head = RoomHead::new(epoch, behind);
        Self { head, behind, ended: Vec::new(), messages: BTreeMap::new() }
    }

    fn lives(&self) -> Lives {
        let RoomHead { epoch, last, earlier } = self.head;
        Lives { epoch, behind: self.behind, last, earlier }
    }

    fn has_ended(&self, epoch: Epoch) -> bool {
        self.ended.iter().any(|end| end.epoch == epoch)
    }

    fn page(
        &self,
        after: Offset,
        limit: u32,
        bytes_max: usize,
        wanted: impl Fn(&ArchiveRecord) -> bool,
    ) -> Vec<Publication> {
        let behind = self.messages.iter().filter(|(offset, _)| **offset > after);
        let records = behind.map(|(_, record)| record).filter(|record| wanted(record));
        let mut bytes = 0_usize;
        let fitting = records.enumerate().take_while(|(n, record)| {
            bytes = bytes.saturating_add(record.publication.data.len());
            *n == 0 || bytes <= bytes_max
        });
        let messages =
            fitting.map(|(_, record)| Publication { origin: None, ..record.publication.clone() });
        messages.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect()
    }

    fn place(&mut self, record: ArchiveRecord) -> Result<(), ArchiveError> {
        let publication = &record.publication;
        if self.has_ended(publication.epoch) {
            return Err(ArchiveError::Ended);
        }
        let Some(offset) = publication.offset.filter(|offset| *offset > self.behind) else {
            return Err(refused(&record));
        };
        if publication.epoch != self.head.epoch {
            return Err(refused(&record));
        }
        if let Some(stored) = self.messages.get(&offset) {
            let is_same = stored.publisher == record.publisher
                && stored.msg_id == record.msg_id
                && stored.publication.at == publication.at;
            return if is_same { Ok(()) } else { Err(refused(&record)) };
        }
        if key_of(&record).is_some_and(|key| self.find(&key).is_some()) {
            return Err(refused(&record));
        }
        self.head.last = self.head.last.max(offset);
        self.messages.insert(offset, record);
        Ok(())
    }

    fn append(&mut self, record: ArchiveRecord) -> Result<(), ArchiveError> {
        let publication = &record.publication;
        if self.has_ended(publication.epoch) {
            return Err(ArchiveError::Ended);
        }
        let next = publication.epoch == self.head.epoch
            && publication.offset.is_some()
            && publication.offset == self.head.last.next();
        let known = key_of(&record).is_some_and(|key| self.find(&key).is_some());
        match publication.offset {
            Some(offset) if next && !known => {
                self.head.last = offset;
                self.messages.insert(offset, record);
                Ok(())
            }
            Some(_) | None => Err(refused(&record)),
        }
    }

    fn trim(&mut self, first: Offset, before: Wall) {
        while let Some(oldest) = self.messages.first_entry()
            && (*oldest.key() < first || oldest.get().publication.at < before)
        {
            oldest.remove();
        }
    }

    fn erase(&mut self, position: Position) {
        let Some(record) = self.messages.get_mut(&position.offset) else { return };
        if record.publication.epoch == position.epoch && record.publication.tombstone.is_none() {
            let publication = record.publication.clone();
            record.publication = publication.into_tombstone(TombstoneReason::Deleted);
        }
    }

    fn find(&self, key: &DedupKey) -> Option<Position> {
        let found = self.messages.iter().find(|(_, record)| {
            record.publisher == key.publisher && record.msg_id.as_ref() == Some(&key.msg_id)
        });
        found.map(|(offset, record)| Position { epoch: record.publication.epoch, offset: *offset })
    }
}

fn key_of(record: &ArchiveRecord) -> Option<DedupKey> {
    Some(DedupKey {
        room: record.publication.room.clone(),
        publisher: record.publisher.clone(),
        msg_id: record.msg_id.clone()?,
    })
}

fn refused(record: &ArchiveRecord) -> ArchiveError {
    let Publication { room, offset, .. } = &record.publication;
    ArchiveError::Storage(format!("refused {offset:?} in {room}"))
}

/// A full log has nothing behind its last offset; then the last one stands for it.
fn behind(last: Offset) -> Offset {
    last.next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::succession_contract::Both;
    use crate::testing::{archive_contract, succession_contract};

    #[tokio::test]
    async fn the_memory_archive_keeps_the_contract() {
        archive_contract::all(async || Arc::new(MemoryArchive::new()) as Arc<dyn Archive>).await;
    }

    #[tokio::test]
    async fn the_memory_archive_lets_epochs_follow_each_other() {
        succession_contract::all(async || Arc::new(MemoryArchive::new()) as Arc<dyn Both>).await;
    }

    #[tokio::test]
    async fn told_to_fail_it_fails_that_often_and_changes_nothing() {
        let archive = MemoryArchive::new();
        let room = RoomId::parse("chat:a").unwrap();
        archive.fail_next(2);
        for _ in 0..2 {
            let answer = archive.open_room(&room, Epoch::from_bits(1), None).await;
            assert!(matches!(answer, Err(ArchiveError::Storage(_))));
        }
        let head = archive.open_room(&room, Epoch::from_bits(2), None).await.unwrap();
        assert_eq!(head.epoch, Epoch::from_bits(2));
    }
}
