//! The suite against a clock that keeps the contract, and against some that do not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use domain::time::Monotonic;

use super::*;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flaw {
    None,
    GoesBack,
    GoesBackInOtherThreads,
    StandsStill,
    WallStandsStill,
    WallInSeconds,
    MonotonicInSeconds,
    NeverSet,
}

/// Time that only a test moves.
struct Model {
    flaw: Flaw,
    passed_ms: AtomicU64,
    readings: AtomicU64,
    home: std::thread::ThreadId,
}

const START: i64 = 1_763_717_880_000;

impl Clock for Model {
    fn now(&self) -> Now {
        let mut passed = self.passed_ms.load(Ordering::Relaxed);
        let readings = self.readings.fetch_add(1, Ordering::Relaxed);
        let mut wall_passed = i64::try_from(passed).unwrap();
        let mut start = START;
        match self.flaw {
            Flaw::None => {}
            Flaw::GoesBack if readings == 700 => passed = passed.saturating_sub(1),
            Flaw::GoesBackInOtherThreads if std::thread::current().id() != self.home => passed = 0,
            Flaw::GoesBack | Flaw::GoesBackInOtherThreads => {}
            Flaw::StandsStill => (passed, wall_passed) = (0, 0),
            Flaw::WallStandsStill => wall_passed = 0,
            Flaw::WallInSeconds => start /= 1_000,
            Flaw::MonotonicInSeconds => passed /= 1_000,
            Flaw::NeverSet => start = 0,
        }
        let wall = Wall::from_millis(start + wall_passed);
        Now { monotonic: Monotonic::from_millis(passed), wall }
    }
}

fn check(flaw: Flaw) {
    let clock = Model {
        flaw,
        passed_ms: AtomicU64::new(5),
        readings: AtomicU64::new(0),
        home: std::thread::current().id(),
    };
    let pass = |span: Duration| {
        let ms = u64::try_from(span.as_millis()).unwrap();
        clock.passed_ms.fetch_add(ms, Ordering::Relaxed);
    };
    ClockContract { clock: &clock, pass: &pass, not_before: Wall::from_millis(START) }.check();
}

#[test]
fn a_clock_that_keeps_the_contract_passes() {
    check(Flaw::None);
}

#[test]
fn each_broken_obligation_fails_the_suite() {
    for flaw in [
        Flaw::GoesBack,
        Flaw::GoesBackInOtherThreads,
        Flaw::StandsStill,
        Flaw::WallStandsStill,
        Flaw::WallInSeconds,
        Flaw::MonotonicInSeconds,
        Flaw::NeverSet,
    ] {
        assert!(catch_unwind(AssertUnwindSafe(|| check(flaw))).is_err(), "{flaw:?} passes");
    }
}
