//! What a node missed, or can't read: it comes later, once, or its place is passed over; and what is kept of a
//! room stays within its limits. Nothing of it may hold a room up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use application::mailbox::Mailbox;
use application::ports::{Broker, Presence, ReadLog, Revocations, SubscriptionToken};
use application::testing::broker_contract::{MAIL_MAX, named, policy, publish, room};
use broker_redis::{Config, RedisRevocations};
use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ConnectionId, MessageKey, UserId};
use domain::message::{Publish, TombstoneReason};
use domain::position::{Offset, Position};
use domain::presence::PresenceKey;
use domain::recovery::{GapReason, decide_recovery};
use domain::retention::Retention;
use domain::revocation::Revocation;
use domain::time::Wall;
use futures_util::future::join_all;
use tests::redis::Redis;
use tokio::runtime::Handle;

use crate::brokers::{Node, ROOM, in_time, receive, receive_hole, retry, texts as texts_of};
use crate::heads::{self, Number};
use crate::passage::Passage;

fn value(key: &str, text: &str) -> Publish {
    let key = Some(MessageKey::parse(key).unwrap());
    Publish { class: Class::Latest, key, ..publish(ROOM, "u1", text) }
}

fn texts(received: Vec<(u64, String)>) -> Vec<String> {
    received.into_iter().map(|(_, text)| text).collect()
}

/// RD05: no log has them, and none of them comes twice or behind a newer one.
#[tokio::test]
async fn the_newest_values_that_were_missed_in_a_loss_come_once_it_is_over_and_no_others() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let proxy = Passage::start(&Handle::current(), redis.port());
    let one = Node::impatient_at(proxy.url()).await;
    let two = Node::start(&redis).await;
    let mailbox = one.mailbox(1).await;
    for (key, text) in [("a", "a1"), ("b", "b1")] {
        two.publish(value(key, text)).await.unwrap();
    }
    assert_eq!(texts(receive(&mailbox, 2).await.0), ["a1", "b1"]);
    for round in ["2", "3"] {
        proxy.shut();
        one.until_down().await;
        for key in ["a", "c"] {
            two.publish(value(key, &format!("{key}-old"))).await.unwrap();
            two.publish(value(key, &format!("{key}{round}"))).await.unwrap();
        }
        proxy.open();
        one.until_up().await;
        two.publish(value("end", "end")).await.unwrap();
        let heard = texts(receive(&mailbox, 3).await.0);
        assert_eq!(heard, [format!("a{round}"), format!("c{round}"), "end".to_owned()]);
    }
}

/// RD17, as far as a server can do it to us: a publish that nobody heard of is noticed by its number, though no
/// connection was lost.
#[tokio::test]
async fn a_notification_that_was_lost_is_noticed_within_five_seconds() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let mailbox = node.mailbox(1).await;
    node.say("1").await.unwrap();
    receive(&mailbox, 1).await;
    heads::add(&redis, Number::Published, 1);
    let lost_at = Instant::now();
    receive_hole(&mailbox).await;
    assert!(lost_at.elapsed() < Duration::from_secs(5), "{:?}", lost_at.elapsed());
    node.say("2").await.unwrap();
    assert_eq!(receive(&mailbox, 1).await, (vec![(2, "2".to_owned())], false));
}

/// RD20: once for each room and turn, in pipelines; nothing else is asked while nothing happens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_where_ten_thousand_rooms_stand_costs_one_command_a_room_and_turn() {
    const ROOMS: usize = 10_000;
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let shards = [1, 2, 3, 4].map(|id| Arc::new(Mailbox::new(id, MAIL_MAX)));
    let policy = policy(Retention::default());
    let broker: &dyn Broker = &*node.broker;
    for chunk in (0..ROOMS).collect::<Vec<_>>().chunks(250) {
        let joins = chunk.iter().flat_map(|number| {
            let room = room(&format!("public:r{number}"));
            shards.iter().map(move |mailbox| (room.clone(), mailbox))
        });
        let joins = joins.map(|(room, mailbox)| {
            let policy = &policy;
            async move { broker.subscribe(&room, policy, mailbox, SubscriptionToken(1)).await }
        });
        let joined = in_time("the rooms are joined", join_all(joins)).await;
        assert!(joined.iter().all(Result::is_ok));
    }
    let calls = |command: &str| {
        let stats = redis.ask(&["INFO", "commandstats"]);
        let line = format!("cmdstat_{command}:");
        let found = stats.lines().find(|stat| stat.starts_with(&line));
        found.map_or(0, |stat| stat.split(['=', ',']).nth(1).unwrap().parse::<usize>().unwrap())
    };
    redis.tell(&["CONFIG", "RESETSTAT"]);
    let begin = Instant::now();
    let asked = in_time("a whole turn", async {
        loop {
            // No more than a few of these while the turn goes on.
            let asked = tokio::task::block_in_place(|| calls("hget"));
            if asked >= 2 * ROOMS {
                return asked;
            }
            tokio::task::yield_now().await;
        }
    });
    let _ = asked.await;
    let took = begin.elapsed();
    let a_second = calls("hget") as f64 / took.as_secs_f64();
    println!("{{\"looks_per_s\":{a_second:.0},\"rooms\":{ROOMS}}}");
    assert!(took > Duration::from_secs(4), "they are spread: {took:?}");
    assert!(a_second < 4_500.0, "{a_second}");
    assert!(calls("evalsha") < 20, "the lease alone is renewed");
}

/// RD13: somebody else wrote into our list.
#[tokio::test]
async fn an_entry_that_nobody_can_read_is_a_place_that_is_passed_over() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    for text in ["1", "2", "3"] {
        node.say(text).await.unwrap();
    }
    let log = "roomkeeper:{public:a}:log";
    redis.tell(&["LSET", log, "1", "what no node has written"]);
    let page = node.read(0).await;
    let is_there = |at: usize| page.messages[at].publication.tombstone;
    assert_eq!([0, 1, 2].map(is_there), [None, Some(TombstoneReason::Deleted), None]);
    let offsets: Vec<_> = page.messages.iter().map(|one| one.publication.offset).collect();
    assert_eq!(offsets, [1, 2, 3].map(|offset| Offset::parse(offset).ok()));
    assert_eq!(node.broker.status().received().1, 1, "it is counted");
    assert_eq!(node.say("4").await.unwrap().offset.map(Offset::get), Some(4));
    // Whoever looks at the sizes of entries passes over it, too.
    let short = policy(Retention { messages_max: 2, ..Retention::default() });
    node.broker.publish(publish(ROOM, "u1", "5"), &short).await.unwrap();
    assert_eq!(node.read(0).await.bounds.first.get(), 4);
}

/// RD20: however long a log was, each call drops a few of its entries.
#[tokio::test]
async fn a_log_whose_retention_was_cut_is_trimmed_over_several_calls_and_reads_as_it_should_at_once()
 {
    const LONG: usize = 20_000;
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let long = policy(Retention { messages_max: 1_000_000, ..Retention::default() });
    for chunk in (0..LONG).collect::<Vec<_>>().chunks(1_000) {
        let said =
            chunk.iter().map(|n| node.broker.publish(publish(ROOM, "u1", &n.to_string()), &long));
        assert!(join_all(said).await.iter().all(Result::is_ok));
    }
    let short = policy(Retention { messages_max: 10, ..Retention::default() });
    let length = || redis.ask(&["LLEN", "roomkeeper:{public:a}:log"]).parse::<usize>().unwrap();
    let read = ReadLog {
        after: Offset::ZERO,
        messages_max: 100,
        bytes_max: 1 << 20,
        now: Wall::from_millis(1_763_717_880_000),
    };
    let mut last = LONG as u64;
    let mut calls = 0;
    loop {
        let page = node.broker.read(&room(ROOM), &short, read).await.unwrap();
        assert_eq!((page.bounds.first.get(), page.bounds.last.get()), (last - 9, last));
        let offsets: Vec<_> =
            page.messages.iter().map(|one| one.publication.offset.unwrap().get()).collect();
        assert!(offsets.iter().copied().eq(last - 9..=last), "{offsets:?}");
        let before = length();
        if before == 10 {
            break;
        }
        node.broker.publish(publish(ROOM, "u1", "more"), &short).await.unwrap();
        (last, calls) = (last + 1, calls + 1);
        assert!(length() >= (before + 1).saturating_sub(64), "a publish drops a few");
    }
    assert!(calls > 10, "{calls}");
}

#[tokio::test]
async fn the_newest_values_of_a_room_are_bounded_in_bytes_and_the_oldest_go_first() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let large = |key: &str, kib: usize| Publish {
        data: Bytes::from(format!("\"{}\"", "x".repeat(kib << 10))),
        ..value(key, "")
    };
    let keys = async || {
        let mailbox = Arc::new(Mailbox::new(1, MAIL_MAX));
        let top = node.subscribe(&mailbox, ROOM, 1).await.unwrap();
        node.unsubscribe(&mailbox, ROOM, 1).await;
        let of = |one: &Arc<application::published::Published>| {
            one.publication.key.as_ref().unwrap().as_str().to_owned()
        };
        top.latest.iter().map(of).collect::<Vec<_>>()
    };
    for key in ["a", "b", "c", "d"] {
        node.publish(large(key, 300)).await.unwrap();
    }
    assert_eq!(keys().await, ["b", "c", "d"]);
    // What replaces a value takes its bytes over.
    for _ in 0..5 {
        node.publish(large("d", 300)).await.unwrap();
    }
    assert_eq!(keys().await, ["b", "c", "d"]);
    // One alone may be longer.
    node.publish(large("e", 2_000)).await.unwrap();
    assert_eq!(keys().await, ["e"]);
    for key in ["f", "g"] {
        node.publish(large(key, 300)).await.unwrap();
    }
    assert_eq!(keys().await, ["f", "g"]);
}

#[tokio::test]
async fn a_room_without_a_log_places_and_numbers_its_messages_like_any_other() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let mailbox = node.mailbox(1).await;
    let (kept, plain) = (policy(Retention::default()), policy(Retention::NONE));
    let mut last = None;
    for number in 1..=12 {
        // With a log, then without, by name and class in between, and with a log again.
        let policy = if (4..=9).contains(&number) { &plain } else { &kept };
        let message = publish(ROOM, "u1", &number.to_string());
        let message = if number == 6 { named(message, "m6") } else { message };
        let receipt = node.broker.publish(message, policy).await.unwrap();
        assert_eq!(receipt.offset.map(Offset::get), Some(number));
        assert!(last.is_none_or(|last| last == receipt.epoch));
        last = Some(receipt.epoch);
        if number == 7 {
            node.broker.publish(value("k", "value"), policy).await.unwrap();
        }
    }
    let (heard, has_hole) = receive(&mailbox, 13).await;
    assert!(!has_hole, "{heard:?}");
    let page = node.read(0).await;
    assert_eq!((page.bounds.first.get(), page.bounds.last.get()), (10, 12));
    let texts: Vec<_> = page.messages.iter().map(|one| one.publication.data.clone()).collect();
    assert_eq!(texts, ["\"10\"", "\"11\"", "\"12\""]);
    // And after a start of Redis, which only a node's next call tells it of.
    redis.tell(&["FLUSHALL"]);
    let anew = node.broker.publish(publish(ROOM, "u1", "anew"), &plain).await.unwrap();
    assert_eq!((anew.offset.map(Offset::get), Some(anew.epoch) == last), (Some(1), false));
}

/// RD20: nothing of ours stays in Redis for good, and what nobody uses goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_runs_out_and_nothing_is_left_of_rooms_that_nobody_uses() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let config = Config {
        dedup_window: Duration::from_secs(1),
        presence_kept: Duration::from_secs(3),
        leave_grace: Duration::ZERO,
        ..Config::new(redis.url().into())
    };
    let node = Node::start_with(config).await;
    let revocations = RedisRevocations::build(&node.broker, Duration::from_secs(3_600));
    let revoked = Revocation::User {
        user: UserId::parse("u1").unwrap(),
        issued_until: Wall::from_millis(1_763_717_880_000),
    };
    let now = Wall::from_millis(1_763_717_880_000);
    let known = tokio::spawn(Arc::clone(&revocations).run());
    revocations.add(&revoked, now).await.unwrap();
    let kept = policy(Retention { age_max: Duration::from_secs(1), ..Retention::default() });
    for number in 0..50 {
        let name = format!("public:r{number}");
        let (id, who) = (room(&name), PresenceKey::User(UserId::parse("u1").unwrap()));
        let connection = ConnectionId::from_bits(1);
        node.broker.publish(named(publish(&name, "u1", "kept"), "m1"), &kept).await.unwrap();
        let value = Publish { room: id.clone(), ..value("k", "v") };
        node.broker.publish(value, &kept).await.unwrap();
        node.broker.publish(publish(&name, "u1", "plain"), &policy(Retention::NONE)).await.unwrap();
        node.broker.enter(&id, &who, connection).await.unwrap();
        node.broker.leave(&id, &who, connection).await;
    }
    let keys = || {
        let all = redis.ask(&["KEYS", "*"]);
        all.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = keys();
    assert!(all.len() > 200, "{all:?}");
    for key in &all {
        // One for the server, of fixed size.
        let is_of_server = key == "roomkeeper:life";
        assert!(is_of_server || redis.ask(&["PTTL", key]) != "-1", "{key} is there for ever");
    }
    in_time("they run out", async {
        loop {
            let left = tokio::task::block_in_place(keys);
            if left.iter().all(|key| key.contains("{all}") || key == "roomkeeper:life") {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    known.abort();
}

/// What became of what a Redis had on disk.
#[derive(Clone, Copy, PartialEq)]
enum Disk {
    /// Its log was cut short.
    Cut,
    /// Its log is damaged in the middle: it does not start until somebody has cut that off with Redis's own tool.
    Damaged,
    /// There is only a file of all that is older than what was acknowledged last.
    Old,
}

/// RD18: whatever is left of what it had.
#[tokio::test]
async fn a_redis_that_comes_back_with_less_than_it_had_is_a_gap_and_never_silence() {
    const SAID: u64 = 20;
    if !Redis::is_here() {
        return;
    }
    for disk in [Disk::Cut, Disk::Damaged, Disk::Old] {
        let has_log = disk != Disk::Old;
        let mut redis =
            if has_log { Redis::start_on_disk() } else { Redis::start_with(&["--save", ""]) };
        let node = Node::impatient(&redis).await;
        let mailbox = node.mailbox(1).await;
        let mut last = None;
        for n in 1..=SAID {
            if !has_log && n == SAID / 2 {
                redis.tell(&["SAVE"]);
            }
            last = Some(node.say(&n.to_string()).await.unwrap());
        }
        let last = last.unwrap();
        receive(&mailbox, SAID as usize).await;
        redis.kill();
        match disk {
            Disk::Cut => redis.cut_log(2_000),
            Disk::Damaged => {
                redis.damage_log();
                let said = redis.fails_to_start();
                assert!(said.contains("Bad file format reading the append only file"), "{said}");
                assert!(node.say("meanwhile").await.is_err());
                redis.repair_log();
            }
            Disk::Old => {}
        }
        redis.start_again();
        let after = retry(&node, || named(publish(ROOM, "u1", "after"), "after")).await;
        assert_ne!(after.epoch, last.epoch, "a place that was given out before is another one");
        let page = node.read(0).await;
        let kept = page.messages.len() as u64 - 1;
        assert!((1..SAID).contains(&kept), "{kept}");
        let expected = (1..=kept).map(|n| n.to_string()).chain(["after".to_owned()]);
        assert_eq!(texts_of(&page), expected.collect::<Vec<_>>());
        let stood = |offset| {
            let since = Position { epoch: last.epoch, offset: Offset::parse(offset).unwrap() };
            decide_recovery(since, page.bounds).gap.map(|gap| gap.reason)
        };
        assert_eq!((stood(kept), stood(SAID)), (None, Some(GapReason::EpochChanged)));
        assert!(!receive_hole(&mailbox).await.holes.is_empty());
    }
}
