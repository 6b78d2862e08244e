//! One epoch of a room after the other.
//!
//! It must never look at where an epoch ends without holding the room: what is placed meanwhile would be
//! behind its end.

use application::ports::archive::{ArchiveError, ArchiveRecord, RoomHead};
use application::ports::succession::{Lives, LivesPage, Succession, Successor};
use async_trait::async_trait;
use domain::id::Epoch;
use domain::position::Offset;
use domain::recovery::EarlierLives;
use domain::room::RoomId;
use sqlx::postgres::PgConnection;

use crate::archive::PostgresArchive;
use crate::batch::Batch;
use crate::error::{decode_error, within};
use crate::queue::{Command, Job};
use crate::read::{self, Wanted};
use crate::rows;

/// The most ended epochs that are remembered of a room; what comes of an older one is refused as unknown.
const ENDED_MAX: i64 = 64;

/// Whether an epoch of a room has ended.
pub(crate) async fn has_ended(
    connection: &mut PgConnection,
    room_id: i64,
    epoch: Epoch,
) -> Result<bool, sqlx::Error> {
    let ended = "SELECT EXISTS (SELECT 1 FROM ended_epochs WHERE room_id = $1 AND epoch = $2)";
    let ended = sqlx::query_scalar(ended).bind(room_id).bind(rows::epoch_to_sql(epoch));
    ended.fetch_one(connection).await
}

/// Part of a writer's transaction, which holds the room.
pub(crate) async fn succeed(
    batch: &mut Batch<'_>,
    room: &RoomId,
    next: Successor,
) -> Result<Result<Lives, ArchiveError>, sqlx::Error> {
    if !batch.rooms.contains_key(room) {
        batch.make_rooms(&[(room.clone(), next.epoch, next.behind)]).await?;
    }
    let not_made = || decode_error("the room was not made");
    let stored = batch.rooms.get_mut(room).ok_or_else(not_made)?;
    let present = stored.head.epoch;
    if Some(present) == next.of && present != next.epoch {
        if has_ended(batch.connection, stored.id, next.epoch).await? {
            return Ok(Err(used(room, next.epoch)));
        }
        end(batch.connection, stored.id, present, stored.head.last).await?;
        stored.behind = stored.head.last.max(next.behind);
        stored.head.epoch = next.epoch;
        stored.head.last = stored.behind;
        stored.moved = false;
        // Places in front of it may be empty: whoever reads without holes reads from here on.
        let go_on = "UPDATE rooms SET epoch = $2, behind = $3, last_offset = $3, whole_behind = NULL, \
                     life = coalesce($4, life) WHERE id = $1";
        sqlx::query(go_on)
            .bind(stored.id)
            .bind(rows::epoch_to_sql(next.epoch))
            .bind(rows::offset_to_sql(stored.behind))
            .bind(batch.life)
            .execute(&mut *batch.connection)
            .await?;
    }
    let earlier = earlier_of(batch.connection, stored.id).await?;
    let RoomHead { epoch, last, .. } = stored.head;
    Ok(Ok(Lives { epoch, behind: stored.behind, last, earlier }))
}

/// Whoever drew it draws another one.
pub(crate) fn used(room: &RoomId, epoch: Epoch) -> ArchiveError {
    ArchiveError::Storage(format!("{room} has had the epoch {epoch}"))
}

/// Ends an epoch of a room.
pub(crate) async fn end(
    connection: &mut PgConnection,
    room_id: i64,
    epoch: Epoch,
    last: Offset,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO ended_epochs (room_id, epoch, ends) VALUES ($1, $2, $3)")
        .bind(room_id)
        .bind(rows::epoch_to_sql(epoch))
        .bind(rows::offset_to_sql(last))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM ended_epochs WHERE room_id = $1 AND n <= (SELECT n FROM ended_epochs \
         WHERE room_id = $1 ORDER BY n DESC OFFSET $2 LIMIT 1)",
    )
    .bind(room_id)
    .bind(ENDED_MAX)
    .execute(connection)
    .await
    .map(drop)
}

async fn earlier_of(
    connection: &mut PgConnection,
    room_id: i64,
) -> Result<EarlierLives, sqlx::Error> {
    let ends = "SELECT epoch, ends FROM ended_epochs WHERE room_id = $1 ORDER BY n DESC LIMIT $2";
    let ends = sqlx::query_as(ends).bind(room_id).bind(EarlierLives::MAX as i64);
    let ends: Vec<(i64, i64)> = ends.fetch_all(connection).await?;
    let (epochs, ends): (Vec<i64>, Vec<i64>) = ends.into_iter().unzip();
    read::earlier(&epochs, &ends)
}

#[async_trait]
impl Succession for PostgresArchive {
    async fn lives(&self, room: &RoomId) -> Result<Option<Lives>, ArchiveError> {
        let page = self.read_lives(room, Offset::MAX, 0, 0).await?;
        Ok(page.map(|page| page.lives))
    }

    async fn succeed(&self, room: &RoomId, next: Successor) -> Result<Lives, ArchiveError> {
        let (job, answer) = Job::new();
        self.ask(Command::Succeed { room: room.clone(), next, job }, answer).await
    }

    async fn place(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        let (job, answer) = Job::new();
        self.ask(Command::Place { records: records.into(), job }, answer).await
    }

    async fn read_lives(
        &self,
        room: &RoomId,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Option<LivesPage>, ArchiveError> {
        let mut lent = self.readers.lend().await?;
        let wanted = Wanted { room, after, limit, bytes_max };
        let page = read::lives(&mut lent.connection, &wanted, self.status());
        let page = within(self.answer_timeout(), page).await;
        lent.back(page)
    }
}
