//! What the client decides: texts, commands and the passing of time go in; frames, events, answers and what
//! to do with the socket come out.
//!
//! It must never read a socket or a clock, and never wait. Its queues are bounded by what one
//! frame of the server's holds (`events`) and by [`Outbound::has_room`] (`out`); whoever drives it
//! hands in the next text only when the events of the last are gone, and carries `effects` and `answers`
//! out after each call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::client::error::RequestError;
use crate::client::failure::Failure;
use crate::client::life::{self, ABNORMAL, Life, Lost, Moment, Phase, Socket, transition};
use crate::client::outbound::Outbound;
use crate::client::planted::Soil;
use crate::client::settings::{Settings, Token, TokenPlace};
use crate::codes::CloseCode;
use crate::position::Position;
use crate::protocol::ClientFrame;
use crate::protocol::client_event::{Event, Hello, Violation};
use crate::room::RoomId;
use crate::time::Monotonic;

mod answers;
mod commands;
mod greeting;
mod log;
mod members;
mod patterns;
mod requests;
mod resume;
mod rooms;
mod tokens;

pub use commands::{Ask, PublishOptions, SubscribeOptions};
pub use requests::Answer;
pub use rooms::RoomPhase;

use patterns::Patterns;
use requests::{Kind, Pending, Requests};
use rooms::{Retries, Room};
use tokens::Tokens;

/// How long a server that said `disconnect` has to close.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// After how many connections in a row that were no WebSockets, none of which stood, the client stops.
const BREAKS_MAX: u32 = 5;

/// What may wait to be sent beside the outbox. Whoever drives a client takes no commands long before that, so that only a
/// server which makes the client ask again and again, and reads nothing of it, gets there.
const OUT_FRAMES_SPARE: usize = 8192;
const OUT_BYTES_SPARE: usize = 4 << 20;

/// What whoever drives a client has to do, in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Get a token and hand it in by [`Machine::bring`]; none is on its way.
    BringToken,
    /// Open a socket; there is none.
    Dial,
    /// Let go of the socket, or of the attempt at one.
    HangUp {
        /// What to say about it.
        code: u16,
    },
    /// Know that a connection, or an attempt at one, is over.
    Over {
        /// How it ended.
        failure: Failure,
        /// When to come back, if the server said so.
        after: Option<Duration>,
    },
    /// Close the client: it does not come back.
    End {
        /// The close code.
        code: u16,
        /// What was said with it.
        reason: String,
    },
}

/// What of the protocol is done on the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// There is none.
    Offline,
    /// It is open, but the server has not said `hello`.
    Greeting {
        /// The id of our `connect`, if `hello` has to answer it.
        connect: Option<u64>,
        /// Whether that `connect` asked for more than to be known by the token.
        resumes: bool,
    },
    /// It is up.
    Online,
}

/// What the server said at the end of a line that is over.
#[derive(Debug)]
struct Farewell {
    lost: Lost,
    until: Monotonic,
}

/// The state of one client. `R` is whom to answer; it comes back with the answer.
#[derive(Debug)]
pub struct Machine<R> {
    life: Life,
    /// When the one timer of its life rings.
    rings_at: Option<Monotonic>,
    stage: Stage,
    rooms: BTreeMap<RoomId, Room>,
    /// Rooms to be asked about again, and when.
    retries: Retries,
    /// The rooms that the server put this connection into without being asked.
    own_rooms: BTreeSet<RoomId>,
    patterns: Patterns,
    requests: Requests<R>,
    token: Option<Token>,
    tokens: Tokens,
    /// What the server gave to come back with.
    session: Option<Token>,
    /// Whether the last server that greeted us knows `resume`.
    may_resume: bool,
    /// The server's greeting, should it refuse our `connect`.
    early_hello: Option<Hello>,
    farewell: Option<Farewell>,
    /// How many connections were given up for what is no WebSocket's since one has stood.
    breaks: u32,
    settings: Settings,
    /// Set when the connection is to be given up at the end of this step.
    verdict: Option<Lost>,
    pub(super) soil: Soil,
    /// What to send.
    pub out: Outbound,
    /// What to tell.
    pub events: VecDeque<Event>,
    /// What to answer, and whom.
    pub answers: VecDeque<(R, Result<Answer, RequestError>)>,
    /// What to do.
    pub effects: VecDeque<Effect>,
}

impl<R> Machine<R> {
    /// A client that is not connected yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            life: Life::default(),
            rings_at: None,
            stage: Stage::Offline,
            rooms: BTreeMap::new(),
            retries: Retries::default(),
            own_rooms: BTreeSet::new(),
            patterns: Patterns::default(),
            requests: Requests::default(),
            token: settings.token.clone(),
            tokens: Tokens::new(settings.brings_tokens, settings.token.is_some()),
            session: None,
            may_resume: false,
            early_hello: None,
            farewell: None,
            breaks: 0,
            settings,
            verdict: None,
            soil: Soil::default(),
            out: Outbound::default(),
            events: VecDeque::new(),
            answers: VecDeque::new(),
            effects: VecDeque::new(),
        }
    }

    /// In which phase its connection is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.life.phase
    }

    /// Whether the server has greeted it.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        matches!(self.stage, Stage::Online)
    }

    /// Up to where it has everything of a room.
    #[must_use]
    pub fn position(&self, room: &RoomId) -> Option<Position> {
        self.rooms.get(room)?.track.position()
    }

    /// Where it is with a room; none if it does not want to be in.
    #[must_use]
    pub fn room_phase(&self, room: &RoomId) -> Option<RoomPhase> {
        self.rooms.get(room).map(|entry| entry.phase)
    }

    /// Whether it has a ticket, and shows it when it comes back.
    #[must_use]
    pub fn has_ticket(&self) -> bool {
        self.session.is_some() && self.frame_token().is_some()
    }

    /// The token for the next upgrade's header.
    #[must_use]
    pub fn header_token(&self) -> Option<&Token> {
        self.token.as_ref().filter(|_| self.settings.token_in == TokenPlace::Header)
    }

    /// Takes a token that may be another user's: a ticket would come before it.
    pub fn set_token(&mut self, token: Token) {
        self.take_token(Some(token));
    }

    /// A connection is wanted.
    pub fn start(&mut self, now: Moment) {
        self.live(life::Event::Connect, now);
    }

    /// A text message came.
    pub fn text(&mut self, text: &str, now: Moment) {
        if self.life.socket != Socket::Open {
            return;
        }
        self.heard(now);
        self.read(text, now);
        self.settle(now);
    }

    /// A binary message came, of which the protocol has none.
    pub fn binary(&mut self, bytes: usize, now: Moment) {
        self.heard(now);
        self.violation(Violation::Binary { bytes });
    }

    /// Something else came.
    pub fn heard(&mut self, now: Moment) {
        self.live(life::Event::Heard, now);
    }

    /// The server could not be heard until now: it can't have been silent, and answers may lie in the socket.
    pub fn reads_again(&mut self, now: Moment) {
        self.heard(now);
        self.requests.put_off_own(now.at.after(self.settings.request_timeout));
    }

    /// The socket is gone, or none came about.
    pub fn lost(&mut self, lost: Lost, now: Moment) {
        let mut lost = self.explain(lost);
        if lost.code == CloseCode::MessageTooBig.number() && self.has_resumed() {
            // Of a server that takes less than the usual: the next time without rooms.
            self.forget_resume();
            lost.again = lost.again.or(Some(true));
        }
        let lost = self.with_another_token(lost);
        self.live(life::Event::Closed(lost), now);
    }

    /// What came is no WebSocket's, or more than may come, and the socket is given up. Once, that was some box's between
    /// client and server; in a row it is the server's, and the end.
    pub fn broken(&mut self, lost: Lost, now: Moment) {
        self.heard(now);
        self.breaks = self.breaks.saturating_add(1);
        let lost = match self.farewell {
            // It has said itself why it ends.
            Some(_) => Lost::broken(lost.reason),
            None => Lost { again: Some(self.breaks < BREAKS_MAX), ..lost },
        };
        self.lost(lost, now);
    }

    /// The client ends: nobody is left without an answer. What is in `out` may still be sent.
    pub fn close(&mut self, now: Moment) {
        self.live(life::Event::Disconnect, now);
        self.effects.clear();
        self.stage = Stage::Offline;
        (self.farewell, self.rings_at) = (None, None);
        self.retries.clear();
        self.rooms.clear();
        self.patterns = Patterns::default();
        self.tokens.give_up();
        for pending in self.requests.take_all() {
            let closed = pending.unpublished().unwrap_or(RequestError::Closed);
            self.resolve(pending, Err(closed));
        }
    }

    /// When to call [`Machine::tick`]. A server that is not being read can't be missed, and is not dialled.
    #[must_use]
    pub fn due(&self, is_reading: bool) -> Option<Monotonic> {
        let farewell = self.farewell.as_ref().map(|farewell| farewell.until);
        let retry = self.retries.due();
        let (pattern, token) = (self.patterns.due(), self.tokens.due());
        let due = [self.rings(is_reading), farewell, retry, pattern, token, self.requests.due()];
        due.into_iter().flatten().min()
    }

    fn rings(&self, is_reading: bool) -> Option<Monotonic> {
        let is_dialing = self.life.socket != Socket::None && self.life.opened_at.is_none();
        self.rings_at.filter(|_| is_reading || is_dialing)
    }

    /// Does what is due.
    pub fn tick(&mut self, is_reading: bool, now: Moment) {
        if self.rings(is_reading).is_some_and(|at| at <= now.at) {
            self.rings_at = None;
            self.live(life::Event::Timer, now);
        }
        if let Some(farewell) = &self.farewell
            && farewell.until <= now.at
        {
            self.verdict = Some(farewell.lost.clone());
        }
        while let Some((id, pending)) = self.requests.take_expired(now.at) {
            self.expired(id, pending, is_reading, now);
        }
        while let Some(frame) = self.requests.next_unheld(now.at) {
            self.out.push(frame);
        }
        self.ask_due(now);
        self.patterns_due(now);
        self.token_due(now);
        self.settle(now);
    }

    /// Gives the connection up if this step found that it has to be.
    fn settle(&mut self, now: Moment) {
        let (frames, bytes) = self.out.size();
        let bytes_max = self.settings.outbox_bytes_max.saturating_mul(2);
        let bytes_max = bytes_max.saturating_add(OUT_BYTES_SPARE);
        if frames > self.settings.outbox_max.saturating_add(OUT_FRAMES_SPARE) || bytes > bytes_max {
            let reason = "the server makes the client speak and does not read";
            self.verdict.get_or_insert_with(|| Lost::broken(reason));
        }
        if let Some(lost) = self.verdict.take() {
            let lost = self.with_another_token(lost);
            self.live(life::Event::Abandon(lost), now);
        }
    }

    /// Lets an event happen in the connection's life.
    fn live(&mut self, event: life::Event, now: Moment) {
        let code = match &event {
            life::Event::Closed(lost) | life::Event::Abandon(lost) => lost.code,
            _ => ABNORMAL,
        };
        if self.life.has_stood(now, &self.settings.life) {
            self.breaks = 0;
        }
        let attempt = self.life.attempts;
        let life = std::mem::take(&mut self.life);
        let (life, effects) = transition(life, event, now, &self.settings.life);
        self.life = life;
        if self.life.socket == Socket::None {
            self.tokens.attempt_over();
        }
        for effect in effects {
            match effect {
                life::Effect::Open => self.dial(),
                life::Effect::Close => self.effects.push_back(Effect::HangUp { code }),
                life::Effect::Ping => {
                    let id = Some(self.requests.next_id());
                    self.out.push_frame(&ClientFrame::Ping { id });
                }
                life::Effect::Timer(after) => {
                    self.rings_at = after.map(|after| now.at.after(after));
                }
                life::Effect::Failed(failure, after) => self.failed(failure, after, attempt),
            }
        }
    }

    /// A connection, or an attempt at one, is over; the next comes after that.
    fn failed(&mut self, failure: Failure, after: Option<Duration>, attempt: u32) {
        let was_online = self.is_online();
        self.leave_connection();
        let (code, class) = (failure.code, failure.class());
        let reason = if code == ABNORMAL { failure.words() } else { failure.reason.clone() };
        let said = reason.clone();
        self.events.push_back(if was_online {
            let will_reconnect = after.is_some();
            Event::Disconnected { code, class, reason, will_reconnect, after }
        } else {
            Event::AttemptFailed { attempt, class, reason, after }
        });
        self.patterns_lost();
        self.effects
            .push_back(Effect::Over { failure, after: after.filter(|_| self.life.ordered) });
        if after.is_none() {
            self.rings_at = None;
            self.effects.push_back(Effect::End { code, reason: said });
        }
    }

    /// The connection is gone, and all that made sense on it only.
    fn leave_connection(&mut self) {
        self.stage = Stage::Offline;
        self.early_hello = None;
        self.farewell = None;
        self.verdict = None;
        self.out.clear();
        self.own_rooms.clear();
        self.tokens.again_at = None;
        for pending in self.requests.take_lost() {
            // Whoever is not connected is in no room.
            let left = matches!(pending.kind, Kind::Unsubscribe(_) | Kind::UnsubscribePattern(_));
            let down = RequestError::Disconnected;
            self.resolve(pending, if left { Ok(Answer::Done) } else { Err(down) });
        }
        self.leave_all();
    }

    /// What the server said about why the connection is over, where the socket says less.
    fn explain(&mut self, lost: Lost) -> Lost {
        let Some(Farewell { lost: said, .. }) = self.farewell.take() else { return lost };
        match lost.code {
            1005 | 1006 => said,
            code => Lost { code, after: said.after, ..lost },
        }
    }

    fn violation(&mut self, violation: Violation) {
        self.events.push_back(Event::Violation(violation));
    }

    /// Answers whoever asked.
    fn resolve(&mut self, pending: Pending<R>, result: Result<Answer, RequestError>) {
        if let Some(reply) = pending.reply {
            self.answers.push_back((reply, result));
        }
    }

    /// How much of each kind it still holds, so that a test sees what leaks.
    #[cfg(test)]
    pub(in crate::client) fn held(&self) -> [usize; 9] {
        [
            self.rooms.len() + self.patterns.len(),
            self.retries.len() + self.patterns.retries(),
            self.requests.held(),
            self.requests.late(),
            usize::from(!self.out.is_empty()),
            self.events.len(),
            self.answers.len(),
            self.effects.len(),
            usize::from(self.rings_at.is_some())
                + usize::from(self.farewell.is_some())
                + self.tokens.held(),
        ]
    }
}
