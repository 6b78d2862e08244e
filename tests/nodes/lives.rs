//! In which of its lives a Redis is: what loses nothing begins no new one, and nobody goes back to an old one.

use std::time::Duration;

use broker_redis::Config;
use domain::id::Epoch;
use tests::redis::Redis;

use crate::brokers::{Node, in_time, receive};
use crate::heads;

async fn eager(redis: &Redis) -> Node {
    let probe_interval = Duration::from_millis(20);
    Node::start_with(Config { probe_interval, ..Config::new(redis.url().into()) }).await
}

fn field(redis: &Redis, section: &str, name: &str) -> String {
    let info = redis.ask(&["INFO", section]);
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim_start_matches(':').trim().to_owned()
}

/// How often anybody looked whether its connection is what it was: each look begins with a `PING`.
fn looks(redis: &Redis) -> u64 {
    let stats = field(redis, "commandstats", "cmdstat_ping");
    let calls = stats.strip_prefix("calls=").and_then(|rest| rest.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// Lets both nodes look over both of their connections, and publish meanwhile.
async fn go_on(redis: &Redis, nodes: [&Node; 2]) -> Vec<Epoch> {
    let until = looks(redis) + 16;
    let mut epochs = Vec::new();
    while looks(redis) < until {
        for node in nodes {
            epochs.push(node.say("x").await.expect("nobody is refused").epoch);
            tokio::task::yield_now().await;
        }
    }
    epochs
}

/// A backup by `redis-cli --rdb` is a replica for a moment. The first one, and the end of what was kept for it, give
/// a server's history another id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_or_a_first_replica_ends_no_epoch_and_no_connection() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let nodes = [&eager(&redis).await, &eager(&redis).await];
    let mailbox = nodes[0].mailbox(1).await;
    let first = nodes[0].say("first").await.unwrap().epoch;
    let history = || field(&redis, "replication", "master_replid");
    let before = history();
    redis.tell(&["CONFIG", "SET", "repl-backlog-ttl", "1"]);
    let replica = redis.start_replica(&[]);
    assert_ne!(history(), before, "this server gives its history no other id");
    let mut epochs = go_on(&redis, nodes).await;
    let with_replica = history();
    drop(replica);
    let until_another = async {
        while history() == with_replica {
            epochs.extend(go_on(&redis, nodes).await);
        }
    };
    in_time("what was kept for it is dropped", until_another).await;
    epochs.extend(go_on(&redis, nodes).await);
    assert!(epochs.iter().all(|epoch| *epoch == first), "a new epoch");
    let heard = receive(&mailbox, epochs.len() + 1).await.0;
    assert_eq!(heard.len(), epochs.len() + 1);
}

/// As behind a promotion that one node has noticed and another has not.
#[tokio::test]
async fn who_was_not_told_of_a_server_s_next_life_learns_of_it_and_ends_no_epoch_of_it() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let first = node.say("first").await.unwrap();
    // Somebody has been told of another life, and the room is in it.
    heads::set_life(&redis, "@99999999999999-another");
    let until_taken = async {
        loop {
            node.until_up().await;
            if let Ok(receipt) = node.say("second").await {
                return receipt;
            }
        }
    };
    let second = in_time("it connects anew", until_taken).await;
    assert_ne!(second.epoch, first.epoch);
    let life = heads::life(&redis);
    assert!(life.starts_with("@99999999999999-") && !life.ends_with("another"), "{life}");
    // The process is the same, and so is its life from now on.
    assert_eq!(node.say("third").await.unwrap().epoch, second.epoch);
}

/// Its data may be another's.
#[tokio::test]
async fn a_server_that_has_been_a_replica_is_in_another_life() {
    if !Redis::is_here() {
        return;
    }
    let (redis, other) = (Redis::start(), Redis::start());
    let node = eager(&redis).await;
    let first = node.say("first").await.unwrap();
    let port = other.port().to_string();
    redis.tell(&["REPLICAOF", "127.0.0.1", &port]);
    redis.tell(&["REPLICAOF", "NO", "ONE"]);
    let until_another = async {
        loop {
            node.until_up().await;
            if let Ok(receipt) = node.say("again").await
                && receipt.epoch != first.epoch
            {
                return;
            }
        }
    };
    in_time("the next life begins", until_another).await;
}

/// Its key is gone, by an eviction or with all others, and who is connected knows of it.
#[tokio::test]
async fn a_server_that_has_forgotten_its_life_is_told_it_again() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let nodes = [&eager(&redis).await, &eager(&redis).await];
    let first = nodes[0].say("first").await.unwrap().epoch;
    redis.tell(&["DEL", "roomkeeper:life"]);
    let epochs = go_on(&redis, nodes).await;
    assert!(epochs.iter().all(|epoch| *epoch == first), "a new epoch");
    let late = eager(&redis).await;
    assert_eq!(late.say("by who came later").await.unwrap().epoch, first);
}
