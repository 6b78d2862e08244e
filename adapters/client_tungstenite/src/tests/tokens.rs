//! Tokens that the client asks for by itself: over a source that is slow, that fails, that never answers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::*;
use crate::*;
use serde_json::{Value, json};

/// A source that gives these one after another, and how often it was asked.
fn source(given: &[Result<&'static str, &'static str>]) -> (TokenSource, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let given = Mutex::new(given.iter().copied().collect::<VecDeque<_>>());
    let count = Arc::clone(&asked);
    let source = TokenSource::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let next = given.lock().unwrap().pop_front();
        async move { next.unwrap_or(Err("no more")).map(Token::new) }
    });
    (source, asked)
}

fn with(tokens: TokenSource) -> Options {
    Options { tokens: Some(tokens), token_in: TokenPlace::ConnectFrame, ..options() }
}

/// Takes a connection, and what it shows; greets it with a ticket.
async fn known(server: &mut Server, ticket: &str) -> (Peer, Value) {
    let mut peer = server.accept().await;
    let connect = peer.hear().await;
    let mut hello = hello(connect["id"].as_u64());
    hello["session"] = json!(ticket);
    peer.say(&hello).await;
    (peer, connect)
}

async fn disconnected(events: &mut Events) {
    assert!(matches!(next(events).await, Event::Disconnected { will_reconnect: true, .. }));
}

/// K08: what a token that was asked for is shown with, and that one that ran out is replaced.
#[tokio::test(start_paused = true)]
async fn a_token_is_asked_for_when_one_is_needed_and_at_no_other_time() {
    let (tokens, asked) = source(&[Ok("t1"), Ok("t2")]);
    let mut server = Server::new();
    let (client, (peer, connect)) =
        server.connect(with(tokens), async |server: &mut Server| known(server, "s1").await).await;
    let (_client, mut events) = client.unwrap();
    assert_eq!((&connect["token"], &connect["session"]), (&json!("t1"), &Value::Null));
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    // The ticket serves.
    peer.cut().await;
    disconnected(&mut events).await;
    let (peer, connect) = known(&mut server, "s2").await;
    assert_eq!((&connect["token"], &connect["session"]), (&json!("t1"), &json!("s1")));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    peer.close(3004).await;
    disconnected(&mut events).await;
    let (_peer, connect) = known(&mut server, "s3").await;
    assert_eq!((&connect["token"], &connect["session"]), (&json!("t2"), &Value::Null));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_asked_for_stands_in_the_header_where_tokens_do() {
    let (tokens, _) = source(&[Ok("t1"), Ok("t2")]);
    let mut server = Server::new();
    let options = Options { tokens: Some(tokens), ..options() };
    let (_client, mut events, peer) = server.client(options).await;
    assert_eq!(peer.authorization.as_deref(), Some("Bearer t1"));
    peer.close(3004).await;
    disconnected(&mut events).await;
    assert_eq!(server.greet().await.authorization.as_deref(), Some("Bearer t2"));
}

#[tokio::test(start_paused = true)]
async fn the_token_at_hand_is_shown_first_and_a_refused_one_is_replaced() {
    let (tokens, asked) = source(&[Ok("t2")]);
    let mut server = Server::new();
    let options = Options { token: Some(Token::new("t1")), ..with(tokens) };
    let (client, (peer, connect)) =
        server.connect(options, async |server: &mut Server| known(server, "s1").await).await;
    let (_client, mut events) = client.unwrap();
    assert_eq!((&connect["token"], asked.load(Ordering::Relaxed)), (&json!("t1"), 0));
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    peer.close(3500).await;
    disconnected(&mut events).await;
    let (_peer, connect) = known(&mut server, "s2").await;
    assert_eq!(connect["token"], "t2");
}

/// K08: the server says that the token ends, and the connection stays.
#[tokio::test(start_paused = true)]
async fn a_token_that_ends_is_refreshed_in_place() {
    let (tokens, asked) = source(&[Ok("t1"), Err("away"), Ok("t2")]);
    let mut server = Server::new();
    let (client, (mut peer, _)) =
        server.connect(with(tokens), async |server: &mut Server| known(server, "s1").await).await;
    let (_client, mut events) = client.unwrap();
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    let began = tokio::time::Instant::now();
    peer.say(&json!({"type": "token_expiring", "expires_at": "soon", "timestamp": "t"})).await;
    assert!(matches!(next(&mut events).await, Event::TokenExpiring { .. }));
    let refresh = peer.hear().await;
    assert_eq!(refresh["token"], "t2");
    assert_eq!(began.elapsed(), Duration::from_secs(5), "the first could not be got");
    peer.say(&json!({"type": "refreshed", "id": refresh["id"], "expires_at": null,
        "session": "s2", "timestamp": "t"}))
        .await;
    peer.cut().await;
    disconnected(&mut events).await;
    let (_peer, connect) = known(&mut server, "s3").await;
    assert_eq!((&connect["token"], &connect["session"]), (&json!("t2"), &json!("s2")));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

/// K08: rejecting; five in a row are the end, with back-off between them.
#[tokio::test(start_paused = true)]
async fn tokens_that_can_not_be_got_are_asked_for_five_times_and_then_it_is_the_end() {
    let (tokens, asked) = source(&[Ok("t1")]);
    let mut server = Server::new();
    let (client, (peer, _)) =
        server.connect(with(tokens), async |server: &mut Server| known(server, "s1").await).await;
    let (_client, mut events) = client.unwrap();
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    peer.close(3004).await;
    disconnected(&mut events).await;
    let mut waits = Vec::new();
    loop {
        match next(&mut events).await {
            Event::AttemptFailed { after, reason, class, .. } => {
                assert_eq!((reason.as_str(), class), ("no token: no more", ErrorClass::Handshake));
                waits.push(after.map(|after| after.as_millis()));
            }
            Event::Closed { code, reason } => {
                assert_eq!((code, reason.as_str()), (3500, "no token: no more"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [Some(400), Some(800), Some(1600), Some(3200), None]);
    assert_eq!(asked.load(Ordering::Relaxed), 6);
    assert!(!server.is_asked());
}

/// Counts how many calls there are at once.
struct Call(Arc<Calls>);

#[derive(Default)]
struct Calls {
    made: AtomicUsize,
    at_once: AtomicUsize,
}

impl Call {
    fn new(calls: &Arc<Calls>) -> Self {
        calls.made.fetch_add(1, Ordering::Relaxed);
        assert_eq!(calls.at_once.fetch_add(1, Ordering::Relaxed), 0, "one at a time");
        Self(Arc::clone(calls))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::Relaxed);
    }
}

/// K08: slow, and never: one call at a time, which is given up in time; and a client that is dropped
/// meanwhile leaves none behind.
#[tokio::test(start_paused = true)]
async fn a_token_that_never_comes_is_given_up_and_asked_for_one_at_a_time() {
    let calls = Arc::new(Calls::default());
    let (counted, slow) = (Arc::clone(&calls), Duration::from_secs(7));
    let tokens = TokenSource::new(move || {
        let call = Call::new(&counted);
        let nth = counted.made.load(Ordering::Relaxed);
        async move {
            if nth > 1 {
                std::future::pending::<()>().await;
            }
            // Virtual time: it takes so long.
            tokio::time::timeout(slow, std::future::pending::<()>()).await.ok();
            drop(call);
            Ok::<_, &str>(Token::new("t1"))
        }
    });
    let mut server = Server::new();
    let (client, (peer, connect)) =
        server.connect(with(tokens), async |server: &mut Server| known(server, "s1").await).await;
    let (client, mut events) = client.unwrap();
    assert_eq!(connect["token"], "t1");
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    peer.close(3004).await;
    disconnected(&mut events).await;
    let Event::AttemptFailed { reason, .. } = next(&mut events).await else { panic!() };
    assert_eq!(reason, "no token: none came within 8000 ms");
    let Event::AttemptFailed { .. } = next(&mut events).await else { panic!() };
    assert_eq!(calls.made.load(Ordering::Relaxed), 3);
    client.close().await;
    soon(async {
        while calls.at_once.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!server.is_asked());
}

/// K08: what a source does wrong is a token that did not come.
#[tokio::test(start_paused = true)]
async fn a_source_that_fails_or_panics_before_the_first_connection_is_told_as_that() {
    let failing = source(&[Err("no session")]).0;
    let panicking = TokenSource::new(|| async {
        if tokio::time::Instant::now().elapsed() < Duration::MAX {
            panic!("a mistake of the application's");
        }
        Ok::<_, &str>(Token::new("t"))
    });
    for (tokens, expected) in [(failing, "no session"), (panicking, "its source panicked")] {
        let server = Server::new();
        let connected = soon(Client::connect_over(with(tokens), server.dial())).await;
        let Err(error) = connected else { panic!() };
        assert!(error.is_temporary());
        assert!(matches!(&error, ConnectError::NoToken { why } if why == expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_without_a_token_leaves_the_client_anonymous() {
    let tokens = TokenSource::or_anonymous(|| async { Ok::<_, &str>(None) });
    let mut server = Server::new();
    let (_client, _events, peer) =
        server.client(Options { tokens: Some(tokens), ..options() }).await;
    assert_eq!(peer.authorization, None);
}

#[test]
fn a_printed_source_shows_nothing() {
    assert_eq!(format!("{:?}", source(&[Ok("secret")]).0), "TokenSource(…)");
}
