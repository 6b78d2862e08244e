//! The wire protocol: what bytes mean, and which bytes say it.
//!
//! Its field names are private to it; nothing outside may know them. It must never trust a text:
//! whatever comes in is a command, a rejection that can be answered, or the end of the text.
//!
//! Reading order: [`client_frame`] (what clients say), [`server_frame`] (what the server says),
//! [`server_event`] (the server's frames as a client reads them), [`client_event`] (what a client tells of
//! them), [`selective`] (tags and filters),
//! [`encode`] and [`json`] below. [`catalog`] says the same once more as data.

pub mod catalog;
pub mod client_event;
pub mod client_frame;
pub mod server_frame;

mod decode;
mod envelope;

pub mod encode;
pub mod json;
pub mod selective;
pub mod server_event;

pub use client_frame::{ClientFrame, Rejected, Resume, TokenText, encode_client};
pub use decode::{Frames, decode, decode_document, decode_plain};
pub use encode::{encode_message, push_json_string};
pub use json::compact_lines;
pub use server_event::{ServerEvent, decode_server};
pub use server_frame::{ResumeOutcome, Resumed, ServerFrame};

/// The version that `hello.accepted_version` names.
pub const VERSION: u64 = 2;

/// The `type`s that the protocol itself uses, in either direction; a host's own handlers can't
/// take them over.
pub const TYPES: [&str; 27] = [
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_update",
    "history",
    "refresh",
    "ping",
    "pong",
    "status",
    "hello",
    "subscribed",
    "page",
    "gap",
    "ack",
    "message",
    "tombstone",
    "unsubscribed",
    "presence_updated",
    "presence_count",
    "presence_event",
    "presence_events",
    "refreshed",
    "token_expiring",
    "error",
    "disconnect",
];

#[cfg(test)]
mod tests;
