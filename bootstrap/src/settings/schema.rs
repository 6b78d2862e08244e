//! The list of all settings: their keys, their types and what each allows.
//!
//! It is the only place that knows a range. It must never read a file or the environment, and what
//! it says about a value never holds the value.

use application::client_address::Network;
use domain::documents::told::Endpoint;
use domain::id::Role;
use domain::matches::ConnectionsMax;
use domain::principal::RoomPattern;
use domain::room::{RoomId, is_namespace};
use domain::scope::Scope;
use tracing_subscriber::EnvFilter;

use super::documents::type_and_rate;

pub use super::kind::{Kind, Raw, Typed};

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name with its section; `*` stands for a name that the operator chooses.
    pub path: &'static str,
    /// What it may hold.
    pub kind: Kind,
}

const ACCESS: Kind = Kind::Word(&["anyone", "authenticated", "granted", "owner"]);
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const GIB: u64 = 1 << 30;
const PATH: Kind = Kind::Text("a path without control characters", is_plain);
const NAME: Kind = Kind::Text("a text without control characters", is_plain);

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind }
}

/// All settings, in the order of `defaults.toml`.
pub const KEYS: &[Key] = &[
    key("profile", Kind::Word(&["development", "production", "testing"])),
    key("server.listen", Kind::Text("ADDRESS:PORT, like 127.0.0.1:8000", is_listen)),
    key(
        "server.internal_listen",
        Kind::Text("ADDRESS:PORT, like 127.0.0.1:9000", is_listen_or_none),
    ),
    key("server.workers", Kind::Number(0, 1_024)),
    key("server.connections_max", Kind::Number(1, 10_000_000)),
    key("server.memory_bytes_max", Kind::Number(0, 1 << 50)),
    key("server.handshake_timeout_ms", Kind::Number(1, HOUR_MS)),
    key("server.message_timeout_ms", Kind::Number(1, HOUR_MS)),
    key("server.lag_timeout_ms", Kind::Number(1, HOUR_MS)),
    key("server.close_timeout_ms", Kind::Number(1, HOUR_MS)),
    key("server.drain_window_ms", Kind::Number(0, HOUR_MS)),
    key("server.drain_mode", Kind::Word(&["auto", "early", "paced"])),
    key("server.allowed_origins", Kind::List("scheme://host, scheme://host:port or *", is_origin)),
    key("server.require_origin", Kind::Flag),
    key("server.echo_endpoint", Kind::Flag),
    key("server.client_endpoint", Kind::Flag),
    key("server.endpoints", Kind::List("lobby, game, chat, combat, world or match", is_endpoint)),
    key("server.data_dir", PATH),
    key("server.behind_proxy", Kind::Flag),
    key(
        "server.trusted_proxies",
        Kind::List("an address or a network, like 10.0.0.0/8", is_network),
    ),
    key("server.proxy_header", Kind::Word(&["x-forwarded-for", "forwarded"])),
    key("server.tls.cert_file", PATH),
    key("server.tls.key_file", PATH),
    key("server.tls.min_version", Kind::Word(&["1.2", "1.3"])),
    key("limits.message_bytes_max", Kind::Number(1, GIB / 4)),
    key("limits.fragments_max", Kind::Number(1, 1 << 20)),
    key("limits.rooms_per_connection_max", Kind::Number(1, 65_536)),
    key("limits.outbound_queue_bytes_max", Kind::Number(1, GIB)),
    key("limits.inbox_commands_max", Kind::Number(1, 65_536)),
    key("limits.inbox_bytes_max", Kind::Number(1, GIB)),
    key("limits.held_bytes_max", Kind::Number(1, GIB)),
    key("limits.history_page", Kind::Number(1, 100_000)),
    key("limits.history_page_max", Kind::Number(1, 1_000)),
    key("limits.presence_list_max", Kind::Number(1, 1_000_000)),
    key("limits.connections_per_user_max", Kind::Number(1, 10_000_000)),
    key("limits.connections_per_address_max", Kind::Number(0, 10_000_000)),
    key("limits.short_connections_per_address_per_minute", Kind::Number(0, 1_000_000)),
    key("limits.commands_per_second", Kind::Number(0, 1_000_000)),
    key("limits.commands_burst", Kind::Number(1, 1_000_000)),
    key("limits.presence_updates_per_second", Kind::Number(0, 1_000_000)),
    key("limits.presence_updates_burst", Kind::Number(1, 1_000_000)),
    key("limits.bad_tokens_per_address_per_minute", Kind::Number(0, 1_000_000)),
    key("limits.commands_of_user_per_second", Kind::Number(0, 1_000_000)),
    key("limits.commands_of_user_burst", Kind::Number(1, 1_000_000)),
    key("limits.unparsable_per_minute_max", Kind::Number(1, 1_000_000)),
    key("limits.metadata_bytes_max", Kind::Number(1, 4_096)),
    key("limits.filters_per_room_max", Kind::Number(0, 255)),
    key("limits.patterns_per_connection_max", Kind::Number(0, 64)),
    key("limits.patterns_max", Kind::Number(0, 4_096)),
    key("heartbeat.interval_ms", Kind::Number(100, HOUR_MS)),
    key("heartbeat.timeout_ms", Kind::Number(0, HOUR_MS)),
    key("heartbeat.idle_timeout_ms", Kind::Number(0, DAY_MS)),
    key("channels.heartbeat_interval_ms", Kind::Number(1_000, HOUR_MS)),
    key("channels.cleanup_interval_ms", Kind::Number(1_000, HOUR_MS)),
    key("channels.connection_timeout_ms", Kind::Number(1_000, HOUR_MS)),
    key("messages.log", Kind::Flag),
    key("messages.rate_limit_enabled", Kind::Flag),
    key("messages.requests_per_minute", Kind::Number(0, 1_000_000)),
    key(
        "messages.requests_of_type_per_minute",
        Kind::List("TYPE=NUMBER, like typing=120", is_type_and_rate),
    ),
    key("lobby.echo_to_sender", Kind::Flag),
    key("lobby.verbose_logging", Kind::Flag),
    key("lobby.announcer_roles", Kind::List("a role of A-Z a-z 0-9 _ - . : /", is_role)),
    key("chat.private_messages", Kind::Flag),
    key("chat.letters_per_user_max", Kind::Number(1, 1_000_000)),
    key("chat.letters_per_pair_max", Kind::Number(1, 1_000_000)),
    key("chat.letters_per_sender_max", Kind::Number(1, 1_000_000)),
    key("chat.letters_max", Kind::Number(1, 100_000_000)),
    key("chat.letter_age_ms", Kind::Number(1, 3_650 * DAY_MS)),
    key("chat.moderator_roles", Kind::List("a role of A-Z a-z 0-9 _ - . : /", is_role)),
    key("game.event_roles", Kind::List("a role of A-Z a-z 0-9 _ - . : /", is_role)),
    key("auth.authentication_timeout_ms", Kind::Number(1, HOUR_MS)),
    key("auth.hmac_secret", Kind::Secret),
    key("auth.hmac_secret_file", PATH),
    key("auth.keys_file", PATH),
    key("auth.algorithms", Kind::List("HS256, HS384 or HS512", is_hmac_algorithm)),
    key("auth.jwks_url", Kind::Text("an https:// address, or http:// on this machine", is_plain)),
    key(
        "auth.jwks_algorithms",
        Kind::List(
            "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 or EdDSA",
            is_public_key_algorithm,
        ),
    ),
    key("auth.jwks_max_age_ms", Kind::Number(1_000, 7 * DAY_MS)),
    key("auth.issuer", NAME),
    key("auth.audience", NAME),
    key("auth.ticket_secret", Kind::Secret),
    key("auth.ticket_secret_file", PATH),
    key("auth.ticket_lifetime_ms", Kind::Number(0, 7 * DAY_MS)),
    key("auth.leeway_ms", Kind::Number(0, 60_000)),
    key("auth.expiry_notice_ms", Kind::Number(0, DAY_MS)),
    key("auth.allow_anonymous", Kind::Flag),
    key("auth.join_user_room", Kind::Flag),
    key("auth.single_session", Kind::Word(&["off", "newest_wins"])),
    key("auth.token_cache_max", Kind::Number(0, 1_000_000)),
    key("auth.token_cache_age_ms", Kind::Number(1, HOUR_MS)),
    key("auth.revocation_age_ms", Kind::Number(60_000, 3_650 * DAY_MS)),
    key("api.publish_bytes_max", Kind::Number(1, GIB / 4)),
    key("api.batch_bytes_max", Kind::Number(1, GIB / 4)),
    key("api.operations_per_second", Kind::Number(0, 1_000_000)),
    key("api.operations_burst", Kind::Number(1, 1_000_000)),
    key("api.keys.*.key", Kind::Secret),
    key("api.keys.*.key_file", PATH),
    key(
        "api.keys.*.scopes",
        Kind::List(
            "publish, presence, history, rooms, connections, disconnect, revoke or matches",
            is_scope,
        ),
    ),
    key("api.keys.*.rooms", Kind::List("a room, or a pattern like chat:guild/*", is_room_pattern)),
    key("matches.matches_max", Kind::Number(1, 100_000)),
    key("matches.retention_ms", Kind::Number(1_000, 365 * DAY_MS)),
    key("matches.connections_per_match_max", Kind::Number(1, ConnectionsMax::MAX as u64)),
    key("history.messages_max", Kind::Number(0, 1_000_000)),
    key("history.age_max_ms", Kind::Number(1, 365 * DAY_MS)),
    key("history.bytes_max", Kind::Number(1, GIB)),
    key("namespaces.*.subscribe", ACCESS),
    key("namespaces.*.publish", ACCESS),
    key("namespaces.*.presence", ACCESS),
    key("namespaces.*.history", ACCESS),
    key("namespaces.*.presence_listed", Kind::Flag),
    key("namespaces.*.presence_named_max", Kind::Number(0, 1_000_000)),
    key("namespaces.*.history_messages_max", Kind::Number(0, 1_000_000)),
    key("namespaces.*.history_age_max_ms", Kind::Number(1, 365 * DAY_MS)),
    key("namespaces.*.history_bytes_max", Kind::Number(1, GIB)),
    key("namespaces.*.durable", Kind::Flag),
    key("namespaces.*.replicated", Kind::Flag),
    key("namespaces.*.class", Kind::Word(&["reliable", "latest", "droppable"])),
    key("namespaces.*.members_max", Kind::Number(1, 10_000_000)),
    key("namespaces.*.patterns", Kind::Flag),
    key(
        "log.filter",
        Kind::Text("a level or levels by part, like info,gateway_axum=debug", is_filter),
    ),
    key("log.format", Kind::Word(&["text", "json"])),
    key("log.security_file", PATH),
    key("traces.endpoint", Kind::Text("http://HOST:PORT/PATH", is_collector)),
    key("traces.sampled_per_million", Kind::Number(0, 1_000_000)),
    key("redis.url", Kind::Secret),
    key("redis.password", Kind::Secret),
    key("redis.password_file", PATH),
    key("redis.required", Kind::Flag),
    key("redis.ca_file", PATH),
    key("redis.sentinel_username", NAME),
    key("redis.sentinel_password", Kind::Secret),
    key("redis.sentinel_password_file", PATH),
    key("redis.replicas", Kind::Number(1, 16)),
    key("redis.replication_timeout_ms", Kind::Number(10, 60_000)),
    key("redis.prefix", Kind::Text("1 to 32 of a-z, A-Z, 0-9, _ - and .", is_prefix)),
    key("redis.answer_timeout_ms", Kind::Number(100, 60_000)),
    key("redis.lease_ms", Kind::Number(1_000, 60_000)),
    key("redis.leave_grace_ms", Kind::Number(0, 60_000)),
    key("store.url", Kind::Secret),
    key("store.password", Kind::Secret),
    key("store.password_file", PATH),
    key(
        "store.schema",
        Kind::Text("1 to 40 of a-z, 0-9 and _, a letter first", super::store::is_schema),
    ),
    key("store.connections_max", Kind::Number(3, 100)),
    key("store.answer_timeout_ms", Kind::Number(100, 60_000)),
];

fn is_prefix(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=32).contains(&text.len()) && text.bytes().all(is_plain)
}

/// The setting with this key, in the words of the list; `rooms` has the settings of `namespaces`.
#[must_use]
pub fn find(path: &[String]) -> Option<&'static Key> {
    KEYS.iter().find(|key| fits(key.path, path, true))
}

/// Whether this names a section that some setting stands in.
#[must_use]
pub fn is_section(path: &[String]) -> bool {
    KEYS.iter().any(|key| fits(key.path, path, false))
}

/// What is wrong with the name that the operator chose in this key, if anything.
#[must_use]
pub fn name_fault(path: &[String]) -> Option<String> {
    let segments: Vec<&str> = path.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["namespaces", name, ..] if !is_namespace(name) => Some(
            "the namespace must be 1 to 32 of a-z, 0-9, _ or -, starting with a letter".to_owned(),
        ),
        ["rooms", name, ..] => RoomId::parse(name).err().map(|fault| format!("the room {fault}")),
        ["api", "keys", name, ..] if !is_namespace(name) => Some(
            "the key's name must be 1 to 32 of a-z, 0-9, _ or -, starting with a letter".to_owned(),
        ),
        _ => None,
    }
}

/// The known key that looks most like this one, if any looks like it.
#[must_use]
pub fn nearest(path: &[String]) -> Option<String> {
    let given = path.join(".");
    let last = path.last().map_or("", String::as_str);
    let candidates = KEYS.iter().map(|key| written_like(key.path, path));
    // The right name in the wrong section is nearer than any misspelling.
    let elsewhere = KEYS.iter().find(|key| key.path.ends_with(&format!(".{last}")));
    let (distance, nearest) =
        candidates.map(|name| (edit_distance(&given, &name), name)).min_by_key(|(d, _)| *d)?;
    if distance <= (given.len() / 4).max(2)
        && (elsewhere.is_none() || nearest.ends_with(&format!(".{last}")))
    {
        return Some(nearest);
    }
    elsewhere.map(|key| key.path.replace('*', "NAME"))
}

/// A key of the list with the names that a given key has in the places of `*`.
fn written_like(pattern: &str, path: &[String]) -> String {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let rooms = path.first().is_some_and(|first| first == "rooms");
    let segments = pattern.iter().enumerate().map(|(i, segment)| match *segment {
        "*" => path.get(i).map_or("NAME", String::as_str),
        "namespaces" if rooms => "rooms",
        segment => segment,
    });
    segments.collect::<Vec<_>>().join(".")
}

fn fits(pattern: &str, path: &[String], whole: bool) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    if pattern.len() < path.len() || (whole && pattern.len() != path.len()) {
        return false;
    }
    if !whole && pattern.len() == path.len() {
        return false;
    }
    pattern.iter().zip(path).enumerate().all(|(i, (wanted, given))| {
        *wanted == "*" || wanted == given || (i == 0 && *wanted == "namespaces" && given == "rooms")
    })
}

fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    // A key longer than this is no misspelling; the bound keeps the work small.
    for (i, a) in left.chars().take(256).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let cost = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

fn is_plain(text: &str) -> bool {
    text.len() <= 4_096 && !text.chars().any(char::is_control)
}

fn is_scope(text: &str) -> bool {
    Scope::parse(text).is_some()
}

fn is_endpoint(text: &str) -> bool {
    endpoint(text).is_some()
}

/// The endpoint that a word of `server.endpoints` names.
#[must_use]
pub fn endpoint(word: &str) -> Option<Endpoint> {
    let all = [
        Endpoint::Lobby,
        Endpoint::Game,
        Endpoint::Chat,
        Endpoint::Combat,
        Endpoint::World,
        Endpoint::Match,
    ];
    all.into_iter().find(|endpoint| endpoint.word() == word)
}

fn is_type_and_rate(text: &str) -> bool {
    type_and_rate(text).is_some()
}

fn is_role(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'/');
    Role::parse(text).is_ok() && text.bytes().all(plain)
}

fn is_room_pattern(text: &str) -> bool {
    RoomPattern::parse(text).is_ok()
}

fn is_collector(text: &str) -> bool {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    text.is_empty()
        || (visible && text.strip_prefix("http://").is_some_and(|rest| !rest.is_empty()))
}

fn is_network(text: &str) -> bool {
    Network::parse(text).is_ok()
}

fn is_listen_or_none(text: &str) -> bool {
    text.is_empty() || is_listen(text)
}

fn is_listen(text: &str) -> bool {
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return true;
    }
    let host_ok = |host: &str| {
        !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
            // Four numbers that are no address are a mistyped address, not a host.
            && host.bytes().any(|b| b.is_ascii_alphabetic())
    };
    text.split_once(':').is_some_and(|(host, port)| host_ok(host) && port.parse::<u16>().is_ok())
}

fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let (host, port) = match rest.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or("?"))),
            None => return false,
        },
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let host_ok = if rest.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        !host.is_empty()
            && host.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_')
            })
    };
    scheme_ok && host_ok && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|n| n > 0))
}

fn is_hmac_algorithm(text: &str) -> bool {
    matches!(text, "HS256" | "HS384" | "HS512")
}

fn is_public_key_algorithm(text: &str) -> bool {
    let known =
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];
    known.contains(&text)
}

fn is_filter(text: &str) -> bool {
    // `EnvFilter` takes any word for the name of a part, so a mistyped level would silence all.
    let known = |directive: &str| {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        matches!(level.trim(), "error" | "warn" | "info" | "debug" | "trace" | "off")
    };
    text.split(',').all(known) && EnvFilter::try_new(text).is_ok()
}
