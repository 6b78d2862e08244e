//! The contract of the `entropy` port: what every source of randomness does.
//!
//! What nobody can predict can't be shown by a test; the suite finds sources that count, repeat or
//! have fewer bits than they say. Its bounds are so wide that chance does not reach them in the
//! life of this project.
#![allow(clippy::unwrap_used, reason = "a contract suite is a test")]

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use crate::ports::Entropy;

/// How many numbers are drawn in each part.
const DRAWS: usize = 8_192;
const THREADS: usize = 4;

/// Checks everything below; each source must be one that was just made.
///
/// # Panics
/// When a source breaks the contract.
pub fn check(make: &dyn Fn() -> Box<dyn Entropy>) {
    no_number_comes_twice(&*make());
    no_number_comes_twice_on_several_threads(&*make());
    two_sources_do_not_draw_the_same(&*make(), &*make());
    every_bit_is_set_half_of_the_time(&*make());
    a_number_does_not_tell_the_next(&*make());
}

fn draw(source: &dyn Entropy) -> Vec<u64> {
    (0..DRAWS).map(|_| source.bits().unwrap()).collect()
}

/// Two connections would have one id.
///
/// # Panics
/// When the source breaks the contract.
pub fn no_number_comes_twice(source: &dyn Entropy) {
    let drawn = draw(source);
    let different: HashSet<u64> = drawn.iter().copied().collect();
    assert_eq!(different.len(), drawn.len(), "a number came twice");
}

/// Two workers draw at once.
///
/// # Panics
/// When the source breaks the contract.
pub fn no_number_comes_twice_on_several_threads(source: &dyn Entropy) {
    let drawn: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| draw(source))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let different: HashSet<u64> = drawn.iter().copied().collect();
    assert_eq!(different.len(), THREADS * DRAWS, "a number came twice");
}

/// A process that starts again must not give out the ids of the one before.
///
/// # Panics
/// When the sources break the contract.
pub fn two_sources_do_not_draw_the_same(one: &dyn Entropy, other: &dyn Entropy) {
    let different: HashSet<u64> = draw(one).into_iter().chain(draw(other)).collect();
    assert_eq!(different.len(), 2 * DRAWS, "both drew the same number");
}

/// All 64 of them.
///
/// # Panics
/// When the source breaks the contract.
pub fn every_bit_is_set_half_of_the_time(source: &dyn Entropy) {
    let drawn = draw(source);
    for bit in 0..64 {
        let set = drawn.iter().filter(|bits| **bits & (1 << bit) != 0).count();
        assert_near_half(set, DRAWS, &format!("bit {bit} is set"));
    }
}

/// From one number to the next about half of the bits change, each bit as often as not, and the
/// difference of two numbers is never the one before.
///
/// # Panics
/// When the source breaks the contract.
pub fn a_number_does_not_tell_the_next(source: &dyn Entropy) {
    let drawn = draw(source);
    for bit in 0..64 {
        let changed = drawn.windows(2).filter(|w| (w[0] ^ w[1]) & (1 << bit) != 0).count();
        assert_near_half(changed, DRAWS - 1, &format!("bit {bit} changes"));
    }
    let steps: HashSet<u64> = drawn.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
    assert_eq!(steps.len(), DRAWS - 1, "two steps are the same");
}

/// Seven standard deviations: for all bits together less than once in a billion runs.
#[track_caller]
fn assert_near_half(count: usize, of: usize, what: &str) {
    let (count, half) = (count as f64, of as f64 / 2.0);
    let bound = 7.0 * (of as f64).sqrt() / 2.0;
    assert!((count - half).abs() <= bound, "{what} {count} times of {of}");
}
