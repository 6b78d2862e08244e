//! What is inside of fields: texts with rules, and objects.
//!
//! A pattern here repeats what a parser elsewhere checks; a test asks both about every character.

use crate::delivery::Class;
use crate::id::{ClientId, MessageId, MessageKey, UserId};
use crate::message::TombstoneReason;
use crate::policy::AckLevel;
use crate::presence::PresenceChange;
use crate::protocol::catalog::{COUNT, Field, Kind, Record, Text, Union};
use crate::protocol::catalog::{nullable, omitted, optional, required};
use crate::protocol::client_frame::{EPOCH_BYTES_MAX, SESSION_BYTES_MAX};
use crate::recovery::GapReason;
use crate::room::RoomId;
use crate::time::Wall;
use crate::trace::TraceParent;

/// What 64 bits look like.
const HEX: &str = "^[0-9a-f]{16}$";
/// ASCII that shows, without spaces.
const PRINTABLE: &str = "^[!-~]+$";
const HEX_BYTES: usize = 16;

/// A room's name.
pub const ROOM: Text = Text {
    name: "RoomName",
    doc: "A room's name: a namespace, a colon and the rest, without two dots side by side.",
    bytes_max: Some(RoomId::BYTES_MAX),
    pattern: Some("^[a-z][a-z0-9_-]{0,31}:(?!.*\\.\\.)[A-Za-z0-9:._~/@+=-]+$"),
    example: "public:lobby",
};
/// Many rooms.
pub const PATTERN: Text = Text {
    name: "RoomPattern",
    doc: "The beginning of a room's name with its namespace, and a final `*`.",
    bytes_max: Some(RoomId::BYTES_MAX),
    pattern: Some("^[a-z][a-z0-9_-]{0,31}:(?!.*\\.\\.)[A-Za-z0-9:._~/@+=-]*[*]$"),
    example: "game:zone/*",
};
/// One life of a log, as the server says it.
pub const EPOCH: Text = Text {
    name: "Epoch",
    doc: "One life of a room's log. Offsets of two epochs have nothing to do with each other.",
    bytes_max: Some(HEX_BYTES),
    pattern: Some(HEX),
    example: "4e5de2e0af0d01c5",
};
/// One life of a log, as a client may say it.
pub const ANY_EPOCH: Text = Text {
    name: "AnyEpoch",
    doc: "The epoch of a position. One that is not of this server's kind is that of a lost log.",
    bytes_max: Some(EPOCH_BYTES_MAX),
    pattern: None,
    example: "4e5de2e0af0d01c5",
};
/// An instant.
pub const TIME: Text = Text {
    name: "Timestamp",
    doc: "An instant in UTC with milliseconds, in ISO 8601.",
    bytes_max: Some(Wall::ISO8601_BYTES),
    pattern: Some("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z$"),
    example: "2026-11-21T10:56:23.608Z",
};
/// A user.
pub const USER: Text = Text {
    name: "UserId",
    doc: "A user, as the token's `sub` says. In presence also `anonymous:<connection id>`.",
    bytes_max: Some(UserId::BYTES_MAX),
    pattern: Some(PRINTABLE),
    example: "ada",
};
/// A client's label.
pub const CLIENT: Text = Text {
    name: "ClientId",
    doc: "The client's own label. Not unique, not secret, grants nothing.",
    bytes_max: Some(ClientId::BYTES_MAX),
    pattern: Some("^[A-Za-z0-9._~-]+$"),
    example: "tab-1",
};
/// A connection.
pub const CONNECTION: Text = Text {
    name: "ConnectionId",
    doc: "One connection. It is public: knowing it grants nothing.",
    bytes_max: Some(HEX_BYTES),
    pattern: Some(HEX),
    example: "d8b908e647fa52cf",
};
/// A client's name for a publish.
pub const MESSAGE_ID: Text = Text {
    name: "MessageId",
    doc: "The client's own name for one publish, for sending it again without repeating it.",
    bytes_max: Some(MessageId::BYTES_MAX),
    pattern: Some(PRINTABLE),
    example: "m-1",
};
/// What a `latest` message replaces.
pub const KEY: Text = Text {
    name: "MessageKey",
    doc: "Says which earlier `latest` message a new one replaces.",
    bytes_max: Some(MessageKey::BYTES_MAX),
    pattern: Some(PRINTABLE),
    example: "cursor",
};
/// A trace.
pub const TRACEPARENT: Text = Text {
    name: "TraceParent",
    doc: "A trace and a span in it, in the form of the W3C's version 00.",
    bytes_max: Some(TraceParent::BYTES),
    pattern: Some("^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$"),
    example: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
};
/// A ticket.
pub const TICKET: Text = Text {
    name: "Ticket",
    doc: "A ticket to come back with. Opaque, and a secret like the token.",
    bytes_max: Some(SESSION_BYTES_MAX),
    pattern: None,
    example: "AcLsGXQAAAGb",
};

/// Every class.
pub const CLASS: Kind =
    Kind::Word(&[Class::Reliable.word(), Class::Latest.word(), Class::Droppable.word()]);
/// The class of a message that replaces another.
pub const CLASS_LATEST: Kind = Kind::Word(&[Class::Latest.word()]);
/// The class of a message that is of use only at once.
pub const CLASS_DROPPABLE: Kind = Kind::Word(&[Class::Droppable.word()]);
/// The classes without a key.
pub const CLASS_WITHOUT_KEY: Kind = Kind::Word(&[Class::Reliable.word(), Class::Droppable.word()]);
/// Why messages will not come.
pub const GAP_REASON: Kind = Kind::Word(&[
    GapReason::Retention.word(),
    GapReason::EpochChanged.word(),
    GapReason::UnknownPosition.word(),
    GapReason::Overflow.word(),
]);
/// Why a message is gone.
pub const TOMBSTONE_REASON: Kind =
    Kind::Word(&[TombstoneReason::Expired.word(), TombstoneReason::Deleted.word()]);
/// How safe a message is.
pub const LEVEL: Kind =
    Kind::Word(&[AckLevel::Accepted.word(), AckLevel::Replicated.word(), AckLevel::Durable.word()]);
/// What happened to a member.
pub const PRESENCE_CHANGE: Kind = Kind::Word(&[
    PresenceChange::Join.word(),
    PresenceChange::Leave.word(),
    PresenceChange::Update.word(),
]);

/// A position, as a client says it.
pub const POSITION: Record = Record {
    name: "Position",
    doc: "Up to where a client has everything.",
    fields: &[
        required("epoch", Kind::Text(&ANY_EPOCH), "The life of the log."),
        required("offset", COUNT, "The place of the last message; 0 stands before the first."),
    ],
};
/// An entry of `connect.resume`.
pub const RESUME: Record = Record {
    name: "ResumeRoom",
    doc: "A room to be in again. All rooms of one list are different.",
    fields: &[
        required("room", Kind::Text(&ROOM), "Which room."),
        required("epoch", Kind::Text(&ANY_EPOCH), "The life of the log."),
        required("offset", COUNT, "The place of the last message; 0 stands before the first."),
        optional("presence", Kind::Flag, "Whether to follow who comes and goes; else false."),
        optional("filter", Kind::Condition, "Which messages to get; without it all of them."),
    ],
};
/// Who sent a message.
pub const SENDER: Record = Record {
    name: "Sender",
    doc: "Who sent a message.",
    fields: &[
        nullable(
            "user_id",
            Kind::Text(&USER),
            "The user; null for an anonymous connection and for the server API.",
        ),
        nullable(
            "connection_id",
            Kind::Text(&CONNECTION),
            "The connection; null for the server API.",
        ),
    ],
};
/// A listed member.
pub const MEMBER: Record = Record {
    name: "Member",
    doc: "A user who is in a room, over all connections.",
    fields: &[
        required("user_id", Kind::Text(&USER), "Who."),
        required("data", Kind::Json { bytes_max: None }, "What `presence_update` has set."),
        required("connections", COUNT, "Over how many connections."),
    ],
};
/// A member who changed.
pub const CHANGED: Record = Record {
    name: "ChangedMember",
    doc: "What became of one member over some changes.",
    fields: &[
        required(
            "event",
            PRESENCE_CHANGE,
            "What happened last; a `leave` may be of somebody who was not listed.",
        ),
        required("user_id", Kind::Text(&USER), "To whom."),
        required("data", Kind::Json { bytes_max: None }, "What others see of the user."),
    ],
};
/// The gap of an entry of `hello.resumed`.
pub const RESUMED_GAP: Record = Record {
    name: "ResumedGap",
    doc: "Messages that will not come, of the entry's epoch.",
    fields: &[GAP_FROM, GAP_TO, GAP_WHY],
};
/// The first that will not come.
pub const GAP_FROM: Field = required("from", COUNT, "The first offset that will not come.");
/// The last that will not come.
pub const GAP_TO: Field = required(
    "to",
    COUNT,
    "The last one; `from - 1` where an epoch began anew and nothing is lost.",
);
/// Why they will not come.
pub const GAP_WHY: Field = required("reason", GAP_REASON, "Why.");

/// A room that the client is in again.
pub const RESUMED: Record = Record {
    name: "ResumedRoom",
    doc: "A room that the client is in again.",
    fields: &[
        required("room", Kind::Text(&ROOM), "Which room."),
        required("epoch", Kind::Text(&EPOCH), "The life of the log."),
        required("offset", COUNT, "Where the client stands after `messages`."),
        required("recovered", Kind::Flag, "Whether `messages` begin where the client stopped."),
        nullable("gap", Kind::Record(&RESUMED_GAP), "What will not come, before `messages`."),
        required("messages", ENTRIES, "What was missed, oldest first."),
        required("more", Kind::Flag, "Whether `page` frames follow."),
    ],
};
/// A room that the client is not in again.
pub const NOT_RESUMED: Record = Record {
    name: "NotResumedRoom",
    doc: "A room that the client is not in again. The connection stays.",
    fields: &[
        required("room", Kind::Text(&ROOM), "Which room."),
        required("error", Kind::Record(&RESUME_ERROR), "Why not."),
    ],
};
/// Why a room is not resumed.
pub const RESUME_ERROR: Record = Record {
    name: "ResumeError",
    doc: "Why a room was not resumed.",
    fields: &[
        required("code", Kind::ErrorCode, "The row of the error table."),
        required("error", Kind::ErrorWord, "Its word."),
        required("message", Kind::AnyText, "What is wrong, for people; it may change."),
        nullable("retry_after_ms", COUNT, "After how many milliseconds to try again."),
    ],
};
/// An entry of `hello.resumed`.
pub const RESUME_OUTCOME: Union = Union {
    name: "ResumeOutcome",
    doc: "What became of one room that `connect` named in `resume`.",
    of: &[&RESUMED, &NOT_RESUMED],
};
/// What stands in a log, and what `messages` hold.
pub const LOG_ENTRY: Union = Union {
    name: "LogEntry",
    doc: "What lists of messages hold: whole frames.",
    of: &[
        &super::frames::MESSAGE,
        &super::frames::LATEST_MESSAGE,
        &super::frames::DROPPABLE_MESSAGE,
        &super::frames::TOMBSTONE,
    ],
};
/// Messages of a log.
pub const ENTRIES: Kind = Kind::List { of: &Kind::OneOf(&LOG_ENTRY), max: None };

/// The tags of a message that has some.
pub const MESSAGE_TAGS: Field = omitted("tags", Kind::Tags, "Its tags, if it has some.");
/// The trace of a message that has one.
pub const MESSAGE_TRACE: Field = omitted(
    "traceparent",
    Kind::Text(&TRACEPARENT),
    "The trace that it belongs to, if it has one.",
);
