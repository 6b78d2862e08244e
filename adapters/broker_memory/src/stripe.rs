//! The rooms that share a lock, and what was published in them lately.
//!
//! A caller holds the lock for one step and never while it waits.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use application::ports::{DedupKey, NoEntropy, PublishError, Receipt};
use domain::id::Epoch;
use domain::message::Publish;
use domain::policy::AckLevel;
use domain::retention::Retention;
use domain::room::RoomId;
use domain::time::Wall;

use crate::broker::RETRY_AFTER;
use crate::budget::Budget;
use crate::dedup::{Dedup, Place};
use crate::room::{Room, positioned};
use crate::watchers::Watchers;

/// Rooms in the order of their names, so that a sweep can go on where it stopped.
#[derive(Debug)]
pub(crate) struct Stripe {
    pub(crate) rooms: BTreeMap<RoomId, Room>,
    pub(crate) dedup: Dedup,
    dedup_window: Duration,
    /// Who gets what is published in rooms that its mailbox need not have subscribed to; the same
    /// for all stripes.
    pub(crate) watchers: Arc<Watchers>,
    /// The time of the last publish or sweep; subscriptions bring none of their own.
    seen_at: Wall,
    /// Where the next search for a room to forget begins.
    cursor: Option<RoomId>,
}

impl Stripe {
    /// The most rooms that are looked at to make room for one.
    const SEARCH_ROOMS_MAX: usize = 64;

    pub(crate) fn new(dedup_window: Duration, dedup_entries_max: usize) -> Self {
        Self {
            rooms: BTreeMap::new(),
            dedup: Dedup::new(dedup_window, dedup_entries_max),
            dedup_window,
            watchers: Arc::default(),
            seen_at: Wall::default(),
            cursor: None,
        }
    }

    /// The room, made if it is not here. When there are too many, another that nobody is in gives
    /// way: of those looked at one that keeps nothing, else the longest unused, whose clients find
    /// a new epoch when they come back. None when there is no such room.
    pub(crate) fn room(&mut self, id: &RoomId, budget: &Budget) -> Option<&mut Room> {
        if !budget.has_room_for_a_room() && !self.rooms.contains_key(id) {
            let cursor = self.cursor.take();
            self.cursor =
                self.forget_idle(cursor.as_ref(), Self::SEARCH_ROOMS_MAX, budget, |_, _| {});
            if !budget.has_room_for_a_room() {
                self.make_one_give_way(cursor.as_ref(), budget);
            }
        }
        let now = self.seen_at;
        match self.rooms.entry(id.clone()) {
            Entry::Occupied(room) => Some(room.into_mut()),
            Entry::Vacant(place) => Some(place.insert(Room::new(budget.take_room()?, now))),
        }
    }

    /// Positions, keeps and delivers a publish that needs no archive. The `data` is kept as it
    /// is: the caller must not hand in a small slice of a large buffer.
    pub(crate) fn publish(
        &mut self,
        publish: Publish,
        retention: Retention,
        budget: &Budget,
        fresh: impl FnOnce() -> Result<Epoch, NoEntropy>,
    ) -> Result<Receipt, PublishError> {
        let at = publish.at;
        self.seen_at = at;
        let key = dedup_key(&publish);
        if let Some(place) = key.as_ref().and_then(|key| self.dedup.get(key, at)) {
            return Ok(receipt(place, true, AckLevel::Accepted));
        }
        let watchers = Arc::clone(&self.watchers);
        let room = self
            .room(&publish.room, budget)
            .ok_or(PublishError::Unavailable { retry_after: RETRY_AFTER })?;
        room.retention = retention;
        let away = |NoEntropy| PublishError::Unavailable { retry_after: RETRY_AFTER };
        let head = room.head_or(fresh).map_err(away)?;
        let offset = match publish.class.is_positioned() {
            true => Some(head.last.next().ok_or(PublishError::LogFull)?),
            false => None,
        };
        room.accept(positioned(publish, head.epoch, offset), budget, &watchers);
        let place = Place { epoch: head.epoch, offset };
        if let Some(key) = key {
            self.dedup.remember(key, place, at);
        }
        Ok(receipt(place, false, AckLevel::Accepted))
    }

    fn make_one_give_way(&mut self, cursor: Option<&RoomId>, budget: &Budget) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = cursor.map_or(Unbounded, Excluded);
        // Round once, so that the end of the names has as many to choose from.
        let behind = self.rooms.range::<RoomId, _>((from, Unbounded)).chain(self.rooms.iter());
        let (now, window) = (self.seen_at, self.dedup_window);
        let leaving = behind
            .take(Self::SEARCH_ROOMS_MAX)
            .filter(|(_, room)| room.can_give_way(now, window))
            .min_by_key(|(_, room)| room.worth())
            .map(|(id, _)| id.clone());
        if let Some(id) = leaving {
            self.forget(&id, budget);
        }
    }

    fn forget(&mut self, id: &RoomId, budget: &Budget) {
        if let Some(mut room) = self.rooms.remove(id) {
            room.release(budget);
            budget.give_room_back();
        }
    }

    /// Notes that the room is in use now, so that it is not forgotten right after.
    pub(crate) fn touch(&mut self, id: &RoomId) {
        if let Some(room) = self.rooms.get_mut(id) {
            room.used_at = room.used_at.max(self.seen_at);
        }
    }

    /// Sets the time by which rooms age.
    pub(crate) fn saw(&mut self, now: Wall) {
        self.seen_at = now;
    }

    /// Looks at up to `rooms_max` rooms behind `cursor` and forgets those that nobody would miss;
    /// the others go to `visit`. Answers the last one looked at; none once all were.
    pub(crate) fn forget_idle(
        &mut self,
        cursor: Option<&RoomId>,
        rooms_max: usize,
        budget: &Budget,
        mut visit: impl FnMut(&RoomId, &mut Room),
    ) -> Option<RoomId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = cursor.map_or(Unbounded, Excluded);
        let mut idle = Vec::new();
        let mut last = None;
        let mut looked_at = 0;
        for (id, room) in self.rooms.range_mut::<RoomId, _>((from, Unbounded)).take(rooms_max) {
            looked_at += 1;
            last = Some(id);
            if room.is_forgettable(self.seen_at, self.dedup_window) {
                idle.push(id.clone());
            } else {
                visit(id, room);
            }
        }
        let next = if looked_at == rooms_max { last.cloned() } else { None };
        for id in idle {
            self.forget(&id, budget);
        }
        next
    }
}

/// What makes the publish the same as another; none if it has no name.
pub(crate) fn dedup_key(publish: &Publish) -> Option<DedupKey> {
    let msg_id = publish.msg_id.clone()?;
    Some(DedupKey { room: publish.room.clone(), publisher: publish.publisher.clone(), msg_id })
}

pub(crate) const fn receipt(place: Place, duplicate: bool, level: AckLevel) -> Receipt {
    Receipt { epoch: place.epoch, offset: place.offset, duplicate, level }
}
