//! Whose turn it is in the task: commands, the end, time, the socket. It must never be that who has much to say keeps
//! the others waiting, nor that work is done again for what waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message as Frame;
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

use super::support::*;
use crate::*;

/// Asks without end for as long as it is refused at once, from so many tasks.
fn ask_without_end(client: &Client, tasks: usize) {
    for _ in 0..tasks {
        let client = client.clone();
        tokio::spawn(async move {
            while matches!(client.ping().await, Err(RequestError::Disconnected)) {}
        });
    }
}

/// Lets all others go on so long that whoever gets a turn at all has had one. Time stands still meanwhile: it passes by
/// itself only where nobody has anything to do.
async fn let_others_go_on() {
    for _ in 0..100 {
        yield_now().await;
    }
}

/// They never fill what is to be sent, so that nothing else holds them back.
#[tokio::test(start_paused = true)]
async fn who_asks_without_end_for_what_is_refused_does_not_keep_the_client_from_coming_back() {
    let mut server = Server::new();
    let options = Options { command_queue_max: 300, ..options() };
    let (client, mut events, peer) = server.client(options).await;
    peer.cut().await;
    assert!(matches!(next(&mut events).await, Event::Disconnected { .. }));
    ask_without_end(&client, 300);
    let_others_go_on().await;
    assert!(!server.is_asked());
    tokio::time::advance(Duration::from_secs(1)).await;
    let_others_go_on().await;
    assert!(server.is_asked(), "it never dials");
    let_others_go_on().await;
    let _peer = server.greet().await;
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
}

#[tokio::test(start_paused = true)]
async fn who_asks_without_end_for_what_is_refused_does_not_keep_the_client_from_closing() {
    let mut server = Server::new();
    let options = Options { command_queue_max: 300, ..options() };
    let (client, mut events, peer) = server.client(options).await;
    peer.cut().await;
    assert!(matches!(next(&mut events).await, Event::Disconnected { .. }));
    ask_without_end(&client, 300);
    let_others_go_on().await;
    let closing = tokio::spawn(async move { client.close().await });
    let_others_go_on().await;
    assert!(closing.is_finished(), "it never closes");
}

#[tokio::test(start_paused = true)]
async fn the_end_comes_behind_all_that_was_asked_before_it() {
    const ASKED: usize = 200;
    let mut server = Server::new();
    let options = Options { command_queue_max: 2 * ASKED, ..options() };
    let (client, _events, mut peer) = server.client(options).await;
    for _ in 0..ASKED {
        let client = client.clone();
        tokio::spawn(async move { client.publish(&room(), "1", PublishOptions::default()).await });
    }
    let closing = tokio::spawn(async move { client.close().await });
    let mut heard = 0;
    while peer.hear_or_end().await.is_some_and(|command| command["type"] == "publish") {
        heard += 1;
    }
    assert_eq!(heard, ASKED);
    soon(closing).await.unwrap();
}

/// Counts warnings.
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn what_a_server_does_wrong_is_warned_of_once_however_long_it_waits_to_be_read() {
    let warnings = Arc::new(AtomicUsize::new(0));
    let _subscriber = tracing::subscriber::set_default(Warnings(Arc::clone(&warnings)));
    let mut server = Server::new();
    let options = Options { event_queue_max: 1, ..options() };
    let (client, mut events, mut peer) = server.client(options).await;
    // One text with more to tell than there is room for.
    peer.send(Frame::text("{} ".repeat(10))).await.unwrap();
    for _ in 0..20 {
        let client = client.clone();
        let published =
            tokio::spawn(
                async move { client.publish(&room(), "1", PublishOptions::default()).await },
            );
        assert_eq!(peer.hear().await["type"], "publish");
        published.abort();
    }
    assert_eq!(warnings.load(Ordering::Relaxed), 10);
    for _ in 0..10 {
        assert!(matches!(next(&mut events).await, Event::Violation(_)));
    }
    peer.send(Frame::text("{}")).await.unwrap();
    assert!(matches!(next(&mut events).await, Event::Violation(_)));
    assert_eq!(warnings.load(Ordering::Relaxed), 11);
}

/// What says "never" in settings: no clock and no channel reaches so far.
#[tokio::test(start_paused = true)]
async fn a_client_without_any_limit_connects_is_answered_and_comes_back() {
    let backoff = BackoffOptions {
        base: Duration::MAX,
        cap: Duration::MAX,
        attempts_max: Some(u32::MAX),
        stable_after: Duration::MAX,
    };
    let options = Options {
        tokens: Some(TokenSource::new(|| async { Ok::<_, &str>(Token::new("t")) })),
        connect_timeout: Duration::MAX,
        request_timeout: Duration::MAX,
        publish_timeout: Duration::MAX,
        event_queue_max: usize::MAX,
        command_queue_max: usize::MAX,
        outbox_max: usize::MAX,
        outbox_bytes_max: usize::MAX,
        message_bytes_max: usize::MAX,
        backoff,
        random: RandomSource::new(|| 0),
        ..options()
    };
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options).await;
    let room = room();
    let publish = || client.publish(&room, "1", PublishOptions::default());
    let (acked, ()) = tokio::join!(publish(), async {
        let command = peer.hear().await;
        peer.say(&ack(&command, 1, false)).await;
    });
    acked.unwrap();
    let pinging = client.ping();
    let (pong, ()) = tokio::join!(pinging, async {
        let command = peer.hear().await;
        peer.say(&json!({"type": "pong", "id": command["id"], "timestamp": "t"})).await;
    });
    pong.unwrap();
    peer.cut().await;
    assert!(matches!(next(&mut events).await, Event::Disconnected { .. }));
    let began = Instant::now();
    // Nobody greets: that is waited for without end.
    let _silent = server.accept().await;
    assert!(tokio::time::timeout(Duration::from_secs(86_400), events.next()).await.is_err());
    assert!(began.elapsed() >= Duration::from_secs(86_400));
    soon(client.close()).await;
}
