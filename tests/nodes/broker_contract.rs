//! The broker on Redis against the contracts of its ports, each part with a server of its own, and what
//! holds between two nodes.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use application::mailbox::Mailbox;
use application::ports::Broker;
use application::testing::broker_contract::{MAIL_MAX, named, publish};
use application::testing::erasure_contract::ErasureContract;
use domain::delivery::Class;
use domain::message::Publish;
use tests::redis::Redis;

use crate::brokers::{Alone, Node, ROOM, in_time, receive};

async fn alone() -> Arc<dyn Broker> {
    Alone::start().await
}

async fn where_redis_is(part: impl Future<Output = ()>) {
    if Redis::is_here() {
        in_time("the contract", part).await;
    }
}

application::broker_contract_tests!(
    super::broker_contract::alone,
    super::broker_contract::where_redis_is
);

#[tokio::test]
async fn erasures_keep_the_contract() {
    if !Redis::is_here() {
        return;
    }
    let broker = Alone::start().await;
    let contract = ErasureContract { broker: &*broker, erasure: &*broker, durable: false };
    in_time("the contract", contract.check()).await;
}

#[tokio::test]
async fn publishers_on_two_nodes_see_one_order_and_every_node_gets_all_of_it() {
    const EACH: usize = 200;
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (Node::start(&redis).await, Node::start(&redis).await);
    let (at_one, at_two) = (one.mailbox(1).await, two.mailbox(2).await);
    let say = async |node: &Node, who: &str| {
        for number in 0..EACH {
            node.say(&format!("{who}{number}")).await.unwrap();
        }
    };
    tokio::join!(say(&one, "a"), say(&two, "b"));
    let (all_one, hole_one) = receive(&at_one, 2 * EACH).await;
    let (all_two, hole_two) = receive(&at_two, 2 * EACH).await;
    assert_eq!((hole_one, hole_two), (false, false));
    assert_eq!(all_one, all_two);
    assert!(all_one.iter().map(|(offset, _)| *offset).eq(1..=2 * EACH as u64));
    for who in ["a", "b"] {
        let own = all_one.iter().filter(|(_, text)| text.starts_with(who));
        let expected = (0..EACH).map(|number| format!("{who}{number}"));
        assert!(own.map(|(_, text)| text.clone()).eq(expected), "{who}'s own order");
    }
}

#[tokio::test]
async fn a_publish_that_is_repeated_over_another_node_is_one_message() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (Node::start(&redis).await, Node::start(&redis).await);
    let at_two = two.mailbox(1).await;
    let first = one.publish(named(publish(ROOM, "u1", "once"), "m1")).await.unwrap();
    let again = two.publish(named(publish(ROOM, "u1", "once"), "m1")).await.unwrap();
    assert_eq!((again.epoch, again.offset), (first.epoch, first.offset));
    assert!(again.duplicate && !first.duplicate);
    one.say("end").await.unwrap();
    let (all, _) = receive(&at_two, 2).await;
    assert_eq!(all, [(1, "once".to_owned()), (2, "end".to_owned())]);
}

#[tokio::test]
async fn what_has_no_offset_reaches_other_nodes_and_who_subscribes_there_later_meets_the_newest() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (Node::start(&redis).await, Node::start(&redis).await);
    let at_two = two.mailbox(1).await;
    for class in [Class::Latest, Class::Droppable] {
        let sent = Publish { class, ..publish(ROOM, "u1", class.word()) };
        assert_eq!(one.publish(sent).await.unwrap().offset, None);
    }
    let (all, _) = receive(&at_two, 2).await;
    assert_eq!(all, [(0, "latest".to_owned()), (0, "droppable".to_owned())]);
    let late = Arc::new(Mailbox::new(2, MAIL_MAX));
    let top = two.subscribe(&late, ROOM, 1).await.unwrap();
    assert_eq!(top.latest.len(), 1);
}

/// RD08, RD09: whatever comes and goes, in the end the channels are those that somebody needs.
#[tokio::test]
async fn channels_are_those_of_the_rooms_in_use_however_they_come_and_go() {
    if !Redis::is_here() {
        return;
    }
    const ROOMS: u64 = 40;
    let redis = Redis::start();
    let node = &Node::start(&redis).await;
    let mailbox = &Arc::new(Mailbox::new(1, MAIL_MAX));
    let name = |number| format!("public:r{number}");
    // Each room comes and goes some times, all at the same time; every third one stays.
    let churn = async |number: u64| {
        for token in 1..=20 {
            node.subscribe(mailbox, &name(number), token).await.unwrap();
            if token < 20 || !number.is_multiple_of(3) {
                node.unsubscribe(mailbox, &name(number), token).await;
            }
        }
    };
    let all: Vec<_> = (0..ROOMS).map(|number| Box::pin(churn(number))).collect();
    in_time("the churn", futures_util::future::join_all(all)).await;
    let wanted: BTreeSet<_> = (0..ROOMS)
        .filter(|n| n.is_multiple_of(3))
        .map(|n| format!("roomkeeper/0:{{{}}}", name(n)))
        .collect();
    let look = async {
        loop {
            let channels = redis.ask(&["PUBSUB", "CHANNELS"]);
            let of_rooms = channels.lines().filter(|name| !name.ends_with(":news"));
            let channels: BTreeSet<_> = of_rooms.map(str::to_owned).collect();
            if channels == wanted {
                return;
            }
            // What was asked last may be on its way.
            tokio::task::yield_now().await;
        }
    };
    in_time("the channels are those", look).await;
    // And they are heard: one message each, in rooms that had gone and come back.
    for number in (0..ROOMS).filter(|n| n.is_multiple_of(3)) {
        node.publish(publish(&name(number), "u1", "x")).await.unwrap();
    }
    let (all, hole) = receive(mailbox, wanted.len()).await;
    assert_eq!((all.len(), hole), (wanted.len(), false));
}

#[tokio::test]
async fn every_key_of_a_room_runs_out_when_nobody_uses_it() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let latest = Publish { class: Class::Latest, ..publish(ROOM, "u1", "l") };
    node.publish(latest).await.unwrap();
    node.publish(named(publish(ROOM, "u1", "r"), "m1")).await.unwrap();
    // One that somebody only looked into.
    let mailbox = Arc::new(Mailbox::new(1, MAIL_MAX));
    node.subscribe(&mailbox, "public:b", 1).await.unwrap();
    let keys = redis.ask(&["KEYS", "*{public:*"]);
    assert_eq!(keys.lines().count(), 6, "{keys}");
    for key in keys.lines() {
        let left: i64 = redis.ask(&["PTTL", key]).parse().unwrap();
        assert!(left > 0, "{key} stays for ever");
    }
}
