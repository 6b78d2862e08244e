//! Which life of the server a room's epoch is of.
//!
//! A replica that is promoted, or a backup that is restored, may lack the newest that was committed, and goes on all the
//! same. An epoch must never go on over that by itself: offsets would be given out again that somebody has read.

use application::ports::archive::{ArchiveError, RoomHead};
use domain::id::Epoch;
use domain::position::Position;
use domain::recovery::EarlierLives;
use domain::room::RoomId;
use sqlx::postgres::PgConnection;

use crate::batch::{Batch, StoredRoom};
use crate::error::code;
use crate::{rows, succession};

/// What a server answers that does not say its life to us: not allowed, no such function, not supported.
const IS_NOT_OFFERED: [&str; 3] = ["42501", "42883", "0A000"];

/// The cluster of the server and its timeline, which is another one after each promotion and each recovery that was asked
/// for. None where it does not say.
pub(crate) async fn of_server(
    connection: &mut PgConnection,
) -> Result<Option<String>, sqlx::Error> {
    let ask = "SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) \
               FROM pg_control_system()";
    match sqlx::query_scalar(ask).fetch_one(connection).await {
        Ok(life) => Ok(Some(life)),
        // Some that are offered as a service let nobody ask. Whatever else is wrong is wrong with the connection: a server
        // that is slow for a moment is no reason to go on without the fence.
        Err(error) if code(&error).is_some_and(|code| IS_NOT_OFFERED.contains(&code)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Part of a writer's transaction, which holds the room: ends its epoch where it is of another life, or lacks what was
/// `known`, and goes on with `fresh`. Answers where it stands. What is stored has no holes, and stays what the log has.
pub(crate) async fn go_on(
    batch: &mut Batch<'_>,
    room: &RoomId,
    fresh: Epoch,
    known: Option<Position>,
) -> Result<Result<RoomHead, ArchiveError>, sqlx::Error> {
    let Some(stored) = batch.rooms.get_mut(room) else {
        return Ok(Err(ArchiveError::Storage("the room was not made".to_owned())));
    };
    // A backup that is started without recovery says the life that it had.
    let head = stored.head;
    let lacks = match known {
        Some(known) if known.epoch == head.epoch => known.offset > head.last,
        // Of an epoch that has ended, or of one that was begun behind what is here.
        Some(known) => !succession::has_ended(batch.connection, stored.id, known.epoch).await?,
        None => false,
    };
    let is_of_another = batch.life.is_some() && stored.is_of_this_life == Some(false);
    if lacks || is_of_another {
        if head.epoch == fresh || succession::has_ended(batch.connection, stored.id, fresh).await? {
            return Ok(Err(succession::used(room, fresh)));
        }
        end(batch.connection, stored, batch.life, fresh).await?;
    } else if let Some(life) = batch.life
        && stored.is_of_this_life.is_none()
    {
        // An older version made it, or one of a server that did not say its life.
        let note = sqlx::query("UPDATE rooms SET life = $2 WHERE id = $1");
        note.bind(stored.id).bind(life).execute(&mut *batch.connection).await?;
    }
    if batch.life.is_some() {
        stored.is_of_this_life = Some(true);
    }
    Ok(Ok(stored.head))
}

async fn end(
    connection: &mut PgConnection,
    stored: &mut StoredRoom,
    life: Option<&str>,
    fresh: Epoch,
) -> Result<(), sqlx::Error> {
    let ended = Position { epoch: stored.head.epoch, offset: stored.head.last };
    succession::end(connection, stored.id, ended.epoch, ended.offset).await?;
    stored.head.epoch = fresh;
    stored.head.earlier =
        EarlierLives::new(std::iter::once(ended).chain(stored.head.earlier.iter()));
    stored.behind = ended.offset;
    stored.moved = false;
    let go_on = "UPDATE rooms SET epoch = $2, last_offset = $3, life = $4, behind = $3, \
                 whole_behind = coalesce(whole_behind, behind) WHERE id = $1";
    sqlx::query(go_on)
        .bind(stored.id)
        .bind(rows::epoch_to_sql(fresh))
        .bind(rows::offset_to_sql(ended.offset))
        .bind(life)
        .execute(connection)
        .await?;
    Ok(())
}
