//! Who is where over several nodes, and what becomes of those whose node is gone.

use std::sync::Arc;
use std::time::Duration;

use application::mailbox::{Mail, Mailbox, Post};
use application::ports::Presence;
use application::testing::broker_contract::room;
use bytes::Bytes;
use domain::id::{ConnectionId, UserId};
use domain::presence::{PresenceChange, PresenceKey};
use tests::redis::Redis;

use crate::brokers::{Node, ROOM, in_time};

/// Short, so that nobody has to wait; long beside the 200 ms in which it is renewed.
const LEASE: Duration = Duration::from_secs(1);
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

/// D01, N01: nobody says a word for a node that is gone; its members are taken out when its lease is over.
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
    assert_eq!(redis.ask(&["ZCARD", "roomkeeper:nodes"]), "1");
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

/// A node that was stopped for longer than its lease speaks under another name when it wakes.
#[tokio::test]
async fn a_node_whose_lease_ran_out_says_everything_again_under_another_name() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let one = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    let two = Node::with_lease(&redis, LEASE, NO_GRACE).await;
    enter(&one, "ann", 1).await;
    // As if it had slept: its lease is over, and others may take back what it said.
    let name = redis.ask(&["ZRANGE", "roomkeeper:nodes", "0", "-1"]);
    for node in name.lines() {
        redis.tell(&["ZADD", "roomkeeper:nodes", "1", node]);
    }
    let renamed = async {
        loop {
            let now = redis.ask(&["ZRANGE", "roomkeeper:nodes", "0", "-1"]);
            if name.lines().all(|old| !now.contains(old)) && now.lines().count() == 2 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    in_time("the nodes have new names", renamed).await;
    until_listed(&two, &["ann"]).await;
    let list = two.broker.list(&room(ROOM), 10).await.unwrap();
    assert_eq!((list.total, list.connections), (1, 1));
    let follower = Arc::new(Mailbox::new(9, 10));
    two.subscribe(&follower, ROOM, 1).await.unwrap();
    leave(&one, "ann", 1).await;
    assert_eq!(hear(&follower, 1).await, [told(PresenceChange::Leave, "ann")]);
}
