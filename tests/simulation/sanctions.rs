//! Sanctions as a process over a disk keeps them: in memory, where they count at once, and on the disk,
//! which outlives it, with the faults that disks and kills bring.
//!
//! It must never lose what it has stored, nor store two acts about one user in another order than they
//! were done: moderators wait for each other there, so a disk that is slow is no reason.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use application::ports::{EntryId, Moderation, ReadEntriesError, RecordError};
use async_trait::async_trait;
use broker_memory::MemoryModeration;
use domain::id::UserId;
use domain::moderation::{Deed, Entry, Until};
use domain::room::RoomId;
use domain::time::Wall;

use crate::disk::Killed;
use crate::faults::Fault;
use crate::ports::{Core, Shared};

/// The acts that a disk has.
pub(crate) type Records = Arc<Mutex<Vec<Entry>>>;

pub(crate) struct SimModeration {
    memory: MemoryModeration,
    records: Records,
    core: Shared,
    node: usize,
}

impl SimModeration {
    /// A process starts, and reads what the one before has stored.
    pub(crate) fn open(core: Shared, records: &Records, node: usize) -> Self {
        let memory = MemoryModeration::default();
        for entry in records.lock().expect("nobody panics with it").iter() {
            let mut recorded = pin!(memory.record(entry));
            match recorded.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(())) => {}
                other => panic!("memory takes a sanction at once, not {other:?}"),
            }
        }
        Self { memory, records: Arc::clone(records), core, node }
    }

    /// Waits, longer if the draw says so.
    async fn spin(&self) {
        self.core.travel().await;
        let slow_ms = {
            let mut core = self.core.lock();
            let chance = core.weather.slow_moderation;
            core.rng.percent(chance).then(|| {
                core.counts.fault(Fault::ModerationSlow);
                core.rng.between(50, 1_500)
            })
        };
        if let Some(slow_ms) = slow_ms {
            self.core.wait(slow_ms).await;
        }
    }

    /// Fails before the act is stored, or behind that.
    fn draw(&self, chance: impl FnOnce(&Core) -> u64, fault: Fault) -> Result<(), RecordError> {
        let mut core = self.core.lock();
        let chance = chance(&core);
        if core.rng.percent(chance) {
            core.counts.fault(fault);
            return Err(RecordError::Storage(fault.words().to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Moderation for SimModeration {
    fn forbids(&self, user: &UserId, room: &RoomId, deed: Deed, now: Wall) -> Option<Until> {
        self.memory.forbids(user, room, deed, now)
    }

    async fn record(&self, entry: &Entry) -> Result<(), RecordError> {
        {
            let mut core = self.core.lock();
            let now_ms = core.now_ms;
            core.docket.begin(entry, now_ms, self.node);
        }
        self.memory.record(entry).await?;
        let mut killed = Killed { core: &self.core, fault: Some(Fault::RecordKilled) };
        self.spin().await;
        killed.fault = None;
        self.draw(|core| core.weather.refuse_moderation, Fault::ModerationFailed)?;
        self.records.lock().expect("nobody panics with it").push(entry.clone());
        killed.fault = Some(Fault::RecordAnswerKilled);
        self.spin().await;
        killed.fault = None;
        self.draw(|core| core.weather.lose_moderation_answers, Fault::ModerationAnswerLost)
    }

    async fn read(
        &self,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Vec<(EntryId, Entry)>, ReadEntriesError> {
        self.memory.read(before, limit).await
    }

    async fn forget(&self, now: Wall) {
        self.memory.forget(now).await;
    }
}
