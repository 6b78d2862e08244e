//! From the protocol's borrowed frames to types of the application's own.
//!
//! Numbers that no server of ours can mean are refused here, once.

use std::borrow::Cow;
use std::time::Duration;

use crate::id::{Epoch, MessageId};
use crate::position::{Offset, Position};
use crate::protocol::client_event::{
    Ack, Gap, Hello, HistoryPage, LogEntry, Member, Message, PresenceChange, PresenceCount,
    PresenceState, Refusal, Sender, Status, Subscribed, Tombstone,
};
use crate::protocol::server_event as wire;

/// A number of the server's is outside its range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

/// A server can't make the client wait or listen for longer than this.
const SPAN_MAX: Duration = Duration::from_secs(3600);
/// Nor shorter.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

/// Milliseconds of the server's, held to what makes sense: an hour at most.
#[must_use]
pub fn span(millis: u64) -> Duration {
    Duration::from_millis(millis).min(SPAN_MAX)
}

fn owned(text: Option<Cow<'_, str>>) -> Option<String> {
    text.map(Cow::into_owned)
}

fn offset(number: u64) -> Result<Offset, Malformed> {
    Offset::parse(number).map_err(|_| Malformed)
}

fn maybe_offset(number: Option<u64>) -> Result<Option<Offset>, Malformed> {
    number.map(offset).transpose()
}

pub(crate) fn position(epoch: Epoch, number: u64) -> Result<Position, Malformed> {
    Ok(Position { epoch, offset: offset(number)? })
}

impl Hello {
    pub(crate) fn from_wire(from: wire::Hello<'_>) -> Self {
        Self {
            features: from.features.into_iter().map(Cow::into_owned).collect(),
            request_id: from.request_id.into_owned(),
            client_id: from.client_id.into_owned(),
            connection_id: from.connection_id,
            user_id: owned(from.user_id),
            rooms: from.rooms.into_iter().map(Cow::into_owned).collect(),
            heartbeat_interval: span(from.heartbeat_interval_ms).max(HEARTBEAT_MIN),
            timestamp: from.timestamp.into_owned(),
        }
    }
}

impl Subscribed {
    pub(crate) fn from_wire(from: &wire::Subscribed<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            room: from.room.clone(),
            position: position(from.epoch, from.offset)?,
            recovered: from.recovered,
            more: from.more,
        })
    }
}

impl Message {
    pub(crate) fn from_wire(from: wire::Message<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            room: from.room,
            epoch: from.epoch,
            offset: maybe_offset(from.offset)?,
            class: owned(from.class),
            key: owned(from.key),
            sender: Sender {
                user_id: owned(from.sender.user_id),
                connection_id: owned(from.sender.connection_id),
            },
            tags: from.tags.into_iter().map(|(n, v)| (n.into_owned(), v.into_owned())).collect(),
            data: from.data.to_owned(),
            previous: maybe_offset(from.previous)?,
            pattern: owned(from.pattern),
            timestamp: from.timestamp.into_owned(),
        })
    }
}

impl Tombstone {
    pub(crate) fn from_wire(from: wire::Tombstone<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            room: from.room,
            epoch: from.epoch,
            offset: maybe_offset(from.offset)?,
            reason: from.reason.into_owned(),
            timestamp: from.timestamp.into_owned(),
        })
    }
}

impl LogEntry {
    pub(crate) fn from_wire(from: wire::LogEntry<'_>) -> Result<Self, Malformed> {
        Ok(match from {
            wire::LogEntry::Message(message) => Self::Message(Message::from_wire(message)?),
            wire::LogEntry::Tombstone(tombstone) => {
                Self::Tombstone(Tombstone::from_wire(tombstone)?)
            }
        })
    }
}

impl Gap {
    pub(crate) fn from_wire(from: wire::Gap<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            room: from.room,
            epoch: from.epoch,
            from: offset(from.from)?,
            to: offset(from.to)?,
            reason: from.reason.into_owned(),
        })
    }
}

impl PresenceChange {
    pub(crate) fn from_wire(from: wire::PresenceEvent<'_>) -> Self {
        Self {
            room: from.room,
            seq: from.seq,
            event: from.event.into_owned(),
            user_id: from.user_id.into_owned(),
            data: from.data.to_owned(),
            total: from.total,
            timestamp: from.timestamp.into_owned(),
        }
    }
}

impl PresenceChange {
    /// Each of several that came together.
    pub(crate) fn all_from_wire(from: wire::PresenceEvents<'_>) -> Vec<Self> {
        let wire::PresenceEvents { room, seq, total, changes, timestamp, .. } = from;
        let change = |change: wire::EventChanged<'_>| Self {
            room: room.clone(),
            seq,
            event: change.event.into_owned(),
            user_id: change.user_id.into_owned(),
            data: change.data.to_owned(),
            total,
            timestamp: timestamp.clone().into_owned(),
        };
        changes.into_iter().map(change).collect()
    }
}

impl PresenceCount {
    pub(crate) fn from_wire(from: wire::PresenceCount<'_>) -> Self {
        Self { room: from.room, seq: from.seq, total: from.total }
    }
}

impl PresenceState {
    pub(crate) fn from_wire(from: wire::PresenceState<'_>) -> Self {
        let member = |member: wire::EventMember<'_>| Member {
            user_id: member.user_id.into_owned(),
            data: member.data.to_owned(),
            connections: member.connections,
        };
        Self {
            room: from.room,
            seq: from.seq,
            total: from.total,
            members: from.members.into_iter().map(member).collect(),
        }
    }
}

impl Ack {
    pub(crate) fn from_wire(from: wire::Ack<'_>, msg_id: MessageId) -> Result<Self, Malformed> {
        Ok(Self {
            room: from.room,
            epoch: from.epoch,
            offset: maybe_offset(from.offset)?,
            duplicate: from.duplicate,
            level: from.level.into_owned(),
            msg_id,
        })
    }
}

impl HistoryPage {
    pub(crate) fn from_wire(from: wire::HistoryPage<'_>) -> Result<Self, Malformed> {
        let messages = from.messages.into_iter().map(LogEntry::from_wire);
        Ok(Self {
            room: from.room,
            position: position(from.epoch, from.offset)?,
            messages: messages.collect::<Result<_, _>>()?,
            more: from.more,
        })
    }
}

impl Status {
    pub(crate) fn from_wire(from: wire::Status<'_>) -> Self {
        Self {
            connection_id: from.connection_id,
            user_id: owned(from.user_id),
            rooms: from.rooms.into_iter().map(Cow::into_owned).collect(),
            connected_since: from.connected_since.into_owned(),
            queue_bytes: from.queue_bytes,
            request_id: from.request_id.into_owned(),
        }
    }
}

impl Refusal {
    pub(crate) fn from_wire(from: wire::ErrorEvent<'_>) -> Self {
        Self {
            code: from.code,
            error: from.error.into_owned(),
            message: from.message.into_owned(),
            field: owned(from.field),
            retry_after_ms: from.retry_after_ms,
        }
    }
}
