//! A publish without echo is acknowledged once, in its message's place.

use domain::recovery::GapReason;

use super::*;
use crate::ports::PublishError;
use crate::use_cases::publish_message::PublishRefused;

#[test]
fn an_answer_that_meets_its_message_on_the_way_to_the_members_is_given_once_and_in_place() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 0));
    let call = bench.publish(member, 7);
    bench.mail(&[message(OLD, 1, None), message(OLD, 2, silent(1, 7))]);
    bench.end(call, Bench::published(at(OLD, 2)));
    bench.mail(&[message(OLD, 3, None)]);
    assert_eq!(bench.heard(member), ["message 1/1", "ack 1/2", "message 1/3"]);
}

#[test]
fn an_ack_names_the_epoch_of_its_message_although_another_has_begun() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 0));
    let call = bench.publish(member, 7);
    bench.end(call, Bench::published(at(OLD, 1)));
    bench.mail(&[message(OLD, 1, silent(1, 7)), message(NEW, 1, None)]);
    let lost = gap(NEW, 1, 0, GapReason::EpochChanged);
    let read = RecoveredPage { gap: Some(lost), ..page(vec![message(NEW, 1, None)], at(NEW, 1)) };
    let call = bench.call();
    bench.end(call, Outcome::Filled(Ok(read)));
    assert_eq!(bench.heard(member), ["ack 1/1", "gap 2/0", "message 2/1"]);
}

#[test]
fn a_message_that_falls_into_a_gap_is_acknowledged_behind_it() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 0));
    let call = bench.publish(member, 7);
    bench.end(call, Bench::published(at(OLD, 2)));
    bench.hole();
    let lost = gap(OLD, 1, 3, GapReason::Overflow);
    let call = bench.call();
    let read = RecoveredPage { gap: Some(lost), ..page(Vec::new(), at(OLD, 3)) };
    bench.end(call, Outcome::Filled(Ok(read)));
    assert_eq!(bench.heard(member), ["gap 1/3", "ack 1/2"]);
}

#[test]
fn a_message_of_an_epoch_that_came_and_went_unseen_is_acknowledged_behind_the_gap() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 0));
    let call = bench.publish(member, 7);
    bench.end(call, Bench::published(at(NEW, 1)));
    // An epoch that the slice does not know: it asks.
    let call = bench.call();
    let third = Epoch::from_bits(3);
    let lost = gap(third, 1, 0, GapReason::EpochChanged);
    let read = RecoveredPage { gap: Some(lost), ..page(Vec::new(), at(third, 0)) };
    bench.end(call, Outcome::Filled(Ok(read)));
    assert_eq!(bench.heard(member), ["gap 3/0", "ack 2/1"]);
}

#[test]
fn a_publish_whose_answer_is_lost_is_not_refused_once_its_message_has_come() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 0));
    let call = bench.publish(member, 7);
    bench.mail(&[message(OLD, 1, silent(1, 7))]);
    assert_eq!(bench.heard(member), ["ack 1/1"]);
    let error = PublishError::Unavailable { retry_after: std::time::Duration::from_secs(1) };
    let room = RoomId::parse(ROOM).unwrap();
    let result = Err(PublishRefused::Broker(error));
    bench.end(call, Outcome::Published { result, room, echo: false });
    assert_eq!(bench.heard(member), Vec::<String>::new());
}

#[test]
fn a_message_that_is_read_from_a_log_without_origins_is_acknowledged_in_place_too() {
    let mut bench = Bench::new();
    let member = bench.member(at(OLD, 0));
    let call = bench.publish(member, 7);
    bench.end(call, Bench::published(at(OLD, 1)));
    bench.hole();
    let read = Arc::new(Published::new(Publication {
        origin: None,
        ..message(OLD, 1, silent(1, 7)).publication.clone()
    }));
    let call = bench.call();
    bench.end(call, Outcome::Filled(Ok(page(vec![read], at(OLD, 1)))));
    assert_eq!(bench.heard(member), ["ack 1/1"]);
}

#[test]
fn an_ack_waits_while_its_publisher_joins_and_comes_where_the_message_would() {
    let mut bench = Bench::new();
    let _member = bench.member(at(OLD, 5));
    let joiner = bench.open();
    bench.say(joiner, r#"{"type":"subscribe","id":1,"room":"ROOM"}"#);
    let call = bench.call();
    // The log was read further than the live stream has come.
    bench.end(call, Bench::joined(at(OLD, 6), page(Vec::new(), at(OLD, 6))));
    let call = bench.publish(joiner, 7);
    bench.end(call, Bench::published(at(OLD, 8)));
    assert_eq!(bench.heard(joiner)[1..], ["subscribed 1/6"]);
    bench.mail(&[message(OLD, 6, None), message(OLD, 7, None), message(OLD, 8, silent(2, 7))]);
    assert_eq!(bench.heard(joiner), ["message 1/7", "ack 1/8"]);
}

#[test]
fn a_joiner_learns_of_its_publish_in_an_epoch_that_came_and_went_unseen_too() {
    let mut bench = Bench::new();
    let _member = bench.member(at(OLD, 5));
    let joiner = bench.open();
    bench.say(joiner, r#"{"type":"subscribe","id":1,"room":"ROOM"}"#);
    let call = bench.call();
    bench.end(call, Bench::joined(at(OLD, 6), page(Vec::new(), at(OLD, 6))));
    let call = bench.publish(joiner, 7);
    bench.end(call, Bench::published(at(NEW, 1)));
    let third = Epoch::from_bits(3);
    let lost = gap(third, 1, 0, GapReason::EpochChanged);
    let read = || RecoveredPage { gap: Some(lost), ..page(Vec::new(), at(third, 0)) };
    let fill = bench.call();
    bench.end(fill, Outcome::Filled(Ok(read())));
    let again = bench.call();
    bench.end(again, Outcome::Paged(Ok(read())));
    let fill = bench.call();
    bench.end(fill, Outcome::Filled(Ok(page(Vec::new(), at(third, 0)))));
    assert_eq!(bench.heard(joiner)[2..], ["gap 3/0", "page 3/0", "ack 2/1"]);
}

#[test]
fn whoever_sent_many_messages_of_a_batch_is_looked_for_once_for_each_member() {
    let mut bench = Bench::new();
    let members: Vec<Slot> = (0..3).map(|_| bench.member(at(OLD, 0))).collect();
    bench.shard.set_deliveries_per_step(1);
    let batch: Vec<_> = (1..=20).map(|n| message(OLD, n, silent(1 + n % 2, n))).collect();
    bench.mail(&batch);
    bench.give(Input::Continue);
    let key = bench.shard.rooms.find(&RoomId::parse(ROOM).unwrap()).unwrap();
    let walk = bench.shard.rooms.get(key).unwrap().walk.as_deref().unwrap();
    assert_eq!((walk.frames.len(), walk.silent.len()), (20, 20));
    assert_eq!(walk.silent_slots[..], members[..2]);
    let own = |n: u64| (1..=20).filter(move |m| m % 2 == n).map(|m| format!("message 1/{m}"));
    for (n, member) in (0..).zip(&members[..2]) {
        let heard = bench.heard(*member);
        let messages = heard.iter().filter(|text| text.starts_with("message"));
        assert_eq!(messages.cloned().collect::<Vec<_>>(), own(1 - n).collect::<Vec<_>>());
        assert_eq!(heard.len(), 20, "and an ack in the place of each other");
    }
    assert_eq!(bench.heard(members[2]).len(), 20);
}
