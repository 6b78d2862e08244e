//! Applications that act on the client from within what it tells them. It must never matter from where it is
//! asked.

use super::support::*;
use crate::*;

/// K06: publishing and closing from where events are handled; order is kept, and whoever else holds the client is
/// answered.
#[tokio::test(start_paused = true)]
async fn an_application_may_publish_and_close_while_it_handles_an_event() {
    let mut server = Server::new();
    let (client, mut events, mut peer) = server.client(options()).await;
    let room = room();
    let join = client.subscribe(&room, SubscribeOptions::default());
    tokio::join!(join, peer.grant(at(0), &[])).0.unwrap();
    joined(&mut events).await;
    caught_up(&mut events, 0).await;
    let other = client.clone();
    let waiting = tokio::spawn(async move { other.status().await });
    assert_eq!(peer.hear().await["type"], "status");
    let handling = async {
        let mut handled = Vec::new();
        while let Some(event) = events.next().await {
            let Event::Message(message) = event else { continue };
            let offset = message.offset.unwrap().get();
            handled.push(offset);
            if offset == 5 {
                client.close().await;
            } else {
                client.publish(&room, "1", PublishOptions::default()).await.unwrap();
            }
        }
        handled
    };
    let serving = async {
        peer.say(&message(1)).await;
        for offset in 2..=5 {
            let command = peer.hear().await;
            peer.say(&message(offset)).await;
            peer.say(&ack(&command, offset, false)).await;
        }
        peer.hear_close().await
    };
    let (handled, code) = tokio::join!(handling, serving);
    assert_eq!((handled, code), (vec![1, 2, 3, 4, 5], Some(1000)));
    assert!(matches!(waiting.await.unwrap(), Err(RequestError::Closed)));
}
