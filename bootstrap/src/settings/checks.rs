//! What single values cannot show: settings that do not go together, and what production refuses.
//!
//! A check only finds; it never changes a setting.

use domain::room::RoomId;
use secrecy::ExposeSecret;

use super::effective::Effective;
use super::error::Problem;
use super::namespaces::AccessWord;
use super::tree::{Profile, Settings};
use super::{secrets, store, tickets, tokens};

/// The shortest key of the HTTP interface, in characters.
pub const API_KEY_CHARS_MIN: usize = 32;

/// What may wait for all connections of a node together, shared evenly by its workers.
pub const OUTBOUND_TOTAL_BYTES_MAX: usize = 256 << 20;

/// Everything that is wrong with these settings as a whole.
#[must_use]
pub fn find(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    let mut problems = contradictions(settings, effective);
    problems.extend(durable_without_disk(settings, effective));
    problems.extend(replicated_without_redis(settings, effective));
    problems.extend(store::check(&settings.store, effective));
    problems.extend(rooms_without_namespace(settings));
    problems.extend(api_keys(settings, effective));
    problems.extend(one_session_in_a_cluster(settings, effective));
    problems.extend(secret_bytes(settings, effective));
    problems.extend(tickets::check(settings, effective));
    // A verifier names only the first thing that it cannot use, so it comes last.
    if problems.is_empty() {
        problems.extend(tokens::check(settings, effective));
    }
    if settings.profile == Profile::Production {
        problems.extend(unsafe_tokens(settings, effective));
        problems.extend(unsafe_server(settings, effective));
        problems.extend(open_to_nobody_in_particular(settings, effective));
    }
    problems
}

fn contradictions(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    let (limits, auth) = (&settings.limits, &settings.auth);
    let mut problems = silences(settings, effective);
    problems.extend(queue_over_budget(settings, effective));
    problems.extend(little_memory(settings, effective));
    let mut must_not_exceed = |smaller: &str, larger: &str, holds: bool| {
        if !holds {
            let reason = format!("must not be larger than {}", effective.mention(larger));
            problems.push(effective.problem(smaller, &reason));
        }
    };
    must_not_exceed(
        "limits.history_page",
        "limits.history_page_max",
        limits.history_page <= limits.history_page_max,
    );
    // In testing the messages are larger than what may wait, to see what then happens.
    if settings.profile != Profile::Testing {
        must_not_exceed(
            "limits.message_bytes_max",
            "limits.outbound_queue_bytes_max",
            limits.message_bytes_max <= limits.outbound_queue_bytes_max,
        );
        must_not_exceed(
            "limits.message_bytes_max",
            "limits.inbox_bytes_max",
            limits.message_bytes_max <= limits.inbox_bytes_max,
        );
        must_not_exceed(
            "api.publish_bytes_max",
            "limits.outbound_queue_bytes_max",
            settings.api.publish_bytes_max <= limits.outbound_queue_bytes_max,
        );
    }
    must_not_exceed(
        "limits.metadata_bytes_max",
        "limits.message_bytes_max",
        limits.metadata_bytes_max <= limits.message_bytes_max,
    );
    if auth.jwks_algorithms.is_empty() {
        let reason = "must name at least one, like RS256";
        problems.push(effective.problem("auth.jwks_algorithms", reason));
    }
    if auth.algorithms.is_empty() {
        let reason = "must name at least one of HS256, HS384, HS512";
        problems.push(effective.problem("auth.algorithms", reason));
    }
    problems
}

/// A room and the number under which a user's newest connection acts lie in two slots, and no script of a Cluster
/// compares both in one step.
fn one_session_in_a_cluster(settings: &Settings, effective: &Effective) -> Option<Problem> {
    let url = settings.redis.url.as_ref()?.expose_secret();
    let (scheme, _) = url.split_once("://")?;
    let is_asked_for = settings.auth.single_session != "off";
    (is_asked_for && scheme.contains("cluster")).then(|| {
        let reason = "can't be had over a Redis Cluster, where a user's number and a room lie in two places: use one \
                      server, or Sentinel, or \"off\"";
        effective.problem("auth.single_session", reason)
    })
}

/// The shortest time that a client may be given to answer a ping, in milliseconds; an interval that
/// is shorter than that gives itself.
const ANSWER_MS_MIN: u64 = 1_000;

fn silences(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    let (heartbeat, channels) = (&settings.heartbeat, &settings.channels);
    let mut problems = Vec::new();
    let mut must_leave_time = |key: &str, interval_key: &str, interval_ms: u64, silence_ms: u64| {
        let answer_ms = interval_ms.min(ANSWER_MS_MIN);
        if silence_ms < interval_ms.saturating_add(answer_ms) {
            let other = effective.mention(interval_key);
            let reason =
                format!("must be {answer_ms} ms or more above {other}, so that a ping is answered");
            problems.push(effective.problem(key, &reason));
        }
    };
    must_leave_time(
        "heartbeat.timeout_ms",
        "heartbeat.interval_ms",
        heartbeat.interval_ms,
        heartbeat.silence_max_ms(),
    );
    must_leave_time(
        "channels.connection_timeout_ms",
        "channels.heartbeat_interval_ms",
        channels.heartbeat_interval_ms,
        channels.connection_timeout_ms,
    );
    problems
}

fn queue_over_budget(settings: &Settings, effective: &Effective) -> Option<Problem> {
    let reason = format!(
        "must not be larger than {OUTBOUND_TOTAL_BYTES_MAX}, what may wait for all connections \
         together"
    );
    (settings.limits.outbound_queue_bytes_max > OUTBOUND_TOTAL_BYTES_MAX)
        .then(|| effective.problem("limits.outbound_queue_bytes_max", &reason))
}

/// The least memory that may be set: with less nobody could come in.
const MEMORY_BYTES_MIN: u64 = 8 << 20;

fn little_memory(settings: &Settings, effective: &Effective) -> Option<Problem> {
    let reason = format!("must be 0, or {MEMORY_BYTES_MIN} or more, or nobody could come in");
    (1..MEMORY_BYTES_MIN)
        .contains(&settings.server.memory_bytes_max)
        .then(|| effective.problem("server.memory_bytes_max", &reason))
}

fn durable_without_disk(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    if settings.server.data_dir.is_some() || settings.store.url.is_some() {
        return Vec::new();
    }
    let durable = |section: &'static str, name: &String| {
        let key = super::layer::written(&[section.to_owned(), name.clone(), "durable".to_owned()]);
        let reason = format!(
            "needs a data directory or store.url, but {}",
            effective.mention("server.data_dir")
        );
        effective.problem(&key, &reason)
    };
    let of = |section: &'static str, namespaces: &std::collections::BTreeMap<String, _>| {
        let on =
            namespaces.iter().filter(|(_, n): &(_, &super::Namespace)| n.durable == Some(true));
        on.map(|(name, _)| durable(section, name)).collect::<Vec<_>>()
    };
    let mut problems = of("namespaces", &settings.namespaces);
    problems.extend(of("rooms", &settings.rooms));
    problems
}

fn replicated_without_redis(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    if settings.redis.url.is_some() {
        return Vec::new();
    }
    let sections = [("namespaces", &settings.namespaces), ("rooms", &settings.rooms)];
    let on = sections.into_iter().flat_map(|(section, all)| {
        let on = all.iter().filter(|(_, one)| one.replicated == Some(true));
        on.map(move |(name, _)| [section.to_owned(), name.clone(), "replicated".to_owned()])
    });
    let reason = format!("needs Redis, but {}", effective.mention("redis.url"));
    on.map(|key| effective.problem(&super::layer::written(&key), &reason)).collect()
}

fn rooms_without_namespace(settings: &Settings) -> Vec<Problem> {
    let lost = settings.rooms.keys().filter(|name| {
        RoomId::parse(name).is_ok_and(|id| !settings.namespaces.contains_key(id.namespace()))
    });
    lost.map(|name| {
        let key = super::layer::written(&["rooms".to_owned(), name.clone()]);
        Problem::about(key, "its namespace is not one of namespaces".to_owned())
    })
    .collect()
}

fn api_keys(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (name, api_key) in &settings.api.keys {
        let key = format!("api.keys.{name}.key");
        let Some(text) = api_key.key.as_ref().map(ExposeSecret::expose_secret) else {
            let reason = format!("is not set; set it or {key}_file");
            problems.push(effective.problem(&key, &reason));
            continue;
        };
        let usable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() < API_KEY_CHARS_MIN || !usable {
            let reason = format!("must be {API_KEY_CHARS_MIN} or more visible ASCII characters");
            problems.push(effective.problem(&key, &reason));
        } else if let Some(fault) = secrets::weakness(text) {
            problems.push(effective.problem(&key, fault));
        }
        if let Some((other, _)) = seen.iter().find(|(_, known)| *known == text) {
            let reason = format!("is the same as api.keys.{other}.key");
            problems.push(effective.problem(&key, &reason));
        }
        seen.push((name, text));
    }
    problems.extend(scopes_beyond_rooms(settings, effective));
    problems
}

/// A key that is limited to rooms must not end or revoke people, who are in rooms of any name.
fn scopes_beyond_rooms(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, api_key) in settings.api.keys.iter().filter(|(_, key)| !key.rooms.is_empty()) {
        for scope in api_key.scopes().into_iter().filter(|scope| !scope.is_about_rooms()) {
            let rooms = effective.mention(&format!("api.keys.{name}.rooms"));
            let reason = format!("{} can't be limited to rooms, but {rooms}", scope.word());
            problems.push(effective.problem(&format!("api.keys.{name}.scopes"), &reason));
        }
    }
    problems
}

fn secret_bytes(settings: &Settings, effective: &Effective) -> Option<Problem> {
    let auth = &settings.auth;
    let secret = auth.hmac_secret.as_ref()?.expose_secret();
    let bytes_min = auth.algorithms.iter().map(|a| secrets::bytes_min(a)).max()?;
    let reason = format!(
        "must be at least {bytes_min} bytes for {}, and random, like from openssl rand -hex \
         {bytes_min}",
        auth.algorithms.join(", ")
    );
    (secret.len() < bytes_min).then(|| effective.problem("auth.hmac_secret", &reason))
}

fn unsafe_tokens(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    let auth = &settings.auth;
    let mut problems = Vec::new();
    let has_key = auth.hmac_secret.is_some() || auth.keys_file.is_some() || auth.jwks_url.is_some();
    if !has_key && !auth.allow_anonymous {
        let reason = "nobody could connect: production needs a token key in auth.hmac_secret_file, \
                      auth.keys_file or auth.jwks_url, or auth.allow_anonymous = true";
        problems.push(effective.problem("auth.hmac_secret", reason));
    }
    let weakness = auth.hmac_secret.as_ref().and_then(|s| secrets::weakness(s.expose_secret()));
    if let Some(fault) = weakness {
        problems.push(effective.problem("auth.hmac_secret", fault));
    }
    for (key, missing) in
        [("auth.issuer", auth.issuer.is_none()), ("auth.audience", auth.audience.is_none())]
    {
        if has_key && missing {
            let reason = "must be set in production, so that tokens made for something else are \
                          refused";
            problems.push(effective.problem(key, reason));
        }
    }
    problems
}

fn unsafe_server(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    let server = &settings.server;
    let mut problems = Vec::new();
    if server.allowed_origins.iter().any(|origin| origin == "*") {
        let reason = "\"*\" is refused in production; name the origins of your pages";
        problems.push(effective.problem("server.allowed_origins", reason));
    }
    if server.echo_endpoint {
        let reason = "the echo endpoint is refused in production";
        problems.push(effective.problem("server.echo_endpoint", reason));
    }
    if !server.listens_on_loopback() && !server.behind_proxy && server.tls.files().is_none() {
        let reason = "in production tokens must not cross a network in the clear: set \
                      server.tls.cert_file and server.tls.key_file, or listen on loopback, or put \
                      a proxy that ends TLS in front and set server.behind_proxy = true";
        problems.push(effective.problem("server.listen", reason));
    }
    problems
}

/// Whoever finds the address could fill such a room, and nobody could be told from anybody else.
fn open_to_nobody_in_particular(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    if !settings.auth.allow_anonymous {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (section, policies) in [("namespaces", &settings.namespaces), ("rooms", &settings.rooms)] {
        for (name, policy) in policies {
            if policy.publish != Some(AccessWord::Anyone) {
                continue;
            }
            let path = [section.to_owned(), name.clone(), "publish".to_owned()];
            let reason = format!(
                "in production nobody may publish without a token: let authenticated users \
                 publish, or change {}",
                effective.mention("auth.allow_anonymous")
            );
            problems.push(effective.problem(&super::layer::written(&path), &reason));
        }
    }
    problems
}
