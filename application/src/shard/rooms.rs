//! A shard's slices of rooms: who of its connections is in, who is on the way, and how far the
//! slice has seen the room's log.
//!
//! A slice must never deliver out of order: publications pass through it in the broker's order or
//! wait until a hole before them is filled or named.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use domain::codes::ErrorCode;
use domain::filter::Filter;
use domain::id::Epoch;
use domain::message::Publication;
use domain::policy::NamespacePolicy;
use domain::position::{Offset, Position};
use domain::presence::gathering::Gathering;
use domain::room::RoomId;
use smallvec::SmallVec;

use super::Slot;
use super::audiences::{AudienceKey, Audiences, Choice, Part, Wanted};
use super::held::Held;
use super::inquire::first_of;
use super::listing::Listing;
use crate::directory::{Directory, Seats};
use crate::ports::SubscriptionToken;
use crate::ports::outbox::Frame;
use crate::published::{Published, WireFormat};
use crate::refusal::Refusal;

/// A slice's place in its shard; with a generation, like a slot.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RoomKey {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// The most ended epochs that a slice remembers; a late answer from an older one is unheard of.
const ENDED_MAX: usize = 4;

/// What one follows of who is in a room, and in whose words; in this order, so that one comparison tells whether
/// an item is for a member.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Follows {
    /// Nothing. An item is for everyone.
    Nothing,
    /// By protocol v2. An item is for all who follow.
    All,
    /// By an endpoint of the documents. An item is for those who do.
    Documents,
}

impl Follows {
    pub(super) const fn of(presence: bool, format: WireFormat) -> Self {
        match (presence, format) {
            (false, _) => Self::Nothing,
            (true, WireFormat::V2) => Self::All,
            (true, WireFormat::Document) => Self::Documents,
        }
    }

    pub(super) const fn is_any(self) -> bool {
        !matches!(self, Self::Nothing)
    }
}

/// One live member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    /// [`VACATED`] while a walk is under way and the member has left.
    pub(super) slot: Slot,
    /// How many items the slice had accepted when it became live: those it has already. Beyond any
    /// such number for a member with a filter, so that one comparison tells a walk who needs a
    /// closer look.
    passed: u64,
    /// Whether it follows presence.
    pub(super) follows: Follows,
    /// Which messages it wants.
    pub(super) audience: AudienceKey,
}

impl Member {
    const CHOOSY: u64 = 1 << 63;

    /// A member that has got `accepted` items of the slice already.
    pub(super) fn new(slot: Slot, accepted: u64, follows: Follows, audience: AudienceKey) -> Self {
        let passed = if audience == AudienceKey::NONE { accepted } else { accepted | Self::CHOOSY };
        Self { slot, passed, follows, audience }
    }

    /// How many items the slice had accepted when it became live.
    pub(super) const fn accepted(&self) -> u64 {
        self.passed & !Self::CHOOSY
    }
}

/// Marks a member that left during a walk, so that places stay what they are until its end.
pub(super) const VACATED: Slot = Slot { index: u32::MAX, generation: u32::MAX };

/// A connection on its way in: it gets the log page by page while live messages are held.
#[derive(Debug)]
pub(super) struct Joiner {
    pub(super) slot: Slot,
    pub(super) follows: Follows,
    /// Which messages it wants.
    pub(super) audience: AudienceKey,
    pub(super) held: Held,
    /// Whether it was in the room as its own until it asked to join.
    pub(super) from_own_room: bool,
    /// Whether it knows that it is a member: it follows presence from then on.
    pub(super) told: bool,
    /// Newest `latest` messages that did not fit into the first frame: the next page brings them.
    pub(super) owed: Vec<Arc<Published>>,
    /// Where it stands once it needs no further page: live as soon as the slice is there too.
    pub(super) reached: Option<Position>,
}

impl Joiner {
    /// Holds a live message, unless the log has given it already.
    pub(super) fn hold(&mut self, published: &Arc<Published>, wanted: Wanted, bytes_max: usize) {
        let Publication { epoch, offset, .. } = &published.publication;
        let has_it = self.reached.is_some_and(|reached| {
            reached.epoch == *epoch && offset.is_some_and(|offset| offset <= reached.offset)
        });
        if !has_it {
            self.held.push(published, wanted, bytes_max);
        }
    }

    /// The log has given everything up to `reached`, which the live stream has passed up to
    /// `seen`: what is held up to there is not needed, and not missed either.
    pub(super) fn reach(&mut self, reached: Position, seen: Option<Position>) {
        self.reached = Some(reached);
        let behind = |seen: Position| seen.epoch == reached.epoch && seen.offset <= reached.offset;
        if seen.is_some_and(behind) {
            self.held = std::mem::take(&mut self.held).forget_positioned();
        }
    }
}

/// Something for the members, encoded and in its place.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) frame: Frame,
    /// What a member has to follow that it is for.
    pub(super) to: Follows,
    /// What the audiences get of it.
    pub(super) chosen: Choice,
    /// Members of this shard who get an `ack` here.
    pub(super) silent: SmallVec<[Silent; 1]>,
}

/// A publish with `echo:false` of a connection of this shard.
#[derive(Clone, Debug)]
pub(super) struct Silent {
    pub(super) slot: Slot,
    /// Its place; none for classes without one, whose `ack` does not wait for it.
    pub(super) position: Option<Position>,
    pub(super) command: Option<u64>,
    /// Whether the item is not the message itself but only where its `ack` belongs: behind a gap
    /// that it fell into, or behind what was on its way when its place had passed already.
    pub(super) behind: bool,
    /// For who has no answer yet to one of its own before: what it gets instead of the item, which says what it follows.
    pub(super) instead: Option<Bytes>,
}

/// A member whose own message has passed without an answer: what it gets next says what it follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    pub(super) slot: Slot,
    /// The epoch of its own.
    pub(super) epoch: Epoch,
    /// The place before it.
    pub(super) previous: Offset,
}

/// A batch on its way through the members.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) frames: Vec<Frame>,
    pub(super) joined: Bytes,
    pub(super) to: Follows,
    /// By the places of the room's audiences; empty when everyone gets the batch as it is.
    pub(super) parts: Vec<Part>,
    /// How many items the slice had accepted before the first of the batch.
    pub(super) first: u64,
    /// The next member to serve.
    pub(super) next: usize,
    /// Who of this shard sent which frame and does not want it back.
    /// In the order of the frames.
    pub(super) silent: SmallVec<[(usize, Silent); 2]>,
    /// Each of them once, in order: every member is looked for among them.
    pub(super) silent_slots: SmallVec<[Slot; 2]>,
    pub(super) vacated: bool,
}

impl Walk {
    /// Whether any of the batch may be for this member.
    #[inline]
    pub(super) const fn is_for(&self, member: &Member) -> bool {
        member.slot.index != VACATED.index && member.follows as u8 >= self.to as u8
    }

    /// Whether the member gets the batch as it is: it is in no audience of its own, had nothing of it while
    /// joining, and sent nothing of it that it does not want back.
    #[inline]
    pub(super) fn is_for_whole(&self, member: &Member) -> bool {
        self.is_for(member) && member.passed <= self.first && !self.is_silent(member.slot)
    }

    /// Whether the member gets all of the batch that is for its audience: it had nothing of it while joining,
    /// and sent nothing of it that it does not want back.
    #[inline]
    pub(super) fn has_all_to_come(&self, member: &Member) -> bool {
        member.accepted() <= self.first && !self.is_silent(member.slot)
    }

    /// What this audience gets at one place of the batch; none when it is not for it.
    pub(super) fn frame_for(&self, audience: AudienceKey, place: usize) -> Option<&Frame> {
        if self.parts.is_empty() || audience == AudienceKey::NONE {
            return self.frames.get(place);
        }
        let part = self.parts.get(audience.index())?;
        part.frames.get(part.places.binary_search(&place).ok()?)
    }
}

/// A room as far as this shard is concerned.
#[derive(Debug)]
pub(super) struct RoomSlice {
    pub(super) generation: u32,
    pub(super) id: RoomId,
    pub(super) policy: Arc<NamespacePolicy>,
    pub(super) token: SubscriptionToken,
    /// The room's members over all shards.
    pub(super) seats: Seats,
    pub(super) members: Vec<Member>,
    pub(super) joiners: Vec<Joiner>,
    /// The audiences that both are in.
    pub(super) audiences: Audiences,
    /// How many of both follow presence.
    pub(super) n_followers: u32,
    /// The newest position that has passed through; none before the first.
    pub(super) seen: Option<Position>,
    /// The epochs that it has left, newest last.
    pub(super) ended: SmallVec<[Epoch; 1]>,
    /// How many items have passed through.
    pub(super) accepted: u64,
    /// Passed through, not yet on their way to the members.
    pub(super) pending: VecDeque<Item>,
    pub(super) walk: Option<Box<Walk>>,
    /// How many reads of the log have begun to fill a hole.
    pub(super) n_reads: u64,
    /// What waits behind a hole that is being filled.
    pub(super) fill: Option<Held>,
    /// Whether the read that should fill it had no answer, and is to be made again.
    pub(super) fill_failed: bool,
    /// Whether the slice is in the shard's list of rooms with something to send.
    pub(super) queued: bool,
    /// Whether its position is being compared with the broker's.
    pub(super) looking: bool,
    /// Where the broker stood when it was last ahead of a room without a log; if the slice is
    /// not there by the next look, that much is lost.
    pub(super) suspect: Option<Position>,
    /// Whether its followers know who is there.
    pub(super) listing: Listing,
    /// Who is to be told with the next message what it follows; each once.
    pub(super) owed: SmallVec<[Owed; 1]>,
    /// What they have still to be told; nothing in a quiet room.
    pub(super) gathering: Option<Box<Gathering>>,
}

impl RoomSlice {
    pub(super) fn is_unused(&self) -> bool {
        self.members.is_empty() && self.joiners.is_empty()
    }

    /// Takes a seat for a joiner, and a place in its audience; or neither, and why.
    pub(super) fn take_places(
        &mut self,
        policy: &NamespacePolicy,
        format: WireFormat,
        filter: Option<&Filter>,
        filters_max: usize,
    ) -> Result<AudienceKey, Refusal> {
        if !self.seats.take(policy.members_max) {
            return Err(Refusal::new(ErrorCode::RoomFull, "the room is full").field("room"));
        }
        self.audiences.enter(format, filter, self.seen, filters_max).ok_or_else(|| {
            self.seats.give_back();
            let message = "the room has as many different filters as it may have";
            Refusal::new(ErrorCode::RoomFull, message).field("filter")
        })
    }

    /// The broker stood at `top` when the subscription took effect. Who joins an empty slice
    /// begins there: what else came may be the rest of an earlier subscription.
    pub(super) fn begin_at(&mut self, top: Position) {
        let is_behind = |seen: Position| seen.epoch == top.epoch && seen.offset < top.offset;
        let is_empty = self.members.is_empty() && self.fill.is_none();
        if self.seen.is_none_or(|seen| is_empty && is_behind(seen)) {
            self.seen = Some(top);
        }
    }

    /// Notes that everything up to a position has passed through.
    pub(super) fn see(&mut self, position: Position) {
        if let Some(seen) = self.seen
            && seen.epoch != position.epoch
        {
            if self.ended.len() == ENDED_MAX {
                self.ended.remove(0);
            }
            self.ended.push(seen.epoch);
        }
        self.seen = Some(position);
    }

    /// Whether a position can't come any more.
    pub(super) fn has_passed(&self, position: Position) -> bool {
        match self.seen {
            Some(seen) if seen.epoch == position.epoch => seen.offset >= position.offset,
            _ => self.ended.contains(&position.epoch),
        }
    }

    /// Whether a position is of the epoch that the slice is in.
    pub(super) fn has_epoch(&self, position: Position) -> bool {
        self.seen.is_some_and(|seen| seen.epoch == position.epoch)
    }

    /// Whether a position is of an epoch that is not known to have been here: either it is still
    /// to come, or it came and went unseen.
    pub(super) fn is_foreign(&self, position: Position) -> bool {
        self.seen.is_some_and(|seen| seen.epoch != position.epoch) && !self.has_passed(position)
    }

    /// Whether a message of this member waits to be passed in its place.
    pub(super) fn is_on_its_way(&self, slot: Slot, position: Position) -> bool {
        let own = |silent: &Silent| silent.slot == slot && silent.position == Some(position);
        let begun = self.walk.as_deref().is_some_and(|walk| {
            let mut rest = self.members.iter().skip(walk.next);
            walk.silent.iter().any(|(_, silent)| own(silent)) && rest.any(|m| m.slot == slot)
        });
        begun || self.pending.iter().any(|item| item.silent.iter().any(own))
    }

    /// Puts an `ack` behind everything that is on its way to a live member; says whether there
    /// is anything.
    pub(super) fn put_behind(
        &mut self,
        slot: Slot,
        place: u32,
        position: Position,
        command: Option<u64>,
    ) -> bool {
        let Some(member) = self.members.get(place as usize).copied() else { return false };
        let instead = None;
        let silent = Silent { slot, position: Some(position), command, behind: true, instead };
        // What it has got while joining does not come again.
        let n_new = usize::try_from(self.accepted - member.accepted()).unwrap_or(usize::MAX);
        let n_skipped = self.pending.len().saturating_sub(n_new);
        let mut new = self.pending.iter_mut().skip(n_skipped);
        let last = new.rfind(|item| member.follows >= item.to);
        if let Some(item) = last {
            item.silent.push(silent);
            return true;
        }
        let Some(walk) = &mut self.walk else { return false };
        let n_frames = walk.frames.len();
        let misses = walk.next > place as usize
            || member.follows < walk.to
            || member.accepted() >= walk.first + n_frames as u64;
        if !misses {
            walk.add_silent(silent);
        }
        !misses
    }

    pub(super) fn joiner(&mut self, slot: Slot) -> Option<&mut Joiner> {
        self.joiners.iter_mut().find(|joiner| joiner.slot == slot)
    }
}

#[derive(Default)]
pub(super) struct Rooms {
    slices: Vec<Option<Box<RoomSlice>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    index: BTreeMap<RoomId, RoomKey>,
    /// Grows with each slice, so that a later subscription of a room has a larger token.
    tokens: u64,
}

impl Rooms {
    pub(super) fn find(&self, room: &RoomId) -> Option<RoomKey> {
        self.index.get(room).copied()
    }

    pub(super) fn find_or_create(
        &mut self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        directory: &Arc<Directory>,
    ) -> RoomKey {
        if let Some(key) = self.find(room) {
            return key;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slices.push(None);
            self.generations.push(0);
            self.slices.len() as u32 - 1
        });
        let key = RoomKey { index, generation: self.generations[index as usize] };
        self.tokens += 1;
        self.slices[index as usize] = Some(Box::new(RoomSlice {
            generation: key.generation,
            id: room.clone(),
            policy: Arc::clone(policy),
            token: SubscriptionToken(self.tokens),
            seats: directory.seats(room),
            members: Vec::new(),
            joiners: Vec::new(),
            audiences: Audiences::default(),
            n_followers: 0,
            seen: None,
            ended: SmallVec::new(),
            accepted: 0,
            pending: VecDeque::new(),
            walk: None,
            n_reads: 0,
            fill: None,
            fill_failed: false,
            queued: false,
            looking: false,
            suspect: None,
            listing: Listing::Whole,
            owed: SmallVec::new(),
            gathering: None,
        }));
        self.index.insert(room.clone(), key);
        key
    }

    pub(super) fn get(&self, key: RoomKey) -> Option<&RoomSlice> {
        let slice = self.slices.get(key.index as usize)?.as_deref()?;
        (slice.generation == key.generation).then_some(slice)
    }

    pub(super) fn get_mut(&mut self, key: RoomKey) -> Option<&mut RoomSlice> {
        let slice = self.slices.get_mut(key.index as usize)?.as_deref_mut()?;
        (slice.generation == key.generation).then_some(slice)
    }

    /// Takes a slice out, for as long as it is walked; `put_back` must follow.
    pub(super) fn take(&mut self, key: RoomKey) -> Option<Box<RoomSlice>> {
        self.get(key)?;
        self.slices[key.index as usize].take()
    }

    pub(super) fn put_back(&mut self, key: RoomKey, slice: Box<RoomSlice>) {
        self.slices[key.index as usize] = Some(slice);
    }

    pub(super) fn remove(&mut self, key: RoomKey) -> Option<Box<RoomSlice>> {
        let slice = self.take(key)?;
        self.index.remove(&slice.id);
        let generation = &mut self.generations[key.index as usize];
        *generation = generation.wrapping_add(1);
        self.free.push(key.index);
        Some(slice)
    }

    /// All slices, in the order of the rooms' names.
    pub(super) fn keys(&self) -> impl Iterator<Item = RoomKey> + '_ {
        self.index.values().copied()
    }

    /// The slices of the rooms whose names begin with `prefix` and come behind `after`, in the
    /// order of their names.
    pub(super) fn behind<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a RoomId>,
    ) -> impl Iterator<Item = RoomKey> + 'a {
        let from = (first_of(prefix, after), Bound::Unbounded);
        let names = self.index.range::<str, _>(from);
        names.take_while(move |(room, _)| room.as_str().starts_with(prefix)).map(|(_, key)| *key)
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}
