//! The machine's clocks behind the application's port.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use application::ports::Clock;
use domain::time::{Monotonic, Now, Wall};

/// Reads the monotonic clock from its own start, and the wall clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts the monotonic clock. All parts of a node must share one.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// When, on the runtime's clock, a moment of this clock is.
    pub(crate) fn instant(&self, at: Monotonic) -> Instant {
        let wait = at.since(Monotonic::START);
        self.start.checked_add(wait).unwrap_or_else(|| Instant::now() + FAR)
    }
}

/// Stands for never.
const FAR: std::time::Duration = std::time::Duration::from_secs(60 * 60 * 24);

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let elapsed = self.start.elapsed().as_millis();
        // A clock set before 1970 reads as 1970: only timestamps and token expiry would notice.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Now {
            monotonic: Monotonic::from_millis(u64::try_from(elapsed).unwrap_or(u64::MAX)),
            wall: Wall::from_millis(i64::try_from(wall).unwrap_or(i64::MAX)),
        }
    }
}
