//! The connection that commands go over, made again whenever it is lost.
//!
//! A call is made once: whether one that got no answer took effect is not known, and only its caller
//! knows how to repeat it. A connection that did not answer in time is given up and never used again, so
//! that no answer can be taken for another's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use application::ports::Entropy;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value,
};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Config, words};
use crate::scripts::Scripts;
use crate::status::{Status, count};

/// The shortest pause before the next attempt to connect.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// The oldest that has what the scripts need.
const VERSION_MIN: (u32, u32) = (6, 2);

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

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("{}", words(.0))]
    Redis(#[from] RedisError),
    #[error("it did not answer in time")]
    Timeout,
    #[error("it is version {0}, and 6.2 is the oldest that works")]
    TooOld(String),
    #[error("it is a replica, which takes no messages")]
    Replica,
    #[error("it answers what no Redis answers")]
    Strange,
}

/// One connection, and the server it was made to.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    /// The server's own id, another one after each of its starts: who finds it changed knows that what
    /// was written last may be lost.
    pub(crate) life: String,
    pub(crate) since: Instant,
}

/// Makes the connection, and calls over it.
pub(crate) struct Commands {
    client: Client,
    config: Config,
    scripts: Scripts,
    entropy: Arc<dyn Entropy>,
    status: Arc<Status>,
    /// Held for a look only.
    link: Mutex<Option<Arc<Link>>>,
    broken: Notify,
    linked: Notify,
}

impl Commands {
    pub(crate) fn new(
        client: Client,
        config: Config,
        entropy: Arc<dyn Entropy>,
        status: Arc<Status>,
    ) -> Self {
        let (link, scripts) = (Mutex::default(), Scripts::new());
        let (broken, linked) = (Notify::new(), Notify::new());
        Self { client, config, scripts, entropy, status, link, broken, linked }
    }

    pub(crate) const fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// The connection, unless Redis is away.
    pub(crate) fn link(&self) -> Result<Arc<Link>, CallError> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.clone().ok_or(CallError::Away)
    }

    /// Runs a script with the keys and arguments that `fill` adds. A server that has lost its scripts is
    /// given them again.
    pub(crate) async fn run_script(
        &self,
        link: &Arc<Link>,
        script: &Script,
        fill: impl FnOnce(&mut Cmd),
    ) -> Result<Value, CallError> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash());
        fill(&mut command);
        count(&self.status.calls, 1);
        let answer = match self.ask(link, &command).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                // Unknown means not begun, so the same call can be made again.
                match self.load_scripts(&link.connection).await {
                    Ok(()) => self.ask(link, &command).await,
                    Err(error) => Err(error),
                }
            }
            answer => answer,
        };
        answer.map_err(|error| self.fail(link, &error))
    }

    /// Runs a pipeline of scripts that may be run again.
    pub(crate) async fn run_pipeline<T: redis::FromRedisValue>(
        &self,
        link: &Arc<Link>,
        pipeline: &redis::Pipeline,
    ) -> Result<T, CallError> {
        count(&self.status.calls, 1);
        let mut connection = link.connection.clone();
        let answer: Result<T, _> = match pipeline.query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                match self.load_scripts(&link.connection).await {
                    Ok(()) => pipeline.query_async(&mut connection).await,
                    Err(error) => Err(error),
                }
            }
            answer => answer,
        };
        answer.map_err(|error| self.fail(link, &error))
    }

    /// Asks one command, whose words `fill` adds.
    pub(crate) async fn ask_for<T: redis::FromRedisValue>(
        &self,
        link: &Arc<Link>,
        fill: impl FnOnce(&mut Cmd),
    ) -> Result<T, CallError> {
        let mut command = Cmd::new();
        fill(&mut command);
        count(&self.status.calls, 1);
        let answer = self.ask(link, &command).await.map_err(|error| self.fail(link, &error))?;
        crate::broker::parse(answer)
    }

    /// The library counts its time from the moment when a call is sent: this one is for waiting, too.
    async fn ask(&self, link: &Link, command: &Cmd) -> Result<Value, RedisError> {
        let mut connection = link.connection.clone();
        match timeout(self.config.answer_timeout, command.query_async(&mut connection)).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    /// Waits until there is another connection.
    pub(crate) async fn linked(&self) {
        self.linked.notified().await;
    }

    async fn load_scripts(&self, connection: &MultiplexedConnection) -> Result<(), RedisError> {
        for script in self.scripts.all() {
            script.load_async(&mut connection.clone()).await?;
        }
        Ok(())
    }

    fn fail(&self, link: &Arc<Link>, error: &RedisError) -> CallError {
        count(&self.status.failed_calls, 1);
        match error.code() {
            Some("ROOMFULL") => return CallError::Full,
            Some("FENCED") => return CallError::Fenced,
            Some("UNFENCED") => return CallError::Unfenced,
            _ => {}
        }
        let is_lost = error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error();
        // A server that takes no writes has become a replica, or is about to go.
        let is_demoted = matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        );
        if is_lost || is_demoted {
            self.give_up(link);
            return CallError::Away;
        }
        if error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading) {
            return CallError::Away;
        }
        let error = words(error);
        tracing::error!(error, "redis refused a call");
        CallError::Refused(error)
    }

    /// Ends the use of a connection, if it is still the one in use.
    fn give_up(&self, link: &Arc<Link>) {
        let mut here = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if here.as_ref().is_some_and(|here| Arc::ptr_eq(here, link)) {
            *here = None;
            self.status.set_commands_up(false);
            self.broken.notify_one();
        }
    }

    /// Keeps a connection for as long as it is polled.
    pub(crate) async fn run(&self) {
        let mut retry = Retry::new(&self.config, &self.entropy);
        loop {
            match self.connect().await {
                Ok(link) => {
                    tracing::info!("connected to redis");
                    retry.worked();
                    let link = Arc::new(link);
                    *self.link.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(Arc::clone(&link));
                    self.status.set_commands_up(true);
                    self.linked.notify_one();
                    self.watch(&link).await;
                    tracing::warn!("the connection to redis is lost");
                }
                Err(error) => retry.failed("commands", &error).await,
            }
        }
    }

    /// Returns once the connection is given up.
    async fn watch(&self, link: &Arc<Link>) {
        loop {
            tokio::select! {
                () = self.broken.notified() => {}
                () = sleep(self.config.probe_interval) => {
                    if let Err(error) = self.ask(link, &redis::cmd("PING")).await {
                        self.fail(link, &error);
                    }
                }
            }
            if self.link().map_or(true, |here| !Arc::ptr_eq(&here, link)) {
                return;
            }
        }
    }

    async fn connect(&self) -> Result<Link, ConnectError> {
        let options = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.answer_timeout))
            .set_response_timeout(Some(self.config.answer_timeout))
            .set_pipeline_buffer_size(self.config.calls_max)
            .set_concurrency_limit(self.config.calls_max);
        let connection = connect(&self.client, &options, &self.config).await?;
        let info: String =
            redis::cmd("INFO").arg("server").query_async(&mut connection.clone()).await?;
        let life = check_server(&info)?;
        let info: String =
            redis::cmd("INFO").arg("replication").query_async(&mut connection.clone()).await?;
        if field(&info, "role") == Some("slave") {
            return Err(ConnectError::Replica);
        }
        // The first is another after a start, the second after each time as a replica.
        let life = format!("{life}-{}", field(&info, "master_replid").unwrap_or_default());
        self.load_scripts(&connection).await?;
        count(&self.status.connects, 1);
        Ok(Link { connection, life, since: Instant::now() })
    }
}

/// Connects within the time for an answer, all that is said on the way included.
pub(crate) async fn connect(
    client: &Client,
    options: &AsyncConnectionConfig,
    config: &Config,
) -> Result<MultiplexedConnection, ConnectError> {
    let connecting = client.get_multiplexed_async_connection_with_config(options);
    match timeout(config.answer_timeout, connecting).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(ConnectError::Timeout),
    }
}

/// Reads the server's id, if it is one that works.
fn check_server(info: &str) -> Result<String, ConnectError> {
    let version = field(info, "redis_version").ok_or(ConnectError::Strange)?;
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < VERSION_MIN {
        return Err(ConnectError::TooOld(version.to_owned()));
    }
    let life = field(info, "run_id").filter(|id| !id.is_empty()).ok_or(ConnectError::Strange)?;
    Ok(life.to_owned())
}

/// A line of `INFO`.
fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// The pauses between attempts: doubled up to a maximum and spread, so that nodes don't come in step.
pub(crate) struct Retry<'a> {
    pause: Duration,
    pause_max: Duration,
    entropy: &'a Arc<dyn Entropy>,
    /// What failed last, so that the same is said once.
    said: Option<String>,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(config: &Config, entropy: &'a Arc<dyn Entropy>) -> Self {
        Self { pause: RETRY_PAUSE_MIN, pause_max: config.retry_pause_max, entropy, said: None }
    }

    pub(crate) fn worked(&mut self) {
        self.pause = RETRY_PAUSE_MIN;
        self.said = None;
    }

    /// Says what went wrong, if that is new, and waits.
    pub(crate) async fn failed(&mut self, connection: &str, error: &ConnectError) {
        let error = error.to_string();
        if self.said.as_ref() != Some(&error) {
            tracing::warn!(connection, error, "redis can't be reached; it is tried again");
            self.said = Some(error);
        }
        // Between a half and the whole of it.
        let half = self.pause / 2;
        let spread = self.entropy.bits().unwrap_or(0) % 1_024;
        sleep(half + half.mul_f64(spread as f64 / 1_024.0)).await;
        self.pause = (self.pause * 2).min(self.pause_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_id_is_read_and_one_that_is_too_old_is_named() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n";
        assert_eq!(check_server(info).unwrap(), "abc");
        let old = check_server("redis_version:5.0.3\r\nrun_id:abc\r\n").unwrap_err();
        assert!(old.to_string().contains("version 5.0.3"), "{old}");
        for strange in ["", "run_id:abc\r\n", "redis_version:7.0.15\r\nrun_id:\r\n"] {
            assert!(matches!(check_server(strange), Err(ConnectError::Strange)), "{strange}");
        }
    }
}
