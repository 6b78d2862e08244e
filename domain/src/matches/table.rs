//! The matches that one server keeps, bounded in number.
//!
//! What is to be done is decided without doing it, so that a store can write it down first. It must never
//! give up a match that has not ended.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::matches::lifecycle::{Match, Phase};
use crate::matches::names::MatchId;
use crate::time::Wall;

/// What making a match comes to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CreatePlan {
    /// It is there, made alike.
    Already(Box<Match>),
    /// Another of its name is there.
    Conflict,
    /// There is no room for one more.
    Full,
    /// It is new: put it, and forget those that ended first.
    Put {
        /// Which go for it; most often none.
        instead_of: Vec<MatchId>,
    },
}

/// What putting a match in the place of its earlier self comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpdatePlan {
    /// Put it.
    Put,
    /// There is none of its name.
    Missing,
    /// It is in another phase.
    Changed,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct MatchTable {
    matches: BTreeMap<MatchId, Match>,
    /// Those that have ended by that moment, so that forgetting looks at what is forgotten only.
    ended: BTreeSet<(Wall, MatchId)>,
}

impl MatchTable {
    /// What making this one comes to, where at most `matches_max` are kept.
    #[must_use]
    pub fn plan_create(&self, new: &Match, matches_max: usize) -> CreatePlan {
        if let Some(known) = self.matches.get(&new.id) {
            let is_alike = known.is_made_like(new);
            let already = || CreatePlan::Already(Box::new(known.clone()));
            return if is_alike { already() } else { CreatePlan::Conflict };
        }
        // More than one where the table was filled under a larger maximum.
        let too_many = (self.matches.len() + 1).saturating_sub(matches_max);
        if self.ended.len() < too_many {
            return CreatePlan::Full;
        }
        let first = self.ended.iter().take(too_many);
        CreatePlan::Put { instead_of: first.map(|(_, id)| id.clone()).collect() }
    }

    /// What putting `next` in the place of the match of its name comes to.
    #[must_use]
    pub fn plan_update(&self, next: &Match, from: Phase) -> UpdatePlan {
        match self.matches.get(&next.id) {
            None => UpdatePlan::Missing,
            Some(known) if known.phase() == from => UpdatePlan::Put,
            Some(_) => UpdatePlan::Changed,
        }
    }

    /// Puts a match, in the place of the one of its name if there is one.
    pub fn put(&mut self, new: Match) {
        self.remove(&new.id);
        if let Some(ended_at) = new.ended_at() {
            self.ended.insert((ended_at, new.id.clone()));
        }
        self.matches.insert(new.id.clone(), new);
    }

    /// Forgets a match.
    pub fn remove(&mut self, id: &MatchId) {
        if let Some(ended_at) = self.matches.remove(id).and_then(|gone| gone.ended_at()) {
            self.ended.remove(&(ended_at, id.clone()));
        }
    }

    /// The match of a name.
    #[must_use]
    pub fn find(&self, id: &MatchId) -> Option<&Match> {
        self.matches.get(id)
    }

    /// The names of those that ended at `until` or before, the first ones first, at most so many.
    #[must_use]
    pub fn ended_until(&self, until: Wall, names_max: usize) -> Vec<MatchId> {
        let ended = self.ended.iter().take_while(|(ended_at, _)| *ended_at <= until);
        ended.take(names_max).map(|(_, id)| id.clone()).collect()
    }

    /// The matches behind `after` in the order of their names, those in `phase` or all: at most
    /// `matches_max` and no more than `bytes_max` bytes, but one in any case. And whether there are later
    /// ones.
    #[must_use]
    pub fn page(
        &self,
        phase: Option<Phase>,
        after: Option<&MatchId>,
        matches_max: usize,
        bytes_max: usize,
    ) -> (Vec<Match>, bool) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.matches.range((from, Bound::Unbounded)).map(|(_, one)| one);
        let (mut page, mut bytes) = (Vec::new(), 0_usize);
        for one in behind.filter(|one| phase.is_none_or(|phase| one.phase() == phase)) {
            bytes = bytes.saturating_add(one.bytes());
            if !page.is_empty() && (page.len() >= matches_max || bytes > bytes_max) {
                return (page, true);
            }
            page.push(one.clone());
        }
        (page, false)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.matches.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matches::{
        ConnectionsMax, GameType, MatchState, Metadata, Participants, Spectators,
    };

    fn at(ms: i64) -> Wall {
        Wall::from_millis(ms)
    }

    fn named(name: &str) -> Match {
        Match {
            id: MatchId::parse(name).unwrap(),
            game: GameType::parse("relay").unwrap(),
            participants: Participants::default(),
            spectators: Spectators::Nobody,
            connections_max: ConnectionsMax::default(),
            metadata: None,
            created_at: at(0),
            state: MatchState::Waiting,
        }
    }

    fn over(name: &str, ended_at: i64) -> Match {
        named(name).end(at(ended_at), None).unwrap()
    }

    fn names(page: &[Match]) -> Vec<&str> {
        page.iter().map(|one| one.id.as_str()).collect()
    }

    #[test]
    fn a_full_table_gives_up_what_ended_first_and_nothing_that_has_not() {
        let mut table = MatchTable::default();
        for one in [named("a"), over("b", 7), over("c", 5)] {
            table.put(one);
        }
        let put = |instead_of: &[&str]| CreatePlan::Put {
            instead_of: instead_of.iter().map(|name| MatchId::parse(name).unwrap()).collect(),
        };
        assert_eq!(table.plan_create(&named("d"), 4), put(&[]));
        assert_eq!(table.plan_create(&named("d"), 3), put(&["c"]));
        assert_eq!(table.plan_create(&named("d"), 2), put(&["c", "b"]));
        assert_eq!(table.plan_create(&named("d"), 1), CreatePlan::Full);
        // What is there needs no room.
        let already = CreatePlan::Already(Box::new(named("a")));
        assert_eq!(table.plan_create(&named("a"), 1), already);
        let other = Match { metadata: Metadata::parse("1").ok(), ..named("a") };
        assert_eq!(table.plan_create(&other, 9), CreatePlan::Conflict);
    }

    #[test]
    fn a_match_is_put_in_its_own_place_only_from_the_phase_it_is_in() {
        let mut table = MatchTable::default();
        let running = named("a").start(at(1)).unwrap();
        assert_eq!(table.plan_update(&running, Phase::Waiting), UpdatePlan::Missing);
        table.put(named("a"));
        assert_eq!(table.plan_update(&running, Phase::Waiting), UpdatePlan::Put);
        table.put(running.clone());
        assert_eq!(table.plan_update(&running, Phase::Waiting), UpdatePlan::Changed);
        assert_eq!((table.len(), table.find(&running.id)), (1, Some(&running)));
    }

    #[test]
    fn what_ended_is_found_by_when_it_did_and_is_gone_when_it_is_removed() {
        let mut table = MatchTable::default();
        for one in [over("a", 9), over("b", 5), named("c")] {
            table.put(one);
        }
        let until = |table: &MatchTable, ms, most| {
            let ended = table.ended_until(at(ms), most);
            ended.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(until(&table, 4, 9), [""; 0]);
        assert_eq!(
            (until(&table, 9, 9), until(&table, 9, 1)),
            (vec!["b".to_owned(), "a".to_owned()], vec!["b".to_owned()])
        );
        table.remove(&named("b").id);
        assert_eq!(until(&table, 9, 9), ["a"]);
        table.remove(&named("a").id);
        table.remove(&named("c").id);
        assert!(table.is_empty() && until(&table, i64::MAX, 9).is_empty());
    }

    #[test]
    fn pages_are_in_order_within_both_limits_and_hold_one_match_at_least() {
        let mut table = MatchTable::default();
        for one in [named("c"), over("b", 1), named("a"), named("d")] {
            table.put(one);
        }
        let bytes = named("a").bytes();
        let (page, more) = table.page(None, None, 2, usize::MAX);
        assert_eq!((names(&page), more), (vec!["a", "b"], true));
        let (page, more) = table.page(None, Some(&page[1].id), 2, usize::MAX);
        assert_eq!((names(&page), more), (vec!["c", "d"], false));
        let (page, more) = table.page(Some(Phase::Waiting), None, 9, 2 * bytes);
        assert_eq!((names(&page), more), (vec!["a", "c"], true));
        let (page, more) = table.page(None, None, 0, 0);
        assert_eq!((names(&page), more), (vec!["a"], true));
        assert_eq!(table.page(Some(Phase::Running), None, 9, 9), (Vec::new(), false));
        // A name that is not there is a place all the same.
        let between = MatchId::parse("bb").unwrap();
        assert_eq!(names(&table.page(None, Some(&between), 9, usize::MAX).0), ["c", "d"]);
    }
}
