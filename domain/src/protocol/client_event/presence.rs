//! Who is in a room, as a client tells its application.
//!
//! It must never leave it open whether names are known: where they are not there is a number.

use serde::Serialize;

use super::as_json;
use crate::room::RoomId;

/// Somebody came, went or changed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PresenceChange {
    /// Which room.
    #[serde(serialize_with = "as_json::room")]
    pub room: RoomId,
    /// Counts the changes of the room. Changes that came together have the number of the last of them.
    pub seq: u64,
    /// `join`, `leave` or `update`.
    pub event: String,
    /// Who.
    pub user_id: String,
    /// What others see of that member, JSON.
    #[serde(serialize_with = "as_json::raw")]
    pub data: String,
    /// How many there are afterwards.
    pub total: u64,
    /// When, in ISO 8601.
    pub timestamp: String,
}

/// Who is in a room.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PresenceState {
    /// Which room.
    #[serde(serialize_with = "as_json::room")]
    pub room: RoomId,
    /// The change that the list includes last.
    pub seq: u64,
    /// How many there are, listed or not.
    pub total: u64,
    /// The members.
    pub members: Vec<Member>,
}

/// One listed member.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Member {
    /// Who.
    pub user_id: String,
    /// What others see of that member, JSON.
    #[serde(serialize_with = "as_json::raw")]
    pub data: String,
    /// Over how many connections.
    pub connections: u64,
}

/// How many are in a room whose members are not told by their names at the moment.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PresenceCount {
    /// Which room.
    #[serde(serialize_with = "as_json::room")]
    pub room: RoomId,
    /// The last change that is counted.
    pub seq: u64,
    /// How many there are.
    pub total: u64,
}
