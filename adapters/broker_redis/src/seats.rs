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
use redis::Cmd;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

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
    /// When Redis was asked last and has answered.
    touched: Mutex<Option<Instant>>,
    ends: RwLock<Vec<EndReplaced>>,
}

/// The nodes that are there, each with when its lease ends.
type Live = Vec<(String, f64)>;

/// What the script answers.
type Answer = (u8, u64, u32);

impl RedisSeats {
    /// Seats in this broker's Redis. The host spawns [`run`](Self::run).
    #[must_use]
    pub fn build(broker: &Arc<RedisBroker>) -> Arc<Self> {
        let this = Arc::new(Self {
            broker: Arc::clone(broker),
            seated: Mutex::default(),
            changed: Notify::new(),
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
        let (mut said_as, mut said_at) = (String::new(), Instant::now());
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
            if self.tell(&mut said_as, &mut known).await.is_err() {
                // Redis is back before this node has a name again.
                self.broker.status().until_commands_up().await;
                sleep(lease / 100).await;
                continue;
            }
            if self.lock().is_untold() {
                continue;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.broker.unfenced.notified() => self.lock().note_fenced(),
                _ = times_on.changed() => self.lock().note_fenced(),
                () = sleep(lease / 5) => {}
            }
        }
    }

    /// Looks who is there and tells some of what is to be told.
    async fn tell(&self, said_as: &mut String, known: &mut Vec<String>) -> Result<(), CallError> {
        let link = self.broker.commands.link()?;
        let node = self.broker.present.name_over(&link).ok_or(CallError::Away)?;
        let live = self.live(&link).await?;
        let mut names: Vec<_> = live.iter().map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        if names != *known {
            *known = names;
            self.lock().note_spread();
        }
        let before = std::mem::replace(said_as, node.clone());
        if before != node {
            self.lock().note_all();
        }
        // Those of whom it was said under another name are told of at once, so that they don't count twice.
        let before = if before == node { "" } else { &before };
        loop {
            let batch = self.lock().take(BATCH);
            if batch.is_empty() {
                return Ok(());
            }
            let told = self.tell_batch(&link, (&node, before), &live, &batch).await;
            if let Err(error) = told {
                let mut seated = self.lock();
                batch.iter().for_each(|said| seated.note(&said.user));
                if !before.is_empty() {
                    *said_as = before.to_owned();
                }
                return Err(error);
            }
            if before.is_empty() {
                // The list of who is there grows old.
                return Ok(());
            }
        }
    }

    async fn tell_batch(
        &self,
        link: &Arc<Link>,
        names: (&str, &str),
        live: &Live,
        batch: &[Said],
    ) -> Result<(), CallError> {
        let script = &self.broker.commands.scripts().seat;
        let mut all = Batch::default();
        for said in batch {
            let mut command = redis::cmd("EVALSHA");
            command.arg(script.get_hash());
            self.fill(&mut command, names, live, said, "t");
            all.ask(command);
        }
        let answers = self.broker.commands.run_batch(link, &all).await;
        let answers = answers.into_iter().map(|answer| parse::<Answer>(answer?));
        let answers: Vec<Answer> = answers.collect::<Result<_, _>>()?;
        for (said, (_, fence, nodes)) in batch.iter().zip(answers) {
            let replaced = {
                let mut seated = self.lock();
                seated.hear_spread(&said.user, nodes);
                let replaced = seated.hear_fence(&said.user, fence);
                seated.told(said);
                replaced
            };
            self.end(&replaced);
        }
        Ok(())
    }

    fn fill(
        &self,
        command: &mut Cmd,
        (node, before): (&str, &str),
        live: &Live,
        said: &Said,
        rule: &str,
    ) {
        let broker = &self.broker;
        command
            .arg(1)
            .arg(broker.names.seats(&said.user))
            .arg(node)
            .arg(before)
            .arg(said.connections)
            .arg(said.version)
            .arg(rule)
            .arg(said.fence)
            .arg(millis(broker.config.presence_kept))
            .arg(millis(LEFT_KEPT.min(broker.config.presence_kept)))
            .arg(broker.names.news_channel())
            .arg(said.user.as_str());
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

    async fn call_take(&self, said: &Said, rule: SeatRule) -> Result<Answer, CallError> {
        let (node, link) = self.name().await?;
        let live = self.live(&link).await?;
        let rule = match rule {
            SeatRule::AtMost(max) => max.to_string(),
            SeatRule::NewestWins => "w".to_owned(),
        };
        let fill =
            |command: &mut Cmd, _: &Link| self.fill(command, (&node, ""), &live, said, &rule);
        let script = &self.broker.commands.scripts().seat;
        parse(self.broker.commands.run_script(&link, script, fill).await?)
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

const UNAVAILABLE: SeatError = SeatError::Unavailable { retry_after: RETRY_AFTER };

#[async_trait]
impl Seats for RedisSeats {
    async fn take(
        &self,
        user: &UserId,
        connection: ConnectionId,
        rule: SeatRule,
    ) -> Result<Taken, SeatError> {
        let (said, spread) = self.lock().come(user, connection);
        let (fence, nodes) = match (self.call_take(&said, rule).await, rule) {
            (Ok((1, fence, nodes)), _) => (fence, nodes),
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
            seated.hear_spread(user, nodes);
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
