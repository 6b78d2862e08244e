//! Coming back with a ticket and all rooms at once, and to servers that know nothing of it.

use serde_json::{Value, json};

use super::support::*;
use crate::*;
use domain::filter::{Condition, Filter};
use domain::room::RoomId;

/// A greeting of a server that brings rooms back.
fn greeting(id: Option<u64>, session: &str, resumed: &[Value]) -> Value {
    let mut hello = hello(id);
    hello["features"] = json!(["recovery", "resume"]);
    hello["session"] = json!(session);
    hello["resumed"] = json!(resumed);
    hello
}

fn back(room: &str, offset: u64, messages: &[Value], more: bool) -> Value {
    json!({"room": room, "epoch": "000000000000000a", "offset": offset, "recovered": true,
        "gap": null, "messages": messages, "more": more})
}

fn with_token() -> Options {
    Options { token: Some(Token::new("jwt")), token_in: TokenPlace::ConnectFrame, ..options() }
}

/// A client that is in one room at an offset, and the server's end.
async fn in_one_room(
    server: &mut Server,
    options: Options,
    session: &str,
    offset: u64,
) -> (Client, Events, Peer) {
    let has_connect = options.token.is_some() && options.token_in == TokenPlace::ConnectFrame;
    let (connected, peer) = server
        .connect(options, async |server: &mut Server| {
            let mut peer = server.accept().await;
            let id = if has_connect { peer.hear().await["id"].as_u64() } else { None };
            peer.say(&greeting(id, session, &[])).await;
            peer
        })
        .await;
    let (client, mut events) = connected.unwrap();
    let mut peer = peer;
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    let room = room();
    let join =
        client.subscribe(&room, SubscribeOptions { presence: true, ..SubscribeOptions::default() });
    tokio::join!(join, peer.grant(at(offset), &[])).0.unwrap();
    joined(&mut events).await;
    caught_up(&mut events, offset).await;
    assert_eq!(peer.hear().await["type"], "presence");
    (client, events, peer)
}

async fn lost(events: &mut Events) {
    assert!(matches!(next(events).await, Event::Disconnected { .. }));
}

async fn connected(events: &mut Events) {
    assert!(matches!(next(events).await, Event::Connected(_)));
}

#[tokio::test(start_paused = true)]
async fn a_client_comes_back_with_its_ticket_and_its_rooms_in_one_frame() {
    let mut server = Server::new();
    let (client, mut events, peer) = in_one_room(&mut server, with_token(), "first", 3).await;
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.accept().await;
    let connect = peer.hear().await;
    assert_eq!(connect["session"], "first");
    assert_eq!(connect["token"], "jwt", "should the ticket not count");
    let expected = json!([{"room": "public:r0", "epoch": "000000000000000a", "offset": 3,
        "presence": true}]);
    assert_eq!(connect["resume"], expected);
    let entry = back("public:r0", 5, &[message(4), message(5)], true);
    peer.say(&greeting(connect["id"].as_u64(), "second", &[entry])).await;
    peer.say(&page(at(6), &[message(6)], false)).await;
    peer.say(&message(7)).await;
    connected(&mut events).await;
    joined(&mut events).await;
    assert_eq!(offsets(&mut events, 3).await, [4, 5, 6]);
    caught_up(&mut events, 6).await;
    assert_eq!(offsets(&mut events, 1).await, [7]);
    // No subscribe was sent; the next frame is what the application asks for, and the next time
    // the newer ticket comes.
    let pinged = tokio::spawn(async move { (client.ping().await.is_ok(), client) });
    assert_eq!(peer.hear().await["type"], "presence");
    let ping = peer.hear().await;
    assert_eq!(ping["type"], "ping");
    peer.say(&json!({"type": "pong", "id": ping["id"], "timestamp": "t"})).await;
    let (was_answered, _client) = pinged.await.unwrap();
    assert!(was_answered);
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.accept().await;
    let connect = peer.hear().await;
    assert_eq!(
        (&connect["session"], &connect["resume"][0]["offset"]),
        (&json!("second"), &json!(7))
    );
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_an_entry_is_told_before_its_messages() {
    let mut server = Server::new();
    let (_client, mut events, peer) = in_one_room(&mut server, options(), "s", 3).await;
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.greet_with(&greeting(None, "s", &[])).await;
    let connect = peer.hear().await;
    assert_eq!((&connect["token"], &connect["session"]), (&Value::Null, &Value::Null));
    let mut entry = back("public:r0", 9, &[message(9)], false);
    entry["gap"] = json!({"from": 4, "to": 8, "reason": "retention"});
    entry["recovered"] = json!(false);
    peer.say(&greeting(connect["id"].as_u64(), "s", &[entry])).await;
    connected(&mut events).await;
    let Event::Gap(gap) = next(&mut events).await else { panic!() };
    assert_eq!((gap.from, gap.to, gap.epoch), (at(4).offset, at(8).offset, at(0).epoch));
    joined(&mut events).await;
    assert_eq!(offsets(&mut events, 1).await, [9]);
    caught_up(&mut events, 9).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_room_is_left_or_asked_for_again_as_its_refusal_says() {
    for (code, word, comes_back) in [(103, "permission_denied", false), (114, "unavailable", true)]
    {
        let mut server = Server::new();
        let (_client, mut events, peer) = in_one_room(&mut server, options(), "s", 3).await;
        peer.cut().await;
        lost(&mut events).await;
        let mut peer = server.greet_with(&greeting(None, "s", &[])).await;
        let connect = peer.hear().await;
        let error = json!({"code": code, "error": word, "message": "no", "retry_after_ms": null});
        let entry = json!({"room": "public:r0", "error": error});
        peer.say(&greeting(connect["id"].as_u64(), "s", &[entry])).await;
        connected(&mut events).await;
        if comes_back {
            let command = peer.grant(at(4), &[message(4)]).await;
            assert_eq!(command["since"]["offset"], 3);
            joined(&mut events).await;
            assert_eq!(offsets(&mut events, 1).await, [4]);
        } else {
            let Event::Unsubscribed { code, .. } = next(&mut events).await else { panic!() };
            assert_eq!(code, Some(103));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_to_resume_is_asked_room_by_room() {
    for options in [options(), with_token()] {
        let has_token = options.token.is_some();
        let mut server = Server::new();
        let (_client, mut events, peer) = in_one_room(&mut server, options, "s", 3).await;
        peer.cut().await;
        lost(&mut events).await;
        // An earlier version took its place.
        let mut peer = server.accept().await;
        if !has_token {
            peer.say(&hello(None)).await;
        }
        let connect = peer.hear().await;
        peer.say(&error(&connect, 115, "not_available", None)).await;
        if has_token {
            let plain = peer.hear().await;
            assert_eq!((&plain["token"], &plain["session"]), (&json!("jwt"), &Value::Null));
            assert!(plain["resume"].is_null());
            peer.say(&hello(plain["id"].as_u64())).await;
        }
        let command = peer.grant(at(4), &[message(4)]).await;
        assert_eq!(command["since"]["offset"], 3);
        connected(&mut events).await;
        joined(&mut events).await;
        assert_eq!(offsets(&mut events, 1).await, [4]);
        caught_up(&mut events, 4).await;
        // And not bothered again.
        peer.cut().await;
        lost(&mut events).await;
        let mut peer = server.accept().await;
        if has_token {
            let plain = peer.hear().await;
            assert!(plain["resume"].is_null() && plain["session"].is_null());
            peer.say(&hello(plain["id"].as_u64())).await;
        } else {
            peer.say(&hello(None)).await;
        }
        peer.grant(at(4), &[]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_that_the_server_passes_over_is_asked_for() {
    let mut server = Server::new();
    let (_client, mut events, peer) = in_one_room(&mut server, options(), "s", 3).await;
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.greet_with(&greeting(None, "s", &[])).await;
    let connect = peer.hear().await;
    peer.say(&greeting(connect["id"].as_u64(), "s", &[back("public:other", 1, &[], false)])).await;
    let command = peer.grant(at(3), &[]).await;
    assert_eq!(command["since"]["offset"], 3);
    connected(&mut events).await;
    assert!(matches!(next(&mut events).await, Event::Violation(Violation::NotSubscribed { .. })));
    joined(&mut events).await;
}

#[tokio::test(start_paused = true)]
async fn more_rooms_than_one_frame_may_name_are_joined_one_by_one() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = in_one_room(&mut server, options(), "s", 3).await;
    for n in 0..130 {
        let name = RoomId::parse(&format!("public:x{n:03}")).unwrap();
        let join = client.subscribe(
            &name,
            SubscribeOptions { since: Some(at(1)), ..SubscribeOptions::default() },
        );
        let grant = async {
            let command = peer.hear().await;
            let mut granted = subscribed(&command, at(1), &[], false);
            granted["room"] = command["room"].clone();
            peer.say(&granted).await;
        };
        tokio::join!(join, grant).0.unwrap();
        joined(&mut events).await;
        caught_up(&mut events, 1).await;
    }
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.greet_with(&greeting(None, "s", &[])).await;
    let connect = peer.hear().await;
    let named = connect["resume"].as_array().unwrap();
    assert_eq!(named.len(), 128);
    let entries: Vec<_> = named
        .iter()
        .map(|entry| {
            back(entry["room"].as_str().unwrap(), entry["offset"].as_u64().unwrap(), &[], false)
        })
        .collect();
    peer.say(&greeting(connect["id"].as_u64(), "s", &entries)).await;
    for rest in ["public:x127", "public:x128", "public:x129"] {
        assert_eq!(peer.hear().await["room"], rest);
    }
}

#[tokio::test(start_paused = true)]
async fn rooms_with_long_filters_do_not_make_connect_longer_than_servers_take() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = in_one_room(&mut server, options(), "s", 3).await;
    let values = (0..16).map(|n| format!("{n:02}{}", "v".repeat(60)).into()).collect();
    let filter = Filter::build(Condition::In { name: "k".into(), values }).unwrap();
    for n in 0..60 {
        let name = RoomId::parse(&format!("public:x{n:03}")).unwrap();
        let join = client.subscribe(
            &name,
            SubscribeOptions {
                since: Some(at(1)),
                filter: Some(filter.clone()),
                ..SubscribeOptions::default()
            },
        );
        let grant = async {
            let command = peer.hear().await;
            let mut granted = subscribed(&command, at(1), &[], false);
            granted["room"] = command["room"].clone();
            peer.say(&granted).await;
        };
        tokio::join!(join, grant).0.unwrap();
        joined(&mut events).await;
        caught_up(&mut events, 1).await;
    }
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.greet_with(&greeting(None, "s", &[])).await;
    let connect = peer.hear().await;
    let named = connect["resume"].as_array().unwrap();
    let bytes = connect.to_string().len();
    assert!((20..60).contains(&named.len()) && bytes < 33 * 1024, "{} {bytes}", named.len());
    let entries: Vec<_> =
        named.iter().map(|entry| back(entry["room"].as_str().unwrap(), 1, &[], false)).collect();
    peer.say(&greeting(connect["id"].as_u64(), "s", &entries)).await;
    // The others are asked for by themselves.
    for n in named.len()..61 {
        let command = peer.hear().await;
        assert_eq!(
            (&command["type"], command["since"].is_object()),
            (&json!("subscribe"), true),
            "{n}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_finds_connect_too_long_is_asked_room_by_room_the_next_time() {
    let mut server = Server::new();
    let (_client, mut events, peer) = in_one_room(&mut server, with_token(), "s", 3).await;
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.accept().await;
    assert_eq!(peer.hear().await["session"], "s");
    peer.close(1009).await;
    let Event::AttemptFailed { after, .. } = next(&mut events).await else { panic!() };
    assert!(after.is_some());
    let mut peer = server.accept().await;
    let plain = peer.hear().await;
    assert_eq!((&plain["token"], &plain["session"]), (&json!("jwt"), &Value::Null));
    assert!(plain["resume"].is_null());
    peer.say(&greeting(plain["id"].as_u64(), "t", &[])).await;
    assert_eq!(peer.grant(at(3), &[]).await["since"]["offset"], 3);
    // What is too long without rooms stays so.
    connected(&mut events).await;
    joined(&mut events).await;
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_not_kept_when_the_application_brings_another_token() {
    let mut server = Server::new();
    let (client, mut events, peer) = in_one_room(&mut server, with_token(), "anns", 3).await;
    client.set_token(Token::new("bobs")).await.unwrap();
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.accept().await;
    let connect = peer.hear().await;
    assert_eq!((&connect["token"], &connect["session"]), (&json!("bobs"), &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn no_event_shows_the_ticket() {
    let mut server = Server::new();
    let (_client, mut events, peer) = in_one_room(&mut server, with_token(), "secret-s", 3).await;
    peer.cut().await;
    lost(&mut events).await;
    let mut peer = server.accept().await;
    let connect = peer.hear().await;
    let entry = back("public:r0", 3, &[], false);
    peer.say(&greeting(connect["id"].as_u64(), "secret-t", &[entry])).await;
    for _ in 0..3 {
        let event = next(&mut events).await;
        let shown = format!("{event:?} {}", serde_json::to_string(&event).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
