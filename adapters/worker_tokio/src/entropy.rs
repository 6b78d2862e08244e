//! The system's randomness behind the application's port.
//!
//! Where the system has none it must never make up its own.

use std::sync::{Mutex, PoisonError};

use application::ports::{Entropy, NoEntropy};

/// Fills bytes with randomness; says whether it could.
type Fill = fn(&mut [u8]) -> Result<(), getrandom::Error>;

/// Drawn by the page: one call to the system serves 64 connections.
#[derive(Debug)]
pub struct SystemEntropy {
    /// Drawn and not given out yet. Held for a pop.
    drawn: Mutex<Vec<u64>>,
    fill: Fill,
}

const DRAWN_AT_ONCE: usize = 64;

impl Default for SystemEntropy {
    fn default() -> Self {
        Self { drawn: Mutex::default(), fill: getrandom::fill }
    }
}

impl Entropy for SystemEntropy {
    fn bits(&self) -> Result<u64, NoEntropy> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(bits) = drawn.pop() {
                return Ok(bits);
            }
            let mut page = [0; DRAWN_AT_ONCE * 8];
            // Linux answers this without failing once it has started.
            if let Err(error) = (self.fill)(&mut page) {
                tracing::error!(%error, "the system gives no randomness");
                return Err(NoEntropy);
            }
            let words = page.as_chunks::<8>().0;
            drawn.extend(words.iter().map(|word| u64::from_ne_bytes(*word)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::testing::entropy_contract;

    #[test]
    fn the_system_s_randomness_keeps_its_contract() {
        entropy_contract::check(&|| Box::<SystemEntropy>::default());
    }

    /// R16.
    #[test]
    fn where_the_system_has_none_there_is_none_and_what_was_drawn_before_counts() {
        let mut entropy = SystemEntropy::default();
        assert!(entropy.bits().is_ok());
        // Half written is as bad as not at all.
        entropy.fill = |page| {
            page[..8].fill(7);
            Err(getrandom::Error::UNEXPECTED)
        };
        for _ in 1..DRAWN_AT_ONCE {
            assert!(entropy.bits().is_ok());
        }
        assert_eq!([entropy.bits(), entropy.bits()], [Err(NoEntropy); 2]);
        entropy.fill = getrandom::fill;
        assert!(entropy.bits().is_ok());
    }
}
