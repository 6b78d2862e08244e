//! A token bucket in its virtual-scheduling form: the generic cell rate algorithm
//! (ITU-T I.371, annex A).
//!
//! One number of state, no timer, no clock of its own.

use std::time::Duration;

use crate::time::Monotonic;

/// How fast something may happen: `per_second` steadily, `burst` at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    interval_us: u64,
    tolerance_us: u64,
}

impl Rate {
    /// `per_second` events a second in the long run, `burst` (at least 1) at one instant. A
    /// `per_second` of 0 means no limit.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        if per_second == 0 {
            return Self { interval_us: 0, tolerance_us: 0 };
        }
        let interval_us = 1_000_000 / per_second as u64;
        let interval_us = if interval_us == 0 { 1 } else { interval_us };
        let extra = if burst == 0 { 0 } else { burst as u64 - 1 };
        Self { interval_us, tolerance_us: interval_us * extra }
    }

    /// `events` within a minute, all at once or spread. 0 means no limit.
    #[must_use]
    pub const fn per_minute(events: u32) -> Self {
        if events == 0 {
            return Self { interval_us: 0, tolerance_us: 0 };
        }
        let interval_us = 60_000_000 / events as u64;
        Self { interval_us, tolerance_us: interval_us * (events as u64 - 1) }
    }

    /// An even share of this rate where `shares` count against it, each for itself: all of them together
    /// may do what it allows, at once and in the long run, and each at least one thing at a time.
    #[must_use]
    pub const fn shared_by(self, shares: u32) -> Self {
        let shares = if shares == 0 { 1 } else { shares as u64 };
        Self { interval_us: self.interval_us.saturating_mul(shares), ..self }
    }
}

/// The state of one limit: when, at the steady rate, all that came would have been due.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RateLimiter {
    due_us: u64,
}

impl RateLimiter {
    /// The limiter of this state, for those who keep it elsewhere.
    #[must_use]
    pub const fn from_micros(due_us: u64) -> Self {
        Self { due_us }
    }

    /// Its state: microseconds of a monotonic clock.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.due_us
    }

    /// Takes one event, or says after how long to come back. A refused event costs nothing.
    ///
    /// # Errors
    /// The time until one event would be taken.
    pub fn take(&mut self, rate: Rate, now: Monotonic) -> Result<(), Duration> {
        // The build that shows what counting and limits cost has none.
        if cfg!(roomkeeper_bare) || rate.interval_us == 0 {
            // Also for whoever is behind: threads that share a limit do not read one clock at once.
            return Ok(());
        }
        let now_us = now.as_millis().saturating_mul(1_000);
        let due = self.due_us.max(now_us);
        let ahead = due - now_us;
        if ahead > rate.tolerance_us {
            // Rounded up to the millisecond: coming back at that time must succeed.
            let wait_ms = (ahead - rate.tolerance_us).div_ceil(1_000);
            return Err(Duration::from_millis(wait_ms));
        }
        self.due_us = due.saturating_add(rate.interval_us);
        Ok(())
    }

    /// Counts `events` more that came with one that was taken, whatever their number: what goes
    /// beyond the burst is waited for by those that come later. So something large is never refused
    /// for its size, and in the long run the rate holds all the same.
    pub fn charge(&mut self, rate: Rate, events: u32, now: Monotonic) {
        let now_us = now.as_millis().saturating_mul(1_000);
        let cost_us = rate.interval_us.saturating_mul(u64::from(events));
        self.due_us = self.due_us.max(now_us).saturating_add(cost_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_millis(ms)
    }

    #[test]
    fn those_who_share_a_rate_may_together_do_what_it_allows() {
        let rate = Rate::new(100, 30);
        let mut all = [RateLimiter::default(); 3];
        let mut taken = 0;
        for ms in (0..10_000).step_by(5) {
            for one in &mut all {
                taken += u32::from(one.take(rate.shared_by(3), at(ms)).is_ok());
            }
        }
        assert!((1_000..=1_035).contains(&taken), "{taken}");
        assert_eq!(rate.shared_by(0), rate);
        assert_eq!(Rate::new(0, 1).shared_by(7), Rate::new(0, 1), "no limit stays none");
    }

    #[test]
    fn what_was_charged_beyond_the_burst_is_waited_for() {
        let (rate, mut limiter) = (Rate::new(10, 2), RateLimiter::default());
        assert_eq!(limiter.take(rate, at(0)), Ok(()));
        limiter.charge(rate, 9, at(0));
        // Ten came at once, two may: the eleventh waits for nine.
        assert_eq!(limiter.take(rate, at(0)), Err(Duration::from_millis(900)));
        assert_eq!(limiter.take(rate, at(900)), Ok(()));
        limiter.charge(Rate::new(0, 1), 1_000, at(900));
        assert_eq!(limiter.take(rate, at(1_000)), Ok(()));
    }

    /// R01.
    #[test]
    fn a_burst_passes_and_the_next_is_told_when_to_come_back() {
        let (rate, mut limiter) = (Rate::new(10, 3), RateLimiter::default());
        for _ in 0..3 {
            assert_eq!(limiter.take(rate, at(5)), Ok(()));
        }
        assert_eq!(limiter.take(rate, at(5)), Err(Duration::from_millis(100)));
        assert_eq!(limiter.take(rate, at(105)), Ok(()));
    }

    /// R01.
    #[test]
    fn exactly_at_the_limit_for_ten_minutes_nothing_is_refused() {
        let (rate, mut limiter) = (Rate::new(100, 1), RateLimiter::default());
        for i in 0..60_000 {
            assert_eq!(limiter.take(rate, at(i * 10)), Ok(()));
        }
    }

    #[test]
    fn a_rate_of_zero_limits_nothing() {
        let mut limiter = RateLimiter::default();
        for _ in 0..10_000 {
            assert_eq!(limiter.take(Rate::new(0, 0), at(1)), Ok(()));
        }
        // Neither when somebody else was later than oneself.
        assert_eq!(limiter.take(Rate::new(10, 1), at(5_000)), Ok(()));
        assert_eq!(limiter.take(Rate::new(0, 0), at(4_990)), Ok(()));
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_burst_and_rate_allow(
            gaps in proptest::collection::vec(0u64..40, 1..300),
            per_second in 1u32..2_000,
            burst in 1u32..50,
        ) {
            let rate = Rate::new(per_second, burst);
            let (mut limiter, mut now, mut taken) = (RateLimiter::default(), 0, vec![]);
            for gap in gaps {
                now += gap;
                if limiter.take(rate, at(now)).is_ok() {
                    taken.push(now);
                }
            }
            for (i, start) in taken.iter().enumerate() {
                for (j, end) in taken.iter().enumerate().skip(i) {
                    let interval_us = 1_000_000 / u64::from(per_second);
                    let allowed = u64::from(burst) + (end - start) * 1_000 / interval_us;
                    prop_assert!(((j - i) as u64) < allowed);
                }
            }
        }

        #[test]
        fn coming_back_when_told_always_succeeds(
            times in proptest::collection::vec(0u64..100, 1..100),
            per_second in 1u32..500,
        ) {
            let (rate, mut limiter, mut now) = (Rate::new(per_second, 2), RateLimiter::default(), 0);
            for gap in times {
                now += gap;
                if let Err(wait) = limiter.take(rate, at(now)) {
                    prop_assert!(limiter.clone().take(rate, at(now).after(wait)).is_ok());
                }
            }
        }
    }
}
