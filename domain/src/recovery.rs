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
}

impl LogBounds {
    /// Where a reader stands who has everything.
    #[must_use]
    pub const fn top(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last }
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
    if since.epoch != bounds.epoch {
        let from = Offset::ZERO.next().unwrap_or(Offset::MAX);
        return Recovery {
            after: before_first,
            gap: gap(from, before_first, GapReason::EpochChanged),
        };
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
        LogBounds { epoch: EPOCH, first: offset(first), last: offset(last) }
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
