//! A match as a row, there and back.
//!
//! It must never make a match of a row that is none: what can't be read stops the start.

use application::ports::archive::ArchiveError;
use domain::id::UserId;
use domain::matches::{
    ConnectionsMax, GameType, Match, MatchId, MatchResult, MatchState, Metadata, Participants,
    Phase, Spectators,
};
use domain::time::Wall;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row as _, SqliteConnection};

use crate::writer::storage_error;

// The numbers are part of the file format: never reuse one.
const fn number_of_phase(phase: Phase) -> i64 {
    match phase {
        Phase::Waiting => 0,
        Phase::Running => 1,
        Phase::Ended => 2,
    }
}

const fn number_of_spectators(spectators: Spectators) -> i64 {
    match spectators {
        Spectators::Nobody => 0,
        Spectators::Authenticated => 1,
        Spectators::Anyone => 2,
    }
}

/// All that are stored.
pub(super) async fn load(pool: &SqlitePool) -> Result<Vec<Match>, ArchiveError> {
    let rows = sqlx::query("SELECT * FROM matches").fetch_all(pool).await;
    let rows = rows.map_err(|error| storage_error(&error))?;
    rows.iter().map(|row| read(row).map_err(|error| storage_error(&error))).collect()
}

/// Part of the writer's transaction.
pub(crate) async fn store(
    connection: &mut SqliteConnection,
    one: &Match,
) -> Result<(), sqlx::Error> {
    let participants: Vec<&str> = one.participants.iter().map(UserId::as_str).collect();
    let store = sqlx::query(
        "INSERT OR REPLACE INTO matches (id, game, participants, spectators, connections_max, \
         created_at_ms, phase, started_at_ms, ended_at_ms, metadata, result) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    );
    store
        .bind(one.id.as_str().to_owned())
        .bind(one.game.as_str().to_owned())
        .bind(participants.join(" "))
        .bind(number_of_spectators(one.spectators))
        .bind(one.connections_max.get())
        .bind(one.created_at.as_millis())
        .bind(number_of_phase(one.phase()))
        .bind(one.started_at().map(Wall::as_millis))
        .bind(one.ended_at().map(Wall::as_millis))
        .bind(one.metadata.as_ref().map(|metadata| metadata.as_str().to_owned()))
        .bind(one.result().map(|result| result.as_str().to_owned()))
        .execute(connection)
        .await
        .map(drop)
}

/// Part of the writer's transaction.
pub(crate) async fn delete(
    connection: &mut SqliteConnection,
    id: &MatchId,
) -> Result<(), sqlx::Error> {
    let delete = sqlx::query("DELETE FROM matches WHERE id = ?");
    delete.bind(id.as_str().to_owned()).execute(connection).await.map(drop)
}

fn read(row: &SqliteRow) -> Result<Match, sqlx::Error> {
    let spectators: i64 = row.try_get("spectators")?;
    let spectators = Spectators::ALL.into_iter().find(|s| number_of_spectators(*s) == spectators);
    let connections_max: i64 = row.try_get("connections_max")?;
    let connections_max = u64::try_from(connections_max).ok().and_then(ConnectionsMax::new);
    let metadata: Option<&str> = row.try_get("metadata")?;
    Ok(Match {
        id: MatchId::parse(row.try_get("id")?).map_err(wrong)?,
        game: GameType::parse(row.try_get("game")?).map_err(wrong)?,
        participants: participants(row.try_get("participants")?)?,
        spectators: spectators.ok_or_else(|| wrong("no such policy of spectators"))?,
        connections_max: connections_max.ok_or_else(|| wrong("no number of connections"))?,
        metadata: metadata.map(Metadata::parse).transpose().map_err(wrong)?,
        created_at: Wall::from_millis(row.try_get("created_at_ms")?),
        state: state(row)?,
    })
}

fn state(row: &SqliteRow) -> Result<MatchState, sqlx::Error> {
    let phase: i64 = row.try_get("phase")?;
    let phase = Phase::ALL.into_iter().find(|known| number_of_phase(*known) == phase);
    let time = |name| row.try_get::<Option<i64>, _>(name).map(|ms| ms.map(Wall::from_millis));
    let (started_at, ended_at) = (time("started_at_ms")?, time("ended_at_ms")?);
    let result: Option<&str> = row.try_get("result")?;
    let result = result.map(MatchResult::parse).transpose().map_err(wrong)?;
    match (phase, started_at, ended_at) {
        (Some(Phase::Waiting), None, None) => Ok(MatchState::Waiting),
        (Some(Phase::Running), Some(started_at), None) => Ok(MatchState::Running { started_at }),
        (Some(Phase::Ended), started_at, Some(ended_at)) => {
            Ok(MatchState::Ended { started_at, ended_at, result })
        }
        (phase, ..) => Err(wrong(format!("{phase:?} and the times of a match do not agree"))),
    }
}

fn participants(text: &str) -> Result<Participants, sqlx::Error> {
    let users = text.split(' ').filter(|user| !user.is_empty()).map(UserId::parse);
    let users = users.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    Participants::new(users).map_err(wrong)
}

fn wrong(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(source.into())
}
