//! Servers that mean harm, or are none.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message as Frame;

use super::support::*;
use crate::*;

async fn violation(events: &mut Events) -> Violation {
    match next(events).await {
        Event::Violation(violation) => violation,
        other => panic!("{other:?}"),
    }
}

/// The connection ended with that code, and there is another one.
async fn came_back(server: &mut Server, events: &mut Events, expected: u16) -> Peer {
    let Event::Disconnected { code, will_reconnect, .. } = next(events).await else { panic!() };
    assert_eq!((code, will_reconnect), (expected, true));
    let peer = server.greet().await;
    assert!(matches!(next(events).await, Event::Connected(_)));
    peer
}

async fn subscribed_client(server: &mut Server) -> (Client, Events, Peer) {
    let (client, mut events, mut peer) = server.client(options()).await;
    let room = room();
    let join = client.subscribe(&room, SubscribeOptions::default());
    tokio::join!(join, peer.grant(at(3), &[])).0.unwrap();
    joined(&mut events).await;
    caught_up(&mut events, 3).await;
    (client, events, peer)
}

#[tokio::test(start_paused = true)]
async fn an_offset_that_comes_twice_is_reported_and_not_handed_over() {
    let mut server = Server::new();
    let (_client, mut events, mut peer) = subscribed_client(&mut server).await;
    for offset in [4, 4, 2, 5] {
        peer.say(&message(offset)).await;
    }
    assert_eq!(offsets(&mut events, 1).await, [4]);
    for n in [4, 2] {
        let duplicate = Violation::Duplicate { room: room(), offset: at(n).offset };
        assert_eq!(violation(&mut events).await, duplicate);
    }
    assert_eq!(offsets(&mut events, 1).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn a_hole_without_a_gap_is_filled_by_coming_back_and_told_where_it_stays() {
    let mut server = Server::new();
    let (_client, mut events, mut peer) = subscribed_client(&mut server).await;
    let hole = Violation::Hole { room: room(), from: at(4).offset, to: at(6).offset };
    peer.say(&message(7)).await;
    assert_eq!(violation(&mut events).await, hole);
    assert!(matches!(next(&mut events).await, Event::Disconnected { code: 3003, .. }));
    // The next connection has nothing to fill it with, and goes on behind it all the same.
    let mut peer = server.greet().await;
    assert_eq!(peer.grant(at(3), &[]).await["since"]["offset"], 3);
    peer.say(&message(7)).await;
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    joined(&mut events).await;
    caught_up(&mut events, 3).await;
    assert_eq!(violation(&mut events).await, hole);
    let Event::Gap(gap) = next(&mut events).await else { panic!() };
    assert_eq!((gap.from.get(), gap.to.get(), gap.reason.as_str()), (4, 6, "missing"));
    assert_eq!(offsets(&mut events, 1).await, [7]);
}

#[tokio::test(start_paused = true)]
async fn texts_that_make_no_sense_are_reported_and_the_client_goes_on() {
    let mut server = Server::new();
    let (_client, mut events, mut peer) = subscribed_client(&mut server).await;
    let mut far = message(4);
    far["offset"] = json!(u64::MAX);
    let deep = "[".repeat(100_000);
    for text in
        ["}{", "", "[]", "null", r#"{"type":"message"}"#, r#"{"type":7}"#, &deep, &far.to_string()]
    {
        peer.send(Frame::text(text)).await.unwrap();
        if !text.is_empty() {
            let found = violation(&mut events).await;
            assert!(matches!(found, Violation::Malformed { .. }), "{text}: {found:?}");
        }
    }
    peer.send(Frame::binary(vec![0; 9])).await.unwrap();
    assert_eq!(violation(&mut events).await, Violation::Binary { bytes: 9 });
    peer.say(&json!({"type": "message_of_the_day", "text": "hi"})).await;
    assert!(matches!(next(&mut events).await, Event::Other { .. }));
    peer.say(&message(4)).await;
    assert_eq!(offsets(&mut events, 1).await, [4]);
}

#[tokio::test(start_paused = true)]
async fn messages_for_a_room_that_nobody_asked_for_are_not_handed_over() {
    let mut server = Server::new();
    let (_client, mut events, mut peer) = server.client(options()).await;
    peer.say(&message(1)).await;
    assert_eq!(violation(&mut events).await, Violation::NotSubscribed { room: room() });
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_a_room_that_the_client_is_in_without_asking_is_handed_over() {
    let mut server = Server::new();
    let mut hello = hello(None);
    hello["rooms"] = json!(["public:r0"]);
    let greet = async |server: &mut Server| server.greet_with(&hello).await;
    let (connected, mut peer) = server.connect(options(), greet).await;
    let (_client, mut events) = connected.unwrap();
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    peer.say(&message(1)).await;
    assert_eq!(offsets(&mut events, 1).await, [1]);
    let epoch = message(1)["epoch"].clone();
    peer.say(&json!({"type": "gap", "room": "public:r0", "epoch": epoch, "from": 2, "to": 4,
        "reason": "overflow", "timestamp": "t"}))
        .await;
    assert!(matches!(next(&mut events).await, Event::Gap(_)));
    peer.say(&message(5)).await;
    assert_eq!(offsets(&mut events, 1).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_another_question_ends_the_request_once() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let (wrong, ()) = tokio::join!(client.status(), async {
        let command = peer.hear().await;
        peer.say(&json!({"type": "pong", "id": command["id"], "timestamp": "t"})).await;
        peer.say(&ack(&command, 1, false)).await;
    });
    assert!(matches!(wrong, Err(RequestError::WrongAnswer)));
    assert!(matches!(violation(&mut events).await, Violation::Malformed { .. }));
}

/// K11: fragments without end are no message.
#[tokio::test(start_paused = true)]
async fn fragments_without_end_end_the_connection_at_its_limit() {
    let mut server = Server::new();
    let options = Options { message_bytes_max: 1000, ..options() };
    let (_client, mut events, mut peer) = server.client(options).await;
    let fragment = [&[0x00, 100][..], &[b'x'; 100]].concat();
    peer.write_raw(&[0x01, 1, b'x']).await;
    for _ in 0..10 {
        peer.write_raw(&fragment).await;
    }
    came_back(&mut server, &mut events, 1009).await;
}

/// K11: a message above the limit.
#[tokio::test(start_paused = true)]
async fn a_message_above_the_limit_ends_the_connection() {
    let mut server = Server::new();
    let options = Options { message_bytes_max: 1000, ..options() };
    let (_client, mut events, mut peer) = server.client(options).await;
    peer.send(Frame::text("x".repeat(1001))).await.unwrap();
    assert_eq!(peer.hear_close().await, Some(1009));
    came_back(&mut server, &mut events, 1009).await;
}

/// K11: a length of 2^62.
#[tokio::test(start_paused = true)]
async fn a_length_that_no_memory_holds_is_refused_before_anything_is_allocated() {
    let mut server = Server::new();
    let (_client, mut events, mut peer) = server.client(options()).await;
    peer.write_raw(&[0x81, 127, 0x40, 0, 0, 0, 0, 0, 0, 0]).await;
    assert!(matches!(next(&mut events).await, Event::Disconnected { code: 1009, .. }));
}

/// P15 and K10: what a client makes of a masked frame, and of others that are none.
#[tokio::test(start_paused = true)]
async fn frames_that_break_the_protocol_end_the_connection() {
    // Masked; with a reserved bit; a continuation of nothing; text that is not UTF-8.
    for (bytes, expected) in [
        (&[0x81, 0x81, 1, 2, 3, 4, 5][..], 1002),
        (&[0xc1, 0x01, b'x'], 1002),
        (&[0x80, 0x01, b'x'], 1002),
        (&[0x81, 0x01, 0xff], 1007),
    ] {
        let mut server = Server::new();
        let (_client, mut events, mut peer) = server.client(options()).await;
        peer.write_raw(bytes).await;
        assert_eq!(peer.hear_close().await, Some(expected), "{bytes:?}");
        came_back(&mut server, &mut events, expected).await;
    }
}

/// What breaks the protocol on a connection that has stood is some box's doing; each time anew it is the server's.
#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_the_protocol_on_five_connections_in_a_row_is_left() {
    let masked = [0x81, 0x81, 1, 2, 3, 4, 5];
    let mut server = Server::new();
    let (_client, mut events, mut peer) = server.client(options()).await;
    for stands in [0, 0, 0, 0, 20, 0, 0, 0, 0] {
        tokio::time::advance(Duration::from_secs(stands)).await;
        peer.write_raw(&masked).await;
        peer = came_back(&mut server, &mut events, 1002).await;
    }
    peer.write_raw(&masked).await;
    assert!(matches!(next(&mut events).await, Event::Disconnected { will_reconnect: false, .. }));
    assert!(matches!(next(&mut events).await, Event::Closed { code: 1002, .. }));
}

#[tokio::test(start_paused = true)]
async fn who_says_goodbye_and_then_breaks_the_protocol_is_taken_at_its_word() {
    for (code, comes_back) in [(1012, true), (3501, false)] {
        let mut server = Server::new();
        let (_client, mut events, mut peer) = server.client(options()).await;
        peer.say(&disconnect(code, None)).await;
        peer.write_raw(&[0x81, 0x81, 1, 2, 3, 4, 5]).await;
        let Event::Disconnected { code: told, will_reconnect, .. } = next(&mut events).await else {
            panic!()
        };
        assert_eq!((told, will_reconnect), (code, comes_back));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_without_a_code_is_the_end() {
    let mut server = Server::new();
    let (_client, mut events, mut peer) = server.client(options()).await;
    peer.send(Frame::Close(None)).await.unwrap();
    assert!(matches!(
        next(&mut events).await,
        Event::Disconnected { code: 1005, will_reconnect: false, .. }
    ));
    assert!(matches!(next(&mut events).await, Event::Closed { code: 1005, .. }));
}

#[tokio::test(start_paused = true)]
async fn absurd_intervals_are_held_to_what_makes_sense() {
    let mut server = Server::new();
    let (connected, mut peer) = server
        .connect(options(), async |server: &mut Server| {
            let mut peer = server.accept().await;
            let mut hello = hello(None);
            hello["heartbeat_interval_ms"] = json!(0);
            peer.say(&hello).await;
            peer
        })
        .await;
    let (_client, mut events) = connected.unwrap();
    let Event::Connected(hello) = next(&mut events).await else { panic!() };
    assert_eq!(hello.heartbeat_interval, Duration::from_secs(1));
    peer.say(&disconnect(1012, Some(u64::MAX))).await;
    peer.close(1012).await;
    let Event::Disconnected { after, .. } = next(&mut events).await else { panic!() };
    assert_eq!(after, Some(Duration::from_secs(3600)));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_says_hello_is_given_up() {
    let mut server = Server::new();
    let (connected, _peer) =
        server.connect(options(), async |s: &mut Server| s.accept().await).await;
    let Err(ConnectError::Ended { code: 1006, reason, .. }) = connected else { panic!() };
    assert_eq!(reason, "no hello came in time");
    let (connected, _stream) =
        server.connect(options(), async |s: &mut Server| s.accept_raw().await).await;
    assert!(matches!(connected, Err(ConnectError::TimedOut)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_before_hello_names_its_code() {
    let mut server = Server::new();
    let (connected, ()) = server
        .connect(options(), async |server: &mut Server| server.accept().await.close(3501).await)
        .await;
    let Err(error) = connected else { panic!() };
    assert!(!error.is_temporary());
    assert!(matches!(error, ConnectError::Ended { code: 3501, .. }));
}

#[tokio::test(start_paused = true)]
async fn what_answers_in_http_is_told_apart() {
    let answers: [(&[u8], u16, Option<u64>); 3] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, None),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 503, Some(7)),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403, None),
    ];
    for (answer, expected, seconds) in answers {
        let mut server = Server::new();
        let (connected, _stream) = server
            .connect(options(), async |server: &mut Server| {
                let mut stream = server.accept_raw().await;
                let mut request = [0; 4096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer).await.unwrap();
                stream
            })
            .await;
        let Err(error) = connected else { panic!() };
        assert!(matches!(error, ConnectError::Http { status, .. } if status == expected));
        assert_eq!(error.retry_after(), seconds.map(Duration::from_secs));
        assert_eq!(error.is_temporary(), expected != 403);
    }
}
