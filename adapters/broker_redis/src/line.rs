//! One connection to one server, and whether that is one to speak to.
//!
//! A connection that did not answer in time is given up and never used again, so that no answer can be taken for
//! another's. What was written into one that was given up must never be done after what the next one is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use application::ports::Entropy;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, Script, Value};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};

use crate::answers::{Fault, code, words};
use crate::config::Config;
use crate::link::Server;
use crate::servers::{Layout, Place, Servers};
use crate::wire::Wire;

/// The shortest pause before the next attempt to connect.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// The oldest that has what the scripts need, and what a Cluster needs.
const VERSION_MIN: (u32, u32) = (6, 2);
const VERSION_MIN_OF_CLUSTERS: (u32, u32) = (7, 0);

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("{}", words(.0))]
    Redis(RedisError),
    #[error("it did not answer in time")]
    Timeout,
    #[error("it has ended the connection, or a slot's channels")]
    Closed,
    #[error(
        "it is version {0}, and {1}.{2} is the oldest that works: use a newer Redis, or Valkey"
    )]
    TooOld(String, u32, u32),
    #[error(
        "it is a replica, which takes no messages: give the master's address, or the sentinels'"
    )]
    Replica,
    #[error(
        "it is a Sentinel: write redis+sentinel://HOST:PORT/MASTER, with what it calls the master"
    )]
    IsSentinel,
    #[error("it is a Cluster: write redis+cluster://HOST:PORT")]
    IsCluster,
    #[error("it is no Cluster: write redis://HOST:PORT")]
    NoCluster,
    #[error("user or password are wrong: see redis.password")]
    Password,
    #[error("it has no such database: give a smaller number behind the address")]
    Database,
    #[error(
        "it does not do {0} for this user: allow ~PREFIX:* and &PREFIX/* with +@read +@write +@pubsub +@scripting \
         +@connection +info +time +wait +cluster, or use a newer server"
    )]
    Missing(String),
    #[error("the sentinels know no master of this name")]
    NoMaster,
    #[error("no sentinel answers")]
    NoSentinel,
    #[error("no server of the Cluster answers")]
    NoSeed,
    #[error("it answers what no Redis answers")]
    Strange,
    #[error("it is another server than the one that is asked")]
    Another,
}

impl ConnectError {
    /// Whether it will be so until somebody changes something.
    pub(crate) const fn is_for_good(&self) -> bool {
        match self {
            Self::TooOld(..)
            | Self::IsSentinel
            | Self::IsCluster
            | Self::NoCluster
            | Self::Password
            | Self::Database
            | Self::Missing(_)
            | Self::NoMaster => true,
            Self::Redis(_)
            | Self::Timeout
            | Self::Closed
            | Self::Replica
            | Self::NoSentinel
            | Self::NoSeed
            | Self::Strange
            | Self::Another => false,
        }
    }
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        let detail = error.detail().unwrap_or_default();
        if error.kind() == ErrorKind::RESP3NotSupported {
            let (major, minor) = VERSION_MIN;
            return Self::TooOld("5 or older".to_owned(), major, minor);
        }
        if error.kind() == ErrorKind::AuthenticationFailed {
            return Self::Password;
        }
        match code(&error) {
            Some("WRONGPASS" | "NOAUTH") => Self::Password,
            // It says which: `… has no permissions to run the 'info' command`.
            Some("NOPERM") => {
                Self::Missing(detail.split('\'').nth(1).unwrap_or("all of it").to_owned())
            }
            _ if detail.contains("DB index is out of range") => Self::Database,
            _ => Self::Redis(error),
        }
    }
}

/// One connection, and the server it was made to.
pub(crate) struct Line {
    pub(crate) connection: Wire,
    pub(crate) server: Weak<Server>,
    /// As the sentinels or the Cluster write it.
    pub(crate) address: String,
    pub(crate) identity: Identity,
    /// The server's number for this connection.
    pub(crate) id: i64,
    pub(crate) since: Instant,
}

/// Which process a server is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Identity {
    /// Another one after each of its starts.
    pub(crate) run: String,
    /// Another one after each start and each time as a replica: who finds it changed knows that what was
    /// written last may be lost. Outside of a Cluster all nodes know which of two is the newer.
    pub(crate) life: String,
}

impl Identity {
    /// Which of its lives, where they have numbers.
    fn number(&self) -> Option<u64> {
        let (number, _) = self.life.strip_prefix('@')?.split_once('-')?;
        number.parse().ok()
    }
}

/// How a node learns in which life a server is.
pub(crate) struct Lives {
    /// Where the server keeps it; none in a Cluster, where no key lies on each.
    key: Option<String>,
    /// The number of the newest that was met.
    newest: AtomicU64,
}

impl Lives {
    pub(crate) const fn new(key: Option<String>) -> Self {
        Self { key, newest: AtomicU64::new(0) }
    }

    /// What a server refused may say in which one a room is already.
    pub(crate) fn met(&self, error: &RedisError) {
        if Fault::of(error) == Fault::Outlived
            && let Some(number) = error.detail().and_then(|detail| detail.trim().parse().ok())
        {
            self.newest.fetch_max(number, Ordering::Relaxed);
        }
    }

    /// Which life of this process that is; an error also where the server does not say, for its memory is full.
    async fn of(
        &self,
        connection: &(impl ConnectionLike + Clone + Send),
        run: &str,
        history: &History<'_>,
        known: Option<&Identity>,
    ) -> Result<String, RedisError> {
        static SCRIPT: LazyLock<Script> =
            LazyLock::new(|| Script::new(include_str!("scripts/life.lua")));
        let Some(key) = &self.key else { return Ok(format!("{run}-{}", history.id)) };
        let number: String = SCRIPT
            .key(key)
            .arg(run)
            .arg(history.id)
            .arg(u8::from(history.is_first))
            .arg(self.newest.load(Ordering::Relaxed))
            .arg(known.and_then(Identity::number).unwrap_or(0))
            .invoke_async(&mut connection.clone())
            .await?;
        Ok(format!("{number}-{run}"))
    }
}

/// Whose writes a master has.
struct History<'i> {
    id: &'i str,
    /// Whether it knows of none before.
    is_first: bool,
}

impl<'i> History<'i> {
    /// None where it is a replica.
    fn read(info: &'i str) -> Option<Self> {
        if field(info, "role") != Some("master") {
            return None;
        }
        let id = field(info, "master_replid").unwrap_or_default();
        let before = field(info, "master_replid2").unwrap_or_default();
        Some(Self { id, is_first: before.bytes().all(|byte| byte == b'0') })
    }
}

/// Asks a server which one it is; an error where it is none to speak to.
pub(crate) async fn identify(
    connection: &MultiplexedConnection,
    servers: &Servers,
) -> Result<Identity, ConnectError> {
    let mut connection = connection.clone();
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    let run = check_server(&info, servers.layout())?;
    let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
    let history = History::read(&info).ok_or(ConnectError::Replica)?;
    let life = match servers.lives().of(&connection, &run, &history, None).await {
        Ok(life) => life,
        Err(error) if error.is_io_error() || error.is_timeout() => return Err(error.into()),
        // What it refuses is said when it is tried for everything; of full memory calls tell.
        Err(_) => format!("{run}-{}", history.id),
    };
    Ok(Identity { run, life })
}

/// Asks a connection whether it and its server are what they were. The answer to the first word shows that no
/// answer was lost or added.
pub(crate) async fn probe(
    connection: &(impl ConnectionLike + Clone + Send),
    servers: &Servers,
    identity: &Identity,
    nonce: u64,
) -> Result<(), ConnectError> {
    let nonce = nonce.to_string();
    let mut pipeline = redis::pipe();
    pipeline.cmd("PING").arg(&nonce).cmd("INFO").arg("replication");
    let (echo, info): (String, String) = pipeline.query_async(&mut connection.clone()).await?;
    if echo != nonce {
        return Err(ConnectError::Strange);
    }
    let history = History::read(&info).ok_or(ConnectError::Replica)?;
    match servers.lives().of(connection, &identity.run, &history, Some(identity)).await {
        Ok(life) if life == identity.life => Ok(()),
        Ok(_) => Err(ConnectError::Another),
        Err(error) if error.is_io_error() || error.is_timeout() => Err(error.into()),
        // It can't write down a new one, nor anything else.
        Err(_) => Ok(()),
    }
}

/// Reads the server's id, if it is one that works.
fn check_server(info: &str, layout: Layout) -> Result<String, ConnectError> {
    let version = field(info, "redis_version").ok_or(ConnectError::Strange)?;
    match (field(info, "redis_mode"), layout) {
        (Some("sentinel"), _) => return Err(ConnectError::IsSentinel),
        (Some("cluster"), Layout::One) => return Err(ConnectError::IsCluster),
        (Some("standalone"), Layout::Cluster) => return Err(ConnectError::NoCluster),
        _ => {}
    }
    let (major, minor) = match layout {
        Layout::One => VERSION_MIN,
        Layout::Cluster => VERSION_MIN_OF_CLUSTERS,
    };
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (major, minor) {
        return Err(ConnectError::TooOld(version.to_owned(), major, minor));
    }
    let run = field(info, "run_id").filter(|id| !id.is_empty()).ok_or(ConnectError::Strange)?;
    Ok(run.to_owned())
}

/// A line of `INFO`.
fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
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

/// What connections for calls are made with.
pub(crate) fn options(config: &Config, answer_timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.answer_timeout))
        .set_response_timeout(Some(answer_timeout))
        .set_pipeline_buffer_size(config.calls_max)
        .set_concurrency_limit(config.calls_max)
}

/// Makes a connection for calls. The one before it to the same process is closed there first: what it still had to
/// read is not done any more.
pub(crate) async fn open(
    servers: &Servers,
    server: &Arc<Server>,
    config: &Config,
    answer_timeout: Duration,
    before: Option<(String, i64)>,
) -> Result<Line, ConnectError> {
    let place = servers.locate(&server.place, config).await?;
    let client = servers.client(place)?;
    let address = client.get_connection_info().addr().to_string();
    let connection = connect(&client, &options(config, answer_timeout), config).await?;
    let identity = identify(&connection, servers).await?;
    // A number that nobody has shows that it may be done.
    let old = before.filter(|(run, _)| *run == identity.run).map_or(i64::MAX, |(_, id)| id);
    let mut words = connection.clone();
    redis::cmd("CLIENT").arg("KILL").arg("ID").arg(old).exec_async(&mut words).await?;
    let id = redis::cmd("CLIENT").arg("ID").query_async(&mut words).await?;
    let (server, connection) = (Arc::downgrade(server), Wire::Server(connection));
    Ok(Line { connection, server, address, identity, id, since: Instant::now() })
}

impl Line {
    /// Asks one command. The library counts its time from the moment when a call is sent: this one is for waiting,
    /// too.
    pub(crate) async fn ask(&self, command: &Cmd, within: Duration) -> Result<Value, RedisError> {
        let mut connection = self.connection.clone();
        match timeout(within, command.query_async(&mut connection)).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

impl Servers {
    /// Where a server is now.
    pub(crate) async fn locate(
        &self,
        place: &Place,
        config: &Config,
    ) -> Result<redis::ConnectionAddr, ConnectError> {
        match place {
            Place::At(address) => Ok(address.clone()),
            Place::Only if self.sentinels().is_some() => {
                crate::sentinel::master_of(self, config).await
            }
            Place::Only => Ok(self.only().clone()),
        }
    }
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
        assert_eq!(check_server(info, Layout::One).unwrap(), "abc");
        let old = check_server("redis_version:5.0.3\r\nrun_id:abc\r\n", Layout::One).unwrap_err();
        assert!(old.to_string().contains("version 5.0.3, and 6.2"), "{old}");
        let old =
            check_server("redis_version:6.2.1\r\nrun_id:abc\r\n", Layout::Cluster).unwrap_err();
        assert!(old.to_string().contains("7.0 is the oldest"), "{old}");
        for strange in ["", "run_id:abc\r\n", "redis_version:7.0.15\r\nrun_id:\r\n"] {
            let read = check_server(strange, Layout::One);
            assert!(matches!(read, Err(ConnectError::Strange)), "{strange}");
        }
    }

    #[test]
    fn a_server_of_another_kind_than_the_address_says_is_named() {
        for (mode, layout, words) in [
            ("sentinel", Layout::One, "redis+sentinel://"),
            ("cluster", Layout::One, "redis+cluster://"),
            ("standalone", Layout::Cluster, "redis://"),
        ] {
            let info = format!("redis_version:7.0.15\r\nredis_mode:{mode}\r\nrun_id:abc\r\n");
            let error = check_server(&info, layout).unwrap_err();
            assert!(error.is_for_good() && error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_master_says_whose_writes_it_has_and_whether_it_had_another_s_before() {
        let read = |role, before| {
            let info = format!("role:{role}\r\nmaster_replid:ab\r\nmaster_replid2:{before}\r\n");
            History::read(&info).map(|history| (history.id == "ab", history.is_first))
        };
        assert_eq!(read("slave", "0000"), None);
        assert_eq!(read("master", "0000"), Some((true, true)));
        assert_eq!(read("master", "0c00"), Some((true, false)));
    }
}
