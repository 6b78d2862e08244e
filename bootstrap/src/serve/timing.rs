//! The intervals of connections, as the settings say them.
//!
//! It must never decide anything: what is not set is said by the built-in values.

use std::time::Duration;

use domain::connection::Timing;

use crate::settings::Settings;

/// The intervals of a connection's life: of most, and of those to the channels of the documents.
pub(super) fn timings(settings: &Settings) -> (Timing, Timing) {
    let auth = &settings.auth;
    let timing = Timing {
        authentication_timeout: Duration::from_millis(auth.authentication_timeout_ms),
        heartbeat_interval: Duration::from_millis(settings.heartbeat.interval_ms),
        heartbeat_timeout: Duration::from_millis(settings.heartbeat.silence_max_ms()),
        idle_timeout: match settings.heartbeat.idle_timeout_ms {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        },
        expiry_notice: Duration::from_millis(auth.expiry_notice_ms),
        expiry_leeway: Duration::from_millis(auth.leeway_ms),
    };
    let channels = &settings.channels;
    let channel_timing = Timing {
        heartbeat_interval: Duration::from_millis(channels.heartbeat_interval_ms),
        heartbeat_timeout: Duration::from_millis(channels.connection_timeout_ms),
        ..timing
    };
    (timing, channel_timing)
}
