//! The gateway: its configuration, its listener, its life.
//!
//! It stops in order: first it takes nothing new and says so, then connections are drained, then it
//! listens no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use application::node::Node;
use application::origin::OriginPolicy;
use domain::rate_limit::Rate;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};

use crate::door;
use crate::host::{self, Running};

/// How the gateway treats connections.
#[derive(Clone, Debug)]
pub struct Config {
    /// From the first byte to the end of a request's head, at most.
    pub handshake_timeout: Duration,
    /// The most connections at one time.
    pub connections_max: usize,
    /// Which pages may open a WebSocket.
    pub origins: OriginPolicy,
    /// How long a closed connection may take to answer the close frame.
    pub close_timeout: Duration,
    /// How long a message may take to come.
    pub message_timeout: Duration,
    /// How long a queue may stay non-empty before its client counts as too slow.
    pub lag_max: Duration,
    /// How many bytes may wait for all connections of one shard together; near it the longest
    /// queues are refused first.
    pub outbound_total_bytes_max: usize,
    /// How many pings a client may send.
    pub pings: Rate,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            connections_max: 100_000,
            origins: OriginPolicy::default(),
            close_timeout: Duration::from_secs(5),
            message_timeout: Duration::from_secs(30),
            lag_max: Duration::from_secs(30),
            outbound_total_bytes_max: 128 << 20,
            pings: Rate::new(20, 100),
        }
    }
}

/// No thread or no runtime could be had.
#[derive(Debug, Error)]
#[error("a shard's thread could not be started")]
pub struct StartError(#[source] pub(crate) std::io::Error);

/// Why the gateway can't serve.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address can't be had.
    #[error("can't listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// A shard can't be run.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) node: Node,
    shards: Vec<Running>,
    next: AtomicUsize,
    pub(crate) places: Arc<Semaphore>,
    /// For those who come while it drains.
    pub(crate) drain_places: Arc<Semaphore>,
    stopping: AtomicBool,
}

/// Connections that the kernel completes before they are accepted.
const BACKLOG: u32 = 4_096;
/// Requests at one time while it drains.
const DRAIN_REQUESTS_MAX: usize = 64;
/// A thread that shows no sign of life for this long is stuck: it beats twice a second.
const SILENCE_MAX: Duration = Duration::from_secs(3);

impl Shared {
    /// The shard for the next connection.
    pub(crate) fn next_shard(&self) -> Option<&Running> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let (before, from) = self.shards.split_at(turn % self.shards.len().max(1));
        from.iter().chain(before).find(|running| running.is_running())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether so much memory is used that nobody new is let in; only a host that watches it knows.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        !self.node.services().admission.is_open()
    }

    /// Why new connections are not welcome, if they are not.
    pub(crate) fn unreadiness(&self) -> Option<&'static str> {
        let services = self.node.services();
        let now = services.ports.clock.now().monotonic;
        let silence_max = SILENCE_MAX.as_millis() as u64;
        let mut silences = services.metrics.shards.iter().filter_map(|it| it.silence_ms(now));
        if self.is_stopping() {
            Some("stopping")
        } else if !self.shards.iter().all(Running::is_running) {
            Some("a shard's thread has ended")
        } else if self.is_short_of_memory() {
            Some("memory is short")
        } else {
            silences.any(|ms| ms >= silence_max).then_some("a shard shows no sign of life")
        }
    }
}

/// A gateway that listens, with a thread for each shard of its node.
pub struct Gateway {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl Gateway {
    /// Listens on an address and starts a thread for each shard. In a tokio runtime with time and
    /// sockets, which takes connections up to the end of their upgrade.
    ///
    /// # Errors
    /// [`BindError`] says why it can't.
    pub fn bind(address: SocketAddr, config: Config, node: Node) -> Result<Self, BindError> {
        let listener = listen(address).map_err(|error| BindError::Listen(address, error))?;
        node.services().metrics.edge.sockets_max.set(config.connections_max as u64);
        let start = |mailbox| host::start(node.services(), Arc::clone(mailbox), config.clone());
        let shards = node.mailboxes().iter().map(start).collect::<Result<_, _>>()?;
        let shared = Shared {
            places: Arc::new(Semaphore::new(config.connections_max)),
            drain_places: Arc::new(Semaphore::new(DRAIN_REQUESTS_MAX)),
            config,
            node,
            shards,
            next: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Where it listens; tells the port when 0 was asked for.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is true, then drains: tells every connection when to come back within
    /// `window`, and ends when all are gone, or a little behind the window's end.
    pub async fn serve(self, mut stop: watch::Receiver<bool>, window: Duration) {
        let Self { listener, shared } = self;
        shared.node.services().metrics.edge.ready.set(1);
        let accepting = tokio::spawn(door::run(listener, Arc::clone(&shared)));
        // An error means that whoever could have asked to stop is gone.
        let _ = stop.wait_for(|stop| *stop).await;
        shared.stopping.store(true, Ordering::Relaxed);
        shared.node.services().metrics.edge.ready.set(0);
        shared.node.drain(window);
        let n_places = u32::try_from(shared.config.connections_max).unwrap_or(u32::MAX);
        // A little longer than the window: closing itself takes a moment.
        let limit = window + shared.config.close_timeout + Duration::from_secs(1);
        if tokio::time::timeout(limit, shared.places.acquire_many(n_places)).await.is_err() {
            tracing::warn!("connections are left at the end of the drain window");
        }
        accepting.abort();
        let _ = accepting.await;
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
