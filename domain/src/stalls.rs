//! When a host did not get around to its connections, and for how long: what may not be held against
//! them.
//!
//! A machine that is busy with something else runs a host late, and whatever clients said meanwhile
//! lies unread. It must never be told of a stall that did not happen: each makes who is gone stay that
//! much longer.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Monotonic;

/// The stalls that are told apart; beyond it the two oldest count as one.
const STALLS_MAX: usize = 128;

/// A time in which nothing was heard, because nobody listened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stall {
    ended_at: Monotonic,
    span: Duration,
}

/// The stalls of one host, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Stalls {
    recent: VecDeque<Stall>,
}

impl Stalls {
    /// A host that is late by less gets around to its connections well enough.
    pub const LATENESS_MIN: Duration = Duration::from_millis(100);

    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { recent: VecDeque::new() }
    }

    /// The stall that shows at `now` in a sign of life that was due `interval` after `last`. All the
    /// time since then counts: of a host that is late nobody knows when it listened.
    #[must_use]
    pub fn seen(last: Monotonic, interval: Duration, now: Monotonic) -> Option<Duration> {
        let late = now.since(last.after(interval));
        (late >= Self::LATENESS_MIN).then(|| now.since(last))
    }

    /// Notes that the host has just come back from a stall of this length.
    pub fn note(&mut self, ended_at: Monotonic, span: Duration) {
        if self.recent.len() >= STALLS_MAX
            && let Some(oldest) = self.recent.pop_front()
            && let Some(next) = self.recent.front_mut()
        {
            next.span += oldest.span;
        }
        self.recent.push_back(Stall { ended_at, span });
    }

    /// How much of the time since `at` the host was stalled; never more than has passed.
    #[must_use]
    pub fn since(&self, at: Monotonic) -> Duration {
        let behind = self.recent.iter().rev().take_while(|stall| stall.ended_at > at);
        let span = behind.map(|stall| stall.span).sum();
        let newest = self.recent.back().map(|stall| stall.ended_at.since(at));
        newest.map_or(Duration::ZERO, |passed| passed.min(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_millis(ms)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn only_what_came_later_counts_and_never_more_than_has_passed() {
        let mut stalls = Stalls::new();
        assert_eq!(stalls.since(at(0)), Duration::ZERO);
        stalls.note(at(1_000), ms(300));
        stalls.note(at(2_000), ms(500));
        assert_eq!(stalls.since(at(0)), ms(800));
        assert_eq!(stalls.since(at(1_000)), ms(500));
        assert_eq!(stalls.since(at(1_800)), ms(200));
        assert_eq!(stalls.since(at(2_000)), Duration::ZERO);
    }

    /// R12: how a stall is measured.
    #[test]
    fn a_sign_of_life_that_is_late_makes_all_the_time_before_it_a_stall() {
        let seen = |now| Stalls::seen(at(1_000), ms(500), at(now));
        assert_eq!([seen(1_200), seen(1_500), seen(1_599)], [None; 3]);
        assert_eq!(seen(1_600), Some(ms(600)));
        assert_eq!(seen(9_000), Some(ms(8_000)));
    }

    proptest! {
        /// R12: however many there were, they are bounded, and none is forgotten.
        #[test]
        fn many_stalls_count_as_much_as_they_took(
            spans in proptest::collection::vec((0u64..1_000, 50u64..5_000), 1..400),
        ) {
            let (mut stalls, mut now, mut sum) = (Stalls::new(), 0, 0);
            for (awake, span) in spans {
                now += awake + span;
                sum += span;
                stalls.note(at(now), ms(span));
                prop_assert!(stalls.recent.len() <= STALLS_MAX);
                prop_assert_eq!(stalls.since(at(0)), ms(sum));
                prop_assert!(stalls.since(at(now / 2)) <= ms(now - now / 2));
            }
        }
    }
}
