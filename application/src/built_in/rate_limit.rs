//! A middleware that limits how many messages a user sends in a minute, all together and by type.
//!
//! All connections of a user on this node count together, and who connects again goes on where it was. A user who is
//! connected over several nodes has an even share of each limit on each of them. Who is nobody in particular is counted
//! by connection. It must never remember a user for longer than that could change anything, nor more users than it can
//! name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::codes::{CloseCode, ErrorCode};
use domain::id::UserId;
use domain::rate_limit::{Rate, RateLimiter};
use domain::time::Monotonic;

use crate::extensions::middleware::{Context, Inbound, Middleware, SPREAD, Who};
use crate::ports::{Clock, Spread};
use crate::refusal::Refusal;

/// What may be sent, per user, or per connection of nobody in particular.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RateLimitConfig {
    /// Whether anything is limited.
    pub enabled: bool,
    /// Messages of all types together; 0 limits them by type only.
    pub requests_per_minute: u32,
    /// Messages of single types; 0 refuses none.
    pub of_types: BTreeMap<String, u32>,
}

/// See the module's text.
pub struct RateLimit {
    config: RateLimitConfig,
    clock: Arc<dyn Clock>,
    users: Mutex<Users>,
}

/// The most users that are remembered; further ones are counted by connection.
const USERS_MAX: usize = 200_000;
/// After this long without a message nothing of what was counted matters.
const WINDOW: Duration = Duration::from_secs(60);

/// Held when a connection opens.
#[derive(Default)]
struct Users {
    counts: BTreeMap<UserId, Shared>,
    looked_at: Monotonic,
}

impl Users {
    fn of(&mut self, user: &UserId, now: Monotonic) -> Shared {
        if let Some(known) = self.counts.get(user) {
            return known.clone();
        }
        let is_time = now.since(self.looked_at) >= WINDOW;
        if is_time {
            self.looked_at = now;
            self.counts.retain(|_, shared| shared.matters(now));
        }
        let fresh = Shared::default();
        if self.counts.len() < USERS_MAX {
            self.counts.insert(user.clone(), fresh.clone());
        }
        fresh
    }
}

/// Counts that several connections may share.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Counts>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody is here to count, or was so lately that it counts.
    fn matters(&self, now: Monotonic) -> bool {
        Arc::strong_count(&self.0) > 1 || now.since(self.lock().used_at) < WINDOW
    }
}

/// Under which name a connection's counts are kept.
const COUNTS: &str = "rate_limit";

/// What was counted; at most one entry for each type of the configuration.
#[derive(Default)]
struct Counts {
    used_at: Monotonic,
    all: RateLimiter,
    of_types: BTreeMap<String, RateLimiter>,
}

impl RateLimit {
    /// A limit by this clock.
    #[must_use]
    pub fn new(config: RateLimitConfig, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock, users: Mutex::default() }
    }
}

#[async_trait]
impl Middleware for RateLimit {
    async fn process_connection(&self, who: &Who, context: &mut Context) -> Result<(), CloseCode> {
        if self.config.enabled {
            let now = self.clock.now().monotonic;
            let counts = who.principal.user.as_ref().map(|user| {
                self.users.lock().unwrap_or_else(PoisonError::into_inner).of(user, now)
            });
            context.set(COUNTS, counts.unwrap_or_default());
        }
        Ok(())
    }

    async fn process_message(
        &self,
        _who: &Who,
        message: Inbound<'_>,
        context: &mut Context,
    ) -> Result<(), Refusal> {
        if message.derived {
            return Ok(());
        }
        let Some(counts) = context.get::<Shared>(COUNTS) else { return Ok(()) };
        let now = self.clock.now().monotonic;
        let nodes = context.get::<Spread>(SPREAD).map_or(1, |spread| spread.nodes());
        let share = |per_minute: u32| Rate::per_minute(per_minute).shared_by(nodes);
        let mut counts = counts.lock();
        let Counts { all, of_types, used_at } = &mut *counts;
        *used_at = now;
        let of_type = self.config.of_types.get(message.kind).map(|rate| {
            let limiter = of_types.entry(message.kind.to_owned()).or_default();
            limiter.take(share(*rate), now)
        });
        let mut of_all = || all.take(share(self.config.requests_per_minute), now);
        of_type.unwrap_or(Ok(())).and_then(|()| of_all()).map_err(|wait| {
            Refusal::new(ErrorCode::RateLimited, "messages come too fast").retry_after(wait)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::clock::MockClock;
    use crate::view::View;
    use domain::id::{ClientId, ConnectionId};
    use domain::principal::Principal;
    use domain::time::{Now, Wall};

    fn who() -> Who {
        Who {
            connection: ConnectionId::from_bits(1),
            client: ClientId::parse("c").unwrap(),
            address: None,
            view: View::V2,
            place: None,
            principal: Arc::new(Principal::anonymous()),
            context: Context::default(),
            fence: None,
        }
    }

    fn limit(config: RateLimitConfig) -> RateLimit {
        let mut clock = MockClock::new();
        let now = Now { monotonic: Monotonic::from_millis(1_000_000), wall: Wall::default() };
        clock.expect_now().return_const(now);
        RateLimit::new(config, Arc::new(clock))
    }

    async fn n_taken(limit: &RateLimit, kinds: &[&str]) -> usize {
        n_taken_by(limit, who(), kinds).await
    }

    async fn n_taken_by(limit: &RateLimit, who: Who, kinds: &[&str]) -> usize {
        let mut context = who.context.clone();
        limit.process_connection(&who, &mut context).await.unwrap();
        let mut taken = 0;
        for kind in kinds {
            let message = Inbound { kind, room: None, body: "", derived: false };
            match limit.process_message(&who, message, &mut context).await {
                Ok(()) => taken += 1,
                Err(refusal) => assert!(refusal.retry_after.is_some_and(|wait| !wait.is_zero())),
            }
        }
        taken
    }

    #[tokio::test]
    async fn no_more_than_requests_per_minute_are_taken_and_a_refusal_says_when_to_come_back() {
        let of_types = BTreeMap::new();
        let config = RateLimitConfig { enabled: true, requests_per_minute: 60, of_types };
        assert_eq!(n_taken(&limit(config.clone()), &["chat"; 100]).await, 60);
        let off = RateLimitConfig { enabled: false, ..config };
        assert_eq!(n_taken(&limit(off), &["chat"; 100]).await, 100);
    }

    #[tokio::test]
    async fn who_connects_again_goes_on_where_it_was_and_is_forgotten_when_that_can_matter_no_more()
    {
        let user = |name: &str| {
            let user = UserId::parse(name).ok();
            let principal = Arc::new(Principal { user, ..Principal::default() });
            Who { principal, ..who() }
        };
        let of_types = BTreeMap::new();
        let config = RateLimitConfig { enabled: true, requests_per_minute: 60, of_types };
        let limit = limit(config);
        for (name, taken) in [("ann", 40), ("ann", 20), ("ann", 0), ("bob", 40)] {
            assert_eq!(n_taken_by(&limit, user(name), &["chat"; 40]).await, taken, "{name}");
        }
        assert_eq!(n_taken(&limit, &["chat"; 40]).await, 40, "nobody in particular");
        let later = Monotonic::from_millis(1_060_000);
        let mut users = limit.users.lock().unwrap();
        users.of(&UserId::parse("cat").unwrap(), later);
        assert_eq!(users.counts.keys().map(UserId::as_str).collect::<Vec<_>>(), ["cat"]);
    }

    /// R02, by the minute.
    #[tokio::test]
    async fn who_is_connected_over_several_nodes_has_an_even_share_on_each() {
        let of_types = BTreeMap::from([("typing".to_owned(), 9)]);
        let config = RateLimitConfig { enabled: true, requests_per_minute: 60, of_types };
        let spread = Arc::new(Spread::default());
        let user = || {
            let mut context = Context::default();
            context.share(SPREAD, Arc::clone(&spread));
            let user = UserId::parse("ann").ok();
            Who {
                principal: Arc::new(Principal { user, ..Principal::default() }),
                context,
                ..who()
            }
        };
        for (nodes, typing, all) in [(1, 9, 60), (2, 5, 30), (3, 3, 20)] {
            spread.set(nodes);
            let fresh = limit(config.clone());
            assert_eq!(n_taken_by(&fresh, user(), &["typing"; 60]).await, typing, "{nodes}");
            let fresh = limit(config.clone());
            assert_eq!(n_taken_by(&fresh, user(), &["chat"; 60]).await, all, "{nodes}");
        }
    }

    #[tokio::test]
    async fn a_type_has_a_limit_of_its_own_beside_that_of_all() {
        let of_types = BTreeMap::from([("typing".to_owned(), 5)]);
        let config = RateLimitConfig { enabled: true, requests_per_minute: 60, of_types };
        let limit = limit(config);
        assert_eq!(n_taken(&limit, &["typing"; 100]).await, 5);
        assert_eq!(n_taken(&limit, &[["typing"; 10], ["chat"; 10]].concat()).await, 15);
    }
}
