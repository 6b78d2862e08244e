//! Reading an upgrade request, strictly: RFC 6455 section 4.2.1, and where a token may stand.
//!
//! Pure: a request's head in, what it asks for out. Nothing is guessed: two of a header that may
//! come once is a refusal.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Version, header};
use domain::codes::ErrorCode;
use domain::id::ClientId;
use websocket_codec::handshake::is_valid_key;

use crate::answer::HttpRefusal;

/// The sub-protocol of the v2 protocol; the only one that is ever answered.
pub const SUBPROTOCOL: &str = "roomkeeper.v2";
/// In front of a token that comes as a sub-protocol.
const BEARER_SUBPROTOCOL: &str = "bearer.";
/// The longest `Sec-WebSocket-Protocol` that is read.
const SUBPROTOCOLS_BYTES_MAX: usize = 10 << 10;

/// What a valid upgrade request asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Upgrade {
    /// The value for `Sec-WebSocket-Accept`.
    pub(crate) accept: String,
    /// Whether the client offered [`SUBPROTOCOL`].
    pub(crate) offers_subprotocol: bool,
    /// The label from `?client_id=`.
    pub(crate) client: Option<ClientId>,
    /// The token from the query, the `Authorization` header or a sub-protocol.
    pub(crate) token: Option<String>,
    /// Two places name two tokens.
    pub(crate) conflicting_tokens: bool,
}

fn bad(message: &'static str) -> HttpRefusal {
    HttpRefusal::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, message)
}

/// Reads the head of an upgrade request.
///
/// # Errors
/// The HTTP answer: 400, 405 or 426.
pub(crate) fn read(parts: &Parts) -> Result<Upgrade, HttpRefusal> {
    let headers = &parts.headers;
    check_request(parts)?;
    if !has_token(headers, &header::UPGRADE, "websocket")
        || !has_token(headers, &header::CONNECTION, "upgrade")
    {
        let message = "this is a WebSocket address: connect with a WebSocket client (ws://…)";
        return Err(HttpRefusal::new(StatusCode::UPGRADE_REQUIRED, ErrorCode::BadRequest, message)
            .header(header::UPGRADE, "websocket"));
    }
    if single(headers, header::SEC_WEBSOCKET_VERSION.as_str())? != Some("13") {
        let message = "only WebSocket version 13 is spoken here";
        return Err(HttpRefusal::new(StatusCode::UPGRADE_REQUIRED, ErrorCode::BadRequest, message)
            .header(header::SEC_WEBSOCKET_VERSION, "13"));
    }
    let key = single(headers, header::SEC_WEBSOCKET_KEY.as_str())?
        .filter(|key| is_valid_key(key))
        .ok_or_else(|| bad("Sec-WebSocket-Key must be 16 bytes in base64"))?;
    let mut upgrade =
        Upgrade { accept: websocket_codec::handshake::accept_key(key), ..Upgrade::default() };
    read_query(parts.uri.query().unwrap_or_default(), &mut upgrade)?;
    read_subprotocols(headers, &mut upgrade)?;
    if let Some(value) = single(headers, header::AUTHORIZATION.as_str())?
        && let Some((scheme, token)) = value.split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
    {
        upgrade.take_token(token.trim());
    }
    Ok(upgrade)
}

impl Upgrade {
    fn take_token(&mut self, token: &str) {
        match &self.token {
            None => self.token = Some(token.to_owned()),
            Some(first) => self.conflicting_tokens |= first != token,
        }
    }
}

/// What must hold of the request line and the framing headers.
fn check_request(parts: &Parts) -> Result<(), HttpRefusal> {
    if parts.method != Method::GET {
        let message = "an upgrade is a GET request";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(
            HttpRefusal::new(status, ErrorCode::BadRequest, message).header(header::ALLOW, "GET")
        );
    }
    if parts.version != Version::HTTP_11 {
        return Err(bad("an upgrade needs HTTP/1.1"));
    }
    if parts.uri.authority().is_some() || parts.uri.scheme().is_some() {
        return Err(bad("the request target must be a path"));
    }
    let host = single(&parts.headers, header::HOST.as_str())?;
    if !host.is_some_and(is_host) {
        return Err(bad("exactly one valid Host header is needed"));
    }
    if parts.headers.contains_key(header::TRANSFER_ENCODING)
        || parts.headers.contains_key(header::CONTENT_LENGTH)
    {
        return Err(bad("an upgrade request has no body"));
    }
    Ok(())
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
}

/// The value of a header that may come once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, HttpRefusal> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("a header came twice that may come once"));
    }
    first.to_str().map(Some).map_err(|_| bad("a header is not ASCII"))
}

/// Whether a list header holds a token, in any of its lines, without regard to case.
fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

fn read_query(query: &str, upgrade: &mut Upgrade) -> Result<(), HttpRefusal> {
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "token" => upgrade.take_token(value),
            "client_id" => {
                // The alphabet of client ids needs no percent-encoding.
                let client = ClientId::parse(value).map_err(|_| {
                    bad("client_id must be 1 to 128 of A-Z a-z 0-9 . _ ~ -").field("client_id")
                })?;
                if upgrade.client.replace(client).is_some() {
                    return Err(bad("client_id came twice").field("client_id"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_subprotocols(headers: &HeaderMap, upgrade: &mut Upgrade) -> Result<(), HttpRefusal> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let bytes: usize = values.iter().map(|value| value.len()).sum();
    if bytes > SUBPROTOCOLS_BYTES_MAX {
        return Err(bad("Sec-WebSocket-Protocol is too long"));
    }
    for value in values {
        let value = value.to_str().map_err(|_| bad("Sec-WebSocket-Protocol is not ASCII"))?;
        for name in value.split(',').map(str::trim) {
            if name.is_empty() || name.contains(|c: char| c.is_whitespace()) {
                return Err(bad("Sec-WebSocket-Protocol must be a list of names"));
            }
            if name == SUBPROTOCOL {
                upgrade.offers_subprotocol = true;
            } else if let Some(token) = name.strip_prefix(BEARER_SUBPROTOCOL) {
                upgrade.take_token(token);
            }
        }
    }
    Ok(())
}

/// The `Origin` header; two of them are one too many.
pub(crate) fn origin(headers: &HeaderMap) -> Result<Option<&str>, HttpRefusal> {
    single(headers, header::ORIGIN.as_str())
}
