//! How many connections each user has on this node, and how many members each room.
//!
//! Locked when a connection is authenticated and when it ends, when a shard gets its first member of a
//! room and loses its last, and for each message to one user alone; never per delivery.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::id::UserId;
use domain::moderation::{Act, Entry, LatestActs};
use domain::rate_limit::{Rate, RateLimiter};
use domain::room::RoomId;
use domain::time::{Monotonic, Wall};
use tokio::sync::Semaphore;

use crate::seats::HeldSeat;
use crate::suspects::Suspects;
use crate::unsure::Unsure;

/// The user has as many connections as allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooManyConnections;

/// Counts connections by user. At most one entry per admitted connection, so the host's limit on
/// connections bounds it.
#[derive(Debug, Default)]
pub struct Directory {
    users: Mutex<BTreeMap<UserId, UserHere>>,
    rooms: Mutex<BTreeMap<RoomId, Arc<AtomicU32>>>,
    watches: AtomicUsize,
    /// What moderators did lately, here or elsewhere.
    pub acts: SharedActs,
    /// Letters that may be kept, of which nobody could say so.
    pub unsure: Unsure<()>,
    /// Addresses that keep coming with what does not count.
    pub suspects: Suspects,
    /// Whose turn it is to list what the shards have.
    pub(crate) listing: Listing,
}

/// The latest acts of moderators that this node knows of.
#[derive(Debug, Default)]
pub struct SharedActs(Mutex<LatestActs>);

impl SharedActs {
    /// This was done.
    pub fn note(&self, entry: &Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(entry);
    }

    /// Where an act stands that is done now: behind all that is known about the same, whosever clock that was by.
    #[must_use]
    pub fn order(&self, room: &RoomId, act: &Act, now: Wall) -> Wall {
        let acts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = |latest: Wall| latest.after(Duration::from_millis(1));
        acts.latest(room, act).map_or(now, |latest| now.max(behind(latest)))
    }
}

/// The one turn of a node to list something: what is asked for there is found out by looking, and of that
/// only so much is done at a time.
#[derive(Clone, Debug)]
pub(crate) struct Listing(pub(crate) Arc<Semaphore>);

impl Default for Listing {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// A user that is connected.
#[derive(Debug, Default)]
struct UserHere {
    connections: u32,
    commands: Arc<SharedLimiter>,
    /// What the token that came last calls it.
    name: Option<Arc<str>>,
    /// How many of them hear what is said in the user's room.
    listeners: u32,
    /// Whose turn it is to be given what waited for the user.
    inbox: Arc<InboxState>,
}

/// Whether one of a user's connections is being given what waited for the user, and whether something
/// came meanwhile.
#[derive(Debug, Default)]
struct InboxState(AtomicU8);

const FREE: u8 = 0;
const TAKEN: u8 = 1;
const TAKEN_AND_ASKED: u8 = 2;

/// The turn of one connection of a user to be given what waited for the user; letting go of it makes it
/// another's. While it lasts the user is remembered, also when the last connection has gone.
#[derive(Debug)]
pub struct InboxTurn {
    directory: Arc<Directory>,
    user: UserId,
    /// None once it has ended: what another does with it then must not be undone.
    state: Option<Arc<InboxState>>,
}

impl InboxTurn {
    /// One that keeps nobody from theirs: a [mistake](crate::planted).
    pub(crate) const fn nobodys(directory: Arc<Directory>, user: UserId) -> Self {
        Self { directory, user, state: None }
    }

    /// Nothing was left: ends the turn, unless somebody asked for it meanwhile.
    #[must_use]
    pub fn end(mut self) -> Option<Self> {
        let state = self.state.as_ref()?;
        let ended = |now| Some(if now == TAKEN_AND_ASKED { TAKEN } else { FREE });
        let before = state.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, ended);
        if before == Ok(TAKEN_AND_ASKED) {
            return Some(self);
        }
        self.state = None;
        None
    }
}

impl Drop for InboxTurn {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            state.0.store(FREE, Ordering::Release);
        }
        self.directory.forget_if_gone(&self.user);
    }
}

/// A limit that several shards count against: one number that is exchanged, never locked.
#[derive(Debug, Default)]
pub struct SharedLimiter(AtomicU64);

impl SharedLimiter {
    /// Takes one event, as [`RateLimiter::take`] does.
    ///
    /// # Errors
    /// The time until one event would be taken.
    pub fn take(&self, rate: Rate, now: Monotonic) -> Result<(), Duration> {
        let mut taken = Ok(());
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |due| {
            let mut limiter = RateLimiter::from_micros(due);
            taken = limiter.take(rate, now);
            taken.is_ok().then(|| limiter.as_micros())
        });
        taken
    }
}

/// The members of one room over all shards, as one shard sees them; letting go of it when the
/// shard has no members left forgets the room.
#[derive(Debug)]
pub struct Seats {
    directory: Arc<Directory>,
    room: RoomId,
    taken: Arc<AtomicU32>,
}

impl Seats {
    /// Takes a seat, unless `seats_max` are taken. Says whether it did.
    #[must_use]
    pub fn take(&self, seats_max: u32) -> bool {
        let taken = self.taken.fetch_add(1, Ordering::AcqRel);
        if taken >= seats_max {
            self.give_back();
        }
        taken < seats_max
    }

    /// How many are taken, over all shards.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Acquire)
    }

    /// Gives a seat back that was taken.
    pub fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        let mut rooms = self.directory.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's own and this one: no other shard has members.
        if Arc::strong_count(&self.taken) == 2 {
            rooms.remove(&self.room);
        }
    }
}

/// The place of one pattern of one shard among those of the node; letting go of it makes room for
/// another.
#[derive(Debug)]
pub struct WatchSeat {
    directory: Arc<Directory>,
}

impl Drop for WatchSeat {
    fn drop(&mut self) {
        self.directory.watches.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One admitted connection; letting go of it makes room for another.
#[derive(Debug)]
pub struct Admission {
    directory: Arc<Directory>,
    user: UserId,
    commands: Arc<SharedLimiter>,
    /// Its place over all nodes.
    seat: Option<HeldSeat>,
}

impl Admission {
    /// Keeps its place over all nodes for as long as this one.
    pub fn sit(&mut self, seat: HeldSeat) {
        self.seat = Some(seat);
    }

    /// On how many nodes its user has places.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.seat.as_ref().map_or(1, HeldSeat::nodes)
    }

    /// The limit on what all connections of the user ask for together.
    #[must_use]
    pub fn commands(&self) -> &SharedLimiter {
        &self.commands
    }
}

impl Directory {
    /// Admits one more connection of a user.
    ///
    /// # Errors
    /// [`TooManyConnections`] at `connections_max`.
    pub fn admit(
        self: &Arc<Self>,
        user: &UserId,
        name: Option<&Arc<str>>,
        connections_max: u32,
    ) -> Result<Admission, TooManyConnections> {
        let mut users = self.lock();
        let here = users.entry(user.clone()).or_default();
        if here.connections >= connections_max {
            return Err(TooManyConnections);
        }
        here.connections += 1;
        here.name = name.cloned();
        let commands = Arc::clone(&here.commands);
        drop(users);
        Ok(Admission { directory: Arc::clone(self), user: user.clone(), commands, seat: None })
    }

    /// The seats of a room.
    #[must_use]
    pub fn seats(self: &Arc<Self>, room: &RoomId) -> Seats {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = Arc::clone(rooms.entry(room.clone()).or_default());
        Seats { directory: Arc::clone(self), room: room.clone(), taken }
    }

    /// How many seats of a room are taken.
    #[must_use]
    pub fn seats_taken(&self, room: &RoomId) -> u32 {
        let rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.get(room).map_or(0, |taken| taken.load(Ordering::Acquire))
    }

    /// A place for one more pattern, unless `watches_max` are taken.
    #[must_use]
    pub fn watch_seat(self: &Arc<Self>, watches_max: usize) -> Option<WatchSeat> {
        let taken = self.watches.fetch_add(1, Ordering::AcqRel);
        // Gives its place back when it is not to be had.
        let seat = WatchSeat { directory: Arc::clone(self) };
        (taken < watches_max).then_some(seat)
    }

    /// How many connections a user has.
    #[must_use]
    pub fn connections_of(&self, user: &UserId) -> u32 {
        self.lock().get(user).map_or(0, |here| here.connections)
    }

    /// The turn to be given what waited for a user; none when another connection of the user has it, or
    /// none is here. Who has it is told that somebody asked.
    #[must_use]
    pub fn inbox_turn(self: &Arc<Self>, user: &UserId) -> Option<InboxTurn> {
        let state = self.lock().get(user).map(|here| Arc::clone(&here.inbox))?;
        let asked = |now| Some(if now == FREE { TAKEN } else { TAKEN_AND_ASKED });
        let before = state.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, asked);
        let (directory, user) = (Arc::clone(self), user.clone());
        (before == Ok(FREE)).then(|| InboxTurn { directory, user, state: Some(state) })
    }

    /// One more connection of a user hears what is said in the user's room.
    pub fn listens(&self, user: &UserId) {
        if let Some(here) = self.lock().get_mut(user) {
            here.listeners += 1;
        }
    }

    /// One less does.
    pub fn listens_no_more(&self, user: &UserId) {
        if let Some(here) = self.lock().get_mut(user) {
            here.listeners = here.listeners.saturating_sub(1);
        }
    }

    /// Whether any of a user's connections hears what is said in the user's room. Who else is in that room
    /// hears it, too, and does not keep it from the user.
    #[must_use]
    pub fn is_heard(&self, user: &UserId) -> bool {
        self.lock().get(user).is_some_and(|here| here.listeners > 0)
    }

    /// The first users behind one whom any connection hears for, in the order of their names. So many are looked at, and
    /// where there may be more the last of those is answered, too.
    #[must_use]
    pub fn users_heard(
        &self,
        behind: Option<&UserId>,
        looked_at: usize,
    ) -> (Vec<UserId>, Option<UserId>) {
        let users = self.lock();
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let mut heard = Vec::new();
        for (at, (user, here)) in (1..).zip(users.range::<UserId, _>((from, Bound::Unbounded))) {
            if here.listeners > 0 {
                heard.push(user.clone());
            }
            if at >= looked_at {
                return (heard, Some(user.clone()));
            }
        }
        (heard, None)
    }

    fn forget_if_gone(&self, user: &UserId) {
        let mut users = self.lock();
        // Its own count of the turn, and that of a turn which lasts.
        let is_gone =
            |here: &UserHere| here.connections == 0 && Arc::strong_count(&here.inbox) == 1;
        if users.get(user).is_some_and(is_gone) {
            users.remove(user);
        }
    }

    /// What a user who is connected is called; none when its token does not say.
    #[must_use]
    pub fn name_of(&self, user: &UserId) -> Option<Arc<str>> {
        self.lock().get(user).and_then(|here| here.name.clone())
    }

    /// How many users are connected, and how many rooms have members.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        let rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner).len();
        (self.lock().len(), rooms)
    }

    /// The first rooms whose names begin so, with their members over all shards, and how many such
    /// rooms there are.
    #[must_use]
    pub fn rooms_of(&self, prefix: &str, rooms_max: usize) -> (Vec<(RoomId, u32)>, usize) {
        let rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let of_prefix = || {
            let behind = rooms.range::<str, _>(from);
            behind.take_while(|(room, _)| room.as_str().starts_with(prefix))
        };
        let taken = |taken: &Arc<AtomicU32>| taken.load(Ordering::Acquire);
        let first = of_prefix().take(rooms_max).map(|(room, seats)| (room.clone(), taken(seats)));
        (first.collect(), of_prefix().count())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UserId, UserHere>> {
        // Every change is one step, so a poisoned map is still whole.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut users = self.directory.lock();
        if let Some(here) = users.get_mut(&self.user) {
            here.connections -= 1;
            if here.connections > 0 {
                return;
            }
        }
        drop(users);
        self.directory.forget_if_gone(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seats_of_a_room_are_shared_and_forgotten_with_the_last_shard() {
        let directory = Arc::new(Directory::default());
        let room = RoomId::parse("public:a").unwrap();
        let (one, other) = (directory.seats(&room), directory.seats(&room));
        assert!(one.take(2) && other.take(2) && !one.take(2));
        other.give_back();
        assert!(one.take(2));
        drop(one);
        assert!(!other.take(2));
        drop(other);
        assert!(directory.rooms.lock().unwrap().is_empty());
    }

    #[test]
    fn the_first_rooms_of_a_kind_are_listed_with_their_members_and_all_are_counted() {
        let directory = Arc::new(Directory::default());
        let seats = ["match:a", "match:b", "match:c", "matches:x", "chat:z"]
            .map(|room| directory.seats(&RoomId::parse(room).unwrap()));
        assert!(seats[1].take(5) && seats[1].take(5));
        let (first, total) = directory.rooms_of("match:", 2);
        let first: Vec<_> = first.iter().map(|(room, n)| (room.as_str(), *n)).collect();
        assert_eq!((first, total), (vec![("match:a", 0), ("match:b", 2)], 3));
        assert_eq!(directory.rooms_of("public:", 2), (Vec::new(), 0));
    }

    #[test]
    fn users_who_hear_are_found_page_by_page_and_none_of_them_twice() {
        let directory = Arc::new(Directory::default());
        let users: Vec<_> = (0..10).map(|n| UserId::parse(&format!("u{n}")).unwrap()).collect();
        let _here: Vec<_> =
            users.iter().map(|user| directory.admit(user, None, 1).unwrap()).collect();
        let hear: Vec<_> = users.iter().step_by(3).cloned().collect();
        hear.iter().for_each(|user| directory.listens(user));
        let (mut found, mut behind, mut pages) = (Vec::new(), None, 0);
        loop {
            let (page, last) = directory.users_heard(behind.as_ref(), 4);
            (behind, pages) = (last, pages + 1);
            found.extend(page);
            if behind.is_none() {
                break;
            }
        }
        assert_eq!((found, pages), (hear, 3));
    }

    #[test]
    fn one_connection_at_a_time_is_given_what_waited_and_looks_again_when_another_asked() {
        let directory = Arc::new(Directory::default());
        let ann = UserId::parse("ann").unwrap();
        assert!(directory.inbox_turn(&ann).is_none());
        let _here = directory.admit(&ann, None, 2).unwrap();
        let turn = directory.inbox_turn(&ann).unwrap();
        assert!(directory.inbox_turn(&ann).is_none());
        let turn = turn.end().unwrap();
        assert!(turn.end().is_none());
        assert!(directory.inbox_turn(&ann).is_some());
    }

    #[test]
    fn a_pattern_takes_a_place_until_it_is_let_go() {
        let directory = Arc::new(Directory::default());
        let first = directory.watch_seat(1).unwrap();
        assert!(directory.watch_seat(1).is_none());
        drop(first);
        assert!(directory.watch_seat(1).is_some());
    }

    /// R02, on one node.
    #[test]
    fn all_connections_of_a_user_share_one_limit_and_others_have_their_own() {
        let directory = Arc::new(Directory::default());
        let (ann, bob) = (UserId::parse("ann").unwrap(), UserId::parse("bob").unwrap());
        let anns: Vec<_> = (0..10).map(|_| directory.admit(&ann, None, 10).unwrap()).collect();
        let bob = directory.admit(&bob, None, 10).unwrap();
        let rate = Rate::new(100, 50);
        let mut taken = 0;
        // For ten seconds, from all ten in turn, twice as fast as is allowed to one.
        for ms in (0..10_000).step_by(5) {
            for admission in &anns {
                let now = Monotonic::from_millis(ms);
                taken += u32::from(admission.commands().take(rate, now).is_ok());
            }
        }
        assert!((1_045..=1_055).contains(&taken), "{taken}");
        let now = Monotonic::from_millis(9_999);
        assert!(anns[3].commands().take(rate, now).is_err());
        assert_eq!(bob.commands().take(rate, now), Ok(()));
    }

    /// R04.
    #[test]
    fn users_who_are_gone_leave_nothing_behind_however_many_they_were() {
        let directory = Arc::new(Directory::default());
        let (rate, name) = (Rate::new(1, 1), Arc::from("somebody"));
        for n in 0..1_000_000_u32 {
            let user = UserId::parse(&n.to_string()).unwrap();
            let admission = directory.admit(&user, Some(&name), 1).unwrap();
            assert_eq!(admission.commands().take(rate, Monotonic::START), Ok(()));
        }
        assert!(directory.lock().is_empty());
    }

    #[test]
    fn a_place_is_free_again_once_a_connection_is_let_go() {
        let directory = Arc::new(Directory::default());
        let user = UserId::parse("u").unwrap();
        let first = directory.admit(&user, None, 2).unwrap();
        let _second = directory.admit(&user, None, 2).unwrap();
        assert_eq!(directory.admit(&user, None, 2).unwrap_err(), TooManyConnections);
        drop(first);
        assert!(directory.admit(&user, None, 2).is_ok());
        assert_eq!(directory.connections_of(&user), 1);
    }
}
