//! Who may ask what, and how fast: the key, its scope, its rooms, its rate, and a body of the right
//! kind and size.
//!
//! Everything that the head of a request can decide is decided before any of its body is read.

use std::time::Duration;

use application::refusal::Refusal;
use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use domain::codes::ErrorCode;
use domain::room::RoomId;
use domain::scope::Scope;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sha2::{Digest, Sha256};

use super::{ApiKey, Route};
use crate::answer::HttpRefusal;
use crate::gateway::Config;
use crate::notice;
use crate::shared::Shared;
use crate::upgrade::client_of;

/// The key of a request that may be carried out now.
pub(super) fn admit<'a>(
    shared: &Shared,
    config: &'a Config,
    route: &Route,
    parts: &Parts,
) -> Result<&'a ApiKey, HttpRefusal> {
    let what = route.deed.word();
    let key = known_key(&config.api_keys, &parts.headers)
        .inspect_err(|_| notice::key_refused(shared, what, client_of(config, parts)))?;
    let services = shared.node.services();
    services.metrics.edge.api_requests.add(1);
    if let Some(scope) = route.scope
        && !key.rights.has(scope)
    {
        notice::not_allowed(shared, &key.name, what, scope.word());
        return Err(lacks_scope(key, scope));
    }
    let now = services.ports.clock.now().monotonic;
    key.take(config.api_rate, now).map_err(too_fast)?;
    Ok(key)
}

/// The key that a request names, if it is one of these.
pub(crate) fn known_key<'a>(
    keys: &'a [ApiKey],
    headers: &HeaderMap,
) -> Result<&'a ApiKey, HttpRefusal> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let secret = value
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, secret)| secret.trim());
    let digest: Option<[u8; 32]> = secret.map(|secret| Sha256::digest(secret.as_bytes()).into());
    // Digests of unknown secrets tell nothing about known ones, so comparing them may stop early.
    let known = digest.and_then(|digest| keys.iter().find(|key| key.digest == digest));
    known.ok_or_else(|| {
        let message = "an API key is needed: Authorization: Bearer KEY, with a key of api.keys";
        HttpRefusal::new(StatusCode::UNAUTHORIZED, ErrorCode::InvalidToken, message)
            .header(header::WWW_AUTHENTICATE, "Bearer")
    })
}

fn lacks_scope(key: &ApiKey, scope: Scope) -> HttpRefusal {
    let (word, name) = (scope.word(), &key.name);
    let message = format!("this key lacks the scope {word}: add it to api.keys.{name}.scopes");
    let refusal = Refusal::new(ErrorCode::PermissionDenied, message);
    HttpRefusal::from(refusal).header(header::WWW_AUTHENTICATE, challenge(scope))
}

/// RFC 6750 section 3.1.
const fn challenge(scope: Scope) -> &'static str {
    match scope {
        Scope::Publish => r#"Bearer error="insufficient_scope", scope="publish""#,
        Scope::Presence => r#"Bearer error="insufficient_scope", scope="presence""#,
        Scope::History => r#"Bearer error="insufficient_scope", scope="history""#,
        Scope::Rooms => r#"Bearer error="insufficient_scope", scope="rooms""#,
        Scope::Connections => r#"Bearer error="insufficient_scope", scope="connections""#,
        Scope::Disconnect => r#"Bearer error="insufficient_scope", scope="disconnect""#,
        Scope::Revoke => r#"Bearer error="insufficient_scope", scope="revoke""#,
        Scope::Matches => r#"Bearer error="insufficient_scope", scope="matches""#,
    }
}

fn too_fast(wait: Duration) -> HttpRefusal {
    let message = "this key is used too fast; see api.operations_per_second";
    Refusal::new(ErrorCode::RateLimited, message).retry_after(wait).into()
}

/// Whether a key's scopes count in a room.
pub(super) fn check_room(
    shared: &Shared,
    key: &ApiKey,
    route: &Route,
    room: &RoomId,
) -> Result<(), Refusal> {
    if key.rights.reaches(room) {
        return Ok(());
    }
    notice::not_allowed(shared, &key.name, route.deed.word(), "rooms of the key");
    Err(outside(key))
}

/// Whether a key's scopes count in all rooms that begin so.
pub(super) fn check_prefix(
    shared: &Shared,
    key: &ApiKey,
    route: &Route,
    prefix: &str,
) -> Result<(), Refusal> {
    if key.rights.reaches_all(prefix) {
        return Ok(());
    }
    notice::not_allowed(shared, &key.name, route.deed.word(), "rooms of the key");
    Err(outside(key).field("prefix"))
}

/// Whether a key counts everywhere.
pub(super) fn check_unlimited(shared: &Shared, key: &ApiKey, route: &Route) -> Result<(), Refusal> {
    if !key.rights.is_limited() {
        return Ok(());
    }
    notice::not_allowed(shared, &key.name, route.deed.word(), "rooms of the key");
    Err(outside(key))
}

fn outside(key: &ApiKey) -> Refusal {
    let message = format!("this key is limited to the rooms of api.keys.{}.rooms", key.name);
    Refusal::new(ErrorCode::PermissionDenied, message).field("room")
}

/// A body is JSON, and says so if it says anything: what a browser can send without asking first
/// says something else.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), HttpRefusal> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(()) };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    if kind.trim().eq_ignore_ascii_case("application/json") && values.next().is_none() {
        return Ok(());
    }
    let message = "the body must be JSON: Content-Type: application/json";
    Err(HttpRefusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadRequest, message))
}

/// The whole body, of at most so many bytes, within the time that a head may take, too.
pub(super) async fn take_body(
    config: &Config,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Bytes, HttpRefusal> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length
        .and_then(|text| text.parse().ok())
        .is_some_and(|length: u64| length > bytes_max as u64)
    {
        return Err(too_large(bytes_max));
    }
    let whole = Limited::new(body, bytes_max).collect();
    let whole = tokio::time::timeout(config.handshake_timeout, whole).await.map_err(|_| {
        let message = "the body took too long";
        HttpRefusal::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, message)
    })?;
    whole.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            return too_large(bytes_max);
        }
        Refusal::new(ErrorCode::BadRequest, "the body can't be read").into()
    })
}

fn too_large(bytes_max: usize) -> HttpRefusal {
    let message = format!("the body is larger than {bytes_max} bytes");
    Refusal::new(ErrorCode::TooLarge, message).into()
}
