//! The port on Redis.
//!
//! A publish is one call of one script, made once: what has no answer may have happened, and is answered
//! with `Unavailable`, so that its publisher repeats it under its `msg_id`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use application::mailbox::Mailbox;
use application::ports::{
    Broker, BrokerError, Entropy, LogPage, PublishError, ReadLog, Receipt, RoomTop,
    SubscriptionToken,
};
use application::published::Published;
use application::use_cases::authenticate::OWN_ROOMS;
use async_trait::async_trait;
use bytes::Bytes;
use domain::id::Epoch;
use domain::message::{Publish, Publisher, TombstoneReason};
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::{Offset, Position};
use domain::principal::RoomPattern;
use domain::recovery::{EarlierLives, LogBounds};
use domain::room::RoomId;
use domain::seats::Fence;
use domain::time::Wall;
use redis::{Cmd, Value};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::{Config, ConfigError};
use crate::entry::{body, decode};
use crate::link::{CallError, Commands, Link};
use crate::names::{Names, ROOM_KEYS};
use crate::news::News;
use crate::presence::Present;
use crate::status::Status;
use crate::subscriber::Subscribing;
use crate::table::Table;

/// When to come back after Redis was away.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The most messages of one page, whatever the reader asks for: Redis does nothing else meanwhile.
const PAGE_MESSAGES_MAX: u32 = 1_024;

/// The broker of one node.
pub struct RedisBroker {
    pub(crate) config: Config,
    pub(crate) names: Names,
    pub(crate) commands: Commands,
    pub(crate) present: Present,
    entropy: Arc<dyn Entropy>,
    table: Arc<Table>,
    subscribing: Subscribing,
    status: Arc<Status>,
    /// Rung when Redis turns out to have lost a user's fence.
    pub(crate) unfenced: Notify,
}

impl RedisBroker {
    /// A broker that is connected to nothing yet; [`run`](Self::run) connects it.
    ///
    /// # Errors
    /// [`ConfigError`] when the settings can't be meant.
    pub fn build(config: Config, entropy: Arc<dyn Entropy>) -> Result<Arc<Self>, ConfigError> {
        let client = config.client()?;
        let database = client.get_connection_info().redis_settings().db();
        let names = Names::new(&config.prefix, database);
        let status = Arc::new(Status::default());
        let table = Arc::new(Table::new(config.rooms_max, config.subscribers_max));
        let subscribing = Subscribing {
            client: client.clone(),
            config: config.clone(),
            names: names.clone(),
            entropy: Arc::clone(&entropy),
            table: Arc::clone(&table),
            status: Arc::clone(&status),
            was_on: AtomicBool::new(false),
            news: Arc::default(),
        };
        let commands =
            Commands::new(client, config.clone(), Arc::clone(&entropy), Arc::clone(&status));
        let present = Present::new();
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
            unfenced,
        }))
    }

    /// Keeps both connections for as long as it is polled. The host spawns it once.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.commands.run(), self.subscribing.run(), self.run_presence());
    }

    /// What all nodes are told.
    pub(crate) const fn news(&self) -> &Arc<News> {
        &self.subscribing.news
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
        self.begin_with(command, life, (room, None), policy, now);
    }

    /// The same with one key more.
    fn begin_with(
        &self,
        command: &mut Cmd,
        (link, fresh): (&Link, Epoch),
        (room, more): (&RoomId, Option<String>),
        policy: &NamespacePolicy,
        now: Wall,
    ) {
        let retention = &policy.retention;
        // An unused room keeps its log for as long as somebody may come back to it.
        let keep = retention.age_max.max(self.config.dedup_window);
        command.arg(ROOM_KEYS + usize::from(more.is_some()));
        for key in self.names.keys(room).into_iter().chain(more) {
            command.arg(key);
        }
        command
            .arg(fresh.to_string())
            .arg(&link.life)
            .arg(now.as_millis())
            .arg(retention.messages_max)
            .arg(retention.bytes_max)
            .arg(millis(retention.age_max))
            .arg(millis(keep));
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

    async fn call_publish(
        &self,
        publish: &Publish,
        policy: &NamespacePolicy,
    ) -> Result<Receipt, CallError> {
        let (link, fresh) = self.link_and_epoch()?;
        let name =
            publish.msg_id.as_ref().map(|id| format!("{}\n{id}", publish.publisher.to_key()));
        // Only a user's connection has one.
        let fenced = publish.fence.and_then(|fence| match &publish.publisher {
            Publisher::User(user) => Some((fence.get(), self.names.seats(user))),
            Publisher::Client(_) | Publisher::ApiKey(_) => None,
        });
        let (fence, key_of_user) = fenced.unzip();
        let fill = |command: &mut Cmd| {
            let room = (&publish.room, key_of_user);
            self.begin_with(command, (&link, fresh), room, policy, publish.at);
            let channel = self.names.namespace_channel(publish.room.namespace());
            let key = publish.key.as_ref().map_or_else(String::new, |key| format!("k{key}"));
            command
                .arg(&publish.class.word()[..1])
                .arg(key)
                .arg(body(publish))
                .arg(publish.data.len())
                .arg(name.as_deref().unwrap_or_default())
                .arg(millis(self.config.dedup_window))
                .arg(self.config.dedup_entries_max)
                .arg(self.names.room_channel(&publish.room))
                .arg(if is_watched(&publish.room, policy) { &*channel } else { "" })
                .arg(Offset::MAX.get())
                .arg(fence.unwrap_or(Fence::NONE));
        };
        let answer = self.commands.run_script(&link, &self.commands.scripts().publish, fill).await;
        if answer == Err(CallError::Unfenced) {
            self.unfenced.notify_one();
        }
        let (epoch, offset, duplicate): (String, u64, u8) = parse(answer?)?;
        Ok(Receipt {
            epoch: parse_epoch(&epoch)?,
            offset: if offset == 0 { None } else { Some(parse_offset(offset)?) },
            duplicate: duplicate == 1,
            level: AckLevel::Accepted,
        })
    }

    /// Reads a piece of a room's log, and with `latest` the newest message of each key.
    pub(crate) async fn call_read(
        &self,
        room: &RoomId,
        policy: &NamespacePolicy,
        read: &ReadLog,
        latest: bool,
    ) -> Result<(LogPage, Vec<Arc<Published>>), CallError> {
        let (link, fresh) = self.link_and_epoch()?;
        let fill = |command: &mut Cmd| {
            self.begin(command, (&link, fresh), room, policy, read.now);
            command
                .arg(read.after.get())
                .arg(read.messages_max.min(PAGE_MESSAGES_MAX))
                .arg(read.bytes_max)
                .arg(u8::from(latest));
        };
        let answer = self.commands.run_script(&link, &self.commands.scripts().read, fill).await;
        let answer: (String, u64, u64, String, u8, Vec<Value>, Vec<Value>) = parse(answer?)?;
        let (epoch, first, last, earlier, more, entries, newest) = answer;
        let epoch = parse_epoch(&epoch)?;
        let bounds = LogBounds {
            epoch,
            first: parse_offset(first)?,
            last: parse_offset(last)?,
            earlier: EarlierLives::new(earlier.split(' ').filter_map(parse_life)),
        };
        let messages = published(entries, epoch, Some(read.now))?;
        // One that can't be read is not worth a subscription.
        let newest = newest.into_iter().filter_map(|one| published(vec![one], epoch, None).ok());
        Ok((LogPage { bounds, messages, more: more == 1 }, newest.flatten().collect()))
    }
}

/// The entries of a log, as those of its present life.
fn published(
    entries: Vec<Value>,
    epoch: Epoch,
    now: Option<Wall>,
) -> Result<Vec<Arc<Published>>, CallError> {
    let mut all = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::BulkString(bytes) = entry else { return Err(strange("an entry")) };
        let mut publication =
            decode(&Bytes::from(bytes)).map_err(|error| strange(&error.to_string()))?.publication;
        publication.epoch = epoch;
        if now.is_some_and(|now| publication.is_expired(now)) {
            publication = publication.into_tombstone(TombstoneReason::Expired);
        }
        all.push(Arc::new(Published::new(publication)));
    }
    Ok(all)
}

/// Whether somebody may be there by a prefix: a pattern, or the rooms of all users, which nodes follow so.
fn is_watched(room: &RoomId, policy: &NamespacePolicy) -> bool {
    policy.patterns || room.as_str().starts_with(OWN_ROOMS)
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).min(1 << 50)
}

pub(crate) fn parse<T: redis::FromRedisValue>(answer: Value) -> Result<T, CallError> {
    redis::from_redis_value(answer).map_err(|_| strange("an answer"))
}

fn parse_epoch(text: &str) -> Result<Epoch, CallError> {
    Epoch::parse(text).map_err(|_| strange("an epoch"))
}

fn parse_offset(number: u64) -> Result<Offset, CallError> {
    Offset::parse(number).map_err(|_| strange("an offset"))
}

fn parse_life(text: &str) -> Option<Position> {
    let (epoch, last) = text.split_once(':')?;
    let offset = Offset::parse(last.parse().ok()?).ok()?;
    Some(Position { epoch: Epoch::parse(epoch).ok()?, offset })
}

/// Somebody else writes to our keys.
fn strange(what: &str) -> CallError {
    tracing::error!(what, "redis holds what no node has written");
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
        self.call_publish(&publish, policy).await.map_err(|error| match error {
            CallError::Full => PublishError::LogFull,
            CallError::Fenced => PublishError::Fenced,
            CallError::Away | CallError::Unfenced | CallError::Refused(_) => {
                PublishError::Unavailable { retry_after: RETRY_AFTER }
            }
        })
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
