//! The names of the rooms: a pattern with `{n}` in the place of the number.
//!
//! It must never make a name that the server's model would not take.

use std::fmt;

use domain::room::RoomId;
use thiserror::Error;

/// What stands for the number.
const PLACE: &str = "{n}";

/// How rooms are called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoomNames {
    before: String,
    behind: String,
}

/// Why rooms can't be called so.
#[derive(Debug, Error)]
pub enum RoomNamesError {
    /// There is no place for the number, or more than one.
    #[error("write {{n}} once, where the room's number shall stand, like public:bench/{{n}}")]
    Place,
    /// The result is no room's name.
    #[error("this makes no name of a room: {0}")]
    Name(String),
}

impl RoomNames {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`RoomNamesError`] when some number would not make a valid name.
    pub fn parse(pattern: &str) -> Result<Self, RoomNamesError> {
        let (before, behind) = pattern.split_once(PLACE).ok_or(RoomNamesError::Place)?;
        if behind.contains(PLACE) {
            return Err(RoomNamesError::Place);
        }
        // The longest number stands for all.
        let longest = format!("{before}{}{behind}", u32::MAX);
        RoomId::parse(&longest).map_err(|error| RoomNamesError::Name(error.to_string()))?;
        Ok(Self { before: before.to_owned(), behind: behind.to_owned() })
    }

    /// The name of one room.
    #[must_use]
    pub fn name(&self, room: usize) -> String {
        format!("{}{room}{}", self.before, self.behind)
    }

    /// The first so many rooms.
    ///
    /// # Errors
    /// None: no number is longer than the one that was tried.
    pub(crate) fn rooms(&self, n: usize) -> Result<Vec<RoomId>, RoomNamesError> {
        let room = |number| RoomId::parse(&self.name(number));
        let rooms: Result<_, _> = (0..n).map(room).collect();
        rooms.map_err(|error| RoomNamesError::Name(error.to_string()))
    }

    /// The number of a room with this name.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<usize> {
        let digits = name.strip_prefix(&self.before)?.strip_suffix(&self.behind)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain)
    }

    /// What a token needs a grant for: the longest pattern of the server's that covers all of them.
    #[must_use]
    pub fn pattern(&self) -> String {
        format!("{}*", self.before)
    }
}

impl fmt::Display for RoomNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{PLACE}{}", self.before, self.behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rooms_number_is_found_in_its_name() {
        let names = RoomNames::parse("public:bench/{n}/x").unwrap();
        assert_eq!(names.name(17), "public:bench/17/x");
        assert_eq!(names.number("public:bench/17/x"), Some(17));
        assert_eq!(names.rooms(18).unwrap()[17].as_str(), "public:bench/17/x");
        for other in ["public:bench//x", "public:bench/+1/x", "public:bench/17", "chat:bench/17/x"]
        {
            assert_eq!(names.number(other), None, "{other}");
        }
        assert_eq!(names.pattern(), "public:bench/*");
    }

    #[test]
    fn a_pattern_that_makes_no_room_is_refused() {
        for pattern in ["public:bench", "public:{n}{n}", "{n}", "public:a b{n}", "Public:{n}"] {
            assert!(RoomNames::parse(pattern).is_err(), "{pattern}");
        }
    }
}
