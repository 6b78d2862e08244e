//! One timer wheel for all connections of a shard.
//!
//! Coarse on purpose: a timer fires up to one tick late, never early. It holds no clock and
//! cancels nothing; whoever fires checks whether the deadline still counts.

use std::time::Duration;

use domain::time::Monotonic;

const TICK_MS: u64 = 64;
const BUCKETS: usize = 1_024;
const WORDS: usize = BUCKETS / 64;

/// Deadlines of small values. A deadline beyond the horizon (about 65 s) waits in the farthest
/// bucket and is put back until it is due.
#[derive(Debug)]
pub struct TimerWheel<T> {
    buckets: Box<[Vec<(u64, T)>]>,
    /// One bit per bucket that holds anything, so that an idle shard finds its next deadline
    /// without walking.
    occupied: [u64; WORDS],
    /// The last tick that has fired.
    tick: u64,
}

impl<T> TimerWheel<T> {
    /// How late a timer may fire.
    pub const TICK: Duration = Duration::from_millis(TICK_MS);

    /// An empty wheel that begins at `now`.
    #[must_use]
    pub fn new(now: Monotonic) -> Self {
        let buckets = std::iter::repeat_with(Vec::new).take(BUCKETS).collect();
        Self { buckets, occupied: [0; WORDS], tick: now.as_millis() / TICK_MS }
    }

    /// Adds a value that is due at `at`; one in the past is due at the next tick.
    pub fn add(&mut self, at: Monotonic, value: T) {
        // Rounded up: never early.
        let due = at.as_millis().div_ceil(TICK_MS).max(self.tick + 1);
        self.insert(due, value);
    }

    fn insert(&mut self, due: u64, value: T) {
        let tick = due.min(self.tick + BUCKETS as u64 - 1);
        let bucket = (tick % BUCKETS as u64) as usize;
        self.buckets[bucket].push((due, value));
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
    }

    /// Takes all values that are due at `now`, into `fired`.
    pub fn advance(&mut self, now: Monotonic, fired: &mut Vec<T>) {
        let target = now.as_millis() / TICK_MS;
        while self.tick < target {
            let Some(next) = self.next_tick().filter(|next| *next <= target) else {
                self.tick = target;
                return;
            };
            self.tick = next;
            let bucket = (next % BUCKETS as u64) as usize;
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            let mut due_now = std::mem::take(&mut self.buckets[bucket]);
            for (due, value) in due_now.drain(..) {
                if due <= next {
                    fired.push(value);
                } else {
                    self.insert(due, value);
                }
            }
            if self.buckets[bucket].is_empty() {
                // Keep the storage: the same bucket fills again one turn later.
                self.buckets[bucket] = due_now;
            }
        }
    }

    /// When to call [`advance`](Self::advance) next; none while nothing waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.next_tick().map(|tick| Monotonic::from_millis(tick * TICK_MS))
    }

    fn next_tick(&self) -> Option<u64> {
        let start = ((self.tick + 1) % BUCKETS as u64) as usize;
        for step in 0..=WORDS {
            let word = (start / 64 + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == WORDS {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let bucket = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - start) % BUCKETS;
                return Some(self.tick + 1 + ahead as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_millis(ms)
    }

    /// T02, T04: a jump of the clock, and a timer that is due at once.
    #[test]
    fn an_empty_wheel_has_no_deadline_and_jumps_over_any_pause() {
        let mut wheel = TimerWheel::<u32>::new(at(5));
        assert_eq!(wheel.next_deadline(), None);
        let mut fired = vec![];
        wheel.advance(at(u64::MAX / 2), &mut fired);
        wheel.add(at(0), 7);
        wheel.advance(wheel.next_deadline().unwrap(), &mut fired);
        assert_eq!(fired, [7]);
    }

    /// T04.
    #[test]
    fn a_timer_fifty_days_ahead_fires_once_and_on_time() {
        let mut wheel = TimerWheel::new(at(0));
        let due = 50 * 24 * 60 * 60 * 1_000;
        wheel.add(at(due), 1);
        let (mut fired, mut now) = (vec![], at(0));
        while fired.is_empty() {
            now = wheel.next_deadline().unwrap();
            wheel.advance(now, &mut fired);
        }
        assert!(now.as_millis() >= due && now.as_millis() <= due + TICK_MS);
        assert_eq!(wheel.next_deadline(), None);
    }

    /// T04.
    #[test]
    fn a_million_timers_of_one_tick_fire_once_each_and_in_that_tick() {
        const MANY: usize = 1_000_000;
        let mut wheel = TimerWheel::new(at(0));
        (0..MANY).for_each(|i| wheel.add(at(5_000), i));
        let mut fired = vec![];
        wheel.advance(at(5_000 - TICK_MS), &mut fired);
        assert!(fired.is_empty());
        wheel.advance(at(5_000 + TICK_MS), &mut fired);
        fired.sort_unstable();
        assert!(fired.iter().copied().eq(0..MANY));
        assert_eq!(wheel.next_deadline(), None);
    }

    proptest! {
        /// T04: some turns of the wheel, with at most a hundred timers.
        #[test]
        fn every_timer_fires_once_never_early_and_at_most_a_tick_late(
            start in 0u64..1_000_000,
            timers in proptest::collection::vec(0u64..200_000, 0..100),
            steps in proptest::collection::vec(1u64..30_000, 1..40),
        ) {
            let mut wheel = TimerWheel::new(at(start));
            for (i, delay) in timers.iter().enumerate() {
                wheel.add(at(start + delay), i);
            }
            let (mut now, mut before, mut done) = (start, start, vec![false; timers.len()]);
            for step in steps {
                now += step;
                let mut fired = vec![];
                wheel.advance(at(now), &mut fired);
                for i in fired {
                    prop_assert!(!done[i]);
                    done[i] = true;
                    prop_assert!(start + timers[i] <= now);
                    prop_assert!(start + timers[i] + TICK_MS > before.saturating_sub(TICK_MS));
                }
                for (i, fired) in done.iter().enumerate() {
                    prop_assert!(*fired || start + timers[i] + TICK_MS > now);
                }
                if let Some(next) = wheel.next_deadline() {
                    prop_assert!(next.as_millis() > now.saturating_sub(TICK_MS));
                }
                before = now;
            }
        }
    }
}
