//! What a match is made of, each with its limit.
//!
//! Nothing here may grow without one: a match is kept in memory and sent in one piece.

use std::sync::Arc;

use thiserror::Error;

use crate::id::UserId;
use crate::protocol::{compact_lines, json};

/// Why some users can't be the participants of a match.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ParticipantsError {
    /// There are more than [`Participants::MAX`].
    #[error("may be at most {}", Participants::MAX)]
    TooMany,
    /// One is there twice.
    #[error("names {0} twice")]
    Twice(UserId),
}

/// Who plays: different users, in the order they were given. May be nobody, where the server plays alone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Participants(Arc<[UserId]>);

impl Participants {
    /// The most participants of one match.
    pub const MAX: usize = 128;

    /// Takes users.
    ///
    /// # Errors
    /// [`ParticipantsError`] when there are too many or one is there twice.
    pub fn new(users: Vec<UserId>) -> Result<Self, ParticipantsError> {
        if users.len() > Self::MAX {
            return Err(ParticipantsError::TooMany);
        }
        for (place, user) in users.iter().enumerate() {
            if users.iter().take(place).any(|other| other == user) {
                return Err(ParticipantsError::Twice(user.clone()));
            }
        }
        Ok(Self(users.into()))
    }

    /// Whether this user plays.
    #[must_use]
    pub fn contains(&self, user: &UserId) -> bool {
        self.0.contains(user)
    }

    /// The users, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &UserId> {
        self.0.iter()
    }
}

/// Who may look on without playing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Spectators {
    /// Only participants are let in.
    #[default]
    Nobody,
    /// Everyone with a valid token.
    Authenticated,
    /// Everyone, without a token too.
    Anyone,
}

impl Spectators {
    /// Every policy, the closed one first.
    pub const ALL: [Self; 3] = [Self::Nobody, Self::Authenticated, Self::Anyone];

    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Authenticated => "authenticated",
            Self::Anyone => "anyone",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.word() == word)
    }
}

/// The most connections of one match at one time, participants and spectators together.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ConnectionsMax(u32);

impl ConnectionsMax {
    /// The most that a match may ask for.
    pub const MAX: u32 = 100_000;

    /// Takes a number from 1 to [`Self::MAX`]; none for any other.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        let number = u32::try_from(number).ok()?;
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for ConnectionsMax {
    fn default() -> Self {
        Self(500)
    }
}

/// Why a text can't be kept with a match.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum JsonPartError {
    /// It is longer than its limit.
    #[error("must be at most {bytes_max} bytes")]
    TooLong {
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// It is not one JSON value, or nested too deep.
    #[error("must be JSON, nested at most {} deep", json::DEPTH_MAX)]
    NoJson,
}

fn checked(text: &str, bytes_max: usize) -> Result<Arc<str>, JsonPartError> {
    // Before it is looked at: what is too long costs nothing more.
    if text.len() > bytes_max {
        return Err(JsonPartError::TooLong { bytes_max });
    }
    let end = json::scan_value(text, 0, json::DEPTH_MAX).map_err(|_| JsonPartError::NoJson)?;
    if !text[end..].trim_matches([' ', '\t', '\n', '\r']).is_empty() {
        return Err(JsonPartError::NoJson);
    }
    Ok(Arc::from(&*compact_lines(text)))
}

macro_rules! json_part {
    ($(#[$doc:meta])* $name:ident, max $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest text, in bytes.
            pub const BYTES_MAX: usize = $max;

            /// Checks and takes a JSON text. Line breaks between its parts go; nothing else changes.
            ///
            /// # Errors
            /// [`JsonPartError`] when it is too long or not JSON.
            pub fn parse(text: &str) -> Result<Self, JsonPartError> {
                checked(text, Self::BYTES_MAX).map(Self)
            }

            /// The JSON.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

json_part! {
    /// What whoever made a match keeps with it; any JSON.
    Metadata, max 4 << 10
}

json_part! {
    /// How a match ended; any JSON.
    MatchResult, max 16 << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(n: usize) -> Vec<UserId> {
        (0..n).map(|n| UserId::parse(&format!("u{n}")).unwrap()).collect()
    }

    #[test]
    fn participants_are_different_users_and_not_too_many() {
        let all = Participants::new(users(Participants::MAX)).unwrap();
        assert!(all.contains(&users(1)[0]) && all.iter().len() == Participants::MAX);
        let more = users(Participants::MAX + 1);
        assert_eq!(Participants::new(more), Err(ParticipantsError::TooMany));
        let twice = [users(2), users(1)].concat();
        assert_eq!(Participants::new(twice), Err(ParticipantsError::Twice(users(1)[0].clone())));
        assert_eq!(Participants::default().iter().len(), 0);
    }

    #[test]
    fn what_is_kept_with_a_match_is_json_of_bounded_length_on_one_line() {
        assert_eq!(Metadata::parse(" {\n\"a\": 1}\n").unwrap().as_str(), " {\"a\": 1}");
        for text in ["", "{", "1 2", "nul", "{\"a\":1}}"] {
            assert_eq!(Metadata::parse(text), Err(JsonPartError::NoJson), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        assert_eq!(MatchResult::parse(&deep), Err(JsonPartError::NoJson));
        let longest = format!("\"{}\"", "x".repeat(Metadata::BYTES_MAX - 2));
        assert!(Metadata::parse(&longest).is_ok());
        let bytes_max = Metadata::BYTES_MAX;
        let longer = format!("{longest} ");
        assert_eq!(Metadata::parse(&longer), Err(JsonPartError::TooLong { bytes_max }));
        assert!(MatchResult::parse(&longer).is_ok());
    }

    #[test]
    fn a_match_has_room_for_one_connection_at_least_and_for_500_unless_it_says() {
        let get = |number| ConnectionsMax::new(number).map(ConnectionsMax::get);
        assert_eq!((get(1), get(100_000)), (Some(1), Some(100_000)));
        assert_eq!((get(0), get(100_001), get(u64::MAX)), (None, None, None));
        assert_eq!(ConnectionsMax::default().get(), 500);
    }

    #[test]
    fn every_policy_of_spectators_is_read_from_its_word_and_the_closed_one_is_the_default() {
        for policy in Spectators::ALL {
            assert_eq!(Spectators::parse(policy.word()), Some(policy));
        }
        assert_eq!(Spectators::parse("everyone"), None);
        assert_eq!(Spectators::default(), Spectators::Nobody);
    }
}
