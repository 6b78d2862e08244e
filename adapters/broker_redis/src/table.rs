//! Who on this node gets what: the mailboxes of each room and of each pattern, and which channels that
//! takes.
//!
//! Every publication reaches a mailbox once, however many of its channels it comes over. What is known
//! not to have come is said to the mailboxes as a hole; nothing here may pass over one in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use application::mailbox::{Mail, Mailbox};
use application::ports::SubscriptionToken;
use application::published::Published;
use domain::presence::PresenceEvent;
use domain::principal::RoomPattern;
use domain::room::RoomId;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::behind::Kept;
use crate::cluster::Part;
use crate::entry::Entry;
use crate::rooms::{NOTHING, Room, Standing, Subscriber, Watcher};
use crate::slots::slot_of;
use crate::topics::{Changes, Topic, Topics, Waits};

/// There are too many rooms, or mailboxes, already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TableFull;

#[derive(Debug, Default)]
struct Inner {
    topics: Topics,
    rooms: BTreeMap<RoomId, Room>,
    watchers: Vec<Watcher>,
    /// Rooms that have something in `behind`, and before when they are not to be asked for again.
    behind: BTreeMap<RoomId, Option<Instant>>,
    /// Mailboxes, by id, that are to be told of what nobody can say is missing: of patterns, and of presence.
    owed_watched: BTreeMap<u64, Arc<Mailbox>>,
    owed_presence: BTreeMap<u64, Arc<Mailbox>>,
}

/// The table, shared by the port and the subscriber.
#[derive(Debug)]
pub(crate) struct Table {
    rooms_max: usize,
    subscribers_max: usize,
    /// Held for one step, never across anything that waits.
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

impl Table {
    pub(crate) fn new(rooms_max: usize, subscribers_max: usize) -> Self {
        let mut inner = Inner::default();
        inner.topics.channels.entry(Topic::News).or_default();
        inner.topics.note(Topic::News);
        let (inner, changes) = (Mutex::new(inner), watch::Sender::new(0));
        Self { rooms_max, subscribers_max, inner, changes }
    }

    /// Adds or renews a subscription. It is in effect once what is answered has come.
    pub(crate) fn subscribe(
        &self,
        room: &RoomId,
        mailbox: &Arc<Mailbox>,
        token: SubscriptionToken,
    ) -> Result<Waits, TableFull> {
        let mut inner = self.lock();
        if inner.rooms.len() >= self.rooms_max && !inner.rooms.contains_key(room) {
            return Err(TableFull);
        }
        let here = inner.rooms.entry(room.clone()).or_default();
        let is_full = here.subscribers.len() >= self.subscribers_max;
        let known = here.subscribers.iter_mut().find(|known| known.mailbox.id() == mailbox.id());
        match known {
            Some(known) => known.token = known.token.max(token),
            None if is_full => return Err(TableFull),
            None => here.subscribers.push(Subscriber { mailbox: Arc::clone(mailbox), token }),
        }
        Ok(self.need(&mut inner, Topic::Room(room.clone())))
    }

    /// Ends a subscription, unless a larger token has renewed it.
    pub(crate) fn unsubscribe(&self, room: &RoomId, mailbox: &Mailbox, token: SubscriptionToken) {
        let mut inner = self.lock();
        let Some(here) = inner.rooms.get_mut(room) else { return };
        here.subscribers.retain(|known| known.mailbox.id() != mailbox.id() || known.token > token);
        if here.subscribers.is_empty() {
            self.release(&mut inner, Topic::Room(room.clone()));
        }
    }

    /// For how long a room is kept that nobody uses, at least.
    pub(crate) fn keep(&self, room: &RoomId, span: Duration) {
        if let Some(room) = self.lock().rooms.get_mut(room) {
            room.keep = Some(span);
            room.kept_at = Some(Instant::now());
        }
    }

    /// Sets what a mailbox watches, unless that came under a larger version. It is in effect once
    /// all that is answered has come.
    pub(crate) fn watch(
        &self,
        mailbox: &Arc<Mailbox>,
        patterns: &[RoomPattern],
        version: u64,
    ) -> Result<Vec<oneshot::Receiver<()>>, TableFull> {
        let mut inner = self.lock();
        let known = inner.watchers.iter().position(|known| known.mailbox.id() == mailbox.id());
        let new = Watcher { mailbox: Arc::clone(mailbox), patterns: patterns.to_vec(), version };
        let before = match known {
            Some(at) if inner.watchers[at].version > version => return Ok(Vec::new()),
            Some(at) => std::mem::replace(&mut inner.watchers[at], new).topics(),
            None if inner.watchers.len() >= self.subscribers_max => return Err(TableFull),
            None => {
                inner.watchers.push(new);
                BTreeSet::new()
            }
        };
        let after: BTreeSet<_> = patterns.iter().map(Topic::of).collect();
        for topic in before.difference(&after) {
            if let Some(channel) = inner.topics.channels.get_mut(topic) {
                channel.watchers -= 1;
            }
            self.release(&mut inner, topic.clone());
        }
        for topic in after.difference(&before) {
            inner.topics.channels.entry(topic.clone()).or_default().watchers += 1;
            if let Topic::Room(room) = topic {
                inner.rooms.entry(room.clone()).or_default();
            }
        }
        Ok(after.into_iter().filter_map(|topic| self.need(&mut inner, topic)).collect())
    }

    /// Hands a publication to all mailboxes that have not had it.
    pub(crate) fn deliver(&self, entry: Entry) {
        let mut inner = self.lock();
        let Inner { rooms, watchers, behind, .. } = &mut *inner;
        let Entry { number, publication } = entry;
        let room = rooms.get_mut(&publication.room);
        if let Some(room) = room {
            let epoch = publication.epoch;
            let missed_behind = match room.heard {
                Some((life, newest)) if life == epoch && number <= newest => return,
                // Numbers run on over epochs, unless the room began anew.
                Some(heard) => Some(heard).filter(|(_, newest)| number != newest + 1),
                None => None,
            };
            room.heard = Some((epoch, number));
            if let Some(since) = missed_behind {
                room.tell_hole(&publication.room, since, watchers);
                behind.entry(publication.room.clone()).or_default();
                self.wake();
            }
            if let Some(behind) = &mut room.behind {
                behind.hear(&publication);
            }
        }
        let room = rooms.get(&publication.room);
        let subscribers = room.map_or(&[][..], |room| &room.subscribers);
        if subscribers.is_empty() && !watchers.iter().any(|one| one.has(&publication.room)) {
            return;
        }
        let published = Arc::new(Published::new(publication));
        // Who is subscribed gets it as such.
        let is_watched = |watcher: &&Watcher| {
            let id = watcher.mailbox.id();
            subscribers.iter().all(|known| known.mailbox.id() != id)
                && watcher.has(&published.publication.room)
        };
        let mail = Mail::Publication(Arc::clone(&published));
        let mailboxes = subscribers.iter().map(|known| &known.mailbox);
        let watching = watchers.iter().filter(is_watched).map(|watcher| &watcher.mailbox);
        for mailbox in mailboxes.chain(watching) {
            mailbox.put(mail.clone());
        }
    }

    /// Hands a change of who is in a room to its mailboxes.
    pub(crate) fn deliver_presence(&self, room: &RoomId, event: PresenceEvent) {
        let inner = self.lock();
        let Some(here) = inner.rooms.get(room) else { return };
        let mail = Mail::Presence(room.clone(), Arc::new(event));
        for subscriber in &here.subscribers {
            subscriber.mailbox.put(mail.clone());
        }
    }

    /// The next channels of some slots to be asked for or given up, at most `max` of each. Those that are asked for
    /// are on only once [`confirm`](Self::confirm) says so.
    pub(crate) fn take_changes(&self, max: usize, part: &Part) -> Changes {
        let mut inner = self.lock();
        let mut changes = Changes { at: inner.topics.losses(), ..Changes::default() };
        while changes.on.len() < max && changes.off.len() < max {
            let Some(topic) = inner.topics.next_changed(part) else { break };
            let is_needed = inner.is_needed(&topic);
            let is_on = inner.topics.is_on(&topic);
            match (is_needed, is_on) {
                (true, false) => changes.on.push(topic),
                (false, true) => {
                    // From now on whoever subscribes waits for it to be on again.
                    if let Some(channel) = inner.topics.channels.get_mut(&topic) {
                        channel.is_on = false;
                    }
                    changes.off.push(topic);
                }
                (false, false) => inner.forget(&topic),
                (true, true) => {}
            }
        }
        changes
    }

    /// Notes that a master has done what was asked, and lets those go on that waited. What it has lost meanwhile, or
    /// has not in its `part` any more, is to be asked for again. Answers whether that of all nodes has come on.
    pub(crate) fn confirm(&self, changes: &Changes, part: &Part) -> bool {
        let mut inner = self.lock();
        for topic in &changes.off {
            if !inner.is_needed(topic) {
                inner.forget(topic);
            }
        }
        let mut has_news = false;
        for topic in &changes.on {
            if !part.has(topic.slot()) || !inner.topics.counts(topic, changes.at) {
                self.note(&mut inner, topic.clone());
                continue;
            }
            has_news |= *topic == Topic::News;
            if inner.topics.channels.entry(topic.clone()).or_default().turn_on() {
                inner.owe(topic);
            }
            if !inner.is_needed(topic) {
                self.note(&mut inner, topic.clone());
            }
        }
        has_news
    }

    /// Says whenever there may be changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The channels of these slots are lost: none is on, and all are to be asked for again.
    pub(crate) fn lose(&self, part: &Part) {
        let mut inner = self.lock();
        for (room, put_off) in &mut inner.behind {
            if part.has(slot_of(room.as_str().as_bytes())) {
                *put_off = None;
            }
        }
        for topic in inner.topics.lose(part) {
            if inner.is_needed(&topic) {
                inner.topics.note(topic);
            } else {
                inner.forget(&topic);
            }
        }
        self.wake();
    }

    /// These could not be asked for where they were thought to be.
    pub(crate) fn put_back(&self, topics: &[Topic]) {
        let mut inner = self.lock();
        for topic in topics {
            inner.topics.note(topic.clone());
        }
        self.wake();
    }

    /// How many rooms there are.
    pub(crate) fn rooms(&self) -> usize {
        self.lock().rooms.len()
    }

    /// The rooms to be looked at among the next `max` behind `looked_at`, which moves on, and begins again at the
    /// end: those of some slots whose channels are on. With those that are to be kept from running out comes for how
    /// long.
    pub(crate) fn take_looks(
        &self,
        max: usize,
        part: &Part,
        looked_at: &mut Option<RoomId>,
        now: Instant,
    ) -> Vec<(RoomId, Option<Duration>)> {
        let mut inner = self.lock();
        let Inner { rooms, topics, .. } = &mut *inner;
        let from = looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut all, mut last) = (Vec::new(), None);
        for (id, room) in rooms.range_mut((from, Bound::Unbounded)).take(max) {
            last = Some(id);
            // Each master's subscription comes by all rooms.
            if part.has(slot_of(id.as_str().as_bytes())) && topics.is_on(&Topic::Room(id.clone())) {
                all.push((id.clone(), room.take_keep(now)));
            }
        }
        let last = last.cloned();
        *looked_at = last.filter(|last| rooms.last_key_value().is_some_and(|(id, _)| id != last));
        all
    }

    /// Rooms of some slots of which something was missed that no log has, at most `max`; without those that are put
    /// off.
    pub(crate) fn behind(&self, max: usize, part: &Part, now: Instant) -> Vec<RoomId> {
        let inner = self.lock();
        let is_due = |(room, until): &(&RoomId, &Option<Instant>)| {
            until.is_none_or(|until| until <= now) && part.has(slot_of(room.as_str().as_bytes()))
        };
        inner.behind.iter().filter(is_due).take(max).map(|(room, _)| room.clone()).collect()
    }

    /// Nobody has said what a room keeps: it is asked for again later, or as soon as another master has its slot.
    pub(crate) fn put_off(&self, room: &RoomId, until: Instant) {
        if let Some(put_off) = self.lock().behind.get_mut(room) {
            *put_off = Some(until);
        }
    }

    /// Gives a room's mailboxes what was missed of what Redis keeps of it; none where it keeps nothing.
    pub(crate) fn catch_up(&self, id: &RoomId, kept: Option<Kept>) {
        let mut inner = self.lock();
        inner.behind.remove(id);
        let Some(room) = inner.rooms.get_mut(id) else { return };
        let (Some(behind), Some(heard)) = (room.behind.take(), room.heard) else { return };
        for publication in kept.map_or_else(Vec::new, |kept| behind.missed(&kept, heard)) {
            let mail = Mail::Publication(Arc::new(Published::new(publication)));
            for subscriber in &room.subscribers {
                subscriber.mailbox.put(mail.clone());
            }
        }
    }

    /// The channel of a room is on, and this is where the room stands; none where nothing was published
    /// in it, or all of it is lost. Everything up to there has come, or was missed while the channel was
    /// not on: that is a hole, which the shards fill from the log.
    pub(crate) fn meet(&self, id: &RoomId, standing: Option<Standing>) {
        let mut inner = self.lock();
        let Inner { rooms, watchers, behind, .. } = &mut *inner;
        let Some(room) = rooms.get_mut(id) else { return };
        let before = room.heard;
        let now = standing.unwrap_or(Standing { epoch: NOTHING, number: 0 });
        let (has_missed, heard) = match room.heard {
            None => (false, (now.epoch, now.number)),
            // What came since the look is newer than it.
            Some((epoch, number)) if epoch == now.epoch => {
                (number < now.number, (epoch, number.max(now.number)))
            }
            // Where nothing was ever published nothing can be missed.
            Some((_, number)) => (number > 0 || now.number > 0, (now.epoch, now.number)),
        };
        room.heard = Some(heard);
        if let Some(since) = before.filter(|_| has_missed) {
            room.tell_hole(id, since, watchers);
            behind.entry(id.clone()).or_default();
            self.wake();
        }
    }

    /// Channels that had been lost are on again: what is followed by prefixes has a hole that nobody can fill, and
    /// changes of who is where, which have no log, may be missing.
    pub(crate) fn tell_other_holes(&self) {
        let mut inner = self.lock();
        for mailbox in std::mem::take(&mut inner.owed_watched).values() {
            mailbox.miss_watched();
        }
        for mailbox in std::mem::take(&mut inner.owed_presence).values() {
            mailbox.miss_presence();
        }
    }

    fn need(&self, inner: &mut Inner, topic: Topic) -> Waits {
        let channel = inner.topics.channels.entry(topic.clone()).or_default();
        if channel.is_on {
            return None;
        }
        let receiver = channel.wait();
        self.note(inner, topic);
        Some(receiver)
    }

    /// Somebody does not need a channel any more. One that is not on, as none is while Redis is away, leaves
    /// nothing behind then.
    fn release(&self, inner: &mut Inner, topic: Topic) {
        if inner.is_needed(&topic) {
            return;
        }
        if inner.topics.is_on(&topic) {
            return self.note(inner, topic);
        }
        inner.forget(&topic);
    }

    fn note(&self, inner: &mut Inner, topic: Topic) {
        inner.topics.note(topic);
        self.wake();
    }

    fn wake(&self) {
        self.changes.send_modify(|times| *times = times.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it is held can only come from memory running out; each step leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A channel is on again that had been lost.
    fn owe(&mut self, topic: &Topic) {
        match topic {
            Topic::News => {}
            Topic::Room(room) => {
                for subscriber in self.rooms.get(room).map_or(&[][..], |room| &room.subscribers) {
                    let mailbox = &subscriber.mailbox;
                    self.owed_presence.entry(mailbox.id()).or_insert_with(|| Arc::clone(mailbox));
                }
            }
            Topic::Namespace(_) => {
                let by_prefix = |pattern: &&RoomPattern| pattern.is_prefix();
                for watcher in &self.watchers {
                    let mut topics = watcher.patterns.iter().filter(by_prefix).map(Topic::of);
                    if topics.any(|of| of == *topic) {
                        let mailbox = &watcher.mailbox;
                        self.owed_watched
                            .entry(mailbox.id())
                            .or_insert_with(|| Arc::clone(mailbox));
                    }
                }
            }
        }
    }

    fn is_needed(&self, topic: &Topic) -> bool {
        let is_watched =
            self.topics.channels.get(topic).is_some_and(|channel| channel.watchers > 0);
        let is_subscribed = match topic {
            Topic::Room(room) => {
                self.rooms.get(room).is_some_and(|room| !room.subscribers.is_empty())
            }
            Topic::Namespace(_) => false,
            Topic::News => true,
        };
        is_watched || is_subscribed
    }

    fn forget(&mut self, topic: &Topic) {
        self.topics.forget(topic);
        if let Topic::Room(room) = topic {
            self.rooms.remove(room);
            self.behind.remove(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use application::mailbox::Post;
    use bytes::Bytes;
    use domain::id::Epoch;

    use crate::entry::decode;

    const ROOM: &str = "public:a";

    fn room() -> RoomId {
        RoomId::parse(ROOM).unwrap()
    }

    fn entry(epoch: u64, number: u64) -> Entry {
        let text = format!("{epoch:016x} {number} 0 1 0\n{{\"r\":\"{ROOM}\",\"c\":\"latest\"}}\n1");
        decode(&Bytes::from(text)).unwrap()
    }

    fn standing(epoch: u64, number: u64) -> Option<Standing> {
        Some(Standing { epoch: Epoch::from_bits(epoch), number })
    }

    /// A table with one mailbox in the room.
    fn table() -> (Table, Arc<Mailbox>) {
        let (table, mailbox) = (Table::new(10, 10), Arc::new(Mailbox::new(1, 100)));
        table.subscribe(&room(), &mailbox, SubscriptionToken(1)).unwrap();
        (table, mailbox)
    }

    /// How much mail came, and whether a hole was told.
    fn taken(mailbox: &Mailbox) -> (usize, bool) {
        let mut post = Post::default();
        mailbox.take(&mut post);
        (post.mail.len(), !post.holes.is_empty())
    }

    #[test]
    fn a_number_that_was_passed_over_is_a_hole_and_one_that_came_before_comes_once() {
        let (table, mailbox) = table();
        table.meet(&room(), standing(1, 4));
        table.deliver(entry(1, 5));
        table.deliver(entry(1, 5));
        assert_eq!(taken(&mailbox), (1, false));
        table.deliver(entry(1, 8));
        assert_eq!(taken(&mailbox), (1, true));
        // Numbers run on over epochs, and begin anew with the room.
        table.deliver(entry(2, 9));
        assert_eq!(taken(&mailbox), (1, false));
        table.deliver(entry(3, 1));
        assert_eq!(taken(&mailbox), (1, true));
    }

    #[test]
    fn subscriptions_that_come_to_nothing_leave_nothing_behind_while_redis_is_away() {
        let (table, mailbox) = (Table::new(10, 10), Arc::new(Mailbox::new(1, 100)));
        let patterns = [RoomPattern::parse("game:*").unwrap()];
        for number in 0..10_000 {
            let room = RoomId::parse(&format!("public:r{number}")).unwrap();
            let waits = table.subscribe(&room, &mailbox, SubscriptionToken(1)).unwrap();
            assert!(waits.is_some(), "no channel is on");
            table.watch(&mailbox, &patterns, 2 * number).unwrap();
            table.unsubscribe(&room, &mailbox, SubscriptionToken(1));
            table.watch(&mailbox, &[], 2 * number + 1).unwrap();
        }
        let inner = table.lock();
        let sizes = (inner.rooms.len(), inner.topics.sizes());
        // That of all nodes is always wanted.
        assert_eq!(sizes, (0, (1, 1)));
    }

    #[test]
    fn rooms_are_looked_at_in_turn_and_kept_from_running_out_now_and_then() {
        let (table, mailbox) = (Table::new(10, 10), Arc::new(Mailbox::new(1, 100)));
        let (rooms, span) = (["public:a", "public:b", "public:c"], Duration::from_secs(400));
        for name in rooms {
            let room = RoomId::parse(name).unwrap();
            table.subscribe(&room, &mailbox, SubscriptionToken(1)).unwrap();
            table.keep(&room, span);
        }
        let now = Instant::now();
        let mut looked_at = None;
        let early = table.take_looks(10, &Part::All, &mut looked_at, now);
        assert!(early.is_empty(), "their channels are not on");
        let changes = table.take_changes(10, &Part::All);
        table.confirm(&changes, &Part::All);
        let mut look = |now| {
            let all = table.take_looks(2, &Part::All, &mut looked_at, now).into_iter();
            all.map(|(room, keep)| (room.as_str().to_owned(), keep)).collect::<Vec<_>>()
        };
        let named = |name: &str, keep| (name.to_owned(), keep);
        assert_eq!(look(now), [named("public:a", None), named("public:b", None)]);
        let later = now + span / 3;
        assert_eq!(look(later), [named("public:c", Some(span))]);
        let [a, b] = ["public:a", "public:b"].map(|name| named(name, Some(span)));
        assert_eq!(look(later), [a, b]);
        assert_eq!(look(later), [named("public:c", None)], "not twice");
    }

    #[test]
    fn what_was_missed_while_the_channel_was_off_is_a_hole_whenever_it_is_met() {
        let (table, mailbox) = table();
        table.meet(&room(), None);
        table.meet(&room(), standing(1, 3));
        assert_eq!(taken(&mailbox), (0, true), "the first of all were missed");
        table.meet(&room(), standing(1, 3));
        assert_eq!(taken(&mailbox), (0, false));
        // It came before the look did.
        table.deliver(entry(1, 4));
        table.meet(&room(), standing(1, 3));
        table.deliver(entry(1, 4));
        assert_eq!(taken(&mailbox), (1, false));
        // It was lost with another life of Redis.
        table.meet(&room(), standing(2, 4));
        assert_eq!(taken(&mailbox), (0, true));
        table.meet(&room(), None);
        assert_eq!(taken(&mailbox), (0, true));
    }

    #[test]
    fn a_channel_that_was_lost_while_it_was_asked_for_is_on_only_where_it_is_asked_for_next() {
        let (table, mailbox) = (Table::new(10, 10), Arc::new(Mailbox::new(1, 100)));
        let mut waits = table.subscribe(&room(), &mailbox, SubscriptionToken(1)).unwrap().unwrap();
        let slot = Topic::Room(room()).slot();
        let part = Part::Slots(vec![slot..=slot]);
        let here = table.take_changes(10, &part);
        assert_eq!(here.on.len(), 1);
        // Its slot moves, and the next master is asked; then the first one answers.
        table.lose(&part);
        let there = table.take_changes(10, &part);
        table.confirm(&here, &part);
        assert!(waits.try_recv().is_err(), "nobody publishes there any more");
        table.confirm(&there, &part);
        assert!(waits.try_recv().is_ok());
        // It was said once too often, to whom it does no harm.
        assert!(table.take_changes(10, &part).on.is_empty());
        let (changes, elsewhere) = (table.take_changes(10, &Part::All), Part::Slots(Vec::new()));
        assert!(!changes.on.is_empty() && !table.confirm(&changes, &elsewhere), "it has no slots");
        assert_eq!(table.take_changes(10, &Part::All).on, changes.on);
    }

    #[test]
    fn what_a_room_keeps_is_asked_for_again_when_nobody_could_say_and_others_don_t_wait_for_it() {
        let (table, mailbox) = table();
        let other = RoomId::parse("public:b").unwrap();
        table.subscribe(&other, &mailbox, SubscriptionToken(1)).unwrap();
        let now = Instant::now();
        for room in [&room(), &other] {
            table.meet(room, standing(1, 1));
            table.meet(room, standing(1, 2));
        }
        let behind = |now| table.behind(1, &Part::All, now);
        assert_eq!(behind(now), [room()]);
        table.put_off(&room(), now + Duration::from_secs(1));
        assert_eq!(behind(now).first(), Some(&other));
        table.catch_up(&other, None);
        assert!(behind(now).is_empty());
        assert_eq!(behind(now + Duration::from_secs(1)), [room()]);
        // Another master has it.
        table.lose(&Part::All);
        assert_eq!(behind(now), [room()]);
    }
}
