//! The newest messages by key that a room's members missed: no log has them, so what Redis keeps of them is
//! looked at once the room goes on.
//!
//! Their numbers decide: nobody is given one that is older than what came, nor one twice.

use std::collections::BTreeSet;

use domain::id::{Epoch, MessageKey};
use domain::message::Publication;
use domain::time::Wall;

use crate::entry::Entry;

/// The most keys that are remembered: as many as Redis keeps of a room.
const FRESH_MAX: usize = 256;

/// One publish of a room.
pub(crate) type Mark = (Epoch, u64);

/// What was heard before something was missed, and what came since.
#[derive(Debug)]
pub(crate) struct Behind {
    since: Mark,
    fresh: BTreeSet<MessageKey>,
    /// More keys came than are kept, so nothing older is kept any more.
    is_over: bool,
}

/// What Redis keeps of a room.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The room's present life, then those before it.
    pub(crate) lives: Vec<Epoch>,
    /// By the server's clock.
    pub(crate) now: Wall,
    pub(crate) entries: Vec<Entry>,
}

impl Kept {
    /// Whether a publish is newer than another. Numbers run on over lives, but a server may have lost the last ones
    /// of one; and a room that began anew knows of none before.
    fn is_newer(&self, one: Mark, than: Mark) -> bool {
        if one.0 == than.0 {
            return one.1 > than.1;
        }
        let place = |epoch| self.lives.iter().position(|life| *life == epoch);
        match (place(one.0), place(than.0)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(one), Some(than)) => one < than,
        }
    }
}

impl Behind {
    pub(crate) const fn new(since: Mark) -> Self {
        Self { since, fresh: BTreeSet::new(), is_over: false }
    }

    /// A message came.
    pub(crate) fn hear(&mut self, publication: &Publication) {
        if let Some(key) = &publication.key
            && !self.is_over
        {
            self.fresh.insert(key.clone());
            self.is_over = self.fresh.len() > FRESH_MAX;
        }
    }

    /// What was missed of what is kept. What is newer than `heard` comes by itself.
    pub(crate) fn missed(self, kept: &Kept, heard: Mark) -> Vec<Publication> {
        if self.is_over {
            return Vec::new();
        }
        let is_missed = |entry: &Entry| {
            let at = (entry.publication.epoch, entry.number);
            let key = entry.publication.key.as_ref();
            kept.is_newer(at, self.since)
                && !kept.is_newer(at, heard)
                && key.is_none_or(|key| !self.fresh.contains(key))
                && !entry.publication.is_expired(kept.now)
        };
        let missed: Vec<_> = kept.entries.iter().filter(|entry| is_missed(entry)).collect();
        let life = kept.lives.first().copied();
        let under = |entry: &Entry| Publication {
            epoch: life.unwrap_or(entry.publication.epoch),
            ..entry.publication.clone()
        };
        missed.into_iter().map(under).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;

    use crate::entry::decode;

    fn epoch(bits: u64) -> Epoch {
        Epoch::from_bits(bits)
    }

    fn entry(life: u64, number: u64, key: &str) -> Entry {
        let about = format!("{{\"r\":\"public:a\",\"c\":\"latest\",\"k\":\"{key}\",\"x\":100}}");
        decode(&Bytes::from(format!("{life:016x} {number} 0 1 0\n{about}\n1"))).unwrap()
    }

    fn missed(since: Mark, fresh: &[&str], lives: &[u64], heard: Mark, now: i64) -> Vec<String> {
        let mut behind = Behind::new(since);
        for key in fresh {
            behind.hear(&entry(9, 1, key).publication);
        }
        let entries = vec![entry(1, 3, "a"), entry(1, 5, "b"), entry(2, 6, "c"), entry(2, 9, "d")];
        let lives = lives.iter().copied().map(epoch).collect();
        let kept = Kept { lives, now: Wall::from_millis(now), entries };
        let all = behind.missed(&kept, heard);
        assert!(all.iter().all(|one| one.epoch == epoch(2)));
        all.iter().map(|one| one.key.as_ref().unwrap().as_str().to_owned()).collect()
    }

    #[test]
    fn what_is_newer_than_what_was_heard_is_missed_unless_something_newer_came() {
        let (all, heard) = ([2, 1], (epoch(2), 8));
        assert_eq!(missed((epoch(1), 3), &[], &all, heard, 0), ["b", "c"]);
        assert_eq!(missed((epoch(1), 3), &["b"], &all, heard, 0), ["c"]);
        assert_eq!(missed((epoch(2), 6), &[], &all, heard, 0), [""; 0]);
        assert_eq!(missed((epoch(1), 3), &[], &all, (epoch(2), 9), 0), ["b", "c", "d"]);
        assert_eq!(missed((epoch(1), 3), &[], &all, heard, 100), [""; 0], "they have expired");
    }

    #[test]
    fn a_life_that_lost_its_last_messages_counts_before_the_next_whatever_their_numbers() {
        assert_eq!(missed((epoch(1), 50), &[], &[2, 1], (epoch(2), 9), 0), ["c", "d"]);
        // The room began anew: nothing of it was heard.
        assert_eq!(missed((epoch(7), 50), &[], &[2, 1], (epoch(2), 9), 0), ["a", "b", "c", "d"]);
    }

    #[test]
    fn of_more_keys_than_are_kept_nothing_older_is_left_to_be_missed() {
        let mut behind = Behind::new((epoch(1), 0));
        for number in 0..10_000 {
            behind.hear(&entry(2, 1, &format!("k{number}")).publication);
        }
        assert!(behind.fresh.len() <= FRESH_MAX + 1);
        let kept =
            Kept { lives: vec![epoch(2)], now: Wall::default(), entries: vec![entry(2, 6, "c")] };
        assert!(behind.missed(&kept, (epoch(2), 8)).is_empty());
    }
}
