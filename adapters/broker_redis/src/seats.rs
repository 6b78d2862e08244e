//! The port of seats on Redis: how many connections each user has over all nodes, and which may act.
//!
//! A node says its own number of a user, with a version, so that saying it again changes nothing and no older
//! word can undo a newer one. Numbers count while the lease of their node does. Where only the newest may act a
//! number of the user grows with each that takes it over; the script that publishes compares it. It must
//! never let anybody act under a number that it could not compare for longer than a lease.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use application::ports::{EndReplaced, SeatError, Seats, Standing, Taken};
use async_trait::async_trait;
use domain::id::{ConnectionId, UserId};
use domain::seats::{Fence, SeatRule};
use redis::{Cmd, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::batch::Batch;
use crate::broker::{RETRY_AFTER, RedisBroker, millis, parse};
use crate::link::{CallError, Link};
use crate::seated::{NO_FENCE, Said, Seated};

/// The most users of one pipeline.
const BATCH: usize = 256;
/// The most nodes that are looked at.
const NODES_MAX: usize = 1_000;
/// For how long a user is remembered who has left: longer than any call is on its way.
const LEFT_KEPT: Duration = Duration::from_secs(600);
/// The most users that are remembered, those who have left while Redis was away among them.
const USERS_MAX: usize = 500_000;
/// Between two looks for a name.
const NAME_LOOK: Duration = Duration::from_millis(5);
/// What is said to all nodes begins with one of these.
const SEAT: &[u8] = b"seat ";
const SPREAD: &[u8] = b"spread ";

/// See the module's text.
pub struct RedisSeats {
    broker: Arc<RedisBroker>,
    /// Held for one look or one change.
    seated: Mutex<Seated>,
    changed: Notify,
    names: Mutex<Names>,
    /// When Redis was asked last and has answered.
    touched: Mutex<Option<Instant>>,
    ends: RwLock<Vec<EndReplaced>>,
}

/// Under which name this node speaks, and under which it did before; none where it never did.
#[derive(Clone, Debug, Default)]
struct Names {
    node: String,
    before: String,
}

impl Names {
    /// It speaks under this one. Answers whether that is new.
    fn speak_as(&mut self, node: &str) -> bool {
        let is_new = self.node != node;
        if is_new {
            self.before = std::mem::replace(&mut self.node, node.to_owned());
        }
        is_new
    }
}

/// The nodes that are there, each with when its lease ends.
type Live = Vec<(String, f64)>;

/// What the script answers: one of those below, the user's fence, over how many nodes it is here, and for how many ms
/// the node was silent that was so for the longest of those that nobody is sure of.
type Answer = (u8, u64, u32, u64);

/// The user has a seat.
const HAS_SEAT: u8 = 1;
/// It would be one too many, unless a node is gone that has not renewed its lease since the first ask.
const IN_DOUBT: u8 = 2;

impl RedisSeats {
    /// Seats in this broker's Redis. The host spawns [`run`](Self::run).
    #[must_use]
    pub fn build(broker: &Arc<RedisBroker>) -> Arc<Self> {
        let this = Arc::new(Self {
            broker: Arc::clone(broker),
            seated: Mutex::default(),
            changed: Notify::new(),
            names: Mutex::default(),
            touched: Mutex::default(),
            ends: RwLock::default(),
        });
        let weak = Arc::downgrade(&this);
        broker.news().listen(move |said| {
            if let Some(this) = weak.upgrade() {
                this.hear(said);
            }
        });
        this
    }

    /// Tells what changes, and looks who is there, for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        let lease = self.broker.config.lease;
        let mut times_on = self.broker.news().times_on();
        let mut said_at = Instant::now();
        let mut known: Vec<String> = Vec::new();
        loop {
            if times_on.has_changed().unwrap_or(false) {
                // What was said meanwhile was missed.
                times_on.borrow_and_update();
                self.lock().note_fenced();
            }
            if said_at.elapsed() > self.broker.config.presence_kept / 4 {
                said_at = Instant::now();
                self.lock().note_all();
            }
            let pause = match self.tell(&mut known).await {
                Ok(true) if self.lock().is_untold() => continue,
                Ok(true) => lease / 5,
                Ok(false) => lease / 20,
                Err(_) => {
                    // Redis is back before this node has a name again; and some of it may be when all is not.
                    let _ = timeout(lease / 20, self.broker.status().until_commands_up()).await;
                    sleep(lease / 100).await;
                    continue;
                }
            };
            tokio::select! {
                // What rings seldom comes first: whatever rings is told in the next turn.
                biased;
                () = self.broker.unfenced.notified() => self.lock().note_fenced(),
                _ = times_on.changed() => self.lock().note_fenced(),
                () = self.broker.present.renamed.notified() => {}
                () = self.changed.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Looks who is there and tells some of what is to be told. Answers whether Redis has taken all of it.
    async fn tell(&self, known: &mut Vec<String>) -> Result<bool, CallError> {
        let link = self.broker.commands.link()?;
        let node = self.broker.present.name_over(&link).ok_or(CallError::Away)?;
        let live = self.live(&link).await?;
        let mut all: Vec<_> = live.iter().map(|(name, _)| name.clone()).collect();
        all.sort_unstable();
        if all != *known {
            *known = all;
            self.lock().note_spread();
        }
        let names = self.names_with(&node);
        let batch = self.lock().take(BATCH);
        if batch.is_empty() {
            return Ok(true);
        }
        let answers = self.tell_batch(&link, &names, &live, &batch).await;
        let (mut told, mut failed) = (0, None);
        for (said, answer) in batch.iter().zip(answers) {
            match answer.and_then(parse::<Answer>) {
                Ok((_, fence, nodes, _)) => {
                    told += 1;
                    let replaced = self.lock().hear_told(said, fence, nodes);
                    self.end(&replaced);
                }
                // The others don't wait for it.
                Err(error) => {
                    self.lock().note(&said.user);
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(CallError::Away) if told == 0 => Err(CallError::Away),
            failed => Ok(failed.is_none()),
        }
    }

    /// The name under which this node speaks, and the one before: whoever was said under that is said anew.
    fn names_with(&self, node: &str) -> Names {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.speak_as(node) {
            self.lock().note_all();
            self.changed.notify_one();
        }
        names.clone()
    }

    async fn tell_batch(
        &self,
        link: &Arc<Link>,
        names: &Names,
        live: &Live,
        batch: &[Said],
    ) -> Vec<Result<Value, CallError>> {
        let script = &self.broker.commands.scripts().seat;
        let mut all = Batch::default();
        for said in batch {
            let mut command = redis::cmd("EVALSHA");
            command.arg(script.get_hash());
            self.fill(&mut command, names, live, said, ("t", Duration::ZERO));
            all.ask(command);
        }
        self.broker.commands.run_batch(link, &all).await
    }

    fn fill(
        &self,
        command: &mut Cmd,
        names: &Names,
        live: &Live,
        said: &Said,
        (rule, waited): (&str, Duration),
    ) {
        let broker = &self.broker;
        command
            .arg(1)
            .arg(broker.names.seats(&said.user))
            .arg(&names.node)
            .arg(&names.before)
            .arg(said.connections)
            .arg(said.version)
            .arg(rule)
            .arg(said.fence)
            .arg(millis(broker.config.presence_kept))
            .arg(millis(LEFT_KEPT.min(broker.config.presence_kept)))
            .arg(broker.names.news_channel())
            .arg(said.user.as_str())
            .arg(millis(broker.config.lease))
            .arg(millis(waited));
        for (name, until) in live {
            command.arg(name).arg(format!("{until:.0}"));
        }
    }

    /// The nodes that are there, and whose leases have run out just now.
    async fn live(&self, link: &Arc<Link>) -> Result<Live, CallError> {
        let asked = Instant::now();
        let [nodes, _] = self.broker.names.nodes();
        let fill = |command: &mut Cmd| {
            command.arg("ZRANGE").arg(&nodes).arg(0).arg(NODES_MAX - 1).arg("WITHSCORES");
        };
        let live: Live = self.broker.commands.ask_for(link, fill).await?;
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
        Ok(live)
    }

    /// The name under which this node speaks. Right after it has connected it has none for a moment.
    async fn name(&self) -> Result<(String, Arc<Link>), CallError> {
        let begin = Instant::now();
        loop {
            let link = self.broker.commands.link()?;
            match self.broker.present.name_over(&link) {
                Some(node) => return Ok((node, link)),
                None if begin.elapsed() > self.broker.config.answer_timeout => {
                    return Err(CallError::Away);
                }
                None => sleep(NAME_LOOK).await,
            }
        }
    }

    /// Asks for a seat. Where the user has too many with those of a node that may be gone, it waits until that has
    /// renewed its lease or is late.
    async fn call_take(&self, said: &Said, rule: SeatRule) -> Result<Answer, CallError> {
        let (lease, begin) = (self.broker.config.lease, Instant::now());
        let rule = match rule {
            SeatRule::AtMost(max) => max.to_string(),
            SeatRule::NewestWins => "w".to_owned(),
        };
        loop {
            let (node, link) = self.name().await?;
            self.lock().saying(&said.user);
            let names = self.names_with(&node);
            let live = self.live(&link).await?;
            let waited = begin.elapsed();
            let fill = |command: &mut Cmd, _: &Link| {
                self.fill(command, &names, &live, said, (&rule, waited));
            };
            let script = &self.broker.commands.scripts().seat;
            let answer = self.broker.commands.run_script(&link, script, fill).await?;
            let answer: Answer = parse(answer)?;
            let (word, _, _, silent) = answer;
            if word != IN_DOUBT || Duration::from_millis(silent) > late_after(lease) {
                return Ok(answer);
            }
            sleep(lease / 10).await;
        }
    }

    async fn call_fence(&self, user: &UserId) -> Result<Option<u64>, CallError> {
        let link = self.broker.commands.link()?;
        let asked = Instant::now();
        let fill = |command: &mut Cmd| {
            command.arg("HGET").arg(self.broker.names.seats(user)).arg("f");
        };
        let fence = self.broker.commands.ask_for(&link, fill).await?;
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        *touched = (*touched).max(Some(asked));
        Ok(fence)
    }

    /// What all nodes are told.
    fn hear(&self, said: &[u8]) {
        let words = |mark: &[u8]| {
            let (number, user) =
                std::str::from_utf8(said.strip_prefix(mark)?).ok()?.split_once(' ')?;
            Some((number.parse::<u64>().ok()?, UserId::parse(user).ok()?))
        };
        if let Some((fence, user)) = words(SEAT) {
            let replaced = self.lock().hear_fence(&user, fence);
            self.end(&replaced);
        } else if let Some((nodes, user)) = words(SPREAD) {
            self.lock().hear_spread(&user, u32::try_from(nodes).unwrap_or(u32::MAX));
        }
    }

    fn end(&self, replaced: &[ConnectionId]) {
        if replaced.is_empty() {
            return;
        }
        let ends = self.ends.read().unwrap_or_else(PoisonError::into_inner);
        for connection in replaced {
            ends.iter().for_each(|end| end(*connection));
        }
    }

    fn go(&self, user: &UserId, connection: ConnectionId) {
        if self.lock().go(user, connection) {
            self.changed.notify_one();
        }
    }

    fn is_in_touch(&self) -> bool {
        let touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        touched.is_some_and(|at| at.elapsed() < self.broker.config.lease)
    }

    fn lock(&self) -> MutexGuard<'_, Seated> {
        // A panic while it is held can only come from memory running out.
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node that is silent for longer than this may be gone: it renews its lease every fifth of one.
fn late_after(lease: Duration) -> Duration {
    lease * 2 / 5
}

const UNAVAILABLE: SeatError = SeatError::Unavailable { retry_after: RETRY_AFTER };

#[async_trait]
impl Seats for RedisSeats {
    async fn take(
        &self,
        user: &UserId,
        connection: ConnectionId,
        rule: SeatRule,
    ) -> Result<Taken, SeatError> {
        let came = self.lock().come(user, connection, USERS_MAX);
        let Some((said, spread)) = came else { return Err(UNAVAILABLE) };
        let (fence, nodes) = match (self.call_take(&said, rule).await, rule) {
            (Ok((HAS_SEAT, fence, nodes, _)), _) => (fence, nodes),
            (Ok((IN_DOUBT, _, _, silent)), _) => {
                self.go(user, connection);
                // Its seats are free then, unless it comes back.
                let lease = self.broker.config.lease;
                let left = lease.saturating_sub(Duration::from_millis(silent));
                return Err(SeatError::Unavailable { retry_after: left.max(lease / 100) });
            }
            (Ok(_), _) => {
                self.go(user, connection);
                return Err(SeatError::Full);
            }
            (Err(_), SeatRule::NewestWins) => {
                self.go(user, connection);
                return Err(UNAVAILABLE);
            }
            (Err(_), SeatRule::AtMost(max)) => {
                // Those here count alone, and Redis is told later.
                if said.connections > max as usize {
                    self.go(user, connection);
                    return Err(SeatError::Full);
                }
                self.lock().note(user);
                (NO_FENCE, spread.nodes())
            }
        };
        let own = if rule == SeatRule::NewestWins { fence } else { NO_FENCE };
        let replaced = {
            let mut seated = self.lock();
            seated.hear_answered(user, nodes);
            seated.seat(user, connection, own)
        };
        self.end(&replaced);
        // What was not told because of this one.
        self.changed.notify_one();
        Ok(Taken { fence: Fence::new(own), spread })
    }

    fn leave(&self, user: &UserId, connection: ConnectionId) {
        self.go(user, connection);
    }

    fn standing(&self, user: &UserId, fence: Fence) -> Standing {
        match self.lock().standing(user, fence.get()) {
            Standing::Holds if !self.is_in_touch() => Standing::Unknown,
            standing => standing,
        }
    }

    async fn confirm(&self, user: &UserId, fence: Fence) -> Standing {
        if self.lock().standing(user, fence.get()) == Standing::Replaced {
            return Standing::Replaced;
        }
        match self.call_fence(user).await {
            Ok(Some(largest)) if largest == fence.get() => Standing::Holds,
            Ok(Some(largest)) if largest > fence.get() => {
                let replaced = self.lock().hear_fence(user, largest);
                self.end(&replaced);
                Standing::Replaced
            }
            Ok(_) => {
                // Redis has lost it, and is told again.
                self.lock().note(user);
                self.changed.notify_one();
                Standing::Unknown
            }
            Err(_) => Standing::Unknown,
        }
    }

    fn on_replaced(&self, end: EndReplaced) {
        self.ends.write().unwrap_or_else(PoisonError::into_inner).push(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_before_is_known_for_as_long_as_the_next_one_is_used() {
        let mut names = Names::default();
        assert!(names.speak_as("a") && !names.speak_as("a") && names.before.is_empty());
        assert!(names.speak_as("b") && !names.speak_as("b"));
        assert_eq!((&*names.node, &*names.before), ("b", "a"));
    }
}
