//! Time and randomness for use cases; shards get theirs as arguments.

use domain::time::Now;

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
    fn bits(&self) -> u64;
}
