//! The settings of the documents' endpoints.
//!
//! Only what they hold; what they mean is decided where the handlers are built.

use serde::Deserialize;

/// The endpoint `/ws`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lobby {
    /// Whether a connection gets back what it says itself.
    pub echo_to_sender: bool,
    /// Whether the log tells of each connection and message there.
    pub verbose_logging: bool,
    /// The roles whose bearers may send an announcement.
    pub announcer_roles: Vec<String>,
}

/// The endpoint `/ws/chat`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// Whether users may write to one user alone.
    pub private_messages: bool,
    /// The most messages that wait for one user.
    pub letters_per_user_max: u32,
    /// The most messages of one user that wait for one other.
    pub letters_per_pair_max: u32,
    /// The most messages of one user that wait for others.
    pub letters_per_sender_max: u32,
    /// The most messages that wait for all users together.
    pub letters_max: u32,
    /// After this long one is forgotten.
    pub letter_age_ms: u64,
    /// The roles whose bearers moderate every channel.
    pub moderator_roles: Vec<String>,
}

/// The endpoint `/ws/game`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Game {
    /// The roles whose bearers may send events.
    pub event_roles: Vec<String>,
}

/// What is asked for each message, on every endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Messages {
    /// Whether the log tells of each connection and message.
    pub log: bool,
    /// Whether messages are limited by the minute.
    pub rate_limit_enabled: bool,
    /// Messages of one connection in a minute; 0 limits them by type only.
    pub requests_per_minute: u32,
    /// The same for single types, as `TYPE=NUMBER`.
    pub requests_of_type_per_minute: Vec<String>,
}

/// A limit of one type of message, as `TYPE=NUMBER`.
#[must_use]
pub fn type_and_rate(text: &str) -> Option<(&str, u32)> {
    let (kind, rate) = text.rsplit_once('=')?;
    let is_plain = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    let rate = rate.parse().ok().filter(|rate| *rate <= 1_000_000)?;
    is_plain.then_some((kind, rate))
}

/// Signs of life on the endpoints of the channels.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    /// After this long with nothing heard the server pings.
    pub heartbeat_interval_ms: u64,
    /// How often the server looks for connections to close.
    pub cleanup_interval_ms: u64,
    /// After this long with nothing heard the server closes.
    pub connection_timeout_ms: u64,
}
