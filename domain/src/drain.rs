//! How the connections of a node that stops come to their end: all at once, or each at a time of its own.
//!
//! `(pace, now) → whose turn it is`. It knows no connections, and must never let those whose time was
//! missed go in one heap.

use std::time::Duration;

use crate::time::Monotonic;

/// How a node that stops parts with its clients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DrainMode {
    /// All are closed at once, and each is told a time of its own within the window to come back at: the
    /// node that stops is the one that they come back to.
    #[default]
    Early,
    /// Each is served until a time of its own within the window, then closed and told to come back at
    /// once: other nodes are there meanwhile.
    Paced,
}

/// Where a shard stands among those of its node, so that their turns fall between each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Turn {
    /// Counted from 0.
    pub number: u32,
    /// How many there are; 0 counts as 1.
    pub of: u32,
}

/// The times at which some connections are closed: even over all of a drain's window but its last
/// [`REST`](Pace::REST), which is for what is under way, and for those whose time was missed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    begin: Monotonic,
    /// By when the last one has had its time.
    end: Monotonic,
    until: Monotonic,
    turn: Turn,
    /// Of those who are spread from `begin` to `end`.
    count: u32,
    n_gone: u32,
}

impl Pace {
    /// What the host may have missed and makes up for at once. Whatever is more delays those behind it, as
    /// far as the window goes.
    pub const CATCH_UP_MAX: Duration = Duration::from_millis(80);
    /// Which part of the window nobody's time comes in. The longer it is, the more go each second before it.
    pub const REST: u32 = 48;

    /// The pace of `count` connections in a drain of `now` to `until`.
    #[must_use]
    pub fn new(now: Monotonic, until: Monotonic, count: u32, turn: Turn) -> Self {
        let window = until.since(now);
        let end = now.after(window - window / Self::REST);
        Self { begin: now, end, until, turn, count, n_gone: 0 }
    }

    /// When the next one's time comes; none when all have had theirs.
    #[must_use]
    pub fn next_at(&self) -> Option<Monotonic> {
        if self.n_gone >= self.count {
            return None;
        }
        let of = u128::from(self.turn.of.max(1));
        let place = u128::from(self.n_gone) * of + u128::from(self.turn.number).min(of - 1);
        let spread = self.end.since(self.begin).as_millis();
        let wait = spread * place / (u128::from(self.count) * of);
        let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(u64::MAX));
        Some(self.begin.after(wait))
    }

    /// Whether the next one's time has come; if so it has had it.
    pub fn take(&mut self, now: Monotonic) -> bool {
        let Some(at) = self.next_at().filter(|at| *at <= now) else { return false };
        let late = now.since(at);
        if late > Self::CATCH_UP_MAX {
            // As if this one were late by just that, and the others came behind it.
            let lost = late - Self::CATCH_UP_MAX;
            self.end = self.end.after(lost).min(self.until);
            (self.begin, self.turn) = (at.after(lost), Turn { number: 0, ..self.turn });
            (self.count, self.n_gone) = (self.count - self.n_gone, 0);
        }
        self.n_gone += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALONE: Turn = Turn { number: 0, of: 1 };

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_millis(ms)
    }

    /// When each goes, if the host looks whenever one is due, and at these times late by so much.
    fn times(pace: &mut Pace, stalls: &[(u64, u64)]) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(next) = pace.next_at() {
            let due = next.as_millis();
            let stalled = stalls.iter().find(|(from, span)| (*from..from + span).contains(&due));
            let now = stalled.map_or(due, |(from, span)| from + span);
            while pace.take(at(now)) {
                times.push(now);
            }
        }
        times
    }

    /// The most within any second.
    fn peak(times: &[u64]) -> usize {
        let within =
            |from: u64| times.iter().filter(|at| (from..from + 1_000).contains(at)).count();
        times.iter().map(|from| within(*from)).max().unwrap_or(0)
    }

    #[test]
    fn a_thousand_go_evenly_and_the_rest_of_the_window_is_left() {
        let times = times(&mut Pace::new(at(5_000), at(35_000), 1_000, ALONE), &[]);
        assert_eq!((times.len(), times[0]), (1_000, 5_000));
        assert!(times[999] < 34_375, "{}", times[999]);
        // 1,000 connections in 30 s are 33.3 a second.
        assert!(peak(&times) <= 35, "{}", peak(&times));
    }

    #[test]
    fn the_turns_of_several_shards_fall_between_each_other() {
        let of_one =
            |number| times(&mut Pace::new(at(0), at(1_000), 3, Turn { number, of: 3 }), &[]);
        let mut all: Vec<_> = (0..3).flat_map(of_one).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 108, 217, 326, 435, 543, 652, 761, 870]);
    }

    #[test]
    fn those_whose_time_was_missed_are_spread_over_the_rest_and_go_in_no_heap() {
        let mut pace = Pace::new(at(0), at(10_000), 1_000, ALONE);
        let times = self::times(&mut pace, &[(2_000, 900)]);
        assert_eq!(times.len(), 1_000);
        let heap = times.iter().filter(|at| **at == 2_900).count();
        assert!(heap <= 10, "{heap} went at once");
        assert!(peak(&times) <= 120, "{}", peak(&times));
        assert!(times[999] < 10_000, "{}", times[999]);
        // One that is late all the time makes no heap at the end.
        let stalls: Vec<_> = (0..100).map(|n| (n * 100 + 1, 79)).collect();
        let times = self::times(&mut Pace::new(at(0), at(10_000), 1_000, ALONE), &stalls);
        assert!(peak(&times) <= 120, "{}", peak(&times));
        // One that stands still to the window's end has no more time to give.
        let mut pace = Pace::new(at(0), at(10_000), 50, ALONE);
        let late = (0..50).filter(|_| pace.take(at(10_000))).count();
        assert_eq!((late, pace.next_at()), (50, None));
    }

    #[test]
    fn one_alone_and_those_without_a_window_go_at_once() {
        assert_eq!(times(&mut Pace::new(at(7), at(30_007), 1, ALONE), &[]), [7]);
        assert_eq!(times(&mut Pace::new(at(7), at(7), 3, ALONE), &[]), [7, 7, 7]);
        assert!(times(&mut Pace::new(at(7), at(9), 0, ALONE), &[]).is_empty());
    }

    proptest! {
        #[test]
        fn everybody_goes_once_in_order_and_within_the_window(
            begin in 0..u64::MAX / 2, window in 0..3_600_000_u64, count in 0..500_u32,
            number in 0..9_u32, of in 0..9_u32, stall in (0..9_000_u64, 0..9_000_u64),
        ) {
            let turn = Turn { number, of };
            let mut pace = Pace::new(at(begin), at(begin + window), count, turn);
            let stalls = [(begin + stall.0, stall.1)];
            let times = times(&mut pace, &stalls);
            prop_assert_eq!(times.len(), count as usize);
            prop_assert!(times.is_sorted());
            let latest = (begin + window).max(begin + stall.0 + stall.1);
            prop_assert!(times.iter().all(|at| *at <= latest));
        }
    }
}
