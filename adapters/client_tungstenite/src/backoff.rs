//! When to try again: full jitter, so that clients that lost one server don't come back as one.
//!
//! It must never read a clock or draw a number itself.

use std::time::Duration;

use crate::options::BackoffOptions;

/// Counts attempts and answers how long to wait before the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    options: BackoffOptions,
    attempts: u32,
}

impl Backoff {
    pub(crate) const fn new(options: BackoffOptions) -> Self {
        Self { options, attempts: 0 }
    }

    /// A connection ended that had stood for `uptime`. Opening alone proves nothing: a server that
    /// takes connections and drops them must not be asked ever faster.
    pub(crate) fn ended(&mut self, uptime: Duration) {
        if uptime >= self.options.stable_after {
            self.attempts = 0;
        }
    }

    /// How many attempts were made in a row.
    pub(crate) const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Counts one more attempt and answers how long to wait before it, by a random number. None
    /// when there were enough.
    pub(crate) fn next(&mut self, random: u64) -> Option<Duration> {
        if self.options.attempts_max.is_some_and(|max| self.attempts >= max) {
            return None;
        }
        let doublings = self.attempts.min(31);
        self.attempts = self.attempts.saturating_add(1);
        let longest = self.options.base.saturating_mul(1 << doublings).min(self.options.cap);
        // The product of a 64-bit fraction and the longest wait, without losing precision.
        let micros = longest.as_micros().saturating_mul(u128::from(random)) >> 64;
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(backoff: &mut Backoff) -> u64 {
        let wait = backoff.next(u64::MAX).unwrap();
        u64::try_from(wait.as_micros().div_ceil(1000)).unwrap()
    }

    #[test]
    fn waits_double_from_the_base_to_the_cap() {
        let mut backoff = Backoff::new(BackoffOptions::default());
        let waits: Vec<_> = (0..9).map(|_| longest(&mut backoff)).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12800, 20000, 20000]);
    }

    #[test]
    fn jitter_reaches_down_to_nothing_and_a_long_series_does_not_overflow() {
        let mut backoff = Backoff::new(BackoffOptions::default());
        for _ in 0..100 {
            assert_eq!(backoff.next(0), Some(Duration::ZERO));
        }
        assert_eq!(longest(&mut backoff), 20000);
    }

    #[test]
    fn only_a_connection_that_stood_for_a_while_makes_it_start_over() {
        let mut backoff = Backoff::new(BackoffOptions::default());
        backoff.next(0);
        backoff.ended(Duration::from_secs(19));
        assert_eq!(backoff.attempts(), 1);
        backoff.ended(Duration::from_secs(20));
        assert_eq!(longest(&mut backoff), 200);
    }

    #[test]
    fn after_the_last_attempt_there_is_none() {
        let options = BackoffOptions { attempts_max: Some(2), ..BackoffOptions::default() };
        let mut backoff = Backoff::new(options);
        assert!(backoff.next(0).is_some());
        assert!(backoff.next(0).is_some());
        assert_eq!(backoff.next(0), None);
    }
}
