//! What was taken back before its time: a token, everything of a user up to a moment, a
//! connection.
//!
//! A set that remembers each for a fixed span and is bounded in number. It must never forget one
//! early to make room for another: a full set says so.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::id::{ConnectionId, TokenId, UserId};
use crate::principal::Principal;
use crate::time::Wall;

/// What is taken back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Revocation {
    /// One token, by its `jti`.
    Token(TokenId),
    /// All tokens of a user that were issued at this moment or before; a token that does not say
    /// when it was issued counts as one of them.
    User {
        /// Whose.
        user: UserId,
        /// The last moment that counts. Tokens tell whole seconds, so what was issued later in
        /// the same second counts, too.
        issued_until: Wall,
    },
    /// One connection; whoever it was may come back.
    Connection(ConnectionId),
}

impl Revocation {
    /// Whether it takes back what this connection is there by.
    #[must_use]
    pub fn concerns(&self, principal: &Principal, connection: ConnectionId) -> bool {
        match self {
            Self::Token(id) => principal.credential.id.as_ref() == Some(id),
            Self::User { user, issued_until } => {
                principal.user.as_ref() == Some(user)
                    && principal.credential.issued_at.is_none_or(|at| at <= *issued_until)
            }
            Self::Connection(id) => *id == connection,
        }
    }
}

/// There is no room for one more.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("as many revocations are remembered as may be")]
pub struct RevokedSetFull;

/// The revocations that count now.
#[derive(Debug, Default)]
pub struct RevokedSet {
    /// Each with the moment from which it may be forgotten.
    tokens: BTreeMap<TokenId, Wall>,
    users: BTreeMap<UserId, (Wall, Wall)>,
    connections: BTreeMap<ConnectionId, Wall>,
    /// The same by that moment, so that forgetting looks at what is forgotten only.
    by_end: BTreeSet<(Wall, Key)>,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Key {
    Token(TokenId),
    User(UserId),
    Connection(ConnectionId),
}

impl RevokedSet {
    /// The most revocations remembered at one time; one of a user takes the place of the user's
    /// earlier one.
    pub const ENTRIES_MAX: usize = 100_000;

    /// Remembers one until `forget_at`. Of two of one user, the later moment counts, as it
    /// includes the other.
    ///
    /// # Errors
    /// [`RevokedSetFull`] when [`Self::ENTRIES_MAX`] others are remembered.
    pub fn add(&mut self, revocation: &Revocation, forget_at: Wall) -> Result<(), RevokedSetFull> {
        let (key, known) = match revocation {
            Revocation::Token(id) => (Key::Token(id.clone()), self.tokens.get(id).copied()),
            Revocation::User { user, .. } => {
                (Key::User(user.clone()), self.users.get(user).map(|(_, end)| *end))
            }
            Revocation::Connection(id) => (Key::Connection(*id), self.connections.get(id).copied()),
        };
        if known.is_none() && self.by_end.len() >= Self::ENTRIES_MAX {
            return Err(RevokedSetFull);
        }
        let end = known.map_or(forget_at, |known| known.max(forget_at));
        if let Some(known) = known {
            self.by_end.remove(&(known, key.clone()));
        }
        self.by_end.insert((end, key));
        match revocation {
            Revocation::Token(id) => drop(self.tokens.insert(id.clone(), end)),
            Revocation::User { user, issued_until } => {
                let entry = self.users.entry(user.clone()).or_insert((*issued_until, end));
                *entry = (entry.0.max(*issued_until), end);
            }
            Revocation::Connection(id) => drop(self.connections.insert(*id, end)),
        }
        Ok(())
    }

    /// Whether something that is remembered takes back what this connection is there by.
    #[must_use]
    pub fn concerns(&self, principal: &Principal, connection: ConnectionId) -> bool {
        // Nearly always nothing is revoked.
        if self.by_end.is_empty() {
            return false;
        }
        let token = principal.credential.id.as_ref();
        let user = principal.user.as_ref().and_then(|user| self.users.get(user));
        token.is_some_and(|id| self.tokens.contains_key(id))
            || user.is_some_and(|(issued_until, _)| {
                principal.credential.issued_at.is_none_or(|at| at <= *issued_until)
            })
            || self.connections.contains_key(&connection)
    }

    /// Forgets those whose time is over. Answers how many that were.
    pub fn forget(&mut self, now: Wall) -> usize {
        let before = self.by_end.len();
        while let Some((end, key)) = self.by_end.first().cloned()
            && end <= now
        {
            self.by_end.pop_first();
            match &key {
                Key::Token(id) => drop(self.tokens.remove(id)),
                Key::User(user) => drop(self.users.remove(user)),
                Key::Connection(id) => drop(self.connections.remove(id)),
            }
        }
        before - self.by_end.len()
    }

    /// Each that is remembered, with the moment from which it may be forgotten.
    pub fn iter(&self) -> impl Iterator<Item = (Revocation, Wall)> {
        self.by_end.iter().filter_map(|(end, key)| {
            let revocation = match key {
                Key::Token(id) => Revocation::Token(id.clone()),
                Key::User(user) => {
                    let (issued_until, _) = *self.users.get(user)?;
                    Revocation::User { user: user.clone(), issued_until }
                }
                Key::Connection(id) => Revocation::Connection(*id),
            };
            Some((revocation, *end))
        })
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
mod tests {
    use super::*;
    use crate::principal::Credential;

    const NOBODY: ConnectionId = ConnectionId::from_bits(0);

    fn at(ms: i64) -> Wall {
        Wall::from_millis(ms)
    }

    fn who(user: &str, token: Option<&str>, issued_at: Option<i64>) -> Principal {
        let id = token.map(|id| TokenId::parse(id).unwrap());
        Principal {
            user: UserId::parse(user).ok(),
            credential: Credential { id, issued_at: issued_at.map(at), ..Credential::default() },
            ..Principal::default()
        }
    }

    fn of_user(user: &str, until: i64) -> Revocation {
        Revocation::User { user: UserId::parse(user).unwrap(), issued_until: at(until) }
    }

    #[test]
    fn a_user_loses_what_was_issued_until_then_and_may_come_back_with_a_later_token() {
        let mut set = RevokedSet::default();
        let revocation = of_user("ada", 5_000);
        set.add(&revocation, at(100_000)).unwrap();
        for (principal, concerned) in [
            (who("ada", None, Some(4_000)), true),
            (who("ada", None, Some(5_000)), true),
            (who("ada", None, Some(6_000)), false),
            (who("ada", None, None), true),
            (who("bob", None, Some(4_000)), false),
            (Principal::anonymous(), false),
        ] {
            assert_eq!(set.concerns(&principal, NOBODY), concerned, "{principal:?}");
            assert_eq!(revocation.concerns(&principal, NOBODY), concerned, "{principal:?}");
        }
    }

    #[test]
    fn a_token_and_a_connection_are_meant_by_their_ids_alone() {
        let mut set = RevokedSet::default();
        set.add(&Revocation::Token(TokenId::parse("t-1").unwrap()), at(9)).unwrap();
        set.add(&Revocation::Connection(ConnectionId::from_bits(7)), at(9)).unwrap();
        assert!(set.concerns(&who("ada", Some("t-1"), None), NOBODY));
        assert!(!set.concerns(&who("ada", Some("t-2"), None), NOBODY));
        assert!(!set.concerns(&who("ada", None, None), NOBODY));
        assert!(set.concerns(&Principal::anonymous(), ConnectionId::from_bits(7)));
    }

    #[test]
    fn an_earlier_moment_takes_nothing_away_from_a_later_one() {
        let mut set = RevokedSet::default();
        set.add(&of_user("ada", 5_000), at(50)).unwrap();
        set.add(&of_user("ada", 3_000), at(20)).unwrap();
        assert_eq!(set.len(), 1);
        assert!(set.concerns(&who("ada", None, Some(5_000)), NOBODY));
        assert_eq!(set.forget(at(49)), 0);
        assert_eq!(set.forget(at(50)), 1);
        assert!(set.is_empty() && !set.concerns(&who("ada", None, None), NOBODY));
    }

    #[test]
    fn a_full_set_refuses_another_and_forgets_nothing_for_it() {
        let mut set = RevokedSet::default();
        for n in 0..RevokedSet::ENTRIES_MAX {
            let id = ConnectionId::from_bits(n as u64);
            set.add(&Revocation::Connection(id), at(n as i64)).unwrap();
        }
        assert_eq!(set.add(&of_user("ada", 1), at(9)), Err(RevokedSetFull));
        // What is remembered may be remembered for longer.
        let first = Revocation::Connection(ConnectionId::from_bits(0));
        assert_eq!(set.add(&first, at(i64::from(u32::MAX))), Ok(()));
        assert_eq!(set.forget(at(1)), 1);
        assert_eq!(set.add(&of_user("ada", 1), at(9)), Ok(()));
    }
}
