//! From a valid upgrade request to the answer, and to what the socket is wanted for.
//!
//! Nothing of the request is kept behind the upgrade: a header value kept would keep hyper's
//! whole read buffer alive with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use application::upgrade::{SUBPROTOCOL, Upgrade};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::codes::ErrorCode;
use websocket_codec::handshake::accept_key;
use worker_tokio::Purpose;

use crate::accept::Handover;
use crate::answer::{self, HttpRefusal};
use crate::gateway::Shared;
use crate::handshake::{fields, head, value};
use crate::mount::Mounted;
use crate::notice;

/// What the socket is wanted for.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Protocol,
    Echo,
}

/// Who has the socket now.
enum Socket {
    /// Our own accept loop, which gets it back from hyper.
    Ours(Handover),
    /// The server of the application that these routes are mounted in.
    Theirs(Mounted),
}

/// Answers an upgrade request and, if it is one, hands the socket on.
pub(crate) fn upgrade(shared: &Arc<Shared>, request: Request, wanted: Wanted) -> Response {
    let (mut parts, _) = request.into_parts();
    match try_upgrade(shared, &mut parts, wanted) {
        Ok(response) => response,
        Err(refusal) => {
            let fields = fields(&parts);
            let origin = application::upgrade::origin(&head(&parts, &fields)).ok().flatten();
            notice::upgrade_refused(shared, refusal.status, origin);
            refusal.into_response()
        }
    }
}

fn try_upgrade(
    shared: &Arc<Shared>,
    parts: &mut Parts,
    wanted: Wanted,
) -> Result<Response, HttpRefusal> {
    let upgrade = {
        let fields = fields(parts);
        application::upgrade::read(&head(parts, &fields), &shared.config().origins)?
    };
    if shared.stopping.load(Ordering::Relaxed) {
        return Err(answer::stopping());
    }
    let socket = socket(shared, parts)?;
    let response = response(&upgrade);
    let purpose = match wanted {
        Wanted::Echo => Purpose::Echo,
        Wanted::Protocol => Purpose::Protocol(upgrade.into_opening(shared.node.connection_id())),
    };
    match socket {
        Socket::Ours(handover) => handover.leave(purpose),
        Socket::Theirs(mounted) => mounted.follow(Arc::clone(shared), purpose),
    }
    Ok(response)
}

fn socket(shared: &Arc<Shared>, parts: &mut Parts) -> Result<Socket, HttpRefusal> {
    if let Some(handover) = parts.extensions.remove::<Handover>() {
        return Ok(Socket::Ours(handover));
    }
    if let Some(on_upgrade) = parts.extensions.remove() {
        return Mounted::new(shared, on_upgrade).map(Socket::Theirs);
    }
    let message = "this listener can't hand its sockets over";
    Err(HttpRefusal::new(StatusCode::NOT_IMPLEMENTED, ErrorCode::NotAvailable, message))
}

fn response(upgrade: &Upgrade) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(accept) = value(&accept_key(&upgrade.key)) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if upgrade.offers_subprotocol {
        let name = HeaderValue::from_static(SUBPROTOCOL);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    response
}
