//! The port on Redis.
//!
//! A publish is one call of one script, made once: what has no answer may have happened, and is answered
//! with `Unavailable`, so that its publisher repeats it under its `msg_id`.

use std::sync::Arc;
use std::time::Duration;

use application::mailbox::Mailbox;
use application::ports::{
    Broker, BrokerError, Entropy, LogPage, PublishError, ReadLog, Receipt, RoomTop,
    SubscriptionToken,
};
use async_trait::async_trait;
use domain::id::Epoch;
use domain::message::Publish;
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::Offset;
use domain::principal::RoomPattern;
use domain::room::RoomId;
use domain::time::Wall;
use redis::{Cmd, Value};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Config, ConfigError};
use crate::durable::{Durable, DurableLog};
use crate::head::packed;
use crate::link::{CallError, Commands, Link};
use crate::names::{Names, ROOM_KEYS};
use crate::news::News;
use crate::plain::{self, PlainQueue};
use crate::presence::Present;
use crate::sparing::Sparing;
use crate::status::Status;
use crate::subscriber::Subscribing;
use crate::table::Table;

/// When to come back after Redis was away.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Each call may meet such a thing.
static STRANGE: Sparing = Sparing::new();

/// Why a broker would be of no use now.
#[derive(Debug, Error)]
pub enum StartError {
    /// It will be so until somebody changes something.
    #[error("{0}")]
    Unfit(String),
    /// It may come.
    #[error("{0}")]
    Away(String),
}

/// What one script takes beside what all do.
#[derive(Default)]
pub(crate) struct More<'m> {
    pub(crate) key: Option<&'m String>,
    pub(crate) numbers: &'m [f64],
}

/// The broker of one node.
pub struct RedisBroker {
    pub(crate) config: Config,
    pub(crate) names: Names,
    pub(crate) commands: Arc<Commands>,
    pub(crate) present: Present,
    pub(crate) entropy: Arc<dyn Entropy>,
    table: Arc<Table>,
    subscribing: Arc<Subscribing>,
    pub(crate) status: Arc<Status>,
    durable: Option<Durable>,
    pub(crate) plain: PlainQueue,
    /// Rung when Redis turns out to have lost a user's fence.
    pub(crate) unfenced: Notify,
}

impl RedisBroker {
    /// A broker that is connected to nothing yet; [`run`](Self::run) connects it.
    ///
    /// # Errors
    /// [`ConfigError`] when the settings can't be meant.
    pub fn build(config: Config, entropy: Arc<dyn Entropy>) -> Result<Arc<Self>, ConfigError> {
        Self::build_over(config, entropy, None)
    }

    /// The same with the log of rooms whose policy is durable; without one they are as all others.
    ///
    /// # Errors
    /// [`ConfigError`] when the settings can't be meant.
    pub fn build_over(
        config: Config,
        entropy: Arc<dyn Entropy>,
        log: Option<DurableLog>,
    ) -> Result<Arc<Self>, ConfigError> {
        let servers = config.servers()?;
        let names = Names::new(&config.prefix, servers.database());
        let status = Arc::new(Status::default());
        let table = Arc::new(Table::new(config.rooms_max, config.subscribers_max));
        let commands =
            Commands::new(servers, config.clone(), Arc::clone(&entropy), Arc::clone(&status));
        let commands = Arc::new(commands);
        let (names_too, table_too) = (names.clone(), Arc::clone(&table));
        let subscribing = Subscribing::new(Arc::clone(&commands), names_too, table_too);
        let subscribing = Arc::new(subscribing);
        let (present, plain) = (Present::new(), PlainQueue::new(&config));
        let unfenced = Notify::new();
        Ok(Arc::new(Self {
            config,
            names,
            commands,
            present,
            entropy,
            table,
            subscribing,
            status,
            durable: log.map(Durable::new),
            plain,
            unfenced,
        }))
    }

    /// Keeps both connections for as long as it is polled. The host spawns it once.
    pub async fn run(self: Arc<Self>) {
        let (commands, subscribing) = (Arc::clone(&self.commands), Arc::clone(&self.subscribing));
        // Tasks of their own, which end with this one: they have the most to do.
        let mut tasks = JoinSet::new();
        for _ in 0..plain::CALLS {
            tasks.spawn(Arc::clone(&self).run_plain());
        }
        tokio::join!(commands.run(), subscribing.run(), self.run_presence());
    }

    /// Connects once, and looks whether this Redis is one to work with.
    ///
    /// # Errors
    /// [`StartError`], in words for whoever set it up.
    pub async fn try_connect(&self) -> Result<(), StartError> {
        match self.commands.try_connect().await {
            Ok(()) => Ok(()),
            Err(error) if error.is_for_good() => Err(StartError::Unfit(error.to_string())),
            Err(error) => Err(StartError::Away(error.to_string())),
        }
    }

    /// What all nodes are told.
    pub(crate) fn news(&self) -> &Arc<News> {
        &self.subscribing.news
    }

    /// What durable rooms have beside Redis, if this policy makes one.
    pub(crate) fn durable_of(&self, policy: &NamespacePolicy) -> Option<&Durable> {
        self.durable.as_ref().filter(|_| policy.durable)
    }

    pub(crate) const fn durable(&self) -> Option<&Durable> {
        self.durable.as_ref()
    }

    /// How its connections are.
    #[must_use]
    pub const fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Adds what all scripts take: the keys, and what the room's head is made or changed with.
    pub(crate) fn begin(
        &self,
        command: &mut Cmd,
        life: (&Link, Epoch),
        room: &RoomId,
        policy: &NamespacePolicy,
        now: Wall,
    ) {
        self.begin_with(command, life, room, (policy, now), &More::default());
    }

    /// The same with a key and numbers more.
    pub(crate) fn begin_with(
        &self,
        command: &mut Cmd,
        (link, fresh): (&Link, Epoch),
        room: &RoomId,
        (policy, now): (&NamespacePolicy, Wall),
        more: &More<'_>,
    ) {
        let (retention, keep) = (&policy.retention, self.kept(policy));
        let numbers = [
            now.as_millis() as f64,
            f64::from(retention.messages_max),
            retention.bytes_max as f64,
            millis(retention.age_max) as f64,
            millis(keep) as f64,
        ];
        let keys = self.names.keys(room);
        command.arg(ROOM_KEYS + usize::from(more.key.is_some()));
        command
            .arg(&keys[..])
            .arg(more.key.as_slice())
            .arg(if self.durable_of(policy).is_some() { String::new() } else { fresh.to_string() })
            .arg(link.life_of(&keys[0]))
            .arg(packed(&[&numbers[..], more.numbers].concat()));
    }

    /// A number that nobody else has; where there is no chance, one that is this process's alone.
    pub(crate) fn bits(&self) -> u64 {
        self.entropy.bits().unwrap_or_else(|_| u64::from(std::process::id()))
    }

    /// The connection, and an epoch that nobody has used.
    pub(crate) fn link_and_epoch(&self) -> Result<(Arc<Link>, Epoch), CallError> {
        let fresh = self.entropy.bits().map_err(|_| CallError::Away)?;
        Ok((self.commands.link()?, Epoch::from_bits(fresh)))
    }

    /// For how long an unused room keeps its log, at least: as long as somebody may come back to it.
    pub(crate) fn kept(&self, policy: &NamespacePolicy) -> Duration {
        policy.retention.age_max.max(self.config.dedup_window)
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).min(1 << 50)
}

pub(crate) fn parse<T: redis::FromRedisValue>(answer: Value) -> Result<T, CallError> {
    redis::from_redis_value(answer).map_err(|_| strange("an answer"))
}

pub(crate) fn parse_epoch(text: &str) -> Result<Epoch, CallError> {
    Epoch::parse(text).map_err(|_| strange("an epoch"))
}

pub(crate) fn parse_offset(number: u64) -> Result<Offset, CallError> {
    Offset::parse(number).map_err(|_| strange("an offset"))
}

/// Somebody else writes to our keys.
pub(crate) fn strange(what: &str) -> CallError {
    if let Some(left_out) = STRANGE.turn() {
        tracing::error!(what, left_out, "redis holds what no node has written");
    }
    CallError::Refused(format!("{what} can't be read"))
}

/// The answer to a reader whose call has none.
fn unavailable(_: CallError) -> BrokerError {
    BrokerError::Unavailable { retry_after: RETRY_AFTER }
}

#[async_trait]
impl Broker for RedisBroker {
    async fn publish(
        &self,
        publish: Publish,
        policy: &Arc<NamespacePolicy>,
    ) -> Result<Receipt, PublishError> {
        self.call_publish(publish, policy).await.map_err(|error| match error {
            CallError::Full => PublishError::LogFull,
            CallError::Fenced => PublishError::Fenced,
            CallError::Away | CallError::Unfenced | CallError::Refused(_) => {
                PublishError::Unavailable { retry_after: RETRY_AFTER }
            }
        })
    }

    fn level_of_delivery(&self, policy: &NamespacePolicy) -> Option<AckLevel> {
        (!policy.replicated && self.durable_of(policy).is_none()).then_some(AckLevel::Accepted)
    }

    async fn subscribe(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        mailbox: &Arc<Mailbox>,
        token: SubscriptionToken,
    ) -> Result<RoomTop, BrokerError> {
        let away = BrokerError::Unavailable { retry_after: RETRY_AFTER };
        let waits = self.table.subscribe(room, mailbox, token).map_err(|_| away.clone())?;
        self.table.keep(room, self.kept(policy));
        let is_on = match waits {
            None => true,
            Some(on) => matches!(timeout(self.config.answer_timeout, on).await, Ok(Ok(()))),
        };
        if !is_on {
            // The mailbox may have members there under the same token: it ends this itself if not.
            return Err(away);
        }
        let now = Wall::default();
        let top = ReadLog { after: Offset::MAX, messages_max: 0, bytes_max: 0, now };
        // Only behind the channel: what is published after the look comes over it.
        let (page, latest) = self.call_read(room, policy, &top, true).await.map_err(unavailable)?;
        Ok(RoomTop { bounds: page.bounds, latest })
    }

    async fn unsubscribe(&self, room: &RoomId, mailbox: &Arc<Mailbox>, token: SubscriptionToken) {
        self.table.unsubscribe(room, mailbox, token);
    }

    async fn watch(
        &self,
        mailbox: &Arc<Mailbox>,
        patterns: &[RoomPattern],
        version: u64,
    ) -> Result<(), BrokerError> {
        let away = BrokerError::Unavailable { retry_after: RETRY_AFTER };
        let waits = self.table.watch(mailbox, patterns, version).map_err(|_| away.clone())?;
        let all = async {
            for on in waits {
                on.await.map_err(|_| ())?;
            }
            Ok::<(), ()>(())
        };
        match timeout(self.config.answer_timeout, all).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(away),
        }
    }

    async fn read(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        read: ReadLog,
    ) -> Result<LogPage, BrokerError> {
        let page = self.call_read(room, policy, &read, false).await.map_err(unavailable)?;
        Ok(page.0)
    }
}
