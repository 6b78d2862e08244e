//! The life of a connection as a pure reducer: a state and an event give the next state and what to do.
//!
//! It must never touch a socket, a timer, a clock or a random number: they come with the events, and
//! whoever drives it carries the effects out. There is one socket at most: [`Effect::Open`] is only asked
//! for where there is none.

use std::time::Duration;

use crate::client::backoff::Backoff;
use crate::client::failure::{Failure, Timeout};
use crate::codes::{CloseCode, should_reconnect};
use crate::time::Monotonic;

/// The documented phases.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Phase {
    /// No connection, none wanted.
    #[default]
    Idle,
    /// The first attempt is under way.
    Connecting,
    /// The server has said `hello`.
    Open,
    /// Connected, but the server is suspiciously silent.
    Degraded,
    /// The connection is lost: waiting for the next attempt, or making it.
    Reconnecting,
    /// An attempt failed, the next one comes after its delay.
    Failed,
    /// Given up.
    Fallback,
}

/// The one socket.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Socket {
    /// There is none.
    #[default]
    None,
    /// It is being opened.
    Opening,
    /// It is open.
    Open,
}

/// Where a connection is in its life.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Life {
    /// The phase.
    pub phase: Phase,
    /// The socket.
    pub socket: Socket,
    /// How many reconnection attempts were begun in a row.
    pub attempts: u32,
    /// Whether the server said when to come back: then nothing else makes it earlier but
    /// [`Event::Connect`].
    pub ordered: bool,
    /// When the phase `open` was reached; none while it is neither `open` nor `degraded`.
    pub opened_at: Option<Monotonic>,
    /// When something was last heard.
    pub heard_at: Option<Monotonic>,
    /// How long the server is silent at most before it pings, in milliseconds.
    pub heartbeat_ms: u64,
    /// Why it fell back; kept while a probe is under way.
    pub reason: Option<String>,
    /// In fallback: whether only [`Event::Connect`] leads out, since the server said not to come back.
    pub is_final: bool,
}

impl Life {
    /// Whether the connection has proved itself, so that its loss counts as the first.
    pub(super) fn has_stood(&self, now: Moment, config: &LifeConfig) -> bool {
        self.opened_at.is_some_and(|at| now.at.since(at) >= config.stable_after)
    }
}

/// What does not change in a connection's life.
#[derive(Clone, Debug, PartialEq)]
pub struct LifeConfig {
    /// From an attempt to `hello`.
    pub connect_timeout: Duration,
    /// Whether silence of the server is looked at.
    pub heartbeat: bool,
    /// When to come back.
    pub backoff: Backoff,
    /// How long a connection must have stood for the next loss to count as the first. Opening alone
    /// proves nothing: a server that takes connections and drops them must not be asked ever faster.
    pub stable_after: Duration,
    /// How often fallback tries again.
    pub probe: Duration,
}

/// Stands for a connection that ended without a close frame; it is never on the wire.
pub const ABNORMAL: u16 = 1006;

/// How a connection, or an attempt at one, is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lost {
    /// The close code; 1006 when there was none to be heard.
    pub code: u16,
    /// What was said with it.
    pub reason: String,
    /// When the server wants the client back.
    pub after: Option<Duration>,
    /// Overrules what the code says about coming back.
    pub again: Option<bool>,
}

impl Lost {
    /// By a close code.
    #[must_use]
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), after: None, again: None }
    }

    /// Without a word of the other side.
    #[must_use]
    pub fn broken(reason: impl Into<String>) -> Self {
        Self::new(ABNORMAL, reason)
    }
}

/// A sign that the network or the page is back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wake {
    /// The network is.
    Online,
    /// The page is looked at.
    Visible,
}

/// What happens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A connection is wanted.
    Connect,
    /// None is wanted.
    Disconnect,
    /// The socket is open.
    Opened,
    /// Something came, whatever it was.
    Heard,
    /// `hello` came.
    Greeted {
        /// How long the server is silent at most before it pings, in milliseconds.
        heartbeat_ms: u64,
    },
    /// The one timer rang.
    Timer,
    /// A good moment to try.
    Wake(Wake),
    /// The socket is gone.
    Closed(Lost),
    /// The socket is to be given up.
    Abandon(Lost),
}

/// When an event happens, and the number in [0, 1) that is drawn for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// When.
    pub at: Monotonic,
    /// What is drawn.
    pub random: f64,
}

/// What to do, in this order. There is one timer: setting it takes the place of the one before, none
/// stops it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Open a socket.
    Open,
    /// Let go of the socket.
    Close,
    /// Say something that the server answers.
    Ping,
    /// Ring after that.
    Timer(Option<Duration>),
    /// Tell how it ended, and after how long the next attempt comes by itself.
    Failed(Failure, Option<Duration>),
}

type Step = (Life, Vec<Effect>);

/// The next state and the effects of an event. An event that means nothing in a phase changes nothing.
#[must_use]
pub fn transition(life: Life, event: Event, now: Moment, config: &LifeConfig) -> Step {
    match life.phase {
        Phase::Idle => match event {
            Event::Connect => start(life, config),
            _ => (life, Vec::new()),
        },
        Phase::Connecting => while_dialing(life, event, now, config),
        Phase::Open | Phase::Degraded => while_up(life, event, now, config),
        Phase::Reconnecting if life.socket == Socket::None => while_waiting(life, &event, config),
        Phase::Reconnecting => while_dialing(life, event, now, config),
        Phase::Failed => while_waiting(life, &event, config),
        Phase::Fallback => in_fallback(life, &event, config),
    }
}

fn while_dialing(life: Life, event: Event, now: Moment, config: &LifeConfig) -> Step {
    match event {
        Event::Opened => {
            (Life { socket: Socket::Open, heard_at: Some(now.at), ..life }, Vec::new())
        }
        Event::Heard => heard(life, now),
        // Nobody greets through a socket that is not open: that is of another, which is gone.
        Event::Greeted { .. } if life.socket != Socket::Open => (life, Vec::new()),
        Event::Greeted { heartbeat_ms } => greeted(life, heartbeat_ms, now, config),
        Event::Timer => {
            let failure = timed_out(&life, Timeout::Connect);
            lose(life, failure, Whose::Ours, &Terms::default(), now, config)
        }
        Event::Closed(lost) => closed(life, lost, Whose::Theirs, now, config),
        Event::Abandon(lost) => closed(life, lost, Whose::Ours, now, config),
        Event::Disconnect => stop(&life),
        // Whoever asks for it while it is under way has the attempts counted anew, too.
        Event::Connect => (Life { attempts: 0, reason: None, ..life }, Vec::new()),
        Event::Wake(_) => (life, Vec::new()),
    }
}

fn while_up(life: Life, event: Event, now: Moment, config: &LifeConfig) -> Step {
    match event {
        Event::Heard => heard(life, now),
        Event::Greeted { heartbeat_ms } => greeted(life, heartbeat_ms, now, config),
        Event::Timer | Event::Wake(Wake::Visible) => listen(life, now, config),
        Event::Wake(Wake::Online) => doubt(life, now, config),
        Event::Closed(lost) => closed(life, lost, Whose::Theirs, now, config),
        Event::Abandon(lost) => closed(life, lost, Whose::Ours, now, config),
        Event::Disconnect => stop(&life),
        Event::Connect | Event::Opened => (life, Vec::new()),
    }
}

fn while_waiting(life: Life, event: &Event, config: &LifeConfig) -> Step {
    match event {
        Event::Connect => dial(Life { attempts: 0, ..life }, config),
        Event::Timer => dial(life, config),
        Event::Wake(_) if !life.ordered => dial(life, config),
        Event::Disconnect => stop(&life),
        _ => (life, Vec::new()),
    }
}

/// Out of it if the server has not said to stay there: each minute, and when the network is back.
fn in_fallback(life: Life, event: &Event, config: &LifeConfig) -> Step {
    match event {
        Event::Connect => start(life, config),
        Event::Disconnect => stop(&life),
        Event::Timer if !life.is_final => dial(life, config),
        Event::Wake(Wake::Online) if !life.is_final => dial(Life { attempts: 0, ..life }, config),
        _ => (life, Vec::new()),
    }
}

/// Begins an attempt; there must be no socket.
fn dial(life: Life, config: &LifeConfig) -> Step {
    let life = Life {
        phase: Phase::Reconnecting,
        socket: Socket::Opening,
        ordered: false,
        is_final: false,
        ..life
    };
    (life, vec![Effect::Open, Effect::Timer(Some(config.connect_timeout))])
}

/// Whoever asks for it starts afresh.
fn start(mut life: Life, config: &LifeConfig) -> Step {
    (life.attempts, life.reason) = (0, None);
    let (life, effects) = dial(life, config);
    (Life { phase: Phase::Connecting, ..life }, effects)
}

fn stop(life: &Life) -> Step {
    let close = (life.socket != Socket::None).then_some(Effect::Close);
    (Life::default(), close.into_iter().chain([Effect::Timer(None)]).collect())
}

fn heard(life: Life, now: Moment) -> Step {
    let phase = if life.phase == Phase::Degraded { Phase::Open } else { life.phase };
    (Life { phase, heard_at: Some(now.at), ..life }, Vec::new())
}

fn greeted(mut life: Life, heartbeat_ms: u64, now: Moment, config: &LifeConfig) -> Step {
    life.phase = Phase::Open;
    life.opened_at = life.opened_at.or(Some(now.at));
    life.heard_at = Some(now.at);
    life.heartbeat_ms = heartbeat_ms;
    life.reason = None;
    let timer = config.heartbeat.then(|| suspicious_after(heartbeat_ms));
    (life, vec![Effect::Timer(timer)])
}

/// After one and a quarter heartbeat intervals silence is suspicious.
const fn suspicious_after(heartbeat_ms: u64) -> Duration {
    Duration::from_millis(heartbeat_ms.saturating_mul(5).div_ceil(4))
}

/// After one and a half it ends the connection.
const fn dead_after(heartbeat_ms: u64) -> Duration {
    Duration::from_millis(heartbeat_ms.saturating_mul(3).div_ceil(2))
}

/// Looks how long the server has been silent. Phones and laptops that slept find out at once.
fn listen(life: Life, now: Moment, config: &LifeConfig) -> Step {
    if !config.heartbeat {
        return (life, Vec::new());
    }
    let silent = life.heard_at.map_or(Duration::ZERO, |heard_at| now.at.since(heard_at));
    let dead = dead_after(life.heartbeat_ms).saturating_sub(silent);
    let suspicious = suspicious_after(life.heartbeat_ms).saturating_sub(silent);
    if dead.is_zero() {
        let failure = timed_out(&life, Timeout::Heartbeat);
        lose(life, failure, Whose::Ours, &Terms::default(), now, config)
    } else if suspicious.is_zero() {
        let degraded = Life { phase: Phase::Degraded, ..life };
        (degraded, vec![Effect::Ping, Effect::Timer(Some(dead))])
    } else {
        (life, vec![Effect::Timer(Some(suspicious))])
    }
}

/// The network was away and is back. Whether the connection is, too, a ping shows, before it would be due.
fn doubt(life: Life, now: Moment, config: &LifeConfig) -> Step {
    if !config.heartbeat {
        return (life, Vec::new());
    }
    let silent = suspicious_after(life.heartbeat_ms).as_millis();
    let silent = u64::try_from(silent).unwrap_or(u64::MAX);
    let latest = Monotonic::from_millis(now.at.as_millis().saturating_sub(silent));
    let heard_at = life.heard_at.map(|heard_at| heard_at.min(latest));
    listen(Life { heard_at, ..life }, now, config)
}

fn timed_out(life: &Life, timeout: Timeout) -> Failure {
    Failure {
        code: ABNORMAL,
        reason: String::new(),
        opened: life.socket == Socket::Open,
        timeout: Some(timeout),
    }
}

/// Who ends it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whose {
    Ours,
    Theirs,
}

/// What was said about coming back.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    after: Option<Duration>,
    again: Option<bool>,
}

fn closed(life: Life, lost: Lost, whose: Whose, now: Moment, config: &LifeConfig) -> Step {
    let Lost { code, reason, after, again } = lost;
    let failure = Failure { code, reason, opened: life.socket == Socket::Open, timeout: None };
    lose(life, failure, whose, &Terms { after, again }, now, config)
}

/// The socket is gone, or has to go: when to come back, if at all.
fn lose(
    life: Life,
    failure: Failure,
    whose: Whose,
    terms: &Terms,
    now: Moment,
    config: &LifeConfig,
) -> Step {
    let was_up = life.opened_at.is_some();
    let attempts = if life.has_stood(now, config) { 0 } else { life.attempts };
    let gone = Life { socket: Socket::None, opened_at: None, attempts, ..life };
    let own = config.backoff.delay(attempts, now.random);
    let (next, wait, delay) = if !terms.again.unwrap_or(should_reconnect(failure.code)) {
        if failure.code == CloseCode::Normal.number() {
            (Life::default(), None, None)
        } else {
            let reason = Some(failure.words());
            (Life { phase: Phase::Fallback, reason, is_final: true, ..gone }, None, None)
        }
    } else if let Some(own) = own {
        let delay = Some(terms.after.unwrap_or(own));
        let phase = if was_up { Phase::Reconnecting } else { Phase::Failed };
        let (attempts, ordered) = (attempts.saturating_add(1), terms.after.is_some());
        (Life { phase, attempts, ordered, ..gone }, delay, delay)
    } else {
        let reason = gone.reason.clone().or_else(|| Some(failure.words()));
        (Life { phase: Phase::Fallback, reason, ..gone }, Some(config.probe), None)
    };
    let close = (whose == Whose::Ours).then_some(Effect::Close);
    let rest = [Effect::Timer(wait), Effect::Failed(failure, delay)];
    (next, close.into_iter().chain(rest).collect())
}
