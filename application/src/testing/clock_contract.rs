//! The contract of the `clock` port: what every clock does, the machine's and a simulated one.
//!
//! The suite must never wait by itself: whoever has the clock says how time passes.
#![allow(clippy::unwrap_used, reason = "a contract suite is a test")]

#[cfg(test)]
mod tests;

use std::sync::Barrier;
use std::time::Duration;

use domain::time::{Now, Wall};

use crate::ports::Clock;

/// A clock and its time.
pub struct ClockContract<'c> {
    /// The clock under test.
    pub clock: &'c dyn Clock,
    /// Lets at least so much time pass.
    pub pass: &'c dyn Fn(Duration),
    /// The earliest wall time that it can show.
    pub not_before: Wall,
}

/// How many readings are compared.
const READINGS: usize = 2_000;
const THREADS: usize = 4;

impl ClockContract<'_> {
    /// Checks everything below.
    ///
    /// # Panics
    /// When the clock breaks the contract.
    pub fn check(&self) {
        self.it_never_goes_back();
        self.it_never_goes_back_from_one_thread_to_another();
        self.both_readings_move_with_time();
        self.the_wall_clock_counts_milliseconds_since_1970();
    }

    /// One reading after the other.
    ///
    /// # Panics
    /// When the clock breaks the contract.
    pub fn it_never_goes_back(&self) {
        let mut before = self.clock.now();
        for n in 0..READINGS {
            if n % 500 == 0 {
                (self.pass)(Duration::from_millis(2));
            }
            let now = self.clock.now();
            assert!(now.monotonic >= before.monotonic, "{before:?}, then {now:?}");
            before = now;
        }
    }

    /// What one thread has read is not after what another reads later.
    ///
    /// # Panics
    /// When the clock breaks the contract.
    pub fn it_never_goes_back_from_one_thread_to_another(&self) {
        for _ in 0..20 {
            let earlier = self.clock.now();
            let (clock, barrier) = (self.clock, Barrier::new(THREADS));
            let readings: Vec<Now> = std::thread::scope(|scope| {
                let read = || {
                    barrier.wait();
                    clock.now()
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(read)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let later = self.clock.now();
            for reading in readings {
                let between =
                    earlier.monotonic <= reading.monotonic && reading.monotonic <= later.monotonic;
                assert!(between, "{reading:?} is not between {earlier:?} and {later:?}");
            }
        }
    }

    /// Time that passes is seen, by both. How much more has passed meanwhile is not known, but both
    /// must have seen about the same.
    ///
    /// # Panics
    /// When the clock breaks the contract.
    pub fn both_readings_move_with_time(&self) {
        let span = Duration::from_millis(40);
        // Somebody may set the machine's wall clock in the middle of a try.
        let moves = (0..5).any(|_| {
            let before = self.clock.now();
            (self.pass)(span);
            let after = self.clock.now();
            let monotonic = after.monotonic.since(before.monotonic);
            let wall = after.wall.since(before.wall);
            // A reading is cut to whole milliseconds.
            let whole = Duration::from_millis(1);
            assert!(monotonic + whole >= span, "{span:?} passed, it shows {monotonic:?}");
            monotonic.abs_diff(wall) <= Duration::from_millis(10)
        });
        assert!(moves, "the wall clock does not go with the monotonic one");
    }

    /// A clock of seconds, or one that was never set, would make every token valid or none.
    ///
    /// # Panics
    /// When the clock breaks the contract.
    pub fn the_wall_clock_counts_milliseconds_since_1970(&self) {
        let wall = self.clock.now().wall;
        let century = Duration::from_secs(100 * 366 * 24 * 60 * 60);
        assert!(wall >= self.not_before, "{wall} is before {}", self.not_before);
        assert!(wall < self.not_before.after(century), "{wall} is far ahead");
    }
}
