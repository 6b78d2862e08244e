//! A worker: its thread, its runtime, and the way in for accepted sockets.
//!
//! A worker ends when its inlet is closed and all its connections are gone; it must never take
//! the process down with it.

use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use application::mailbox::Mailbox;
use application::node::Node;
use application::services::Services;
use application::shard::Opening;
use bytes::Bytes;
use domain::rate_limit::Rate;
use thiserror::Error;
use tls_rustls::Session;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

use crate::clock::SystemClock;
use crate::core::{Begun, Core};
use crate::echo::{self, Wire};

/// How a worker treats its sockets.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a closed connection may take to answer the close frame.
    pub close_timeout: Duration,
    /// How long a fragmented message may take.
    pub message_timeout: Duration,
    /// How long a queue may stay non-empty before its client counts as too slow.
    pub lag_max: Duration,
    /// How many bytes may wait for all connections of this worker together; near it the longest
    /// queues are refused first.
    pub outbound_total_bytes_max: usize,
    /// How many pings a client may send.
    pub pings: Rate,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            close_timeout: Duration::from_secs(5),
            message_timeout: Duration::from_secs(30),
            lag_max: Duration::from_secs(30),
            outbound_total_bytes_max: 128 << 20,
            pings: Rate::new(20, 100),
        }
    }
}

/// What an upgraded socket is for.
#[derive(Debug)]
pub enum Purpose {
    /// The protocol, through the shard.
    Protocol(Opening),
    /// Every message comes back as it is, without the shard.
    Echo,
}

/// An upgraded socket.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, non-blocking.
    pub stream: TcpStream,
    /// The TLS session that was begun on it, with nothing left to send.
    pub tls: Option<Box<Session>>,
    /// Bytes that came behind the upgrade request.
    pub early: Bytes,
    /// What is to be sent before anything else: the answer to that request, if it was not sent. Only
    /// without TLS and for [`Purpose::Protocol`].
    pub answer: Bytes,
    /// What it is for.
    pub purpose: Purpose,
    /// Counts the connection at its host for as long as it lives.
    pub permit: Option<Box<dyn std::any::Any + Send>>,
}

/// Why a worker could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// No thread could be had.
    #[error("a worker's thread could not be started")]
    Thread(#[source] std::io::Error),
    /// No runtime could be had.
    #[error("a worker's runtime could not be started")]
    Runtime(#[source] std::io::Error),
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    inlet: mpsc::Sender<Accepted>,
    connections: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// Sockets that may wait for a worker to take them.
const INLET_MAX: usize = 1_024;

impl Worker {
    /// Starts a thread that runs the shard behind `mailbox`. `clock` must be the one behind the
    /// services' port.
    ///
    /// # Errors
    /// [`StartError`] when the machine gives no thread or no runtime.
    pub fn start(
        services: Arc<Services>,
        mailbox: Arc<Mailbox>,
        clock: Arc<SystemClock>,
        config: Config,
    ) -> Result<Self, StartError> {
        let (inlet, accepted) = mpsc::channel(INLET_MAX);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        // The runtime is not `Send`, so it is built where it runs and says how that went.
        let (ready, is_ready) = std::sync::mpsc::channel();
        let body = move || match runtime() {
            Err(error) => drop(ready.send(Err(error))),
            Ok(runtime) => {
                drop(ready.send(Ok(())));
                let shard = Node::shard(&services, &mailbox);
                let core = Rc::new(Core::new(shard, &services, clock, config, count));
                runtime.block_on(Core::run(core, accepted));
            }
        };
        let name = format!("worker-{}", mailbox_name());
        let thread = std::thread::Builder::new().name(name).spawn(body);
        let thread = thread.map_err(StartError::Thread)?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(Self { inlet, connections, thread }),
            Ok(Err(error)) => Err(StartError::Runtime(error)),
            Err(_) => Err(StartError::Runtime(std::io::Error::other("the thread ended"))),
        }
    }

    /// Starts one thread for each shard of a node, as [`start`](Self::start) does.
    ///
    /// # Errors
    /// [`StartError`] when the machine gives no thread or no runtime; those that run already end.
    pub fn start_all(
        node: &Node,
        clock: &Arc<SystemClock>,
        config: &Config,
    ) -> Result<Vec<Self>, StartError> {
        let start = |mailbox| {
            let (services, clock) = (node.services(), Arc::clone(clock));
            Self::start(services, Arc::clone(mailbox), clock, config.clone())
        };
        node.mailboxes().iter().map(start).collect()
    }

    /// Hands a socket over. Answers it back when the worker takes no more.
    ///
    /// # Errors
    /// The socket, when the worker has ended.
    pub async fn take(&self, accepted: Accepted) -> Result<(), Accepted> {
        self.inlet.send(accepted).await.map_err(|refused| refused.0)
    }

    /// Whether it takes sockets; never again once its thread has ended, by a panic for instance.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.inlet.is_closed() && !self.thread.is_finished()
    }

    /// How many connections it has.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Takes no more sockets and waits until all connections are gone.
    pub fn join(self) {
        drop(self.inlet);
        if self.thread.join().is_err() {
            tracing::error!("a worker's thread panicked");
        }
    }
}

fn mailbox_name() -> usize {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    STARTED.fetch_add(1, Ordering::Relaxed)
}

fn runtime() -> std::io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// Starts what an accepted socket is for.
pub(crate) fn begin(core: &Rc<Core>, accepted: Accepted) {
    let Accepted { stream, tls, early, answer, purpose, permit } = accepted;
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a socket can't be used");
            return;
        }
    };
    match purpose {
        Purpose::Protocol(opening) => {
            core.open(stream, tls, Begun { early: &early, answer }, opening, permit);
        }
        Purpose::Echo => echo::start(core, Wire::new(stream, tls), &early, permit),
    }
}
