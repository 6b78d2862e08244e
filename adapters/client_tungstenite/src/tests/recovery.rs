//! Losses, and what comes after them.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::support::*;
use crate::*;

async fn subscribe(client: &Client, events: &mut Events, peer: &mut Peer, offset: u64) {
    let room = room();
    let join = client.subscribe(&room, SubscribeOptions::default());
    tokio::join!(join, peer.grant(at(offset), &[])).0.unwrap();
    joined(events).await;
    caught_up(events, offset).await;
}

async fn lost(events: &mut Events) -> (u16, Option<Duration>) {
    match next(events).await {
        Event::Disconnected { code, will_reconnect, after, .. } => {
            assert_eq!(will_reconnect, after.is_some());
            (code, after)
        }
        other => panic!("{other:?}"),
    }
}

async fn connected(events: &mut Events) {
    assert!(matches!(next(events).await, Event::Connected(_)));
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_resumes_from_the_last_message_and_pages_until_live() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    subscribe(&client, &mut events, &mut peer, 3).await;
    peer.say(&message(4)).await;
    assert_eq!(offsets(&mut events, 1).await, [4]);
    peer.cut().await;
    let (code, after) = lost(&mut events).await;
    assert_eq!((code, after.unwrap().as_millis()), (1006, 200));

    let mut peer = server.greet().await;
    let command = peer.hear().await;
    assert_eq!(command["since"], json!({"epoch": "000000000000000a", "offset": 4}));
    peer.say(&subscribed(&command, at(6), &[message(5), message(6)], true)).await;
    peer.say(&page(at(7), &[message(7)], true)).await;
    peer.say(&page(at(8), &[message(8)], false)).await;
    peer.say(&message(9)).await;
    connected(&mut events).await;
    joined(&mut events).await;
    assert_eq!(offsets(&mut events, 4).await, [5, 6, 7, 8]);
    caught_up(&mut events, 8).await;
    assert_eq!(offsets(&mut events, 1).await, [9]);
}

#[tokio::test(start_paused = true)]
async fn a_publish_whose_acknowledgement_was_lost_is_sent_again_under_its_id_and_resolved_once() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let publishing = tokio::spawn(async move {
        (client.publish(&room(), "1", PublishOptions::default()).await, client)
    });
    let first = peer.hear().await;
    peer.cut().await;
    lost(&mut events).await;
    server.refuse(2);
    let mut peer = server.greet().await;
    for _ in 0..2 {
        assert!(matches!(next(&mut events).await, Event::AttemptFailed { .. }));
    }
    let second = peer.hear().await;
    assert_eq!(first, second);
    peer.say(&ack(&second, 5, true)).await;
    peer.say(&ack(&second, 5, true)).await;
    let (acked, client) = publishing.await.unwrap();
    let acked = acked.unwrap();
    assert!(acked.duplicate);
    assert_eq!(acked.msg_id.as_str(), first["msg_id"]);
    connected(&mut events).await;
    // It isn't sent a third time.
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.greet().await;
    connected(&mut events).await;
    let (_, command) = tokio::join!(client.ping(), peer.hear());
    assert_eq!(command["type"], "ping");
}

#[tokio::test(start_paused = true)]
async fn what_is_published_without_a_connection_waits_and_keeps_its_order() {
    let mut server = Server::new();
    let (client, mut events, peer) = server.client(options()).await;
    peer.cut().await;
    lost(&mut events).await;
    let room = room();
    let publish = |data: &'static str| client.publish(&room, data, PublishOptions::default());
    let (status, first, second, ()) =
        tokio::join!(client.status(), publish("1"), publish("2"), async {
            let mut peer = server.greet().await;
            for n in 1..=2 {
                let command = peer.hear().await;
                assert_eq!(command["data"], n);
                peer.say(&ack(&command, n, false)).await;
            }
        });
    assert!(matches!(status, Err(RequestError::Disconnected)));
    assert!(first.unwrap().offset < second.unwrap().offset);
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_is_never_acknowledged_ends_as_unanswered_with_its_id() {
    let mut server = Server::new();
    let (client, _events, mut peer) = server.client(options()).await;
    let room = room();
    let publishing = client.publish(&room, "1", PublishOptions::default());
    let (unanswered, command) = tokio::join!(publishing, async {
        let command = peer.hear().await;
        // It lives, it just doesn't answer.
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(20)).await;
            peer.say(&json!({"type": "ping", "timestamp": "t"})).await;
        }
        command
    });
    let Err(RequestError::Unanswered { msg_id, refusal: None }) = unanswered else {
        panic!("{unanswered:?}")
    };
    assert_eq!(msg_id.as_str(), command["msg_id"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_client_sends_again_by_itself_waits_as_long_as_the_server_says() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let publishing =
        tokio::spawn(async move { client.publish(&room(), "1", PublishOptions::default()).await });
    peer.hear().await;
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.greet().await;
    let command = peer.hear().await;
    let began = Instant::now();
    peer.say(&error(&command, 108, "rate_limited", Some(3000))).await;
    let command = peer.hear().await;
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    peer.say(&ack(&command, 1, false)).await;
    publishing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_terminal_code_stops_the_client() {
    for code in [1000, 1008, 3500, 3507] {
        let mut server = Server::new();
        let (client, mut events, peer) = server.client(options()).await;
        peer.close(code).await;
        assert_eq!(lost(&mut events).await, (code, None));
        assert!(matches!(next(&mut events).await, Event::Closed { code: c, .. } if c == code));
        assert!(soon(events.next()).await.is_none());
        assert!(matches!(client.ping().await, Err(RequestError::Closed)));
        assert!(!server.is_asked());
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_of_the_other_range_brings_it_back() {
    for code in [1001, 1011, 1012, 1013, 3001, 3004, 3499] {
        let mut server = Server::new();
        let (_client, mut events, peer) = server.client(options()).await;
        peer.close(code).await;
        assert_eq!(lost(&mut events).await.0, code);
        server.greet().await;
        connected(&mut events).await;
    }
}

/// K03: with what the socket's end adds to it.
#[tokio::test(start_paused = true)]
async fn the_server_says_when_to_come_back() {
    let mut server = Server::new();
    let (_client, mut events, mut peer) = server.client(options()).await;
    peer.say(&disconnect(1012, Some(1830))).await;
    let began = Instant::now();
    peer.close(1012).await;
    assert_eq!(lost(&mut events).await, (1012, Some(Duration::from_millis(1830))));
    server.greet().await;
    assert_eq!(began.elapsed(), Duration::from_millis(1830));
    connected(&mut events).await;
}

/// As one of several nodes says that stops: there is another one at once.
#[tokio::test(start_paused = true)]
async fn who_is_told_to_come_back_at_once_does_and_waits_only_where_that_fails() {
    let mut server = Server::new();
    let (_client, mut events, mut peer) = server.client(options()).await;
    peer.say(&disconnect(1012, Some(0))).await;
    let began = Instant::now();
    server.refuse(1);
    peer.close(1012).await;
    assert_eq!(lost(&mut events).await, (1012, Some(Duration::ZERO)));
    let Event::AttemptFailed { after: Some(after), .. } = next(&mut events).await else { panic!() };
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(after > Duration::ZERO);
    server.greet().await;
    // The clock of tests goes by milliseconds.
    assert!(began.elapsed().abs_diff(after) < Duration::from_millis(1), "{after:?}");
    connected(&mut events).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_disconnect_and_then_nothing_is_left() {
    let mut server = Server::new();
    let (_client, mut events, mut peer) = server.client(options()).await;
    peer.say(&disconnect(3500, None)).await;
    assert_eq!(lost(&mut events).await, (3500, None));
    assert!(matches!(next(&mut events).await, Event::Closed { code: 3500, .. }));
}

#[tokio::test(start_paused = true)]
async fn attempts_grow_apart_and_end_at_their_maximum() {
    let mut server = Server::new();
    let backoff = BackoffOptions { attempts_max: Some(3), ..BackoffOptions::default() };
    let (_client, mut events, peer) = server.client(Options { backoff, ..options() }).await;
    server.refuse(3);
    peer.cut().await;
    let mut waits = vec![lost(&mut events).await.1.unwrap().as_millis()];
    loop {
        match next(&mut events).await {
            Event::AttemptFailed { after: Some(after), .. } => waits.push(after.as_millis()),
            Event::AttemptFailed { after: None, attempt, reason, class } => {
                assert_eq!(class, ErrorClass::Network);
                assert_eq!(attempt, 3);
                assert!(reason.starts_with("no connection to test:1: "), "{reason}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [200, 400, 800]);
    assert!(matches!(next(&mut events).await, Event::Closed { code: 1006, .. }));
}

#[tokio::test(start_paused = true)]
async fn gaps_are_told_and_resumed_behind() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    subscribe(&client, &mut events, &mut peer, 3).await;
    peer.say(&gap(EPOCH, 4, 9, "overflow")).await;
    peer.say(&message(10)).await;
    let Event::Gap(told) = next(&mut events).await else { panic!() };
    assert_eq!((told.from.get(), told.to.get(), told.reason.as_str()), (4, 9, "overflow"));
    assert_eq!(offsets(&mut events, 1).await, [10]);
    peer.cut().await;
    lost(&mut events).await;

    // The log is another one now; it holds offsets from 3 on.
    let mut peer = server.greet().await;
    let command = peer.hear().await;
    assert_eq!(command["since"]["offset"], 10);
    peer.say(&gap(11, 1, 2, "epoch_changed")).await;
    let mut answer = subscribed(&command, at(3), &[], false);
    answer["epoch"] = "000000000000000b".into();
    let mut first = message(3);
    first["epoch"] = "000000000000000b".into();
    answer["messages"] = json!([first]);
    peer.say(&answer).await;
    connected(&mut events).await;
    assert!(matches!(next(&mut events).await, Event::Gap(_)));
    joined(&mut events).await;
    assert_eq!(offsets(&mut events, 1).await, [3]);
    assert!(matches!(next(&mut events).await, Event::CaughtUp { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_without_echo_takes_the_messages_place() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    subscribe(&client, &mut events, &mut peer, 3).await;
    let room = room();
    let silent = PublishOptions { echo: false, ..PublishOptions::default() };
    let (acked, ()) = tokio::join!(client.publish(&room, "1", silent), async {
        let command = peer.hear().await;
        assert_eq!(command["echo"], false);
        peer.say(&ack(&command, 4, false)).await;
        peer.say(&message(5)).await;
    });
    acked.unwrap();
    assert_eq!(offsets(&mut events, 1).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn joining_again_waits_if_the_server_asks_and_gives_up_if_it_refuses() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    subscribe(&client, &mut events, &mut peer, 3).await;
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.greet().await;
    connected(&mut events).await;
    let command = peer.hear().await;
    let began = Instant::now();
    peer.say(&error(&command, 114, "unavailable", Some(700))).await;
    let command = peer.hear().await;
    assert_eq!(began.elapsed(), Duration::from_millis(700));
    assert_eq!(command["since"]["offset"], 3);
    peer.say(&error(&command, 103, "permission_denied", None)).await;
    let Event::Unsubscribed { code, .. } = next(&mut events).await else { panic!() };
    assert_eq!(code, Some(103));
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.greet().await;
    connected(&mut events).await;
    let (_, command) = tokio::join!(client.ping(), peer.hear());
    assert_eq!(command["type"], "ping");
}

/// S09 and K09: what the client notices.
#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left_after_one_and_a_half_intervals_and_its_pings_are_answered() {
    let mut server = Server::new();
    let (_client, mut events, mut peer) = server.client(options()).await;
    tokio::time::advance(Duration::from_secs(30)).await;
    peer.say(&json!({"type": "ping", "timestamp": "t"})).await;
    assert_eq!(peer.hear().await, json!({"type": "pong"}));
    let began = Instant::now();
    assert_eq!(lost(&mut events).await.0, 1006);
    assert_eq!(began.elapsed(), Duration::from_millis(37_500));
    server.greet().await;
    connected(&mut events).await;
}

/// K08: a token that ran out is replaced between two connections, by the application.
#[tokio::test(start_paused = true)]
async fn a_token_set_in_between_is_used_on_the_next_connection() {
    let mut server = Server::new();
    let options = Options { token: Some(Token::new("old")), ..options() };
    let (client, _events, peer) = server.client(options).await;
    client.set_token(Token::new("new")).await.unwrap();
    peer.close(3004).await;
    assert_eq!(server.greet().await.authorization.as_deref(), Some("Bearer new"));
}

/// K06: a handler that is slow. K11: more than an application can take.
#[tokio::test(start_paused = true)]
async fn an_application_that_does_not_read_stops_the_reading_and_loses_nothing() {
    let mut server = Server::new();
    let options = Options { event_queue_max: 4, ..options() };
    let (client, mut events, mut peer) = server.client(options).await;
    subscribe(&client, &mut events, &mut peer, 0).await;
    let total = 2000;
    let mut sent = 0;
    // The pipe, the read buffer and the queue fill up; then the server can't send.
    let flooded = tokio::time::timeout(Duration::from_secs(300), async {
        for offset in 1..=total {
            peer.send(tokio_tungstenite::tungstenite::Message::text(message(offset).to_string()))
                .await
                .unwrap();
            sent = offset;
        }
    });
    assert!(flooded.await.is_err());
    assert!(sent < 300, "{sent} messages were taken from a full pipe");
    // Commands still go out.
    let publishing =
        tokio::spawn(async move { client.publish(&room(), "1", PublishOptions::default()).await });
    assert_eq!(peer.hear().await["type"], "publish");
    // For all that time nobody listened, so the server was not silent.
    let reading = offsets(&mut events, usize::try_from(sent).unwrap()).await;
    assert_eq!(reading, (1..=sent).collect::<Vec<_>>());
    assert!(!publishing.is_finished());
}
