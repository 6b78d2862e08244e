//! A publish on its way in, and the publication that the broker makes of it.
//!
//! `data` is the published JSON, byte for byte; nothing here may parse or change it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::delivery::Class;
use crate::id::{ClientId, ConnectionId, Epoch, MessageId, MessageKey, UserId};
use crate::position::Offset;
use crate::room::RoomId;
use crate::seats::Fence;
use crate::tags::Tags;
use crate::time::Wall;
use crate::trace::TraceParent;

/// Who sent a message, as the members see it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sender {
    /// The user; none for an anonymous connection or the server's own API.
    pub user: Option<UserId>,
    /// What the user was called when it was sent; shown by the documents' endpoints, never trusted.
    pub name: Option<Arc<str>>,
    /// The connection; none when the message came over the server API.
    pub connection: Option<ConnectionId>,
    /// The trace that the sender names, if it names one. An archive does not keep it.
    pub trace: Option<TraceParent>,
}

/// Whose `msg_id` it is: ids of one publisher never meet those of another.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Publisher {
    /// A user, over all connections.
    User(UserId),
    /// A client without a user, by its own label.
    Client(ClientId),
    /// The server API, by the name of its key.
    ApiKey(ClientId),
}

impl Publisher {
    /// One text per publisher; the first letter keeps the kinds apart.
    #[must_use]
    pub fn to_key(&self) -> String {
        match self {
            Self::User(id) => format!("u:{id}"),
            Self::Client(id) => format!("c:{id}"),
            Self::ApiKey(id) => format!("k:{id}"),
        }
    }
}

/// Which command a publication came from, so that its own connection can be answered in place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Origin {
    /// The connection.
    pub connection: ConnectionId,
    /// The command's `id`.
    pub command: Option<u64>,
    /// Whether the publisher wants the message itself too.
    pub echo: bool,
}

/// A publish that has been allowed and waits for its position.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where to.
    pub room: RoomId,
    /// Whose `msg_id` it is.
    pub publisher: Publisher,
    /// The client's name for this publish, for de-duplication.
    pub msg_id: Option<MessageId>,
    /// How it is delivered.
    pub class: Class,
    /// What it replaces; only for [`Class::Latest`].
    pub key: Option<MessageKey>,
    /// Who sent it.
    pub sender: Sender,
    /// The published JSON.
    pub data: Bytes,
    /// By what members may choose it.
    pub tags: Tags,
    /// How long it may be delivered; none means as long as the log keeps it.
    pub ttl: Option<Duration>,
    /// The command it came from; none over the server API.
    pub origin: Option<Origin>,
    /// When it came.
    pub at: Wall,
    /// The number under which its connection speaks for its user, where only the newest may. A broker
    /// of several nodes takes it only while that is the user's largest.
    pub fence: Option<Fence>,
}

/// Why a place in the log is empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TombstoneReason {
    /// Its `ttl_ms` ran out.
    Expired,
    /// A moderator removed it.
    Deleted,
}

impl TombstoneReason {
    /// The word in `tombstone.reason`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Deleted => "deleted",
        }
    }
}

/// A message with its place in the room's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Where to.
    pub room: RoomId,
    /// The life of the log.
    pub epoch: Epoch,
    /// The place in the log; none for classes without one.
    pub offset: Option<Offset>,
    /// How it is delivered.
    pub class: Class,
    /// What it replaces; only for [`Class::Latest`].
    pub key: Option<MessageKey>,
    /// Who sent it.
    pub sender: Sender,
    /// The published JSON; empty once the message is a tombstone.
    pub data: Bytes,
    /// By what members may choose it; none once the message is a tombstone.
    pub tags: Tags,
    /// The command it came from.
    pub origin: Option<Origin>,
    /// When it was positioned.
    pub at: Wall,
    /// From when on it is delivered as a tombstone.
    pub expires_at: Option<Wall>,
    /// Set once the message is gone and only its place remains.
    pub tombstone: Option<TombstoneReason>,
}

impl Publication {
    /// Whether the message may no longer be delivered.
    #[must_use]
    pub fn is_expired(&self, now: Wall) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The place that remains of a message that is gone.
    #[must_use]
    pub fn into_tombstone(self, reason: TombstoneReason) -> Self {
        Self {
            data: Bytes::new(),
            tags: Tags::default(),
            expires_at: None,
            tombstone: Some(reason),
            ..self
        }
    }
}
