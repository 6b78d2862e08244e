//! The storm with the Rust client: a cable that keeps breaking, in the middle of frames too, and
//! in the end everybody holds every message of their room once and in order.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use client_tungstenite::{
    BackoffOptions, Client, Event, Options, PublishOptions, SubscribeOptions,
};
use domain::room::RoomId;
use tests::leaks::said;
use tests::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Barrier;
use tokio::time::timeout;

use crate::client::PATH;

const CLIENTS: usize = 40;
const ROOMS: usize = 4;
/// Of each client.
const SHARE: usize = 50;
/// What a room gets in all.
const TOTAL: usize = CLIENTS / ROOMS * SHARE;
/// One in five is behind the bad cable.
const ONE_IN: usize = 5;
const DEADLINE: Duration = Duration::from_secs(60);

/// Carries bytes to the server and cuts each connection after some ten thousands, a different
/// number every time.
async fn bad_cable(to: SocketAddr, listener: TcpListener) {
    for n in 0_usize.. {
        let Ok((near, _)) = listener.accept().await else { return };
        // Always enough for a page, or nobody would ever catch up.
        let bytes = 30_000 + n * 7_919 % 29_989;
        tokio::spawn(async move {
            if let Ok(far) = TcpStream::connect(to).await {
                drop(carry(near, far, bytes).await);
            }
        });
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, mut bytes: usize) -> io::Result<()> {
    let (mut up, mut down) = ([0; 512], [0; 512]);
    loop {
        tokio::select! {
            read = near.read(&mut up) => match read? {
                0 => return Ok(()),
                count => far.write_all(&up[..count]).await?,
            },
            read = far.read(&mut down) => match read? {
                0 => return Ok(()),
                count => {
                    near.write_all(&down[..count.min(bytes)]).await?;
                    if count >= bytes {
                        return Ok(());
                    }
                    bytes -= count;
                }
            },
        }
    }
}

/// What a client holds in the end, and how often it lost its connection.
async fn one(number: usize, url: String, ready: std::sync::Arc<Barrier>) -> (Vec<String>, usize) {
    let room = RoomId::parse(&format!("public:rust/{}", number % ROOMS)).unwrap();
    let backoff = BackoffOptions {
        base: Duration::from_millis(20),
        cap: Duration::from_millis(200),
        ..BackoffOptions::default()
    };
    let options = Options { backoff, ..Options::new(url) };
    let (client, mut events) = Client::connect(options).await.unwrap();
    let subscribed = client.subscribe(&room, SubscribeOptions::default()).await.unwrap();
    assert_eq!(subscribed.position.offset.get(), 0);
    ready.wait().await;
    let publisher = client.clone();
    let to = room.clone();
    let published = tokio::spawn(async move {
        let mut offsets = Vec::new();
        for n in 0..SHARE {
            let data = format!("\"said by {number}.{n}\"");
            let ack = publisher.publish(&to, said(&data), PublishOptions::default()).await.unwrap();
            offsets.push((data, ack.offset.expect("a place").get()));
        }
        offsets
    });
    let (mut held, mut losses) = (Vec::new(), 0);
    while held.len() < TOTAL {
        match events.next().await.expect("the client goes on") {
            Event::Message(message) => {
                assert_eq!(message.offset.expect("a place").get(), held.len() as u64 + 1);
                held.push(message.data);
            }
            Event::Disconnected { will_reconnect, .. } => {
                assert!(will_reconnect);
                losses += 1;
            }
            event @ (Event::Gap(_)
            | Event::Violation(_)
            | Event::Closed { .. }
            | Event::Unsubscribed { .. }
            | Event::Tombstone(_)) => panic!("client {number}: {event:?}"),
            _ => {}
        }
    }
    // Answers come over the same connection, so somebody has to go on reading.
    let reading = tokio::spawn(async move { while events.next().await.is_some() {} });
    for (data, offset) in published.await.unwrap() {
        assert_eq!(held[usize::try_from(offset).unwrap() - 1], data);
    }
    client.close().await;
    reading.await.unwrap();
    (held, losses)
}

#[test]
fn clients_of_rust_hold_every_message_over_a_cable_that_keeps_breaking() {
    let server = Server::start(&[]);
    let runtime = Runtime::new().unwrap();
    let results = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bad = format!("ws://{}{PATH}", listener.local_addr().unwrap());
        tokio::spawn(bad_cable(server.addr(), listener));
        let ready = std::sync::Arc::new(Barrier::new(CLIENTS));
        let clients = (0..CLIENTS).map(|number| {
            // Every room has some.
            let url =
                if (number / ROOMS).is_multiple_of(ONE_IN) { bad.clone() } else { server.ws(PATH) };
            tokio::spawn(one(number, url, ready.clone()))
        });
        let clients = clients.collect::<Vec<_>>();
        let mut results = Vec::new();
        for client in clients {
            results.push(timeout(DEADLINE, client).await.expect("all in time").unwrap());
        }
        results
    });
    for (number, (held, _)) in results.iter().enumerate() {
        assert_eq!(held, &results[number % ROOMS].0, "client {number} holds something else");
    }
    let losses = results.iter().map(|(_, losses)| losses).sum::<usize>();
    assert!(losses >= CLIENTS / ONE_IN, "the cable broke only {losses} times");
}
