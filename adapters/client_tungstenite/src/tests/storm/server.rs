//! The server of the storm: logs, members, tickets, what was missed in pages, publishes that count once. What the storm
//! wants it to do wrong it does wrong.
//!
//! It must never look at a client to decide what to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::Request;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::FOLLOWED;
use super::cable::Weather;

const EPOCH: &str = "00000000000000a1";
const AT: &str = "t";
/// How many messages a frame holds.
const PAGE: usize = 3;
/// The client that has to show a token.
const KNOWN: &str = "c0";

/// What it does wrong with one connection, once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Whim {
    LosesNext,
    RepeatsNext,
    LosesNextChange,
}

enum Say {
    Frame(String),
    Close(u16),
}

struct Link {
    client: String,
    says: mpsc::UnboundedSender<Say>,
    rooms: BTreeSet<String>,
    whim: Option<Whim>,
}

impl Link {
    fn say(&self, frame: &Value) {
        self.says.send(Say::Frame(frame.to_string())).ok();
    }

    /// Whether that is what it does wrong now. Then it is done.
    fn has_whim(&mut self, whim: Whim) -> bool {
        self.whim.take_if(|this| *this == whim).is_some()
    }
}

#[derive(Default)]
pub(super) struct Server {
    /// By room what was published, each at its place.
    pub(super) logs: BTreeMap<String, Vec<String>>,
    /// By client and message id where it is.
    taken: BTreeMap<(String, String), u64>,
    links: BTreeMap<u64, Link>,
    n_links: u64,
    /// How often somebody came or went.
    seq: u64,
    /// The last token that was taken, and up to which they have ended.
    token_taken: u64,
    tokens_ended: u64,
    tickets: BTreeSet<String>,
    n_tickets: u64,
}

/// One connection, as long as there is one.
pub(super) async fn serve(stream: DuplexStream, weather: Arc<Weather>) {
    let mut client = String::new();
    #[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let keep = |request: &Request, answer| {
        let query = request.uri().query().unwrap_or_default();
        client = query.strip_prefix("client_id=").unwrap().to_owned();
        Ok(answer)
    };
    let Ok(mut socket) = accept_hdr_async(stream, keep).await else { return };
    let (says, mut said) = mpsc::unbounded_channel();
    let link = weather.server().accept(client, says);
    loop {
        tokio::select! {
            biased;
            say = said.recv() => match say {
                Some(Say::Frame(text)) => if socket.send(Message::text(text)).await.is_err() { break },
                Some(Say::Close(code)) => {
                    let frame = CloseFrame { code: code.into(), reason: "storm".into() };
                    socket.close(Some(frame)).await.ok();
                    while let Some(Ok(_)) = socket.next().await {}
                    break;
                }
                None => break,
            },
            heard = socket.next() => match heard {
                Some(Ok(Message::Text(text))) => {
                    let drawn = if weather.is_stormy() { weather.below(40) } else { 40 };
                    weather.server().hear(link, &serde_json::from_str(&text).unwrap(), drawn);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
        }
    }
    weather.server().gone(link);
}

impl Server {
    fn accept(&mut self, client: String, says: mpsc::UnboundedSender<Say>) -> u64 {
        self.n_links += 1;
        let is_known = client == KNOWN;
        let link = Link { client, says, rooms: BTreeSet::new(), whim: None };
        self.links.insert(self.n_links, link);
        if !is_known {
            self.greet(self.n_links, &Value::Null, &[]);
        }
        self.n_links
    }

    fn gone(&mut self, link: u64) {
        let before = self.members();
        self.links.remove(&link);
        self.tell_change(&before);
    }

    fn hear(&mut self, link: u64, frame: &Value, drawn: u64) {
        match frame["type"].as_str().unwrap() {
            "connect" => self.connect(link, frame),
            "subscribe" => {
                let room = frame["room"].as_str().unwrap();
                let (mut answer, pages) = self.enter(link, room, &frame["since"]);
                (answer["type"], answer["id"]) = ("subscribed".into(), frame["id"].clone());
                self.say(link, &answer);
                pages.iter().for_each(|page| self.say(link, page));
            }
            "publish" => self.publish(link, frame, drawn),
            "presence" => {
                let members = self.members();
                let of = |user: &String| json!({"user_id": user, "data": null, "connections": 1});
                let list: Vec<_> = members.iter().map(of).collect();
                let answer = json!({"type": "presence", "id": frame["id"], "room": FOLLOWED,
                    "seq": self.seq, "total": members.len(), "members": list, "timestamp": AT});
                self.say(link, &answer);
            }
            "refresh" => {
                let is_good = self.takes_token(frame);
                assert!(is_good, "a token that was just got");
                let answer = json!({"type": "refreshed", "id": frame["id"], "expires_at": null,
                    "session": self.ticket(), "timestamp": AT});
                self.say(link, &answer);
            }
            "ping" => {
                self.say(link, &json!({"type": "pong", "id": frame["id"], "timestamp": AT}));
            }
            "pong" => {}
            other => panic!("{other}"),
        }
    }

    fn say(&self, link: u64, frame: &Value) {
        if let Some(link) = self.links.get(&link) {
            link.say(frame);
        }
    }

    /// Whether the frame shows a token that has not ended.
    fn takes_token(&mut self, frame: &Value) -> bool {
        let Some(token) = frame["token"].as_str() else { return false };
        let token: u64 = token.parse().unwrap();
        let is_good = token > self.tokens_ended;
        if is_good {
            self.token_taken = self.token_taken.max(token);
        }
        is_good
    }

    fn ticket(&mut self) -> String {
        self.n_tickets += 1;
        let ticket = format!("ticket-{}", self.n_tickets);
        self.tickets.insert(ticket.clone());
        ticket
    }

    fn connect(&mut self, link: u64, frame: &Value) {
        if self.links.get(&link).is_some_and(|link| link.client == KNOWN) {
            let is_back = frame["session"].as_str().is_some_and(|one| self.tickets.contains(one));
            if !is_back && !self.takes_token(frame) {
                return self.close(link, 3500, None);
            }
        }
        let (mut resumed, mut pages) = (Vec::new(), Vec::new());
        for named in frame["resume"].as_array().into_iter().flatten() {
            let (mut back, more) = self.enter(link, named["room"].as_str().unwrap(), named);
            back["gap"] = Value::Null;
            resumed.push(back);
            pages.extend(more);
        }
        self.greet(link, &frame["id"], &resumed);
        pages.iter().for_each(|page| self.say(link, page));
    }

    fn greet(&mut self, link: u64, id: &Value, resumed: &[Value]) {
        let ticket = self.ticket();
        let hello = json!({"type": "hello", "id": id, "accepted_version": 2, "features": ["resume"],
            "request_id": "r", "client_id": "c", "connection_id": format!("{link:016x}"),
            "user_id": null, "rooms": [], "session": ticket, "resumed": resumed,
            "heartbeat_interval_ms": 25_000, "timestamp": AT});
        self.say(link, &hello);
    }

    /// Takes a client into a room. Answers what it missed: the first frame's fields, and the pages behind it.
    fn enter(&mut self, link: u64, room: &str, since: &Value) -> (Value, Vec<Value>) {
        let before = self.members();
        if let Some(link) = self.links.get_mut(&link) {
            link.rooms.insert(room.to_owned());
        }
        self.tell_change(&before);
        let log = self.logs.entry(room.to_owned()).or_default();
        let end = log.len();
        let mut from = since["offset"].as_u64().map_or(end, |at| usize::try_from(at).unwrap());
        let mut frames = Vec::new();
        loop {
            let to = (from + PAGE).min(end);
            let messages: Vec<_> =
                (from..to).map(|at| message(room, at as u64 + 1, &log[at])).collect();
            frames.push(json!({"type": "page", "room": room, "epoch": EPOCH, "offset": to,
                "recovered": true, "messages": messages, "more": to < end, "timestamp": AT}));
            if to == end {
                break;
            }
            from = to;
        }
        let first = frames.remove(0);
        (first, frames)
    }

    fn publish(&mut self, link: u64, frame: &Value, drawn: u64) {
        let (room, id) = (frame["room"].as_str().unwrap(), &frame["id"]);
        let client = self.links[&link].client.clone();
        let name = (client, frame["msg_id"].as_str().unwrap().to_owned());
        let refusal = json!({"type": "error", "id": id, "code": 114, "error": "unavailable",
            "message": "", "field": null, "retry_after_ms": 300, "timestamp": AT});
        if drawn == 0 {
            return self.say(link, &refusal);
        }
        let before = self.taken.get(&name).copied();
        let but = (frame["echo"] == false).then_some(link);
        let offset = before.unwrap_or_else(|| self.append(room, &frame["data"], but));
        self.taken.insert(name, offset);
        match drawn {
            // It says that it could not, although it has; or nothing.
            1 => self.say(link, &refusal),
            2 => {}
            _ => {
                let ack = json!({"type": "ack", "id": id, "room": room, "epoch": EPOCH,
                    "offset": offset, "duplicate": before.is_some(), "level": "accepted",
                    "timestamp": AT});
                self.say(link, &ack);
            }
        }
    }

    /// Gives a message its place, and to every member but one.
    fn append(&mut self, room: &str, data: &Value, but: Option<u64>) -> u64 {
        let log = self.logs.entry(room.to_owned()).or_default();
        log.push(data.to_string());
        let offset = log.len() as u64;
        let frame = message(room, offset, &data.to_string());
        for (number, link) in &mut self.links {
            if !link.rooms.contains(room) || Some(*number) == but || link.has_whim(Whim::LosesNext)
            {
                continue;
            }
            if link.has_whim(Whim::RepeatsNext) {
                link.say(&frame);
            }
            link.say(&frame);
        }
        offset
    }

    /// Who is in the room that is followed.
    pub(super) fn members(&self) -> BTreeSet<String> {
        let here = self.links.values().filter(|link| link.rooms.contains(FOLLOWED));
        here.map(|link| link.client.clone()).collect()
    }

    /// Tells who has come and gone since then.
    fn tell_change(&mut self, before: &BTreeSet<String>) {
        let now = self.members();
        let came = now.difference(before).map(|user| ("join", user));
        let went = before.difference(&now).map(|user| ("leave", user));
        for (event, user) in came.chain(went) {
            self.seq += 1;
            let change = json!({"type": "presence_event", "room": FOLLOWED, "seq": self.seq,
                "total": now.len(), "event": event, "user_id": user, "data": null, "timestamp": AT});
            for link in self.links.values_mut().filter(|link| link.rooms.contains(FOLLOWED)) {
                if !link.has_whim(Whim::LosesNextChange) {
                    link.say(&change);
                }
            }
        }
    }

    fn close(&self, link: u64, code: u16, after_ms: Option<u64>) {
        let Some(link) = self.links.get(&link) else { return };
        link.say(&json!({"type": "disconnect", "code": code, "reason": "storm",
            "reconnect": code < 3500, "reconnect_after_ms": after_ms, "timestamp": AT}));
        link.says.send(Say::Close(code)).ok();
    }

    fn one(&self, drawn: u64) -> Option<u64> {
        let at = drawn.checked_rem(self.links.len() as u64)?;
        self.links.keys().nth(usize::try_from(at).unwrap()).copied()
    }

    /// Closes one of its connections.
    pub(super) fn close_one(&self, drawn: u64, code: u16, after_ms: Option<u64>) {
        if let Some(link) = self.one(drawn) {
            self.close(link, code, after_ms);
        }
    }

    /// Does something wrong with one of its connections.
    pub(super) fn has_whim(&mut self, drawn: u64, whim: Whim) {
        if let Some(link) = self.one(drawn).and_then(|link| self.links.get_mut(&link)) {
            link.whim = Some(whim);
        }
    }

    fn known(&self) -> impl Iterator<Item = u64> {
        self.links.iter().filter(|(_, link)| link.client == KNOWN).map(|(link, _)| *link)
    }

    /// The token has ended, and all tickets with it.
    pub(super) fn end_token(&mut self) {
        self.tokens_ended = self.token_taken;
        self.tickets.clear();
        self.known().for_each(|link| self.close(link, 3004, None));
    }

    /// Says that the token is about to end.
    pub(super) fn announce_end_of_token(&self) {
        let expiring = json!({"type": "token_expiring", "expires_at": "soon", "timestamp": AT});
        self.known().for_each(|link| self.say(link, &expiring));
    }

    /// Does nothing wrong any more. Somebody comes, so that a change that was lost is missed.
    pub(super) fn calm_down(&mut self) {
        self.links.values_mut().for_each(|link| link.whim = None);
        let (says, _) = mpsc::unbounded_channel();
        let before = self.members();
        let rooms = BTreeSet::from([FOLLOWED.to_owned()]);
        let link = Link { client: "the last".into(), says, rooms, whim: None };
        self.n_links += 1;
        self.links.insert(self.n_links, link);
        self.tell_change(&before);
    }
}

fn message(room: &str, offset: u64, data: &str) -> Value {
    json!({"type": "message", "room": room, "epoch": EPOCH, "offset": offset,
        "sender": {"user_id": null, "connection_id": null},
        "data": serde_json::from_str::<Value>(data).unwrap(), "timestamp": AT})
}
