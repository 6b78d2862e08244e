//! Very many connections come and go, in every way that one can go: nothing of them is left at the nodes or in Redis.
//!
//! `ROOMKEEPER_CHURN=1000000` has as many; it takes an hour or more.

use std::fs;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256};

use crate::fleet::until_status;
use crate::postgres_stores::SOON;
use crate::stopped::ASKED_ALL_THE_TIME;

const CYCLES: usize = 5_000;
/// Those before anything is looked at: what is made once is made then.
const WARM_UP: usize = 1_000;
const THREADS: usize = 8;
const ROOMS: usize = 100;
const USERS: usize = 50;
/// What an allocator may keep of all that; a leak of a hundred bytes a connection is as much in 250,000.
const GROWTH_MIB_MAX: u64 = 24;

fn start(redis: &Redis) -> Server {
    let set = [
        format!("redis.url={}", redis.url()),
        "redis.answer_timeout_ms=1000".to_owned(),
        "redis.lease_ms=3000".to_owned(),
        "redis.leave_grace_ms=200".to_owned(),
        format!("auth.hmac_secret={SECRET}"),
        "limits.short_connections_per_address_per_minute=0".to_owned(),
        "limits.connections_per_user_max=10000".to_owned(),
    ];
    let set: Vec<_> = set.into_iter().chain(ASKED_ALL_THE_TIME.map(str::to_owned)).collect();
    let words: Vec<_> = set.iter().flat_map(|set| ["--set", set]).collect();
    Server::start(&words)
}

/// One connection from its beginning to its end, of some kind.
fn one(node: &Server, n: usize, paths: &[String]) {
    let kind = n % 8;
    if kind == 7 {
        // It says nothing at all, or half a head.
        let mut socket = RawSocket::connect(node.addr());
        if n % 16 == 7 {
            socket.try_send(b"GET /ws/v2/connect HTTP/1.1\r\nHost:");
        }
        return socket.reset();
    }
    let mut socket = RawSocket::open(node.addr(), &paths[n % paths.len()]).with_deadline(SOON);
    if kind == 6 {
        // It goes before it is greeted.
        return socket.reset();
    }
    socket.expect_json("hello");
    let room = format!("public:churn/{}", n % ROOMS);
    socket.send_json(
        &json!({"type": "subscribe", "id": 1, "room": room, "presence": n.is_multiple_of(2)}),
    );
    if kind == 5 {
        // It goes on its way in.
        return socket.reset();
    }
    socket.expect_json("subscribed");
    match kind {
        0 => {
            socket.send_json(&json!({"type": "publish", "id": 2, "room": room, "data": n}));
            socket.expect_json("ack");
            socket.reset();
        }
        1 => {
            socket.send_json(&json!({"type": "unsubscribe", "id": 2, "room": room}));
            socket.expect_json("unsubscribed");
            socket.reset();
        }
        2 => {
            socket.send_frame(8, true, true, &1_000_u16.to_be_bytes());
            socket.read_close_code();
        }
        3 => {
            // What nobody may send.
            socket.send_frame(3, true, true, b"");
            socket.read_close_code();
        }
        _ => {
            // No more is said, and the server ends it in its time, or it is over before.
            socket.finish();
            socket.reset();
        }
    }
}

fn churn(nodes: &[Server; 3], cycles: usize, paths: &[String]) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= cycles {
                        return;
                    }
                    one(&nodes[n % 3], n / 3, paths);
                }
            });
        }
    });
}

/// What nodes and Redis hold.
#[derive(Debug)]
struct Held {
    descriptors: [usize; 3],
    threads: [usize; 3],
    connections: [usize; 3],
    channels: usize,
    patterns: usize,
    clients: usize,
    present: usize,
}

impl Held {
    fn by(nodes: &[Server; 3], redis: &Redis) -> Self {
        let each = |of: &dyn Fn(&Server) -> usize| [of(&nodes[0]), of(&nodes[1]), of(&nodes[2])];
        let number = |words: &[&str]| redis.ask(words).lines().count();
        Self {
            descriptors: each(&Server::open_fds),
            threads: each(&|node| {
                fs::read_dir(format!("/proc/{}/task", node.id())).unwrap().count()
            }),
            connections: each(&|node| gauge(node, "roomkeeper_sockets ")),
            channels: number(&["PUBSUB", "CHANNELS"]),
            patterns: redis.ask(&["PUBSUB", "NUMPAT"]).parse().unwrap(),
            clients: number(&["CLIENT", "LIST"]),
            present: redis.ask(&["KEYS", "*over:*"]).lines().filter(|key| !key.is_empty()).count(),
        }
    }
}

impl Held {
    /// Whether it is no more than this.
    fn is_within(&self, other: &Self) -> bool {
        let each =
            |one: &[usize; 3], other: &[usize; 3]| one.iter().zip(other).all(|(a, b)| a <= b);
        each(&self.descriptors, &other.descriptors)
            && each(&self.threads, &other.threads)
            && each(&self.connections, &other.connections)
            && self.channels <= other.channels
            && self.patterns <= other.patterns
            && self.clients <= other.clients
            && self.present <= other.present
    }
}

fn gauge(node: &Server, name: &str) -> usize {
    let mut socket = RawSocket::connect(node.addr()).with_deadline(SOON);
    socket.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8(socket.read_until_closed()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).parse::<f64>().unwrap() as usize
}

fn rss_mib(nodes: &[Server; 3]) -> [u64; 3] {
    [&nodes[0], &nodes[1], &nodes[2]].map(|node| node.rss_bytes() >> 20)
}

/// N12, with a million where the variable says so: descriptors, threads, memory, subscriptions, keys.
#[test]
#[allow(clippy::print_stdout, reason = "figures for whoever runs it")]
fn of_very_many_connections_that_came_and_went_nothing_is_left() {
    if !Redis::is_here() {
        return;
    }
    let cycles = std::env::var("ROOMKEEPER_CHURN").map_or(CYCLES, |n| n.parse().unwrap());
    let redis = Redis::start();
    let nodes = [(); 3].map(|()| start(&redis));
    nodes.iter().for_each(|node| until_status(node, 200));
    let fresh = Held::by(&nodes, &redis);
    let token = |n: usize| hs256(SECRET, &claims(&format!("u{n}"), "public:*"));
    let paths: Vec<_> = (0..USERS).map(|n| format!("/ws/v2/connect?token={}", token(n))).collect();
    churn(&nodes, WARM_UP, &paths);
    let settled = |what: &str| {
        let begun = Instant::now();
        loop {
            let held = Held::by(&nodes, &redis);
            if held.is_within(&fresh) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < SOON, "{what}: {held:?} and not {fresh:?}");
        }
    };
    settled("after the first");
    let (before, keys) = (rss_mib(&nodes), redis.ask(&["DBSIZE"]));
    let begun = Instant::now();
    churn(&nodes, cycles, &paths);
    let took = begun.elapsed();
    let settled_after = settled("after all");
    let (after, keys_after) = (rss_mib(&nodes), redis.ask(&["DBSIZE"]));
    println!(
        "{{\"fault\":\"churn\",\"connections\":{cycles},\"seconds\":{:.1},\"rss_mib\":[{before:?},{after:?}],\"keys\":[{keys},{keys_after}],\"settled_after_s\":{:.1}}}",
        took.as_secs_f64(),
        settled_after.as_secs_f64()
    );
    for (before, after) in before.iter().zip(after) {
        assert!(after < before + GROWTH_MIB_MAX, "{before} MiB, {after} MiB");
    }
    let number = |keys: &str| keys.parse::<usize>().unwrap();
    assert!(number(&keys_after) <= number(&keys), "{keys} keys, {keys_after} keys");
    // They still take everybody.
    for node in &nodes {
        assert!(TcpStream::connect_timeout(&node.addr(), Duration::from_secs(5)).is_ok());
        let mut socket = RawSocket::open(node.addr(), &paths[0]).with_deadline(SOON);
        socket.expect_json("hello");
    }
}
