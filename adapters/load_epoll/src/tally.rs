//! What the server objected to, and what it should not have done.
//!
//! It must never grow with what a server does: all is counted, and only the first of it told in words.

use std::collections::BTreeMap;

use domain::client::life::ABNORMAL;
use domain::protocol::client_event::Violation;

/// Broken promises that are told in words; all are counted.
const NAMED_MAX: usize = 10;

#[derive(Default)]
pub(crate) struct Tally {
    /// By error code.
    pub(crate) errors: BTreeMap<u16, u64>,
    /// Of connections, by close code.
    pub(crate) closes: BTreeMap<u16, u64>,
    /// Pings of the server's own protocol that were answered.
    pub(crate) pings: u64,
    /// Promises of the protocol that were broken, and the first of them in words.
    violations: u64,
    named: Vec<String>,
}

impl Tally {
    pub(crate) fn error(&mut self, code: u16) {
        *self.errors.entry(code).or_default() += 1;
    }

    pub(crate) fn close(&mut self, code: u16) {
        *self.closes.entry(code).or_default() += 1;
    }

    pub(crate) fn violation(&mut self, member: usize, violation: &Violation) {
        self.violations += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(format!("connection {member}: {violation}"));
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let errors = self.errors.iter();
        let errors = errors.map(|(code, n)| format!("the server answered error {code}, {n} times"));
        let closes = self.closes.iter().map(|(code, n)| {
            let without = if *code == ABNORMAL { " (without a close frame)" } else { "" };
            format!("{n} connections ended early with {code}{without}")
        });
        let violations = (self.violations > 0)
            .then(|| format!("the server broke {} promises of the protocol", self.violations));
        errors.chain(closes).chain(violations).chain(self.named.iter().cloned()).collect()
    }

    pub(crate) fn count(&self) -> u64 {
        self.errors.values().chain(self.closes.values()).sum::<u64>() + self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_counted_and_the_first_of_it_named() {
        let mut tally = Tally::default();
        assert_eq!((tally.count(), tally.faults()), (0, Vec::new()));
        tally.error(108);
        (0..2).for_each(|_| tally.close(ABNORMAL));
        (0..1000).for_each(|member| tally.violation(member, &Violation::Binary { bytes: 3 }));
        assert_eq!(tally.count(), 1003);
        let faults = tally.faults();
        assert_eq!(faults.len(), 3 + NAMED_MAX);
        for words in [
            "the server answered error 108, 1 times",
            "2 connections ended early with 1006 (without a close frame)",
            "the server broke 1000 promises of the protocol",
            "connection 0: a binary message of 3 bytes",
        ] {
            assert!(faults.iter().any(|fault| fault == words), "{words}: {faults:?}");
        }
    }
}
