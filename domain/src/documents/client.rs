//! `/ws/client`: a handshake with a version and a role, a heartbeat, `status`, `error`, and the host's
//! own types. It joins no rooms.
//!
//! A role is a label: it must never grant anything.

use crate::codes::CloseCode;
use crate::id::ClientId;
use crate::protocol::ServerFrame;
use crate::protocol::encode::{Line, push_json_string};
use crate::time::Wall;

/// The version that is spoken, and what `version` is when it is left out.
pub const VERSION: u64 = 1;
/// What this endpoint offers, in `hello.features`.
pub const FEATURES: [&str; 4] =
    ["heartbeat", "structured_messages", "error_codes", "graceful_reconnect"];

/// What a client calls itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Role {
    /// An application for users; what `role` is when it is left out.
    #[default]
    Frontend,
    /// A tool of operators.
    Admin,
    /// A test.
    Test,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Frontend, Self::Admin, Self::Test];

    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Frontend => "frontend",
            Self::Admin => "admin",
            Self::Test => "test",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// Reads the query of an upgrade. Version, role and id are looked at in this order, and each may come
/// once; what is not theirs is nobody's.
///
/// # Errors
/// The code to close with once the upgrade is done, since a browser sees nothing of one that fails: 4400,
/// 4401 or 1008.
pub fn read_query(query: &str) -> Result<(ClientId, Role), CloseCode> {
    let version =
        parameter(query, "version").map_err(|Twice| CloseCode::UnsupportedClientVersion)?;
    if version.is_some_and(|version| version != "1") {
        return Err(CloseCode::UnsupportedClientVersion);
    }
    let role = parameter(query, "role").map_err(|Twice| CloseCode::InvalidClientRole)?;
    let role = role.map_or(Some(Role::default()), Role::parse);
    let role = role.ok_or(CloseCode::InvalidClientRole)?;
    let id = parameter(query, "client_id").map_err(|Twice| CloseCode::PolicyViolation)?;
    let id = id.and_then(|id| ClientId::parse(id).ok()).ok_or(CloseCode::PolicyViolation)?;
    Ok((id, role))
}

struct Twice;

/// A parameter's value as it stands there: none of those that count needs an escape.
fn parameter<'a>(query: &'a str, name: &str) -> Result<Option<&'a str>, Twice> {
    let mut values = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter_map(|(key, value)| (key == name).then_some(value));
    let first = values.next();
    if values.next().is_some() { Err(Twice) } else { Ok(first) }
}

/// Encodes a frame as this endpoint says it; none for one that it does not say.
#[must_use]
pub fn encode(
    frame: &ServerFrame<'_>,
    (client, role): (&ClientId, Role),
    now: Wall,
    out: &mut Vec<u8>,
) -> bool {
    match frame {
        ServerFrame::Hello { request_id, heartbeat_interval_ms, .. } => {
            let mut line = Line::begin(out, "hello");
            line.seconds("server_time", now);
            line.number("accepted_version", VERSION);
            line.list("features", FEATURES, push_json_string);
            line.text("request_id", request_id);
            line.text("client_id", client.as_str());
            line.number("heartbeat_interval_ms", *heartbeat_interval_ms);
            // The document gives it no `timestamp`: it has `server_time`.
            line.close();
        }
        ServerFrame::Ping => Line::begin(out, "ping").end_with_seconds(now),
        ServerFrame::Pong { id } => {
            let mut line = Line::begin(out, "pong");
            push_id(&mut line, *id);
            line.end_with_seconds(now);
        }
        ServerFrame::Status { id, connected_since, request_id, .. } => {
            let mut line = Line::begin(out, "status");
            push_id(&mut line, *id);
            line.text("status", "connected");
            line.text("client_id", client.as_str());
            line.text("role", role.word());
            line.number("accepted_version", VERSION);
            line.seconds("connected_since", *connected_since);
            let uptime = now.since(*connected_since).as_millis();
            line.number("uptime_ms", u64::try_from(uptime).unwrap_or(u64::MAX));
            line.text("request_id", request_id);
            line.end_with_seconds(now);
        }
        ServerFrame::Error { id, code, message, field, retry_after_ms } => {
            let mut line = Line::begin(out, "error");
            push_id(&mut line, *id);
            line.number("code", u64::from(code.number()));
            line.text("error", code.word());
            line.text("message", message);
            line.text_or_null("field", *field);
            line.number_or_null("retry_after_ms", *retry_after_ms);
            line.end_with_seconds(now);
        }
        // The host's own types, as their handlers answer them.
        ServerFrame::Reply { .. } => frame.encode(now, out),
        // Of rooms, tokens and positions this endpoint knows nothing; why it ends stands in the
        // close frame.
        _ => return false,
    }
    true
}

/// An answer carries the `id` of what it answers, if that had one.
fn push_id(line: &mut Line<'_>, id: Option<u64>) {
    if let Some(id) = id {
        line.number("id", id);
    }
}

#[cfg(test)]
mod tests;
