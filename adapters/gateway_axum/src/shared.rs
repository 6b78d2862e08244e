//! What all requests of a gateway share, and whether newcomers are welcome.
//!
//! Nothing here may wait but the drain.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use application::admission::Pressure;
use application::client_address::{AddressCounts, CountedAddress};
use application::metrics::{EdgeRefusal, ShardMetrics};
use application::node::Node;
use application::short_visits::{ShortVisits, Visit};
use domain::time::Monotonic;
use tokio::sync::Semaphore;
use worker_tokio::Worker;

use crate::gateway::Config;

/// Requests at one time to a server that drains: probes, and clients that have not heard of it.
pub(crate) const DRAIN_REQUESTS_MAX: usize = 64;

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
    short_visits: Arc<ShortVisits>,
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
            short_visits: Arc::default(),
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

    /// Treats requests that come from now on another way.
    pub(crate) fn replace_config(&self, change: impl FnOnce(&Config) -> Config) {
        let mut now = self.config.write().unwrap_or_else(PoisonError::into_inner);
        *now = Arc::new(change(&now));
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

    /// Lets a WebSocket of this address in, unless too many of it ended as soon as they had begun. Who
    /// comes from this machine is everybody: a proxy that is not named, a tunnel.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn visit(
        &self,
        config: &Config,
        address: Option<IpAddr>,
    ) -> Result<Option<Visit>, Duration> {
        let Some(address) = address.filter(|address| !address.is_loopback()) else {
            return Ok(None);
        };
        let (rate, services) = (config.short_visits_of_address, self.node.services());
        Visit::begin(&self.short_visits, address, rate, &services.ports.clock).map(Some)
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
        } else if self.is_cut_off() {
            Readiness::BackendAway
        } else if self.config().store.as_ref().is_some_and(|store| !store.is_there()) {
            Readiness::StoreAway
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

    /// Whether what the node needs on another machine is away.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.config().backend.as_ref().is_some_and(|backend| !backend.is_there())
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
    BackendAway,
    StoreAway,
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
            Self::BackendAway => "the broker is away",
            Self::StoreAway => "the store is away",
            Self::MemoryShort => "memory is short",
            Self::Exhausted => "no file descriptor was left for a connection",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use application::client_address::TrustedProxies;
    use application::origin::OriginPolicy;
    use application::ports::broker::MockBroker;
    use application::ports::clock::{MockClock, MockEntropy};
    use application::ports::presence::MockPresence;
    use application::ports::revocations::MockRevocations;
    use application::ports::token_verifier::MockTokenVerifier;
    use application::services::{Ports, Rules};
    use domain::rate_limit::Rate;
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
            seats: Arc::new(application::seats::NodeSeats::default()),
            peers: Arc::new(application::ports::NoPeers),
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
            backend: None,
            store: None,
            metrics_need_key: false,
            tls: None,
            trusted_proxies: TrustedProxies::default(),
            connections_per_address_max: 0,
            short_visits_of_address: Rate::per_minute(0),
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
            short_visits: Arc::default(),
            next_worker: AtomicUsize::new(0),
            started_at: Monotonic::default(),
            exhausted_ms: AtomicU64::new(0),
        })
    }

    /// N13: a worker that hangs.
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
                short_visits: Arc::default(),
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
