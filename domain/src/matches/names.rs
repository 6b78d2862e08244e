//! The names of matches and of games.
//!
//! A match's name is that of its room behind `match:`, so one that could not name a room is none.

use std::fmt;
use std::sync::Arc;

use crate::id::{IdError, check, unreserved};
use crate::room::{RoomId, RoomIdError, is_namespace};

/// The name of a match: 1 to 128 of the alphabet of a client's label, without `..`, which no room's
/// name has.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MatchId(RoomId);

impl MatchId {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 128;
    /// The namespace of the rooms of matches.
    pub const NAMESPACE: &'static str = "match";

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`RoomIdError::Id`] when the text is empty, too long or outside the alphabet, and
    /// [`RoomIdError::Dots`].
    pub fn parse(text: &str) -> Result<Self, RoomIdError> {
        check(text, Self::BYTES_MAX, unreserved)?;
        RoomId::parse(&format!("{}:{text}", Self::NAMESPACE)).map(Self)
    }

    /// The match that has this room, if one can.
    #[must_use]
    pub fn of_room(room: &RoomId) -> Option<Self> {
        let is_one = room.namespace() == Self::NAMESPACE;
        is_one.then(|| Self::parse(room.rest()).ok()).flatten()
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.rest()
    }

    /// The match's room, `match:` and the name.
    #[must_use]
    pub const fn room(&self) -> &RoomId {
        &self.0
    }
}

impl fmt::Debug for MatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MatchId({})", self.as_str())
    }
}

impl fmt::Display for MatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name under which a game is registered: `[a-z][a-z0-9_-]{0,31}`, like a namespace.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GameType(Arc<str>);

impl GameType {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = RoomId::NAMESPACE_BYTES_MAX;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`IdError`] when the text is empty, too long or of another form.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check(text, Self::BYTES_MAX, |_| true)?;
        if is_namespace(text) { Ok(Self(Arc::from(text))) } else { Err(IdError::Alphabet) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GameType({})", self.0)
    }
}

impl fmt::Display for GameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_is_named_like_a_clients_label_and_its_room_after_it() {
        let id = MatchId::parse("a-1.b_2~C").unwrap();
        assert_eq!((id.as_str(), id.room().as_str()), ("a-1.b_2~C", "match:a-1.b_2~C"));
        assert_eq!(MatchId::of_room(id.room()), Some(id));
        let longest = "m".repeat(MatchId::BYTES_MAX);
        assert!(MatchId::parse(&longest).is_ok());
        let too_long = RoomIdError::Id(IdError::TooLong { bytes_max: 128 });
        assert_eq!(MatchId::parse(&format!("{longest}m")), Err(too_long));
    }

    #[test]
    fn what_could_not_name_a_room_or_would_need_escapes_is_no_match() {
        for text in ["", "a/b", "a:b", "a b", "a\n", "a%20", "a..b", "..", "é", "*", "a@b", "a+b"]
        {
            assert!(MatchId::parse(text).is_err(), "{text:?}");
        }
        for room in ["chat:a", "match:a/b", "match:a:b"] {
            assert_eq!(MatchId::of_room(&RoomId::parse(room).unwrap()), None, "{room}");
        }
    }

    #[test]
    fn a_game_has_one_spelling() {
        assert_eq!(GameType::parse("relay").unwrap().as_str(), "relay");
        for text in ["", "Relay", "9a", "a.b", "a b", "tic tac", "é"] {
            assert!(GameType::parse(text).is_err(), "{text:?}");
        }
        assert!(matches!(GameType::parse(&"g".repeat(33)), Err(IdError::TooLong { .. })));
    }
}
