//! The routes inside somebody else's axum application, served by whatever serves that.
//!
//! The accept loop is theirs, so its limits are, too: a deadline for a request's head, the size of a
//! head, what happens without file descriptors. It must never keep a socket in hyper's hands: behind
//! the upgrade a worker has it, as with a gateway of our own.

use std::sync::Arc;
use std::time::Duration;

use application::node::Node;
use axum::Router;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use worker_tokio::{Purpose, Worker};

use crate::accept::{Begun, Guest, Permit, hand_over};
use crate::answer::{self, HttpRefusal};
use crate::gateway::{Config, Handle, watch_workers};
use crate::routes;
use crate::shared::Shared;
use crate::wire::Wire;

/// Roomkeeper in an application of somebody else's. Lives as long as the application serves.
pub struct Mount {
    shared: Arc<Shared>,
    watching: JoinHandle<()>,
}

impl Mount {
    /// Puts the routes together; `workers` must be running the shards of `node`. Of `config`,
    /// `connections_max` counts WebSockets only, and `handshake_timeout`, `internal_address` and
    /// `tls` mean nothing: who accepts decides. `connections_per_address_max` and
    /// `trusted_proxies` count where the application is served with axum's `ConnectInfo`, which
    /// says who has come.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn build(config: Config, node: Node, workers: Vec<Worker>) -> Self {
        let config = Config { internal_address: None, tls: None, ..config };
        let shared = Arc::new(Shared::new(config, node, workers));
        let watching = tokio::spawn(watch_workers(Arc::clone(&shared)));
        Self { shared, watching }
    }

    /// `/ws/v2/connect`, `/healthz`, `/readyz`, `/metrics` and `/api/v1/…`, without a fallback, to
    /// be merged into the application's own router or nested in it. The application must be served
    /// over plain TCP sockets of tokio, as `axum::serve` does, by HTTP/1.1.
    pub fn router(&self) -> Router {
        routes::mounted(&self.shared)
    }

    /// Reaches it while it serves.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::of(&self.shared)
    }

    /// Takes nobody new, tells every connection when to come back within `window`, and ends when
    /// all are gone, or a little behind the window's end. The application should serve until then.
    pub async fn drain(&self, window: Duration) {
        self.shared.drain(window).await;
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// A socket that hyper lets go of when it has written the answer.
pub(crate) struct Mounted {
    on_upgrade: OnUpgrade,
    permit: Permit,
}

impl Mounted {
    /// Takes a place for it.
    ///
    /// # Errors
    /// The HTTP answer, when there are as many as may be.
    pub(crate) fn new(shared: &Shared, on_upgrade: OnUpgrade) -> Result<Self, HttpRefusal> {
        let place = Arc::clone(&shared.permits).try_acquire_owned();
        let place = place.map_err(|_| answer::crowded())?;
        let metrics = Arc::clone(&shared.node.services().metrics);
        Ok(Self { on_upgrade, permit: Permit::new(place, Some(metrics), None) })
    }

    /// Waits for the socket and gives it to a worker.
    pub(crate) fn follow(self, shared: Arc<Shared>, purpose: Purpose, guest: Guest) {
        tokio::spawn(async move {
            let Self { on_upgrade, mut permit } = self;
            permit.receive(guest);
            // Whoever went before the answer was written has no socket any more.
            let Ok(upgraded) = on_upgrade.await else { return };
            let Some((stream, early)) = bare(upgraded) else {
                tracing::error!(
                    "a WebSocket was dropped: Roomkeeper's routes are served over something else \
                     than tokio's TcpStream; serve them by axum::serve over a TcpListener"
                );
                return;
            };
            // Small frames must not wait for an acknowledgement.
            if stream.set_nodelay(true).is_ok() {
                let begun = Begun { early: &early, answer: bytes::Bytes::new() };
                hand_over(&shared, Wire::Plain(stream), begun, purpose, permit).await;
            }
        });
    }
}

/// The socket beneath hyper, with what came behind the request: as `axum::serve` wraps it, or as a
/// bare connection of hyper's does.
fn bare(upgraded: Upgraded) -> Option<(TcpStream, bytes::Bytes)> {
    match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => Some((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
            Some((parts.io.into_inner(), parts.read_buf))
        }
    }
}
