//! What happens to nodes and to Redis, with 500 clients in 50 rooms and 2,000 publishes a second.

use std::time::Duration;

use tests::redis::Redis;
use tests::redis_many::Sentinels;

use crate::story::{Cluster, Told, until_status};

/// How long after a fault a list may still be wrong.
const PRESENCE_MAX: Duration = Duration::from_secs(10);

/// Says what came of it, for whoever reads the output.
#[allow(clippy::print_stdout, reason = "figures for whoever runs it")]
fn report(fault: &str, told: &Told, gaps: usize) {
    println!(
        "{{\"fault\":\"{fault}\",\"acknowledged\":{},\"losses\":{},\"refused\":{},\"gaps\":{gaps},\"presence_true_after_s\":{:.1},\"seconds\":{:.1}}}",
        told.acked(),
        told.losses,
        told.refused,
        told.presence_true_after.as_secs_f64(),
        told.took.as_secs_f64()
    );
    assert!(told.presence_true_after < PRESENCE_MAX, "{:?}", told.presence_true_after);
}

/// N01, D06: its clients come back on other nodes and have missed nothing.
#[test]
fn a_node_that_is_killed_loses_nobody_a_message() {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start(Redis::start());
    let told = cluster.tell(|_, nodes| nodes[0].kill());
    let gaps = told.check();
    report("kill a node", &told, gaps);
    assert_eq!(gaps, 0);
    assert!(told.losses > 100, "{}", told.losses);
}

/// N02, N05: one after another, and each is back before the next goes.
#[test]
fn a_rolling_restart_of_all_nodes_loses_nobody_a_message() {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start(Redis::start());
    let told = cluster.tell(|_, nodes| {
        for node in nodes {
            node.terminate();
            assert_eq!(node.wait().code, Some(0));
            node.restart();
        }
    });
    let gaps = told.check();
    report("rolling restart", &told, gaps);
    assert_eq!(gaps, 0);
}

/// RD02, RD11: what it acknowledged was on disk.
#[test]
fn a_redis_that_is_killed_and_comes_back_with_its_data_loses_nobody_a_message() {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start(Redis::start_on_disk());
    let told = cluster.tell(|redis, _| redis.start_again());
    let gaps = told.check();
    report("kill redis, with a disk", &told, gaps);
    assert_eq!(gaps, 0);
}

/// RD13: all of it is lost, and everybody is told so.
#[test]
fn a_redis_that_comes_back_empty_is_a_gap_for_everybody_and_rooms_go_on() {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start(Redis::start());
    let told = cluster.tell(|redis, _| redis.start_again());
    let gaps = told.check();
    report("kill redis, without a disk", &told, gaps);
    assert!(gaps > 0);
}

/// RD11, RD12: sentinels promote its replica, and it never comes back.
#[test]
fn a_redis_that_dies_is_followed_to_the_replica_that_sentinels_promote() {
    if !Redis::is_here() {
        return;
    }
    let master = Redis::start();
    let replica = master.start_replica(&[]);
    let sentinels = Sentinels::start(&master);
    sentinels.until_ready();
    let mut cluster = Cluster::start_at(&sentinels.url(), master);
    let told = cluster.tell(|redis, _| redis.kill());
    // What was acknowledged and had not been copied is lost with it, and told.
    let gaps = told.check();
    report("promote a replica", &told, gaps);
    assert!(replica.ask(&["ROLE"]).starts_with("master"));
}

/// RD03: whatever was sent to it while it slept happens once.
#[test]
fn a_redis_that_is_frozen_and_wakes_loses_nobody_a_message() {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start(Redis::start());
    let told = cluster.tell(|redis, nodes| {
        redis.suspend();
        // Until every node has noticed.
        for node in &*nodes {
            until_status(node, 503);
        }
        redis.go_on();
    });
    let gaps = told.check();
    report("freeze redis", &told, gaps);
    // How many were refused meanwhile is the clients' pace: what was under way is repeated by them unseen.
    assert_eq!(gaps, 0);
}
