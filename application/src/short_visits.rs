//! Addresses whose connections keep ending as soon as they have begun: a client in a loop waits longer each
//! time that it comes back too soon.
//!
//! Bounded, and soft where it is full: it must never keep out somebody of whom nothing is known.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::rate_limit::{Rate, RateLimiter};
use domain::time::Monotonic;

use crate::client_address::counted_as;
use crate::ports::Clock;

/// The most addresses that are remembered.
pub const ADDRESSES_MAX: usize = 10_000;
/// What ends sooner than this is no visit but a turn of a loop.
pub const SHORT: Duration = Duration::from_secs(5);
/// The first wait; each further one is twice as long.
pub const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Who has stayed away for this long begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
/// Between two looks for addresses that need not be remembered any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What is remembered of addresses.
#[derive(Debug, Default)]
pub struct ShortVisits {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: BTreeMap<IpAddr, Looping>,
    sweep_at: Monotonic,
}

#[derive(Clone, Copy, Debug, Default)]
struct Looping {
    limiter: RateLimiter,
    /// How often it had to wait, without a visit that lasted in between.
    n_waits: u32,
    /// Until when it is not let in.
    until: Monotonic,
    /// When a visit of it ended last.
    ended_at: Monotonic,
}

impl ShortVisits {
    /// Whether somebody may come from this address now.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn may_come(&self, address: IpAddr, now: Monotonic) -> Result<(), Duration> {
        match self.lock().addresses.get(&counted_as(address)) {
            Some(looping) if now < looping.until => Err(looping.until.since(now)),
            _ => Ok(()),
        }
    }

    /// A visit from this address has ended, after this long. Short ones beyond `rate` cost a wait.
    pub fn ended(&self, address: IpAddr, lasted: Duration, rate: Rate, now: Monotonic) {
        let (mut known, address) = (self.lock(), counted_as(address));
        if lasted >= SHORT {
            if let Some(looping) = known.addresses.get_mut(&address) {
                looping.n_waits = 0;
            }
            return;
        }
        if !known.addresses.contains_key(&address) && !known.makes_room(now) {
            return;
        }
        let looping = known.addresses.entry(address).or_default();
        if now.since(looping.ended_at) >= FORGOTTEN_AFTER {
            looping.n_waits = 0;
        }
        looping.ended_at = now;
        // Those that were let in together end together: one wait for all of them.
        if looping.limiter.take(rate, now).is_err() && now >= looping.until {
            let wait = WAIT_MIN.saturating_mul(1 << looping.n_waits.min(16)).min(WAIT_MAX);
            looping.until = now.after(wait);
            looping.n_waits = looping.n_waits.saturating_add(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is one step, so a poisoned map is still whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether one more address can be remembered.
    fn makes_room(&mut self, now: Monotonic) -> bool {
        if self.addresses.len() >= ADDRESSES_MAX && now >= self.sweep_at {
            self.sweep_at = now.after(SWEEP_INTERVAL);
            let now_us = now.as_millis().saturating_mul(1_000);
            self.addresses.retain(|_, looping| {
                looping.until > now
                    || looping.limiter.as_micros() > now_us
                    || (looping.n_waits > 0 && now.since(looping.ended_at) < FORGOTTEN_AFTER)
            });
        }
        self.addresses.len() < ADDRESSES_MAX
    }
}

/// A connection from an address, from its upgrade to its end.
pub struct Visit {
    visits: Arc<ShortVisits>,
    address: IpAddr,
    rate: Rate,
    clock: Arc<dyn Clock>,
    begun_at: Monotonic,
}

impl Visit {
    /// Lets somebody in, if it need not wait.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn begin(
        visits: &Arc<ShortVisits>,
        address: IpAddr,
        rate: Rate,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Duration> {
        let now = clock.now().monotonic;
        visits.may_come(address, now)?;
        let (visits, clock) = (Arc::clone(visits), Arc::clone(clock));
        Ok(Self { visits, address, rate, clock, begun_at: now })
    }
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Visit").field(&self.address).finish()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let now = self.clock.now().monotonic;
        self.visits.ended(self.address, now.since(self.begun_at), self.rate, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::per_minute(3);
    const AT_ONCE: Duration = Duration::from_millis(10);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_millis(ms)
    }

    /// The waits of a client that comes back at once, or as soon as it may, for this long.
    fn waits_of_a_loop(visits: &ShortVisits, from: &str, span_ms: u64) -> Vec<u64> {
        let (mut waits, mut now) = (Vec::new(), 0);
        while now < span_ms {
            match visits.may_come(ip(from), at(now)) {
                Ok(()) => visits.ended(ip(from), AT_ONCE, RATE, at(now)),
                Err(wait) => {
                    waits.push(wait.as_millis() as u64);
                    now += wait.as_millis() as u64;
                }
            }
        }
        waits
    }

    /// H05.
    #[test]
    fn who_comes_back_in_a_loop_waits_twice_as_long_each_time_and_others_do_not() {
        let visits = ShortVisits::default();
        let waits = waits_of_a_loop(&visits, "203.0.113.7", 300_000);
        assert_eq!(waits[..5], [1_000, 2_000, 4_000, 8_000, 16_000]);
        assert!(waits.iter().all(|wait| *wait <= 60_000));
        assert_eq!(visits.may_come(ip("203.0.113.8"), at(0)), Ok(()));
    }

    #[test]
    fn a_visit_that_lasts_ends_the_loop_and_so_does_a_long_absence() {
        for is_a_visit in [true, false] {
            let visits = ShortVisits::default();
            let address = ip("203.0.113.7");
            (0..5).for_each(|_| visits.ended(address, AT_ONCE, RATE, at(0)));
            assert_eq!(visits.may_come(address, at(0)), Err(WAIT_MIN));
            let later = if is_a_visit {
                visits.ended(address, SHORT, RATE, at(70_000));
                at(70_000)
            } else {
                at(300_000)
            };
            (0..5).for_each(|_| visits.ended(address, AT_ONCE, RATE, later));
            assert_eq!(visits.may_come(address, later), Err(WAIT_MIN), "{is_a_visit}");
        }
    }

    #[test]
    fn what_a_client_does_that_only_listens_for_a_while_or_comes_now_and_then_costs_nothing() {
        let visits = ShortVisits::default();
        for minute in 0..1_000 {
            let now = at(minute * 60_000);
            (0..100).for_each(|_| visits.ended(ip("203.0.113.7"), SHORT, RATE, now));
            (0..3).for_each(|_| visits.ended(ip("203.0.113.7"), AT_ONCE, RATE, now));
            assert_eq!(visits.may_come(ip("203.0.113.7"), now), Ok(()));
        }
    }

    #[test]
    fn connections_that_end_together_cost_one_wait() {
        let visits = ShortVisits::default();
        (0..1_000).for_each(|_| visits.ended(ip("203.0.113.7"), AT_ONCE, RATE, at(0)));
        assert_eq!(visits.may_come(ip("203.0.113.7"), at(0)), Err(WAIT_MIN));
    }

    #[test]
    fn all_of_a_network_of_ipv6_counts_as_one() {
        let visits = ShortVisits::default();
        for last in 0..5 {
            visits.ended(ip(&format!("2001:db8::{last}")), AT_ONCE, RATE, at(0));
        }
        assert!(visits.may_come(ip("2001:db8::9"), at(0)).is_err());
        assert!(visits.may_come(ip("2001:db8:0:1::9"), at(0)).is_ok());
    }

    /// R04.
    #[test]
    fn as_many_are_remembered_as_may_be_and_the_harmless_make_room() {
        let visits = ShortVisits::default();
        let nth = |n: u32| IpAddr::V4(n.into());
        (0..100_000).for_each(|n| visits.ended(nth(n), AT_ONCE, RATE, at(0)));
        assert_eq!(visits.lock().addresses.len(), ADDRESSES_MAX);
        // One of whom there was no room for is not kept out.
        (0..10).for_each(|_| visits.ended(nth(u32::MAX), AT_ONCE, RATE, at(10)));
        assert_eq!(visits.may_come(nth(u32::MAX), at(10)), Ok(()));
        visits.ended(nth(u32::MAX), AT_ONCE, RATE, at(60_000));
        assert_eq!(visits.lock().addresses.len(), 1);
    }

    #[test]
    fn a_rate_of_nothing_limits_nothing() {
        let visits = ShortVisits::default();
        let address = ip("203.0.113.7");
        (0..1_000).for_each(|_| visits.ended(address, AT_ONCE, Rate::per_minute(0), at(0)));
        assert_eq!(visits.may_come(address, at(0)), Ok(()));
    }
}
