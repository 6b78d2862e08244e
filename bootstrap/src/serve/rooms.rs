//! Where rooms are: in this process, or in a Redis that several nodes share.
//!
//! Nothing behind this file may know which.

use std::sync::Arc;

#[cfg(feature = "redis")]
use application::mailbox::Control;
use application::node::Node;
use application::ports::{
    Archive, Broker, Clock, Erasure, NoPeers, Peers, Presence, Revocations, Seats, Succession,
};
use application::seats::NodeSeats;
use broker_memory::MemoryBroker;
#[cfg(feature = "redis")]
use broker_redis::{
    DurableLog, KeptRevocations, RedisBroker, RedisPeers, RedisRevocations, RedisSeats,
    RedisSpentTokens, StartError,
};
use gateway_axum::Probe;
use tokio::task::JoinHandle;
use worker_tokio::SystemEntropy;

use super::storage::Remembered;
use super::{ServeError, SharedArchive, SharedLives};
use crate::exit::Exit;
use crate::memory::Budgets;
use crate::settings::Settings;

/// The broker, and everything else that is the same thing.
pub enum Rooms {
    /// In this process.
    Memory(Arc<MemoryBroker>),
    /// In Redis.
    #[cfg(feature = "redis")]
    Redis(Shared),
}

/// What a Redis holds for all nodes.
#[cfg(feature = "redis")]
pub struct Shared {
    /// Rooms and presence.
    pub broker: Arc<RedisBroker>,
    /// What was taken back.
    pub revocations: Arc<RedisRevocations>,
    /// Which connections may be there for a user.
    pub seats: Arc<RedisSeats>,
    /// The other nodes.
    pub peers: Arc<RedisPeers>,
}

impl Rooms {
    /// The one that the settings ask for. Where rooms are shared an archive is of use only with `lives`, which
    /// several nodes can write.
    ///
    /// # Errors
    /// [`ServeError`] when this build has none such, or its settings can't be meant.
    pub fn build(
        settings: &Settings,
        budgets: &Budgets,
        archive: SharedArchive,
        lives: SharedLives,
    ) -> Result<Self, ServeError> {
        if settings.redis.url.is_some() {
            return Self::in_redis(settings, archive.zip(lives));
        }
        let config = broker_memory::Config {
            log_bytes_max: budgets.log_bytes,
            commit_bytes_max: budgets.commit_bytes,
            dedup_entries_max: budgets.dedup_entries,
            ..broker_memory::Config::default()
        };
        let entropy = Arc::new(SystemEntropy::default());
        Ok(Self::Memory(MemoryBroker::build(config, entropy, archive)))
    }

    #[cfg(feature = "redis")]
    fn in_redis(
        settings: &Settings,
        log: Option<(Arc<dyn Archive>, Arc<dyn Succession>)>,
    ) -> Result<Self, ServeError> {
        use std::time::Duration;

        let redis = &settings.redis;
        let Some(url) = &redis.url else { unreachable!("an address is set") };
        let config = broker_redis::Config {
            password: redis.password.clone(),
            sentinel_username: (!redis.sentinel_username.is_empty())
                .then(|| redis.sentinel_username.clone()),
            sentinel_password: redis.sentinel_password.clone(),
            authority: authority(redis.ca_file.as_deref())?,
            replicas: redis.replicas,
            replication_timeout: Duration::from_millis(redis.replication_timeout_ms),
            prefix: redis.prefix.clone(),
            answer_timeout: Duration::from_millis(redis.answer_timeout_ms),
            lease: Duration::from_millis(redis.lease_ms),
            leave_grace: Duration::from_millis(redis.leave_grace_ms),
            ..broker_redis::Config::new(url.clone())
        };
        let log = log.map(|(archive, lives)| DurableLog { lives, archive });
        let is_durable = log.is_some();
        let broker = RedisBroker::build_over(config, Arc::new(SystemEntropy::default()), log);
        let broker = broker
            .map_err(|error| ServeError::Part(format!("redis.url: {error}"), Exit::Settings))?;
        if is_durable {
            tracing::info!(
                "rooms are kept by Redis, and those of durable namespaces in Postgres, too"
            );
        } else {
            tracing::warn!(
                "rooms are kept by Redis and none of them is durable without store.url; letters and matches are of \
                 this node alone, and so is who was muted or banned while it was away"
            );
        }
        let span = Duration::from_millis(settings.auth.revocation_age_ms);
        let revocations = RedisRevocations::build(&broker, span);
        let seats = RedisSeats::build(&broker);
        let peers = RedisPeers::build(&broker);
        Ok(Self::Redis(Shared { broker, revocations, seats, peers }))
    }

    #[cfg(not(feature = "redis"))]
    fn in_redis(
        _: &Settings,
        _: Option<(Arc<dyn Archive>, Arc<dyn Succession>)>,
    ) -> Result<Self, ServeError> {
        let text = "redis.url is set, but this build has no Redis adapter (feature redis)";
        Err(ServeError::Part(text.to_owned(), Exit::Settings))
    }

    /// Tries what it needs, before anybody is let in.
    ///
    /// # Errors
    /// [`ServeError`] when it can never be of use as it is set up, or is away and a start without it is to fail.
    pub async fn try_out(&self, settings: &Settings) -> Result<&Self, ServeError> {
        match self {
            Self::Memory(_) => {
                // Nothing here is anywhere else.
                let _ = settings;
                Ok(self)
            }
            #[cfg(feature = "redis")]
            Self::Redis(shared) => match shared.broker.try_connect().await {
                Ok(()) => Ok(self),
                Err(StartError::Away(error)) if !settings.redis.required => {
                    tracing::warn!(error, "redis is away; this node is not ready until it answers");
                    Ok(self)
                }
                Err(error) => {
                    let text = format!("redis.url: redis can't be used: {error}");
                    Err(ServeError::Part(text, Exit::Settings))
                }
            },
        }
    }

    /// Its name for people.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            #[cfg(feature = "redis")]
            Self::Redis(_) => "redis",
        }
    }

    /// The port of publishing and reading.
    #[must_use]
    pub fn broker(&self) -> Arc<dyn Broker> {
        match self {
            Self::Memory(broker) => Arc::clone(broker) as _,
            #[cfg(feature = "redis")]
            Self::Redis(shared) => Arc::clone(&shared.broker) as _,
        }
    }

    /// The port of who is where.
    #[must_use]
    pub fn presence(&self) -> Arc<dyn Presence> {
        match self {
            Self::Memory(broker) => Arc::clone(broker) as _,
            #[cfg(feature = "redis")]
            Self::Redis(shared) => Arc::clone(&shared.broker) as _,
        }
    }

    /// The port of which connections may be there for a user.
    #[must_use]
    pub fn seats(&self) -> Arc<dyn Seats> {
        match self {
            Self::Memory(_) => Arc::new(NodeSeats::default()),
            #[cfg(feature = "redis")]
            Self::Redis(shared) => Arc::clone(&shared.seats) as _,
        }
    }

    /// The port of the other nodes.
    #[must_use]
    pub fn peers(&self) -> Arc<dyn Peers> {
        match self {
            Self::Memory(_) => Arc::new(NoPeers),
            #[cfg(feature = "redis")]
            Self::Redis(shared) => Arc::clone(&shared.peers) as _,
        }
    }

    /// The port of taking messages out.
    #[must_use]
    pub fn erasure(&self) -> Arc<dyn Erasure> {
        match self {
            Self::Memory(broker) => Arc::clone(broker) as _,
            #[cfg(feature = "redis")]
            Self::Redis(shared) => Arc::clone(&shared.broker) as _,
        }
    }

    /// What must not be forgotten, with what all nodes have to know in the place where they do.
    #[must_use]
    pub fn share(&self, remembered: Remembered) -> Remembered {
        match self {
            Self::Memory(_) => remembered,
            #[cfg(feature = "redis")]
            Self::Redis(shared) => {
                if let Some(acts) = &remembered.acts_of_all {
                    shared.peers.follow(Arc::clone(acts));
                }
                // A database that all nodes share tells the first of two by itself, and forgets nothing with Redis.
                let spent_tokens = if remembered.acts_of_all.is_some() {
                    remembered.spent_tokens
                } else {
                    Arc::new(RedisSpentTokens::new(&shared.broker))
                };
                let revocations =
                    KeptRevocations::new(Arc::clone(&shared.revocations), remembered.revocations);
                let revocations = Arc::new(revocations);
                Remembered { revocations, spent_tokens, ..remembered }
            }
        }
    }

    /// Has what other nodes order carried out by this one.
    pub fn obey(&self, node: &Node) {
        match self {
            Self::Memory(_) => {}
            #[cfg(feature = "redis")]
            Self::Redis(shared) => {
                let mailboxes = node.mailboxes().to_vec();
                shared.revocations.on_heard(move |revocation| {
                    for mailbox in &mailboxes {
                        mailbox.order(Control::Revoke(revocation.clone()));
                    }
                });
            }
        }
    }

    /// Spawns what it does all the time.
    #[must_use]
    pub fn run(&self) -> JoinHandle<()> {
        match self {
            Self::Memory(broker) => tokio::spawn(Arc::clone(broker).run_committer()),
            #[cfg(feature = "redis")]
            Self::Redis(shared) => {
                let broker = Arc::clone(&shared.broker).run();
                let revocations = Arc::clone(&shared.revocations).run();
                let seats = Arc::clone(&shared.seats).run();
                let peers = Arc::clone(&shared.peers).run();
                tokio::spawn(async move {
                    tokio::join!(broker, revocations, seats, peers);
                })
            }
        }
    }

    /// Spawns what forgets messages and revocations whose time is over.
    #[must_use]
    pub fn run_sweeps(
        &self,
        revocations: Arc<dyn Revocations>,
        clock: Arc<dyn Clock>,
    ) -> JoinHandle<()> {
        match self {
            Self::Memory(broker) => tokio::spawn(Arc::clone(broker).run_sweeps(revocations, clock)),
            #[cfg(feature = "redis")]
            Self::Redis(shared) => {
                let broker = Arc::clone(&shared.broker);
                tokio::spawn(forget_in_time(broker, revocations, clock))
            }
        }
    }

    /// Says whether it can be reached; none where that is no question.
    #[must_use]
    pub fn probe(&self) -> Option<Probe> {
        match self {
            Self::Memory(_) => None,
            #[cfg(feature = "redis")]
            Self::Redis(shared) => {
                let status = Arc::clone(shared.broker.status());
                let revocations = Arc::clone(&shared.revocations);
                Some(Probe::new(move || status.is_up() && revocations.is_known()))
            }
        }
    }

    /// Notes that who goes from now on was told to come back over another node.
    pub fn part(&self) {
        match self {
            Self::Memory(_) => {}
            #[cfg(feature = "redis")]
            Self::Redis(shared) => shared.broker.part(),
        }
    }

    /// Ends what [`run`](Self::run) spawned, once everything is done that was begun.
    pub async fn finish(&self, running: JoinHandle<()>) {
        match self {
            Self::Memory(broker) => {
                broker.finish_committer();
                let _ = running.await;
            }
            #[cfg(feature = "redis")]
            Self::Redis(shared) => {
                shared.broker.finish().await;
                running.abort();
            }
        }
    }
}

/// The certificates that are trusted instead of those of the system.
#[cfg(feature = "redis")]
fn authority(file: Option<&std::path::Path>) -> Result<Option<Vec<u8>>, ServeError> {
    let Some(file) = file else { return Ok(None) };
    let read = std::fs::read(file).map_err(|error| {
        ServeError::Part(format!("redis.ca_file: {}: {error}", file.display()), Exit::of_io(&error))
    });
    read.map(Some)
}

/// Between two looks for what durable rooms keep no longer.
#[cfg(feature = "redis")]
const LOG_LOOK: std::time::Duration = std::time::Duration::from_secs(60);

/// Has revocations forgotten, and what durable rooms keep no longer, never to end: of others Redis forgets by itself.
#[cfg(feature = "redis")]
async fn forget_in_time(
    broker: Arc<RedisBroker>,
    revocations: Arc<dyn Revocations>,
    clock: Arc<dyn Clock>,
) {
    let mut interval = tokio::time::interval(MemoryBroker::SWEEP_INTERVAL);
    let mut logs = tokio::time::interval(LOG_LOOK);
    let mut steady = domain::steady::SteadyWall::default();
    loop {
        let is_logs = tokio::select! {
            _ = interval.tick() => false,
            _ = logs.tick() => true,
        };
        let now = steady.read(clock.now());
        if is_logs {
            broker.forget_in_time(now).await;
        } else {
            revocations.forget(now).await;
        }
    }
}
