//! What a node does while Redis is away, slow, emptied, replaced or wrong: nothing is lost in silence,
//! nothing comes twice, and everything heals by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use application::mailbox::Mailbox;
use application::ports::PublishError;
use application::testing::broker_contract::{MAIL_MAX, named, policy, publish};
use domain::position::{Offset, Position};
use domain::recovery::{GapReason, decide_recovery};
use domain::retention::Retention;
use tests::redis::Redis;

use crate::brokers::{Node, ROOM, SOON, in_time, receive, receive_hole, retry};

fn is_away<T: std::fmt::Debug>(answer: &Result<T, PublishError>) -> bool {
    matches!(answer, Err(PublishError::Unavailable { .. }))
}

fn at(position: (domain::id::Epoch, u64)) -> Position {
    Position { epoch: position.0, offset: Offset::parse(position.1).unwrap() }
}

/// RD01, RD13: killed, and started again with nothing.
#[tokio::test]
async fn while_redis_is_away_publishes_are_refused_at_once_and_an_empty_one_begins_a_new_epoch() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let node = Node::impatient(&redis).await;
    let mailbox = node.mailbox(1).await;
    let before = node.say("before").await.unwrap();
    receive(&mailbox, 1).await;
    redis.kill();
    node.until_down().await;
    let asked = Instant::now();
    assert!(is_away(&node.say("lost").await));
    assert!(asked.elapsed() < Duration::from_secs(1), "nothing waits for who is away");
    let another = Arc::new(Mailbox::new(2, MAIL_MAX));
    assert!(node.subscribe(&another, ROOM, 1).await.is_err());
    redis.start_again();
    node.until_up().await;
    assert!(!receive_hole(&mailbox).await.holes.is_empty(), "its shard has to look");
    let after = node.say("after").await.unwrap();
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(receive(&mailbox, 1).await.0, [(1, "after".to_owned())]);
    let bounds = node.read(0).await.bounds;
    let gap = decide_recovery(at((before.epoch, 1)), bounds).gap.unwrap();
    assert_eq!(gap.reason, GapReason::EpochChanged);
}

/// RD11: killed, and started again with what it had. Offsets go on under a new epoch, and who had read up to
/// the end of the old one has missed nothing; who had read more than is there has a gap.
#[tokio::test]
async fn a_restart_ends_the_epoch_and_who_had_read_to_its_end_crosses_into_the_next() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start_on_disk();
    let node = Node::impatient(&redis).await;
    let mut last = None;
    for text in ["1", "2", "3"] {
        last = Some(node.publish(named(publish(ROOM, "u1", text), text)).await.unwrap());
    }
    let old = last.unwrap().epoch;
    redis.start_again();
    node.until_down().await;
    node.until_up().await;
    let after = retry(&node, || named(publish(ROOM, "u1", "4"), "4")).await;
    assert_eq!(after.offset.map(Offset::get), Some(4));
    assert_ne!(after.epoch, old);
    let page = node.read(2).await;
    assert_eq!(page.messages.len(), 2);
    assert!(page.messages.iter().all(|message| message.publication.epoch == after.epoch));
    assert_eq!(decide_recovery(at((old, 2)), page.bounds).gap, None);
    let ahead = decide_recovery(at((old, 4)), page.bounds).gap.unwrap();
    assert_eq!(ahead.reason, GapReason::EpochChanged);
    // A retry over the restart is still one message.
    let again = node.publish(named(publish(ROOM, "u1", "3"), "3")).await.unwrap();
    assert_eq!((again.duplicate, again.offset.map(Offset::get)), (true, Some(3)));
}

/// RD02, RD03: frozen while it is asked. What had no answer may have happened, and its retry is one message.
#[tokio::test]
async fn a_frozen_redis_is_given_up_and_a_retry_after_it_wakes_is_one_message() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let node = Node::impatient(&redis).await;
    let mailbox = node.mailbox(1).await;
    node.say("before").await.unwrap();
    redis.suspend();
    let sent = || named(publish(ROOM, "u1", "frozen"), "m1");
    let answer = in_time("it gives up", node.publish(sent())).await;
    assert!(is_away(&answer), "{answer:?}");
    redis.go_on();
    node.until_up().await;
    let receipt = retry(&node, sent).await;
    node.say("end").await.unwrap();
    let page = node.read(0).await;
    let offsets: Vec<_> = page.messages.iter().filter_map(|m| m.publication.offset).collect();
    assert_eq!(offsets.len(), 3, "before, frozen, end");
    assert_eq!(receipt.offset.map(Offset::get), Some(2));
    drop(mailbox);
}

/// RD05, RD07: only the connection of the subscription is cut.
#[tokio::test]
async fn a_subscription_that_is_cut_is_told_as_a_hole_and_goes_on() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let mailbox = node.mailbox(1).await;
    let patterns = [domain::principal::RoomPattern::parse("game:*").unwrap()];
    let broker: &dyn application::ports::Broker = &*node.broker;
    broker.watch(&mailbox, &patterns, 1).await.unwrap();
    node.say("1").await.unwrap();
    receive(&mailbox, 1).await;
    redis.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let mut told = receive_hole(&mailbox).await;
    if !told.watched_hole {
        told = receive_hole(&mailbox).await;
    }
    assert!(told.watched_hole, "of what is watched nobody can say what is missing");
    node.until_up().await;
    node.say("2").await.unwrap();
    node.publish(publish("game:z", "u1", "3")).await.unwrap();
    let (all, _) = receive(&mailbox, 2).await;
    assert_eq!(all, [(2, "2".to_owned()), (1, "3".to_owned())]);
}

/// RD13: emptied under the node's feet, or written over by another program.
#[tokio::test]
async fn a_room_that_was_deleted_begins_anew_and_a_key_of_another_program_stops_one_room_only() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let before = node.say("1").await.unwrap();
    redis.tell(&["FLUSHALL"]);
    let after = node.say("2").await.unwrap();
    assert_ne!(before.epoch, after.epoch);
    assert_eq!(after.offset.map(Offset::get), Some(1));
    // The log alone is evicted: its head knows that there was one.
    redis.tell(&["DEL", "roomkeeper:{public:a}:log"]);
    let page = node.read(0).await;
    assert!(page.messages.is_empty());
    assert_eq!((page.bounds.first.get(), page.bounds.last.get()), (2, 1));
    assert_eq!(node.say("3").await.unwrap().offset.map(Offset::get), Some(2));
    redis.tell(&["SET", "roomkeeper:{public:b}:head", "mine"]);
    assert!(is_away(&node.publish(publish("public:b", "u1", "x")).await));
    assert_eq!(node.say("4").await.unwrap().offset.map(Offset::get), Some(3));
}

/// RD13: what is remembered of retries is evicted alone. Nobody can know it, and nobody is told: a publish that is
/// repeated under its `msg_id` is another message then. That one is remembered again.
#[tokio::test]
async fn a_retry_whose_memory_was_evicted_is_a_second_message_of_the_same_epoch() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let say = || node.publish(named(publish(ROOM, "u1", "once"), "m1"));
    let first = say().await.unwrap();
    assert!(say().await.unwrap().duplicate);
    for part in ["seen0", "seen1", "seen2"] {
        redis.tell(&["DEL", &format!("roomkeeper:{{public:a}}:{part}")]);
    }
    let second = say().await.unwrap();
    assert_eq!((second.epoch, second.duplicate), (first.epoch, false));
    assert_eq!(second.offset.map(Offset::get), Some(2));
    let third = say().await.unwrap();
    assert_eq!((third.offset, third.duplicate), (second.offset, true));
}

/// RD14: scripts that are gone, memory that is used up, a server that takes no writes.
#[tokio::test]
async fn what_redis_refuses_is_refused_and_heals() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::impatient(&redis).await;
    node.say("1").await.unwrap();
    redis.tell(&["SCRIPT", "FLUSH"]);
    node.say("2").await.unwrap();
    redis.tell(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(is_away(&node.say("no memory").await));
    redis.tell(&["CONFIG", "SET", "maxmemory", "0"]);
    node.say("3").await.unwrap();
    redis.tell(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(is_away(&node.say("read only").await));
    redis.tell(&["REPLICAOF", "NO", "ONE"]);
    node.until_up().await;
    let sent = || named(publish(ROOM, "u1", "4"), "m4");
    assert_eq!(retry(&node, sent).await.offset.map(Offset::get), Some(4));
}

/// Has somebody in ten thousand rooms.
async fn join_all_rooms(node: &Node) -> Arc<Mailbox> {
    let mailbox = Arc::new(Mailbox::new(1, MAIL_MAX));
    for chunk in (0..ROOMS).collect::<Vec<_>>().chunks(500) {
        let policy = policy(Retention::default());
        let joins = chunk.iter().map(|number| {
            let (mailbox, policy) = (&mailbox, &policy);
            async move {
                let room = domain::room::RoomId::parse(&format!("public:r{number}")).unwrap();
                let broker: &dyn application::ports::Broker = &*node.broker;
                let token = application::ports::SubscriptionToken(1);
                broker.subscribe(&room, policy, mailbox, token).await.unwrap();
            }
        });
        in_time("the rooms are joined", futures_util::future::join_all(joins)).await;
    }
    mailbox
}

/// Publishes until the node hears all of its rooms again, and answers how often that was taken and how long the slowest
/// of these took.
async fn publish_meanwhile(node: &Node) -> (u32, Duration) {
    let up = node.broker.status().until_up();
    tokio::pin!(up);
    let (mut taken, mut slowest) = (0, Duration::ZERO);
    loop {
        let begun = Instant::now();
        tokio::select! {
            biased;
            () = &mut up => return (taken, slowest),
            said = node.say("meanwhile") => if said.is_ok() {
                taken += 1;
                slowest = slowest.max(begun.elapsed());
            },
        }
        tokio::task::yield_now().await;
    }
}

const ROOMS: usize = 10_000;

/// RD20, H03: after a loss all rooms are asked for again in a few commands: within a second, where other tests don't
/// take the processors. Publishes are taken meanwhile.
#[tokio::test]
async fn ten_thousand_rooms_are_heard_again_within_seconds_of_a_loss() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let _mailbox = join_all_rooms(&node).await;
    redis.tell(&["CONFIG", "RESETSTAT"]);
    redis.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    node.until_down().await;
    let lost_at = Instant::now();
    let (taken, slowest) = in_time("it is up", publish_meanwhile(&node)).await;
    let took = lost_at.elapsed();
    assert!(taken > 0 && slowest < Duration::from_secs(1), "{taken} {slowest:?}");
    let commands = redis.ask(&["INFO", "commandstats"]);
    let subscribes = commands.lines().find(|line| line.starts_with("cmdstat_subscribe:"));
    let calls = subscribes.and_then(|line| line.split(['=', ',']).nth(1)).unwrap();
    // And a channel for what all nodes are told.
    assert_eq!(calls.parse::<usize>().unwrap(), (ROOMS + 1).div_ceil(512));
    assert_eq!(
        redis.ask(&["PUBSUB", "NUMSUB", "roomkeeper/0:{public:r9999}"]).lines().last(),
        Some("1")
    );
    assert!(took < SOON.min(Duration::from_secs(3)), "{took:?}");
}

/// H03: it stands still, for a minute where `ROOMKEEPER_AWAY_SECONDS` says so, and comes back to three nodes with ten
/// thousand rooms each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "figures for whoever runs it")]
async fn a_redis_that_was_away_is_asked_for_ten_thousand_rooms_by_three_nodes_and_takes_publishes_meanwhile()
 {
    if !Redis::is_here() {
        return;
    }
    let away =
        std::env::var("ROOMKEEPER_AWAY_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    let mut redis = Redis::start();
    let nodes = [
        Node::impatient(&redis).await,
        Node::impatient(&redis).await,
        Node::impatient(&redis).await,
    ];
    let mut mailboxes = Vec::new();
    for node in &nodes {
        mailboxes.push(join_all_rooms(node).await);
    }
    redis.suspend();
    let stopped_at = Instant::now();
    for node in &nodes {
        node.until_down().await;
    }
    while stopped_at.elapsed() < Duration::from_secs(away) {
        assert!(nodes[0].say("never").await.is_err());
    }
    redis.go_on();
    let back_at = Instant::now();
    let publishing = nodes.iter().map(publish_meanwhile);
    let taken = in_time("they are up", futures_util::future::join_all(publishing)).await;
    let took = back_at.elapsed();
    println!(
        "{{\"fault\":\"redis away\",\"seconds\":{away},\"back_after_s\":{:.2},\"taken\":\"{taken:?}\"}}",
        took.as_secs_f64()
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(taken.iter().all(|(_, slowest)| *slowest < Duration::from_secs(2)), "{taken:?}");
    let on = redis.ask(&["PUBSUB", "NUMSUB", "roomkeeper/0:{public:r9999}"]);
    assert_eq!(on.lines().last(), Some("3"));
}

/// RD05: only the commands are cut. Who is in the room goes on hearing, whoever could not join meanwhile.
#[tokio::test]
async fn a_join_that_fails_ends_nobody_else_s_subscription() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (one, two) = (Node::impatient(&redis).await, Node::impatient(&redis).await);
    let mailbox = one.mailbox(1).await;
    let mut refused = 0;
    for _ in 0..20 {
        redis.tell(&["CLIENT", "KILL", "TYPE", "normal"]);
        // Another member of the same shard comes.
        refused += u32::from(one.subscribe(&mailbox, ROOM, 1).await.is_err());
    }
    assert!(refused > 0, "some of them failed");
    let sent = || named(publish(ROOM, "u1", "heard"), "m1");
    retry(&two, sent).await;
    assert_eq!(receive(&mailbox, 1).await.0, [(1, "heard".to_owned())]);
    assert!(redis.ask(&["PUBSUB", "CHANNELS"]).contains("{public:a}"));
}

/// A change of presence has no log and no number that a channel's return could be compared with.
#[tokio::test]
async fn a_subscription_that_is_cut_may_have_missed_presence_in_every_room() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let mailbox = node.mailbox(1).await;
    redis.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    in_time("it is told", async {
        loop {
            let mut post = application::mailbox::Post::default();
            mailbox.take(&mut post);
            assert!(post.holes.is_empty(), "nothing was published");
            if post.presence_hole {
                return;
            }
            mailbox.arrival().await;
        }
    })
    .await;
}
