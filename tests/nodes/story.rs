//! Many clients on three nodes, while something happens to the nodes or to what they share.
//!
//! The clients are the Rust client, which comes back by itself, over a balancer that takes the nodes in turn:
//! so each loss is a hop to another node. What everybody heard is checked against everything that was
//! acknowledged. Nothing here may wait for time to pass: a story goes on when enough was acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use client_tungstenite::{
    Ack, BackoffOptions, Client, ConnectError, Event, Events, Options, PublishOptions,
    RequestError, SubscribeOptions, Token,
};
use domain::delivery::Class;
use domain::id::{Epoch, MessageId, MessageKey};
use domain::room::RoomId;
use tests::leaks::said;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::fleet::{Cluster, DEADLINE};
use crate::told::{Acked, Heard, Told, is_silent};

const CLIENTS: usize = 500;
/// Those who come to rooms and leave them meanwhile.
const VISITORS: usize = 20;
pub(crate) const ROOMS: usize = 50;
/// Each client's own pace; together 2,000 publishes a second.
const PACE: Duration = Duration::from_millis(250);

/// How soon clients come back.
pub(crate) const BACKOFF: BackoffOptions = BackoffOptions {
    base: Duration::from_millis(50),
    cap: Duration::from_millis(500),
    attempts_max: None,
    stable_after: Duration::from_secs(20),
};

/// What is counted while a story runs.
#[derive(Default)]
struct Counts {
    acked: AtomicU64,
    changed: Notify,
    refused: AtomicU64,
    losses: AtomicUsize,
    visits: AtomicU64,
    /// How connections ended.
    codes: Mutex<BTreeMap<u16, usize>>,
    /// When nodes greeted those who had been here before, by their own clock.
    back: Mutex<Vec<String>>,
    /// When connections ended.
    gone: Mutex<Vec<SystemTime>>,
    /// Who was told to have left, and when.
    leaves: Mutex<Vec<(Instant, String)>>,
    /// Who was back in its room, when, and for how long it had been out of it.
    away: Mutex<Vec<(Instant, String, Duration)>>,
    /// Whether rooms are durable: then a place may have no message.
    is_durable: bool,
}

impl Cluster {
    /// Has everybody publish, lets `happen` happen in the middle, and waits until all have everything.
    pub(crate) fn tell(&mut self, happen: impl FnOnce(&mut Self)) -> Told {
        let begin = Instant::now();
        let is_durable = self.postgres.is_some();
        let counts = Arc::new(Counts { is_durable, ..Counts::default() });
        let (stop, stopped) = watch::channel(false);
        let ready = Arc::new(Barrier::new(CLIENTS + VISITORS + 1));
        let url = format!("ws://{}/ws/v2/connect", self.front);
        let clients: Vec<JoinHandle<_>> = (0..CLIENTS)
            .map(|number| {
                let (counts, ready) = (Arc::clone(&counts), Arc::clone(&ready));
                let (url, stopped) = (url.clone(), stopped.clone());
                self.runtime.spawn(one(number, url, counts, ready, stopped))
            })
            .collect();
        let visitors = self.visit(&counts, &ready, &stopped);
        self.runtime.block_on(async { timeout(DEADLINE, ready.wait()).await.expect("all are in") });
        let (ready_at, at_once) = (Instant::now(), CLIENTS as u64);
        self.until_acked(&counts, 2_000);
        // Everybody's first comes at once.
        let said = counts.acked.load(Ordering::Relaxed).saturating_sub(at_once);
        let per_second = said as f64 / ready_at.elapsed().as_secs_f64();
        let rss_before = self.rss_mib();
        happen(self);
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
        let visited = async {
            for visitor in visitors {
                visitor.await.unwrap();
            }
        };
        self.runtime.block_on(async { timeout(DEADLINE, visited).await.expect("all have left") });
        let rss_mib = (rss_before, self.rss_mib());
        let addrs: Vec<_> = self.nodes.iter().map(Server::addr).collect();
        self.runtime.block_on(async {
            for addr in addrs {
                timeout(DEADLINE, until_presence_is_true(addr)).await.expect("presence is true");
            }
        });
        let presence_true_after = happened.elapsed();
        let (acked, heard) = self.hear_out(publishing);
        Told {
            heard,
            acked,
            per_second,
            losses: counts.losses.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            codes: counts.codes.lock().unwrap().clone(),
            gone: counts.gone.lock().unwrap().clone(),
            back: counts.back.lock().unwrap().clone(),
            leaves: counts.leaves.lock().unwrap().clone(),
            away: counts.away.lock().unwrap().clone(),
            took: begin.elapsed(),
            presence_true_after,
            visits: counts.visits.load(Ordering::Relaxed),
            rss_mib,
        }
    }

    /// Waits until everybody has heard everything that was acknowledged.
    fn hear_out(&self, publishing: Vec<One>) -> (Vec<Acked>, Vec<Vec<Heard>>) {
        let mut by_room: BTreeMap<usize, Vec<Acked>> = BTreeMap::new();
        for acked in publishing.iter().flat_map(|one| &one.acked) {
            by_room.entry(acked.room).or_default().push(acked.clone());
        }
        let values: BTreeMap<_, _> =
            publishing.iter().filter_map(|one| Some((one.room, one.value?))).collect();
        let listening = async {
            let mut heard = Vec::new();
            for (number, one) in publishing.into_iter().enumerate() {
                let room = number % ROOMS;
                let end = end(&by_room[&room], number);
                heard.push(one.until(end, values.get(&room).copied(), number).await);
            }
            heard
        };
        let heard = self.runtime.block_on(async { timeout(DEADLINE, listening).await });
        let heard = heard.expect("all is heard");
        (by_room.into_values().flatten().collect(), heard)
    }

    /// Has some come to rooms and leave them again, for as long as others publish.
    fn visit(
        &self,
        counts: &Arc<Counts>,
        ready: &Arc<Barrier>,
        stopped: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        let url = format!("ws://{}/ws/v2/connect", self.front);
        let visitor = |number| {
            let (url, stopped) = (url.clone(), stopped.clone());
            let (counts, ready) = (Arc::clone(counts), Arc::clone(ready));
            self.runtime.spawn(visit(number, url, counts, ready, stopped))
        };
        (0..VISITORS).map(visitor).collect()
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

/// The last place that was acknowledged in a room, of the epoch that it has come to, without those of what a client
/// said and did not want back.
fn end(acked: &[Acked], number: usize) -> Option<(Epoch, u64)> {
    let newest = acked.iter().max_by_key(|one| one.at)?.epoch;
    let is_wanted = |one: &&Acked| !(one.is_silent && one.number == number);
    let of_it = acked.iter().filter(|one| one.epoch == newest).filter(is_wanted);
    Some((newest, of_it.map(|one| one.offset).max()?))
}

/// Connects; a node that is about to be ready, or busy, is asked again.
pub(crate) async fn connect(options: Options) -> (Client, Events) {
    loop {
        match Client::connect(options.clone()).await {
            Ok(connected) => return connected,
            Err(ConnectError::Http { status: 503, .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Comes to one room after another and leaves it, with an end outside of all.
async fn visit(
    number: usize,
    url: String,
    counts: Arc<Counts>,
    ready: Arc<Barrier>,
    stopped: watch::Receiver<bool>,
) {
    let token = hs256(SECRET, &claims(&format!("visitor{number}"), "public:*"));
    let options =
        Options { token: Some(Token::new(&token)), backoff: BACKOFF, ..Options::new(url) };
    let (client, mut events) = connect(options).await;
    let reading = tokio::spawn(async move { while events.next().await.is_some() {} });
    ready.wait().await;
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0.. {
        if *stopped.borrow() {
            break;
        }
        pace.tick().await;
        let room = (number * 7 + turn) % ROOMS;
        let room = RoomId::parse(&format!("public:story/{room}")).unwrap();
        let joined = client.subscribe(&room, SubscribeOptions::default()).await;
        if joined.is_ok() {
            counts.visits.fetch_add(1, Ordering::Relaxed);
        }
        // Also where it is not known whether it is in.
        drop(client.unsubscribe(&room).await);
    }
    client.close().await;
    reading.await.unwrap();
}

/// A client behind its publishing, with what it has heard so far.
struct One {
    room: usize,
    /// The newest value that it gave its room's key.
    value: Option<u64>,
    client: Client,
    acked: Vec<Acked>,
    heard: Arc<Mutex<Vec<Heard>>>,
    more: Arc<Notify>,
    listening: JoinHandle<()>,
}

impl One {
    /// Waits until it has heard the message at this place of its room, or a gap over it, and the newest value of
    /// its room's key.
    async fn until(
        self,
        end: Option<(Epoch, u64)>,
        newest: Option<u64>,
        number: usize,
    ) -> Vec<Heard> {
        let is_there = |heard: &[Heard]| {
            let has = |end: (Epoch, u64)| {
                heard.iter().rev().any(|one| match one {
                    Heard::Message { epoch, offset, .. } => *epoch == end.0 && *offset >= end.1,
                    Heard::Gap { epoch, to, .. } => *epoch == end.0 && *to >= end.1,
                    Heard::Value(_) | Heard::Nothing { .. } => false,
                })
            };
            let has_newest = |newest| {
                heard.iter().rev().any(|one| matches!(one, Heard::Value(value) if *value >= newest))
            };
            end.is_none_or(has) && newest.is_none_or(has_newest)
        };
        let wait = async {
            while !is_there(&self.heard.lock().unwrap()) {
                self.more.notified().await;
            }
        };
        if timeout(Duration::from_secs(30), wait).await.is_err() {
            let heard = self.heard.lock().unwrap();
            panic!("client {number} waits for {end:?} and {newest:?} behind {:?}", heard.last());
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
    let token = hs256(SECRET, &claims(&format!("u{number}"), "public:*"));
    let options =
        Options { token: Some(Token::new(&token)), backoff: BACKOFF, ..Options::new(url) };
    let (client, events) = connect(options).await;
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
    let is_silent = is_silent(number);
    let (mut acked, mut value) = (Vec::new(), None);
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0_u64.. {
        tokio::select! {
            _ = pace.tick() => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        let data = format!("\"client {number} says {turn}\"");
        let msg_id = format!("{number}-{turn}");
        let said = (said(&data), &*msg_id);
        if let Some(ack) = publish(&client, &room, said, !is_silent, &counts).await {
            acked.push(Acked {
                room: number % ROOMS,
                number,
                is_silent,
                msg_id,
                data,
                level: ack.level,
                epoch: ack.epoch,
                offset: ack.offset.expect("a place").get(),
                at: Instant::now(),
            });
            counts.acked.fetch_add(1, Ordering::Relaxed);
            counts.changed.notify_one();
        }
        // The first of each room says how far it is, too.
        if number < ROOMS && set_value(&client, &room, turn, &counts).await {
            value = Some(turn);
        }
    }
    One { client, room: number % ROOMS, value, acked, heard, more, listening }
}

/// Publishes until it is acknowledged, under one name: what is refused for now comes again.
async fn publish(
    client: &Client,
    room: &RoomId,
    (data, msg_id): (&str, &str),
    echo: bool,
    counts: &Counts,
) -> Option<Ack> {
    let begin = Instant::now();
    let msg_id = MessageId::parse(msg_id).unwrap();
    while begin.elapsed() < DEADLINE {
        let msg_id = Some(msg_id.clone());
        let options = PublishOptions { msg_id, echo, ..PublishOptions::default() };
        match client.publish(room, data, options).await {
            Ok(ack) => return Some(ack),
            Err(RequestError::Refused(refusal)) if refusal.is_temporary() => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error}"),
        }
    }
    None
}

/// Sets the value of the room's one key. Answers whether that is known to have happened: what is refused for now is
/// left to the next.
async fn set_value(client: &Client, room: &RoomId, value: u64, counts: &Counts) -> bool {
    let options = PublishOptions {
        class: Some(Class::Latest),
        key: Some(MessageKey::parse("turn").unwrap()),
        ..PublishOptions::default()
    };
    match client.publish(room, &value.to_string(), options).await {
        Ok(_) => true,
        Err(RequestError::Refused(refusal)) if refusal.is_temporary() => {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            false
        }
        Err(error) => panic!("{error}"),
    }
}

async fn listen(
    number: usize,
    mut events: Events,
    heard: Arc<Mutex<Vec<Heard>>>,
    more: Arc<Notify>,
    counts: Arc<Counts>,
) {
    let mut lost_at = None;
    while let Some(event) = events.next().await {
        let one = match event {
            Event::Message(message) if message.offset.is_none() => {
                Heard::Value(message.data.parse().expect("a value"))
            }
            Event::Message(message) => Heard::Message {
                epoch: message.epoch,
                offset: message.offset.expect("a place").get(),
                data: message.data,
            },
            // A user's own room, which says so whether or not there was anything in it.
            Event::Gap(gap) if gap.room.as_str().starts_with("user:") => continue,
            Event::Gap(gap) => Heard::Gap {
                epoch: gap.epoch,
                from: gap.from.get(),
                to: gap.to.get(),
                reason: gap.reason,
            },
            Event::Disconnected { will_reconnect, code, .. } => {
                assert!(will_reconnect, "client {number} stays away");
                lost_at = lost_at.or_else(|| Some(Instant::now()));
                counts.gone.lock().unwrap().push(SystemTime::now());
                *counts.codes.lock().unwrap().entry(code).or_default() += 1;
                counts.losses.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Event::Connected(hello) if counts.losses.load(Ordering::Relaxed) > 0 => {
                counts.back.lock().unwrap().push(hello.timestamp);
                continue;
            }
            Event::Subscribed(_) => {
                if let Some(lost_at) = lost_at.take() {
                    let back = (Instant::now(), format!("u{number}"), lost_at.elapsed());
                    counts.away.lock().unwrap().push(back);
                }
                continue;
            }
            // Visitors come and go as they like.
            Event::Presence(change) if change.event == "leave" => {
                if !change.user_id.as_str().starts_with("visitor") {
                    let left = (Instant::now(), change.user_id.as_str().to_owned());
                    counts.leaves.lock().unwrap().push(left);
                }
                continue;
            }
            // It was handed out, and neither stored nor acknowledged.
            Event::Tombstone(place) if counts.is_durable => {
                let offset = place.offset.expect("a place").get();
                Heard::Nothing { epoch: place.epoch, offset }
            }
            event @ (Event::Violation(_) | Event::Unsubscribed { .. } | Event::Tombstone(_)) => {
                panic!("client {number}: {event:?}")
            }
            _ => continue,
        };
        heard.lock().unwrap().push(one);
        more.notify_one();
    }
}
