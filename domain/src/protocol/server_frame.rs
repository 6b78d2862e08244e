//! What the server says, and the bytes that say it: one line of JSON per frame.
//!
//! It must never decide whether to say it. Fields always come in the same order, absent values as
//! `null`, and `timestamp` last.

mod presence;

use crate::codes::{CloseCode, ErrorCode};
use crate::id::{ClientId, ConnectionId, Epoch, UserId};
use crate::policy::AckLevel;
use crate::position::{Offset, Position};
use crate::presence::gathering::{PresenceChanges, PresenceCount};
use crate::presence::{PresenceEvent, PresenceList};
use crate::principal::RoomPattern;
use crate::protocol::VERSION;
use crate::protocol::encode::{Line, push_json_string};
use crate::recovery::Gap;
use crate::room::RoomId;
use crate::time::Wall;

/// One entry of `hello.resumed`.
#[derive(Clone, Debug)]
pub struct Resumed<'a> {
    /// Which room.
    pub room: &'a RoomId,
    /// Whether the client is in it again.
    pub outcome: ResumeOutcome<'a>,
}

/// What became of a room that a client came back to.
#[derive(Clone, Debug)]
pub enum ResumeOutcome<'a> {
    /// It is a member again, as behind `subscribed`.
    Back {
        /// Where the client stands after `messages`.
        position: Position,
        /// Whether `messages` begin where the client stopped, without a gap.
        recovered: bool,
        /// What will not come; it stands before `messages`, and its epoch is that of `position`.
        gap: Option<Gap>,
        /// The missed messages.
        messages: Vec<&'a [u8]>,
        /// Whether `page` frames follow before live messages do.
        more: bool,
    },
    /// It is not; the connection stays.
    Refused {
        /// The row of the table.
        code: ErrorCode,
        /// What is wrong, in words.
        message: &'a str,
        /// When to try again.
        retry_after_ms: Option<u64>,
    },
}

/// One frame of the server. `id` is that of the command it answers; none is written as `null`.
///
/// `messages` are what [`encode_message`](super::encode_message) made, oldest first.
#[derive(Clone, Debug)]
pub enum ServerFrame<'a> {
    /// The connection is up, as whom, and how it is kept alive.
    Hello {
        /// The id of `connect`; none when the server greets first.
        id: Option<u64>,
        /// What this server offers, as words.
        features: &'a [&'a str],
        /// Names this connection in the server's log.
        request_id: &'a str,
        /// The client's label.
        client_id: &'a ClientId,
        /// The connection.
        connection_id: ConnectionId,
        /// The user; none for an anonymous connection.
        user_id: Option<&'a UserId>,
        /// The rooms that it is a member of without having asked.
        rooms: &'a [&'a RoomId],
        /// The ticket to come back with; none for an anonymous connection.
        session: Option<&'a str>,
        /// What became of the rooms that `connect` named, in its order.
        resumed: &'a [Resumed<'a>],
        /// How long the connection may be silent before the server sends `ping`.
        heartbeat_interval_ms: u64,
    },
    /// The client is a member, and has everything up to `position` with `messages`.
    Subscribed {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: &'a RoomId,
        /// Where the client stands after `messages`.
        position: Position,
        /// Whether `messages` begin where the client stopped, without a gap.
        recovered: bool,
        /// The missed messages.
        messages: &'a [&'a [u8]],
        /// Whether `page` frames follow before live messages do.
        more: bool,
    },
    /// The client follows all rooms of a pattern, from now on.
    PatternSubscribed {
        /// The command's id.
        id: Option<u64>,
        /// Which rooms.
        pattern: &'a RoomPattern,
    },
    /// The client follows a pattern no longer.
    PatternUnsubscribed {
        /// The command's id; none when the server ended it.
        id: Option<u64>,
        /// Which rooms.
        pattern: &'a RoomPattern,
        /// Why the server ended it.
        code: Option<ErrorCode>,
    },
    /// More of the missed messages.
    Page {
        /// Which room.
        room: &'a RoomId,
        /// Where the client stands after `messages`.
        position: Position,
        /// The missed messages.
        messages: &'a [&'a [u8]],
        /// Whether another `page` follows.
        more: bool,
    },
    /// Messages that will not come.
    Gap {
        /// Which room.
        room: &'a RoomId,
        /// Which messages and why.
        gap: Gap,
    },
    /// A publish was taken.
    Ack {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: &'a RoomId,
        /// The life of the log.
        epoch: Epoch,
        /// The message's place; none for classes without one.
        offset: Option<Offset>,
        /// Whether the same `msg_id` had been taken before, at that place.
        duplicate: bool,
        /// How safe it is.
        level: AckLevel,
    },
    /// The client is no longer a member.
    Unsubscribed {
        /// The command's id; none when the server ended it.
        id: Option<u64>,
        /// Which room.
        room: &'a RoomId,
        /// The number of why the server ended it.
        code: Option<u16>,
        /// The word for it.
        reason: Option<&'a str>,
    },
    /// Who is in a room. More than `members` are there when `total` says so.
    PresenceState {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: &'a RoomId,
        /// The members.
        list: &'a PresenceList,
    },
    /// Somebody came, went or changed.
    PresenceEvent {
        /// Which room.
        room: &'a RoomId,
        /// What happened to whom.
        event: &'a PresenceEvent,
    },
    /// What became of those who came, went or changed meanwhile.
    PresenceEvents {
        /// Which room.
        room: &'a RoomId,
        /// What happened to whom.
        changes: &'a PresenceChanges,
    },
    /// How many there are, where names would be too many.
    PresenceCount {
        /// Which room.
        room: &'a RoomId,
        /// How many.
        count: PresenceCount,
    },
    /// The client's own presence data was taken.
    PresenceUpdated {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: &'a RoomId,
    },
    /// Earlier messages.
    HistoryPage {
        /// The command's id.
        id: Option<u64>,
        /// Which room.
        room: &'a RoomId,
        /// Where to ask on: the place of the last message here.
        position: Position,
        /// The messages.
        messages: &'a [&'a [u8]],
        /// Whether there are later ones.
        more: bool,
    },
    /// A fresh token was taken.
    Refreshed {
        /// The command's id.
        id: Option<u64>,
        /// When it runs out, if it does.
        expires_at: Option<Wall>,
        /// The ticket to come back with.
        session: Option<&'a str>,
    },
    /// The token runs out soon; bring a fresh one.
    TokenExpiring {
        /// When it runs out.
        expires_at: Wall,
    },
    /// Nothing was sent for a while: answer, whatever with.
    Ping,
    /// Answers a client's `ping`.
    Pong {
        /// The command's id.
        id: Option<u64>,
    },
    /// How the connection stands.
    Status {
        /// The command's id.
        id: Option<u64>,
        /// The connection.
        connection_id: ConnectionId,
        /// The user; none for an anonymous connection.
        user_id: Option<&'a UserId>,
        /// The rooms it is a member of.
        rooms: &'a [&'a RoomId],
        /// Since when it is up.
        connected_since: Wall,
        /// How much waits to be sent to it.
        queue_bytes: usize,
        /// Names this connection in the server's log.
        request_id: &'a str,
    },
    /// A command, or a text that was none, failed.
    Error {
        /// The command's id, where it could be read.
        id: Option<u64>,
        /// The row of the table.
        code: ErrorCode,
        /// What is wrong, in words.
        message: &'a str,
        /// The field at fault.
        field: Option<&'a str>,
        /// When to try again.
        retry_after_ms: Option<u64>,
    },
    /// The last frame before the close frame.
    Disconnect {
        /// The row of the table.
        code: CloseCode,
        /// How long to wait before coming back.
        reconnect_after_ms: Option<u64>,
    },
    /// What a host's own handler answers.
    Reply {
        /// The command's id.
        id: Option<u64>,
        /// The `type`.
        kind: &'a str,
        /// Any checked JSON on one line.
        body: &'a str,
    },
}

impl ServerFrame<'_> {
    /// The frame's `type`.
    #[must_use]
    pub const fn kind(&self) -> &str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Subscribed { .. } | Self::PatternSubscribed { .. } => "subscribed",
            Self::Page { .. } => "page",
            Self::Gap { .. } => "gap",
            Self::Ack { .. } => "ack",
            Self::Unsubscribed { .. } | Self::PatternUnsubscribed { .. } => "unsubscribed",
            Self::PresenceState { .. } => "presence",
            Self::PresenceEvent { .. } => "presence_event",
            Self::PresenceEvents { .. } => "presence_events",
            Self::PresenceCount { .. } => "presence_count",
            Self::PresenceUpdated { .. } => "presence_updated",
            Self::HistoryPage { .. } => "history",
            Self::Refreshed { .. } => "refreshed",
            Self::TokenExpiring { .. } => "token_expiring",
            Self::Ping => "ping",
            Self::Pong { .. } => "pong",
            Self::Status { .. } => "status",
            Self::Error { .. } => "error",
            Self::Disconnect { .. } => "disconnect",
            Self::Reply { kind, .. } => kind,
        }
    }

    /// Writes the frame behind what is in `out`, without a line break at its end.
    pub fn encode(&self, now: Wall, out: &mut Vec<u8>) {
        let mut line = Line::begin(out, self.kind());
        match self {
            Self::Hello { .. } | Self::Status { .. } | Self::Error { .. } => {
                self.encode_about_connection(now, &mut line);
            }
            Self::Subscribed { .. } | Self::Page { .. } | Self::HistoryPage { .. } => {
                self.encode_log(&mut line);
            }
            Self::Gap { room, gap } => {
                line.text("room", room.as_str());
                line.hex("epoch", gap.epoch.bits());
                line.number("from", gap.from.get());
                line.number("to", gap.to.get());
                line.text("reason", gap.reason.word());
            }
            Self::Ack { id, room, epoch, offset, duplicate, level } => {
                line.number_or_null("id", *id);
                line.text("room", room.as_str());
                line.hex("epoch", epoch.bits());
                line.number_or_null("offset", offset.map(Offset::get));
                line.flag("duplicate", *duplicate);
                line.text("level", level.word());
            }
            Self::Unsubscribed { id, room, code, reason } => {
                line.number_or_null("id", *id);
                line.text("room", room.as_str());
                line.number_or_null("code", code.map(u64::from));
                line.text_or_null("reason", *reason);
            }
            Self::PatternSubscribed { .. } | Self::PatternUnsubscribed { .. } => {
                self.encode_pattern(&mut line);
            }
            Self::PresenceState { .. }
            | Self::PresenceEvent { .. }
            | Self::PresenceEvents { .. }
            | Self::PresenceCount { .. }
            | Self::PresenceUpdated { .. } => self.encode_presence(&mut line),
            Self::Refreshed { id, expires_at, session } => {
                line.number_or_null("id", *id);
                line.time_or_null("expires_at", *expires_at);
                line.text_or_null("session", *session);
            }
            Self::TokenExpiring { expires_at } => line.time("expires_at", *expires_at),
            Self::Ping => {}
            Self::Pong { id } => line.number_or_null("id", *id),
            Self::Disconnect { code, reconnect_after_ms } => {
                line.number("code", u64::from(code.number()));
                line.text("reason", code.reason());
                line.flag("reconnect", code.reconnect());
                line.number_or_null("reconnect_after_ms", *reconnect_after_ms);
            }
            Self::Reply { id, body, .. } => {
                line.number_or_null("id", *id);
                line.raw("data", body.as_bytes());
            }
        }
        line.end(now);
    }

    fn encode_about_connection(&self, now: Wall, line: &mut Line<'_>) {
        if let Self::Hello { id, features, request_id, client_id, connection_id, .. } = self {
            line.number_or_null("id", *id);
            line.time("server_time", now);
            line.number("accepted_version", VERSION);
            line.list("features", *features, |out, word| push_json_string(out, word));
            line.text("request_id", request_id);
            line.text("client_id", client_id.as_str());
            line.hex("connection_id", connection_id.bits());
        }
        if let Self::Hello { user_id, rooms, session, resumed, heartbeat_interval_ms, .. } = self {
            line.text_or_null("user_id", user_id.map(UserId::as_str));
            line.list("rooms", *rooms, |out, room| push_json_string(out, room.as_str()));
            line.text_or_null("session", *session);
            line.list("resumed", *resumed, encode_resumed);
            line.number("heartbeat_interval_ms", *heartbeat_interval_ms);
        }
        if let Self::Status { id, connection_id, user_id, rooms, .. } = self {
            line.number_or_null("id", *id);
            line.hex("connection_id", connection_id.bits());
            line.text_or_null("user_id", user_id.map(UserId::as_str));
            line.list("rooms", *rooms, |out, room| push_json_string(out, room.as_str()));
        }
        if let Self::Status { connected_since, queue_bytes, request_id, .. } = self {
            line.time("connected_since", *connected_since);
            line.number("queue_bytes", u64::try_from(*queue_bytes).unwrap_or(u64::MAX));
            line.text("request_id", request_id);
        }
        if let Self::Error { id, code, message, field, retry_after_ms } = self {
            line.number_or_null("id", *id);
            line.number("code", u64::from(code.number()));
            line.text("error", code.word());
            line.text("message", message);
            line.text_or_null("field", *field);
            line.number_or_null("retry_after_ms", *retry_after_ms);
        }
    }

    fn encode_log(&self, line: &mut Line<'_>) {
        let (Self::Subscribed { room, position, messages, more, .. }
        | Self::Page { room, position, messages, more }
        | Self::HistoryPage { room, position, messages, more, .. }) = self
        else {
            return;
        };
        if let Self::Subscribed { id, .. } | Self::HistoryPage { id, .. } = self {
            line.number_or_null("id", *id);
        }
        line.text("room", room.as_str());
        line.hex("epoch", position.epoch.bits());
        line.number("offset", position.offset.get());
        if let Self::Subscribed { recovered, .. } = self {
            line.flag("recovered", *recovered);
        }
        line.list("messages", *messages, |out, message| out.extend_from_slice(message));
        line.flag("more", *more);
    }

    /// A pattern has no position of its own, and nothing is recovered over it.
    fn encode_pattern(&self, line: &mut Line<'_>) {
        let (Self::PatternSubscribed { id, pattern }
        | Self::PatternUnsubscribed { id, pattern, .. }) = self
        else {
            return;
        };
        line.number_or_null("id", *id);
        line.raw("room", b"null");
        line.text("pattern", &pattern.to_string());
        match self {
            Self::PatternUnsubscribed { code, .. } => {
                line.number_or_null("code", code.map(|code| u64::from(code.number())));
                line.text_or_null("reason", code.map(ErrorCode::word));
            }
            _ => {
                line.raw("epoch", b"null");
                line.raw("offset", b"null");
                line.flag("recovered", false);
                line.raw("messages", b"[]");
                line.flag("more", false);
            }
        }
    }
}

fn encode_resumed(out: &mut Vec<u8>, resumed: &Resumed<'_>) {
    let mut item = Line::item(out, "room", resumed.room.as_str());
    match &resumed.outcome {
        ResumeOutcome::Back { position, recovered, gap, messages, more } => {
            item.hex("epoch", position.epoch.bits());
            item.number("offset", position.offset.get());
            item.flag("recovered", *recovered);
            match gap {
                Some(gap) => item.nested("gap", |gap_line| {
                    gap_line.number("from", gap.from.get());
                    gap_line.number("to", gap.to.get());
                    gap_line.text("reason", gap.reason.word());
                }),
                None => item.raw("gap", b"null"),
            }
            item.list("messages", messages, |out, message| out.extend_from_slice(message));
            item.flag("more", *more);
        }
        ResumeOutcome::Refused { code, message, retry_after_ms } => {
            item.nested("error", |error| {
                error.number("code", u64::from(code.number()));
                error.text("error", code.word());
                error.text("message", message);
                error.number_or_null("retry_after_ms", *retry_after_ms);
            });
        }
    }
    item.close();
}
