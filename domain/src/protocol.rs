//! The wire protocol: what bytes mean, and which bytes say it.
//!
//! Its serialised types are private to it; nothing outside may know field names.

use crate::message::Publication;

/// Encodes one message.
#[must_use]
pub fn encode_message(publication: &Publication) -> Vec<u8> {
    publication.data.to_vec()
}

/// The `type`s that belong to the protocol.
pub const COMMAND_TYPES: [&str; 0] = [];
