//! Matches beside the log, and nowhere else: all nodes see the same ones.
//!
//! It must never decide by what it remembers: another node may have changed it.

mod row;

use std::sync::Arc;

use application::ports::{
    CreateMatchError, Created, Matches, MatchesAfter, MatchesKept, MatchesPage, ReadMatchesError,
    UpdateMatchError,
};
use async_trait::async_trait;
use domain::matches::{Match, MatchId, Phase};
use domain::time::Wall;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Postgres, Row as _, Transaction};

use crate::archive::PostgresArchive;
use crate::batch::take_turn;
use crate::connect::Turn;
use crate::error::{Failure, Remedy, whole_rows, within};

/// The most matches that one call forgets; the rest waits for the next.
const FORGOTTEN_MAX: i64 = 256;

/// How often one that met another transaction is made again; each try waits for a lock by itself.
const RETRIES_MAX: u32 = 2;

/// The most rows of a list that are loaded at once.
const LISTED_AT_ONCE: usize = 64;

/// A match by its id.
const ONE: &str = concat!("SELECT ", row::columns!(), " FROM matches WHERE id = $1");

/// Matches in the archive's schema.
pub struct PostgresMatches {
    archive: Arc<PostgresArchive>,
    kept: MatchesKept,
}

impl PostgresMatches {
    /// Those of the archive's schema, of which so many are kept for so long.
    #[must_use]
    pub const fn new(archive: Arc<PostgresArchive>, kept: MatchesKept) -> Self {
        Self { archive, kept }
    }

    /// Reads rows with one of the connections that read.
    async fn rows(
        &self,
        query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<Vec<PgRow>, ReadMatchesError> {
        let away = |error| ReadMatchesError(format!("{error}"));
        let mut lent = self.archive.readers.lend().await.map_err(&away)?;
        let rows = whole_rows(query, &mut lent.connection);
        let rows = within(self.archive.answer_timeout(), rows).await;
        lent.back(rows).map_err(away)
    }

    /// Some matches of a phase, or of any, by their ids.
    async fn rows_behind(
        &self,
        after: &str,
        phase: Option<Phase>,
        limit: usize,
    ) -> Result<Vec<PgRow>, ReadMatchesError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = match phase {
            None => sqlx::query(concat!(
                "SELECT ",
                row::columns!(),
                " FROM matches WHERE id > $1 ORDER BY id LIMIT $2"
            ))
            .bind(after)
            .bind(limit),
            Some(phase) => sqlx::query(concat!(
                "SELECT ",
                row::columns!(),
                " FROM matches WHERE id > $1 AND phase = $3 \
                 ORDER BY id LIMIT $2"
            ))
            .bind(after)
            .bind(limit)
            .bind(row::number_of_phase(phase)),
        };
        self.rows(rows).await
    }
}

/// What making a match came to.
async fn create(
    connection: &mut PgConnection,
    new: &Match,
    matches_max: usize,
) -> Result<Result<Created, CreateMatchError>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let made = create_within(&mut transaction, new, matches_max).await;
    end(transaction, matches!(made, Ok(Ok(Created::New)))).await?;
    made
}

/// Ends a transaction with words, whatever came of it: dropped, it would lie open, with all that it has locked,
/// until its connection is used again.
async fn end(transaction: Transaction<'_, Postgres>, has_done: bool) -> Result<(), sqlx::Error> {
    if has_done { transaction.commit().await } else { transaction.rollback().await }
}

async fn create_within(
    transaction: &mut PgConnection,
    new: &Match,
    matches_max: usize,
) -> Result<Result<Created, CreateMatchError>, sqlx::Error> {
    // How many there are must not change between the look and the deed.
    take_turn(&mut *transaction, Turn::Matches).await?;
    let known = sqlx::query(ONE).bind(new.id.as_str());
    if let Some(known) = known.fetch_optional(&mut *transaction).await? {
        let known = row::read(&known)?;
        let is_alike = known.is_made_like(new);
        return Ok(if is_alike {
            Ok(Created::Already(Box::new(known)))
        } else {
            Err(CreateMatchError::Conflict)
        });
    }
    let n: i64 =
        sqlx::query_scalar("SELECT count(*) FROM matches").fetch_one(&mut *transaction).await?;
    let matches_max = i64::try_from(matches_max).unwrap_or(i64::MAX);
    let too_many = (n + 1).saturating_sub(matches_max);
    if too_many > 0 {
        let gone = sqlx::query(
            "DELETE FROM matches WHERE id IN (SELECT id FROM matches WHERE ended_at_ms IS NOT NULL \
             ORDER BY ended_at_ms, id LIMIT $1)",
        );
        let gone = gone.bind(too_many).execute(&mut *transaction).await?.rows_affected();
        if gone < too_many.cast_unsigned() {
            return Ok(Err(CreateMatchError::Full));
        }
    }
    row::insert(transaction, new).await?;
    Ok(Ok(Created::New))
}

/// What putting a match in the place of its earlier self came to.
async fn update(
    connection: &mut PgConnection,
    next: &Match,
    from: Phase,
) -> Result<Result<(), UpdateMatchError>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let done = update_within(&mut transaction, next, from).await;
    end(transaction, matches!(done, Ok(Ok(())))).await?;
    done
}

async fn update_within(
    transaction: &mut PgConnection,
    next: &Match,
    from: Phase,
) -> Result<Result<(), UpdateMatchError>, sqlx::Error> {
    let known = sqlx::query_scalar("SELECT phase FROM matches WHERE id = $1 FOR UPDATE");
    let known: Option<i16> = known.bind(next.id.as_str()).fetch_optional(&mut *transaction).await?;
    match known {
        None => return Ok(Err(UpdateMatchError::Missing)),
        Some(phase) if phase != row::number_of_phase(from) => {
            return Ok(Err(UpdateMatchError::Changed));
        }
        Some(_) => {}
    }
    sqlx::query("DELETE FROM matches WHERE id = $1")
        .bind(next.id.as_str())
        .execute(&mut *transaction)
        .await?;
    row::insert(transaction, next).await?;
    Ok(Ok(()))
}

/// Whether it met another transaction, and is to be done again.
fn comes_again<T>(done: &Result<T, Failure>, tries: &mut u32) -> bool {
    *tries += 1;
    *tries <= RETRIES_MAX && done.as_ref().is_err_and(|failure| failure.remedy() == Remedy::Again)
}

#[async_trait]
impl Matches for PostgresMatches {
    async fn create(&self, new: &Match) -> Result<Created, CreateMatchError> {
        let away = |error| CreateMatchError::Storage(format!("{error}"));
        let mut lent = self.archive.readers.lend().await.map_err(&away)?;
        let mut tries = 0;
        let made = loop {
            let made = create(&mut lent.connection, new, self.kept.matches_max);
            let made = within(2 * self.archive.answer_timeout(), made).await;
            if !comes_again(&made, &mut tries) {
                break made;
            }
        };
        lent.back(made).map_err(away)?
    }

    async fn update(&self, next: &Match, from: Phase) -> Result<(), UpdateMatchError> {
        let away = |error| UpdateMatchError::Storage(format!("{error}"));
        let mut lent = self.archive.readers.lend().await.map_err(&away)?;
        let mut tries = 0;
        let done = loop {
            let done = update(&mut lent.connection, next, from);
            let done = within(2 * self.archive.answer_timeout(), done).await;
            if !comes_again(&done, &mut tries) {
                break done;
            }
        };
        lent.back(done).map_err(away)?
    }

    async fn find(&self, id: &MatchId) -> Result<Option<Match>, ReadMatchesError> {
        let found = sqlx::query(ONE).bind(id.as_str());
        let rows = self.rows(found).await?;
        let found = rows.first().map(row::read).transpose();
        found.map_err(|error| ReadMatchesError(error.to_string()))
    }

    async fn list(&self, list: &MatchesAfter) -> Result<MatchesPage, ReadMatchesError> {
        let MatchesAfter { phase, after, matches_max, bytes_max } = list;
        // One more than may come says whether there are later ones; one comes in any case.
        let limit = (*matches_max).max(1).saturating_add(1).min(LISTED_AT_ONCE);
        let mut after = after.as_ref().map_or_else(String::new, ToString::to_string);
        let (mut page, mut bytes) = (MatchesPage::default(), 0_usize);
        loop {
            let rows = self.rows_behind(&after, *phase, limit).await?;
            for row in &rows {
                let id: &str = row.try_get("id").unwrap_or_default();
                after = id.to_owned();
                let one = match row::read(row) {
                    Ok(one) => one,
                    Err(error) => {
                        self.archive.status().passed_over("matches", &error);
                        continue;
                    }
                };
                bytes = bytes.saturating_add(one.bytes());
                let is_full = page.matches.len() >= (*matches_max).max(1) || bytes > *bytes_max;
                if is_full && !page.matches.is_empty() {
                    page.more = true;
                    return Ok(page);
                }
                page.matches.push(one);
            }
            if rows.len() < limit {
                return Ok(page);
            }
        }
    }

    async fn forget(&self, now: Wall) {
        let until = self.kept.forgotten_until(now).as_millis();
        let forget = sqlx::query(
            "DELETE FROM matches WHERE id IN (SELECT id FROM matches WHERE ended_at_ms <= $1 \
             ORDER BY ended_at_ms, id LIMIT $2)",
        );
        if let Err(error) = self.rows(forget.bind(until).bind(FORGOTTEN_MAX)).await {
            // They are kept, and forgotten at the next call.
            tracing::warn!(%error, "matches that ended long ago could not be deleted");
        }
    }
}
