//! What a namespace, or a room of its own, may set, as values of their types.
//!
//! Nothing here has a default of its own: what is left out is as in what it stands in.

use serde::Deserialize;

/// Who may do a thing, as a word.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum AccessWord {
    /// Everyone.
    Anyone,
    /// Everyone with a valid token.
    Authenticated,
    /// Whom a token grants it.
    Granted,
    /// The user whom the room is named after.
    Owner,
}

/// The class of a publish, as a word.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum ClassWord {
    /// Every one, in order.
    Reliable,
    /// The newest by key.
    Latest,
    /// Of use only at once.
    Droppable,
}

/// What a namespace, or a room of its own, sets; the rest is as in what it stands in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Namespace {
    /// Who may subscribe.
    pub subscribe: Option<AccessWord>,
    /// Who may publish.
    pub publish: Option<AccessWord>,
    /// Who may list and follow the members.
    pub presence: Option<AccessWord>,
    /// Who may read the log.
    pub history: Option<AccessWord>,
    /// Whether members are listed at all.
    pub presence_listed: Option<bool>,
    /// With how many members they are told by their names.
    pub presence_named_max: Option<u32>,
    /// The most messages kept.
    pub history_messages_max: Option<u32>,
    /// The oldest age kept.
    pub history_age_max_ms: Option<u64>,
    /// The most bytes of data kept.
    pub history_bytes_max: Option<u64>,
    /// Whether acknowledgement waits for the disk.
    pub durable: Option<bool>,
    /// Whether acknowledgement waits for a replica of Redis.
    pub replicated: Option<bool>,
    /// The class of a publish that names none.
    pub class: Option<ClassWord>,
    /// The most members in one room.
    pub members_max: Option<u32>,
    /// Whether one may subscribe to many of these rooms by a pattern.
    pub patterns: Option<bool>,
}
