//! Who gets messages without a slice of their room: the followers of patterns, and users in the
//! room of their own.
//!
//! Here nothing has a position: messages come as they are published, and what did not fit into the
//! mailbox ends what it was for, so that nobody waits for it in vain. It must never pass a message
//! on twice for one pattern.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use domain::codes::ErrorCode;
use domain::moderation::Deed;
use domain::principal::RoomPattern;
use domain::protocol::ServerFrame;
use domain::protocol::selective::mark_pattern;
use domain::room::RoomId;
use smallvec::SmallVec;

use super::calls::Outcome;
use super::own_fill::Own;
use super::rooms::VACATED;
use super::seated::not_joined;
use super::table::Door;
use super::walk::join;
use super::{Host, Shard, Slot};
use crate::directory::WatchSeat;
use crate::ports::outbox::{Batch, Frame};
use crate::published::{Published, WireFormat};
use crate::refusal::Refusal;
use crate::use_cases::authenticate::{OWN_ROOMS, own_room};
use crate::use_cases::join_room::JoinRefused;
use crate::use_cases::watch_rooms::{WatchRooms, Watching, may_watch};

/// A pattern that a connection follows.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) pattern: RoomPattern,
    /// Whether the client has been told so.
    live: bool,
}

struct Follower {
    slot: Slot,
    /// How many messages had come when it became one.
    accepted: u64,
}

/// Who does not get a message: its sender, who wants no echo, and who is banned from its room.
type Without = SmallVec<[Slot; 1]>;

/// Messages on their way through the followers.
struct Walk {
    frames: Vec<Frame>,
    joined: Bytes,
    /// How many messages had come before the first of them.
    first: u64,
    next: usize,
    /// Who gets which frame not, in order: each follower is looked for.
    silent: SmallVec<[(Slot, usize); 2]>,
}

/// One pattern as far as this shard is concerned.
struct Watch {
    followers: Vec<Follower>,
    /// How many connections have it, those included who are not told yet.
    n_used: u32,
    accepted: u64,
    pending: VecDeque<(Frame, Without)>,
    walk: Option<Walk>,
    queued: bool,
    /// Its place among those of the node.
    _seat: WatchSeat,
}

/// All that a shard watches.
#[derive(Default)]
pub(super) struct Watches {
    patterns: BTreeMap<RoomPattern, Watch>,
    /// Never iterated.
    pub(super) own: HashMap<RoomId, Own>,
    /// Patterns with something to send, in turn.
    backlog: VecDeque<RoomPattern>,
    version: u64,
    /// Whether the rooms of users come to the mailbox.
    pub(super) has_own_rooms: bool,
    pub(super) asks_for_own_rooms: bool,
}

impl Watches {
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.own.is_empty()
    }
}

impl Shard {
    /// Use case *subscribe to a pattern*.
    pub(super) fn subscribe_pattern(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        pattern: RoomPattern,
        host: &mut Host<'_>,
    ) {
        let limits = &self.services.rules.limits;
        let Some(entry) = self.table.get_mut(slot) else { return };
        let refusal = if entry.patterns.iter().any(|followed| followed.pattern == pattern) {
            Some((ErrorCode::AlreadySubscribed, "subscribed to this pattern already"))
        } else if entry.patterns.len() >= limits.patterns_per_connection_max {
            Some((ErrorCode::TooManyRooms, "subscribed to as many patterns as allowed"))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            let refusal = Refusal::new(code, message).field("pattern");
            return self.refuse(slot, command, &refusal, host);
        }
        if !self.watches.patterns.contains_key(&pattern) {
            let seat = self.services.directory.watch_seat(limits.patterns_max);
            let Some(seat) = seat else {
                let message = "the server has as many patterns as it may have";
                let refusal = Refusal::new(ErrorCode::RoomFull, message).field("pattern");
                return self.refuse(slot, command, &refusal, host);
            };
            let watch = Watch {
                followers: Vec::new(),
                n_used: 0,
                accepted: 0,
                pending: VecDeque::new(),
                walk: None,
                queued: false,
                _seat: seat,
            };
            self.watches.patterns.insert(pattern.clone(), watch);
        }
        if let Some(watch) = self.watches.patterns.get_mut(&pattern) {
            watch.n_used += 1;
        }
        entry.door = Door::Shut;
        entry.patterns.push(Followed { pattern: pattern.clone(), live: false });
        let Some(who) = self.who(slot) else { return };
        let (services, watching) = (Arc::clone(&self.services), self.watching());
        let call = WatchRooms { services, who, pattern: pattern.clone(), watching };
        let refused = pattern.clone();
        let otherwise = || Outcome::Watched { result: Err(not_joined()), pattern: refused };
        let future =
            Box::pin(async move { Outcome::Watched { result: call.execute().await, pattern } });
        self.call_seated(slot, command, None, future, otherwise);
    }

    pub(super) fn finish_watch(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        pattern: &RoomPattern,
        result: Result<(), JoinRefused>,
        host: &mut Host<'_>,
    ) {
        if let Err(error) = result {
            self.unfollow_pattern(slot, pattern);
            let refusal = Refusal::from(error);
            let refusal = match refusal.code {
                ErrorCode::PermissionDenied => refusal.field("pattern"),
                _ => refusal,
            };
            self.note_denied(slot, "subscribe", &pattern.to_string(), &refusal, host.now);
            return self.refuse(slot, command, &refusal, host);
        }
        let Some(entry) = self.table.get_mut(slot) else { return };
        let Some(followed) = entry.patterns.iter_mut().find(|f| f.pattern == *pattern) else {
            // What it was to get was lost while the answer was on its way.
            let refusal = Refusal::unavailable(std::time::Duration::from_secs(1));
            return self.refuse(slot, command, &refusal, host);
        };
        followed.live = true;
        if let Some(watch) = self.watches.patterns.get_mut(pattern) {
            watch.followers.push(Follower { slot, accepted: watch.accepted });
        }
        self.tell(slot, &ServerFrame::PatternSubscribed { id: command, pattern }, host);
    }

    /// Use case *unsubscribe from a pattern*.
    pub(super) fn unsubscribe_pattern(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        pattern: &RoomPattern,
        host: &mut Host<'_>,
    ) {
        if !self.unfollow_pattern(slot, pattern) {
            let message = "subscribe to the pattern first";
            let refusal = Refusal::new(ErrorCode::NotSubscribed, message).field("pattern");
            return self.refuse(slot, command, &refusal, host);
        }
        if command.is_some() {
            let frame = ServerFrame::PatternUnsubscribed { id: command, pattern, code: None };
            self.tell(slot, &frame, host);
        }
    }

    /// Ends all that a connection has here.
    pub(super) fn leave_watches(&mut self, slot: Slot) {
        let Some(entry) = self.table.get(slot) else { return };
        let own = entry.own_room.joined().cloned();
        let patterns: Vec<_> = entry.patterns.iter().map(|f| f.pattern.clone()).collect();
        if let Some(room) = own {
            self.leave_own_room(slot, &room);
        }
        for pattern in patterns {
            self.unfollow_pattern(slot, &pattern);
        }
    }

    /// Ends what a connection's fresh token does not allow any more.
    pub(super) fn revalidate_watches(&mut self, slot: Slot, host: &mut Host<'_>) {
        let Some(entry) = self.table.get(slot) else { return };
        let code = ErrorCode::PermissionDenied;
        if let Some(room) = entry.own_room.joined().cloned()
            && own_room(&self.services, &entry.who.principal).is_none()
        {
            self.note_lost(slot, room.as_str(), host.now);
            self.put_out(slot, &room, code, host);
        }
        let Some(entry) = self.table.get(slot) else { return };
        let principal = Arc::clone(&entry.who.principal);
        let services = Arc::clone(&self.services);
        let followed = entry.patterns.iter().map(|followed| &followed.pattern);
        let lost: Vec<_> =
            followed.filter(|p| !may_watch(&services, &principal, p)).cloned().collect();
        for pattern in lost {
            self.unfollow_pattern(slot, &pattern);
            self.note_lost(slot, &pattern.to_string(), host.now);
            let frame =
                ServerFrame::PatternUnsubscribed { id: None, pattern: &pattern, code: Some(code) };
            self.tell(slot, &frame, host);
        }
    }

    /// Takes a pattern from a connection; says whether it had it.
    fn unfollow_pattern(&mut self, slot: Slot, pattern: &RoomPattern) -> bool {
        let Some(entry) = self.table.get_mut(slot) else { return false };
        let Some(at) = entry.patterns.iter().position(|f| f.pattern == *pattern) else {
            return false;
        };
        let live = entry.patterns.remove(at).live;
        let Some(watch) = self.watches.patterns.get_mut(pattern) else { return true };
        if live {
            watch.forget(slot);
        }
        watch.n_used -= 1;
        if watch.n_used == 0 {
            self.watches.patterns.remove(pattern);
            self.watches.backlog.retain(|other| other != pattern);
            let (services, watching) = (Arc::clone(&self.services), self.watching());
            self.call_detached(Box::pin(async move {
                // What goes on coming finds nobody; the next change says it again.
                drop(watching.execute(&services).await);
                Outcome::Done
            }));
        }
        true
    }

    /// All that is to come to the mailbox from now on.
    pub(super) fn watching(&mut self) -> Watching {
        self.watches.version += 1;
        let mut patterns: Vec<_> = self.watches.patterns.keys().cloned().collect();
        // Who is in its own room stays there, whatever newcomers are offered.
        if self.watches.has_own_rooms || self.watches.asks_for_own_rooms {
            patterns.extend(RoomPattern::parse(&format!("{OWN_ROOMS}*")));
        }
        let (mailbox, version) = (Arc::clone(&self.mailbox), self.watches.version);
        Watching { mailbox, patterns, version }
    }

    /// A publication came.
    pub(super) fn watch(&mut self, published: &Arc<Published>, host: &mut Host<'_>) {
        if self.watches.is_empty() {
            return;
        }
        let publication = &published.publication;
        let room = &publication.room;
        let origin = publication.origin.filter(|origin| !origin.echo);
        let silent = origin.and_then(|origin| self.table.slot_of(origin.connection));
        if room.as_str().starts_with(OWN_ROOMS) {
            self.hear_own(published, host);
        }
        let class = publication.class;
        for (pattern, watch) in &mut self.watches.patterns {
            if watch.followers.is_empty() || !pattern.matches(room) {
                continue;
            }
            let bytes = host.outbox.frame(&mark_pattern(published.message(), pattern));
            // Never one in place of another: two rooms may have the same key.
            watch.accepted += 1;
            let mut without = Without::from_iter(silent);
            if let Some(moderation) = &self.services.ports.moderation
                && moderation.bans_in(room)
            {
                // A pattern says nothing of single rooms: who is banned from one is looked for.
                let is_banned = |follower: &&Follower| {
                    let entry = self.table.get(follower.slot);
                    let user = entry.and_then(|entry| entry.who.principal.user.as_ref());
                    let forbids = |user| moderation.forbids(user, room, Deed::Enter, host.now.wall);
                    user.and_then(forbids).is_some()
                };
                without.extend(watch.followers.iter().filter(is_banned).map(|f| f.slot));
            }
            watch.pending.push_back((Frame { bytes, class, key: None }, without));
            if !watch.queued {
                watch.queued = true;
                self.watches.backlog.push_back(pattern.clone());
            }
        }
    }

    /// Something of a room did not fit into the mailbox: nobody can say what, so whoever would
    /// have got it is told to begin again.
    pub(super) fn watch_hole(&mut self, room: &RoomId, host: &mut Host<'_>) {
        self.miss_own(room, host);
        let hit = self.watches.patterns.keys().filter(|pattern| pattern.matches(room));
        for pattern in hit.cloned().collect::<Vec<_>>() {
            self.end_watch(&pattern, host);
        }
    }

    /// Something of any room may be missing: whoever follows a prefix is told to begin again. The rooms of users,
    /// which come by one, are read.
    pub(super) fn watch_holes(&mut self, host: &mut Host<'_>) {
        for room in self.watches.own.keys().cloned().collect::<Vec<_>>() {
            self.miss_own(&room, host);
        }
        let by_prefix = self.watches.patterns.keys().filter(|pattern| pattern.is_prefix());
        for pattern in by_prefix.cloned().collect::<Vec<_>>() {
            self.end_watch(&pattern, host);
        }
    }

    fn miss_own(&mut self, room: &RoomId, host: &mut Host<'_>) {
        if self.fills_own_rooms() {
            self.fill_own(room, host);
        } else {
            self.end_own(room, host);
        }
    }

    pub(super) fn end_own(&mut self, room: &RoomId, host: &mut Host<'_>) {
        let slots = self.watches.own.get(room).map(|own| own.slots.clone());
        for slot in slots.unwrap_or_default() {
            self.put_out(slot, room, ErrorCode::Unavailable, host);
        }
    }

    fn end_watch(&mut self, pattern: &RoomPattern, host: &mut Host<'_>) {
        let Some(watch) = self.watches.patterns.get(pattern) else { return };
        let slots: Vec<_> = watch.followers.iter().map(|follower| follower.slot).collect();
        let code = Some(ErrorCode::Unavailable);
        let bytes =
            self.encode(&ServerFrame::PatternUnsubscribed { id: None, pattern, code }, host);
        for slot in slots.into_iter().filter(|slot| *slot != VACATED) {
            self.unfollow_pattern(slot, pattern);
            self.give(slot, bytes.clone(), host);
        }
    }

    pub(super) fn frame_of(
        &self,
        published: &Published,
        format: WireFormat,
        host: &mut Host<'_>,
    ) -> Frame {
        let bytes = published.frame(format, |message| host.outbox.frame(message)).clone();
        Frame { bytes, class: published.publication.class, key: None }
    }

    /// Gives a message to one connection, unless its format does not say it.
    pub(super) fn give_frame(&mut self, slot: Slot, frame: &Frame, host: &mut Host<'_>) {
        if !frame.bytes.is_empty() {
            self.give_frames(slot, std::slice::from_ref(frame), host);
        }
    }

    /// One step of sending: patterns take turns like rooms, and a large one keeps its place.
    pub(super) fn send_some_watched(&mut self, budget: &mut usize, host: &mut Host<'_>) {
        let joined_max = self.services.rules.limits.joined_bytes_max;
        while *budget > 0 {
            let Some(pattern) = self.watches.backlog.pop_front() else { return };
            // Taken out for the walk: nothing that happens in it looks for a pattern.
            let Some(mut watch) = self.watches.patterns.remove(&pattern) else { continue };
            if watch.walk.is_none() {
                watch.walk = watch.begin_walk(joined_max);
            }
            if let Some(mut walk) = watch.walk.take() {
                self.walk_watch(&watch, &mut walk, budget, host);
                if walk.next < watch.followers.len() {
                    watch.walk = Some(walk);
                } else {
                    watch.followers.retain(|follower| follower.slot != VACATED);
                }
            }
            watch.queued = watch.walk.is_some() || !watch.pending.is_empty();
            if watch.queued {
                self.watches.backlog.push_back(pattern.clone());
            }
            self.watches.patterns.insert(pattern, watch);
        }
    }

    fn walk_watch(
        &mut self,
        watch: &Watch,
        walk: &mut Walk,
        budget: &mut usize,
        host: &mut Host<'_>,
    ) {
        let batch = Batch { joined: &walk.joined, frames: &walk.frames };
        let followers = &watch.followers[walk.next..];
        let followers = &followers[..followers.len().min(*budget)];
        let mut n_whole = 0;
        for follower in followers.iter().filter(|follower| follower.slot != VACATED) {
            let slot = follower.slot;
            let skip = usize::try_from(follower.accepted.saturating_sub(walk.first));
            let skip = skip.unwrap_or(usize::MAX);
            let own = walk.silent.partition_point(|(sender, _)| *sender < slot);
            let sent_some = walk.silent.get(own).is_some_and(|(sender, _)| *sender == slot);
            if skip == 0 && !sent_some {
                n_whole += 1;
                let delivered = host.outbox.deliver(slot, &batch);
                self.delivered(slot, delivered, host);
                continue;
            }
            for (at, frame) in walk.frames.iter().enumerate().skip(skip) {
                if walk.silent.binary_search(&(slot, at)).is_err() {
                    self.give_frame(slot, frame, host);
                }
            }
        }
        self.count(n_whole, &batch);
        walk.next += followers.len();
        *budget -= followers.len().max(usize::from(followers.is_empty()));
    }
}

impl Watch {
    /// Forgets a follower. During a walk places stay what they are.
    fn forget(&mut self, slot: Slot) {
        let Some(place) = self.followers.iter().position(|f| f.slot == slot) else { return };
        if self.walk.is_some() {
            self.followers[place].slot = VACATED;
        } else {
            self.followers.swap_remove(place);
        }
    }

    /// Takes the next batch: what waits, up to a size.
    fn begin_walk(&mut self, joined_bytes_max: usize) -> Option<Walk> {
        let first = self.accepted - self.pending.len() as u64;
        let (mut frames, mut bytes) = (Vec::new(), 0);
        let mut silent: SmallVec<[(Slot, usize); 2]> = SmallVec::new();
        while let Some((frame, _)) = self.pending.front() {
            bytes += frame.bytes.len();
            if !frames.is_empty() && bytes > joined_bytes_max {
                break;
            }
            let Some((frame, without)) = self.pending.pop_front() else { break };
            silent.extend(without.into_iter().map(|slot| (slot, frames.len())));
            frames.push(frame);
        }
        silent.sort_unstable();
        silent.dedup();
        let joined = join(&frames);
        (!frames.is_empty()).then_some(Walk { frames, joined, first, next: 0, silent })
    }
}
