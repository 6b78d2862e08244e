//! Everybody of a node that died comes back at once, to the nodes that are left.
//!
//! `ROOMKEEPER_STORM=10000` has as many connections; it takes descriptors for three times as many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client_tungstenite::{
    Client, Event, Events, Options, PublishOptions, RequestError, SubscribeOptions, Token,
};
use domain::room::RoomId;
use tests::leaks::said;
use tests::redis::Redis;
use tests::token::{SECRET, claims, hs256};
use tokio::sync::{Barrier, mpsc};
use tokio::time::timeout;

use crate::fleet::{Cluster, DEADLINE};
use crate::story::{BACKOFF, connect};

const CONNECTIONS: usize = 1_000;
const ROOMS: usize = 50;
/// Those that connect at a time, before anything happens.
const AT_ONCE: usize = 64;
/// Within which nearly all have what they missed.
const BACK_MAX: Duration = Duration::from_secs(10);
const CANARY: &str = "\"said while they were away\"";

fn room(number: usize) -> RoomId {
    RoomId::parse(&format!("public:storm/{}", number % ROOMS)).unwrap()
}

fn options(url: &str, user: &str) -> Options {
    let token = hs256(SECRET, &claims(user, "public:*"));
    Options { token: Some(Token::new(&token)), backoff: BACKOFF, ..Options::new(url) }
}

async fn member(number: usize, url: &str) -> (Client, Events) {
    let (client, events) = connect(options(url, &format!("u{number}"))).await;
    loop {
        match client.subscribe(&room(number), SubscribeOptions::default()).await {
            Ok(_) => return (client, events),
            Err(RequestError::Refused(refusal)) if refusal.is_temporary() => {}
            Err(error) => panic!("client {number}: {error}"),
        }
    }
}

/// Until it has heard what was said; how often it was lost on the way.
async fn until_heard(events: &mut Events) -> usize {
    let mut losses = 0;
    while let Some(event) = events.next().await {
        match event {
            Event::Message(message) if message.data == CANARY => return losses,
            Event::Disconnected { .. } => losses += 1,
            Event::Violation(_) | Event::Gap(_) | Event::Unsubscribed { .. } => {
                panic!("{event:?}")
            }
            _ => {}
        }
    }
    panic!("it stays away");
}

/// N01, H01, D06: 99 of 100 have their rooms and what was said meanwhile within ten seconds.
#[test]
#[allow(clippy::print_stdout, reason = "figures for whoever runs it")]
fn everybody_of_a_node_that_died_is_back_with_what_was_said_within_ten_seconds() {
    if !Redis::is_here() {
        return;
    }
    let connections = std::env::var("ROOMKEEPER_STORM").map_or(CONNECTIONS, |n| n.parse().unwrap());
    let mut cluster = Cluster::start(Redis::start());
    let url = format!("ws://{}/ws/v2/connect", cluster.front);
    let (heard, mut times) = mpsc::unbounded_channel();
    let ready = Arc::new(Barrier::new(connections + 1));
    let places = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    for number in 0..connections {
        let (url, heard, ready) = (url.clone(), heard.clone(), Arc::clone(&ready));
        let places = Arc::clone(&places);
        cluster.runtime.spawn(async move {
            let place = places.acquire().await.unwrap();
            let (client, mut events) = member(number, &url).await;
            drop(place);
            ready.wait().await;
            let losses = until_heard(&mut events).await;
            heard.send((Instant::now(), losses)).unwrap();
            drop(client);
        });
    }
    let all_in = async { timeout(3 * DEADLINE, ready.wait()).await.expect("all are in") };
    cluster.runtime.block_on(all_in);
    let killed_at = Instant::now();
    cluster.nodes[0].kill();
    let speaker = format!("ws://{}/ws/v2/connect", cluster.nodes[1].addr());
    let mut back = cluster.runtime.block_on(async {
        let (client, mut events) = Client::connect(options(&speaker, "speaker")).await.unwrap();
        tokio::spawn(async move { while events.next().await.is_some() {} });
        for number in 0..ROOMS {
            let to = room(number);
            client.publish(&to, said(CANARY), PublishOptions::default()).await.unwrap();
        }
        let mut back = Vec::new();
        while back.len() < connections {
            let (at, losses) = timeout(DEADLINE, times.recv()).await.expect("all hear").unwrap();
            back.push((at - killed_at, losses));
        }
        back
    });
    back.sort_unstable();
    let lost = back.iter().filter(|(_, losses)| *losses > 0).count();
    let (p99, last) = (back[connections * 99 / 100].0, back[connections - 1].0);
    println!(
        "{{\"fault\":\"storm\",\"connections\":{connections},\"came_back\":{lost},\"p99_s\":{:.2},\"last_s\":{:.2}}}",
        p99.as_secs_f64(),
        last.as_secs_f64()
    );
    assert!(lost > connections / 4, "{lost}");
    assert!(p99 < BACK_MAX, "{p99:?}");
}
