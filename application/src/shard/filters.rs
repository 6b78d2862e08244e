//! The different filters of one room's members, and which messages pass each.
//!
//! A message is decided and marked once for each different filter, however many members have it.
//! It must never lose count of who uses a filter: its place is given to another one afterwards.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use domain::filter::Filter;
use domain::message::Publication;
use domain::position::{Offset, Position};
use domain::protocol::selective::mark_previous;

use crate::ports::outbox::Frame;
use crate::published::Published;
use crate::use_cases::recover_room::RecoveredPage;

/// Which filter a member has: its place among those of the room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FilterKey(u8);

impl FilterKey {
    /// No filter: everything.
    pub(super) const NONE: Self = Self(u8::MAX);

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A message for the members of one filter, marked and framed.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) filter: FilterKey,
    pub(super) bytes: Bytes,
}

/// What a live message is to one who waits for it.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// It comes as everyone gets it.
    Whole,
    /// It does not pass the filter: only its place counts.
    Not,
    /// It comes like this.
    Marked(Bytes),
}

/// What members with a filter get of an item.
#[derive(Debug)]
pub(super) enum Choice {
    /// The same as everyone: it is no message.
    Everything,
    /// Those with these filters get it, marked for them; the others don't.
    Only(Vec<Chosen>),
}

/// What members with one filter get of a batch.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) frames: Vec<Frame>,
    /// Which of the batch's frames each of them is.
    pub(super) places: Vec<usize>,
    pub(super) joined: Bytes,
}

#[derive(Debug)]
struct Group {
    filter: Filter,
    n_members: u32,
    /// Up to where members of this filter have all that they want, once they are live; none before
    /// the first message that was decided.
    told: Option<Position>,
}

/// The filters of one room. Without any it owns nothing.
#[derive(Debug, Default)]
pub(super) struct Filters {
    groups: Vec<Option<Group>>,
    /// How many decisions were made.
    pub(super) n_decided: u64,
}

impl Filters {
    /// More places than this have no number.
    const PLACES_MAX: usize = FilterKey::NONE.index();

    /// Counts one more member with this filter, if there is a place for it. `seen` is where the
    /// live stream stands.
    pub(super) fn enter(
        &mut self,
        filter: &Filter,
        seen: Option<Position>,
        filters_max: usize,
    ) -> Option<FilterKey> {
        let of = |group: &Option<Group>| group.as_ref().is_some_and(|g| g.filter == *filter);
        let known = self.groups.iter().position(of);
        let place = known.or_else(|| self.groups.iter().position(Option::is_none));
        let place = match place {
            Some(place) => place,
            None if self.groups.len() >= filters_max.min(Self::PLACES_MAX) => return None,
            None => {
                self.groups.push(None);
                self.groups.len() - 1
            }
        };
        let fresh = || Group { filter: filter.clone(), n_members: 0, told: seen };
        self.groups[place].get_or_insert_with(fresh).n_members += 1;
        u8::try_from(place).ok().map(FilterKey)
    }

    /// Counts one less.
    pub(super) fn leave(&mut self, key: FilterKey) {
        let Some(place) = self.groups.get_mut(key.index()) else { return };
        let Some(group) = place else { return };
        group.n_members -= 1;
        if group.n_members == 0 {
            *place = None;
        }
        while self.groups.last().is_some_and(Option::is_none) {
            self.groups.pop();
        }
        if self.groups.is_empty() {
            self.groups = Vec::new();
        }
    }

    /// The filter of a member; none when it has none.
    pub(super) fn get(&self, key: FilterKey) -> Option<&Filter> {
        self.groups.get(key.index())?.as_ref().map(|group| &group.filter)
    }

    /// How many places there are.
    pub(super) const fn len(&self) -> usize {
        self.groups.len()
    }

    #[cfg(test)]
    pub(super) const fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Decides for each filter whether a message passes, and marks it for those that it passes:
    /// with the offset before it, up to which their members have all that they want, if it has a
    /// place in the log.
    pub(super) fn choose(
        &mut self,
        publication: &Publication,
        mut mark: impl FnMut(Option<Offset>) -> Bytes,
    ) -> Vec<Chosen> {
        let mut chosen = Vec::new();
        for (place, group) in self.groups.iter_mut().enumerate() {
            let (Some(group), Ok(place)) = (group, u8::try_from(place)) else { continue };
            self.n_decided += 1;
            let passes = group.filter.passes(publication);
            let previous = publication.offset.map(|offset| {
                let previous = group.previous(Position { epoch: publication.epoch, offset });
                let told = if passes { offset } else { previous };
                group.told = Some(Position { epoch: publication.epoch, offset: told });
                previous
            });
            if passes {
                chosen.push(Chosen { filter: FilterKey(place), bytes: mark(previous) });
            }
        }
        chosen
    }

    /// Everything up to there was passed on or named in a gap.
    pub(super) fn stand_at(&mut self, position: Position) {
        for group in self.groups.iter_mut().flatten() {
            group.told = Some(position);
        }
    }
}

impl Group {
    /// The last offset before this one that was chosen, or behind which all are known not to be.
    /// Nothing was decided before the first: all before it counts as told, since whoever becomes
    /// live has read the log up to there.
    fn previous(&self, at: Position) -> Offset {
        match self.told {
            Some(told) if told.epoch == at.epoch && told.offset < at.offset => told.offset,
            _ => at.offset.previous(),
        }
    }
}

/// What a message is to one with this filter.
pub(super) fn wanted(chosen: &[Chosen], filter: FilterKey) -> Wanted {
    if filter == FilterKey::NONE {
        return Wanted::Whole;
    }
    let of = |chosen: &&Chosen| chosen.filter == filter;
    chosen.iter().find(of).map_or(Wanted::Not, |chosen| Wanted::Marked(chosen.bytes.clone()))
}

/// The messages of a page, for a filtered member each with the offset before it.
pub(super) fn mark_page(page: &RecoveredPage, filter: FilterKey) -> Vec<Cow<'_, [u8]>> {
    let mut previous = page.after;
    let mut mark = |published: &'_ Arc<Published>| -> Option<Vec<u8>> {
        let offset = published.publication.offset.filter(|_| filter != FilterKey::NONE)?;
        let before = std::mem::replace(&mut previous, offset);
        Some(mark_previous(published.message(), before))
    };
    let whole = |published| Cow::Borrowed(&Published::message(published)[..]);
    page.messages.iter().map(|p| mark(p).map_or_else(|| whole(p), Cow::Owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::filter::Condition;
    use domain::id::Epoch;

    fn filter(value: &str) -> Filter {
        let condition = Condition::In { name: "k".into(), values: vec![value.into()] };
        Filter::build(condition).unwrap()
    }

    #[test]
    fn equal_filters_share_a_place_and_the_last_who_leaves_frees_it() {
        let mut filters = Filters::default();
        let a = filters.enter(&filter("a"), None, 2).unwrap();
        let b = filters.enter(&filter("b"), None, 2).unwrap();
        assert_eq!(filters.enter(&filter("a"), None, 2), Some(a));
        assert_eq!(filters.enter(&filter("c"), None, 2), None);
        filters.leave(a);
        assert_eq!(filters.enter(&filter("c"), None, 2), None);
        filters.leave(a);
        assert_eq!(filters.enter(&filter("c"), None, 2), Some(a));
        assert_eq!(filters.get(b), Some(&filter("b")));
        filters.leave(a);
        filters.leave(b);
        assert!(filters.is_empty());
        filters.leave(FilterKey::NONE);
    }

    #[test]
    fn no_more_filters_than_there_are_numbers_for() {
        let mut filters = Filters::default();
        let entered = (0..300).filter_map(|n| filters.enter(&filter(&n.to_string()), None, 1_000));
        assert_eq!(entered.count(), 255);
    }

    #[test]
    fn what_is_told_before_the_first_message_is_all_before_it() {
        let group = |told| Group { filter: filter("a"), n_members: 1, told };
        let at = |epoch, n| Position {
            epoch: Epoch::from_bits(epoch),
            offset: Offset::parse(n).unwrap(),
        };
        assert_eq!(group(None).previous(at(1, 9)).get(), 8);
        assert_eq!(group(Some(at(1, 3))).previous(at(1, 9)).get(), 3);
        assert_eq!(group(Some(at(2, 3))).previous(at(1, 9)).get(), 8);
        assert_eq!(group(Some(at(1, 9))).previous(at(1, 9)).get(), 8);
    }
}
