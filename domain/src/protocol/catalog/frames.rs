//! The frames of the server: every form of each.
//!
//! They say what this version writes; a later one may add fields and frames, which clients ignore.

use crate::protocol::catalog::shapes::{
    CHANGED, CLASS_DROPPABLE, CLASS_LATEST, CLIENT, CONNECTION, ENTRIES, EPOCH, GAP_FROM, GAP_TO,
    GAP_WHY, KEY, LEVEL, MEMBER, MESSAGE_TAGS, MESSAGE_TRACE, PATTERN, PRESENCE_CHANGE,
    RESUME_OUTCOME, ROOM, SENDER, TICKET, TIME, TOMBSTONE_REASON, USER,
};
use crate::protocol::catalog::{COUNT, Field, Frame, Kind, Record, nullable, omitted, required};

/// What every frame of the server has behind its own fields.
pub const COMMON: &[Field] = &[required(
    "timestamp",
    Kind::Text(&TIME),
    "When the server said it; of a message, when it was published.",
)];

const ANSWERS: Field = nullable("id", COUNT, "The command's; null where there was none.");
const ROOM_FIELD: Field = required("room", Kind::Text(&ROOM), "Which room.");
const PATTERN_FIELD: Field = required("pattern", Kind::Text(&PATTERN), "Which rooms.");
const EPOCH_FIELD: Field = required("epoch", Kind::Text(&EPOCH), "The life of the log.");
const STANDS: Field = required("offset", COUNT, "Where the client stands after `messages`.");
const MESSAGES: Field = required("messages", ENTRIES, "Oldest first, without holes.");
const NEVER_AGAIN: &str = "Not in this form of the frame.";
const NO_ROOM: Field = required("room", Kind::Null, NEVER_AGAIN);

/// `hello`.
pub const HELLO: Record = Record {
    name: "HelloFrame",
    doc: "The connection is up: as whom, and how it is kept alive.",
    fields: &[
        nullable("id", COUNT, "That of `connect`; null when the server greets first."),
        required("server_time", Kind::Text(&TIME), "The server's clock."),
        required("accepted_version", Kind::Number { min: 2, max: 2 }, "The protocol's version."),
        required("features", WORDS, "What this server offers, as words. There may be new ones."),
        required("request_id", Kind::AnyText, "What to quote to the operator."),
        required("client_id", Kind::Text(&CLIENT), "The client's label."),
        required("connection_id", Kind::Text(&CONNECTION), "The connection."),
        nullable("user_id", Kind::Text(&USER), "The user; null for an anonymous connection."),
        required("rooms", ROOMS, "The rooms that the connection is in without having asked."),
        nullable("session", Kind::Text(&TICKET), "The ticket to come back with; keep the last."),
        required(
            "resumed",
            Kind::List { of: &Kind::OneOf(&RESUME_OUTCOME), max: None },
            "What became of the rooms that `connect` named, in its order.",
        ),
        required(
            "heartbeat_interval_ms",
            COUNT,
            "How many milliseconds of silence there are before the server says `ping`.",
        ),
    ],
};
const WORDS: Kind = Kind::List { of: &Kind::AnyText, max: None };
const ROOMS: Kind = Kind::List { of: &Kind::Text(&ROOM), max: None };

/// `subscribed` to a room.
pub const SUBSCRIBED: Record = Record {
    name: "SubscribedFrame",
    doc: "The client is a member, and has everything up to `offset` with `messages`.",
    fields: &[
        ANSWERS,
        ROOM_FIELD,
        EPOCH_FIELD,
        STANDS,
        required("recovered", Kind::Flag, "Whether `messages` begin where the client stopped."),
        MESSAGES,
        required("more", Kind::Flag, "Whether `page` frames follow before live messages do."),
    ],
};
/// `subscribed` to a pattern.
pub const PATTERN_SUBSCRIBED: Record = Record {
    name: "PatternSubscribedFrame",
    doc: "The client follows all rooms of a pattern, from now on.",
    fields: &[
        ANSWERS,
        NO_ROOM,
        PATTERN_FIELD,
        required("epoch", Kind::Null, NEVER_AGAIN),
        required("offset", Kind::Null, NEVER_AGAIN),
        required("recovered", Kind::False, "A pattern recovers nothing."),
        required("messages", Kind::List { of: &Kind::Null, max: Some(0) }, "Always empty."),
        required("more", Kind::False, "Nothing follows."),
    ],
};
/// `page`.
pub const PAGE: Record = Record {
    name: "PageFrame",
    doc: "More of what was missed.",
    fields: &[
        ROOM_FIELD,
        EPOCH_FIELD,
        STANDS,
        MESSAGES,
        required("more", Kind::Flag, "Whether another `page` of this room follows."),
    ],
};
/// `gap`.
pub const GAP: Record = Record {
    name: "GapFrame",
    doc: "Messages that will not come.",
    fields: &[ROOM_FIELD, EPOCH_FIELD, GAP_FROM, GAP_TO, GAP_WHY],
};
/// `ack`.
pub const ACK: Record = Record {
    name: "AckFrame",
    doc: "A publish was taken.",
    fields: &[
        ANSWERS,
        ROOM_FIELD,
        EPOCH_FIELD,
        nullable("offset", COUNT, "The message's place; null for classes that have none."),
        required("duplicate", Kind::Flag, "Whether the same `msg_id` had been taken before."),
        required("level", LEVEL, "How safe it is."),
    ],
};

const FROM: Field = required("sender", Kind::Record(&SENDER), "Who sent it.");
const PUBLISHED: Field =
    required("data", Kind::Json { bytes_max: None }, "What was published, as it came.");
const PREVIOUS: Field = omitted(
    "previous",
    COUNT,
    "Only with a filter: up to where the client has been told all that it wants.",
);
const BY_PATTERN: Field = omitted("pattern", Kind::Text(&PATTERN), "Which pattern brought it.");
const NO_OFFSET: Field = required("offset", Kind::Null, "Messages of this class have no place.");

/// `message` with a place in the log.
pub const MESSAGE: Record = Record {
    name: "MessageFrame",
    doc: "A message of class `reliable`.",
    fields: &[
        ROOM_FIELD,
        EPOCH_FIELD,
        required("offset", COUNT, "Its place in the room's log."),
        FROM,
        MESSAGE_TAGS,
        MESSAGE_TRACE,
        PUBLISHED,
        PREVIOUS,
        BY_PATTERN,
    ],
};
/// `message` of class `latest`.
pub const LATEST_MESSAGE: Record = Record {
    name: "LatestMessageFrame",
    doc: "A message that takes the place of the one before with the same key.",
    fields: &[
        ROOM_FIELD,
        EPOCH_FIELD,
        NO_OFFSET,
        required("class", CLASS_LATEST, "Its class."),
        required("key", Kind::Text(&KEY), "Which message it replaces."),
        FROM,
        MESSAGE_TAGS,
        MESSAGE_TRACE,
        PUBLISHED,
        BY_PATTERN,
    ],
};
/// `message` of class `droppable`.
pub const DROPPABLE_MESSAGE: Record = Record {
    name: "DroppableMessageFrame",
    doc: "A message that is of use only at once.",
    fields: &[
        ROOM_FIELD,
        EPOCH_FIELD,
        NO_OFFSET,
        required("class", CLASS_DROPPABLE, "Its class."),
        FROM,
        MESSAGE_TAGS,
        MESSAGE_TRACE,
        PUBLISHED,
        BY_PATTERN,
    ],
};
/// `tombstone`.
pub const TOMBSTONE: Record = Record {
    name: "TombstoneFrame",
    doc: "The place of a message that is gone.",
    fields: &[
        ROOM_FIELD,
        EPOCH_FIELD,
        required("offset", COUNT, "The place."),
        required("reason", TOMBSTONE_REASON, "Why it is gone."),
    ],
};

const WHY_NUMBER: Field =
    nullable("code", Kind::ErrorCode, "Why the server ended it; null when the client did.");
const WHY_WORD: Field = nullable("reason", Kind::ErrorWord, "The word for it.");

/// `unsubscribed` from a room.
pub const UNSUBSCRIBED: Record = Record {
    name: "UnsubscribedFrame",
    doc: "The client is no longer a member.",
    fields: &[ANSWERS, ROOM_FIELD, WHY_NUMBER, WHY_WORD],
};
/// `unsubscribed` from a pattern.
pub const PATTERN_UNSUBSCRIBED: Record = Record {
    name: "PatternUnsubscribedFrame",
    doc: "The client follows a pattern no longer.",
    fields: &[ANSWERS, NO_ROOM, PATTERN_FIELD, WHY_NUMBER, WHY_WORD],
};
/// `presence`.
pub const PRESENCE: Record = Record {
    name: "PresenceFrame",
    doc: "Who is in a room.",
    fields: &[
        ANSWERS,
        ROOM_FIELD,
        required("seq", COUNT, "The number of the last event that the list contains."),
        required("total", COUNT, "How many members there are, listed or not."),
        required(
            "members",
            Kind::List { of: &Kind::Record(&MEMBER), max: None },
            "In the order of their names.",
        ),
    ],
};
/// `presence_event`.
pub const PRESENCE_EVENT: Record = Record {
    name: "PresenceEventFrame",
    doc: "Somebody came, went or changed.",
    fields: &[
        ROOM_FIELD,
        required("seq", COUNT, "Grows by one with each event of the room."),
        required("total", COUNT, "How many members there are after it."),
        required("event", PRESENCE_CHANGE, "What happened."),
        required("user_id", Kind::Text(&USER), "To whom."),
        required("data", Kind::Json { bytes_max: None }, "What others see of the user."),
    ],
};
/// `presence_events`.
pub const PRESENCE_EVENTS: Record = Record {
    name: "PresenceEventsFrame",
    doc: "What became of those who came, went or changed meanwhile: takes the place of the events of those numbers.",
    fields: &[
        ROOM_FIELD,
        required("from", COUNT, "The number of the first change that it tells of."),
        required("seq", COUNT, "The number of the last."),
        required("total", COUNT, "How many members there are after it."),
        required(
            "changes",
            Kind::List { of: &Kind::Record(&CHANGED), max: None },
            "Each member who changed, once, in the order of their names.",
        ),
    ],
};
/// `presence_count`.
pub const PRESENCE_COUNT: Record = Record {
    name: "PresenceCountFrame",
    doc: "How many there are, where names would be too many; a list comes when names are told again.",
    fields: &[
        ROOM_FIELD,
        required("seq", COUNT, "The number of the last change."),
        required("total", COUNT, "How many members there are after it."),
    ],
};
/// `presence_updated`.
pub const PRESENCE_UPDATED: Record = Record {
    name: "PresenceUpdatedFrame",
    doc: "What others see of the client's user was changed.",
    fields: &[ANSWERS, ROOM_FIELD],
};
/// `history`.
pub const HISTORY: Record = Record {
    name: "HistoryFrame",
    doc: "Earlier messages.",
    fields: &[
        ANSWERS,
        ROOM_FIELD,
        EPOCH_FIELD,
        required("offset", COUNT, "Where to ask on."),
        MESSAGES,
        required("more", Kind::Flag, "Whether there are later ones."),
    ],
};
/// `refreshed`.
pub const REFRESHED: Record = Record {
    name: "RefreshedFrame",
    doc: "A fresh token was taken.",
    fields: &[
        ANSWERS,
        nullable("expires_at", Kind::Text(&TIME), "When it ends, if it does."),
        nullable("session", Kind::Text(&TICKET), "The ticket to come back with; keep the last."),
    ],
};
/// `token_expiring`.
pub const TOKEN_EXPIRING: Record = Record {
    name: "TokenExpiringFrame",
    doc: "The token ends soon; bring a fresh one.",
    fields: &[required("expires_at", Kind::Text(&TIME), "When it ends.")],
};
/// `ping`.
pub const PING: Record = Record {
    name: "PingFrame",
    doc: "Nothing was said for a while: answer `pong`, or anything else.",
    fields: &[],
};
/// `pong`.
pub const PONG: Record =
    Record { name: "PongFrame", doc: "Answers a client's `ping`.", fields: &[ANSWERS] };
/// `status`.
pub const STATUS: Record = Record {
    name: "StatusFrame",
    doc: "How the connection stands.",
    fields: &[
        ANSWERS,
        required("connection_id", Kind::Text(&CONNECTION), "The connection."),
        nullable("user_id", Kind::Text(&USER), "The user; null for an anonymous connection."),
        required("rooms", ROOMS, "The rooms that it is a member of."),
        required("connected_since", Kind::Text(&TIME), "Since when it is up."),
        required("queue_bytes", COUNT, "How many bytes wait to be sent to it."),
        required("request_id", Kind::AnyText, "What to quote to the operator."),
    ],
};
/// `error`.
pub const ERROR: Record = Record {
    name: "ErrorFrame",
    doc: "A command, or a text that was none, failed. The connection stays.",
    fields: &[
        nullable("id", COUNT, "The command's, where it could be read."),
        required("code", Kind::ErrorCode, "The row of the error table."),
        required("error", Kind::ErrorWord, "Its word."),
        required("message", Kind::AnyText, "What is wrong, for people; it may change."),
        nullable("field", Kind::AnyText, "The field at fault."),
        nullable("retry_after_ms", COUNT, "After how many milliseconds it may succeed."),
    ],
};
/// `disconnect`.
pub const DISCONNECT: Record = Record {
    name: "DisconnectFrame",
    doc: "The connection ends; the close frame carries the same code and reason.",
    fields: &[
        required("code", Kind::CloseCode, "The row of the table of close codes."),
        required("reason", Kind::CloseReason, "Its word."),
        required("reconnect", Kind::Flag, "Whether to come back."),
        nullable("reconnect_after_ms", COUNT, "After how many milliseconds."),
    ],
};
/// What a host's own handler answers.
pub const HOST: Record = Record {
    name: "HostFrame",
    doc: "What a handler of the server's host answers, under a type of its own.",
    fields: &[ANSWERS, required("data", Kind::Json { bytes_max: None }, "What it says.")],
};

const fn row(kind: &'static str, record: &'static Record) -> Frame {
    Frame { kind: Some(kind), record, answers: &[] }
}

/// Every form of every frame.
pub const FRAMES: &[Frame] = &[
    row("hello", &HELLO),
    row("subscribed", &SUBSCRIBED),
    row("subscribed", &PATTERN_SUBSCRIBED),
    row("page", &PAGE),
    row("gap", &GAP),
    row("ack", &ACK),
    row("message", &MESSAGE),
    row("message", &LATEST_MESSAGE),
    row("message", &DROPPABLE_MESSAGE),
    row("tombstone", &TOMBSTONE),
    row("unsubscribed", &UNSUBSCRIBED),
    row("unsubscribed", &PATTERN_UNSUBSCRIBED),
    row("presence", &PRESENCE),
    row("presence_event", &PRESENCE_EVENT),
    row("presence_events", &PRESENCE_EVENTS),
    row("presence_count", &PRESENCE_COUNT),
    row("presence_updated", &PRESENCE_UPDATED),
    row("history", &HISTORY),
    row("refreshed", &REFRESHED),
    row("token_expiring", &TOKEN_EXPIRING),
    row("ping", &PING),
    row("pong", &PONG),
    row("status", &STATUS),
    row("error", &ERROR),
    row("disconnect", &DISCONNECT),
    Frame { kind: None, record: &HOST, answers: &[] },
];
