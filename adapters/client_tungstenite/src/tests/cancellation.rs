//! Futures of the client that are dropped at each of their polls, and a runtime that goes away. It must never
//! leave a connection, a request or a task behind.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::task::yield_now;

use super::support::*;
use crate::*;

/// How often a future is polled at most; each needs fewer.
const POLLS_MAX: usize = 40;

/// Polls a future so often, while all others go on in between, and drops it. Answers whether it was done.
async fn poll_times(future: impl Future, times: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return true;
        }
        yield_now().await;
    }
    false
}

/// Answers everything that a client asks, until it goes.
async fn serve(mut peer: Peer) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(command) = peer.hear_or_end().await {
        heard.push(command["type"].as_str().unwrap().to_owned());
        let answer = match command["type"].as_str().unwrap() {
            "subscribe" => subscribed(&command, at(0), &[], false),
            "publish" => ack(&command, heard.len() as u64, false),
            "unsubscribe" => json!({"type": "unsubscribed", "id": command["id"],
                "room": "public:r0", "code": null, "reason": null, "timestamp": "t"}),
            _ => json!({"type": "pong", "id": command["id"], "timestamp": "t"}),
        };
        peer.say(&answer).await;
    }
    heard
}

/// No task is left.
async fn assert_nobody_goes_on() {
    let metrics = tokio::runtime::Handle::current().metrics();
    soon(async {
        while metrics.num_alive_tasks() > 0 {
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    })
    .await;
}

/// K13: a request that is dropped at any of its polls; the client goes on.
#[tokio::test(start_paused = true)]
async fn a_request_can_be_dropped_at_each_of_its_polls() {
    let mut times = 0;
    loop {
        let mut server = Server::new();
        let (client, _events, peer) = server.client(options()).await;
        let serving = tokio::spawn(serve(peer));
        let room = room();
        let done = [
            poll_times(client.subscribe(&room, SubscribeOptions::default()), times).await,
            poll_times(client.publish(&room, "1", PublishOptions::default()), times).await,
            poll_times(client.unsubscribe(&room), times).await,
            poll_times(client.ping(), times).await,
        ];
        client.ping().await.unwrap();
        client.unsubscribe(&room).await.unwrap();
        let again = client.subscribe(&room, SubscribeOptions::default()).await;
        assert!(again.is_ok(), "after {times} polls: {again:?}");
        client.close().await;
        let heard = soon(serving).await.unwrap();
        assert!(heard.len() <= 7, "{heard:?}");
        if done == [true; 4] {
            break;
        }
        times += 1;
        assert!(times < POLLS_MAX, "a request is never done");
    }
    assert_nobody_goes_on().await;
}

/// K13: whoever waits for an event or for the end may be dropped, too: no event is lost, and it ends.
#[tokio::test(start_paused = true)]
async fn waiting_for_events_and_for_the_end_can_be_dropped_at_each_of_its_polls() {
    for times in 0..POLLS_MAX {
        let mut server = Server::new();
        let (client, mut events, mut peer) = server.client(options()).await;
        assert!(!poll_times(events.next(), times).await);
        peer.say(&json!({"type": "of_the_host", "timestamp": "t"})).await;
        assert!(matches!(next(&mut events).await, Event::Other { .. }));
        let serving = tokio::spawn(serve(peer));
        let is_done = poll_times(client.close(), times).await;
        soon(client.close()).await;
        assert!(matches!(next(&mut events).await, Event::Closed { code: 1000, .. }));
        assert_eq!(soon(events.next()).await, None);
        soon(serving).await.unwrap();
        if is_done {
            return assert_nobody_goes_on().await;
        }
    }
    panic!("it never ends");
}

/// K13: a connect that is dropped at any of its polls; the server sees its connection end, if there was one.
#[tokio::test(start_paused = true)]
async fn connecting_can_be_dropped_at_each_of_its_polls() {
    let mut server = Server::new();
    for times in 0..POLLS_MAX {
        // Nobody answers, so it is never done.
        let connecting = Client::connect_over(options(), server.dial());
        assert!(!poll_times(connecting, times).await);
        for _ in 0..POLLS_MAX {
            yield_now().await;
        }
        while server.is_asked() {
            let mut stream = server.accept_raw().await;
            // It ends: whoever opened it is gone.
            soon(stream.read_to_end(&mut Vec::new())).await.unwrap();
        }
    }
    assert_nobody_goes_on().await;
}

/// K13: the runtime goes away under a client that is connected, one that connects, and one that waits.
#[test]
fn a_runtime_that_is_shut_down_takes_its_clients_with_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let client = runtime.block_on(async {
        let mut server = Server::new();
        let (client, events, peer) = server.client(options()).await;
        let connecting = tokio::spawn(Client::connect_over(options(), server.dial()));
        let waiting = client.clone();
        let waiting = tokio::spawn(async move { waiting.ping().await });
        yield_now().await;
        drop((events, peer, connecting, waiting));
        client
    });
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let answer = other.block_on(client.ping());
    assert!(matches!(answer, Err(RequestError::Closed)), "{answer:?}");
}
