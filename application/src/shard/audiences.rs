//! The audiences of one room: members who get the same of each message, by the format that they read and
//! the filter that they have.
//!
//! A message is decided and encoded once for each audience, however many members are in it. It must never
//! lose count of who is in one: its place is given to another one afterwards.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use domain::filter::Filter;
use domain::message::Publication;
use domain::position::{Offset, Position};
use domain::protocol::selective::mark_previous;

use crate::ports::outbox::Frame;
use crate::published::{Published, WireFormat};
use crate::use_cases::recover_room::RecoveredPage;

/// Which audience a member is in: its place among those of the room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct AudienceKey(u8);

impl AudienceKey {
    /// Protocol v2 without a filter: everything, as most members get it.
    pub(super) const NONE: Self = Self(u8::MAX);

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A message for one audience, framed.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) audience: AudienceKey,
    pub(super) bytes: Bytes,
}

/// What a live message is to one who waits for it.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// It comes as everyone gets it.
    Whole,
    /// It is not for this audience: only its place counts.
    Not,
    /// It comes like this.
    Own(Bytes),
}

/// What audiences get of an item.
#[derive(Debug)]
pub(super) enum Choice {
    /// It is no message: whoever reads protocol v2 gets the same, whatever its filter, and the others
    /// this; nothing when their format does not say it.
    Everyone(Bytes),
    /// These audiences get it, each its own; the others don't.
    Only(Vec<Chosen>),
}

/// What one audience gets of a batch.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) format: WireFormat,
    pub(super) frames: Vec<Frame>,
    /// Which of the batch's frames each of them is.
    pub(super) places: Vec<usize>,
    pub(super) joined: Bytes,
}

#[derive(Debug)]
struct Audience {
    format: WireFormat,
    filter: Option<Filter>,
    n_members: u32,
    /// Up to where its members have all that they want, once they are live; none before
    /// the first message that was decided.
    told: Option<Position>,
}

/// The audiences of one room beside the one that most members are in. Without any it owns nothing.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    groups: Vec<Option<Audience>>,
    /// How many decisions were made.
    pub(super) n_decided: u64,
}

impl Audiences {
    /// More places than this have no number.
    const PLACES_MAX: usize = AudienceKey::NONE.index();

    /// Counts one more member of an audience, if there is a place for it. `seen` is where the live
    /// stream stands; `filters_max` counts for audiences with a filter.
    pub(super) fn enter(
        &mut self,
        format: WireFormat,
        filter: Option<&Filter>,
        seen: Option<Position>,
        filters_max: usize,
    ) -> Option<AudienceKey> {
        if format == WireFormat::V2 && filter.is_none() {
            return Some(AudienceKey::NONE);
        }
        let groups_max = if filter.is_some() { filters_max } else { Self::PLACES_MAX };
        let of = |group: &Option<Audience>| {
            group.as_ref().is_some_and(|g| g.format == format && g.filter.as_ref() == filter)
        };
        let known = self.groups.iter().position(of);
        let place = known.or_else(|| self.groups.iter().position(Option::is_none));
        let place = match place {
            Some(place) => place,
            None if self.groups.len() >= groups_max.min(Self::PLACES_MAX) => return None,
            None => {
                self.groups.push(None);
                self.groups.len() - 1
            }
        };
        let fresh = || Audience { format, filter: filter.cloned(), n_members: 0, told: seen };
        self.groups[place].get_or_insert_with(fresh).n_members += 1;
        u8::try_from(place).ok().map(AudienceKey)
    }

    /// Counts one less.
    pub(super) fn leave(&mut self, key: AudienceKey) {
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

    /// The filter of an audience; none when it has none.
    pub(super) fn filter(&self, key: AudienceKey) -> Option<&Filter> {
        self.groups.get(key.index())?.as_ref()?.filter.as_ref()
    }

    /// An empty part for each place.
    pub(super) fn parts(&self) -> Vec<Part> {
        let format = |group: &Option<Audience>| {
            group.as_ref().map_or_else(WireFormat::default, |g| g.format)
        };
        let part = |group| Part { format: format(group), ..Part::default() };
        self.groups.iter().map(part).collect()
    }

    /// Whether anybody reads this format.
    pub(super) fn has(&self, format: WireFormat) -> bool {
        self.groups.iter().flatten().any(|group| group.format == format)
    }

    #[cfg(test)]
    pub(super) const fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Decides for each audience whether a message is for it, and has it encoded for those: for a filter
    /// with the offset before it, up to which its members have all that they want, if it has a place in
    /// the log. Empty bytes say that the format does not say it.
    pub(super) fn choose(
        &mut self,
        publication: &Publication,
        mut encode: impl FnMut(WireFormat, Option<Offset>) -> Bytes,
    ) -> Vec<Chosen> {
        let mut chosen = Vec::new();
        for (place, group) in self.groups.iter_mut().enumerate() {
            let (Some(group), Ok(place)) = (group, u8::try_from(place)) else { continue };
            self.n_decided += u64::from(group.filter.is_some());
            let passes = group.filter.as_ref().is_none_or(|filter| filter.passes(publication));
            let previous = publication.offset.map(|offset| {
                let previous = group.previous(Position { epoch: publication.epoch, offset });
                let told = if passes { offset } else { previous };
                group.told = Some(Position { epoch: publication.epoch, offset: told });
                previous
            });
            if !passes {
                continue;
            }
            let bytes = encode(group.format, previous);
            if !bytes.is_empty() {
                chosen.push(Chosen { audience: AudienceKey(place), bytes });
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

impl Audience {
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

/// What a message is to an audience.
pub(super) fn wanted(chosen: &[Chosen], audience: AudienceKey) -> Wanted {
    if audience == AudienceKey::NONE {
        return Wanted::Whole;
    }
    let of = |chosen: &&Chosen| chosen.audience == audience;
    chosen.iter().find(of).map_or(Wanted::Not, |chosen| Wanted::Own(chosen.bytes.clone()))
}

/// The messages of a page, for a filtered member each with the offset before it.
pub(super) fn mark_page(page: &RecoveredPage, audience: AudienceKey) -> Vec<Cow<'_, [u8]>> {
    let mut previous = page.after;
    let mut mark = |published: &'_ Arc<Published>| -> Option<Vec<u8>> {
        let offset = published.publication.offset.filter(|_| audience != AudienceKey::NONE)?;
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

    fn enter(all: &mut Audiences, filter: &Filter, max: usize) -> Option<AudienceKey> {
        all.enter(WireFormat::V2, Some(filter), None, max)
    }

    #[test]
    fn another_format_is_an_audience_of_its_own_and_needs_no_place_for_a_filter() {
        let mut all = Audiences::default();
        assert_eq!(all.enter(WireFormat::V2, None, None, 0), Some(AudienceKey::NONE));
        let a = enter(&mut all, &filter("a"), 1).unwrap();
        let documents = all.enter(WireFormat::Document, None, None, 1).unwrap();
        assert_ne!(a, documents);
        assert_eq!(all.enter(WireFormat::Document, None, None, 1), Some(documents));
        assert!(all.has(WireFormat::Document) && all.filter(documents).is_none());
        let formats: Vec<_> = all.parts().iter().map(|part| part.format).collect();
        assert_eq!(formats, [WireFormat::V2, WireFormat::Document]);
        all.leave(documents);
        all.leave(documents);
        assert!(!all.has(WireFormat::Document));
    }

    #[test]
    fn equal_filters_share_a_place_and_the_last_who_leaves_frees_it() {
        let mut filters = Audiences::default();
        let a = enter(&mut filters, &filter("a"), 2).unwrap();
        let b = enter(&mut filters, &filter("b"), 2).unwrap();
        assert_eq!(enter(&mut filters, &filter("a"), 2), Some(a));
        assert_eq!(enter(&mut filters, &filter("c"), 2), None);
        filters.leave(a);
        assert_eq!(enter(&mut filters, &filter("c"), 2), None);
        filters.leave(a);
        assert_eq!(enter(&mut filters, &filter("c"), 2), Some(a));
        assert_eq!(filters.filter(b), Some(&filter("b")));
        filters.leave(a);
        filters.leave(b);
        assert!(filters.is_empty());
        filters.leave(AudienceKey::NONE);
    }

    #[test]
    fn no_more_filters_than_there_are_numbers_for() {
        let mut filters = Audiences::default();
        let entered = (0..300).filter_map(|n| enter(&mut filters, &filter(&n.to_string()), 1_000));
        assert_eq!(entered.count(), 255);
    }

    #[test]
    fn what_is_told_before_the_first_message_is_all_before_it() {
        let group = |told| Audience {
            format: WireFormat::V2,
            filter: Some(filter("a")),
            n_members: 1,
            told,
        };
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
