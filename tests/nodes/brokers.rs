//! Brokers of nodes on one Redis.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use application::mailbox::{Mail, Mailbox, Post};
use application::ports::{
    Broker, BrokerError, Entropy, EraseError, Erasure, LogPage, NoEntropy, Presence, PresenceError,
    PublishError, ReadLog, Receipt, RoomTop, SubscriptionToken,
};
use application::testing::broker_contract::{MAIL_MAX, policy, publish, room};
use application::testing::memory_archive::MemoryArchive;
use async_trait::async_trait;
use broker_redis::{Config, DurableLog, RedisBroker};
use bytes::Bytes;
use domain::id::ConnectionId;
use domain::message::Publish;
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::{Offset, Position};
use domain::presence::{PresenceKey, PresenceList};
use domain::principal::RoomPattern;
use domain::retention::Retention;
use domain::room::RoomId;
use domain::time::Wall;
use tests::redis::Redis;
use tokio::task::JoinHandle;

/// How long anything here may take.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Numbers that nobody else has, in this process.
#[derive(Default)]
pub(crate) struct Counter;

static NUMBERS: AtomicU64 = AtomicU64::new(1);

impl Entropy for Counter {
    fn bits(&self) -> Result<u64, NoEntropy> {
        Ok(NUMBERS.fetch_add(1, Ordering::Relaxed))
    }
}

/// A broker that runs, and stops with its value.
pub(crate) struct Node {
    pub(crate) broker: Arc<RedisBroker>,
    running: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Node {
    /// One that is connected.
    pub(crate) async fn start(redis: &Redis) -> Self {
        Self::start_with(Config::new(redis.url().into())).await
    }

    /// One that gives up soon on what does not answer.
    pub(crate) async fn impatient(redis: &Redis) -> Self {
        Self::impatient_at(redis.url()).await
    }

    /// The same, on another way.
    pub(crate) async fn impatient_at(url: String) -> Self {
        Self::start_with(impatient(url)).await
    }

    /// One whose lease is short and whose leaves are told at once.
    pub(crate) async fn with_lease(redis: &Redis, lease: Duration, grace: Duration) -> Self {
        let config = Config {
            lease,
            leave_grace: grace,
            answer_timeout: lease / 3,
            ..Config::new(redis.url().into())
        };
        Self::start_with(config).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        Self::start_over(config, None).await
    }

    /// One whose rooms may be durable.
    pub(crate) async fn start_over(config: Config, log: Option<DurableLog>) -> Self {
        Self::drawing(config, log, Arc::new(Counter)).await
    }

    /// The same, which draws its numbers here.
    pub(crate) async fn drawing(
        config: Config,
        log: Option<DurableLog>,
        numbers: Arc<dyn Entropy>,
    ) -> Self {
        let broker = RedisBroker::build_over(config, numbers, log).unwrap();
        let running = tokio::spawn(Arc::clone(&broker).run());
        let node = Self { broker, running };
        node.until_up().await;
        node
    }

    pub(crate) async fn until_up(&self) {
        in_time("it is connected", self.broker.status().until_up()).await;
    }

    pub(crate) async fn until_down(&self) {
        in_time("it notices the loss", self.broker.status().until_down()).await;
    }

    pub(crate) async fn say(&self, text: &str) -> Result<Receipt, PublishError> {
        self.publish(publish(ROOM, "u1", text)).await
    }

    pub(crate) async fn publish(&self, publish: Publish) -> Result<Receipt, PublishError> {
        self.broker.publish(publish, &policy(Retention::default())).await
    }

    pub(crate) async fn mailbox(&self, id: u64) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new(id, MAIL_MAX));
        self.subscribe(&mailbox, ROOM, 1).await.unwrap();
        mailbox
    }

    pub(crate) async fn subscribe(
        &self,
        mailbox: &Arc<Mailbox>,
        name: &str,
        token: u64,
    ) -> Result<RoomTop, BrokerError> {
        let policy = policy(Retention::default());
        self.broker.subscribe(&room(name), &policy, mailbox, SubscriptionToken(token)).await
    }

    pub(crate) async fn unsubscribe(&self, mailbox: &Arc<Mailbox>, name: &str, token: u64) {
        self.broker.unsubscribe(&room(name), mailbox, SubscriptionToken(token)).await;
    }

    pub(crate) async fn read(&self, after: u64) -> LogPage {
        let read = ReadLog {
            after: Offset::parse(after).unwrap(),
            messages_max: 1_000,
            bytes_max: 1 << 20,
            now: Wall::from_millis(1_763_717_880_000),
        };
        self.broker.read(&room(ROOM), &policy(Retention::default()), read).await.unwrap()
    }
}

/// Settings that give up soon.
pub(crate) fn impatient(url: String) -> Config {
    Config {
        answer_timeout: Duration::from_millis(300),
        probe_interval: Duration::from_millis(200),
        ..Config::new(url.into())
    }
}

/// Publishes until it is taken: right after a return a connection may be lost once more.
pub(crate) async fn retry(node: &Node, publish: impl Fn() -> Publish) -> Receipt {
    let until_taken = async {
        loop {
            node.until_up().await;
            if let Ok(receipt) = node.publish(publish()).await {
                return receipt;
            }
        }
    };
    in_time("the retry is taken", until_taken).await
}

/// The room of most tests.
pub(crate) const ROOM: &str = "public:a";

/// Runs something that must end.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("in time: {what}"))
}

/// The texts and offsets of mail, until `count` publications have come; whether a hole was told on the way.
pub(crate) async fn receive(mailbox: &Mailbox, count: usize) -> (Vec<(u64, String)>, bool) {
    let (mut all, mut holes) = (Vec::new(), false);
    let collect = async {
        loop {
            let mut post = Post::default();
            mailbox.take(&mut post);
            holes |= !post.holes.is_empty();
            all.extend(post.mail.into_iter().map(said));
            if all.len() >= count {
                return;
            }
            mailbox.arrival().await;
        }
    };
    in_time("the mail comes", collect).await;
    (all, holes)
}

/// The texts of mail up to this one, and whether a hole was told on the way.
pub(crate) async fn hear_until(mailbox: &Mailbox, last: &str) -> (Vec<String>, bool) {
    let (mut heard, mut has_hole) = (Vec::new(), false);
    while !heard.iter().any(|text| text == last) {
        let (some, hole) = receive(mailbox, 1).await;
        heard.extend(some.into_iter().map(|(_, text)| text));
        has_hole |= hole;
    }
    (heard, has_hole)
}

/// The texts of a page.
pub(crate) fn texts(page: &LogPage) -> Vec<String> {
    let data = page.messages.iter().map(|message| &message.publication.data);
    data.map(|data| String::from_utf8_lossy(data).trim_matches('"').to_owned()).collect()
}

/// Waits until the mailbox is told of a hole; what came before it is dropped.
pub(crate) async fn receive_hole(mailbox: &Mailbox) -> Post {
    let look = async {
        loop {
            let mut post = Post::default();
            mailbox.take(&mut post);
            if !post.holes.is_empty() || post.watched_hole {
                return post;
            }
            mailbox.arrival().await;
        }
    };
    in_time("the hole is told", look).await
}

fn said(mail: Mail) -> (u64, String) {
    let Mail::Publication(published) = mail else { panic!("only publications come here") };
    let publication = &published.publication;
    let text = String::from_utf8(publication.data.to_vec()).unwrap();
    (publication.offset.map_or(0, Offset::get), text.trim_matches('"').to_owned())
}

/// A node with servers of its own, as one broker.
pub(crate) struct Alone {
    node: Node,
    /// Whether every policy is taken for one of a durable room.
    is_durable: bool,
    _servers: Box<dyn std::any::Any + Send + Sync>,
}

impl Alone {
    pub(crate) async fn start() -> Arc<Self> {
        let redis = Redis::start();
        Self::with(redis.url(), redis).await
    }

    pub(crate) async fn with(url: String, servers: impl Send + Sync + 'static) -> Arc<Self> {
        // Nobody waits for those who may come back.
        let config = Config { leave_grace: Duration::ZERO, ..Config::new(url.into()) };
        let (node, _servers) = (Node::start_with(config).await, Box::new(servers));
        Arc::new(Self { node, is_durable: false, _servers })
    }

    /// One all of whose rooms are durable, as far as an archive in memory makes them so.
    pub(crate) async fn start_durable() -> Arc<Self> {
        let redis = Redis::start();
        let archive = Arc::new(MemoryArchive::new());
        let log = DurableLog { lives: Arc::clone(&archive) as _, archive };
        let node = Node::start_over(Config::new(redis.url().into()), Some(log)).await;
        Arc::new(Self { node, is_durable: true, _servers: Box::new(redis) })
    }

    fn policy(&self, policy: &NamespacePolicy) -> Arc<NamespacePolicy> {
        Arc::new(NamespacePolicy { durable: self.is_durable, ..policy.clone() })
    }
}

#[async_trait]
impl Presence for Alone {
    async fn enter(
        &self,
        room: &RoomId,
        who: &PresenceKey,
        connection: ConnectionId,
    ) -> Result<(), PresenceError> {
        self.node.broker.enter(room, who, connection).await
    }

    async fn leave(&self, room: &RoomId, who: &PresenceKey, connection: ConnectionId) {
        self.node.broker.leave(room, who, connection).await;
    }

    async fn update(
        &self,
        room: &RoomId,
        who: &PresenceKey,
        data: Bytes,
    ) -> Result<(), PresenceError> {
        self.node.broker.update(room, who, data).await
    }

    async fn list(&self, room: &RoomId, members_max: usize) -> Result<PresenceList, PresenceError> {
        self.node.broker.list(room, members_max).await
    }
}

#[async_trait]
impl Broker for Alone {
    async fn publish(
        &self,
        publish: Publish,
        policy: &Arc<NamespacePolicy>,
    ) -> Result<Receipt, PublishError> {
        self.node.broker.publish(publish, &self.policy(policy)).await
    }

    fn level_of_delivery(&self, policy: &NamespacePolicy) -> Option<AckLevel> {
        self.node.broker.level_of_delivery(&self.policy(policy))
    }

    async fn subscribe(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        mailbox: &Arc<Mailbox>,
        token: SubscriptionToken,
    ) -> Result<RoomTop, BrokerError> {
        self.node.broker.subscribe(room, &self.policy(policy), mailbox, token).await
    }

    async fn unsubscribe(&self, room: &RoomId, mailbox: &Arc<Mailbox>, token: SubscriptionToken) {
        self.node.broker.unsubscribe(room, mailbox, token).await;
    }

    async fn watch(
        &self,
        mailbox: &Arc<Mailbox>,
        patterns: &[RoomPattern],
        version: u64,
    ) -> Result<(), BrokerError> {
        self.node.broker.watch(mailbox, patterns, version).await
    }

    async fn read(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        read: ReadLog,
    ) -> Result<LogPage, BrokerError> {
        self.node.broker.read(room, &self.policy(policy), read).await
    }
}

#[async_trait]
impl Erasure for Alone {
    async fn erase(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        position: Position,
    ) -> Result<(), EraseError> {
        self.node.broker.erase(room, &self.policy(policy), position).await
    }
}
