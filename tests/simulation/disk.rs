//! The disk of a seed in which one process runs the real in-memory broker: the archive of its
//! durable rooms, its inbox and the acts of its moderators, which outlive the process, with the faults that
//! disks and kills bring.
//!
//! It must never lose what it has stored. What fails, or what a kill takes, is a call: before the
//! batch is stored, or between that and the answer.

use std::sync::Arc;

use application::ports::archive::{
    Archive, ArchiveError, ArchivePage, ArchiveRecord, DedupKey, Forget, RoomHead,
};
use application::testing::memory_archive::MemoryArchive;
use async_trait::async_trait;
use domain::id::Epoch;
use domain::position::{Offset, Position};
use domain::room::RoomId;

use crate::faults::{Effect, Fault};
use crate::inbox::SimInbox;
use crate::ports::Shared;
use crate::sanctions::Records;

pub(crate) struct Disk {
    archive: MemoryArchive,
    pub(crate) inbox: Arc<SimInbox>,
    pub(crate) records: Records,
    core: Shared,
}

/// Counts a fault if it is dropped armed: the process was killed in the middle of a call.
pub(crate) struct Killed<'a> {
    pub(crate) core: &'a Shared,
    pub(crate) fault: Option<Fault>,
}

impl Drop for Killed<'_> {
    fn drop(&mut self) {
        if let Some(fault) = self.fault {
            self.core.lock().counts.fault(fault);
        }
    }
}

fn broken(what: &str) -> ArchiveError {
    ArchiveError::Storage(what.to_owned())
}

impl Disk {
    pub(crate) fn new(core: Shared) -> Self {
        let inbox = Arc::new(SimInbox::new(core.clone()));
        Self { archive: MemoryArchive::new(), inbox, records: Records::default(), core }
    }

    /// Waits, longer if the draw says so.
    async fn spin(&self, slow_chance: u64, slow: Fault) {
        self.core.travel().await;
        let slow_ms = {
            let mut core = self.core.lock();
            core.rng.percent(slow_chance).then(|| {
                core.counts.fault(slow);
                core.rng.between(50, 1_500)
            })
        };
        if let Some(slow_ms) = slow_ms {
            self.core.wait(slow_ms).await;
        }
    }

    /// The way to everything but an append.
    async fn seek(&self) -> Result<(), ArchiveError> {
        let weather = self.core.lock().weather;
        self.spin(weather.slow_disk, Fault::ArchiveSlow).await;
        let mut core = self.core.lock();
        if core.rng.percent(weather.refuse_disk) {
            core.counts.fault(Fault::ArchiveFailed);
            return Err(broken("it can't be read"));
        }
        Ok(())
    }

    fn draw(&self, chance: u64, fault: Fault) -> Result<(), ArchiveError> {
        let mut core = self.core.lock();
        if core.rng.percent(chance) {
            core.counts.fault(fault);
            return Err(broken(fault.words()));
        }
        Ok(())
    }
}

#[async_trait]
impl Archive for Disk {
    async fn open_room(
        &self,
        room: &RoomId,
        fresh: Epoch,
        known: Option<Position>,
    ) -> Result<RoomHead, ArchiveError> {
        self.seek().await?;
        let head = self.archive.open_room(room, fresh, known).await?;
        self.core.lock().on_opened(room, head.epoch);
        Ok(head)
    }

    async fn append(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError> {
        let weather = self.core.lock().weather;
        let mut killed = Killed { core: &self.core, fault: Some(Fault::AppendKilled) };
        self.spin(weather.slow_appends, Fault::AppendSlow).await;
        killed.fault = None;
        self.draw(weather.refuse_appends, Fault::AppendFailed)?;
        self.archive.append(records.clone()).await.inspect_err(|error| {
            self.core.lock().on_refused_append(&error.to_string());
        })?;
        self.core.lock().on_stored(records);
        killed.fault = Some(Fault::AppendAnswerKilled);
        self.spin(weather.slow_appends, Fault::AppendSlow).await;
        killed.fault = None;
        self.draw(weather.lose_append_answers, Fault::AppendAnswerLost)
    }

    async fn find(&self, keys: Vec<DedupKey>) -> Result<Vec<Option<Position>>, ArchiveError> {
        self.seek().await?;
        let found = self.archive.find(keys).await?;
        if found.iter().any(Option::is_some) {
            self.core.lock().counts.effect(Effect::FoundStored);
        }
        Ok(found)
    }

    async fn read(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<ArchivePage, ArchiveError> {
        self.seek().await?;
        self.archive.read(room, epoch, after, limit, bytes_max).await
    }

    async fn forget(&self, room: &RoomId, what: Forget) -> Result<(), ArchiveError> {
        self.seek().await?;
        self.archive.forget(room, what).await
    }
}
