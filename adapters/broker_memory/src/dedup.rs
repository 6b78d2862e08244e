//! Which publishes one stripe has seen, so that a retry is answered and not delivered again.
//!
//! Bounded in number and in age; the oldest is forgotten first. Nothing here may iterate the map:
//! its order is random.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use application::ports::DedupKey;
use domain::id::Epoch;
use domain::position::Offset;
use domain::time::Wall;

/// Where a publish ended up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) epoch: Epoch,
    /// None for classes without a position.
    pub(crate) offset: Option<Offset>,
}

/// The memory of one stripe.
#[derive(Debug)]
pub(crate) struct Dedup {
    places: HashMap<DedupKey, (Place, Wall)>,
    /// In the order of remembering, which is nearly the order of time.
    order: VecDeque<(Wall, DedupKey)>,
    window: Duration,
    entries_max: usize,
}

impl Dedup {
    /// The most entries that one publish or one sweep forgets because of their age.
    const FORGET_PER_PUBLISH: usize = 2;

    pub(crate) fn new(window: Duration, entries_max: usize) -> Self {
        Self { places: HashMap::new(), order: VecDeque::new(), window, entries_max }
    }

    /// Where the publish ended up, if it is remembered.
    pub(crate) fn get(&self, key: &DedupKey, now: Wall) -> Option<Place> {
        let (place, at) = self.places.get(key)?;
        (now.since(*at) <= self.window).then_some(*place)
    }

    /// Remembers a publish.
    pub(crate) fn remember(&mut self, key: DedupKey, place: Place, at: Wall) {
        if self.entries_max == 0 {
            return;
        }
        // Two go for each that comes, so the old ones are gone soon without ever a long pause.
        self.forget_old(at, Self::FORGET_PER_PUBLISH);
        while self.order.len() >= self.entries_max {
            self.forget_oldest();
        }
        self.places.insert(key.clone(), (place, at));
        self.order.push_back((at, key));
    }

    /// Forgets up to `entries_max` entries that are older than the window.
    pub(crate) fn forget_old(&mut self, now: Wall, entries_max: usize) {
        for _ in 0..entries_max {
            match self.order.front() {
                Some((at, _)) if now.since(*at) > self.window => self.forget_oldest(),
                Some(_) | None => return,
            }
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at, key)) = self.order.pop_front() else { return };
        // A key that was remembered again meanwhile has a younger entry, which stays.
        if self.places.get(&key).is_some_and(|(_, newest)| *newest == at) {
            self.places.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::{MessageId, UserId};
    use domain::message::Publisher;
    use domain::room::RoomId;

    fn key(n: u64) -> DedupKey {
        DedupKey {
            room: RoomId::parse("public:a").unwrap(),
            publisher: Publisher::User(UserId::parse("u").unwrap()),
            msg_id: MessageId::parse(&n.to_string()).unwrap(),
        }
    }

    fn place(n: u64) -> Place {
        Place { epoch: Epoch::from_bits(1), offset: Offset::parse(n).ok() }
    }

    fn at(millis: i64) -> Wall {
        Wall::from_millis(millis)
    }

    #[test]
    fn the_oldest_is_forgotten_first_when_there_are_too_many() {
        let mut dedup = Dedup::new(Duration::from_secs(600), 3);
        for n in 1..=5 {
            dedup.remember(key(n), place(n), at(0));
        }
        let known: Vec<_> = (1..=5).map(|n| dedup.get(&key(n), at(0)).is_some()).collect();
        assert_eq!(known, [false, false, true, true, true]);
        assert_eq!((dedup.places.len(), dedup.order.len()), (3, 3));
    }

    #[test]
    fn nothing_is_known_beyond_the_window_and_its_memory_is_given_back() {
        let mut dedup = Dedup::new(Duration::from_millis(10), 100);
        for n in 0..50 {
            dedup.remember(key(n), place(n), at(0));
        }
        assert_eq!(dedup.get(&key(1), at(10)), Some(place(1)));
        assert_eq!(dedup.get(&key(1), at(11)), None);
        dedup.forget_old(at(11), 20);
        assert_eq!(dedup.places.len(), 30);
        for n in 100..120 {
            dedup.remember(key(n), place(n), at(11));
        }
        assert_eq!((dedup.places.len(), dedup.order.len()), (20, 20));
    }

    #[test]
    fn a_key_remembered_again_lives_as_long_as_its_younger_entry() {
        let mut dedup = Dedup::new(Duration::from_millis(10), 100);
        dedup.remember(key(1), place(1), at(0));
        dedup.remember(key(1), place(2), at(8));
        dedup.forget_old(at(12), 10);
        assert_eq!(dedup.get(&key(1), at(12)), Some(place(2)));
        dedup.forget_old(at(19), 10);
        assert!(dedup.places.is_empty() && dedup.order.is_empty());
    }
}
