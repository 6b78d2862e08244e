//! What a reload (SIGHUP) changes in a server that runs, setting by setting.
//!
//! It only says what counts; how it reaches connections is the server's. Two things must agree
//! here, and a test compares them: [`of`] and [`combined`].

use super::effective::Effective;
use super::tree::{Api, Auth, Log, Server, Settings};

/// For whom a changed setting counts after a reload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reload {
    /// For everyone, at once.
    Everyone,
    /// For connections and requests that come from then on.
    Newcomers,
    /// For nobody until the next start.
    NextStart,
}

impl Reload {
    /// As the documentation says it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Everyone => "at once",
            Self::Newcomers => "newcomers",
            Self::NextStart => "next start",
        }
    }
}

/// What counts for newcomers: who is connected was let in under what counted then.
const NEWCOMERS: [&str; 22] = [
    "messages.rate_limit_enabled",
    "server.allowed_origins",
    "server.require_origin",
    "server.handshake_timeout_ms",
    "server.trusted_proxies",
    "server.proxy_header",
    "limits.connections_per_user_max",
    "limits.connections_per_address_max",
    "limits.short_connections_per_address_per_minute",
    "auth.authentication_timeout_ms",
    "auth.hmac_secret",
    "auth.hmac_secret_file",
    "auth.keys_file",
    "auth.algorithms",
    "auth.issuer",
    "auth.audience",
    "auth.allow_anonymous",
    "auth.join_user_room",
    "auth.single_session",
    "auth.token_cache_max",
    "auth.token_cache_age_ms",
    "api.keys.",
];

/// What counts for everyone.
const EVERYONE: [&str; 8] = [
    "messages.",
    "limits.",
    "auth.leeway_ms",
    "auth.expiry_notice_ms",
    "log.filter",
    "lobby.",
    "chat.",
    "game.",
];

/// What a reload does with the setting of this key.
#[must_use]
pub fn of(key: &str) -> Reload {
    let is_in = |names: &[&str]| {
        names.iter().any(
            |name| {
                if name.ends_with('.') { key.starts_with(name) } else { key == *name }
            },
        )
    };
    if is_in(&NEWCOMERS) {
        Reload::Newcomers
    } else if is_in(&EVERYONE) {
        Reload::Everyone
    } else {
        Reload::NextStart
    }
}

/// What counts after a reload: of `loaded` what a reload may change, the rest of `running`.
#[must_use]
pub fn combined(running: &Settings, loaded: &Settings) -> Settings {
    let (running, loaded) = (running.clone(), loaded.clone());
    Settings {
        server: Server {
            allowed_origins: loaded.server.allowed_origins,
            require_origin: loaded.server.require_origin,
            handshake_timeout_ms: loaded.server.handshake_timeout_ms,
            trusted_proxies: loaded.server.trusted_proxies,
            proxy_header: loaded.server.proxy_header,
            ..running.server
        },
        limits: loaded.limits,
        // Who has a ticket has it from the secret that was there when it was sealed; published keys
        // are fetched by a task that goes on, and a revocation has its end already.
        auth: Auth {
            ticket_secret: running.auth.ticket_secret,
            ticket_secret_file: running.auth.ticket_secret_file,
            ticket_lifetime_ms: running.auth.ticket_lifetime_ms,
            jwks_url: running.auth.jwks_url,
            jwks_algorithms: running.auth.jwks_algorithms,
            jwks_max_age_ms: running.auth.jwks_max_age_ms,
            revocation_age_ms: running.auth.revocation_age_ms,
            ..loaded.auth
        },
        api: Api { keys: loaded.api.keys, ..running.api },
        messages: loaded.messages,
        lobby: loaded.lobby,
        chat: loaded.chat,
        game: loaded.game,
        log: Log { filter: loaded.log.filter, ..running.log },
        ..running
    }
}

/// The keys whose values differ, in order. The values of secrets are not known here.
#[must_use]
pub fn changed(before: &Effective, after: &Effective) -> Vec<String> {
    let value = |effective: &Effective, key: &str| {
        effective.get(key).map(|shown| shown.value.clone()).unwrap_or_default()
    };
    let mut keys: Vec<&str> = before.iter().chain(after.iter()).map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| value(before, key) != value(after, key));
    keys.into_iter().map(str::to_owned).collect()
}
