//! What the holder of an API key may do: its scopes, and the rooms that they are limited to.
//!
//! It must never say yes because something is missing: a key without a scope may do nothing.

use crate::principal::RoomPattern;
use crate::room::RoomId;

/// One kind of thing that an API key may allow.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// Publish to rooms and users.
    Publish,
    /// Read who is in a room.
    Presence,
    /// Read a room's log.
    History,
    /// List the rooms.
    Rooms,
    /// List the connections.
    Connections,
    /// End connections.
    Disconnect,
    /// Take tokens, users and connections back.
    Revoke,
    /// Make matches, start, end and list them.
    Matches,
}

impl Scope {
    /// Every scope, in a fixed order.
    pub const ALL: [Self; 8] = [
        Self::Publish,
        Self::Presence,
        Self::History,
        Self::Rooms,
        Self::Connections,
        Self::Disconnect,
        Self::Revoke,
        Self::Matches,
    ];

    /// The word in the settings and in answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::History => "history",
            Self::Rooms => "rooms",
            Self::Connections => "connections",
            Self::Disconnect => "disconnect",
            Self::Revoke => "revoke",
            Self::Matches => "matches",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }

    /// Whether it is about rooms, so that it can be limited to some. The others are about people,
    /// who are in rooms of any name.
    #[must_use]
    pub const fn is_about_rooms(self) -> bool {
        !matches!(self, Self::Disconnect | Self::Revoke)
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// What one API key allows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeyRights {
    scopes: u16,
    rooms: Vec<RoomPattern>,
}

impl KeyRights {
    /// These scopes, in the rooms of these patterns; no pattern means every room.
    #[must_use]
    pub fn new(scopes: &[Scope], rooms: Vec<RoomPattern>) -> Self {
        Self { scopes: scopes.iter().fold(0, |bits, scope| bits | scope.bit()), rooms }
    }

    /// Whether it has the scope.
    #[must_use]
    pub const fn has(&self, scope: Scope) -> bool {
        self.scopes & scope.bit() != 0
    }

    /// Whether it is limited to some rooms.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        !self.rooms.is_empty()
    }

    /// Whether its scopes count in this room.
    #[must_use]
    pub fn reaches(&self, room: &RoomId) -> bool {
        !self.is_limited() || self.rooms.iter().any(|pattern| pattern.matches(room))
    }

    /// Whether its scopes count in every room whose name begins so.
    #[must_use]
    pub fn reaches_all(&self, prefix: &str) -> bool {
        if !self.is_limited() {
            return true;
        }
        // What does not name its namespace reaches into several.
        let Ok(asked) = RoomPattern::parse(&format!("{prefix}*")) else { return false };
        self.rooms.iter().any(|pattern| pattern.covers(&asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(patterns: &[&str]) -> KeyRights {
        let patterns = patterns.iter().map(|text| RoomPattern::parse(text).unwrap()).collect();
        KeyRights::new(&[Scope::History, Scope::Rooms], patterns)
    }

    #[test]
    fn a_key_has_the_scopes_that_it_was_given_and_no_other() {
        let key = rights(&[]);
        let has: Vec<_> = Scope::ALL.into_iter().filter(|scope| key.has(*scope)).collect();
        assert_eq!(has, [Scope::History, Scope::Rooms]);
        assert!(Scope::ALL.into_iter().all(|scope| !KeyRights::default().has(scope)));
    }

    #[test]
    fn every_scope_is_read_from_its_word() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.word()), Some(scope));
        }
        assert_eq!(Scope::parse("Publish"), None);
    }

    #[test]
    fn a_key_that_is_limited_reaches_the_rooms_of_its_patterns_alone() {
        let key = rights(&["chat:guild/*", "game:one"]);
        let reaches = |room: &str| key.reaches(&RoomId::parse(room).unwrap());
        assert!(reaches("chat:guild/7") && reaches("game:one"));
        assert!(!reaches("chat:guil") && !reaches("game:one/more") && !reaches("public:guild/7"));
        assert!(rights(&[]).reaches(&RoomId::parse("public:x").unwrap()));
    }

    #[test]
    fn a_key_that_is_limited_lists_only_below_one_of_its_patterns() {
        let key = rights(&["chat:guild/*", "game:one"]);
        assert!(key.reaches_all("chat:guild/") && key.reaches_all("chat:guild/4"));
        for prefix in ["", "ch", "chat:", "chat:guild", "game:one", "game:"] {
            assert!(!key.reaches_all(prefix), "{prefix}");
        }
        assert!(rights(&[]).reaches_all(""));
    }
}
