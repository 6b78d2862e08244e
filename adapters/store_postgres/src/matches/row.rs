//! A match as a row, there and back.
//!
//! It must never make a match of a row that is none: what can't be read is an error.

use domain::id::UserId;
use domain::matches::{
    ConnectionsMax, GameType, Match, MatchId, MatchResult, MatchState, Metadata, Participants,
    Phase, Spectators,
};
use domain::time::Wall;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::error::decode_error as wrong;

/// The columns that are read, by their names: `*` would mean others to a statement that was prepared before
/// a newer version of the server added one.
macro_rules! columns {
    () => {
        "id, game, participants, spectators, connections_max, created_at_ms, metadata, phase, \
         started_at_ms, ended_at_ms, result"
    };
}
pub(super) use columns;

// The numbers are part of the tables' format: never reuse one.
pub(super) const fn number_of_phase(phase: Phase) -> i16 {
    match phase {
        Phase::Waiting => 0,
        Phase::Running => 1,
        Phase::Ended => 2,
    }
}

const fn number_of_spectators(spectators: Spectators) -> i16 {
    match spectators {
        Spectators::Nobody => 0,
        Spectators::Authenticated => 1,
        Spectators::Anyone => 2,
    }
}

/// Puts a match into a row of its own.
pub(super) async fn insert(connection: &mut PgConnection, one: &Match) -> Result<(), sqlx::Error> {
    let participants: Vec<&str> = one.participants.iter().map(UserId::as_str).collect();
    let insert = sqlx::query(
        "INSERT INTO matches (id, game, participants, spectators, connections_max, created_at_ms, \
         metadata, phase, started_at_ms, ended_at_ms, result) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    );
    insert
        .bind(one.id.as_str())
        .bind(one.game.as_str())
        .bind(participants.join(" "))
        .bind(number_of_spectators(one.spectators))
        .bind(i64::from(one.connections_max.get()))
        .bind(one.created_at.as_millis())
        .bind(one.metadata.as_ref().map(|metadata| metadata.as_str().as_bytes()))
        .bind(number_of_phase(one.phase()))
        .bind(one.started_at().map(Wall::as_millis))
        .bind(one.ended_at().map(Wall::as_millis))
        .bind(one.result().map(|result| result.as_str().as_bytes()))
        .execute(connection)
        .await
        .map(drop)
}

pub(super) fn read(row: &PgRow) -> Result<Match, sqlx::Error> {
    let spectators: i16 = row.try_get("spectators")?;
    let spectators = Spectators::ALL.into_iter().find(|s| number_of_spectators(*s) == spectators);
    let connections_max: i64 = row.try_get("connections_max")?;
    let connections_max = u64::try_from(connections_max).ok().and_then(ConnectionsMax::new);
    let metadata = text(row, "metadata")?;
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

fn state(row: &PgRow) -> Result<MatchState, sqlx::Error> {
    let phase: i16 = row.try_get("phase")?;
    let phase = Phase::ALL.into_iter().find(|known| number_of_phase(*known) == phase);
    let time = |name| row.try_get::<Option<i64>, _>(name).map(|ms| ms.map(Wall::from_millis));
    let (started_at, ended_at) = (time("started_at_ms")?, time("ended_at_ms")?);
    let result = text(row, "result")?;
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

fn text<'r>(row: &'r PgRow, column: &str) -> Result<Option<&'r str>, sqlx::Error> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes.map(std::str::from_utf8).transpose().map_err(wrong)
}
