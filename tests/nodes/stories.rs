//! What happens to nodes and to Redis, with 500 clients in 50 rooms and 2,000 publishes a second.

use std::time::{Duration, SystemTime};

use tests::redis::Redis;

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
    let told = cluster.tell(|_, nodes| {
        for node in nodes {
            begun.push(now());
            node.terminate();
            assert_eq!(node.wait().code, Some(0));
            node.restart();
            until_status(node, 200);
        }
    });
    let gaps = told.check();
    report("rolling restart", &told, gaps);
    let peaks = peaks(&told.back, &begun, window);
    assert_eq!((gaps, told.leaves), (0, 0), "{peaks:?}");
    assert_eq!(told.codes.keys().copied().collect::<Vec<_>>(), [1012], "{:?}", told.codes);
    for peak in &peaks {
        assert!(peak.n_back > 100, "{peaks:?}");
        assert!(peak.of_a_second as f64 <= 1.2 * peak.even, "{peaks:?}");
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
}

/// By when nodes greeted those who came back, and when each node began to go.
#[allow(clippy::print_stdout, reason = "figures for whoever runs it")]
fn peaks(back: &[String], begun: &[i64], window: Duration) -> Vec<Peak> {
    let mut at: Vec<_> = back.iter().map(|text| millis(text)).collect();
    at.sort_unstable();
    let ends = begun.iter().skip(1).copied().chain([i64::MAX]);
    let peaks: Vec<_> = begun
        .iter()
        .zip(ends)
        .map(|(from, to)| {
            let of_it: Vec<_> = at.iter().filter(|at| (*from..to).contains(at)).collect();
            let busiest = |span: i64| {
                let within = |begin: i64| {
                    of_it.iter().filter(|at| (begin..begin + span).contains(**at)).count()
                };
                of_it.iter().map(|at| within(**at)).max().unwrap_or(0)
            };
            Peak {
                n_back: of_it.len(),
                even: of_it.len() as f64 / window.as_secs_f64(),
                of_a_second: busiest(1_000),
                of_a_tenth: busiest(100),
            }
        })
        .collect();
    println!("{peaks:?}");
    peaks
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
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
