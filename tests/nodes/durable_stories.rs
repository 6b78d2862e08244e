//! What happens to nodes, to Redis and to Postgres while 500 clients publish in 50 durable rooms: whatever it is,
//! what was acknowledged is there, once and in order.
//!
//! What everybody heard is checked as in other stories; beside that it is looked into Postgres itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tests::postgres::Postgres;
use tests::redis::Redis;
use tests::server::Server;

use crate::fleet::{Cluster, DEADLINE, stays_unready, until_status};
use crate::stories::{away, cut_off, kill_all, promote, report, restart_all};
use crate::tiny_disk::TinyDisk;
use crate::told::Told;

fn is_possible() -> bool {
    Redis::is_here() && Postgres::is_here()
}

fn start() -> Cluster {
    Cluster::start_durable(Redis::start(), Postgres::start())
}

/// Everything that was acknowledged was heard, whatever gaps were told, and lies in Postgres at its place, once. A
/// place whose publish could not be stored is told as a gap, and nobody was told that it was.
fn check(fault: &str, cluster: &Cluster, told: &Told) {
    let (gaps, twice) = told.check_kept("durable");
    let postgres = cluster.postgres.as_ref().unwrap();
    let rows = postgres.ask(
        "SELECT r.room || ' ' || m.msg_offset || ' ' || m.msg_id \
         FROM roomkeeper.messages m JOIN roomkeeper.rooms r ON r.id = m.room_id WHERE m.msg_id IS NOT NULL",
    );
    let mut stored = BTreeMap::new();
    let mut places = BTreeSet::new();
    for row in rows.lines() {
        let [room, offset, name] = row.split(' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let before = stored.insert(name, (room, offset.parse::<u64>().unwrap()));
        assert!(before.is_none(), "it is there twice: {row} and {before:?}");
        places.insert((room, offset.parse::<u64>().unwrap()));
    }
    for acked in &told.acked {
        let room = format!("public:story/{}", acked.room);
        let place = Some((room.as_str(), acked.offset));
        assert_eq!(stored.get(acked.msg_id.as_str()).copied(), place, "{acked:?}");
    }
    // Whoever published it never heard where it lay, as Redis died over it, and said it again.
    for heard in &twice {
        let room = format!("public:story/{}", heard.room);
        let (before, again) = heard.offsets;
        let was_stored = places.contains(&(room.as_str(), before));
        assert!(
            !was_stored,
            "{} lay at {before} of {room} and was heard again at {again}",
            heard.data
        );
    }
    report(fault, told, gaps);
}

/// Waits until each node says that it misses Postgres.
fn until_store_is_missed(nodes: &[Server]) {
    nodes.iter().for_each(|node| until_status(node, 503));
}

/// N01, D06 in durable rooms.
#[test]
fn a_node_that_is_killed_costs_durable_rooms_nothing() {
    if !is_possible() {
        return;
    }
    let mut cluster = start();
    let told = cluster.tell(|cluster| cluster.nodes[0].kill());
    check("durable: kill a node", &cluster, &told);
    assert!(told.losses > 100, "{}", told.losses);
}

/// RD03 in durable rooms.
#[test]
fn a_redis_that_is_frozen_for_ten_seconds_costs_durable_rooms_nothing() {
    if !is_possible() {
        return;
    }
    let mut cluster = start();
    let told = cluster.tell(|cluster| {
        cluster.redis.suspend();
        cluster.nodes.iter().for_each(|node| until_status(node, 503));
        stays_unready(&cluster.nodes[0], away());
        cluster.redis.go_on();
    });
    check("durable: freeze redis", &cluster, &told);
}

/// RD13 in durable rooms: only who had read what was never acknowledged is told of a gap.
#[test]
fn a_redis_that_comes_back_empty_costs_durable_rooms_nothing_that_was_acknowledged() {
    if !is_possible() {
        return;
    }
    let mut cluster = start();
    let told = cluster.tell(|cluster| cluster.redis.start_again());
    check("durable: kill redis, without a disk", &cluster, &told);
}

/// N02 in durable rooms: each goes in order, and is back before the next one does.
#[test]
fn a_rolling_restart_of_all_nodes_costs_durable_rooms_nothing() {
    if !is_possible() {
        return;
    }
    let mut cluster = start();
    let told = cluster.tell(|cluster| restart_all(cluster, |_| {}));
    check("durable: rolling restart", &cluster, &told);
    assert!(told.leaves.is_empty(), "{:?}", told.seen_to_leave());
    assert_eq!(told.codes.keys().copied().collect::<Vec<_>>(), [1012], "{:?}", told.codes);
}

/// N07 in durable rooms: nobody is left, and what was acknowledged is in Postgres.
#[test]
fn nodes_that_are_all_killed_at_once_and_started_again_cost_durable_rooms_nothing() {
    if !is_possible() {
        return;
    }
    let mut cluster = start();
    let told = cluster.tell(kill_all);
    check("durable: kill all nodes", &cluster, &told);
    assert!(told.losses > 400, "{}", told.losses);
}

/// RD16 in durable rooms: Postgres has the node, and Redis has not.
#[test]
fn a_node_whose_way_to_redis_is_shut_costs_durable_rooms_nothing() {
    if !is_possible() {
        return;
    }
    let mut cluster = Cluster::start_durable_behind_proxies(Redis::start(), Postgres::start());
    let told = cluster.tell(|cluster| cut_off(cluster, crate::passage::Passage::shut));
    check("durable: shut a node off redis", &cluster, &told);
    assert_eq!(told.losses, 0, "clients stay: {:?}", told.codes);
}

/// RD11 in durable rooms: what the old one took last is in Postgres where it was acknowledged.
#[test]
fn a_replica_that_is_promoted_without_the_last_writes_costs_durable_rooms_nothing_acknowledged() {
    if !is_possible() {
        return;
    }
    let redis = Redis::start();
    let replica = redis.start_replica(&[]);
    let mut cluster = Cluster::start_durable_behind_proxies(redis, Postgres::start());
    let told = cluster.tell(|cluster| promote(cluster, &replica));
    check("durable: promote a replica", &cluster, &told);
    assert_eq!(told.losses, 0, "clients stay: {:?}", told.codes);
}

/// PG01: stopped in order, and started again. Connections stay.
#[test]
fn a_postgres_that_is_stopped_and_started_again_has_what_was_acknowledged() {
    if !is_possible() {
        return;
    }
    let mut cluster = start();
    let told = cluster.tell(|cluster| {
        let postgres = cluster.postgres.as_mut().unwrap();
        postgres.stop();
        until_store_is_missed(&cluster.nodes);
        postgres.start_again();
        cluster.nodes.iter().for_each(|node| until_status(node, 200));
    });
    check("durable: stop postgres", &cluster, &told);
    assert_eq!(told.losses, 0);
}

/// PG02, while 500 clients publish: for ten seconds.
#[test]
fn a_postgres_that_is_frozen_for_ten_seconds_and_wakes_has_what_was_acknowledged() {
    if !is_possible() {
        return;
    }
    let mut cluster = start();
    let told = cluster.tell(|cluster| {
        let postgres = cluster.postgres.as_mut().unwrap();
        postgres.suspend();
        until_store_is_missed(&cluster.nodes);
        stays_unready(&cluster.nodes[0], away());
        postgres.go_on();
        cluster.nodes.iter().for_each(|node| until_status(node, 200));
    });
    check("durable: freeze postgres", &cluster, &told);
    assert_eq!(told.losses, 0);
}

/// PG04: the tables' disk is full, and later has room again. No restart is needed.
#[test]
fn a_postgres_whose_disk_is_full_refuses_and_goes_on_with_what_was_acknowledged() {
    if !is_possible() {
        return;
    }
    let Some(disk) = TinyDisk::mount(64) else { return };
    let postgres = Postgres::start();
    let url = disk.given_to(&postgres);
    let mut cluster = Cluster::start_durable_at(&url, Redis::start(), postgres);
    let told = cluster.tell(|cluster| {
        disk.fill();
        for node in &cluster.nodes {
            let begin = Instant::now();
            while !node.log().contains("No space left on device") {
                assert!(begin.elapsed() < DEADLINE, "it is never full: {}", node.log());
            }
        }
        disk.make_room();
    });
    // Who has read what could not be stored may be told of a gap; what was acknowledged is in none.
    check("durable: fill the disk of postgres", &cluster, &told);
    assert_eq!(told.losses, 0);
}
