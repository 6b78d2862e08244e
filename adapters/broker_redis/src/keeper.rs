//! Keeps a connection to each server, and looks whether each is still what it was.
//!
//! A server that has become a replica, or another process, must not be spoken to for longer than a few seconds,
//! whatever it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, Value};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::broker::millis;
use crate::cluster::{self, Topology};
use crate::line::{ConnectError, Line, Retry, open, probe};
use crate::link::{Commands, Server};
use crate::replicate;
use crate::servers::{Layout, Place};
use crate::status::count;

/// How often a Cluster is asked who has which slots, and sentinels who the master is, though nothing seems wrong.
const LOOK_INTERVAL: Duration = Duration::from_secs(4);
/// The least time between two such questions.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A server that is kept.
struct Kept {
    server: Arc<Server>,
    task: AbortHandle,
}

impl Commands {
    /// Keeps all connections for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut kept = BTreeMap::new();
        if self.servers.layout() == Layout::One {
            self.adopt(&mut tasks, &mut kept, &Topology::first(Layout::One));
            // Each of them is endless.
            let _ = tasks.join_next().await;
            return;
        }
        let mut retry = Retry::new(&self.config, &self.entropy);
        loop {
            let asked_at = Instant::now();
            match self.ask_topology(&kept).await {
                Ok(topology) => {
                    retry.worked();
                    if **self.topology.borrow() != topology {
                        tracing::info!(
                            masters = topology.masters.len(),
                            "the cluster's slots are known"
                        );
                        self.adopt(&mut tasks, &mut kept, &topology);
                        self.topology.send_replace(Arc::new(topology));
                    }
                }
                Err(error) => retry.failed("cluster", &error).await,
            }
            let _ = timeout(LOOK_INTERVAL, self.moved.notified()).await;
            tokio::time::sleep_until(asked_at + LOOK_PAUSE).await;
        }
    }

    async fn ask_topology(&self, kept: &BTreeMap<String, Kept>) -> Result<Topology, ConnectError> {
        let mut known = Vec::new();
        let mut others: Vec<ConnectionAddr> = Vec::new();
        for Kept { server, .. } in kept.values() {
            if let Place::At(address) = &server.place {
                match server.line().and_then(|line| line.connection.server()) {
                    Some(connection) => known.push((connection, address.clone())),
                    None => others.push(address.clone()),
                }
            }
        }
        cluster::ask(&self.servers, &self.config, &known, &others).await
    }

    /// Keeps connections to these masters, and to no others.
    fn adopt(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        kept: &mut BTreeMap<String, Kept>,
        topology: &Topology,
    ) {
        let mut masters = Vec::with_capacity(topology.masters.len());
        for place in &topology.masters {
            let one = kept.entry(place.name()).or_insert_with(|| {
                let server = Server::new(place.clone(), &self.config);
                let (this, of_task) = (Arc::clone(self), Arc::clone(&server));
                let task = tasks.spawn(async move {
                    tokio::join!(this.keep(&of_task), replicate::run(&this, &of_task));
                });
                Kept { server, task }
            });
            masters.push(Arc::clone(&one.server));
        }
        kept.retain(|name, one| {
            let is_there = topology.masters.iter().any(|place| place.name() == *name);
            if !is_there {
                one.task.abort();
            }
            is_there
        });
        // Those that were ended before.
        while tasks.try_join_next().is_some() {}
        self.set_masters(masters, topology.slots.clone());
    }

    /// Keeps the connection to one server, never to end.
    async fn keep(&self, server: &Arc<Server>) {
        let mut retry = Retry::new(&self.config, &self.entropy);
        let name = server.place.name();
        loop {
            match self.connect(server).await {
                Ok(line) => {
                    tracing::info!(server = name, "connected to redis");
                    retry.worked();
                    let line = Arc::new(line);
                    server.set_line(&line);
                    self.review();
                    self.linked.notify_one();
                    self.watch(server, &line).await;
                    tracing::warn!(server = name, "the connection to redis is lost");
                }
                Err(error) => {
                    self.moved.notify_one();
                    retry.failed("commands", &error).await;
                }
            }
        }
    }

    /// Returns once the connection is given up.
    async fn watch(&self, server: &Arc<Server>, line: &Arc<Line>) {
        let mut looked_at = Instant::now();
        loop {
            let broken = tokio::select! {
                () = server.broken.notified() => Ok(()),
                () = sleep(self.config.probe_interval) => self.look(line, &mut looked_at).await,
            };
            if let Err(error) = broken {
                tracing::warn!(%error, "the server is given up");
                self.give_up(line);
            }
            if server.line().is_none_or(|here| !Arc::ptr_eq(&here, line)) {
                return;
            }
        }
    }

    async fn look(&self, line: &Line, looked_at: &mut Instant) -> Result<(), ConnectError> {
        let nonce = self.entropy.bits().unwrap_or(0);
        let asking = probe(&line.connection, &self.servers, &line.identity, nonce);
        timeout(self.config.answer_timeout, asking).await.map_err(|_| ConnectError::Timeout)??;
        if self.servers.sentinels().is_some()
            && looked_at.elapsed() >= LOOK_INTERVAL - self.config.probe_interval
        {
            *looked_at = Instant::now();
            // Sentinels that don't answer say nothing of the server.
            if let Ok(master) = self.servers.locate(&Place::Only, &self.config).await
                && master.to_string() != line.address
            {
                return Err(ConnectError::Another);
            }
        }
        Ok(())
    }

    pub(crate) async fn connect(&self, server: &Arc<Server>) -> Result<Line, ConnectError> {
        let within = self.config.answer_timeout;
        let line = open(&self.servers, server, &self.config, within, server.given_up()).await?;
        self.load_scripts(&line).await?;
        self.check(&line).await?;
        count(&self.status.connects, 1);
        Ok(line)
    }

    /// Looks whether the server does for us what scripts need.
    async fn check(&self, line: &Line) -> Result<(), ConnectError> {
        let mut command = redis::cmd("EVALSHA");
        let name = |part: &str| format!("{}:{{check}}:{part}", self.config.prefix);
        let keys = ["h", "l", "z", "s"].map(name);
        command.arg(self.scripts().check.get_hash()).arg(keys.len()).arg(&keys[..]);
        command.arg(self.check_channel());
        match line.ask(&command, self.config.answer_timeout).await {
            Ok(Value::BulkString(missing)) if !missing.is_empty() => {
                Err(ConnectError::Missing(String::from_utf8_lossy(&missing).into_owned()))
            }
            Err(error) if error.is_io_error() => Err(error.into()),
            Err(error) if crate::answers::code(&error) == Some("NOPERM") => Err(error.into()),
            // Another server of a Cluster has these keys, or something else is wrong that may pass.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// A channel on which nothing is said.
    fn check_channel(&self) -> String {
        format!("{}/{}:{{check}}", self.config.prefix, self.servers.database())
    }

    /// Connects once, to say what is wrong before anything depends on it.
    pub(crate) async fn try_connect(&self) -> Result<(), ConnectError> {
        let place = match self.servers.layout() {
            Layout::One => Place::Only,
            Layout::Cluster => {
                let topology = cluster::ask(&self.servers, &self.config, &[], &[]).await?;
                topology.masters.first().cloned().ok_or(ConnectError::Strange)?
            }
        };
        let server = Server::new(place, &self.config);
        tracing::debug!(within_ms = millis(self.config.answer_timeout), "redis is tried");
        let line = self.connect(&server).await?;
        // This connection is used for nothing else.
        let Some(mut connection) = line.connection.server() else { return Ok(()) };
        match connection.subscribe(self.check_channel()).await {
            Err(error) if crate::answers::code(&error) == Some("NOPERM") => {
                Err(ConnectError::Missing("SUBSCRIBE".to_owned()))
            }
            _ => Ok(()),
        }
    }
}
