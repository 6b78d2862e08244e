//! Sanctions as all shards of a process look at them while one of them changes.
//!
//! It must never be held across an await, and must cost one load of a number while nobody is sanctioned.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use domain::id::UserId;
use domain::moderation::{Deed, Sanctions, Until};
use domain::room::RoomId;
use domain::time::Wall;

/// Sanctions behind a lock, for adapters of [`Moderation`](crate::ports::Moderation).
#[derive(Debug, Default)]
pub struct SharedSanctions {
    /// Held for one look or one change.
    set: RwLock<Sanctions>,
    /// How many there are, for those who ask while there are none.
    count: AtomicUsize,
}

impl From<Sanctions> for SharedSanctions {
    fn from(set: Sanctions) -> Self {
        Self { count: AtomicUsize::new(set.len()), set: RwLock::new(set) }
    }
}

impl SharedSanctions {
    /// Makes one change.
    pub fn change<T>(&self, change: impl FnOnce(&mut Sanctions) -> T) -> T {
        // A change that panicked may be half done; what was whole before it still counts.
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut set);
        self.count.store(set.len(), Ordering::Release);
        changed
    }

    /// See [`Sanctions::forbids`].
    #[must_use]
    pub fn forbids(&self, user: &UserId, room: &RoomId, deed: Deed, now: Wall) -> Option<Until> {
        self.look(|set| set.forbids(user, room, deed, now))?
    }

    /// See [`Sanctions::bans_in`].
    #[must_use]
    pub fn bans_in(&self, room: &RoomId) -> bool {
        self.look(|set| set.bans_in(room)).unwrap_or(false)
    }

    /// Forgets all that are over, in steps, since whoever speaks looks into the set. Says whether there
    /// were some.
    pub fn forget(&self, now: Wall) -> bool {
        let first = self.change(|set| set.forget(now));
        let mut forgotten = first;
        while forgotten == Sanctions::FORGOTTEN_AT_ONCE {
            forgotten = self.change(|set| set.forget(now));
        }
        first > 0
    }

    /// Nothing where nobody is sanctioned.
    fn look<T>(&self, look: impl FnOnce(&Sanctions) -> T) -> Option<T> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        Some(look(&self.set.read().unwrap_or_else(PoisonError::into_inner)))
    }
}
