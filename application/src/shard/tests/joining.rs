//! A joiner meets the live stream without a hole, a duplicate or a wait without end.

use domain::presence::{PresenceChange, PresenceEvent, PresenceKey};
use domain::recovery::GapReason;

use super::*;

const JOIN: &str = r#"{"type":"subscribe","id":1,"room":"ROOM","presence":true}"#;

#[test]
fn the_rest_of_an_earlier_subscription_keeps_nobody_from_becoming_live() {
    let mut bench = Bench::new();
    let joiner = bench.open();
    bench.say(joiner, JOIN);
    let call = bench.call();
    bench.mail(&[message(OLD, 5, None)]);
    bench.end(call, Bench::joined(at(OLD, 9), page(Vec::new(), at(OLD, 9))));
    bench.mail(&[message(OLD, 0, None)]);
    assert_eq!(bench.heard(joiner)[1..], ["subscribed 1/9", "message 1/null"]);
}

#[test]
fn a_joiner_that_knows_of_a_lost_log_before_the_others_asks_once() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 5));
    let joiner = bench.open();
    bench.say(joiner, JOIN);
    let call = bench.call();
    bench.end(call, Bench::joined(at(NEW, 1), page(Vec::new(), at(NEW, 1))));
    let (again, fill) = (bench.call(), bench.call());
    bench.end(again, Outcome::Paged(Ok(page(Vec::new(), at(NEW, 1)))));
    assert!(bench.call().is_none(), "it waits for the others");
    let lost = gap(NEW, 1, 1, GapReason::EpochChanged);
    let read = RecoveredPage { gap: Some(lost), ..page(Vec::new(), at(NEW, 1)) };
    bench.end(fill, Outcome::Filled(Ok(read)));
    let last = bench.call();
    bench.end(last, Outcome::Paged(Ok(page(Vec::new(), at(NEW, 1)))));
    assert!(bench.call().is_none());
    bench.mail(&[message(NEW, 2, None)]);
    assert_eq!(bench.heard(member), ["gap 2/1", "message 2/2"]);
    assert_eq!(bench.heard(joiner).last().unwrap(), "message 2/2");
}

#[test]
fn a_follower_misses_no_event_between_its_pages() {
    let mut bench = Bench::new();
    let joiner = bench.open();
    bench.say(joiner, JOIN);
    let call = bench.call();
    let first = RecoveredPage { more: true, ..page(vec![message(OLD, 1, None)], at(OLD, 1)) };
    bench.end(call, Bench::joined(at(OLD, 2), first));
    let who = PresenceKey::Anonymous(ConnectionId::from_bits(9));
    let (change, data) = (PresenceChange::Join, Bytes::new());
    let event = PresenceEvent { seq: 4, change, who, data, total: 2 };
    let mail = VecDeque::from([Mail::Presence(RoomId::parse(ROOM).unwrap(), Arc::new(event))]);
    bench.give(Input::Mail(&mut Post { mail, ..Post::default() }));
    let call = bench.call();
    bench.end(call, Outcome::Paged(Ok(page(vec![message(OLD, 2, None)], at(OLD, 2)))));
    assert_eq!(bench.heard(joiner)[1..], ["subscribed 1/1", "presence_event", "page 1/2"]);
}

#[test]
fn commands_wait_for_a_page_that_came_beside_a_publish() {
    let mut bench = Bench::new();
    let _member = bench.member(at(OLD, 5));
    let joiner = bench.open();
    bench.say(joiner, JOIN);
    let call = bench.call();
    bench.end(call, Bench::joined(at(OLD, 6), page(Vec::new(), at(OLD, 6))));
    let publish = bench.publish(joiner, 7);
    // The live stream has a hole where the joiner waits for it.
    bench.hole();
    let (fill, _list) = (bench.call(), bench.call());
    let lost = gap(OLD, 6, 8, GapReason::Overflow);
    let read = RecoveredPage { gap: Some(lost), ..page(Vec::new(), at(OLD, 8)) };
    bench.end(fill, Outcome::Filled(Ok(read)));
    let again = bench.call();
    assert!(again.is_some());
    bench.say(joiner, r#"{"type":"unsubscribe","id":8,"room":"ROOM"}"#);
    bench.end(publish, Bench::published(at(OLD, 9)));
    assert!(!bench.heard(joiner).contains(&"unsubscribed".to_owned()));
    bench.end(again, Outcome::Paged(Ok(page(Vec::new(), at(OLD, 8)))));
    assert_eq!(bench.heard(joiner), ["page 1/8", "ack 1/9", "unsubscribed"]);
}

#[test]
fn a_message_without_a_position_survives_that_a_joiner_reads_again() {
    let mut bench = Bench::new();
    let joiner = bench.open();
    bench.say(joiner, JOIN);
    let call = bench.call();
    // The second message was lost on the way.
    bench.mail(&[message(OLD, 0, None), message(OLD, 3, None)]);
    bench.end(call, Bench::joined(at(OLD, 1), page(Vec::new(), at(OLD, 1))));
    let again = bench.call();
    let missed = vec![message(OLD, 2, None), message(OLD, 3, None)];
    bench.end(again, Outcome::Paged(Ok(page(missed, at(OLD, 3)))));
    assert_eq!(bench.heard(joiner)[1..], ["subscribed 1/1", "page 1/3", "message 1/null"]);
}
