//! What a client tells its application: the server's frames in types that own their text, what becomes of
//! the connection, and how both look as JSON.
//!
//! Field names in JSON are the protocol's, so that a printed event reads like a frame. Nothing here may
//! decide what is told.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use crate::client::ErrorClass;
use crate::codes::ErrorCode;
use crate::id::{ConnectionId, Epoch, MessageId};
use crate::position::{Offset, Position};
use crate::principal::RoomPattern;
use crate::room::RoomId;

mod as_json;
mod from_wire;
mod presence;

pub use from_wire::span;
pub(crate) use from_wire::{Malformed, position};
pub use presence::{Member, PresenceChange, PresenceCount, PresenceState};

/// One thing that happened. In JSON its `type` is the variant in snake case.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The connection is up, for the first time or again.
    Connected(Hello),
    /// The connection is gone.
    Disconnected {
        /// The close code; 1006 when there was none.
        code: u16,
        /// Of which kind it is.
        #[serde(serialize_with = "as_json::class")]
        class: ErrorClass,
        /// What was said with it.
        reason: String,
        /// Whether the client comes back by itself. If not, `Closed` follows.
        will_reconnect: bool,
        /// After how long.
        #[serde(rename = "after_ms", serialize_with = "as_json::millis")]
        after: Option<Duration>,
    },
    /// An attempt to come back failed.
    AttemptFailed {
        /// How many were made in a row.
        attempt: u32,
        /// Of which kind the failure is.
        #[serde(serialize_with = "as_json::class")]
        class: ErrorClass,
        /// Why it failed.
        reason: String,
        /// After how long the next follows.
        #[serde(rename = "after_ms", serialize_with = "as_json::millis")]
        after: Option<Duration>,
    },
    /// The client is in a room, for the first time or again. What it missed follows.
    Subscribed(Subscribed),
    /// What was missed has been told; from here on it is live.
    CaughtUp {
        /// Which room.
        #[serde(serialize_with = "as_json::room")]
        room: RoomId,
        /// Where it stands.
        #[serde(flatten, serialize_with = "as_json::position")]
        position: Position,
    },
    /// The server ended a membership. The client does not come back to that room by itself.
    Unsubscribed {
        /// Which room.
        #[serde(serialize_with = "as_json::room")]
        room: RoomId,
        /// The number of why.
        code: Option<u16>,
        /// The word for it.
        reason: Option<String>,
    },
    /// All rooms of a pattern are followed from now on, for the first time or again. What came before is not
    /// told.
    Following {
        /// Which rooms.
        #[serde(serialize_with = "as_json::pattern")]
        pattern: RoomPattern,
    },
    /// A pattern is not followed any more, and what comes in its rooms is missed. Without a code, and with
    /// one that is for the moment, the client follows it again by itself.
    PatternEnded {
        /// Which rooms.
        #[serde(serialize_with = "as_json::pattern")]
        pattern: RoomPattern,
        /// The number of why; none where the connection is gone.
        code: Option<u16>,
        /// The word for it.
        reason: Option<String>,
    },
    /// A message.
    Message(Message),
    /// The place of a message that is gone.
    Tombstone(Tombstone),
    /// Messages that will not come.
    Gap(Gap),
    /// Who is in a room that is followed: the list takes the place of any before, and changes follow.
    Members(PresenceState),
    /// Somebody came, went or changed. A `leave` may be of somebody who was in no list.
    Presence(PresenceChange),
    /// How many there are, where names would be too many: no list counts any more, and one comes when names
    /// are told again.
    PresenceCount(PresenceCount),
    /// The token runs out soon: call `refresh`, unless the client brings tokens by itself.
    TokenExpiring {
        /// When, in ISO 8601.
        expires_at: String,
    },
    /// The server complains about something that was no request of the application.
    Refused(Refusal),
    /// A frame of a type that this client doesn't know.
    Other {
        /// Its `type`.
        kind: String,
        /// The whole frame, JSON.
        #[serde(serialize_with = "as_json::raw")]
        body: String,
    },
    /// The server broke a promise of the protocol.
    Violation(Violation),
    /// The last event: the client is closed and does not come back.
    Closed {
        /// The close code.
        code: u16,
        /// What was said with it.
        reason: String,
    },
}

/// As whom the connection is up.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// What the server offers.
    pub features: Vec<String>,
    /// Names this connection in the server's log.
    pub request_id: String,
    /// The label under which the server knows the client.
    pub client_id: String,
    /// The connection.
    #[serde(serialize_with = "as_json::connection")]
    pub connection_id: ConnectionId,
    /// The user; none for an anonymous connection.
    pub user_id: Option<String>,
    /// The rooms whose messages come without a subscription: the user's own, if any.
    pub rooms: Vec<String>,
    /// How long the server is silent at most.
    #[serde(rename = "heartbeat_interval_ms", serialize_with = "as_json::duration")]
    pub heartbeat_interval: Duration,
    /// When the server said so, in ISO 8601.
    pub timestamp: String,
}

/// Where the client stands in a room.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Subscribed {
    /// Which room.
    #[serde(serialize_with = "as_json::room")]
    pub room: RoomId,
    /// Where it stands after the messages that came along.
    #[serde(flatten, serialize_with = "as_json::position")]
    pub position: Position,
    /// Whether it goes on where the client stopped, without a gap.
    pub recovered: bool,
    /// Whether more of what was missed follows.
    pub more: bool,
}

/// A message of a room.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Message {
    /// Which room.
    #[serde(serialize_with = "as_json::room")]
    pub room: RoomId,
    /// The life of the log.
    #[serde(serialize_with = "as_json::epoch")]
    pub epoch: Epoch,
    /// Its place; none for a class without one.
    #[serde(serialize_with = "as_json::offset")]
    pub offset: Option<Offset>,
    /// Its class, unless that is `reliable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What it replaces, for class `latest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Who sent it.
    pub sender: Sender,
    /// Its tags.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// What was sent: JSON, byte for byte.
    #[serde(serialize_with = "as_json::raw")]
    pub data: String,
    /// With a filter: the offset up to which the client had all that it wants.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_json::offset")]
    pub previous: Option<Offset>,
    /// The pattern of rooms that brought it, unless the room itself did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// When it was positioned, in ISO 8601.
    pub timestamp: String,
}

/// Who sent a message.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Sender {
    /// The user; none for an anonymous connection or the server's own API.
    pub user_id: Option<String>,
    /// The connection; none for the server's own API.
    pub connection_id: Option<String>,
}

/// The place of a message that is gone.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Tombstone {
    /// Which room.
    #[serde(serialize_with = "as_json::room")]
    pub room: RoomId,
    /// The life of the log.
    #[serde(serialize_with = "as_json::epoch")]
    pub epoch: Epoch,
    /// Its place.
    #[serde(serialize_with = "as_json::offset")]
    pub offset: Option<Offset>,
    /// Why it is gone.
    pub reason: String,
    /// When it was positioned, in ISO 8601.
    pub timestamp: String,
}

/// Messages that will not come: `from..=to`. The range may be empty after a change of epoch; what
/// the client missed of the old one is lost then.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Gap {
    /// Which room.
    #[serde(serialize_with = "as_json::room")]
    pub room: RoomId,
    /// The life of the log that the offsets belong to.
    #[serde(serialize_with = "as_json::epoch")]
    pub epoch: Epoch,
    /// The first missing offset.
    #[serde(serialize_with = "as_json::place")]
    pub from: Offset,
    /// The last missing offset.
    #[serde(serialize_with = "as_json::place")]
    pub to: Offset,
    /// Why, as a word.
    pub reason: String,
}

/// A publish was taken.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Ack {
    /// Which room.
    #[serde(serialize_with = "as_json::room")]
    pub room: RoomId,
    /// The life of the log.
    #[serde(serialize_with = "as_json::epoch")]
    pub epoch: Epoch,
    /// The message's place; none for a class without one.
    #[serde(serialize_with = "as_json::offset")]
    pub offset: Option<Offset>,
    /// Whether the same message id had been taken before, at that place.
    pub duplicate: bool,
    /// How safe it is: `accepted`, `replicated` or `durable`.
    pub level: String,
    /// The id under which it was published.
    #[serde(serialize_with = "as_json::message_id")]
    pub msg_id: MessageId,
}

/// Earlier messages.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct HistoryPage {
    /// Which room.
    #[serde(serialize_with = "as_json::room")]
    pub room: RoomId,
    /// Where to ask on.
    #[serde(flatten, serialize_with = "as_json::position")]
    pub position: Position,
    /// The messages, oldest first.
    pub messages: Vec<LogEntry>,
    /// Whether there are later ones.
    pub more: bool,
}

/// One place of a room's log.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LogEntry {
    /// A message.
    Message(Message),
    /// The place of one that is gone.
    Tombstone(Tombstone),
}

/// How the connection stands, as the server sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Status {
    /// The connection.
    #[serde(serialize_with = "as_json::connection")]
    pub connection_id: ConnectionId,
    /// The user.
    pub user_id: Option<String>,
    /// The rooms it is in.
    pub rooms: Vec<String>,
    /// Since when it is up, in ISO 8601.
    pub connected_since: String,
    /// How much waits to be sent to the client.
    pub queue_bytes: u64,
    /// Names this connection in the server's log.
    pub request_id: String,
}

/// The server's answer to a command that failed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Refusal {
    /// The number of the row in the protocol's table.
    pub code: u16,
    /// Its word.
    pub error: String,
    /// What is wrong, in words.
    pub message: String,
    /// The field at fault.
    pub field: Option<String>,
    /// When to try again.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// Whether the same command may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        ErrorCode::ALL.iter().any(|row| row.number() == self.code && row.is_temporary())
    }
}

/// A promise of the protocol that the server broke. The client goes on, and the application is
/// not given anything twice.
#[derive(Clone, Debug, Eq, Error, PartialEq, Serialize)]
#[serde(tag = "violation", rename_all = "snake_case")]
pub enum Violation {
    /// A message came again; it was not handed over.
    #[error("{room}: offset {} came again", .offset.get())]
    Duplicate {
        /// Which room.
        #[serde(serialize_with = "as_json::room")]
        room: RoomId,
        /// Its place.
        #[serde(serialize_with = "as_json::place")]
        offset: Offset,
    },
    /// Messages are missing and no gap said so.
    #[error("{room}: offsets {} to {} are missing without a gap", .from.get(), .to.get())]
    Hole {
        /// Which room.
        #[serde(serialize_with = "as_json::room")]
        room: RoomId,
        /// The first missing offset.
        #[serde(serialize_with = "as_json::place")]
        from: Offset,
        /// The last missing offset.
        #[serde(serialize_with = "as_json::place")]
        to: Offset,
    },
    /// The log began anew and no gap said so.
    #[error("{room}: a new epoch without a gap")]
    EpochChanged {
        /// Which room.
        #[serde(serialize_with = "as_json::room")]
        room: RoomId,
    },
    /// The server says that the client stands before where it stood.
    #[error("{room}: the position went back to offset {}", .to.get())]
    WentBack {
        /// Which room.
        #[serde(serialize_with = "as_json::room")]
        room: RoomId,
        /// Where the server says that the client stands.
        #[serde(serialize_with = "as_json::place")]
        to: Offset,
    },
    /// Something came for a room that the client isn't in.
    #[error("{room}: the client is not in this room")]
    NotSubscribed {
        /// Which room.
        #[serde(serialize_with = "as_json::room")]
        room: RoomId,
    },
    /// A text that is no frame of the protocol.
    #[error("a frame makes no sense: {why}")]
    Malformed {
        /// What is wrong with it.
        why: String,
    },
    /// A binary message.
    #[error("a binary message of {bytes} bytes")]
    Binary {
        /// How long it was.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ServerEvent, decode_server};

    fn json(event: &Event) -> String {
        serde_json::to_string(event).unwrap()
    }

    fn room() -> RoomId {
        RoomId::parse("public:r0").unwrap()
    }

    #[test]
    fn a_printed_message_is_the_frame_it_came_in_and_its_data_is_untouched() {
        let frame = concat!(
            r#"{"type":"message","room":"public:r0","epoch":"000000000000000a","offset":4,"#,
            r#""sender":{"user_id":"ann","connection_id":null},"data":{ "b":1.10, "a":"\u00e9" },"#,
            r#""timestamp":"t"}"#
        );
        let Some(Ok(ServerEvent::Message(message))) = decode_server(frame).next() else { panic!() };
        let event = Event::Message(Message::from_wire(message).unwrap());
        assert_eq!(json(&event), frame);
    }

    #[test]
    fn every_other_event_prints_as_one_object_with_a_type() {
        let offset = Offset::parse(7).unwrap();
        let epoch = Epoch::from_bits(10);
        let position = Position { epoch, offset };
        let subscribed = Subscribed { room: room(), position, recovered: true, more: false };
        for (event, expected) in [
            (
                Event::Subscribed(subscribed),
                r#"{"type":"subscribed","room":"public:r0","epoch":"000000000000000a","offset":7,"recovered":true,"more":false}"#,
            ),
            (
                Event::Disconnected {
                    code: 1012,
                    class: ErrorClass::ServerError,
                    reason: "restart".into(),
                    will_reconnect: true,
                    after: Some(Duration::from_millis(5)),
                },
                r#"{"type":"disconnected","code":1012,"class":"server_error","reason":"restart","will_reconnect":true,"after_ms":5}"#,
            ),
            (
                Event::Violation(Violation::Duplicate { room: room(), offset }),
                r#"{"type":"violation","violation":"duplicate","room":"public:r0","offset":7}"#,
            ),
            (
                Event::Other { kind: "x".into(), body: r#"{"type":"x"}"#.into() },
                r#"{"type":"other","kind":"x","body":{"type":"x"}}"#,
            ),
            (
                Event::Unsubscribed { room: room(), code: None, reason: None },
                r#"{"type":"unsubscribed","room":"public:r0","code":null,"reason":null}"#,
            ),
        ] {
            assert_eq!(json(&event), expected);
        }
    }
}
