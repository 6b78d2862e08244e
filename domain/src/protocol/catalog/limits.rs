//! The limits that are part of the protocol: no setting changes them.
//!
//! What a server can be told to do otherwise must not stand here; `docs/protocol.md` has that.

use crate::filter::Filter;
use crate::id::{ClientId, MessageId, MessageKey, UserId};
use crate::position::Offset;
use crate::protocol::client_frame::{
    HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, METADATA_BYTES_MAX, RESUME_ROOMS_MAX,
    SESSION_BYTES_MAX, TTL_MS_MAX,
};
use crate::protocol::envelope::KEYS_MAX;
use crate::protocol::json::DEPTH_MAX;
use crate::protocol::selective::FILTER_BYTES_MAX;
use crate::room::RoomId;
use crate::tags::Tags;

/// One limit.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Its name, with its unit at the end.
    pub name: &'static str,
    /// How much.
    pub value: u64,
    /// Of what.
    pub doc: &'static str,
}

const fn limit(name: &'static str, value: u64, doc: &'static str) -> Limit {
    Limit { name, value, doc }
}

/// Every limit that no setting changes.
pub const LIMITS: &[Limit] = &[
    limit("frame_keys", KEYS_MAX as u64, "Keys of one frame."),
    limit("frame_levels", DEPTH_MAX as u64, "Levels of one frame."),
    limit("integer", Offset::MAX.get(), "The largest whole number: an id, an offset."),
    limit("room_bytes", RoomId::BYTES_MAX as u64, "Bytes of a room's name, and of a pattern."),
    limit("namespace_bytes", RoomId::NAMESPACE_BYTES_MAX as u64, "Bytes of a room's namespace."),
    limit("client_id_bytes", ClientId::BYTES_MAX as u64, "Bytes of `client_id`."),
    limit("user_id_bytes", UserId::BYTES_MAX as u64, "Bytes of a user's id."),
    limit("session_bytes", SESSION_BYTES_MAX as u64, "Bytes of a ticket."),
    limit("resume_rooms", RESUME_ROOMS_MAX as u64, "Rooms in `resume`."),
    limit("msg_id_bytes", MessageId::BYTES_MAX as u64, "Bytes of `msg_id`."),
    limit("key_bytes", MessageKey::BYTES_MAX as u64, "Bytes of `key`."),
    limit("ttl_ms", TTL_MS_MAX, "Milliseconds in `ttl_ms`."),
    limit("tags", Tags::COUNT_MAX as u64, "Tags of one message."),
    limit("tag_bytes", Tags::BYTES_MAX as u64, "Bytes of a tag's name, and of its value."),
    limit("filter_bytes", FILTER_BYTES_MAX as u64, "Bytes of JSON of a filter."),
    limit("filter_levels", Filter::DEPTH_MAX as u64, "Levels of a filter."),
    limit("filter_conditions", Filter::CONDITIONS_MAX as u64, "Conditions of a filter."),
    limit("filter_values", Filter::VALUES_MAX as u64, "Values of a filter."),
    limit("presence_data_bytes", METADATA_BYTES_MAX as u64, "Bytes of JSON in `presence_update`."),
    limit("history_messages", HISTORY_LIMIT_MAX as u64, "Messages that one `history` may ask for."),
    limit("history_messages_default", HISTORY_LIMIT_DEFAULT as u64, "How many it asks for else."),
];
