//! Delivery classes, and what happens to a message for a client that reads too slowly.
//!
//! The decision knows sizes only; it never sees a queue or a socket.

/// What a message's sender expects of its delivery.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Class {
    /// Every one, in order; has an offset and can be recovered.
    #[default]
    Reliable,
    /// The newest by key; an older one in a slow client's queue is replaced. No offset.
    Latest,
    /// Of use only at once, like typing; dropped first. No offset.
    Droppable,
}

impl Class {
    /// The word in `publish.class`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reliable => "reliable",
            Self::Latest => "latest",
            Self::Droppable => "droppable",
        }
    }

    /// Reads the word in `publish.class`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Reliable, Self::Latest, Self::Droppable].into_iter().find(|c| c.word() == word)
    }

    /// Whether messages of this class take an offset in the room's log.
    #[must_use]
    pub const fn is_positioned(self) -> bool {
        matches!(self, Self::Reliable)
    }
}

/// What to do with a message for a connection whose socket takes nothing at the moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlowDecision {
    /// Put it behind what waits.
    Queue,
    /// Put it behind; what waited under the same key has been dropped.
    Replace,
    /// Drop this message; the client was told that its class may be.
    Drop,
    /// End the connection with `slow_consumer`; the client comes back and recovers.
    Close,
}

/// Decides by class and size. `queued_bytes` waits already (without what a `latest` message
/// replaces), `message_bytes` comes, and the queue never grows above `bytes_max`. Droppable messages give way once half of it is used, so that
/// what must arrive has room.
#[must_use]
pub const fn decide_slow(
    class: Class,
    queued_bytes: usize,
    message_bytes: usize,
    bytes_max: usize,
) -> SlowDecision {
    let total = queued_bytes.saturating_add(message_bytes);
    match class {
        Class::Droppable if total > bytes_max / 2 => SlowDecision::Drop,
        // Dropping the newest value would leave the client with an old one for as long as nothing
        // new comes; when it comes back it gets the newest with `subscribed`.
        Class::Latest | Class::Reliable if total > bytes_max => SlowDecision::Close,
        Class::Latest => SlowDecision::Replace,
        Class::Reliable | Class::Droppable => SlowDecision::Queue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn droppable_goes_first_then_the_connection() {
        assert_eq!(decide_slow(Class::Droppable, 40, 10, 100), SlowDecision::Queue);
        assert_eq!(decide_slow(Class::Droppable, 41, 10, 100), SlowDecision::Drop);
        assert_eq!(decide_slow(Class::Latest, 41, 10, 100), SlowDecision::Replace);
        assert_eq!(decide_slow(Class::Reliable, 90, 10, 100), SlowDecision::Queue);
        assert_eq!(decide_slow(Class::Reliable, 91, 10, 100), SlowDecision::Close);
        assert_eq!(decide_slow(Class::Latest, 91, 10, 100), SlowDecision::Close);
    }

    proptest! {
        #[test]
        fn nothing_that_would_pass_the_cap_is_ever_queued(
            queued in 0usize..2_000, message in 0usize..2_000, cap in 0usize..2_000,
        ) {
            for class in [Class::Reliable, Class::Latest, Class::Droppable] {
                let decision = decide_slow(class, queued, message, cap);
                if queued + message > cap {
                    prop_assert!(matches!(decision, SlowDecision::Drop | SlowDecision::Close));
                }
            }
        }
    }
}
