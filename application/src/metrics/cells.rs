//! Single numbers: for one writer, for many, and distributions.
//!
//! Relaxed throughout: they guard no other memory. Nothing here may wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A build with `--cfg roomkeeper_bare` counts nothing and limits no rate. It is there to be measured
/// beside the real one (`benches/run`) and good for nothing else.
const COUNTS: bool = !cfg!(roomkeeper_bare);

/// A number that one thread changes and any may read. Two threads that change it lose counts,
/// nothing worse; in return an add is a plain add.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds.
    #[inline]
    pub fn add(&self, n: u64) {
        if COUNTS {
            self.set(self.get().wrapping_add(n));
        }
    }

    /// Takes away; never goes below nothing.
    pub fn sub(&self, n: u64) {
        if COUNTS {
            self.set(self.get().saturating_sub(n));
        }
    }

    /// Sets.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that any thread may change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub fn add(&self, n: u64) {
        if COUNTS {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Takes away what was added before.
    pub fn sub(&self, n: u64) {
        if COUNTS {
            self.0.fetch_sub(n, Ordering::Relaxed);
        }
    }

    /// Sets.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long things took, in buckets. One thread writes it.
#[derive(Debug)]
pub struct Histogram {
    /// One for each bound, and one for what is above the last.
    buckets: [Tally; Self::BOUNDS_US.len() + 1],
    sum_us: Tally,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Tally::default()), sum_us: Tally::default() }
    }
}

impl Histogram {
    /// The upper ends of the buckets, in microseconds: from a publish in memory to a stuck disk.
    pub const BOUNDS_US: [u64; 16] = [
        25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
        500_000, 1_000_000, 5_000_000,
    ];

    /// Notes one duration.
    pub fn observe(&self, took: Duration) {
        if !COUNTS {
            return;
        }
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let above = Self::BOUNDS_US.iter().take_while(|bound| us > **bound).count();
        self.buckets[above].add(1);
        self.sum_us.add(us);
    }

    /// What was noted so far, added to `sum`.
    pub fn add_to(&self, sum: &mut Distribution) {
        for (total, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.get();
        }
        sum.sum_us += self.sum_us.get();
    }
}

/// What one or more histograms noted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Distribution {
    /// How many fell between the bounds, one number more than there are bounds. Not cumulative.
    pub buckets: [u64; Histogram::BOUNDS_US.len() + 1],
    /// All durations together, in microseconds.
    pub sum_us: u64,
}

impl Distribution {
    /// How many durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_falls_below_it_and_one_behind_it_above() {
        let histogram = Histogram::default();
        for us in [25, 26, 5_000_000, 5_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let mut seen = Distribution::default();
        histogram.add_to(&mut seen);
        assert_eq!(seen.buckets[..2], [1, 1]);
        assert_eq!(seen.buckets[15..], [1, 1]);
        assert_eq!((seen.count(), seen.sum_us), (4, 10_000_052));
    }

    #[test]
    fn two_histograms_add_up() {
        let (one, other) = (Histogram::default(), Histogram::default());
        one.observe(Duration::from_millis(3));
        other.observe(Duration::from_millis(4));
        let mut seen = Distribution::default();
        one.add_to(&mut seen);
        other.add_to(&mut seen);
        assert_eq!((seen.buckets[7], seen.sum_us), (2, 7_000));
    }

    #[test]
    fn a_tally_never_goes_below_nothing() {
        let tally = Tally::default();
        tally.add(1);
        tally.sub(2);
        assert_eq!(tally.get(), 0);
    }
}
