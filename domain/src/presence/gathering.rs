//! When the followers of a room are told of its changes: at once while there are few, gathered while there are many, and
//! only of how many are there where their names would be too much.
//!
//! It must never say that it tells of all changes up to a number while it lacks one of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::{PresenceChange, PresenceEvent, PresenceKey};
use crate::time::Monotonic;

/// How long changes are gathered.
pub const WINDOW: Duration = Duration::from_millis(100);
/// How many changes of one window are told of at once before the others are gathered.
pub const AT_ONCE_MAX: u32 = 10;
/// How many members may be there with their names where a namespace does not say it: as many as a list names.
pub const NAMED_MAX: u32 = 1_000;
/// The most bytes of names and data that are gathered; above it only a number is told. A quarter of what may wait for
/// one connection.
pub const GATHERED_BYTES_MAX: usize = 256 << 10;
/// How long at least only numbers are told before names are again: each return is a whole list for every follower.
pub const COUNTED_AT_LEAST: Duration = Duration::from_secs(5);
/// What a change takes beside its name and data, about: the words around them.
const CHANGE_BYTES: usize = 64;

/// What became of one member over some changes: the last of them, but a `join` stays one when it is followed by an
/// `update`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChangedMember {
    /// Who.
    pub who: PresenceKey,
    /// What happened last. A `leave` may be of somebody who came after the first of the changes: a list that was read
    /// in between has them.
    pub change: PresenceChange,
    /// The member's data (JSON) after it; empty stands for `null`.
    pub data: Bytes,
}

/// All changes of a room from one number to another.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PresenceChanges {
    /// The number of the first change.
    pub from: u64,
    /// The number of the last.
    pub seq: u64,
    /// How many members there are after it.
    pub total: usize,
    /// What became of each member who changed, in the order of their names.
    pub members: Vec<ChangedMember>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PresenceCount {
    /// The number of the last change.
    pub seq: u64,
    /// How many members there are after it.
    pub total: usize,
}

/// What the followers are told at the end of a window.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Gathered {
    /// One, or several where a change between them is missing.
    pub changes: Vec<PresenceChanges>,
    /// Instead of names.
    pub count: Option<PresenceCount>,
    /// Whether the list has to be read, so that names can be told again.
    pub needs_list: bool,
}

/// What a list is to those who follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listed {
    /// It is told, and names follow.
    Whole,
    /// It would be too much: only this number is told, which may be a newer one.
    Counted(PresenceCount),
}

/// Changes without one missing between them.
#[derive(Clone, Debug)]
struct Run {
    from: u64,
    seq: u64,
    total: usize,
    members: BTreeMap<PresenceKey, (PresenceChange, Bytes)>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Names are told.
    Named,
    /// Only how many there are, until this moment at least.
    Counted {
        until: Monotonic,
        told: Option<PresenceCount>,
        last: PresenceCount,
        /// Whether the list was too long to be told, and nothing has changed since.
        is_too_long: bool,
        /// A list was below `last`. Another one that is, asked for since, is of a broker that has lost the end.
        is_doubted: bool,
    },
    /// The list is being read, after which names are told again; until then they are gathered.
    Asked,
}

/// What one room's followers have still to be told. Nothing while the room is quiet: see
/// [`is_idle`](Self::is_idle).
#[derive(Clone, Debug)]
pub struct Gathering {
    named_max: usize,
    bytes_max: usize,
    phase: Phase,
    /// When what was gathered is told.
    due: Option<Monotonic>,
    n_at_once: u32,
    runs: Vec<Run>,
    bytes: usize,
    n_members: usize,
}

impl Gathering {
    /// Nothing, of a room whose members are told by their names while there are at most `named_max`. Each window may take
    /// `bytes_max` bytes of names and data, and never more than [`GATHERED_BYTES_MAX`].
    #[must_use]
    pub const fn new(named_max: usize, bytes_max: usize) -> Self {
        let is_less = bytes_max < GATHERED_BYTES_MAX;
        Self {
            named_max,
            bytes_max: if is_less { bytes_max } else { GATHERED_BYTES_MAX },
            phase: Phase::Named,
            due: None,
            n_at_once: AT_ONCE_MAX,
            runs: Vec::new(),
            bytes: 0,
            n_members: 0,
        }
    }

    /// Whether it knows nothing that a new one would not.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Named) && self.due.is_none()
    }

    /// Whether only numbers are told at the moment.
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        matches!(self.phase, Phase::Counted { .. })
    }

    /// When [`tell`](Self::tell) is to be called.
    #[must_use]
    pub const fn due(&self) -> Option<Monotonic> {
        self.due
    }

    /// A change came. Answers whether it is to be told by itself, now; else it is told later, with others.
    pub fn take(&mut self, event: &PresenceEvent, now: Monotonic) -> bool {
        let count = PresenceCount { seq: event.seq, total: event.total };
        if let Phase::Counted { last, is_too_long, is_doubted, .. } = &mut self.phase {
            // A list may have been read ahead of what comes from the broker one by one.
            if count.seq > last.seq {
                (*last, *is_too_long, *is_doubted) = (count, false, false);
                self.tell_within(now);
            }
            return false;
        }
        if event.total > self.named_max {
            self.count_only(count, now);
            return false;
        }
        if matches!(self.phase, Phase::Named) {
            self.due.get_or_insert(now.after(WINDOW));
            if self.n_at_once > 0 && self.runs.is_empty() {
                self.n_at_once -= 1;
                return true;
            }
        }
        self.gather(event);
        if self.bytes > self.bytes_max || self.n_members > self.named_max {
            self.count_only(count, now);
        }
        false
    }

    fn gather(&mut self, event: &PresenceEvent) {
        let follows = |run: &&mut Run| run.seq.checked_add(1) == Some(event.seq);
        if self.runs.last_mut().as_ref().is_none_or(|run| !follows(run)) {
            let (from, seq) = (event.seq, event.seq);
            self.runs.push(Run { from, seq, total: event.total, members: BTreeMap::new() });
        }
        let Some(run) = self.runs.last_mut() else { return };
        (run.seq, run.total) = (event.seq, event.total);
        let mut change = event.change;
        if let Some((before, data)) = run.members.get(&event.who) {
            self.bytes -= data.len();
            if change == PresenceChange::Update && *before == PresenceChange::Join {
                change = PresenceChange::Join;
            }
        } else {
            self.n_members += 1;
            self.bytes += CHANGE_BYTES + event.who.name_bytes();
        }
        self.bytes += event.data.len();
        run.members.insert(event.who.clone(), (change, event.data.clone()));
    }

    fn count_only(&mut self, last: PresenceCount, now: Monotonic) {
        self.forget_gathered();
        let until = now.after(COUNTED_AT_LEAST);
        let (told, is_too_long, is_doubted) = (None, false, false);
        self.phase = Phase::Counted { until, told, last, is_too_long, is_doubted };
        self.tell_within(now);
    }

    /// At the end of a window from now, or earlier. What waits for the end of the numbers may be far off.
    fn tell_within(&mut self, now: Monotonic) {
        let at = now.after(WINDOW);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn forget_gathered(&mut self) {
        self.runs.clear();
        (self.bytes, self.n_members) = (0, 0);
    }

    /// The moment has come: what the followers are told.
    pub fn tell(&mut self, now: Monotonic) -> Gathered {
        if self.due.is_none_or(|due| due > now) {
            return Gathered::default();
        }
        self.due = None;
        match &mut self.phase {
            Phase::Asked => Gathered::default(),
            Phase::Counted { until, told, last, is_too_long, is_doubted } => {
                let is_newer = told.is_none_or(|told| told.seq < last.seq);
                let count = is_newer.then_some(*last);
                if is_newer {
                    *told = Some(*last);
                }
                // A quarter below, so that who comes and goes around the number does not bring a list each time.
                let is_few = last.total <= self.named_max - self.named_max / 4 && !*is_too_long;
                let (until, is_doubted) = (*until, *is_doubted);
                let names_again = is_few && until <= now;
                if names_again {
                    self.phase = Phase::Asked;
                } else if is_few {
                    self.due = Some(until);
                }
                Gathered { count, needs_list: names_again || is_doubted, ..Gathered::default() }
            }
            Phase::Named if self.runs.is_empty() => {
                self.n_at_once = AT_ONCE_MAX;
                Gathered::default()
            }
            Phase::Named => {
                // As long as it goes on, nothing is told by itself.
                self.due = Some(now.after(WINDOW));
                self.n_at_once = 0;
                let changes = std::mem::take(&mut self.runs).into_iter().map(Run::into_changes);
                let changes = changes.collect();
                self.forget_gathered();
                Gathered { changes, ..Gathered::default() }
            }
        }
    }

    /// The list was read, after everything that was told before, and is to be told now as it is answered. `is_whole`
    /// says whether it names all.
    pub fn listed(&mut self, list: PresenceCount, is_whole: bool, now: Monotonic) -> Listed {
        if (list.total > self.named_max || !is_whole) && !self.is_counted() {
            self.count_only(list, now);
        }
        match &mut self.phase {
            Phase::Counted { told, last, is_too_long, is_doubted, .. } => {
                let is_older = list.seq < last.seq;
                if !is_older || *is_doubted {
                    (*last, *is_too_long) = (list, !is_whole);
                }
                *is_doubted = is_older && !*is_doubted;
                let count = *last;
                *told = Some(count);
                // It may be few enough by now, and what is doubted is asked for again.
                self.tell_within(now);
                Listed::Counted(count)
            }
            Phase::Named => Listed::Whole,
            Phase::Asked => {
                self.phase = Phase::Named;
                self.due = Some(now.after(WINDOW));
                self.n_at_once = 0;
                Listed::Whole
            }
        }
    }
}

impl Run {
    fn into_changes(self) -> PresenceChanges {
        let Self { from, seq, total, members } = self;
        let changed = |(who, (change, data))| ChangedMember { who, change, data };
        PresenceChanges { from, seq, total, members: members.into_iter().map(changed).collect() }
    }
}

#[cfg(test)]
mod tests;
