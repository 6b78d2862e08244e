//! Who follows a room's presence and what they are told of it: changes by themselves or gathered, a list, or how many
//! there are.
//!
//! What is said to all of them is encoded once and shared. When it is said is
//! [`domain::presence::gathering`]'s to decide, never this file's.

use bytes::Bytes;
use domain::delivery::Class;
use domain::documents::place::Place;
use domain::presence::gathering::{Gathered, Gathering, PresenceChanges, PresenceCount};
use domain::presence::{PresenceEvent, PresenceKey};
use domain::protocol::ServerFrame;
use domain::room::RoomId;
use domain::time::Monotonic;
use smallvec::SmallVec;

use super::audiences::Choice;
use super::rooms::{Follows, Item, RoomKey, Silent};
use super::{Host, Shard, Slot};
use crate::ports::outbox::Frame;
use crate::published::WireFormat;

impl Shard {
    pub(super) fn accept_presence(
        &mut self,
        room: &RoomId,
        event: &PresenceEvent,
        host: &mut Host<'_>,
    ) {
        let Some(key) = self.rooms.find(room) else { return };
        let now = host.now.monotonic;
        let is_at_once = self.gathering(key, |gathering| gathering.take(event, now));
        if is_at_once != Some(true) {
            return;
        }
        let told = ServerFrame::PresenceEvent { room, event };
        let document = self.encode_document(key, &told, host);
        let bytes = self.encode(&told, host);
        let own = self.not_told_of(&event.who);
        self.tell_followers(key, bytes, document, own, host);
    }

    /// Does something with what the followers of a room have still to be told; nothing where there are none.
    pub(super) fn gathering<T>(
        &mut self,
        key: RoomKey,
        act: impl FnOnce(&mut Gathering) -> T,
    ) -> Option<T> {
        let slice = self.rooms.get_mut(key)?;
        if slice.n_followers == 0 {
            slice.gathering = None;
            return None;
        }
        let limits = &self.services.rules.limits;
        let new = || {
            // Names can only be followed from a list that has them all, and a frame has to fit into a queue in which
            // something waits.
            let named_max = slice.policy.presence_named_max as usize;
            let named_max = named_max.min(limits.presence_list_max);
            Box::new(Gathering::new(named_max, limits.outbound_queue_bytes_max / 4))
        };
        let gathering = slice.gathering.get_or_insert_with(new);
        let before = gathering.due();
        let done = act(gathering);
        if let Some(due) = gathering.due().filter(|due| Some(*due) != before) {
            self.gatherings.insert((due, key));
        }
        if gathering.is_idle() {
            slice.gathering = None;
        }
        Some(done)
    }

    /// Whether members of a room are not told by their names, as far as is known here.
    pub(super) fn is_counted(&self, room: &RoomId) -> bool {
        let slice = self.rooms.find(room).and_then(|key| self.rooms.get(key));
        let gathering = slice.and_then(|slice| slice.gathering.as_deref());
        gathering.is_some_and(Gathering::is_counted)
    }

    /// When something that was gathered is to be told.
    pub(super) fn gathered_due(&self) -> Option<Monotonic> {
        self.gatherings.first().map(|(due, _)| *due)
    }

    /// Tells what was gathered of all rooms whose time has come.
    pub(super) fn tell_gathered(&mut self, host: &mut Host<'_>) {
        let now = host.now.monotonic;
        while let Some((due, key)) = self.gatherings.first().copied()
            && due <= now
        {
            self.gatherings.pop_first();
            let gathered = self.gathering(key, |gathering| gathering.tell(now));
            let room = self.rooms.get(key).map(|slice| slice.id.clone());
            let (Some(gathered), Some(room)) = (gathered, room) else { continue };
            let Gathered { changes, count, needs_list } = gathered;
            for changes in &changes {
                self.tell_changes(key, &room, changes, host);
            }
            if let Some(count) = count {
                self.tell_count(key, &room, count, host);
            }
            if needs_list {
                self.miss_presence(key);
            }
        }
    }

    /// Protocol v2 has one frame for them; by the documents' endpoints they are said one by one, and to nobody of
    /// itself.
    fn tell_changes(
        &mut self,
        key: RoomKey,
        room: &RoomId,
        changes: &PresenceChanges,
        host: &mut Host<'_>,
    ) {
        let bytes = self.encode(&ServerFrame::PresenceEvents { room, changes }, host);
        self.tell_followers(key, bytes, Bytes::new(), SmallVec::new(), host);
        let slice = self.rooms.get(key);
        if !slice.is_some_and(|slice| slice.audiences.has(WireFormat::Document)) {
            return;
        }
        for member in &changes.members {
            let event = PresenceEvent {
                seq: changes.seq,
                change: member.change,
                who: member.who.clone(),
                data: member.data.clone(),
                total: changes.total,
            };
            let told = ServerFrame::PresenceEvent { room, event: &event };
            let document = self.encode_document(key, &told, host);
            let own = self.not_told_of(&event.who);
            let to = Follows::Documents;
            self.tell_who_follow(key, to, (document.clone(), document), own, host);
        }
    }

    pub(super) fn tell_count(
        &mut self,
        key: RoomKey,
        room: &RoomId,
        count: PresenceCount,
        host: &mut Host<'_>,
    ) {
        let bytes = self.encode(&ServerFrame::PresenceCount { room, count }, host);
        self.tell_followers(key, bytes, Bytes::new(), SmallVec::new(), host);
    }

    /// Tells those who follow who is in the room, but `own`, in the words of their endpoints; nothing where
    /// those have none.
    pub(super) fn tell_followers(
        &mut self,
        key: RoomKey,
        bytes: Bytes,
        document: Bytes,
        own: SmallVec<[Slot; 2]>,
        host: &mut Host<'_>,
    ) {
        self.tell_who_follow(key, Follows::All, (bytes, document), own, host);
    }

    fn tell_who_follow(
        &mut self,
        key: RoomKey,
        to: Follows,
        (bytes, document): (Bytes, Bytes),
        own: SmallVec<[Slot; 2]>,
        host: &mut Host<'_>,
    ) {
        let waiting: SmallVec<[Slot; 4]> = self.rooms.get(key).map_or_else(SmallVec::new, |s| {
            s.joiners.iter().filter(|j| j.follows >= to && j.told).map(|j| j.slot).collect()
        });
        for slot in waiting.into_iter().filter(|slot| !own.contains(slot)) {
            let bytes = match self.format_of(slot) {
                WireFormat::V2 => &bytes,
                WireFormat::Document => &document,
            };
            if !bytes.is_empty() {
                self.give(slot, bytes.clone(), host);
            }
        }
        let frame = Frame { bytes, class: Class::Reliable, key: None };
        let chosen = Choice::Everyone(document);
        let silent = |slot| {
            let (position, command, instead) = (None, None, None);
            Silent { slot, position, command, behind: false, instead }
        };
        let silent = own.into_iter().map(silent).collect();
        self.enqueue(key, Item { frame, to, chosen, silent });
    }

    /// A member's own connections by the documents' endpoints: there others are told who comes and goes,
    /// and not the member.
    fn not_told_of(&self, who: &PresenceKey) -> SmallVec<[Slot; 2]> {
        let own: SmallVec<[Slot; 2]> = match who {
            PresenceKey::User(user) => {
                let own = Place::of_user(user)
                    .and_then(|room| self.watches.own.get(&room))
                    .map(|own| &own.slots);
                own.into_iter().flatten().copied().collect()
            }
            PresenceKey::Anonymous(connection) => {
                self.table.slot_of(*connection).into_iter().collect()
            }
        };
        own.into_iter().filter(|slot| self.format_of(*slot) == WireFormat::Document).collect()
    }
}
