//! Clients of `/ws/chat` that write to users who come and go, and what must hold for what they are told.
//!
//! What is promised is about letters only: what was said to a user who was on no connection, and was
//! acknowledged as kept. It comes at least once, unless the socket of a connection that broke had taken it;
//! in order on each connection; and at most once, unless the connection that had it was over before it was
//! removed, or the removal failed. What is said to a user who is there goes to its connections like any
//! message and is kept for nobody: of that only that it comes to no other user is checked.

use std::collections::BTreeSet;

use application::shard::Opening;
use application::view::View;
use bytes::Bytes;
use domain::codes::ErrorCode;
use domain::documents::told::Endpoint;
use domain::id::UserId;
use domain::room::RoomId;
use serde_json::Value;

use crate::checker::{Checked, Violation};
use crate::client::Wish;
use crate::faults::{Effect, Fault};
use crate::inbox::number_in;
use crate::links::{Passed, Up};
use crate::ports::{Core, WALL_START_MS};
use crate::rng::Rng;
use crate::world::{Event, World};

/// The room in which everybody is who comes by the endpoint. Nobody says anything there.
pub(crate) const GLOBAL: &str = "chat:global";
/// How long the links of a writer that break at once with its coming may be slow before.
const SLOW_MS: (u64, u64) = (200, 4_000);
const HOUR_MS: u64 = 3_600_000;

/// A client of `/ws/chat`.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) user: UserId,
    pub(crate) link: Option<usize>,
    pub(crate) greeted: bool,
    buffer: Vec<u8>,
    pub(crate) heard_ms: u64,
    /// The messages that were said over this connection and are not answered.
    asked: BTreeSet<usize>,
}

/// The writers of a seed: few users, of which some have several connections.
pub(crate) fn draw_writers(rng: &mut Rng) -> Vec<Writer> {
    let n_users = rng.between(2, 3);
    let writers = (0..rng.between(n_users, 5)).map(|number| {
        let user = UserId::parse(&format!("w{}", number % n_users)).expect("a good name");
        Writer {
            user,
            link: None,
            greeted: false,
            buffer: Vec::new(),
            heard_ms: 0,
            asked: BTreeSet::new(),
        }
    });
    writers.collect()
}

fn unexpected(text: impl Into<String>) -> Violation {
    Violation::new("protocol", text)
}

impl Writer {
    /// How it comes in.
    pub(crate) fn opening(&self, opening: Opening, now_ms: u64) -> Opening {
        let ends = WALL_START_MS.cast_unsigned() + now_ms + HOUR_MS;
        let token = Some(format!("user:{}:{ends}", self.user));
        Opening { token, view: View::Document(Endpoint::Chat), ..opening }
    }

    fn hear(&mut self, bytes: &[u8], link: usize, core: &mut Core) -> Result<Vec<Wish>, Violation> {
        self.buffer.extend_from_slice(bytes);
        let mut wishes = Vec::new();
        let Some(end) = self.buffer.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(wishes);
        };
        let rest = self.buffer.split_off(end + 1);
        let whole = std::mem::replace(&mut self.buffer, rest);
        for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let frame: Value = serde_json::from_slice(line)
                .map_err(|error| unexpected(format!("{error}: {line:?}")))?;
            match frame["type"].as_str().unwrap_or_default() {
                "connected" if !self.greeted && frame["user_id"] == self.user.as_str() => {
                    self.greeted = true;
                }
                "ping" => wishes.push(Wish::Send(r#"{"type":"pong"}"#.to_owned())),
                "chat_message" => self.on_message(line, &frame, link, core)?,
                "ack" => self.on_ack(&frame, core)?,
                "error" => self.on_error(&frame, core)?,
                // Its shard had more mail than fits, so it is in its own room no more.
                "channel_left" if frame["channel"] == "private" => {}
                _ => return Err(unexpected(format!("{} was told {frame}", self.user))),
            }
        }
        Ok(wishes)
    }

    fn on_message(&mut self, line: &[u8], frame: &Value, link: usize, core: &mut Core) -> Checked {
        let fail =
            |text: &str| Err(Violation::new("I17", format!("{}: {text}: {frame}", self.user)));
        if frame.get("to_user_id").is_some() {
            let own = frame["user_id"] == self.user.as_str();
            return if own { Ok(()) } else { fail("a copy of somebody else's") };
        }
        let Some(number) = number_in(line).filter(|n| *n < core.letters.said.len()) else {
            return fail("nobody wrote it");
        };
        if core.letters.said[number].to != self.user {
            return fail("it is for somebody else");
        }
        if core.letters.on_heard(number, link)? {
            core.counts.effect(Effect::LetterHeard);
        }
        Ok(())
    }

    fn answered(&mut self, frame: &Value) -> Result<usize, Violation> {
        let number = frame["id"].as_u64().and_then(|id| usize::try_from(id).ok());
        let number = number.filter(|number| self.asked.remove(number));
        number.ok_or_else(|| unexpected(format!("{} answers nothing", frame)))
    }

    fn on_ack(&mut self, frame: &Value, core: &mut Core) -> Checked {
        let number = self.answered(frame)?;
        let said = &mut core.letters.said[number];
        // A letter has no place in a log that could be named.
        if frame["message_id"].is_null() {
            said.acked = true;
            core.counts.effect(Effect::LetterAcked);
        }
        if said.acked != said.place.is_some() {
            return Err(Violation::new("I17", format!("{frame} answers {number}: {said:?}")));
        }
        Ok(())
    }

    fn on_error(&mut self, frame: &Value, core: &mut Core) -> Checked {
        self.answered(frame)?;
        if frame["code"] == ErrorCode::RoomFull.number() {
            core.counts.effect(Effect::InboxFull);
            return Ok(());
        }
        if frame["code"] == ErrorCode::Unavailable.number() {
            return Ok(());
        }
        Err(unexpected(frame.to_string()))
    }
}

impl World {
    /// Which writer has this number among all clients.
    pub(crate) fn writer_of(&self, client: usize) -> Option<usize> {
        client.checked_sub(self.clients.len()).filter(|writer| *writer < self.writers.len())
    }

    /// The connection of a client or a writer.
    pub(crate) fn link_of(&self, client: usize) -> Option<usize> {
        match self.writer_of(client) {
            Some(writer) => self.writers[writer].link,
            None => self.clients[client].link,
        }
    }

    /// The user of a client or a writer.
    pub(crate) fn user_of(&self, client: usize) -> Option<UserId> {
        match self.writer_of(client) {
            Some(writer) => Some(self.writers[writer].user.clone()),
            None => self.clients[client].user.as_ref().and_then(|user| UserId::parse(user).ok()),
        }
    }

    /// A writer is on a link from now on. Some are slow from the start, when letters are given.
    pub(crate) fn writer_came(&mut self, writer: usize, link: usize) {
        self.links[link].takes_letters = true;
        let side = &mut self.writers[writer];
        side.link = Some(link);
        side.heard_ms = self.now_ms;
        if !self.healed && self.rng.percent(20) {
            self.links[link].stalled = true;
            self.core.lock().counts.fault(Fault::ReaderSlow);
            let at = self.now_ms + self.rng.between(SLOW_MS.0, SLOW_MS.1);
            self.queue.push(at, Event::Unstall { link });
        }
    }

    /// A writer is without a connection, and comes back after a while.
    pub(crate) fn writer_parts(&mut self, writer: usize, away_ms: u64) {
        let client = self.clients.len() + writer;
        let side = &mut self.writers[writer];
        let Some(link) = side.link.take() else { return };
        self.links[link].client_open = false;
        side.greeted = false;
        side.buffer.clear();
        side.asked.clear();
        if !self.leaving {
            self.queue.push(self.now_ms + away_ms, Event::Connect { client });
        }
    }

    pub(crate) fn writer_hears(&mut self, writer: usize, bytes: &[u8]) -> Checked {
        let side = &mut self.writers[writer];
        let Some(link) = side.link else { return Ok(()) };
        side.heard_ms = self.now_ms;
        let heard = side.hear(bytes, link, &mut self.core.lock());
        for wish in heard? {
            if let Wish::Send(text) = wish {
                self.send_up(link, Up::Text(text));
            }
        }
        Ok(())
    }

    /// A writer writes to somebody, or goes away for a while.
    pub(crate) fn writer_acts(&mut self, writer: usize) {
        let Some(link) = self.writers[writer].link.filter(|_| self.writers[writer].greeted) else {
            return;
        };
        if self.rng.percent(35) {
            self.send_up(link, Up::Closed);
            let away_ms = self.rng.between(100, 6_000);
            return self.writer_parts(writer, away_ms);
        }
        let n_messages = if self.rng.percent(20) { self.rng.between(2, 6) } else { 1 };
        for _ in 0..n_messages {
            let text = self.write(writer, link);
            self.send_up(link, Up::Text(text));
        }
    }

    /// Says something new to another user; answers the command.
    fn write(&mut self, writer: usize, link: usize) -> String {
        let from = self.writers[writer].user.clone();
        let others: Vec<_> = self.writers.iter().map(|w| &w.user).filter(|u| **u != from).collect();
        let to = (*self.rng.pick(&others)).clone();
        let long = if self.rng.percent(10) { 400 } else { 40 };
        let padding = "x".repeat(self.rng.index(long));
        let mut core = self.core.lock();
        let number = core.letters.begin(to.clone(), link);
        let content = format!("{number} {padding}");
        for (user, copy) in [(&to, String::new()), (&from, format!(r#","to_user_id":"{to}""#))] {
            let room = RoomId::parse(&format!("user:{user}")).expect("a good name");
            let data = format!(r#"{{"type":"chat_message","content":"{content}"{copy}}}"#);
            core.sent.insert((room, Bytes::from(data)));
        }
        drop(core);
        self.writers[writer].asked.insert(number);
        format!(
            r#"{{"type":"chat_message","id":{number},"channel":"private","to_user_id":"{to}","content":"{content}"}}"#
        )
    }

    /// Everybody comes anew, whether or not it is there: a letter that could not be read waits for that.
    pub(crate) fn bring_writers_back(&mut self) {
        for writer in 0..self.writers.len() {
            let soon_ms = self.rng.between(20, 1_200);
            match self.writers[writer].link {
                Some(link) => {
                    self.send_up(link, Up::Closed);
                    self.writer_parts(writer, soon_ms);
                }
                None => {
                    let client = self.clients.len() + writer;
                    self.queue.push(self.now_ms + soon_ms, Event::Connect { client });
                }
            }
        }
    }

    /// Everything has healed, and everybody has come back.
    pub(crate) fn check_letters(&self) -> Checked {
        for writer in &self.writers {
            if !writer.greeted || !writer.asked.is_empty() {
                let text = format!("{} is not there, or waits: {writer:?}", writer.user);
                return Err(Violation::new("I13", text));
            }
        }
        let mut core = self.core.lock();
        let mut n_lost = 0;
        for (number, said) in core.letters.said.iter().enumerate() {
            let fail = |text: &str| {
                Err(Violation::new("I17", format!("letter {number} {text}: {said:?}")))
            };
            if said.place.is_some() && !said.removed {
                return fail("waits although its user is back");
            }
            if !said.acked || said.heard > 0 {
                continue;
            }
            let broke = |link: &usize| !self.links[*link].client_open || self.links[*link].silent;
            if !said.taken_by.iter().any(broke) {
                return fail("never came");
            }
            n_lost += 1;
        }
        for _ in 0..n_lost {
            core.counts.effect(Effect::LetterLost);
        }
        Ok(())
    }

    /// Every writer goes, in one of the ways there are.
    pub(crate) fn writers_leave(&mut self) {
        self.leaving = true;
        for writer in 0..self.writers.len() {
            let Some(link) = self.writers[writer].link else { continue };
            if self.rng.percent(30) {
                self.links[link].silent = true;
            } else {
                self.send_up(link, Up::Closed);
            }
            self.writer_parts(writer, 0);
        }
    }

    /// Notes what a shard has given to writers, and what their sockets have taken.
    pub(crate) fn note_given(&mut self, passed: Vec<Passed>) -> Checked {
        let mut core = self.core.lock();
        for Passed { link, number, is_given, is_taken } in passed {
            let is_over = |other: usize| {
                !self.links[other].server_open || !self.nodes[self.links[other].node].alive
            };
            if is_given && core.letters.on_given(number, link, is_over)? {
                core.counts.effect(Effect::LetterAgain);
            }
            if is_taken {
                core.letters.on_taken(number, link);
            }
        }
        Ok(())
    }
}
