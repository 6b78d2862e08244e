//! Where a message stands in its room's log: `{epoch, offset}`.
//!
//! Offsets of different epochs are never compared. An offset that exists fits a JSON number that
//! JavaScript keeps exact.

use thiserror::Error;

use crate::id::Epoch;

/// The place of a message in one epoch of a room's log. The first message has offset 1; 0 stands
/// before it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Offset(u64);

/// The number is above [`Offset::MAX`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("must be a whole number from 0 to 9007199254740991")]
pub struct OffsetError;

impl Offset {
    /// Before the first message.
    pub const ZERO: Self = Self(0);
    /// 2^53 − 1: the largest integer that a JSON number keeps exact in JavaScript.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Checks and takes a number.
    ///
    /// # Errors
    /// [`OffsetError`] above [`Offset::MAX`].
    pub const fn parse(number: u64) -> Result<Self, OffsetError> {
        if number <= Self::MAX.0 { Ok(Self(number)) } else { Err(OffsetError) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset behind this one; none when the log is full (wrapping would repeat offsets).
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        if self.0 < Self::MAX.0 { Some(Self(self.0 + 1)) } else { None }
    }

    /// The offset before this one, staying at zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// An offset and the epoch it belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Position {
    /// The life of the log.
    pub epoch: Epoch,
    /// The place within it.
    pub offset: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D11.
    #[test]
    fn offsets_stop_where_javascript_loses_precision() {
        for last in [(1 << 53) - 2, (1 << 53) - 1] {
            assert_eq!(Offset::parse(last).map(Offset::get), Ok(last));
        }
        for beyond in [1 << 53, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, u64::MAX] {
            assert_eq!(Offset::parse(beyond), Err(OffsetError), "{beyond}");
        }
        assert_eq!(Offset::MAX.next(), None);
        assert_eq!(Offset::MAX.previous().next(), Some(Offset::MAX));
        assert_eq!(Offset::ZERO.next(), Offset::parse(1).ok());
        assert_eq!(Offset::ZERO.previous(), Offset::ZERO);
    }
}
