//! Everybody comes back at once, with tickets, after SIGKILL: nothing is lost, nothing comes twice,
//! and it does not take long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client_tungstenite::{
    BackoffOptions, Client, Event, Options, SubscribeOptions, Token, TokenPlace,
};
use domain::room::RoomId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tests::hosts::{Part, has};
use tests::server::Server;
use tests::token::{SECRET, claims, hs256};
use tokio::runtime::Runtime;
use tokio::sync::{Barrier, mpsc};

use crate::client::{Client as RawClient, PATH, secret};
use crate::http::{metrics, value};

/// A fifth of what the same story has with the optimised binary (`benches/storm`).
const CLIENTS: usize = 2_000;
const ROOMS: usize = 200;
const ROOMS_EACH: usize = 3;
/// Published to each room before anybody is there: a room without a message is not kept.
const BEFORE: u64 = 1;
/// Published to each room while everybody is away or on the way.
const MISSED: u64 = 3;
/// For 99 of 100, with neither side optimised and one machine for both.
const BOUND: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(120);

fn rooms_of(client: usize) -> Vec<RoomId> {
    let name = |n| format!("chat:storm/{}", (client + n * 7) % ROOMS);
    (0..ROOMS_EACH).map(|n| RoomId::parse(&name(n)).unwrap()).collect()
}

/// One client: joins, waits for the storm, and says when it has everything back. It goes on until
/// nobody wants to hear of it any more.
async fn one(
    number: usize,
    url: String,
    token: String,
    joined: Arc<Barrier>,
    back: mpsc::Sender<Instant>,
) {
    let backoff = BackoffOptions {
        base: Duration::from_millis(50),
        cap: Duration::from_millis(500),
        ..BackoffOptions::default()
    };
    let options = Options {
        token: Some(Token::new(&token)),
        token_in: TokenPlace::ConnectFrame,
        backoff,
        ..Options::new(url)
    };
    let (client, mut events) = Client::connect(options).await.unwrap();
    for room in rooms_of(number) {
        let subscribed = client.subscribe(&room, SubscribeOptions::default()).await.unwrap();
        assert_eq!(subscribed.position.offset.get(), BEFORE);
    }
    joined.wait().await;
    let mut held: BTreeMap<RoomId, u64> = BTreeMap::new();
    let mut is_back = false;
    while let Some(event) = events.next().await {
        match event {
            Event::Message(message) => {
                let at = held.entry(message.room).or_insert(BEFORE);
                *at += 1;
                assert_eq!(message.offset.unwrap().get(), *at, "client {number}");
            }
            event @ (Event::Gap(_)
            | Event::Violation(_)
            | Event::Closed { .. }
            | Event::Unsubscribed { .. }
            | Event::Refused(_)) => panic!("client {number}: {event:?}"),
            _ => {}
        }
        let has_all = held.len() == ROOMS_EACH && held.values().all(|at| *at == BEFORE + MISSED);
        if has_all && !is_back {
            is_back = true;
            if back.send(Instant::now()).await.is_err() {
                break;
            }
        }
    }
    drop(client);
}

fn publish_everywhere(server: &Server, n_messages: u64) {
    let mut publisher = RawClient::open_as(server, "publisher");
    for n in 0..n_messages {
        let ids: Vec<_> = (0..ROOMS)
            .map(|room| {
                let room = format!("chat:storm/{room}");
                publisher.ask(json!({"type": "publish", "room": room, "data": n, "echo": false}))
            })
            .collect();
        for id in ids {
            assert_eq!(publisher.answer(id)["type"], "ack");
        }
    }
}

#[test]
fn everybody_comes_back_at_once_after_sigkill_and_nothing_is_lost_or_comes_twice() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("the own limit");
    // All of the crowd are one user.
    let mut server = Server::start_durable(&[
        "--set",
        &secret(),
        "--set",
        "auth.allow_anonymous=false",
        "--set",
        "limits.commands_of_user_per_second=0",
    ]);
    publish_everywhere(&server, BEFORE);
    let token = hs256(SECRET, &claims("crowd", "chat:*"));
    let runtime = Runtime::new().unwrap();
    let joined = Arc::new(Barrier::new(CLIENTS + 1));
    let (back, mut came_back) = mpsc::channel(CLIENTS);
    for number in 0..CLIENTS {
        let (url, token) = (server.ws(PATH), token.clone());
        runtime.spawn(one(number, url, token, Arc::clone(&joined), back.clone()));
    }
    drop(back);
    runtime.block_on(async { tokio::time::timeout(DEADLINE, joined.wait()).await }).unwrap();
    server.kill();
    server.restart();
    let started = Instant::now();
    publish_everywhere(&server, MISSED);
    let mut took = runtime.block_on(async {
        let mut took = Vec::with_capacity(CLIENTS);
        while took.len() < CLIENTS {
            let next = tokio::time::timeout(DEADLINE, came_back.recv()).await;
            let at = next.unwrap_or_else(|_| panic!("{} are not back", CLIENTS - took.len()));
            took.push(at.expect("no client has failed").duration_since(started));
        }
        took
    });
    took.sort();
    let (p99, all) = (took[CLIENTS * 99 / 100], took[CLIENTS - 1]);
    assert!(p99 <= BOUND, "99 of 100 were back after {p99:?}, all after {all:?}");
    if has(Part::ServerApi) {
        // However many come, the disk is asked once for each room.
        let text = metrics(server.addr());
        for series in ["roomkeeper_archive_opens_total", "roomkeeper_archive_reads_total"] {
            assert!(value(&text, series) <= ROOMS as f64, "{series}: {}", value(&text, series));
        }
    }
    runtime.shutdown_background();
}
