//! Lines of the log that would come with each command while something is away.
//!
//! The first is written at once, then one in a while, with how many were left out; none is lost uncounted.

use std::time::Duration;

use domain::time::Monotonic;

/// How long the next line of a kind waits at least.
const PAUSE: Duration = Duration::from_secs(5);

/// One kind of line.
#[derive(Debug, Default)]
pub(super) struct Sparing {
    next: Option<Monotonic>,
    left_out: u64,
}

impl Sparing {
    /// Whether the line may be written, and how many were not since the last one.
    pub(super) fn turn(&mut self, now: Monotonic) -> Option<u64> {
        if self.next.is_some_and(|next| now < next) {
            self.left_out += 1;
            return None;
        }
        self.next = Some(now.after(PAUSE));
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_of_lines_one_in_a_while_is_written_with_the_number_of_the_others() {
        let mut lines = Sparing::default();
        let said: Vec<_> =
            (0..12_000).filter_map(|ms| lines.turn(Monotonic::from_millis(ms))).collect();
        assert_eq!(said, [0, 4_999, 4_999]);
    }
}
