//! Whether newcomers are let in, by how much of its memory the process uses.
//!
//! Two marks, so that one connection more or less does not open and close the door. Whoever asks
//! reads one number; whoever looks at the memory is somewhere else, and no delivery comes past here.
//! It must never end a connection: who is there is served out of budgets that have their own limits.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// From this share of the memory on nobody new is let in, in percent.
pub const HIGH_PERCENT: u64 = 85;
/// Below this share newcomers are let in again.
pub const LOW_PERCENT: u64 = 75;
/// From this share on not even requests are read, but for the few that ask how the server is.
pub const FULL_PERCENT: u64 = 95;

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Pressure {
    /// There is enough, or nobody looks.
    #[default]
    Low,
    /// Newcomers are refused.
    High,
    /// Newcomers are turned away before anything of them is read.
    Full,
}

/// What was last seen of the memory, for whoever lets newcomers in.
#[derive(Debug, Default)]
pub struct Admission {
    pressure: AtomicU8,
    used_bytes: AtomicU64,
    bytes_max: AtomicU64,
}

impl Admission {
    /// Notes how much memory is used and how much there may be. Answers the pressure where it is
    /// another one than before. One thread calls this.
    pub fn observe(&self, used_bytes: u64, bytes_max: u64) -> Option<Pressure> {
        self.used_bytes.store(used_bytes, Ordering::Relaxed);
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        let before = self.pressure();
        let after = next(before, used_bytes, bytes_max);
        self.pressure.store(after as u8, Ordering::Relaxed);
        (after != before).then_some(after)
    }

    /// How short memory is.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        match self.pressure.load(Ordering::Relaxed) {
            0 => Pressure::Low,
            1 => Pressure::High,
            _ => Pressure::Full,
        }
    }

    /// Whether somebody new may come in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.pressure() == Pressure::Low
    }

    /// What was used when somebody last looked; 0 where nobody looks.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The most that may be used; 0 where nobody looks.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }
}

fn next(before: Pressure, used_bytes: u64, bytes_max: u64) -> Pressure {
    let reaches =
        |percent: u64| u128::from(used_bytes) * 100 >= u128::from(bytes_max) * u128::from(percent);
    if bytes_max == 0 || !reaches(LOW_PERCENT) {
        Pressure::Low
    } else if reaches(FULL_PERCENT) {
        Pressure::Full
    } else if reaches(HIGH_PERCENT) {
        Pressure::High
    } else {
        // Between the marks whoever was refused still is.
        before.min(Pressure::High)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// R11: what is decided; whose memory it is stands elsewhere.
    #[test]
    fn the_door_closes_at_the_high_mark_and_opens_below_the_low_one() {
        let admission = Admission::default();
        assert!(admission.is_open());
        for (used, told, is_open) in [
            (74, None, true),
            (84, None, true),
            (85, Some(Pressure::High), false),
            (80, None, false),
            (95, Some(Pressure::Full), false),
            (94, Some(Pressure::High), false),
            (75, None, false),
            (74, Some(Pressure::Low), true),
            (84, None, true),
            (100, Some(Pressure::Full), false),
            (80, Some(Pressure::High), false),
            (0, Some(Pressure::Low), true),
        ] {
            assert_eq!(admission.observe(used, 100), told, "{used}");
            assert_eq!(admission.is_open(), is_open, "{used}");
        }
    }

    #[test]
    fn without_a_limit_everybody_is_welcome() {
        let admission = Admission::default();
        assert_eq!(admission.observe(u64::MAX, 0), None);
        assert!(admission.is_open());
    }

    proptest! {
        #[test]
        fn whatever_is_seen_each_change_is_told_once_and_the_marks_hold(
            seen in proptest::collection::vec(0u64..=120, 1..100),
        ) {
            let admission = Admission::default();
            for used in seen {
                let before = admission.pressure();
                let told = admission.observe(used, 100);
                prop_assert_eq!(told.is_some(), admission.pressure() != before);
                prop_assert!(used < HIGH_PERCENT || !admission.is_open());
                prop_assert!(used >= LOW_PERCENT || admission.is_open());
            }
        }
    }
}
