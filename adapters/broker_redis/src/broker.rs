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
use application::published::Published;
use application::use_cases::authenticate::OWN_ROOMS;
use async_trait::async_trait;
use bytes::Bytes;
use domain::delivery::Class;
use domain::id::Epoch;
use domain::message::{Publication, Publish, Publisher, TombstoneReason};
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::{Offset, Position};
use domain::principal::RoomPattern;
use domain::recovery::{EarlierLives, LogBounds};
use domain::room::RoomId;
use domain::seats::Fence;
use domain::time::Wall;
use redis::{Cmd, Value};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::{Config, ConfigError};
use crate::entry::{body, decode, lost, tail};
use crate::link::{CallError, Commands, Link};
use crate::names::{Names, ROOM_KEYS};
use crate::news::News;
use crate::presence::Present;
use crate::sparing::Sparing;
use crate::status::{Status, count};
use crate::subscriber::Subscribing;
use crate::table::Table;

/// When to come back after Redis was away.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The most messages of one page, whatever the reader asks for: Redis does nothing else meanwhile.
const PAGE_MESSAGES_MAX: u32 = 1_024;
/// The most keys of one room whose newest `latest` message is kept, and the most bytes of those messages
/// together, descriptions included; the oldest are dropped first. One alone may be longer.
const LATEST_KEYS_MAX: usize = 256;
const LATEST_BYTES_MAX: usize = 1 << 20;

/// Each read may meet such a thing.
static STRANGE: Sparing = Sparing::new();
static UNREADABLE: Sparing = Sparing::new();

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

/// The broker of one node.
pub struct RedisBroker {
    pub(crate) config: Config,
    pub(crate) names: Names,
    pub(crate) commands: Arc<Commands>,
    pub(crate) present: Present,
    entropy: Arc<dyn Entropy>,
    table: Arc<Table>,
    subscribing: Arc<Subscribing>,
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
        let (commands, subscribing) = (Arc::clone(&self.commands), Arc::clone(&self.subscribing));
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
        (room, more): (&RoomId, Option<&String>),
        policy: &NamespacePolicy,
        now: Wall,
    ) {
        let (retention, keep) = (&policy.retention, self.kept(policy));
        command.arg(ROOM_KEYS + usize::from(more.is_some()));
        let keys = self.names.keys(room);
        command
            .arg(&keys[..])
            .arg(more.as_slice())
            .arg(fresh.to_string())
            .arg(link.life_of(&keys[0]))
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

    /// For how long an unused room keeps its log, at least: as long as somebody may come back to it.
    fn kept(&self, policy: &NamespacePolicy) -> Duration {
        policy.retention.age_max.max(self.config.dedup_window)
    }

    async fn call_publish(
        &self,
        publish: &Publish,
        policy: &NamespacePolicy,
    ) -> Result<Receipt, CallError> {
        let is_kept = publish.class != Class::Reliable
            || publish.msg_id.is_some()
            || policy.replicated
            || publish.fence.is_some()
            || policy.retention.messages_max > 0;
        if !is_kept && let Some(receipt) = self.call_publish_plain(publish, policy).await? {
            return Ok(receipt);
        }
        let (link, fresh) = self.link_and_epoch()?;
        // What has no place in the log is of no use to whoever takes over.
        let is_replicated = policy.replicated && publish.class == Class::Reliable;
        let level = if is_replicated { AckLevel::Replicated } else { AckLevel::Accepted };
        let name =
            publish.msg_id.as_ref().map(|id| format!("{}\n{id}", publish.publisher.to_key()));
        // Only a user's connection has one.
        let fenced = publish.fence.and_then(|fence| match &publish.publisher {
            Publisher::User(user) => Some((fence.get(), self.names.seats(user))),
            Publisher::Client(_) | Publisher::ApiKey(_) => None,
        });
        let (fence, key_of_user) = fenced.unzip();
        let fill = |command: &mut Cmd, link: &Link| {
            let room = (&publish.room, key_of_user.as_ref());
            self.begin_with(command, (link, fresh), room, policy, publish.at);
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
                .arg(LATEST_KEYS_MAX)
                .arg(LATEST_BYTES_MAX)
                .arg(u8::from(level == AckLevel::Replicated))
                .arg(fence.unwrap_or(Fence::NONE));
        };
        let script = &self.commands.scripts().publish;
        let answer = match level {
            AckLevel::Replicated => self.commands.run_replicated(&link, script, fill).await,
            AckLevel::Accepted | AckLevel::Durable => {
                self.commands.run_script(&link, script, fill).await
            }
        };
        if answer == Err(CallError::Unfenced) {
            self.unfenced.notify_one();
        }
        let (epoch, offset, duplicate): (String, u64, u8) = parse(answer?)?;
        Ok(Receipt {
            epoch: parse_epoch(&epoch)?,
            offset: if offset == 0 { None } else { Some(parse_offset(offset)?) },
            duplicate: duplicate == 1,
            level,
        })
    }

    /// A publish of which nothing is kept; none where the room is not ready for it, and nothing was done.
    async fn call_publish_plain(
        &self,
        publish: &Publish,
        policy: &NamespacePolicy,
    ) -> Result<Option<Receipt>, CallError> {
        let link = self.commands.link()?;
        let now = publish.at.as_millis();
        let quarter = i64::try_from(millis(self.kept(policy) / 4)).unwrap_or(i64::MAX);
        let head = self.names.head(&publish.room);
        let fill = |command: &mut Cmd, link: &Link| {
            command
                .arg(1)
                .arg(&head)
                .arg(link.life_of(&head))
                .arg(now.saturating_sub(quarter))
                .arg(now)
                .arg(Offset::MAX.get())
                .arg(tail(publish))
                .arg(self.names.room_channel(&publish.room));
            match is_watched(&publish.room, policy) {
                true => command.arg(self.names.namespace_channel(publish.room.namespace())),
                false => command.arg(""),
            };
        };
        let script = &self.commands.scripts().publish_plain;
        let answer = self.commands.run_script(&link, script, fill).await?;
        let Some((epoch, offset)) = parse::<Option<(String, u64)>>(answer)? else {
            return Ok(None);
        };
        Ok(Some(Receipt {
            epoch: parse_epoch(&epoch)?,
            offset: Some(parse_offset(offset)?),
            duplicate: false,
            level: AckLevel::Accepted,
        }))
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
        let fill = |command: &mut Cmd, link: &Link| {
            self.begin(command, (link, fresh), room, policy, read.now);
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
        let mut offset = read.after.max(bounds.first.previous());
        let mut messages = Vec::with_capacity(entries.len());
        for entry in entries {
            offset = offset.next().ok_or_else(|| strange("an offset"))?;
            let publication = self.read_place(entry, room, Position { epoch, offset }, read.now);
            messages.push(Arc::new(Published::new(publication)));
        }
        let latest = newest.into_iter().filter_map(|entry| {
            // One that can't be read is not worth a subscription.
            let mut publication = readable(entry).or_else(|| self.unreadable(room))?;
            publication.epoch = epoch;
            Some(Arc::new(Published::new(publication)))
        });
        Ok((LogPage { bounds, messages, more: more == 1 }, latest.collect()))
    }

    /// What stands at a place of the log. What no node has written there is gone, and its place remains: nobody
    /// can wait for it.
    fn read_place(&self, entry: Value, room: &RoomId, at: Position, now: Wall) -> Publication {
        let is_its = |publication: &Publication| {
            publication.room == *room && publication.offset == Some(at.offset)
        };
        let found = readable(entry).filter(is_its).or_else(|| self.unreadable(room));
        let Some(mut publication) = found else { return lost(room, at, now) };
        publication.epoch = at.epoch;
        if publication.is_expired(now) {
            publication = publication.into_tombstone(TombstoneReason::Expired);
        }
        publication
    }

    /// Counts what can't be read.
    fn unreadable(&self, room: &RoomId) -> Option<Publication> {
        count(&self.status.unreadable, 1);
        if let Some(left_out) = UNREADABLE.turn() {
            tracing::warn!(%room, left_out, "redis holds what no node has written; its place is passed over");
        }
        None
    }
}

/// An entry of a log, under the epoch that it was written in.
fn readable(entry: Value) -> Option<Publication> {
    let Value::BulkString(bytes) = entry else { return None };
    decode(&Bytes::from(bytes)).ok().map(|entry| entry.publication)
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
