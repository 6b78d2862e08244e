//! Who is where over several nodes, and what becomes of those whose node is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use application::mailbox::{Mail, Mailbox, Post};
use application::ports::Presence;
use application::testing::broker_contract::room;
use broker_redis::Config;
use bytes::Bytes;
use domain::id::{ConnectionId, UserId};
use domain::presence::{PresenceChange, PresenceKey};
use serde_json::json;
use tests::follower::Follower;
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tokio::runtime::Handle;

use crate::brokers::{Node, ROOM, in_time};
use crate::fleet::until_status;
use crate::passage::Passage;

/// Short, so that nobody has to wait; long beside the 200 ms in which it is renewed.
const LEASE: Duration = Duration::from_secs(1);
const NODES: &str = "roomkeeper:{all}:nodes";
const NO_GRACE: Duration = Duration::ZERO;

fn user(name: &str) -> PresenceKey {
    PresenceKey::User(UserId::parse(name).unwrap())
}

async fn enter(node: &Node, name: &str, bits: u64) {
    let (room, user) = (room(ROOM), user(name));
    let entered = node.broker.enter(&room, &user, ConnectionId::from_bits(bits));
    in_time("it enters", entered).await.unwrap();
}

async fn leave(node: &Node, name: &str, bits: u64) {
    node.broker.leave(&room(ROOM), &user(name), ConnectionId::from_bits(bits)).await;
}

/// The next `count` changes that a follower hears.
async fn hear(mailbox: &Mailbox, count: usize) -> Vec<(PresenceChange, String)> {
    let mut all = Vec::new();
    let collect = async {
        while all.len() < count {
            let mut post = Post::default();
            mailbox.take(&mut post);
            for mail in post.mail {
                if let Mail::Presence(_, event) = mail {
                    all.push((event.change, event.who.to_string()));
                }
            }
            if all.len() < count {
                mailbox.arrival().await;
            }
        }
    };
    in_time("the changes come", collect).await;
    all
}

/// Until the list has these names: what is deferred is not waited for in any other way.
async fn until_listed(node: &Node, names: &[&str]) {
    let look = async {
        loop {
            let list = node.broker.list(&room(ROOM), 100).await;
            let here = list.map(|list| {
                list.members.iter().map(|member| member.who.to_string()).collect::<Vec<_>>()
            });
            if here.as_deref() == Ok(&names.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    in_time("the list is right", look).await;
}

fn told(change: PresenceChange, name: &str) -> (PresenceChange, String) {
    (change, name.to_owned())
}

#[tokio::test]
async fn a_user_on_two_nodes_is_one_member_that_joins_and_leaves_once() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let one = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    let two = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    let follower = two.mailbox(1).await;
    enter(&one, "ann", 1).await;
    enter(&two, "ann", 2).await;
    enter(&two, "ann", 3).await;
    let list = one.broker.list(&room(ROOM), 10).await.unwrap();
    assert_eq!((list.total, list.connections, list.members[0].connections), (1, 3, 3));
    one.broker.update(&room(ROOM), &user("ann"), Bytes::from_static(b"{}")).await.unwrap();
    for (node, bits) in [(&one, 1), (&two, 3), (&two, 2)] {
        leave(node, "ann", bits).await;
    }
    let expected = [PresenceChange::Join, PresenceChange::Update, PresenceChange::Leave];
    assert_eq!(hear(&follower, 3).await, expected.map(|change| told(change, "ann")));
}

/// N08, D08: what a network kept back is no ghost, though its node was taken out before it came.
#[tokio::test]
async fn what_a_node_that_is_gone_had_said_comes_late_and_is_taken_back_all_the_same() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let proxy = Passage::start(&Handle::current(), redis.port());
    let config = Config {
        lease: LEASE,
        leave_grace: NO_GRACE,
        answer_timeout: LEASE / 3,
        ..Config::new(proxy.url().into())
    };
    let one = Node::start_with(config).await;
    let two = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    enter(&one, "ann", 1).await;
    enter(&two, "bob", 2).await;
    proxy.silence();
    let (public, cid) = (room(ROOM), user("cid"));
    let entering = one.broker.enter(&public, &cid, ConnectionId::from_bits(3));
    in_time("it gives up", entering).await.unwrap_err();
    drop(one);
    until_listed(&two, &["bob"]).await;
    let names = |list: &str| list.contains("cid");
    proxy.open();
    // It comes, and goes again.
    let members = "roomkeeper:{public:a}:names";
    let has_come = async {
        while !names(&redis.ask(&["ZRANGE", members, "0", "-1"])) {
            tokio::task::yield_now().await;
        }
    };
    in_time("it comes", has_come).await;
    until_listed(&two, &["bob"]).await;
}

/// N01, D08: nobody says a word for a node that is gone; its members are taken out when its lease is over.
#[tokio::test]
async fn members_of_a_node_that_is_gone_leave_within_a_lease_and_others_stay() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let one = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    let two = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    let follower = two.mailbox(1).await;
    enter(&two, "stays", 1).await;
    enter(&one, "both", 2).await;
    enter(&two, "both", 3).await;
    for number in 0..300 {
        enter(&one, &format!("gone{number:03}"), 100 + number).await;
    }
    hear(&follower, 302).await;
    drop(one);
    let left = hear(&follower, 300).await;
    assert!(
        left.iter()
            .all(|(change, who)| *change == PresenceChange::Leave && who.starts_with("gone"))
    );
    until_listed(&two, &["both", "stays"]).await;
    let list = two.broker.list(&room(ROOM), 10).await.unwrap();
    assert_eq!((list.total, list.connections), (2, 2));
    assert_eq!(redis.ask(&["ZCARD", NODES]), "1");
    let left = redis.ask(&["KEYS", "*over*"]);
    assert_eq!(left.lines().count(), 1, "{left}");
}

#[tokio::test]
async fn who_comes_back_within_the_grace_has_never_left_on_this_node_or_another() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let grace = Duration::from_millis(300);
    let one = Node::with_lease(&redis, LEASE, grace).await;
    let two = Node::with_lease(&redis, LEASE, grace).await;
    let follower = two.mailbox(1).await;
    enter(&one, "ann", 1).await;
    leave(&one, "ann", 1).await;
    enter(&one, "ann", 2).await;
    leave(&one, "ann", 2).await;
    enter(&two, "ann", 3).await;
    leave(&two, "ann", 3).await;
    let heard = hear(&follower, 2).await;
    assert_eq!(heard, [told(PresenceChange::Join, "ann"), told(PresenceChange::Leave, "ann")]);
}

#[tokio::test]
async fn a_redis_that_has_lost_everything_is_told_again_who_is_here() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let node = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    enter(&node, "ann", 1).await;
    enter(&node, "bob", 2).await;
    redis.kill();
    node.until_down().await;
    // Nobody is there to hear it now.
    leave(&node, "bob", 2).await;
    redis.start_again();
    node.until_up().await;
    until_listed(&node, &["ann"]).await;
}

/// RD02: what a node said before Redis went it takes back by itself, however long its lease would have lasted.
#[tokio::test]
async fn who_left_while_redis_was_away_is_gone_as_soon_as_it_is_back_with_what_it_had() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start_on_disk();
    let node = Node::with_lease(&redis, LEASE * 120, NO_GRACE).await;
    enter(&node, "ann", 1).await;
    enter(&node, "bob", 2).await;
    let before = node.broker.list(&room(ROOM), 10).await.unwrap().seq;
    redis.kill();
    node.until_down().await;
    leave(&node, "bob", 2).await;
    redis.start_again();
    node.until_up().await;
    until_listed(&node, &["ann"]).await;
    let list = in_time("she is here once", async {
        loop {
            let list = node.broker.list(&room(ROOM), 10).await.unwrap();
            if list.connections == 1 {
                return list;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(list.seq, before + 1, "one left, and nobody else in between");
}

/// A node that was stopped for longer than its lease speaks under another name when it wakes.
/// N08: names are drawn, and none is spoken under again.
#[tokio::test]
async fn a_node_whose_lease_ran_out_says_everything_again_under_another_name() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let one = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    let two = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    enter(&one, "ann", 1).await;
    // As if it had slept: its lease is over, and another has claimed it.
    let name = redis.ask(&["ZRANGE", NODES, "0", "-1"]);
    for node in name.lines() {
        redis.tell(&["ZREM", NODES, node]);
        redis.tell(&["SADD", "roomkeeper:{all}:gone", node]);
    }
    let renamed = async {
        loop {
            let now = redis.ask(&["ZRANGE", NODES, "0", "-1"]);
            if name.lines().all(|old| !now.contains(old)) && now.lines().count() == 2 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    in_time("the nodes have new names", renamed).await;
    until_listed(&two, &["ann"]).await;
    in_time("what was said before is taken back", async {
        while two.broker.list(&room(ROOM), 10).await.unwrap().connections != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let follower = Arc::new(Mailbox::new(9, 10));
    two.subscribe(&follower, ROOM, 1).await.unwrap();
    leave(&one, "ann", 1).await;
    assert_eq!(hear(&follower, 1).await, [told(PresenceChange::Leave, "ann")]);
}

/// D08: all leases run out while nobody can renew them, and nobody has left.
#[tokio::test]
async fn a_redis_that_was_frozen_for_longer_than_all_leases_makes_nobody_leave() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let one = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    let two = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    enter(&one, "ann", 1).await;
    enter(&two, "bob", 2).await;
    let shown = Bytes::from_static(b"{\"mood\":1}");
    one.broker.update(&room(ROOM), &user("ann"), shown.clone()).await.unwrap();
    let follower = two.mailbox(1).await;
    redis.suspend();
    two.until_down().await;
    one.until_down().await;
    // Longer than a lease by Redis's own clock.
    let mut second = tokio::time::interval(LEASE * 2);
    second.tick().await;
    second.tick().await;
    redis.go_on();
    one.until_up().await;
    two.until_up().await;
    enter(&one, "zoe", 3).await;
    let heard = hear(&follower, 1).await;
    assert_eq!(heard, [told(PresenceChange::Join, "zoe")], "nobody has left meanwhile");
    let list = two.broker.list(&room(ROOM), 10).await.unwrap();
    assert_eq!((list.total, list.connections, &list.members[0].data), (3, 3, &shown));
}

#[tokio::test]
async fn what_members_show_is_said_again_to_a_redis_that_has_lost_it() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let node = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    enter(&node, "ann", 1).await;
    let shown = Bytes::from_static(b"{\"mood\":1}");
    node.broker.update(&room(ROOM), &user("ann"), shown.clone()).await.unwrap();
    redis.start_again();
    node.until_down().await;
    node.until_up().await;
    until_listed(&node, &["ann"]).await;
    assert_eq!(node.broker.list(&room(ROOM), 10).await.unwrap().members[0].data, shown);
}

/// N02: who comes back over another node has never left, and the node that stops need not stay for that. Who does not
/// come has left when a lease is over.
#[tokio::test]
async fn who_was_told_to_come_back_elsewhere_is_waited_for_beyond_the_end_of_the_node() {
    if !Redis::is_here() {
        return;
    }
    let (redis, lease) = (Redis::start(), 3 * LEASE);
    let one = Node::with_lease(&redis, lease, NO_GRACE).await;
    let two = Node::with_lease(&redis, lease, NO_GRACE).await;
    let follower = two.mailbox(1).await;
    enter(&one, "ann", 1).await;
    enter(&one, "bob", 2).await;
    enter(&two, "cid", 3).await;
    one.broker.part();
    let begin = Instant::now();
    leave(&one, "ann", 1).await;
    leave(&one, "bob", 2).await;
    in_time("it says its last words", one.broker.finish()).await;
    drop(one);
    assert!(begin.elapsed() < lease / 2, "it has waited");
    enter(&two, "ann", 4).await;
    let joins = ["ann", "bob", "cid"].map(|name| told(PresenceChange::Join, name));
    assert_eq!(hear(&follower, 3).await, joins);
    assert_eq!(hear(&follower, 1).await, [told(PresenceChange::Leave, "bob")]);
    assert!(begin.elapsed() >= lease, "{:?}", begin.elapsed());
    until_listed(&two, &["ann", "cid"]).await;
}

/// A node that ends in order says so, whatever graces there are.
#[tokio::test]
async fn a_node_that_ends_leaves_nobody_behind() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let one = Node::with_lease(&redis, LEASE, Duration::from_secs(30)).await;
    let two = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    enter(&one, "ann", 1).await;
    enter(&one, "bob", 2).await;
    leave(&one, "ann", 1).await;
    // Bob's connection is cut off with the node.
    in_time("it says its last words", one.broker.finish()).await;
    drop(one);
    until_listed(&two, &[]).await;
}

/// H04: over several nodes, each of which gathers for its own.
#[test]
fn everybody_joins_a_room_over_two_nodes_and_each_knows_who_is_there() {
    const CROWD: usize = 40;
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let url = format!("redis.url={}", redis.url());
    let nodes = [0; 2].map(|_| Server::start(&["--set", &url]));
    nodes.iter().for_each(|node| until_status(node, 200));
    let ask = json!({"type": "presence", "id": 1, "room": ROOM});
    let mut crowd: Vec<_> = (0..CROWD)
        .map(|n| {
            let mut socket = RawSocket::open(nodes[n % 2].addr(), "/ws/v2/connect");
            socket.expect_json("hello");
            (socket, Follower::default())
        })
        .collect();
    for (socket, _) in &mut crowd {
        socket.send_json(&json!({"type": "subscribe", "room": ROOM, "presence": true}));
        socket.send_json(&ask);
    }
    // Told one by one or gathered, as they come.
    for (socket, follower) in &mut crowd {
        while follower.members.as_ref().is_none_or(|there| there.len() < CROWD) {
            let frame = socket.next_json();
            if follower.hear(&frame) {
                socket.send_json(&ask);
            }
        }
        assert_eq!(follower.total, CROWD as u64);
    }
}
