//! A master that sentinels name, and its successor.

use std::time::{Duration, Instant};

use application::testing::broker_contract::{named, publish};
use broker_redis::{Config, RedisBroker, StartError};
use domain::position::Offset;
use tests::redis::Redis;
use tests::redis_many::{MASTER, Sentinels};

use crate::brokers::{
    Node, ROOM, hear_until, impatient, in_time, receive, receive_hole, retry, texts,
};

struct Watched {
    master: Redis,
    replica: Redis,
    sentinels: Sentinels,
}

impl Watched {
    fn start() -> Self {
        let master = Redis::start();
        let replica = master.start_replica(&[]);
        let sentinels = Sentinels::start(&master);
        sentinels.until_ready();
        Self { master, replica, sentinels }
    }
}

/// RD11: killed while two nodes publish. What the replica had is there once, and everybody goes on there.
#[tokio::test]
async fn a_failover_under_load_is_followed_by_all_nodes_and_nothing_is_there_twice() {
    const EACH: usize = 300;
    if !Redis::is_here() {
        return;
    }
    let mut watched = Watched::start();
    let url = watched.sentinels.url();
    let (one, two) =
        (Node::start_with(impatient(url.clone())).await, Node::start_with(impatient(url)).await);
    let mailbox = two.mailbox(1).await;
    let begun = tokio::sync::Barrier::new(3);
    let say = async |node: &Node, who: &str| {
        let mut acked = Vec::new();
        for number in 0..EACH {
            let text = format!("{who}{number}");
            retry(node, || named(publish(ROOM, "u1", &text), &text)).await;
            acked.push(text);
            if number == EACH / 3 {
                begun.wait().await;
            }
        }
        acked
    };
    let fault = async {
        begun.wait().await;
        // So much has been confirmed; what is said from now on may be lost with the master.
        watched.master.tell(&["WAIT", "1", "10000"]);
        watched.master.kill();
    };
    let (a, b, ()) =
        in_time("all is said", async { tokio::join!(say(&one, "a"), say(&two, "b"), fault) }).await;
    assert!(watched.replica.ask(&["ROLE"]).starts_with("master"));
    let page = one.read(0).await;
    let texts = texts(&page);
    for said in [&a, &b] {
        let kept: Vec<_> = texts.iter().filter(|t| said.contains(t)).collect();
        let mut once = kept.clone();
        once.dedup();
        assert_eq!(kept, once);
        let all: Vec<_> = said.iter().filter(|t| texts.contains(t)).collect();
        assert_eq!(kept, all, "in the order in which they were said");
        // All before the fault, and all that was said behind it.
        assert!(all.len() >= 2 * EACH / 3, "{}", all.len());
    }
    let offsets: Vec<_> = page.messages.iter().filter_map(|m| m.publication.offset).collect();
    assert!(offsets.windows(2).all(|pair| pair[1].get() == pair[0].get() + 1));
    // A member there heard all of it, or was told that there is something to look for.
    retry(&one, || publish(ROOM, "u1", "the end")).await;
    let (heard, has_hole) = hear_until(&mailbox, "the end").await;
    let has_all = texts.iter().all(|text| heard.contains(text));
    assert!(has_hole || has_all);
}

/// RD12: the old master was frozen, and wakes believing that it still is one.
#[tokio::test]
async fn a_master_that_wakes_up_behind_its_successor_is_not_gone_back_to() {
    if !Redis::is_here() {
        return;
    }
    let mut watched = Watched::start();
    let node = Node::start_with(impatient(watched.sentinels.url())).await;
    let mailbox = node.mailbox(1).await;
    let before = node.say("1").await.unwrap();
    watched.master.tell(&["WAIT", "1", "10000"]);
    receive(&mailbox, 1).await;
    watched.master.suspend();
    node.until_down().await;
    let after = retry(&node, || named(publish(ROOM, "u1", "2"), "m2")).await;
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(after.offset.map(Offset::get), Some(2));
    watched.master.go_on();
    for text in ["3", "4", "5"] {
        let receipt = retry(&node, || named(publish(ROOM, "u1", text), text)).await;
        assert_eq!(receipt.epoch, after.epoch, "it is the same server all the time");
    }
    assert_eq!(watched.replica.ask(&["LLEN", "roomkeeper:{public:a}:log"]), "5");
}

/// A server may become a replica behind the same name without a word, while nobody publishes.
#[tokio::test]
async fn a_server_that_has_become_a_replica_is_noticed_within_five_seconds_though_nobody_asks_it() {
    if !Redis::is_here() {
        return;
    }
    let (redis, other) = (Redis::start(), Redis::start());
    let node = Node::start(&redis).await;
    let mailbox = node.mailbox(1).await;
    node.say("1").await.unwrap();
    receive(&mailbox, 1).await;
    let begin = Instant::now();
    redis.tell(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    node.until_down().await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    redis.until(&["INFO", "replication"], "master_link_status:up");
    redis.tell(&["REPLICAOF", "NO", "ONE"]);
    node.until_up().await;
    let after = retry(&node, || named(publish(ROOM, "u1", "2"), "m2")).await;
    assert_eq!(after.offset.map(Offset::get), Some(1), "the other one was empty");
    assert!(!receive_hole(&mailbox).await.holes.is_empty());
}

/// A change that sentinels were told to make, with nothing lost and nothing dead.
#[tokio::test]
async fn a_failover_that_an_operator_orders_is_followed() {
    if !Redis::is_here() {
        return;
    }
    let watched = Watched::start();
    let node = Node::start_with(impatient(watched.sentinels.url())).await;
    let before = node.say("1").await.unwrap();
    watched.master.tell(&["WAIT", "1", "10000"]);
    let answer = watched.sentinels.ask(&["SENTINEL", "FAILOVER", MASTER]);
    assert_eq!(answer.trim(), "OK");
    watched.replica.until(&["ROLE"], "master");
    let followed = async {
        loop {
            let receipt = retry(&node, || named(publish(ROOM, "u1", "2"), "m2")).await;
            if receipt.epoch != before.epoch
                && watched.replica.ask(&["LLEN", "roomkeeper:{public:a}:log"]) == "2"
            {
                return;
            }
        }
    };
    in_time("it is followed", followed).await;
}

#[tokio::test]
async fn one_sentinel_is_enough_and_a_password_of_theirs_is_their_own() {
    if !Redis::is_here() {
        return;
    }
    let master = Redis::start_with(&["--save", "", "--requirepass", "of-redis"]);
    let more = format!("requirepass of-sentinels\nsentinel auth-pass {MASTER} of-redis");
    let mut sentinels = Sentinels::start_with(&master, &more);
    sentinels.kill_all_but(1);
    let config = Config {
        password: Some("of-redis".into()),
        sentinel_password: Some("of-sentinels".into()),
        ..impatient(sentinels.url())
    };
    let node = Node::start_with(config.clone()).await;
    node.say("1").await.unwrap();
    let start = async |config| {
        let broker =
            RedisBroker::build(config, std::sync::Arc::new(crate::brokers::Counter)).unwrap();
        broker.try_connect().await.unwrap_err()
    };
    let wrong = Config { sentinel_password: Some("wrong".into()), ..config.clone() };
    assert!(matches!(start(wrong).await, StartError::Unfit(text) if text.contains("password")));
    let unknown = Config { url: sentinels.url().replace(MASTER, "nobody").into(), ..config };
    assert!(matches!(start(unknown).await, StartError::Unfit(text) if text.contains("no master")));
}
