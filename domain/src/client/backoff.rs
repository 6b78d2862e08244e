//! How long to wait before the next attempt: full jitter for protocol v2, so that clients that lost
//! one server don't come back as one; and the documented strategy with its jitter around a table of
//! delays.
//!
//! It must never read a clock or draw a number itself: `random` is a number in [0, 1).

use std::time::Duration;

/// No delay of the documented strategy is shorter, in milliseconds.
pub const DELAY_MS_MIN: u64 = 100;

/// When to come back.
#[derive(Clone, Debug, PartialEq)]
pub enum Backoff {
    /// Between nothing and `base * 2^attempt`, at most `cap`.
    FullJitter(FullJitter),
    /// A table of delays with jitter to either side.
    Table(DelayTable),
}

impl Backoff {
    /// The delay before attempt `attempt` (the first is 0) in whole milliseconds; none when there were
    /// enough.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: f64) -> Option<Duration> {
        match self {
            Self::FullJitter(jitter) => jitter.delay(attempt, random),
            Self::Table(table) => table.delay(attempt, random),
        }
    }
}

/// Full jitter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FullJitter {
    /// The longest wait before the first attempt.
    pub base: Duration,
    /// The longest wait before any attempt.
    pub cap: Duration,
    /// How many attempts in a row may fail; none tries for ever.
    pub attempts_max: Option<u32>,
}

impl Default for FullJitter {
    fn default() -> Self {
        let (base, cap) = (Duration::from_millis(200), Duration::from_secs(20));
        Self { base, cap, attempts_max: None }
    }
}

impl FullJitter {
    fn delay(&self, attempt: u32, random: f64) -> Option<Duration> {
        if self.attempts_max.is_some_and(|max| attempt >= max) {
            return None;
        }
        let longest = self.base.saturating_mul(1 << attempt.min(31)).min(self.cap);
        Some(whole_millis(millis(longest) * random))
    }
}

/// The documented strategy: `base ± base * jitter_ratio`.
#[derive(Clone, Debug, PartialEq)]
pub struct DelayTable {
    /// The delay before each attempt; the last one counts for all further attempts.
    pub base_delays: Vec<Duration>,
    /// No base delay is longer. Jitter comes on top.
    pub cap: Duration,
    /// How far jitter goes to either side, as a part of the base delay.
    pub jitter_ratio: f64,
    /// How many attempts there are in a row.
    pub attempts_max: u32,
}

impl Default for DelayTable {
    fn default() -> Self {
        Self {
            base_delays: [1, 2, 4, 8, 12].map(Duration::from_secs).to_vec(),
            cap: Duration::from_secs(12),
            jitter_ratio: 0.2,
            attempts_max: 8,
        }
    }
}

impl DelayTable {
    fn delay(&self, attempt: u32, random: f64) -> Option<Duration> {
        if attempt >= self.attempts_max {
            return None;
        }
        let at = usize::try_from(attempt).unwrap_or(usize::MAX);
        let delay = self.base_delays.get(at).or(self.base_delays.last());
        let base = millis(delay.copied().unwrap_or(self.cap).min(self.cap));
        let jittered = base + (2.0 * random - 1.0) * base * self.jitter_ratio;
        Some(whole_millis(jittered).max(Duration::from_millis(DELAY_MS_MIN)))
    }
}

fn millis(span: Duration) -> f64 {
    f64::from(u32::try_from(span.as_millis()).unwrap_or(u32::MAX))
}

/// Halves are rounded up, what is below nothing is nothing.
fn whole_millis(millis: f64) -> Duration {
    Duration::try_from_secs_f64((millis + 0.5).floor() / 1000.0).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEARLY_ONE: f64 = 1.0 - f64::EPSILON;

    fn longest(attempt: u32) -> u128 {
        Backoff::FullJitter(FullJitter::default()).delay(attempt, NEARLY_ONE).unwrap().as_millis()
    }

    #[test]
    fn waits_double_from_the_base_to_the_cap() {
        let waits = [0, 1, 2, 3, 4, 5, 6, 7, 8, 1000].map(longest);
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12800, 20000, 20000, 20000]);
    }

    #[test]
    fn jitter_reaches_down_to_nothing_and_after_the_last_attempt_there_is_none() {
        let jitter = FullJitter { attempts_max: Some(2), ..FullJitter::default() };
        let backoff = Backoff::FullJitter(jitter);
        assert_eq!(backoff.delay(1, 0.0), Some(Duration::ZERO));
        assert_eq!(backoff.delay(2, 0.0), None);
    }

    /// K02: the distribution of 100,000 delays, by Kolmogorov and Smirnov, and its bounds.
    #[test]
    fn delays_are_spread_evenly_between_nothing_and_the_bound() {
        const N: u32 = 100_000;
        // A fixed sequence whose numbers look drawn: what is measured is what the formula makes of them.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f64::from(u32::try_from(state >> 32).unwrap()) / 4_294_967_296.0
        };
        for (attempt, bound) in [(0, 200.0), (5, 6400.0), (9, 20_000.0)] {
            let backoff = Backoff::FullJitter(FullJitter::default());
            let mut delays: Vec<f64> =
                (0..N).map(|_| millis(backoff.delay(attempt, draw()).unwrap())).collect();
            delays.sort_by(f64::total_cmp);
            assert!(delays.last().is_some_and(|delay| *delay <= bound));
            let far = (1..=N).zip(&delays).map(|(n, delay)| {
                // Whole milliseconds: each stands for half of one to either side.
                (f64::from(n) / f64::from(N) - (delay + 0.5) / (bound + 1.0)).abs()
            });
            let far = far.fold(0.0, f64::max);
            // At the level of one in a thousand it is 1.95 / sqrt(n); and the steps of a millisecond.
            assert!(far < 1.95 / f64::from(N).sqrt() + 1.0 / bound, "attempt {attempt}: {far}");
        }
    }
}
