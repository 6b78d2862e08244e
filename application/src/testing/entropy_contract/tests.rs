//! The suite against a source that keeps the contract, and against some that do not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::ports::NoEntropy;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flaw {
    None,
    AlwaysTheSameStart,
    Counts,
    StepsEvenly,
    RepeatsOnce,
    HasThirtyTwoBits,
    LowestBitAlwaysSet,
}

/// SplitMix64 from different starts: good enough for this suite, and for nothing else.
struct Model {
    flaw: Flaw,
    drawn: AtomicU64,
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Entropy for Model {
    fn bits(&self) -> Result<u64, NoEntropy> {
        let mut n = self.drawn.fetch_add(1, Ordering::Relaxed);
        match self.flaw {
            Flaw::Counts => return Ok(n),
            Flaw::StepsEvenly => return Ok(n.wrapping_mul(STEP)),
            Flaw::RepeatsOnce if n % 5_000 == 4_999 => n -= 1,
            _ => {}
        }
        let mut z = n.wrapping_mul(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        Ok(match self.flaw {
            Flaw::HasThirtyTwoBits => z & 0xffff_ffff,
            Flaw::LowestBitAlwaysSet => z | 1,
            _ => z,
        })
    }
}

fn suite(flaw: Flaw) {
    static STARTS: AtomicU64 = AtomicU64::new(0);
    check(&|| {
        let start = match flaw {
            Flaw::AlwaysTheSameStart => 0,
            _ => STARTS.fetch_add(10_000_000, Ordering::Relaxed),
        };
        Box::new(Model { flaw, drawn: AtomicU64::new(start) })
    });
}

#[test]
fn a_source_that_keeps_the_contract_passes() {
    suite(Flaw::None);
}

#[test]
fn each_broken_obligation_fails_the_suite() {
    for flaw in [
        Flaw::AlwaysTheSameStart,
        Flaw::Counts,
        Flaw::StepsEvenly,
        Flaw::RepeatsOnce,
        Flaw::HasThirtyTwoBits,
        Flaw::LowestBitAlwaysSet,
    ] {
        assert!(catch_unwind(AssertUnwindSafe(|| suite(flaw))).is_err(), "{flaw:?} passes");
    }
}
