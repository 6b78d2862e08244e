//! The rooms one connection is in, or on its way into.
//!
//! It decides who is a member; it never holds messages and never knows what a room is.

use smallvec::SmallVec;
use thiserror::Error;

/// How far a membership is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MemberState<Place> {
    /// The log is being read; live messages are held behind it.
    Joining,
    /// Live messages go straight out; the place is where the room lists the member.
    Live(Place),
}

/// Why a join cannot begin.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum JoinError {
    /// Already a member, or on the way.
    #[error("already subscribed to this room")]
    Already,
    /// In as many rooms as one connection may be in.
    #[error("in as many rooms as allowed")]
    TooMany,
}

/// The memberships of one connection, by a small copyable key of the room. The first two need no
/// allocation: most connections are in one or two rooms.
#[derive(Clone, Debug)]
pub struct Membership<Key, Place> {
    rooms: SmallVec<[(Key, MemberState<Place>); 2]>,
}

impl<Key, Place> Default for Membership<Key, Place> {
    fn default() -> Self {
        Self { rooms: SmallVec::new() }
    }
}

impl<Key: Copy + Eq, Place: Copy> Membership<Key, Place> {
    /// Begins a join.
    ///
    /// # Errors
    /// [`JoinError`] when the connection is in the room already or in `rooms_max` rooms.
    pub fn begin(&mut self, room: Key, rooms_max: usize) -> Result<(), JoinError> {
        if self.state(room).is_some() {
            return Err(JoinError::Already);
        }
        if self.rooms.len() >= rooms_max {
            return Err(JoinError::TooMany);
        }
        self.rooms.push((room, MemberState::Joining));
        Ok(())
    }

    /// The join has caught up, or the room lists the member in another place now. Says whether
    /// there is such a membership.
    pub fn place(&mut self, room: Key, place: Place) -> bool {
        let joining = self.rooms.iter_mut().find(|(key, _)| *key == room);
        joining.map(|entry| entry.1 = MemberState::Live(place)).is_some()
    }

    /// Ends a membership, in whatever state. Says which state it had.
    pub fn leave(&mut self, room: Key) -> Option<MemberState<Place>> {
        let at = self.rooms.iter().position(|(key, _)| *key == room)?;
        Some(self.rooms.remove(at).1)
    }

    /// How far the membership in a room is; none when there is none.
    #[must_use]
    pub fn state(&self, room: Key) -> Option<MemberState<Place>> {
        self.rooms.iter().find(|(key, _)| *key == room).map(|(_, state)| *state)
    }

    /// All rooms, in the order they were joined.
    pub fn rooms(&self) -> impl Iterator<Item = Key> + '_ {
        self.rooms.iter().map(|(key, _)| *key)
    }

    /// How many rooms, joining ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_join_of_the_same_room_is_refused_at_every_stage() {
        let mut rooms = Membership::<u8, u8>::default();
        assert_eq!(rooms.begin(1, 2), Ok(()));
        assert_eq!(rooms.begin(1, 2), Err(JoinError::Already));
        assert!(rooms.place(1, 7));
        assert_eq!(rooms.begin(1, 2), Err(JoinError::Already));
        assert_eq!(rooms.leave(1), Some(MemberState::Live(7)));
        assert_eq!(rooms.begin(1, 2), Ok(()));
    }

    #[test]
    fn the_limit_counts_joins_on_their_way() {
        let mut rooms = Membership::<u8, u8>::default();
        assert_eq!(rooms.begin(1, 2), Ok(()));
        assert_eq!(rooms.begin(2, 2), Ok(()));
        assert_eq!(rooms.begin(3, 2), Err(JoinError::TooMany));
        assert_eq!(rooms.leave(1), Some(MemberState::Joining));
        assert_eq!(rooms.begin(3, 2), Ok(()));
    }

    #[test]
    fn a_join_that_was_left_in_the_meantime_does_not_complete() {
        let mut rooms = Membership::<u8, u8>::default();
        assert_eq!(rooms.begin(1, 2), Ok(()));
        assert_eq!(rooms.leave(1), Some(MemberState::Joining));
        assert!(!rooms.place(1, 7));
        assert!(rooms.is_empty());
    }

    proptest! {
        #[test]
        fn any_sequence_agrees_with_a_plain_map(
            steps in proptest::collection::vec((0u8..3, 0u8..6), 0..200), rooms_max in 0usize..6,
        ) {
            let mut rooms = Membership::<u8, u8>::default();
            let mut model = std::collections::BTreeMap::new();
            for (step, room) in steps {
                match step {
                    0 => {
                        let expected = if model.contains_key(&room) {
                            Err(JoinError::Already)
                        } else if model.len() >= rooms_max {
                            Err(JoinError::TooMany)
                        } else {
                            model.insert(room, MemberState::Joining);
                            Ok(())
                        };
                        prop_assert_eq!(rooms.begin(room, rooms_max), expected);
                    }
                    1 => {
                        let there = model.get_mut(&room).map(|s| *s = MemberState::Live(room)).is_some();
                        prop_assert_eq!(rooms.place(room, room), there);
                    }
                    _ => prop_assert_eq!(rooms.leave(room), model.remove(&room)),
                }
                prop_assert_eq!(rooms.len(), model.len());
                prop_assert!(rooms.len() <= rooms_max);
                prop_assert!(rooms.rooms().all(|key| model.contains_key(&key)));
            }
        }
    }
}
