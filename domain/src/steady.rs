//! A wall clock that does not jump: for what is thrown away when it is old, and can't be had back.
//!
//! It goes with the wall clock as long as that goes with the monotonic one. A jump counts only once it
//! has lasted: a clock that is set right stays so, and one that is set wrong is soon set back. It must
//! never be used for what people or tokens see.

use std::time::Duration;

use crate::time::{Monotonic, Now, Wall};

/// What is called a jump. Corrections that a clock makes by itself are smaller.
const JUMP_MIN: Duration = Duration::from_secs(60);
/// After how long a jump counts.
const LASTING: Duration = Duration::from_secs(60 * 60);

/// The steady clock of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SteadyWall {
    /// The last reading that counted; none before the first.
    counted: Option<Now>,
    /// The first reading of a jump that does not count yet.
    jumped: Option<Now>,
}

/// What a clock shows now if it did not jump since an earlier reading.
fn expected(earlier: Now, now: Monotonic) -> Wall {
    earlier.wall.after(now.since(earlier.monotonic))
}

fn goes_with(earlier: Now, now: Now) -> bool {
    let expected = expected(earlier, now.monotonic);
    now.wall.since(expected) < JUMP_MIN && expected.since(now.wall) < JUMP_MIN
}

impl SteadyWall {
    /// The time of a reading. To be asked far more often than jumps last.
    pub fn read(&mut self, now: Now) -> Wall {
        let Some(counted) = self.counted else {
            self.counted = Some(now);
            return now.wall;
        };
        if !goes_with(counted, now) {
            let jumped = self.jumped.filter(|jumped| goes_with(*jumped, now)).unwrap_or(now);
            self.jumped = Some(jumped);
            if now.monotonic.since(jumped.monotonic) < LASTING {
                return expected(counted, now.monotonic);
            }
        }
        self.jumped = None;
        self.counted = Some(now);
        now.wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: i64 = 1_700_000_000_000;

    fn reading(seconds: u64, off_seconds: i64) -> Now {
        let ms = i64::try_from(seconds).unwrap() * 1_000;
        Now {
            monotonic: Monotonic::from_millis(seconds * 1_000),
            wall: Wall::from_millis(START_MS + ms + off_seconds * 1_000),
        }
    }

    /// How far the steady clock is off, in seconds.
    fn off(steady: &mut SteadyWall, seconds: u64, off_seconds: i64) -> i64 {
        let shown = steady.read(reading(seconds, off_seconds)).as_millis();
        (shown - reading(seconds, 0).wall.as_millis()) / 1_000
    }

    /// T01.
    #[test]
    fn a_jump_that_is_taken_back_never_counted() {
        let mut steady = SteadyWall::default();
        const YEAR: i64 = 365 * 24 * 60 * 60;
        for (begin, wrong) in [(0, 10 * YEAR), (5_000, -10 * YEAR), (10_000, 3_600)] {
            assert_eq!(off(&mut steady, begin, 0), 0);
            assert_eq!(off(&mut steady, begin + 20, wrong), 0);
            assert_eq!(off(&mut steady, begin + 3_619, wrong), 0);
            assert_eq!(off(&mut steady, begin + 3_620, 0), 0);
        }
    }

    #[test]
    fn a_jump_that_lasts_counts_after_an_hour_and_the_hour_begins_anew_with_each() {
        let mut steady = SteadyWall::default();
        assert_eq!(off(&mut steady, 0, 0), 0);
        assert_eq!(off(&mut steady, 1_000, 86_400), 0);
        assert_eq!(off(&mut steady, 2_000, 172_800), 0);
        assert_eq!(off(&mut steady, 5_599, 172_800), 0);
        assert_eq!(off(&mut steady, 5_600, 172_800), 172_800);
        assert_eq!(off(&mut steady, 5_601, 172_800), 172_800);
    }

    /// T01: a leap second, and a clock that is drawn to the right time.
    #[test]
    fn small_steps_count_at_once() {
        let mut steady = SteadyWall::default();
        for (second, wrong) in [(0, 0), (1, -1), (2, 0), (600, 50), (1_200, 100), (1_800, 150)] {
            assert_eq!(off(&mut steady, second, wrong), wrong);
        }
    }
}
