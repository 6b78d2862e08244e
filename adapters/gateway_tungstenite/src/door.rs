//! Sockets in: a limit on connections, a deadline for the request's head, and an answer when the
//! process has no file descriptors left.
//!
//! No error of `accept` may end it.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use application::metrics::{EdgeRefusal, NodeMetrics};
use application::upgrade::{self, Endpoint, UpgradeRefusal};
use domain::codes::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tungstenite::handshake::server::Request;

use crate::gateway::Shared;
use crate::head::{self, Asked, NoRequest};
use crate::host::Upgraded;

/// For sockets that are turned away before anything of them is read.
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Retry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
/// Between attempts while no descriptor is to be had.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);
/// How long somebody who was refused may go on talking, and how much.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
const LEAVE_BYTES_MAX: u64 = 96 << 10;

/// A socket's place, counted for as long as it lives, wherever it is handed to.
struct Permit {
    _place: OwnedSemaphorePermit,
    metrics: Arc<NodeMetrics>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.metrics.edge.sockets.sub(1);
    }
}

/// Takes connections until it is aborted.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    // A descriptor kept for the moment when there is none left.
    let mut spare = File::open("/dev/null").ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => admit(&shared, stream),
            Err(error) if is_exhausted(&error) => {
                shared.node.services().metrics.edge.refused.add(EdgeRefusal::Descriptors, 1);
                // Given up to answer one client rather than leave it waiting.
                drop(spare.take());
                if let Ok(Ok((stream, _))) = timeout(Duration::ZERO, listener.accept()).await {
                    turn_away(stream);
                }
                spare = File::open("/dev/null").ok();
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The connection was gone before it was accepted; the next may be well.
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "accept failed");
            }
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM: Linux numbers, the same on every architecture.
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

fn admit(shared: &Arc<Shared>, stream: TcpStream) {
    let metrics = Arc::clone(&shared.node.services().metrics);
    // All places are waited for when it drains, so who comes then has another.
    let places = if shared.is_stopping() { &shared.drain_places } else { &shared.places };
    match Arc::clone(places).try_acquire_owned() {
        Ok(place) => {
            metrics.edge.sockets.add(1);
            let permit = Permit { _place: place, metrics };
            tokio::spawn(serve(Arc::clone(shared), stream, permit));
        }
        Err(_) => {
            metrics.edge.refused.add(EdgeRefusal::ConnectionLimit, 1);
            turn_away(stream);
        }
    }
}

/// The answer fits the socket's empty buffer; who sent a request in the meantime may see a reset
/// instead.
fn turn_away(stream: TcpStream) {
    // Past the runtime, which does not try to write before its driver has seen the socket.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(OVERLOADED);
    }
}

/// One request, and what becomes of its socket.
async fn serve(shared: Arc<Shared>, mut stream: TcpStream, permit: Permit) {
    // Small frames must not wait for an acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(asked) = timeout(shared.config.handshake_timeout, head::read(&mut stream)).await else {
        return;
    };
    let answer = match asked {
        Ok(Asked { request, early }) => match request.uri().path() {
            "/healthz" => head::line(200, "ok"),
            "/readyz" => match shared.unreadiness() {
                None => head::line(200, "ok"),
                Some(why) => head::line(503, why),
            },
            _ if shared.is_stopping() => refused_upgrade(&shared, &head::stopping()),
            "/ws/v2/connect" if shared.is_short_of_memory() => {
                shared.node.services().metrics.edge.refused.add(EdgeRefusal::Memory, 1);
                head::refused(&head::short_of_memory())
            }
            "/ws/v2/connect" => match connect(&shared, &request) {
                Ok((answer, opening)) => {
                    if stream.write_all(&answer).await.is_ok() {
                        let permit = Box::new(permit);
                        hand_over(&shared, stream, |stream| Upgraded {
                            stream,
                            early,
                            opening,
                            permit,
                        })
                        .await;
                    }
                    return;
                }
                Err(refused) => refused_upgrade(&shared, &refused),
            },
            _ => head::refused(&not_found()),
        },
        Err(NoRequest::Refused(_)) if shared.is_stopping() => {
            refused_upgrade(&shared, &head::stopping())
        }
        Err(NoRequest::Refused(refused)) => refused_upgrade(&shared, &refused),
        Err(NoRequest::Gone) => return,
    };
    // Bounded like the request; nobody has to read it.
    let _ = timeout(shared.config.handshake_timeout, stream.write_all(&answer)).await;
    let _ = stream.shutdown().await;
    // What is left unread would make the kernel cut the line before the answer is seen.
    let mut rest = stream.take(LEAVE_BYTES_MAX);
    let _ = timeout(LEAVE_TIMEOUT, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

/// The answer that makes it a WebSocket, and what its shard is told.
fn connect(
    shared: &Shared,
    request: &Request,
) -> Result<(Vec<u8>, application::shard::Opening), UpgradeRefusal> {
    let fields = head::fields(request);
    let upgrade =
        upgrade::read(&head::head(request, &fields), &shared.config.origins, Endpoint::V2)?;
    let answer = head::switching(&upgrade).ok_or_else(not_found)?;
    let id = shared.node.connection_id().map_err(|_| head::no_entropy())?;
    Ok((answer, upgrade.into_opening(id)))
}

fn not_found() -> UpgradeRefusal {
    let message = "nothing is here; WebSocket clients connect to /ws/v2/connect";
    UpgradeRefusal::new(404, ErrorCode::NotAvailable, message)
}

fn refused_upgrade(shared: &Shared, refused: &UpgradeRefusal) -> Vec<u8> {
    let why = match refused.status {
        403 => EdgeRefusal::Origin,
        503 if shared.is_stopping() => EdgeRefusal::Stopping,
        503 => EdgeRefusal::Entropy,
        _ => EdgeRefusal::Handshake,
    };
    shared.node.services().metrics.edge.refused.add(why, 1);
    head::refused(refused)
}

/// Gives a socket to a shard's thread: each in turn, except those that have ended.
async fn hand_over(
    shared: &Shared,
    stream: TcpStream,
    upgraded: impl FnOnce(std::net::TcpStream) -> Upgraded,
) {
    let Ok(stream) = stream.into_std() else { return };
    let mut upgraded = upgraded(stream);
    while let Some(running) = shared.next_shard() {
        match running.inlet.send(upgraded).await {
            Ok(()) => return,
            Err(back) => upgraded = back.0,
        }
    }
    tracing::error!("no thread is left for a connection");
}
