//! What is so, whatever Redis says: who is in which room and who has a seat, noted where each node says it; and what
//! must hold of what is made of that over all nodes.
//!
//! A node that is known to be cut off, or whose Redis has lost something, is excused until it has had the time to say
//! everything again; no other is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use application::ports::{
    EndReplaced, Presence, PresenceError, SeatError, Seats, SpentTokens, Standing, Taken,
};
use async_trait::async_trait;
use broker_redis::{RedisBroker, RedisSeats, RedisSpentTokens};
use bytes::Bytes;
use domain::id::{ConnectionId, UserId};
use domain::presence::{PresenceChange, PresenceEvent, PresenceKey, PresenceList};
use domain::room::RoomId;
use domain::seats::{Fence, SeatRule};

use crate::checker::Violation;
use crate::ports::{Core, Shared, SimEntropy};
use crate::ways::{GRACE_MS, LEASE_MS, config};

/// How long after the last trouble with Redis seats may be counted by nodes for themselves: what was told of them waits
/// for a lease at most, and for its turn.
const COUNTED_MS: u64 = LEASE_MS * 2;

/// A connection in a room.
#[derive(Debug)]
struct Stay {
    node: usize,
    /// Whether its entry was answered.
    has_entered: bool,
    left_ms: Option<u64>,
}

/// A connection with a seat.
#[derive(Debug)]
struct Seat {
    node: usize,
    fence: u64,
    since_ms: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    stays: BTreeMap<(RoomId, PresenceKey), BTreeMap<ConnectionId, Stay>>,
    seats: BTreeMap<UserId, BTreeMap<ConnectionId, Seat>>,
    /// The largest fence that anybody drew for a user.
    drawn: BTreeMap<String, u64>,
    /// Those of connections, also when they are gone.
    fences: BTreeMap<ConnectionId, u64>,
    /// When something went wrong with Redis last.
    troubled_ms: Option<u64>,
    /// By token: the links that showed it, and those that were let in with it.
    shown: BTreeMap<String, BTreeSet<usize>>,
    let_in: BTreeMap<String, BTreeSet<usize>>,
}

impl Truth {
    pub(crate) fn on_dead(&mut self, node: usize) {
        self.stays.values_mut().for_each(|stays| stays.retain(|_, stay| stay.node != node));
        self.seats.values_mut().for_each(|seats| seats.retain(|_, seat| seat.node != node));
    }

    /// Something was said to all nodes.
    pub(crate) fn on_news(&mut self, text: &str) {
        let mut words = text.split(' ');
        if let (Some("seat"), Some(Ok(fence)), Some(user)) =
            (words.next(), words.next().map(str::parse::<u64>), words.next())
        {
            self.drawn.insert(user.to_owned(), fence);
        }
    }

    /// Whether a connection was its user's newest, as far as anybody drew a fence.
    pub(crate) fn is_newest(&self, user: &str, connection: ConnectionId) -> bool {
        let (own, drawn) = (self.fences.get(&connection), self.drawn.get(user));
        own.is_some_and(|own| Some(own) == drawn)
    }

    /// Over how many connections a user has seats.
    pub(crate) fn seats_of(&self, user: &UserId) -> usize {
        self.seats.get(user).map_or(0, BTreeMap::len)
    }

    pub(crate) fn on_shown(&mut self, token: &str, link: usize) {
        self.shown.entry(token.to_owned()).or_default().insert(link);
    }

    pub(crate) fn is_shown_again(&self, link: usize) -> bool {
        self.shown.values().any(|links| links.len() > 1 && links.contains(&link))
    }

    /// A link was let in with what it had shown.
    pub(crate) fn on_let_in(&mut self, link: usize) -> Result<(), Violation> {
        let Some((token, _)) = self.shown.iter().find(|(_, links)| links.contains(&link)) else {
            return Ok(());
        };
        let let_in = self.let_in.entry(token.clone()).or_default();
        let_in.insert(link);
        if let_in.len() > 1 {
            let text = format!("{token} let in the links {let_in:?}");
            return Err(Violation::new("I21", text));
        }
        Ok(())
    }

    fn on_seat(&mut self, user: &UserId, connection: ConnectionId, seat: Seat) {
        self.fences.insert(connection, seat.fence);
        self.seats.entry(user.clone()).or_default().insert(connection, seat);
    }

    /// How many seats a user has that were counted over all nodes.
    fn counted(&self, user: &UserId, now_ms: u64) -> usize {
        let since = self.troubled_ms.map_or(0, |troubled| troubled + COUNTED_MS);
        if now_ms < since {
            return 0;
        }
        let seats = self.seats.get(user).into_iter().flatten();
        seats.filter(|(_, seat)| seat.since_ms >= since).count()
    }
}

impl Core {
    /// Something goes wrong with Redis.
    pub(crate) fn trouble(&mut self) {
        let now_ms = self.now_ms;
        if let Some(one) = &mut self.redis {
            one.truth.troubled_ms = Some(now_ms);
        }
    }

    /// Somebody is told to have left: nobody who stays, and nobody who may still come back.
    pub(crate) fn check_leave(&mut self, room: &RoomId, event: &PresenceEvent) {
        let now_ms = self.now_ms;
        let Some(one) = self.redis.as_ref().filter(|_| event.change == PresenceChange::Leave)
        else {
            return;
        };
        let stays = one.truth.stays.get(&(room.clone(), event.who.clone())).into_iter().flatten();
        let is_sure = |stay: &Stay| {
            let way = &one.ways[&stay.node];
            !way.is_dead && !way.is_unsure
        };
        let may_be_here = |left_ms: u64| now_ms < left_ms + GRACE_MS;
        let is_here = |stay: &Stay| stay.has_entered && stay.left_ms.is_none_or(may_be_here);
        let here = stays.clone().find(|(_, stay)| is_sure(stay) && is_here(stay));
        if let Some((connection, stay)) = here {
            let text =
                format!("{} leaves {room} at {now_ms}, but {connection}: {stay:?}", event.who);
            self.violation.get_or_insert(Violation::new("I19", text));
        }
    }

    /// A publish under a fence is taken: nobody may have taken its user over before.
    pub(crate) fn check_fence(&mut self, user: &UserId, fence: Fence) {
        let Some(one) = &self.redis else { return };
        let seats = one.truth.seats.get(user).into_iter().flatten();
        let is_sure = |seat: &Seat| one.ways.get(&seat.node).is_some_and(|way| !way.is_unsure);
        let newer = seats.clone().find(|(_, seat)| seat.fence > fence.get() && is_sure(seat));
        if let Some((connection, seat)) = newer {
            let text = format!("{user} spoke under {fence}, but {connection} has {seat:?}");
            self.violation.get_or_insert(Violation::new("I20", text));
        }
    }
}

/// Presence of a node, and a witness of what it says.
pub(crate) struct PresenceWitness {
    pub(crate) broker: Arc<RedisBroker>,
    pub(crate) core: Shared,
    pub(crate) node: usize,
}

impl PresenceWitness {
    fn note(&self, room: &RoomId, who: &PresenceKey, connection: ConnectionId, stay: Stay) {
        let mut core = self.core.lock();
        let Some(one) = &mut core.redis else { return };
        let stays = one.truth.stays.entry((room.clone(), who.clone())).or_default();
        stays.insert(connection, stay);
    }
}

#[async_trait]
impl Presence for PresenceWitness {
    async fn enter(
        &self,
        room: &RoomId,
        who: &PresenceKey,
        connection: ConnectionId,
    ) -> Result<(), PresenceError> {
        let node = self.node;
        self.note(room, who, connection, Stay { node, has_entered: false, left_ms: None });
        self.broker.enter(room, who, connection).await?;
        let mut core = self.core.lock();
        let stays = core.redis.as_mut().map(|one| &mut one.truth.stays);
        let stays = stays.and_then(|stays| stays.get_mut(&(room.clone(), who.clone())));
        if let Some(stay) = stays.and_then(|stays| stays.get_mut(&connection)) {
            stay.has_entered = true;
        }
        Ok(())
    }

    async fn leave(&self, room: &RoomId, who: &PresenceKey, connection: ConnectionId) {
        {
            let mut core = self.core.lock();
            let now_ms = core.now_ms;
            let stays = core.redis.as_mut().map(|one| &mut one.truth.stays);
            let stays = stays.and_then(|stays| stays.get_mut(&(room.clone(), who.clone())));
            // Leaving again is leaving once.
            if let Some(stay) = stays.and_then(|stays| stays.get_mut(&connection)) {
                stay.left_ms = stay.left_ms.or(Some(now_ms));
            }
        }
        self.broker.leave(room, who, connection).await;
    }

    async fn update(
        &self,
        room: &RoomId,
        who: &PresenceKey,
        data: Bytes,
    ) -> Result<(), PresenceError> {
        self.broker.update(room, who, data).await
    }

    async fn list(&self, room: &RoomId, members_max: usize) -> Result<PresenceList, PresenceError> {
        Presence::list(self.broker.as_ref(), room, members_max).await
    }
}

/// Seats of a node, and a witness of who has one.
pub(crate) struct SeatsWitness {
    pub(crate) seats: Arc<RedisSeats>,
    pub(crate) core: Shared,
    pub(crate) node: usize,
}

#[async_trait]
impl Seats for SeatsWitness {
    async fn take(
        &self,
        user: &UserId,
        connection: ConnectionId,
        rule: SeatRule,
    ) -> Result<Taken, SeatError> {
        let taken = self.seats.take(user, connection, rule).await?;
        let mut core = self.core.lock();
        let now_ms = core.now_ms;
        let Some(one) = &mut core.redis else { return Ok(taken) };
        let fence = taken.fence.map_or(0, Fence::get);
        let seat = Seat { node: self.node, fence, since_ms: now_ms };
        one.truth.on_seat(user, connection, seat);
        let counted = one.truth.counted(user, now_ms);
        if let SeatRule::AtMost(max) = rule
            && counted > max as usize
        {
            let text =
                format!("{user} has {counted} seats, not {max}: {:?}", one.truth.seats[user]);
            core.violation.get_or_insert(Violation::new("I20 (seats)", text));
        }
        Ok(taken)
    }

    fn leave(&self, user: &UserId, connection: ConnectionId) {
        if let Some(one) = &mut self.core.lock().redis
            && let Some(seats) = one.truth.seats.get_mut(user)
        {
            seats.remove(&connection);
        }
        self.seats.leave(user, connection);
    }

    fn standing(&self, user: &UserId, fence: Fence) -> Standing {
        self.seats.standing(user, fence)
    }

    async fn confirm(&self, user: &UserId, fence: Fence) -> Standing {
        self.seats.confirm(user, fence).await
    }

    fn on_replaced(&self, end: EndReplaced) {
        self.seats.on_replaced(end);
    }
}

/// What a node over Redis has beside its shards.
#[derive(Clone)]
pub(crate) struct OverRedis {
    pub(crate) broker: Arc<RedisBroker>,
    pub(crate) seats: Arc<RedisSeats>,
    pub(crate) spent_tokens: Arc<dyn SpentTokens>,
}

impl OverRedis {
    /// What a node has where nodes share one; none elsewhere.
    pub(crate) fn build(core: &Shared, entropy: &Arc<SimEntropy>) -> Option<Self> {
        core.lock().redis.as_ref()?;
        let broker = RedisBroker::build_unlinked(config(), Arc::clone(entropy) as _);
        let broker = broker.expect("good settings");
        let seats = RedisSeats::build(&broker);
        let spent_tokens = Arc::new(RedisSpentTokens::new(&broker));
        Some(Self { broker, seats, spent_tokens })
    }

    pub(crate) fn presence(&self, core: &Shared, node: usize) -> PresenceWitness {
        PresenceWitness { broker: Arc::clone(&self.broker), core: core.clone(), node }
    }

    pub(crate) fn seats(&self, core: &Shared, node: usize) -> SeatsWitness {
        SeatsWitness { seats: Arc::clone(&self.seats), core: core.clone(), node }
    }
}
