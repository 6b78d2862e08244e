//! What the client decides: texts, commands and the passing of time go in; frames, events and
//! answers come out.
//!
//! It must never read a socket or a clock, and never wait. Its queues are bounded by what one
//! frame of the server's holds (`events`) and by [`Outbound::has_room`] (`out`); whoever drives it
//! hands in the next text only when the events of the last are gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use domain::protocol::{ClientFrame, Resume, TokenText, encode_client, server_event as wire};
use domain::room::RoomId;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::error::RequestError;
use crate::event::{Event, Hello};
use crate::options::{Options, Token, TokenPlace};

mod answers;
mod commands;
mod requests;
mod resume;
mod rooms;
mod track;

pub(crate) use answers::error_chain;
pub(crate) use commands::{Ask, Command};
pub(crate) use requests::Answer;

use requests::{Kind, Requests};
use rooms::Room;

/// How long a server that said `disconnect` has to close.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Lost {
    /// The close code; 1006 when there was none to be heard.
    pub(crate) code: u16,
    pub(crate) reason: String,
    /// When the server wants the client back.
    pub(crate) after: Option<Duration>,
}

impl Lost {
    pub(crate) fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), after: None }
    }

    /// The connection broke without a word.
    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Self::new(1006, reason)
    }
}

/// Where the connection is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// There is none.
    Offline,
    /// It is open, but the server has not said `hello`.
    Greeting {
        /// When to give up.
        until: Instant,
        /// The id of our `connect`, if `hello` has to answer it.
        connect: Option<u64>,
        /// Whether that `connect` asked for more than to be known by the token.
        resumes: bool,
    },
    /// It is up.
    Online {
        since: Instant,
        /// How long the server may be silent.
        silence_max: Duration,
    },
}

/// What the client says at the end of a line that is over.
#[derive(Debug)]
struct Farewell {
    lost: Lost,
    until: Instant,
}

/// Frames on their way out.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    queue: VecDeque<Utf8Bytes>,
    bytes: usize,
    pong_queued: bool,
}

impl Outbound {
    const FRAMES_MAX: usize = 256;
    const BYTES_MAX: usize = 1 << 20;

    /// Whether another command may be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < Self::FRAMES_MAX && self.bytes < Self::BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn pop(&mut self) -> Option<Utf8Bytes> {
        let frame = self.queue.pop_front()?;
        self.bytes -= frame.len();
        // One answer serves all pings before it; a server can't fill the queue with them.
        self.pong_queued = self.pong_queued && !self.queue.is_empty();
        Some(frame)
    }

    fn push(&mut self, frame: Utf8Bytes) {
        self.bytes += frame.len();
        self.queue.push_back(frame);
    }

    fn push_frame(&mut self, frame: &ClientFrame<'_>) {
        self.push(encode_client(frame).into());
    }

    fn push_pong(&mut self) {
        if !self.pong_queued {
            self.push_frame(&ClientFrame::Pong);
            self.pong_queued = true;
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The state of one client.
#[derive(Debug)]
pub(crate) struct Machine {
    stage: Stage,
    rooms: BTreeMap<RoomId, Room>,
    /// Rooms to be joined again, and when.
    retries: BTreeSet<(Instant, RoomId)>,
    /// The rooms that the server put this connection into without being asked.
    own_rooms: BTreeSet<RoomId>,
    requests: Requests,
    token: Option<Token>,
    /// What the server gave to come back with.
    session: Option<Token>,
    /// Whether the last server that greeted us knows `resume`.
    may_resume: bool,
    /// The server's greeting, should it refuse our `connect`.
    early_hello: Option<Hello>,
    farewell: Option<Farewell>,
    heard_at: Instant,
    settings: Settings,
    /// What to send.
    pub(crate) out: Outbound,
    /// What to tell.
    pub(crate) events: VecDeque<Event>,
    /// Set when the connection is to be given up.
    pub(crate) verdict: Option<Lost>,
}

/// The part of [`Options`] that decisions need.
#[derive(Clone, Copy, Debug)]
struct Settings {
    token_in: TokenPlace,
    request_timeout: Duration,
    outbox_max: usize,
    outbox_bytes_max: usize,
}

impl Machine {
    pub(crate) fn new(options: &Options, now: Instant) -> Self {
        Self {
            stage: Stage::Offline,
            rooms: BTreeMap::new(),
            retries: BTreeSet::new(),
            own_rooms: BTreeSet::new(),
            requests: Requests::default(),
            token: options.token.clone(),
            session: None,
            may_resume: false,
            early_hello: None,
            farewell: None,
            heard_at: now,
            settings: Settings {
                token_in: options.token_in,
                request_timeout: options.request_timeout,
                outbox_max: options.outbox_max,
                outbox_bytes_max: options.outbox_bytes_max,
            },
            out: Outbound::default(),
            events: VecDeque::new(),
            verdict: None,
        }
    }

    /// The token for the next upgrade's header.
    pub(crate) fn header_token(&self) -> Option<&Token> {
        self.token.as_ref().filter(|_| self.settings.token_in == TokenPlace::Header)
    }

    /// Takes a token that may be another user's: a ticket would come before it.
    pub(crate) fn set_token(&mut self, token: Token) {
        self.token = Some(token);
        self.session = None;
    }

    pub(crate) fn is_online(&self) -> bool {
        matches!(self.stage, Stage::Online { .. })
    }

    /// The socket is open; `hello` has to come until then.
    pub(crate) fn opened(&mut self, until: Instant, now: Instant) {
        self.heard_at = now;
        self.early_hello = None;
        let resume = if self.may_resume { self.resume() } else { Vec::new() };
        let session = self.frame_token().and(self.session.clone());
        let resumes = !resume.is_empty() || session.is_some();
        let connect = self.send_connect(session.as_ref(), resume, until);
        self.stage = Stage::Greeting { until, connect, resumes };
    }

    /// Whether our `connect` asked for more than to be known by the token.
    pub(crate) const fn has_resumed(&self) -> bool {
        matches!(self.stage, Stage::Greeting { resumes: true, .. })
    }

    /// The next `connect` asks for nothing but to be known by the token.
    pub(crate) fn forget_resume(&mut self) {
        (self.session, self.may_resume) = (None, false);
    }

    /// The token for `connect`.
    fn frame_token(&self) -> Option<&Token> {
        self.token.as_ref().filter(|_| self.settings.token_in == TokenPlace::ConnectFrame)
    }

    /// Says who the client is and where it was, if there is anything to say.
    fn send_connect(
        &mut self,
        session: Option<&Token>,
        resume: Vec<Resume>,
        until: Instant,
    ) -> Option<u64> {
        let text = |token: &Token| TokenText::new(token.as_str().to_owned().into());
        let token = self.frame_token().map(text);
        if token.is_none() && resume.is_empty() {
            return None;
        }
        let id = self.requests.next_id();
        let session = session.map(text);
        self.out.push_frame(&ClientFrame::Connect { id: Some(id), token, session, resume });
        self.requests.insert(id, Kind::Connect, None, until);
        Some(id)
    }

    /// The server refused a `connect` that asked for a ticket or rooms to count: without them, then,
    /// and room by room.
    fn connect_plainly(&mut self, now: Instant) {
        let Stage::Greeting { until, .. } = self.stage else { return };
        self.forget_resume();
        self.rooms_away();
        let connect = self.send_connect(None, Vec::new(), until);
        self.stage = Stage::Greeting { until, connect, resumes: false };
        if connect.is_none()
            && let Some(hello) = self.early_hello.take()
        {
            self.online(hello, Vec::new(), now);
        }
    }

    /// `hello` came: everything that was wanted is asked for, in the order it was wanted.
    fn greeted(
        &mut self,
        id: Option<u64>,
        hello: Hello,
        session: Option<&str>,
        resumed: Vec<wire::EventResumed<'_>>,
        now: Instant,
    ) {
        let Stage::Greeting { connect, .. } = self.stage else { return };
        self.session = session.map(Token::new);
        self.may_resume = hello.features.iter().any(|feature| feature == "resume");
        if connect.is_some() && id != connect {
            // The greeting before our `connect`; its answer is still on its way.
            self.early_hello = Some(hello);
            return;
        }
        if let Some(id) = connect {
            self.requests.take(id);
        }
        self.online(hello, resumed, now);
    }

    fn online(&mut self, hello: Hello, resumed: Vec<wire::EventResumed<'_>>, now: Instant) {
        let silence_max = hello.heartbeat_interval.mul_f64(1.5);
        self.stage = Stage::Online { since: now, silence_max };
        self.early_hello = None;
        let own = hello.rooms.iter().filter_map(|room| RoomId::parse(room).ok());
        self.own_rooms = own.collect();
        self.events.push_back(Event::Connected(hello));
        self.join_away(now);
        self.resumed(resumed, now);
        for frame in self.requests.publish_frames() {
            self.out.push(frame);
        }
    }

    /// The connection is gone. Answers for how long it was up.
    pub(crate) fn lost(&mut self, now: Instant) -> Duration {
        let uptime = match self.stage {
            Stage::Online { since, .. } => now.saturating_duration_since(since),
            Stage::Offline | Stage::Greeting { .. } => Duration::ZERO,
        };
        self.stage = Stage::Offline;
        self.farewell = None;
        self.verdict = None;
        self.out.clear();
        self.requests.release_held();
        for pending in self.requests.take_lost() {
            // Whoever is not connected is in no room.
            let left = matches!(pending.kind, Kind::Unsubscribe(_));
            let down = RequestError::Disconnected;
            pending.resolve(if left { Ok(Answer::Done) } else { Err(down) });
        }
        self.leave_all();
        uptime
    }

    /// What the server said about why the connection is over, where the socket says less.
    pub(crate) fn explain(&mut self, lost: Lost) -> Lost {
        let Some(Farewell { lost: said, .. }) = self.farewell.take() else { return lost };
        match lost.code {
            1005 | 1006 => said,
            code => Lost { code, reason: lost.reason, after: said.after },
        }
    }

    /// The client ends: nobody is left without an answer.
    pub(crate) fn closed(&mut self) {
        for pending in self.requests.take_all() {
            pending.resolve(Err(RequestError::Closed));
        }
    }

    /// Something came, whatever it was.
    pub(crate) const fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// When to call [`Machine::tick`]. A server that is not being read can't be missed.
    pub(crate) fn due(&self, is_reading: bool) -> Option<Instant> {
        let silence = match self.stage {
            Stage::Offline => None,
            Stage::Greeting { until, .. } => Some(until),
            Stage::Online { silence_max, .. } => is_reading.then(|| self.heard_at + silence_max),
        };
        let farewell = self.farewell.as_ref().map(|farewell| farewell.until);
        let retry = self.retries.first().map(|(at, _)| *at);
        [silence, farewell, retry, self.requests.due()].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub(crate) fn tick(&mut self, is_reading: bool, now: Instant) {
        match self.stage {
            Stage::Greeting { until, .. } if until <= now => {
                self.verdict = Some(Lost::broken("no hello came in time"));
            }
            Stage::Online { silence_max, .. }
                if is_reading && self.heard_at + silence_max <= now =>
            {
                self.verdict = Some(Lost::broken("the server was silent for too long"));
            }
            Stage::Offline | Stage::Greeting { .. } | Stage::Online { .. } => {}
        }
        if let Some(farewell) = &self.farewell
            && farewell.until <= now
        {
            self.verdict = Some(farewell.lost.clone());
        }
        while let Some(pending) = self.requests.take_expired(now) {
            self.expired(pending, now);
        }
        while let Some(frame) = self.requests.next_unheld(now) {
            self.out.push(frame);
        }
        self.join_due(now);
    }
}
