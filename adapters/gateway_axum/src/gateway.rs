//! The gateway: its configuration, its listener, its life.
//!
//! It stops in order: first it takes nothing new and says so, then connections are drained, then it
//! listens no more.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use application::admission::Pressure;
use application::client_address::{AddressCounts, CountedAddress, TrustedProxies};
use application::metrics::{EdgeRefusal, Recent, ShardMetrics};
use application::node::Node;
use application::origin::OriginPolicy;
use application::ports::Exposition;
use domain::documents::told::Endpoint;
use domain::rate_limit::Rate;
use domain::time::Monotonic;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tls_rustls::Acceptor;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use worker_tokio::Worker;

use crate::accept::{self, Entrance};
use crate::api::ApiKey;
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
    /// TLS on the public address; none speaks plain HTTP there.
    pub tls: Option<Acceptor>,
    /// The proxies that say whose request they pass on.
    pub trusted_proxies: TrustedProxies,
    /// The most connections of one client address at one time; 0 counts none.
    pub connections_per_address_max: u32,
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
            metrics_need_key: false,
            tls: None,
            trusted_proxies: TrustedProxies::default(),
            connections_per_address_max: 0,
        }
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
    /// For those who ask how a server is that takes nobody: one that drains, or that is short of
    /// memory.
    pub(crate) drain_permits: Arc<Semaphore>,
    pub(crate) stopping: AtomicBool,
    pub(crate) addresses: Arc<AddressCounts>,
    next_worker: AtomicUsize,
    started_at: Monotonic,
    /// When the system last had no descriptor for a socket, in milliseconds of the node's clock; 0
    /// if never.
    exhausted_ms: AtomicU64,
}

impl Shared {
    pub(crate) fn new(config: Config, node: Node, workers: Vec<Worker>) -> Self {
        let services = node.services();
        services.metrics.edge.sockets_max.set(config.connections_max as u64);
        Self {
            started_at: services.ports.clock.now().monotonic,
            permits: Arc::new(Semaphore::new(config.connections_max)),
            drain_permits: Arc::new(Semaphore::new(DRAIN_REQUESTS_MAX)),
            config: RwLock::new(Arc::new(config)),
            node,
            workers,
            stopping: AtomicBool::new(false),
            addresses: Arc::default(),
            next_worker: AtomicUsize::new(0),
            exhausted_ms: AtomicU64::new(0),
        }
    }

    /// Takes nobody new, tells all connections to come back within `window` and waits until they
    /// are gone.
    pub(crate) async fn drain(&self, window: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        self.node.services().metrics.edge.ready.set(0);
        self.node.drain(window);
        // A little longer than the window: closing itself takes a moment.
        let limit = window + Duration::from_secs(6);
        let n_permits = u32::try_from(self.config().connections_max).unwrap_or(u32::MAX);
        let all = self.permits.acquire_many(n_permits);
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("connections are left at the end of the drain window");
        }
    }

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

    /// The place of a connection at its client's address; none where addresses are not limited.
    ///
    /// # Errors
    /// The address has as many as it may have.
    pub(crate) fn count_address(
        &self,
        config: &Config,
        address: IpAddr,
    ) -> Result<Option<CountedAddress>, EdgeRefusal> {
        match config.connections_per_address_max {
            0 => Ok(None),
            max => self.addresses.admit(address, max).map(Some).ok_or(EdgeRefusal::AddressLimit),
        }
    }

    /// For how long it has been there.
    pub(crate) fn uptime(&self) -> Duration {
        self.node.services().ports.clock.now().monotonic.since(self.started_at)
    }

    /// Whether new connections are welcome. Members of a worker that has ended get nothing, and
    /// those of a silent one get it too late.
    pub(crate) fn readiness(&self) -> Readiness {
        if self.stopping.load(Ordering::Relaxed) {
            Readiness::Stopping
        } else if !self.workers.iter().all(Worker::is_running) {
            Readiness::WorkerEnded
        } else if !self.silent_workers().is_empty() {
            Readiness::WorkerSilent
        } else if self.pressure() != Pressure::Low {
            Readiness::MemoryShort
        } else if self.was_exhausted_lately() {
            Readiness::Exhausted
        } else {
            Readiness::Ready
        }
    }

    /// Notes that the system had no descriptor for a socket.
    pub(crate) fn is_exhausted_now(&self) {
        let now = self.node.services().ports.clock.now().monotonic;
        self.exhausted_ms.store(now.as_millis().max(1), Ordering::Relaxed);
    }

    fn was_exhausted_lately(&self) -> bool {
        let at = self.exhausted_ms.load(Ordering::Relaxed);
        let now = self.node.services().ports.clock.now().monotonic;
        at > 0 && now.since(Monotonic::from_millis(at)) < EXHAUSTED_SPAN
    }

    /// How short memory is.
    pub(crate) fn pressure(&self) -> Pressure {
        self.node.services().admission.pressure()
    }

    /// The numbers of the workers that show no sign of life.
    pub(crate) fn silent_workers(&self) -> Vec<usize> {
        let services = self.node.services();
        let now = services.ports.clock.now().monotonic;
        let silent = |shard: &ShardMetrics| {
            shard.silence_ms(now).is_some_and(|ms| ms >= SILENCE_MAX.as_millis() as u64)
        };
        let shards = services.metrics.shards.iter().enumerate();
        shards.filter(|(_, shard)| silent(shard)).map(|(number, _)| number).collect()
    }

    /// The numbers of the workers that have ended or show no sign of life.
    pub(crate) fn lost_workers(&self) -> Vec<usize> {
        let ended = self.workers.iter().enumerate().filter(|(_, worker)| !worker.is_running());
        let mut lost: Vec<usize> = ended.map(|(number, _)| number).collect();
        lost.extend(self.silent_workers());
        lost.sort_unstable();
        lost.dedup();
        lost
    }
}

/// A worker that shows no sign of life for this long is stuck: it beats twice a second.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// For this long a server that had no descriptor is called short of them: who asks got one.
const EXHAUSTED_SPAN: Duration = Duration::from_secs(5);

/// Whether new connections are welcome, or why not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Readiness {
    Ready,
    Stopping,
    WorkerEnded,
    WorkerSilent,
    MemoryShort,
    Exhausted,
}

impl Readiness {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Ready => "ok",
            Self::Stopping => "stopping",
            Self::WorkerEnded => "a worker has ended",
            Self::WorkerSilent => "a worker shows no sign of life",
            Self::MemoryShort => "memory is short",
            Self::Exhausted => "no file descriptor was left for a connection",
        }
    }
}

/// A gateway that listens.
pub struct Gateway {
    listener: TcpListener,
    internal: Option<TcpListener>,
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
        let mut now = self.shared.config.write().unwrap_or_else(PoisonError::into_inner);
        let Config { connections_max, echo_endpoint, client_endpoint, .. } = **now;
        let Config { publish_bytes_max, batch_bytes_max, api_rate, .. } = **now;
        let (internal_address, metrics_need_key) = (now.internal_address, now.metrics_need_key);
        *now = Arc::new(Config {
            connections_max,
            echo_endpoint,
            client_endpoint,
            publish_bytes_max,
            batch_bytes_max,
            api_rate,
            internal_address,
            metrics_need_key,
            endpoints: now.endpoints.clone(),
            exposition: now.exposition.clone(),
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
            inbox: None,
            moderation: None,
            erasure: None,
            authorizer: None,
            revocations: Arc::new(MockRevocations::new()),
            spent_tokens: Arc::new(application::ports::NoSpentTokens),
            matches: Arc::new(application::ports::NoMatches),
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

    fn clock_at(now: Now) -> MockClock {
        let mut clock = MockClock::new();
        clock.expect_now().returning(move || now);
        clock
    }

    fn running() -> Worker {
        start(&node(clock_at(Now::default())))
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
        shared_with(are_running, |_| {})
    }

    /// The same with another configuration.
    pub(crate) fn shared_with(
        are_running: &[bool],
        change: impl FnOnce(&mut Config),
    ) -> Arc<Shared> {
        let workers = are_running.iter().map(|run| if *run { running() } else { ended() });
        let mut config = Config {
            handshake_timeout: Duration::from_secs(5),
            connections_max: 10,
            origins: OriginPolicy::default(),
            echo_endpoint: false,
            client_endpoint: true,
            endpoints: Vec::new(),
            api_keys: Vec::new(),
            publish_bytes_max: 1_000,
            batch_bytes_max: 2_000,
            api_rate: Rate::new(0, 1),
            internal_address: None,
            exposition: None,
            metrics_need_key: false,
            tls: None,
            trusted_proxies: TrustedProxies::default(),
            connections_per_address_max: 0,
        };
        change(&mut config);
        Arc::new(Shared {
            config: RwLock::new(Arc::new(config)),
            node: node(clock_at(Now::default())),
            workers: workers.collect(),
            permits: Arc::new(Semaphore::new(10)),
            drain_permits: Arc::new(Semaphore::new(1)),
            stopping: AtomicBool::new(false),
            addresses: Arc::default(),
            next_worker: AtomicUsize::new(0),
            started_at: Monotonic::default(),
            exhausted_ms: AtomicU64::new(0),
        })
    }

    #[test]
    fn a_worker_without_a_sign_of_life_for_three_seconds_makes_the_node_not_ready() {
        let shared = shared(&[true]);
        assert_eq!(shared.readiness(), Readiness::Ready);
        let at = |ms| Now { monotonic: Monotonic::from_millis(ms), ..Now::default() };
        for (now, readiness) in [(3_999, Readiness::Ready), (4_000, Readiness::WorkerSilent)] {
            let late = Shared {
                config: RwLock::new(shared.config()),
                node: node(clock_at(at(now))),
                workers: Vec::new(),
                permits: Arc::clone(&shared.permits),
                drain_permits: Arc::clone(&shared.drain_permits),
                stopping: AtomicBool::new(false),
                addresses: Arc::default(),
                next_worker: AtomicUsize::new(0),
                started_at: Monotonic::default(),
                exhausted_ms: AtomicU64::new(0),
            };
            late.node.services().metrics.shards[0].beat_ms.set(1_000);
            assert_eq!(late.readiness(), readiness, "{now}");
            let lost: &[usize] = if readiness == Readiness::Ready { &[] } else { &[0] };
            assert_eq!(late.lost_workers(), lost);
        }
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
