//! Opening the store: server, its promises, schema.
//!
//! It must never touch tables whose version it does not know, and never take a server that may lose what it
//! has committed unless it was told to.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use thiserror::Error;
use tokio::time::Instant;

use crate::config::{Config, ConfigError};
use crate::connect::{Connector, Greeting, Turn};
use crate::error::{Failure, code, within};

/// The schema, embedded in the binary.
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The oldest server that is known to have all that is asked of it.
const VERSION_MIN: i32 = 130_000;

/// How long another server that changes the tables is waited for.
const MIGRATION_PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Why the store could not be opened.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The settings can't be meant.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nobody answers, or nobody who lets us in.
    #[error("cannot use Postgres at {place}; the cause below says why")]
    Unreachable {
        /// Host, port and database.
        place: String,
        /// What sqlx says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What it commits may be lost.
    #[error(
        "Postgres at {place} runs with {setting}=off and may lose or damage what it has acknowledged \
         as stored; set it to on, or use the profile development or testing"
    )]
    Unsafe {
        /// Host, port and database.
        place: String,
        /// The setting.
        setting: &'static str,
    },
    /// It takes no writes.
    #[error("Postgres at {place} takes no writes: it is a replica or read-only; give the primary")]
    ReadOnly {
        /// Host, port and database.
        place: String,
    },
    /// It lacks something.
    #[error("Postgres at {place} {what}")]
    Unsuitable {
        /// Host, port and database.
        place: String,
        /// What it lacks, and what to do.
        what: String,
    },
    /// Another server has the tables.
    #[error(
        "the schema {schema} of Postgres at {place} is {who}; stop that one, give this one a schema of its \
         own, or let both share rooms over Redis"
    )]
    InUse {
        /// The schema.
        schema: String,
        /// Host, port and database.
        place: String,
        /// Who has it.
        who: String,
    },
    /// The tables were made by a newer version.
    #[error(
        "the schema {schema} of Postgres at {place} has version {version}, which this version of the \
         server does not know; start the newer one that made it, or give another schema"
    )]
    Newer {
        /// The schema.
        schema: String,
        /// Host, port and database.
        place: String,
        /// The unknown version.
        version: i64,
    },
    /// The tables could not be made or changed.
    #[error(
        "cannot make the tables in the schema {schema} of Postgres at {place}; the cause below says why"
    )]
    Migrate {
        /// The schema.
        schema: String,
        /// Host, port and database.
        place: String,
        /// What sqlx says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Reaches the server, checks it and brings the schema up to date.
pub(crate) async fn open(connector: &Connector, config: &Config) -> Result<(), BuildError> {
    let (mut connection, greeting) = reach(connector, config).await?;
    check(connector, config, &greeting)?;
    migrate(connector, &mut connection).await?;
    // It holds the lock of the migration until then.
    drop(within(connector.answer_timeout, connection.close()).await);
    Ok(())
}

/// Tries until the time for it is over, unless trying again is in vain.
async fn reach(
    connector: &Connector,
    config: &Config,
) -> Result<(PgConnection, Greeting), BuildError> {
    let (begun, mut is_said) = (Instant::now(), false);
    loop {
        let failure = match connector.greet().await {
            Ok(reached) => return Ok(reached),
            Err(failure) => failure,
        };
        // invalid_authorization, invalid_password, no such database: nobody changes that meanwhile.
        let is_final = matches!(&failure, Failure::Sql(error)
            if code(error).is_some_and(|code| code.starts_with("28") || code == "3D000"));
        let is_over = begun.elapsed() >= config.start_timeout;
        if is_final || is_over {
            let place = connector.place();
            return Err(BuildError::Unreachable { place, source: Box::new(failure) });
        }
        if !is_said {
            tracing::warn!(error = %failure, "waiting for Postgres");
        }
        is_said = true;
        tokio::time::sleep(config.answer_timeout.min(std::time::Duration::from_millis(250))).await;
    }
}

fn check(connector: &Connector, config: &Config, greeting: &Greeting) -> Result<(), BuildError> {
    let place = || connector.place();
    if greeting.version < VERSION_MIN {
        let what = format!("is version {}; 13 is the oldest that works", greeting.version / 10_000);
        return Err(BuildError::Unsuitable { place: place(), what });
    }
    if greeting.encoding != "UTF8" {
        let what = format!(
            "has a database with encoding {}; make one with encoding UTF8",
            greeting.encoding
        );
        return Err(BuildError::Unsuitable { place: place(), what });
    }
    if greeting.is_read_only {
        return Err(BuildError::ReadOnly { place: place() });
    }
    let settings = [(greeting.fsync, "fsync"), (greeting.full_page_writes, "full_page_writes")];
    for (_, setting) in settings.into_iter().filter(|(is_on, _)| !is_on) {
        if !config.accepts_loss {
            return Err(BuildError::Unsafe { place: place(), setting });
        }
        tracing::warn!(
            "Postgres runs with {setting}=off: what is acknowledged as durable may be lost with its machine"
        );
    }
    if greeting.synchronous_commit == "off" {
        tracing::warn!(
            "Postgres runs with synchronous_commit=off; this server's own connections commit with it on"
        );
    }
    Ok(())
}

/// Makes and changes the tables, one server at a time.
async fn migrate(connector: &Connector, connection: &mut PgConnection) -> Result<(), BuildError> {
    let (schema, place) = (connector.schema.clone(), connector.place());
    let prepared = prepare(connector, connection).await;
    let run = match prepared {
        Ok(()) => MIGRATIONS.run(&mut *connection).await,
        Err(error) => Err(MigrateError::Execute(error)),
    };
    run.map_err(|error| match error {
        MigrateError::VersionMissing(version) => BuildError::Newer { schema, place, version },
        other => BuildError::Migrate { schema, place, source: Box::new(other) },
    })
}

/// Takes the turn to change the schema, which the connection keeps until its end, and makes it if it is
/// missing.
async fn prepare(connector: &Connector, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Making an index of a large table takes its time; somebody who never ends is not waited for.
    sqlx::query("SET statement_timeout = 0").execute(&mut *connection).await?;
    let patience = format!("SET lock_timeout = {}", MIGRATION_PATIENCE.as_millis());
    sqlx::query(AssertSqlSafe(patience)).execute(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_lock($1, $2)")
        .bind(connector.lock_class())
        .bind(Turn::Migration as i32)
        .execute(&mut *connection)
        .await?;
    let has_it = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL");
    if !has_it.bind(&connector.schema).fetch_one(&mut *connection).await? {
        // A name of lower-case letters, digits and underscores: checked when the settings were read.
        let make = format!("CREATE SCHEMA {}", connector.schema);
        sqlx::query(AssertSqlSafe(make)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Forgets the rooms that were opened and never got a message: nothing was given out in their epochs. Only
/// before anybody can know one of them as open.
pub(crate) async fn forget_empty_rooms(connection: &mut PgConnection) {
    let forget = sqlx::query(
        "DELETE FROM rooms r WHERE r.last_offset = 0 AND r.behind = 0 \
         AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.room_id = r.id) \
         AND NOT EXISTS (SELECT 1 FROM ended_epochs e WHERE e.room_id = r.id)",
    );
    if let Err(error) = forget.execute(connection).await {
        // They only take space; a server that is slow with it must not keep the log from being read.
        tracing::warn!(%error, "rooms without a message could not be forgotten");
    }
}
