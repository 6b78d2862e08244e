//! A client that behaves as the documents say: it tracks positions, comes back by the code's
//! range, names where it stands, and sends again under the same `msg_id` what was not answered.
//!
//! It must never look at a node or at the truth to decide what to do.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ConnectionId, Epoch, MessageId, MessageKey};
use domain::position::{Offset, Position};
use domain::protocol::{ClientFrame, Resume, TokenText, encode_client};
use domain::room::RoomId;

use crate::checker::{Stage, View};
use crate::filtered::{draw_filter, tags_of};
use crate::ports::{Core, REFUSED, WALL_START_MS};
use crate::rng::Rng;

/// What a client wants done.
#[derive(Debug)]
pub(crate) enum Wish {
    Send(String),
    /// Ask it again later.
    Wake(u64),
}

/// What a client has at hand while it acts.
pub(crate) struct Scene<'a> {
    pub(crate) now_ms: u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) core: &'a mut Core,
    pub(crate) wishes: &'a mut Vec<Wish>,
    /// Its connection.
    pub(crate) link: usize,
    pub(crate) node: usize,
    pub(crate) id: ConnectionId,
    /// Whether its shard has had more mail than fits, so that presence events may be missing.
    pub(crate) overflowed: bool,
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

/// One message that a client publishes.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) view: usize,
    pub(crate) class: Class,
    pub(crate) echo: bool,
    /// A middleware refuses it whenever it comes.
    pub(crate) refused: bool,
    msg_id: Option<MessageId>,
    key: Option<MessageKey>,
    ttl: Option<Duration>,
    pub(crate) data: String,
    pub(crate) tries: u32,
    /// Over which link it went first.
    pub(crate) link: usize,
    /// Acknowledged, or given up because it has no `msg_id`.
    pub(crate) done: bool,
    pub(crate) at: Option<(Epoch, u64)>,
    retry_ms: u64,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) user: Option<String>,
    pub(crate) link: Option<usize>,
    pub(crate) greeted: bool,
    /// The ticket of the last `hello`.
    pub(crate) session: Option<String>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) views: Vec<View>,
    retry_ms: Vec<u64>,
    pub(crate) sent: Vec<Sent>,
    /// Which message a command published, and whether it was acknowledged.
    pub(crate) published: BTreeMap<u64, (usize, bool)>,
    /// Commands of this connection that are not answered yet.
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// When a command of this connection was sent, answered or not.
    pub(crate) asked_ms: BTreeMap<u64, u64>,
    next_id: u64,
    pub(crate) heard_ms: u64,
    pub(crate) come_back_ms: Option<u64>,
    pub(crate) token_life_ms: u64,
    pub(crate) refreshes: bool,
    /// It goes for good: nothing is wanted any more.
    pub(crate) leaving: bool,
    /// Told not to come back; its user brings it back some time.
    pub(crate) rests: bool,
    /// Whether its tokens count once, and how many it had.
    pub(crate) once: bool,
    tokens: u64,
}

impl Client {
    pub(crate) fn new(index: usize, user: Option<String>, rooms: &[RoomId], rng: &mut Rng) -> Self {
        let mut views: Vec<View> = rooms.iter().cloned().map(View::new).collect();
        for view in &mut views {
            view.wanted = rng.percent(60);
            view.filter = draw_filter(rng);
        }
        let token_life_ms = if rng.percent(30) { rng.between(12_000, 40_000) } else { 3_600_000 };
        Self {
            index,
            user,
            link: None,
            greeted: false,
            session: None,
            buffer: Vec::new(),
            retry_ms: vec![0; views.len()],
            views,
            sent: Vec::new(),
            published: BTreeMap::new(),
            asked: BTreeMap::new(),
            asked_ms: BTreeMap::new(),
            next_id: 0,
            heard_ms: 0,
            come_back_ms: None,
            token_life_ms,
            refreshes: rng.percent(70),
            leaving: false,
            rests: false,
            once: false,
            tokens: 0,
        }
    }

    /// A fresh one.
    pub(crate) fn token(&mut self, now_ms: u64) -> Option<String> {
        let user = self.user.as_ref()?;
        let ends = WALL_START_MS.cast_unsigned() + now_ms + self.token_life_ms;
        self.tokens += 1;
        let id =
            if self.once { format!(":t{}-{}", self.index, self.tokens) } else { String::new() };
        Some(format!("user:{user}:{ends}{id}"))
    }

    /// The connection is gone. What was not answered is asked again on the next one.
    pub(crate) fn disconnected(&mut self) {
        self.link = None;
        self.greeted = false;
        self.buffer.clear();
        self.asked.clear();
        self.asked_ms.clear();
        self.views.iter_mut().for_each(View::disconnect);
        self.retry_ms.fill(0);
        for sent in &mut self.sent {
            sent.done |= sent.tries > 0 && sent.msg_id.is_none();
            sent.retry_ms = 0;
        }
    }

    pub(crate) fn send(&mut self, asked: Asked, frame: &ClientFrame<'_>, scene: &mut Scene<'_>) {
        if let Some(id) = frame.id() {
            self.asked.insert(id, asked);
            self.asked_ms.insert(id, scene.now_ms);
        }
        scene.wishes.push(Wish::Send(encode_client(frame)));
    }

    pub(crate) fn next_id(&mut self) -> Option<u64> {
        self.next_id += 1;
        Some(self.next_id)
    }

    /// Asks for everything that is wanted and not under way.
    pub(crate) fn reconcile(&mut self, scene: &mut Scene<'_>) {
        if !self.greeted {
            return;
        }
        for view in 0..self.views.len() {
            let off = self.views[view].wanted && self.views[view].stage == Stage::Off;
            if off && self.retry_ms[view] <= scene.now_ms {
                self.subscribe(view, scene);
            }
            let seen = &self.views[view];
            let is_blind = seen.present.followed && seen.present.members.is_none();
            if seen.stage == Stage::On && is_blind && self.retry_ms[view] <= scene.now_ms {
                self.ask_presence(view, scene);
            }
        }
        for sent in 0..self.sent.len() {
            let waits = self.asked.values().any(|asked| *asked == Asked::Publish(sent));
            if !self.sent[sent].done && !waits && self.sent[sent].retry_ms <= scene.now_ms {
                self.publish(sent, scene);
            }
        }
    }

    /// Whether there are rooms to come back to.
    pub(crate) fn may_resume(&self) -> bool {
        self.views.iter().any(|view| view.wanted && view.at.is_some())
    }

    /// Says where it was, and who it is if no token came with the upgrade.
    pub(crate) fn resume(&mut self, with_ticket: bool, scene: &mut Scene<'_>) {
        let mut resume = Vec::new();
        for view in &mut self.views {
            let Some((epoch, offset)) = view.at.filter(|_| view.wanted) else { continue };
            let Ok(offset) = Offset::parse(offset) else { continue };
            view.stage = Stage::Joining { named: true, gap: false };
            view.asked_ms = scene.now_ms;
            view.present.followed = view.listed && scene.rng.percent(70);
            let (room, presence) = (view.room.clone(), view.present.followed);
            let (since, filter) = (Position { epoch, offset }, view.filter.clone());
            resume.push(Resume { room, since, presence, filter });
        }
        let text = |text: String| TokenText::new(Cow::Owned(text));
        let session = self.session.clone().filter(|_| with_ticket).map(text);
        let token = self.token(scene.now_ms).filter(|_| with_ticket).map(text);
        let frame = ClientFrame::Connect { id: self.next_id(), token, session, resume };
        self.send(Asked::Connect, &frame, scene);
    }

    fn subscribe(&mut self, view: usize, scene: &mut Scene<'_>) {
        let id = self.next_id();
        let seen = &mut self.views[view];
        let since = seen.at.and_then(|(epoch, offset)| {
            Some(Position { epoch, offset: Offset::parse(offset).ok()? })
        });
        seen.stage = Stage::Joining { named: since.is_some(), gap: false };
        seen.asked_ms = scene.now_ms;
        seen.present.followed = seen.listed && scene.rng.percent(70);
        let (room, presence) = (seen.room.clone(), seen.present.followed);
        let filter = seen.filter.clone();
        let frame = ClientFrame::Subscribe { id, room, since, presence, filter };
        self.send(Asked::Subscribe(view), &frame, scene);
    }

    fn publish(&mut self, index: usize, scene: &mut Scene<'_>) {
        let Some(id) = self.next_id() else { return };
        self.published.insert(id, (index, false));
        let sent = &mut self.sent[index];
        sent.tries += 1;
        if sent.tries == 1 {
            sent.link = scene.link;
        }
        let frame = ClientFrame::Publish {
            id: Some(id),
            room: self.views[sent.view].room.clone(),
            data: &sent.data.clone(),
            msg_id: sent.msg_id.clone(),
            echo: sent.echo,
            class: Some(sent.class),
            key: sent.key.clone(),
            ttl: sent.ttl,
            tags: tags_of(&sent.data),
            trace: None,
        };
        self.send(Asked::Publish(index), &frame, scene);
    }

    /// A command of this view, or a publish, is to be asked again after a while.
    pub(crate) fn retry(&mut self, asked: Asked, wait_ms: u64, scene: &mut Scene<'_>) {
        let at = scene.now_ms + wait_ms + scene.rng.below(200);
        match asked {
            Asked::Subscribe(view) => {
                self.views[view].stage = Stage::Off;
                self.retry_ms[view] = at;
            }
            Asked::Unsubscribe(view) => {
                // It is still there, and stays.
                self.views[view].stage = Stage::On;
                self.views[view].wanted = true;
            }
            Asked::Presence(view) => {
                self.views[view].present.asked = false;
                self.retry_ms[view] = at;
            }
            Asked::Publish(sent) if self.sent[sent].msg_id.is_none() => self.sent[sent].done = true,
            Asked::Publish(sent) => self.sent[sent].retry_ms = at,
            _ => return,
        }
        scene.wishes.push(Wish::Wake(at));
    }

    pub(crate) fn ask_presence(&mut self, view: usize, scene: &mut Scene<'_>) {
        if !self.views[view].present.asked {
            self.views[view].present.asked = true;
            let frame =
                ClientFrame::Presence { id: self.next_id(), room: self.views[view].room.clone() };
            self.send(Asked::Presence(view), &frame, scene);
        }
    }

    pub(crate) fn refresh(&mut self, scene: &mut Scene<'_>) {
        if let Some(token) = self.token(scene.now_ms) {
            let token = TokenText::new(Cow::Owned(token));
            let frame = ClientFrame::Refresh { id: self.next_id(), token };
            self.send(Asked::Refresh, &frame, scene);
        }
    }

    /// Does something that users do.
    pub(crate) fn act(&mut self, scene: &mut Scene<'_>) {
        let view = scene.rng.index(self.views.len());
        let refused = scene.core.censored && scene.rng.percent(5);
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
            79..82 if self.is_listed(view) => self.ask_presence(view, scene),
            82..89 if self.is_listed(view) => {
                let data = format!("{{\"mood\":{}}}", scene.rng.below(9));
                self.update_presence(view, &data, scene);
            }
            89..95 => {
                let since = self.views[view].at.filter(|_| scene.rng.percent(50));
                let since = since.and_then(|(epoch, offset)| {
                    Some(Position { epoch, offset: Offset::parse(offset / 2).ok()? })
                });
                let limit = u32::try_from(scene.rng.between(1, 30)).unwrap_or(1);
                let room = self.views[view].room.clone();
                let frame = ClientFrame::History { id: self.next_id(), room, since, limit };
                self.send(Asked::History(view), &frame, scene);
            }
            95..98 => {
                let frame = ClientFrame::Ping { id: self.next_id() };
                self.send(Asked::Ping, &frame, scene);
            }
            _ => {
                let frame = ClientFrame::Status { id: self.next_id() };
                self.send(Asked::Status, &frame, scene);
            }
        }
    }

    fn is_listed(&self, view: usize) -> bool {
        self.views[view].listed && self.views[view].stage == Stage::On
    }

    pub(crate) fn update_presence(&mut self, view: usize, data: &str, scene: &mut Scene<'_>) {
        let room = self.views[view].room.clone();
        let frame = ClientFrame::PresenceUpdate { id: self.next_id(), room, data };
        self.send(Asked::Update(view), &frame, scene);
    }

    fn come_or_go(&mut self, view: usize, scene: &mut Scene<'_>) {
        match self.views[view].stage {
            Stage::Off => {
                self.views[view].wanted = true;
                // Sometimes the past is of no interest.
                if scene.rng.percent(20) {
                    self.views[view].at = None;
                }
                self.reconcile(scene);
            }
            Stage::On => {
                self.views[view].wanted = scene.rng.percent(50);
                self.unsubscribe(view, scene);
            }
            Stage::Joining { .. } | Stage::Leaving => {}
        }
    }

    pub(crate) fn unsubscribe(&mut self, view: usize, scene: &mut Scene<'_>) {
        self.views[view].stage = Stage::Leaving;
        let room = self.views[view].room.clone();
        let frame = ClientFrame::Unsubscribe { id: self.next_id(), room };
        self.send(Asked::Unsubscribe(view), &frame, scene);
    }

    /// Publishes something new.
    pub(crate) fn say(
        &mut self,
        view: usize,
        class: Class,
        refused: bool,
        scene: &mut Scene<'_>,
    ) -> String {
        let number = self.index * 100_000 + self.sent.len();
        let long = if scene.rng.percent(5) { 700 } else { 60 };
        let padding = "x".repeat(scene.rng.index(long));
        let mark = if refused { format!(",{REFUSED}") } else { String::new() };
        let data = format!("{{\"n\":{number},\"p\":\"{padding}\"{mark}}}");
        let named = scene.rng.percent(85);
        let latest = class == Class::Latest;
        let key = latest.then(|| format!("k{}", scene.rng.below(3)));
        if !refused {
            let room = self.views[view].room.clone();
            scene.core.sent.insert((room, Bytes::copy_from_slice(data.as_bytes())));
        }
        self.sent.push(Sent {
            view,
            class,
            echo: scene.rng.percent(65),
            refused,
            msg_id: named.then(|| MessageId::parse(&format!("m{number}")).expect("printable")),
            key: key.map(|key| MessageKey::parse(&key).expect("printable")),
            ttl: scene.rng.percent(6).then(|| Duration::from_millis(scene.rng.between(200, 6_000))),
            data: data.clone(),
            tries: 0,
            link: scene.link,
            done: false,
            at: None,
            retry_ms: 0,
        });
        self.publish(self.sent.len() - 1, scene);
        data
    }
}
