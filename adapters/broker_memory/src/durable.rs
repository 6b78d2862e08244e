//! Rooms whose log is in the archive: opening them, once for everybody, and reading beyond what is
//! in memory.
//!
//! A room's epoch and last offset come from the archive and must never be guessed here.

use std::collections::VecDeque;
use std::sync::Arc;

use application::planted::{self, Mistake};
use application::ports::{
    Archive, ArchiveError, BrokerError, LogPage, PublishError, ReadLog, Receipt, RoomHead,
};
use application::published::Published;
use domain::message::Publish;
use domain::policy::NamespacePolicy;
use domain::position::Offset;
use domain::recovery::LogBounds;
use domain::room::RoomId;

use crate::broker::{MemoryBroker, RETRY_AFTER};
use crate::log::{PAGE_MESSAGES_MAX, PageBuilder, readable};
use crate::queue::AWAY;
use crate::room::{Archived, Head, Room};
use crate::stripe::Stripe;

/// What has to be known of a room before a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Open {
    /// Where its log stands: for those who publish.
    Head,
    /// That, where it begins, and the end of the stored log is in memory as far as there is memory
    /// for it: for those who read.
    Recent,
}

/// What the archive answered about a log.
struct Found {
    /// The oldest stored offset.
    first: Offset,
    /// The end of the stored log, oldest first.
    recent: Vec<Arc<Published>>,
    /// Whether that is all that is worth having in memory.
    is_loaded: bool,
}

impl Found {
    const fn all(first: Offset, recent: Vec<Arc<Published>>) -> Self {
        Self { first, recent, is_loaded: true }
    }
}

/// What is known of a room that is not open enough.
#[derive(Clone, Copy)]
struct Known {
    generation: u64,
    head: Option<RoomHead>,
    /// The oldest offset in memory.
    first_here: Option<Offset>,
    is_loaded: bool,
    n_erased: u64,
}

impl MemoryBroker {
    /// How often opening begins again because a sweep forgot the room meanwhile.
    const OPEN_TRIES_MAX: usize = 8;
    /// How much of a stored log is brought into memory when its room is opened: what most who come
    /// back have missed. Whatever lies before it is read from the archive each time.
    const RECENT_MESSAGES_MAX: u32 = PAGE_MESSAGES_MAX;
    const RECENT_BYTES_MAX: usize = 4 << 20;

    /// Runs one step on the stripe of a durable room, once enough of the room is known. However
    /// many want that at the same time, the archive is asked once.
    pub(crate) async fn with_open<T>(
        &self,
        archive: &Arc<dyn Archive>,
        id: &RoomId,
        policy: &NamespacePolicy,
        open: Open,
        step: impl FnOnce(&mut Stripe) -> T,
    ) -> Result<T, BrokerError> {
        const AWAY: BrokerError = BrokerError::Unavailable { retry_after: RETRY_AFTER };
        for _ in 0..Self::OPEN_TRIES_MAX {
            let (gate, next) = {
                let mut stripe = self.stripe(id);
                let room = stripe.room(id, &self.budget).ok_or(AWAY)?;
                room.retention = policy.retention;
                let archived = room.archived.get_or_insert_with(Archived::default);
                let (head_gate, load_gate) = (&archived.head_gate, &archived.load_gate);
                let (head_gate, load_gate) = (Arc::clone(head_gate), Arc::clone(load_gate));
                if self.is_open(room, open) {
                    return Ok(step(&mut stripe));
                }
                // One after the other, so that no publish waits for what a reader loads.
                match self.is_open(room, Open::Head) {
                    true => (load_gate, Open::Recent),
                    false => (head_gate, Open::Head),
                }
            };
            let turn = gate.enter().await.ok_or(AWAY)?;
            // Whoever had the turn before may have found it out.
            let Some(known) = self.look_at(id, next) else { continue };
            let asked = match known.head {
                Some(head) => self.learn_log(archive, id, policy, known, head).await,
                None => self.learn_head(archive, id, known).await,
            };
            if let Err(error) = asked {
                turn.fail();
                return Err(away(&error));
            }
        }
        Err(AWAY)
    }

    /// What is known of a room that is not open enough; none if it is, or is gone.
    fn look_at(&self, id: &RoomId, open: Open) -> Option<Known> {
        let stripe = self.stripe(id);
        let room = stripe.rooms.get(id).filter(|room| !self.is_open(room, open))?;
        let (generation, head) = (room.generation, room.head.known());
        let archived = room.archived.as_ref();
        let is_loaded = archived.is_some_and(|archived| archived.is_loaded);
        let n_erased = archived.map_or(0, |archived| archived.n_erased);
        Some(Known { generation, head, first_here: room.first_here(), is_loaded, n_erased })
    }

    /// Asks where the log stands.
    async fn learn_head(
        &self,
        archive: &Arc<dyn Archive>,
        id: &RoomId,
        known: Known,
    ) -> Result<(), ArchiveError> {
        let mut head = archive.open_room(id, self.epoch_for_archive()?, None).await?;
        if planted::is_planted(Mistake::EpochRedrawn) {
            head = RoomHead::new(self.epoch_for_archive()?, Offset::ZERO);
        }
        self.with_generation(id, known, |room| {
            if room.head.known().is_none() {
                room.head = Head::Sure(head);
            }
        });
        Ok(())
    }

    /// Asks where the log begins, and loads its end.
    async fn learn_log(
        &self,
        archive: &Arc<dyn Archive>,
        id: &RoomId,
        policy: &NamespacePolicy,
        known: Known,
        head: RoomHead,
    ) -> Result<(), ArchiveError> {
        let found = self.find_log(archive, id, policy, known, head).await?;
        self.with_generation(id, known, |room| {
            // A message was erased while this was read: it may still be in what was found.
            if room.archived.as_ref().is_some_and(|now| now.n_erased != known.n_erased) {
                return;
            }
            if let Some(archived) = &mut room.archived {
                archived.first.get_or_insert(found.first);
                archived.is_loaded |= found.is_loaded;
            }
            room.load(head.epoch, &found.recent, &self.budget);
        });
        Ok(())
    }

    async fn find_log(
        &self,
        archive: &Arc<dyn Archive>,
        id: &RoomId,
        policy: &NamespacePolicy,
        known: Known,
        head: RoomHead,
    ) -> Result<Found, ArchiveError> {
        let after_last = head.last.next().unwrap_or(Offset::MAX);
        if head.last == Offset::ZERO {
            return Ok(Found::all(after_last, Vec::new()));
        }
        let n_recent = policy.retention.messages_max.min(Self::RECENT_MESSAGES_MAX);
        let wants = !known.is_loaded && n_recent > 0;
        // Where it does not fit now it is loaded for whoever comes when it does.
        let fits = !self.budget.is_nearly_exceeded();
        if wants && fits {
            let end = known.first_here.map_or(head.last, Offset::previous);
            let after = head.last.get().saturating_sub(u64::from(n_recent));
            if let Ok(after) = Offset::parse(after)
                && after < end
            {
                return read_recent(archive, id, head, after, end).await;
            }
        }
        let page = archive.read(id, head.epoch, head.last, 1, 0).await?;
        let is_loaded = fits || !wants;
        Ok(Found { first: page.first.min(after_last), recent: Vec::new(), is_loaded })
    }

    /// Takes in what the archive answered, unless the room was forgotten meanwhile: the answer may
    /// then be older than what others have published since.
    fn with_generation(&self, id: &RoomId, known: Known, note: impl FnOnce(&mut Room)) {
        let mut stripe = self.stripe(id);
        let room = stripe.rooms.get_mut(id).filter(|room| room.generation == known.generation);
        if let Some(room) = room {
            note(room);
        }
    }

    fn is_open(&self, room: &Room, open: Open) -> bool {
        let has_head = room.head.known().is_some();
        let Some(archived) = &room.archived else { return false };
        has_head
            && (open == Open::Head
                || (archived.first.is_some()
                    && (archived.is_loaded || self.budget.is_nearly_exceeded())))
    }

    /// Publishes what takes no offset in a durable room: it needs the room's epoch only.
    pub(crate) async fn publish_beside(
        &self,
        archive: &Arc<dyn Archive>,
        publish: Publish,
        policy: &NamespacePolicy,
    ) -> Result<Receipt, PublishError> {
        let id = publish.room.clone();
        // The room is open, so the epoch is the archive's and never drawn here.
        let step = |stripe: &mut Stripe| {
            stripe.publish(publish, policy.retention, &self.budget, || self.fresh_epoch())
        };
        let published = self.with_open(archive, &id, policy, Open::Head, step).await;
        published.unwrap_or(Err(AWAY))
    }

    /// Reads from the ring if it reaches back far enough, else from the archive. Pages of both
    /// follow each other without a hole, because both hold consecutive offsets.
    pub(crate) async fn read_durable(
        &self,
        archive: &Arc<dyn Archive>,
        id: &RoomId,
        policy: &NamespacePolicy,
        read: &ReadLog,
    ) -> Result<LogPage, BrokerError> {
        let step = |stripe: &mut Stripe| {
            let room = stripe.rooms.get_mut(id)?;
            let head = room.head.known()?;
            Some((head, room.read(head, read, &self.budget)))
        };
        let ring = self.with_open(archive, id, policy, Open::Recent, step).await?;
        let Some((head, page)) = ring else {
            return Err(BrokerError::Unavailable { retry_after: RETRY_AFTER });
        };
        if let Some(page) = page {
            return Ok(page);
        }
        let page = read_archive(archive, id, head, read).await.map_err(|error| away(&error))?;
        if page.more && page.messages.is_empty() {
            self.doubt_the_end(id, head);
        }
        Ok(page)
    }

    /// The archive has nothing where something was committed: whether it lost the newest is asked before anybody
    /// publishes, or who reads would be sent away until somebody does.
    fn doubt_the_end(&self, id: &RoomId, head: RoomHead) {
        let mut stripe = self.stripe(id);
        let Some(room) = stripe.rooms.get_mut(id) else { return };
        let is_sure = matches!(room.head, Head::Sure(now) if now == head);
        if !is_sure {
            return;
        }
        room.head = Head::InDoubt(head);
        drop(stripe);
        self.queue.doubt(id.clone());
        self.queue.settle();
    }
}

/// The messages behind `after` up to `end`, or as many of the last of them as memory is set aside
/// for.
async fn read_recent(
    archive: &Arc<dyn Archive>,
    id: &RoomId,
    head: RoomHead,
    mut after: Offset,
    end: Offset,
) -> Result<Found, ArchiveError> {
    const BYTES_MAX: usize = MemoryBroker::RECENT_BYTES_MAX;
    let (mut recent, mut bytes) = (VecDeque::new(), 0);
    let mut first = head.last.next().unwrap_or(Offset::MAX);
    while after < end {
        let page = archive.read(id, head.epoch, after, PAGE_MESSAGES_MAX, BYTES_MAX).await?;
        first = page.first.min(first);
        let Some(reached) = page.messages.last().and_then(|last| last.offset) else { break };
        after = reached;
        for message in page.messages.into_iter().filter(|m| m.offset.is_some_and(|o| o <= end)) {
            bytes += message.data.len();
            recent.push_back(Arc::new(Published::new(message)));
            while bytes > BYTES_MAX
                && let Some(oldest) = recent.pop_front()
            {
                bytes -= oldest.publication.data.len();
            }
        }
    }
    Ok(Found::all(first, recent.into()))
}

async fn read_archive(
    archive: &Arc<dyn Archive>,
    id: &RoomId,
    head: RoomHead,
    read: &ReadLog,
) -> Result<LogPage, ArchiveError> {
    let limit = read.messages_max.clamp(1, PAGE_MESSAGES_MAX);
    let stored = archive.read(id, head.epoch, read.after, limit, read.bytes_max).await?;
    let first = stored.first.min(head.last.next().unwrap_or(Offset::MAX));
    let mut page = PageBuilder::new(read);
    for publication in stored.messages {
        // What was committed while this was read comes to the mailboxes.
        let is_older = publication.offset.is_some_and(|offset| offset <= head.last);
        let message = Arc::new(Published::new(publication));
        if !is_older || !page.push(readable(&message, read.now)) {
            break;
        }
    }
    let end = page.messages.last().and_then(|message| message.publication.offset);
    let more = match end {
        Some(end) => end < head.last,
        None => read.after < head.last && first <= head.last,
    };
    let bounds = LogBounds { epoch: head.epoch, first, last: head.last, earlier: head.earlier };
    Ok(LogPage { bounds, messages: page.messages, more })
}

fn away(error: &ArchiveError) -> BrokerError {
    tracing::warn!(%error, "the archive does not answer");
    BrokerError::Unavailable { retry_after: RETRY_AFTER }
}
