//! Commands and their answers.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::support::*;
use crate::*;
use domain::id::{ClientId, MessageId};
use domain::room::RoomId;

#[tokio::test(start_paused = true)]
async fn a_client_subscribes_publishes_and_gets_its_message() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let room = room();
    let (subscribed, command) = tokio::join!(
        client.subscribe(&room, SubscribeOptions { presence: true, ..SubscribeOptions::default() }),
        peer.grant(at(3), &[])
    );
    assert_eq!(command["presence"], true);
    assert!(command.get("since").is_none());
    assert_eq!(subscribed.unwrap().position, at(3));

    let data = r#"{ "big":12345678901234567890 }"#;
    let publishing = client.publish(&room, data, PublishOptions::default());
    let (acked, ()) = tokio::join!(publishing, async {
        assert_eq!(peer.hear().await["type"], "presence");
        let command = peer.hear().await;
        assert_eq!(command["data"], json!({"big": 12_345_678_901_234_567_890_u64}));
        peer.say(&ack(&command, 4, false)).await;
        peer.say(&message(4)).await;
    });
    let acked = acked.unwrap();
    assert_eq!(acked.offset.map(domain::position::Offset::get), Some(4));
    joined(&mut events).await;
    caught_up(&mut events, 3).await;
    let Event::Message(message) = next(&mut events).await else { panic!() };
    assert_eq!((message.data.as_str(), message.offset), (r#"{"n":4}"#, acked.offset));
}

#[tokio::test(start_paused = true)]
async fn fresh_message_ids_differ_and_an_own_one_is_kept() {
    let mut server = Server::new();
    let (client, _events, mut peer) = server.client(options()).await;
    let own = MessageId::parse("mine").unwrap();
    let room = room();
    let kept = PublishOptions { msg_id: Some(own.clone()), echo: false, ..Default::default() };
    let publishing = async {
        tokio::join!(
            client.publish(&room, "1", PublishOptions::default()),
            client.publish(&room, "2", PublishOptions::default()),
            client.publish(&room, "3", kept)
        )
    };
    let serving = async {
        let mut ids = Vec::new();
        for offset in 1..4 {
            let command = peer.hear().await;
            ids.push(command["msg_id"].as_str().unwrap().to_owned());
            peer.say(&ack(&command, offset, false)).await;
        }
        ids
    };
    let ((_, _, acked), ids) = tokio::join!(publishing, serving);
    assert_eq!(acked.unwrap().msg_id, own);
    assert_eq!(ids[2], "mine");
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test(start_paused = true)]
async fn every_other_request_has_its_answer() {
    let mut server = Server::new();
    let (client, _events, mut peer) = server.client(options()).await;
    let room = room();
    let serving = tokio::spawn(async move {
        for (kind, answer) in [
            (
                "history",
                json!({"type": "history", "room": "public:r0", "epoch":
                "000000000000000a", "offset": 2, "messages": [message(2)], "more": true}),
            ),
            (
                "presence",
                json!({"type": "presence", "room": "public:r0", "seq": 1, "total": 1,
                "members": [{"user_id": "ann", "data": {"x": 1}, "connections": 2}]}),
            ),
            ("presence_update", json!({"type": "presence_updated", "room": "public:r0"})),
            ("refresh", json!({"type": "refreshed", "expires_at": "later"})),
            (
                "status",
                json!({"type": "status", "connection_id": "00000000000000aa",
                "user_id": null, "rooms": ["public:r0"], "connected_since": "then",
                "queue_bytes": 0, "request_id": "q"}),
            ),
            ("ping", json!({"type": "pong"})),
            (
                "unsubscribe",
                json!({"type": "error", "code": 105, "error": "not_subscribed",
                "message": "", "field": "room", "retry_after_ms": null}),
            ),
        ] {
            let command = peer.hear().await;
            assert_eq!(command["type"], kind);
            let mut answer = answer;
            answer["id"] = command["id"].clone();
            answer["timestamp"] = "now".into();
            peer.say(&answer).await;
            if kind == "ping" {
                break;
            }
        }
        peer
    });
    let page = client.history(&room, HistoryOptions { since: Some(at(1)), limit: 1 });
    assert!(matches!(page.await.unwrap().messages[..], [LogEntry::Message(_)]));
    assert_eq!(client.presence(&room).await.unwrap().members[0].data, r#"{"x":1}"#);
    client.presence_update(&room, r#"{"away":true}"#).await.unwrap();
    let expires_at = client.refresh(Token::new("fresh")).await.unwrap();
    assert_eq!(expires_at.as_deref(), Some("later"));
    assert_eq!(client.status().await.unwrap().rooms, ["public:r0"]);
    client.ping().await.unwrap();
    let _peer = serving.await.unwrap();
    // A room that it isn't in is left without asking.
    client.unsubscribe(&room).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_whoever_asked_and_the_room_can_be_asked_for_again() {
    let mut server = Server::new();
    let (client, _events, mut peer) = server.client(options()).await;
    let room = room();
    let (refused, ()) = tokio::join!(client.subscribe(&room, SubscribeOptions::default()), async {
        let command = peer.hear().await;
        peer.say(&error(&command, 103, "permission_denied", None)).await;
    });
    let Err(RequestError::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!((refusal.code, refusal.is_temporary()), (103, false));
    let (subscribed, _) =
        tokio::join!(client.subscribe(&room, SubscribeOptions::default()), peer.grant(at(0), &[]));
    subscribed.unwrap();
    let twice = client.subscribe(&room, SubscribeOptions::default()).await;
    assert!(matches!(twice, Err(RequestError::AlreadySubscribed)));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_times_out_and_a_late_answer_harms_nobody() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let began = Instant::now();
    let (timed_out, command) = tokio::join!(client.ping(), peer.hear());
    assert!(matches!(timed_out, Err(RequestError::TimedOut)));
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    peer.say(&json!({"type": "pong", "id": command["id"], "timestamp": "t"})).await;
    peer.say(&json!({"type": "pong", "id": 99, "timestamp": "t"})).await;
    pong(&client, &mut peer).await;
    assert_eq!(events.try_next(), None);
}

#[tokio::test(start_paused = true)]
async fn a_join_without_an_answer_fails_ends_the_connection_and_does_not_succeed_later() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let room = room();
    let (timed_out, _) =
        tokio::join!(client.subscribe(&room, SubscribeOptions::default()), peer.hear());
    assert!(matches!(timed_out, Err(RequestError::TimedOut)));
    let Event::Disconnected { code: 1006, reason, will_reconnect: true, .. } =
        next(&mut events).await
    else {
        panic!()
    };
    assert_eq!(reason, "no answer to subscribe to public:r0");
    let mut peer = server.greet().await;
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    pong(&client, &mut peer).await;
    let (again, _) =
        tokio::join!(client.subscribe(&room, SubscribeOptions::default()), peer.grant(at(2), &[]));
    again.unwrap();
    joined(&mut events).await;
    caught_up(&mut events, 2).await;
    assert_eq!(events.try_next(), None);
}

#[tokio::test(start_paused = true)]
async fn who_is_in_a_followed_room_is_told_and_asked_for_again_when_a_change_is_missing() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let room = room();
    let follow = SubscribeOptions { presence: true, ..SubscribeOptions::default() };
    tokio::join!(client.subscribe(&room, follow), peer.grant(at(0), &[])).0.unwrap();
    joined(&mut events).await;
    caught_up(&mut events, 0).await;
    let list = |command: &serde_json::Value, seq: u64| {
        json!({"type": "presence", "id": command["id"], "room": "public:r0", "seq": seq, "total": 1,
            "members": [{"user_id": "ann", "data": null, "connections": 1}], "timestamp": "t"})
    };
    let change = |seq: u64| {
        json!({"type": "presence_event", "room": "public:r0", "seq": seq, "total": 2,
            "event": "join", "user_id": "bob", "data": null, "timestamp": "t"})
    };
    let asked = peer.hear().await;
    peer.say(&list(&asked, 5)).await;
    for seq in [5, 6, 8] {
        peer.say(&change(seq)).await;
    }
    assert!(matches!(next(&mut events).await, Event::Members(list) if list.seq == 5));
    for seq in [6, 8] {
        assert!(matches!(next(&mut events).await, Event::Presence(change) if change.seq == seq));
    }
    let asked = peer.hear().await;
    assert_eq!(asked["type"], "presence");
    peer.say(&list(&asked, 8)).await;
    assert!(matches!(next(&mut events).await, Event::Members(list) if list.seq == 8));
}

/// One round trip, behind which everything said before has been heard.
async fn pong(client: &Client, peer: &mut Peer) {
    let (pong, ()) = tokio::join!(client.ping(), async {
        let command = peer.hear().await;
        peer.say(&json!({"type": "pong", "id": command["id"], "timestamp": "t"})).await;
    });
    pong.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_one_json_value_is_not_sent() {
    let mut server = Server::new();
    let (client, _events, _peer) = server.client(options()).await;
    for data in ["", "hello", r#"1,"echo":false"#, "{} {}", r#"{"a":1"#] {
        let refused = client.publish(&room(), data, PublishOptions::default()).await;
        assert!(matches!(refused, Err(RequestError::InvalidJson(_))), "{data}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_outbox_has_a_bound() {
    let mut server = Server::new();
    let options = Options { outbox_max: 1, outbox_bytes_max: 1000, ..options() };
    let (client, _events, mut peer) = server.client(options).await;
    let room = room();
    let large = format!("\"{}\"", "x".repeat(1000));
    let refused = client.publish(&room, &large, PublishOptions::default()).await;
    assert!(matches!(refused, Err(RequestError::OutboxFull)));
    let (first, second, ()) = tokio::join!(
        client.publish(&room, "1", PublishOptions::default()),
        client.publish(&room, "2", PublishOptions::default()),
        async {
            let command = peer.hear().await;
            peer.say(&ack(&command, 1, false)).await;
        }
    );
    first.unwrap();
    assert!(matches!(second, Err(RequestError::OutboxFull)));
}

#[tokio::test(start_paused = true)]
async fn the_token_goes_into_the_header_and_the_label_into_the_query() {
    let mut server = Server::new();
    let label = ClientId::parse("tab-1").unwrap();
    let token = Some(Token::new("secret"));
    let options = Options { token, client_id: Some(label), ..options() };
    let (_client, _events, peer) = server.client(options).await;
    assert_eq!(peer.uri, "/ws/v2/connect?client_id=tab-1");
    assert_eq!(peer.authorization.as_deref(), Some("Bearer secret"));
}

#[tokio::test(start_paused = true)]
async fn a_token_in_the_connect_frame_waits_for_the_hello_that_answers_it() {
    let mut server = Server::new();
    let token = Some(Token::new("secret"));
    let options = Options { token, token_in: TokenPlace::ConnectFrame, ..options() };
    let (connected, mut peer) = server
        .connect(options, async |server: &mut Server| {
            let mut peer = server.accept().await;
            assert_eq!(peer.authorization, None);
            peer.say(&hello(None)).await;
            let command = peer.hear().await;
            assert_eq!(
                (&command["type"], &command["token"]),
                (&json!("connect"), &json!("secret"))
            );
            let mut answer = hello(command["id"].as_u64());
            answer["user_id"] = "ann".into();
            peer.say(&answer).await;
            peer
        })
        .await;
    let (client, mut events) = connected.unwrap();
    let Event::Connected(hello) = next(&mut events).await else { panic!() };
    assert_eq!(hello.user_id.as_deref(), Some("ann"));
    let ((), code) = tokio::join!(client.close(), peer.hear_close());
    assert_eq!(code, Some(1000));
}

#[tokio::test(start_paused = true)]
async fn closing_says_goodbye_ends_the_events_and_leaves_nobody_waiting() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let other = client.clone();
    let asking = tokio::spawn(async move { other.status().await });
    assert_eq!(peer.hear().await["type"], "status");
    let ((), code) = tokio::join!(client.close(), peer.hear_close());
    assert_eq!(code, Some(1000));
    assert!(matches!(asking.await.unwrap(), Err(RequestError::Closed)));
    assert!(matches!(next(&mut events).await, Event::Closed { code: 1000, .. }));
    assert!(soon(events.next()).await.is_none());
    assert!(matches!(client.ping().await, Err(RequestError::Closed)));
    client.close().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_client_closes_the_connection() {
    let mut server = Server::new();
    let (client, _events, mut peer) = server.client(options()).await;
    drop(client.clone());
    drop(client);
    assert_eq!(peer.hear_close().await, Some(1000));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_dropped_while_it_connects_leaves_nothing_behind() {
    let mut server = Server::new();
    let connecting = tokio::spawn(Client::connect_over(options(), server.dial()));
    let mut peer = server.accept().await;
    connecting.abort();
    assert_eq!(peer.hear_close().await, Some(1000));
}

#[tokio::test(start_paused = true)]
async fn a_message_in_a_room_that_was_left_is_not_told() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let room: RoomId = room();
    let join = client.subscribe(&room, SubscribeOptions::default());
    tokio::join!(join, peer.grant(at(0), &[])).0.unwrap();
    joined(&mut events).await;
    caught_up(&mut events, 0).await;
    let (left, ()) = tokio::join!(client.unsubscribe(&room), async {
        let command = peer.hear().await;
        peer.say(&message(1)).await;
        peer.say(&json!({"type": "unsubscribed", "id": command["id"], "room": "public:r0",
            "code": null, "reason": null, "timestamp": "t"}))
            .await;
    });
    left.unwrap();
    assert_eq!(events.try_next(), None);
}

/// An anonymous publisher's message ids belong to its label: under another one a repeat would be another message.
#[tokio::test(start_paused = true)]
async fn an_anonymous_client_has_one_label_on_all_its_connections_and_another_than_others() {
    let label = |peer: &Peer| peer.uri.split_once("client_id=").map(|(_, label)| label.to_owned());
    let mut server = Server::new();
    let (_first, _events, peer) = server.client(Options::new("ws://test:1")).await;
    let before = label(&peer);
    assert_eq!(before.as_ref().map(String::len), Some(32));
    peer.cut().await;
    assert_eq!(label(&server.greet().await), before);
    let (_second, _events, peer) = server.client(Options::new("ws://test:1")).await;
    assert_ne!(label(&peer), before);
    let known = Options { token: Some(Token::new("t")), ..Options::new("ws://test:1") };
    let (_third, _events, peer) = server.client(known).await;
    assert_eq!(label(&peer), None, "whoever has a token is named by it");
}

/// A server that does not read must not keep the application from leaving.
#[tokio::test(start_paused = true)]
async fn a_client_closes_while_nothing_that_it_says_is_read() {
    let mut server = Server::new();
    let (client, _events, _peer) = server.client(options()).await;
    for _ in 0..300 {
        let client = client.clone();
        tokio::spawn(async move { client.publish(&room(), "1", PublishOptions::default()).await });
    }
    tokio::task::yield_now().await;
    let begun = Instant::now();
    soon(client.close()).await;
    assert!(begun.elapsed() <= Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn events_are_a_stream_that_ends_with_the_client() {
    use futures_util::StreamExt;
    let mut server = Server::new();
    let (client, events, mut peer) = server.client(options()).await;
    peer.say(&json!({"type": "of_the_host", "timestamp": "t"})).await;
    let others = events.filter_map(|event| async move {
        match event {
            Event::Other { kind, .. } => Some(kind),
            _ => None,
        }
    });
    let mut others = std::pin::pin!(others);
    assert_eq!(others.next().await.as_deref(), Some("of_the_host"));
    client.close().await;
    assert_eq!(others.next().await, None);
}
