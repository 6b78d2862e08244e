//! The way to all servers, and calls over it.
//!
//! A call is made once: whether one that got no answer took effect is not known, and only its caller knows how to
//! repeat it. What a server says it has not done is asked of the right one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use application::ports::Entropy;
use redis::{Cmd, RedisError, Script, Value};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::answers::{Fault, words};
use crate::batch::{Batch, error_of, pipeline};
use crate::cluster::Topology;
use crate::config::Config;
use crate::line::{Identity, Line};
use crate::replicate::Replicating;
use crate::scripts::Scripts;
use crate::servers::{Layout, Place, Servers};
use crate::slots::{SlotMap, slot_of, slot_of_command};
use crate::sparing::Sparing;
use crate::status::{Status, count};

/// Between two attempts to find who has a slot that has moved.
const REDIRECT_PAUSE: Duration = Duration::from_millis(20);

/// Each call may be refused.
static REFUSED: Sparing = Sparing::new();

/// Why a call has no answer.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum CallError {
    /// Redis is away, or was while it was asked: the call may have taken effect.
    #[error("redis is away")]
    Away,
    /// Redis, or a script, refused it: nothing was changed.
    #[error("redis refused: {0}")]
    Refused(String),
    /// The room's log has given out its last offset.
    #[error("the room's log is full")]
    Full,
    /// Its fence is not its user's any more: nothing was changed.
    #[error("a newer connection speaks for its user")]
    Fenced,
    /// Redis has lost its user's fence: nothing was changed.
    #[error("redis does not know who speaks for the user")]
    Unfenced,
}

/// One server, with its connection while there is one.
pub(crate) struct Server {
    pub(crate) place: Place,
    state: Mutex<ServerState>,
    pub(crate) broken: Notify,
    pub(crate) replicating: Replicating,
}

#[derive(Default)]
struct ServerState {
    line: Option<Arc<Line>>,
    /// Which process it was when there was a connection.
    known: Identity,
    /// The process and the number of a connection that was given up, and may still be read there.
    given_up: Option<(String, i64)>,
}

impl Server {
    pub(crate) fn new(place: Place, config: &Config) -> Arc<Self> {
        let (state, broken) = (Mutex::default(), Notify::new());
        Arc::new(Self { place, state, broken, replicating: Replicating::new(config) })
    }

    fn state(&self) -> MutexGuard<'_, ServerState> {
        // A panic while it is held can only come from memory running out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn line(&self) -> Option<Arc<Line>> {
        self.state().line.clone()
    }

    /// Which process it is, or was.
    pub(crate) fn known(&self) -> Identity {
        self.state().known.clone()
    }

    pub(crate) fn given_up(&self) -> Option<(String, i64)> {
        self.state().given_up.clone()
    }

    pub(crate) fn set_line(&self, line: &Arc<Line>) {
        let mut state = self.state();
        state.known = line.identity.clone();
        state.line = Some(Arc::clone(line));
        state.given_up = None;
    }

    /// Ends the use of a connection, if it is still the one in use.
    pub(crate) fn give_up(&self, line: &Line) -> bool {
        let mut state = self.state();
        let is_it =
            state.line.as_ref().is_some_and(|here| here.id == line.id && here.since == line.since);
        if is_it {
            state.line = None;
            state.given_up = Some((line.identity.run.clone(), line.id));
        }
        is_it
    }
}

/// All connections as they were at one moment.
pub(crate) struct Link {
    lines: Vec<Option<Arc<Line>>>,
    pub(crate) slots: SlotMap,
    /// The lives of all servers: who finds it changed knows that what was written last may be lost.
    pub(crate) life: String,
    /// Since when all of them have been there without a break.
    pub(crate) since: Instant,
}

impl Link {
    pub(crate) fn of(masters: &[Arc<Server>], slots: &SlotMap) -> Self {
        let lines: Vec<_> = masters.iter().map(|server| server.line()).collect();
        let mut lives: Vec<_> = masters.iter().map(|server| server.known().life).collect();
        lives.sort();
        let all = lines.iter().flatten().map(|line| line.since).max();
        let since = all.filter(|_| lines.iter().all(Option::is_some)).unwrap_or_else(Instant::now);
        Self { lines, slots: slots.clone(), life: lives.join(" "), since }
    }

    fn is_whole(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(Option::is_some)
    }

    fn line_at(&self, slot: impl FnOnce() -> Option<u16>) -> Option<&Arc<Line>> {
        let owner = match &self.slots {
            SlotMap::One => 0,
            SlotMap::Many(_) => self.slots.owner(slot()?)?,
        };
        self.lines.get(owner)?.as_ref()
    }

    /// The connection to whoever has the first key of a command.
    fn line_of(&self, command: &Cmd) -> Option<&Arc<Line>> {
        self.line_at(|| slot_of_command(command))
    }

    /// The life of the server that has a key.
    pub(crate) fn life_of(&self, key: &str) -> &str {
        self.line_at(|| Some(slot_of(key.as_bytes()))).map_or("", |line| &line.identity.life)
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &Arc<Line>> {
        self.lines.iter().flatten()
    }
}

/// The servers that there are, and the way to them.
struct Net {
    masters: Vec<Arc<Server>>,
    slots: SlotMap,
    link: Option<Arc<Link>>,
}

/// Makes the connections, and calls over them.
pub(crate) struct Commands {
    pub(crate) servers: Servers,
    pub(crate) config: Config,
    scripts: &'static Scripts,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) status: Arc<Status>,
    /// Held for a look only.
    net: Mutex<Net>,
    pub(crate) topology: watch::Sender<Arc<Topology>>,
    /// Told when who has which slot may have changed.
    pub(crate) moved: Notify,
    pub(crate) linked: Notify,
}

impl Commands {
    pub(crate) fn new(
        servers: Servers,
        config: Config,
        entropy: Arc<dyn Entropy>,
        status: Arc<Status>,
    ) -> Self {
        let scripts = Scripts::of(servers.layout() == Layout::Cluster);
        let net = Net { masters: Vec::new(), slots: SlotMap::empty(), link: None };
        let topology = watch::Sender::new(Arc::new(Topology::first(servers.layout())));
        let (net, moved, linked) = (Mutex::new(net), Notify::new(), Notify::new());
        Self { servers, config, scripts, entropy, status, net, topology, moved, linked }
    }

    pub(crate) const fn scripts(&self) -> &Scripts {
        self.scripts
    }

    fn net(&self) -> MutexGuard<'_, Net> {
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections, unless all of Redis is away.
    pub(crate) fn link(&self) -> Result<Arc<Link>, CallError> {
        self.net().link.clone().ok_or(CallError::Away)
    }

    /// What says something to a channel.
    pub(crate) fn say(&self) -> &'static str {
        match self.servers.layout() {
            Layout::One => "PUBLISH",
            Layout::Cluster => "SPUBLISH",
        }
    }

    /// The server at a place, if there is one.
    pub(crate) fn server_at(&self, place: &Place) -> Option<Arc<Server>> {
        self.net().masters.iter().find(|server| server.place == *place).cloned()
    }

    /// Has these servers from now on.
    pub(crate) fn set_masters(&self, masters: Vec<Arc<Server>>, slots: SlotMap) {
        {
            let mut net = self.net();
            net.masters = masters;
            net.slots = slots;
        }
        self.review();
    }

    /// Looks which connections there are.
    pub(crate) fn review(&self) {
        let mut net = self.net();
        let link = Link::of(&net.masters, &net.slots);
        let is_whole = link.is_whole();
        let is_there = link.lines().next().is_some();
        net.link = is_there.then(|| Arc::new(link));
        self.status.set_commands_up(is_whole);
    }

    /// Runs a script with the keys and arguments that `fill` adds. A server that has lost its scripts is
    /// given them again.
    pub(crate) async fn run_script(
        &self,
        link: &Arc<Link>,
        script: &Script,
        fill: impl Fn(&mut Cmd, &Link),
    ) -> Result<Value, CallError> {
        let build = |link: &Link| self.script_call(link, script, &fill);
        self.call(link, build, false).await
    }

    /// The same, once replicas have what the script wrote, and what was written before it. Without them it has
    /// happened all the same, but has no answer.
    pub(crate) async fn run_replicated(
        &self,
        link: &Arc<Link>,
        script: &Script,
        fill: impl Fn(&mut Cmd, &Link),
    ) -> Result<Value, CallError> {
        let build = |link: &Link| self.script_call(link, script, &fill);
        self.call(link, build, true).await
    }

    fn script_call(&self, link: &Link, script: &Script, fill: impl Fn(&mut Cmd, &Link)) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash());
        fill(&mut command, link);
        command
    }

    /// Asks one command, whose words `fill` adds.
    pub(crate) async fn ask_for<T: redis::FromRedisValue>(
        &self,
        link: &Arc<Link>,
        fill: impl Fn(&mut Cmd),
    ) -> Result<T, CallError> {
        let build = |_: &Link| {
            let mut command = Cmd::new();
            fill(&mut command);
            command
        };
        crate::broker::parse(self.call(link, build, false).await?)
    }

    /// Asks whoever has the keys, and again elsewhere, within the time for an answer, for as long as nothing was
    /// done.
    async fn call(
        &self,
        link: &Arc<Link>,
        build: impl Fn(&Link) -> Cmd,
        is_replicated: bool,
    ) -> Result<Value, CallError> {
        count(&self.status.calls, 1);
        let mut link = Arc::clone(link);
        let mut until = None;
        loop {
            let command = build(&link);
            let Some(line) = link.line_of(&command).cloned() else {
                self.moved.notify_one();
                return Err(CallError::Away);
            };
            let answer = match is_replicated {
                false => self.ask(&line, &command).await,
                true => match line.server.upgrade() {
                    Some(server) => server.replicating.ask(command.clone()).await?,
                    None => return Err(CallError::Away),
                },
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match Fault::of(&error) {
                Fault::Moved => self.moved.notify_one(),
                Fault::Again => {}
                Fault::Ask if !is_replicated => {
                    if let Some(answer) = self.ask_there(&link, &error, &command).await {
                        return answer;
                    }
                }
                Fault::Ask => {}
                Fault::NoScript if is_replicated && until.is_none() => {
                    if self.load_scripts(&line).await.is_err() {
                        return Err(CallError::Away);
                    }
                }
                _ => return Err(self.fail(&line, &error)),
            }
            let end = *until.get_or_insert_with(|| Instant::now() + self.config.answer_timeout);
            if Instant::now() >= end {
                count(&self.status.failed_calls, 1);
                return Err(CallError::Away);
            }
            sleep(REDIRECT_PAUSE).await;
            link = self.link()?;
        }
    }

    /// A slot is on its way, and this key has arrived already. None where it is not there either.
    async fn ask_there(
        &self,
        link: &Link,
        error: &RedisError,
        command: &Cmd,
    ) -> Option<Result<Value, CallError>> {
        let (address, _) = error.redirect_node()?;
        let line = link.lines().find(|line| line.address == address)?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("ASKING").ignore().add_command(command.clone());
        let mut connection = line.connection.clone();
        let asking = pipeline.query_async::<(Value,)>(&mut connection);
        match timeout(self.config.answer_timeout, asking).await {
            Ok(Ok((answer,))) => Some(Ok(answer)),
            Ok(Err(error)) => match Fault::of(&error) {
                Fault::Moved | Fault::Ask | Fault::Again | Fault::NoScript => None,
                _ => Some(Err(self.fail(line, &error))),
            },
            Err(_) => {
                self.give_up(line);
                Some(Err(CallError::Away))
            }
        }
    }

    /// Asks over one connection, and gives it the scripts if it has lost them.
    async fn ask(&self, line: &Line, command: &Cmd) -> Result<Value, RedisError> {
        match line.ask(command, self.config.answer_timeout).await {
            Err(error) if Fault::of(&error) == Fault::NoScript => {
                // Unknown means not begun, so the same call can be made again.
                self.load_scripts(line).await?;
                line.ask(command, self.config.answer_timeout).await
            }
            answer => answer,
        }
    }

    /// Runs commands that may be run again. Answers those that somebody wants to hear of, in their order.
    pub(crate) async fn run_batch(
        &self,
        link: &Arc<Link>,
        batch: &Batch,
    ) -> Vec<Result<Value, CallError>> {
        count(&self.status.calls, 1);
        let mut of_lines: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, step) in batch.steps.iter().enumerate() {
            let owner = match &link.slots {
                SlotMap::One => Some(0),
                SlotMap::Many(_) => {
                    slot_of_command(&step.command).and_then(|slot| link.slots.owner(slot))
                }
            };
            of_lines.entry(owner.unwrap_or(usize::MAX)).or_default().push(place);
        }
        let mut answers: Vec<_> = batch.steps.iter().map(|_| Err(CallError::Away)).collect();
        for (owner, places) in of_lines {
            let Some(line) = link.lines.get(owner).and_then(Option::as_ref) else {
                self.moved.notify_one();
                continue;
            };
            self.run_some(line, batch, &places, &mut answers).await;
        }
        let with_steps = answers.into_iter().zip(&batch.steps);
        with_steps.filter(|(_, step)| step.is_asked).map(|(answer, _)| answer).collect()
    }

    async fn run_some(
        &self,
        line: &Arc<Line>,
        batch: &Batch,
        places: &[usize],
        answers: &mut [Result<Value, CallError>],
    ) {
        let commands = pipeline(&batch.steps, places);
        for is_again in [false, true] {
            let mut connection = line.connection.clone();
            let asking = commands.query_async::<Vec<Value>>(&mut connection);
            // A pipeline of hundreds takes longer than one call.
            let values = match timeout(2 * self.config.answer_timeout, asking).await {
                Ok(Ok(values)) => values,
                Ok(Err(error)) => {
                    self.fail(line, &error);
                    return;
                }
                Err(_) => return self.give_up(line),
            };
            let is_unknown = |value: &Value| {
                error_of(value).is_some_and(|error| Fault::of(&error) == Fault::NoScript)
            };
            if !is_again && values.iter().any(is_unknown) {
                if let Err(error) = self.load_scripts(line).await {
                    self.fail(line, &error);
                    return;
                }
                continue;
            }
            for (place, value) in places.iter().zip(values) {
                answers[*place] = match error_of(&value) {
                    Some(error) => Err(self.fail(line, &error)),
                    None => Ok(value),
                };
            }
            return;
        }
    }

    pub(crate) async fn load_scripts(&self, line: &Line) -> Result<(), RedisError> {
        for script in self.scripts.all() {
            script.load_async(&mut line.connection.clone()).await?;
        }
        Ok(())
    }

    /// What a call has instead of an answer, and what becomes of its connection.
    pub(crate) fn fail(&self, line: &Arc<Line>, error: &RedisError) -> CallError {
        count(&self.status.failed_calls, 1);
        match Fault::of(error) {
            Fault::Full => CallError::Full,
            Fault::Fenced => CallError::Fenced,
            Fault::Unfenced => CallError::Unfenced,
            // A server that takes no writes has become a replica, or is about to go; one that is in another life has
            // been something else meanwhile.
            Fault::Lost | Fault::Demoted | Fault::Outlived => {
                self.servers.lives().met(error);
                self.give_up(line);
                CallError::Away
            }
            Fault::Moved | Fault::Ask | Fault::Again => {
                self.moved.notify_one();
                CallError::Away
            }
            Fault::Busy => CallError::Away,
            Fault::NoScript | Fault::Refused => {
                let error = words(error);
                if let Some(left_out) = REFUSED.turn() {
                    tracing::error!(error, left_out, "redis refused a call");
                }
                CallError::Refused(error)
            }
        }
    }

    /// Ends the use of a connection, if it is still the one in use.
    pub(crate) fn give_up(&self, line: &Arc<Line>) {
        let Some(server) = line.server.upgrade() else { return };
        if server.give_up(line) {
            self.review();
            server.broken.notify_one();
        }
    }

    /// Waits until there is another connection.
    pub(crate) async fn linked(&self) {
        self.linked.notified().await;
    }
}
