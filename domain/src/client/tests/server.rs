//! A server of protocol v2 in memory: logs, members, what was missed in pages, publishes that count once. What a test
//! wants it to do wrong it does wrong.
//!
//! It must never look at a client to decide what to say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::position::Position;
use crate::protocol::{ClientFrame, decode};

const EPOCH: &str = "00000000000000a1";
/// How many messages a frame holds.
const PAGE: usize = 3;

/// What it does wrong with a publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Whim {
    Right,
    /// It says that it could not, although it has.
    StoresAndRefuses,
    /// It can't, for the moment.
    Refuses,
    /// It never answers.
    IsSilent,
    /// It has it already, and refuses for good to have it repeated.
    ForbidsRepeat,
}

#[derive(Debug)]
struct Link {
    client: usize,
    rooms: BTreeSet<String>,
    /// It loses the next message of these rooms.
    loses_next: bool,
    /// It says the next message twice.
    repeats_next: bool,
}

/// The server.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// By room what was published, each at its place.
    pub(super) logs: BTreeMap<String, Vec<String>>,
    /// By client and message id where it is.
    taken: BTreeMap<(usize, String), u64>,
    links: BTreeMap<u64, Link>,
    /// What it has to say, over which link.
    pub(super) out: Vec<(u64, String)>,
}

impl Server {
    pub(super) fn accept(&mut self, link: u64, client: usize) {
        let rooms = BTreeSet::new();
        let fresh = Link { client, rooms, loses_next: false, repeats_next: false };
        self.links.insert(link, fresh);
        self.hello(link, None, "");
    }

    /// Whether there was one.
    pub(super) fn close(&mut self, link: u64) -> bool {
        self.links.remove(&link).is_some()
    }

    pub(super) fn lose_next(&mut self, link: u64) {
        if let Some(link) = self.links.get_mut(&link) {
            link.loses_next = true;
        }
    }

    pub(super) fn repeat_next(&mut self, link: u64) {
        if let Some(link) = self.links.get_mut(&link) {
            link.repeats_next = true;
        }
    }

    /// Its own message to a room.
    pub(super) fn publish(&mut self, room: &str, data: &str) {
        self.append(room, data, None);
    }

    pub(super) fn hear(&mut self, link: u64, text: &str, whim: Whim) {
        if !self.links.contains_key(&link) {
            return;
        }
        match decode(text).next().unwrap().unwrap() {
            ClientFrame::Connect { id, resume, .. } => {
                let mut resumed = String::new();
                for named in &resume {
                    let (room, since) = (named.room.as_str(), Some(named.since));
                    let (read, pages) = self.enter(link, room, since);
                    let comma = if resumed.is_empty() { "" } else { "," };
                    write!(resumed, r#"{comma}{{"room":"{room}",{read},"gap":null}}"#).unwrap();
                    self.out.extend(pages.into_iter().map(|page| (link, page)));
                }
                let pages = std::mem::take(&mut self.out);
                self.hello(link, id, &resumed);
                self.out.extend(pages);
            }
            ClientFrame::Subscribe { id, room, since, .. } => {
                let (read, pages) = self.enter(link, room.as_str(), since);
                let answer =
                    format!(r#"{{"type":"subscribed",{},"room":"{room}",{read},{AT}}}"#, of(id));
                self.out.push((link, answer));
                self.out.extend(pages.into_iter().map(|page| (link, page)));
            }
            ClientFrame::Unsubscribe { id, room } => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.rooms.remove(room.as_str());
                }
                let answer = format!(
                    r#"{{"type":"unsubscribed",{},"room":"{room}","code":null,"reason":null,{AT}}}"#,
                    of(id)
                );
                self.out.push((link, answer));
            }
            ClientFrame::Publish { id, room, data, msg_id, echo, .. } => {
                let msg_id = msg_id.unwrap().as_str().to_owned();
                self.take(link, id, room.as_str(), data, &msg_id, echo, whim);
            }
            ClientFrame::Ping { id } => {
                self.out.push((link, format!(r#"{{"type":"pong",{},{AT}}}"#, of(id))));
            }
            ClientFrame::Pong => {}
            other => panic!("{other:?}"),
        }
    }

    /// What a client that is silent for long enough hears.
    pub(super) fn ping(&mut self) {
        let ping = |link: &u64| (*link, format!(r#"{{"type":"ping",{AT}}}"#));
        self.out.extend(self.links.keys().map(ping));
    }

    fn hello(&mut self, link: u64, id: Option<u64>, resumed: &str) {
        let hello = format!(
            concat!(
                r#"{{"type":"hello",{},"accepted_version":2,"features":["resume"],"request_id":"r","#,
                r#""client_id":"c","connection_id":"0000000000000001","user_id":null,"rooms":[],"#,
                r#""session":null,"resumed":[{}],"heartbeat_interval_ms":25000,{}}}"#
            ),
            of(id),
            resumed,
            AT
        );
        self.out.push((link, hello));
    }

    /// Takes a client into a room. Answers the first frame's fields of what it missed, and the pages behind it.
    fn enter(&mut self, link: u64, room: &str, since: Option<Position>) -> (String, Vec<String>) {
        let log = self.logs.entry(room.to_owned()).or_default();
        if let Some(link) = self.links.get_mut(&link) {
            link.rooms.insert(room.to_owned());
        }
        let end = log.len();
        let mut from = since.map_or(end, |since| usize::try_from(since.offset.get()).unwrap());
        let mut frames = Vec::new();
        loop {
            let to = (from + PAGE).min(end);
            let messages: Vec<_> =
                (from..to).map(|at| message(room, at as u64 + 1, &log[at])).collect();
            let more = to < end;
            frames.push(format!(
                r#""epoch":"{EPOCH}","offset":{to},"recovered":true,"messages":[{}],"more":{more}"#,
                messages.join(",")
            ));
            if !more {
                break;
            }
            from = to;
        }
        let page = |read: &String| format!(r#"{{"type":"page","room":"{room}",{read},{AT}}}"#);
        let pages = frames[1..].iter().map(page).collect();
        (frames.swap_remove(0), pages)
    }

    #[allow(clippy::too_many_arguments, reason = "they are the fields of one command")]
    fn take(
        &mut self,
        link: u64,
        id: Option<u64>,
        room: &str,
        data: &str,
        msg_id: &str,
        echo: bool,
        whim: Whim,
    ) {
        let name = (self.links[&link].client, msg_id.to_owned());
        let before = self.taken.get(&name).copied();
        let refusal = format!(
            r#"{{"type":"error",{},"code":114,"error":"unavailable","message":"","field":null,"retry_after_ms":300,{AT}}}"#,
            of(id)
        );
        if whim == Whim::Refuses {
            return self.out.push((link, refusal));
        }
        if whim == Whim::ForbidsRepeat && before.is_some() {
            let forbidden = refusal
                .replace(
                    r#""code":114,"error":"unavailable""#,
                    r#""code":103,"error":"permission_denied""#,
                )
                .replace(r#""retry_after_ms":300"#, r#""retry_after_ms":null"#);
            return self.out.push((link, forbidden));
        }
        let offset = before.unwrap_or_else(|| self.append(room, data, (!echo).then_some(link)));
        self.taken.insert(name, offset);
        match whim {
            Whim::StoresAndRefuses => self.out.push((link, refusal)),
            Whim::IsSilent => {}
            Whim::Right | Whim::Refuses | Whim::ForbidsRepeat => {
                let duplicate = before.is_some();
                let ack = format!(
                    r#"{{"type":"ack",{},"room":"{room}","epoch":"{EPOCH}","offset":{offset},"duplicate":{duplicate},"level":"accepted",{AT}}}"#,
                    of(id)
                );
                self.out.push((link, ack));
            }
        }
    }

    /// Gives a message its place, and to every member but one.
    fn append(&mut self, room: &str, data: &str, but: Option<u64>) -> u64 {
        let log = self.logs.entry(room.to_owned()).or_default();
        log.push(data.to_owned());
        let offset = log.len() as u64;
        let frame = message(room, offset, data);
        for (number, link) in &mut self.links {
            if !link.rooms.contains(room) || Some(*number) == but {
                continue;
            }
            if std::mem::take(&mut link.loses_next) {
                continue;
            }
            if std::mem::take(&mut link.repeats_next) {
                self.out.push((*number, frame.clone()));
            }
            self.out.push((*number, frame.clone()));
        }
        offset
    }
}

const AT: &str = r#""timestamp":"t""#;

fn of(id: Option<u64>) -> String {
    id.map_or_else(|| r#""id":null"#.to_owned(), |id| format!(r#""id":{id}"#))
}

fn message(room: &str, offset: u64, data: &str) -> String {
    format!(
        concat!(
            r#"{{"type":"message","room":"{}","epoch":"{}","offset":{},"#,
            r#""sender":{{"user_id":null,"connection_id":null}},"data":{},{}}}"#
        ),
        room, EPOCH, offset, data, AT
    )
}
