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
use domain::room::RoomId;
use domain::time::Wall;

use crate::ports::archive::{
    Archive, ArchiveError, ArchivePage, ArchiveRecord, DedupKey, Forget, RoomHead,
};

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
    async fn open_room(&self, room: &RoomId, fresh: Epoch) -> Result<RoomHead, ArchiveError> {
        let head = RoomHead { epoch: fresh, last: Offset::ZERO };
        let new = Room { head, messages: BTreeMap::new() };
        Ok(self.state()?.rooms.entry(room.clone()).or_insert(new).head)
    }

    async fn append(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
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
                room.append(record)?;
            }
        }
        state.rooms.extend(changed);
        Ok(())
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
        if room.head.epoch != epoch {
            return Ok(ArchivePage { first: behind(room.head.last), messages: Vec::new() });
        }
        let first = room.messages.keys().next().copied();
        let messages = room.messages.iter().filter(|(offset, _)| **offset > after);
        let mut bytes = 0_usize;
        let fitting = messages.enumerate().take_while(|(n, (_, record))| {
            bytes = bytes.saturating_add(record.publication.data.len());
            *n == 0 || bytes <= bytes_max
        });
        let messages = fitting
            .map(|(_, (_, record))| Publication { origin: None, ..record.publication.clone() });
        Ok(ArchivePage {
            first: first.unwrap_or_else(|| behind(room.head.last)),
            messages: messages.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect(),
        })
    }

    async fn forget(&self, room: &RoomId, what: Forget) -> Result<(), ArchiveError> {
        let mut state = self.state()?;
        let Some(room) = state.rooms.get_mut(room) else { return Ok(()) };
        match what {
            Forget::Old { first, before } => room.trim(first, before),
            Forget::Message(position) if position.epoch == room.head.epoch => {
                room.erase(position.offset);
            }
            Forget::Message(_) => {}
        }
        Ok(())
    }
}

impl Room {
    fn append(&mut self, record: ArchiveRecord) -> Result<(), ArchiveError> {
        let publication = &record.publication;
        let next = publication.epoch == self.head.epoch
            && publication.offset.is_some()
            && publication.offset == self.head.last.next();
        let key = record.msg_id.as_ref().map(|msg_id| DedupKey {
            room: publication.room.clone(),
            publisher: record.publisher.clone(),
            msg_id: msg_id.clone(),
        });
        let known = key.is_some_and(|key| self.find(&key).is_some());
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

    fn erase(&mut self, offset: Offset) {
        let Some(record) = self.messages.get_mut(&offset) else { return };
        if record.publication.tombstone.is_none() {
            let publication = record.publication.clone();
            record.publication = publication.into_tombstone(TombstoneReason::Deleted);
        }
    }

    fn find(&self, key: &DedupKey) -> Option<Position> {
        let found = self.messages.iter().find(|(_, record)| {
            record.publisher == key.publisher && record.msg_id.as_ref() == Some(&key.msg_id)
        });
        found.map(|(offset, _)| Position { epoch: self.head.epoch, offset: *offset })
    }
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
    use crate::testing::archive_contract;

    #[tokio::test]
    async fn the_memory_archive_keeps_the_contract() {
        archive_contract::all(async || Arc::new(MemoryArchive::new()) as Arc<dyn Archive>).await;
    }

    #[tokio::test]
    async fn told_to_fail_it_fails_that_often_and_changes_nothing() {
        let archive = MemoryArchive::new();
        let room = RoomId::parse("chat:a").unwrap();
        archive.fail_next(2);
        for _ in 0..2 {
            let answer = archive.open_room(&room, Epoch::from_bits(1)).await;
            assert!(matches!(answer, Err(ArchiveError::Storage(_))));
        }
        let head = archive.open_room(&room, Epoch::from_bits(2)).await.unwrap();
        assert_eq!(head.epoch, Epoch::from_bits(2));
    }
}
