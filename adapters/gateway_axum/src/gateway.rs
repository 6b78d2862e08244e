//! The gateway: its configuration, its listener, its life.
//!
//! It stops in order: first it takes nothing new and says so, then connections are drained, then it
//! listens no more.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use application::node::Node;
use application::origin::OriginPolicy;
use domain::id::ClientId;
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use worker_tokio::Worker;

use crate::accept;
use crate::routes;

/// A key of the server API.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Names the caller; its `msg_id`s are its own.
    pub name: ClientId,
    /// The SHA-256 of the secret: the secret itself is not kept.
    pub(crate) digest: [u8; 32],
}

impl ApiKey {
    /// A key by its name and secret.
    #[must_use]
    pub fn new(name: ClientId, secret: &str) -> Self {
        Self { name, digest: Sha256::digest(secret.as_bytes()).into() }
    }
}

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
    /// Who may use the server API.
    pub api_keys: Vec<ApiKey>,
    /// The largest body of a publish over HTTP, in bytes.
    pub publish_bytes_max: usize,
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

/// How far a gateway is. It only goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
pub(crate) enum Life {
    /// Everybody is welcome.
    Serving,
    /// Those who were there are told to go; others are told that it stops.
    Draining,
    /// It listens no more.
    Ended,
}

/// What all requests share.
pub(crate) struct Shared {
    /// Held to clone or to replace the `Arc`, once per request; never across anything that waits.
    config: RwLock<Arc<Config>>,
    pub(crate) node: Node,
    pub(crate) workers: Vec<Worker>,
    pub(crate) permits: Arc<Semaphore>,
    /// For those who ask how a draining server is.
    pub(crate) drain_permits: Arc<Semaphore>,
    pub(crate) stopping: AtomicBool,
    next_worker: AtomicUsize,
}

impl Shared {
    /// How requests are treated now. One request asks once, so that it meets one configuration.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The worker for the next connection: each in turn, so that all are equally busy, except
    /// those that have ended.
    pub(crate) fn next_worker(&self) -> Option<&Worker> {
        let turn = self.next_worker.fetch_add(1, Ordering::Relaxed);
        let (before, from) = self.workers.split_at(turn % self.workers.len().max(1));
        from.iter().chain(before).find(|worker| worker.is_running())
    }

    /// Whether the shards of all workers are run: members of one that has ended get nothing.
    pub(crate) fn are_workers_running(&self) -> bool {
        self.workers.iter().all(Worker::is_running)
    }
}

/// A gateway that listens.
pub struct Gateway {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 4_096;
/// Requests at one time to a server that drains: probes, and clients that have not heard of it.
const DRAIN_REQUESTS_MAX: usize = 64;
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
        let listener = listen(address).map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => BindError::InUse(address),
            std::io::ErrorKind::PermissionDenied => BindError::Denied(address),
            _ => BindError::Other { address, source },
        })?;
        let permits = Arc::new(Semaphore::new(config.connections_max));
        let stopping = AtomicBool::new(false);
        let next_worker = AtomicUsize::new(0);
        let config = RwLock::new(Arc::new(config));
        let drain_permits = Arc::new(Semaphore::new(DRAIN_REQUESTS_MAX));
        let shared =
            Shared { config, node, workers, permits, drain_permits, stopping, next_worker };
        Ok(Self { listener, shared: Arc::new(shared) })
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
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Serves until `stop` is true, then drains: tells every connection when to come back within
    /// `window`, and ends when all are gone, or at the window's end. Until then it still answers
    /// how it is, and everything else that is new with 503.
    pub async fn serve(self, mut stop: watch::Receiver<bool>, window: Duration) {
        let Self { listener, shared } = self;
        let routers = routes::routers(&shared);
        let (life, lives) = watch::channel(Life::Serving);
        let accepting = tokio::spawn(accept::run(listener, routers, Arc::clone(&shared), lives));
        // An error means that whoever could have asked to stop is gone.
        let _ = stop.wait_for(|stop| *stop).await;
        shared.stopping.store(true, Ordering::Relaxed);
        let _ = life.send(Life::Draining);
        shared.node.drain(window);
        // A little longer than the window: closing itself takes a moment.
        let limit = window + Duration::from_secs(6);
        let n_permits = u32::try_from(shared.config().connections_max).unwrap_or(u32::MAX);
        let all = shared.permits.acquire_many(n_permits);
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("connections are left at the end of the drain window");
        }
        accepting.abort();
        let _ = accepting.await;
        let _ = life.send(Life::Ended);
        let last = shared.drain_permits.acquire_many(DRAIN_REQUESTS_MAX as u32);
        let _ = tokio::time::timeout(LAST_REQUESTS_TIMEOUT, last).await;
    }
}

/// A gateway that serves, for whoever started it.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// The node behind the gateway.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// Treats requests that come from now on by another configuration: origins, API keys and the
    /// deadline of a request's head. What the listener and the routes were built with stays:
    /// `connections_max`, `echo_endpoint` and `publish_bytes_max`.
    pub fn replace_config(&self, config: Config) {
        let mut now = self.shared.config.write().unwrap_or_else(PoisonError::into_inner);
        let Config { connections_max, echo_endpoint, publish_bytes_max, .. } = **now;
        *now = Arc::new(Config { connections_max, echo_endpoint, publish_bytes_max, ..config });
    }

    /// Whether all workers run. A node with one that has ended should be replaced.
    #[must_use]
    pub fn are_workers_running(&self) -> bool {
        self.shared.are_workers_running()
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use application::ports::broker::MockBroker;
    use application::ports::clock::{MockClock, MockEntropy};
    use application::ports::presence::MockPresence;
    use application::ports::revocations::MockRevocations;
    use application::ports::token_verifier::MockTokenVerifier;
    use application::services::{Ports, Rules};
    use domain::time::Now;
    use std::time::Instant;
    use worker_tokio::SystemClock;

    fn node(clock: MockClock) -> Node {
        let ports = Ports {
            broker: Arc::new(MockBroker::new()),
            presence: Arc::new(MockPresence::new()),
            token_verifier: Arc::new(MockTokenVerifier::new()),
            session_tickets: Arc::new(application::ports::NoTickets),
            authorizer: None,
            revocations: Arc::new(MockRevocations::new()),
            clock: Arc::new(clock),
            entropy: Arc::new(MockEntropy::new()),
        };
        Node::build(ports, Rules::default(), 1)
    }

    fn start(node: &Node) -> Worker {
        let (services, mailbox) = (node.services(), Arc::clone(&node.mailboxes()[0]));
        let clock = Arc::new(SystemClock::start());
        Worker::start(services, mailbox, clock, worker_tokio::Config::default()).unwrap()
    }

    fn running() -> Worker {
        let mut clock = MockClock::new();
        clock.expect_now().returning(Now::default);
        start(&node(clock))
    }

    /// A worker whose shard panics as soon as it asks for the time.
    fn ended() -> Worker {
        let worker = start(&node(MockClock::new()));
        let begun = Instant::now();
        while worker.is_running() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the worker goes on");
            std::thread::yield_now();
        }
        worker
    }

    /// What requests share, with workers of which some have ended.
    pub(crate) fn shared(are_running: &[bool]) -> Arc<Shared> {
        let workers = are_running.iter().map(|run| if *run { running() } else { ended() });
        let config = Config {
            handshake_timeout: Duration::from_secs(5),
            connections_max: 10,
            origins: OriginPolicy::default(),
            echo_endpoint: false,
            api_keys: Vec::new(),
            publish_bytes_max: 1_000,
        };
        Arc::new(Shared {
            config: RwLock::new(Arc::new(config)),
            node: node(MockClock::new()),
            workers: workers.collect(),
            permits: Arc::new(Semaphore::new(10)),
            drain_permits: Arc::new(Semaphore::new(1)),
            stopping: AtomicBool::new(false),
            next_worker: AtomicUsize::new(0),
        })
    }

    fn turns(are_running: &[bool]) -> Vec<Option<usize>> {
        let shared = shared(are_running);
        let turn = |_| {
            let next = shared.next_worker()?;
            shared.workers.iter().position(|worker| std::ptr::eq(worker, next))
        };
        (0..4).map(turn).collect()
    }

    #[test]
    fn workers_take_turns_and_one_that_has_ended_is_passed_over() {
        assert_eq!(turns(&[true, true]), [Some(0), Some(1), Some(0), Some(1)]);
        assert_eq!(turns(&[true, false]), [Some(0); 4]);
        assert_eq!(turns(&[false, true]), [Some(1); 4]);
        assert_eq!(turns(&[false]), [None; 4]);
        assert_eq!(turns(&[]), [None; 4]);
    }
}
