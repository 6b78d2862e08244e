//! A client of protocol v2 over the raw socket: commands that are answered by id, everything else
//! in the order of its coming.
//!
//! It answers the server's `ping`, as every client has to, and nothing else by itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::frame;
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token;

/// Where protocol v2 is spoken.
pub(crate) const PATH: &str = "/ws/v2/connect";

/// How long something may take that has no answer of its own.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    pub(crate) socket: RawSocket,
    pub(crate) hello: Value,
    /// What came and was not looked at.
    incoming: VecDeque<Value>,
    /// What was passed over while an answer was looked for.
    passed: VecDeque<Value>,
    last_id: u64,
}

impl Client {
    /// Connects as nobody in particular.
    pub(crate) fn open(server: &Server) -> Self {
        Self::open_at(server.addr(), PATH)
    }

    /// Connects with a token of this user that allows everything in chats; the server must have
    /// been started with [`secret`].
    pub(crate) fn open_as(server: &Server, user: &str) -> Self {
        let token = token::hs256(token::SECRET, &token::claims(user, "chat:*"));
        Self::open_at(server.addr(), &format!("{PATH}?token={token}"))
    }

    pub(crate) fn open_at(addr: SocketAddr, path: &str) -> Self {
        Self::greeted(RawSocket::open(addr, path))
    }

    /// Takes over a socket that is upgraded and gets its `hello` now.
    pub(crate) fn greeted(socket: RawSocket) -> Self {
        let (incoming, passed) = (VecDeque::new(), VecDeque::new());
        let mut client = Self { socket, hello: Value::Null, incoming, passed, last_id: 0 };
        client.hello = client.expect("hello");
        client
    }

    pub(crate) fn send(&mut self, command: &Value) {
        self.socket.send_json(command);
    }

    /// Sends a command under an id of its own and gives the id.
    pub(crate) fn ask(&mut self, mut command: Value) -> u64 {
        self.last_id += 1;
        command["id"] = self.last_id.into();
        self.send(&command);
        self.last_id
    }

    /// The answer to the command with this id; what comes before it is kept for [`Self::next`].
    pub(crate) fn answer(&mut self, id: u64) -> Value {
        if let Some(at) = self.passed.iter().position(|value| value["id"] == id) {
            return self.passed.remove(at).unwrap();
        }
        loop {
            let value = self.read();
            if value["id"] == id {
                return value;
            }
            self.passed.push_back(value);
        }
    }

    /// Sends a command and gives its answer.
    pub(crate) fn call(&mut self, command: Value) -> Value {
        let id = self.ask(command);
        self.answer(id)
    }

    /// The same; the answer must be of this type.
    pub(crate) fn call_for(&mut self, kind: &str, command: Value) -> Value {
        let shown = command.to_string();
        let answer = self.call(command);
        assert_eq!(answer["type"], kind, "{answer} to {shown}");
        answer
    }

    pub(crate) fn subscribe(&mut self, room: &str) -> Value {
        self.call_for("subscribed", json!({"type": "subscribe", "room": room}))
    }

    /// Subscribes from behind a position that an earlier answer gave.
    pub(crate) fn subscribe_since(&mut self, room: &str, epoch: &Value, offset: u64) -> Value {
        let since = json!({"epoch": epoch, "offset": offset});
        let command = json!({"type": "subscribe", "room": room, "since": since});
        self.call_for("subscribed", command)
    }

    pub(crate) fn publish(&mut self, room: &str, data: impl Into<Value>) -> Value {
        let command = json!({"type": "publish", "room": room, "data": data.into()});
        self.call_for("ack", command)
    }

    /// The next value that is no answer to [`Self::call`].
    pub(crate) fn next(&mut self) -> Value {
        self.passed.pop_front().unwrap_or_else(|| self.read())
    }

    /// The next value of this type; others are passed over.
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        loop {
            let value = self.next();
            if value["type"] == kind {
                return value;
            }
            assert!(value["type"] != "error", "expected {kind}, got {value}");
        }
    }

    /// Waits for the server's next `ping` and answers it; whatever else comes is passed over.
    pub(crate) fn expect_ping(&mut self) {
        loop {
            let (opcode, payload) = self.socket.read_frame();
            assert_ne!(opcode, frame::CLOSE, "{payload:?}, {}", self.hello);
            if values_of(&payload).iter().any(|value| value["type"] == "ping") {
                return self.send(&json!({"type": "pong"}));
            }
        }
    }

    /// The next this many messages; nothing else may come between them.
    pub(crate) fn messages(&mut self, count: usize) -> Vec<Value> {
        let messages = (0..count).map(|_| self.next()).collect::<Vec<_>>();
        for message in &messages {
            assert_eq!(message["type"], "message", "{message}");
        }
        messages
    }

    /// The whole log of a room, page by page, checked to be without a hole.
    pub(crate) fn log(&mut self, room: &str, limit: u64) -> Vec<Value> {
        let mut all = Vec::<Value>::new();
        let mut since = Value::Null;
        loop {
            let mut command = json!({"type": "history", "room": room, "limit": limit});
            if !since.is_null() {
                command["since"] = since;
            }
            let page = self.call_for("history", command);
            let messages = page["messages"].as_array().unwrap();
            assert!(messages.len() as u64 <= limit, "a page of {}", messages.len());
            for message in messages {
                if let Some(before) = all.last() {
                    let follows =
                        message["offset"].as_u64() == before["offset"].as_u64().map(|n| n + 1);
                    assert!(follows, "{message} after {before}");
                }
                all.push(message.clone());
            }
            if page["more"] == false {
                return all;
            }
            assert!(!messages.is_empty(), "an empty page says that there is more: {page}");
            since = json!({"epoch": page["epoch"], "offset": page["offset"]});
        }
    }

    /// Reads to the close frame, answers it, and gives what came before and the close code.
    pub(crate) fn until_closed(&mut self) -> (Vec<Value>, u16) {
        let mut values = self.passed.drain(..).chain(self.incoming.drain(..)).collect::<Vec<_>>();
        loop {
            let (opcode, payload) = self.socket.read_frame();
            match opcode {
                frame::TEXT => values.extend(values_of(&payload)),
                frame::CLOSE => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    self.socket.try_send(&frame::Frame::close(code, "").bytes());
                    return (values, code);
                }
                _ => {}
            }
        }
    }

    fn read(&mut self) -> Value {
        loop {
            let Some(value) = self.incoming.pop_front() else {
                let (opcode, payload) = self.socket.read_frame();
                match opcode {
                    frame::TEXT => self.incoming.extend(values_of(&payload)),
                    frame::CLOSE => panic!("closed: {payload:?}, {}", self.hello),
                    _ => {}
                }
                continue;
            };
            if value["type"] != "ping" {
                return value;
            }
            self.send(&json!({"type": "pong"}));
        }
    }
}

/// The JSON values of one text.
pub(crate) fn values_of(text: &[u8]) -> Vec<Value> {
    let values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    values.map(|value| value.expect("the server sends JSON")).collect()
}

/// The setting that makes tokens of the tests good.
pub(crate) fn secret() -> String {
    format!("auth.hmac_secret={}", token::SECRET)
}

/// `data` of each.
pub(crate) fn data_of(messages: &[Value]) -> Vec<Value> {
    messages.iter().map(|message| message["data"].clone()).collect()
}

/// `offset` of each.
pub(crate) fn offsets_of(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["offset"].as_u64().expect("a positioned one")).collect()
}

/// Looks until there is something, for at most [`SOON`].
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
