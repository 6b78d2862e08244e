//! The endpoint that a connection came by: what it is told in, and what it may say.
//!
//! Every endpoint is a view of the same rooms under the same checks; a view changes words, never rights.

use domain::codes::CloseCode;
use domain::documents;
use domain::documents::client::Role;
use domain::id::ClientId;
use domain::protocol::{self, Frames, ServerFrame};
use domain::time::Wall;

/// Where a connection came in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum View {
    /// `/ws/v2/connect`: the whole protocol.
    #[default]
    V2,
    /// `/ws/client`: a handshake, a heartbeat and the host's own types, without rooms.
    Client(Role),
    /// An endpoint whose parameters were wrong: closed with this code as soon as it is open, because a
    /// browser sees nothing of an upgrade that fails.
    Refused(CloseCode),
}

impl View {
    /// Whether whoever comes by it can be in rooms.
    #[must_use]
    pub const fn has_rooms(self) -> bool {
        matches!(self, Self::V2)
    }

    /// Whether it is open to whom no token names, whatever the server's rule for rooms is.
    #[must_use]
    pub const fn is_for_everyone(self) -> bool {
        matches!(self, Self::Client(_))
    }

    /// Reads what a client says.
    #[must_use]
    pub const fn decode(self, text: &str) -> Frames<'_> {
        match self {
            Self::V2 | Self::Refused(_) => protocol::decode(text),
            Self::Client(_) => protocol::decode_document(text),
        }
    }

    /// Encodes what a client is told; none for what this endpoint does not say.
    #[must_use]
    pub fn encode(
        self,
        frame: &ServerFrame<'_>,
        client: &ClientId,
        now: Wall,
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Self::V2 => {
                frame.encode(now, out);
                true
            }
            Self::Client(role) => documents::client::encode(frame, (client, role), now, out),
            Self::Refused(_) => false,
        }
    }

    /// The code that a connection ends with. Where the document has one of its own for a handshake
    /// that failed through no fault of the client, that one is said.
    #[must_use]
    pub const fn close_code(self, code: CloseCode, was_greeted: bool) -> CloseCode {
        match (self, code) {
            (Self::Client(_), CloseCode::InternalError | CloseCode::TryAgainLater)
                if !was_greeted =>
            {
                CloseCode::HandshakeError
            }
            _ => code,
        }
    }
}
