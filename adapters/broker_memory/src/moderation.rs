//! Sanctions and what moderators did in this process's memory, for a node that keeps nothing on disk.
//!
//! They end with the process. The log is bounded: its oldest entries go first.

use std::collections::VecDeque;
use std::sync::Mutex;

use application::ports::{EntryId, Moderation, ReadEntriesError, RecordError};
use application::sanctions::SharedSanctions;
use async_trait::async_trait;
use domain::id::UserId;
use domain::moderation::{Deed, Entry, Until};
use domain::room::RoomId;
use domain::time::Wall;

use crate::broker::lock;

/// The most entries of the log: about ten megabytes.
const ENTRIES_MAX: usize = 10_000;

/// See the module's text.
#[derive(Debug, Default)]
pub struct MemoryModeration {
    sanctions: SharedSanctions,
    log: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    newest_last: VecDeque<(EntryId, Entry)>,
    last: u64,
}

#[async_trait]
impl Moderation for MemoryModeration {
    fn forbids(&self, user: &UserId, room: &RoomId, deed: Deed, now: Wall) -> Option<Until> {
        self.sanctions.forbids(user, room, deed, now)
    }

    fn bans_in(&self, room: &RoomId) -> bool {
        self.sanctions.bans_in(room)
    }

    async fn record(&self, entry: &Entry) -> Result<(), RecordError> {
        self.sanctions.change(|set| set.apply(entry)).map_err(|_| RecordError::Full)?;
        let mut log = lock(&self.log);
        log.last += 1;
        let id = EntryId(log.last);
        log.newest_last.push_back((id, entry.clone()));
        if log.newest_last.len() > ENTRIES_MAX {
            log.newest_last.pop_front();
        }
        Ok(())
    }

    async fn read(
        &self,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Vec<(EntryId, Entry)>, ReadEntriesError> {
        let log = lock(&self.log);
        let older = log.newest_last.iter().rev();
        let older = older.filter(|(id, _)| before.is_none_or(|before| *id < before));
        Ok(older.take(limit as usize).cloned().collect())
    }

    async fn forget(&self, now: Wall) {
        self.sanctions.forget(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::testing::moderation_contract::{ModerationContract, entry};
    use domain::moderation::Act;

    #[tokio::test]
    async fn moderation_in_memory_passes_the_contract() {
        ModerationContract { moderation: &MemoryModeration::default() }.check().await;
    }

    #[tokio::test]
    async fn the_log_forgets_its_oldest_entries_and_no_sanction_with_them() {
        let moderation = MemoryModeration::default();
        let user = UserId::parse("ann").unwrap();
        moderation.record(&entry(0, Act::Ban(user.clone(), None))).await.unwrap();
        for n in 0..ENTRIES_MAX as i64 {
            moderation.record(&entry(n, Act::Kick(user.clone()))).await.unwrap();
        }
        let all = moderation.read(None, u32::MAX).await.unwrap();
        assert_eq!(all.len(), ENTRIES_MAX);
        assert!(all.iter().all(|(_, entry)| entry.act == Act::Kick(user.clone())));
        let room = entry(0, Act::Kick(user.clone())).room;
        let forbids = moderation.forbids(&user, &room, Deed::Enter, Wall::default());
        assert_eq!(forbids, Some(Until::Lifted));
    }
}
