//! Ways between nodes and Redis that are slow, and lose nothing.

use std::time::{Duration, Instant};

use broker_redis::Config;
use domain::position::Offset;
use futures_util::future::join_all;
use tests::redis::Redis;
use tokio::runtime::Handle;

use crate::brokers::{Node, in_time, receive};
use crate::passage::{Passage, Slowness};

const MESSAGES: usize = 60;

fn connections(redis: &Redis) -> u64 {
    let stats = redis.ask(&["INFO", "stats"]);
    let line = stats.lines().find(|line| line.starts_with("total_connections_received:"));
    line.unwrap().split(':').nth(1).unwrap().trim().parse().unwrap()
}

/// RD15: what is said comes later and in order, and a slow answer is not taken for a dead server: no connection is
/// given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_is_slow_makes_everything_later_and_nothing_else() {
    if !Redis::is_here() {
        return;
    }
    // 1 Mbit/s.
    for (delay_ms, bytes_per_second) in [(1, None), (20, None), (200, None), (1, Some(125_000))] {
        let redis = Redis::start();
        let delay = Duration::from_millis(delay_ms);
        let how = Some(Slowness { delay, bytes_per_second });
        let ways = [(); 2].map(|()| Passage::start_slow(&Handle::current(), redis.port(), how));
        let [one, two] = ways.each_ref().map(|way| Config::new(way.url().into()));
        let (one, two) = (Node::start_with(one).await, Node::start_with(two).await);
        let mailbox = two.mailbox(1).await;
        let before = connections(&redis);
        let texts: Vec<_> = (0..MESSAGES).map(|n| format!("{n}{}", "x".repeat(2_000))).collect();
        let begin = Instant::now();
        let said = join_all(texts.iter().map(|text| one.say(text)));
        let receipts = in_time("all are taken", said).await;
        let (heard, has_hole) = receive(&mailbox, MESSAGES).await;
        let took = begin.elapsed();
        let places = receipts.iter().zip(&texts).map(|(receipt, text)| {
            let offset = receipt.as_ref().unwrap().offset.map(Offset::get);
            (offset.unwrap(), text.clone())
        });
        let mut places: Vec<_> = places.collect();
        places.sort_unstable();
        assert!(!has_hole && heard == places, "{how:?}: each came once, in order");
        // The question and the notification.
        assert!(took >= 2 * delay, "{took:?}");
        if let Some(rate) = bytes_per_second {
            let bytes: usize = texts.iter().map(String::len).sum();
            assert!(took.as_secs_f64() >= bytes as f64 / f64::from(rate), "{took:?}");
        }
        // One of them asked for this.
        assert_eq!(connections(&redis), before + 1, "{how:?}: one was given up");
        assert!(one.broker.status().is_up() && two.broker.status().is_up());
    }
}
