//! The user of a client: what it wants, and what it makes of what the client tells it. The client is the real one,
//! the machine of `domain::client` that the command line and the load tool have, over virtual time and simulated links.
//!
//! It must never look at a node or at the truth to decide what to do, nor say anything that the machine does not.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use domain::client::backoff::{Backoff, FullJitter};
use domain::client::life::{LifeConfig, Lost, Moment};
use domain::client::planted::Mistake;
use domain::client::{
    Answer, Ask, Effect as Done, Machine, PublishOptions, RequestError, RoomPhase, Settings,
    SubscribeOptions, Token, TokenPlace,
};
use domain::codes::ErrorCode;
use domain::delivery::Class;
use domain::id::{ConnectionId, Epoch, MessageId, MessageKey};
use domain::position::{Offset, Position};
use domain::protocol::client_event::{Event, Refusal};
use domain::room::RoomId;
use domain::time::Monotonic;

use crate::checker::{Checked, View, Violation};
use crate::faults::Effect;
use crate::filtered::{draw_filter, tags_of};
use crate::handed::Handed;
use crate::ports::{Core, REFUSED, WALL_START_MS};
use crate::rng::Rng;

/// How long what is asked may go without an answer: longer than everything takes to heal, so that a command which no
/// server answers is found, and not helped over.
const ANSWER_MS: u64 = 600_000;
/// When somebody who may not be in a room, and was not told for how long, asks again.
const ASK_AGAIN_MS: u64 = 1_500;
/// How many of a hundred connections that are lost take the application with them: what it knew stays, the client is
/// another one.
const RENEWED: u64 = 25;
/// How many of a hundred publishes are given up soon, and published again under the same name.
const IMPATIENT: u64 = 8;
/// A token with less than this is not shown any more.
const TOKEN_LEFT_MS: u64 = 2_000;

/// What a client wants done.
#[derive(Debug)]
pub(crate) enum Wish {
    Send(String),
    /// Ask it again later.
    Wake(u64),
    /// It wants a connection.
    Dial,
    /// It gives its connection up.
    HangUp,
}

/// What a client has at hand while it acts.
pub(crate) struct Scene<'a> {
    pub(crate) now_ms: u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) core: &'a mut Core,
    pub(crate) wishes: &'a mut Vec<Wish>,
    /// Its connection, while it has one.
    pub(crate) at: Option<Place>,
}

/// Where a client is connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) link: usize,
    pub(crate) node: usize,
    pub(crate) id: ConnectionId,
    /// Whether its shard has had more mail than fits, so that presence events may be missing.
    pub(crate) overflowed: bool,
}

impl Scene<'_> {
    /// Now, and what is drawn for it.
    fn moment(&mut self) -> Moment {
        let drawn = u32::try_from(self.rng.bits() >> 32).unwrap_or(0);
        let random = f64::from(drawn) / 4_294_967_296.0;
        Moment { at: Monotonic::from_millis(self.now_ms), random }
    }
}

/// What a command was for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Asked {
    Connect,
    Subscribe(usize),
    Unsubscribe(usize),
    Publish(usize),
    Presence(usize),
    Update(usize),
    History(usize),
    Refresh,
    Ping,
    Status,
}

/// What the application has asked its client for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Want {
    Join(usize),
    Leave,
    Publish(usize),
    /// A token that ends then.
    Refresh(u64),
    Other,
}

/// One message that a client publishes.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) view: usize,
    pub(crate) class: Class,
    pub(crate) echo: bool,
    /// A middleware refuses it whenever it comes.
    pub(crate) refused: bool,
    msg_id: MessageId,
    key: Option<MessageKey>,
    ttl: Option<Duration>,
    pub(crate) data: String,
    /// How often it was sent; over which link first, and behind how many others.
    pub(crate) tries: u32,
    pub(crate) link: usize,
    pub(crate) place: u64,
    /// Acknowledged, or refused for good.
    pub(crate) done: bool,
    pub(crate) at: Option<(Epoch, u64)>,
}

/// A publish under one id, as the line shows it. The client repeats it under the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) sent: usize,
    pub(crate) tries: u32,
    pub(crate) acks: u32,
    pub(crate) errors: u32,
}

thread_local! {
    static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
}

/// Has all clients of this thread make a mistake, or none.
pub(crate) fn plant(mistake: Option<Mistake>) {
    PLANTED.with(|planted| planted.set(mistake));
}

fn built(settings: Settings) -> Machine<u64> {
    let mut machine = Machine::new(settings);
    machine.plant(PLANTED.with(Cell::get));
    machine
}

/// As an application in a hurry would have them: what waits must be over when everything is healed.
fn settings(token_in: TokenPlace) -> Settings {
    let span = Duration::from_millis;
    let (base, cap) = (span(200), span(2_000));
    Settings {
        token: None,
        brings_tokens: false,
        token_in,
        request_timeout: span(ANSWER_MS),
        outbox_max: 1_024,
        outbox_bytes_max: 1 << 20,
        life: LifeConfig {
            connect_timeout: span(10_000),
            heartbeat: true,
            backoff: Backoff::FullJitter(FullJitter { base, cap, attempts_max: None }),
            stable_after: span(5_000),
            probe: span(60_000),
        },
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) user: Option<String>,
    pub(crate) link: Option<usize>,
    pub(crate) machine: Machine<u64>,
    token_in: TokenPlace,
    /// What the machine has not answered yet, by number.
    open: BTreeMap<u64, Want>,
    n_asked: u64,
    /// Whether it is on its way to a node.
    pub(crate) is_dialing: bool,
    /// When it is looked at next; what was planned for another moment is void.
    wake_ms: Option<u64>,
    /// What it was handed of each room.
    pub(crate) handed: Vec<Handed>,
    /// Rooms that it was put out of or refused are asked for again then.
    again_ms: Vec<u64>,
    /// What is to be published again, and when.
    unsaid: BTreeSet<(u64, usize)>,
    /// Whether the line has shown that it was greeted.
    pub(crate) greeted: bool,
    pub(crate) buffer: Vec<u8>,
    /// What the line has shown of each room.
    pub(crate) views: Vec<View>,
    pub(crate) sent: Vec<Sent>,
    /// How many messages it has sent at least once.
    pub(crate) n_said: u64,
    /// What was published on this connection, by the commands' ids.
    pub(crate) published: BTreeMap<u64, Said>,
    /// Commands of this connection that are not answered yet.
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// When a command of this connection was sent, answered or not.
    pub(crate) asked_ms: BTreeMap<u64, u64>,
    pub(crate) come_back_ms: Option<u64>,
    pub(crate) token_life_ms: u64,
    pub(crate) refreshes: bool,
    /// It goes for good: nothing is wanted any more.
    pub(crate) leaving: bool,
    /// Told not to come back, or not begun yet; its user brings it back some time.
    pub(crate) rests: bool,
    /// Whether its tokens count once, how many it had, and when the last one ends.
    pub(crate) once: bool,
    tokens: u64,
    token_ends_ms: u64,
}

impl Client {
    pub(crate) fn new(
        index: usize,
        user: Option<String>,
        rooms: &[RoomId],
        once: bool,
        rng: &mut Rng,
    ) -> Self {
        let mut views: Vec<View> = rooms.iter().cloned().map(View::new).collect();
        for view in &mut views {
            view.wanted = rng.percent(60);
            view.filter = draw_filter(rng);
        }
        let token_life_ms = if rng.percent(30) { rng.between(12_000, 40_000) } else { 3_600_000 };
        // Each connection shows the header's token again: the application sees to it that it is another one.
        let is_in_header = once || rng.percent(50);
        let token_in = if is_in_header { TokenPlace::Header } else { TokenPlace::ConnectFrame };
        Self {
            index,
            user,
            link: None,
            machine: built(settings(token_in)),
            token_in,
            open: BTreeMap::new(),
            n_asked: 0,
            is_dialing: false,
            wake_ms: None,
            handed: views.iter().map(|_| Handed::default()).collect(),
            again_ms: vec![0; views.len()],
            unsaid: BTreeSet::new(),
            greeted: false,
            buffer: Vec::new(),
            views,
            sent: Vec::new(),
            n_said: 0,
            published: BTreeMap::new(),
            asked: BTreeMap::new(),
            asked_ms: BTreeMap::new(),
            come_back_ms: None,
            token_life_ms,
            refreshes: rng.percent(70),
            leaving: false,
            rests: true,
            once,
            tokens: 0,
            token_ends_ms: 0,
        }
    }

    /// A fresh one, and when it ends.
    fn token(&mut self, now_ms: u64) -> Option<(Token, u64)> {
        let user = self.user.as_ref()?;
        let ends_ms = now_ms + self.token_life_ms;
        let ends = WALL_START_MS.cast_unsigned() + ends_ms;
        self.tokens += 1;
        let id =
            if self.once { format!(":t{}-{}", self.index, self.tokens) } else { String::new() };
        Some((Token::new(&format!("user:{user}:{ends}{id}")), ends_ms))
    }

    /// From now on its client shows another token, and no ticket of before.
    fn change_token(&mut self, now_ms: u64) {
        if let Some((token, ends_ms)) = self.token(now_ms) {
            self.machine.set_token(token);
            self.token_ends_ms = ends_ms;
        }
    }

    /// Its user opens it.
    pub(crate) fn start(&mut self, scene: &mut Scene<'_>) -> Checked {
        self.rests = false;
        self.machine.start(scene.moment());
        self.settle(scene)
    }

    /// A node takes it.
    pub(crate) fn opened(&mut self, scene: &mut Scene<'_>) -> Checked {
        self.is_dialing = false;
        self.machine.opened(scene.moment());
        self.settle(scene)
    }

    /// The connection is gone, or none came about.
    pub(crate) fn lost(&mut self, lost: Lost, scene: &mut Scene<'_>) -> Checked {
        let was_connected = self.link.is_some();
        self.is_dialing = false;
        self.disconnected();
        let now = scene.moment();
        if self.leaving {
            self.machine.close(now);
            return self.settle(scene);
        }
        self.machine.lost(lost, now);
        self.settle(scene)?;
        if was_connected && !self.rests && scene.rng.percent(RENEWED) {
            scene.core.counts.effect(Effect::ClientRenewed);
            self.renew(scene)?;
            return self.start(scene);
        }
        Ok(())
    }

    /// The client ends, and another one takes its place that is told what the application knows.
    fn renew(&mut self, scene: &mut Scene<'_>) -> Checked {
        self.machine.close(scene.moment());
        self.take_answers(scene)?;
        if let Some(want) = self.open.first_key_value() {
            let text = format!("client {} was closed without an answer to {want:?}", self.index);
            return Err(Violation::new("I23", text));
        }
        self.machine = built(settings(self.token_in));
        self.handed.iter_mut().for_each(Handed::on_disconnected);
        self.again_ms.fill(0);
        self.token_ends_ms = 0;
        Ok(())
    }

    /// The line is cut. What it showed last was of another connection.
    pub(crate) fn disconnected(&mut self) {
        self.link = None;
        self.greeted = false;
        self.come_back_ms = None;
        self.buffer.clear();
        self.asked.clear();
        self.asked_ms.clear();
        self.published.clear();
        self.views.iter_mut().for_each(View::disconnect);
    }

    /// Time has passed.
    pub(crate) fn wake(&mut self, scene: &mut Scene<'_>) -> Checked {
        if self.wake_ms != Some(scene.now_ms) {
            return Ok(());
        }
        self.wake_ms = None;
        self.machine.tick(true, scene.moment());
        self.settle(scene)
    }

    /// A whole frame has come.
    pub(crate) fn take(&mut self, frame: &str, scene: &mut Scene<'_>) -> Checked {
        self.machine.text(frame, scene.moment());
        self.settle(scene)
    }

    /// When it is to be looked at again, if that is not planned.
    pub(crate) fn plan(&mut self, scene: &mut Scene<'_>) {
        let rooms = self.views.iter().zip(&self.again_ms);
        let rooms = rooms.filter(|(view, again_ms)| view.wanted && **again_ms > scene.now_ms);
        let rooms = rooms.map(|(_, again_ms)| *again_ms).min();
        let unsaid = self.unsaid.first().map(|(at_ms, _)| *at_ms);
        let due = self.machine.due(true).map(Monotonic::as_millis);
        let Some(at_ms) = [rooms, unsaid, due].into_iter().flatten().min() else { return };
        let at_ms = at_ms.max(scene.now_ms);
        if self.wake_ms.is_none_or(|planned| planned > at_ms) {
            self.wake_ms = Some(at_ms);
            scene.wishes.push(Wish::Wake(at_ms));
        }
    }

    /// Carries out what the machine wants, until it wants nothing more.
    pub(crate) fn settle(&mut self, scene: &mut Scene<'_>) -> Checked {
        loop {
            while let Some(event) = self.machine.events.pop_front() {
                self.told(event, scene)?;
            }
            self.take_answers(scene)?;
            self.reconcile(scene);
            if self.machine.events.is_empty() && self.machine.answers.is_empty() {
                break;
            }
        }
        while let Some(frame) = self.machine.out.pop() {
            self.on_said(&frame, scene)?;
            scene.wishes.push(Wish::Send(frame.as_ref().to_owned()));
        }
        while let Some(effect) = self.machine.effects.pop_front() {
            match effect {
                Done::Dial => self.dial(scene),
                Done::HangUp { .. } => {
                    scene.core.counts.effect(Effect::HungUp);
                    scene.wishes.push(Wish::HangUp);
                    self.disconnected();
                }
                Done::Over { .. } => {}
                Done::BringToken => {
                    let text = format!("client {} asks for a token, as nobody told it", self.index);
                    return Err(Violation::new("I23", text));
                }
                Done::End { .. } => {
                    self.renew(scene)?;
                    self.rests = true;
                }
            }
        }
        Ok(())
    }

    fn dial(&mut self, scene: &mut Scene<'_>) {
        self.is_dialing = true;
        if self.once || self.token_ends_ms < scene.now_ms + TOKEN_LEFT_MS {
            self.change_token(scene.now_ms);
        }
        scene.wishes.push(Wish::Dial);
    }

    fn take_answers(&mut self, scene: &mut Scene<'_>) -> Checked {
        while let Some((number, answer)) = self.machine.answers.pop_front() {
            let Some(want) = self.open.remove(&number) else {
                let text = format!("client {}: {answer:?} answers nothing", self.index);
                return Err(Violation::new("I23", text));
            };
            self.answered(want, answer, scene)?;
        }
        Ok(())
    }

    fn answered(
        &mut self,
        want: Want,
        answer: Result<Answer, RequestError>,
        scene: &mut Scene<'_>,
    ) -> Checked {
        let is_forbidden = |refusal: &Refusal| refusal.code == ErrorCode::PermissionDenied.number();
        match (want, answer) {
            (Want::Publish(sent), Ok(Answer::Acked(_))) => self.sent[sent].done = true,
            (Want::Publish(sent), Err(RequestError::Refused(refusal)))
                if is_forbidden(&refusal) =>
            {
                self.sent[sent].done = true;
            }
            (
                Want::Publish(sent),
                Err(RequestError::NotSent { .. } | RequestError::Unanswered { .. }),
            ) => {
                scene.core.counts.effect(Effect::PublishedAgain);
                self.unsaid.insert((scene.now_ms + scene.rng.below(400), sent));
            }
            (Want::Refresh(ends_ms), Ok(Answer::Refreshed(_))) => self.token_ends_ms = ends_ms,
            (Want::Join(view), Err(RequestError::Refused(refusal))) => {
                let wait_ms = refusal.retry_after_ms.unwrap_or(ASK_AGAIN_MS);
                self.again_ms[view] = scene.now_ms + wait_ms + scene.rng.below(200);
            }
            (Want::Join(_), Ok(Answer::Subscribed(_)) | Err(RequestError::Unsubscribed))
            | (Want::Leave, Ok(Answer::Done))
            | (Want::Other, Ok(_))
            | (Want::Other | Want::Refresh(_), Err(RequestError::Refused(_)))
            | (Want::Other | Want::Refresh(_), Err(RequestError::Disconnected))
            | (_, Err(RequestError::Closed)) => {}
            (want, answer) => {
                let text = format!("client {}: {want:?} was answered {answer:?}", self.index);
                return Err(Violation::new("I23", text));
            }
        }
        Ok(())
    }

    fn told(&mut self, event: Event, scene: &mut Scene<'_>) -> Checked {
        match &event {
            Event::TokenExpiring { .. } if self.refreshes => self.refresh(scene),
            Event::Unsubscribed { room, .. } => {
                if let Some(view) = self.views.iter().position(|view| view.room == *room) {
                    self.again_ms[view] = scene.now_ms + ASK_AGAIN_MS + scene.rng.below(200);
                }
            }
            _ => {}
        }
        self.on_handed(event, scene)
    }

    fn ask(&mut self, want: Want, ask: Ask, wait_ms: u64, scene: &mut Scene<'_>) {
        self.n_asked += 1;
        self.open.insert(self.n_asked, want);
        let deadline = Monotonic::from_millis(scene.now_ms + wait_ms);
        self.machine.ask(ask, deadline, self.n_asked, scene.moment());
    }

    /// Asks for everything that is wanted and not under way.
    fn reconcile(&mut self, scene: &mut Scene<'_>) {
        if self.leaving {
            return;
        }
        for view in 0..self.views.len() {
            let seen = &self.views[view];
            let is_away = seen.wanted && self.machine.room_phase(&seen.room).is_none();
            if is_away && self.again_ms[view] <= scene.now_ms {
                self.subscribe(view, scene);
            }
        }
        while let Some((at_ms, sent)) = self.unsaid.first().copied()
            && at_ms <= scene.now_ms
        {
            self.unsaid.pop_first();
            self.publish(sent, scene);
        }
    }

    fn subscribe(&mut self, view: usize, scene: &mut Scene<'_>) {
        let seen = &self.views[view];
        let presence = seen.listed && scene.rng.percent(70);
        let (room, filter) = (seen.room.clone(), seen.filter.clone());
        let options = SubscribeOptions { since: self.handed[view].position(), presence, filter };
        self.ask(Want::Join(view), Ask::Subscribe(room, options), ANSWER_MS, scene);
    }

    fn publish(&mut self, index: usize, scene: &mut Scene<'_>) {
        let sent = &self.sent[index];
        let options = PublishOptions {
            msg_id: None,
            echo: sent.echo,
            class: Some(sent.class),
            key: sent.key.clone(),
            ttl: sent.ttl,
            tags: tags_of(&sent.data),
        };
        let (room, data) = (self.views[sent.view].room.clone(), sent.data.clone());
        let ask = Ask::Publish { room, data, msg_id: sent.msg_id.clone(), options };
        let is_impatient = scene.rng.percent(IMPATIENT);
        let wait_ms = if is_impatient { scene.rng.between(5, 2_000) } else { ANSWER_MS };
        self.ask(Want::Publish(index), ask, wait_ms, scene);
    }

    pub(crate) fn refresh(&mut self, scene: &mut Scene<'_>) {
        if let Some((token, ends_ms)) = self.token(scene.now_ms) {
            self.ask(Want::Refresh(ends_ms), Ask::Refresh(token), ANSWER_MS, scene);
        }
    }

    /// Nothing goes wrong any more, and its token is one that lasts.
    pub(crate) fn heal(&mut self, scene: &mut Scene<'_>) -> Checked {
        self.token_life_ms = 3_600_000;
        // One may be on its way in with a token of the short kind.
        self.refreshes = true;
        self.change_token(scene.now_ms);
        if self.greeted {
            self.refresh(scene);
        }
        self.settle(scene)
    }

    /// Does something that users do; without a connection, what may wait for one.
    pub(crate) fn act(&mut self, scene: &mut Scene<'_>) -> Checked {
        let view = scene.rng.index(self.views.len());
        let refused = scene.core.censored && scene.rng.percent(5);
        let is_in = self.phase(view) == Some(RoomPhase::Joined);
        let is_listed = self.views[view].listed && is_in;
        let room = self.views[view].room.clone();
        match scene.rng.below(100) {
            0..48 => drop(self.say(view, Class::Reliable, refused, scene)),
            48..53 => {
                for _ in 0..scene.rng.between(3, 10) {
                    drop(self.say(view, Class::Reliable, false, scene));
                }
            }
            53..61 => drop(self.say(view, Class::Latest, refused, scene)),
            61..65 => drop(self.say(view, Class::Droppable, refused, scene)),
            65..79 => self.come_or_go(view, scene),
            79..82 if is_listed => {
                self.ask(Want::Other, Ask::Presence(room), ANSWER_MS, scene);
            }
            82..89 if is_listed => {
                let data = format!("{{\"mood\":{}}}", scene.rng.below(9));
                self.update_presence(view, data, scene);
            }
            89..95 => {
                let since = self.handed[view].at.filter(|_| scene.rng.percent(50));
                let since = since.and_then(|(epoch, offset)| {
                    Some(Position { epoch, offset: Offset::parse(offset / 2).ok()? })
                });
                let limit = u32::try_from(scene.rng.between(1, 30)).unwrap_or(1);
                self.ask(Want::Other, Ask::History { room, since, limit }, ANSWER_MS, scene);
            }
            95..98 => self.ask(Want::Other, Ask::Ping, ANSWER_MS, scene),
            _ => self.ask(Want::Other, Ask::Status, ANSWER_MS, scene),
        }
        self.settle(scene)
    }

    pub(crate) fn phase(&self, view: usize) -> Option<RoomPhase> {
        self.machine.room_phase(&self.views[view].room)
    }

    pub(crate) fn update_presence(&mut self, view: usize, data: String, scene: &mut Scene<'_>) {
        let room = self.views[view].room.clone();
        self.ask(Want::Other, Ask::PresenceUpdate { room, data }, ANSWER_MS, scene);
    }

    fn come_or_go(&mut self, view: usize, scene: &mut Scene<'_>) {
        match self.phase(view) {
            None => {
                self.views[view].wanted = true;
                // Sometimes the past is of no interest.
                if scene.rng.percent(20) {
                    self.handed[view].at = None;
                }
            }
            Some(RoomPhase::Joined) => {
                self.views[view].wanted = scene.rng.percent(50);
                self.unsubscribe(view, scene);
            }
            Some(RoomPhase::Joining | RoomPhase::Leaving | RoomPhase::Away) => {}
        }
    }

    pub(crate) fn unsubscribe(&mut self, view: usize, scene: &mut Scene<'_>) {
        self.handed[view].on_disconnected();
        let room = self.views[view].room.clone();
        self.ask(Want::Leave, Ask::Unsubscribe(room), ANSWER_MS, scene);
    }

    /// What nobody has answered, if there is something.
    pub(crate) fn unanswered(&self) -> Option<String> {
        let open = self.open.first_key_value().map(|want| format!("{want:?} has no answer"));
        let asked = self.asked.first_key_value();
        let line = asked.map(|(id, asked)| format!("command {id} has no answer: {asked:?}"));
        line.or(open)
    }

    /// Publishes something new.
    pub(crate) fn say(
        &mut self,
        view: usize,
        class: Class,
        refused: bool,
        scene: &mut Scene<'_>,
    ) -> String {
        let number = self.index * SENT_MAX + self.sent.len();
        let long = if scene.rng.percent(5) { 700 } else { 60 };
        let padding = "x".repeat(scene.rng.index(long));
        let mark = if refused { format!(",{REFUSED}") } else { String::new() };
        let data = format!("{{\"n\":{number},\"p\":\"{padding}\"{mark}}}");
        let latest = class == Class::Latest;
        let key = latest.then(|| format!("k{}", scene.rng.below(3)));
        if !refused {
            let room = self.views[view].room.clone();
            scene.core.sent.insert((room, Bytes::copy_from_slice(data.as_bytes())));
        }
        if self.link.is_none() {
            scene.core.counts.effect(Effect::SaidOffline);
        }
        self.sent.push(Sent {
            view,
            class,
            echo: scene.rng.percent(65),
            refused,
            msg_id: MessageId::parse(&format!("m{number}")).expect("printable"),
            key: key.map(|key| MessageKey::parse(&key).expect("printable")),
            ttl: scene.rng.percent(6).then(|| Duration::from_millis(scene.rng.between(200, 6_000))),
            data: data.clone(),
            tries: 0,
            link: 0,
            place: 0,
            done: false,
            at: None,
        });
        self.publish(self.sent.len() - 1, scene);
        data
    }

    /// Which message of this client's this is the data of.
    pub(crate) fn sent_as(&self, data: &str) -> Option<usize> {
        let rest = data.strip_prefix("{\"n\":")?;
        let number: usize = rest.split_once(',')?.0.parse().ok()?;
        let (client, sent) = (number / SENT_MAX, number % SENT_MAX);
        (client == self.index && sent < self.sent.len()).then_some(sent)
    }
}

/// More than a client says.
const SENT_MAX: usize = 100_000;
