//! The simulation: the real application on nodes, a broker or a disk, a network and clients that are all
//! made of numbers drawn from a seed.
//!
//! A seed is a story of 50 to 200 acts and several faults in virtual time; the checker reads every frame that a client says
//! and gets, and all that it hands over to its application. A seed that fails prints the command that tells its story again.
//! Nothing here may depend on a clock, a thread or anything else that a seed does not decide.
//!
//! Suggested reading order: [`story`], [`client`], [`handed`], [`checker`], [`crowd`], [`saying`], [`hearing`], [`world`], [`nodes`],
//! [`coming`], [`links`], [`broker`], [`witness`], [`disk`], [`letters`], [`inbox`], [`moderators`],
//! [`docket`], [`forbidden`], [`sanctions`], [`ports`], [`storm`], [`faults`]; of seeds over Redis [`ways`], [`truth`],
//! [`taking`], [`drains`], [`redis`], [`redis_scripts`], [`mirror`].
//!
//! Two worlds: several nodes over a simulated broker that loses, doubles and delays; or one process
//! at a time over the real in-memory broker, whose durable rooms, letters and sanctions are on a disk that
//! outlives kills. Letters and sanctions are kept by each node for itself, so they have a part in the second
//! world only. In some seeds of the first world nodes share a Redis beside the broker: leases, presence, seats, tokens
//! that count once and drains in turn are there what they are over a real one, down to the commands that are given.
//!
//! Clients of protocol v2 are the real ones: the machine of `domain::client` decides when to connect and what to say. Raw
//! are those who show another's token ([`taking`]), and the writers of `/ws/chat` ([`letters`]).
//!
//! A simulated committer would only repeat what somebody believes of the real one; what can fail
//! for real is behind the archive's port, so only that is simulated.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may stop where it stands; its helpers are outside #[test] functions"
)]

mod broker;
mod broker_contract;
mod checker;
mod client;
mod coming;
mod contract;
mod crowd;
mod disk;
mod docket;
mod drains;
mod faults;
mod filtered;
mod forbidden;
mod handed;
mod hearing;
mod inbox;
mod letters;
mod links;
mod mirror;
mod moderators;
mod nodes;
mod ports;
mod redis;
mod redis_scripts;
mod rng;
mod sanctions;
mod saying;
mod storm;
mod story;
mod taking;
mod truth;
mod ways;
mod witness;
mod world;

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use application::planted::{self, Mistake};
use domain::client::planted::Mistake as ClientMistake;

use crate::faults::{Counts, Effect, FAULTS_MIN};
use crate::story::Report;

const SENTENCE: &str = "every_seed_keeps_every_promise";
const SEEDS: u64 = 2_000;
const SEEDS_FULL: u64 = 20_000;
const THREADS: u64 = 2;
/// After how many seeds one more line says how far it is.
const PROGRESS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

fn check(seed: u64, report: &Report) -> Result<(), String> {
    let Some(violation) = &report.violation else {
        let fired = report.counts.faults_fired();
        let few = format!("seed {seed} has only {fired} faults");
        return if fired < FAULTS_MIN { Err(few) } else { Ok(()) };
    };
    Err(format!(
        "seed {seed} breaks {}: {}\n  again: ROOMKEEPER_SIM_SEED={seed} cargo test -p tests \
         --test simulation -- {SENTENCE} --nocapture",
        violation.invariant, violation.text
    ))
}

/// Runs seeds from 0 on, on a few threads. Answers the sum and the lowest failures.
fn run_seeds(n_seeds: u64) -> (Counts, Vec<String>) {
    let (next, start) = (AtomicU64::new(0), Instant::now());
    let worker = || {
        let (mut counts, mut failures) = (Counts::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= n_seeds || failures.len() >= 5 {
                return (counts, failures);
            }
            let report = story::run(seed, false);
            counts.add(&report.counts);
            if seed > 0 && seed % PROGRESS == 0 {
                eprintln!("{seed} of {n_seeds} seeds in {:.0} s", start.elapsed().as_secs_f64());
            }
            failures.extend(check(seed, &report).err().map(|text| (seed, text)));
        }
    };
    let parts = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|t| t.join().expect("no seed panics")).collect::<Vec<_>>()
    });
    let (mut counts, mut failures) = (Counts::default(), Vec::new());
    for (part, failed) in parts {
        counts.add(&part);
        failures.extend(failed);
    }
    failures.sort();
    (counts, failures.into_iter().map(|(_, text)| text).collect())
}

/// A15: among all else that happens, tokens are refreshed in time, and nobody misses a message.
#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = number("ROOMKEEPER_SIM_SEED") {
        let report = story::run(seed, true);
        eprintln!("{}", report.counts);
        check(seed, &report).unwrap_or_else(|text| panic!("{text}"));
        return;
    }
    let full = env::var("ROOMKEEPER_TESTS").is_ok_and(|which| which == "full");
    let usual = if full { SEEDS_FULL } else { SEEDS };
    let n_seeds = number("ROOMKEEPER_SIM_SEEDS").unwrap_or(usual);
    let start = Instant::now();
    let (counts, failures) = run_seeds(n_seeds);
    let seconds = start.elapsed().as_secs_f64();
    let each_ms = seconds * 1_000.0 * THREADS as f64 / n_seeds as f64;
    eprintln!("{n_seeds} seeds in {seconds:.1} s, {each_ms:.2} ms each\n{counts}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let excused = counts.of(Effect::LetterAgain) + counts.of(Effect::LetterLost);
    let heard = counts.of(Effect::LetterHeard);
    assert!(excused * 4 <= heard, "{excused} excuses for {heard} letters hide what is promised");
    // Few seeds can't fire everything.
    if n_seeds >= SEEDS {
        assert_eq!(counts.zeros(), Vec::<&str>::new(), "these never happened");
    }
}

/// How many seeds a planted mistake may take to be found.
const SEEDS_TO_FIND: usize = 1_000;

/// Makes one mistake until a seed finds it. Answers which invariant broke.
fn find(mistake: Mistake) -> (u64, &'static str) {
    planted::plant(Some(mistake));
    let found = (0..).take(SEEDS_TO_FIND).find_map(|seed| {
        let violation = story::run(seed, false).violation?;
        Some((seed, violation.invariant))
    });
    planted::plant(None);
    found.unwrap_or_else(|| panic!("{mistake:?} is not found within {SEEDS_TO_FIND} seeds"))
}

/// The same of a mistake that only nodes over Redis can make, within as many of their seeds.
fn find_over_redis(mistake: Mistake) -> &'static str {
    planted::plant(Some(mistake));
    let mut seeds = (0..).filter(|seed| story::is_over_redis(*seed)).take(SEEDS_TO_FIND);
    let found = seeds.find_map(|seed| Some((seed, story::run(seed, false).violation?)));
    planted::plant(None);
    let (seed, violation) =
        found.unwrap_or_else(|| panic!("{mistake:?} is not found within {SEEDS_TO_FIND} seeds"));
    eprintln!("{mistake:?}: {} in seed {seed}: {}", violation.invariant, violation.text);
    violation.invariant
}

/// Makes one mistake until a seed notices it by this invariant; others may notice it before.
fn find_as(mistake: Mistake, invariant: &str) -> u64 {
    planted::plant(Some(mistake));
    let breaks = |violation: &checker::Violation| violation.invariant == invariant;
    let found = (0..)
        .take(SEEDS_TO_FIND)
        .find(|seed| story::run(*seed, false).violation.as_ref().is_some_and(breaks));
    planted::plant(None);
    found.unwrap_or_else(|| panic!("{mistake:?} is not {invariant} within {SEEDS_TO_FIND} seeds"))
}

/// The same of one that clients make.
fn find_in_clients(mistake: ClientMistake) -> &'static str {
    client::plant(Some(mistake));
    let found = (0..).take(SEEDS_TO_FIND).find_map(|seed| {
        let violation = story::run(seed, false).violation?;
        Some((seed, violation))
    });
    client::plant(None);
    let (seed, violation) =
        found.unwrap_or_else(|| panic!("{mistake:?} is not found within {SEEDS_TO_FIND} seeds"));
    eprintln!("{mistake:?}: {} in seed {seed}: {}", violation.invariant, violation.text);
    violation.invariant
}

#[test]
fn a_client_that_forgets_where_it_stands_is_found() {
    assert_eq!(find_in_clients(ClientMistake::PositionForgotten), "I23");
}

#[test]
fn a_client_that_publishes_again_under_another_name_is_found() {
    assert_eq!(find_in_clients(ClientMistake::RepeatedAnew), "I6");
}

#[test]
fn a_client_that_takes_an_ack_for_no_place_is_found() {
    assert_eq!(find_in_clients(ClientMistake::PlaceNotPassed), "I23");
}

#[test]
fn a_hole_that_is_ignored_is_found() {
    // By the next message, or by an `ack` that stands where the next message would.
    let found = find(Mistake::HoleIgnored).1;
    assert!(found == "I1" || found == "I3 (ack in place)", "{found}");
}

#[test]
fn a_joiner_that_gets_a_message_twice_is_found() {
    assert_eq!(find(Mistake::HeldNotTrimmed).1, "I2");
}

#[test]
fn a_joiner_that_becomes_live_over_a_hole_is_found() {
    find_as(Mistake::JoinedOverHole, "I1");
}

#[test]
fn a_recovery_that_hides_a_lost_log_is_found() {
    find_as(Mistake::LostLogHidden, "I7");
}

#[test]
fn a_ghost_in_presence_is_found() {
    assert_eq!(find(Mistake::GhostOfJoin).1, "I9");
}

#[test]
fn a_filtered_joiner_that_misses_what_was_held_is_found() {
    find_as(Mistake::HeldForFilterLost, "I16");
}

#[test]
fn an_ack_that_does_not_wait_for_its_place_is_found() {
    assert!(find(Mistake::AckTooEarly).1.starts_with("I3"));
}

#[test]
fn an_ack_before_the_commit_is_found() {
    assert!(find(Mistake::AckBeforeCommit).1.starts_with("I6"));
}

#[test]
fn an_offset_that_is_used_again_after_an_append_seemed_to_fail_is_found() {
    assert_eq!(find(Mistake::DoubtForgotten).1, "I8");
}

#[test]
fn a_retry_that_is_not_looked_up_in_the_archive_is_found() {
    assert_eq!(find(Mistake::RetryNotLookedUp).1, "I8");
}

#[test]
fn an_epoch_that_does_not_survive_a_kill_is_found() {
    assert_eq!(find(Mistake::EpochRedrawn).1, "I8 (durable)");
}

#[test]
fn a_letter_that_is_removed_before_the_socket_has_taken_it_is_found() {
    assert_eq!(find(Mistake::LettersRemovedEarly).1, "I17");
}

#[test]
fn letters_that_are_given_to_every_connection_are_found() {
    assert_eq!(find(Mistake::LettersToEveryone).1, "I17");
}

#[test]
fn a_ban_that_puts_nobody_out_is_found() {
    find_as(Mistake::BannedStaysIn, "I18");
}

#[test]
fn a_publish_that_is_taken_from_who_is_muted_is_found() {
    find_as(Mistake::RetryNotMuted, "I18");
}

#[test]
fn a_return_that_is_not_asked_for_a_ban_is_found() {
    find_as(Mistake::ReturnNotAsked, "I18");
}

#[test]
fn an_act_of_a_moderator_that_is_acknowledged_before_it_is_stored_is_found() {
    find_as(Mistake::ActAckedEarly, "I18");
}

#[test]
fn a_reaper_that_does_not_claim_first_is_found() {
    find_over_redis(Mistake::ReapedUnclaimed);
}

#[test]
fn leases_that_are_claimed_as_soon_as_redis_is_back_are_found() {
    assert_eq!(find_over_redis(Mistake::ClaimedAtOnce), "I19");
}

#[test]
fn a_redis_that_is_not_told_again_who_is_here_is_found() {
    find_over_redis(Mistake::NotSaidAgain);
}

#[test]
fn a_former_name_that_is_taken_back_before_all_is_said_again_is_found() {
    assert_eq!(find_over_redis(Mistake::FormerTakenEarly), "I19");
}

#[test]
fn a_leave_that_waits_for_nobody_to_come_back_is_found() {
    assert_eq!(find_over_redis(Mistake::GraceForgotten), "I19");
}

#[test]
fn a_change_of_presence_that_is_dropped_when_it_can_not_be_told_is_found() {
    find_over_redis(Mistake::ChangeDropped);
}

#[test]
fn a_fence_that_is_compared_as_less_or_equal_is_found() {
    find_over_redis(Mistake::NewestReplaced);
}

#[test]
fn a_fence_that_is_lost_with_redis_is_found() {
    find_over_redis(Mistake::FenceNotRetold);
}

#[test]
fn a_seat_that_is_freed_twice_is_found() {
    assert!(find_over_redis(Mistake::SeatFreedTwice).starts_with("I20"));
}

#[test]
fn a_seat_that_is_given_back_under_an_old_version_is_found() {
    find_over_redis(Mistake::LeaveUnversioned);
}

#[test]
fn a_token_that_is_marked_as_used_behind_the_answer_is_found() {
    assert_eq!(find_over_redis(Mistake::SpentAfterAnswer), "I21");
}

#[test]
fn a_drain_that_ends_all_connections_at_once_is_found() {
    assert_eq!(find_over_redis(Mistake::DrainedAtOnce), "I22");
}

#[test]
fn a_drain_that_forgets_who_comes_meanwhile_is_found() {
    assert_eq!(find_over_redis(Mistake::NewcomerForgotten), "I22");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let over_redis = (20..).filter(|seed| story::is_over_redis(*seed)).take(5);
    for seed in (0..20).chain(over_redis) {
        let hash = story::run_hashed(seed).hash;
        assert!(hash.is_some() && hash == story::run_hashed(seed).hash, "seed {seed}");
    }
    assert_ne!(story::run_hashed(1).hash, story::run_hashed(2).hash);
}
