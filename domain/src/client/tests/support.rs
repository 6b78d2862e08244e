//! A client in virtual time, and what servers say, for the tests beside it. It must never decide what a test
//! expects.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::backoff::{Backoff, FullJitter};
use crate::client::life::{LifeConfig, Lost, Moment};
use crate::client::{
    Answer, Ask, Effect, Machine, PublishOptions, RequestError, Settings, SubscribeOptions, Token,
    TokenPlace,
};
use crate::id::MessageId;
use crate::protocol::client_event::Event;
use crate::room::RoomId;
use crate::time::Monotonic;

pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn settings() -> Settings {
    Settings {
        token: None,
        brings_tokens: false,
        token_in: TokenPlace::ConnectFrame,
        request_timeout: REQUEST_TIMEOUT,
        outbox_max: 1024,
        outbox_bytes_max: 1 << 20,
        life: LifeConfig {
            connect_timeout: Duration::from_secs(10),
            heartbeat: true,
            backoff: Backoff::FullJitter(FullJitter::default()),
            stable_after: Duration::from_secs(20),
            probe: Duration::from_secs(60),
        },
    }
}

pub(super) fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

/// How a request ended, as a word.
pub(super) fn outcome(answer: &Result<Answer, RequestError>) -> &'static str {
    match answer {
        Ok(Answer::Subscribed(_)) => "joined",
        Ok(Answer::Acked(_)) => "acked",
        Ok(_) => "done",
        Err(RequestError::Refused(_)) => "refused",
        Err(RequestError::Disconnected) => "disconnected",
        Err(RequestError::TimedOut) => "timed_out",
        Err(RequestError::NotSent { .. }) => "not_sent",
        Err(RequestError::Unanswered { .. }) => "unanswered",
        Err(RequestError::OutboxFull) => "outbox_full",
        Err(RequestError::Unsubscribed) => "left",
        Err(RequestError::Closed) => "closed",
        Err(_) => "error",
    }
}

/// A client, and what it has done, in time that passes when it is told to. Random is nothing, so that a lost
/// connection comes back at once.
pub(super) struct World {
    pub(super) machine: Machine<String>,
    pub(super) now_ms: u64,
    /// Whether it has a socket on the way, and whether it has given one up.
    pub(super) is_dialing: bool,
    pub(super) has_hung_up: bool,
    pub(super) has_ended: bool,
    /// How many tokens it has asked for.
    pub(super) asked: usize,
    pub(super) sent: Vec<String>,
    pub(super) told: Vec<Event>,
    pub(super) settled: Vec<(String, &'static str)>,
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        let mut world = Self {
            machine: Machine::new(settings),
            now_ms: 0,
            is_dialing: false,
            has_hung_up: false,
            has_ended: false,
            asked: 0,
            sent: Vec::new(),
            told: Vec::new(),
            settled: Vec::new(),
        };
        let now = world.now();
        world.machine.start(now);
        world.collect();
        world
    }

    pub(super) fn with_token(token: Option<&str>) -> Self {
        Self::new(Settings { token: token.map(Token::new), ..settings() })
    }

    /// Tokens are brought when they are asked for.
    pub(super) fn with_tokens() -> Self {
        Self::new(Settings { brings_tokens: true, ..settings() })
    }

    /// Connected and greeted.
    pub(super) fn greeted() -> Self {
        let mut world = Self::new(settings());
        world.open();
        world.say(&hello(None));
        world.sent.clear();
        world.told.clear();
        world
    }

    /// In `public:r`, at an offset.
    pub(super) fn joined(offset: u64) -> Self {
        let mut world = Self::greeted();
        world.join("public:r", SubscribeOptions::default());
        world.say(&subscribed(1, offset));
        world.sent.clear();
        world.told.clear();
        world.settled.clear();
        world
    }

    pub(super) fn now(&self) -> Moment {
        Moment { at: Monotonic::from_millis(self.now_ms), random: 0.0 }
    }

    pub(super) fn open(&mut self) {
        self.is_dialing = false;
        let now = self.now();
        self.machine.opened(now);
        self.collect();
    }

    pub(super) fn say(&mut self, frame: &Value) {
        self.say_text(&frame.to_string());
    }

    pub(super) fn say_text(&mut self, text: &str) {
        let now = self.now();
        self.machine.text(text, now);
        self.collect();
    }

    /// Brings the token that it asked for, or says why there is none.
    pub(super) fn bring(&mut self, brought: Result<&str, &str>) {
        let now = self.now();
        let brought = brought.map(|token| Some(Token::new(token))).map_err(str::to_owned);
        self.machine.bring(brought, now);
        self.collect();
    }

    pub(super) fn lose(&mut self, code: u16, reason: &str) {
        self.is_dialing = false;
        let now = self.now();
        self.machine.lost(Lost::new(code, reason), now);
        self.collect();
    }

    /// Lets time pass, and all happen that is due in it.
    pub(super) fn advance(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(due) = self.machine.due(true).filter(|due| due.as_millis() <= until) {
            self.now_ms = self.now_ms.max(due.as_millis());
            let now = self.now();
            self.machine.tick(true, now);
            self.collect();
        }
        self.now_ms = until;
    }

    /// Lets time pass in which nobody reads what the server says.
    pub(super) fn advance_unread(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(due) = self.machine.due(false).filter(|due| due.as_millis() <= until) {
            self.now_ms = self.now_ms.max(due.as_millis());
            let now = self.now();
            self.machine.tick(false, now);
            self.collect();
        }
        self.now_ms = until;
    }

    pub(super) fn ask(&mut self, name: &str, ask: Ask, within: Duration) {
        let now = self.now();
        self.machine.ask(ask, now.at.after(within), name.to_owned(), now);
        self.collect();
    }

    pub(super) fn join(&mut self, name: &str, options: SubscribeOptions) {
        self.ask("join", Ask::Subscribe(room(name), options), REQUEST_TIMEOUT);
    }

    /// Publishes in `public:r`.
    pub(super) fn publish(&mut self, msg_id: &str, echo: bool) {
        let options = PublishOptions { echo, ..PublishOptions::default() };
        let data = json!(msg_id).to_string();
        let id = MessageId::parse(msg_id).unwrap();
        let ask = Ask::Publish { room: room("public:r"), data, msg_id: id, options };
        self.ask(msg_id, ask, PUBLISH_TIMEOUT);
    }

    pub(super) fn close(&mut self) {
        let now = self.now();
        self.machine.close(now);
        self.collect();
    }

    /// Takes what the machine has done, as whoever drives it must after each call.
    fn collect(&mut self) {
        while let Some(effect) = self.machine.effects.pop_front() {
            match effect {
                Effect::BringToken => self.asked += 1,
                Effect::Dial => {
                    self.is_dialing = true;
                    self.sent.clear();
                }
                Effect::HangUp { .. } => {
                    self.is_dialing = false;
                    self.has_hung_up = true;
                }
                Effect::Over { .. } => {}
                Effect::End { .. } => self.has_ended = true,
            }
        }
        while let Some(frame) = self.machine.out.pop() {
            self.sent.push(frame.to_string());
        }
        self.told.extend(self.machine.events.drain(..));
        for (name, answer) in self.machine.answers.drain(..) {
            self.settled.push((name, outcome(&answer)));
        }
    }
}

const EPOCH: &str = "00000000000000a1";

pub(super) fn hello(id: Option<u64>) -> Value {
    json!({"type": "hello", "id": id, "accepted_version": 2, "features": ["resume"],
        "request_id": "r-1", "client_id": "c", "connection_id": "0000000000000001", "user_id": null,
        "rooms": [], "session": null, "resumed": [], "heartbeat_interval_ms": 25_000,
        "timestamp": "t"})
}

pub(super) fn subscribed(id: u64, offset: u64) -> Value {
    json!({"type": "subscribed", "id": id, "room": "public:r", "epoch": EPOCH, "offset": offset,
        "recovered": false, "messages": [], "more": false, "timestamp": "t"})
}

pub(super) fn message(offset: u64) -> Value {
    json!({"type": "message", "room": "public:r", "epoch": EPOCH, "offset": offset,
        "sender": {"user_id": null, "connection_id": null}, "data": offset, "timestamp": "t"})
}

pub(super) fn ack(id: u64, offset: u64) -> Value {
    json!({"type": "ack", "id": id, "room": "public:r", "epoch": EPOCH, "offset": offset,
        "duplicate": false, "level": "accepted", "timestamp": "t"})
}

pub(super) fn refusal(id: u64, code: u16, retry_after_ms: Option<u64>) -> Value {
    json!({"type": "error", "id": id, "code": code, "error": "word", "message": "words",
        "field": null, "retry_after_ms": retry_after_ms, "timestamp": "t"})
}
