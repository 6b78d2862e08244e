//! The security log: what somebody who guards the server wants to know, under names that stay.
//!
//! Each event is one `tracing` event of the target [`TARGET`] with the field `event`. It must never carry a
//! token, a key or anything of a payload, and no client can make it grow without end: beyond a
//! rate events are only counted. What holders of an API key order is never left out.

use domain::rate_limit::{Rate, RateLimiter};
use domain::time::Monotonic;

use crate::metrics::Row;

/// The target of all its events.
pub const TARGET: &str = "security";

crate::metrics::rows! {
    /// What happened. The names are listed in `docs/observability.md`.
    SecurityEvent {
        /// A socket or an upgrade was turned away: limits, origin.
        ConnectionRefused = "connection_refused",
        /// A token was not accepted, or none came where one is needed.
        AuthenticationFailed = "authentication_failed",
        /// A connection may not do what it asked for.
        PermissionDenied = "permission_denied",
        /// A connection lost a room it was in: by a fresh token, or as a host's authorizer says.
        RightsLost = "rights_lost",
        /// The holder of an API key took something back.
        RevocationOrdered = "revocation_ordered",
        /// Connections were ended on somebody's order: revoked, replaced.
        Revoked = "revoked",
        /// The holder of an API key ended connections.
        DisconnectOrdered = "disconnect_ordered",
        /// A moderator muted, kicked, banned or deleted, or took such a thing back.
        Moderation = "moderation",
        /// A request of the server API without a known key.
        ApiKeyRefused = "api_key_refused",
        /// A request whose API key lacks the scope, or is limited to other rooms.
        ApiNotAllowed = "api_not_allowed",
        /// A connection sent too much that can't be read and was closed.
        MalformedMessages = "malformed_messages",
        /// A connection went on too fast after being told, and was closed.
        RateLimited = "rate_limited",
        /// A connection did not read and was closed.
        SlowConsumer = "slow_consumer",
    }
}

/// Decides which events are written. One per shard and one for what has no shard.
#[derive(Debug)]
pub struct SecurityLog {
    kinds: Box<[Kind]>,
}

#[derive(Clone, Debug, Default)]
struct Kind {
    limiter: RateLimiter,
    left_out: u64,
}

impl Default for SecurityLog {
    fn default() -> Self {
        Self { kinds: vec![Kind::default(); SecurityEvent::ROWS.len()].into() }
    }
}

impl SecurityLog {
    /// How fast events of one kind are written, per shard; above it they are only counted.
    pub const RATE: Rate = Rate::new(10, 100);

    /// Whether an event may be written; then with the number of its kind that were left out since
    /// the last one. Each kind has its own rate, so that a flood of one hides no other.
    pub fn admit(&mut self, event: SecurityEvent, now: Monotonic) -> Option<u64> {
        let kind = self.kinds.get_mut(event.place())?;
        if kind.limiter.take(Self::RATE, now).is_err() {
            kind.left_out += 1;
            return None;
        }
        Some(std::mem::take(&mut kind.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_cut_and_counted_and_hides_no_other() {
        let mut log = SecurityLog::default();
        let now = Monotonic::START;
        let admitted = (0..1_000).filter_map(|_| log.admit(SecurityEvent::PermissionDenied, now));
        assert_eq!(admitted.collect::<Vec<_>>(), vec![0; 100]);
        assert_eq!(log.admit(SecurityEvent::Revoked, now), Some(0));
        let later = Monotonic::from_millis(1_000);
        assert_eq!(log.admit(SecurityEvent::PermissionDenied, later), Some(900));
        assert_eq!(log.admit(SecurityEvent::PermissionDenied, later), Some(0));
    }
}
