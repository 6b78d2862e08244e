//! The broker on a Cluster of three masters: the contracts of its ports, and what becomes of rooms when slots and
//! masters change.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use application::mailbox::{Mail, Mailbox, Post};
use application::ports::{Broker, Presence};
use application::testing::broker_contract::{MAIL_MAX, named, publish, room};
use application::testing::erasure_contract::ErasureContract;
use domain::id::{ConnectionId, UserId};
use domain::position::Offset;
use domain::presence::{PresenceChange, PresenceKey};
use tests::redis::Redis;
use tests::redis_many::Shards;

use crate::brokers::{Alone, Node, ROOM, hear_until, impatient, in_time, receive, retry, texts};

async fn alone() -> Arc<dyn Broker> {
    let shards = Shards::start();
    Alone::with(shards.url(), shards).await
}

async fn where_redis_is(part: impl Future<Output = ()>) {
    if Redis::is_here() {
        in_time("the contract", part).await;
    }
}

application::broker_contract_tests!(super::cluster::alone, super::cluster::where_redis_is);

async fn node(shards: &Shards) -> Node {
    Node::start_with(impatient(shards.url())).await
}

/// The slot of a key's tag, as the Cluster says.
fn slot_of(shards: &Shards, tag: &str) -> u16 {
    shards.servers[0].ask(&["CLUSTER", "KEYSLOT", tag]).parse().unwrap()
}

#[tokio::test]
async fn erasures_keep_the_contract() {
    if !Redis::is_here() {
        return;
    }
    let shards = Shards::start();
    let broker = Alone::with(shards.url(), shards).await;
    let contract = ErasureContract { broker: &*broker, erasure: &*broker, durable: false };
    in_time("the contract", contract.check()).await;
}

#[tokio::test]
async fn rooms_lie_on_all_masters_and_every_node_hears_all_of_them() {
    const ROOMS: usize = 60;
    if !Redis::is_here() {
        return;
    }
    let shards = Shards::start();
    let (one, two) = (node(&shards).await, node(&shards).await);
    let mailbox = Arc::new(Mailbox::new(1, MAIL_MAX));
    for number in 0..ROOMS {
        two.subscribe(&mailbox, &format!("public:r{number}"), 1).await.unwrap();
    }
    for number in 0..ROOMS {
        let name = format!("public:r{number}");
        one.publish(publish(&name, "u1", &name)).await.unwrap();
    }
    let (heard, hole) = receive(&mailbox, ROOMS).await;
    let texts: BTreeSet<_> = heard.into_iter().map(|(_, text)| text).collect();
    assert_eq!((texts.len(), hole), (ROOMS, false));
    for server in &shards.servers {
        let keys: usize = server.ask(&["DBSIZE"]).parse().unwrap();
        let channels = server.ask(&["PUBSUB", "SHARDCHANNELS", "roomkeeper/0:{public:*"]);
        assert!(keys > 10 && channels.lines().count() > 5, "{keys} {channels}");
    }
}

#[tokio::test]
async fn a_slot_that_moves_takes_its_rooms_along_and_nobody_misses_anything_in_silence() {
    if !Redis::is_here() {
        return;
    }
    let shards = Shards::start();
    let node = node(&shards).await;
    let mailbox = node.mailbox(1).await;
    let slot = slot_of(&shards, ROOM);
    let mut acked = Vec::new();
    for turn in 0..4 {
        let to = (shards.owner(slot) + 1) % 3;
        for n in 0..5 {
            let text = format!("{turn}-{n}");
            retry(&node, || named(publish(ROOM, "u1", &text), &text)).await;
            acked.push(text);
            if n == 2 {
                shards.move_slot(slot, to);
            }
        }
        assert_eq!(shards.owner(slot), to);
    }
    let page = node.read(0).await;
    assert_eq!(texts(&page), acked, "each once, in order");
    // Its shard has heard all of it over one owner or another, or was told to look.
    retry(&node, || publish(ROOM, "u1", "last")).await;
    let (heard, has_hole) = hear_until(&mailbox, "last").await;
    assert!(has_hole || acked.iter().all(|text| heard.contains(text)));
    // And it hears what comes over the last one.
    node.say("over the last").await.unwrap();
    hear_until(&mailbox, "over the last").await;
}

/// RD11: what the replica had is there, under a new epoch, and the other masters' rooms have not noticed.
#[tokio::test]
async fn a_master_that_dies_is_followed_to_its_replica_and_other_rooms_go_on_meanwhile() {
    if !Redis::is_here() {
        return;
    }
    let mut shards = Shards::start_with(1);
    let node = node(&shards).await;
    let of_first = (0..).map(|n| format!("public:a{n}"));
    let lies_with = |name: &String| shards.owner(slot_of(&shards, name));
    let first = of_first.clone().find(|name| lies_with(name) == 0).unwrap();
    let second = of_first.clone().find(|name| lies_with(name) == 1).unwrap();
    let mailbox = Arc::new(Mailbox::new(1, MAIL_MAX));
    for name in [&first, &second] {
        node.subscribe(&mailbox, name, 1).await.unwrap();
    }
    let before = node.publish(named(publish(&first, "u1", "1"), "m1")).await.unwrap();
    let other = node.publish(publish(&second, "u1", "x")).await.unwrap();
    shards.servers[0].tell(&["WAIT", "1", "10000"]);
    receive(&mailbox, 2).await;
    shards.servers[0].kill();
    node.until_down().await;
    let meanwhile = node.publish(publish(&second, "u1", "y")).await;
    if let Ok(meanwhile) = meanwhile {
        assert_eq!(meanwhile.epoch, other.epoch);
    }
    node.until_up().await;
    let again = retry(&node, || named(publish(&first, "u1", "1"), "m1")).await;
    assert_eq!((again.duplicate, again.offset.map(Offset::get)), (true, Some(1)));
    let after = retry(&node, || named(publish(&first, "u1", "2"), "m2")).await;
    assert_eq!(after.offset.map(Offset::get), Some(2));
    assert_ne!(after.epoch, before.epoch, "a promoted replica may have lost something");
    let still = retry(&node, || publish(&second, "u1", "z")).await;
    assert_eq!(still.epoch, other.epoch, "this one's master has not changed");
    in_time("it is heard over the new master", async {
        loop {
            let mut post = application::mailbox::Post::default();
            mailbox.take(&mut post);
            if post.mail.iter().any(|mail| format!("{mail:?}").contains("u1")) {
                return;
            }
            retry(&node, || publish(&first, "u1", "3")).await;
        }
    })
    .await;
}

/// RD08: a connection to each master, and each asks for its own. A second on a machine with nothing else to do.
#[tokio::test]
#[allow(clippy::print_stdout, reason = "a figure for whoever runs it")]
async fn ten_thousand_rooms_of_a_cluster_are_heard_again_within_seconds_of_a_loss() {
    const ROOMS: usize = 10_000;
    if !Redis::is_here() {
        return;
    }
    let shards = Shards::start();
    let node = Node::start_with(broker_redis::Config::new(shards.url().into())).await;
    let mailbox = Arc::new(Mailbox::new(1, MAIL_MAX));
    let names: Vec<_> = (0..ROOMS).map(|n| format!("public:r{n}")).collect();
    for chunk in names.chunks(500) {
        let joins = chunk.iter().map(|name| node.subscribe(&mailbox, name, 1));
        let joined = in_time("they are joined", futures_util::future::join_all(joins)).await;
        assert!(joined.iter().all(Result::is_ok));
    }
    for server in &shards.servers {
        server.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    }
    node.until_down().await;
    let lost_at = std::time::Instant::now();
    node.until_up().await;
    let took = lost_at.elapsed();
    println!("{ROOMS} rooms on three masters are heard again after {took:?}");
    let channels: usize = shards
        .servers
        .iter()
        .map(|s| s.ask(&["PUBSUB", "SHARDCHANNELS", "roomkeeper/0:{public:*"]).lines().count())
        .sum();
    assert_eq!(channels, ROOMS);
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
}

/// A node that dies is taken back everywhere, wherever the rooms of its members lie.
#[tokio::test]
async fn members_of_a_node_that_dies_leave_rooms_on_all_masters() {
    if !Redis::is_here() {
        return;
    }
    let shards = Shards::start();
    let lease = std::time::Duration::from_secs(1);
    let config = broker_redis::Config {
        lease,
        answer_timeout: lease / 3,
        leave_grace: std::time::Duration::ZERO,
        ..impatient(shards.url())
    };
    let (one, two) = (Node::start_with(config.clone()).await, Node::start_with(config).await);
    let user = PresenceKey::User(UserId::parse("ann").unwrap());
    let rooms: Vec<_> = (0..12).map(|n| room(&format!("public:r{n}"))).collect();
    for (bits, room) in (1_u64..).zip(&rooms) {
        one.broker.enter(room, &user, ConnectionId::from_bits(bits)).await.unwrap();
    }
    let present = async || {
        let mut present = 0;
        for room in &rooms {
            present += two.broker.list(room, 10).await.unwrap().total;
        }
        present
    };
    assert_eq!(present().await, rooms.len());
    drop(one);
    in_time("they have left", async { while present().await > 0 {} }).await;
}

/// Has `members` users enter the rooms in turn, 500 at a time.
async fn enter_all(node: &Node, rooms: &[domain::room::RoomId], members: usize) {
    for chunk in (0..members).collect::<Vec<_>>().chunks(500) {
        let enter = |n: &usize| {
            let user = PresenceKey::User(UserId::parse(&format!("u{n}")).unwrap());
            let connection = ConnectionId::from_bits(*n as u64);
            let (broker, room) = (Arc::clone(&node.broker), rooms[n % rooms.len()].clone());
            async move { broker.enter(&room, &user, connection).await }
        };
        let entered = futures_util::future::join_all(chunk.iter().map(enter));
        assert!(in_time("they enter", entered).await.iter().all(Result::is_ok));
    }
}

/// RD11, planned: one node finds a master replaced and says everything anew under another name, while the other knows of
/// nothing yet and would take the former name for a node that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_of_one_master_is_seen_by_nobody_as_a_leave() {
    const ROOMS: usize = 200;
    const MEMBERS: usize = 8_000;
    if !Redis::is_here() {
        return;
    }
    let shards = Shards::start_with(2);
    // What all nodes look at stays where it is: it is how each would learn of it.
    let of_all = shards.owner(slot_of(&shards, "all"));
    let replaced = usize::from(of_all == 0);
    let lease = std::time::Duration::from_secs(2);
    let config = broker_redis::Config {
        lease,
        leave_grace: std::time::Duration::ZERO,
        ..impatient(shards.url())
    };
    let one = Node::start_with(config.clone()).await;
    // None while the Cluster finds out who is who.
    let ask_nodes = ["ZRANGE", "roomkeeper:{all}:nodes", "0", "-1"];
    let nodes = || shards.servers[of_all].try_ask(&ask_nodes).ok();
    let until = async |what: &str, is_so: &dyn Fn() -> bool| {
        in_time(what, async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    until("it has a lease", &|| nodes().is_some_and(|nodes| !nodes.is_empty())).await;
    let former = nodes().expect("the Cluster stands");
    let slow = std::time::Duration::from_secs(3_600);
    let two = Node::start_with(broker_redis::Config { probe_interval: slow, ..config }).await;
    let rooms: Vec<_> = (0..ROOMS).map(|n| room(&format!("public:r{n}"))).collect();
    enter_all(&one, &rooms, MEMBERS).await;
    let mailbox = Arc::new(Mailbox::new(1, MAIL_MAX));
    let elsewhere =
        |name: &&domain::room::RoomId| shards.owner(slot_of(&shards, name.as_str())) != replaced;
    for name in rooms.iter().filter(elsewhere).take(50) {
        two.subscribe(&mailbox, name.as_str(), 1).await.unwrap();
    }
    // Only behind a link that has stood for a lease anybody is taken back.
    let stood = std::time::Instant::now();
    until("its link has stood", &|| stood.elapsed() > 2 * lease).await;
    shards.servers[3 + replaced].tell(&["CLUSTER", "FAILOVER"]);
    until("it has another name", &|| nodes().is_some_and(|nodes| !nodes.contains(&former))).await;
    let masters: Vec<_> = (0..3).map(|n| if n == replaced { 3 + replaced } else { n }).collect();
    let said = format!("roomkeeper:node:{former}:rooms");
    let is_taken_back = || {
        masters.iter().all(|&n| {
            let all = shards.servers[n].try_ask(&["SCAN", "0", "MATCH", &said, "COUNT", "100000"]);
            all.is_ok_and(|all| !all.contains(&said))
        })
    };
    until("what was said under it is taken back", &is_taken_back).await;
    let mut post = Post::default();
    mailbox.take(&mut post);
    let left = post.mail.iter().filter(
        |mail| matches!(mail, Mail::Presence(_, event) if event.change == PresenceChange::Leave),
    );
    assert_eq!(left.count(), 0);
    for name in [&rooms[0], &rooms[ROOMS - 1]] {
        let list = in_time("it is listed", async {
            loop {
                if let Ok(list) = one.broker.list(name, 100).await {
                    return list;
                }
            }
        });
        assert_eq!(list.await.total, MEMBERS / ROOMS);
    }
}
