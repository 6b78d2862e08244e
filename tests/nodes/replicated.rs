//! Rooms whose acknowledgement waits for replicas.

use std::sync::Arc;
use std::time::Duration;

use application::ports::{Broker, PublishError, Receipt};
use application::testing::broker_contract::{named, policy, publish};
use broker_redis::Config;
use domain::delivery::Class;
use domain::message::Publish;
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::Offset;
use domain::retention::Retention;
use tests::redis::Redis;

use crate::brokers::{Node, ROOM, impatient, in_time, receive};

fn replicated() -> Arc<NamespacePolicy> {
    let policy = policy(Retention::default());
    Arc::new(NamespacePolicy { replicated: true, ..NamespacePolicy::clone(&policy) })
}

async fn say(node: &Node, publish: Publish) -> Result<Receipt, PublishError> {
    let broker: &dyn Broker = &*node.broker;
    in_time("it is answered", broker.publish(publish, &replicated())).await
}

fn message(text: &str) -> Publish {
    named(publish(ROOM, "u1", text), text)
}

async fn until_taken(node: &Node, publish: impl Fn() -> Publish) -> Receipt {
    in_time("it is taken", async {
        loop {
            node.until_up().await;
            if let Ok(receipt) = say(node, publish()).await {
                return receipt;
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_is_answered_as_replicated_is_on_the_replica_and_survives_the_master() {
    const MANY: usize = 300;
    if !Redis::is_here() {
        return;
    }
    let mut master = Redis::start();
    let replica = master.start_replica(&[]);
    let node = Node::start_with(impatient(master.url())).await;
    let mailbox = node.mailbox(1).await;
    let one = say(&node, message("one")).await.unwrap();
    assert_eq!((one.level, one.offset.map(Offset::get)), (AckLevel::Replicated, Some(1)));
    master.tell(&["CONFIG", "RESETSTAT"]);
    let texts: Vec<_> = (0..MANY).map(|n| n.to_string()).collect();
    let all = texts.iter().map(|text| say(&node, message(text)));
    let all = futures_util::future::join_all(all).await;
    // At once, and nothing more is copied.
    master.kill();
    replica.tell(&["REPLICAOF", "NO", "ONE"]);
    let acked = all.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(acked, MANY);
    assert!(all.iter().flatten().all(|receipt| receipt.level == AckLevel::Replicated));
    assert_eq!(replica.ask(&["LLEN", "roomkeeper:{public:a}:log"]), (MANY + 1).to_string());
    receive(&mailbox, MANY + 1).await;
}

/// Of many at once each batch waits once.
#[tokio::test]
async fn replicas_are_waited_for_by_batches_and_what_has_no_place_does_not_wait() {
    const MANY: usize = 500;
    if !Redis::is_here() {
        return;
    }
    let master = Redis::start();
    let _replica = master.start_replica(&[]);
    let node = Node::start_with(impatient(master.url())).await;
    master.tell(&["CONFIG", "RESETSTAT"]);
    let texts: Vec<_> = (0..MANY).map(|n| n.to_string()).collect();
    let all = futures_util::future::join_all(texts.iter().map(|t| say(&node, message(t)))).await;
    assert!(all.iter().all(Result::is_ok));
    let waits = |master: &Redis| {
        let stats = master.ask(&["INFO", "commandstats"]);
        let line = stats.lines().find(|line| line.starts_with("cmdstat_wait:"));
        line.and_then(|l| l.split(['=', ',']).nth(1)).map_or(0, |n| n.parse::<usize>().unwrap())
    };
    assert!((1..=MANY / 20).contains(&waits(&master)), "{}", waits(&master));
    let before = waits(&master);
    let light = Publish { class: Class::Droppable, ..message("light") };
    assert_eq!(say(&node, light).await.unwrap().level, AckLevel::Accepted);
    assert_eq!(waits(&master), before);
}

#[tokio::test]
async fn without_its_replica_nothing_is_answered_as_replicated_and_a_retry_behind_its_return_is_one_message()
 {
    if !Redis::is_here() {
        return;
    }
    let master = Redis::start();
    let mut replica = master.start_replica(&[]);
    let config =
        Config { replication_timeout: Duration::from_millis(200), ..impatient(master.url()) };
    let node = Node::start_with(config.clone()).await;
    let other = Node::start_with(config).await;
    say(&node, message("1")).await.unwrap();
    // Frozen: the master believes that it is there.
    replica.suspend();
    for _ in 0..3 {
        let answer = say(&node, message("2")).await;
        assert!(matches!(answer, Err(PublishError::Unavailable { .. })), "{answer:?}");
    }
    assert_eq!(master.ask(&["LLEN", "roomkeeper:{public:a}:log"]), "2");
    // A message that was written over another connection is not confirmed either.
    let answer = say(&other, message("2")).await;
    assert!(matches!(answer, Err(PublishError::Unavailable { .. })), "{answer:?}");
    // A room that waits for nobody goes on.
    assert_eq!(node.say("not waiting").await.unwrap().level, AckLevel::Accepted);
    replica.go_on();
    let receipt = until_taken(&other, || message("2")).await;
    assert_eq!((receipt.level, receipt.duplicate), (AckLevel::Replicated, true));
    assert_eq!(receipt.offset.map(Offset::get), Some(2));
    assert_eq!(replica.ask(&["LLEN", "roomkeeper:{public:a}:log"]), "3");
    replica.kill();
    let answer = say(&node, message("3")).await;
    assert!(matches!(answer, Err(PublishError::Unavailable { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_master_that_restarts_is_waited_with_again() {
    if !Redis::is_here() {
        return;
    }
    let mut master = Redis::start_on_disk();
    let replica = master.start_replica(&[]);
    let node = Node::start_with(impatient(master.url())).await;
    let before = say(&node, message("1")).await.unwrap();
    master.start_again();
    let after = until_taken(&node, || message("2")).await;
    assert_eq!((after.level, after.offset.map(Offset::get)), (AckLevel::Replicated, Some(2)));
    assert_ne!(after.epoch, before.epoch);
    let again = until_taken(&node, || message("3")).await;
    assert_eq!(again.epoch, after.epoch, "both connections know the same server");
    assert_eq!(replica.ask(&["LLEN", "roomkeeper:{public:a}:log"]), "3");
}
