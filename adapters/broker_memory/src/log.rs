//! The recent messages of one room, in a ring.
//!
//! Its offsets are always consecutive: what would leave a hole empties it first. It must never
//! answer data of a message that has expired.

use std::collections::VecDeque;
use std::sync::Arc;

use application::ports::ReadLog;
use application::published::Published;
use domain::message::TombstoneReason;
use domain::position::Offset;
use domain::retention::Retention;
use domain::time::Wall;

use crate::budget::Budget;

/// The most messages of one page, whatever the reader asks for: a page is made under the lock.
pub(crate) const PAGE_MESSAGES_MAX: u32 = 1_024;

/// What one kept message costs the node: the data, the encoded message and its frame, which shards
/// leave in it, and the fields around them.
pub(crate) fn cost(published: &Published) -> usize {
    const FIELDS_BYTES: usize = 768;
    FIELDS_BYTES + 3 * (published.publication.data.len() + published.publication.tags.cost_bytes())
}

/// The message as a reader gets it: one that has expired is only its place.
pub(crate) fn readable(published: &Arc<Published>, now: Wall) -> Arc<Published> {
    if !published.publication.is_expired(now) {
        return Arc::clone(published);
    }
    let tombstone = published.publication.clone().into_tombstone(TombstoneReason::Expired);
    Arc::new(Published::new(tombstone))
}

/// Collects messages for one page, up to both limits of a read.
pub(crate) struct PageBuilder {
    pub(crate) messages: Vec<Arc<Published>>,
    messages_max: usize,
    bytes_left: usize,
}

impl PageBuilder {
    pub(crate) fn new(read: &ReadLog) -> Self {
        let messages_max = read.messages_max.min(PAGE_MESSAGES_MAX) as usize;
        Self { messages: Vec::new(), messages_max, bytes_left: read.bytes_max }
    }

    /// Takes one more, or answers that the page is full.
    pub(crate) fn push(&mut self, message: Arc<Published>) -> bool {
        let bytes = message.publication.data.len();
        // One message always fits, or a reader could never get past a large one.
        let fits = bytes <= self.bytes_left || self.messages.is_empty();
        if self.messages.len() >= self.messages_max || !fits {
            return false;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.messages.push(message);
        true
    }
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: VecDeque<Arc<Published>>,
    /// Bytes of data, for the room's retention.
    data_bytes: u64,
    /// What all entries cost the node.
    cost_bytes: usize,
}

impl Log {
    /// The oldest offset held; none when the ring is empty.
    pub(crate) fn first(&self) -> Option<Offset> {
        self.entries.front().and_then(|published| published.publication.offset)
    }

    /// The same with its time.
    pub(crate) fn oldest(&self) -> Option<(Offset, Wall)> {
        let publication = &self.entries.front()?.publication;
        Some((publication.offset?, publication.at))
    }

    /// What the ring costs the node.
    pub(crate) const fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    /// Appends, then drops from the old end what retention no longer keeps. Each message is
    /// dropped once, so the work per publish is constant in the long run.
    pub(crate) fn push(&mut self, published: &Arc<Published>, keep: &Retention, budget: &Budget) {
        let (offset, now) = (published.publication.offset, published.publication.at);
        let newest = self.entries.back().and_then(|newest| newest.publication.offset);
        if newest.is_some_and(|newest| newest.next() != offset) {
            self.clear(budget);
        }
        if !keep.keeps_history() {
            return;
        }
        self.data_bytes += published.publication.data.len() as u64;
        let cost = cost(published);
        self.cost_bytes += cost;
        budget.charge(cost);
        self.entries.push_back(Arc::clone(published));
        self.trim(keep, now, budget);
    }

    /// Puts older messages before those that are here, which they must lead up to.
    pub(crate) fn prepend(&mut self, older: &[Arc<Published>], budget: &Budget) {
        for published in older.iter().rev() {
            self.data_bytes += published.publication.data.len() as u64;
            let cost = cost(published);
            self.cost_bytes += cost;
            budget.charge(cost);
            self.entries.push_front(Arc::clone(published));
        }
    }

    /// Drops what retention no longer keeps.
    pub(crate) fn trim(&mut self, keep: &Retention, now: Wall, budget: &Budget) {
        while let Some(oldest) = self.entries.front() {
            let at = oldest.publication.at;
            if !keep.must_drop_oldest(self.entries.len(), self.data_bytes, at, now) {
                return;
            }
            self.drop_oldest(budget);
        }
    }

    /// Drops the oldest message; answers whether there was one.
    pub(crate) fn drop_oldest(&mut self, budget: &Budget) -> bool {
        let Some(oldest) = self.entries.pop_front() else { return false };
        self.forget_bytes(&oldest, budget);
        true
    }

    /// Gives back the memory of a ring that was once much longer.
    pub(crate) fn shrink(&mut self) {
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self, budget: &Budget) {
        self.entries.clear();
        budget.release(self.cost_bytes);
        (self.data_bytes, self.cost_bytes) = (0, 0);
    }

    /// The messages behind `read.after`, as many as one page takes. What has expired becomes a
    /// tombstone for good, so its data is freed and it is made once.
    pub(crate) fn page(&mut self, read: &ReadLog, budget: &Budget) -> Vec<Arc<Published>> {
        let mut page = PageBuilder::new(read);
        let Some(first) = self.first() else { return page.messages };
        let skipped = (read.after.get() + 1).saturating_sub(first.get());
        let start = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.entries.len());
        for at in start..self.entries.len() {
            let message = readable(&self.entries[at], read.now);
            if !Arc::ptr_eq(&message, &self.entries[at]) {
                let expired = std::mem::replace(&mut self.entries[at], Arc::clone(&message));
                self.forget_bytes(&expired, budget);
                self.cost_bytes += cost(&message);
                budget.charge(cost(&message));
            }
            if !page.push(message) {
                break;
            }
        }
        page.messages
    }

    /// Makes a message a tombstone that a moderator has deleted; answers whether it is here.
    pub(crate) fn erase(&mut self, offset: Offset, budget: &Budget) -> bool {
        let Some(first) = self.first() else { return false };
        let at = offset.get().checked_sub(first.get()).and_then(|at| usize::try_from(at).ok());
        let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) else { return false };
        if entry.publication.tombstone.is_some() {
            return true;
        }
        let tombstone = entry.publication.clone().into_tombstone(TombstoneReason::Deleted);
        let tombstone = Arc::new(Published::new(tombstone));
        let erased = std::mem::replace(entry, Arc::clone(&tombstone));
        self.forget_bytes(&erased, budget);
        self.cost_bytes += cost(&tombstone);
        budget.charge(cost(&tombstone));
        true
    }

    fn forget_bytes(&mut self, published: &Published, budget: &Budget) {
        let cost = cost(published);
        self.data_bytes -= published.publication.data.len() as u64;
        self.cost_bytes -= cost;
        budget.release(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use domain::delivery::Class;
    use domain::id::Epoch;
    use domain::message::{Publication, Sender};
    use domain::room::RoomId;
    use domain::tags::Tags;
    use std::time::Duration;

    fn message(offset: u64, at: i64, expires_at: Option<i64>) -> Arc<Published> {
        Arc::new(Published::new(Publication {
            room: RoomId::parse("public:a").unwrap(),
            epoch: Epoch::from_bits(1),
            offset: Offset::parse(offset).ok(),
            class: Class::Reliable,
            key: None,
            sender: Sender::default(),
            data: Bytes::from_static(b"\"0123\""),
            tags: Tags::default(),
            origin: None,
            at: Wall::from_millis(at),
            expires_at: expires_at.map(Wall::from_millis),
            tombstone: None,
        }))
    }

    fn read(after: u64, now: i64) -> ReadLog {
        ReadLog {
            after: Offset::parse(after).unwrap(),
            messages_max: 100,
            bytes_max: 1_000,
            now: Wall::from_millis(now),
        }
    }

    #[test]
    fn what_is_dropped_is_given_back_to_the_node() {
        let budget = Budget::new(usize::MAX, 1);
        let keep = Retention { messages_max: 3, ..Retention::default() };
        let mut log = Log::default();
        for n in 1..=10 {
            log.push(&message(n, 0, Some(5)), &keep, &budget);
        }
        assert_eq!(log.first(), Offset::parse(8).ok());
        let before = budget.bytes();
        assert_eq!(before, log.cost_bytes());
        assert_eq!(log.page(&read(0, 5), &budget).len(), 3);
        assert!(budget.bytes() < before, "tombstones hold no data");
        assert_eq!(budget.bytes(), log.cost_bytes());
        log.trim(&Retention { age_max: Duration::ZERO, ..keep }, Wall::from_millis(1), &budget);
        assert_eq!((log.first(), budget.bytes(), log.data_bytes), (None, 0, 0));
    }

    #[test]
    fn a_hole_empties_the_ring_instead_of_hiding_in_it() {
        let budget = Budget::new(usize::MAX, 1);
        let mut log = Log::default();
        log.push(&message(1, 0, None), &Retention::default(), &budget);
        log.push(&message(3, 0, None), &Retention::default(), &budget);
        assert_eq!(log.first(), Offset::parse(3).ok());
        assert_eq!(log.page(&read(0, 0), &budget).len(), 1);
    }

    #[test]
    fn a_position_ahead_of_the_ring_reads_nothing() {
        let budget = Budget::new(usize::MAX, 1);
        let mut log = Log::default();
        log.push(&message(1, 0, None), &Retention::default(), &budget);
        assert!(log.page(&read(1, 0), &budget).is_empty());
        assert!(log.page(&read(Offset::MAX.get(), 0), &budget).is_empty());
    }
}
