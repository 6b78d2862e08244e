//! From a valid upgrade request to the answer, and to what the socket is wanted for.
//!
//! Nothing of the request is kept behind the upgrade: a header value kept would keep hyper's
//! whole read buffer alive with it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use application::admission::Pressure;
use application::client_address::CountedAddress;
use application::shard::Opening;
use application::upgrade::{Endpoint, SUBPROTOCOL, Upgrade};
use axum::extract::{ConnectInfo, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::codes::ErrorCode;
use websocket_codec::handshake::accept_key;
use worker_tokio::Purpose;

use crate::accept::{Guest, Handover};
use crate::answer::{self, HttpRefusal};
use crate::gateway::Config;
use crate::handshake::{fields, head, value};
use crate::mount::Mounted;
use crate::notice;
use crate::shared::Shared;

/// What the socket is wanted for.
#[derive(Clone)]
pub(crate) enum Wanted {
    Endpoint(Endpoint),
    Echo,
}

impl Wanted {
    fn endpoint(&self) -> Endpoint {
        match self {
            Self::Endpoint(endpoint) => endpoint.clone(),
            Self::Echo => Endpoint::V2,
        }
    }
}

/// Who has the socket now.
enum Socket {
    /// Our own accept loop, which gets it back from hyper.
    Ours(Handover),
    /// The server of the application that these routes are mounted in.
    Theirs(Mounted),
}

/// Answers an upgrade request and, if it is one, hands the socket on.
pub(crate) fn upgrade(shared: &Arc<Shared>, request: Request, wanted: &Wanted) -> Response {
    let (mut parts, _) = request.into_parts();
    let config = shared.config();
    let client = client_of(&config, &parts);
    match try_upgrade(shared, &config, &mut parts, wanted, client) {
        Ok(response) => response,
        Err(refusal) => {
            let fields = fields(&parts);
            let origin = application::upgrade::origin(&head(&parts, &fields)).ok().flatten();
            notice::upgrade_refused(shared, &refusal, client, origin);
            refusal.into_response()
        }
    }
}

/// The same where whoever has no valid token is refused over HTTP.
pub(crate) async fn upgrade_known(
    shared: &Arc<Shared>,
    request: Request,
    wanted: Wanted,
) -> Response {
    let (parts, body) = request.into_parts();
    let config = shared.config();
    let client = client_of(&config, &parts);
    let token = {
        let (fields, endpoint) = (fields(&parts), wanted.endpoint());
        let read = application::upgrade::read(&head(&parts, &fields), &config.origins, endpoint);
        // What is no upgrade is refused as one, below.
        read.ok().map(|upgrade| (upgrade.token, upgrade.conflicting_tokens))
    };
    if let Some((token, conflicting)) = token {
        let address = client.filter(|address| !address.is_loopback());
        let known = shared.node.knows_bearer(token.filter(|_| !conflicting), address).await;
        if let Err(refusal) = known {
            let refusal = HttpRefusal::from(refusal);
            let fields = fields(&parts);
            let origin = application::upgrade::origin(&head(&parts, &fields)).ok().flatten();
            notice::upgrade_refused(shared, &refusal, client, origin);
            let is_unknown = refusal.status == StatusCode::UNAUTHORIZED;
            let challenge = (header::WWW_AUTHENTICATE, "Bearer");
            return match is_unknown {
                true => refusal.header(challenge.0, challenge.1).into_response(),
                false => refusal.into_response(),
            };
        }
    }
    upgrade(shared, Request::from_parts(parts, body), &wanted)
}

/// Who is at the other end of the socket. An application that these routes are mounted in may know.
fn peer(parts: &Parts) -> Option<SocketAddr> {
    let ours = parts.extensions.get::<Handover>().map(|handover| handover.peer);
    ours.or_else(|| parts.extensions.get().map(|ConnectInfo(peer)| *peer))
}

/// Who a request comes from, where there is a socket.
pub(crate) fn client_of(config: &Config, parts: &Parts) -> Option<IpAddr> {
    peer(parts).map(|peer| client_address(config, peer, &parts.headers))
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
    parts: &mut Parts,
    wanted: &Wanted,
    client: Option<IpAddr>,
) -> Result<Response, HttpRefusal> {
    let upgrade = {
        let fields = fields(parts);
        let endpoint = wanted.endpoint();
        application::upgrade::read(&head(parts, &fields), &config.origins, endpoint)?
    };
    if shared.stopping.load(Ordering::Relaxed) {
        return Err(answer::stopping());
    }
    if shared.pressure() != Pressure::Low {
        return Err(answer::short_of_memory());
    }
    if shared.is_cut_off() {
        return Err(answer::cut_off());
    }
    let socket = socket(shared, parts)?;
    let guest = Guest {
        visit: shared.visit(config, client).map_err(answer::too_often)?,
        address: count(shared, config, &socket, client)?,
    };
    let response = response(&upgrade);
    let purpose = match wanted {
        Wanted::Echo => Purpose::Echo,
        Wanted::Endpoint(_) => {
            let id = shared.node.connection_id().map_err(|_| answer::no_entropy())?;
            let opening = upgrade.into_opening(id);
            // Whoever comes from this machine is everybody: a proxy that is not named, a tunnel.
            let address = client.filter(|address| !address.is_loopback());
            Purpose::Protocol(Opening { address, ..opening })
        }
    };
    if let Purpose::Protocol(opening) = &purpose {
        let address = client.map(tracing::field::display);
        tracing::debug!(connection = %opening.connection, address, "an upgrade");
    }
    match socket {
        Socket::Ours(handover) => handover.leave(purpose, guest),
        Socket::Theirs(mounted) => mounted.follow(Arc::clone(shared), purpose, guest),
    }
    Ok(response)
}

/// The place of a client at its address, where it is known. Who came to our own accept loop without
/// a proxy was counted when it came.
fn count(
    shared: &Shared,
    config: &Config,
    socket: &Socket,
    client: Option<IpAddr>,
) -> Result<Option<CountedAddress>, HttpRefusal> {
    let is_counted = match socket {
        Socket::Ours(handover) => !config.trusted_proxies.contains(handover.peer.ip()),
        Socket::Theirs(_) => false,
    };
    let Some(client) = client.filter(|_| !is_counted) else { return Ok(None) };
    shared.count_address(config, client).map_err(|_| answer::too_many_of_an_address())
}

fn socket(shared: &Shared, parts: &mut Parts) -> Result<Socket, HttpRefusal> {
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
