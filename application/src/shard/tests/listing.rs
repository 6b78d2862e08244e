//! What those are told who follow presence and missed a change.

use super::*;
use crate::use_cases::list_presence::PresenceRefused;
use domain::presence::PresenceList;

fn list(seq: u64) -> Outcome {
    Outcome::Listed(Ok(PresenceList { seq, ..PresenceList::default() }))
}

fn filled(top: Position) -> Outcome {
    Outcome::Filled(Ok(page(Vec::new(), top)))
}

fn away() -> Outcome {
    let error = crate::ports::PresenceError::Unavailable { retry_after: Duration::from_secs(1) };
    Outcome::Listed(Err(PresenceRefused::Presence(error)))
}

#[test]
fn who_follows_a_room_with_a_hole_is_told_who_is_there_and_others_are_not() {
    let mut bench = Bench::new();
    let (follower, member) = (bench.follower(at(OLD, 1)), bench.member(at(OLD, 1)));
    bench.hole();
    let (fill, listing) = (bench.call(), bench.call());
    bench.end(fill, filled(at(OLD, 1)));
    bench.end(listing, list(7));
    assert_eq!(bench.heard(follower), ["presence"]);
    assert!(bench.heard(member).is_empty());
    assert!(bench.call().is_none());
}

#[test]
fn a_hole_that_is_told_while_the_list_is_read_has_it_read_again() {
    let mut bench = Bench::new();
    let follower = bench.follower(at(OLD, 1));
    bench.hole();
    let (fill, listing) = (bench.call(), bench.call());
    bench.hole();
    bench.end(fill, filled(at(OLD, 1)));
    let again = bench.call();
    bench.end(again, filled(at(OLD, 1)));
    assert!(bench.call().is_none(), "one list at a time");
    bench.end(listing, list(7));
    let listing = bench.call();
    bench.end(listing, list(8));
    assert_eq!(bench.heard(follower), ["presence", "presence"]);
    assert!(bench.call().is_none());
}

#[test]
fn a_list_that_could_not_be_had_is_asked_for_at_the_next_look_at_positions() {
    let mut bench = Bench::new();
    let follower = bench.follower(at(OLD, 1));
    bench.hole();
    let (fill, listing) = (bench.call(), bench.call());
    bench.end(fill, filled(at(OLD, 1)));
    bench.end(listing, away());
    assert!(bench.call().is_none() && bench.heard(follower).is_empty());
    bench.now.monotonic = bench.now.monotonic.after(Duration::from_secs(6));
    bench.give(Input::Tick);
    let (listing, look) = (bench.call(), bench.call());
    assert!(look.is_some(), "the position is looked at, too");
    bench.end(listing, list(9));
    assert_eq!(bench.heard(follower), ["presence"]);
}
