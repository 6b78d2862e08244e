//! What became of the rooms that `connect` named, as a client reads it.
//!
//! It must never fail on a field that a later server adds.

use std::borrow::Cow;

use serde::Deserialize;

use super::{LogEntry, entries, epoch, room};
use crate::id::Epoch;
use crate::room::RoomId;

/// What became of one room that `connect` named in `resume`.
#[derive(Clone, Debug, PartialEq)]
pub enum EventResumed<'a> {
    /// The client is a member again.
    Back(EventBack<'a>),
    /// It is not.
    Refused(EventNotBack<'a>),
}

/// A room that the client is in again.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[allow(missing_docs, reason = "docs/protocol.md has the fields")]
pub struct EventBack<'a> {
    #[serde(deserialize_with = "room")]
    pub room: RoomId,
    #[serde(deserialize_with = "epoch")]
    pub epoch: Epoch,
    pub offset: u64,
    pub recovered: bool,
    #[serde(borrow)]
    pub gap: Option<EventGap<'a>>,
    #[serde(borrow, deserialize_with = "entries")]
    pub messages: Vec<LogEntry<'a>>,
    pub more: bool,
}

/// The gap before the messages of a room that the client is in again; of the room's epoch.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[allow(missing_docs, reason = "docs/protocol.md has the fields")]
pub struct EventGap<'a> {
    pub from: u64,
    pub to: u64,
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

/// A room that the client is not in again.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[allow(missing_docs, reason = "docs/protocol.md has the fields")]
pub struct EventNotBack<'a> {
    #[serde(deserialize_with = "room")]
    pub room: RoomId,
    #[serde(borrow)]
    pub error: EventResumeError<'a>,
}

/// Why not.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[allow(missing_docs, reason = "docs/protocol.md has the fields")]
pub struct EventResumeError<'a> {
    pub code: u16,
    #[serde(borrow)]
    pub error: Cow<'a, str>,
    #[serde(borrow)]
    pub message: Cow<'a, str>,
    pub retry_after_ms: Option<u64>,
}
