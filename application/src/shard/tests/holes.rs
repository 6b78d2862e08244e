//! A hole is read from the log once, and nothing is delivered twice or for ever.

use domain::recovery::GapReason;

use super::*;
use crate::ports::BrokerError;

#[test]
fn a_look_that_ends_while_a_hole_is_filled_delivers_nothing_twice() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 0));
    bench.now.monotonic = Monotonic::from_millis(6_000);
    bench.give(Input::Tick);
    let look = bench.call();
    bench.mail(&[message(OLD, 1, None), message(OLD, 3, None)]);
    let fill = bench.call();
    let seen = vec![message(OLD, 1, None), message(OLD, 2, None)];
    bench.end(look, Outcome::Looked(Ok(page(seen, at(OLD, 2)))));
    let missing = vec![message(OLD, 2, None), message(OLD, 3, None)];
    bench.end(fill, Outcome::Filled(Ok(page(missing, at(OLD, 3)))));
    let heard = bench.heard(member);
    let messages: Vec<_> = heard.iter().filter(|text| text.starts_with("message")).collect();
    assert_eq!(messages, ["message 1/1", "message 1/2", "message 1/3"]);
}

#[test]
fn what_does_not_fit_while_a_hole_is_filled_is_read_as_well() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 0));
    bench.hole();
    let call = bench.call();
    bench.hole();
    bench.end(call, Outcome::Filled(Ok(page(vec![message(OLD, 1, None)], at(OLD, 1)))));
    let call = bench.call();
    bench.end(call, Outcome::Filled(Ok(page(vec![message(OLD, 2, None)], at(OLD, 2)))));
    assert_eq!(bench.heard(member), ["message 1/1", "message 1/2"]);
    assert!(bench.call().is_none());
}

#[test]
fn late_mail_of_a_lost_log_is_asked_about_once() {
    let mut bench = Bench::new();
    let member = bench.member(at(NEW, 3));
    bench.mail(&[message(OLD, 9, None)]);
    let call = bench.call();
    bench.end(call, Outcome::Filled(Ok(page(Vec::new(), at(NEW, 3)))));
    assert!(bench.call().is_none());
    bench.mail(&[message(NEW, 4, None)]);
    assert_eq!(bench.heard(member), ["message 2/4"]);
}

#[test]
fn mail_of_a_newer_log_than_the_one_that_was_read_is_asked_about_again() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 3));
    bench.hole();
    let call = bench.call();
    bench.mail(&[message(NEW, 1, None)]);
    bench.end(call, Outcome::Filled(Ok(page(Vec::new(), at(OLD, 3)))));
    let call = bench.call();
    let lost = gap(NEW, 1, 0, GapReason::EpochChanged);
    let read = RecoveredPage { gap: Some(lost), ..page(vec![message(NEW, 1, None)], at(NEW, 1)) };
    bench.end(call, Outcome::Filled(Ok(read)));
    assert_eq!(bench.heard(member), ["gap 2/0", "message 2/1"]);
    assert!(bench.call().is_none());
}

#[test]
fn a_message_without_a_position_survives_that_a_hole_is_read_twice() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 0));
    bench.hole();
    let call = bench.call();
    bench.mail(&[message(OLD, 0, None)]);
    bench.hole();
    bench.end(call, Outcome::Filled(Ok(page(Vec::new(), at(OLD, 0)))));
    let call = bench.call();
    bench.end(call, Outcome::Filled(Ok(page(vec![message(OLD, 1, None)], at(OLD, 1)))));
    assert_eq!(bench.heard(member), ["message 1/1", "message 1/null"]);
}

#[test]
fn a_hole_that_could_not_be_read_is_read_again_at_the_next_look_and_nothing_overtakes_it() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 1));
    bench.hole();
    let call = bench.call();
    let away = BrokerError::Unavailable { retry_after: Duration::from_secs(1) };
    bench.end(call, Outcome::Filled(Err(away)));
    bench.mail(&[message(OLD, 3, None)]);
    assert!(bench.heard(member).is_empty() && bench.call().is_none());
    bench.now.monotonic = bench.now.monotonic.after(Duration::from_secs(6));
    bench.give(Input::Tick);
    let call = bench.call();
    bench.end(call, Outcome::Filled(Ok(page(vec![message(OLD, 2, None)], at(OLD, 2)))));
    assert_eq!(bench.heard(member), ["message 1/2", "message 1/3"]);
}
