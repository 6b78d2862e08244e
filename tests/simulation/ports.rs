//! What all simulated nodes share: virtual time, the weather, and every port but the broker's.
//!
//! Port futures are pending until a virtual moment; whoever polls them asks here when that is.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use application::extensions::middleware::{Context as MiddlewareContext, Inbound, Middleware, Who};
use application::mailbox::Mail;
use application::ports::{
    Clock, Entropy, NoEntropy, Presence, PresenceError, SessionTickets, TicketError, TokenError,
    TokenVerifier,
};
use application::refusal::Refusal;
use async_trait::async_trait;
use bytes::Bytes;
use domain::id::{ConnectionId, TokenId, UserId};
use domain::presence::{PresenceEvent, PresenceKey, PresenceList, RoomPresence};
use domain::principal::{Credential, Principal};
use domain::room::RoomId;
use domain::time::{Monotonic, Now, Wall};
use secrecy::SecretString;
use tickets_hmac::HmacTickets;

use crate::broker::{Outgoing, SimRoom};
use crate::checker::Violation;
use crate::docket::Docket;
use crate::faults::{Counts, Effect, Fault};
use crate::inbox::Account;
use crate::rng::Rng;
use crate::ways::OneRedis;

pub(crate) const WALL_START_MS: i64 = 1_763_717_880_000;

/// The chances, in a hundred, that something goes wrong now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) lose_notifications: u64,
    pub(crate) double_notifications: u64,
    pub(crate) delay_notifications: u64,
    pub(crate) refuse_publishes: u64,
    pub(crate) lose_publish_replies: u64,
    pub(crate) refuse_subscriptions: u64,
    pub(crate) slow_reads: u64,
    pub(crate) refuse_reads: u64,
    pub(crate) refuse_presence: u64,
    pub(crate) lose_presence_replies: u64,
    pub(crate) slow_presence: u64,
    pub(crate) slow_appends: u64,
    pub(crate) refuse_appends: u64,
    pub(crate) lose_append_answers: u64,
    pub(crate) slow_disk: u64,
    pub(crate) refuse_disk: u64,
    pub(crate) slow_inbox: u64,
    pub(crate) refuse_inbox: u64,
    pub(crate) lose_inbox_answers: u64,
    pub(crate) slow_moderation: u64,
    pub(crate) refuse_moderation: u64,
    pub(crate) lose_moderation_answers: u64,
    pub(crate) slow_redis: u64,
    pub(crate) lose_redis_answers: u64,
}

pub(crate) struct Core {
    pub(crate) now_ms: u64,
    pub(crate) rng: Rng,
    pub(crate) weather: Weather,
    /// Whether notifications of this seed may be lost; positions are compared then.
    pub(crate) lossy: bool,
    pub(crate) log_keeps_origin: bool,
    /// Whether a middleware refuses messages of this seed.
    pub(crate) censored: bool,
    /// When the future that was polled last wants to be polled again.
    pub(crate) wake_ms: Option<u64>,
    pub(crate) rooms: BTreeMap<RoomId, SimRoom>,
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) presence: BTreeMap<RoomId, RoomPresence>,
    /// What nodes share beside the broker, in seeds over Redis.
    pub(crate) redis: Option<OneRedis>,
    /// Which node's lease holds an entry.
    pub(crate) leases: BTreeMap<(RoomId, PresenceKey, ConnectionId), usize>,
    /// What clients have sent.
    pub(crate) sent: HashSet<(RoomId, Bytes)>,
    /// What became of private messages.
    pub(crate) letters: Account,
    /// Whether there are moderators.
    pub(crate) moderated: bool,
    /// What they have done.
    pub(crate) docket: Docket,
    /// What a connection can be given of who is in a room.
    pub(crate) list_bytes_max: usize,
    pub(crate) counts: Counts,
    pub(crate) violation: Option<Violation>,
}

impl Core {
    /// Fine weather, and no room yet.
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            now_ms: 0,
            rng,
            weather: Weather::default(),
            lossy: false,
            log_keeps_origin: false,
            censored: false,
            wake_ms: None,
            rooms: BTreeMap::new(),
            outgoing: Vec::new(),
            presence: BTreeMap::new(),
            redis: None,
            leases: BTreeMap::new(),
            sent: HashSet::new(),
            letters: Account::default(),
            moderated: false,
            docket: Docket::default(),
            list_bytes_max: 0,
            counts: Counts::default(),
            violation: None,
        }
    }

    /// Ends the leases of a node that was killed. Answers how many there were.
    pub(crate) fn end_leases(&mut self, node: usize) -> usize {
        let ended: Vec<_> =
            self.leases.iter().filter(|(_, of)| **of == node).map(|(key, _)| key.clone()).collect();
        for (room, who, connection) in &ended {
            self.take_leave(room, who, *connection);
        }
        ended.len()
    }

    fn take_leave(&mut self, room: &RoomId, who: &PresenceKey, connection: ConnectionId) {
        self.leases.remove(&(room.clone(), who.clone(), connection));
        let event = self.presence.entry(room.clone()).or_default().leave(who, connection);
        self.tell_presence(room, event);
    }

    fn tell_presence(&mut self, room: &RoomId, event: Option<PresenceEvent>) {
        if let Some(event) = event {
            self.notify(room, &Mail::Presence(room.clone(), Arc::new(event)));
        }
    }
}

/// Which future has been woken.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Woken {
    Call { node: usize, shard: usize, call: u64 },
    Task { node: usize, task: u64 },
}

/// What was woken by something else than time, and is to be polled.
pub(crate) type Alarms = Arc<Mutex<Vec<Woken>>>;

struct Alarm {
    woken: Woken,
    alarms: Alarms,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.alarms.lock().expect("nobody panics while holding it").push(self.woken);
    }
}

/// Has a future polled again when it is woken.
pub(crate) fn waker(woken: Woken, alarms: &Alarms) -> Waker {
    Waker::from(Arc::new(Alarm { woken, alarms: Arc::clone(alarms) }))
}

/// One lock for everything: a seed runs on one thread.
#[derive(Clone)]
pub(crate) struct Shared(pub(crate) Arc<Mutex<Core>>);

impl Shared {
    pub(crate) fn new(core: Core) -> Self {
        Self(Arc::new(Mutex::new(core)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// The way to a service and back takes a moment.
    pub(crate) fn travel(&self) -> Until {
        let mut core = self.lock();
        let usual = core.rng.below(4);
        let wait_ms = if core.rng.percent(4) { core.rng.between(5, 120) } else { usual };
        Until { core: self.clone(), at_ms: core.now_ms + wait_ms }
    }

    pub(crate) fn wait(&self, wait_ms: u64) -> Until {
        let at_ms = self.lock().now_ms + wait_ms;
        Until { core: self.clone(), at_ms }
    }
}

/// Is over at a virtual moment.
pub(crate) struct Until {
    core: Shared,
    at_ms: u64,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let mut core = self.core.lock();
        if core.now_ms >= self.at_ms {
            return Poll::Ready(());
        }
        // Of several that are waited for, the first.
        core.wake_ms = Some(core.wake_ms.map_or(self.at_ms, |at| at.min(self.at_ms)));
        Poll::Pending
    }
}

/// The presence port of one node.
pub(crate) struct SimPresence {
    pub(crate) core: Shared,
    pub(crate) node: usize,
}

const UNAVAILABLE: PresenceError =
    PresenceError::Unavailable { retry_after: Duration::from_millis(250) };

#[async_trait]
impl Presence for SimPresence {
    async fn enter(
        &self,
        room: &RoomId,
        who: &PresenceKey,
        connection: ConnectionId,
    ) -> Result<(), PresenceError> {
        self.core.travel().await;
        {
            let mut core = self.core.lock();
            let weather = core.weather;
            if core.rng.percent(weather.refuse_presence) {
                core.counts.fault(Fault::PresenceRefused);
                return Err(UNAVAILABLE);
            }
            core.leases.insert((room.clone(), who.clone(), connection), self.node);
            let event = core.presence.entry(room.clone()).or_default().enter(who, connection);
            core.tell_presence(room, event);
        }
        self.core.travel().await;
        let mut core = self.core.lock();
        let weather = core.weather;
        if core.rng.percent(weather.lose_presence_replies) {
            core.counts.fault(Fault::PresenceReplyLost);
            return Err(UNAVAILABLE);
        }
        Ok(())
    }

    async fn leave(&self, room: &RoomId, who: &PresenceKey, connection: ConnectionId) {
        let slow = {
            let mut core = self.core.lock();
            let weather = core.weather;
            core.rng.percent(weather.slow_presence).then(|| {
                core.counts.fault(Fault::PresenceSlow);
                core.rng.between(100, 2_000)
            })
        };
        if let Some(slow_ms) = slow {
            self.core.wait(slow_ms).await;
        }
        self.core.travel().await;
        self.core.lock().take_leave(room, who, connection);
    }

    async fn update(
        &self,
        room: &RoomId,
        who: &PresenceKey,
        data: Bytes,
    ) -> Result<(), PresenceError> {
        self.core.travel().await;
        {
            let mut core = self.core.lock();
            if !core.leases.keys().any(|(of, holder, _)| of == room && holder == who) {
                return Err(PresenceError::NotPresent);
            }
            let presence = core.presence.entry(room.clone()).or_default();
            let event = presence.update(who, data);
            core.tell_presence(room, event);
        }
        self.core.travel().await;
        Ok(())
    }

    async fn list(&self, room: &RoomId, members_max: usize) -> Result<PresenceList, PresenceError> {
        self.core.travel().await;
        let list = self.core.lock().presence.entry(room.clone()).or_default().list(members_max);
        self.core.travel().await;
        Ok(list)
    }
}

/// Takes `user:<name>:<milliseconds since 1970 when it ends>`, and what counts once with its own name behind that.
pub(crate) struct SimVerifier(pub(crate) Shared);

#[async_trait]
impl TokenVerifier for SimVerifier {
    async fn verify(&self, token: &str, now: Wall) -> Result<Principal, TokenError> {
        self.0.travel().await;
        let mut parts = token.split(':').skip(1);
        let user = parts.next().and_then(|name| UserId::parse(name).ok());
        let ends = parts.next().and_then(|ms| ms.parse().ok()).map(Wall::from_millis);
        let id = parts.next().and_then(|id| TokenId::parse(id).ok());
        let (Some(user), Some(ends)) = (user, ends) else { return Err(TokenError::Malformed) };
        if ends <= now {
            return Err(TokenError::Expired);
        }
        let credential = Credential { once: id.is_some(), id, ..Credential::default() };
        let (user, expires_at) = (Some(user), Some(ends));
        Ok(Principal { user, expires_at, credential, ..Principal::default() })
    }
}

/// Real tickets, and a count of what became of them.
pub(crate) struct SimTickets {
    core: Shared,
    tickets: HmacTickets,
}

impl SimTickets {
    pub(crate) fn new(core: Shared) -> Self {
        let secret = SecretString::from("the one secret of all simulated nodes");
        let tickets = HmacTickets::build(&[secret], "simulation", Duration::from_secs(30));
        Self { core, tickets: tickets.expect("a good secret") }
    }
}

impl SessionTickets for SimTickets {
    fn seal(&self, principal: &Principal, now: Wall) -> Option<String> {
        self.tickets.seal(principal, now)
    }

    fn open(&self, ticket: &str, now: Wall) -> Result<Principal, TicketError> {
        let opened = self.tickets.open(ticket, now);
        let effect = if opened.is_ok() { Effect::TicketOpened } else { Effect::TicketRefused };
        self.core.lock().counts.effect(effect);
        opened
    }
}

/// What the middleware of a seed refuses.
pub(crate) const REFUSED: &str = "\"refused\":true";

/// Refuses publishes that say that they are to be refused.
pub(crate) struct SimMiddleware(pub(crate) Shared);

#[async_trait]
impl Middleware for SimMiddleware {
    async fn process_message(
        &self,
        _who: &Who,
        message: Inbound<'_>,
        _context: &mut MiddlewareContext,
    ) -> Result<(), Refusal> {
        if message.kind == "publish" {
            self.0.travel().await;
        }
        if message.body.contains(REFUSED) {
            self.0.lock().counts.fault(Fault::MessageRefused);
            return Err(Refusal::denied());
        }
        Ok(())
    }
}

pub(crate) struct SimClock(pub(crate) Shared);

impl Clock for SimClock {
    fn now(&self) -> Now {
        let core = self.0.lock();
        Now { monotonic: Monotonic::from_millis(core.now_ms), wall: core.wall() }
    }
}

pub(crate) struct SimEntropy(pub(crate) Shared);

impl Entropy for SimEntropy {
    fn bits(&self) -> Result<u64, NoEntropy> {
        Ok(self.0.lock().rng.bits())
    }
}
