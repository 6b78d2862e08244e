//! Reading an upgrade request, strictly: RFC 6455 section 4.2.1, which pages may come, and where a
//! token may stand.
//!
//! Pure: a request's head in, what it asks for out, the same for every host. Nothing is guessed: two of a
//! header that may come once is a refusal. It must never parse HTTP or name a crate that does.

use domain::codes::{CloseCode, ErrorCode};
use domain::documents;
use domain::id::{ClientId, ConnectionId};
use domain::matches::MatchId;
use domain::room::RoomId;

use crate::origin::OriginPolicy;
use crate::ports::outbox::Ending;
use crate::refusal::Refusal;
use crate::shard::Opening;
use crate::view::View;

/// The sub-protocol of the v2 protocol; the only one that is ever answered.
pub const SUBPROTOCOL: &str = "roomkeeper.v2";
/// In front of a token that comes as a sub-protocol.
const BEARER_SUBPROTOCOL: &str = "bearer.";
/// The longest `Sec-WebSocket-Protocol` that is read.
const SUBPROTOCOLS_BYTES_MAX: usize = 10 << 10;

/// The head of a request, as a host's parser of HTTP found it.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method, in the case it came in.
    pub method: &'a str,
    /// Whether it is HTTP/1.1 and no other version.
    pub is_http_1_1: bool,
    /// Whether the target is a path, without scheme and host.
    pub is_path: bool,
    /// What stands behind the path's `?`.
    pub query: &'a str,
    /// The header fields in the order they came, their names in lower case.
    pub fields: &'a [(&'a str, &'a [u8])],
}

/// What a valid upgrade request asks for.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Upgrade {
    /// `Sec-WebSocket-Key`: the base64 of 16 bytes.
    pub key: String,
    /// Whether the client offered [`SUBPROTOCOL`].
    pub offers_subprotocol: bool,
    /// The label from `?client_id=`.
    pub client: Option<ClientId>,
    /// The token from the query, the `Authorization` header or a sub-protocol.
    pub token: Option<String>,
    /// Two places name two tokens.
    pub conflicting_tokens: bool,
    /// The endpoint that it came by.
    pub view: View,
    /// The room that the endpoint is for, where that is one of many.
    pub place: Option<RoomId>,
}

/// An address that takes upgrades.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// `/ws/v2/connect`.
    V2,
    /// `/ws/client`.
    Client,
    /// One of the documents with rooms, but `/ws/games/{match_id}`.
    Document(documents::told::Endpoint),
    /// `/ws/games/{match_id}`; none when that is no match's id.
    Match(Option<MatchId>),
}

/// How the document of the matches calls parameters that are wrong.
const INVALID_PARAMETERS: Ending =
    Ending { code: CloseCode::PolicyViolation, reason: "Invalid parameters" };

/// An answer over HTTP instead of the upgrade.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpgradeRefusal {
    /// The status of the answer.
    pub status: u16,
    /// What its body says.
    pub refusal: Refusal,
    /// A header that belongs to the status.
    pub header: Option<(&'static str, &'static str)>,
}

impl UpgradeRefusal {
    /// A refusal with its status and a sentence.
    #[must_use]
    pub fn new(status: u16, code: ErrorCode, message: &'static str) -> Self {
        Self { status, refusal: Refusal::new(code, message), header: None }
    }

    fn header(self, name: &'static str, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    fn field(self, field: &'static str) -> Self {
        Self { refusal: self.refusal.field(field), ..self }
    }
}

fn bad(message: &'static str) -> UpgradeRefusal {
    UpgradeRefusal::new(400, ErrorCode::BadRequest, message)
}

/// Reads the head of an upgrade request to an endpoint.
///
/// # Errors
/// The HTTP answer: 403 for pages that may not connect, else 400, 405 or 426.
pub fn read(
    head: &Head<'_>,
    origins: &OriginPolicy,
    endpoint: Endpoint,
) -> Result<Upgrade, UpgradeRefusal> {
    if !origins.allows(origin(head)?) {
        let message = "pages of this origin may not connect; see server.allowed_origins";
        return Err(UpgradeRefusal::new(403, ErrorCode::PermissionDenied, message));
    }
    check_request(head)?;
    if !has_token(head, "upgrade", "websocket") || !has_token(head, "connection", "upgrade") {
        let message = "this is a WebSocket address: connect with a WebSocket client (ws://…)";
        return Err(
            UpgradeRefusal::new(426, ErrorCode::BadRequest, message).header("upgrade", "websocket")
        );
    }
    if single(head, "sec-websocket-version")? != Some("13") {
        let message = "only WebSocket version 13 is spoken here";
        return Err(UpgradeRefusal::new(426, ErrorCode::BadRequest, message)
            .header("sec-websocket-version", "13"));
    }
    let key = single(head, "sec-websocket-key")?
        .filter(|key| is_key(key))
        .ok_or_else(|| bad("Sec-WebSocket-Key must be 16 bytes in base64"))?;
    let mut upgrade = Upgrade { key: key.to_owned(), ..Upgrade::default() };
    let mut are_valid = true;
    match endpoint {
        Endpoint::V2 => read_query(head.query, &mut upgrade)?,
        Endpoint::Client => {
            read_token(head.query, &mut upgrade);
            match documents::client::read_query(head.query) {
                Ok((client, role)) => {
                    (upgrade.client, upgrade.view) = (Some(client), View::Client(role));
                }
                Err(code) => upgrade.view = View::Refused(code.into()),
            }
        }
        Endpoint::Document(endpoint) => {
            read_query(head.query, &mut upgrade)?;
            upgrade.view = View::Document(endpoint);
        }
        Endpoint::Match(_) => are_valid = read_query(head.query, &mut upgrade).is_ok(),
    }
    read_subprotocols(head, &mut upgrade)?;
    if let Some(value) = single(head, "authorization")?
        && let Some((scheme, token)) = value.split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
    {
        upgrade.take_token(token.trim());
    }
    if let Endpoint::Match(id) = endpoint {
        are_valid &= upgrade.token.as_ref().is_none_or(|token| !token.is_empty());
        are_valid &= !upgrade.conflicting_tokens;
        upgrade.place = id.filter(|_| are_valid).map(|id| id.room().clone());
        upgrade.view = match upgrade.place {
            Some(_) => View::Document(documents::told::Endpoint::Match),
            None => View::Refused(INVALID_PARAMETERS),
        };
    }
    Ok(upgrade)
}

/// The `Origin` header; two of them are one too many.
///
/// # Errors
/// The HTTP answer: 400.
pub fn origin<'a>(head: &Head<'a>) -> Result<Option<&'a str>, UpgradeRefusal> {
    single(head, "origin")
}

impl Upgrade {
    /// What the shard is told of the connection. A client that gives itself no label gets one.
    #[must_use]
    pub fn into_opening(self, connection: ConnectionId) -> Opening {
        let Self { client, token, conflicting_tokens, view, place, .. } = self;
        let client = client.unwrap_or_else(|| given_name(connection));
        Opening { connection, client, token, conflicting_tokens, view, place, address: None }
    }

    fn take_token(&mut self, token: &str) {
        match &self.token {
            None => self.token = Some(token.to_owned()),
            Some(first) => self.conflicting_tokens |= first != token,
        }
    }
}

fn given_name(connection: ConnectionId) -> ClientId {
    let text = format!("c-{connection}");
    // Hexadecimal digits are always in the alphabet.
    ClientId::parse(&text).unwrap_or_else(|_| unreachable!("{text} is a client id"))
}

/// What must hold of the request line and the framing headers.
fn check_request(head: &Head<'_>) -> Result<(), UpgradeRefusal> {
    if head.method != "GET" {
        let message = "an upgrade is a GET request";
        return Err(UpgradeRefusal::new(405, ErrorCode::BadRequest, message).header("allow", "GET"));
    }
    if !head.is_http_1_1 {
        return Err(bad("an upgrade needs HTTP/1.1"));
    }
    if !head.is_path {
        return Err(bad("the request target must be a path"));
    }
    if !single(head, "host")?.is_some_and(is_host) {
        return Err(bad("exactly one valid Host header is needed"));
    }
    let has = |name| values(head, name).next().is_some();
    if has("transfer-encoding") || has("content-length") {
        return Err(bad("an upgrade request has no body"));
    }
    Ok(())
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
}

/// Whether it is the canonical base64 of exactly 16 bytes: 22 characters, of which the last carries
/// two bits, and the padding.
fn is_key(key: &str) -> bool {
    let in_alphabet = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    let Some(digits) = key.strip_suffix("==").map(str::as_bytes) else { return false };
    digits.len() == 22
        && digits.iter().all(in_alphabet)
        && matches!(digits.last(), Some(b'A' | b'Q' | b'g' | b'w'))
}

fn values<'a>(head: &Head<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    head.fields.iter().filter(move |(other, _)| *other == name).map(|(_, value)| *value)
}

/// A value in printable ASCII.
fn text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)).then_some(text)
}

/// The value of a header that may come once.
fn single<'a>(head: &Head<'a>, name: &str) -> Result<Option<&'a str>, UpgradeRefusal> {
    let mut values = values(head, name);
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("a header came twice that may come once"));
    }
    text(first).map(Some).ok_or_else(|| bad("a header is not ASCII"))
}

/// Whether a list header holds a token, in any of its lines, without regard to case.
fn has_token(head: &Head<'_>, name: &str, token: &str) -> bool {
    values(head, name)
        .filter_map(text)
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// A token from the query of an endpoint that reads its own parameters.
fn read_token(query: &str, upgrade: &mut Upgrade) {
    let tokens = query.split('&').filter_map(|pair| pair.strip_prefix("token="));
    tokens.for_each(|token| upgrade.take_token(token));
}

fn read_query(query: &str, upgrade: &mut Upgrade) -> Result<(), UpgradeRefusal> {
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

fn read_subprotocols(head: &Head<'_>, upgrade: &mut Upgrade) -> Result<(), UpgradeRefusal> {
    let all = || values(head, "sec-websocket-protocol");
    if all().map(<[u8]>::len).sum::<usize>() > SUBPROTOCOLS_BYTES_MAX {
        return Err(bad("Sec-WebSocket-Protocol is too long"));
    }
    for value in all() {
        let value = text(value).ok_or_else(|| bad("Sec-WebSocket-Protocol is not ASCII"))?;
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

#[cfg(test)]
mod tests;
