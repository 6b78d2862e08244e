//! Who is in a room, as somebody knows it who was told: by a list, by what changed since, or by a number.
//!
//! A list may name fewer than there are only where one more would be too much for a connection; how many it left out
//! is known, and must never excuse anything else.

use std::collections::{BTreeMap, BTreeSet};

/// What a listed member counts for beside its data, where it is decided how many a connection can be given.
const MEMBER_BYTES: usize = 192;
/// No member of a story shows more of itself than this.
const DATA_BYTES_MAX: usize = r#"{"canary":17592186044415}"#.len();

/// Up to how many members are told by their names, and up to how many bytes of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NamesMax {
    pub(crate) members: u64,
    pub(crate) bytes: usize,
}

/// What a listed member counts for. Who shows nothing is told as that.
fn bytes_of(data: &str) -> usize {
    MEMBER_BYTES + if data == "null" { 0 } else { data.len() }
}

/// What became of one member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Change {
    pub(crate) event: String,
    pub(crate) user: String,
    pub(crate) data: String,
}

/// Those who are known by their names, and how many more there are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Crowd {
    members: BTreeMap<String, String>,
    hidden: u64,
}

/// What is known of who is there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Known {
    #[default]
    Nothing,
    Named(Crowd),
    /// Only how many.
    Counted(u64),
}

impl Known {
    /// Compares with who is there. Where that is told by a number, there must be more than names are given for, or more
    /// than one connection can be given.
    pub(crate) fn check(
        &self,
        expected: &BTreeMap<String, String>,
        most: NamesMax,
    ) -> Result<(), String> {
        let n_expected = expected.len() as u64;
        let is_right = match self {
            Self::Nothing => false,
            Self::Named(crowd) => {
                let is_there = |(user, data): (&String, &String)| {
                    expected.get(user).is_some_and(|d| d == data)
                };
                crowd.total() == n_expected && crowd.members.iter().all(is_there)
            }
            Self::Counted(total) => {
                let bytes: usize = expected.values().map(|data| bytes_of(data)).sum();
                // Names come back once a quarter fewer are there.
                let is_crowd = *total > most.members - most.members / 4;
                *total == n_expected && (is_crowd || bytes > most.bytes)
            }
        };
        if is_right { Ok(()) } else { Err(format!("{self:?}, not {expected:?}")) }
    }
}

impl Crowd {
    /// As a list says, that a connection gets which can be given so many bytes of it.
    pub(crate) fn listed<'a>(
        listed: impl Iterator<Item = (&'a str, &'a str)>,
        total: u64,
        bytes_max: usize,
    ) -> Result<Self, String> {
        let (mut members, mut bytes) = (BTreeMap::new(), 0);
        for (user, data) in listed {
            bytes += bytes_of(data);
            if members.insert(user.to_owned(), data.to_owned()).is_some() {
                return Err(format!("{user} is listed twice"));
            }
        }
        let named = members.len() as u64;
        if bytes > bytes_max {
            return Err(format!("{named} members are {bytes} bytes, more than {bytes_max}"));
        }
        let Some(hidden) = total.checked_sub(named) else {
            return Err(format!("{named} members are named of {total}"));
        };
        if hidden > 0 && bytes + MEMBER_BYTES + DATA_BYTES_MAX <= bytes_max {
            return Err(format!("{hidden} of {total} members are not named, and would fit"));
        }
        Ok(Self { members, hidden })
    }

    pub(crate) const fn is_cut(&self) -> bool {
        self.hidden > 0
    }

    fn total(&self) -> u64 {
        self.members.len() as u64 + self.hidden
    }

    /// One change, after which there are so many.
    pub(crate) fn change(&mut self, change: &Change, total: u64) -> Result<(), String> {
        let is_known = self.members.contains_key(&change.user);
        let (fits, was_hidden) = match change.event.as_str() {
            "join" => (!is_known, false),
            "leave" | "update" => (is_known || self.hidden > 0, !is_known),
            _ => (false, false),
        };
        if !fits {
            return Err(format!("{change:?}, present: {is_known}, not named: {}", self.hidden));
        }
        self.hidden -= u64::from(was_hidden);
        self.apply(change);
        if self.total() == total {
            return Ok(());
        }
        Err(format!("{change:?} leaves {total}, and not {}", self.total()))
    }

    /// What became of several, after which there are so many. Who came and went leaves without having been there, and
    /// a list that was read in between has some of it already.
    pub(crate) fn change_all(&mut self, changes: &[Change], total: u64) -> Result<(), String> {
        let mut users = BTreeSet::new();
        // How many of those who were not named are known or gone now: at least, and at most.
        let (mut least, mut most) = (0, 0);
        for change in changes {
            let is_known = self.members.contains_key(&change.user);
            let is_word = matches!(change.event.as_str(), "join" | "leave" | "update");
            if !is_word || !users.insert(&change.user) {
                return Err(format!("{change:?} among {changes:?}"));
            }
            most += u64::from(!is_known);
            least += u64::from(!is_known && change.event == "update");
            self.apply(change);
        }
        let hidden = total.checked_sub(self.members.len() as u64);
        let possible = self.hidden.saturating_sub(most)..=self.hidden.saturating_sub(least);
        match hidden.filter(|hidden| least <= self.hidden && possible.contains(hidden)) {
            Some(hidden) => {
                self.hidden = hidden;
                Ok(())
            }
            None => Err(format!("{changes:?} leave {total}, of whom are known {self:?}")),
        }
    }

    /// There are so many behind some changes, and none before them was left out if that is known.
    pub(crate) fn count(&mut self, total: u64, is_whole: bool) -> Result<(), String> {
        let named = self.members.len() as u64;
        if is_whole && self.hidden == 0 && named != total {
            return Err(format!("there are {total}, of whom are known {self:?}"));
        }
        self.hidden = total.saturating_sub(named);
        Ok(())
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        if change.event == "leave" {
            self.members.remove(&change.user);
        } else {
            self.members.insert(change.user.clone(), change.data.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: NamesMax = NamesMax { members: 1_000, bytes: 100_000 };
    const ONE: usize = MEMBER_BYTES + DATA_BYTES_MAX;

    fn listed(names: &[&'static str], total: u64, bytes_max: usize) -> Result<Crowd, String> {
        Crowd::listed(names.iter().map(|name| (*name, "null")), total, bytes_max)
    }

    fn change(event: &str, user: &str) -> Change {
        let [event, user] = [event, user].map(str::to_owned);
        Change { event, user, data: "1".to_owned() }
    }

    #[test]
    fn a_list_is_cut_where_one_more_would_be_too_much_and_nowhere_else() {
        assert!(listed(&["ann", "bob"], 2, 2 * ONE).is_ok());
        assert!(listed(&["ann", "bob"], 3, 3 * MEMBER_BYTES).is_ok());
        assert!(listed(&["ann", "bob"], 3, 3 * ONE).is_err(), "a third would have fitted");
        assert!(listed(&["ann", "bob"], 2, MEMBER_BYTES).is_err(), "it is too long");
        assert!(listed(&["ann", "bob"], 1, 2 * ONE).is_err(), "more are named than there are");
        assert!(listed(&["ann", "ann"], 2, 2 * ONE).is_err());
    }

    #[test]
    fn of_those_who_are_not_named_only_so_many_can_be_told_of() {
        let mut crowd = listed(&["ann"], 2, ONE).unwrap();
        assert!(crowd.clone().change(&change("join", "ann"), 3).is_err());
        assert!(crowd.clone().change(&change("leave", "bob"), 2).is_err(), "there is one fewer");
        crowd.change(&change("leave", "bob"), 1).unwrap();
        assert!(crowd.clone().change(&change("leave", "cyd"), 0).is_err(), "nobody is left");
        crowd.change(&change("join", "cyd"), 2).unwrap();
        let expected = [("ann", "null"), ("cyd", "1")].map(|(u, d)| (u.to_owned(), d.to_owned()));
        assert_eq!(Known::Named(crowd).check(&expected.into(), MANY), Ok(()));
    }

    #[test]
    fn of_several_changes_the_number_behind_them_tells_who_was_not_named() {
        let whole = listed(&["ann", "bob"], 2, 2 * ONE).unwrap();
        let changes = [change("leave", "ann"), change("leave", "eve"), change("join", "cyd")];
        whole.clone().change_all(&changes, 2).unwrap();
        assert!(whole.clone().change_all(&changes, 3).is_err());
        let mut unsure = whole;
        assert!(unsure.change_all(&[change("update", "eve")], 3).is_err());
        let mut cut = listed(&["ann"], 3, ONE).unwrap();
        cut.change_all(&[change("leave", "eve"), change("update", "bob")], 2).unwrap();
        assert!(cut.change_all(&[change("update", "eve")], 3).is_err(), "there is nobody");
    }

    #[test]
    fn a_number_is_enough_only_where_names_would_be_too_many() {
        let three = ["ann", "bob", "cyd"].map(|name| (name.to_owned(), String::new()));
        let three = BTreeMap::from(three);
        assert!(Known::Counted(3).check(&three, NamesMax { members: 2, ..MANY }).is_ok());
        let few = NamesMax { members: 4, ..MANY };
        assert!(Known::Counted(3).check(&three, few).is_err(), "names are due");
        let long = NamesMax { bytes: 3 * MEMBER_BYTES - 1, ..few };
        assert!(Known::Counted(3).check(&three, long).is_ok(), "no list would hold them");
        assert!(Known::Counted(2).check(&three, NamesMax { members: 1, ..MANY }).is_err());
        assert!(Known::Nothing.check(&three, MANY).is_err());
    }
}
