//! Rooms whose log is in the archive: opening them and reading beyond the ring.
//!
//! A room's epoch and last offset come from the archive and must never be guessed here.

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
use crate::room::{Archived, Head};
use crate::stripe::Stripe;

impl MemoryBroker {
    /// How often opening begins again because a sweep forgot the room meanwhile.
    const OPEN_TRIES_MAX: usize = 8;

    /// Runs one step on the stripe of a durable room, once the room's head and its oldest stored
    /// offset are known.
    pub(crate) async fn with_open<T>(
        &self,
        archive: &Arc<dyn Archive>,
        id: &RoomId,
        policy: &NamespacePolicy,
        step: impl FnOnce(&mut Stripe) -> T,
    ) -> Result<T, BrokerError> {
        let mut found = None;
        for _ in 0..Self::OPEN_TRIES_MAX {
            let (generation, known) = {
                let mut stripe = self.stripe(id);
                let room = stripe
                    .room(id, &self.budget)
                    .ok_or(BrokerError::Unavailable { retry_after: RETRY_AFTER })?;
                room.retention = policy.retention;
                let archived = room.archived.get_or_insert_with(Archived::default);
                // An answer for a room that was forgotten meanwhile may be older than what others
                // have published since, so it counts only for the room it was asked for.
                if let Some((generation, head, first)) = found.take()
                    && generation == room.generation
                {
                    archived.first.get_or_insert(first);
                    if room.head.known().is_none() {
                        room.head = Head::Sure(head);
                    }
                }
                if archived.first.is_some() && room.head.known().is_some() {
                    return Ok(step(&mut stripe));
                }
                (room.generation, room.head.known())
            };
            let (head, first) =
                self.ask_archive(archive, id, known).await.map_err(|error| away(&error))?;
            found = Some((generation, head, first));
        }
        Err(BrokerError::Unavailable { retry_after: RETRY_AFTER })
    }

    async fn ask_archive(
        &self,
        archive: &Arc<dyn Archive>,
        id: &RoomId,
        known: Option<RoomHead>,
    ) -> Result<(RoomHead, Offset), ArchiveError> {
        let head = match known {
            Some(head) => head,
            None => archive.open_room(id, self.fresh_epoch()).await?,
        };
        if planted::is_planted(Mistake::EpochRedrawn) && known.is_none() {
            let fresh = RoomHead { epoch: self.fresh_epoch(), last: Offset::ZERO };
            return Ok((fresh, fresh.last.next().unwrap_or(Offset::MAX)));
        }
        let after_last = head.last.next().unwrap_or(Offset::MAX);
        if head.last == Offset::ZERO {
            return Ok((head, after_last));
        }
        let page = archive.read(id, head.epoch, head.last, 1, 0).await?;
        Ok((head, page.first.min(after_last)))
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
        let published = self.with_open(archive, &id, policy, step).await;
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
        let ring = self.with_open(archive, id, policy, step).await?;
        let Some((head, page)) = ring else {
            return Err(BrokerError::Unavailable { retry_after: RETRY_AFTER });
        };
        match page {
            Some(page) => Ok(page),
            None => read_archive(archive, id, head, read).await.map_err(|error| away(&error)),
        }
    }
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
    let bounds = LogBounds { epoch: head.epoch, first, last: head.last };
    Ok(LogPage { bounds, messages: page.messages, more })
}

fn away(error: &ArchiveError) -> BrokerError {
    tracing::warn!(%error, "the archive does not answer");
    BrokerError::Unavailable { retry_after: RETRY_AFTER }
}
