//! The system's randomness behind the application's port.

use std::sync::{Mutex, PoisonError};

use application::ports::Entropy;

/// Drawn by the page: one call to the system serves 64 connections.
#[derive(Debug, Default)]
pub struct SystemEntropy {
    /// Drawn and not given out yet. Held for a pop.
    drawn: Mutex<Vec<u64>>,
}

const DRAWN_AT_ONCE: usize = 64;

impl Entropy for SystemEntropy {
    fn bits(&self) -> u64 {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(bits) = drawn.pop() {
                return bits;
            }
            let mut page = [0; DRAWN_AT_ONCE * 8];
            // Linux answers this without failing once it has started. Without it there is no name
            // that nobody could guess, so nothing may go on.
            if let Err(error) = getrandom::fill(&mut page) {
                tracing::error!(%error, "the system gives no randomness");
                std::process::abort();
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
}
