//! A middleware that limits how many messages a connection sends in a minute, all together and by type.
//!
//! What it counts belongs to the connection and ends with it: nothing grows with the number of clients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use domain::codes::{CloseCode, ErrorCode};
use domain::rate_limit::{Rate, RateLimiter};

use crate::extensions::middleware::{Context, Inbound, Middleware, Who};
use crate::ports::Clock;
use crate::refusal::Refusal;

/// What may be sent, per connection.
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
}

/// Under which name a connection's counts are kept.
const COUNTS: &str = "rate_limit";

/// The counts of one connection; at most one entry for each type of the configuration.
#[derive(Default)]
struct Counts {
    all: RateLimiter,
    of_types: BTreeMap<String, RateLimiter>,
}

impl RateLimit {
    /// A limit by this clock.
    #[must_use]
    pub fn new(config: RateLimitConfig, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock }
    }
}

#[async_trait]
impl Middleware for RateLimit {
    async fn process_connection(&self, _who: &Who, context: &mut Context) -> Result<(), CloseCode> {
        if self.config.enabled {
            context.set(COUNTS, Mutex::new(Counts::default()));
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
        let Some(counts) = context.get::<Mutex<Counts>>(COUNTS) else { return Ok(()) };
        let now = self.clock.now().monotonic;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { all, of_types } = &mut *counts;
        let of_type = self.config.of_types.get(message.kind).map(|rate| {
            let limiter = of_types.entry(message.kind.to_owned()).or_default();
            limiter.take(Rate::per_minute(*rate), now)
        });
        let mut of_all = || all.take(Rate::per_minute(self.config.requests_per_minute), now);
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
    use domain::time::{Monotonic, Now, Wall};

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
        let (who, mut context) = (who(), Context::default());
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
    async fn a_type_has_a_limit_of_its_own_beside_that_of_all() {
        let of_types = BTreeMap::from([("typing".to_owned(), 5)]);
        let config = RateLimitConfig { enabled: true, requests_per_minute: 60, of_types };
        let limit = limit(config);
        assert_eq!(n_taken(&limit, &["typing"; 100]).await, 5);
        assert_eq!(n_taken(&limit, &[["typing"; 10], ["chat"; 10]].concat()).await, 15);
    }
}
