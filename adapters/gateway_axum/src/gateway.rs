//! The gateway: its configuration, its listener, its life.
//!
//! It stops in order: first it takes nothing new and says so, then connections are drained, then it
//! listens no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use application::client_address::TrustedProxies;
use application::metrics::Recent;
use application::node::Node;
use application::origin::OriginPolicy;
use application::ports::Exposition;
use domain::documents::told::Endpoint;
use domain::rate_limit::Rate;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tls_rustls::Acceptor;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use worker_tokio::Worker;

use crate::accept::{self, Entrance};
use crate::api::ApiKey;
use crate::shared::{DRAIN_REQUESTS_MAX, Life, Readiness, Shared};
use crate::{monitoring, routes};

/// How the gateway treats requests.
#[derive(Clone, Debug)]
pub struct Config {
    /// From the first byte to the end of a request's head, at most.
    pub handshake_timeout: Duration,
    /// The most connections at one time, HTTP and WebSocket together.
    pub connections_max: usize,
    /// Which pages may open a WebSocket.
    pub origins: OriginPolicy,
    /// Whether `/ws/{client_id}` echoes.
    pub echo_endpoint: bool,
    /// Whether `/ws/client` is served.
    pub client_endpoint: bool,
    /// The endpoints of the documents that are served.
    pub endpoints: Vec<Endpoint>,
    /// Who may use the server API.
    pub api_keys: Vec<ApiKey>,
    /// The largest body of a publish over HTTP, in bytes.
    pub publish_bytes_max: usize,
    /// The largest body of a batch of them, in bytes.
    pub batch_bytes_max: usize,
    /// How fast one API key may be used; each message to each room counts.
    pub api_rate: Rate,
    /// Where the server API and what operators ask for are served, and nowhere else; none serves
    /// them on the public address.
    pub internal_address: Option<SocketAddr>,
    /// What `/metrics` shows; none answers 404.
    pub exposition: Option<Arc<dyn Exposition>>,
    /// Whether `/metrics` on the public address needs an API key.
    pub metrics_need_key: bool,
    /// Says whether what the node can't do without, a broker on another machine, is there; none where
    /// there is nothing of the kind.
    pub backend: Option<Probe>,
    /// Says whether what keeps durable rooms is there, where that is on another machine. While it is not,
    /// the node is not ready, and lets people in all the same: all else goes on.
    pub store: Option<Probe>,
    /// TLS on the public address; none speaks plain HTTP there.
    pub tls: Option<Acceptor>,
    /// The proxies that say whose request they pass on.
    pub trusted_proxies: TrustedProxies,
    /// The most connections of one client address at one time; 0 counts none.
    pub connections_per_address_max: u32,
    /// How many WebSockets of one client address may end within seconds of their beginning; more make it
    /// wait. 0 limits none.
    pub short_visits_of_address: Rate,
}

impl Default for Config {
    /// The limits of the binary, no API key, no origin but those of programs.
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            connections_max: 100_000,
            origins: OriginPolicy::default(),
            echo_endpoint: false,
            client_endpoint: true,
            endpoints: Vec::new(),
            api_keys: Vec::new(),
            publish_bytes_max: 128 << 10,
            batch_bytes_max: 1 << 20,
            api_rate: Rate::new(5_000, 10_000),
            internal_address: None,
            exposition: None,
            backend: None,
            store: None,
            metrics_need_key: false,
            tls: None,
            trusted_proxies: TrustedProxies::default(),
            connections_per_address_max: 0,
            short_visits_of_address: Rate::per_minute(60),
        }
    }
}

/// Says whether something is there. It must answer at once.
#[derive(Clone)]
pub struct Probe(Arc<dyn Fn() -> bool + Send + Sync>);

impl Probe {
    /// Asks this whenever somebody wants to know.
    #[must_use]
    pub fn new(is_there: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_there))
    }

    pub(crate) fn is_there(&self) -> bool {
        (self.0)()
    }
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Probe")
    }
}

/// Why the gateway can't listen.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process has the port.
    #[error("the address {0} is in use by another process")]
    InUse(SocketAddr),
    /// The system does not allow it.
    #[error("this user may not listen on {0}")]
    Denied(SocketAddr),
    /// Anything else.
    #[error("can't listen on {address}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A gateway that listens.
pub struct Gateway {
    listener: TcpListener,
    internal: Option<TcpListener>,
    shared: Arc<Shared>,
}

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4_096;
/// How long the last of them may take.
const LAST_REQUESTS_TIMEOUT: Duration = Duration::from_secs(1);

impl Gateway {
    /// Listens on an address; `workers` must be running the shards of `node`.
    ///
    /// # Errors
    /// [`BindError`] says why it can't.
    pub fn bind(
        address: SocketAddr,
        config: Config,
        node: Node,
        workers: Vec<Worker>,
    ) -> Result<Self, BindError> {
        let listener = listener_at(address)?;
        let internal = config.internal_address.map(listener_at).transpose()?;
        let shared = Arc::new(Shared::new(config, node, workers));
        Ok(Self { listener, internal, shared })
    }

    /// Where it listens; tells the port when 0 was asked for.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Reaches the gateway while it serves.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::of(&self.shared)
    }

    /// Where the server API and what operators ask for are served, if that is elsewhere.
    ///
    /// # Errors
    /// What the system says.
    pub fn internal_addr(&self) -> std::io::Result<Option<SocketAddr>> {
        self.internal.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Serves until `stop` is true, then drains: tells every connection when to come back within
    /// `window`, and ends when all are gone, or at the window's end. Until then it still answers
    /// how it is, and everything else that is new with 503.
    pub async fn serve(self, mut stop: watch::Receiver<bool>, window: Duration) {
        let Self { listener, internal, shared } = self;
        let (life, lives) = watch::channel(Life::Serving);
        let public = Entrance {
            listener,
            routers: routes::routers(&shared),
            permits: Arc::clone(&shared.permits),
            drain_permits: Arc::clone(&shared.drain_permits),
            is_public: true,
            tls: shared.config().tls.clone(),
        };
        let accepting = tokio::spawn(accept::run(public, Arc::clone(&shared), lives));
        // Serves to the end, whatever becomes of the public one.
        let (internal_life, internal_lives) = watch::channel(Life::Serving);
        let operating = internal.map(|listener| {
            let permits = Arc::new(Semaphore::new(INTERNAL_CONNECTIONS_MAX));
            let entrance = Entrance {
                listener,
                routers: routes::internal(&shared),
                drain_permits: Arc::clone(&permits),
                permits,
                is_public: false,
                tls: None,
            };
            tokio::spawn(accept::run(entrance, Arc::clone(&shared), internal_lives))
        });
        let watching = tokio::spawn(watch_workers(Arc::clone(&shared)));
        // An error means that whoever could have asked to stop is gone.
        let _ = stop.wait_for(|stop| *stop).await;
        // Before anybody hears of it, so that who comes from now on is told.
        shared.stopping.store(true, Ordering::Relaxed);
        let _ = life.send(Life::Draining);
        shared.drain(window).await;
        accepting.abort();
        let _ = accepting.await;
        let _ = life.send(Life::Ended);
        let last = shared.drain_permits.acquire_many(DRAIN_REQUESTS_MAX as u32);
        let _ = tokio::time::timeout(LAST_REQUESTS_TIMEOUT, last).await;
        let _ = internal_life.send(Life::Ended);
        if let Some(operating) = operating {
            operating.abort();
        }
        watching.abort();
    }
}

/// A gateway that serves, for whoever started it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// The node behind the gateway.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// Treats requests that come from now on by another configuration: origins, API keys and the
    /// deadline of a request's head. What the listener and the routes were built with stays:
    /// `connections_max`, `echo_endpoint`, `client_endpoint`, `endpoints`, the server API's largest bodies and rate, the internal
    /// address, TLS and the metrics.
    pub fn replace_config(&self, config: Config) {
        self.shared.replace_config(|now| Config {
            connections_max: now.connections_max,
            echo_endpoint: now.echo_endpoint,
            client_endpoint: now.client_endpoint,
            publish_bytes_max: now.publish_bytes_max,
            batch_bytes_max: now.batch_bytes_max,
            api_rate: now.api_rate,
            internal_address: now.internal_address,
            metrics_need_key: now.metrics_need_key,
            endpoints: now.endpoints.clone(),
            exposition: now.exposition.clone(),
            backend: now.backend.clone(),
            store: now.store.clone(),
            tls: now.tls.clone(),
            ..config
        });
    }

    /// Whether all workers run and show signs of life. A node with one that does not should be
    /// replaced.
    #[must_use]
    pub fn are_workers_running(&self) -> bool {
        self.shared.lost_workers().is_empty()
    }
}

/// The most connections of the internal address at one time.
const INTERNAL_CONNECTIONS_MAX: usize = 1_024;

/// Between two looks at the workers, and at what was counted.
const LOOK_INTERVAL: Duration = Recent::INTERVAL;

/// Says when a worker falls silent and when it is back, and keeps what rates are made of.
pub(crate) async fn watch_workers(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    let mut known: Vec<usize> = Vec::new();
    loop {
        interval.tick().await;
        let is_ready = shared.readiness() == Readiness::Ready;
        shared.node.services().metrics.edge.ready.set(u64::from(is_ready));
        monitoring::sample(&shared);
        let silent = shared.silent_workers();
        for worker in silent.iter().filter(|worker| !known.contains(worker)) {
            tracing::error!(worker, "a worker shows no sign of life");
        }
        for worker in known.iter().filter(|worker| !silent.contains(worker)) {
            tracing::warn!(worker, "a worker that was silent is back");
        }
        known = silent;
    }
}

fn listener_at(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => BindError::InUse(address),
        std::io::ErrorKind::PermissionDenied => BindError::Denied(address),
        _ => BindError::Other { address, source },
    })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
