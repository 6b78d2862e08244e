//! What one transaction does: everything of a group, or nothing.
//!
//! It must never change what it was given: a group that met another transaction is done again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use application::ports::archive::{ArchiveError, ArchiveRecord, Forget, RoomHead};
use domain::id::Epoch;
use domain::message::TombstoneReason;
use domain::position::{Offset, Position};
use domain::room::RoomId;
use domain::time::Wall;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use crate::connect::{Turn, WriterConnection};
use crate::error::{Failure, Remedy, decode_error};
use crate::queue::Command;
use crate::rows::{self, Piece};
use crate::{life, read, revocations, succession};

/// The most messages that one step of a trim looks at, so that writes never wait long behind it.
pub(crate) const TRIM_ROWS_MAX: i64 = 512;

/// Whether something of the group may be stored already, by its own words no mistake.
pub(crate) fn may_be_there_already(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::Place { .. }))
}

/// Does all commands in one transaction. `looks_first` asks of what is placed whether it is there.
pub(crate) async fn commit(
    connection: &mut WriterConnection,
    commands: &mut [Command],
    looks_first: bool,
) -> Result<(), Failure> {
    let result = attempt(connection, commands, looks_first).await;
    if let Err(failure) = &result
        && failure.remedy() != Remedy::Reconnect
    {
        sqlx::raw_sql("ROLLBACK").execute(&mut connection.connection).await?;
    }
    result
}

async fn attempt(
    connection: &mut WriterConnection,
    commands: &mut [Command],
    looks_first: bool,
) -> Result<(), Failure> {
    let WriterConnection { connection, life } = connection;
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    let (rooms, pieces, life) = (HashMap::new(), Vec::new(), life.as_deref());
    let mut batch = Batch { connection: &mut *connection, life, rooms, pieces, looks_first };
    batch.apply_all(commands).await?;
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(())
}

/// A room as the transaction sees it.
pub(crate) struct StoredRoom {
    pub(crate) id: i64,
    pub(crate) head: RoomHead,
    /// The present epoch begins behind it.
    pub(crate) behind: Offset,
    /// Whether `head.last` is ahead of the table.
    pub(crate) moved: bool,
    /// Whether its epoch is of this life of the server; none where that is not known.
    pub(crate) is_of_this_life: Option<bool>,
}

impl StoredRoom {
    fn read(row: &PgRow) -> Result<(RoomId, Self), sqlx::Error> {
        let room = RoomId::parse(row.try_get("room")?).map_err(decode_error)?;
        let last = rows::offset(row.try_get("last_offset")?)?;
        let head = RoomHead::new(rows::epoch(row.try_get("epoch")?), last);
        let behind = rows::offset(row.try_get("behind")?)?;
        let is_of_this_life = row.try_get("is_of_this_life")?;
        Ok((room, Self { id: row.try_get("id")?, head, behind, moved: false, is_of_this_life }))
    }
}

pub(crate) struct Batch<'b> {
    pub(crate) connection: &'b mut PgConnection,
    /// Which life of the server it is to.
    pub(crate) life: Option<&'b str>,
    /// Every room that the commands name and that exists.
    pub(crate) rooms: HashMap<RoomId, StoredRoom>,
    /// Checked, not yet inserted.
    pieces: Vec<Piece>,
    looks_first: bool,
}

/// The rooms that commands name, by what is done with them.
#[derive(Default)]
struct Named {
    changed: BTreeSet<RoomId>,
    /// Nobody may end their epoch meanwhile, but others may place messages, too.
    shared: BTreeSet<RoomId>,
    /// Made where they are missing.
    opened: BTreeMap<RoomId, Epoch>,
    /// Of which the newest message has to be looked at.
    tops: BTreeSet<RoomId>,
}

impl Named {
    fn by(commands: &[Command]) -> Self {
        let mut named = Self::default();
        for command in commands {
            match command {
                Command::OpenRoom { room, fresh, .. } => {
                    named.changed.insert(room.clone());
                    named.tops.insert(room.clone());
                    named.opened.entry(room.clone()).or_insert(*fresh);
                }
                Command::Succeed { room, .. } => {
                    named.changed.insert(room.clone());
                    named.tops.insert(room.clone());
                }
                Command::Forget { room, .. } => drop(named.changed.insert(room.clone())),
                Command::Append { records, .. } => {
                    let rooms = records.iter().map(|record| &record.publication.room);
                    rooms.for_each(|room| rows::insert_new(&mut named.changed, room));
                }
                Command::Place { records, .. } => {
                    let rooms = records.iter().map(|record| &record.publication.room);
                    rooms.for_each(|room| rows::insert_new(&mut named.shared, room));
                }
                Command::Revoke { .. }
                | Command::ForgetRevocations { .. }
                | Command::Inbox { .. }
                | Command::Moderation { .. }
                | Command::Spend(_) => {}
            }
        }
        named.shared.retain(|room| !named.changed.contains(room));
        named
    }
}

impl Batch<'_> {
    async fn apply_all(&mut self, commands: &mut [Command]) -> Result<(), Failure> {
        self.load_rooms(Named::by(commands)).await?;
        self.take_turns(commands).await?;
        for command in commands {
            match command {
                Command::OpenRoom { room, fresh, known, job } => {
                    job.outcome = life::go_on(self, room, *fresh, *known).await?;
                }
                Command::Append { records, job } => {
                    // A call that breaks the order is the caller's fault: it alone is refused.
                    job.outcome = self.append(records).await?;
                }
                Command::Place { records, job } => job.outcome = self.place(records).await?,
                Command::Succeed { room, next, job } => {
                    self.insert_pieces().await?;
                    job.outcome = succession::succeed(self, room, *next).await?;
                }
                Command::Forget { room, what, job } => {
                    self.insert_pieces().await?;
                    job.outcome = Ok(match *what {
                        Forget::Old { first, before } => self.trim(room, first, before).await?,
                        Forget::Message(position) => self.erase(room, position).await?,
                    });
                }
                Command::Revoke { row, job } => {
                    job.outcome = Ok(row.store(self.connection).await?)
                }
                Command::Inbox { change, job } => {
                    job.outcome = Ok(change.carry_out(self.connection).await?);
                }
                Command::Moderation { change, job } => {
                    job.outcome = Ok(change.carry_out(self.connection).await?);
                }
                Command::ForgetRevocations { until, job } => {
                    job.outcome = Ok(revocations::forget(self.connection, *until).await?);
                }
                Command::Spend(spend) => spend.apply(self.connection).await?,
            }
        }
        self.insert_pieces().await?;
        Ok(self.move_heads().await?)
    }

    /// One node at a time writes letters, and what moderators did: their numbers rise as they are
    /// committed.
    async fn take_turns(&mut self, commands: &[Command]) -> Result<(), sqlx::Error> {
        let has = |wanted: fn(&Command) -> bool| commands.iter().any(wanted);
        let turns = [
            (has(|command| matches!(command, Command::Inbox { .. })), Turn::Letters),
            (has(|command| matches!(command, Command::Moderation { .. })), Turn::Moderation),
        ];
        for (_, turn) in turns.into_iter().filter(|(is_needed, _)| *is_needed) {
            take_turn(self.connection, turn).await?;
        }
        Ok(())
    }

    async fn load_rooms(&mut self, named: Named) -> Result<(), sqlx::Error> {
        let Named { changed, shared, opened, tops } = named;
        // In the order of their names, so that two nodes don't wait for each other.
        self.lock_rooms(
            "SELECT id, room, epoch, behind, last_offset, life = $2 AS is_of_this_life FROM rooms \
             WHERE room = ANY($1) ORDER BY room FOR UPDATE",
            &changed,
        )
        .await?;
        self.lock_rooms(
            "SELECT id, room, epoch, behind, last_offset, life = $2 AS is_of_this_life FROM rooms \
             WHERE room = ANY($1) ORDER BY room FOR SHARE",
            &shared,
        )
        .await?;
        let missing = opened.iter().filter(|(room, _)| !self.rooms.contains_key(*room));
        let missing: Vec<_> =
            missing.map(|(room, epoch)| (room.clone(), *epoch, Offset::ZERO)).collect();
        self.make_rooms(&missing).await?;
        self.look_at_tops(&tops).await
    }

    async fn lock_rooms(
        &mut self,
        statement: &'static str,
        rooms: &BTreeSet<RoomId>,
    ) -> Result<(), sqlx::Error> {
        if rooms.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = rooms.iter().map(RoomId::as_str).collect();
        let found = sqlx::query(statement).bind(&names).bind(self.life);
        let found = found.fetch_all(&mut *self.connection).await?;
        for row in &found {
            let (room, stored) = StoredRoom::read(row)?;
            self.rooms.insert(room, stored);
        }
        Ok(())
    }

    /// Makes rooms; what another node has made meanwhile is taken as it made it.
    pub(crate) async fn make_rooms(
        &mut self,
        rooms: &[(RoomId, Epoch, Offset)],
    ) -> Result<(), sqlx::Error> {
        if rooms.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = rooms.iter().map(|(room, ..)| room.as_str()).collect();
        let epochs: Vec<i64> =
            rooms.iter().map(|(_, epoch, _)| rows::epoch_to_sql(*epoch)).collect();
        let behinds: Vec<i64> = rooms.iter().map(|(.., at)| rows::offset_to_sql(*at)).collect();
        sqlx::query(
            "INSERT INTO rooms (room, epoch, behind, last_offset, life) \
             SELECT room, epoch, behind, behind, $4 FROM unnest($1::text[], $2::bigint[], $3::bigint[]) \
             AS made (room, epoch, behind) ORDER BY room ON CONFLICT (room) DO NOTHING",
        )
        .bind(&names)
        .bind(&epochs)
        .bind(&behinds)
        .bind(self.life)
        .execute(&mut *self.connection)
        .await?;
        self.lock_rooms(
            "SELECT id, room, epoch, behind, last_offset, life = $2 AS is_of_this_life FROM rooms \
             WHERE room = ANY($1) ORDER BY room FOR UPDATE",
            &rooms.iter().map(|(room, ..)| room.clone()).collect(),
        )
        .await
    }

    /// What was placed by several nodes has not moved the head of its room, which does not know where earlier epochs
    /// ended.
    async fn look_at_tops(&mut self, rooms: &BTreeSet<RoomId>) -> Result<(), sqlx::Error> {
        let ids: Vec<i64> =
            rooms.iter().filter_map(|room| self.rooms.get(room)).map(|r| r.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        type Top = (i64, Option<i64>, Vec<i64>, Vec<i64>);
        let tops: Vec<Top> = sqlx::query_as(
            "SELECT id, (SELECT max(msg_offset) FROM messages WHERE room_id = id), \
             ARRAY(SELECT e.epoch FROM ended_epochs e WHERE e.room_id = id ORDER BY e.n DESC LIMIT 4), \
             ARRAY(SELECT e.ends FROM ended_epochs e WHERE e.room_id = id ORDER BY e.n DESC LIMIT 4) \
             FROM unnest($1::bigint[]) AS id",
        )
        .bind(&ids)
        .fetch_all(&mut *self.connection)
        .await?;
        let tops: HashMap<i64, Top> = tops.into_iter().map(|top| (top.0, top)).collect();
        for stored in self.rooms.values_mut() {
            let Some((_, top, epochs, ends)) = tops.get(&stored.id) else { continue };
            stored.head.earlier = read::earlier(epochs, ends)?;
            let top = top.map_or(Ok(Offset::ZERO), rows::offset)?;
            if top > stored.head.last {
                stored.head.last = top;
                stored.moved = true;
            }
        }
        Ok(())
    }

    /// Checks that every record is the next of its room, and only then moves the heads: a refused
    /// call leaves no trace.
    async fn append(
        &mut self,
        records: &Arc<Vec<ArchiveRecord>>,
    ) -> Result<Result<(), ArchiveError>, sqlx::Error> {
        let mut lasts: HashMap<&RoomId, Offset> = HashMap::new();
        for record in records.iter() {
            let publication = &record.publication;
            let stored = match self.present(record).await? {
                Ok(stored) => stored,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let last = lasts.entry(&publication.room).or_insert(stored.head.last);
            match publication.offset {
                Some(offset) if last.next() == Some(offset) => *last = offset,
                Some(_) | None => {
                    return Ok(Err(refused(record, &format!("its room ends at {}", last.get()))));
                }
            }
        }
        for (room, last) in lasts {
            if let Some(stored) = self.rooms.get_mut(room) {
                stored.head.last = last;
                stored.moved = true;
            }
        }
        self.pieces
            .push(Piece::whole(records, |room| self.rooms.get(room).map(|stored| stored.id)));
        Ok(Ok(()))
    }

    /// Checks that every record has a place in the present epoch of its room.
    async fn place(
        &mut self,
        records: &Arc<Vec<ArchiveRecord>>,
    ) -> Result<Result<(), ArchiveError>, sqlx::Error> {
        for record in records.iter() {
            let behind = match self.present(record).await? {
                Ok(stored) => stored.behind,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if record.publication.offset.is_none_or(|offset| offset <= behind) {
                let why = format!("its epoch begins behind {}", behind.get());
                return Ok(Err(refused(record, &why)));
            }
        }
        let mut piece = Piece::whole(records, |room| self.rooms.get(room).map(|stored| stored.id));
        piece.drop_doubles();
        if self.looks_first {
            self.insert_pieces().await?;
            if let Err(record) = piece.drop_stored(self.connection).await? {
                return Ok(Err(refused(&record, "another message has its place or its name")));
            }
        }
        self.pieces.push(piece);
        Ok(Ok(()))
    }

    /// The room of a record, if its epoch is the present one.
    async fn present(
        &mut self,
        record: &ArchiveRecord,
    ) -> Result<Result<&StoredRoom, ArchiveError>, sqlx::Error> {
        let publication = &record.publication;
        let Some(stored) = self.rooms.get(&publication.room) else {
            return Ok(Err(refused(record, "its room was never opened")));
        };
        if publication.epoch == stored.head.epoch {
            return Ok(Ok(stored));
        }
        let has_ended =
            succession::has_ended(self.connection, stored.id, publication.epoch).await?;
        let wrong = || refused(record, "its room has another epoch");
        Ok(Err(if has_ended { ArchiveError::Ended } else { wrong() }))
    }

    async fn insert_pieces(&mut self) -> Result<(), sqlx::Error> {
        let pieces = std::mem::take(&mut self.pieces);
        rows::insert(self.connection, &pieces).await
    }

    async fn move_heads(&mut self) -> Result<(), sqlx::Error> {
        let moved = self.rooms.values().filter(|stored| stored.moved);
        let (ids, lasts): (Vec<i64>, Vec<i64>) =
            moved.map(|room| (room.id, rows::offset_to_sql(room.head.last))).unzip();
        if ids.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "UPDATE rooms SET last_offset = moved.last_offset \
             FROM unnest($1::bigint[], $2::bigint[]) AS moved (id, last_offset) \
             WHERE rooms.id = moved.id",
        )
        .bind(&ids)
        .bind(&lasts)
        .execute(&mut *self.connection)
        .await
        .map(drop)
    }

    /// Forgets the oldest messages that are below `first` or older than `before`, stopping at the
    /// first that is neither: a hole would be worse than a message kept too long. Answers whether
    /// it stopped only because it had looked at enough.
    async fn trim(
        &mut self,
        room: &RoomId,
        first: Offset,
        before: Wall,
    ) -> Result<bool, sqlx::Error> {
        let Some(stored) = self.rooms.get_mut(room) else { return Ok(false) };
        let oldest: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT msg_offset, at_ms FROM messages WHERE room_id = $1 ORDER BY msg_offset LIMIT $2",
        )
        .bind(stored.id)
        .bind(TRIM_ROWS_MAX)
        .fetch_all(&mut *self.connection)
        .await?;
        let goes = |&&(offset, at): &&(i64, i64)| {
            offset < rows::offset_to_sql(first) || at < before.as_millis()
        };
        let gone = oldest.iter().take_while(goes).count();
        let Some((last_gone, _)) = gone.checked_sub(1).and_then(|last| oldest.get(last)) else {
            return Ok(false);
        };
        sqlx::query("DELETE FROM messages WHERE room_id = $1 AND msg_offset <= $2")
            .bind(stored.id)
            .bind(last_gone)
            .execute(&mut *self.connection)
            .await?;
        // The newest may be among them, and nothing but the head says that it was there.
        let last_gone = rows::offset(*last_gone)?;
        if last_gone > stored.head.last {
            stored.head.last = last_gone;
            stored.moved = true;
        }
        Ok(i64::try_from(gone) == Ok(TRIM_ROWS_MAX))
    }

    /// Takes what one message said out of its row. There is never more to do. Under the present epoch those of earlier
    /// ones are named, too, which it goes on from.
    async fn erase(&mut self, room: &RoomId, position: Position) -> Result<bool, sqlx::Error> {
        let Some(stored) = self.rooms.get(room) else { return Ok(false) };
        let erase = sqlx::query(
            "UPDATE messages SET tombstone = $1, data = '', tags = NULL, expires_at_ms = NULL \
             WHERE room_id = $2 AND msg_offset = $3 AND tombstone IS NULL \
             AND (epoch = $4 OR (SELECT r.epoch FROM rooms r WHERE r.id = $2) = $4)",
        );
        erase
            .bind(rows::tombstone_to_sql(TombstoneReason::Deleted))
            .bind(stored.id)
            .bind(rows::offset_to_sql(position.offset))
            .bind(rows::epoch_to_sql(position.epoch))
            .execute(&mut *self.connection)
            .await?;
        Ok(false)
    }
}

/// Waits for the turn to change something that all nodes change; it ends with the transaction.
pub(crate) async fn take_turn(
    connection: &mut PgConnection,
    turn: Turn,
) -> Result<(), sqlx::Error> {
    // One for each schema, as the tables are.
    let take = "SELECT pg_advisory_xact_lock(hashtext(current_schema()), $1)";
    sqlx::query(take).bind(turn as i32).execute(connection).await.map(drop)
}

pub(crate) fn refused(record: &ArchiveRecord, why: &str) -> ArchiveError {
    let publication = &record.publication;
    let offset = publication.offset.map_or(0, Offset::get);
    ArchiveError::Storage(format!(
        "refused offset {offset} of epoch {} in {}: {why}",
        publication.epoch, publication.room
    ))
}
