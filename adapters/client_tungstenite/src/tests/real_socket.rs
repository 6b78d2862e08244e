//! The same client over TCP, in real time. Nothing here waits for time to pass.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::support::*;
use crate::*;

#[tokio::test]
async fn a_client_talks_to_a_server_over_tcp_and_comes_back_after_a_loss() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let mut since = Vec::new();
        for round in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = accept_async(stream).await.unwrap();
            socket.send(Frame::text(hello(None).to_string())).await.unwrap();
            let text = socket.next().await.unwrap().unwrap().into_text().unwrap();
            let command: Value = serde_json::from_str(&text).unwrap();
            since.push(command["since"].clone());
            // Several frames in one message.
            let answer = subscribed(&command, at(round), &[], false);
            let text = format!("{answer}\n{}\n", message(round + 1));
            socket.send(Frame::text(text)).await.unwrap();
            if round == 1 {
                while let Some(Ok(_)) = socket.next().await {}
            }
        }
        since
    });
    let options = Options { random: RandomSource::new(|| 0), ..Options::new(url) };
    let (client, mut events) = Client::connect(options).await.unwrap();
    client.subscribe(&room(), SubscribeOptions::default()).await.unwrap();
    let mut offsets = Vec::new();
    while offsets.len() < 2 {
        if let Event::Message(message) = next(&mut events).await {
            offsets.push(message.offset.unwrap().get());
        }
    }
    client.close().await;
    assert_eq!(offsets, [1, 2]);
    assert_eq!(soon(serving).await.unwrap()[1]["offset"], 1);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_recognised() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = Client::connect(Options::new(format!("ws://{address}"))).await.unwrap_err();
    assert!(refused.is_refused(), "{refused:?}");
    assert_eq!(refused.to_string(), format!("no connection to {address}"));
}
