//! What HTTP refusals look like: one JSON object, the numbers of the error table, no inner detail.

use std::time::Duration;

use application::metrics::EdgeRefusal;
use application::refusal::Refusal;
use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::codes::ErrorCode;
use serde::Serialize;

/// For sockets that never reach HTTP.
pub(crate) const OVERLOADED_RAW: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Retry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// For a socket of an address that has as many as it may have.
pub(crate) const ADDRESS_LIMIT_RAW: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    Retry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// For who speaks plain HTTP where TLS is spoken.
pub(crate) const TLS_WANTED_RAW: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain\r\nConnection: close\r\nContent-Length: 53\r\n\r\n\
    this port speaks TLS: connect with https:// or wss://";

/// Who is turned away where TLS is spoken, before any session: the fatal alert internal_error, which clients
/// take for a fault that passes.
pub(crate) const TURNED_AWAY_TLS_RAW: &[u8] = &[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50];

#[derive(Serialize)]
struct Body<'a> {
    code: u16,
    error: &'a str,
    message: &'a str,
    field: Option<&'a str>,
    retry_after_ms: Option<u64>,
}

/// A refusal over HTTP.
pub(crate) struct HttpRefusal {
    pub(crate) status: StatusCode,
    /// Boxed: a refusal is rare, and every answer would be as large as this one.
    pub(crate) refusal: Box<Refusal>,
    pub(crate) header: Option<(HeaderName, &'static str)>,
    /// As what it counts, where the status alone does not say.
    pub(crate) why: Option<EdgeRefusal>,
}

impl HttpRefusal {
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: &'static str) -> Self {
        Self { status, refusal: Box::new(Refusal::new(code, message)), header: None, why: None }
    }

    pub(crate) fn field(mut self, field: &'static str) -> Self {
        self.refusal.field = Some(field.into());
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }
}

/// What a server that drains answers to everything but how it is. Another one, or this one after
/// its restart, may take it.
pub(crate) fn stopping() -> HttpRefusal {
    let refusal = Refusal::new(ErrorCode::Unavailable, "the server is stopping; try again later");
    refusal.retry_after(Duration::from_secs(1)).into()
}

/// An upgrade through a proxy for a client whose address has as many connections as it may have.
pub(crate) fn too_many_of_an_address() -> HttpRefusal {
    let message = "too many connections from this address; close one or try again later";
    Refusal::new(ErrorCode::RateLimited, message).retry_after(Duration::from_secs(5)).into()
}

/// An upgrade for a client in a loop: its connections end as soon as they have begun.
pub(crate) fn too_often(wait: Duration) -> HttpRefusal {
    let message = "connections from this address keep ending at once; try again later";
    Refusal::new(ErrorCode::RateLimited, message).retry_after(wait).into()
}

/// What was asked for ended in a fault of our own; the log has it.
pub(crate) fn broken() -> HttpRefusal {
    let message = "a fault of the server; its log has it";
    HttpRefusal::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, message)
}

/// So much memory is used that nobody new is let in.
pub(crate) fn short_of_memory() -> HttpRefusal {
    let message = "the server is short of memory; try again later";
    let refusal = Refusal::new(ErrorCode::Unavailable, message).retry_after(Duration::from_secs(5));
    HttpRefusal { why: Some(EdgeRefusal::Memory), ..refusal.into() }
}

/// What all nodes share is away, so nobody new could do anything here: another node may be better off.
pub(crate) fn cut_off() -> HttpRefusal {
    let message = "the server can't reach what it needs; try again later";
    let refusal = Refusal::new(ErrorCode::Unavailable, message).retry_after(Duration::from_secs(1));
    HttpRefusal { why: Some(EdgeRefusal::Broker), ..refusal.into() }
}

/// There is no id for a connection that nobody could guess.
pub(crate) fn no_entropy() -> HttpRefusal {
    let message = "the server can't give out an id now; try again later";
    let refusal = Refusal::new(ErrorCode::Unavailable, message).retry_after(Duration::from_secs(5));
    HttpRefusal { why: Some(EdgeRefusal::Entropy), ..refusal.into() }
}

/// As many WebSockets are open as may be.
pub(crate) fn crowded() -> HttpRefusal {
    let message = "as many connections are open as may be; try again later";
    Refusal::new(ErrorCode::Unavailable, message).retry_after(Duration::from_secs(1)).into()
}

impl From<Refusal> for HttpRefusal {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
            ErrorCode::UnknownRoom | ErrorCode::NotAvailable => StatusCode::NOT_FOUND,
            ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::InvalidToken => StatusCode::UNAUTHORIZED,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::RoomFull => StatusCode::CONFLICT,
            ErrorCode::BadRequest
            | ErrorCode::UnknownType
            | ErrorCode::InvalidField
            | ErrorCode::NotSubscribed
            | ErrorCode::AlreadySubscribed
            | ErrorCode::TooManyRooms
            | ErrorCode::InvalidPosition
            | ErrorCode::NotConnected
            | ErrorCode::AlreadyConnected => StatusCode::BAD_REQUEST,
        };
        Self { status, refusal: Box::new(refusal), header: None, why: None }
    }
}

impl IntoResponse for HttpRefusal {
    fn into_response(self) -> Response {
        let Refusal { code, message, field, retry_after } = &*self.refusal;
        let retry_after_ms =
            retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let body = Body {
            code: code.number(),
            error: code.word(),
            message,
            field: field.as_deref(),
            retry_after_ms,
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, axum::http::HeaderValue::from_static(value));
        }
        if let Some(ms) = retry_after_ms {
            let seconds = axum::http::HeaderValue::from(ms.div_ceil(1_000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
