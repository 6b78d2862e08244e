//! How records become rows and rows become publications.
//!
//! What is read back must equal what was stored, byte for byte; a row that cannot be one of ours is an
//! error, never a guess.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use application::ports::archive::ArchiveRecord;
use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ConnectionId, Epoch, MessageId, MessageKey, UserId};
use domain::message::{Publication, Sender, TombstoneReason};
use domain::position::Offset;
use domain::protocol::json;
use domain::protocol::selective::{parse_tags, push_tags};
use domain::room::RoomId;
use domain::tags::Tags;
use domain::time::Wall;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::error::decode_error;

/// The records of one call that are to be inserted, each with the id of its room.
pub(crate) struct Piece {
    records: Arc<Vec<ArchiveRecord>>,
    /// Which of them, and where.
    chosen: Vec<(usize, i64)>,
}

impl Piece {
    /// All of them; none whose room has no id.
    pub(crate) fn whole(
        records: &Arc<Vec<ArchiveRecord>>,
        id_of: impl Fn(&RoomId) -> Option<i64>,
    ) -> Self {
        let ids = records.iter().enumerate();
        let chosen = ids.filter_map(|(n, record)| Some((n, id_of(&record.publication.room)?)));
        Self { chosen: chosen.collect(), records: Arc::clone(records) }
    }

    fn iter(&self) -> impl Iterator<Item = (i64, &ArchiveRecord)> {
        self.chosen.iter().filter_map(|(n, id)| Some((*id, self.records.get(*n)?)))
    }

    /// Leaves out what stands twice in it.
    pub(crate) fn drop_doubles(&mut self) {
        let mut seen: BTreeMap<(i64, Option<Offset>), usize> = BTreeMap::new();
        let records = &self.records;
        self.chosen.retain(|(n, id)| {
            let Some(record) = records.get(*n) else { return false };
            let first = *seen.entry((*id, record.publication.offset)).or_insert(*n);
            // Two that differ stay and meet each other in the table.
            first == *n || records.get(first).is_none_or(|first| !is_same(first, record))
        });
    }

    /// Leaves out what is stored already. Answers the first whose place or name another message has.
    pub(crate) async fn drop_stored(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<Result<(), ArchiveRecord>, sqlx::Error> {
        let mut ids = Vec::new();
        let (mut offsets, mut publishers, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (id, record) in self.iter() {
            ids.push(id);
            offsets.push(record.publication.offset.map_or(0, offset_to_sql));
            publishers.push(record.publisher.to_key());
            names.push(record.msg_id.as_ref().map(MessageId::as_str));
        }
        let found = sqlx::query(
            "SELECT asked.n - 1 AS n, m.msg_offset, m.epoch, m.publisher, m.msg_id, m.at_ms \
             FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) WITH ORDINALITY \
             AS asked (room_id, msg_offset, publisher, msg_id, n) \
             CROSS JOIN LATERAL (SELECT msg_offset, epoch, publisher, msg_id, at_ms FROM messages \
                 WHERE room_id = asked.room_id AND msg_offset = asked.msg_offset \
                 UNION ALL SELECT msg_offset, epoch, publisher, msg_id, at_ms FROM messages \
                 WHERE room_id = asked.room_id AND publisher = asked.publisher \
                 AND msg_id = asked.msg_id) AS m",
        )
        .bind(&ids)
        .bind(&offsets)
        .bind(&publishers)
        .bind(&names)
        .fetch_all(connection)
        .await?;
        let mut stored = BTreeSet::new();
        for row in &found {
            let place: i64 = row.try_get("n")?;
            let chosen = usize::try_from(place).ok().and_then(|place| self.chosen.get(place));
            let Some(n) = chosen.map(|(n, _)| *n) else { continue };
            let Some(record) = self.records.get(n) else { continue };
            if !is_stored_as(record, row)? {
                return Ok(Err(record.clone()));
            }
            stored.insert(n);
        }
        self.chosen.retain(|(n, _)| !stored.contains(n));
        Ok(Ok(()))
    }
}

fn is_same(one: &ArchiveRecord, other: &ArchiveRecord) -> bool {
    let (a, b) = (&one.publication, &other.publication);
    (a.epoch, a.offset, a.at) == (b.epoch, b.offset, b.at)
        && (&one.publisher, &one.msg_id) == (&other.publisher, &other.msg_id)
}

fn is_stored_as(record: &ArchiveRecord, row: &PgRow) -> Result<bool, sqlx::Error> {
    let publication = &record.publication;
    let name: Option<&str> = row.try_get("msg_id")?;
    Ok(row.try_get::<i64, _>("epoch")? == epoch_to_sql(publication.epoch)
        && Some(row.try_get::<i64, _>("msg_offset")?) == publication.offset.map(offset_to_sql)
        && row.try_get::<i64, _>("at_ms")? == publication.at.as_millis()
        && row.try_get::<&str, _>("publisher")? == record.publisher.to_key()
        && name == record.msg_id.as_ref().map(MessageId::as_str))
}

/// The columns of many rows.
#[derive(Default)]
struct Columns<'r> {
    room_ids: Vec<i64>,
    offsets: Vec<i64>,
    epochs: Vec<i64>,
    connections: Vec<Option<i64>>,
    ats: Vec<i64>,
    expiries: Vec<Option<i64>>,
    classes: Vec<i16>,
    tombstones: Vec<Option<i16>>,
    keys: Vec<Option<&'r str>>,
    users: Vec<Option<&'r str>>,
    names: Vec<Option<&'r [u8]>>,
    publishers: Vec<String>,
    msg_ids: Vec<Option<&'r str>>,
    tags: Vec<Option<Vec<u8>>>,
    datas: Vec<&'r [u8]>,
}

impl<'r> Columns<'r> {
    fn push(&mut self, room_id: i64, record: &'r ArchiveRecord) {
        let publication = &record.publication;
        let sender = &publication.sender;
        self.room_ids.push(room_id);
        // A record without an offset was refused before.
        self.offsets.push(publication.offset.map_or(0, offset_to_sql));
        self.epochs.push(epoch_to_sql(publication.epoch));
        self.connections.push(sender.connection.map(|id| id.bits().cast_signed()));
        self.ats.push(publication.at.as_millis());
        self.expiries.push(publication.expires_at.map(Wall::as_millis));
        self.classes.push(class_to_sql(publication.class));
        self.tombstones.push(publication.tombstone.map(tombstone_to_sql));
        self.keys.push(publication.key.as_ref().map(MessageKey::as_str));
        self.users.push(sender.user.as_ref().map(UserId::as_str));
        self.names.push(sender.name.as_deref().map(str::as_bytes));
        self.publishers.push(record.publisher.to_key());
        self.msg_ids.push(record.msg_id.as_ref().map(MessageId::as_str));
        self.tags.push(tags_to_sql(&publication.tags));
        self.datas.push(&publication.data);
    }
}

/// Inserts them all with one statement, in the order of their places, so that two nodes don't wait for
/// each other.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    pieces: &[Piece],
) -> Result<(), sqlx::Error> {
    let mut rows: Vec<_> = pieces.iter().flat_map(Piece::iter).collect();
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort_by_key(|(id, record)| (*id, record.publication.offset));
    let mut columns = Columns::default();
    for (id, record) in rows {
        columns.push(id, record);
    }
    // All of the same length, so one row of each. Behind FROM the server would put each column aside first, which takes
    // a third more of its time.
    sqlx::query(
        "INSERT INTO messages (room_id, msg_offset, epoch, sender_connection, at_ms, expires_at_ms, \
         class, tombstone, msg_key, sender_user, sender_name, publisher, msg_id, tags, data) \
         SELECT unnest($1::bigint[]), unnest($2::bigint[]), unnest($3::bigint[]), unnest($4::bigint[]), \
         unnest($5::bigint[]), unnest($6::bigint[]), unnest($7::smallint[]), unnest($8::smallint[]), \
         unnest($9::text[]), unnest($10::text[]), unnest($11::bytea[]), unnest($12::text[]), \
         unnest($13::text[]), unnest($14::bytea[]), unnest($15::bytea[])",
    )
    .bind(columns.room_ids)
    .bind(columns.offsets)
    .bind(columns.epochs)
    .bind(columns.connections)
    .bind(columns.ats)
    .bind(columns.expiries)
    .bind(columns.classes)
    .bind(columns.tombstones)
    .bind(columns.keys)
    .bind(columns.users)
    .bind(columns.names)
    .bind(columns.publishers)
    .bind(columns.msg_ids)
    .bind(columns.tags)
    .bind(columns.datas)
    .execute(connection)
    .await
    .map(drop)
}

/// Adds a room that is not there yet; most often it is the one before.
pub(crate) fn insert_new(rooms: &mut BTreeSet<RoomId>, room: &RoomId) {
    if !rooms.contains(room) {
        rooms.insert(room.clone());
    }
}

/// The columns that [`publication`] reads, by their names: `*` would mean others to a statement that was
/// prepared before a newer version of the server added one.
macro_rules! columns {
    () => {
        "msg_offset, epoch, sender_connection, at_ms, expires_at_ms, class, tombstone, msg_key, \
         sender_user, sender_name, tags, data"
    };
}
pub(crate) use columns;

/// Reads a row that holds the columns of `messages`.
pub(crate) fn publication(room: &RoomId, row: &PgRow) -> Result<Publication, sqlx::Error> {
    let user: Option<&str> = row.try_get("sender_user")?;
    let key: Option<&str> = row.try_get("msg_key")?;
    let connection: Option<i64> = row.try_get("sender_connection")?;
    let expires_at: Option<i64> = row.try_get("expires_at_ms")?;
    let tombstone: Option<i16> = row.try_get("tombstone")?;
    let data: &[u8] = row.try_get("data")?;
    let tags: Option<&[u8]> = row.try_get("tags")?;
    Ok(Publication {
        room: room.clone(),
        epoch: epoch(row.try_get("epoch")?),
        offset: Some(offset(row.try_get("msg_offset")?)?),
        class: class(row.try_get("class")?)?,
        key: key.map(MessageKey::parse).transpose().map_err(decode_error)?,
        sender: Sender {
            user: user.map(UserId::parse).transpose().map_err(decode_error)?,
            name: name(row)?,
            connection: connection.map(|bits| ConnectionId::from_bits(bits.cast_unsigned())),
            trace: None,
        },
        data: Bytes::copy_from_slice(data),
        tags: tags.map_or_else(|| Ok(Tags::default()), tags_from_sql)?,
        origin: None,
        at: Wall::from_millis(row.try_get("at_ms")?),
        expires_at: expires_at.map(Wall::from_millis),
        tombstone: tombstone.map(tombstone_reason).transpose()?,
    })
}

/// The place of a message whose row is none of ours: what it said is not known any more.
pub(crate) fn unreadable(room: &RoomId, row: &PgRow) -> Result<Publication, sqlx::Error> {
    Ok(Publication {
        room: room.clone(),
        epoch: epoch(row.try_get("epoch")?),
        offset: Some(offset(row.try_get("msg_offset")?)?),
        class: Class::Reliable,
        key: None,
        sender: Sender::default(),
        data: Bytes::new(),
        tags: Tags::default(),
        origin: None,
        at: Wall::from_millis(row.try_get("at_ms").unwrap_or_default()),
        expires_at: None,
        tombstone: Some(TombstoneReason::Deleted),
    })
}

/// What a letter says: one JSON value, as it was when it was taken. What is anything else by now is damaged, and would
/// damage the frame that it stands in.
pub(crate) fn said(data: &[u8]) -> Result<Bytes, sqlx::Error> {
    let text = std::str::from_utf8(data).map_err(decode_error)?;
    let end = json::scan_value(text, 0, json::DEPTH_MAX);
    if end.is_ok_and(|end| text.as_bytes()[end..].iter().all(u8::is_ascii_whitespace)) {
        return Ok(Bytes::copy_from_slice(data));
    }
    Err(decode_error("what was said is not JSON"))
}

/// What a sender was called.
pub(crate) fn name(row: &PgRow) -> Result<Option<Arc<str>>, sqlx::Error> {
    let name: Option<&[u8]> = row.try_get("sender_name")?;
    let name = name.map(std::str::from_utf8).transpose().map_err(decode_error)?;
    Ok(name.map(Into::into))
}

pub(crate) const fn epoch(bits: i64) -> Epoch {
    Epoch::from_bits(bits.cast_unsigned())
}

pub(crate) const fn epoch_to_sql(epoch: Epoch) -> i64 {
    epoch.bits().cast_signed()
}

pub(crate) fn offset(number: i64) -> Result<Offset, sqlx::Error> {
    let number = u64::try_from(number).map_err(decode_error)?;
    Offset::parse(number).map_err(decode_error)
}

/// An offset has 53 bits, so its sign bit is never set.
pub(crate) const fn offset_to_sql(offset: Offset) -> i64 {
    offset.get().cast_signed()
}

fn tags_to_sql(tags: &Tags) -> Option<Vec<u8>> {
    if tags.is_empty() {
        return None;
    }
    let mut text = Vec::new();
    push_tags(&mut text, tags);
    Some(text)
}

fn tags_from_sql(text: &[u8]) -> Result<Tags, sqlx::Error> {
    let text = std::str::from_utf8(text).map_err(decode_error)?;
    parse_tags(text).ok_or_else(|| decode_error("no tags of a message"))
}

// The numbers are part of the tables' format: never reuse one.

const fn class_to_sql(class: Class) -> i16 {
    match class {
        Class::Reliable => 0,
        Class::Latest => 1,
        Class::Droppable => 2,
    }
}

fn class(number: i16) -> Result<Class, sqlx::Error> {
    [Class::Reliable, Class::Latest, Class::Droppable]
        .into_iter()
        .find(|class| class_to_sql(*class) == number)
        .ok_or_else(|| decode_error(format!("{number} is no class")))
}

pub(crate) const fn tombstone_to_sql(reason: TombstoneReason) -> i16 {
    match reason {
        TombstoneReason::Expired => 1,
        TombstoneReason::Deleted => 2,
    }
}

fn tombstone_reason(number: i16) -> Result<TombstoneReason, sqlx::Error> {
    [TombstoneReason::Expired, TombstoneReason::Deleted]
        .into_iter()
        .find(|reason| tombstone_to_sql(*reason) == number)
        .ok_or_else(|| decode_error(format!("{number} is no reason of a tombstone")))
}
