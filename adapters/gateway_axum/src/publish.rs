//! `POST /api/v1/publish`: one message to one room, from a backend that holds an API key.
//!
//! The published bytes are passed on as they are; a key's secret is compared by its digest and
//! without a shortcut. It must never read the body of a caller that it does not know.

use std::sync::Arc;
use std::time::Duration;

use application::node::ApiPublish;
use application::ports::{PublishError, Receipt};
use application::refusal::Refusal;
use application::use_cases::broadcast_message::BroadcastError;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use domain::codes::ErrorCode;
use domain::delivery::Class;
use domain::id::{IdError, MessageId, MessageKey};
use domain::protocol::client_frame::TTL_MS_MAX;
use domain::protocol::selective::decode_tags;
use domain::protocol::{compact_lines, json};
use domain::room::{RoomId, RoomIdError};
use domain::tags::Tags;
use domain::trace::TraceParent;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::answer::HttpRefusal;
use crate::gateway::{ApiKey, Config, Shared};
use crate::notice;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    room: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
    msg_id: Option<&'a str>,
    class: Option<&'a str>,
    key: Option<&'a str>,
    ttl_ms: Option<u64>,
    #[serde(borrow)]
    tags: Option<&'a RawValue>,
}

#[derive(Serialize)]
pub(crate) struct Answer {
    room: String,
    epoch: String,
    offset: Option<u64>,
    duplicate: bool,
    level: &'static str,
}

pub(crate) async fn publish(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Json<Answer>, HttpRefusal> {
    let publish = receive(&shared.config(), request).await.inspect_err(|refusal| {
        if refusal.status == StatusCode::UNAUTHORIZED {
            notice::key_refused(&shared, "publish");
        }
    })?;
    shared.node.services().metrics.edge.api_requests.add(1);
    let mut answers = shared.node.publish(publish).await;
    match answers.pop() {
        Some((room, Ok(receipt))) => Ok(Json(answer(&room, &receipt))),
        Some((_, Err(error))) => Err(refusal(&error).into()),
        None => Err(Refusal::internal().into()),
    }
}

/// Asks for the key on the head alone, then takes the body: all of it within the time that a head
/// may take, too.
async fn receive(config: &Config, request: Request) -> Result<ApiPublish, HttpRefusal> {
    let key = authorize(&config.api_keys, request.headers())?;
    let headers = request.headers().clone();
    let body = take_body(config, request).await?;
    Ok(read(key, &headers, &body)?)
}

/// The whole body, in time, of a caller that is known.
pub(crate) async fn take_body(config: &Config, request: Request) -> Result<Bytes, HttpRefusal> {
    let body = Bytes::from_request(request, &());
    let body = tokio::time::timeout(config.handshake_timeout, body).await.map_err(|_| {
        let message = "the body took too long";
        HttpRefusal::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::BadRequest, message)
    })?;
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(ErrorCode::TooLarge, "the body is too large"),
        _ => Refusal::new(ErrorCode::BadRequest, "the body can't be read"),
    })?;
    Ok(body)
}

/// The key that a request names, if it is one of these.
pub(crate) fn authorize<'a>(
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

pub(crate) fn invalid(field: &'static str, message: &'static str) -> Refusal {
    Refusal::new(ErrorCode::InvalidField, message).field(field)
}

/// The same numbers for the same faults as over WebSocket.
pub(crate) fn id_refused(field: &'static str, error: IdError) -> Refusal {
    let code = match error {
        IdError::TooLong { .. } => ErrorCode::TooLarge,
        IdError::Empty | IdError::Alphabet | IdError::Reserved => ErrorCode::InvalidField,
    };
    Refusal::new(code, error.to_string()).field(field)
}

fn read(key: &ApiKey, headers: &HeaderMap, body: &[u8]) -> Result<ApiPublish, Refusal> {
    let body: Body<'_> = serde_json::from_slice(body).map_err(|error| {
        // serde names the field and the place; it never quotes more than names of ours.
        Refusal::new(ErrorCode::BadRequest, format!("the body is not a publish: {error}"))
    })?;
    let data = body.data.get();
    json::scan_value(data, 0, json::DEPTH_MAX)
        .map_err(|_| invalid("data", "must be JSON, nested at most 64 deep"))?;
    let room = RoomId::parse(body.room).map_err(|error| match error {
        RoomIdError::Id(error) => id_refused("room", error),
        RoomIdError::Shape | RoomIdError::Namespace | RoomIdError::Dots => {
            Refusal::new(ErrorCode::InvalidField, error.to_string()).field("room")
        }
    })?;
    let class = match body.class {
        None => None,
        Some(word) => Some(
            Class::parse(word)
                .ok_or_else(|| invalid("class", "must be reliable, latest or droppable"))?,
        ),
    };
    let message_key = match body.key {
        None => None,
        Some(text) => Some(MessageKey::parse(text).map_err(|error| id_refused("key", error))?),
    };
    let ttl = match body.ttl_ms {
        None => None,
        Some(ms @ 1..=TTL_MS_MAX) => Some(Duration::from_millis(ms)),
        Some(_) => return Err(invalid("ttl_ms", "must be 1 to 86400000")),
    };
    Ok(ApiPublish {
        key_name: key.name.clone(),
        rooms: vec![room],
        data: Bytes::copy_from_slice(compact_lines(data).as_bytes()),
        class,
        key: message_key,
        msg_id: message_id(headers, body.msg_id)?,
        ttl,
        trace: trace(headers),
        tags: tags(body.tags)?,
    })
}

fn tags(raw: Option<&RawValue>) -> Result<Tags, Refusal> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(Tags::default()) };
    decode_tags(raw.get()).map_err(|rejected| Refusal {
        field: rejected.field,
        ..Refusal::new(rejected.code, rejected.message)
    })
}

/// The W3C's header; what is not of its form is as if it were not there, as the W3C asks.
fn trace(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all("traceparent").iter();
    let (first, second) = (values.next()?, values.next());
    second.is_none().then(|| TraceParent::parse(first.to_str().ok()?)).flatten()
}

/// The `Idempotency-Key` header and `msg_id` are two names of one thing.
fn message_id(headers: &HeaderMap, body: Option<&str>) -> Result<Option<MessageId>, Refusal> {
    let mut values = headers.get_all("idempotency-key").iter();
    let header = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(value), None) => Some(
            value.to_str().map_err(|_| invalid("Idempotency-Key", "must be printable ASCII"))?,
        ),
        (Some(_), Some(_)) => return Err(invalid("Idempotency-Key", "came twice")),
    };
    let text = match (header, body) {
        (Some(header), Some(body)) if header != body => {
            return Err(invalid("msg_id", "differs from the Idempotency-Key header"));
        }
        (header, body) => header.or(body),
    };
    text.map(MessageId::parse).transpose().map_err(|error| id_refused("msg_id", error))
}

fn answer(room: &RoomId, receipt: &Receipt) -> Answer {
    Answer {
        room: room.to_string(),
        epoch: receipt.epoch.to_string(),
        offset: receipt.offset.map(domain::position::Offset::get),
        duplicate: receipt.duplicate,
        level: receipt.level.word(),
    }
}

fn refusal(error: &BroadcastError) -> Refusal {
    match error {
        BroadcastError::UnknownRoom => {
            Refusal::new(ErrorCode::UnknownRoom, "this server has no such namespace").field("room")
        }
        BroadcastError::Key => invalid("key", "goes with class latest, and only with it"),
        BroadcastError::Broker(PublishError::Unavailable { retry_after }) => {
            tracing::warn!(error = error as &dyn std::error::Error, "publish not taken");
            Refusal::unavailable(*retry_after)
        }
        BroadcastError::Broker(PublishError::LogFull) => Refusal::internal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use application::origin::OriginPolicy;
    use axum::body::Body as RequestBody;
    use hyper::body::Frame;

    /// A body that never comes.
    struct Withheld;

    impl axum::body::HttpBody for Withheld {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    fn config(handshake_timeout: Duration) -> Config {
        let name = domain::id::ClientId::parse("backend").unwrap();
        Config {
            handshake_timeout,
            connections_max: 1,
            origins: OriginPolicy::default(),
            echo_endpoint: false,
            api_keys: vec![ApiKey::new(name, "a secret")],
            publish_bytes_max: 1_000,
            internal_address: None,
            exposition: None,
            metrics_need_key: false,
            tls: None,
            trusted_proxies: application::client_address::TrustedProxies::default(),
            connections_per_address_max: 0,
        }
    }

    fn request(authorization: &str, body: RequestBody) -> Request {
        let request = Request::post("/").header(header::AUTHORIZATION, authorization);
        request.body(body).unwrap()
    }

    #[tokio::test]
    async fn a_caller_without_a_key_is_refused_before_any_of_the_body_has_come() {
        let config = config(Duration::from_secs(3_600));
        let refused = receive(&config, request("Bearer wrong", RequestBody::new(Withheld)));
        let refused = tokio::time::timeout(Duration::from_secs(5), refused).await.unwrap();
        assert_eq!(refused.unwrap_err().status, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_in_time_is_answered_with_408_and_one_that_does_is_read() {
        let config = config(Duration::from_millis(20));
        let refused =
            receive(&config, request("Bearer a secret", RequestBody::new(Withheld))).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.status, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(refused.refusal.code, ErrorCode::BadRequest);
        let body = RequestBody::from(r#"{"room":"public:x","data":1}"#);
        let publish = receive(&config, request("Bearer a secret", body)).await;
        assert_eq!(publish.unwrap_or_else(|_| unreachable!()).data, "1");
    }

    fn refused(body: &str) -> (ErrorCode, String) {
        let name = domain::id::ClientId::parse("backend").unwrap();
        let key = ApiKey::new(name, "a secret");
        let refusal = read(&key, &HeaderMap::new(), body.as_bytes()).unwrap_err();
        (refusal.code, refusal.field.unwrap_or_default().into_owned())
    }

    #[test]
    fn a_key_that_does_not_go_with_the_rooms_class_is_an_invalid_field() {
        let refusal = refusal(&BroadcastError::Key);
        assert_eq!(refusal.code, ErrorCode::InvalidField);
        assert_eq!(refusal.field.as_deref(), Some("key"));
    }

    #[test]
    fn a_name_that_is_too_long_is_too_large_and_a_wrong_one_is_invalid_like_over_websocket() {
        let long = "x".repeat(1_000);
        let with = |field: &str, value: &str| {
            let room = if field == "room" { value } else { "public:x" };
            let own = if field == "room" {
                String::new()
            } else {
                format!(r#","class":"latest","{field}":"{value}""#)
            };
            refused(&format!(r#"{{"room":"{room}","data":1{own}}}"#))
        };
        assert_eq!(with("room", &format!("public:{long}")), (ErrorCode::TooLarge, "room".into()));
        assert_eq!(with("room", "public:*"), (ErrorCode::InvalidField, "room".into()));
        assert_eq!(with("key", &long), (ErrorCode::TooLarge, "key".into()));
        assert_eq!(with("key", ""), (ErrorCode::InvalidField, "key".into()));
        let msg_id = format!(r#"{{"room":"public:x","data":1,"msg_id":"{long}"}}"#);
        assert_eq!(refused(&msg_id), (ErrorCode::TooLarge, "msg_id".into()));
    }
}
