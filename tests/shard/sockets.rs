//! What a host added goes wrong, over real sockets: a middleware or a handler that fails ends its
//! message, one that panics ends its connection, and neither ends anything of others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use application::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler};
use application::extensions::middleware::{Context, Inbound, Middleware, Who};
use application::node::Node;
use application::ports::{TokenError, TokenVerifier};
use application::refusal::Refusal;
use application::services::Ports;
use async_trait::async_trait;
use broker_memory::{MemoryBroker, MemoryRevocations};
use domain::codes::{CloseCode, ErrorCode};
use domain::id::UserId;
use domain::principal::Principal;
use domain::time::Wall;
use gateway_tungstenite::{Config, Gateway};
use serde_json::{Value, json};
use tests::raw::RawSocket;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use worker_tokio::{SystemClock, SystemEntropy};

use crate::host::open_rules;

const ROOM: &str = "public:a";

/// A token is the name of its user.
struct Names;

#[async_trait]
impl TokenVerifier for Names {
    async fn verify(&self, token: &str, _: Wall) -> Result<Principal, TokenError> {
        let user = Some(UserId::parse(token).map_err(|_| TokenError::Malformed)?);
        Ok(Principal { user, ..Principal::default() })
    }
}

/// Does what the body says: fails, or panics, here or there.
struct Breaks;

fn wants(body: &str, what: &str) -> bool {
    body.contains(&format!("\"{what}\""))
}

#[async_trait]
impl MessageHandler for Breaks {
    fn message_type(&self) -> &str {
        "break"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        assert!(!wants(body, "panic in validate"), "as it was asked to");
        Ok(())
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        assert!(!wants(message.text(), "panic in handle"), "as it was asked to");
        if wants(message.text(), "fail in handle") {
            return Err(Refusal::new(ErrorCode::InvalidField, "as it was asked to").field("what"));
        }
        Ok(Vec::new())
    }
}

/// The same, for connections by their user and for messages by their body.
struct Brittle;

fn user(who: &Who) -> &str {
    who.principal.user.as_ref().map_or("", UserId::as_str)
}

#[async_trait]
impl Middleware for Brittle {
    async fn process_connection(&self, who: &Who, _: &mut Context) -> Result<(), CloseCode> {
        assert_ne!(user(who), "panics-at-connection", "as it was asked to");
        if user(who) == "refused" { Err(CloseCode::Forbidden) } else { Ok(()) }
    }

    async fn process_message(
        &self,
        _: &Who,
        message: Inbound<'_>,
        _: &mut Context,
    ) -> Result<(), Refusal> {
        assert!(!wants(message.body, "panic in middleware"), "as it was asked to");
        if wants(message.body, "fail in middleware") {
            return Err(Refusal::new(ErrorCode::PermissionDenied, "as it was asked to"));
        }
        Ok(())
    }

    async fn process_disconnect(&self, who: &Who, _: CloseCode) {
        assert_ne!(user(who), "panics-at-disconnect", "as it was asked to");
    }
}

/// A host in this process: what ended it would end the test.
struct Running {
    _runtime: Runtime,
    _stop: watch::Sender<bool>,
    addr: SocketAddr,
}

impl Running {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (stop, stopped) = watch::channel(false);
        let addr = runtime.block_on(async {
            let clock = Arc::new(SystemClock::start());
            let entropy = Arc::new(SystemEntropy::default());
            let config = broker_memory::Config::default();
            let broker = MemoryBroker::build(config, entropy.clone(), None);
            let revocations = Arc::new(MemoryRevocations::new(Duration::from_secs(60)));
            let mut ports = Ports::new(broker, revocations, clock, entropy);
            ports.token_verifier = Arc::new(Names);
            let mut rules = open_rules();
            rules.middleware.push(Arc::new(Brittle));
            rules.handlers.register(Arc::new(Breaks)).unwrap();
            // One shard, so that whoever is there is beside what breaks.
            let node = Node::build(ports, rules, 1);
            let listen = "127.0.0.1:0".parse().unwrap();
            let gateway = Gateway::bind(listen, Config::default(), node).unwrap();
            let addr = gateway.local_addr().unwrap();
            tokio::spawn(gateway.serve(stopped, Duration::from_millis(1)));
            addr
        });
        Self { _runtime: runtime, _stop: stop, addr }
    }

    fn open(&self, user: &str) -> RawSocket {
        RawSocket::open(self.addr, &format!("/ws/v2/connect?token={user}"))
    }

    fn connect(&self, user: &str) -> RawSocket {
        let mut socket = self.open(user);
        socket.expect_json("hello");
        socket
    }
}

/// Somebody beside it who is in a room and must not notice anything.
struct Bystander(RawSocket, u64);

impl Bystander {
    fn come(running: &Running) -> Self {
        let mut socket = running.connect("bystander");
        socket.send_json(&json!({"type": "subscribe", "id": 1, "room": ROOM}));
        socket.expect_json("subscribed");
        Self(socket, 1)
    }

    /// Says something and hears it, on the connection that was there all the time.
    fn is_well(&mut self) {
        self.1 += 1;
        self.0.send_json(&json!({"type": "publish", "id": self.1, "room": ROOM, "data": self.1}));
        let mut seen = [self.0.next_json(), self.0.next_json()];
        seen.sort_by_key(|frame| frame["type"].as_str().unwrap_or_default().to_owned());
        assert_eq!((&seen[0]["type"], &seen[0]["id"]), (&json!("ack"), &json!(self.1)));
        assert_eq!((&seen[1]["type"], &seen[1]["data"]), (&json!("message"), &json!(self.1)));
    }
}

fn say(socket: &mut RawSocket, what: &str) -> Value {
    socket.send_json(&json!({"type": "break", "id": 7, "what": what}));
    socket.send_json(&json!({"type": "ping", "id": 8}));
    socket.next_json()
}

#[test]
fn a_middleware_or_a_handler_that_fails_ends_that_message_and_the_connection_goes_on() {
    let running = Running::start();
    let mut bystander = Bystander::come(&running);
    let mut ann = running.connect("ann");
    for (what, code) in [("fail in middleware", 103), ("fail in handle", 102)] {
        let error = say(&mut ann, what);
        assert_eq!((&error["code"], &error["id"]), (&json!(code), &json!(7)), "{error}");
        assert_eq!(ann.expect_json("pong")["id"], 8);
        bystander.is_well();
    }
    assert_eq!(running.open("refused").read_close_code(), 3501);
    bystander.is_well();
}

/// N10: in what a host adds, and only that connection is closed.
#[test]
fn a_middleware_or_a_handler_that_panics_ends_that_connection_and_never_the_process() {
    let running = Running::start();
    let mut bystander = Bystander::come(&running);
    for what in ["panic in middleware", "panic in validate", "panic in handle"] {
        let mut ann = running.connect("ann");
        let last = say(&mut ann, what);
        // Why is for the log: nothing of it is told.
        assert_eq!((&last["type"], &last["code"]), (&json!("disconnect"), &json!(1011)), "{what}");
        assert!(!last.to_string().contains("asked to"), "{last}");
        assert_eq!(ann.read_close_code(), 1011, "{what}");
        bystander.is_well();
    }
    assert_eq!(running.open("panics-at-connection").read_close_code(), 1011);
    bystander.is_well();
    drop(running.connect("panics-at-disconnect"));
    bystander.is_well();
    // And whoever comes next is as welcome as ever.
    let mut next = running.connect("ann");
    next.send_json(&json!({"type": "ping", "id": 1}));
    assert_eq!(next.expect_json("pong")["id"], 1);
}
