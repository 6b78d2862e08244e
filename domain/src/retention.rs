//! What a room's log keeps: a number of messages, a number of bytes and an age.
//!
//! A decision here only says how many to drop from the old end; it never holds the log.

use std::time::Duration;

use crate::time::Wall;

/// The limits of one log; the first that is reached counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retention {
    /// The most messages kept; 0 keeps none, so that nothing can be recovered.
    pub messages_max: u32,
    /// The most bytes of data kept.
    pub bytes_max: u64,
    /// The oldest age kept.
    pub age_max: Duration,
}

impl Default for Retention {
    /// 1,000 messages, 4 MiB or 24 hours.
    fn default() -> Self {
        Self { messages_max: 1_000, bytes_max: 4 << 20, age_max: Duration::from_secs(24 * 60 * 60) }
    }
}

impl Retention {
    /// Keeps nothing.
    pub const NONE: Self = Self { messages_max: 0, bytes_max: 0, age_max: Duration::ZERO };

    /// Whether a log of this size, whose oldest message is this old, must drop its oldest.
    #[must_use]
    pub fn must_drop_oldest(&self, messages: usize, bytes: u64, oldest: Wall, now: Wall) -> bool {
        messages > self.messages_max as usize
            || bytes > self.bytes_max
            || (messages > 0 && now.since(oldest) > self.age_max)
    }

    /// Whether the log keeps anything at all.
    #[must_use]
    pub const fn keeps_history(&self) -> bool {
        self.messages_max > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_drops_on_its_own() {
        let keep = Retention { messages_max: 2, bytes_max: 10, age_max: Duration::from_secs(1) };
        let at = Wall::from_millis;
        assert!(!keep.must_drop_oldest(2, 10, at(0), at(1_000)));
        assert!(keep.must_drop_oldest(3, 10, at(0), at(0)));
        assert!(keep.must_drop_oldest(2, 11, at(0), at(0)));
        assert!(keep.must_drop_oldest(2, 10, at(0), at(1_001)));
    }

    #[test]
    fn an_empty_log_has_nothing_to_drop() {
        assert!(!Retention::default().must_drop_oldest(0, 0, Wall::default(), Wall::MAX));
        assert!(!Retention::NONE.keeps_history());
    }
}
