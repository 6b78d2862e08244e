//! What one member has got of one room, message by message.
//!
//! It must never grow with the number of messages: holes are kept, up to a limit, and nothing else.

/// Holes that are remembered for one member in one room. The oldest is given up beyond that: what
/// lay in it counts as lost, also if it should still come.
const HOLES_MAX: usize = 64;

/// How a message stands to those before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Came {
    /// The next one, or a later one: those between are missing for now.
    Next,
    /// One that was missing: it came behind one that was published after it.
    Late,
    /// One that had come.
    Twice,
}

/// A run of numbers that did not come, `first` to `end` without `end`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Hole {
    first: u32,
    end: u32,
}

/// One member's account of one room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    next: u32,
    holes: Vec<Hole>,
    given_up: u32,
}

impl Account {
    /// Books message number `n`.
    pub(crate) fn take(&mut self, n: u32) -> Came {
        if n >= self.next {
            if n > self.next {
                self.keep(Hole { first: self.next, end: n });
            }
            self.next = n.saturating_add(1);
            return Came::Next;
        }
        let Some(at) = self.holes.iter().position(|hole| (hole.first..hole.end).contains(&n))
        else {
            return Came::Twice;
        };
        let hole = self.holes.remove(at);
        let rest = [Hole { first: hole.first, end: n }, Hole { first: n + 1, end: hole.end }];
        for (place, part) in rest.into_iter().filter(|part| part.first < part.end).enumerate() {
            self.holes.insert(at + place, part);
        }
        Came::Late
    }

    fn keep(&mut self, hole: Hole) {
        if self.holes.len() >= HOLES_MAX {
            let oldest = self.holes.remove(0);
            self.given_up = self.given_up.saturating_add(oldest.end - oldest.first);
        }
        self.holes.push(hole);
    }

    /// How many of `published` did not come.
    pub(crate) fn missing(&self, published: u32) -> u64 {
        let holes: u64 = self.holes.iter().map(|hole| u64::from(hole.end - hole.first)).sum();
        holes + u64::from(self.given_up) + u64::from(published.saturating_sub(self.next))
    }

    /// The first that is known not to have come, of `published`.
    pub(crate) fn first_missing(&self, published: u32) -> Option<u32> {
        let hole = self.holes.first().map(|hole| hole.first);
        hole.or((self.next < published).then_some(self.next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_order_leave_nothing_missing() {
        let mut account = Account::default();
        assert!((0..100).all(|n| account.take(n) == Came::Next));
        assert_eq!((account.missing(100), account.first_missing(100)), (0, None));
        assert_eq!((account.missing(103), account.first_missing(103)), (3, Some(100)));
    }

    #[test]
    fn a_message_that_comes_again_is_seen() {
        let mut account = Account::default();
        assert_eq!(
            [0, 1, 1, 0, 2].map(|n| account.take(n)),
            [Came::Next, Came::Next, Came::Twice, Came::Twice, Came::Next]
        );
        assert_eq!(account.missing(3), 0);
    }

    #[test]
    fn a_hole_is_missing_until_its_messages_come_late() {
        let mut account = Account::default();
        for (n, came) in [(0, Came::Next), (5, Came::Next), (3, Came::Late), (3, Came::Twice)] {
            assert_eq!(account.take(n), came, "{n}");
        }
        assert_eq!((account.missing(6), account.first_missing(6)), (3, Some(1)));
        for n in [1, 2, 4] {
            assert_eq!(account.take(n), Came::Late);
        }
        assert_eq!((account.missing(6), account.first_missing(6)), (0, None));
    }

    #[test]
    fn more_holes_than_are_remembered_still_count_as_missing() {
        let mut account = Account::default();
        let n = 2 * HOLES_MAX as u32 + 20;
        (0..n).filter(|n| n % 2 == 1).for_each(|n| assert_eq!(account.take(n), Came::Next));
        assert_eq!(account.missing(n), u64::from(n / 2));
        assert!(account.holes.len() <= HOLES_MAX);
    }
}
