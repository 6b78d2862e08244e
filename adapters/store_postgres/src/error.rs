//! What an error of Postgres means for whoever asked: come again at once, look closer, or wait.
//!
//! Nothing here decides by the words of a message.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use application::ports::archive::ArchiveError;
use futures_util::{FutureExt as _, TryStreamExt as _};
use sqlx::postgres::{PgArguments, PgConnection, PgDatabaseError, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row as _};
use thiserror::Error;

/// Why Postgres did not do something.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// What sqlx says.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// There was no answer in this time. What was asked for may still be done.
    #[error("no answer within {0:?}")]
    Silence(Duration),
    /// The connection could not be used, for this reason.
    #[error("{0}")]
    Unfit(String),
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Remedy {
    /// The same again may succeed: it met another transaction.
    Again,
    /// It is about what was written: others of the group need not fail with it.
    Apart,
    /// The connection is of no use any more.
    Reconnect,
    /// Whoever asked has to come back later.
    None,
}

/// The SQLSTATE, where the server gave one.
pub(crate) fn code(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::code)
}

impl Failure {
    pub(crate) fn remedy(&self) -> Remedy {
        let error = match self {
            Self::Silence(_) | Self::Unfit(_) => return Remedy::Reconnect,
            Self::Sql(error) => error,
        };
        match code(error) {
            // The connection was left in a transaction that has ended meanwhile; takes no writes any more; has
            // statements that were prepared for other tables.
            Some("25P03" | "25006" | "0A000") => Remedy::Reconnect,
            // serialization_failure, deadlock_detected, lock_not_available
            Some("40001" | "40P01" | "55P03") => Remedy::Again,
            Some(code) => match code.get(..2) {
                // Data that can't be stored, and constraints.
                Some("22" | "23") => Remedy::Apart,
                // Connection exceptions, and a server that goes away or comes back.
                Some("08" | "57") if code != "57014" => Remedy::Reconnect,
                _ => Remedy::None,
            },
            None => match error {
                sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Remedy::None,
                sqlx::Error::Encode(_) => Remedy::Apart,
                _ => Remedy::Reconnect,
            },
        }
    }

    /// Whether other connections to the server are gone as well.
    pub(crate) fn is_end_of_server(&self) -> bool {
        match self {
            Self::Silence(_) | Self::Unfit(_) => false,
            Self::Sql(error) => match code(error) {
                Some(code) => code.starts_with("08") || code.starts_with("57P"),
                None => matches!(error, sqlx::Error::Io(_)),
            },
        }
    }

    /// The text is for the log; what the caller can do about it is the same for all of them.
    pub(crate) fn to_archive_error(&self) -> ArchiveError {
        ArchiveError::Storage(self.to_string())
    }
}

/// A row that cannot be one of ours.
pub(crate) fn decode_error(
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> sqlx::Error {
    sqlx::Error::Decode(source.into())
}

/// Waits for an answer no longer than this. A panic is a failure of the connection: the driver panics over some of what
/// no Postgres says, as a row with fewer fields than were described.
pub(crate) async fn within<T, E: Into<Failure>>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    let caught = AssertUnwindSafe(answer).catch_unwind();
    match tokio::time::timeout(timeout, caught).await {
        Ok(Ok(answer)) => answer.map_err(Into::into),
        Ok(Err(_)) => Err(Failure::Unfit("what came could not be read: a panic".to_owned())),
        Err(_) => Err(Failure::Silence(timeout)),
    }
}

/// How many rows are taken in at once, before it is looked whether there is still time for more.
const ROWS_AT_ONCE: usize = 64;

/// All rows of an answer, each with all of its columns. To be awaited [`within`] a time: of a server that sends fewer
/// the panic is here, and not where they are read; and rows without an end are an end of the time, since the driver alone
/// would go on for as long as some are there.
pub(crate) async fn whole_rows(
    query: Query<'_, Postgres, PgArguments>,
    connection: &mut PgConnection,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let (mut answer, mut rows) = (query.fetch(connection), Vec::new());
    while let Some(row) = answer.try_next().await? {
        for column in 0..row.len() {
            row.try_get_raw(column)?;
        }
        rows.push(row);
        if rows.len().is_multiple_of(ROWS_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    Ok(rows)
}

/// Bits that differ from call to call and from process to process. Not for secrets.
pub(crate) fn random_bits() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};

    RandomState::new().hash_one(std::process::id())
}

/// Half of `most` or more, so that those who failed together do not come back together.
pub(crate) fn jitter(most: Duration) -> Duration {
    most.mul_f64(0.5 + f64::from((random_bits() & 0xffff) as u16) / f64::from(u16::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn what_panics_has_failed_with_its_connection_and_what_is_silent_is_given_up() {
        #[allow(clippy::panic, reason = "what is under test is what becomes of one")]
        let panics = async { panic!("a mistake") };
        let failure = within::<(), sqlx::Error>(SOON, panics).await.unwrap_err();
        assert_eq!(failure.remedy(), Remedy::Reconnect);
        assert!(within::<_, sqlx::Error>(SOON, async { Ok(()) }).await.is_ok());
        let silence = within::<(), sqlx::Error>(Duration::ZERO, std::future::pending());
        assert_eq!(silence.await.unwrap_err().remedy(), Remedy::Reconnect);
    }
}
