//! Whether everything came: each member's account of each of its rooms, and the sum of them.
//!
//! It must never count a delivery twice, and never grow with the number of messages.

use crate::account::{Account, Came};
use crate::report::Deliveries;

/// Faults that are told in words; all are counted.
const NAMED_MAX: usize = 10;

/// All accounts: `slots` rooms for each member.
pub(crate) struct Ledger {
    accounts: Vec<Account>,
    /// By account: the greatest offset that came.
    offsets: Vec<u64>,
    slots: usize,
    pub(crate) counts: Deliveries,
    /// The first faults, in words.
    pub(crate) named: Vec<String>,
}

impl Ledger {
    pub(crate) fn new(members: usize, slots: usize) -> Self {
        let accounts = vec![Account::default(); members * slots];
        let offsets = vec![0; members * slots];
        Self { accounts, offsets, slots, counts: Deliveries::default(), named: Vec::new() }
    }

    /// Books message `number` for a member's room; whether it is a delivery that counts.
    ///
    /// Messages of one publisher come in the order of their numbers. Those of several have the
    /// order that the server gave them, which their `offset` tells.
    pub(crate) fn take(
        &mut self,
        (member, slot): (usize, usize),
        number: u32,
        offset: Option<u64>,
        room: impl FnOnce() -> String,
    ) -> bool {
        let at = member * self.slots + slot;
        let is_next = offset.is_some_and(|offset| offset > self.offsets[at]);
        self.offsets[at] = self.offsets[at].max(offset.unwrap_or_default());
        match self.accounts[at].take(number) {
            Came::Late if is_next => {
                self.counts.delivered += 1;
                true
            }
            Came::Next if offset.is_some() && !is_next => {
                self.counts.delivered += 1;
                self.late(member, number, room);
                true
            }
            Came::Next => {
                self.counts.delivered += 1;
                true
            }
            Came::Late => {
                self.counts.delivered += 1;
                self.late(member, number, room);
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

    /// Counts a place of a log that came again, and that the client did not hand over.
    pub(crate) fn again(&mut self, member: usize, offset: u64, room: &str) {
        self.counts.duplicated += 1;
        self.name(|| format!("connection {member} got offset {offset} of {room} again"));
    }

    fn late(&mut self, member: usize, number: u32, room: impl FnOnce() -> String) {
        self.counts.out_of_order += 1;
        self.name(|| {
            let room = room();
            format!("connection {member} got message {number} of {room} behind a later one")
        });
    }

    /// Counts a message of this run that is not for this member.
    pub(crate) fn stray(&mut self, member: usize, number: u32, room: impl FnOnce() -> String) {
        self.counts.stray += 1;
        self.name(|| {
            let room = room();
            format!("connection {member} got message {number} of {room}, which is not for it")
        });
    }

    /// How many of `published` messages a member has not got.
    pub(crate) fn missing(&self, (member, slot): (usize, usize), published: u32) -> u64 {
        self.accounts[member * self.slots + slot].missing(published)
    }

    /// Counts what a member never got of a room.
    pub(crate) fn close(
        &mut self,
        (member, slot): (usize, usize),
        published: u32,
        room: impl FnOnce() -> String,
    ) {
        let account = &self.accounts[member * self.slots + slot];
        let (missing, first) = (account.missing(published), account.first_missing(published));
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
        let Deliveries { unsent, expected, lost, duplicated, out_of_order, stray, .. } =
            self.counts;
        let mut faults = Vec::new();
        let mut add = |n: u64, words: &str| {
            if n > 0 {
                faults.push(format!("{n} {words}"));
            }
        };
        add(lost, &format!("of {expected} deliveries did not come"));
        add(duplicated, "messages came twice");
        add(out_of_order, "messages came out of order");
        add(stray, "messages came to connections that they are not for");
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
    fn what_is_lost_comes_twice_late_or_astray_is_counted_and_named() {
        let mut ledger = Ledger::new(2, 1);
        ledger.counts.expected = 8;
        for n in [0, 2, 1, 2] {
            ledger.take((0, 0), n, None, room);
        }
        ledger.take((1, 0), 0, None, room);
        ledger.take((1, 0), 3, None, room);
        ledger.stray(1, 7, || "public:other".to_owned());
        ledger.again(1, 9, "public:r");
        (0..2).for_each(|member| ledger.close((member, 0), 4, room));
        let Deliveries { delivered, lost, duplicated, out_of_order, stray, .. } = ledger.counts;
        assert_eq!((delivered, lost, duplicated, out_of_order, stray), (5, 3, 2, 1, 1));
        let faults = ledger.faults().join("\n");
        for words in [
            "3 of 8 deliveries did not come",
            "connection 0 got message 1 of public:r behind a later one",
            "connection 0 got message 2 of public:r twice",
            "connection 1 got offset 9 of public:r again",
            "connection 1 never got 2 messages of public:r, the first of them 1",
            "1 messages came to connections that they are not for",
            "connection 1 got message 7 of public:other, which is not for it",
        ] {
            assert!(faults.contains(words), "{words}: {faults}");
        }
    }

    #[test]
    fn where_several_publish_it_is_the_servers_order_that_counts() {
        let mut ledger = Ledger::new(1, 1);
        // Message 1 reached the server behind message 2, and all get it so.
        for (number, offset) in [(0, 1), (2, 2), (1, 3)] {
            assert!(ledger.take((0, 0), number, Some(offset), room));
        }
        assert_eq!((ledger.counts.delivered, ledger.counts.out_of_order), (3, 0));
        // A later one overtakes, whichever has the greater number.
        for (number, offset) in [(3, 5), (4, 4)] {
            assert!(ledger.take((0, 0), number, Some(offset), room));
        }
        assert_eq!((ledger.counts.delivered, ledger.counts.out_of_order), (5, 1));
        assert!(!ledger.take((0, 0), 4, Some(6), room), "it came again");
    }

    #[test]
    fn only_the_first_faults_are_told_in_words() {
        let mut ledger = Ledger::new(1, 1);
        ledger.take((0, 0), 0, None, room);
        for _ in 0..1000 {
            ledger.take((0, 0), 0, None, room);
        }
        assert_eq!((ledger.counts.duplicated, ledger.named.len()), (1000, NAMED_MAX));
    }
}
