//! Whether everything came: each member's account of each of its rooms, and the sum of them.
//!
//! It must never count a delivery twice, and never grow with the number of messages.

use crate::report::Deliveries;
use crate::track::{Came, Track};

/// Faults that are told in words; all are counted.
const NAMED_MAX: usize = 10;

/// All accounts: `slots` rooms for each member.
pub(crate) struct Ledger {
    tracks: Vec<Track>,
    slots: usize,
    pub(crate) counts: Deliveries,
    /// The first faults, in words.
    pub(crate) named: Vec<String>,
}

impl Ledger {
    pub(crate) fn new(members: usize, slots: usize) -> Self {
        let tracks = vec![Track::default(); members * slots];
        Self { tracks, slots, counts: Deliveries::default(), named: Vec::new() }
    }

    /// Books message `number` for a member's room; whether it is a delivery that counts.
    pub(crate) fn take(
        &mut self,
        (member, slot): (usize, usize),
        number: u32,
        room: impl FnOnce() -> String,
    ) -> bool {
        match self.tracks[member * self.slots + slot].take(number) {
            Came::Next => {
                self.counts.delivered += 1;
                true
            }
            Came::Late => {
                self.counts.delivered += 1;
                self.counts.out_of_order += 1;
                self.name(|| {
                    let room = room();
                    format!("connection {member} got message {number} of {room} behind a later one")
                });
                true
            }
            Came::Twice => {
                self.counts.duplicated += 1;
                self.name(|| {
                    format!("connection {member} got message {number} of {} twice", room())
                });
                false
            }
        }
    }

    /// How many of `published` messages a member has not got.
    pub(crate) fn missing(&self, (member, slot): (usize, usize), published: u32) -> u64 {
        self.tracks[member * self.slots + slot].missing(published)
    }

    /// Counts what a member never got of a room.
    pub(crate) fn close(
        &mut self,
        (member, slot): (usize, usize),
        published: u32,
        room: impl FnOnce() -> String,
    ) {
        let track = &self.tracks[member * self.slots + slot];
        let (missing, first) = (track.missing(published), track.first_missing(published));
        self.counts.lost += missing;
        if missing > 0 {
            let first =
                first.map_or_else(String::new, |first| format!(", the first of them {first}"));
            self.name(|| {
                let room = room();
                format!("connection {member} never got {missing} messages of {room}{first}")
            });
        }
    }

    fn name(&mut self, words: impl FnOnce() -> String) {
        if self.named.len() < NAMED_MAX {
            self.named.push(words());
        }
    }

    /// What is wrong altogether, in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        let Deliveries { unsent, expected, lost, duplicated, out_of_order, .. } = self.counts;
        let mut faults = Vec::new();
        let mut add = |n: u64, words: &str| {
            if n > 0 {
                faults.push(format!("{n} {words}"));
            }
        };
        add(lost, &format!("of {expected} deliveries did not come"));
        add(duplicated, "messages came twice");
        add(out_of_order, "messages came out of order");
        add(unsent, "messages could not be sent: their connections were gone or not read from");
        faults.extend(self.named.iter().cloned());
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> String {
        "public:r".to_owned()
    }

    #[test]
    fn what_is_lost_comes_twice_or_late_is_counted_and_named() {
        let mut ledger = Ledger::new(2, 1);
        ledger.counts.expected = 8;
        for n in [0, 2, 1, 2] {
            ledger.take((0, 0), n, room);
        }
        ledger.take((1, 0), 0, room);
        ledger.take((1, 0), 3, room);
        (0..2).for_each(|member| ledger.close((member, 0), 4, room));
        let Deliveries { delivered, lost, duplicated, out_of_order, .. } = ledger.counts;
        assert_eq!((delivered, lost, duplicated, out_of_order), (5, 3, 1, 1));
        let faults = ledger.faults().join("\n");
        for words in [
            "3 of 8 deliveries did not come",
            "connection 0 got message 1 of public:r behind a later one",
            "connection 0 got message 2 of public:r twice",
            "connection 1 never got 2 messages of public:r, the first of them 1",
        ] {
            assert!(faults.contains(words), "{words}: {faults}");
        }
    }

    #[test]
    fn only_the_first_faults_are_told_in_words() {
        let mut ledger = Ledger::new(1, 1);
        ledger.take((0, 0), 0, room);
        for _ in 0..1000 {
            ledger.take((0, 0), 0, room);
        }
        assert_eq!((ledger.counts.duplicated, ledger.named.len()), (1000, NAMED_MAX));
    }
}
