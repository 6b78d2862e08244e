//! What moderators do in rooms, and who is muted or banned by it.
//!
//! A set of sanctions, bounded in number. It must never end one early to make room for another: a full
//! set says so. Who may moderate is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thiserror::Error;

use crate::id::UserId;
use crate::position::Position;
use crate::room::RoomId;
use crate::time::Wall;

/// What a moderator does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Act {
    /// Nobody hears the user in the room.
    Mute(UserId, Option<Duration>),
    /// The user is heard again.
    Unmute(UserId),
    /// The user leaves the room, and may come back.
    Kick(UserId),
    /// The user leaves the room, and may not come back.
    Ban(UserId, Option<Duration>),
    /// The user may come back.
    Unban(UserId),
    /// A message is gone.
    Delete(Position),
}

impl Act {
    /// The word in `action`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Mute(..) => "mute",
            Self::Unmute(_) => "unmute",
            Self::Kick(_) => "kick",
            Self::Ban(..) => "ban",
            Self::Unban(_) => "unban",
            Self::Delete(_) => "delete",
        }
    }

    /// Whom it is about; nobody for a message.
    #[must_use]
    pub const fn user(&self) -> Option<&UserId> {
        match self {
            Self::Mute(user, _) | Self::Unmute(user) | Self::Kick(user) => Some(user),
            Self::Ban(user, _) | Self::Unban(user) => Some(user),
            Self::Delete(_) => None,
        }
    }

    /// Which sanction it begins or ends.
    #[must_use]
    pub const fn sanction(&self) -> Option<Sanction> {
        match self {
            Self::Mute(..) | Self::Unmute(_) => Some(Sanction::Mute),
            Self::Ban(..) | Self::Unban(_) => Some(Sanction::Ban),
            Self::Kick(_) | Self::Delete(_) => None,
        }
    }
}

/// What lasts of an act.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Sanction {
    /// Says nothing in the room.
    Mute,
    /// Is not in the room, and says nothing there.
    Ban,
}

/// What a sanction forbids.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deed {
    /// To say something in the room: forbidden by both sanctions.
    Speak,
    /// To be in the room, and to learn of what is in it: forbidden by a ban.
    Enter,
}

/// When a sanction ends.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Until {
    /// At this moment.
    At(Wall),
    /// When a moderator lifts it.
    Lifted,
}

impl Until {
    /// Whether it has ended by itself.
    #[must_use]
    pub fn is_over(self, now: Wall) -> bool {
        matches!(self, Self::At(end) if end <= now)
    }

    /// How long it lasts from now on; none for one that does not end by itself.
    #[must_use]
    pub fn wait(self, now: Wall) -> Option<Duration> {
        match self {
            Self::At(end) => Some(end.since(now)),
            Self::Lifted => None,
        }
    }

    /// The moment; none for one that does not end by itself.
    #[must_use]
    pub const fn moment(self) -> Option<Wall> {
        match self {
            Self::At(end) => Some(end),
            Self::Lifted => None,
        }
    }
}

/// One act as it is written down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// When, by the clock of the node over which it was done: what it begins ends so long after that.
    pub at: Wall,
    /// Where it stands among those about the same, as a moment: that at which it was done, or behind what was known by
    /// then to be later, whosever clock that was by.
    pub order: Wall,
    /// Who did it.
    pub by: UserId,
    /// Where.
    pub room: RoomId,
    /// What, to whom or to which message.
    pub act: Act,
    /// Why, in the moderator's words.
    pub reason: Option<String>,
}

impl Entry {
    /// When the sanction that it begins ends; none where it begins none.
    #[must_use]
    pub fn until(&self) -> Option<Until> {
        match &self.act {
            Act::Mute(_, span) | Act::Ban(_, span) => {
                Some(span.map_or(Until::Lifted, |span| Until::At(self.at.after(span))))
            }
            Act::Unmute(_) | Act::Kick(_) | Act::Unban(_) | Act::Delete(_) => None,
        }
    }
}

/// Where an act stands among those about the same: by its order, then what, then whose. Every node finds the same,
/// whichever it heard first.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Order {
    at: Wall,
    lifts: bool,
    by: UserId,
}

impl Order {
    fn of(entry: &Entry) -> Self {
        Self { at: entry.order, lifts: entry.until().is_none(), by: entry.by.clone() }
    }
}

/// The latest act about each user, room and sanction, of those that were done lately.
#[derive(Debug, Default)]
pub struct LatestActs {
    latest: BTreeMap<Key, Order>,
    by_order: BTreeSet<(Order, Key)>,
}

impl LatestActs {
    /// The most that are known; the oldest go first. What crosses another act on its way is young.
    pub const ACTS_MAX: usize = 10_000;

    /// Whether a later one about the same is known.
    #[must_use]
    pub fn is_older(&self, entry: &Entry) -> bool {
        let latest = key_of(&entry.room, &entry.act).and_then(|key| self.latest.get(&key));
        latest.is_some_and(|latest| *latest > Order::of(entry))
    }

    /// The order of the latest one about the same, as far as it is known.
    #[must_use]
    pub fn latest(&self, room: &RoomId, act: &Act) -> Option<Wall> {
        self.latest.get(&key_of(room, act)?).map(|order| order.at)
    }

    /// This was done.
    pub fn note(&mut self, entry: &Entry) {
        let Some(key) = key_of(&entry.room, &entry.act).filter(|_| !self.is_older(entry)) else {
            return;
        };
        let order = Order::of(entry);
        if let Some(before) = self.latest.insert(key.clone(), order.clone()) {
            self.by_order.remove(&(before, key.clone()));
        }
        self.by_order.insert((order, key));
        if self.by_order.len() > Self::ACTS_MAX
            && let Some((_, oldest)) = self.by_order.pop_first()
        {
            self.latest.remove(&oldest);
        }
    }
}

/// There is no room for one more.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("as many users are muted or banned as may be")]
pub struct SanctionsFull;

/// The sanctions of one user in one room.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    mute: Option<Until>,
    ban: Option<Until>,
}

impl Held {
    const fn of(&mut self, sanction: Sanction) -> &mut Option<Until> {
        match sanction {
            Sanction::Mute => &mut self.mute,
            Sanction::Ban => &mut self.ban,
        }
    }
}

type Key = (UserId, RoomId, Sanction);

/// What an act is about; none where nothing lasts of it.
fn key_of(room: &RoomId, act: &Act) -> Option<Key> {
    Some((act.user()?.clone(), room.clone(), act.sanction()?))
}

/// How many sanctions there are in one room.
#[derive(Clone, Copy, Debug, Default)]
struct InRoom {
    all: usize,
    bans: usize,
}

/// Who is muted or banned where, and until when.
#[derive(Debug, Default)]
pub struct Sanctions {
    of_users: BTreeMap<UserId, BTreeMap<RoomId, Held>>,
    /// The same by its end, so that forgetting looks at what is forgotten only.
    by_end: BTreeSet<(Until, Key)>,
    /// How many there are in each room that has any.
    in_rooms: BTreeMap<RoomId, InRoom>,
    /// The latest acts, those that ended a sanction among them.
    latest: LatestActs,
}

impl Sanctions {
    /// The most sanctions at one time, over all rooms. Of one user and room a later one takes the place of
    /// an earlier one of its kind.
    pub const SANCTIONS_MAX: usize = 100_000;

    /// The most in one room, so that who moderates one can't use up what there is for all.
    pub const SANCTIONS_PER_ROOM_MAX: usize = 10_000;

    /// The most that are forgotten at one time: the set is locked meanwhile.
    pub const FORGOTTEN_AT_ONCE: usize = 1_000;

    /// Does what an act says, unless a later one about the same is known. Answers whether it did. Where there is no room,
    /// those whose time is over go first.
    ///
    /// # Errors
    /// [`SanctionsFull`] when [`Self::SANCTIONS_MAX`] others last, or [`Self::SANCTIONS_PER_ROOM_MAX`] in this
    /// room.
    pub fn apply(&mut self, entry: &Entry) -> Result<bool, SanctionsFull> {
        let Some(key) = key_of(&entry.room, &entry.act) else { return Ok(true) };
        if self.latest.is_older(entry) {
            return Ok(false);
        }
        match entry.until() {
            Some(until) => self.put(key, until, entry.at)?,
            None => self.lift(&key),
        }
        self.latest.note(entry);
        Ok(true)
    }

    /// Begins one again that was remembered elsewhere.
    ///
    /// # Errors
    /// [`SanctionsFull`] as for [`Self::apply`].
    pub fn put(&mut self, key: Key, until: Until, now: Wall) -> Result<(), SanctionsFull> {
        self.lift(&key);
        if self.is_full(&key.1) {
            self.forget(now);
        }
        if self.is_full(&key.1) {
            return Err(SanctionsFull);
        }
        let (user, room, sanction) = key.clone();
        let counted = self.in_rooms.entry(room.clone()).or_default();
        counted.all += 1;
        counted.bans += usize::from(sanction == Sanction::Ban);
        let held = self.of_users.entry(user).or_default().entry(room).or_default();
        *held.of(sanction) = Some(until);
        self.by_end.insert((until, key));
        Ok(())
    }

    fn is_full(&self, room: &RoomId) -> bool {
        let in_room = self.in_rooms.get(room).map_or(0, |counted| counted.all);
        self.by_end.len() >= Self::SANCTIONS_MAX || in_room >= Self::SANCTIONS_PER_ROOM_MAX
    }

    fn lift(&mut self, key: &Key) {
        let (user, room, sanction) = key;
        let Some(rooms) = self.of_users.get_mut(user) else { return };
        let Some(held) = rooms.get_mut(room) else { return };
        if let Some(until) = held.of(*sanction).take() {
            self.by_end.remove(&(until, key.clone()));
            if let Some(counted) = self.in_rooms.get_mut(room) {
                counted.all -= 1;
                counted.bans -= usize::from(*sanction == Sanction::Ban);
                if counted.all == 0 {
                    self.in_rooms.remove(room);
                }
            }
        }
        if held.mute.is_none() && held.ban.is_none() {
            rooms.remove(room);
        }
        if rooms.is_empty() {
            self.of_users.remove(user);
        }
    }

    /// Until when a user may not do a thing in a room; none where it may.
    #[must_use]
    pub fn forbids(&self, user: &UserId, room: &RoomId, deed: Deed, now: Wall) -> Option<Until> {
        let held = self.of_users.get(user)?.get(room)?;
        let lasts = |until: &Until| !until.is_over(now);
        let ban = held.ban.filter(lasts);
        match deed {
            // Of two the longer one counts.
            Deed::Speak => ban.max(held.mute.filter(lasts)),
            Deed::Enter => ban,
        }
    }

    /// Whether anybody may be banned from a room; one whose time is over may still count.
    #[must_use]
    pub fn bans_in(&self, room: &RoomId) -> bool {
        self.in_rooms.get(room).is_some_and(|counted| counted.bans > 0)
    }

    /// Forgets those whose time is over, at most [`Self::FORGOTTEN_AT_ONCE`]. Answers how many that were.
    pub fn forget(&mut self, now: Wall) -> usize {
        let before = self.by_end.len();
        for _ in 0..Self::FORGOTTEN_AT_ONCE {
            let Some((until, key)) = self.by_end.first().cloned() else { break };
            if !until.is_over(now) {
                break;
            }
            self.lift(&key);
        }
        before - self.by_end.len()
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_end.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_end.is_empty()
    }
}

#[cfg(test)]
mod tests;
