//! What happens to nodes and to Redis, with 500 clients in 50 rooms that publish 2,000 messages a second: in
//! `tests/faults`, that is; unoptimised servers and clients on two cores get to some 1,600.

use std::time::{Duration, SystemTime};

use tests::redis::Redis;
use tests::redis_many::Sentinels;
use tests::server::Server;

use crate::fleet::{Cluster, stays_unready, until_status};
use crate::passage::Passage;
use crate::told::Told;

/// `tests/faults` has servers and clients optimised.
const IS_UNOPTIMISED: bool = cfg!(debug_assertions);
/// How many times the even share may come back in one second of a rolling restart. The goal is 1.2, which an
/// unoptimised server on a machine that is busy with something else misses.
const PEAK_MAX: f64 = if IS_UNOPTIMISED { 1.5 } else { 1.2 };
/// How long after a fault a list may still be wrong.
const PRESENCE_MAX: Duration = Duration::from_secs(10);
/// What a node may have more of afterwards, which its allocator keeps: clients of another node, and some queues.
const RSS_GROWTH_MIB: u64 = 48;
/// How long what is not killed is away; `ROOMKEEPER_AWAY_SECONDS=60` has it away for so long.
pub(crate) fn away() -> Duration {
    let seconds = std::env::var("ROOMKEEPER_AWAY_SECONDS");
    Duration::from_secs(seconds.map_or(10, |seconds| seconds.parse().unwrap()))
}

/// How many publishes a second must be acknowledged before anything happens; `ROOMKEEPER_PACE_MIN=0` where others use
/// the machine, too.
fn pace_min() -> f64 {
    std::env::var("ROOMKEEPER_PACE_MIN").map_or(1_800.0, |least| least.parse().unwrap())
}

/// Says what came of it, for whoever reads the output.
#[allow(clippy::print_stdout, reason = "figures for whoever runs it")]
pub(crate) fn report(fault: &str, told: &Told, gaps: usize) {
    println!(
        "{{\"fault\":\"{fault}\",\"per_second\":{:.0},\"acknowledged\":{},\"losses\":{},\"refused\":{},\"gaps\":{gaps},\"visits\":{},\"rss_mib\":[{},{}],\"presence_true_after_s\":{:.1},\"seconds\":{:.1}}}",
        told.per_second,
        told.acked.len(),
        told.losses,
        told.refused,
        told.visits,
        told.rss_mib.0,
        told.rss_mib.1,
        told.presence_true_after.as_secs_f64(),
        told.took.as_secs_f64()
    );
    // Unoptimised, the clients alone take more than one processor.
    assert!(IS_UNOPTIMISED || told.per_second > pace_min(), "{} a second", told.per_second);
    assert!(told.presence_true_after < PRESENCE_MAX, "{:?}", told.presence_true_after);
    let (before, after) = told.rss_mib;
    assert!(after < before + RSS_GROWTH_MIB, "memory did not go back: {before} MiB, {after} MiB");
}

/// N01, D06: its clients come back on other nodes and have missed nothing.
#[test]
fn a_node_that_is_killed_loses_nobody_a_message() {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start(Redis::start());
    let told = cluster.tell(|cluster| cluster.nodes[0].kill());
    let gaps = told.check();
    report("kill a node", &told, gaps);
    assert_eq!(gaps, 0);
    assert!(told.losses > 100, "{}", told.losses);
}

/// Restarts one node after another, each in order, and tells when each began to go.
pub(crate) fn restart_all(cluster: &mut Cluster, mut begins: impl FnMut(i64)) {
    for node in &mut cluster.nodes {
        begins(now());
        node.terminate();
        assert_eq!(node.wait().code, Some(0));
        node.restart();
        until_status(node, 200);
    }
}

/// N02, and N05 with one version: one after another, each back before the next goes. Nobody's connection ends
/// without a word, nobody is seen to leave, and those who come back do so over the whole of each window.
#[test]
fn a_rolling_restart_of_all_nodes_loses_nobody_a_message_and_is_no_storm() {
    if !Redis::is_here() {
        return;
    }
    let window = Duration::from_secs(6);
    let mut cluster = Cluster::start_with(Redis::start(), window);
    let mut begun = Vec::new();
    let told = cluster.tell(|cluster| restart_all(cluster, |at| begun.push(at)));
    let gaps = told.check();
    report("rolling restart", &told, gaps);
    let peaks = peaks(&told, &begun, window);
    assert_eq!(gaps, 0, "{peaks:?}");
    assert!(told.leaves.is_empty(), "{:?}, {peaks:?}", told.seen_to_leave());
    assert_eq!(told.codes.keys().copied().collect::<Vec<_>>(), [1012], "{:?}", told.codes);
    for peak in &peaks {
        assert!(peak.n_back > 100, "{peaks:?}");
        assert!(peak.of_a_second as f64 <= PEAK_MAX * peak.even, "{peaks:?}");
    }
}

/// How many came back while one node went.
#[derive(Debug)]
#[allow(dead_code, reason = "shown when a test fails")]
struct Peak {
    n_back: usize,
    /// In each second, were they spread evenly over the window.
    even: f64,
    /// In the busiest second, wherever that begins.
    of_a_second: usize,
    /// In the busiest tenth of a second.
    of_a_tenth: usize,
    /// How many were told to go in the busiest second.
    gone_of_a_second: usize,
}

/// By when nodes greeted those who came back, when connections ended, and when each node began to go.
#[allow(clippy::print_stdout, reason = "figures for whoever runs it")]
fn peaks(told: &Told, begun: &[i64], window: Duration) -> Vec<Peak> {
    let at: Vec<_> = told.back.iter().map(|text| millis(text)).collect();
    let gone: Vec<_> = told.gone.iter().map(|at| since_1970(*at)).collect();
    let ends = begun.iter().skip(1).copied().chain([i64::MAX]);
    let peaks: Vec<_> = begun
        .iter()
        .zip(ends)
        .map(|(from, to)| {
            let of_it = |all: &[i64]| -> Vec<i64> {
                all.iter().copied().filter(|at| (*from..to).contains(at)).collect()
            };
            let busiest = |all: &[i64], span: i64| {
                let within =
                    |begin: i64| all.iter().filter(|at| (begin..begin + span).contains(at)).count();
                all.iter().map(|at| within(*at)).max().unwrap_or(0)
            };
            let (back, gone) = (of_it(&at), of_it(&gone));
            Peak {
                n_back: back.len(),
                even: back.len() as f64 / window.as_secs_f64(),
                of_a_second: busiest(&back, 1_000),
                of_a_tenth: busiest(&back, 100),
                gone_of_a_second: busiest(&gone, 1_000),
            }
        })
        .collect();
    println!("{peaks:?}");
    peaks
}

/// Milliseconds since 1970.
fn now() -> i64 {
    since_1970(SystemTime::now())
}

fn since_1970(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// The same of a server's timestamp, `2026-11-21T10:57:19.466Z`, of today or yesterday.
fn millis(text: &str) -> i64 {
    const DAY_MS: i64 = 86_400_000;
    let number = |at: std::ops::Range<usize>| text[at].parse::<i64>().unwrap();
    let of_day =
        ((number(11..13) * 60 + number(14..16)) * 60 + number(17..19)) * 1_000 + number(20..23);
    let today = now() / DAY_MS * DAY_MS + of_day;
    if today > now() + 60_000 { today - DAY_MS } else { today }
}

/// RD02, RD11: what it acknowledged was on disk.
#[test]
fn a_redis_that_is_killed_and_comes_back_with_its_data_loses_nobody_a_message() {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start(Redis::start_on_disk());
    let told = cluster.tell(|cluster| cluster.redis.start_again());
    let gaps = told.check();
    report("kill redis, with a disk", &told, gaps);
    assert_eq!((gaps, told.losses), (0, 0), "connections stay: {:?}", told.codes);
}

/// RD13: all of it is lost, and everybody is told so.
#[test]
fn a_redis_that_comes_back_empty_is_a_gap_for_everybody_and_rooms_go_on() {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start(Redis::start());
    let told = cluster.tell(|cluster| cluster.redis.start_again());
    let gaps = told.check();
    report("kill redis, without a disk", &told, gaps);
    assert!(gaps > 0);
    assert_eq!(told.losses, 0, "connections stay: {:?}", told.codes);
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
    let told = cluster.tell(|cluster| cluster.redis.kill());
    // What was acknowledged and had not been copied is lost with it, and told.
    let gaps = told.check();
    report("sentinels promote a replica", &told, gaps);
    assert!(replica.ask(&["ROLE"]).starts_with("master"));
}

/// RD03: whatever was sent to it while it slept happens once.
#[test]
fn a_redis_that_is_frozen_for_ten_seconds_and_wakes_loses_nobody_a_message() {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start(Redis::start());
    let told = cluster.tell(|cluster| {
        cluster.redis.suspend();
        for node in &cluster.nodes {
            until_status(node, 503);
        }
        stays_unready(&cluster.nodes[0], away());
        cluster.redis.go_on();
    });
    let gaps = told.check();
    report("freeze redis", &told, gaps);
    // How many were refused meanwhile is the clients' pace: what was under way is repeated by them unseen.
    assert_eq!((gaps, told.losses), (0, 0), "connections stay: {:?}", told.codes);
}

/// Kills all nodes at once, and starts them again.
pub(crate) fn kill_all(cluster: &mut Cluster) {
    cluster.nodes.iter_mut().for_each(Server::kill);
    cluster.nodes.iter_mut().for_each(Server::restart);
}

/// N07: nobody is left, and everything is in Redis.
#[test]
fn nodes_that_are_all_killed_at_once_and_started_again_lose_nobody_a_message() {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start(Redis::start());
    let told = cluster.tell(kill_all);
    let gaps = told.check();
    report("kill all nodes", &told, gaps);
    assert_eq!(gaps, 0);
    assert!(told.losses > 400, "{}", told.losses);
}

/// Cuts one node's way to Redis, until it has noticed and some time has passed.
pub(crate) fn cut_off(cluster: &mut Cluster, cut: impl FnOnce(&Passage)) {
    cut(&cluster.proxies[0]);
    until_status(&cluster.nodes[0], 503);
    stays_unready(&cluster.nodes[0], away());
    cluster.proxies[0].open();
    until_status(&cluster.nodes[0], 200);
}

/// Its clients stay, are refused what they publish, and miss nothing.
fn cut_off_in_vain(name: &str, cut: impl FnOnce(&Passage)) {
    if !Redis::is_here() {
        return;
    }
    let mut cluster = Cluster::start_behind_proxies(Redis::start());
    let told = cluster.tell(|cluster| cut_off(cluster, cut));
    let gaps = told.check();
    report(name, &told, gaps);
    assert_eq!((gaps, told.losses), (0, 0));
}

/// RD16, N09: its connections are reset, and each new one.
#[test]
fn a_node_whose_way_to_redis_is_shut_keeps_its_clients_and_loses_them_nothing() {
    cut_off_in_vain("shut a node off redis", Passage::shut);
}

/// RD16, RD06: nothing comes back, and nobody says so.
#[test]
fn a_node_whose_way_to_redis_swallows_everything_keeps_its_clients_and_loses_them_nothing() {
    cut_off_in_vain("silence between a node and redis", Passage::silence);
}

/// Cuts a replica off from its master, which goes on taking messages for a while, and then has everybody go to the
/// replica; the old one comes back as a replica of it.
pub(crate) fn promote(cluster: &mut Cluster, replica: &Redis) {
    replica.tell(&["REPLICAOF", "NO", "ONE"]);
    let taken = |redis: &Redis| {
        let stats = redis.ask(&["INFO", "stats"]);
        let line = stats.lines().find(|line| line.starts_with("total_commands_processed:"));
        line.unwrap().split(':').nth(1).unwrap().trim().parse::<u64>().unwrap()
    };
    let until = taken(&cluster.redis) + 2_000;
    while taken(&cluster.redis) < until {}
    cluster.proxies.iter().for_each(|proxy| proxy.switch(replica.port()));
    cluster.redis.tell(&["REPLICAOF", "127.0.0.1", &replica.port().to_string()]);
}

/// RD11, RD12: what the old one took last is lost with it, and everybody is told so; it comes back as a replica, and
/// what it had for itself counts nowhere.
#[test]
fn a_replica_that_is_promoted_without_the_last_writes_is_a_gap_and_never_silence() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let replica = redis.start_replica(&[]);
    let mut cluster = Cluster::start_behind_proxies(redis);
    let told = cluster.tell(|cluster| promote(cluster, &replica));
    let gaps = told.check();
    report("promote a replica", &told, gaps);
    assert!(gaps > 0, "what was lost is told");
    assert_eq!(told.losses, 0, "clients stay");
}

/// RD11 where acknowledgements wait for a replica: sentinels promote it, and it has everything that was acknowledged.
#[test]
fn what_was_acknowledged_as_replicated_survives_the_master_that_took_it() {
    if !Redis::is_here() {
        return;
    }
    let master = Redis::start();
    // A new replica is copied to at once.
    let replica = master.start_replica(&["--repl-diskless-sync-delay", "0"]);
    let sentinels = Sentinels::start(&master);
    sentinels.until_ready();
    let mut cluster = Cluster::start_replicated_at(&sentinels.url(), master);
    let mut next = None;
    let told = cluster.tell(|cluster| {
        cluster.redis.kill();
        replica.until(&["ROLE"], "master");
        // Until it has a replica of its own nothing is acknowledged.
        next = Some(replica.start_replica(&[]));
    });
    let (gaps, twice) = told.check_kept("replicated");
    assert!(twice.is_empty(), "{twice:?}");
    drop(next);
    report("replicated: sentinels promote a replica", &told, gaps);
    assert_eq!(told.losses, 0, "clients stay: {:?}", told.codes);
}
