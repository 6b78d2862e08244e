//! Connections to the server, each with its time-outs set and its word taken that it can keep what it commits.
//!
//! It must never hand out a connection that may lose a commit without having said so at the start, and never
//! show a password.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use crate::config::{Config, ConfigError, Sharing};
use crate::error::{Failure, random_bits, within};
use crate::life;
use crate::status::Status;

/// Prepared statements kept per connection; there are fewer different ones.
const STATEMENTS_MAX: usize = 64;

/// How long a lock that somebody holds is waited for: the session of a killed server ends after its
/// statement.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at it, at first and at most.
const LOCK_LOOK_MIN: Duration = Duration::from_millis(2);
const LOCK_LOOK_MAX: Duration = Duration::from_millis(100);

/// The second number of the locks of transactions, behind those of writers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    Letters = 1_000,
    Moderation = 1_001,
    Matches = 1_002,
    Migration = 1_003,
}

/// What a server says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub(crate) version: i32,
    pub(crate) is_read_only: bool,
    pub(crate) fsync: bool,
    pub(crate) full_page_writes: bool,
    pub(crate) synchronous_commit: String,
    pub(crate) encoding: String,
    /// Which life of the server it is, where it takes writes and says so.
    pub(crate) life: Option<String>,
}

/// A connection of a writer.
pub(crate) struct WriterConnection {
    pub(crate) connection: PgConnection,
    /// Which life of the server it is to.
    pub(crate) life: Option<String>,
}

impl Greeting {
    /// The setting by which the server may lose what it has committed.
    pub(crate) fn loses_by(&self) -> Option<&'static str> {
        let settings = [(self.fsync, "fsync"), (self.full_page_writes, "full_page_writes")];
        settings.into_iter().find_map(|(is_on, setting)| (!is_on).then_some(setting))
    }
}

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Connector {
    options: PgConnectOptions,
    pub(crate) schema: String,
    sharing: Sharing,
    accepts_loss: bool,
    /// How this process is called there; nobody else is.
    name: String,
    pub(crate) answer_timeout: Duration,
    pub(crate) status: Arc<Status>,
}

/// Whether a parameter of an address means something.
fn is_known_parameter(parameter: &str) -> bool {
    const KNOWN: [&str; 20] = [
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
        "options[",
        "",
    ];
    let name = parameter.split('=').next().unwrap_or_default();
    // Encoded or not.
    let name = name.replace("%5B", "[").replace("%5b", "[");
    KNOWN.contains(&&*name) || name.starts_with("options[")
}

impl Connector {
    pub(crate) fn new(config: &Config, status: Arc<Status>) -> Result<Self, ConfigError> {
        let url = config.url.expose_secret();
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(ConfigError::Url("it is of another kind"));
        }
        let is_name = |name: &str| {
            (1..=40).contains(&name.len())
                && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
                && name.starts_with(|c: char| c.is_ascii_lowercase())
        };
        if !is_name(&config.schema) {
            return Err(ConfigError::Schema);
        }
        if let Some((_, query)) = url.split_once('?')
            && !query.split('&').all(is_known_parameter)
        {
            // sqlx would pass over it, and log it with its value.
            return Err(ConfigError::Url("it has a parameter that means nothing here"));
        }
        // The error of sqlx may quote the address.
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| ConfigError::Url("it can't be read as one"))?;
        let ms = |duration: Duration| format!("{}ms", duration.as_millis());
        let name = format!("roomkeeper/{:016x}", random_bits());
        let mut options = options
            .application_name(&name)
            .statement_cache_capacity(STATEMENTS_MAX)
            .options([
                ("search_path", config.schema.clone()),
                ("statement_timeout", ms(config.answer_timeout)),
                // Whatever the database or the user has: what is decided here is decided behind locks, and
                // must see what was committed while they were waited for.
                ("default_transaction_isolation", "read committed".to_owned()),
                ("lock_timeout", ms(config.answer_timeout / 2)),
                // Of a client that is gone without a word nothing stays locked for long.
                ("idle_in_transaction_session_timeout", ms(5 * config.answer_timeout)),
                ("tcp_keepalives_idle", "10".to_owned()),
                ("tcp_keepalives_interval", "5".to_owned()),
                ("tcp_keepalives_count", "3".to_owned()),
                // It is for queries of seconds, and costs a short one more than it takes.
                ("jit", "off".to_owned()),
            ])
            .disable_statement_logging();
        if let Some(password) = &config.password {
            options = options.password(password.expose_secret());
        }
        let Config { schema, sharing, answer_timeout, accepts_loss, .. } = config;
        Ok(Self {
            options,
            schema: schema.clone(),
            sharing: *sharing,
            accepts_loss: *accepts_loss,
            name,
            answer_timeout: *answer_timeout,
            status,
        })
    }

    /// How long an answer is waited for: longer than the server lets a statement run, so that a slow one
    /// ends there, with words, and leaves its connection of use.
    pub(crate) fn patience(&self) -> Duration {
        self.answer_timeout + self.answer_timeout / 4
    }

    /// Whether other nodes may have the tables, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.sharing == Sharing::Shared
    }

    /// Where it connects to, without a user or a password.
    pub(crate) fn place(&self) -> String {
        let (options, port) = (&self.options, self.options.get_port());
        let host = options
            .get_socket()
            .map_or_else(|| options.get_host().to_owned(), |socket| socket.display().to_string());
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        format!("{host}:{port}/{database}")
    }

    /// A connection that writes may be committed on.
    pub(crate) async fn connect(&self) -> Result<WriterConnection, Failure> {
        let (connection, greeting) = self.greet().await?;
        if greeting.is_read_only {
            return Err(Failure::Unfit("the server takes no writes".to_owned()));
        }
        // The one that was checked at the start may have been started again with other settings, or another
        // one have taken its place.
        if let Some(setting) = greeting.loses_by().filter(|_| !self.accepts_loss) {
            let why = format!("the server runs with {setting}=off and may lose what it commits");
            return Err(Failure::Unfit(why));
        }
        Ok(WriterConnection { connection, life: greeting.life })
    }

    /// A connection, and what the server says of itself.
    pub(crate) async fn greet(&self) -> Result<(PgConnection, Greeting), Failure> {
        within(self.patience(), self.open()).await
    }

    async fn open(&self) -> Result<(PgConnection, Greeting), sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        self.status.connected();
        let row = sqlx::query(
            "SELECT current_setting('server_version_num')::int4 AS version, \
             pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS read_only, \
             current_setting('fsync') = 'on' AS fsync, \
             current_setting('full_page_writes') = 'on' AS full_pages, \
             current_setting('synchronous_commit') AS synchronous, \
             current_setting('server_encoding') AS encoding",
        )
        .fetch_one(&mut connection)
        .await?;
        let mut greeting = Greeting {
            version: row.try_get("version")?,
            is_read_only: row.try_get("read_only")?,
            fsync: row.try_get("fsync")?,
            full_page_writes: row.try_get("full_pages")?,
            synchronous_commit: row.try_get("synchronous")?,
            encoding: row.try_get("encoding")?,
            life: None,
        };
        if !greeting.is_read_only {
            greeting.life = life::of_server(&mut connection).await?;
        }
        if greeting.synchronous_commit == "off" {
            // Ours are for what is acknowledged as durable; every session may ask for that.
            sqlx::query("SET synchronous_commit = on").execute(&mut connection).await?;
        }
        if greeting.version >= 140_000 {
            // A statement of a client that has gone ends.
            let look = "SET client_connection_check_interval = '1s'";
            sqlx::query(look).execute(&mut connection).await?;
        }
        Ok((connection, greeting))
    }

    /// The first number of all locks: one for each schema.
    pub(crate) fn lock_class(&self) -> i32 {
        // FNV-1a; the same in every version, since nodes of two versions may meet.
        let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let name = "roomkeeper:".bytes().chain(self.schema.bytes());
        name.fold(0x811c_9dc5, step).cast_signed()
    }

    /// A connection for one of the writers, which holds that writer's lock for as long as it lives: with
    /// it, no other server has the tables, or none that does not share them.
    pub(crate) async fn connect_writer(&self, writer: usize) -> Result<WriterConnection, Failure> {
        let WriterConnection { mut connection, life } = self.connect().await?;
        let place = i32::try_from(writer).unwrap_or(i32::MAX);
        let (begun, mut pause) = (tokio::time::Instant::now(), LOCK_LOOK_MIN);
        while !within(self.patience(), self.try_lock(&mut connection, place)).await? {
            if begun.elapsed() > LOCK_PATIENCE {
                let holder = within(self.patience(), self.holder(&mut connection, place)).await?;
                let who = holder.unwrap_or_else(|| "somebody who has gone meanwhile".to_owned());
                return Err(Failure::Unfit(format!("in use by {who}")));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOCK_LOOK_MAX);
        }
        Ok(WriterConnection { connection, life })
    }

    async fn try_lock(
        &self,
        connection: &mut PgConnection,
        place: i32,
    ) -> Result<bool, sqlx::Error> {
        let lock = match self.sharing {
            Sharing::Alone => "SELECT pg_try_advisory_lock($1, $2)",
            Sharing::Shared => "SELECT pg_try_advisory_lock_shared($1, $2)",
        };
        let locked = sqlx::query_scalar(lock).bind(self.lock_class()).bind(place);
        if locked.fetch_one(&mut *connection).await? {
            return Ok(true);
        }
        // An earlier connection of this process that the server takes for alive.
        sqlx::query(
            "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
             WHERE l.locktype = 'advisory' AND l.classid::int8 = $1 \
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND l.objid::int8 = $2 \
             AND l.granted AND a.application_name = $3 AND a.pid <> pg_backend_pid()",
        )
        .bind(i64::from(self.lock_class().cast_unsigned()))
        .bind(i64::from(place))
        .bind(&self.name)
        .execute(connection)
        .await?;
        Ok(false)
    }

    /// Who holds a writer's lock, for people.
    async fn holder(
        &self,
        connection: &mut PgConnection,
        place: i32,
    ) -> Result<Option<String>, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT a.application_name || ' (process ' || a.pid || coalesce(', from ' || \
             host(a.client_addr), '') || ')' \
             FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' \
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND l.classid::int8 = $1 AND l.objid::int8 = $2 AND l.granted LIMIT 1",
        )
        .bind(i64::from(self.lock_class().cast_unsigned()))
        .bind(i64::from(place))
        .fetch_optional(connection)
        .await
    }
}
