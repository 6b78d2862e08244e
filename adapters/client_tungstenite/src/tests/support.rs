//! The fake server.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use crate::dial::{BoxFuture, Dial, Wire};
use crate::{Client, ConnectError, Event, Events, Options, RandomSource};
use domain::id::Epoch;
use domain::position::{Offset, Position};
use domain::room::RoomId;

pub(super) const EPOCH: u64 = 10;
const PIPE_BYTES: usize = 4096;

pub(super) fn room() -> RoomId {
    RoomId::parse("public:r0").unwrap()
}

pub(super) fn at(offset: u64) -> Position {
    Position { epoch: Epoch::from_bits(EPOCH), offset: Offset::parse(offset).unwrap() }
}

/// Options whose backoff waits as long as it may.
pub(super) fn options() -> Options {
    Options { random: RandomSource::new(|| u64::MAX), ..Options::new("ws://test:1") }
}

/// Waits for what must happen. Where time is virtual the limit costs nothing.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(600), future).await.expect("it never happened")
}

/// Hands the other end of every connection to the test.
struct PipeDial {
    accepted: mpsc::UnboundedSender<DuplexStream>,
    refusals: Arc<Mutex<VecDeque<io::ErrorKind>>>,
}

impl Dial for PipeDial {
    fn dial(&self, _: &str, _: u16) -> BoxFuture<io::Result<Box<dyn Wire>>> {
        let refused = self.refusals.lock().unwrap().pop_front();
        let accepted = self.accepted.clone();
        Box::pin(async move {
            if let Some(kind) = refused {
                return Err(kind.into());
            }
            let (ours, theirs) = duplex(PIPE_BYTES);
            accepted.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(ours) as Box<dyn Wire>)
        })
    }
}

/// Where clients connect to.
pub(super) struct Server {
    accepted: mpsc::UnboundedReceiver<DuplexStream>,
    refusals: Arc<Mutex<VecDeque<io::ErrorKind>>>,
    dial: Arc<dyn Dial>,
}

impl Server {
    pub(super) fn new() -> Self {
        let (sender, accepted) = mpsc::unbounded_channel();
        let refusals = Arc::new(Mutex::new(VecDeque::new()));
        let dial = Arc::new(PipeDial { accepted: sender, refusals: Arc::clone(&refusals) });
        Self { accepted, refusals, dial }
    }

    /// The way to this server.
    pub(super) fn dial(&self) -> Arc<dyn Dial> {
        Arc::clone(&self.dial)
    }

    /// Connects a client and greets it.
    pub(super) async fn client(&mut self, options: Options) -> (Client, Events, Peer) {
        let dial = self.dial();
        let (connected, peer) =
            soon(async { tokio::join!(Client::connect_over(options, dial), self.greet()) }).await;
        let (client, mut events) = connected.unwrap();
        assert!(matches!(next(&mut events).await, Event::Connected(_)));
        (client, events, peer)
    }

    /// Connects a client while the server does what the test says.
    pub(super) async fn connect<T>(
        &mut self,
        options: Options,
        serve: impl AsyncFnOnce(&mut Self) -> T,
    ) -> (Result<(Client, Events), ConnectError>, T) {
        let dial = self.dial();
        soon(async { tokio::join!(Client::connect_over(options, dial), serve(self)) }).await
    }

    /// Takes the next connection.
    pub(super) async fn accept(&mut self) -> Peer {
        let stream = self.accept_raw().await;
        let mut head = None;
        #[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
        let keep = |request: &tokio_tungstenite::tungstenite::handshake::server::Request,
                    answer| {
            head = Some((request.uri().to_string(), request.headers().clone()));
            Ok(answer)
        };
        let socket = soon(accept_hdr_async(stream, keep)).await.unwrap();
        let (uri, headers) = head.unwrap();
        let authorization =
            headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        Peer { socket, uri, authorization }
    }

    /// Takes the next connection before its upgrade.
    pub(super) async fn accept_raw(&mut self) -> DuplexStream {
        soon(self.accepted.recv()).await.unwrap()
    }

    /// Takes the next connection and says `hello`.
    pub(super) async fn greet(&mut self) -> Peer {
        self.greet_with(&hello(None)).await
    }

    /// Takes the next connection and says this `hello`.
    pub(super) async fn greet_with(&mut self, hello: &Value) -> Peer {
        let mut peer = self.accept().await;
        peer.say(hello).await;
        peer
    }

    /// Whether a connection waits to be taken.
    pub(super) fn is_asked(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// Refuses the next connections.
    pub(super) fn refuse(&self, n: usize) {
        let mut refusals = self.refusals.lock().unwrap();
        refusals.extend(std::iter::repeat_n(io::ErrorKind::ConnectionRefused, n));
    }
}

/// The server's end of one connection.
pub(super) struct Peer {
    socket: WebSocketStream<DuplexStream>,
    pub(super) uri: String,
    pub(super) authorization: Option<String>,
}

impl Peer {
    pub(super) async fn say(&mut self, frame: &Value) {
        self.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub(super) async fn send(&mut self, message: Message) -> Result<(), Error> {
        soon(self.socket.send(message)).await
    }

    /// The next frame of the client.
    pub(super) async fn hear(&mut self) -> Value {
        match soon(self.socket.next()).await.unwrap().unwrap() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The next frame of the client; none when it goes.
    pub(super) async fn hear_or_end(&mut self) -> Option<Value> {
        match soon(self.socket.next()).await {
            Some(Ok(Message::Text(text))) => Some(serde_json::from_str(&text).unwrap()),
            _ => None,
        }
    }

    /// The code with which the client closes.
    pub(super) async fn hear_close(&mut self) -> Option<u16> {
        match soon(self.socket.next()).await {
            Some(Ok(Message::Close(frame))) => frame.map(|frame| frame.code.into()),
            other => panic!("{other:?}"),
        }
    }

    /// Takes a `subscribe` and grants it. Answers the command.
    pub(super) async fn grant(&mut self, position: Position, messages: &[Value]) -> Value {
        let command = self.hear().await;
        assert_eq!(command["type"], "subscribe");
        self.say(&subscribed(&command, position, messages, false)).await;
        command
    }

    pub(super) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "test".into() };
        soon(self.socket.close(Some(frame))).await.unwrap();
        soon(async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
    }

    /// Ends the connection without a word.
    pub(super) async fn cut(self) {
        self.socket.into_inner().shutdown().await.unwrap();
    }

    pub(super) async fn write_raw(&mut self, bytes: &[u8]) {
        soon(self.socket.get_mut().write_all(bytes)).await.unwrap();
    }
}

const NOW: &str = "2026-01-01T00:00:00.000Z";

fn epoch(position: Position) -> String {
    position.epoch.to_string()
}

pub(super) fn hello(id: Option<u64>) -> Value {
    json!({"type": "hello", "id": id, "accepted_version": 2, "features": ["recovery"],
        "request_id": "q", "client_id": "c", "connection_id": "00000000000000aa",
        "user_id": null, "heartbeat_interval_ms": 25_000, "timestamp": NOW})
}

pub(super) fn subscribed(
    command: &Value,
    position: Position,
    messages: &[Value],
    more: bool,
) -> Value {
    json!({"type": "subscribed", "id": command["id"], "room": "public:r0",
        "epoch": epoch(position), "offset": position.offset.get(), "recovered": true,
        "messages": messages, "more": more, "timestamp": NOW})
}

pub(super) fn page(position: Position, messages: &[Value], more: bool) -> Value {
    json!({"type": "page", "room": "public:r0", "epoch": epoch(position),
        "offset": position.offset.get(), "messages": messages, "more": more, "timestamp": NOW})
}

pub(super) fn message(offset: u64) -> Value {
    json!({"type": "message", "room": "public:r0", "epoch": epoch(at(0)), "offset": offset,
        "sender": {"user_id": null, "connection_id": null}, "data": {"n": offset},
        "timestamp": NOW})
}

pub(super) fn gap(epoch: u64, from: u64, to: u64, reason: &str) -> Value {
    json!({"type": "gap", "room": "public:r0", "epoch": format!("{epoch:016x}"), "from": from,
        "to": to, "reason": reason, "timestamp": NOW})
}

pub(super) fn ack(command: &Value, offset: u64, duplicate: bool) -> Value {
    json!({"type": "ack", "id": command["id"], "room": "public:r0", "epoch": epoch(at(0)),
        "offset": offset, "duplicate": duplicate, "level": "accepted", "timestamp": NOW})
}

pub(super) fn error(command: &Value, code: u16, word: &str, retry_after_ms: Option<u64>) -> Value {
    json!({"type": "error", "id": command["id"], "code": code, "error": word, "message": "no",
        "field": null, "retry_after_ms": retry_after_ms, "timestamp": NOW})
}

pub(super) fn disconnect(code: u16, reconnect_after_ms: Option<u64>) -> Value {
    json!({"type": "disconnect", "code": code, "reason": "test", "reconnect": true,
        "reconnect_after_ms": reconnect_after_ms, "timestamp": NOW})
}

pub(super) async fn next(events: &mut Events) -> Event {
    soon(events.next()).await.expect("the client has closed")
}

/// The offsets of the next `n` events, which have to be messages.
pub(super) async fn offsets(events: &mut Events, n: usize) -> Vec<u64> {
    let mut found = Vec::new();
    for _ in 0..n {
        match next(events).await {
            Event::Message(message) => found.push(message.offset.unwrap().get()),
            other => panic!("{other:?}"),
        }
    }
    found
}

/// Takes the events that tell of a join.
pub(super) async fn joined(events: &mut Events) {
    assert!(matches!(next(events).await, Event::Subscribed(_)));
}

pub(super) async fn caught_up(events: &mut Events, offset: u64) {
    match next(events).await {
        Event::CaughtUp { position, .. } => assert_eq!(position, at(offset)),
        other => panic!("{other:?}"),
    }
}
