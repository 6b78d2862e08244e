//! Group commit: many durable publishes, one append.
//!
//! There is one committer, so it alone gives out offsets of durable rooms. It must never deliver,
//! acknowledge or skip an offset before the archive has answered; while an append is under way
//! its rooms are in doubt, and the archive is asked before anything more is appended to them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use application::planted::{self, Mistake};
use application::ports::{
    Archive, ArchiveError, ArchiveRecord, DedupKey, PublishError, Receipt, RoomHead,
};
use domain::message::{Publication, Publish, Publisher};
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::{Offset, Position};
use domain::room::RoomId;
use domain::time::Wall;

use crate::broker::MemoryBroker;
use crate::dedup::Place;
use crate::durable::Open;
use crate::queue::{AWAY, Answer, Doubtful, Next, Waiting};
use crate::room::{Head, positioned};
use crate::stripe::{Stripe, dedup_key, receipt};

/// One message to be, and everyone who published it.
struct Entry {
    publish: Publish,
    key: Option<DedupKey>,
    /// The first published it; the others repeated it within the same batch.
    answers: Vec<Answer>,
}

/// One message with its offset, not stored yet.
struct Positioned {
    publication: Publication,
    publisher: Publisher,
    place: Place,
    key: Option<DedupKey>,
    answers: Vec<Answer>,
}

/// Keeps the queue open for as long as it lives.
struct Running(Arc<MemoryBroker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.queue.stop();
    }
}

impl MemoryBroker {
    /// Commits durable publishes, for the host to spawn once. Publishes are taken from the moment
    /// of this call on; once the future is dropped, whoever waits and whoever comes is answered
    /// `Unavailable`. May be called again afterwards. Ends at once without an archive, or if
    /// another one runs.
    pub fn run_committer(self: Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let archive = self.archive().cloned();
        // Not inside the future: a publish right after the spawn must find the queue open.
        let running = archive.and_then(|archive| {
            let is_first = self.queue.start();
            is_first.then(|| (Running(self), archive))
        });
        async move {
            let Some((running, archive)) = running else { return };
            let broker = &running.0;
            loop {
                match broker.queue.next() {
                    Next::Commit(batch) => broker.commit(&archive, batch).await,
                    Next::Wait => broker.queue.wait().await,
                    Next::Finish => return,
                }
            }
        }
    }

    /// Lets the committer finish what waits and end; later durable publishes are answered
    /// `Unavailable`.
    pub fn finish_committer(&self) {
        self.queue.finish();
    }

    async fn commit(&self, archive: &Arc<dyn Archive>, batch: Vec<Waiting>) {
        self.settle_rooms(archive).await;
        let batch = self.open_rooms(archive, batch).await;
        let entries = self.merge(batch);
        let entries = self.drop_stored(archive, entries).await;
        let mut batch = self.position(entries);
        if batch.is_empty() {
            return;
        }
        if planted::is_planted(Mistake::AckBeforeCommit) {
            for early in &mut batch {
                let done = Ok(receipt(early.place, false, AckLevel::Durable));
                answer_all(std::mem::take(&mut early.answers), &done);
            }
        }
        let records = batch.iter().map(record).collect();
        match archive.append(records).await {
            Ok(()) => self.deliver(batch),
            Err(error) => {
                tracing::warn!(%error, messages = batch.len(), "nothing of a batch was committed");
                for failed in batch {
                    if planted::is_planted(Mistake::DoubtForgotten) {
                        drop(self.trust_room(&failed.publication.room));
                    }
                    let (place, at) = (failed.place, failed.publication.at);
                    let name = failed.key.map(|key| Doubtful { key, place, at });
                    name.into_iter().for_each(|name| self.queue.doubt_name(name));
                    answer_all(failed.answers, &Err(AWAY));
                }
            }
        }
    }

    /// How many rooms in a row can't be settled before the others wait for the next commit: then
    /// it is not the rooms but the archive.
    const FAILURES_IN_A_ROW_MAX: usize = 3;

    /// Takes rooms out of doubt. One that can't be settled holds up no other for long: where this
    /// was given up the next commit goes on.
    async fn settle_rooms(&self, archive: &Arc<dyn Archive>) {
        let mut n_failures = 0;
        for room in self.queue.doubtful() {
            let settled = self.settle_room(archive, &room).await;
            n_failures = if settled.is_ok() { 0 } else { n_failures + 1 };
            if let Err(error) = settled {
                tracing::warn!(%room, %error, "the room's log stays in doubt");
            }
            if n_failures == Self::FAILURES_IN_A_ROW_MAX {
                return self.queue.go_on_behind(Some(room));
            }
        }
        self.queue.go_on_behind(None);
    }

    /// The most rooms that are opened at once.
    const OPENING_MAX: usize = 128;

    /// Opens every room of the batch, many at once, so that the archive can make one transaction
    /// of them while all publishes wait; who publishes to one that can't be opened is told so.
    async fn open_rooms(&self, archive: &Arc<dyn Archive>, batch: Vec<Waiting>) -> Vec<Waiting> {
        let mut rooms: BTreeMap<RoomId, (Arc<NamespacePolicy>, Wall, bool)> = BTreeMap::new();
        for waiting in &batch {
            let room = waiting.publish.room.clone();
            rooms.entry(room).or_insert((Arc::clone(&waiting.policy), waiting.publish.at, false));
        }
        let mut opening: Vec<_> = rooms.iter_mut().collect();
        for together in opening.chunks_mut(Self::OPENING_MAX) {
            let opens = together.iter().map(|(id, (policy, at, _))| {
                let open: Pin<Box<dyn Future<Output = bool> + Send + '_>> =
                    Box::pin(self.open_for_commit(archive, id, policy, *at));
                open
            });
            let opened = join(opens.collect()).await;
            for ((_, (_, _, is_open)), opened) in together.iter_mut().zip(opened) {
                *is_open = opened;
            }
        }
        let mut open = Vec::with_capacity(batch.len());
        for waiting in batch {
            match rooms.get(&waiting.publish.room) {
                Some((_, _, true)) => open.push(waiting),
                Some((_, _, false)) | None => answer(waiting.answer, Err(AWAY)),
            }
        }
        open
    }

    async fn open_for_commit(
        &self,
        archive: &Arc<dyn Archive>,
        id: &RoomId,
        policy: &NamespacePolicy,
        at: Wall,
    ) -> bool {
        // In use from now on, so that no sweep forgets the room before the commit.
        let in_use = |stripe: &mut Stripe| {
            if let Some(room) = stripe.rooms.get_mut(id) {
                room.used_at = at;
                room.kept_at = Some(at);
            }
        };
        self.with_open(archive, id, policy, Open::Head, in_use).await.is_ok()
    }

    /// Answers what is remembered and joins what came twice in the batch.
    fn merge(&self, batch: Vec<Waiting>) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(batch.len());
        let mut seen: BTreeMap<DedupKey, usize> = BTreeMap::new();
        for Waiting { publish, answer: waiting, .. } in batch {
            let key = dedup_key(&publish);
            if let Some(key) = &key {
                let known = self.remembered(key, publish.at);
                if let Some(place) = known {
                    answer(waiting, Ok(receipt(place, true, level(place))));
                    continue;
                }
                if let Some(entry) = seen.get(key).and_then(|at| entries.get_mut(*at)) {
                    entry.answers.push(waiting);
                    continue;
                }
                seen.insert(key.clone(), entries.len());
            }
            entries.push(Entry { publish, key, answers: vec![waiting] });
        }
        entries
    }

    /// Where a publish is, as far as it is remembered and was not lost since: the archive may have gone on from before
    /// it.
    fn remembered(&self, key: &DedupKey, now: Wall) -> Option<Place> {
        let stripe = self.stripe(&key.room);
        let place = stripe.dedup.get(key, now)?;
        let head = stripe.rooms.get(&key.room).and_then(|room| room.head.known());
        let is_in = |head: RoomHead, offset: Offset| {
            head.epoch == place.epoch || head.earlier.reach(Position { epoch: place.epoch, offset })
        };
        let is_lost = head.zip(place.offset).is_some_and(|(head, offset)| !is_in(head, offset));
        (!is_lost).then_some(place)
    }

    /// Answers what the archive knows already, which one question for the whole batch tells.
    async fn drop_stored(&self, archive: &Arc<dyn Archive>, entries: Vec<Entry>) -> Vec<Entry> {
        let keys: Vec<DedupKey> = entries.iter().filter_map(|entry| entry.key.clone()).collect();
        if keys.is_empty() || planted::is_planted(Mistake::RetryNotLookedUp) {
            return entries;
        }
        let asked = keys.len();
        let found = match archive.find(keys).await {
            Ok(found) if found.len() == asked => Some(found),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%error, "the archive does not know what it has");
                None
            }
        };
        let mut found = found.map(Vec::into_iter);
        let mut fresh = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(key) = &entry.key else {
                fresh.push(entry);
                continue;
            };
            match found.as_mut().map(Iterator::next) {
                Some(Some(None)) => fresh.push(entry),
                Some(Some(Some(stored))) => {
                    let place = Place { epoch: stored.epoch, offset: Some(stored.offset) };
                    let mut stripe = self.stripe(&key.room);
                    stripe.dedup.remember(key.clone(), place, entry.publish.at);
                    drop(stripe);
                    answer_all(entry.answers, &Ok(receipt(place, true, AckLevel::Durable)));
                }
                Some(None) | None => answer_all(entry.answers, &Err(AWAY)),
            }
        }
        fresh
    }

    /// Gives out offsets. They count once the archive has taken them; until then each room of the
    /// batch is in doubt, even if this committer is dropped in the middle of its work.
    fn position(&self, entries: Vec<Entry>) -> Vec<Positioned> {
        let mut heads: BTreeMap<RoomId, Option<RoomHead>> = BTreeMap::new();
        let mut batch = Vec::with_capacity(entries.len());
        for Entry { publish, key, answers } in entries {
            let head = heads
                .entry(publish.room.clone())
                .or_insert_with(|| self.begin_append(&publish.room));
            let Some(head) = head else {
                answer_all(answers, &Err(AWAY));
                continue;
            };
            let Some(offset) = head.last.next() else {
                answer_all(answers, &Err(PublishError::LogFull));
                continue;
            };
            head.last = offset;
            let place = Place { epoch: head.epoch, offset: Some(offset) };
            let publisher = publish.publisher.clone();
            let publication = positioned(publish, head.epoch, Some(offset));
            batch.push(Positioned { publication, publisher, place, key, answers });
        }
        batch
    }

    fn begin_append(&self, id: &RoomId) -> Option<RoomHead> {
        let mut stripe = self.stripe(id);
        let room = stripe.rooms.get_mut(id)?;
        let Head::Sure(head) = room.head else { return None };
        room.head = Head::InDoubt(head);
        drop(stripe);
        self.queue.doubt(id.clone());
        Some(head)
    }

    /// The archive has the batch: now everyone gets it, in order.
    fn deliver(&self, batch: Vec<Positioned>) {
        let mut rooms = BTreeSet::new();
        for Positioned { publication, place, key, answers, publisher: _ } in batch {
            let id = publication.room.clone();
            let mut stripe = self.stripe(&id);
            let at = publication.at;
            stripe.saw(at);
            let watchers = Arc::clone(&stripe.watchers);
            if let Some(room) = stripe.rooms.get_mut(&id) {
                room.accept(publication, &self.budget, &watchers);
            }
            if let Some(key) = key {
                stripe.dedup.remember(key, place, at);
            }
            drop(stripe);
            rooms.insert(id);
            answer_all(answers, &Ok(receipt(place, false, AckLevel::Durable)));
        }
        for id in &rooms {
            // Nothing of the batch is in doubt: it has just been committed.
            drop(self.trust_room(id));
        }
    }

    fn trust_room(&self, id: &RoomId) -> Vec<Doubtful> {
        let mut stripe = self.stripe(id);
        if let Some(room) = stripe.rooms.get_mut(id)
            && let Some(head) = room.head.known()
        {
            room.head = Head::Sure(head);
        }
        drop(stripe);
        self.queue.trust(id)
    }

    /// Asks the archive how an append ended that was not seen to end. What it stored after all
    /// gets to the mailboxes now; its publisher learns it from a retry.
    async fn settle_room(
        &self,
        archive: &Arc<dyn Archive>,
        id: &RoomId,
    ) -> Result<(), ArchiveError> {
        const PAGE_MESSAGES: u32 = 256;
        const PAGE_BYTES: usize = 1 << 20;
        let known = self.stripe(id).rooms.get(id).and_then(|room| room.head.known());
        let known = known.map(|head| Position { epoch: head.epoch, offset: head.last });
        let stored = archive.open_room(id, self.epoch_for_archive()?, known).await?;
        loop {
            let known = self.stripe(id).rooms.get(id).and_then(|room| room.head.known());
            let Some(known) = known else { break };
            if known.epoch != stored.epoch {
                tracing::warn!(room = %id, "the archive goes on under another epoch: it may have lost the newest");
                if let Some(room) = self.stripe(id).rooms.get_mut(id) {
                    room.restart(stored, &self.budget);
                }
                break;
            }
            // Never back: what was given out is not given out again, whatever the archive lost.
            if known.last >= stored.last {
                break;
            }
            let after = known.last;
            let page = archive.read(id, stored.epoch, after, PAGE_MESSAGES, PAGE_BYTES).await?;
            self.deliver_stored(id, page.messages, known, stored);
        }
        // Its publishers were told that it failed. Retention may trim what was stored after all,
        // and its name with it, before they try again.
        let names = self.trust_room(id);
        let is_stored = |name: &Doubtful| {
            name.place.epoch == stored.epoch
                && name.place.offset.is_some_and(|offset| offset <= stored.last)
        };
        let mut stripe = self.stripe(id);
        for Doubtful { key, place, at } in names.into_iter().filter(is_stored) {
            stripe.dedup.remember(key, place, at);
        }
        Ok(())
    }

    fn deliver_stored(
        &self,
        id: &RoomId,
        mut messages: Vec<Publication>,
        known: RoomHead,
        stored: RoomHead,
    ) {
        let is_new = |offset: Offset| offset > known.last && offset <= stored.last;
        messages.retain(|publication| publication.offset.is_some_and(is_new));
        let mut stripe = self.stripe(id);
        let watchers = Arc::clone(&stripe.watchers);
        let Some(room) = stripe.rooms.get_mut(id) else { return };
        if messages.is_empty() {
            // Trimmed away before anyone saw them; shards see the hole by position.
            room.head = Head::InDoubt(stored);
        }
        for publication in messages {
            room.accept(publication, &self.budget, &watchers);
        }
    }
}

fn record(positioned: &Positioned) -> ArchiveRecord {
    ArchiveRecord {
        publication: Publication { origin: None, ..positioned.publication.clone() },
        publisher: positioned.publisher.clone(),
        msg_id: positioned.key.as_ref().map(|key| key.msg_id.clone()),
    }
}

/// Awaits all of a few futures at once. Each wake polls all that are left, so they must be few.
async fn join(mut futures: Vec<Pin<Box<dyn Future<Output = bool> + Send + '_>>>) -> Vec<bool> {
    let mut outputs: Vec<Option<bool>> = vec![None; futures.len()];
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if outputs.contains(&None) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().map(|output| output == Some(true)).collect()
}

const fn level(place: Place) -> AckLevel {
    if place.offset.is_some() { AckLevel::Durable } else { AckLevel::Accepted }
}

fn answer(waiting: Answer, result: Result<Receipt, PublishError>) {
    // Nobody listens any more if the publisher's connection has gone; the message stands.
    let _ = waiting.send(result);
}

/// Tells everyone who published the message; all but the first repeated it.
fn answer_all(answers: Vec<Answer>, result: &Result<Receipt, PublishError>) {
    for (n, waiting) in answers.into_iter().enumerate() {
        let result = result.clone().map(|mut receipt| {
            receipt.duplicate |= n > 0;
            receipt
        });
        answer(waiting, result);
    }
}
