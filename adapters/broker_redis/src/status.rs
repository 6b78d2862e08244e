//! What the broker knows of its connections, for readiness and metrics.
//!
//! Nothing here may decide anything.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// Which connections are there.
#[derive(Clone, Copy, Debug, Default)]
struct Up {
    commands: bool,
    subscriber: bool,
}

impl Up {
    const fn both(self) -> bool {
        self.commands && self.subscriber
    }
}

/// Counters and states, shared with whoever shows them.
#[derive(Debug, Default)]
pub struct Status {
    up: watch::Sender<Up>,
    pub(crate) connects: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) failed_calls: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) unreadable: AtomicU64,
}

impl Status {
    /// Whether Redis can be asked and everything that nodes publish arrives.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.borrow().both()
    }

    /// Waits until that is so.
    pub async fn until_up(&self) {
        // The sender is ours, so the channel does not end.
        let _ = self.up.subscribe().wait_for(|up| up.both()).await;
    }

    /// Waits until that is not so.
    pub async fn until_down(&self) {
        let _ = self.up.subscribe().wait_for(|up| !up.both()).await;
    }

    /// How often a connection was made.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    /// How many calls were made, and how many of them had no answer or an error.
    #[must_use]
    pub fn calls(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.failed_calls.load(Ordering::Relaxed))
    }

    /// How many publications came over the subscription, and how many of them could not be read.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.unreadable.load(Ordering::Relaxed))
    }

    /// Waits until Redis can be asked.
    pub(crate) async fn until_commands_up(&self) {
        let _ = self.up.subscribe().wait_for(|up| up.commands).await;
    }

    pub(crate) fn set_commands_up(&self, is_up: bool) {
        self.up.send_modify(|up| up.commands = is_up);
    }

    pub(crate) fn set_subscriber_up(&self, is_up: bool) {
        self.up.send_modify(|up| up.subscriber = is_up);
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}
