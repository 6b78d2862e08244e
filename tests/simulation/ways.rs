//! One Redis that the nodes of some seeds share, and the way of each node to it: cut, slow, lost with its answers, or
//! gone with all that Redis knew.
//!
//! What a node sends comes in its order, or not at all; but what a cut way keeps back may come when nobody expects it
//! any more. Nothing here may tell a node anything but what its connection would.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use application::mailbox::Mail;
use broker_redis::testing::{Answers, Model, read_presence, scripts};
use broker_redis::{Config, RedisBroker};
use bytes::Bytes;
use redis::{RedisResult, Value};
use tokio::runtime::{Builder, Runtime};

use crate::faults::{Effect, Fault};
use crate::mirror::Mirror;
use crate::ports::{Core, Shared};
use crate::redis::Redis;
use crate::truth::Truth;
use crate::world::{Event, World};

pub(crate) const LEASE_MS: u64 = 5_000;
pub(crate) const GRACE_MS: u64 = 1_000;
const ANSWER_MS: u64 = 1_000;
/// For how long what is said of members stays. It is said again after a quarter of it, which no story waits for: that
/// would mend in the end what should not have been broken.
const KEPT_MS: u64 = 600_000;
/// How long a node that has been cut off, or whose Redis has lost something, may take until all that it has said
/// stands there again.
const SURE_MS: u64 = 5_000;
/// How often time passes for what waits for nothing else.
const TICK_MS: u64 = 50;
/// How late a wait may be over. Looking for what is due costs more than anything else that time does.
const LATE_MS: u64 = 10;

/// What nodes over Redis are built with.
pub(crate) fn config() -> Config {
    let span = Duration::from_millis;
    Config {
        lease: span(LEASE_MS),
        leave_grace: span(GRACE_MS),
        answer_timeout: span(ANSWER_MS),
        presence_kept: span(KEPT_MS),
        ..Config::new("redis://127.0.0.1".into())
    }
}

/// The clock by which the code of nodes over Redis waits: it stands still but for what the world says.
pub(crate) struct Time {
    runtime: Rc<Runtime>,
    now_ms: u64,
    /// When it was looked for what is due.
    looked_ms: u64,
}

impl Time {
    /// A runtime that runs nothing.
    pub(crate) fn runtime() -> Rc<Runtime> {
        let built = Builder::new_current_thread().enable_time().start_paused(true).build();
        Rc::new(built.expect("it needs nothing of the machine"))
    }

    pub(crate) const fn new(runtime: Rc<Runtime>) -> Self {
        Self { runtime, now_ms: 0, looked_ms: 0 }
    }

    pub(crate) fn pass(&mut self, now_ms: u64) {
        if now_ms <= self.now_ms {
            return;
        }
        let span = Duration::from_millis(now_ms - self.now_ms);
        // It is moved at the first poll. What follows is a turn for others, of whom there are none.
        let mut moved = pin!(tokio::time::advance(span));
        let _ = moved.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.now_ms = now_ms;
        if now_ms >= self.looked_ms + LATE_MS {
            self.runtime.block_on(tokio::task::yield_now());
            self.looked_ms = now_ms;
        }
    }
}

/// Where an answer is put, and who waits for it.
type Slot = Arc<Mutex<(Option<Vec<Value>>, Option<Waker>)>>;

/// What one node has sent in one go.
pub(crate) struct Request {
    node: usize,
    connection: i64,
    commands: Vec<Vec<String>>,
    answers: Slot,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} asks {:?}", self.node, self.connection, self.commands)
    }
}

/// The answers on their way back.
pub(crate) struct Reply {
    node: usize,
    connection: i64,
    values: Vec<Value>,
    answers: Slot,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} is answered {:?}", self.node, self.connection, self.values)
    }
}

struct Answered(Slot);

impl Future for Answered {
    type Output = RedisResult<Vec<Value>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.lock().expect("nobody panics with it");
        match slot.0.take() {
            Some(values) => Poll::Ready(Ok(values)),
            None => {
                slot.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// One connection of a node.
struct Caller {
    core: Shared,
    node: usize,
    connection: i64,
}

impl Model for Caller {
    fn ask(&self, commands: Vec<Vec<Vec<u8>>>) -> Answers {
        let answers = Slot::default();
        let text = |word: Vec<u8>| String::from_utf8(word).expect("all that is said is text");
        let words = |one: Vec<Vec<u8>>| one.into_iter().map(text).collect::<Vec<String>>();
        let commands: Vec<_> = commands.into_iter().map(words).collect();
        let (node, connection, slot) = (self.node, self.connection, Arc::clone(&answers));
        let request = Request { node, connection, commands, answers: slot };
        self.core.lock().send(request);
        Box::pin(Answered(answers))
    }
}

/// The way of one node.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// The connection in use; 0 where there is none. One that is made ends the one before.
    connection: i64,
    is_cut: bool,
    arrives_ms: u64,
    answers_ms: u64,
    news_ms: u64,
    kept_back: Vec<Request>,
    kept_news: Vec<String>,
    /// The name under which it speaks.
    name: String,
    pub(crate) is_dead: bool,
    /// Others may rightly have taken back what it said, or Redis has lost it.
    pub(crate) is_unsure: bool,
}

/// See the module's text.
pub(crate) struct OneRedis {
    pub(crate) redis: Redis,
    pub(crate) mirror: Option<Mirror>,
    pub(crate) ways: BTreeMap<usize, Way>,
    pub(crate) truth: Truth,
    /// How often it has started.
    life: u64,
    is_up: bool,
    /// Until when nobody reaches it.
    away_until_ms: u64,
    connections: i64,
    pub(crate) sent: Vec<(u64, Request)>,
    scripts: BTreeMap<&'static str, &'static str>,
    news_channel: String,
    /// Whether anything happens to it in this seed.
    pub(crate) has_troubles: bool,
}

impl OneRedis {
    pub(crate) fn new(has_troubles: bool, mirror: Option<Mirror>) -> Self {
        let scripts = scripts().iter().map(|one| (one.hash.as_str(), one.name)).collect();
        Self {
            redis: Redis::new(),
            mirror,
            ways: BTreeMap::new(),
            truth: Truth::default(),
            life: 1,
            is_up: true,
            away_until_ms: 0,
            connections: 0,
            sent: Vec::new(),
            scripts,
            news_channel: String::new(),
            has_troubles,
        }
    }

    /// Does what has come, and answers it.
    fn carry_out(&mut self, request: &Request, wall_ms: u64) -> Vec<Value> {
        for over in self.redis.pass(wall_ms) {
            self.mirror.iter_mut().for_each(|mirror| mirror.drop_key(&over));
        }
        let mut values = Vec::with_capacity(request.commands.len());
        for command in &request.commands {
            let said_before = self.redis.said.len();
            let value = self.redis.ask(command);
            if let Some(mirror) = &mut self.mirror {
                mirror.compare(command, wall_ms, &value, &self.redis.said[said_before..]);
            }
            values.push(value);
        }
        values
    }

    /// What a command has led to, for the table.
    fn effect_of(&mut self, node: usize, command: &[String], value: &Value) -> Option<Effect> {
        let word = |values: &[Value]| values.first().cloned().unwrap_or_default();
        if command[0] == "SET" && command[1].contains(":spent:") && *value == Value::Nil {
            return Some(Effect::TokenReplayed);
        }
        let script = *self.scripts.get(command.get(1)?.as_str())?;
        match (script, value) {
            ("claim", Value::Int(1)) => Some(Effect::LeaseClaimed),
            ("lease", _) => {
                let way = self.ways.get_mut(&node)?;
                let before = std::mem::replace(&mut way.name, command[5].clone());
                (!before.is_empty() && before != way.name).then_some(Effect::NameChanged)
            }
            ("seat", Value::Array(values)) => match word(values) {
                Value::Int(0) => Some(Effect::SeatRefused),
                Value::Int(2) => Some(Effect::SeatDoubted),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Core {
    fn send(&mut self, request: Request) {
        let now_ms = self.now_ms;
        let mut delay =
            if self.rng.percent(4) { self.rng.between(5, 120) } else { self.rng.below(4) };
        if self.rng.percent(self.weather.slow_redis) {
            self.counts.fault(Fault::RedisSlow);
            delay += self.rng.between(50, 900);
        }
        let Some(one) = &mut self.redis else { return };
        let Some(way) = one.ways.get_mut(&request.node) else { return };
        way.arrives_ms = way.arrives_ms.max(now_ms + delay);
        one.sent.push((way.arrives_ms, request));
    }

    /// Whether nodes share a Redis to which something may happen.
    pub(crate) fn has_troubles(&self) -> bool {
        self.redis.as_ref().is_some_and(|one| one.has_troubles)
    }

    /// Whether a node can't reach Redis now.
    pub(crate) fn is_cut_off(&self, node: usize) -> bool {
        let Some(one) = &self.redis else { return false };
        !one.is_up || one.ways.get(&node).is_some_and(|way| way.is_cut)
    }
}

impl World {
    fn broker_of(&self, node: usize) -> Option<Arc<RedisBroker>> {
        let host = self.nodes.get(node).filter(|node| node.alive)?;
        host.over_redis.as_ref().map(|over| Arc::clone(&over.broker))
    }

    /// A node that has just started finds its way.
    pub(crate) fn open_way(&mut self, node: usize) {
        let Some(broker) = self.broker_of(node) else { return };
        let Some(over) = self.nodes[node].over_redis.clone() else { return };
        {
            let mut core = self.core.lock();
            let now_ms = core.now_ms;
            let Some(one) = &mut core.redis else { return };
            one.news_channel = broker.news_channel();
            let mut way = Way::default();
            if one.away_until_ms > now_ms {
                way.is_cut = true;
                self.queue.push(one.away_until_ms, Event::Heal { node });
            }
            one.ways.insert(node, way);
        }
        self.spawn(node, broker.keep_leases());
        self.spawn(node, Arc::clone(&over.seats).run());
        self.keep_way(node);
    }

    /// A node that has no connection makes one, as soon as it can.
    pub(crate) fn keep_way(&mut self, node: usize) {
        let Some(broker) = self.broker_of(node) else { return };
        let again = self.now_ms + self.rng.between(60, 300);
        self.queue.push(again, Event::KeepWay { node });
        if broker.is_linked() || self.core.lock().is_cut_off(node) {
            return;
        }
        let (connection, life) = {
            let mut core = self.core.lock();
            let Some(one) = &mut core.redis else { return };
            one.connections += 1;
            let Some(way) = one.ways.get_mut(&node) else { return };
            way.connection = one.connections;
            way.kept_back.clear();
            way.kept_news.clear();
            (one.connections, format!("life-{}", one.life))
        };
        let caller = Caller { core: self.core.clone(), node, connection };
        broker.link_to(Arc::new(caller), &life, connection);
        broker.hears_from_now_on();
        self.queue.push(self.now_ms + SURE_MS, Event::Sure { node, connection });
    }

    pub(crate) fn tick(&mut self) {
        self.queue.push(self.now_ms + TICK_MS, Event::Tick);
    }

    /// What a node has sent arrives.
    pub(crate) fn asked(&mut self, request: Request) {
        let mut core = self.core.lock();
        let wall_ms = core.wall().as_millis().cast_unsigned();
        let is_cut_off = core.is_cut_off(request.node);
        let lost = core.weather.lose_redis_answers;
        let (is_lost, delay) = (core.rng.percent(lost), core.rng.below(4));
        let now_ms = core.now_ms;
        let Some(one) = &mut core.redis else { return };
        let Some(way) = one.ways.get_mut(&request.node) else { return };
        if way.connection != request.connection {
            return;
        }
        if is_cut_off {
            return way.kept_back.push(request);
        }
        let is_late = way.is_dead;
        let values = one.carry_out(&request, wall_ms);
        let said = std::mem::take(&mut one.redis.said);
        let commands = request.commands.iter().zip(&values);
        let effects: Vec<_> = commands
            .filter_map(|(command, value)| one.effect_of(request.node, command, value))
            .chain(is_late.then_some(Effect::LateWord))
            .collect();
        let Some(way) = one.ways.get_mut(&request.node) else { return };
        way.answers_ms = way.answers_ms.max(now_ms + delay);
        let at = way.answers_ms;
        effects.into_iter().for_each(|effect| core.counts.effect(effect));
        if is_lost {
            core.counts.fault(Fault::RedisAnswerLost);
            core.trouble();
        } else {
            let Request { node, connection, answers, .. } = request;
            let reply = Reply { node, connection, values, answers };
            self.queue.push(at, Event::Answered(Box::new(reply)));
        }
        drop(core);
        said.into_iter().for_each(|(channel, text)| self.publish_of_redis(&channel, text));
    }

    pub(crate) fn answered(&mut self, reply: Reply) {
        {
            let core = self.core.lock();
            let Some(one) = &core.redis else { return };
            let way = &one.ways[&reply.node];
            if way.connection != reply.connection || way.is_cut {
                return;
            }
        }
        let waker = {
            let mut slot = reply.answers.lock().expect("nobody panics with it");
            slot.0 = Some(reply.values);
            slot.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// What a script has said goes to whoever listens.
    fn publish_of_redis(&mut self, channel: &str, text: String) {
        let mut core = self.core.lock();
        let Some(one) = &mut core.redis else { return };
        if channel == one.news_channel {
            one.truth.on_news(&text);
            for (node, way) in one.ways.iter_mut().filter(|(_, way)| !way.is_dead) {
                if way.is_cut {
                    way.kept_news.push(text.clone());
                    continue;
                }
                way.news_ms = way.news_ms.max(self.now_ms + self.rng.below(6));
                let (node, text) = (*node, text.clone());
                self.queue.push(way.news_ms, Event::News { node, text });
            }
            return;
        }
        let Some((room, event)) = read_presence(&Bytes::from(text)) else {
            panic!("nobody can read what was said to {channel}")
        };
        core.check_leave(&room, &event);
        core.notify(&room, &Mail::Presence(room.clone(), Arc::new(event)));
    }

    pub(crate) fn news(&mut self, node: usize, text: &str) {
        if let Some(broker) = self.broker_of(node) {
            broker.hear(text.as_bytes());
            self.ordered(node);
        }
    }

    pub(crate) fn grow_sure(&mut self, node: usize, connection: i64) {
        let mut core = self.core.lock();
        let Some(one) = &mut core.redis else { return };
        let is_up = one.is_up;
        let Some(way) = one.ways.get_mut(&node) else { return };
        if is_up && !way.is_cut && way.connection == connection {
            way.is_unsure = false;
        }
    }

    /// Something goes wrong between nodes and Redis, or with Redis.
    pub(crate) fn trouble_redis(&mut self, node: usize) -> bool {
        self.core.lock().trouble();
        match self.rng.below(100) {
            0..35 => {
                let for_ms = self.rng.between(200, 9_000);
                self.cut_way(node, for_ms)
            }
            35..55 => self.send_redis_away(),
            55..80 => {
                let forgets = self.rng.percent(50);
                self.stop_redis(forgets)
            }
            _ => {
                let chance = self.rng.between(5, 60);
                let loses = self.rng.percent(30);
                let mut core = self.core.lock();
                match loses {
                    true => core.weather.lose_redis_answers = chance / 4,
                    false => core.weather.slow_redis = chance,
                }
                drop(core);
                let calm = self.now_ms + self.rng.between(200, 3_000);
                self.queue.push(calm, Event::Calm);
                true
            }
        }
    }

    fn cut_way(&mut self, node: usize, for_ms: u64) -> bool {
        let mut core = self.core.lock();
        let Some(one) = &mut core.redis else { return false };
        let Some(way) = one.ways.get_mut(&node).filter(|way| !way.is_cut && !way.is_dead) else {
            return false;
        };
        (way.is_cut, way.is_unsure) = (true, true);
        core.counts.fault(Fault::RedisCut);
        self.queue.push(self.now_ms + for_ms, Event::Heal { node });
        true
    }

    fn send_redis_away(&mut self) -> bool {
        let until = self.now_ms + self.rng.between(200, 8_000);
        let mut core = self.core.lock();
        let Some(one) = &mut core.redis else { return false };
        if one.ways.values().any(|way| way.is_cut && !way.is_dead) {
            return false;
        }
        one.away_until_ms = until;
        for (node, way) in one.ways.iter_mut().filter(|(_, way)| !way.is_dead) {
            way.is_cut = true;
            self.queue.push(until + self.rng.below(800), Event::Heal { node: *node });
        }
        core.counts.fault(Fault::RedisAway);
        true
    }

    fn stop_redis(&mut self, forgets: bool) -> bool {
        {
            let mut core = self.core.lock();
            let Some(one) = core.redis.as_mut().filter(|one| one.is_up) else { return false };
            one.is_up = false;
            for way in one.ways.values_mut() {
                way.connection = 0;
                way.kept_back.clear();
                way.kept_news.clear();
            }
            core.counts.fault(if forgets { Fault::RedisForgot } else { Fault::RedisRestarted });
        }
        for node in 0..self.nodes.len() {
            if let Some(broker) = self.broker_of(node) {
                broker.unlink();
            }
        }
        let at = self.now_ms + self.rng.between(50, 8_000);
        self.queue.push(at, Event::RedisUp { forgets });
        true
    }

    pub(crate) fn start_redis(&mut self, forgets: bool) {
        let mut core = self.core.lock();
        core.trouble();
        let Some(one) = &mut core.redis else { return };
        one.is_up = true;
        one.life += 1;
        if forgets {
            one.redis.forget();
            one.mirror.iter_mut().for_each(Mirror::forget);
            one.ways.values_mut().for_each(|way| way.is_unsure = true);
        }
    }

    /// A way is there again; what was kept back comes, unless its node has made another connection before.
    pub(crate) fn heal_way(&mut self, node: usize) {
        let mut core = self.core.lock();
        core.trouble();
        let Some(one) = &mut core.redis else { return };
        let Some(way) = one.ways.get_mut(&node) else { return };
        way.is_cut = false;
        for request in std::mem::take(&mut way.kept_back) {
            way.arrives_ms = way.arrives_ms.max(self.now_ms + self.rng.below(60));
            self.queue.push(way.arrives_ms, Event::Asked(Box::new(request)));
        }
        for text in std::mem::take(&mut way.kept_news) {
            way.news_ms = way.news_ms.max(self.now_ms + self.rng.below(6));
            self.queue.push(way.news_ms, Event::News { node, text });
        }
        let connection = way.connection;
        self.queue.push(self.now_ms + SURE_MS, Event::Sure { node, connection });
    }

    /// A node is gone; what it has sent may come long behind it.
    pub(crate) fn close_way(&mut self, node: usize) {
        let mut core = self.core.lock();
        let Some(one) = &mut core.redis else { return };
        let Some(way) = one.ways.get_mut(&node) else { return };
        way.is_dead = true;
        one.truth.on_dead(node);
        if !way.is_cut && self.rng.percent(40) {
            way.is_cut = true;
            let at = self.now_ms + self.rng.between(500, 12_000);
            self.queue.push(at, Event::Heal { node });
        }
    }

    /// Its last connection has gone, and the time for others to come back is over.
    pub(crate) fn finish(&mut self, node: usize) {
        let Some(broker) = self.broker_of(node) else { return };
        self.spawn(node, async move { broker.finish().await });
    }
}
