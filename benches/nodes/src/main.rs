//! What the broker on Redis does, beside the bare library: `nodes redis://HOST:PORT [SECONDS]`, one round, as
//! one JSON object.
//!
//! - publishes a second at the adapter, from 256 publishers over 10,000 rooms, without a log, and with log and
//!   `msg_id`;
//! - the median time of one message from a publisher on one node to a mailbox on another, and on the same one,
//!   beside one bare `PUBLISH` to a subscriber, all one by one;
//! - how long a node takes until it hears 10,000 rooms again whose subscription was lost.
//!
//! It must never share a processor with Redis, or it measures both; `benches/redis` starts it so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a tool that one person runs: a failed step ends it, with words"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use application::mailbox::{Mailbox, Post};
use application::ports::{Broker, Entropy, NoEntropy, SubscriptionToken};
use broker_redis::{Config, RedisBroker};
use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{MessageId, UserId};
use domain::message::{Publish, Publisher, Sender};
use domain::policy::{Access, NamespacePolicy};
use domain::retention::Retention;
use domain::room::RoomId;
use domain::tags::Tags;
use domain::time::Wall;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind};
use tokio::sync::Notify;

const PUBLISHERS: usize = 256;
const ROOMS: usize = 10_000;
const DATA: &[u8] = b"\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"";
/// Of one way, one after another.
const TURNS: usize = 5_000;

#[derive(Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn bits(&self) -> Result<u64, NoEntropy> {
        // Two nodes count apart.
        static NODES: AtomicU64 = AtomicU64::new(1);
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(if n == 0 { NODES.fetch_add(1, Ordering::Relaxed) << 40 } else { n << 20 })
    }
}

async fn node(url: &str, prefix: &str) -> Arc<RedisBroker> {
    let config = Config { prefix: prefix.to_owned(), ..Config::new(url.to_owned().into()) };
    let broker = RedisBroker::build(config, Arc::new(Counter::default())).unwrap();
    tokio::spawn(Arc::clone(&broker).run());
    broker.status().until_up().await;
    broker
}

fn policy(retention: Retention) -> Arc<NamespacePolicy> {
    Arc::new(NamespacePolicy {
        subscribe: Access::Anyone,
        publish: Access::Anyone,
        presence: Access::Anyone,
        history: Access::Anyone,
        presence_listed: true,
        presence_named_max: 1_000,
        retention,
        default_class: Class::Reliable,
        durable: false,
        replicated: false,
        members_max: 1_000,
        patterns: false,
    })
}

fn publish(room: &RoomId, user: &UserId, msg_id: Option<MessageId>) -> Publish {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Publish {
        room: room.clone(),
        publisher: Publisher::User(user.clone()),
        msg_id,
        class: Class::Reliable,
        key: None,
        sender: Sender { user: Some(user.clone()), ..Sender::default() },
        data: Bytes::from_static(DATA),
        tags: Tags::default(),
        ttl: None,
        origin: None,
        at: Wall::from_millis(i64::try_from(since.as_millis()).unwrap()),
        fence: None,
    }
}

/// Publishes a second from all publishers together.
async fn rate(broker: &Arc<RedisBroker>, retention: Retention, named: bool, span: Duration) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let policy = policy(retention);
    let begin = Instant::now();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|who| {
            let (broker, policy, done) =
                (Arc::clone(broker), Arc::clone(&policy), Arc::clone(&done));
            tokio::spawn(async move {
                let user = UserId::parse(&format!("u{who}")).unwrap();
                let rooms = (who..ROOMS).step_by(PUBLISHERS);
                let rooms: Vec<_> =
                    rooms.map(|n| RoomId::parse(&format!("public:r{n}")).unwrap()).collect();
                for turn in 0.. {
                    if begin.elapsed() > span {
                        return;
                    }
                    let msg_id = named.then(|| MessageId::parse(&turn.to_string()).unwrap());
                    let sent = publish(&rooms[turn % rooms.len()], &user, msg_id);
                    broker.publish(sent, &policy).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64()
}

/// The median time from a publish over one node to the mailbox of another, in microseconds.
async fn way(from: &Arc<RedisBroker>, to: &Arc<RedisBroker>, name: &str) -> f64 {
    let (room, user) = (RoomId::parse(name).unwrap(), UserId::parse("u").unwrap());
    let policy = policy(Retention::NONE);
    let mailbox = Arc::new(Mailbox::new(1, 1_000));
    to.subscribe(&room, &policy, &mailbox, SubscriptionToken(1)).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..TURNS {
        let begin = Instant::now();
        let sent = publish(&room, &user, None);
        let arrived = async {
            let mut post = Post::default();
            while post.mail.is_empty() {
                mailbox.arrival().await;
                mailbox.take(&mut post);
            }
            begin.elapsed()
        };
        let (took, receipt) = tokio::join!(arrived, from.publish(sent, &policy));
        receipt.unwrap();
        times.push(took);
    }
    to.unsubscribe(&room, &mailbox, SubscriptionToken(1)).await;
    median(times)
}

/// The same of the library alone.
async fn bare(url: &str) -> f64 {
    let client = Client::open(format!("{url}/?protocol=resp3")).unwrap();
    let arrived = Arc::new(Notify::new());
    let ring = Arc::clone(&arrived);
    let push = move |info: PushInfo| -> Result<(), std::convert::Infallible> {
        if info.kind == PushKind::Message {
            ring.notify_one();
        }
        Ok(())
    };
    let options = AsyncConnectionConfig::new().set_push_sender(push);
    let mut listening =
        client.get_multiplexed_async_connection_with_config(&options).await.unwrap();
    listening.subscribe("bare").await.unwrap();
    let mut saying = client.get_multiplexed_async_connection().await.unwrap();
    let mut times = Vec::new();
    for _ in 0..TURNS {
        let begin = Instant::now();
        let mut command = redis::cmd("PUBLISH");
        command.arg("bare").arg(DATA);
        let heard = async {
            arrived.notified().await;
            begin.elapsed()
        };
        let (took, said) = tokio::join!(heard, command.query_async::<i64>(&mut saying));
        said.unwrap();
        times.push(took);
    }
    median(times)
}

/// How long a node takes, from when it notices that its subscription is lost until it hears all of its rooms again,
/// in milliseconds.
async fn heard_again(url: &str) -> f64 {
    let broker = node(url, "again").await;
    let policy = policy(Retention::default());
    let mailbox = Arc::new(Mailbox::new(1, 1_000));
    for number in 0..ROOMS {
        let room = RoomId::parse(&format!("public:r{number}")).unwrap();
        broker.subscribe(&room, &policy, &mailbox, SubscriptionToken(1)).await.unwrap();
    }
    let client = Client::open(url).unwrap();
    let mut saying = client.get_multiplexed_async_connection().await.unwrap();
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("pubsub");
    let (killed, begin) = tokio::join!(kill.query_async::<i64>(&mut saying), async {
        broker.status().until_down().await;
        Instant::now()
    });
    assert!(killed.unwrap() > 0);
    broker.status().until_up().await;
    begin.elapsed().as_secs_f64() * 1e3
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let url = words.first().expect("nodes redis://HOST:PORT [SECONDS]");
    let seconds = words.get(1).map_or(4.0, |text| text.parse().expect("a number of seconds"));
    let span = Duration::from_secs_f64(seconds);
    let (one, two) = (node(url, "one").await, node(url, "one").await);
    let plain = rate(&one, Retention::NONE, false, span).await;
    let kept =
        rate(&one, Retention { messages_max: 100, ..Retention::default() }, true, span).await;
    let bare_us = bare(url).await;
    let same_us = way(&one, &one, "public:same").await;
    let cross_us = way(&one, &two, "public:cross").await;
    let again_ms = heard_again(url).await;
    println!(
        "{{\"publishes_per_s\":{plain:.0},\"kept_publishes_per_s\":{kept:.0},\"bare_us\":{bare_us:.1},\
         \"same_node_us\":{same_us:.1},\"cross_node_us\":{cross_us:.1},\"heard_again_ms\":{again_ms:.1}}}"
    );
}
