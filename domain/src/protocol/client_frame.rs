//! What clients say: the commands, and the answer to a text that is none.
//!
//! A frame that exists is valid in itself; whether it is allowed now, here and for this client is
//! not known here and must never be decided here.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::codes::ErrorCode;
use crate::delivery::Class;
use crate::filter::Filter;
use crate::id::{Epoch, MessageId, MessageKey};
use crate::position::Position;
use crate::principal::RoomPattern;
use crate::protocol::encode::Line;
use crate::protocol::selective::{push_condition, push_tags};
use crate::room::RoomId;
use crate::tags::Tags;
use crate::trace::TraceParent;

/// The largest presence data, in bytes of JSON.
pub const METADATA_BYTES_MAX: usize = 4096;
/// The longest `ttl_ms`: a day, as long as a log keeps anything by default.
pub const TTL_MS_MAX: u64 = 86_400_000;
/// How many messages `history` asks for when it does not say.
pub const HISTORY_LIMIT_DEFAULT: u32 = 100;
/// The most messages that one `history` may ask for.
pub const HISTORY_LIMIT_MAX: u32 = 1000;
/// The longest epoch text; longer ones cannot be any server's.
pub const EPOCH_BYTES_MAX: usize = 64;

/// The longest session ticket, in bytes: no token is so large that its ticket needs more.
pub const SESSION_BYTES_MAX: usize = 16 << 10;
/// The most rooms of one `resume`: as many as a connection is in by default.
pub const RESUME_ROOMS_MAX: usize = 128;

/// A bearer token or ticket. Its `Debug` hides it, so that a logged frame gives nothing away.
#[derive(Clone, Eq, PartialEq)]
pub struct TokenText<'a>(Cow<'a, str>);

impl<'a> TokenText<'a> {
    /// Takes any text; whether it is a valid token is not known here.
    #[must_use]
    pub const fn new(text: Cow<'a, str>) -> Self {
        Self(text)
    }

    /// The token itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(…)")
    }
}

/// A room that a client was in, and wants to be in again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resume {
    /// Which room.
    pub room: RoomId,
    /// Up to where the client has everything. An epoch that cannot be one of ours is
    /// [`UNKNOWN_EPOCH`].
    pub since: Position,
    /// Whether the client wants to follow who comes and goes.
    pub presence: bool,
    /// Which messages the client wants; none means all.
    pub filter: Option<Filter>,
}

/// One command. `id` is what the answer will carry; no `id`, no answer, except an error.
///
/// Raw JSON (`data`, `body`) is a checked slice of the text, byte for byte as it came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClientFrame<'a> {
    /// Says who the client is; once, before anything else.
    Connect {
        /// The command's id.
        id: Option<u64>,
        /// The token; without it and a ticket the client asks to stay anonymous.
        token: Option<TokenText<'a>>,
        /// The ticket of an earlier connection, at most [`SESSION_BYTES_MAX`] bytes.
        session: Option<TokenText<'a>>,
        /// The rooms to be in again, all different, at most [`RESUME_ROOMS_MAX`].
        resume: Vec<Resume>,
    },
    /// Joins a room.
    Subscribe {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: RoomId,
        /// Up to where the client has everything. An epoch that cannot be one of ours is
        /// [`UNKNOWN_EPOCH`].
        since: Option<Position>,
        /// Whether the client wants to follow who comes and goes.
        presence: bool,
        /// Which messages the client wants; none means all.
        filter: Option<Filter>,
    },
    /// Follows all rooms of a pattern, from now on and without their logs.
    SubscribePattern {
        /// The command's id.
        id: Option<u64>,
        /// Which rooms; always with a final `*`.
        pattern: RoomPattern,
    },
    /// Follows a pattern no longer.
    UnsubscribePattern {
        /// The command's id.
        id: Option<u64>,
        /// Which rooms.
        pattern: RoomPattern,
    },
    /// Leaves a room.
    Unsubscribe {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: RoomId,
    },
    /// Sends a message to a room.
    Publish {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: RoomId,
        /// The message: any JSON, nested at most 64 deep. Line breaks may still be in it.
        data: &'a str,
        /// The client's name for this publish, for de-duplication.
        msg_id: Option<MessageId>,
        /// Whether the client wants the message back as a member of the room.
        echo: bool,
        /// How to deliver it; none means as the room's namespace does by default.
        class: Option<Class>,
        /// What it replaces. Always there with `class` latest, never with another; without a
        /// `class` it may be there or not, for the namespace's default is not known here.
        key: Option<MessageKey>,
        /// How long it may be delivered.
        ttl: Option<Duration>,
        /// By what members may choose it.
        tags: Tags,
        /// The trace that it belongs to; members get it with the message.
        trace: Option<TraceParent>,
    },
    /// Asks who is in a room.
    Presence {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: RoomId,
    },
    /// Changes what others see of this member.
    PresenceUpdate {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: RoomId,
        /// Any JSON of at most [`METADATA_BYTES_MAX`] bytes.
        data: &'a str,
    },
    /// Asks for earlier messages.
    History {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: RoomId,
        /// From where on, exclusive; none means the oldest kept.
        since: Option<Position>,
        /// How many at most: 1 to [`HISTORY_LIMIT_MAX`].
        limit: u32,
    },
    /// Brings a fresh token before the old one runs out.
    Refresh {
        /// The command's id.
        id: Option<u64>,
        /// The fresh token.
        token: TokenText<'a>,
    },
    /// Asks for a `pong`.
    Ping {
        /// The command's id.
        id: Option<u64>,
    },
    /// Answers the server's `ping`.
    Pong,
    /// Asks how the connection stands.
    Status {
        /// The command's id.
        id: Option<u64>,
    },
    /// A `type` that the protocol does not have: for a host's own handlers, if it has any.
    Other {
        /// The command's id.
        id: Option<u64>,
        /// The `type`.
        kind: Cow<'a, str>,
        /// The whole frame, a JSON object.
        body: &'a str,
    },
}

/// Stands for every epoch text that is not one of ours. No broker hands it out, so a position in
/// it meets a log of another epoch and is answered with a gap, like any position of a lost log.
pub const UNKNOWN_EPOCH: Epoch = Epoch::from_bits(0);

impl ClientFrame<'_> {
    /// The command's id.
    #[must_use]
    pub const fn id(&self) -> Option<u64> {
        match self {
            Self::Connect { id, .. }
            | Self::Subscribe { id, .. }
            | Self::SubscribePattern { id, .. }
            | Self::Unsubscribe { id, .. }
            | Self::UnsubscribePattern { id, .. }
            | Self::Publish { id, .. }
            | Self::Presence { id, .. }
            | Self::PresenceUpdate { id, .. }
            | Self::History { id, .. }
            | Self::Refresh { id, .. }
            | Self::Ping { id }
            | Self::Status { id }
            | Self::Other { id, .. } => *id,
            Self::Pong => None,
        }
    }

    /// The frame's `type`.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Subscribe { .. } | Self::SubscribePattern { .. } => "subscribe",
            Self::Unsubscribe { .. } | Self::UnsubscribePattern { .. } => "unsubscribe",
            Self::Publish { .. } => "publish",
            Self::Presence { .. } => "presence",
            Self::PresenceUpdate { .. } => "presence_update",
            Self::History { .. } => "history",
            Self::Refresh { .. } => "refresh",
            Self::Ping { .. } => "ping",
            Self::Pong => "pong",
            Self::Status { .. } => "status",
            Self::Other { kind, .. } => kind,
        }
    }
}

/// What to answer to a text that is not a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejected {
    /// The frame's `id`, where it could be read.
    pub id: Option<u64>,
    /// The row of the table.
    pub code: ErrorCode,
    /// The field at fault; a name that came from the client is cut to 64 bytes.
    pub field: Option<Cow<'static, str>>,
    /// What was expected, in words.
    pub message: Cow<'static, str>,
    /// Whether it counts as unparsable: not JSON, not an object, nested too deep, duplicate or
    /// too many keys, or no `type`. Too many of these end the connection.
    pub strike: bool,
}

impl Rejected {
    pub(super) const FIELD_BYTES_MAX: usize = 64;

    pub(crate) fn strike(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            id: None,
            code: ErrorCode::BadRequest,
            field: None,
            message: message.into(),
            strike: true,
        }
    }

    pub(crate) fn field(
        code: ErrorCode,
        field: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { id: None, code, field: Some(field.into()), message: message.into(), strike: false }
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::field(ErrorCode::InvalidField, field, message)
    }

    pub(crate) fn too_large(field: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::field(ErrorCode::TooLarge, field, message)
    }
}

/// Writes a command as a client sends it, as one JSON value without a line break of its own.
/// Fields with their default value are left out. `Other` is its `body`.
#[must_use]
pub fn encode_client(frame: &ClientFrame<'_>) -> String {
    let mut out = Vec::with_capacity(128);
    if let ClientFrame::Other { body, .. } = frame {
        return (*body).to_owned();
    }
    let mut line = Line::begin(&mut out, frame.kind());
    if let Some(id) = frame.id() {
        line.number("id", id);
    }
    encode_fields(frame, &mut line);
    line.close();
    // Every piece was text, so this never replaces anything.
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

fn encode_fields(frame: &ClientFrame<'_>, line: &mut Line<'_>) {
    match frame {
        ClientFrame::Connect { token, session, resume, .. } => {
            if let Some(token) = token {
                line.text("token", token.as_str());
            }
            if let Some(session) = session {
                line.text("session", session.as_str());
            }
            if !resume.is_empty() {
                line.list("resume", resume, encode_resume);
            }
        }
        ClientFrame::Refresh { token, .. } => line.text("token", token.as_str()),
        ClientFrame::Subscribe { room, since, presence, filter, .. } => {
            line.text("room", room.as_str());
            encode_since(*since, line);
            if *presence {
                line.flag("presence", true);
            }
            if let Some(filter) = filter {
                line.write("filter", |out| push_condition(out, filter.condition()));
            }
        }
        ClientFrame::SubscribePattern { pattern, .. }
        | ClientFrame::UnsubscribePattern { pattern, .. } => {
            line.text("pattern", &pattern.to_string());
        }
        ClientFrame::Unsubscribe { room, .. } | ClientFrame::Presence { room, .. } => {
            line.text("room", room.as_str());
        }
        ClientFrame::Publish { room, data, msg_id, echo, class, key, ttl, tags, trace, .. } => {
            line.text("room", room.as_str());
            line.raw("data", data.as_bytes());
            if let Some(msg_id) = msg_id {
                line.text("msg_id", msg_id.as_str());
            }
            if !echo {
                line.flag("echo", false);
            }
            if let Some(class) = class {
                line.text("class", class.word());
            }
            if let Some(key) = key {
                line.text("key", key.as_str());
            }
            if let Some(ttl) = ttl {
                line.number("ttl_ms", u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            }
            if !tags.is_empty() {
                line.write("tags", |out| push_tags(out, tags));
            }
            if let Some(trace) = trace {
                line.text("traceparent", &trace.to_string());
            }
        }
        ClientFrame::PresenceUpdate { room, data, .. } => {
            line.text("room", room.as_str());
            line.raw("data", data.as_bytes());
        }
        ClientFrame::History { room, since, limit, .. } => {
            line.text("room", room.as_str());
            encode_since(*since, line);
            line.number("limit", u64::from(*limit));
        }
        ClientFrame::Ping { .. }
        | ClientFrame::Pong
        | ClientFrame::Status { .. }
        | ClientFrame::Other { .. } => {}
    }
}

/// How many bytes an entry of `resume` takes in a [`ClientFrame::Connect`].
#[must_use]
pub fn encoded_len(resume: &Resume) -> usize {
    let mut out = Vec::new();
    encode_resume(&mut out, resume);
    // With the comma before the next.
    out.len() + 1
}

fn encode_resume(out: &mut Vec<u8>, resume: &Resume) {
    let mut item = Line::item(out, "room", resume.room.as_str());
    item.hex("epoch", resume.since.epoch.bits());
    item.number("offset", resume.since.offset.get());
    if resume.presence {
        item.flag("presence", true);
    }
    if let Some(filter) = &resume.filter {
        item.write("filter", |out| push_condition(out, filter.condition()));
    }
    item.close();
}

fn encode_since(since: Option<Position>, line: &mut Line<'_>) {
    if let Some(since) = since {
        line.position("since", since);
    }
}
