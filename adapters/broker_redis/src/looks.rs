//! What a node looks at in Redis beside what comes: where its rooms stand, so that nothing is missed in silence,
//! and the newest messages by key of those that missed something.
//!
//! Both go over the connection of the subscription: what was published before a look has come before its answer,
//! or is missed. A look at all rooms takes a fixed time, however many there are.

use std::time::Duration;

use bytes::Bytes;
use domain::id::Epoch;
use domain::room::RoomId;
use domain::time::Wall;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::time::Instant;

use crate::behind::Kept;
use crate::broker::millis;
use crate::cluster::Part;
use crate::entry::decode;
use crate::head;
use crate::scripts::LATEST;
use crate::subscriber::{BATCH, Subscribing, is_elsewhere, said_of};

/// How long a look at all rooms takes; a hole that nothing else told of is found within it.
const LOOK: Duration = Duration::from_secs(3);
/// The most rooms that are asked for what they keep by key at once: each may have a mebibyte.
const KEPT_BATCH: usize = 16;
/// Before a room is asked again whose server did not say what it keeps.
const KEPT_AGAIN: Duration = Duration::from_secs(1);

/// When the next rooms are to be looked at.
pub(crate) struct Looks {
    pub(crate) next: Instant,
    /// Up to where they have been looked at in this turn.
    at: Option<RoomId>,
}

impl Looks {
    pub(crate) fn new() -> Self {
        Self { next: Instant::now() + LOOK, at: None }
    }
}

impl Subscribing {
    /// Looks where the next rooms of a master stand, and keeps those that have members from running out.
    pub(crate) async fn look(
        &self,
        connection: &mut MultiplexedConnection,
        part: &Part,
        looks: &mut Looks,
    ) -> Result<(), RedisError> {
        let now = Instant::now();
        let batches = self.table.rooms().div_ceil(BATCH).max(1);
        let pause = LOOK / u32::try_from(batches).unwrap_or(u32::MAX);
        // The time that looks take does not make the turn longer.
        looks.next = (looks.next + pause).max(now);
        let rooms = self.table.take_looks(BATCH, part, &mut looks.at, now);
        if rooms.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for (room, _) in &rooms {
            pipeline.cmd("HGET").arg(self.names.head(room)).arg(head::FIELD);
        }
        for (room, keep) in &rooms {
            let Some(keep) = keep else { continue };
            // As the scripts do it, which a quiet room is not touched by.
            for key in &self.names.keys(room)[..4] {
                pipeline.cmd("PEXPIRE").arg(key).arg(millis(*keep * 2)).ignore();
            }
        }
        pipeline.ignore_errors();
        let heads: Vec<Value> = pipeline.query_async(connection).await?;
        for ((room, _), head) in rooms.iter().zip(heads) {
            if let Some(standing) = said_of(head) {
                self.table.meet(room, standing);
            }
        }
        Ok(())
    }

    /// Gives rooms of a master that missed something the newest messages by key that it may have been.
    pub(crate) async fn catch_up(
        &self,
        connection: &mut MultiplexedConnection,
        part: &Part,
    ) -> Result<(), RedisError> {
        loop {
            let rooms = self.table.behind(KEPT_BATCH, part, Instant::now());
            if rooms.is_empty() {
                return Ok(());
            }
            let mut pipeline = redis::pipe();
            for room in &rooms {
                let [head, _, latest, ages, ..] = self.names.keys(room);
                pipeline.cmd("EVAL").arg(&*LATEST).arg(3).arg(head).arg(latest).arg(ages);
            }
            pipeline.ignore_errors();
            let answers: Vec<Value> = pipeline.query_async(connection).await?;
            for (room, answer) in rooms.iter().zip(answers) {
                if matches!(answer, Value::ServerError(_)) {
                    if is_elsewhere(&answer) {
                        // Once it is known where, it is asked for there.
                        self.commands.moved.notify_one();
                    }
                    self.table.put_off(room, Instant::now() + KEPT_AGAIN);
                    continue;
                }
                // What can't be read is not there.
                let kept = kept(answer);
                self.table.catch_up(room, kept);
            }
        }
    }
}

fn kept(answer: Value) -> Option<Kept> {
    type Answer = (String, u64, String, i64, Vec<Vec<u8>>);
    let (epoch, _, earlier, now, entries): Answer = redis::from_redis_value(answer).ok()?;
    let lives = std::iter::once(&*epoch).chain(earlier.split(' ').filter_map(|life| {
        let (epoch, _) = life.split_once(':')?;
        Some(epoch)
    }));
    let lives = lives.filter_map(|epoch| Epoch::parse(epoch).ok()).collect();
    let entries = entries.into_iter().filter_map(|entry| decode(&Bytes::from(entry)).ok());
    Some(Kept { lives, now: Wall::from_millis(now), entries: entries.collect() })
}
