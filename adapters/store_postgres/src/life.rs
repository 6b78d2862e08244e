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

use crate::batch::Batch;
use crate::error::code;
use crate::{rows, succession};

/// The cluster of the server and its timeline, which is another one after each promotion and each restored backup. None
/// where it does not say.
pub(crate) async fn of_server(
    connection: &mut PgConnection,
) -> Result<Option<String>, sqlx::Error> {
    let ask = "SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) \
               FROM pg_control_system()";
    match sqlx::query_scalar(ask).fetch_one(connection).await {
        Ok(life) => Ok(Some(life)),
        // Some that are offered as a service let nobody ask.
        Err(error) if code(&error).is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Part of a writer's transaction, which holds the room: ends its epoch where it is of another life, and goes on with
/// `fresh`. Answers where it stands. What is stored has no holes, and stays what the log has.
pub(crate) async fn go_on(
    batch: &mut Batch<'_>,
    room: &RoomId,
    fresh: Epoch,
) -> Result<Result<RoomHead, ArchiveError>, sqlx::Error> {
    let Some(stored) = batch.rooms.get_mut(room) else {
        return Ok(Err(ArchiveError::Storage("the room was not made".to_owned())));
    };
    let Some(life) = batch.life else { return Ok(Ok(stored.head)) };
    match stored.is_of_this_life {
        Some(true) => {}
        Some(false) => {
            let has_been = stored.head.epoch == fresh
                || succession::has_ended(batch.connection, stored.id, fresh).await?;
            if has_been {
                return Ok(Err(succession::used(room, fresh)));
            }
            let ended = Position { epoch: stored.head.epoch, offset: stored.head.last };
            succession::end(batch.connection, stored.id, ended.epoch, ended.offset).await?;
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
                .execute(&mut *batch.connection)
                .await?;
        }
        // An older version made it.
        None => {
            let note = sqlx::query("UPDATE rooms SET life = $2 WHERE id = $1");
            note.bind(stored.id).bind(life).execute(&mut *batch.connection).await?;
        }
    }
    stored.is_of_this_life = Some(true);
    Ok(Ok(stored.head))
}
