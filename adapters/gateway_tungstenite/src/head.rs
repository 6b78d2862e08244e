//! The head of a request as tungstenite parses it, and answers as bytes.
//!
//! It must never be read further than its limit, and never be parsed again for each byte that comes.

use std::time::Duration;

use application::refusal::Refusal;
use application::upgrade::{Head, SUBPROTOCOL, Upgrade, UpgradeRefusal};
use domain::codes::ErrorCode;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, Response, write_response};
use tungstenite::http::StatusCode;
use tungstenite::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};

/// The largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A request and what came behind it.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) early: Vec<u8>,
}

/// Why there is no request.
pub(crate) enum NoRequest {
    /// The other side went away.
    Gone,
    /// It is none, or one that is not taken; this is the answer.
    Refused(UpgradeRefusal),
}

/// Reads a head to its end. Whoever calls this puts a deadline on it.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Asked, NoRequest> {
    let mut bytes = Vec::with_capacity(1 << 10);
    loop {
        let seen = bytes.len();
        let has_ended = match stream.read_buf(&mut bytes).await {
            Ok(n) => n == 0,
            Err(_) => return Err(NoRequest::Gone),
        };
        let is_full = bytes.len() > HEAD_BYTES_MAX;
        // The end of a head may have begun in what was seen before.
        let is_whole = ends_a_head(&bytes[seen.saturating_sub(3)..]);
        if !is_whole && !has_ended && !is_full {
            continue;
        }
        match Request::try_parse(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]) {
            Ok(Some((length, request))) => {
                bytes.drain(..length);
                return Ok(Asked { request, early: bytes });
            }
            Ok(None) if has_ended => return Err(NoRequest::Gone),
            Ok(None) if is_full => return Err(NoRequest::Refused(too_long())),
            Ok(None) => {}
            Err(error) => return Err(NoRequest::Refused(refusal(&error))),
        }
    }
}

fn ends_a_head(bytes: &[u8]) -> bool {
    let mut pairs = bytes.iter().filter(|byte| **byte != b'\r').peekable();
    while let Some(byte) = pairs.next() {
        if *byte == b'\n' && pairs.peek() == Some(&&b'\n') {
            return true;
        }
    }
    false
}

fn too_long() -> UpgradeRefusal {
    UpgradeRefusal::new(431, ErrorCode::TooLarge, "the head of the request is too large")
}

fn refusal(error: &Error) -> UpgradeRefusal {
    match error {
        Error::Capacity(_) => too_long(),
        Error::Protocol(ProtocolError::WrongHttpMethod) => {
            let refused = UpgradeRefusal::new(405, ErrorCode::BadRequest, "only GET is taken here");
            UpgradeRefusal { header: Some(("allow", "GET")), ..refused }
        }
        Error::Protocol(ProtocolError::WrongHttpVersion) => {
            UpgradeRefusal::new(400, ErrorCode::BadRequest, "an upgrade needs HTTP/1.1")
        }
        _ => UpgradeRefusal::new(400, ErrorCode::BadRequest, "this is no request of HTTP/1.1"),
    }
}

/// The header fields of a request.
pub(crate) fn fields(request: &Request) -> Vec<(&str, &[u8])> {
    request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

/// The head of a request with these fields. tungstenite parses GET and HTTP/1.1 only.
pub(crate) fn head<'a>(request: &'a Request, fields: &'a [(&'a str, &'a [u8])]) -> Head<'a> {
    let uri = request.uri();
    Head {
        method: request.method().as_str(),
        is_http_1_1: true,
        is_path: uri.authority().is_none() && uri.scheme().is_none(),
        query: uri.query().unwrap_or_default(),
        fields,
    }
}

/// The answer that makes the connection a WebSocket. None only if what came could not be sent back,
/// which a parsed request never does.
pub(crate) fn switching(upgrade: &Upgrade) -> Option<Vec<u8>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, "websocket".parse().ok()?);
    headers.insert(CONNECTION, "upgrade".parse().ok()?);
    let accept = derive_accept_key(upgrade.key.as_bytes());
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().ok()?);
    if upgrade.offers_subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL.parse().ok()?);
    }
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).ok()?;
    Some(bytes)
}

#[derive(Serialize)]
struct Body<'a> {
    code: u16,
    error: &'a str,
    message: &'a str,
    field: Option<&'a str>,
    retry_after_ms: Option<u64>,
}

/// An answer that is none of the protocol, for those who are told why. The connection ends with it.
pub(crate) fn refused(refused: &UpgradeRefusal) -> Vec<u8> {
    let Refusal { code, message, field, retry_after } = &refused.refusal;
    let retry_after_ms =
        retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    let (code, error) = (code.number(), code.word());
    let body = Body { code, error, message, field: field.as_deref(), retry_after_ms };
    let body = serde_json::to_string(&body).unwrap_or_default();
    let mut more = String::new();
    if let Some((name, value)) = refused.header {
        more = format!("{name}: {value}\r\n");
    }
    if let Some(ms) = retry_after_ms {
        more += &format!("retry-after: {}\r\n", ms.div_ceil(1_000));
    }
    answer(refused.status, &format!("content-type: application/json\r\n{more}"), &body)
}

/// One line of text.
pub(crate) fn line(status: u16, text: &str) -> Vec<u8> {
    answer(status, "content-type: text/plain; charset=utf-8\r\n", &format!("{text}\n"))
}

fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let (reason, length) = (reason.unwrap_or("Refused"), body.len());
    let head = format!("HTTP/1.1 {status} {reason}\r\n{headers}content-length: {length}\r\n");
    format!("{head}connection: close\r\n\r\n{body}").into_bytes()
}

/// What is told to somebody who comes while the server stops.
pub(crate) fn stopping() -> UpgradeRefusal {
    let message = "the server is stopping; try again later";
    let refused = UpgradeRefusal::new(503, ErrorCode::Unavailable, message);
    UpgradeRefusal { refusal: refused.refusal.retry_after(Duration::from_secs(1)), ..refused }
}

/// What is told to somebody who comes while memory is short.
pub(crate) fn short_of_memory() -> UpgradeRefusal {
    let message = "the server is short of memory; try again later";
    let refused = UpgradeRefusal::new(503, ErrorCode::Unavailable, message);
    UpgradeRefusal { refusal: refused.refusal.retry_after(Duration::from_secs(5)), ..refused }
}

/// What is told to somebody for whom no id can be drawn.
pub(crate) fn no_entropy() -> UpgradeRefusal {
    let message = "the server can't give out an id now; try again later";
    let refused = UpgradeRefusal::new(503, ErrorCode::Unavailable, message);
    UpgradeRefusal { refusal: refused.refusal.retry_after(Duration::from_secs(5)), ..refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(mut bytes: &[u8]) -> Result<(usize, Vec<u8>), u16> {
        match read(&mut bytes).await {
            Ok(Asked { request, early }) => Ok((request.headers().len(), [&early, bytes].concat())),
            Err(NoRequest::Gone) => Err(0),
            Err(NoRequest::Refused(refused)) => Err(refused.status),
        }
    }

    #[tokio::test]
    async fn a_head_is_read_to_its_end_and_what_follows_is_kept() {
        let bytes = b"\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\nrest";
        assert_eq!(read_all(bytes).await, Ok((1, b"rest".to_vec())));
        let bare = b"GET /x HTTP/1.1\nHost: a\n\n";
        assert_eq!(read_all(bare).await, Ok((1, Vec::new())));
    }

    #[tokio::test]
    async fn what_is_no_head_or_a_long_one_is_refused_with_its_status() {
        assert_eq!(read_all(b"GET /x HTTP/1.1\r\nHost").await, Err(0));
        assert_eq!(read_all(b"\x16\x03\x01\n\n").await, Err(400));
        assert_eq!(read_all(b"POST /x HTTP/1.1\r\n\r\n").await, Err(405));
        assert_eq!(read_all(b"GET /x HTTP/1.0\r\n\r\n").await, Err(400));
        let long = format!("GET /x HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(read_all(long.as_bytes()).await, Err(431));
        let many = format!("GET /x HTTP/1.1\r\n{}\r\n", "A: 1\r\n".repeat(200));
        assert_eq!(read_all(many.as_bytes()).await, Err(431));
    }

    #[test]
    fn a_refusal_says_what_the_table_says_and_when_to_come_back() {
        let text = String::from_utf8(refused(&stopping())).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(head.contains("retry-after: 1\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&body["error"], &body["retry_after_ms"]),
            (&"unavailable".into(), &1_000.into())
        );
    }
}
