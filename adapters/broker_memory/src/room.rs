//! One room: where its log stands, what it keeps, who gets its messages.
//!
//! Everything here happens under the stripe's lock; nothing may wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use application::mailbox::{Mail, Mailbox};
use application::ports::{LogPage, ReadLog, RoomHead, RoomTop, SubscriptionToken};
use application::published::Published;
use domain::delivery::Class;
use domain::id::{Epoch, MessageKey};
use domain::message::{Publication, Publish};
use domain::position::Offset;
use domain::recovery::LogBounds;
use domain::retention::Retention;
use domain::time::Wall;

use crate::budget::Budget;
use crate::gate::Gate;
use crate::log::{Log, cost};
use crate::watchers::Watchers;

/// What is known of where the log stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Head {
    /// Not opened yet.
    Unknown,
    /// This far, and the next offset is free.
    Sure(RoomHead),
    /// This far at least; an append that was begun may have taken effect or not. Only the
    /// committer makes it sure again.
    InDoubt(RoomHead),
}

impl Head {
    pub(crate) const fn known(&self) -> Option<RoomHead> {
        match self {
            Self::Unknown => None,
            Self::Sure(head) | Self::InDoubt(head) => Some(*head),
        }
    }

    const fn known_mut(&mut self) -> Option<&mut RoomHead> {
        match self {
            Self::Unknown => None,
            Self::Sure(head) | Self::InDoubt(head) => Some(head),
        }
    }
}

/// What a durable room knows of its archive.
#[derive(Debug, Default)]
pub(crate) struct Archived {
    /// The oldest offset stored there; none when it has to be asked for.
    pub(crate) first: Option<Offset>,
    /// When it was last trimmed.
    pub(crate) trimmed_at: Option<Wall>,
    /// How many messages came since.
    pub(crate) appended: u32,
    /// Whether the end of the stored log was brought into memory.
    pub(crate) is_loaded: bool,
    /// How many messages were erased in the archive: what was read before is old.
    pub(crate) n_erased: u64,
    /// Who may ask where the log stands.
    pub(crate) head_gate: Arc<Gate>,
    /// Who may ask where it begins, and load its end.
    pub(crate) load_gate: Arc<Gate>,
}

/// The newest `latest` message of each key.
#[derive(Debug, Default)]
struct Latest {
    /// With the count at which it came: a larger one is younger.
    by_key: BTreeMap<Option<MessageKey>, (u64, Arc<Published>)>,
    count: u64,
    /// What all messages cost the node.
    cost_bytes: usize,
}

impl Latest {
    /// The most keys of one room; the key that was longest without a message is forgotten.
    const KEYS_MAX: usize = 256;
    /// The most that all of them cost the node: 256 keys of 5 KiB, or about 20 of the largest.
    /// The newest is kept whatever it costs.
    const BYTES_MAX: usize = 4 << 20;

    fn put(&mut self, published: &Arc<Published>, budget: &Budget) {
        self.count += 1;
        self.charge(cost(published), budget);
        let entry = (self.count, Arc::clone(published));
        let replaced = self.by_key.insert(published.publication.key.clone(), entry);
        if let Some((_, replaced)) = replaced {
            self.release(cost(&replaced), budget);
        }
        let is_over = |latest: &Self| {
            latest.by_key.len() > Self::KEYS_MAX
                || (latest.cost_bytes > Self::BYTES_MAX && latest.by_key.len() > 1)
        };
        while is_over(self) && self.drop_oldest(budget) {}
    }

    /// Drops the message of the key that was longest silent; answers whether there was one.
    fn drop_oldest(&mut self, budget: &Budget) -> bool {
        let oldest = self.by_key.iter().min_by_key(|(_, (count, _))| *count);
        let Some(key) = oldest.map(|(key, _)| key.clone()) else { return false };
        if let Some((_, published)) = self.by_key.remove(&key) {
            self.release(cost(&published), budget);
        }
        true
    }

    fn charge(&mut self, bytes: usize, budget: &Budget) {
        self.cost_bytes += bytes;
        budget.charge(bytes);
    }

    fn release(&mut self, bytes: usize, budget: &Budget) {
        self.cost_bytes -= bytes;
        budget.release(bytes);
    }

    fn retain(&mut self, budget: &Budget, mut keep: impl FnMut(&Publication) -> bool) {
        let mut dropped = 0;
        self.by_key.retain(|_, (_, published)| {
            let keeps = keep(&published.publication);
            if !keeps {
                dropped += cost(published);
            }
            keeps
        });
        self.release(dropped, budget);
    }

    fn oldest_first(&self) -> Vec<Arc<Published>> {
        let mut all: Vec<_> = self.by_key.values().collect();
        all.sort_unstable_by_key(|(count, _)| *count);
        all.into_iter().map(|(_, published)| Arc::clone(published)).collect()
    }
}

/// One mailbox that gets everything of the room.
#[derive(Debug)]
struct Subscriber {
    mailbox: Arc<Mailbox>,
    token: SubscriptionToken,
}

/// One room.
#[derive(Debug)]
pub(crate) struct Room {
    /// Tells this room from an earlier one of the same name that was forgotten.
    pub(crate) generation: u64,
    pub(crate) head: Head,
    pub(crate) presence: crate::present::Present,
    /// Some for a room whose log is in the archive; the ring is a cache then.
    pub(crate) archived: Option<Archived>,
    pub(crate) retention: Retention,
    /// When it was made, published to, subscribed to or left for the last time.
    pub(crate) used_at: Wall,
    /// When the last message came that its log or `latest` keeps; none if never in this process.
    pub(crate) kept_at: Option<Wall>,
    log: Log,
    latest: Latest,
    /// A `Vec`: there are as many as shards, and they are walked in the same order every time.
    subscribers: Vec<Subscriber>,
}

impl Room {
    pub(crate) fn new(generation: u64, now: Wall) -> Self {
        Self {
            generation,
            head: Head::Unknown,
            presence: crate::present::Present::default(),
            archived: None,
            retention: Retention::default(),
            used_at: now,
            kept_at: None,
            log: Log::default(),
            latest: Latest::default(),
            subscribers: Vec::new(),
        }
    }

    /// Where the log stands; a room without an archive begins here, with `fresh` as its epoch.
    pub(crate) fn head_or<E>(
        &mut self,
        fresh: impl FnOnce() -> Result<Epoch, E>,
    ) -> Result<RoomHead, E> {
        if let Some(head) = self.head.known() {
            return Ok(head);
        }
        let head = RoomHead::new(fresh()?, Offset::ZERO);
        self.head = Head::Sure(head);
        Ok(head)
    }

    /// Takes a positioned publication into the room: log or `latest`, then all mailboxes.
    pub(crate) fn accept(
        &mut self,
        publication: Publication,
        budget: &Budget,
        watchers: &Watchers,
    ) {
        self.used_at = publication.at;
        let keeps = match publication.class {
            Class::Reliable => self.archived.is_some() || self.retention.keeps_history(),
            Class::Latest => true,
            Class::Droppable => false,
        };
        if keeps {
            self.kept_at = Some(publication.at);
        }
        let published = Arc::new(Published::new(publication));
        match published.publication.class {
            Class::Reliable => {
                if let (Some(head), Some(offset)) =
                    (self.head.known_mut(), published.publication.offset)
                {
                    head.last = offset;
                }
                if let Some(archived) = &mut self.archived {
                    archived.appended = archived.appended.saturating_add(1);
                }
                self.log.push(&published, &self.retention, budget);
            }
            Class::Latest => self.latest.put(&published, budget),
            Class::Droppable => {}
        }
        self.make_way(budget);
        self.deliver(&Mail::Publication(Arc::clone(&published)));
        watchers.put(&published, |mailbox| self.is_subscribed(mailbox));
    }

    fn is_subscribed(&self, mailbox: &Mailbox) -> bool {
        self.subscribers.iter().any(|known| known.mailbox.id() == mailbox.id())
    }

    /// Hands something to every subscribed mailbox.
    pub(crate) fn deliver(&self, mail: &Mail) {
        for subscriber in &self.subscribers {
            subscriber.mailbox.put(mail.clone());
        }
    }

    /// What the log holds. Only of a room that is open.
    pub(crate) fn bounds(&self, head: RoomHead) -> LogBounds {
        let none = head.last.next().unwrap_or(Offset::MAX);
        let here = self.log.first().unwrap_or(none);
        let stored = self.archived.as_ref().and_then(|archived| archived.first).unwrap_or(here);
        LogBounds {
            epoch: head.epoch,
            first: stored.min(here),
            last: head.last,
            earlier: head.earlier,
        }
    }

    /// Adds or renews a subscription; none when there are too many.
    pub(crate) fn subscribe(
        &mut self,
        head: RoomHead,
        mailbox: &Arc<Mailbox>,
        token: SubscriptionToken,
        subscribers_max: usize,
    ) -> Option<RoomTop> {
        let is_full = self.subscribers.len() >= subscribers_max;
        let known = self.subscribers.iter_mut().find(|known| known.mailbox.id() == mailbox.id());
        match known {
            Some(known) => known.token = known.token.max(token),
            None if is_full => return None,
            None => self.subscribers.push(Subscriber { mailbox: Arc::clone(mailbox), token }),
        }
        Some(RoomTop { bounds: self.bounds(head), latest: self.latest.oldest_first() })
    }

    /// Ends a subscription, unless a larger token has renewed it.
    pub(crate) fn unsubscribe(&mut self, mailbox: &Mailbox, token: SubscriptionToken) {
        self.subscribers.retain(|known| known.mailbox.id() != mailbox.id() || known.token > token);
    }

    /// Reads from the ring; none when it does not reach back to `read.after` but the archive may.
    pub(crate) fn read(
        &mut self,
        head: RoomHead,
        read: &ReadLog,
        budget: &Budget,
    ) -> Option<LogPage> {
        self.log.trim(&self.retention, read.now, budget);
        let bounds = self.bounds(head);
        let here = self.log.first().unwrap_or_else(|| head.last.next().unwrap_or(Offset::MAX));
        if read.after < here.previous() && bounds.first < here {
            return None;
        }
        let messages = self.log.page(read, budget);
        let end = messages.last().and_then(|message| message.publication.offset);
        let more = match end {
            Some(end) => end < head.last,
            None => read.after < head.last && self.log.first().is_some(),
        };
        Some(LogPage { bounds, messages, more })
    }

    /// The oldest offset in memory; none when nothing is.
    pub(crate) fn first_here(&self) -> Option<Offset> {
        self.log.first()
    }

    /// Whether the stored log is known to begin no earlier than with this, in place and in time: all of it is
    /// in memory, too.
    pub(crate) fn begins_behind(&self, first: Offset, before: Wall) -> bool {
        let stored = self.archived.as_ref().and_then(|archived| archived.first);
        self.log
            .oldest()
            .is_some_and(|(oldest, at)| stored == Some(oldest) && oldest >= first && at >= before)
    }

    /// Takes the end of the stored log into memory, if it leads up to what is here: `epoch` and the
    /// last of `stored` say where it ends.
    pub(crate) fn load(&mut self, epoch: Epoch, stored: &[Arc<Published>], budget: &Budget) {
        let Some(head) = self.head.known() else { return };
        let here = self.log.first().unwrap_or_else(|| head.last.next().unwrap_or(Offset::MAX));
        let end = stored.last().and_then(|published| published.publication.offset);
        if head.epoch == epoch && end == Some(here.previous()) {
            self.log.prepend(stored, budget);
            self.make_way(budget);
        }
    }

    /// Takes what one message said out of memory; answers whether it was there. What is being loaded
    /// from the archive meanwhile may still have it and is not taken in.
    pub(crate) fn erase(&mut self, offset: Offset, budget: &Budget) -> bool {
        if let Some(archived) = &mut self.archived {
            archived.n_erased += 1;
        }
        self.log.erase(offset, budget)
    }

    /// Begins a new log: the archive says that the old one is gone.
    pub(crate) fn restart(&mut self, head: RoomHead, budget: &Budget) {
        self.log.clear(budget);
        self.head = Head::Sure(head);
        if let Some(archived) = &mut self.archived {
            archived.first = None;
            archived.is_loaded = false;
        }
    }

    /// Drops what has aged out and, when the node's memory for logs is nearly used up, what is
    /// beyond the room's fair share: first of the log, then of `latest`, to the last message.
    pub(crate) fn sweep(&mut self, now: Wall, budget: &Budget) {
        self.log.trim(&self.retention, now, budget);
        self.latest.retain(budget, |publication| !publication.is_expired(now));
        if budget.is_nearly_exceeded() {
            let share = budget.fair_share();
            let latest_bytes = self.latest.cost_bytes;
            while self.log.cost_bytes() + latest_bytes > share && self.log.drop_oldest(budget) {}
            while self.latest.cost_bytes > share && self.latest.drop_oldest(budget) {}
        }
        self.log.shrink();
    }

    /// Whether nothing would be lost with the room. Forgetting an epoch costs every client that
    /// comes back a gap, so a room is kept until all of its log has aged out, and an empty one for
    /// the window in which clients come back.
    pub(crate) fn is_forgettable(&self, now: Wall, dedup_window: Duration) -> bool {
        let quiet = match self.archived {
            // The archive keeps epoch and log.
            Some(_) => dedup_window,
            None => self.retention.age_max.max(dedup_window),
        };
        self.is_left()
            && now.since(self.used_at) > dedup_window
            && self.kept_at.is_none_or(|kept_at| now.since(kept_at) > quiet)
    }

    /// Whether the room may give way to another when rooms are short. One in an archive that was
    /// published to lately may not: the committer may be about to append to it.
    pub(crate) fn can_give_way(&self, now: Wall, dedup_window: Duration) -> bool {
        let is_committing = self.archived.is_some()
            && self.kept_at.is_some_and(|kept_at| now.since(kept_at) <= dedup_window);
        self.is_left() && !is_committing
    }

    /// Who gives way first: rooms that keep nothing, then the longest unused.
    pub(crate) fn worth(&self) -> (bool, Wall) {
        (self.kept_at.is_some(), self.used_at)
    }

    fn is_left(&self) -> bool {
        let is_in_doubt = matches!(self.head, Head::InDoubt(_));
        self.subscribers.is_empty() && self.presence.is_empty() && !is_in_doubt
    }

    /// Gives back what the room costs the node.
    pub(crate) fn release(&mut self, budget: &Budget) {
        self.log.clear(budget);
        self.latest.retain(budget, |_| false);
    }

    /// The room that publishes pays when the node's memory for logs is used up.
    fn make_way(&mut self, budget: &Budget) {
        while budget.is_exceeded() && self.log.drop_oldest(budget) {}
        while budget.is_exceeded() && self.latest.by_key.len() > 1 {
            self.latest.drop_oldest(budget);
        }
    }
}

/// Makes the publication of a publish.
pub(crate) fn positioned(publish: Publish, epoch: Epoch, offset: Option<Offset>) -> Publication {
    Publication {
        room: publish.room,
        epoch,
        offset,
        class: publish.class,
        key: publish.key,
        sender: publish.sender,
        data: publish.data,
        tags: publish.tags,
        origin: publish.origin,
        expires_at: publish.ttl.map(|ttl| publish.at.after(ttl)),
        at: publish.at,
        tombstone: None,
    }
}
