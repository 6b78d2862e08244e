//! Places near the last that there is, and epochs that are drawn twice: Redis counts in doubles, Postgres in signed
//! numbers, and neither may give a place to two messages.

use std::sync::Arc;

use application::mailbox::Mailbox;
use application::ports::succession::{Succession as _, Successor};
use application::ports::{
    Broker as _, Entropy, Erasure as _, NoEntropy, PublishError, SubscriptionToken,
};
use application::testing::broker_contract::{named, policy, publish, room};
use broker_redis::Config;
use domain::delivery::Class;
use domain::id::{Epoch, MessageKey};
use domain::message::Publish;
use domain::position::{Offset, Position};
use domain::recovery::decide_recovery;
use domain::retention::Retention;
use tests::postgres::Postgres;
use tests::redis::Redis;

use crate::brokers::{Node, ROOM, impatient, in_time, receive, texts};
use crate::durable;
use crate::heads::{Number, set};

const LAST: u64 = (1 << 53) - 1;

fn value(text: &str) -> Publish {
    let key = Some(MessageKey::parse("key").unwrap());
    Publish { class: Class::Latest, key, ..publish(ROOM, "u1", text) }
}

/// D11: every place is exact up to the last one, and behind it the room is full, for good.
#[tokio::test]
async fn a_room_in_redis_counts_exactly_up_to_its_last_place_and_then_is_full() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start_on_disk();
    let node = Node::impatient(&redis).await;
    let first = node.say("first").await.unwrap();
    redis.tell(&["DEL", "roomkeeper:{public:a}:log"]);
    set(&redis, Number::LogBytes, 0);
    set(&redis, Number::Offset, LAST - 3);
    let mailbox = node.mailbox(1).await;
    for (text, offset) in [("a", LAST - 2), ("b", LAST - 1), ("c", LAST)] {
        let receipt = node.publish(named(publish(ROOM, "u1", text), text)).await.unwrap();
        assert_eq!((receipt.epoch, receipt.offset.map(Offset::get)), (first.epoch, Some(offset)));
    }
    let all = [("a", LAST - 2), ("b", LAST - 1), ("c", LAST)];
    let all: Vec<_> = all.map(|(text, offset)| (offset, text.to_owned())).into();
    assert_eq!(receive(&mailbox, 3).await, (all, false));
    for _ in 0..3 {
        assert_eq!(node.say("too much").await, Err(PublishError::LogFull));
    }
    let again = node.publish(named(publish(ROOM, "u1", "b"), "b")).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(again.offset.map(Offset::get), Some(LAST - 1));
    // What takes no place goes on.
    node.publish(value("v")).await.unwrap();
    for (after, left) in [(0, 3), (LAST - 3, 3), (LAST - 2, 2), (LAST - 1, 1), (LAST, 0)] {
        let page = node.read(after).await;
        assert_eq!((page.messages.len(), page.bounds.last), (left, Offset::MAX), "{after}");
    }
    let at = |offset| Position { epoch: first.epoch, offset: Offset::parse(offset).unwrap() };
    let (name, kept) = (room(ROOM), policy(Retention::default()));
    node.broker.erase(&name, &kept, at(LAST - 1)).await.unwrap();
    let page = node.read(LAST - 3).await;
    let is_gone = |n: usize| page.messages[n].publication.tombstone.is_some();
    assert_eq!([0, 1, 2].map(is_gone), [false, true, false]);

    // In another life, too: offsets go on over it.
    redis.start_again();
    let full = in_time("it answers", async {
        loop {
            node.until_up().await;
            match node.say("too much").await {
                Err(PublishError::LogFull) => return node.read(LAST - 3).await,
                other => assert!(other.is_err(), "{other:?}"),
            }
        }
    });
    let page = full.await;
    assert_ne!(page.bounds.epoch, first.epoch);
    let recovery = decide_recovery(at(LAST - 1), page.bounds);
    assert_eq!((recovery.gap, recovery.after.get()), (None, LAST - 1));
    assert_eq!(page.messages.last().unwrap().publication.offset, Some(Offset::MAX));
}

/// D11: what nothing is kept of is counted by a script of its own; and so is each publish, with a place or without.
#[tokio::test]
async fn a_room_that_keeps_nothing_and_one_that_has_numbered_its_last_publish_are_full_as_well() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let nothing = policy(Retention { messages_max: 0, ..Retention::default() });
    let say = || node.broker.publish(publish(ROOM, "u1", "x"), &nothing);
    for _ in 0..3 {
        say().await.unwrap();
    }
    set(&redis, Number::Offset, LAST - 2);
    for offset in [LAST - 1, LAST] {
        assert_eq!(say().await.unwrap().offset.map(Offset::get), Some(offset));
    }
    assert_eq!(say().await, Err(PublishError::LogFull));
    set(&redis, Number::Offset, 10);
    set(&redis, Number::Published, LAST - 2);
    let mailbox = node.mailbox(1).await;
    say().await.unwrap();
    node.publish(value("last")).await.unwrap();
    assert_eq!(receive(&mailbox, 2).await.0.len(), 2);
    assert_eq!(say().await, Err(PublishError::LogFull));
    assert_eq!(node.publish(value("more")).await, Err(PublishError::LogFull));
}

/// What comes at once goes together, whatever rooms it is for, and those among it that are fresh.
#[tokio::test]
async fn publishes_that_nothing_is_kept_of_go_together_and_each_has_a_place_of_its_own() {
    const ROOMS: usize = 10;
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let nothing = policy(Retention { messages_max: 0, ..Retention::default() });
    let mailbox = Arc::new(Mailbox::new(1, 10_000));
    let watched = room("public:r0");
    node.broker.subscribe(&watched, &nothing, &mailbox, SubscriptionToken(1)).await.unwrap();
    let calls = || {
        let stats = redis.ask(&["INFO", "commandstats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        let calls = line.and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u64>().unwrap())
    };
    for round in 0..3_u64 {
        let before = calls();
        let sent =
            (0..1_000).map(|n| publish(&format!("public:r{}", n % ROOMS), "u1", &n.to_string()));
        let all = sent.map(|sent| node.broker.publish(sent, &nothing));
        let receipts = in_time("all are taken", futures_util::future::join_all(all)).await;
        let mut places = vec![Vec::new(); ROOMS];
        for (n, receipt) in receipts.into_iter().enumerate() {
            places[n % ROOMS].push(receipt.unwrap().offset.unwrap().get());
        }
        for mut places in places {
            places.sort_unstable();
            assert_eq!(places, (100 * round + 1..=100 * round + 100).collect::<Vec<_>>());
        }
        // In the first round each room has to be made.
        assert!(round == 0 || calls() - before < 200, "{}", calls() - before);
    }
    let offsets = receive(&mailbox, 300).await.0.into_iter().map(|(offset, _)| offset);
    assert_eq!(offsets.collect::<Vec<_>>(), (1..=300).collect::<Vec<_>>());
}

/// D11: a durable room whose lives have used up all places.
#[tokio::test]
async fn a_durable_room_behind_whose_lives_no_place_is_left_is_full() {
    if !Redis::is_here() || !Postgres::is_here() {
        return;
    }
    let (mut redis, postgres) = (Redis::start(), Postgres::start());
    let archive = durable::postgres_archive(&postgres).await;
    let behind = Offset::parse(LAST - 1).unwrap();
    let begin = Successor { of: None, epoch: Epoch::from_bits(1 << 63), behind };
    archive.succeed(&room(ROOM), begin).await.unwrap();
    let node = durable::node(&redis, &archive).await;
    let last = durable::put(&node, named(publish(ROOM, "u1", "z"), "z")).await.unwrap();
    assert_eq!(last.offset, Some(Offset::MAX));
    let full = || durable::put(&node, named(publish(ROOM, "u1", "more"), "more"));
    assert_eq!(full().await, Err(PublishError::LogFull));
    redis.start_again();
    in_time("it is full again", async {
        loop {
            node.until_up().await;
            match full().await {
                Err(PublishError::LogFull) => return,
                other => assert!(other.is_err(), "{other:?}"),
            }
        }
    })
    .await;
    // Its message is there, and known by its name.
    let again = durable::put(&node, named(publish(ROOM, "u1", "z"), "z")).await.unwrap();
    assert_eq!((again.duplicate, again.offset), (true, Some(Offset::MAX)));
}

/// What draws the same number every time.
struct Same(u64);

impl Entropy for Same {
    fn bits(&self) -> Result<u64, NoEntropy> {
        Ok(self.0)
    }
}

/// D11: who draws an epoch that the room has had is refused, and nothing is given out under it again.
#[tokio::test]
async fn an_epoch_that_is_drawn_twice_is_not_begun_again() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start_on_disk();
    let stuck = Node::drawing(impatient(redis.url()), None, Arc::new(Same(1 << 62))).await;
    let first = stuck.say("1").await.unwrap();
    assert_eq!(first.epoch, Epoch::from_bits(1 << 62));
    let mut last = first;
    for round in 2..=3_u64 {
        redis.start_again();
        stuck.until_up().await;
        for _ in 0..3 {
            let refused = stuck.say("never").await;
            assert!(matches!(refused, Err(PublishError::Unavailable { .. })), "{refused:?}");
        }
        // Anybody else goes on.
        let node = Node::start_with(Config::new(redis.url().into())).await;
        let next = node.say(&round.to_string()).await.unwrap();
        assert_eq!(next.offset.map(Offset::get), Some(round));
        assert!(next.epoch != first.epoch && next.epoch != last.epoch);
        let page = node.read(0).await;
        assert_eq!(texts(&page), (1..=round).map(|n| n.to_string()).collect::<Vec<_>>());
        last = next;
    }
}
