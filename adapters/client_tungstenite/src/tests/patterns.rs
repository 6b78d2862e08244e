//! Patterns over the task and its channels. What is decided is shown by the vectors; here it is shown that it arrives.

use domain::principal::RoomPattern;
use serde_json::{Value, json};

use super::support::*;
use crate::*;

fn zones() -> RoomPattern {
    RoomPattern::parse("public:*").unwrap()
}

fn answer(kind: &str, command: &Value) -> Value {
    json!({"type": kind, "id": command["id"], "room": null, "pattern": "public:*", "epoch": null,
        "offset": null, "recovered": false, "messages": [], "more": false, "code": null,
        "reason": null, "timestamp": "t"})
}

fn brought(offset: u64) -> Value {
    let mut message = message(offset);
    message["pattern"] = json!("public:*");
    message
}

#[tokio::test(start_paused = true)]
async fn a_pattern_is_followed_until_it_is_ended_and_over_a_loss() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let following = Event::Following { pattern: zones() };
    let pattern = zones();
    let (followed, ()) = tokio::join!(client.subscribe_pattern(&pattern), async {
        let command = peer.hear().await;
        assert_eq!(
            (&command["type"], &command["pattern"]),
            (&json!("subscribe"), &json!("public:*"))
        );
        peer.say(&answer("subscribed", &command)).await;
    });
    followed.unwrap();
    assert_eq!(next(&mut events).await, following);
    peer.say(&brought(9)).await;
    let Event::Message(message) = next(&mut events).await else { panic!() };
    assert_eq!(message.pattern.as_deref(), Some("public:*"));
    let twice = client.subscribe_pattern(&pattern).await;
    assert!(matches!(twice, Err(RequestError::AlreadySubscribed)));
    peer.cut().await;
    assert!(matches!(next(&mut events).await, Event::Disconnected { .. }));
    let ended = Event::PatternEnded { pattern: zones(), code: None, reason: None };
    assert_eq!(next(&mut events).await, ended);
    let mut peer = server.greet().await;
    let command = peer.hear().await;
    peer.say(&answer("subscribed", &command)).await;
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    assert_eq!(next(&mut events).await, following);
    let (left, ()) = tokio::join!(client.unsubscribe_pattern(&pattern), async {
        let command = peer.hear().await;
        assert_eq!(command["type"], "unsubscribe");
        // Still on its way.
        peer.say(&brought(10)).await;
        peer.say(&answer("unsubscribed", &command)).await;
    });
    left.unwrap();
    client.close().await;
    assert!(matches!(next(&mut events).await, Event::Closed { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_pattern_that_is_refused_is_followed_neither_now_nor_later() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let pattern = zones();
    let (refused, ()) = tokio::join!(client.subscribe_pattern(&pattern), async {
        let command = peer.hear().await;
        peer.say(&error(&command, 103, "permission_denied", None)).await;
    });
    assert!(matches!(refused, Err(RequestError::Refused(Refusal { code: 103, .. }))));
    // What comes all the same is nothing that was asked for.
    peer.say(&brought(1)).await;
    let violation = Violation::NotSubscribed { room: room() };
    assert_eq!(next(&mut events).await, Event::Violation(violation));
    peer.cut().await;
    assert!(matches!(next(&mut events).await, Event::Disconnected { .. }));
    let mut peer = server.greet().await;
    assert!(matches!(next(&mut events).await, Event::Connected(_)));
    let (pinged, ()) = tokio::join!(client.ping(), async {
        let command = peer.hear().await;
        assert_eq!(command["type"], "ping");
        peer.say(&json!({"type": "pong", "id": command["id"], "timestamp": "t"})).await;
    });
    assert!(pinged.is_ok());
}
