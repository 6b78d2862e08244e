//! Every pair of messages in every state of a connection: not yet known, open, draining.
//!
//! A model of a page says what each must be answered with; the server may never say anything else.

use serde_json::{Value, json};
use tests::frame::{CLOSE, Frame};
use tests::raw::RawSocket;
use tests::token::{SECRET, claims, hs256};

use crate::arena::{Arena, CONNECT, new_room};

/// What a client may send at any time, right or wrong.
const MESSAGES: [&str; 16] = [
    "connect",
    "connect with a token",
    "connect with a bad token",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_update",
    "history",
    "refresh",
    "ping",
    "pong",
    "status",
    "unknown",
    "wrong field",
    "nonsense",
];

fn text(message: &str, room: &str) -> String {
    let value = match message {
        "connect with a token" => json!({"type": "connect", "id": 1, "token": token()}),
        "connect with a bad token" => json!({"type": "connect", "id": 1, "token": "a.b.c"}),
        "subscribe" | "unsubscribe" | "presence" | "history" => {
            json!({"type": message, "id": 1, "room": room})
        }
        "publish" | "presence_update" => {
            json!({"type": message, "id": 1, "room": room, "data": {"a": 1}})
        }
        "refresh" => json!({"type": "refresh", "id": 1, "token": token()}),
        "wrong field" => json!({"type": "status", "id": 1, "room": room}),
        "nonsense" => return "nonsense".to_owned(),
        other => json!({"type": other, "id": 1}),
    };
    value.to_string()
}

fn token() -> String {
    hs256(SECRET, &claims("ann", "public:*"))
}

/// The model: what the server knows of a connection.
#[derive(Clone, Copy)]
struct State {
    /// Whether anybody is let in without a token.
    anonymous: bool,
    greeted: bool,
    identified: bool,
    /// A token came with the upgrade: one `connect` may still bring rooms back.
    named: bool,
    user: bool,
    member: bool,
}

/// What comes back: a frame of this type, an error with this number, nothing, or a close.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Frame(&'static str),
    Error(u16),
    Nothing,
    Close(u16),
}

impl State {
    fn answer(&mut self, message: &str) -> Answer {
        use Answer::{Close, Error, Frame, Nothing};
        match message {
            "nonsense" => Error(100),
            "wrong field" => Error(102),
            "ping" => Frame("pong"),
            "pong" => Nothing,
            "connect" | "connect with a token" | "connect with a bad token" => {
                self.connect(message)
            }
            _ if !self.greeted => Error(111),
            "unknown" => Error(101),
            "status" => Frame("status"),
            "history" => Frame("history"),
            "presence" => Frame("presence"),
            "publish" => Frame("ack"),
            // Its token is of a user, and a connection's user never changes.
            "refresh" if !self.user => Close(3500),
            "refresh" => Frame("refreshed"),
            "subscribe" if self.member => Error(106),
            "subscribe" => {
                self.member = true;
                self.identified = true;
                self.named = false;
                Frame("subscribed")
            }
            _ if !self.member => Error(105),
            "unsubscribe" => {
                self.member = false;
                Frame("unsubscribed")
            }
            "presence_update" => Frame("presence_updated"),
            other => panic!("the model doesn't know {other}"),
        }
    }

    fn connect(&mut self, message: &str) -> Answer {
        if self.named && message == "connect" {
            self.named = false;
            return Answer::Frame("hello");
        }
        if self.identified || self.member {
            return Answer::Error(112);
        }
        self.identified = true;
        match message {
            "connect with a token" => self.user = true,
            "connect" if self.anonymous => {}
            _ => return Answer::Close(3500),
        }
        self.greeted = true;
        Answer::Frame("hello")
    }
}

/// The next answer; what others would see too is passed over.
fn next(socket: &mut RawSocket) -> Answer {
    loop {
        let value = socket.next_json();
        let kind = value["type"].as_str().unwrap_or_default();
        let number = |value: &Value| value["code"].as_u64().and_then(|n| u16::try_from(n).ok());
        return match kind {
            "message" | "presence_event" | "presence_events" => continue,
            "error" => Answer::Error(number(&value).unwrap_or_default()),
            "disconnect" => {
                let code = socket.read_close_code();
                assert_eq!(Some(code), number(&value), "the frame and the close agree");
                Answer::Close(code)
            }
            kind => {
                let known = ["hello", "pong", "status", "history", "presence", "ack", "refreshed"];
                let more = ["subscribed", "unsubscribed", "presence_updated"];
                let known = known.into_iter().chain(more).find(|known| *known == kind);
                Answer::Frame(known.unwrap_or_else(|| panic!("{value}")))
            }
        };
    }
}

#[track_caller]
fn walk(arena: &Arena, path: &str, start: State) {
    for first in MESSAGES {
        for second in MESSAGES {
            let room = new_room();
            let mut socket = arena.open(path);
            let mut state = start;
            if start.greeted {
                assert_eq!(next(&mut socket), Answer::Frame("hello"));
            }
            // All at one time, with a known end: a ping is answered in every state.
            for message in [first, second, "ping"] {
                socket.try_send(&Frame::text(&text(message, &room)).bytes());
            }
            for message in [first, second, "ping"] {
                let expected = state.answer(message);
                if expected == Answer::Nothing {
                    continue;
                }
                assert_eq!(next(&mut socket), expected, "{first}, then {second}: {message}");
                if let Answer::Close(_) = expected {
                    break;
                }
            }
        }
    }
}

/// J13. A09. A10.
#[test]
fn before_it_is_known_who_a_client_is_only_connect_is_carried_out() {
    let secret = format!("auth.hmac_secret={SECRET}");
    let arguments = ["--set", &secret, "--set", "auth.allow_anonymous=false"];
    let path = format!("{CONNECT}?token={}", hs256(SECRET, &claims("canary", "public:*")));
    let arena = Arena::own_with(&arguments, std::time::Duration::from_millis(20), &path);
    let start = State {
        anonymous: false,
        greeted: false,
        identified: false,
        named: false,
        user: false,
        member: false,
    };
    walk(&arena, CONNECT, start);
    arena.finish();
}

/// J13. A10.
#[test]
fn every_pair_of_messages_of_an_open_connection_has_its_answers() {
    let secret = format!("auth.hmac_secret={SECRET}");
    let arena = Arena::own(&["--set", &secret]);
    let anonymous = State {
        anonymous: true,
        greeted: true,
        identified: false,
        named: false,
        user: false,
        member: false,
    };
    walk(&arena, CONNECT, anonymous);
    let path = format!("{CONNECT}?token={}", token());
    walk(&arena, &path, State { identified: true, named: true, user: true, ..anonymous });
    arena.finish();
}

/// J13.
#[test]
fn every_pair_of_messages_behind_a_close_is_answered_by_the_close_alone() {
    let arena = Arena::shared(&[]);
    let room = new_room();
    for first in MESSAGES {
        for last in MESSAGES {
            let mut socket = arena.open(CONNECT);
            assert_eq!(next(&mut socket), Answer::Frame("hello"));
            let late = [first, last].map(|message| Frame::text(&text(message, &room)).bytes());
            socket.send(&[&Frame::close(1000, "").bytes()[..], &late.concat()].concat());
            let (opcode, payload) = socket.read_frame();
            assert_eq!(
                (opcode, &payload[..2]),
                (CLOSE, &1000_u16.to_be_bytes()[..]),
                "{first}, {last}"
            );
            socket.finish();
            assert!(socket.try_read_frame().is_none(), "{first}, {last}: a frame behind the close");
        }
    }
    let mut socket = arena.member(&room);
    socket.send_json(&json!({"type": "history", "id": 1, "room": room}));
    assert_eq!(socket.expect_json("history")["messages"], json!([]));
    socket.send_json(&json!({"type": "presence", "id": 1, "room": room}));
    assert_eq!(socket.expect_json("presence")["total"], 1);
    arena.finish();
}

/// J13.
#[test]
fn every_pair_of_messages_of_a_draining_connection_ends_in_a_restart() {
    let secret = format!("auth.hmac_secret={SECRET}");
    let mut server = tests::server::Server::start(&["--set", &secret]);
    let pairs = MESSAGES.iter().flat_map(|first| MESSAGES.iter().map(move |last| (*first, *last)));
    let mut sockets = pairs
        .map(|pair| {
            let mut socket = RawSocket::open(server.addr(), CONNECT);
            socket.expect_json("hello");
            (pair, socket)
        })
        .collect::<Vec<_>>();
    server.terminate();
    for ((first, last), socket) in &mut sockets {
        for message in [first, last] {
            let frame = Frame::text(&text(message, "public:drained"));
            socket.try_send(&frame.bytes());
        }
    }
    for (pair, socket) in &mut sockets {
        let (code, reason) = socket.read_close();
        // What came before the drain may have ended it already.
        let known = [1012, 3500].contains(&code);
        assert!(known, "{pair:?} ended with {code} {reason}");
        socket.finish();
    }
    let exit = server.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(!exit.stderr.contains("panic"), "{}", exit.stderr);
}
