//! After an overload is over, what was done before it is done again at once: nothing that piled up, no retry and
//! no penalty keeps the server busy with itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client_tungstenite::{Client, Options, PublishOptions, SubscribeOptions};
use domain::room::RoomId;
use tests::leaks::said;
use tests::server::Server;
use tokio::runtime::Runtime;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::client::PATH;

/// Clients that go on all the time, each at its pace: together 200 publishes a second.
const STEADY: u64 = 20;
const PACE: Duration = Duration::from_millis(100);
/// As many as come on top, without a pace.
const FLOOD: usize = 60;
/// What the flood has to have done.
const FLOODED: u64 = 20_000;
/// What each says.
const STEADY_DATA: &str = r#""what a steady client says""#;
const FLOOD_DATA: &str = r#""what the flood says""#;
/// By when it has to be as before.
const BACK: Duration = Duration::from_secs(60);

async fn client(url: &str) -> Client {
    let (client, mut events) = Client::connect(Options::new(url)).await.expect("it is let in");
    tokio::spawn(async move { while events.next().await.is_some() {} });
    client
}

/// Publishes at its pace for ever, and counts what is taken within the time of two turns: what comes later is of
/// no use to anybody.
async fn steady(url: String, number: u64, taken: Arc<AtomicU64>) {
    let client = client(&url).await;
    let room = RoomId::parse(&format!("public:steady/{}", number % 4)).unwrap();
    client.subscribe(&room, SubscribeOptions::default()).await.unwrap();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        pace.tick().await;
        let publish = client.publish(&room, said(STEADY_DATA), PublishOptions::default());
        if matches!(timeout(PACE * 2, publish).await, Ok(Ok(_))) {
            taken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Publishes as fast as it can into the same rooms, and comes anew now and then.
async fn flood(url: String, number: usize, done: Arc<AtomicU64>, is_over: Arc<AtomicBool>) {
    let room = RoomId::parse(&format!("public:steady/{}", number % 4)).unwrap();
    while !is_over.load(Ordering::Relaxed) {
        let Ok((client, mut events)) = Client::connect(Options::new(url.clone())).await else {
            continue;
        };
        let reading = tokio::spawn(async move { while events.next().await.is_some() {} });
        for _ in 0..500 {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            drop(client.publish(&room, said(FLOOD_DATA), PublishOptions::default()).await);
            done.fetch_add(1, Ordering::Relaxed);
        }
        client.close().await;
        drop(reading.await);
    }
}

/// Waits for a second in which as much was taken as all that is wanted, nearly. Answers after how long.
async fn until_as_wanted(taken: &AtomicU64) -> Duration {
    let wanted = STEADY * 1_000 / u64::try_from(PACE.as_millis()).unwrap();
    let begun = Instant::now();
    let mut second = interval(Duration::from_secs(1));
    second.tick().await;
    let mut before = taken.load(Ordering::Relaxed);
    loop {
        second.tick().await;
        let now = taken.load(Ordering::Relaxed);
        if (now - before) * 100 >= wanted * 95 {
            return begun.elapsed();
        }
        before = now;
        assert!(begun.elapsed() < BACK, "{} of {wanted} in the last second", now - before);
    }
}

/// H06.
#[test]
#[allow(clippy::print_stdout, reason = "a figure for whoever runs it")]
fn when_an_overload_is_over_everything_is_as_before_within_a_minute() {
    let server = Server::start(&[]);
    let url = server.ws(PATH);
    Runtime::new().unwrap().block_on(async {
        let taken = Arc::new(AtomicU64::new(0));
        for number in 0..STEADY {
            tokio::spawn(steady(url.clone(), number, Arc::clone(&taken)));
        }
        until_as_wanted(&taken).await;
        let (done, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let floods: Vec<_> = (0..FLOOD)
            .map(|n| tokio::spawn(flood(url.clone(), n, Arc::clone(&done), Arc::clone(&is_over))))
            .collect();
        let begun = Instant::now();
        while done.load(Ordering::Relaxed) < FLOODED {
            tokio::task::yield_now().await;
            assert!(begun.elapsed() < BACK * 2, "{done:?} of {FLOODED}");
        }
        is_over.store(true, Ordering::Relaxed);
        for flood in floods {
            flood.await.unwrap();
        }
        let took = until_as_wanted(&taken).await;
        println!(
            "{{\"back_after_ms\":{},\"flood_ms\":{}}}",
            took.as_millis(),
            begun.elapsed().as_millis()
        );
    });
}
