//! Many clients on three nodes, while something happens to the nodes or to what they share.
//!
//! The clients are the Rust client, which comes back by itself, over a balancer that takes the nodes in turn:
//! so each loss is a hop to another node. What everybody heard is checked against everything that was
//! acknowledged. Nothing here may wait for time to pass: a story goes on when enough was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client_tungstenite::{
    BackoffOptions, Client, Event, Events, Options, PublishOptions, RequestError, SubscribeOptions,
    Token,
};
use domain::id::{Epoch, MessageId};
use domain::room::RoomId;
use tests::leaks::said;
use tests::raw::RawSocket;
use tests::redis::Redis;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Barrier, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long anything may take that has to come to an end.
const DEADLINE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 500;
const ROOMS: usize = 50;
/// Each client's own pace; together 2,000 publishes a second.
const PACE: Duration = Duration::from_millis(250);
const NODES: usize = 3;

/// Nodes on one Redis, and a balancer in front.
pub(crate) struct Cluster {
    pub(crate) redis: Redis,
    pub(crate) nodes: Vec<Server>,
    runtime: Runtime,
    front: SocketAddr,
}

impl Cluster {
    pub(crate) fn start(redis: Redis) -> Self {
        Self::start_with(redis, Duration::from_secs(2))
    }

    /// The same with nodes that take this long to let their clients go.
    pub(crate) fn start_with(redis: Redis, drain_window: Duration) -> Self {
        let (url, window) = (redis.url(), drain_window.as_millis().to_string());
        let node = |_| {
            let set = |key: &str, value: &str| ["--set".to_owned(), format!("{key}={value}")];
            let words: Vec<String> = [
                set("redis.url", &url),
                set("redis.answer_timeout_ms", "1000"),
                set("auth.hmac_secret", SECRET),
                set(
                    "auth.ticket_secret",
                    &"a ticket secret of the tests".repeat(2).replace(' ', "-"),
                ),
                set("server.drain_window_ms", &window),
            ]
            .concat();
            Server::start(&words.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let nodes: Vec<_> = (0..NODES).map(node).collect();
        nodes.iter().for_each(|node| until_status(node, 200));
        let runtime = Runtime::new().unwrap();
        let addrs: Vec<_> = nodes.iter().map(Server::addr).collect();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let front = listener.local_addr().unwrap();
        runtime.spawn(balance(listener, addrs));
        Self { redis, nodes, runtime, front }
    }
}

/// Waits until a node says that it is ready (200), or that it is not (503).
pub(crate) fn until_status(node: &Server, status: u16) {
    let begin = Instant::now();
    let wanted = format!("HTTP/1.1 {status}");
    loop {
        let mut socket = RawSocket::connect(node.addr());
        socket.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        if socket.read_head().starts_with(&wanted) {
            return;
        }
        assert!(begin.elapsed() < DEADLINE, "it does not answer {status}: {}", node.log());
    }
}

/// Gives each connection to the next node that takes it: one that says 503 does not, as in the settings of
/// `deploy/`.
async fn balance(listener: TcpListener, nodes: Vec<SocketAddr>) -> io::Result<()> {
    for turn in 0_usize.. {
        let (mut near, _) = listener.accept().await?;
        let nodes = nodes.clone();
        tokio::spawn(async move {
            drop(near.set_nodelay(true));
            let Ok(asked) = head(&mut near).await else { return };
            for step in 0..nodes.len() {
                let far = nodes[(turn + step) % nodes.len()];
                let Ok((mut far, answer)) = ask(far, &asked).await else { continue };
                if answer.starts_with(b"HTTP/1.1 503") && step + 1 < nodes.len() {
                    continue;
                }
                if near.write_all(&answer).await.is_ok() {
                    drop(copy_bidirectional(&mut near, &mut far).await);
                }
                return;
            }
        });
    }
    Ok(())
}

/// Sends a node the beginning of a connection, and gives the beginning of its answer.
async fn ask(node: SocketAddr, asked: &[u8]) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut far = TcpStream::connect(node).await?;
    far.set_nodelay(true)?;
    far.write_all(asked).await?;
    let answer = head(&mut far).await?;
    Ok((far, answer))
}

/// What comes up to the end of an HTTP head, and whatever came with it.
async fn head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// What one client heard in its room, in the order in which it heard it.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Message { epoch: Epoch, offset: u64, data: String },
    Gap { epoch: Epoch, from: u64, to: u64, reason: String },
}

/// An acknowledged publish.
#[derive(Clone, Debug)]
struct Acked {
    room: usize,
    data: String,
    epoch: Epoch,
    offset: u64,
    at: Instant,
}

/// What is counted while a story runs.
#[derive(Default)]
struct Counts {
    acked: AtomicU64,
    changed: Notify,
    refused: AtomicU64,
    losses: AtomicUsize,
    /// How connections ended.
    codes: Mutex<BTreeMap<u16, usize>>,
    /// When nodes greeted those who had been here before, by their own clock.
    back: Mutex<Vec<String>>,
    /// How often somebody was told that a member had left.
    leaves: AtomicUsize,
}

/// What came of a story.
pub(crate) struct Told {
    heard: Vec<Vec<Heard>>,
    acked: Vec<Acked>,
    pub(crate) losses: usize,
    pub(crate) refused: u64,
    /// How connections ended, with how many.
    pub(crate) codes: BTreeMap<u16, usize>,
    /// When nodes greeted those who had been here before, in ISO 8601.
    pub(crate) back: Vec<String>,
    /// How often somebody was told that a member had left.
    pub(crate) leaves: usize,
    pub(crate) took: Duration,
    /// From the end of what happened until every node listed just those who are there.
    pub(crate) presence_true_after: Duration,
}

impl Cluster {
    /// Has everybody publish, lets `happen` happen in the middle, and waits until all have everything.
    pub(crate) fn tell(&mut self, happen: impl FnOnce(&mut Redis, &mut Vec<Server>)) -> Told {
        let begin = Instant::now();
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = watch::channel(false);
        let ready = Arc::new(Barrier::new(CLIENTS + 1));
        let url = format!("ws://{}/ws/v2/connect", self.front);
        let clients: Vec<JoinHandle<_>> = (0..CLIENTS)
            .map(|number| {
                let (counts, ready) = (Arc::clone(&counts), Arc::clone(&ready));
                let (url, stopped) = (url.clone(), stopped.clone());
                self.runtime.spawn(one(number, url, counts, ready, stopped))
            })
            .collect();
        self.runtime.block_on(async { timeout(DEADLINE, ready.wait()).await.expect("all are in") });
        self.until_acked(&counts, 2_000);
        happen(&mut self.redis, &mut self.nodes);
        let happened = Instant::now();
        let more = counts.acked.load(Ordering::Relaxed) + 4_000;
        self.until_acked(&counts, more);
        stop.send_replace(true);
        let all = async {
            let mut publishing = Vec::new();
            for client in clients {
                publishing.push(client.await.unwrap());
            }
            publishing
        };
        let publishing =
            self.runtime.block_on(async { timeout(DEADLINE, all).await.expect("all publish") });
        let addrs: Vec<_> = self.nodes.iter().map(Server::addr).collect();
        self.runtime.block_on(async {
            for addr in addrs {
                timeout(DEADLINE, until_presence_is_true(addr)).await.expect("presence is true");
            }
        });
        let presence_true_after = happened.elapsed();
        let acked: Vec<_> = publishing.iter().flat_map(|one| one.acked.clone()).collect();
        let ends = ends(&acked);
        let listening = async {
            let mut heard = Vec::new();
            for (number, one) in publishing.into_iter().enumerate() {
                heard.push(one.until(ends[&(number % ROOMS)], number).await);
            }
            heard
        };
        let heard = self
            .runtime
            .block_on(async { timeout(DEADLINE, listening).await.expect("all is heard") });
        Told {
            heard,
            acked,
            losses: counts.losses.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            codes: counts.codes.lock().unwrap().clone(),
            back: counts.back.lock().unwrap().clone(),
            leaves: counts.leaves.load(Ordering::Relaxed),
            took: begin.elapsed(),
            presence_true_after,
        }
    }

    fn until_acked(&self, counts: &Counts, number: u64) {
        let wait = async {
            while counts.acked.load(Ordering::Relaxed) < number {
                counts.changed.notified().await;
            }
        };
        let acked = self.runtime.block_on(async { timeout(DEADLINE, wait).await });
        assert!(acked.is_ok(), "publishes stopped at {:?}", counts.acked);
    }
}

/// Asks one node for everybody in all rooms until it names all clients and nobody else. One that is not
/// there has nothing to say.
async fn until_presence_is_true(node: SocketAddr) {
    if TcpStream::connect(node).await.is_err() {
        return;
    }
    let token = hs256(SECRET, &claims("who-looks", "public:*"));
    let options = Options {
        token: Some(Token::new(&token)),
        ..Options::new(format!("ws://{node}/ws/v2/connect"))
    };
    let (client, mut events) = Client::connect(options).await.unwrap();
    let reading = tokio::spawn(async move { while events.next().await.is_some() {} });
    for room in 0..ROOMS {
        let id = RoomId::parse(&format!("public:story/{room}")).unwrap();
        let mut there: Vec<_> =
            (room..CLIENTS).step_by(ROOMS).map(|number| format!("u{number}")).collect();
        there.sort_unstable();
        loop {
            let listed = client.presence(&id).await;
            let names = listed.map(|list| {
                list.members.iter().map(|member| member.user_id.clone()).collect::<Vec<_>>()
            });
            if names.is_ok_and(|names| names == there) {
                break;
            }
        }
    }
    client.close().await;
    reading.await.unwrap();
}

/// The last place that was acknowledged in each room, of the epoch that it has come to.
fn ends(acked: &[Acked]) -> BTreeMap<usize, (Epoch, u64)> {
    let mut last: BTreeMap<usize, &Acked> = BTreeMap::new();
    for one in acked {
        let newest = last.entry(one.room).or_insert(one);
        if one.at > newest.at {
            *newest = one;
        }
    }
    let end = |(room, newest): (&usize, &&Acked)| {
        let of_it = acked.iter().filter(|one| one.room == *room && one.epoch == newest.epoch);
        (*room, (newest.epoch, of_it.map(|one| one.offset).max().unwrap_or(0)))
    };
    last.iter().map(end).collect()
}

/// A client behind its publishing, with what it has heard so far.
struct One {
    client: Client,
    acked: Vec<Acked>,
    heard: Arc<Mutex<Vec<Heard>>>,
    more: Arc<Notify>,
    listening: JoinHandle<()>,
}

impl One {
    /// Waits until it has heard the message at this place of its room, or a gap over it.
    async fn until(self, end: (Epoch, u64), number: usize) -> Vec<Heard> {
        let is_there = |heard: &[Heard]| {
            heard.iter().rev().any(|one| match one {
                Heard::Message { epoch, offset, .. } => *epoch == end.0 && *offset >= end.1,
                Heard::Gap { epoch, to, .. } => *epoch == end.0 && *to >= end.1,
            })
        };
        let wait = async {
            while !is_there(&self.heard.lock().unwrap()) {
                self.more.notified().await;
            }
        };
        if timeout(Duration::from_secs(30), wait).await.is_err() {
            let heard = self.heard.lock().unwrap();
            panic!("client {number} waits for {end:?} behind {:?}", heard.last());
        }
        self.client.close().await;
        self.listening.await.unwrap();
        Arc::into_inner(self.heard).unwrap().into_inner().unwrap()
    }
}

async fn one(
    number: usize,
    url: String,
    counts: Arc<Counts>,
    ready: Arc<Barrier>,
    mut stopped: watch::Receiver<bool>,
) -> One {
    let room = RoomId::parse(&format!("public:story/{}", number % ROOMS)).unwrap();
    let backoff = BackoffOptions {
        base: Duration::from_millis(50),
        cap: Duration::from_millis(500),
        ..BackoffOptions::default()
    };
    let token = hs256(SECRET, &claims(&format!("u{number}"), "public:*"));
    let options = Options { token: Some(Token::new(&token)), backoff, ..Options::new(url) };
    let (client, events) = Client::connect(options).await.unwrap();
    loop {
        // The first of each room sees who comes and goes.
        let options = SubscribeOptions { presence: number < ROOMS, ..SubscribeOptions::default() };
        match client.subscribe(&room, options).await {
            Ok(_) => break,
            // 500 at once are much for a busy machine.
            Err(RequestError::Refused(refusal)) if refusal.is_temporary() => {}
            Err(error) => panic!("client {number}: {error}"),
        }
    }
    let (heard, more) = (Arc::default(), Arc::new(Notify::new()));
    let listening = tokio::spawn(listen(
        number,
        events,
        Arc::clone(&heard),
        Arc::clone(&more),
        Arc::clone(&counts),
    ));
    ready.wait().await;
    let mut acked = Vec::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0.. {
        tokio::select! {
            _ = pace.tick() => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        let data = format!("\"client {number} says {turn}\"");
        let msg_id = MessageId::parse(&format!("{number}-{turn}")).unwrap();
        if let Some(ack) = publish(&client, &room, said(&data), msg_id, &counts).await {
            acked.push(Acked {
                room: number % ROOMS,
                data,
                epoch: ack.0,
                offset: ack.1,
                at: Instant::now(),
            });
            counts.acked.fetch_add(1, Ordering::Relaxed);
            counts.changed.notify_one();
        }
    }
    One { client, acked, heard, more, listening }
}

/// Publishes until it is acknowledged, under one name: what is refused for now comes again.
async fn publish(
    client: &Client,
    room: &RoomId,
    data: &str,
    msg_id: MessageId,
    counts: &Counts,
) -> Option<(Epoch, u64)> {
    let begin = Instant::now();
    while begin.elapsed() < DEADLINE {
        let options = PublishOptions { msg_id: Some(msg_id.clone()), ..PublishOptions::default() };
        match client.publish(room, data, options).await {
            Ok(ack) => return Some((ack.epoch, ack.offset.expect("a place").get())),
            Err(RequestError::Refused(refusal)) if refusal.is_temporary() => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error}"),
        }
    }
    None
}

async fn listen(
    number: usize,
    mut events: Events,
    heard: Arc<Mutex<Vec<Heard>>>,
    more: Arc<Notify>,
    counts: Arc<Counts>,
) {
    while let Some(event) = events.next().await {
        let one = match event {
            Event::Message(message) => Heard::Message {
                epoch: message.epoch,
                offset: message.offset.expect("a place").get(),
                data: message.data,
            },
            Event::Gap(gap) => Heard::Gap {
                epoch: gap.epoch,
                from: gap.from.get(),
                to: gap.to.get(),
                reason: gap.reason,
            },
            Event::Disconnected { will_reconnect, code, .. } => {
                assert!(will_reconnect, "client {number} stays away");
                *counts.codes.lock().unwrap().entry(code).or_default() += 1;
                counts.losses.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Event::Connected(hello) if counts.losses.load(Ordering::Relaxed) > 0 => {
                counts.back.lock().unwrap().push(hello.timestamp);
                continue;
            }
            Event::Presence(change) if change.event == "leave" => {
                counts.leaves.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            // A user's own room, of which nobody can say what was missed.
            Event::Unsubscribed { room, .. } if room.as_str().starts_with("user:") => continue,
            event @ (Event::Violation(_) | Event::Unsubscribed { .. } | Event::Tombstone(_)) => {
                panic!("client {number}: {event:?}")
            }
            _ => continue,
        };
        heard.lock().unwrap().push(one);
        more.notify_one();
    }
}

impl Told {
    /// Nobody heard anything twice or out of order, and everything that was acknowledged was heard by everybody in
    /// its room, or lies in a gap that was told. Answers how many gaps were.
    pub(crate) fn check(&self) -> usize {
        let mut gaps = 0;
        let mut by_room: BTreeMap<usize, Vec<&Acked>> = BTreeMap::new();
        for one in &self.acked {
            by_room.entry(one.room).or_default().push(one);
        }
        for (number, heard) in self.heard.iter().enumerate() {
            let told = order(number, heard);
            gaps += told.gaps.len();
            for acked in by_room.get(&(number % ROOMS)).into_iter().flatten() {
                let is_told = told.texts.contains(acked.data.as_str())
                    || told.gaps.iter().any(|gap| gap.covers(acked));
                assert!(is_told, "client {number} never heard of {acked:?}, nor of a gap there");
            }
        }
        gaps
    }

    /// How many publishes were acknowledged.
    pub(crate) fn acked(&self) -> usize {
        self.acked.len()
    }
}

struct TheGap<'h> {
    epoch: Epoch,
    from: u64,
    to: u64,
    reason: &'h str,
}

impl TheGap<'_> {
    /// What was acknowledged under an epoch that is over is lost with it.
    fn covers(&self, acked: &Acked) -> bool {
        let is_within = acked.epoch == self.epoch && (self.from..=self.to).contains(&acked.offset);
        is_within || (self.reason == "epoch_changed" && acked.epoch != self.epoch)
    }
}

struct Ordered<'h> {
    texts: BTreeSet<&'h str>,
    gaps: Vec<TheGap<'h>>,
}

fn order(number: usize, heard: &[Heard]) -> Ordered<'_> {
    let (mut texts, mut gaps) = (BTreeSet::new(), Vec::new());
    let mut last: Option<u64> = None;
    for one in heard {
        match one {
            Heard::Message { offset, data, .. } => {
                assert!(
                    last.is_none_or(|last| last + 1 == *offset),
                    "client {number}: {one:?} behind {last:?}"
                );
                assert!(texts.insert(data.as_str()), "client {number} heard twice: {one:?}");
                last = Some(*offset);
            }
            Heard::Gap { epoch, from, to, reason } => {
                last = Some(*to);
                gaps.push(TheGap { epoch: *epoch, from: *from, to: *to, reason });
            }
        }
    }
    Ordered { texts, gaps }
}
