//! What is read of rooms, each page with one statement: its bounds and its messages are of one moment even
//! while something is forgotten.
//!
//! It must never load more of a page than it answers, and never pass over a place: a row that can't be read
//! is told as a message that is gone.

use application::ports::archive::{ArchivePage, DedupKey};
use application::ports::succession::{Lives, LivesPage, holes};
use domain::id::Epoch;
use domain::message::Publication;
use domain::position::{Offset, Position};
use domain::recovery::EarlierLives;
use domain::room::RoomId;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::error::whole_rows;
use crate::rows;
use crate::status::Status;

/// A page of one epoch, with what lies before the present one and has no holes: room, epoch, the offset that it begins
/// behind, the most messages, the most bytes.
/// Public for whoever looks at its plan.
pub const READ_EPOCH: &str = concat!(
    "SELECT greatest(r.last_offset, \
         (SELECT max(msg_offset) FROM messages WHERE room_id = r.id)) AS last_offset, \
     (SELECT f.msg_offset FROM messages f WHERE f.room_id = r.id AND $2 IN (f.epoch, r.epoch) \
         AND f.msg_offset > span.low AND f.msg_offset <= span.high ORDER BY f.msg_offset LIMIT 1) AS first, \
     page.* FROM rooms r \
     CROSS JOIN LATERAL (SELECT CASE WHEN r.epoch = $2 THEN coalesce(r.whole_behind, r.behind) ELSE coalesce((SELECT max(b.ends) \
         FROM ended_epochs e JOIN ended_epochs b ON b.room_id = e.room_id AND b.n < e.n \
         WHERE e.room_id = r.id AND e.epoch = $2), 0) END AS low, \
         CASE WHEN r.epoch = $2 THEN 9007199254740991 ELSE coalesce((SELECT e.ends FROM ended_epochs e \
         WHERE e.room_id = r.id AND e.epoch = $2), 0) END AS high) AS span \
     LEFT JOIN LATERAL (SELECT * FROM (SELECT s.*, \
         row_number() OVER place AS n, sum(coalesce(octet_length(s.data), 0)) OVER place AS bytes FROM ( \
             SELECT ",
    rows::columns!(),
    " FROM messages m WHERE m.room_id = r.id AND $2 IN (m.epoch, r.epoch) \
             AND m.msg_offset > greatest($3, span.low) AND m.msg_offset <= span.high \
             ORDER BY m.msg_offset LIMIT $4) AS s \
         WINDOW place AS (ORDER BY s.msg_offset ROWS UNBOUNDED PRECEDING)) AS sized \
         WHERE n = 1 OR bytes <= $5) AS page ON true \
     WHERE r.room = $1 ORDER BY page.msg_offset"
);

/// A page over all epochs: room, the offset that it begins behind, the most messages, the most bytes. Public
/// for whoever looks at its plan.
pub const READ_LIVES: &str = concat!(
    "SELECT r.epoch AS room_epoch, r.behind, r.last_offset, \
     ARRAY(SELECT e.epoch FROM ended_epochs e WHERE e.room_id = r.id ORDER BY e.n DESC LIMIT 4) \
         AS ended_epochs, \
     ARRAY(SELECT e.ends FROM ended_epochs e WHERE e.room_id = r.id ORDER BY e.n DESC LIMIT 4) AS ends, \
     (SELECT max(msg_offset) FROM messages WHERE room_id = r.id) AS newest, \
     (SELECT min(msg_offset) FROM messages WHERE room_id = r.id) AS first, \
     page.* FROM rooms r \
     LEFT JOIN LATERAL (SELECT * FROM (SELECT s.*, \
         row_number() OVER place AS n, sum(coalesce(octet_length(s.data), 0)) OVER place AS bytes FROM ( \
             SELECT ",
    rows::columns!(),
    " FROM messages m WHERE m.room_id = r.id AND m.msg_offset > $2 \
             ORDER BY m.msg_offset LIMIT $3) AS s \
         WINDOW place AS (ORDER BY s.msg_offset ROWS UNBOUNDED PRECEDING)) AS sized \
         WHERE n = 1 OR bytes <= $4) AS page ON true \
     WHERE r.room = $1 ORDER BY page.msg_offset"
);

/// Where messages of these names stand: rooms, publishers, `msg_id`s. Public for whoever looks at its plan.
pub const FIND_MESSAGES: &str = "SELECT asked.n, m.epoch, m.msg_offset \
     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (room, publisher, msg_id, n) \
     CROSS JOIN LATERAL (SELECT id FROM rooms WHERE room = asked.room LIMIT 1) AS r \
     CROSS JOIN LATERAL (SELECT epoch, msg_offset FROM messages WHERE room_id = r.id \
         AND publisher = asked.publisher AND msg_id = asked.msg_id LIMIT 1) AS m";

pub(crate) async fn find(
    connection: &mut PgConnection,
    keys: &[DedupKey],
) -> Result<Vec<Option<Position>>, sqlx::Error> {
    let rooms: Vec<&str> = keys.iter().map(|key| key.room.as_str()).collect();
    let publishers: Vec<String> = keys.iter().map(|key| key.publisher.to_key()).collect();
    let names: Vec<&str> = keys.iter().map(|key| key.msg_id.as_str()).collect();
    let query = sqlx::query(FIND_MESSAGES).bind(rooms).bind(publishers).bind(names);
    let mut found = vec![None; keys.len()];
    for row in whole_rows(query, connection).await? {
        let place = usize::try_from(row.try_get::<i64, _>("n")?).unwrap_or(0);
        let position = Position {
            epoch: rows::epoch(row.try_get("epoch")?),
            offset: rows::offset(row.try_get("msg_offset")?)?,
        };
        if let Some(found) = place.checked_sub(1).and_then(|place| found.get_mut(place)) {
            *found = Some(position);
        }
    }
    Ok(found)
}

/// What is asked of a page.
pub(crate) struct Wanted<'r> {
    pub(crate) room: &'r RoomId,
    pub(crate) after: Offset,
    pub(crate) limit: u32,
    pub(crate) bytes_max: usize,
}

impl Wanted<'_> {
    fn bytes_max(&self) -> i64 {
        i64::try_from(self.bytes_max).unwrap_or(i64::MAX)
    }

    /// The messages of a page's rows; a row of bounds alone has none.
    fn messages(&self, found: &[PgRow], status: &Status) -> Result<Vec<Publication>, sqlx::Error> {
        let mut messages = Vec::with_capacity(found.len());
        for row in found {
            if row.try_get::<Option<i64>, _>("msg_offset")?.is_none() {
                continue;
            }
            messages.push(match rows::publication(self.room, row) {
                Ok(message) => message,
                Err(error) => {
                    status.passed_over("messages", &error);
                    rows::unreadable(self.room, row)?
                }
            });
        }
        Ok(messages)
    }
}

pub(crate) async fn epoch(
    connection: &mut PgConnection,
    wanted: &Wanted<'_>,
    epoch: Epoch,
    status: &Status,
) -> Result<ArchivePage, sqlx::Error> {
    let query = sqlx::query(READ_EPOCH)
        .bind(wanted.room.as_str())
        .bind(rows::epoch_to_sql(epoch))
        .bind(rows::offset_to_sql(wanted.after))
        .bind(i64::from(wanted.limit))
        .bind(wanted.bytes_max());
    let found = whole_rows(query, connection).await?;
    let Some(bounds) = found.first() else {
        return Ok(ArchivePage { first: after_last(Offset::ZERO), messages: Vec::new() });
    };
    let first: Option<i64> = bounds.try_get("first")?;
    let last = rows::offset(bounds.try_get("last_offset")?)?;
    let first = first.map_or(Ok(after_last(last)), rows::offset)?;
    let mut messages = wanted.messages(&found, status)?;
    // Of earlier epochs that it goes on from, too.
    messages.iter_mut().for_each(|message| message.epoch = epoch);
    Ok(ArchivePage { first, messages })
}

pub(crate) async fn lives(
    connection: &mut PgConnection,
    wanted: &Wanted<'_>,
    status: &Status,
) -> Result<Option<LivesPage>, sqlx::Error> {
    let query = sqlx::query(READ_LIVES)
        .bind(wanted.room.as_str())
        .bind(rows::offset_to_sql(wanted.after))
        .bind(i64::from(wanted.limit))
        .bind(wanted.bytes_max());
    let found = whole_rows(query, connection).await?;
    let Some(bounds) = found.first() else { return Ok(None) };
    let newest: Option<i64> = bounds.try_get("newest")?;
    let newest = newest.map(rows::offset).transpose()?;
    let lives = Lives {
        epoch: rows::epoch(bounds.try_get("room_epoch")?),
        behind: rows::offset(bounds.try_get("behind")?)?,
        last: rows::offset(bounds.try_get("last_offset")?)?.max(newest.unwrap_or_default()),
        earlier: earlier(
            &bounds.try_get::<Vec<i64>, _>("ended_epochs")?,
            &bounds.try_get::<Vec<i64>, _>("ends")?,
        )?,
    };
    let first: Option<i64> = bounds.try_get("first")?;
    let first = first.map_or(Ok(after_last(lives.last)), rows::offset)?;
    let messages = wanted.messages(&found, status)?;
    let reached = messages.last().and_then(|message| message.offset).unwrap_or(wanted.after);
    let is_end = newest.is_none_or(|newest| newest <= reached);
    let holes = holes(wanted.after, first, &messages, is_end.then_some(lives.last));
    Ok(Some(LivesPage { lives, first, messages, holes }))
}

/// The ends of epochs, the latest first.
pub(crate) fn earlier(epochs: &[i64], ends: &[i64]) -> Result<EarlierLives, sqlx::Error> {
    let ends = epochs.iter().zip(ends).map(|(epoch, end)| {
        Ok(Position { epoch: rows::epoch(*epoch), offset: rows::offset(*end)? })
    });
    Ok(EarlierLives::new(ends.collect::<Result<Vec<_>, sqlx::Error>>()?))
}

/// A full log has nothing behind its last offset; then the last one stands for it.
pub(crate) fn after_last(last: Offset) -> Offset {
    last.next().unwrap_or(last)
}
