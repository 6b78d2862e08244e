//! Who is where over this node, as it should stand in Redis, and what of that is still to be said.
//!
//! Nothing here speaks to Redis. A change must never be dropped before Redis has it: a leave that is
//! forgotten is a ghost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use application::planted::{Mistake, is_planted};
use bytes::Bytes;
use domain::id::ConnectionId;
use domain::presence::PresenceKey;
use domain::room::RoomId;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A member of a room.
pub(crate) type Seat = (RoomId, PresenceKey);

/// What waits to be told.
#[derive(Debug)]
struct Change {
    /// Who waits for it.
    waiting: Vec<oneshot::Sender<()>>,
    /// Not before.
    due: Instant,
    /// When the first of it was noted.
    since: Instant,
}

/// The members that are here over this node.
#[derive(Debug, Default)]
pub(crate) struct Local {
    members: BTreeMap<Seat, Vec<ConnectionId>>,
    /// Of whom Redis may know: from the entry until it has been told of the leave.
    known: BTreeSet<Seat>,
    /// How many of those each room has.
    rooms: BTreeMap<RoomId, usize>,
    /// What members show of themselves, to be said again to a Redis that has lost it.
    data: BTreeMap<Seat, Bytes>,
    changes: BTreeMap<Seat, Change>,
    /// The order in which changes came; one that has been told meanwhile is passed over.
    order: VecDeque<Seat>,
    /// Leaves that wait for their grace, and what could not be told, by when they are due.
    later: BTreeSet<(Instant, Seat)>,
}

/// What is to be told of one member.
#[derive(Debug)]
pub(crate) struct Telling {
    pub(crate) seat: Seat,
    pub(crate) connections: usize,
    /// What it shows of itself; empty where that is nothing.
    pub(crate) data: Bytes,
    pub(crate) waiting: Vec<oneshot::Sender<()>>,
    /// When the first of it was noted.
    pub(crate) since: Instant,
}

impl Local {
    /// A connection came; what is answered comes once Redis has it.
    pub(crate) fn enter(
        &mut self,
        seat: &Seat,
        connection: ConnectionId,
        now: Instant,
    ) -> oneshot::Receiver<()> {
        if self.known.insert(seat.clone()) {
            *self.rooms.entry(seat.0.clone()).or_default() += 1;
        }
        let connections = self.members.entry(seat.clone()).or_default();
        if !connections.contains(&connection) {
            connections.push(connection);
        }
        let (sender, receiver) = oneshot::channel();
        self.note(seat, now, Duration::ZERO, Some(sender));
        receiver
    }

    /// A connection went. Where it was the last, others hear of it only after the grace.
    pub(crate) fn leave(
        &mut self,
        seat: &Seat,
        connection: ConnectionId,
        now: Instant,
        grace: Duration,
    ) {
        let Some(connections) = self.members.get_mut(seat) else { return };
        let before = connections.len();
        connections.retain(|other| *other != connection);
        if connections.len() == before {
            return;
        }
        if connections.is_empty() {
            let grace = if is_planted(Mistake::GraceForgotten) { Duration::ZERO } else { grace };
            self.members.remove(seat);
            self.note(seat, now, grace, None);
        } else {
            self.note(seat, now, Duration::ZERO, None);
        }
    }

    pub(crate) fn is_here(&self, seat: &Seat) -> bool {
        self.members.contains_key(seat)
    }

    /// Everything is to be told again, to a Redis that may know nothing of it.
    pub(crate) fn note_all(&mut self, now: Instant) {
        let all: Vec<_> = self.members.keys().cloned().collect();
        for seat in all {
            self.note(&seat, now, Duration::ZERO, None);
        }
    }

    fn note(
        &mut self,
        seat: &Seat,
        now: Instant,
        grace: Duration,
        waiting: Option<oneshot::Sender<()>>,
    ) {
        let due = now + grace;
        let change = match self.changes.get_mut(seat) {
            Some(change) => {
                // Whatever it was before: a leave in its grace is over when its user is back.
                self.later.remove(&(change.due, seat.clone()));
                change.due = due;
                change
            }
            None => {
                let change = Change { waiting: Vec::new(), due, since: now };
                self.changes.entry(seat.clone()).or_insert(change)
            }
        };
        change.waiting.extend(waiting);
        if grace.is_zero() {
            self.order.push_back(seat.clone());
        } else {
            self.later.insert((due, seat.clone()));
        }
    }

    /// The next changes that are due, at most `max`.
    pub(crate) fn take(&mut self, now: Instant, max: usize) -> Vec<Telling> {
        let mut all = Vec::new();
        while let Some((due, seat)) = self.later.first().cloned() {
            if due > now {
                break;
            }
            self.later.pop_first();
            self.order.push_back(seat);
        }
        while all.len() < max {
            let Some(seat) = self.order.pop_front() else { break };
            // Told already.
            let Some(due) = self.changes.get(&seat).map(|change| change.due) else { continue };
            // Put off meanwhile. One that is not was noted behind the look at the clock, and comes up nowhere else.
            if due > now && self.later.contains(&(due, seat.clone())) {
                continue;
            }
            let Some(change) = self.changes.remove(&seat) else { continue };
            let connections = self.members.get(&seat).map_or(0, Vec::len);
            let data = self.data.get(&seat).cloned().unwrap_or_default();
            let Change { waiting, since, .. } = change;
            all.push(Telling { seat, connections, data, waiting, since });
        }
        all
    }

    /// Redis has been told. Answers whether it knows of nobody else in the room over this node.
    pub(crate) fn told(&mut self, seat: &Seat, connections: usize) -> bool {
        // Who has come back meanwhile is to be told of again.
        if connections > 0 || self.members.contains_key(seat) || !self.known.remove(seat) {
            return false;
        }
        self.data.remove(seat);
        let Some(count) = self.rooms.get_mut(&seat.0) else { return false };
        *count -= 1;
        let is_unused = *count == 0;
        if is_unused {
            self.rooms.remove(&seat.0);
        }
        is_unused
    }

    /// Notes what a member shows of itself, once Redis has it.
    pub(crate) fn show(&mut self, seat: &Seat, data: Bytes) {
        if self.members.contains_key(seat) {
            self.data.insert(seat.clone(), data);
        }
    }

    /// Takes back what could not be told, to be told at `due`. Who waited for it goes on waiting only where it was not
    /// tried.
    pub(crate) fn put_back(&mut self, telling: Vec<Telling>, due: Instant, was_tried: bool) {
        for mut one in telling {
            if was_tried && is_planted(Mistake::ChangeDropped) {
                continue;
            }
            // What has changed since has a moment of its own, which may be the end of its grace.
            let change = match self.changes.get_mut(&one.seat) {
                Some(change) => change,
                None => {
                    self.later.insert((due, one.seat.clone()));
                    let change = Change { waiting: Vec::new(), due, since: one.since };
                    self.changes.entry(one.seat).or_insert(change)
                }
            };
            change.since = change.since.min(one.since);
            if !was_tried {
                change.waiting.append(&mut one.waiting);
            }
        }
    }

    /// Nobody comes back here: all leaves are due.
    pub(crate) fn end_graces(&mut self, now: Instant) {
        for (due, seat) in std::mem::take(&mut self.later) {
            if let Some(change) = self.changes.get_mut(&seat) {
                change.due = change.due.min(now);
            }
            self.later.insert((due.min(now), seat));
        }
    }

    /// When the last of those is due that wait for their time.
    pub(crate) fn last_due(&self) -> Option<Instant> {
        self.later.last().map(|(due, _)| *due)
    }

    /// Whether nothing is left to be told that was noted by then.
    pub(crate) fn is_told_since(&self, then: Instant) -> bool {
        self.changes.values().all(|change| change.since > then)
    }

    /// When the next change is due; none while there is none.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        if !self.order.is_empty() {
            return Some(now);
        }
        self.later.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(2);

    fn seat(user: &str) -> Seat {
        let user = domain::id::UserId::parse(user).unwrap();
        (RoomId::parse("public:a").unwrap(), PresenceKey::User(user))
    }

    fn connection(bits: u64) -> ConnectionId {
        ConnectionId::from_bits(bits)
    }

    fn told(local: &mut Local, now: Instant) -> Vec<(String, usize)> {
        let all = local.take(now, 100);
        for one in &all {
            local.told(&one.seat, one.connections);
        }
        all.into_iter().map(|one| (one.seat.1.to_string(), one.connections)).collect()
    }

    #[test]
    fn changes_are_told_once_in_their_order_with_what_is_so_when_they_are_told() {
        let (mut local, now) = (Local::default(), Instant::now());
        for (user, bits) in [("b", 1), ("a", 2), ("b", 3)] {
            drop(local.enter(&seat(user), connection(bits), now));
        }
        assert_eq!(told(&mut local, now), [("b".to_owned(), 2), ("a".to_owned(), 1)]);
        assert!(told(&mut local, now).is_empty());
        local.leave(&seat("b"), connection(1), now, GRACE);
        assert_eq!(told(&mut local, now), [("b".to_owned(), 1)], "others of it are here");
        assert_eq!(local.next_due(now), None);
    }

    #[test]
    fn who_came_while_the_clock_was_looked_at_is_told_of_all_the_same() {
        let (mut local, looked_at) = (Local::default(), Instant::now());
        drop(local.enter(&seat("a"), connection(1), looked_at + Duration::from_micros(1)));
        assert_eq!(told(&mut local, looked_at), [("a".to_owned(), 1)]);
        assert!(local.changes.is_empty());
    }

    #[test]
    fn who_comes_back_within_the_grace_has_never_left() {
        let (mut local, now) = (Local::default(), Instant::now());
        drop(local.enter(&seat("a"), connection(1), now));
        told(&mut local, now);
        local.leave(&seat("a"), connection(1), now, GRACE);
        assert!(told(&mut local, now).is_empty());
        assert_eq!(local.next_due(now), Some(now + GRACE));
        drop(local.enter(&seat("a"), connection(2), now + GRACE / 2));
        assert_eq!(told(&mut local, now + GRACE / 2), [("a".to_owned(), 1)]);
        assert!(told(&mut local, now + 2 * GRACE).is_empty());
        local.leave(&seat("a"), connection(2), now, GRACE);
        assert_eq!(told(&mut local, now + GRACE), [("a".to_owned(), 0)]);
        assert!(local.rooms.is_empty() && local.members.is_empty() && local.changes.is_empty());
    }

    #[test]
    fn a_room_is_used_until_redis_has_been_told_of_the_last_leave() {
        let (mut local, now) = (Local::default(), Instant::now());
        for (user, bits) in [("a", 1), ("b", 2)] {
            drop(local.enter(&seat(user), connection(bits), now));
        }
        local.show(&seat("a"), Bytes::from_static(b"1"));
        assert_eq!(local.take(now, 100)[0].data, "1");
        local.leave(&seat("b"), connection(2), now, Duration::ZERO);
        local.leave(&seat("a"), connection(1), now, GRACE);
        let first = local.take(now, 100);
        assert_eq!(
            (first.len(), local.told(&first[0].seat, 0)),
            (1, false),
            "a still stands there"
        );
        let last = local.take(now + GRACE, 100);
        assert!(local.told(&last[0].seat, 0) && local.data.is_empty());
    }

    #[test]
    fn one_that_can_t_be_told_of_holds_up_nobody_and_ends_no_grace() {
        let (mut local, now) = (Local::default(), Instant::now());
        drop(local.enter(&seat("a"), connection(1), now));
        let failed = local.take(now, 100);
        let later = now + GRACE / 4;
        local.put_back(failed, later, true);
        drop(local.enter(&seat("b"), connection(2), now));
        assert_eq!(told(&mut local, now), [("b".to_owned(), 1)]);
        assert_eq!(local.next_due(now), Some(later));
        let failed = local.take(later, 100);
        local.leave(&seat("a"), connection(1), later, GRACE);
        local.put_back(failed, later, true);
        assert!(told(&mut local, later).is_empty(), "it may come back");
        assert_eq!(told(&mut local, later + GRACE), [("a".to_owned(), 0)]);
    }

    #[test]
    fn everything_is_told_only_when_what_failed_and_what_is_in_its_grace_has_been() {
        let (mut local, now) = (Local::default(), Instant::now());
        for (user, bits) in [("a", 1), ("b", 2)] {
            drop(local.enter(&seat(user), connection(bits), now));
        }
        told(&mut local, now);
        local.leave(&seat("b"), connection(2), now, GRACE);
        local.note_all(now);
        let failed = local.take(now, 100);
        assert_eq!(failed.len(), 1);
        local.put_back(failed, now + GRACE / 4, true);
        let later = now + GRACE / 2;
        drop(local.enter(&seat("b"), connection(3), later));
        assert!(!local.is_told_since(now));
        assert_eq!(told(&mut local, later), [("b".to_owned(), 1), ("a".to_owned(), 1)]);
        drop(local.enter(&seat("c"), connection(4), later));
        assert!(local.is_told_since(now), "what came later is another matter");
    }

    #[test]
    fn what_could_not_be_told_is_told_later_as_it_is_then() {
        let (mut local, now) = (Local::default(), Instant::now());
        let mut waits = local.enter(&seat("a"), connection(1), now);
        let failed = local.take(now, 100);
        local.put_back(failed, now, true);
        assert!(waits.try_recv().is_err(), "who waited is told that it failed");
        local.leave(&seat("a"), connection(1), now, Duration::ZERO);
        assert_eq!(told(&mut local, now), [("a".to_owned(), 0)]);
    }

    #[test]
    fn a_redis_that_knows_nothing_is_told_of_everybody_who_is_here() {
        let (mut local, now) = (Local::default(), Instant::now());
        for (user, bits) in [("a", 1), ("b", 2)] {
            drop(local.enter(&seat(user), connection(bits), now));
        }
        told(&mut local, now);
        local.leave(&seat("b"), connection(2), now, GRACE);
        local.note_all(now);
        assert_eq!(told(&mut local, now), [("a".to_owned(), 1)]);
    }
}
