//! The clients of a crowd: carries texts, time and random numbers to each one's machine, does what it asks for, and counts
//! what the server objects to.
//!
//! It must never wait, and never tell a machine what has not happened.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use domain::client::failure::Failure;
use domain::client::life::{Lost, Moment};
use domain::client::{Answer, Ask, Effect, RequestError, SubscribeOptions, Token};
use domain::protocol::client_event::{Event, Refusal, Violation};
use domain::protocol::{ClientFrame, encode_client};
use domain::room::RoomId;
use domain::time::Monotonic;
use secrecy::ExposeSecret;

use crate::client::{Asked, Client, Manner, REQUEST_TIMEOUT, Step, lost_by};
use crate::error::BenchError;
use crate::line::{End, Heard, Lines};
use crate::messages::{self, Frame, Message};
use crate::plan::Plan;
use crate::random::Random;
use crate::tally::Tally;

/// Which rooms a member joins.
pub(crate) type RoomsOf<'p> = dyn Fn(usize) -> Vec<RoomId> + 'p;

/// Where and when something arrived: all that one read brought arrived at once.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) member: usize,
    pub(crate) at: Instant,
}

/// What arrived.
pub(crate) enum Said<'a> {
    Message(Message<'a>),
    /// Anything else that a client's machine tells.
    Event(&'a Event),
    /// A publish was acknowledged.
    Acked,
    /// A publish was refused.
    Refused(&'a Refusal),
}

/// Whoever gets what arrives.
pub(crate) type Taker<'t> = dyn FnMut(Arrival, Said<'_>) + 't;

/// What is known of them, apart from their lines.
pub(crate) struct Members<'p> {
    pub(crate) plan: &'p Plan,
    manner: Manner,
    rooms_of: Box<RoomsOf<'p>>,
    /// Which of the plan's tokens the first member has.
    first_token: usize,
    pub(crate) clients: Vec<Client>,
    /// Who is looked at again, and when.
    alarms: BTreeSet<(Monotonic, usize)>,
    /// Whose time to dial has come while too many were on their way.
    waiting: VecDeque<usize>,
    /// Whether nobody is told that its line ended.
    pub(crate) keeps_ends: bool,
    pub(crate) inside: usize,
    pub(crate) opening: usize,
    pub(crate) tally: Tally,
    /// Why the first one could not come in.
    pub(crate) refusal: Option<BenchError>,
    /// Where the machines' time begins.
    start: Instant,
    random: Random,
    /// What answers a ping.
    pong: String,
}

impl<'p> Members<'p> {
    /// Nobody yet.
    pub(crate) fn new(
        plan: &'p Plan,
        manner: Manner,
        rooms_of: Box<RoomsOf<'p>>,
        first_token: usize,
    ) -> Self {
        Self {
            plan,
            manner,
            rooms_of,
            first_token,
            clients: Vec::new(),
            alarms: BTreeSet::new(),
            waiting: VecDeque::new(),
            keeps_ends: false,
            inside: 0,
            opening: 0,
            tally: Tally::default(),
            refusal: None,
            start: Instant::now(),
            random: Random::new(plan.seed),
            pong: encode_client(&ClientFrame::Pong),
        }
    }

    /// What a machine is told of the time, with a number drawn for it.
    pub(crate) fn moment(&mut self, at: Instant) -> Moment {
        Moment { at: self.time(at), random: self.random.fraction() }
    }

    fn time(&self, at: Instant) -> Monotonic {
        let since = at.saturating_duration_since(self.start);
        Monotonic::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// One more client, which wants a connection and its rooms.
    pub(crate) fn add(&mut self, lines: &mut Lines, taker: &mut Taker<'_>) {
        let member = self.clients.len();
        let tokens = &self.plan.tokens;
        let token = (!tokens.is_empty()).then(|| {
            Token::new(tokens[(self.first_token + member) % tokens.len()].expose_secret())
        });
        self.clients.push(Client::new(self.manner, token));
        if self.manner == Manner::Verbatim {
            return self.dial(lines, member);
        }
        let arrival = Arrival { member, at: Instant::now() };
        let now = self.moment(arrival.at);
        let rooms = (self.rooms_of)(member);
        let client = &mut self.clients[member];
        client.joining = rooms.len();
        client.machine.start(now);
        for room in rooms {
            let ask = Ask::Subscribe(room, SubscribeOptions::default());
            client.machine.ask(ask, now.at.after(REQUEST_TIMEOUT), Asked::Join, now);
        }
        self.obey(lines, arrival, taker);
    }

    pub(crate) fn hear(
        &mut self,
        lines: &mut Lines,
        arrival: Arrival,
        heard: Heard<'_>,
        taker: &mut Taker<'_>,
    ) {
        let now = self.moment(arrival.at);
        let machine = &mut self.clients[arrival.member].machine;
        match heard {
            Heard::Opened if self.manner == Manner::Verbatim => return self.enter(arrival.member),
            Heard::Opened => machine.opened(now),
            Heard::Text(text) => return self.text(lines, (arrival, now), text, taker),
            Heard::Binary(bytes) => machine.binary(bytes, now),
            Heard::Control => machine.heard(now),
            Heard::Ended(end) => return self.ended(lines, (arrival, now), end, taker),
        }
        self.obey(lines, arrival, taker);
    }

    fn text(
        &mut self,
        lines: &mut Lines,
        (arrival, now): (Arrival, Moment),
        text: &str,
        taker: &mut Taker<'_>,
    ) {
        match self.manner {
            Manner::Verbatim => {
                for text in text.split('\n') {
                    let number = messages::number(text, self.plan.run);
                    taker(arrival, Said::Message(Message { room: "", offset: None, number }));
                }
            }
            Manner::Counting => self.count(lines, (arrival, now), text, taker),
            Manner::Staying | Manner::Returning => {
                self.clients[arrival.member].machine.text(text, now);
                self.obey(lines, arrival, taker);
            }
        }
    }

    /// Counts the messages of a text, and leaves the rest of it to the machine.
    fn count(
        &mut self,
        lines: &mut Lines,
        (arrival, now): (Arrival, Moment),
        text: &str,
        taker: &mut Taker<'_>,
    ) {
        let mut is_told = false;
        for frame in text.split('\n') {
            match messages::scan(frame, self.plan.run) {
                Frame::Message(message) => taker(arrival, Said::Message(message)),
                Frame::Tombstone => {}
                Frame::Other => {
                    self.clients[arrival.member].machine.text(frame, now);
                    is_told = true;
                }
            }
        }
        if is_told {
            self.obey(lines, arrival, taker);
        } else {
            // A server that sends messages is not silent; nothing follows from that.
            self.clients[arrival.member].machine.heard(now);
        }
    }

    fn ended(
        &mut self,
        lines: &mut Lines,
        (arrival, now): (Arrival, Moment),
        end: End,
        taker: &mut Taker<'_>,
    ) {
        let member = arrival.member;
        let lost = lost_by(&end);
        if self.clients[member].step == Step::Opening {
            let addr = lines.target_of(member).addr();
            self.refuse(match end {
                End::Failed(source) => BenchError::of_connect(addr, self.inside, source),
                End::NoUpgrade { answer, .. } => BenchError::Upgrade { number: member, answer },
                End::Closed { code, reason } => BenchError::Closed { number: member, code, reason },
            });
        }
        if self.keeps_ends || self.manner == Manner::Verbatim {
            return self.keep_end(member, lost);
        }
        self.clients[member].machine.lost(lost, now);
        self.obey(lines, arrival, taker);
    }

    /// The first reason why somebody could not come in is told.
    fn refuse(&mut self, why: BenchError) {
        self.refusal.get_or_insert(why);
    }

    /// A line has ended, and its client is not told.
    pub(crate) fn keep_end(&mut self, member: usize, lost: Lost) {
        if self.clients[member].kept.is_none() {
            self.gone(member, lost.code);
            self.clients[member].kept = Some(lost);
        }
    }

    /// A connection, or an attempt at one, is over.
    fn gone(&mut self, member: usize, code: u16) {
        match std::mem::replace(&mut self.clients[member].step, Step::Away) {
            Step::Opening => self.opening -= 1,
            Step::In => self.inside -= 1,
            Step::Away | Step::Out => {}
        }
        self.tally.close(code);
    }

    fn enter(&mut self, member: usize) {
        if self.clients[member].step == Step::Opening {
            self.clients[member].step = Step::In;
            self.opening -= 1;
            self.inside += 1;
        }
    }

    /// Does what a machine asks for, in the order in which it wants it.
    pub(crate) fn obey(&mut self, lines: &mut Lines, arrival: Arrival, taker: &mut Taker<'_>) {
        let member = arrival.member;
        while let Some(effect) = self.clients[member].machine.effects.pop_front() {
            match effect {
                Effect::Dial => self.dial(lines, member),
                Effect::HangUp { .. } => lines.hang_up(member),
                Effect::Over { failure, .. } => self.over(member, &failure),
                Effect::End { .. } => self.clients[member].step = Step::Out,
                // Only asked of whoever says that they bring tokens.
                Effect::BringToken => {}
            }
        }
        while let Some((asked, answer)) = self.clients[member].machine.answers.pop_front() {
            self.answered(arrival, asked, answer, taker);
        }
        while let Some(event) = self.clients[member].machine.events.pop_front() {
            self.told(arrival, &event, taker);
        }
        let out = &mut self.clients[member].machine.out;
        while lines.takes(member)
            && let Some(frame) = out.pop()
        {
            self.tally.pings += u64::from(*frame == *self.pong);
            lines.say(member, &frame);
        }
        self.clients[member].let_go();
        self.set_alarm(member);
    }

    fn dial(&mut self, lines: &mut Lines, member: usize) {
        self.clients[member].step = Step::Opening;
        self.opening += 1;
        let token = self.clients[member].machine.header_token();
        let Err(error) = lines.dial(member, token.map(Token::as_str)) else { return };
        let lost = Lost::broken(error.to_string());
        let addr = lines.target_of(member).addr();
        self.refuse(BenchError::of_connect(addr, member, error));
        let now = self.moment(Instant::now());
        // Of a client without a protocol it is told nothing, and means nothing.
        self.clients[member].machine.lost(lost, now);
    }

    fn over(&mut self, member: usize, failure: &Failure) {
        if self.clients[member].step == Step::Opening {
            let (number, code, reason) = (member, failure.code, failure.words());
            self.refuse(BenchError::Closed { number, code, reason });
        }
        self.gone(member, failure.code);
    }

    fn answered(
        &mut self,
        arrival: Arrival,
        asked: Asked,
        answer: Result<Answer, RequestError>,
        taker: &mut Taker<'_>,
    ) {
        match (asked, answer) {
            (Asked::Join, Ok(_)) => {
                let client = &mut self.clients[arrival.member];
                client.joining = client.joining.saturating_sub(1);
                if client.joining == 0 {
                    self.enter(arrival.member);
                }
            }
            (Asked::Join, Err(RequestError::Refused(refusal))) => {
                self.refused(arrival.member, refusal.code, &refusal.message);
            }
            (Asked::Publish, Ok(_)) => taker(arrival, Said::Acked),
            (Asked::Publish, Err(RequestError::Refused(refusal))) => {
                self.tally.error(refusal.code);
                taker(arrival, Said::Refused(&refusal));
            }
            // What is not answered ends the connection, or is waited for in vain.
            (Asked::Join | Asked::Publish, Err(_)) => {}
        }
    }

    fn refused(&mut self, member: usize, code: u16, message: &str) {
        self.tally.error(code);
        if self.clients[member].step == Step::Opening {
            self.refuse(BenchError::Refused { code, message: message.to_owned() });
        }
    }

    fn told(&mut self, arrival: Arrival, event: &Event, taker: &mut Taker<'_>) {
        match event {
            Event::Message(message) => {
                return taker(arrival, Said::Message(Message::of(message, self.plan.run)));
            }
            Event::Connected(_) if self.clients[arrival.member].joining == 0 => {
                self.enter(arrival.member);
            }
            Event::Refused(refusal) => {
                self.refused(arrival.member, refusal.code, &refusal.message);
            }
            Event::Unsubscribed { code, reason, .. } => {
                let reason = reason.as_deref().unwrap_or_default();
                self.refused(arrival.member, code.unwrap_or_default(), reason);
            }
            // Whoever books what comes counts it.
            Event::Violation(Violation::Duplicate { .. }) => {}
            Event::Violation(violation) if !self.is_blind_to(violation) => {
                self.tally.violation(arrival.member, violation);
            }
            _ => {}
        }
        taker(arrival, Said::Event(event));
    }

    /// Whether the machine can't know: where messages are counted it sees none of them.
    fn is_blind_to(&self, violation: &Violation) -> bool {
        self.manner == Manner::Counting
            && matches!(violation, Violation::Hole { .. } | Violation::WentBack { .. })
    }

    /// Sees to it that a client is looked at when it wants to be. Who is looked at too early is looked at again.
    fn set_alarm(&mut self, member: usize) {
        let client = &mut self.clients[member];
        let Some(due) = client.machine.due(true) else { return };
        if client.alarm.is_none_or(|alarm| due < alarm) {
            if let Some(alarm) = client.alarm.replace(due) {
                self.alarms.remove(&(alarm, member));
            }
            self.alarms.insert((due, member));
        }
    }

    pub(crate) fn next_alarm(&self) -> Option<Instant> {
        let (at, _) = self.alarms.first()?;
        Some(self.start + Duration::from_millis(at.as_millis()))
    }

    /// Lets the time pass for whoever wants that.
    pub(crate) fn ring(&mut self, lines: &mut Lines, taker: &mut Taker<'_>) {
        let at = Instant::now();
        let now = self.time(at);
        while self.opening < self.plan.opening_max
            && let Some(member) = self.waiting.pop_front()
        {
            self.tick(lines, Arrival { member, at }, taker);
        }
        while let Some((alarm, member)) = self.alarms.first().copied()
            && alarm <= now
        {
            self.alarms.pop_first();
            let client = &mut self.clients[member];
            client.alarm = None;
            if client.kept.is_some() {
                // Its time stands still.
            } else if lines.is_free(member) && self.opening >= self.plan.opening_max {
                self.waiting.push_back(member);
            } else {
                self.tick(lines, Arrival { member, at }, taker);
            }
        }
    }

    fn tick(&mut self, lines: &mut Lines, arrival: Arrival, taker: &mut Taker<'_>) {
        let now = self.moment(arrival.at);
        self.clients[arrival.member].machine.tick(true, now);
        self.obey(lines, arrival, taker);
    }
}
