//! The server's frames as a client reads them.
//!
//! It must never fail on what a later server adds: unknown fields are skipped, unknown types come
//! out as [`ServerEvent::Other`].

mod resumed;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter::FusedIterator;

use serde::{Deserialize, Deserializer, de};
use serde_json::StreamDeserializer;
use serde_json::de::StrRead;
use serde_json::value::RawValue;
use thiserror::Error;

pub use self::resumed::{EventBack, EventGap, EventNotBack, EventResumeError, EventResumed};
use crate::id::{ConnectionId, Epoch};
use crate::protocol::client_frame::UNKNOWN_EPOCH;
use crate::room::RoomId;

mod kind;

use kind::{decode_kind, kind_in_front};

/// A text of the server's that makes no sense.
#[derive(Debug, Error)]
#[error("not a frame of the protocol")]
pub struct ServerEventError(#[from] serde_json::Error);

/// Reads the frames of one text message, in order. A frame with wrong fields is an error in its
/// place; behind text that is not JSON nothing follows.
#[must_use]
pub fn decode_server(text: &str) -> ServerEvents<'_> {
    let stream = serde_json::Deserializer::from_str(text).into_iter();
    ServerEvents { alone: Some(text), stream, has_ended: false }
}

/// The frames of one text message.
pub struct ServerEvents<'a> {
    /// The text, as long as it may be one frame: most are.
    alone: Option<&'a str>,
    stream: StreamDeserializer<'a, StrRead<'a>, &'a RawValue>,
    has_ended: bool,
}

impl<'a> Iterator for ServerEvents<'a> {
    type Item = Result<ServerEvent<'a>, ServerEventError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        if let Some(event) = self.alone.take().and_then(decode_alone) {
            self.has_ended = true;
            return Some(Ok(event));
        }
        let next = self.stream.next();
        self.has_ended = !matches!(next, Some(Ok(_)));
        Some(match next? {
            Ok(raw) => decode_event(raw.get()).map_err(ServerEventError),
            Err(error) => Err(ServerEventError(error)),
        })
    }
}

impl FusedIterator for ServerEvents<'_> {}

macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $word:literal => $variant:ident {
            $($(#[$attr:meta])* $field:ident: $type:ty,)*
        }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Deserialize, PartialEq)]
            #[allow(missing_docs, reason = "docs/protocol.md has the fields")]
            pub struct $variant<'a> {
                $($(#[$attr])* pub $field: $type,)*
                /// When the server said it, in ISO 8601.
                #[serde(borrow)]
                pub timestamp: Cow<'a, str>,
            }
        )*

        /// One frame of the server.
        #[derive(Clone, Debug, PartialEq)]
        pub enum ServerEvent<'a> {
            $($(#[$doc])* $variant($variant<'a>),)*
            /// A type that this client does not know: the whole frame.
            Other {
                /// The `type`.
                kind: Cow<'a, str>,
                /// The whole frame, a JSON object.
                body: &'a str,
            },
        }

        /// A text that is one frame of a type that its front tells, read in one go.
        fn decode_alone(text: &str) -> Option<ServerEvent<'_>> {
            match kind_in_front(text)? {
                $($word => serde_json::from_str(text).ok().map(ServerEvent::$variant),)*
                _ => None,
            }
        }

        fn decode_event(body: &str) -> Result<ServerEvent<'_>, serde_json::Error> {
            let kind = decode_kind(body)?;
            match &*kind {
                $($word => serde_json::from_str(body).map(ServerEvent::$variant),)*
                _ => Ok(ServerEvent::Other { kind, body }),
            }
        }
    };
}

events! {
    /// The connection is up.
    "hello" => Hello {
        id: Option<u64>,
        accepted_version: u64,
        #[serde(borrow, default)]
        features: Vec<Cow<'a, str>>,
        #[serde(borrow)]
        request_id: Cow<'a, str>,
        #[serde(borrow)]
        client_id: Cow<'a, str>,
        #[serde(deserialize_with = "connection")]
        connection_id: ConnectionId,
        #[serde(borrow)]
        user_id: Option<Cow<'a, str>>,
        /// The rooms that the connection is a member of without having asked.
        #[serde(borrow, default)]
        rooms: Vec<Cow<'a, str>>,
        /// The ticket to come back with.
        #[serde(borrow)]
        session: Option<Cow<'a, str>>,
        #[serde(borrow, default, deserialize_with = "resumed")]
        resumed: Vec<EventResumed<'a>>,
        heartbeat_interval_ms: u64,
    }
    /// The client is a member.
    "subscribed" => Subscribed {
        id: Option<u64>,
        #[serde(deserialize_with = "room")]
        room: RoomId,
        #[serde(deserialize_with = "epoch")]
        epoch: Epoch,
        offset: u64,
        recovered: bool,
        #[serde(borrow, deserialize_with = "entries")]
        messages: Vec<LogEntry<'a>>,
        more: bool,
    }
    /// The client follows all rooms of a pattern.
    "subscribed to a pattern" => PatternSubscribed {
        id: Option<u64>,
        #[serde(borrow)]
        pattern: Cow<'a, str>,
    }
    /// The client follows a pattern no longer.
    "unsubscribed from a pattern" => PatternUnsubscribed {
        id: Option<u64>,
        #[serde(borrow)]
        pattern: Cow<'a, str>,
        code: Option<u16>,
        #[serde(borrow)]
        reason: Option<Cow<'a, str>>,
    }
    /// More of the missed messages.
    "page" => Page {
        #[serde(deserialize_with = "room")]
        room: RoomId,
        #[serde(deserialize_with = "epoch")]
        epoch: Epoch,
        offset: u64,
        #[serde(borrow, deserialize_with = "entries")]
        messages: Vec<LogEntry<'a>>,
        more: bool,
    }
    /// A message of a room.
    "message" => Message {
        #[serde(deserialize_with = "room")]
        room: RoomId,
        #[serde(deserialize_with = "epoch")]
        epoch: Epoch,
        offset: Option<u64>,
        /// Only there for another class than `reliable`.
        #[serde(borrow)]
        class: Option<Cow<'a, str>>,
        /// Only there for class `latest`.
        #[serde(borrow)]
        key: Option<Cow<'a, str>>,
        #[serde(borrow)]
        sender: EventSender<'a>,
        /// Only there when it has some.
        #[serde(borrow, default)]
        tags: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
        #[serde(borrow, deserialize_with = "raw")]
        data: &'a str,
        /// Only there for a filtered subscription: the offset up to which the client has all
        /// that it wants.
        previous: Option<u64>,
        /// Only there when a pattern brought it.
        #[serde(borrow)]
        pattern: Option<Cow<'a, str>>,
    }
    /// The place of a message that is gone.
    "tombstone" => Tombstone {
        #[serde(deserialize_with = "room")]
        room: RoomId,
        #[serde(deserialize_with = "epoch")]
        epoch: Epoch,
        offset: Option<u64>,
        #[serde(borrow)]
        reason: Cow<'a, str>,
    }
    /// Messages that will not come.
    "gap" => Gap {
        #[serde(deserialize_with = "room")]
        room: RoomId,
        #[serde(deserialize_with = "epoch")]
        epoch: Epoch,
        from: u64,
        to: u64,
        #[serde(borrow)]
        reason: Cow<'a, str>,
    }
    /// A publish was taken.
    "ack" => Ack {
        id: Option<u64>,
        #[serde(deserialize_with = "room")]
        room: RoomId,
        #[serde(deserialize_with = "epoch")]
        epoch: Epoch,
        offset: Option<u64>,
        duplicate: bool,
        #[serde(borrow)]
        level: Cow<'a, str>,
    }
    /// The client is no longer a member.
    "unsubscribed" => Unsubscribed {
        id: Option<u64>,
        #[serde(deserialize_with = "room")]
        room: RoomId,
        code: Option<u16>,
        #[serde(borrow)]
        reason: Option<Cow<'a, str>>,
    }
    /// Who is in a room.
    "presence" => PresenceState {
        id: Option<u64>,
        #[serde(deserialize_with = "room")]
        room: RoomId,
        seq: u64,
        total: u64,
        #[serde(borrow)]
        members: Vec<EventMember<'a>>,
    }
    /// Somebody came, went or changed.
    "presence_event" => PresenceEvent {
        #[serde(deserialize_with = "room")]
        room: RoomId,
        seq: u64,
        total: u64,
        #[serde(borrow)]
        event: Cow<'a, str>,
        #[serde(borrow)]
        user_id: Cow<'a, str>,
        #[serde(borrow, deserialize_with = "raw")]
        data: &'a str,
    }
    /// What became of those who came, went or changed meanwhile.
    "presence_events" => PresenceEvents {
        #[serde(deserialize_with = "room")]
        room: RoomId,
        /// The first change that it tells of; `seq` is the last.
        from: u64,
        seq: u64,
        total: u64,
        #[serde(borrow)]
        changes: Vec<EventChanged<'a>>,
    }
    /// How many there are, where names would be too many.
    "presence_count" => PresenceCount {
        #[serde(deserialize_with = "room")]
        room: RoomId,
        seq: u64,
        total: u64,
    }
    /// The client's own presence data was taken.
    "presence_updated" => PresenceUpdated {
        id: Option<u64>,
        #[serde(deserialize_with = "room")]
        room: RoomId,
    }
    /// Earlier messages.
    "history" => HistoryPage {
        id: Option<u64>,
        #[serde(deserialize_with = "room")]
        room: RoomId,
        #[serde(deserialize_with = "epoch")]
        epoch: Epoch,
        offset: u64,
        #[serde(borrow, deserialize_with = "entries")]
        messages: Vec<LogEntry<'a>>,
        more: bool,
    }
    /// A fresh token was taken.
    "refreshed" => Refreshed {
        id: Option<u64>,
        #[serde(borrow)]
        expires_at: Option<Cow<'a, str>>,
        /// The ticket to come back with.
        #[serde(borrow)]
        session: Option<Cow<'a, str>>,
    }
    /// The token runs out soon.
    "token_expiring" => TokenExpiring {
        #[serde(borrow)]
        expires_at: Cow<'a, str>,
    }
    /// The server wants to hear something.
    "ping" => Ping {}
    /// Answers the client's `ping`.
    "pong" => Pong {
        id: Option<u64>,
    }
    /// How the connection stands.
    "status" => Status {
        id: Option<u64>,
        #[serde(deserialize_with = "connection")]
        connection_id: ConnectionId,
        #[serde(borrow)]
        user_id: Option<Cow<'a, str>>,
        #[serde(borrow)]
        rooms: Vec<Cow<'a, str>>,
        #[serde(borrow)]
        connected_since: Cow<'a, str>,
        queue_bytes: u64,
        #[serde(borrow)]
        request_id: Cow<'a, str>,
    }
    /// A command failed.
    "error" => ErrorEvent {
        id: Option<u64>,
        code: u16,
        #[serde(borrow)]
        error: Cow<'a, str>,
        #[serde(borrow)]
        message: Cow<'a, str>,
        #[serde(borrow)]
        field: Option<Cow<'a, str>>,
        retry_after_ms: Option<u64>,
    }
    /// The connection ends.
    "disconnect" => Disconnect {
        code: u16,
        #[serde(borrow)]
        reason: Cow<'a, str>,
        reconnect: bool,
        reconnect_after_ms: Option<u64>,
    }
}

/// One place of a room's log. A frame of another type cannot stand there, so that a frame never
/// holds frames that hold frames.
#[derive(Clone, Debug, PartialEq)]
pub enum LogEntry<'a> {
    /// A message.
    Message(Message<'a>),
    /// The place of a message that is gone.
    Tombstone(Tombstone<'a>),
}

/// Who sent a message.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct EventSender<'a> {
    /// The user; none for an anonymous connection or the server's own API.
    #[serde(borrow)]
    pub user_id: Option<Cow<'a, str>>,
    /// The connection; none when the message came over the server API.
    #[serde(borrow)]
    pub connection_id: Option<Cow<'a, str>>,
}

/// One listed member of a room.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct EventMember<'a> {
    /// The user, or `anonymous:<connection id>`.
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    /// The member's data (JSON).
    #[serde(borrow, deserialize_with = "raw")]
    pub data: &'a str,
    /// Over how many connections.
    pub connections: u64,
}

/// What became of one member.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct EventChanged<'a> {
    /// `join`, `leave` or `update`.
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    /// The user, or `anonymous:<connection id>`.
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    /// The member's data (JSON).
    #[serde(borrow, deserialize_with = "raw")]
    pub data: &'a str,
}

fn room<'de, D: Deserializer<'de>>(from: D) -> Result<RoomId, D::Error> {
    let text = Cow::<'de, str>::deserialize(from)?;
    RoomId::parse(&text).map_err(de::Error::custom)
}

fn connection<'de, D: Deserializer<'de>>(from: D) -> Result<ConnectionId, D::Error> {
    let text = Cow::<'de, str>::deserialize(from)?;
    ConnectionId::parse(&text).map_err(de::Error::custom)
}

/// An epoch of another kind can be shown back to no server, so recovery ends in a gap.
fn epoch<'de, D: Deserializer<'de>>(from: D) -> Result<Epoch, D::Error> {
    let text = Cow::<'de, str>::deserialize(from)?;
    Ok(Epoch::parse(&text).unwrap_or(UNKNOWN_EPOCH))
}

fn raw<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<&'a str, D::Error> {
    <&'a RawValue>::deserialize(from).map(RawValue::get)
}

fn entries<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Vec<LogEntry<'a>>, D::Error> {
    let raws = Vec::<&'a RawValue>::deserialize(from)?;
    raws.into_iter().map(|raw| decode_entry(raw.get()).map_err(de::Error::custom)).collect()
}

fn resumed<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Vec<EventResumed<'a>>, D::Error> {
    let raws = Vec::<&'a RawValue>::deserialize(from)?;
    raws.into_iter().map(|raw| decode_resumed(raw.get()).map_err(de::Error::custom)).collect()
}

fn decode_resumed(body: &str) -> Result<EventResumed<'_>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(default)]
        error: Option<de::IgnoredAny>,
    }
    match serde_json::from_str::<Kind>(body)?.error {
        Some(_) => serde_json::from_str(body).map(EventResumed::Refused),
        None => serde_json::from_str(body).map(EventResumed::Back),
    }
}

fn decode_entry(body: &str) -> Result<LogEntry<'_>, serde_json::Error> {
    match &*decode_kind(body)? {
        "message" => serde_json::from_str(body).map(LogEntry::Message),
        "tombstone" => serde_json::from_str(body).map(LogEntry::Tombstone),
        _ => Err(de::Error::custom("a log holds messages and tombstones")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_counts_wherever_it_stands_and_however_it_is_written() {
        let decoded = |text| decode_server(text).next().unwrap().unwrap();
        let ping = ServerEvent::Ping(Ping { timestamp: "t".into() });
        for text in [
            r#"{"type":"ping","timestamp":"t"}"#,
            r#"{"timestamp":"t","type":"ping"}"#,
            r#"{ "type" : "ping", "timestamp":"t"}"#,
            r#"{"type":"p\u0069ng","timestamp":"t"}"#,
        ] {
            assert_eq!(decoded(text), ping, "{text}");
        }
        let followed = r#"{"type":"subscribed","id":1,"pattern":"public:*","timestamp":"t"}"#;
        assert!(matches!(decoded(followed), ServerEvent::PatternSubscribed(_)));
    }
}
