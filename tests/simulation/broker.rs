//! The simulated broker: rooms' logs, subscriptions and notifications, shared by all nodes, with
//! answers that take virtual time and faults that a network has.
//!
//! It keeps the contract of the port except where a fault says otherwise, and remembers the truth
//! for the checker.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use application::mailbox::{Mail, Mailbox};
use application::ports::{
    Broker, BrokerError, LogPage, PublishError, ReadLog, Receipt, RoomTop, SubscriptionToken,
};
use application::published::Published;
use async_trait::async_trait;
use broker_redis::RedisBroker;
use domain::delivery::Class;
use domain::id::{Epoch, MessageId, MessageKey};
use domain::message::{Publication, Publish, Publisher, TombstoneReason};
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::Offset;
use domain::principal::RoomPattern;
use domain::recovery::{EarlierLives, LogBounds};
use domain::retention::Retention;
use domain::room::RoomId;
use domain::time::Wall;

use crate::checker::Violation;
use crate::faults::{Effect, Fault};
use crate::ports::{Core, Shared, WALL_START_MS};
use crate::redis::number;

const RETRY_AFTER: Duration = Duration::from_millis(300);

/// One life of a room's log, for the checker.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) epoch: Epoch,
    /// The message with offset `n` is at `n - 1`.
    pub(crate) messages: Vec<Arc<Published>>,
}

/// Mail on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    sent_ms: u64,
    pub(crate) arrives_ms: u64,
    pub(crate) mailbox: u64,
    pub(crate) mail: Mail,
}

#[derive(Debug)]
pub(crate) struct Subscriber {
    token: SubscriptionToken,
    /// When its latest notification arrives: the next must not overtake it.
    arrives_ms: u64,
    /// Since when there is one without a break.
    pub(crate) began_ms: u64,
}

#[derive(Debug)]
pub(crate) struct SimRoom {
    /// All lives of the log; the last is the present one.
    pub(crate) lives: Vec<Life>,
    /// The oldest offset that the log must still have.
    pub(crate) first: u64,
    messages_max: u32,
    log: VecDeque<Arc<Published>>,
    /// The newest message of class `latest` of each key, and of none.
    latest: Vec<(Option<MessageKey>, Arc<Published>)>,
    dedup: BTreeMap<(Publisher, MessageId), Option<Offset>>,
    pub(crate) said: HashSet<bytes::Bytes>,
    /// What no archive keeps although the room has one: a process forgets it with its end.
    pub(crate) said_in_memory: HashSet<bytes::Bytes>,
    /// Where the archive has stored what, and which process had it stored.
    pub(crate) stored: HashMap<bytes::Bytes, (u64, u64)>,
    pub(crate) process: u64,
    /// By the mailboxes' ids.
    pub(crate) subscribers: BTreeMap<u64, Subscriber>,
}

impl SimRoom {
    pub(crate) fn new(epoch: Epoch, messages_max: u32) -> Self {
        let mut room = Self::unborn(messages_max);
        room.lose_log(epoch);
        room
    }

    /// A room of which nobody has spoken yet.
    pub(crate) fn unborn(messages_max: u32) -> Self {
        Self {
            lives: Vec::new(),
            first: 1,
            messages_max,
            log: VecDeque::new(),
            latest: Vec::new(),
            dedup: BTreeMap::new(),
            said: HashSet::new(),
            said_in_memory: HashSet::new(),
            stored: HashMap::new(),
            process: 0,
            subscribers: BTreeMap::new(),
        }
    }

    pub(crate) fn life(&self) -> &Life {
        self.lives.last().expect("a room has a log")
    }

    pub(crate) fn last(&self) -> u64 {
        self.life().messages.len() as u64
    }

    /// The message at a position of any life, and how many lives ago that was.
    pub(crate) fn at(&self, epoch: Epoch, offset: u64) -> Option<&Arc<Published>> {
        let life = self.lives.iter().find(|life| life.epoch == epoch)?;
        life.messages.get(usize::try_from(offset).ok()?.checked_sub(1)?)
    }

    pub(crate) fn number_of(&self, epoch: Epoch) -> Option<usize> {
        self.lives.iter().position(|life| life.epoch == epoch)
    }

    /// The newest message of class `latest` by key.
    pub(crate) fn newest(&self, key: &str) -> Option<&Arc<Published>> {
        let mut latest = self.latest.iter();
        let found = latest.find(|(of, _)| of.as_ref().is_some_and(|of| of.as_str() == key));
        found.map(|(_, published)| published)
    }

    fn bounds(&self) -> LogBounds {
        let offset = |n| Offset::parse(n).expect("a small number");
        let (first, last) = (offset(self.first), offset(self.last()));
        LogBounds { epoch: self.life().epoch, first, last, earlier: EarlierLives::NONE }
    }

    /// Everything is forgotten but who listens.
    pub(crate) fn lose_log(&mut self, epoch: Epoch) {
        self.lives.push(Life { epoch, messages: Vec::new() });
        self.first = 1;
        self.log.clear();
        self.latest.clear();
        self.dedup.clear();
        self.said.clear();
    }

    /// The process that had the room has ended. What it kept in memory only is gone; whether a log
    /// began anew is said by the next one.
    pub(crate) fn lose_memory(&mut self) {
        self.latest.clear();
        self.said_in_memory.clear();
        self.process += 1;
    }

    /// A message takes the next place of the present life.
    pub(crate) fn push(&mut self, published: Arc<Published>) {
        self.lives.last_mut().expect("a room has a log").messages.push(published);
        self.first = self.first.max((self.last() + 1).saturating_sub(self.messages_max.into()));
    }

    pub(crate) fn set_newest(&mut self, key: Option<MessageKey>, published: Arc<Published>) {
        self.latest.retain(|(older, _)| *older != key);
        self.latest.push((key, published));
    }

    /// Drops what retention no longer keeps.
    fn trim(&mut self, keep: &Retention, now: Wall) {
        let data = |published: &Arc<Published>| published.publication.data.len() as u64;
        let mut bytes = self.log.iter().map(data).sum();
        while let Some(oldest) = self.log.front() {
            if !keep.must_drop_oldest(self.log.len(), bytes, oldest.publication.at, now) {
                break;
            }
            bytes -= data(oldest);
            self.log.pop_front();
        }
        self.first = self.last() + 1 - self.log.len() as u64;
    }

    fn read(&mut self, read: &ReadLog, keep: &Retention) -> LogPage {
        self.trim(keep, read.now);
        let (mut bytes, mut more) = (0, false);
        let mut messages: Vec<Arc<Published>> = Vec::new();
        for published in &self.log {
            let offset = published.publication.offset.expect("the log holds positions");
            if offset <= read.after {
                continue;
            }
            bytes += published.publication.data.len();
            let full = messages.len() >= read.messages_max as usize || bytes > read.bytes_max;
            if full && !messages.is_empty() {
                more = true;
                break;
            }
            messages.push(as_read(published, read.now));
        }
        LogPage { bounds: self.bounds(), messages, more }
    }
}

/// A message as it comes out of the log: whoever reads it has not sent it.
fn as_read(published: &Arc<Published>, now: Wall) -> Arc<Published> {
    if published.publication.is_expired(now) {
        let gone = published.publication.clone().into_tombstone(TombstoneReason::Expired);
        return Arc::new(Published::new(gone));
    }
    Arc::clone(published)
}

impl Core {
    /// Appends and notifies in one step, unless the same was published before.
    fn append(&mut self, publish: Publish, policy: &NamespacePolicy) -> Receipt {
        self.vouch(&publish);
        let level = policy.ack_level();
        let room = self.rooms.get_mut(&publish.room).expect("all rooms are known");
        let epoch = room.life().epoch;
        let name = publish.msg_id.map(|id| (publish.publisher, id));
        if let Some(offset) = name.as_ref().and_then(|name| room.dedup.get(name)) {
            return Receipt { epoch, offset: *offset, duplicate: true, level };
        }
        let offset = publish.class.is_positioned().then(|| room.last() + 1);
        let offset = offset.and_then(|n| Offset::parse(n).ok());
        let published = Arc::new(Published::new(Publication {
            room: publish.room.clone(),
            epoch,
            offset,
            class: publish.class,
            key: publish.key.clone(),
            sender: publish.sender,
            data: publish.data.clone(),
            tags: publish.tags,
            origin: publish.origin,
            at: publish.at,
            expires_at: publish.ttl.map(|ttl| publish.at.after(ttl)),
            tombstone: None,
        }));
        if let Some(name) = name {
            room.dedup.insert(name, offset);
        }
        if !room.said.insert(publish.data) {
            self.violation.get_or_insert_with(|| {
                Violation::new("I6", format!("{} stands twice in the log", publish.room))
            });
        }
        if offset.is_some() {
            let keeps_origin = self.log_keeps_origin;
            let logged = if keeps_origin {
                Arc::clone(&published)
            } else {
                let publication = published.publication.clone();
                Arc::new(Published::new(Publication { origin: None, ..publication }))
            };
            room.push(Arc::clone(&published));
            room.log.push_back(logged);
            room.trim(&policy.retention, publish.at);
        } else if publish.class == Class::Latest {
            room.set_newest(publish.key, Arc::clone(&published));
        }
        self.notify(&publish.room, &Mail::Publication(published));
        Receipt { epoch, offset, duplicate: false, level }
    }

    /// Says to the checker when the application publishes what nobody sent.
    pub(crate) fn vouch(&mut self, publish: &Publish) {
        let known = self.sent.contains(&(publish.room.clone(), publish.data.clone()));
        if !known && self.violation.is_none() {
            let text = format!("{} was published, nobody sent it", publish.room);
            self.violation = Some(Violation::new("I5", text));
        }
    }

    /// A shard listens to a room from now on.
    pub(crate) fn on_subscribed(
        &mut self,
        room: &RoomId,
        mailbox: &Mailbox,
        token: SubscriptionToken,
    ) {
        let began_ms = self.now_ms;
        let room = self.rooms.get_mut(room).expect("all rooms are known");
        let fresh = Subscriber { token, arrives_ms: 0, began_ms };
        let subscriber = room.subscribers.entry(mailbox.id()).or_insert(fresh);
        subscriber.token = subscriber.token.max(token);
    }

    /// A shard listens no more, unless it has begun again since.
    pub(crate) fn on_unsubscribed(
        &mut self,
        room: &RoomId,
        mailbox: &Mailbox,
        token: SubscriptionToken,
    ) {
        let room = self.rooms.get_mut(room).expect("all rooms are known");
        if room.subscribers.get(&mailbox.id()).is_some_and(|s| s.token <= token) {
            room.subscribers.remove(&mailbox.id());
        }
    }

    /// Sends mail to all subscribers of a room, in order for each.
    pub(crate) fn notify(&mut self, room: &RoomId, mail: &Mail) {
        let (now, weather) = (self.now_ms, self.weather);
        let Some(sim_room) = self.rooms.get_mut(room) else { return };
        // Only a position lets anybody notice.
        let losable = match mail {
            Mail::Publication(published) => published.publication.offset.is_some(),
            Mail::Presence(..) => false,
        };
        for (mailbox, subscriber) in &mut sim_room.subscribers {
            if losable && self.lossy && self.rng.percent(weather.lose_notifications) {
                self.counts.fault(Fault::NotificationLost);
                continue;
            }
            let mut delay = self.rng.below(6);
            if self.rng.percent(weather.delay_notifications) {
                self.counts.fault(Fault::NotificationLate);
                delay += self.rng.between(200, 3_000);
            }
            subscriber.arrives_ms = subscriber.arrives_ms.max(now + delay);
            let (arrives_ms, mailbox) = (subscriber.arrives_ms, *mailbox);
            let outgoing = Outgoing { sent_ms: now, arrives_ms, mailbox, mail: mail.clone() };
            if losable && self.rng.percent(weather.double_notifications) {
                self.counts.fault(Fault::NotificationDoubled);
                let arrives_ms = arrives_ms + self.rng.below(400);
                self.outgoing.push(Outgoing { arrives_ms, mail: mail.clone(), ..outgoing });
            }
            self.outgoing.push(outgoing);
        }
    }

    /// Whether mail is the rest of a subscription that has ended. With a position it may arrive
    /// all the same; without one nobody could tell it from news.
    pub(crate) fn is_left_over(&self, arrived: &Outgoing) -> bool {
        let Mail::Publication(published) = &arrived.mail else { return false };
        let Publication { room, offset, .. } = &published.publication;
        let room = self.rooms.get(room);
        let subscriber = room.and_then(|room| room.subscribers.get(&arrived.mailbox));
        let began_ms = subscriber.map_or(u64::MAX, |subscriber| subscriber.began_ms);
        offset.is_none() && arrived.sent_ms < began_ms
    }

    pub(crate) fn wall(&self) -> Wall {
        Wall::from_millis(WALL_START_MS + i64::try_from(self.now_ms).unwrap_or(0))
    }
}

/// The broker, as one node has it.
pub(crate) struct SimBroker {
    pub(crate) core: Shared,
    pub(crate) node: usize,
    /// In seeds over Redis: publishes under a fence are compared there.
    pub(crate) over: Option<Arc<RedisBroker>>,
}

impl SimBroker {
    /// Whether a publish may be taken now, as the script that publishes looks at it.
    fn compare_fence(&self, core: &mut Core, publish: &Publish) -> Result<(), PublishError> {
        let (Some(over), Some(one)) = (&self.over, &core.redis) else { return Ok(()) };
        let (Some(user), Some(fence)) = (&publish.sender.user, publish.fence) else {
            return Ok(());
        };
        let largest = one.redis.hget(&over.seats_key(user), "f").map(|text| number(&text));
        let largest = largest.map(i64::cast_unsigned);
        // A Redis that has lost it may have been told of an older connection first.
        if largest.is_none_or(|largest| largest < fence.get()) {
            over.miss_fence();
            core.counts.effect(Effect::FenceUnknown);
            return Err(PublishError::Unavailable { retry_after: RETRY_AFTER });
        }
        if largest != Some(fence.get()) {
            core.counts.effect(Effect::PublishFenced);
            return Err(PublishError::Fenced);
        }
        core.check_fence(user, fence);
        Ok(())
    }
}

#[async_trait]
impl Broker for SimBroker {
    async fn publish(
        &self,
        publish: Publish,
        policy: &Arc<NamespacePolicy>,
    ) -> Result<Receipt, PublishError> {
        let unavailable = || PublishError::Unavailable { retry_after: RETRY_AFTER };
        self.core.travel().await;
        let receipt = {
            let mut core = self.core.lock();
            let weather = core.weather;
            if core.rng.percent(weather.refuse_publishes) {
                core.counts.fault(Fault::PublishRefused);
                return Err(unavailable());
            }
            if core.is_cut_off(self.node) {
                return Err(unavailable());
            }
            self.compare_fence(&mut core, &publish)?;
            core.append(publish, policy)
        };
        self.core.travel().await;
        let mut core = self.core.lock();
        let weather = core.weather;
        if core.rng.percent(weather.lose_publish_replies) {
            core.counts.fault(Fault::PublishReplyLost);
            return Err(unavailable());
        }
        Ok(receipt)
    }

    fn level_of_delivery(&self, policy: &NamespacePolicy) -> Option<AckLevel> {
        Some(policy.ack_level())
    }

    async fn subscribe(
        &self,
        room: &RoomId,
        _policy: &Arc<NamespacePolicy>,
        mailbox: &Arc<Mailbox>,
        token: SubscriptionToken,
    ) -> Result<RoomTop, BrokerError> {
        self.core.travel().await;
        let top = {
            let mut core = self.core.lock();
            let weather = core.weather;
            if core.rng.percent(weather.refuse_subscriptions) {
                core.counts.fault(Fault::SubscribeRefused);
                return Err(BrokerError::Unavailable { retry_after: RETRY_AFTER });
            }
            if core.is_cut_off(self.node) {
                return Err(BrokerError::Unavailable { retry_after: RETRY_AFTER });
            }
            core.on_subscribed(room, mailbox, token);
            let room = core.rooms.get(room).expect("all rooms are known");
            let latest = room.latest.iter().map(|(_, published)| Arc::clone(published)).collect();
            RoomTop { bounds: room.bounds(), latest }
        };
        self.core.travel().await;
        Ok(top)
    }

    async fn unsubscribe(&self, room: &RoomId, mailbox: &Arc<Mailbox>, token: SubscriptionToken) {
        self.core.travel().await;
        self.core.lock().on_unsubscribed(room, mailbox, token);
    }

    /// No client of a simulation follows a pattern.
    async fn watch(
        &self,
        _mailbox: &Arc<Mailbox>,
        patterns: &[RoomPattern],
        _version: u64,
    ) -> Result<(), BrokerError> {
        assert!(patterns.is_empty(), "nobody follows {patterns:?}");
        Ok(())
    }

    async fn read(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        read: ReadLog,
    ) -> Result<LogPage, BrokerError> {
        self.core.travel().await;
        let (page, slow) = {
            let mut core = self.core.lock();
            let weather = core.weather;
            if core.rng.percent(weather.refuse_reads) {
                core.counts.fault(Fault::ReadRefused);
                return Err(BrokerError::Unavailable { retry_after: RETRY_AFTER });
            }
            if core.is_cut_off(self.node) {
                return Err(BrokerError::Unavailable { retry_after: RETRY_AFTER });
            }
            let sim_room = core.rooms.get_mut(room).expect("all rooms are known");
            let page = sim_room.read(&read, &policy.retention);
            let slow = core.rng.percent(weather.slow_reads).then(|| core.rng.between(100, 2_000));
            if slow.is_some() {
                core.counts.fault(Fault::ReadSlow);
            }
            (page, slow)
        };
        self.core.travel().await;
        if let Some(slow_ms) = slow {
            self.core.wait(slow_ms).await;
        }
        Ok(page)
    }
}
