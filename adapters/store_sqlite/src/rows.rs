//! How records become rows and rows become publications, and the statements for many rows.
//!
//! What is read back must equal what was stored, byte for byte; a row that cannot be one of ours
//! is an error, never a guess.

use std::fmt::Write as _;
use std::sync::Arc;

use application::ports::archive::{ArchiveRecord, DedupKey};
use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ConnectionId, Epoch, MessageKey, UserId};
use domain::message::{Publication, Sender, TombstoneReason};
use domain::position::Offset;
use domain::protocol::selective::{parse_tags, push_tags};
use domain::room::RoomId;
use domain::tags::Tags;
use domain::time::Wall;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, Sqlite};

/// Rows per statement when there are many. One size besides 1, so that two prepared statements
/// serve every batch; larger ones were not faster.
pub(crate) const CHUNK: usize = 64;

const MESSAGE_COLUMNS: &str = "room_id, epoch, offset, class, msg_key, sender_user, \
     sender_connection, at_ms, expires_at_ms, publisher, msg_id, tombstone, data, tags, sender_name";
const MESSAGE_COLUMNS_COUNT: usize = 15;

/// The texts of the statements that come in two sizes, made once. They hold
/// placeholders only, never a value.
pub(crate) struct Statements {
    find_rooms: TwoSizes,
    find_messages: TwoSizes,
    insert_messages: TwoSizes,
    move_heads: TwoSizes,
}

struct TwoSizes {
    one: Arc<str>,
    chunk: Arc<str>,
}

impl TwoSizes {
    fn new(text: impl Fn(usize) -> String) -> Self {
        Self { one: text(1).into(), chunk: text(CHUNK).into() }
    }

    fn query<'q>(&self, rows: usize) -> Query<'q, Sqlite, SqliteArguments> {
        let text = if rows == 1 { &self.one } else { &self.chunk };
        sqlx::query(AssertSqlSafe(Arc::clone(text)))
    }
}

impl Statements {
    pub(crate) fn new() -> Self {
        let find_rooms = TwoSizes::new(|rows| {
            let rooms = repeat("?", rows);
            format!("SELECT room, id, epoch, last_offset FROM rooms WHERE room IN ({rooms})")
        });
        let find_messages = TwoSizes::new(|rows| {
            let values: Vec<String> = (0..rows).map(|n| format!("({n},?,?,?)")).collect();
            // CROSS JOIN is the order of the loops: two looks into an index for each key.
            format!(
                "WITH asked (place, room, publisher, msg_id) AS (VALUES {}) \
                 SELECT asked.place, messages.epoch, messages.offset FROM asked \
                 CROSS JOIN rooms ON rooms.room = asked.room \
                 CROSS JOIN messages ON messages.room_id = rooms.id \
                 AND messages.publisher = asked.publisher AND messages.msg_id = asked.msg_id",
                values.join(",")
            )
        });
        let insert_messages = TwoSizes::new(|rows| {
            let values = repeat(&format!("({})", repeat("?", MESSAGE_COLUMNS_COUNT)), rows);
            format!("INSERT INTO messages ({MESSAGE_COLUMNS}) VALUES {values}")
        });
        let move_heads = TwoSizes::new(|rows| {
            let values = repeat("(?,?)", rows);
            format!(
                "UPDATE rooms SET last_offset = moved.column2 FROM (VALUES {values}) AS moved \
                 WHERE rooms.id = moved.column1"
            )
        });
        Self { find_rooms, find_messages, insert_messages, move_heads }
    }

    /// Finds the rooms of a chunk; unused places are NULL, which equals no room.
    pub(crate) fn find_rooms(&self, rooms: &[RoomId]) -> Query<'_, Sqlite, SqliteArguments> {
        let mut query = self.find_rooms.query(rooms.len());
        for place in 0..places(rooms.len()) {
            query = query.bind(rooms.get(place).map(|room| room.as_str().to_owned()));
        }
        query
    }

    /// Finds the messages of a chunk of keys, each answered with its place in the chunk; unused
    /// places are NULL, which equals no key.
    pub(crate) fn find_messages(&self, keys: &[DedupKey]) -> Query<'_, Sqlite, SqliteArguments> {
        let mut query = self.find_messages.query(keys.len());
        for place in 0..places(keys.len()) {
            let key = keys.get(place);
            query = query
                .bind(key.map(|key| key.room.as_str().to_owned()))
                .bind(key.map(|key| key.publisher.to_key()))
                .bind(key.map(|key| key.msg_id.as_str().to_owned()));
        }
        query
    }

    /// Stores a chunk of exactly [`CHUNK`] rows, or one row.
    pub(crate) fn insert_messages(&self, rows: &[NewRow]) -> Query<'_, Sqlite, SqliteArguments> {
        rows.iter().fold(self.insert_messages.query(rows.len()), bind_row)
    }

    /// Sets the last offsets of a chunk of rooms; unused places are NULL, which equals no room.
    pub(crate) fn move_heads(&self, heads: &[(i64, Offset)]) -> Query<'_, Sqlite, SqliteArguments> {
        let mut query = self.move_heads.query(heads.len());
        for place in 0..places(heads.len()) {
            let head = heads.get(place);
            query = query.bind(head.map(|(id, _)| *id));
            query = query.bind(head.map(|(_, last)| offset_to_sql(*last)));
        }
        query
    }
}

/// The places of the statement that takes `rows` rows.
const fn places(rows: usize) -> usize {
    if rows == 1 { 1 } else { CHUNK }
}

fn repeat(piece: &str, times: usize) -> String {
    let mut text = String::with_capacity((piece.len() + 1) * times);
    for n in 0..times {
        let comma = if n == 0 { "" } else { "," };
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{comma}{piece}");
    }
    text
}

/// A record whose room is known and whose place is checked.
pub(crate) struct NewRow {
    pub(crate) room_id: i64,
    pub(crate) offset: Offset,
    pub(crate) record: ArchiveRecord,
}

fn bind_row<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    row: &NewRow,
) -> Query<'q, Sqlite, SqliteArguments> {
    let publication = &row.record.publication;
    let sender = &publication.sender;
    query
        .bind(row.room_id)
        .bind(publication.epoch.bits().cast_signed())
        .bind(offset_to_sql(row.offset))
        .bind(class_to_sql(publication.class))
        .bind(publication.key.as_ref().map(|key| key.as_str().to_owned()))
        .bind(sender.user.as_ref().map(|user| user.as_str().to_owned()))
        .bind(sender.connection.map(|connection| connection.bits().cast_signed()))
        .bind(publication.at.as_millis())
        .bind(publication.expires_at.map(Wall::as_millis))
        .bind(row.record.publisher.to_key())
        .bind(row.record.msg_id.as_ref().map(|id| id.as_str().to_owned()))
        .bind(publication.tombstone.map(tombstone_to_sql))
        .bind(publication.data.to_vec())
        .bind(tags_to_sql(&publication.tags))
        .bind(sender.name.as_deref().map(str::to_owned))
}

/// Reads a row that holds the columns of `messages`. The blob is copied out of SQLite's page.
pub(crate) fn publication(room: &RoomId, row: &SqliteRow) -> Result<Publication, sqlx::Error> {
    let user: Option<&str> = row.try_get("sender_user")?;
    let key: Option<&str> = row.try_get("msg_key")?;
    let connection: Option<i64> = row.try_get("sender_connection")?;
    let expires_at: Option<i64> = row.try_get("expires_at_ms")?;
    let tombstone: Option<i64> = row.try_get("tombstone")?;
    let data: Vec<u8> = row.try_get("data")?;
    let tags: Option<&str> = row.try_get("tags")?;
    let name: Option<&str> = row.try_get("sender_name")?;
    Ok(Publication {
        room: room.clone(),
        epoch: epoch(row.try_get("epoch")?),
        offset: Some(offset(row.try_get("offset")?)?),
        class: class(row.try_get("class")?)?,
        key: key.map(MessageKey::parse).transpose().map_err(decode_error)?,
        sender: Sender {
            user: user.map(UserId::parse).transpose().map_err(decode_error)?,
            name: name.map(Into::into),
            connection: connection.map(|bits| ConnectionId::from_bits(bits.cast_unsigned())),
            trace: None,
        },
        data: Bytes::from(data),
        tags: tags.map_or_else(|| Ok(Tags::default()), tags_from_sql)?,
        origin: None,
        at: Wall::from_millis(row.try_get("at_ms")?),
        expires_at: expires_at.map(Wall::from_millis),
        tombstone: tombstone.map(tombstone_reason).transpose()?,
    })
}

pub(crate) const fn epoch(bits: i64) -> Epoch {
    Epoch::from_bits(bits.cast_unsigned())
}

pub(crate) fn offset(number: i64) -> Result<Offset, sqlx::Error> {
    let number = u64::try_from(number).map_err(decode_error)?;
    Offset::parse(number).map_err(decode_error)
}

/// An offset has 53 bits, so its sign bit is never set.
pub(crate) const fn offset_to_sql(offset: Offset) -> i64 {
    offset.get().cast_signed()
}

fn tags_to_sql(tags: &Tags) -> Option<String> {
    let mut text = Vec::new();
    push_tags(&mut text, tags);
    // It was made of texts, so this never fails.
    String::from_utf8(text).ok().filter(|_| !tags.is_empty())
}

fn tags_from_sql(text: &str) -> Result<Tags, sqlx::Error> {
    parse_tags(text).ok_or_else(|| decode_error("no tags of a message"))
}

// The numbers are part of the file format: never reuse one.

const fn class_to_sql(class: Class) -> i64 {
    match class {
        Class::Reliable => 0,
        Class::Latest => 1,
        Class::Droppable => 2,
    }
}

fn class(number: i64) -> Result<Class, sqlx::Error> {
    [Class::Reliable, Class::Latest, Class::Droppable]
        .into_iter()
        .find(|class| class_to_sql(*class) == number)
        .ok_or_else(|| decode_error(format!("{number} is no class")))
}

pub(crate) const fn tombstone_to_sql(reason: TombstoneReason) -> i64 {
    match reason {
        TombstoneReason::Expired => 1,
        TombstoneReason::Deleted => 2,
    }
}

fn tombstone_reason(number: i64) -> Result<TombstoneReason, sqlx::Error> {
    [TombstoneReason::Expired, TombstoneReason::Deleted]
        .into_iter()
        .find(|reason| tombstone_to_sql(*reason) == number)
        .ok_or_else(|| decode_error(format!("{number} is no reason of a tombstone")))
}

pub(crate) fn decode_error(
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> sqlx::Error {
    sqlx::Error::Decode(source.into())
}
