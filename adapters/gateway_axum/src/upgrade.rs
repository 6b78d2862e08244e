//! From a valid upgrade request to the answer, and to what the socket is wanted for.
//!
//! Nothing of the request is kept behind the upgrade: a header value kept would keep hyper's
//! whole read buffer alive with it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use application::shard::Opening;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::codes::ErrorCode;
use domain::id::ClientId;
use worker_tokio::Purpose;

use crate::accept::Handover;
use crate::answer::{self, HttpRefusal};
use crate::gateway::{Config, Shared};
use crate::handshake::{self, SUBPROTOCOL, Upgrade};
use crate::notice;

/// What the socket is wanted for.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Protocol,
    Echo,
}

/// Answers an upgrade request and, if it is one, hands the socket on.
pub(crate) fn upgrade(shared: &Arc<Shared>, request: Request, wanted: Wanted) -> Response {
    let origin = handshake::origin(request.headers()).ok().flatten().map(str::to_owned);
    let config = shared.config();
    let client = request
        .extensions()
        .get::<Handover>()
        .map(|handover| client_address(&config, handover.peer, request.headers()));
    match try_upgrade(shared, &config, request, wanted, client) {
        Ok(response) => response,
        Err(refusal) => {
            notice::upgrade_refused(shared, refusal.status, client, origin.as_deref());
            refusal.into_response()
        }
    }
}

/// Who a request comes from, as far as it can be known.
fn client_address(config: &Config, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
    let proxies = &config.trusted_proxies;
    if !proxies.contains(peer.ip()) {
        return peer.ip().to_canonical();
    }
    let lines = headers.get_all(proxies.header.name()).iter();
    let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    proxies.client(peer.ip(), lines.iter().map(|line| &**line))
}

fn try_upgrade(
    shared: &Arc<Shared>,
    config: &Config,
    request: Request,
    wanted: Wanted,
    client: Option<IpAddr>,
) -> Result<Response, HttpRefusal> {
    let (parts, _) = request.into_parts();
    if !config.origins.allows(handshake::origin(&parts.headers)?) {
        let message = "pages of this origin may not connect; see server.allowed_origins";
        return Err(HttpRefusal::new(StatusCode::FORBIDDEN, ErrorCode::PermissionDenied, message));
    }
    let upgrade = handshake::read(&parts)?;
    if shared.stopping.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(answer::stopping());
    }
    let handover = parts.extensions.get::<Handover>();
    let (Some(handover), Some(client)) = (handover, client) else {
        let status = StatusCode::NOT_IMPLEMENTED;
        let message = "this listener can't hand its sockets over";
        return Err(HttpRefusal::new(status, ErrorCode::NotAvailable, message));
    };
    // Who came without a proxy was counted when it came.
    let is_proxied = config.trusted_proxies.contains(handover.peer.ip());
    let counted = if is_proxied { shared.count_address(config, client) } else { Ok(None) };
    let counted = counted.map_err(|_| answer::too_many_of_an_address())?;
    let response = response(&upgrade);
    let purpose = purpose(shared, upgrade, wanted);
    if let Purpose::Protocol(opening) = &purpose {
        tracing::debug!(connection = %opening.connection, address = %client, "an upgrade");
    }
    handover.leave(purpose, counted);
    Ok(response)
}

fn purpose(shared: &Shared, upgrade: Upgrade, wanted: Wanted) -> Purpose {
    match wanted {
        Wanted::Echo => Purpose::Echo,
        Wanted::Protocol => {
            let connection = shared.node.connection_id();
            let Upgrade { client, token, conflicting_tokens, .. } = upgrade;
            let client = client.unwrap_or_else(|| given_name(connection));
            Purpose::Protocol(Opening { connection, client, token, conflicting_tokens })
        }
    }
}

/// The label of a client that gives itself none.
fn given_name(connection: domain::id::ConnectionId) -> ClientId {
    let text = format!("c-{connection}");
    // Hexadecimal digits are always in the alphabet.
    ClientId::parse(&text).unwrap_or_else(|_| unreachable!("{text} is a client id"))
}

fn response(upgrade: &Upgrade) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&upgrade.accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if upgrade.offers_subprotocol {
        let name = HeaderValue::from_static(SUBPROTOCOL);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    response
}
