//! What becomes of connections to Redis that are held, cut, half dead or lost again at once, and of servers that are
//! none to work with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use application::mailbox::{Mailbox, Post};
use application::ports::{Presence, PublishError};
use application::testing::broker_contract::{MAIL_MAX, named, publish, room};
use broker_redis::{Config, RedisBroker, StartError};
use domain::id::{ConnectionId, UserId};
use domain::position::Offset;
use domain::presence::PresenceKey;
use tests::redis::Redis;
use tests::redis_many::{Sentinels, Shards};
use tests::server::{Server, exit_of};
use tests::tls::Authority;
use tests::token::SECRET;

use crate::brokers::{Counter, Node, ROOM, impatient, in_time, receive, receive_hole, retry};
use crate::fleet::until_status;
use crate::proxy::{Proxy, Way};

fn user(name: &str) -> PresenceKey {
    PresenceKey::User(UserId::parse(name).unwrap())
}

/// RD03: a word that was written into a connection which was given up, and arrives after newer ones.
#[tokio::test]
async fn what_was_held_on_the_way_is_not_done_after_what_was_said_later() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port()).await;
    let grace = Config { leave_grace: Duration::ZERO, ..impatient(proxy.url()) };
    let node = Node::start_with(grace).await;
    let (room, ann, bits) = (room(ROOM), user("ann"), ConnectionId::from_bits(1));
    node.broker.enter(&room, &ann, bits).await.unwrap();
    let old = proxy.made();
    proxy.up(Way::Held, |_| true);
    // Both are under way, and nobody knows of what has become of them.
    node.broker.leave(&room, &ann, bits).await;
    let sent = named(publish(ROOM, "u1", "old"), "m1");
    assert!(matches!(node.publish(sent).await, Err(PublishError::Unavailable { .. })));
    node.until_down().await;
    node.until_up().await;
    in_time("she is back", async { while node.broker.enter(&room, &ann, bits).await.is_err() {} })
        .await;
    let new = retry(&node, || named(publish(ROOM, "u2", "new"), "m2")).await;
    assert_eq!(new.offset.map(Offset::get), Some(1), "the old one has not arrived");
    // Now it does.
    proxy.up(Way::Open, |number| number <= old);
    for _ in 0..50 {
        let list = node.broker.list(&room, 10).await.unwrap();
        assert_eq!(list.total, 1, "she is here");
        assert_eq!(node.read(0).await.messages.len(), 1);
    }
    let last = node.publish(named(publish(ROOM, "u1", "old"), "m1")).await.unwrap();
    assert_eq!((last.duplicate, last.offset.map(Offset::get)), (false, Some(2)));
}

/// RD04: a reset in the middle of a reply, and half a reply with nothing behind it.
#[tokio::test]
async fn a_connection_with_half_a_reply_is_never_used_again() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port()).await;
    let node = Node::start_with(impatient(proxy.url())).await;
    for (turn, is_cut) in [true, false, true, false].into_iter().enumerate() {
        let text = turn.to_string();
        let made = proxy.made();
        proxy.down(Way::Only(7), |_| true);
        let answer = node.publish(named(publish(ROOM, "u1", &text), &text)).await;
        assert!(matches!(answer, Err(PublishError::Unavailable { .. })), "{answer:?}");
        if is_cut {
            proxy.down(Way::Cut, |number| number <= made);
        }
        proxy.until_made(made + 1).await;
        proxy.down(Way::Open, |number| number <= made);
        let receipt = retry(&node, || named(publish(ROOM, "u1", &text), &text)).await;
        assert_eq!(receipt.offset.map(Offset::get), Some(turn as u64 + 1));
    }
    let texts: Vec<_> =
        node.read(0).await.messages.iter().map(|m| m.publication.data.clone()).collect();
    assert_eq!(texts, ["\"0\"", "\"1\"", "\"2\"", "\"3\""]);
}

/// RD05, RD06, RD16: nothing comes over the subscription any more, though nobody closed it; then over the
/// other connection. The node notices by asking over the same connection, and nothing is missed in silence.
#[tokio::test]
async fn a_connection_that_is_silently_dead_is_noticed_within_two_beats() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port()).await;
    let direct = Node::start(&redis).await;
    let node = Node::start_with(impatient(proxy.url())).await;
    let mailbox = node.mailbox(1).await;
    let mut number = 0;
    for (of_replies, is_meant) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
        let made = proxy.made();
        // Both of the node's connections are among the last ones: one of them, and then the other.
        let held = move |n: usize| n % 2 == is_meant;
        match of_replies {
            true => proxy.down(Way::Held, held),
            false => proxy.up(Way::Held, held),
        }
        let begin = Instant::now();
        direct.say("meanwhile").await.unwrap();
        number += 1;
        proxy.until_made(made + 1).await;
        let took = begin.elapsed();
        // Two beats of 200 ms and an answer's 300 ms, and what a busy machine takes.
        assert!(took < Duration::from_secs(3), "{took:?}");
        node.until_up().await;
        proxy.down(Way::Open, |_| true);
        proxy.up(Way::Open, |_| true);
        in_time("it came, or its shard was told to look", async {
            loop {
                let mut post = Post::default();
                mailbox.take(&mut post);
                if !post.holes.is_empty() || !post.mail.is_empty() {
                    return;
                }
                mailbox.arrival().await;
            }
        })
        .await;
        assert_eq!(node.read(0).await.bounds.last.get(), number);
    }
}

/// RD07: Redis cuts who does not read fast enough; everything is asked for again, and holes are told.
#[tokio::test]
async fn a_subscription_that_redis_cuts_for_its_slowness_is_made_again_with_all_rooms() {
    const ROOMS: usize = 200;
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    redis.tell(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 128kb 1"]);
    let proxy = Proxy::start(redis.port()).await;
    // Patient enough for the cut to come from there.
    let config = Config {
        lease: Duration::from_secs(60),
        answer_timeout: Duration::from_secs(20),
        ..impatient(proxy.url())
    };
    let node = Node::start_with(config).await;
    let direct = Node::start(&redis).await;
    let mailbox = node.mailbox(1).await;
    for number in 0..ROOMS {
        node.subscribe(&mailbox, &format!("public:r{number}"), 1).await.unwrap();
    }
    proxy.down(Way::Held, |_| true);
    let large = "x".repeat(60_000);
    in_time("it is cut", async {
        while redis.ask(&["PUBSUB", "NUMSUB", "roomkeeper/0:{public:a}"]).ends_with('1') {
            direct.say(&large).await.unwrap();
        }
    })
    .await;
    proxy.down(Way::Open, |_| true);
    assert!(!receive_hole(&mailbox).await.holes.is_empty());
    node.until_up().await;
    let channels = redis.ask(&["PUBSUB", "CHANNELS", "roomkeeper/0:{public:*"]);
    assert_eq!(channels.lines().count(), ROOMS + 1);
}

/// RD08: lost again and again while all rooms are being asked for. What is heard in the end is what is wanted.
#[tokio::test]
async fn a_subscription_that_is_lost_while_it_is_made_ends_with_all_rooms_and_no_others() {
    const ROOMS: usize = 10_000;
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let node = Node::start(&redis).await;
    let mailbox = Arc::new(Mailbox::new(1, MAIL_MAX));
    let names: Vec<_> = (0..ROOMS).map(|n| format!("public:r{n}")).collect();
    for chunk in names.chunks(500) {
        let joins = chunk.iter().map(|name| node.subscribe(&mailbox, name, 1));
        let joined = in_time("they are joined", futures_util::future::join_all(joins)).await;
        assert!(joined.iter().all(Result::is_ok));
    }
    for round in 0..5 {
        redis.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        // Some leave and come while it is away.
        for name in names.iter().skip(round * 10).take(10) {
            node.unsubscribe(&mailbox, name, 1).await;
        }
        // It has begun again with some of them, and not ended.
        in_time("it begins again", async {
            while redis.ask(&["PUBSUB", "CHANNELS", "roomkeeper/0:{public:r9*"]).is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    redis.tell(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let wanted: std::collections::BTreeSet<_> =
        names.iter().skip(50).map(|name| format!("roomkeeper/0:{{{name}}}")).collect();
    in_time("all are there", async {
        loop {
            let channels = redis.ask(&["PUBSUB", "CHANNELS", "roomkeeper/0:{public:*"]);
            let channels: std::collections::BTreeSet<_> =
                channels.lines().map(str::to_owned).collect();
            if channels == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.until_up().await;
    node.publish(publish("public:r9999", "u1", "heard")).await.unwrap();
    assert_eq!(receive(&mailbox, 1).await.0, [(1, "heard".to_owned())]);
}

/// Why a server is of no use.
pub(crate) async fn wrong(config: Config) -> String {
    let broker = RedisBroker::build(config, Arc::new(Counter)).unwrap();
    match in_time("it is tried", broker.try_connect()).await.unwrap_err() {
        StartError::Unfit(text) => text,
        StartError::Away(text) => panic!("it is said to be away: {text}"),
    }
}

/// RD19: each says what to do.
#[tokio::test]
async fn a_server_that_can_never_be_of_use_is_named_with_what_to_do() {
    if !Redis::is_here() {
        return;
    }
    let redis = Redis::start();
    let (shards, sentinels) = (Shards::start(), Sentinels::start(&redis));
    let shard = shards.servers[0].url();
    assert!(wrong(impatient(shard)).await.contains("write redis+cluster://"));
    let as_cluster = redis.url().replace("redis://", "redis+cluster://");
    assert!(wrong(impatient(as_cluster)).await.contains("write redis://"));
    let sentinel = sentinels.url();
    let (_, first) = sentinel.split_once("://").unwrap();
    let sentinel = format!("redis://{}", first.split(',').next().unwrap());
    assert!(wrong(impatient(sentinel)).await.contains("write redis+sentinel://"));
    assert!(wrong(impatient(format!("{}/99", redis.url()))).await.contains("smaller number"));
    let password = redis.url().replace("://", "://nobody:x@");
    assert!(wrong(impatient(password)).await.contains("redis.password"));
    // A user who may do nothing, all but one command, or all with other keys.
    let rights = "on >secret ~roomkeeper:* &roomkeeper/* +@read +@write +@pubsub +@scripting +@connection +info +time +wait";
    let user = |name: &str, rights: &str| {
        let words: Vec<_> = ["ACL", "SETUSER", name].into_iter().chain(rights.split(' ')).collect();
        redis.tell(&words);
        impatient(redis.url().replace("://", &format!("://{name}:secret@")))
    };
    assert!(wrong(user("nothing", "on >secret")).await.contains("for this user"));
    let without = wrong(user("some", &format!("{rights} -hrandfield"))).await;
    assert!(without.contains("HRANDFIELD"), "{without}");
    let elsewhere = wrong(user("elsewhere", &rights.replace("~roomkeeper:*", "~other:*"))).await;
    assert!(elsewhere.contains("for this user"), "{elsewhere}");
    let deaf = wrong(user("deaf", &rights.replace("&roomkeeper/*", "resetchannels"))).await;
    assert!(deaf.contains("PUBLISH"), "{deaf}");
    let mute = wrong(user("mute", &format!("{rights} -subscribe"))).await;
    assert!(mute.contains("SUBSCRIBE"), "{mute}");
    // What is advised is enough.
    let node = Node::start_with(user("enough", rights)).await;
    node.say("1").await.unwrap();
    node.broker.enter(&room(ROOM), &user_key(), ConnectionId::from_bits(1)).await.unwrap();
}

fn user_key() -> PresenceKey {
    user("ann")
}

/// RD01, RD19: of the built binary.
#[test]
fn a_start_fails_without_a_redis_that_is_required_and_with_one_that_is_of_no_use() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    let shards = Shards::start();
    let start = |url: &str, required: bool| {
        let (url, required) = (format!("redis.url={url}"), format!("redis.required={required}"));
        let secret = format!("auth.hmac_secret={SECRET}");
        let words = ["--set", &url, "--set", &required, "--set", &secret];
        words.map(str::to_owned)
    };
    let fails = |words: [String; 6]| {
        let begin = ["serve", "--profile", "testing", "--listen", "127.0.0.1:0"];
        let words = words.each_ref().map(String::as_str);
        let (code, _, said) = exit_of(&[&begin[..], &words].concat());
        assert_eq!(code, Some(78), "{said}");
        said
    };
    let said = fails(start(&shards.servers[0].url(), false));
    assert!(said.contains("redis.url: redis can't be used: it is a Cluster"), "{said}");
    redis.kill();
    let said = fails(start(&redis.url(), true));
    assert!(said.contains("redis.url: redis can't be used"), "{said}");
    // Where it is not required it is waited for.
    let words = start(&redis.url(), false);
    let node = Server::start(&words.each_ref().map(String::as_str));
    until_status(&node, 503);
    redis.start_again();
    until_status(&node, 200);
}

/// RD01: that it is away is said otherwise.
#[tokio::test]
async fn a_server_that_is_away_is_not_one_that_is_wrong() {
    if !Redis::is_here() {
        return;
    }
    let mut redis = Redis::start();
    redis.kill();
    let broker = RedisBroker::build(impatient(redis.url()), Arc::new(Counter)).unwrap();
    assert!(matches!(broker.try_connect().await, Err(StartError::Away(_))));
    let sentinels = impatient("redis+sentinel://127.0.0.1:1,127.0.0.1:2/m".to_owned());
    let broker = RedisBroker::build(sentinels, Arc::new(Counter)).unwrap();
    assert!(
        matches!(broker.try_connect().await, Err(StartError::Away(text)) if text.contains("sentinel"))
    );
}

#[tokio::test]
async fn a_redis_with_tls_is_trusted_by_its_authority_and_by_no_other() {
    if !Redis::is_here() {
        return;
    }
    let (ours, other) = (Authority::new(), Authority::new());
    let certificate = ours.certificate(&["localhost", "127.0.0.1"]);
    let (file, key) = (certificate.file(), certificate.key_file());
    let redis = Redis::start_tls(&file, &key);
    let config = |authority: &Authority| Config {
        authority: Some(std::fs::read(authority.file()).unwrap()),
        ..impatient(redis.url())
    };
    let node = Node::start_with(config(&ours)).await;
    let mailbox = node.mailbox(1).await;
    node.say("sealed").await.unwrap();
    assert_eq!(receive(&mailbox, 1).await.0, [(1, "sealed".to_owned())]);
    for untrusted in [config(&other), impatient(redis.url())] {
        let broker = RedisBroker::build(untrusted, Arc::new(Counter)).unwrap();
        assert!(broker.try_connect().await.is_err());
    }
}
