//! Time and randomness for use cases; shards get theirs as arguments.

use domain::time::Now;
use thiserror::Error;

/// Tells the time. Hot: never blocks.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Clock: Send + Sync {
    /// Both readings of this moment. `monotonic` MUST never go back.
    fn now(&self) -> Now;
}

/// Draws random bits. Hot: never blocks for long.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Entropy: Send + Sync {
    /// 64 bits that nobody can predict; a repeated answer would give two connections one id.
    ///
    /// # Errors
    /// [`NoEntropy`] when there are none. MUST never answer with others instead: whoever can guess an
    /// id can claim to be its owner.
    fn bits(&self) -> Result<u64, NoEntropy>;
}

/// There is no randomness to be had now. What needs some is refused, and may be asked for again.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the system gives no randomness")]
pub struct NoEntropy;
