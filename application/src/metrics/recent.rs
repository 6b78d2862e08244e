//! How fast things went lately: samples of totals, taken at a fixed interval, a minute of them.
//!
//! The number of samples is fixed, whatever happens. It must never be asked from where messages pass.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::time::Monotonic;

/// What a node has counted since its start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Texts of clients.
    pub messages_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames given to members of rooms.
    pub deliveries: u64,
    /// Frames for one connection.
    pub replies: u64,
    /// Bytes of both.
    pub bytes_out: u64,
    /// Commands of clients.
    pub commands: u64,
    /// Those of them that were refused, or panicked.
    pub errors: u64,
}

/// What happened from the oldest sample of the last minute until now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// How long that is; shorter than a minute only behind the start.
    pub window: Duration,
    /// Texts of clients per second.
    pub messages_per_second: f64,
    /// Frames given to members of rooms, per second.
    pub deliveries_per_second: f64,
    /// Commands.
    pub commands: u64,
    /// Those of them that were refused, or panicked.
    pub errors: u64,
}

impl Rates {
    /// The part of the commands that came to nothing, from 0 to 1.
    #[must_use]
    pub fn error_rate(&self) -> f64 {
        // Refused in this minute, read in the last one.
        (self.errors as f64 / self.commands.max(1) as f64).min(1.0)
    }
}

/// The samples of the last minute.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<(Monotonic, Totals)>>);

impl Recent {
    /// Between two samples.
    pub const INTERVAL: Duration = Duration::from_secs(1);
    /// How far the oldest sample lies back.
    pub const WINDOW: Duration = Duration::from_secs(60);
    /// The most samples: a minute's, and the one that the minute begins with.
    pub const SAMPLES_MAX: usize = 61;

    /// Takes a sample, to be called once in [`Self::INTERVAL`].
    pub fn sample(&self, now: Monotonic, totals: Totals) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while samples.len() >= Self::SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back((now, totals));
    }

    /// What happened in the last minute.
    #[must_use]
    pub fn rates(&self, now: Monotonic, totals: Totals) -> Rates {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_the_minute =
            samples.iter().filter(|(at, _)| now.since(*at) <= Self::WINDOW).copied();
        let Some((at, before)) = of_the_minute.next() else { return Rates::default() };
        let window = now.since(at);
        let per_second = |now: u64, before: u64| {
            if window.is_zero() {
                0.0
            } else {
                (now - before.min(now)) as f64 / window.as_secs_f64()
            }
        };
        Rates {
            window,
            messages_per_second: per_second(totals.messages_in, before.messages_in),
            deliveries_per_second: per_second(totals.deliveries, before.deliveries),
            commands: totals.commands.saturating_sub(before.commands),
            errors: totals.errors.saturating_sub(before.errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_millis(1_000 + seconds * 1_000)
    }

    fn totals(messages_in: u64, errors: u64) -> Totals {
        Totals { messages_in, commands: messages_in, errors, ..Totals::default() }
    }

    #[test]
    fn a_rate_is_that_of_the_last_minute_and_what_was_before_does_not_count() {
        let recent = Recent::default();
        // Ten a second for two minutes, then none.
        for second in 0..=120 {
            recent.sample(at(second), totals(second * 10, second * 5));
        }
        let rates = recent.rates(at(120), totals(1_200, 600));
        assert_eq!((rates.window, rates.messages_per_second), (Duration::from_secs(60), 10.0));
        assert!((rates.error_rate() - 0.5).abs() < f64::EPSILON);
        for second in 121..=181 {
            recent.sample(at(second), totals(1_200, 600));
        }
        let rates = recent.rates(at(181), totals(1_200, 600));
        assert_eq!((rates.messages_per_second, rates.error_rate()), (0.0, 0.0));
    }

    #[test]
    fn however_long_it_runs_a_minute_of_samples_is_kept() {
        let recent = Recent::default();
        for second in 0..10_000 {
            recent.sample(at(second), Totals::default());
        }
        assert_eq!(recent.0.lock().unwrap().len(), Recent::SAMPLES_MAX);
    }

    #[test]
    fn without_a_sample_or_with_an_old_one_alone_nothing_is_claimed() {
        let recent = Recent::default();
        assert_eq!(recent.rates(at(5), totals(7, 1)), Rates::default());
        recent.sample(at(5), totals(7, 1));
        assert_eq!(recent.rates(at(5), totals(7, 1)).messages_per_second, 0.0);
        // The process slept.
        assert_eq!(recent.rates(at(500), totals(9, 1)), Rates::default());
    }
}
