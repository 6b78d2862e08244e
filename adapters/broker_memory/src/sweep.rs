//! What time takes away: aged messages, idle rooms, old names of publishes.
//!
//! Each call does a bounded piece of the work and goes on where the last one stopped.

use std::sync::Arc;
use std::time::Duration;

use application::ports::{Archive, Clock, Forget, Revocations};
use domain::position::Offset;
use domain::room::RoomId;
use domain::steady::SteadyWall;
use domain::time::Wall;

use crate::broker::{MemoryBroker, lock};
use crate::room::Room;

/// Where the next sweep begins.
#[derive(Debug, Default)]
pub(crate) struct SweepCursor {
    stripe: usize,
    room: Option<RoomId>,
}

/// One archive trim that is due.
struct Trim {
    room: RoomId,
    first: Offset,
    before: Wall,
}

impl MemoryBroker {
    /// Between two sweeps.
    pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
    /// The most rooms that one sweep looks at.
    pub const SWEEP_ROOMS_MAX: usize = 4_096;
    /// The most rooms that are looked at under one lock.
    const SWEEP_LOCKED_ROOMS_MAX: usize = 128;
    /// The most old names of publishes that are forgotten under one lock.
    const SWEEP_LOCKED_DEDUP_MAX: usize = 1_024;
    /// The most rooms whose archive is trimmed by one sweep.
    const SWEEP_TRIMS_MAX: usize = 32;

    /// Drops aged messages, forgets idle rooms and old `msg_id`s, trims the archive and has the
    /// committer look after rooms whose last append failed. For the host to call about once a
    /// second; each call does a bounded piece of the work.
    pub async fn sweep(&self, now: Wall) {
        let trims = self.sweep_memory(now);
        self.queue.settle();
        if let Some(archive) = self.archive() {
            for trim in trims {
                self.trim_archive(archive, trim).await;
            }
        }
    }

    /// Sweeps every second, and has what was taken back forgotten when its time is over. Ends never:
    /// for the host to spawn. What is swept can't be had back, so it goes by a clock that does not
    /// jump with the machine's.
    pub async fn run_sweeps(
        self: Arc<Self>,
        revocations: Arc<dyn Revocations>,
        clock: Arc<dyn Clock>,
    ) {
        let mut interval = tokio::time::interval(Self::SWEEP_INTERVAL);
        let mut steady = SteadyWall::default();
        loop {
            interval.tick().await;
            let now = steady.read(clock.now());
            self.sweep(now).await;
            revocations.forget(now).await;
        }
    }

    fn sweep_memory(&self, now: Wall) -> Vec<Trim> {
        let mut trims = Vec::new();
        let mut cursor = lock(&self.sweep_cursor);
        let mut rooms_left = Self::SWEEP_ROOMS_MAX;
        let mut stripes_left = self.stripes().len();
        while rooms_left > 0 && stripes_left > 0 {
            let mut stripe = lock(&self.stripes()[cursor.stripe]);
            stripe.saw(now);
            stripe.dedup.forget_old(now, Self::SWEEP_LOCKED_DEDUP_MAX);
            let rooms_max = rooms_left.min(Self::SWEEP_LOCKED_ROOMS_MAX);
            rooms_left -= rooms_max.min(stripe.rooms.len());
            let visit = |id: &RoomId, room: &mut Room| {
                room.sweep(now, &self.budget);
                if trims.len() < Self::SWEEP_TRIMS_MAX {
                    trims.extend(due_trim(id, room, now));
                }
            };
            let from = cursor.room.take();
            cursor.room = stripe.forget_idle(from.as_ref(), rooms_max, &self.budget, visit);
            if cursor.room.is_none() {
                cursor.stripe = (cursor.stripe + 1) % self.stripes().len();
                stripes_left -= 1;
            }
        }
        trims
    }

    async fn trim_archive(&self, archive: &Arc<dyn Archive>, trim: Trim) {
        let Trim { room: id, first, before } = trim;
        let trimmed = archive.forget(&id, Forget::Old { first, before }).await;
        let mut stripe = self.stripe(&id);
        let archived = stripe.rooms.get_mut(&id).and_then(|room| room.archived.as_mut());
        let Some(archived) = archived else { return };
        // The oldest that is left has to be asked for.
        archived.first = None;
        if let Err(error) = trimmed {
            tracing::warn!(room = %id, %error, "the archive was not trimmed");
            archived.trimmed_at = None;
        }
    }
}

/// Whether the room's archive is due, and from where on it keeps: rarely enough that trimming is
/// a small part of what appending costs.
fn due_trim(id: &RoomId, room: &mut Room, now: Wall) -> Option<Trim> {
    const APPENDED_MIN: u32 = 64;
    const PAUSE_MIN: Duration = Duration::from_secs(60);
    let (keep, head) = (room.retention, room.head.known()?);
    let archived = room.archived.as_mut()?;
    let is_due = archived.appended >= (keep.messages_max / 8).max(APPENDED_MIN)
        || archived.trimmed_at.is_none_or(|at| now.since(at) > (keep.age_max / 8).max(PAUSE_MIN));
    if !is_due || head.last == Offset::ZERO {
        return None;
    }
    archived.appended = 0;
    archived.trimmed_at = Some(now);
    let first = (head.last.get() + 1).saturating_sub(u64::from(keep.messages_max)).max(1);
    let first = Offset::parse(first).unwrap_or(head.last);
    let age = i64::try_from(keep.age_max.as_millis()).unwrap_or(i64::MAX);
    let before = Wall::from_millis(now.as_millis().saturating_sub(age));
    // Else everybody who comes back would ask again where the log begins.
    if room.begins_behind(first, before) {
        return None;
    }
    Some(Trim { room: id.clone(), first, before })
}
