//! Where a message is said: a room, in the words of the documents.
//!
//! One room has one place and the other way round; nothing here may decide who is let in there.

use std::borrow::Cow;

use crate::id::UserId;
use crate::room::{RoomId, RoomIdError};

/// The room of everybody on `/ws`.
pub const LOBBY: &str = "chat:lobby";
/// The room of everybody on `/ws/chat`.
pub const GLOBAL: &str = "chat:global";
/// The room of everybody on `/ws/game`.
pub const GAME: &str = "game:events";

/// Where a message is said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place<'a> {
    /// `chat:lobby`, of which `/ws` is the only endpoint: it has one place and names none.
    Lobby,
    /// `chat:<name>`: `global`, or another channel of the server.
    Channel(Cow<'a, str>),
    /// `chat:guild/<id>`.
    Guild(Cow<'a, str>),
    /// `chat:party/<id>`.
    Party(Cow<'a, str>),
    /// `user:<id>`: what is said to one user.
    Private(Cow<'a, str>),
    /// `match:<id>`.
    Match(Cow<'a, str>),
    /// `game:<name>`: events, which name themselves whom they are about.
    Event,
    /// Any other room, as `world:<zone>` and `combat:<id>`: what is said there names its place itself.
    Elsewhere,
}

impl<'a> Place<'a> {
    /// The place that a room is.
    #[must_use]
    pub fn of(room: &'a RoomId) -> Self {
        let rest = room.rest();
        match room.namespace() {
            "chat" => match rest.split_once('/') {
                None if rest == "lobby" => Self::Lobby,
                Some(("guild", id)) if !id.is_empty() => Self::Guild(id.into()),
                Some(("party", id)) if !id.is_empty() => Self::Party(id.into()),
                _ => Self::Channel(rest.into()),
            },
            "user" => Self::Private(rest.into()),
            "match" => Self::Match(rest.into()),
            "game" => Self::Event,
            _ => Self::Elsewhere,
        }
    }

    /// The room that a place is; none where what is said names its place itself.
    ///
    /// # Errors
    /// [`RoomIdError`] when its name can be no part of a room's.
    pub fn room(&self) -> Result<Option<RoomId>, RoomIdError> {
        let name = match self {
            Self::Lobby => LOBBY.to_owned(),
            Self::Channel(name) => format!("chat:{name}"),
            Self::Guild(id) => format!("chat:guild/{id}"),
            Self::Party(id) => format!("chat:party/{id}"),
            Self::Private(user) => format!("user:{user}"),
            Self::Match(id) => format!("match:{id}"),
            Self::Event | Self::Elsewhere => return Ok(None),
        };
        RoomId::parse(&name).map(Some)
    }

    /// The room of one user; none for a user whose id can be no part of a room's name.
    #[must_use]
    pub fn of_user(user: &UserId) -> Option<RoomId> {
        RoomId::parse(&format!("user:{user}")).ok()
    }

    /// The word in `channel`; none where the documents have no such field.
    #[must_use]
    pub fn channel(&self) -> Option<&str> {
        match self {
            Self::Channel(name) => Some(name),
            Self::Guild(_) => Some("guild"),
            Self::Party(_) => Some("party"),
            Self::Private(_) => Some("private"),
            Self::Lobby | Self::Match(_) | Self::Event | Self::Elsewhere => None,
        }
    }

    /// The field that names it beside `channel`, and its value.
    #[must_use]
    pub fn id(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Guild(id) => Some(("guild_id", id)),
            Self::Party(id) => Some(("party_id", id)),
            Self::Match(id) => Some(("match_id", id)),
            Self::Lobby | Self::Channel(_) | Self::Private(_) | Self::Event | Self::Elsewhere => {
                None
            }
        }
    }

    /// Whether the documents show there what a sender is called.
    #[must_use]
    pub const fn shows_names(&self) -> bool {
        !matches!(self, Self::Event | Self::Elsewhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_and_its_room_are_one() {
        for name in [
            "chat:lobby",
            "chat:global",
            "chat:guild/42",
            "chat:party/p-1",
            "user:u1",
            "match:m1",
            "chat:guild",
            "chat:trade/eu",
        ] {
            let room = RoomId::parse(name).unwrap();
            assert_eq!(Place::of(&room).room().unwrap(), Some(room.clone()), "{name}");
        }
        for name in ["world:forest", "combat:7", "game:events", "public:a"] {
            let room = RoomId::parse(name).unwrap();
            assert_eq!(Place::of(&room).room().unwrap(), None, "{name}");
        }
        assert!(Place::Guild("4 2".into()).room().is_err());
        assert!(Place::Guild("".into()).room().is_ok_and(|room| {
            // Never a guild without a name.
            room.is_some_and(|room| Place::of(&room) == Place::Channel("guild/".into()))
        }));
    }

    #[test]
    fn a_place_is_called_as_in_the_documents() {
        let called = |name: &str| {
            let room = RoomId::parse(name).unwrap();
            let place = Place::of(&room);
            let id = place.id().map(|(field, id)| (field, id.to_owned()));
            (place.channel().map(str::to_owned), id)
        };
        assert_eq!(called("chat:global"), (Some("global".into()), None));
        assert_eq!(
            called("chat:guild/42"),
            (Some("guild".into()), Some(("guild_id", "42".into())))
        );
        assert_eq!(called("user:u1"), (Some("private".into()), None));
        assert_eq!(called("match:m1"), (None, Some(("match_id", "m1".into()))));
        assert_eq!(called("chat:lobby"), (None, None));
    }
}
