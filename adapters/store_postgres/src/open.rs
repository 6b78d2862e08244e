//! Opening the store: server, its promises, schema.
//!
//! It must never touch tables whose version it does not know, and never take a server that may lose what it
//! has committed unless it was told to.

use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use thiserror::Error;
use tokio::time::Instant;

use crate::config::{Config, ConfigError};
use crate::connect::{Connector, Greeting, Turn};
use crate::error::{Failure, code, jitter, within};
use crate::migrations::migrations;

/// The oldest server that is known to have all that is asked of it.
const VERSION_MIN: i32 = 130_000;

/// How long another server that changes the tables is waited for.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(60);

/// How long a change of the tables may take; after that the server is taken for silent.
const MIGRATION_MAX: Duration = Duration::from_secs(3_600);

/// How long a change waits for a table that somebody uses, and the longest pause before the next try.
const CHANGE_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(500);

/// The most rooms that one statement looks at for some to be forgotten.
const ROOMS_AT_ONCE: i64 = 500;

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

/// Reaches the server and checks it.
pub(crate) async fn open(
    connector: &Connector,
    config: &Config,
) -> Result<PgConnection, BuildError> {
    let (connection, greeting) = reach(connector, config).await?;
    check(connector, config, &greeting)?;
    Ok(connection)
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
        tokio::time::sleep(config.answer_timeout.min(Duration::from_millis(250))).await;
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
    if let Some(setting) = greeting.loses_by() {
        if !config.accepts_loss {
            return Err(BuildError::Unsafe { place: place(), setting });
        }
        tracing::warn!(
            "Postgres runs with {setting}=off: what is acknowledged as durable may be lost with its machine"
        );
    }
    if greeting.life.is_none() {
        tracing::warn!(
            "Postgres does not say which life of it this is: where it is replaced by a replica, or restored from a \
             backup, the offsets of what it lost are given out again"
        );
    }
    if greeting.synchronous_commit == "off" {
        tracing::warn!(
            "Postgres runs with synchronous_commit=off; this server's own connections commit with it on"
        );
    }
    Ok(())
}

/// Makes and changes the tables, one server at a time, and ends the connection, which holds the lock for that.
/// The locks of the writers MUST be held.
pub(crate) async fn migrate(
    connector: &Connector,
    mut connection: PgConnection,
) -> Result<(), BuildError> {
    let (schema, place) = (connector.schema.clone(), connector.place());
    let silent = |failure: Failure| BuildError::Migrate {
        schema: schema.clone(),
        place: place.clone(),
        source: Box::new(failure),
    };
    let patience = MIGRATION_PATIENCE + connector.answer_timeout;
    within(patience, prepare(connector, &mut connection)).await.map_err(silent)?;
    let begun = Instant::now();
    loop {
        // What comes of it is looked at below.
        let steps = migrations();
        let run = async { Ok::<_, Failure>(steps.run(&mut connection).await) };
        let run = within(MIGRATION_MAX, run).await.map_err(silent)?;
        let Err(error) = run else { break };
        // lock_not_available: whoever uses the tables comes first, and nobody queues behind this one for long.
        if begun.elapsed() < MIGRATION_PATIENCE && is_locked_out(&error) {
            tokio::time::sleep(jitter(LOCK_PAUSE)).await;
            continue;
        }
        return Err(match error {
            MigrateError::VersionMissing(version) => BuildError::Newer { schema, place, version },
            other => BuildError::Migrate { schema, place, source: Box::new(other) },
        });
    }
    drop(within(connector.patience(), connection.close()).await);
    Ok(())
}

fn is_locked_out(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    code(error) == Some("55P03")
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
    // All who use a table wait behind a change that waits for it.
    let patience = format!("SET lock_timeout = {}", CHANGE_PATIENCE.as_millis());
    sqlx::query(AssertSqlSafe(patience)).execute(&mut *connection).await?;
    let has_it = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL");
    if !has_it.bind(&connector.schema).fetch_one(&mut *connection).await? {
        // A name of lower-case letters, digits and underscores: checked when the settings were read.
        let make = format!("CREATE SCHEMA {}", connector.schema);
        sqlx::query(AssertSqlSafe(make)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Forgets the rooms that were opened and never got a message: nothing was given out in their epochs. Only
/// before anybody can know one of them as open. In steps, each of which ends in its time.
pub(crate) async fn forget_empty_rooms(connector: &Connector, connection: &mut PgConnection) {
    let mut behind = Some(0_i64);
    while let Some(after) = behind {
        let step = sqlx::query_scalar(
            "WITH page AS (SELECT id, last_offset, behind FROM rooms WHERE id > $1 ORDER BY id LIMIT $2), \
             gone AS (DELETE FROM rooms r USING page s WHERE r.id = s.id \
                 AND s.last_offset = 0 AND s.behind = 0 \
                 AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.room_id = s.id) \
                 AND NOT EXISTS (SELECT 1 FROM ended_epochs e WHERE e.room_id = s.id)) \
             SELECT max(id) FROM page",
        );
        let step = step.bind(after).bind(ROOMS_AT_ONCE).fetch_one(&mut *connection);
        behind = match within(connector.patience(), step).await {
            Ok(last) => last,
            Err(failure) => {
                // They only take space; a server that is slow with it must not keep the log from being read.
                return tracing::warn!(error = %failure, "rooms without a message could not be forgotten");
            }
        };
    }
}
