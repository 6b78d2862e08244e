//! Where the client stands in one room, and what a message that comes means for that.
//!
//! It must never let the same offset through twice, and never pass over a missing one in silence.

use std::collections::BTreeSet;

use crate::id::Epoch;
use crate::position::{Offset, Position};
use crate::protocol::client_event::Gap;
use crate::recovery::GapReason;

/// How many places of the application's own messages are remembered per room.
const OWN_MAX: usize = 1024;

/// The position of one room.
#[derive(Clone, Debug, Default)]
pub struct Track {
    position: Option<Position>,
    /// Places of messages that the application published without wanting them back. Their
    /// acknowledgements may come before the messages between; and what is read from the log while
    /// joining may hold them all the same.
    own: BTreeSet<Offset>,
    /// The same under another epoch than the position's: the log goes on under it, or has ended. Which of both
    /// shows when that epoch is entered, or never.
    foreign: BTreeSet<(Epoch, Offset)>,
    /// Whether only some messages are wanted: then their places need not follow each other.
    filtered: bool,
}

/// What the place of a message says about it, or a position that the server names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// It is the next one, or where the client stands.
    Next,
    /// It is new, but these before it are missing.
    BehindHole {
        /// The first of them.
        from: Offset,
        /// The last.
        to: Offset,
    },
    /// It is new and the first of a log that nobody said began anew.
    NewEpoch,
    /// It is one that the application doesn't want back.
    Own,
    /// It was there before, or the server went back.
    Duplicate,
}

impl Track {
    /// Starts where the application says that it stands.
    #[must_use]
    pub const fn new(since: Option<Position>, filtered: bool) -> Self {
        Self { position: since, own: BTreeSet::new(), foreign: BTreeSet::new(), filtered }
    }

    /// The position to go on from.
    #[must_use]
    pub const fn position(&self) -> Option<Position> {
        self.position
    }

    /// Stands there, whatever was before.
    pub const fn stand(&mut self, at: Position) {
        self.position = Some(at);
    }

    /// What the place of a message means, without taking it. With a filter it names the offset before it,
    /// up to which everything that is wanted has been told.
    #[must_use]
    pub fn look(&self, at: Position, previous: Option<Offset>) -> Place {
        let Some(stood) = self.position else { return Place::Next };
        let hole = self.hole_behind(stood.offset, at, previous);
        if at.epoch != stood.epoch {
            // A log that goes on under another epoch leaves nothing out.
            let goes_on = at.offset > stood.offset && hole.is_none();
            let is_own = self.foreign.contains(&(at.epoch, at.offset));
            return match goes_on {
                true if is_own => Place::Own,
                true => Place::Next,
                false => Place::NewEpoch,
            };
        }
        if self.own.contains(&at.offset) {
            // The position stays: what is missing before this place is found at the next message.
            return Place::Own;
        }
        if at.offset <= stood.offset {
            return Place::Duplicate;
        }
        hole.map_or(Place::Next, |(from, to)| Place::BehindHole { from, to })
    }

    /// Takes the place of a message.
    pub fn accept(&mut self, at: Position, previous: Option<Offset>) -> Place {
        let place = self.look(at, previous);
        match place {
            Place::Next | Place::BehindHole { .. } => self.go_on(at),
            Place::NewEpoch => self.begin(at),
            Place::Own | Place::Duplicate => {}
        }
        place
    }

    /// The server says that the client has everything up to there. With a hole before that it stays where
    /// it is.
    pub fn reach(&mut self, at: Position) -> Place {
        let Some(stood) = self.position else {
            self.position = Some(at);
            return Place::Next;
        };
        let end = at.offset.next().filter(|_| !self.filtered);
        let hole = end.and_then(|end| self.hole_before(stood.offset, end, at.epoch));
        if at.epoch != stood.epoch {
            if at.offset >= stood.offset && hole.is_none() {
                self.go_on(at);
                return Place::Next;
            }
            self.begin(at);
            return Place::NewEpoch;
        }
        if at.offset < stood.offset {
            // The acknowledged places of one's own messages may lie ahead of what was read.
            let own = self.own.range(after(at.offset)..=stood.offset).count() as u64;
            let all = own == stood.offset.get() - at.offset.get();
            return if all { Place::Next } else { Place::Duplicate };
        }
        if let Some((from, to)) = hole {
            return Place::BehindHole { from, to };
        }
        self.position = Some(at);
        Place::Next
    }

    /// The server names messages that will not come. Answers what is missing before them.
    pub fn skip(&mut self, gap: &Gap) -> Place {
        let end = Position { epoch: gap.epoch, offset: gap.to };
        if gap.reason == GapReason::UnknownPosition.word() {
            // The client was ahead of the log: the only way back.
            self.begin(Position { epoch: gap.epoch, offset: gap.from.previous() });
            return Place::Next;
        }
        match self.position {
            Some(stood) if stood.epoch == gap.epoch => {
                // A gap of a filtered room begins where the client stood, or behind what it did not
                // want.
                let missing = self.hole_before(stood.offset, gap.from, gap.epoch);
                let missing = missing.filter(|_| !self.filtered);
                self.position = Some(if gap.to > stood.offset { end } else { stood });
                missing.map_or(Place::Next, |(from, to)| Place::BehindHole { from, to })
            }
            _ => {
                self.begin(end);
                Place::Next
            }
        }
    }

    /// A message of the application's own has its place and will not come back.
    pub fn pass(&mut self, at: Position) {
        let Some(mut stood) = self.position else { return };
        if at.epoch != stood.epoch {
            self.foreign.insert((at.epoch, at.offset));
            if self.foreign.len() > OWN_MAX {
                self.foreign.pop_first();
            }
            return;
        }
        self.own.insert(at.offset);
        if self.own.len() > OWN_MAX {
            self.own.pop_first();
        }
        while let Some(next) = stood.offset.next().filter(|next| self.own.contains(next)) {
            stood.offset = next;
        }
        self.position = Some(stood);
    }

    /// What is missing before a message, which may name what it follows.
    fn hole_behind(
        &self,
        stood: Offset,
        at: Position,
        previous: Option<Offset>,
    ) -> Option<(Offset, Offset)> {
        match previous {
            // What lies before a message of one's own is known to whom it was not sent back.
            Some(previous) if self.is_own(previous, at.epoch) => None,
            Some(previous) => self.hole_before(stood, after(previous), at.epoch),
            None => self.hole_before(stood, at.offset, at.epoch),
        }
    }

    /// Whether a place is one's own, in the log that goes on under an epoch.
    fn is_own(&self, place: Offset, epoch: Epoch) -> bool {
        self.own.contains(&place) || self.foreign.contains(&(epoch, place))
    }

    /// The log begins anew: nothing that is known of the places of the one before counts.
    fn begin(&mut self, at: Position) {
        self.own.clear();
        self.go_on(at);
    }

    /// Stands there, in the log that goes on, if under another epoch.
    fn go_on(&mut self, at: Position) {
        if self.position.is_none_or(|stood| stood.epoch != at.epoch) {
            // Places ahead may be others' in this log: twice is less than never.
            self.own.retain(|own| *own <= at.offset);
            let entered = self.foreign.iter().filter(|(epoch, _)| *epoch == at.epoch);
            self.own.extend(entered.map(|(_, offset)| *offset));
            self.foreign.retain(|(epoch, _)| *epoch != at.epoch);
        }
        self.position = Some(at);
    }

    /// What is missing between `stood` and `next`, both exclusive. Places of one's own in between
    /// are not.
    fn hole_before(&self, stood: Offset, next: Offset, epoch: Epoch) -> Option<(Offset, Offset)> {
        let (mut from, mut to) = (after(stood), next.previous());
        while from <= to && self.is_own(from, epoch) {
            from = after(from);
        }
        while from <= to && self.is_own(to, epoch) {
            to = to.previous();
        }
        (from <= to && from != stood && to > stood).then_some((from, to))
    }
}

fn after(offset: Offset) -> Offset {
    offset.next().unwrap_or(Offset::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::RoomId;

    fn offset(n: u64) -> Offset {
        Offset::parse(n).unwrap()
    }

    fn at(n: u64) -> Position {
        Position { epoch: Epoch::from_bits(7), offset: offset(n) }
    }

    fn gap(epoch: u64, from: u64, to: u64, reason: GapReason) -> Gap {
        Gap {
            room: RoomId::parse("public:r").unwrap(),
            epoch: Epoch::from_bits(epoch),
            from: offset(from),
            to: offset(to),
            reason: reason.word().to_owned(),
        }
    }

    #[test]
    fn the_next_offset_is_taken_once() {
        let mut track = Track::new(Some(at(4)), false);
        assert_eq!(track.accept(at(5), None), Place::Next);
        assert_eq!(track.accept(at(5), None), Place::Duplicate);
        assert_eq!(track.accept(at(1), None), Place::Duplicate);
        assert_eq!(track.position(), Some(at(5)));
    }

    #[test]
    fn an_offset_that_skips_names_what_is_missing() {
        let mut track = Track::new(Some(at(4)), false);
        let hole = Place::BehindHole { from: offset(5), to: offset(6) };
        assert_eq!(track.accept(at(7), None), hole);
        assert_eq!(track.reach(at(9)), Place::BehindHole { from: offset(8), to: offset(9) });
        track.stand(at(9));
        assert_eq!(track.reach(at(9)), Place::Next);
        assert_eq!(track.reach(at(3)), Place::Duplicate);
    }

    #[test]
    fn a_gap_moves_the_position_and_only_one_ahead_of_the_log_moves_it_back() {
        let mut track = Track::new(Some(at(4)), false);
        assert_eq!(track.skip(&gap(7, 5, 9, GapReason::Retention)), Place::Next);
        assert_eq!(track.accept(at(10), None), Place::Next);
        assert_eq!(
            track.skip(&gap(7, 12, 13, GapReason::Overflow)),
            Place::BehindHole { from: offset(11), to: offset(11) }
        );
        track.skip(&gap(7, 4, 13, GapReason::UnknownPosition));
        assert_eq!(track.position(), Some(at(3)));
        track.skip(&gap(8, 1, 0, GapReason::EpochChanged));
        assert_eq!(track.position().unwrap().epoch, Epoch::from_bits(8));
        assert_eq!(track.position().unwrap().offset, Offset::ZERO);
    }

    #[test]
    fn an_epoch_that_nobody_announced_is_seen() {
        let mut track = Track::new(Some(at(4)), false);
        let other = Position { epoch: Epoch::from_bits(8), offset: offset(1) };
        assert_eq!(track.accept(other, None), Place::NewEpoch);
        assert_eq!(track.position(), Some(other));
    }

    #[test]
    fn a_log_that_goes_on_under_another_epoch_is_followed_without_a_gap() {
        let next = |n| Position { epoch: Epoch::from_bits(8), offset: offset(n) };
        let mut track = Track::new(Some(at(4)), false);
        assert_eq!(track.accept(next(5), None), Place::Next);
        assert_eq!(track.position(), Some(next(5)));
        let mut track = Track::new(Some(at(4)), false);
        assert_eq!(track.reach(next(4)), Place::Next);
        assert_eq!(track.accept(next(5), None), Place::Next);
        // One's own, acknowledged under the new epoch, lies between.
        let mut track = Track::new(Some(at(4)), false);
        track.pass(next(5));
        assert_eq!(track.accept(next(6), None), Place::Next);
        // Whatever leaves a hole, or goes back, is a log that began anew.
        for (stood, met) in [(4, 6), (4, 4), (4, 1)] {
            let mut track = Track::new(Some(at(stood)), false);
            assert_eq!(track.accept(next(met), None), Place::NewEpoch, "{met} behind {stood}");
        }
        assert_eq!(Track::new(Some(at(4)), false).reach(next(6)), Place::NewEpoch);
        assert_eq!(Track::new(Some(at(4)), false).reach(next(3)), Place::NewEpoch);
    }

    #[test]
    fn an_acknowledged_message_of_ones_own_takes_its_place_whenever_it_comes() {
        let mut track = Track::new(Some(at(4)), false);
        track.pass(at(5));
        assert_eq!(track.position(), Some(at(5)));
        // Ahead of what is still on its way.
        track.pass(at(8));
        assert_eq!(track.accept(at(6), None), Place::Next);
        assert_eq!(track.accept(at(7), None), Place::Next);
        assert_eq!(track.accept(at(9), None), Place::Next);
        // Read from the log all the same.
        assert_eq!(track.accept(at(8), None), Place::Own);
        // A hole around it is still a hole.
        track.pass(at(12));
        let hole = Place::BehindHole { from: offset(10), to: offset(13) };
        assert_eq!(track.accept(at(14), None), hole);
    }

    #[test]
    fn an_acknowledgement_of_a_log_that_has_ended_takes_no_place_in_the_next() {
        let next = |n| Position { epoch: Epoch::from_bits(8), offset: offset(n) };
        let mut track = Track::new(Some(at(4)), false);
        track.skip(&gap(8, 1, 0, GapReason::EpochChanged));
        track.pass(at(5));
        track.pass(at(2));
        assert_eq!(track.accept(next(1), None), Place::Next);
        assert_eq!(track.accept(next(2), None), Place::Next);
        assert_eq!(
            track.accept(next(4), None),
            Place::BehindHole { from: offset(3), to: offset(3) }
        );
        assert_eq!(track.accept(next(5), None), Place::Next);
    }

    #[test]
    fn an_acknowledgement_that_comes_before_its_log_is_entered_takes_its_place_there() {
        let next = |n| Position { epoch: Epoch::from_bits(8), offset: offset(n) };
        let mut track = Track::new(Some(at(4)), false);
        track.pass(next(1));
        track.skip(&gap(8, 1, 0, GapReason::EpochChanged));
        assert_eq!(track.accept(next(2), None), Place::Next);
        // The log goes on: its own place is not handed over, and no hole.
        let mut track = Track::new(Some(at(4)), false);
        track.pass(next(5));
        assert_eq!(track.accept(next(5), None), Place::Own);
        assert_eq!(track.accept(next(6), None), Place::Next);
        assert_eq!(track.reach(next(6)), Place::Next);
    }

    #[test]
    fn with_a_filter_only_a_later_previous_is_a_hole() {
        let mut track = Track::new(Some(at(4)), true);
        let previous = |n| Some(offset(n));
        assert_eq!(track.accept(at(9), previous(4)), Place::Next);
        // Joined later than others with the same filter: what came before is not missed.
        assert_eq!(track.accept(at(12), previous(2)), Place::Next);
        let hole = Place::BehindHole { from: offset(13), to: offset(15) };
        assert_eq!(track.accept(at(20), previous(15)), hole);
        assert_eq!(track.accept(at(20), previous(15)), Place::Duplicate);
        assert_eq!(track.reach(at(30)), Place::Next);
        // An own message is not sent back, and what is before it was told by its acknowledgement.
        track.pass(at(33));
        assert_eq!(track.accept(at(35), previous(33)), Place::Next);
        assert_eq!(track.skip(&gap(7, 40, 45, GapReason::Retention)), Place::Next);
        assert_eq!(track.accept(at(46), previous(45)), Place::Next);
    }
}
