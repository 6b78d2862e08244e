//! The hot path: from mail to the sockets of a room's members.
//!
//! Encoded once, joined once, then only bytes move. Nothing here may allocate, lock or encode per
//! delivery.

use std::sync::Arc;

use domain::membership::MemberState;
use domain::message::Publication;
use domain::position::Position;
use domain::protocol::selective::mark_previous;
use smallvec::SmallVec;

use super::audiences::{AudienceKey, Choice, Wanted, wanted};
use super::rooms::{Follows, Item, Member, Owed, RoomKey, RoomSlice, Silent, VACATED, Walk};
use super::table::Echo;
use super::walk::begin_walk;
use super::{Host, Shard, Slot};
use crate::mailbox::{Mail, Post};
use crate::metrics::HoleCause;
use crate::planted::{Mistake, is_planted};
use crate::ports::outbox::{Batch, Frame};
use crate::published::{Published, WireFormat};

/// Members whom one call of the outbox serves: half a kilobyte of the stack, and enough that the
/// call costs nothing beside its deliveries.
const RUN_MEMBERS: usize = u64::BITS as usize;

impl Shard {
    pub(super) fn take_mail(&mut self, post: &mut Post, host: &mut Host<'_>) {
        self.metrics.mail.add(post.mail.len() as u64);
        for mail in post.mail.drain(..) {
            match mail {
                Mail::Publication(published) => {
                    self.watch(&published, host);
                    if let Some(key) = self.rooms.find(&published.publication.room) {
                        self.accept(key, published, host);
                    }
                }
                Mail::Presence(room, event) => self.accept_presence(&room, &event, host),
            }
        }
        for room in std::mem::take(&mut post.holes) {
            self.note_hole(&room);
            self.watch_hole(&room, host);
        }
        if std::mem::take(&mut post.presence_hole) {
            self.miss_presence_of_all();
        }
        if std::mem::take(&mut post.watched_hole) {
            self.watch_holes(host);
        }
    }

    /// Lets a publication pass in its order, or puts it behind a hole.
    pub(super) fn accept(&mut self, key: RoomKey, published: Arc<Published>, host: &mut Host<'_>) {
        let held_max = self.services.rules.limits.held_bytes_max;
        let Some(slice) = self.rooms.get_mut(key) else { return };
        if let Some(fill) = &mut slice.fill {
            return fill.push(&published, Wanted::Whole, held_max);
        }
        if let Some(offset) = published.publication.offset {
            let epoch = published.publication.epoch;
            match slice.seen {
                Some(seen) if seen.epoch == epoch && offset <= seen.offset => return,
                Some(seen) if seen.epoch == epoch && is_planted(Mistake::HoleIgnored) => {
                    slice.see(Position { epoch, offset });
                }
                Some(seen) if seen.epoch != epoch || seen.offset.next() != Some(offset) => {
                    self.metrics.holes.add(HoleCause::Order, 1);
                    self.start_fill(key);
                    self.accept(key, published, host);
                    if let Some(held) = self.rooms.get_mut(key).and_then(|s| s.fill.as_mut()) {
                        held.n_before_read = held.publications.len();
                    }
                    return;
                }
                _ => slice.see(Position { epoch, offset }),
            }
        }
        self.admit(key, &published, host);
    }

    /// Puts a publication on its way to everyone in the room.
    pub(super) fn admit(&mut self, key: RoomKey, published: &Arc<Published>, host: &mut Host<'_>) {
        let held_max = self.services.rules.limits.held_bytes_max;
        let own = self.silent(key, published);
        let mut silent = self.settle_owed(key, published, own.as_ref(), host);
        silent.extend(own);
        let Some(slice) = self.rooms.get_mut(key) else { return };
        let publication = &published.publication;
        let bytes = published.frame(WireFormat::V2, |message| host.outbox.frame(message)).clone();
        let chosen =
            slice.audiences.choose(publication, |format, previous| match (format, previous) {
                (WireFormat::V2, Some(previous)) => {
                    host.outbox.frame(&mark_previous(published.message(), previous))
                }
                (WireFormat::V2, None) => bytes.clone(),
                (WireFormat::Document, _) => {
                    published.frame(format, |said| host.outbox.frame(said)).clone()
                }
            });
        for joiner in &mut slice.joiners {
            joiner.hold(published, wanted(&chosen, joiner.audience), held_max);
        }
        let has_joiners = !slice.joiners.is_empty();
        let frame_key = publication.key.as_ref().map(|name| (key.index, name.clone()));
        let frame = Frame { bytes, class: publication.class, key: frame_key };
        let chosen = Choice::Only(chosen);
        self.enqueue(key, Item { frame, to: Follows::Nothing, chosen, silent });
        if has_joiners {
            self.promote(key, host);
        }
    }

    /// Who of this shard sent it and does not want it back. A log may not keep where a message
    /// came from; then only who waits for its place is known.
    fn silent(&self, key: RoomKey, published: &Published) -> Option<Silent> {
        let Publication { epoch, offset, origin, sender, .. } = &published.publication;
        let position = offset.map(|offset| Position { epoch: *epoch, offset });
        if let Some(origin) = origin {
            let slot = self.table.slot_of(origin.connection)?;
            let (command, instead) = (origin.command, None);
            let silent = Silent { slot, position, command, behind: false, instead };
            return (!origin.echo).then_some(silent);
        }
        let slot = self.table.slot_of(sender.connection?)?;
        let mut echoes = self.table.get(slot)?.echoes.iter();
        let echo = echoes.find(|e| e.room == key && Some(e.position) == position)?;
        let (command, instead) = (echo.command, None);
        Some(Silent { slot, position, command, behind: false, instead })
    }

    /// Where messages are delivered before they are what their acknowledgement says, the place of who does not want its own
    /// one back passes without a word, and the next message says what it follows, or it would be taken for a hole.
    fn settle_owed(
        &mut self,
        key: RoomKey,
        published: &Published,
        own: Option<&Silent>,
        host: &mut Host<'_>,
    ) -> SmallVec<[Silent; 1]> {
        let mut told = SmallVec::new();
        let Some(slice) = self.rooms.get_mut(key) else { return told };
        if published.publication.offset.is_none() || (own.is_none() && slice.owed.is_empty()) {
            return told;
        }
        let mut before = None;
        for Owed { slot, previous, .. } in std::mem::take(&mut slice.owed) {
            if own.is_some_and(|own| own.slot == slot) {
                before = Some(previous);
                continue;
            }
            let bytes = host.outbox.frame(&mark_previous(published.message(), previous));
            let (position, command, instead) = (None, None, Some(bytes));
            told.push(Silent { slot, position, command, behind: false, instead });
        }
        let Some((slot, position)) = own.and_then(|own| Some((own.slot, own.position?))) else {
            return told;
        };
        let Some(entry) = self.table.get(slot) else { return told };
        let Some(MemberState::Live(place)) = entry.rooms.state(key) else { return told };
        let is_plain = |member: &Member| member.audience == AudienceKey::NONE;
        let is_late = self.services.ports.broker.level_of_delivery(&slice.policy).is_none();
        if is_late && slice.members.get(place as usize).is_some_and(is_plain) {
            let previous = before.unwrap_or_else(|| position.offset.previous());
            slice.owed.push(Owed { slot, epoch: position.epoch, previous });
        }
        told
    }

    /// Puts an item behind those that wait for a room.
    pub(super) fn enqueue(&mut self, key: RoomKey, item: Item) {
        let Some(slice) = self.rooms.get_mut(key) else { return };
        slice.accepted += 1;
        slice.pending.push_back(item);
        if !slice.queued {
            slice.queued = true;
            self.backlog.push_back(key);
        }
    }

    /// One step of sending: rooms take turns, and a large room keeps its place.
    pub(super) fn send_some(&mut self, host: &mut Host<'_>) {
        let mut budget = self.deliveries_per_step;
        while budget > 0 {
            let Some(key) = self.backlog.pop_front() else { break };
            let Some(mut slice) = self.rooms.take(key) else { continue };
            if slice.walk.is_none() {
                let joined_max = self.services.rules.limits.joined_bytes_max;
                slice.walk = begin_walk(&mut slice, joined_max);
            }
            if let Some(mut walk) = slice.walk.take() {
                self.walk(key, &slice, &mut walk, &mut budget, host);
                if walk.next < slice.members.len() {
                    slice.walk = Some(walk);
                } else if walk.vacated {
                    self.close_ranks(key, &mut slice);
                }
            }
            slice.queued = slice.walk.is_some() || !slice.pending.is_empty();
            if slice.queued {
                self.backlog.push_back(key);
            }
            let unused = !slice.queued && slice.is_unused();
            self.rooms.put_back(key, slice);
            if unused {
                self.release_if_unused(key);
            }
        }
        self.send_some_watched(&mut budget, host);
    }

    fn walk(
        &mut self,
        key: RoomKey,
        slice: &RoomSlice,
        walk: &mut Walk,
        budget: &mut usize,
        host: &mut Host<'_>,
    ) {
        let batch = Batch { joined: &walk.joined, frames: &walk.frames };
        let members = &slice.members[walk.next..];
        let members = &members[..members.len().min(*budget)];
        // Counted by the run: nothing is added per delivery.
        let mut n_whole = 0;
        for some in members.chunks(RUN_MEMBERS) {
            // Without a branch per member: nearly always all of them get the whole batch.
            let (mut run, mut n, mut others) = ([VACATED; RUN_MEMBERS], 0, 0_u64);
            for (place, member) in some.iter().enumerate() {
                let is_whole = walk.is_for_whole(member);
                run[n % RUN_MEMBERS] = member.slot;
                n += usize::from(is_whole);
                others |= u64::from(!is_whole) << place;
            }
            n_whole += n;
            let run = &run[..n];
            host.outbox.deliver_to_all(run, &batch, &mut self.refused);
            self.table.sent(run, host.now.monotonic);
            if others != 0 {
                self.give_others(key, slice, walk, (some, others), host);
            }
        }
        self.count(n_whole, &batch);
        walk.next += members.len();
        *budget -= members.len().min(*budget).max(usize::from(members.is_empty()));
    }

    /// Those of a run who don't get the batch as it is, by their places: who is in one audience and gets
    /// all that is for it, together; everybody else alone.
    fn give_others(
        &mut self,
        key: RoomKey,
        slice: &RoomSlice,
        walk: &Walk,
        (members, mut places): (&[Member], u64),
        host: &mut Host<'_>,
    ) {
        while places != 0 {
            let place = places.trailing_zeros() as usize;
            places &= places - 1;
            let Some(member) = members.get(place).filter(|member| walk.is_for(member)) else {
                continue;
            };
            if !walk.has_all_to_come(member) {
                self.give_part(key, slice, walk, *member, host);
                continue;
            }
            let (mut run, mut n, mut rest) = ([VACATED; RUN_MEMBERS], 1, places);
            run[0] = member.slot;
            while rest != 0 {
                let place = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                let Some(other) = members.get(place) else { continue };
                let is_alike = other.audience == member.audience
                    && walk.is_for(other)
                    && walk.has_all_to_come(other);
                run[n % RUN_MEMBERS] = other.slot;
                n += usize::from(is_alike);
                places &= !(u64::from(is_alike) << place);
            }
            self.give_chosen(walk, member.audience, &run[..n], host);
        }
    }

    /// Members of an audience get what is for it.
    fn give_chosen(
        &mut self,
        walk: &Walk,
        audience: AudienceKey,
        to: &[Slot],
        host: &mut Host<'_>,
    ) {
        let batch = match walk.parts.get(audience.index()) {
            _ if walk.parts.is_empty() => Batch { joined: &walk.joined, frames: &walk.frames },
            Some(part) => Batch { joined: &part.joined, frames: &part.frames },
            None => return,
        };
        if !batch.frames.is_empty() {
            host.outbox.deliver_to_all(to, &batch, &mut self.refused);
            self.table.sent(to, host.now.monotonic);
            self.count(to.len(), &batch);
        }
    }

    /// A member gets only part of a batch: what is for its audience, what it has not got while
    /// joining, without what it sent itself and does not want back.
    fn give_part(
        &mut self,
        key: RoomKey,
        slice: &RoomSlice,
        walk: &Walk,
        member: Member,
        host: &mut Host<'_>,
    ) {
        let slot = member.slot;
        let skip = member.accepted().saturating_sub(walk.first);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        // Gone through once beside the frames, however many publishers there are.
        let mut silent = &walk.silent[walk.silent.partition_point(|(of, _)| *of < skip)..];
        for at in skip..walk.frames.len() {
            let n_here = silent.iter().take_while(|(of, _)| *of == at).count();
            let (here, rest) = silent.split_at(n_here);
            silent = rest;
            let own = || here.iter().filter(|(_, silent)| silent.slot == slot);
            let frame = walk.frame_for(member.audience, at);
            let is_wanted =
                |(_, silent): &(usize, Silent)| silent.behind || silent.instead.is_some();
            if let Some(frame) = frame.filter(|_| own().all(is_wanted)) {
                let instead = own().find_map(|(_, silent)| silent.instead.clone());
                let other = instead.map(|bytes| Frame { bytes, ..frame.clone() });
                let frame = other.as_ref().unwrap_or(frame);
                let batch = Batch { joined: &frame.bytes, frames: std::slice::from_ref(frame) };
                let delivered = host.outbox.deliver(slot, &batch);
                self.count(1, &batch);
                self.delivered(slot, delivered, host);
            }
            for (_, silent) in own().filter(|(_, silent)| silent.instead.is_none()) {
                self.pass_echo(key, slice, silent, host);
            }
        }
    }

    /// The place of a publish with `echo:false` has come in its publisher's own order.
    fn pass_echo(&mut self, key: RoomKey, slice: &RoomSlice, silent: &Silent, host: &mut Host<'_>) {
        let Some(position) = silent.position else { return };
        let Some(entry) = self.table.get_mut(silent.slot) else { return };
        let echo = match entry.take_echo(key, position) {
            Some(echo) if echo.acknowledged => return,
            Some(echo) => echo,
            // Answered some other way.
            None if silent.behind => return,
            None => {
                // It may be here before it is what its acknowledgement says: then only the broker's answer tells.
                let Some(level) = self.services.ports.broker.level_of_delivery(&slice.policy)
                else {
                    return;
                };
                // The broker's answer is still on its way and finds this; or it was lost, and
                // the client was told to try again. Then it learns here that it need not.
                let command = silent.command;
                let (n_reads, acknowledged) = (0, true);
                let echo = Echo { room: key, position, command, level, acknowledged, n_reads };
                if entry.publishing == Some(command) {
                    entry.echoes.push(echo);
                }
                echo
            }
        };
        self.acknowledge(silent.slot, echo.command, &slice.id, &echo.receipt(), host);
    }

    /// Gives a joiner what was held for it.
    pub(super) fn give_held(
        &mut self,
        slot: Slot,
        (key, slice): (RoomKey, &RoomSlice),
        (published, wanted): (&Arc<Published>, Wanted),
        host: &mut Host<'_>,
    ) {
        let own = self.silent(key, published).filter(|silent| silent.slot == slot);
        if let Some(silent) = own {
            return self.pass_echo(key, slice, &silent, host);
        }
        let publication = &published.publication;
        let bytes = match wanted {
            Wanted::Whole => {
                published.frame(WireFormat::V2, |message| host.outbox.frame(message)).clone()
            }
            Wanted::Own(bytes) => bytes,
            Wanted::Not => return,
        };
        let frame_key = publication.key.as_ref().map(|name| (key.index, name.clone()));
        let frame = Frame { bytes, class: publication.class, key: frame_key };
        let batch = Batch { joined: &frame.bytes, frames: std::slice::from_ref(&frame) };
        let delivered = host.outbox.deliver(slot, &batch);
        self.count(1, &batch);
        self.delivered(slot, delivered, host);
    }

    /// Counts what so many members were given.
    pub(super) fn count(&self, n_members: usize, batch: &Batch<'_>) {
        self.metrics.deliveries.add((n_members * batch.frames.len()) as u64);
        self.metrics.delivery_bytes.add((n_members * batch.joined.len()) as u64);
    }

    /// Removes the members who left during a walk.
    fn close_ranks(&mut self, key: RoomKey, slice: &mut RoomSlice) {
        slice.members.retain(|member| member.slot != VACATED);
        for (place, member) in slice.members.iter().enumerate() {
            if let Some(entry) = self.table.get_mut(member.slot) {
                entry.rooms.place(key, place as u32);
            }
        }
    }
}
