//! The recovery decision: what a client that names its position gets.
//!
//! The answer is every later message in order, or a gap that says so. It is never a guess: a
//! position that this log cannot vouch for is a gap.

use crate::id::Epoch;
use crate::position::{Offset, Position};

/// What a log still holds: offsets `first..=last` of one epoch. An empty log has
/// `first == last + 1`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogBounds {
    /// The life of the log.
    pub epoch: Epoch,
    /// The oldest offset still held.
    pub first: Offset,
    /// The newest offset given out.
    pub last: Offset,
    /// The lives of the log before this one, which it goes on from.
    pub earlier: EarlierLives,
}

/// Where the lives ended that a log goes on from: offsets run on, so what was read up to there in one of
/// them was read of this log. A position beyond the end of its life was lost with it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EarlierLives([Option<Position>; Self::MAX]);

impl EarlierLives {
    /// The most that are remembered; who comes back from an older one finds a gap.
    pub const MAX: usize = 4;
    /// A log that never lost its place.
    pub const NONE: Self = Self([None; Self::MAX]);

    /// The ends, the latest life first; those beyond [`MAX`](Self::MAX) are forgotten.
    #[must_use]
    pub fn new(ends: impl IntoIterator<Item = Position>) -> Self {
        let mut lives = Self::NONE;
        for (place, end) in lives.0.iter_mut().zip(ends) {
            *place = Some(end);
        }
        lives
    }

    /// The ends, the latest life first.
    pub fn iter(&self) -> impl Iterator<Item = Position> {
        self.0.iter().flatten().copied()
    }

    /// Whether who stands there has missed nothing of an earlier life that is not in the log.
    #[must_use]
    pub fn reach(&self, at: Position) -> bool {
        self.iter().any(|end| end.epoch == at.epoch && at.offset <= end.offset)
    }
}

impl LogBounds {
    /// Where a reader stands who has everything.
    #[must_use]
    pub const fn top(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last }
    }

    /// Whether that place is one of this log's: of its present life, or of one that it goes on from.
    #[must_use]
    pub fn names(&self, at: Position) -> bool {
        self.epoch == at.epoch || self.earlier.reach(at)
    }
}

/// Why messages are missing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum GapReason {
    /// The log does not keep them any more.
    Retention,
    /// The log was lost and began anew.
    EpochChanged,
    /// The position lies ahead of the log, so it cannot come from it.
    UnknownPosition,
    /// They were lost between the broker and this node, and the room keeps no log to fill from.
    Overflow,
}

impl GapReason {
    /// The word in `gap.reason`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::EpochChanged => "epoch_changed",
            Self::UnknownPosition => "unknown_position",
            Self::Overflow => "overflow",
        }
    }
}

/// Messages that will not come: offsets `from..=to` of `epoch`. After a change of epoch the range
/// covers what the new epoch no longer holds and may be empty (`to == from - 1`); what the client
/// missed of the old epoch is lost in addition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    /// The epoch that the offsets belong to.
    pub epoch: Epoch,
    /// The first missing offset.
    pub from: Offset,
    /// The last missing offset.
    pub to: Offset,
    /// Why they are missing.
    pub reason: GapReason,
}

/// Where to read on, and what must be said first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Recovery {
    /// Deliver every message behind this offset.
    pub after: Offset,
    /// Tell this before them.
    pub gap: Option<Gap>,
}

/// Decides for a client that has everything up to and including `since`.
#[must_use]
pub fn decide_recovery(since: Position, bounds: LogBounds) -> Recovery {
    let before_first = bounds.first.previous();
    let gap =
        |from: Offset, to: Offset, reason| Some(Gap { epoch: bounds.epoch, from, to, reason });
    if since.epoch != bounds.epoch && !bounds.earlier.reach(since) {
        // Of a life that this one goes on from everything up to its end is known.
        let end = bounds.earlier.iter().find(|end| end.epoch == since.epoch);
        let known = end.map_or(Offset::ZERO, |end| end.offset);
        let after = before_first.max(known);
        let from = known.next().unwrap_or(Offset::MAX);
        return Recovery { after, gap: gap(from, after, GapReason::EpochChanged) };
    }
    if since.offset > bounds.last {
        let from = bounds.last.next().unwrap_or(Offset::MAX);
        return Recovery {
            after: bounds.last,
            gap: gap(from, since.offset, GapReason::UnknownPosition),
        };
    }
    if since.offset < before_first {
        let from = since.offset.next().unwrap_or(Offset::MAX);
        return Recovery {
            after: before_first,
            gap: gap(from, before_first, GapReason::Retention),
        };
    }
    Recovery { after: since.offset, gap: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: Epoch = Epoch::from_bits(7);

    fn offset(n: u64) -> Offset {
        Offset::parse(n).unwrap()
    }

    fn bounds(first: u64, last: u64) -> LogBounds {
        let earlier = EarlierLives::NONE;
        LogBounds { epoch: EPOCH, first: offset(first), last: offset(last), earlier }
    }

    fn since(n: u64) -> Position {
        Position { epoch: EPOCH, offset: offset(n) }
    }

    #[test]
    fn a_client_with_everything_gets_nothing_and_no_gap() {
        let all = decide_recovery(since(9), bounds(3, 9));
        assert_eq!(all, Recovery { after: offset(9), gap: None });
    }

    #[test]
    fn the_oldest_kept_message_is_still_reached_without_a_gap() {
        assert_eq!(decide_recovery(since(2), bounds(3, 9)).gap, None);
        let gap = decide_recovery(since(1), bounds(3, 9)).gap.unwrap();
        assert_eq!((gap.from, gap.to, gap.reason), (offset(2), offset(2), GapReason::Retention));
    }

    #[test]
    fn a_log_that_keeps_nothing_names_all_it_lost() {
        let recovery = decide_recovery(since(4), bounds(10, 9));
        let gap = recovery.gap.unwrap();
        assert_eq!((gap.from, gap.to, recovery.after), (offset(5), offset(9), offset(9)));
    }

    #[test]
    fn a_position_of_another_epoch_or_ahead_of_the_log_is_a_gap() {
        let other = Position { epoch: Epoch::from_bits(8), offset: offset(5) };
        let recovery = decide_recovery(other, bounds(3, 9));
        assert_eq!(recovery.gap.unwrap().reason, GapReason::EpochChanged);
        assert_eq!(recovery.after, offset(2));
        let ahead = decide_recovery(since(11), bounds(3, 9)).gap.unwrap();
        assert_eq!((ahead.reason, ahead.from), (GapReason::UnknownPosition, offset(10)));
    }

    #[test]
    fn a_position_of_a_life_that_the_log_goes_on_from_is_one_of_its_own_up_to_where_that_ended() {
        let at = |epoch, n| Position { epoch: Epoch::from_bits(epoch), offset: offset(n) };
        let earlier = EarlierLives::new([at(3, 6), at(2, 4)]);
        let bounds = LogBounds { earlier, ..bounds(3, 9) };
        for (since, after) in [(at(3, 6), 6), (at(3, 2), 2), (at(2, 4), 4)] {
            assert_eq!(
                decide_recovery(since, bounds),
                Recovery { after: offset(after), gap: None }
            );
        }
        // What was read beyond the end is not in this log, and others have its places.
        for (lost, from, after) in [(at(3, 7), 7, 6), (at(2, 5), 5, 4), (at(1, 1), 1, 2)] {
            let recovery = decide_recovery(lost, bounds);
            let gap = recovery.gap.unwrap();
            assert_eq!((gap.reason, gap.from), (GapReason::EpochChanged, offset(from)));
            assert_eq!((gap.to, recovery.after), (offset(after), offset(after)));
        }
        let old = decide_recovery(at(2, 1), bounds).gap.unwrap();
        assert_eq!((old.epoch, old.from, old.reason), (EPOCH, offset(2), GapReason::Retention));
    }

    #[test]
    fn of_many_earlier_lives_the_latest_are_remembered() {
        let at = |epoch| Position { epoch: Epoch::from_bits(epoch), offset: offset(epoch) };
        let lives = EarlierLives::new((1..=9).rev().map(at));
        assert_eq!(lives.iter().map(|end| end.offset.get()).collect::<Vec<_>>(), [9, 8, 7, 6]);
    }

    proptest! {
        #[test]
        fn no_gap_means_that_every_later_message_is_held(
            first in 1u64..50, held in 0u64..50, at in 0u64..120, same_epoch: bool,
        ) {
            let bounds = bounds(first, first + held - 1);
            let epoch = if same_epoch { EPOCH } else { Epoch::from_bits(9) };
            let recovery = decide_recovery(Position { epoch, offset: offset(at) }, bounds);
            match recovery.gap {
                None => {
                    prop_assert_eq!(recovery.after, offset(at));
                    prop_assert!(same_epoch && at + 1 >= first && at <= bounds.last.get());
                }
                // Everything between the client's position and what follows is named.
                Some(gap) if gap.reason == GapReason::Retention => {
                    prop_assert_eq!(gap.from.get(), at + 1);
                    prop_assert_eq!(gap.to, recovery.after);
                    prop_assert!(gap.from <= gap.to);
                }
                Some(_) => prop_assert!(recovery.after <= bounds.last),
            }
            prop_assert!(recovery.after.get() + 1 >= bounds.first.get());
        }
    }
}
