//! Who is in a room, by user: present from the first connection to the last.
//!
//! Every change that others can see takes the next sequence number of its room, so a follower
//! notices a lost event. It never decides who may look.

pub mod gathering;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::id::{ConnectionId, UserId};

/// Under which name a member is listed: the user, or one anonymous connection.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PresenceKey {
    /// A user, over all connections.
    User(UserId),
    /// A connection that nobody vouches for; listed as `anonymous:<connection id>`.
    Anonymous(ConnectionId),
}

impl PresenceKey {
    /// What token subjects must not start with, so that nobody poses as an anonymous member.
    pub const ANONYMOUS_PREFIX: &'static str = "anonymous:";

    /// How many bytes its name takes.
    #[must_use]
    pub fn name_bytes(&self) -> usize {
        match self {
            Self::User(user) => user.as_str().len(),
            Self::Anonymous(_) => Self::ANONYMOUS_PREFIX.len() + ConnectionId::TEXT_BYTES,
        }
    }
}

impl fmt::Display for PresenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "{user}"),
            Self::Anonymous(connection) => write!(f, "{}{connection}", Self::ANONYMOUS_PREFIX),
        }
    }
}

/// What happened to a member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PresenceChange {
    /// The first connection came.
    Join,
    /// The last connection left.
    Leave,
    /// The data changed.
    Update,
}

impl PresenceChange {
    /// The word in `presence_event.event`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Update => "update",
        }
    }
}

/// One change, as the followers of a room see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PresenceEvent {
    /// Grows by one with each event of the room.
    pub seq: u64,
    /// What happened.
    pub change: PresenceChange,
    /// To whom.
    pub who: PresenceKey,
    /// The member's data (JSON) after the change; empty stands for `null`.
    pub data: Bytes,
    /// How many members there are after the change.
    pub total: usize,
}

/// One listed member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PresentMember {
    /// Who.
    pub who: PresenceKey,
    /// The member's data (JSON); empty stands for `null`.
    pub data: Bytes,
    /// Over how many connections.
    pub connections: usize,
}

/// The members of a room at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PresenceList {
    /// The number of the last event that the list contains.
    pub seq: u64,
    /// How many members there are, listed or not.
    pub total: usize,
    /// Over how many connections all of them are there.
    pub connections: usize,
    /// The members in the order of their names, cut at the limit that was asked for.
    pub members: Vec<PresentMember>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    connections: SmallVec<[ConnectionId; 1]>,
    data: Bytes,
}

/// The members of one room.
#[derive(Clone, Debug, Default)]
pub struct RoomPresence {
    seq: u64,
    members: BTreeMap<Arc<PresenceKey>, Entry>,
    /// Over how many connections all of them are here.
    connections: usize,
}

impl RoomPresence {
    /// A connection of a member came. Answers the join if it was the first; entering twice with
    /// one connection changes nothing.
    pub fn enter(&mut self, who: &PresenceKey, connection: ConnectionId) -> Option<PresenceEvent> {
        if let Some(entry) = self.members.get_mut(who) {
            if !entry.connections.contains(&connection) {
                entry.connections.push(connection);
                self.connections += 1;
            }
            return None;
        }
        let mut entry = Entry::default();
        entry.connections.push(connection);
        self.connections += 1;
        self.members.insert(Arc::new(who.clone()), entry);
        Some(self.event(PresenceChange::Join, who, Bytes::new()))
    }

    /// A connection of a member left. Answers the leave if it was the last; leaving without
    /// having entered changes nothing.
    pub fn leave(&mut self, who: &PresenceKey, connection: ConnectionId) -> Option<PresenceEvent> {
        let entry = self.members.get_mut(who)?;
        let place = entry.connections.iter().position(|other| *other == connection)?;
        entry.connections.remove(place);
        self.connections -= 1;
        if !entry.connections.is_empty() {
            return None;
        }
        let entry = self.members.remove(who)?;
        Some(self.event(PresenceChange::Leave, who, entry.data))
    }

    /// A member's data changed. Answers nothing when the member is not here or nothing changed.
    pub fn update(&mut self, who: &PresenceKey, data: Bytes) -> Option<PresenceEvent> {
        let entry = self.members.get_mut(who)?;
        if entry.data == data {
            return None;
        }
        entry.data = data.clone();
        Some(self.event(PresenceChange::Update, who, data))
    }

    /// Lists at most `members_max` members.
    #[must_use]
    pub fn list(&self, members_max: usize) -> PresenceList {
        let members = self.members.iter().take(members_max).map(|(who, entry)| PresentMember {
            who: (**who).clone(),
            data: entry.data.clone(),
            connections: entry.connections.len(),
        });
        let (seq, total, connections) = (self.seq, self.members.len(), self.connections);
        PresenceList { seq, total, connections, members: members.collect() }
    }

    /// Whether nobody is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The number of the last event.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    fn event(&mut self, change: PresenceChange, who: &PresenceKey, data: Bytes) -> PresenceEvent {
        self.seq += 1;
        let total = self.members.len();
        PresenceEvent { seq: self.seq, change, who: who.clone(), data, total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn user(n: u64) -> PresenceKey {
        PresenceKey::User(UserId::parse(&format!("u{n}")).unwrap())
    }

    fn connection(n: u64) -> ConnectionId {
        ConnectionId::from_bits(n)
    }

    /// D09: over however many connections.
    #[test]
    fn a_user_with_three_tabs_joins_once_and_leaves_once() {
        let mut room = RoomPresence::default();
        assert_eq!(room.enter(&user(1), connection(1)).unwrap().change, PresenceChange::Join);
        assert!(room.enter(&user(1), connection(2)).is_none());
        assert!(room.enter(&user(1), connection(3)).is_none());
        assert!(room.leave(&user(1), connection(2)).is_none());
        assert!(room.leave(&user(1), connection(1)).is_none());
        let gone = room.leave(&user(1), connection(3)).unwrap();
        assert_eq!((gone.change, gone.seq), (PresenceChange::Leave, 2));
        assert!(room.is_empty());
    }

    #[test]
    fn an_update_that_changes_nothing_tells_nobody() {
        let mut room = RoomPresence::default();
        assert!(room.update(&user(1), Bytes::from_static(b"1")).is_none());
        room.enter(&user(1), connection(1));
        assert!(room.update(&user(1), Bytes::from_static(b"{}")).is_some());
        assert!(room.update(&user(1), Bytes::from_static(b"{}")).is_none());
        assert_eq!(room.seq(), 2);
    }

    #[test]
    fn a_list_is_cut_but_its_total_is_not() {
        let mut room = RoomPresence::default();
        for n in 0..5 {
            room.enter(&user(n), connection(n));
        }
        let list = room.list(2);
        assert_eq!((list.members.len(), list.total, list.seq), (2, 5, 5));
    }

    proptest! {
        #[test]
        fn events_replayed_by_a_follower_give_the_list_at_every_moment(
            steps in proptest::collection::vec((0u8..3, 0u64..4, 0u64..6), 0..200),
        ) {
            let mut room = RoomPresence::default();
            let mut follower: BTreeSet<PresenceKey> = BTreeSet::new();
            let mut truth: BTreeMap<PresenceKey, BTreeSet<ConnectionId>> = BTreeMap::new();
            let mut seq = 0;
            for (step, who, conn) in steps {
                let (who, conn) = (user(who), connection(conn));
                let event = match step {
                    0 => { truth.entry(who.clone()).or_default().insert(conn); room.enter(&who, conn) }
                    1 => {
                        if let Some(set) = truth.get_mut(&who) { set.remove(&conn); }
                        truth.retain(|_, set| !set.is_empty());
                        room.leave(&who, conn)
                    }
                    _ => room.update(&who, Bytes::from(conn.to_string())),
                };
                if let Some(event) = event {
                    seq += 1;
                    prop_assert_eq!(event.seq, seq);
                    match event.change {
                        PresenceChange::Join => prop_assert!(follower.insert(event.who)),
                        PresenceChange::Leave => prop_assert!(follower.remove(&event.who)),
                        PresenceChange::Update => prop_assert!(follower.contains(&event.who)),
                    }
                }
                prop_assert!(follower.iter().eq(truth.keys()));
            }
        }
    }
}
