//! Addresses that keep coming with tokens or tickets that do not count: whoever does that too often is
//! turned away for a while without any signature being checked.
//!
//! Bounded, and soft where it is full: it must never keep out somebody of whom nothing bad is known.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::rate_limit::{Rate, RateLimiter};
use domain::time::Monotonic;

/// The most addresses that are remembered.
pub const ADDRESSES_MAX: usize = 10_000;
/// Between two looks for addresses that need not be remembered any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What is remembered of addresses.
#[derive(Debug, Default)]
pub struct Suspects {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: BTreeMap<IpAddr, RateLimiter>,
    sweep_at: Monotonic,
}

impl Suspects {
    /// Whether something that this address shows may be checked.
    ///
    /// # Errors
    /// The time after which one more may be.
    pub fn may_try(&self, address: IpAddr, rate: Rate, now: Monotonic) -> Result<(), Duration> {
        let mut limiter = self.lock().addresses.get(&network(address)).copied().unwrap_or_default();
        limiter.take(rate, now)
    }

    /// Something that this address showed does not count.
    pub fn failed(&self, address: IpAddr, rate: Rate, now: Monotonic) {
        let mut known = self.lock();
        let address = network(address);
        if !known.addresses.contains_key(&address) && known.addresses.len() >= ADDRESSES_MAX {
            if now < known.sweep_at {
                return;
            }
            known.sweep_at = now.after(SWEEP_INTERVAL);
            let now_us = now.as_millis().saturating_mul(1_000);
            known.addresses.retain(|_, limiter| limiter.as_micros() > now_us);
            if known.addresses.len() >= ADDRESSES_MAX {
                return;
            }
        }
        known.addresses.entry(address).or_default().charge(rate, 1, now);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is one step, so a poisoned map is still whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has one address of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate::per_minute(3);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_millis(ms)
    }

    /// R08.
    #[test]
    fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let suspects = Suspects::default();
        for _ in 0..3 {
            assert_eq!(suspects.may_try(ip("203.0.113.7"), RATE, at(0)), Ok(()));
            suspects.failed(ip("203.0.113.7"), RATE, at(0));
        }
        let wait = suspects.may_try(ip("203.0.113.7"), RATE, at(0)).unwrap_err();
        assert_eq!(wait, Duration::from_secs(20));
        assert_eq!(suspects.may_try(ip("203.0.113.8"), RATE, at(0)), Ok(()));
        assert_eq!(suspects.may_try(ip("203.0.113.7"), RATE, at(20_000)), Ok(()));
        // Trying costs nothing; only failing does.
        assert_eq!(suspects.may_try(ip("203.0.113.7"), RATE, at(20_000)), Ok(()));
    }

    #[test]
    fn all_of_a_network_of_ipv6_counts_as_one_and_ipv4_within_ipv6_as_ipv4() {
        let suspects = Suspects::default();
        for last in ["1", "2", "ffff:1"] {
            suspects.failed(ip(&format!("2001:db8::{last}")), RATE, at(0));
            suspects.failed(ip("::ffff:203.0.113.7"), RATE, at(0));
        }
        assert!(suspects.may_try(ip("2001:db8::9"), RATE, at(0)).is_err());
        assert!(suspects.may_try(ip("2001:db8:0:1::9"), RATE, at(0)).is_ok());
        assert!(suspects.may_try(ip("203.0.113.7"), RATE, at(0)).is_err());
    }

    /// R04.
    #[test]
    fn as_many_are_remembered_as_may_be_and_the_harmless_make_room() {
        let suspects = Suspects::default();
        let nth = |n: u32| IpAddr::V4(n.into());
        (0..1_000_000).for_each(|n| suspects.failed(nth(n), RATE, at(0)));
        assert_eq!(suspects.lock().addresses.len(), ADDRESSES_MAX);
        // One of whom there was no room for is not kept out.
        (0..10).for_each(|_| suspects.failed(nth(u32::MAX), RATE, at(10)));
        assert_eq!(suspects.may_try(nth(u32::MAX), RATE, at(10)), Ok(()));
        suspects.failed(nth(u32::MAX), RATE, at(60_000));
        assert_eq!(suspects.lock().addresses.len(), 1);
    }

    #[test]
    fn a_rate_of_nothing_limits_nothing() {
        let suspects = Suspects::default();
        (0..1_000).for_each(|_| suspects.failed(ip("203.0.113.7"), Rate::per_minute(0), at(0)));
        assert_eq!(suspects.may_try(ip("203.0.113.7"), Rate::per_minute(0), at(0)), Ok(()));
    }
}
