//! The commands: every form of every frame that a client may say.
//!
//! The decoder refuses a field that no row of its `type` has, so a field that it should take is
//! added here first. A command whose fields go together in different ways has a row for each way.

use crate::protocol::catalog::shapes::{
    CLASS_LATEST, CLASS_WITHOUT_KEY, KEY, MESSAGE_ID, PATTERN, POSITION, RESUME, ROOM, TICKET,
    TRACEPARENT,
};
use crate::protocol::catalog::{COUNT, Field, Frame, Kind, Record, optional, required};
use crate::protocol::client_frame::{
    HISTORY_LIMIT_MAX, METADATA_BYTES_MAX, RESUME_ROOMS_MAX, TTL_MS_MAX,
};

/// What every command may have besides its own fields.
pub const COMMON: &[Field] = &[
    optional("id", COUNT, "Chosen by the client; the answer carries it. Without it, no answer."),
    optional("timestamp", Kind::AnyText, "Ignored: the server believes its own clock only."),
];

const ROOM_FIELD: Field = required("room", Kind::Text(&ROOM), "Which room.");
const PATTERN_FIELD: Field = required("pattern", Kind::Text(&PATTERN), "Which rooms.");

/// A field that only another form of the same command has.
const fn no(name: &'static str) -> Field {
    optional(name, Kind::Null, "Not in this form of the command.")
}

/// `connect`.
pub const CONNECT: Record = Record {
    name: "ConnectCommand",
    doc: "Says who the client is, and which rooms to be in again. Once, before anything else.",
    fields: &[
        optional("token", Kind::AnyText, "The token; without it and a ticket, nobody."),
        optional("session", Kind::Text(&TICKET), "The ticket of an earlier `hello`."),
        optional(
            "resume",
            Kind::List { of: &Kind::Record(&RESUME), max: Some(RESUME_ROOMS_MAX) },
            "The rooms to be in again, all different.",
        ),
    ],
};
/// `subscribe` to one room.
pub const SUBSCRIBE: Record = Record {
    name: "SubscribeCommand",
    doc: "Joins a room.",
    fields: &[
        ROOM_FIELD,
        optional("since", Kind::Record(&POSITION), "Up to where the client has everything."),
        optional("presence", Kind::Flag, "Whether to follow who comes and goes; else false."),
        optional("filter", Kind::Condition, "Which messages to get; without it all of them."),
        no("pattern"),
    ],
};
/// `subscribe` to a pattern.
pub const SUBSCRIBE_PATTERN: Record = Record {
    name: "SubscribePatternCommand",
    doc: "Follows all rooms of a pattern, from now on and without their logs.",
    fields: &[PATTERN_FIELD, no("room"), no("since"), no("presence"), no("filter")],
};
/// `unsubscribe` from one room.
pub const UNSUBSCRIBE: Record = Record {
    name: "UnsubscribeCommand",
    doc: "Leaves a room.",
    fields: &[ROOM_FIELD, no("pattern")],
};
/// `unsubscribe` from a pattern.
pub const UNSUBSCRIBE_PATTERN: Record = Record {
    name: "UnsubscribePatternCommand",
    doc: "Follows a pattern no longer.",
    fields: &[PATTERN_FIELD, no("room")],
};

const DATA: Field = required("data", Kind::Json { bytes_max: None }, "The message.");
const MSG_ID: Field = optional(
    "msg_id",
    Kind::Text(&MESSAGE_ID),
    "The client's own name for it, for sending it again without repeating it.",
);
const ECHO: Field = optional(
    "echo",
    Kind::Flag,
    "Whether the publisher, as a member, gets the message itself; else true.",
);
const TTL: Field = optional(
    "ttl_ms",
    Kind::Number { min: 1, max: TTL_MS_MAX },
    "After how many milliseconds it is delivered as a tombstone.",
);
const TAGS: Field = optional("tags", Kind::Tags, "By what members may choose it.");
const TRACE: Field =
    optional("traceparent", Kind::Text(&TRACEPARENT), "The trace that it belongs to.");

/// `publish` without a key.
pub const PUBLISH: Record = Record {
    name: "PublishCommand",
    doc: "Sends a message to a room.",
    fields: &[
        ROOM_FIELD,
        DATA,
        MSG_ID,
        ECHO,
        optional("class", CLASS_WITHOUT_KEY, "How it is delivered; else the namespace's."),
        no("key"),
        TTL,
        TAGS,
        TRACE,
    ],
};
/// `publish` with a key.
pub const PUBLISH_LATEST: Record = Record {
    name: "PublishLatestCommand",
    doc: "Sends a message to a room that takes the place of the one before with the same key.",
    fields: &[
        ROOM_FIELD,
        DATA,
        MSG_ID,
        ECHO,
        optional("class", CLASS_LATEST, "May be left out where it is the namespace's."),
        required("key", Kind::Text(&KEY), "Which earlier message it replaces."),
        TTL,
        TAGS,
        TRACE,
    ],
};
/// `presence`.
pub const PRESENCE: Record =
    Record { name: "PresenceCommand", doc: "Asks who is in a room.", fields: &[ROOM_FIELD] };
/// `presence_update`.
pub const PRESENCE_UPDATE: Record = Record {
    name: "PresenceUpdateCommand",
    doc: "Changes what others see of this user in a room.",
    fields: &[
        ROOM_FIELD,
        required(
            "data",
            Kind::Json { bytes_max: Some(METADATA_BYTES_MAX) },
            "What they see; `null` for nothing.",
        ),
    ],
};
/// `history`.
pub const HISTORY: Record = Record {
    name: "HistoryCommand",
    doc: "Asks for earlier messages, without joining.",
    fields: &[
        ROOM_FIELD,
        optional("since", Kind::Record(&POSITION), "From where on; else from the oldest kept."),
        optional(
            "limit",
            Kind::Number { min: 1, max: HISTORY_LIMIT_MAX as u64 },
            "How many at most; else 100.",
        ),
    ],
};
/// `refresh`.
pub const REFRESH: Record = Record {
    name: "RefreshCommand",
    doc: "Brings a fresh token before the old one ends.",
    fields: &[required("token", Kind::AnyText, "The fresh token.")],
};
/// `ping`.
pub const PING: Record =
    Record { name: "PingCommand", doc: "Asks for a `pong`; answered at any time.", fields: &[] };
/// `pong`.
pub const PONG: Record =
    Record { name: "PongCommand", doc: "Answers the server's `ping`.", fields: &[] };
/// `status`.
pub const STATUS: Record =
    Record { name: "StatusCommand", doc: "Asks how the connection stands.", fields: &[] };

const fn row(
    kind: &'static str,
    record: &'static Record,
    answers: &'static [&'static str],
) -> Frame {
    Frame { kind: Some(kind), record, answers }
}

/// Every form of every command. A host's own types may have any fields and are not listed.
pub const COMMANDS: &[Frame] = &[
    row("connect", &CONNECT, &["HelloFrame"]),
    row("subscribe", &SUBSCRIBE, &["SubscribedFrame"]),
    row("subscribe", &SUBSCRIBE_PATTERN, &["PatternSubscribedFrame"]),
    row("unsubscribe", &UNSUBSCRIBE, &["UnsubscribedFrame"]),
    row("unsubscribe", &UNSUBSCRIBE_PATTERN, &["PatternUnsubscribedFrame"]),
    row("publish", &PUBLISH, &["AckFrame"]),
    row("publish", &PUBLISH_LATEST, &["AckFrame"]),
    row("presence", &PRESENCE, &["PresenceFrame"]),
    row("presence_update", &PRESENCE_UPDATE, &["PresenceUpdatedFrame"]),
    row("history", &HISTORY, &["HistoryFrame"]),
    row("refresh", &REFRESH, &["RefreshedFrame"]),
    row("ping", &PING, &["PongFrame"]),
    row("pong", &PONG, &[]),
    row("status", &STATUS, &["StatusFrame"]),
];
