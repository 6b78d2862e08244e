//! Rooms in memory: how they come and go, and what happens when many threads publish.

use std::sync::Arc;
use std::time::Duration;

use application::mailbox::Mailbox;
use application::ports::{Broker, Presence, PublishError, ReadLog, SubscriptionToken};
use application::testing::broker_contract::{at, policy, publish, room};
use broker_memory::{Config, MemoryBroker};
use domain::delivery::Class;
use domain::id::{ConnectionId, Epoch, MessageKey};
use domain::message::Publish;
use domain::position::Offset;
use domain::presence::PresenceKey;
use domain::retention::Retention;

use crate::support::{Counter, delivered};

const ROOM: &str = "public:a";

fn build(config: Config) -> Arc<MemoryBroker> {
    MemoryBroker::build(config, Arc::new(Counter::default()), None)
}

async fn top(broker: &MemoryBroker, name: &str, keep: Retention) -> (Epoch, u64, u64) {
    let read = ReadLog { after: Offset::ZERO, messages_max: 1, bytes_max: 1, now: at(0) };
    let bounds = broker.read(&room(name), &policy(keep), read).await.unwrap().bounds;
    (bounds.epoch, bounds.first.get(), bounds.last.get())
}

#[tokio::test]
async fn an_idle_room_keeps_its_epoch_until_its_log_has_aged_out() {
    let broker = build(Config { dedup_window: Duration::from_secs(5), ..Config::default() });
    let keep = Retention { age_max: Duration::from_secs(60), ..Retention::default() };
    let first = broker.publish(publish(ROOM, "u1", "x"), &policy(keep)).await.unwrap();
    broker.sweep(at(60)).await;
    assert_eq!(top(&broker, ROOM, keep).await, (first.epoch, 1, 1));
    broker.sweep(at(61)).await;
    let (epoch, first_offset, last) = top(&broker, ROOM, keep).await;
    assert_eq!((first_offset, last), (1, 0));
    assert_ne!(epoch, first.epoch, "offsets of two logs are never compared");
}

#[tokio::test]
async fn a_room_with_a_subscriber_or_a_member_is_never_forgotten() {
    let broker = build(Config::default());
    let keep = Retention::default();
    let mailbox = Arc::new(Mailbox::new(1, 10));
    let token = SubscriptionToken(1);
    let subscribed = broker.subscribe(&room(ROOM), &policy(keep), &mailbox, token).await.unwrap();
    let who = PresenceKey::Anonymous(ConnectionId::from_bits(1));
    broker.enter(&room("public:b"), &who, ConnectionId::from_bits(1)).await.unwrap();
    broker.sweep(at(1_000_000)).await;
    assert_eq!(top(&broker, ROOM, keep).await.0, subscribed.bounds.epoch);
    assert_eq!(broker.list(&room("public:b"), 10).await.unwrap().total, 1);
    broker.unsubscribe(&room(ROOM), &mailbox, token).await;
    broker.sweep(at(1_000_601)).await;
    assert_ne!(top(&broker, ROOM, keep).await.0, subscribed.bounds.epoch);
}

#[tokio::test]
async fn an_empty_room_keeps_its_epoch_for_the_dedup_window_after_its_last_use() {
    let broker = build(Config::default());
    let keep = Retention::default();
    let mailbox = Arc::new(Mailbox::new(1, 10));
    let token = SubscriptionToken(1);
    broker.sweep(at(1_000)).await;
    broker.subscribe(&room(ROOM), &policy(keep), &mailbox, token).await.unwrap();
    let epoch = top(&broker, ROOM, keep).await.0;
    broker.sweep(at(5_000)).await;
    broker.unsubscribe(&room(ROOM), &mailbox, token).await;
    broker.sweep(at(5_600)).await;
    assert_eq!(top(&broker, ROOM, keep).await.0, epoch);
    broker.sweep(at(5_601)).await;
    assert_ne!(top(&broker, ROOM, keep).await.0, epoch);
}

#[tokio::test]
async fn what_no_log_keeps_does_not_keep_its_room_for_the_age_of_logs() {
    let broker = build(Config::default());
    let keep = Retention::default();
    let mut kept = Vec::new();
    for (name, class) in [("a", Class::Droppable), ("b", Class::Latest), ("c", Class::Reliable)] {
        let name = format!("public:{name}");
        let sent = Publish { class, ..publish(&name, "u1", "x") };
        let epoch = broker.publish(sent, &policy(keep)).await.unwrap().epoch;
        broker.sweep(at(700)).await;
        kept.push(top(&broker, &name, keep).await.0 == epoch);
    }
    assert_eq!(kept, [false, true, true]);
}

#[tokio::test]
async fn rooms_have_a_limit_and_the_longest_unused_one_gives_way() {
    let broker = build(Config { rooms_max: 3, stripes: 1, ..Config::default() });
    let keep = Retention::default();
    let said = async |name: &str, class, seconds| {
        let sent = Publish { class, at: at(seconds), ..publish(name, "u1", "x") };
        broker.publish(sent, &policy(keep)).await.unwrap().epoch
    };
    let b = said("public:b", Class::Reliable, 1).await;
    let a = said("public:a", Class::Reliable, 2).await;
    said("public:c", Class::Droppable, 3).await;
    said("public:d", Class::Reliable, 4).await;
    assert_eq!(said("public:a", Class::Reliable, 5).await, a, "what kept nothing went first");
    assert_eq!(said("public:b", Class::Droppable, 1).await, b);
    said("public:e", Class::Reliable, 6).await;
    assert_eq!(said("public:a", Class::Reliable, 7).await, a, "then the longest unused");
    assert_ne!(said("public:b", Class::Reliable, 8).await, b, "it says that its log is lost");
}

#[tokio::test]
async fn a_room_that_somebody_is_in_never_gives_way() {
    let broker = build(Config { rooms_max: 2, stripes: 1, ..Config::default() });
    let keep = policy(Retention::default());
    let mailbox = Arc::new(Mailbox::new(1, 10));
    let token = SubscriptionToken(1);
    broker.subscribe(&room("public:a"), &keep, &mailbox, token).await.unwrap();
    let (who, connection) =
        (PresenceKey::Anonymous(ConnectionId::from_bits(1)), ConnectionId::from_bits(1));
    broker.enter(&room("public:b"), &who, connection).await.unwrap();
    let refused = broker.publish(publish("public:c", "u1", "x"), &keep).await;
    assert_eq!(refused, Err(PublishError::Unavailable { retry_after: Duration::from_secs(1) }));
    assert!(broker.enter(&room("public:c"), &who, connection).await.is_err());
    broker.unsubscribe(&room("public:a"), &mailbox, token).await;
    assert!(broker.publish(publish("public:c", "u1", "x"), &keep).await.is_ok());
}

#[tokio::test]
async fn a_sweep_reaches_every_room_in_bounded_pieces() {
    let broker = build(Config { stripes: 3, ..Config::default() });
    let keep = policy(Retention { age_max: Duration::from_secs(1), ..Retention::default() });
    let rooms_count = 3 * MemoryBroker::SWEEP_ROOMS_MAX;
    for n in 0..rooms_count {
        broker.publish(publish(&format!("public:{n}"), "u1", "x"), &keep).await.unwrap();
    }
    let before = top(&broker, "public:0", keep.retention).await.0;
    for _ in 0..4 {
        broker.sweep(at(1_000)).await;
    }
    let mut renewed = 0;
    for n in 0..rooms_count {
        renewed += u64::from(top(&broker, &format!("public:{n}"), keep.retention).await.2 == 0);
    }
    assert_eq!(renewed, rooms_count as u64);
    assert_ne!(top(&broker, "public:0", keep.retention).await.0, before);
}

#[tokio::test]
async fn when_memory_is_used_up_the_publishing_room_drops_its_oldest_and_says_so() {
    let broker = build(Config { log_bytes_max: 10_000, ..Config::default() });
    let keep = Retention::default();
    for _ in 0..50 {
        broker.publish(publish(ROOM, "u1", "x"), &policy(keep)).await.unwrap();
    }
    let (_, first, last) = top(&broker, ROOM, keep).await;
    assert!(first > 1 && first <= last && last == 50, "{first}..={last}");
    // Two rooms share what there is once a sweep has come by.
    broker.publish(publish("public:b", "u1", "x"), &policy(keep)).await.unwrap();
    broker.sweep(at(1)).await;
    for _ in 0..3 {
        broker.publish(publish("public:b", "u1", "x"), &policy(keep)).await.unwrap();
    }
    let (_, first, last) = top(&broker, "public:b", keep).await;
    assert!(last - first >= 2, "{first}..={last}");
}

#[tokio::test]
async fn forgotten_rooms_give_their_memory_back() {
    let broker = build(Config { log_bytes_max: 10_000, ..Config::default() });
    let keep = Retention::default();
    let day = 100_000;
    for n in 0..20 {
        let name = format!("public:{n}");
        let sent = |text| Publish { at: at(n * day), ..publish(&name, "u1", text) };
        broker.publish(sent("x"), &policy(keep)).await.unwrap();
        let latest = Publish { class: Class::Latest, ..sent("y") };
        broker.publish(latest, &policy(keep)).await.unwrap();
        broker.sweep(at((n + 1) * day)).await;
    }
    for _ in 0..3 {
        broker.publish(publish(ROOM, "u1", "x"), &policy(keep)).await.unwrap();
    }
    assert_eq!(top(&broker, ROOM, keep).await.1, 1, "all three are kept");
}

#[tokio::test]
async fn the_key_that_was_silent_longest_is_forgotten_first() {
    let broker = build(Config::default());
    let keep = policy(Retention::default());
    for n in 0..300 {
        let key = Some(MessageKey::parse(&n.to_string()).unwrap());
        let sent = Publish { class: Class::Latest, key, ..publish(ROOM, "u1", &n.to_string()) };
        broker.publish(sent, &keep).await.unwrap();
    }
    let mailbox = Arc::new(Mailbox::new(1, 10));
    let token = SubscriptionToken(1);
    let latest = broker.subscribe(&room(ROOM), &keep, &mailbox, token).await.unwrap().latest;
    assert_eq!((latest.len(), &latest[0].publication.data[..]), (256, &b"\"44\""[..]));
}

async fn latest_count(broker: &MemoryBroker, name: &str) -> usize {
    let mailbox = Arc::new(Mailbox::new(1, 10));
    let (keep, token) = (policy(Retention::default()), SubscriptionToken(1));
    let top = broker.subscribe(&room(name), &keep, &mailbox, token).await.unwrap();
    broker.unsubscribe(&room(name), &mailbox, token).await;
    top.latest.len()
}

async fn publish_latest(broker: &MemoryBroker, name: &str, key: &str, bytes: usize) {
    let key = Some(MessageKey::parse(key).unwrap());
    let sent = publish(name, "u1", &"x".repeat(bytes));
    let sent = Publish { class: Class::Latest, key, ..sent };
    broker.publish(sent, &policy(Retention::default())).await.unwrap();
}

#[tokio::test]
async fn the_latest_messages_of_a_room_have_a_limit_in_bytes() {
    let broker = build(Config::default());
    for n in 0..100 {
        publish_latest(&broker, ROOM, &n.to_string(), 60 * 1_024).await;
    }
    let count = latest_count(&broker, ROOM).await;
    assert!((15..25).contains(&count), "{count}");
    // Replaced messages are given back: the same key again and again costs one message.
    for _ in 0..100 {
        publish_latest(&broker, "public:b", "a", 60 * 1_024).await;
    }
    publish_latest(&broker, "public:b", "b", 1).await;
    assert_eq!(latest_count(&broker, "public:b").await, 2);
}

#[tokio::test]
async fn latest_messages_beyond_a_fair_share_go_when_memory_is_short() {
    let broker = build(Config { log_bytes_max: 100_000, ..Config::default() });
    for n in 0..90 {
        publish_latest(&broker, ROOM, &n.to_string(), 100).await;
    }
    for n in 0..4 {
        let name = format!("public:{n}");
        broker.publish(publish(&name, "u1", "x"), &policy(Retention::default())).await.unwrap();
    }
    let before = latest_count(&broker, ROOM).await;
    broker.sweep(at(1)).await;
    let after = latest_count(&broker, ROOM).await;
    assert!(before > 80 && (1..25).contains(&after), "{before}, then {after}");
    publish_latest(&broker, "public:1", "k", 100).await;
    assert_eq!(top(&broker, "public:1", Retention::default()).await.1, 1, "its log is kept");
}

#[tokio::test]
async fn more_mailboxes_than_shards_are_refused() {
    let broker = build(Config { subscribers_max: 1, ..Config::default() });
    let keep = policy(Retention::default());
    let token = SubscriptionToken(1);
    let (one, two) = (Arc::new(Mailbox::new(1, 10)), Arc::new(Mailbox::new(2, 10)));
    assert!(broker.subscribe(&room(ROOM), &keep, &one, token).await.is_ok());
    assert!(broker.subscribe(&room(ROOM), &keep, &two, token).await.is_err());
    assert!(broker.subscribe(&room(ROOM), &keep, &one, token).await.is_ok());
}

#[test]
fn threads_that_publish_and_subscribe_at_once_see_one_order_without_a_hole() {
    const PUBLISHERS: u64 = 4;
    const EACH: u64 = 500;
    let broker = build(Config::default());
    let joined = std::sync::Mutex::new(Vec::new());
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let keep = policy(Retention::default());
    std::thread::scope(|scope| {
        let (broker, joined, keep) = (&broker, &joined, &keep);
        for who in 0..PUBLISHERS {
            scope.spawn(move || {
                let runtime = runtime();
                for n in 0..EACH {
                    let sent = publish(ROOM, &format!("u{who}"), &format!("{who}/{n}"));
                    runtime.block_on(broker.publish(sent, keep)).unwrap();
                }
            });
        }
        scope.spawn(move || {
            let runtime = runtime();
            for id in 1..=50 {
                let mailbox = Arc::new(Mailbox::new(id, 65_536));
                let (room, token) = (room(ROOM), SubscriptionToken(1));
                let top = runtime.block_on(broker.subscribe(&room, keep, &mailbox, token));
                joined.lock().unwrap().push((mailbox, top.unwrap().bounds.last.get()));
            }
        });
    });
    let mut order: Option<Vec<(u64, String)>> = None;
    for (mailbox, last) in joined.into_inner().unwrap() {
        let got = delivered(&mailbox);
        let offsets: Vec<u64> = got.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (last + 1..=PUBLISHERS * EACH).collect::<Vec<_>>());
        let order = order.get_or_insert_with(|| got.clone());
        assert!(order.ends_with(&got));
    }
}
