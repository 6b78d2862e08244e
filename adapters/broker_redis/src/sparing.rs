//! Lines of the log that would come with each call while Redis is away or misbehaves.
//!
//! The first is said at once, then one in a while, with how many were left out; none is lost uncounted.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long the next line of a kind waits at least.
const PAUSE: Duration = Duration::from_secs(5);

/// One kind of line.
#[derive(Debug)]
pub(crate) struct Sparing(Mutex<Turns>);

#[derive(Debug)]
struct Turns {
    next: Option<Instant>,
    left_out: u64,
}

impl Sparing {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Turns { next: None, left_out: 0 }))
    }

    /// Whether the line may be said, and how many were not since the last one.
    pub(crate) fn turn(&self) -> Option<u64> {
        self.turn_at(Instant::now())
    }

    fn turn_at(&self, now: Instant) -> Option<u64> {
        // Nothing in here can panic.
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.next.is_some_and(|next| now < next) {
            turns.left_out += 1;
            return None;
        }
        turns.next = Some(now + PAUSE);
        Some(std::mem::take(&mut turns.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_of_lines_one_in_a_while_is_said_with_the_number_of_the_others() {
        let (lines, begin) = (Sparing::new(), Instant::now());
        assert_eq!(lines.turn_at(begin), Some(0));
        let millis = |n| begin + Duration::from_millis(n);
        let said: Vec<_> = (1..12_000).filter_map(|n| lines.turn_at(millis(n))).collect();
        assert_eq!(said, [4_999, 4_999]);
    }
}
