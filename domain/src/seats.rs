//! The seats of users: which number lets a connection speak for its user, where only the newest may.
//!
//! It must never say that of two numbers of one user the smaller counts.

use std::fmt;

/// A number of a user that only grows: each connection that takes the user over draws a larger one,
/// and of all connections only that with the largest may do anything.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Fence(u64);

impl Fence {
    /// Where it begins for who has none: no connection has it.
    pub const NONE: u64 = 0;
    /// The largest: a script that counts in doubles still tells it from the one before.
    pub const MAX: u64 = (1 << 53) - 1;

    /// The fence of this number; none for [`Self::NONE`] and above [`Self::MAX`].
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number == Self::NONE || number > Self::MAX {
            return None;
        }
        Some(Self(number))
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// By which rule a connection takes a seat of its user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SeatRule {
    /// If the user has fewer connections than these.
    AtMost(u32),
    /// Always, and it alone: all others of the user end.
    NewestWins,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_a_number_that_a_script_can_count_to() {
        assert_eq!(Fence::new(0), None);
        assert_eq!(Fence::new(Fence::MAX + 1), None);
        assert!(Fence::new(1) < Fence::new(2));
        assert_eq!(Fence::new(Fence::MAX).map(Fence::get), Some(Fence::MAX));
    }
}
