//! Two ports that only a host can have: what time it is, and bits that nobody can guess.
//!
//! They are as short as they can be; `worker_tokio` has both for hosts that use it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use application::ports::{Clock, Entropy, NoEntropy};
use domain::time::{Monotonic, Now, Wall};

/// Counts from its start.
pub(crate) struct HostClock(Instant);

impl HostClock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for HostClock {
    fn now(&self) -> Now {
        let monotonic = u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A clock set before 1970 reads as 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let wall = i64::try_from(wall).unwrap_or(i64::MAX);
        Now { monotonic: Monotonic::from_millis(monotonic), wall: Wall::from_millis(wall) }
    }
}

/// The system's.
#[derive(Default)]
pub(crate) struct HostEntropy;

impl Entropy for HostEntropy {
    fn bits(&self) -> Result<u64, NoEntropy> {
        getrandom::u64().map_err(|_| NoEntropy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::testing::clock_contract::ClockContract;
    use application::testing::entropy_contract;
    use std::time::Duration;

    #[test]
    fn both_keep_the_contracts_of_their_ports() {
        let clock = HostClock::start();
        let pass = |span: Duration| {
            let end = Instant::now() + span;
            while Instant::now() < end {
                std::thread::yield_now();
            }
        };
        let not_before = Wall::from_millis(1_735_689_600_000);
        ClockContract { clock: &clock, pass: &pass, not_before }.check();
        entropy_contract::check(&|| Box::<HostEntropy>::default());
    }
}
