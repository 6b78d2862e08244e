//! From a valid upgrade request to the answer, and to what the socket is wanted for.
//!
//! Nothing of the request is kept behind the upgrade: a header value kept would keep hyper's
//! whole read buffer alive with it.

use std::sync::Arc;

use application::shard::Opening;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::codes::ErrorCode;
use domain::id::ClientId;
use worker_tokio::Purpose;

use crate::accept::Handover;
use crate::answer::{self, HttpRefusal};
use crate::gateway::Shared;
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
    match try_upgrade(shared, request, wanted) {
        Ok(response) => response,
        Err(refusal) => {
            notice::upgrade_refused(shared, refusal.status, origin.as_deref());
            refusal.into_response()
        }
    }
}

fn try_upgrade(
    shared: &Arc<Shared>,
    request: Request,
    wanted: Wanted,
) -> Result<Response, HttpRefusal> {
    let (parts, _) = request.into_parts();
    if !shared.config().origins.allows(handshake::origin(&parts.headers)?) {
        let message = "pages of this origin may not connect; see server.allowed_origins";
        return Err(HttpRefusal::new(StatusCode::FORBIDDEN, ErrorCode::PermissionDenied, message));
    }
    let upgrade = handshake::read(&parts)?;
    if shared.stopping.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(answer::stopping());
    }
    let Some(handover) = parts.extensions.get::<Handover>() else {
        let status = StatusCode::NOT_IMPLEMENTED;
        let message = "this listener can't hand its sockets over";
        return Err(HttpRefusal::new(status, ErrorCode::NotAvailable, message));
    };
    let response = response(&upgrade);
    handover.leave(purpose(shared, upgrade, wanted));
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
