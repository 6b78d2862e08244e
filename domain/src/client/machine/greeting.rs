//! The beginning of a connection: who the client says it is and where it was, and what follows the server's greeting.
//!
//! It must never ask for anything before `hello` but to be known and to be back.

use crate::client::life::{self, Moment, Socket};
use crate::client::machine::requests::Kind;
use crate::client::machine::{Machine, Stage};
use crate::client::settings::{Token, TokenPlace};
use crate::protocol::client_event::{Event, Hello};
use crate::protocol::{ClientFrame, Resume, server_event as wire};
use crate::room::RoomId;

impl<R> Machine<R> {
    /// The socket is open.
    pub fn opened(&mut self, now: Moment) {
        self.live(life::Event::Opened, now);
        if self.life.socket != Socket::Open {
            return;
        }
        self.early_hello = None;
        let resume = if self.may_resume { self.resume() } else { Vec::new() };
        let session = self.frame_token().and(self.session.clone());
        let resumes = !resume.is_empty() || session.is_some();
        let connect = self.send_connect(session.as_ref(), resume, now);
        self.stage = Stage::Greeting { connect, resumes };
    }

    /// Whether our `connect` asked for more than to be known by the token.
    pub(super) const fn has_resumed(&self) -> bool {
        matches!(self.stage, Stage::Greeting { resumes: true, .. })
    }

    /// The next `connect` asks for nothing but to be known by the token.
    pub(super) fn forget_resume(&mut self) {
        (self.session, self.may_resume) = (None, false);
    }

    /// The token for `connect`.
    pub(super) fn frame_token(&self) -> Option<&Token> {
        self.token.as_ref().filter(|_| self.settings.token_in == TokenPlace::ConnectFrame)
    }

    /// Says who the client is and where it was, if there is anything to say.
    fn send_connect(
        &mut self,
        session: Option<&Token>,
        resume: Vec<Resume>,
        now: Moment,
    ) -> Option<u64> {
        let token = self.frame_token().cloned();
        if token.is_none() && resume.is_empty() {
            return None;
        }
        let id = self.requests.next_id();
        let (token, session) = (token.as_ref().map(Token::text), session.map(Token::text));
        self.out.push_frame(&ClientFrame::Connect { id: Some(id), token, session, resume });
        let deadline = now.at.after(self.settings.life.connect_timeout);
        self.requests.insert(id, Kind::Connect, None, deadline);
        Some(id)
    }

    /// The server refused a `connect` that asked for a ticket or rooms to count: without them, then,
    /// and room by room.
    pub(super) fn connect_plainly(&mut self, now: Moment) {
        self.forget_resume();
        self.rooms_away();
        let connect = self.send_connect(None, Vec::new(), now);
        self.stage = Stage::Greeting { connect, resumes: false };
        if connect.is_none()
            && let Some(hello) = self.early_hello.take()
        {
            self.online(hello, Vec::new(), now);
        }
    }

    /// `hello` came: everything that was wanted is asked for, in the order it was wanted.
    pub(super) fn greeted(
        &mut self,
        id: Option<u64>,
        hello: Hello,
        session: Option<&str>,
        resumed: Vec<wire::EventResumed<'_>>,
        now: Moment,
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

    fn online(&mut self, hello: Hello, resumed: Vec<wire::EventResumed<'_>>, now: Moment) {
        self.stage = Stage::Online;
        self.early_hello = None;
        self.tokens.greeted();
        let interval = hello.heartbeat_interval.as_millis();
        let heartbeat_ms = u64::try_from(interval).unwrap_or(u64::MAX);
        self.live(life::Event::Greeted { heartbeat_ms }, now);
        let own = hello.rooms.iter().filter_map(|room| RoomId::parse(room).ok());
        self.own_rooms = own.collect();
        self.events.push_back(Event::Connected(hello));
        self.join_away(now);
        for frame in self.requests.publish_frames() {
            self.out.push(self.soil.repeated(frame));
        }
        self.follow_away(now);
        self.resumed(resumed, now);
    }
}
