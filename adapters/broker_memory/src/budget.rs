//! What all rooms of the node share: the bytes of their logs and their number.
//!
//! It only counts; it must never decide which room gives way.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Node-wide counters. Relaxed throughout: they guard no other memory, and a bound that is passed
/// by one publish per stripe for a moment is still a bound.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: AtomicUsize,
    bytes_max: usize,
    rooms: AtomicUsize,
    rooms_max: usize,
    generations: AtomicU64,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize, rooms_max: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
            rooms: AtomicUsize::new(0),
            rooms_max,
            generations: AtomicU64::new(0),
        }
    }

    pub(crate) fn charge(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn is_exceeded(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.bytes_max
    }

    /// Whether so much is used that large rooms should give way before a small one has to.
    pub(crate) fn is_nearly_exceeded(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.bytes_max - self.bytes_max / 8
    }

    /// What each room could use if all used the same.
    pub(crate) fn fair_share(&self) -> usize {
        self.bytes_max / self.rooms.load(Ordering::Relaxed).max(1)
    }

    pub(crate) fn has_room_for_a_room(&self) -> bool {
        self.rooms.load(Ordering::Relaxed) < self.rooms_max
    }

    /// Counts one room more, if there may be one, and answers its generation: a number that no
    /// other room of this process had.
    pub(crate) fn take_room(&self) -> Option<u64> {
        let more = |rooms| (rooms < self.rooms_max).then_some(rooms + 1);
        self.rooms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(self.generations.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn give_room_back(&self) {
        self.rooms.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many rooms there are.
    pub(crate) fn rooms(&self) -> usize {
        self.rooms.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}
