//! From a valid upgrade request to a socket in a worker's hands.
//!
//! Nothing of the request is kept behind the upgrade: a header value kept would keep hyper's
//! whole read buffer alive with it.

use std::sync::Arc;

use application::shard::Opening;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::codes::ErrorCode;
use domain::id::ClientId;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use worker_tokio::{Accepted, Purpose};

use crate::accept::Permit;
use crate::answer::HttpRefusal;
use crate::gateway::Shared;
use crate::handshake::{self, SUBPROTOCOL, Upgrade};

/// What the socket is wanted for.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Protocol,
    Echo,
}

/// Answers an upgrade request and, if it is one, hands the socket on.
pub(crate) fn upgrade(shared: &Arc<Shared>, request: Request, wanted: Wanted) -> Response {
    match try_upgrade(shared, request, wanted) {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

fn try_upgrade(
    shared: &Arc<Shared>,
    request: Request,
    wanted: Wanted,
) -> Result<Response, HttpRefusal> {
    let (parts, body) = request.into_parts();
    if !shared.config.origins.allows(handshake::origin(&parts.headers)?) {
        let message = "pages of this origin may not connect; see server.allowed_origins";
        return Err(HttpRefusal::new(StatusCode::FORBIDDEN, ErrorCode::PermissionDenied, message));
    }
    let upgrade = handshake::read(&parts)?;
    if shared.stopping.load(std::sync::atomic::Ordering::Relaxed) {
        let message = "the server is stopping";
        return Err(HttpRefusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Unavailable,
            message,
        ));
    }
    let mut request = Request::from_parts(parts, body);
    let permit = request.extensions_mut().remove::<Permit>().and_then(|permit| {
        permit.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    });
    let on_upgrade = hyper::upgrade::on(&mut request);
    drop(request);
    let response = response(&upgrade);
    let purpose = purpose(shared, upgrade, wanted);
    tokio::spawn(hand_over(Arc::clone(shared), on_upgrade, purpose, permit));
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

/// Waits until the 101 is written, takes the bare socket from hyper, and gives it to a worker.
async fn hand_over(
    shared: Arc<Shared>,
    on_upgrade: hyper::upgrade::OnUpgrade,
    purpose: Purpose,
    permit: Option<OwnedSemaphorePermit>,
) {
    let Ok(upgraded) = on_upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        tracing::error!("an upgraded connection is no TCP socket");
        return;
    };
    // A copy: what came early is a slice of hyper's read buffer.
    let early = Bytes::copy_from_slice(&parts.read_buf);
    let Ok(stream) = parts.io.into_inner().into_std() else { return };
    let permit = permit.map(|permit| Box::new(permit) as Box<dyn std::any::Any + Send>);
    let accepted = Accepted { stream, early, purpose, permit };
    if let Some(worker) = shared.next_worker()
        && worker.take(accepted).await.is_err()
    {
        tracing::error!("a worker has ended");
    }
}
