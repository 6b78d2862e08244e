//! The endpoint that a connection came by: what it is told in, what it may say, and the rooms that it
//! begins in.
//!
//! Every endpoint is a view of the same rooms under the same checks; a view changes words, never rights.

use std::sync::Arc;

use domain::codes::CloseCode;
use domain::connection::Timing;
use domain::documents::client::Role;
use domain::documents::place::{GAME, GLOBAL, LOBBY, Place};
use domain::documents::told::{Endpoint, Listener};
use domain::documents::{self, told};
use domain::id::UserId;
use domain::principal::{Action, Principal};
use domain::protocol::{self, Frames, ServerFrame};
use domain::room::RoomId;
use domain::time::Wall;

use crate::extensions::middleware::Who;
use crate::ports::outbox::Ending;
use crate::published::WireFormat;
use crate::services::Rules;

/// Where a connection came in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum View {
    /// `/ws/v2/connect`: the whole protocol.
    #[default]
    V2,
    /// `/ws/client`: a handshake, a heartbeat and the host's own types, without rooms.
    Client(Role),
    /// An endpoint of the documents with rooms.
    Document(Endpoint),
    /// An endpoint whose parameters were wrong: closed with this as soon as it is open, because a
    /// browser sees nothing of an upgrade that fails.
    Refused(Ending),
}

/// What users are called, as [`told`] asks for it.
type Names<'n> = &'n dyn Fn(&UserId) -> Option<Arc<str>>;

impl View {
    /// Whether whoever comes by it can be in rooms.
    #[must_use]
    pub const fn has_rooms(self) -> bool {
        matches!(self, Self::V2 | Self::Document(_))
    }

    /// Whether it is open to whom no token names, whatever the server's rule for rooms is.
    #[must_use]
    pub const fn is_for_everyone(self) -> bool {
        matches!(
            self,
            Self::Client(_) | Self::Document(Endpoint::Game | Endpoint::World | Endpoint::Match)
        )
    }

    /// Whether nobody in particular has no business there, even where the server lets such connections in.
    #[must_use]
    pub const fn needs_a_user(self) -> bool {
        match self {
            // A match may have spectators whom nobody knows.
            Self::Document(Endpoint::Game | Endpoint::World | Endpoint::Match) => false,
            Self::Document(_) => true,
            Self::V2 | Self::Client(_) | Self::Refused(_) => false,
        }
    }

    /// In which form publications come.
    #[must_use]
    pub const fn format(self) -> WireFormat {
        match self {
            Self::Document(_) => WireFormat::Document,
            Self::V2 | Self::Client(_) | Self::Refused(_) => WireFormat::V2,
        }
    }

    /// The intervals of a connection's life.
    #[must_use]
    pub const fn timing(self, rules: &Rules) -> Timing {
        match self {
            Self::Document(
                Endpoint::Game | Endpoint::Chat | Endpoint::Combat | Endpoint::World,
            ) => rules.channel_timing,
            _ => rules.timing,
        }
    }

    /// The rooms that a connection begins in: the one that the endpoint is for, which it has to be let
    /// into, and what else its token names there. At most `rooms_max`.
    #[must_use]
    pub fn first_rooms(self, who: &Who, joins_own_room: bool, rooms_max: usize) -> Vec<RoomId> {
        let Self::Document(endpoint) = self else { return Vec::new() };
        let named = |name| RoomId::parse(name).ok();
        let main = match endpoint {
            Endpoint::Lobby => named(LOBBY),
            Endpoint::Game => named(GAME),
            Endpoint::Chat => named(GLOBAL),
            Endpoint::Match => who.place.clone(),
            Endpoint::Combat | Endpoint::World => None,
        };
        let mut rooms: Vec<_> = main.into_iter().collect();
        // Where users are not in their own room without asking, it is asked for them: these clients have no
        // words for it.
        let own = who.principal.user.as_ref().filter(|_| !joins_own_room).and_then(Place::of_user);
        rooms.extend(own.filter(|_| !rooms.is_empty()));
        if endpoint == Endpoint::Chat {
            for room in granted_chats(&who.principal) {
                if rooms.len() < rooms_max && !rooms.contains(&room) {
                    rooms.push(room);
                }
            }
        }
        rooms
    }

    /// Whether it follows who comes to the rooms that it begins in.
    #[must_use]
    pub const fn follows_presence(self) -> bool {
        matches!(self, Self::Document(Endpoint::Lobby | Endpoint::Match))
    }

    /// Reads what a client says.
    #[must_use]
    pub const fn decode(self, text: &str) -> Frames<'_> {
        match self {
            Self::V2 | Self::Refused(_) => protocol::decode(text),
            Self::Document(Endpoint::Lobby) => protocol::decode_plain(text),
            Self::Client(_) | Self::Document(_) => protocol::decode_document(text),
        }
    }

    /// Reads the rest of a text of which something has been read: it is no plain text.
    #[must_use]
    pub const fn decode_rest(self, text: &str) -> Frames<'_> {
        match self {
            Self::Document(Endpoint::Lobby) => protocol::decode_document(text),
            _ => self.decode(text),
        }
    }

    /// Encodes what a client is told; none for what this endpoint does not say.
    #[must_use]
    pub fn encode(
        self,
        frame: &ServerFrame<'_>,
        who: &Who,
        names: Names<'_>,
        now: Wall,
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Self::V2 => {
                frame.encode(now, out);
                true
            }
            Self::Client(role) => documents::client::encode(frame, (&who.client, role), now, out),
            Self::Document(endpoint) => {
                let to = Listener { endpoint, client: who.client.as_str(), names };
                told::encode(frame, to, now, out)
            }
            Self::Refused(_) => false,
        }
    }

    /// The code that a connection ends with. Where the document has one of its own for a handshake
    /// that failed through no fault of the client, that one is said.
    #[must_use]
    pub fn ending(self, code: CloseCode, was_greeted: bool) -> Ending {
        match (self, code) {
            (Self::Client(_), CloseCode::InternalError | CloseCode::TryAgainLater)
                if !was_greeted =>
            {
                CloseCode::HandshakeError.into()
            }
            (Self::Refused(ending), code) if ending.code == code => ending,
            _ => code.into(),
        }
    }
}

/// The chats that a token names one by one.
fn granted_chats(principal: &Principal) -> impl Iterator<Item = RoomId> + '_ {
    principal.grants.iter().filter_map(|grant| {
        let pattern = grant.pattern();
        let subscribes = grant.actions().any(|action| action == Action::Subscribe);
        let is_chat = !pattern.is_prefix() && pattern.namespace() == "chat";
        RoomId::parse(&pattern.to_text()).ok().filter(|_| subscribes && is_chat)
    })
}
