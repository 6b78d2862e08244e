//! Holes: what a shard did not get is read from the log before anything goes on, or named in a
//! `gap`. Never silence, never a guess.

use std::sync::Arc;

use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::membership::MemberState;
use domain::position::Position;
use domain::protocol::ServerFrame;
use domain::recovery::Gap;
use domain::room::RoomId;

use super::calls::{CallTag, ColdCall, Outcome};
use smallvec::SmallVec;

use super::audiences::Choice;
use super::held::Held;
use super::rooms::{Follows, Item, Owed, RoomKey, Silent, VACATED};
use super::table::Echo;
use super::{Host, Shard, Slot};
use crate::metrics::HoleCause;
use crate::ports::outbox::Frame;
use crate::use_cases::recover_room::{RecoverRoom, RecoveredPage};

impl Shard {
    /// The mailbox had no room for something of this room.
    pub(super) fn note_hole(&mut self, room: &RoomId) {
        let Some(key) = self.rooms.find(room) else { return };
        self.metrics.holes.add(HoleCause::Mailbox, 1);
        let Some(slice) = self.rooms.get_mut(key) else { return };
        match &mut slice.fill {
            // The read that is under way may have ended before what is missing.
            Some(held) => held.overflow(),
            None => self.start_fill(key),
        }
        self.miss_presence(key);
    }

    /// Holds what comes and reads what is missing.
    pub(super) fn start_fill(&mut self, key: RoomKey) {
        let Some(slice) = self.rooms.get_mut(key) else { return };
        let Some(since) = slice.seen else {
            // Nobody is live yet; joiners find the hole themselves when they meet the stream.
            for joiner in &mut slice.joiners {
                joiner.held.overflow();
            }
            return;
        };
        slice.fill = Some(Held::default());
        self.fill_behind(key, since);
    }

    fn fill_behind(&mut self, key: RoomKey, since: Position) {
        let Some(slice) = self.rooms.get_mut(key) else { return };
        slice.n_reads += 1;
        if let Some(held) = &mut slice.fill {
            held.n_before_read = held.publications.len();
        }
        if let Some(call) = self.read_behind(key, since) {
            let future = Box::pin(async move { Outcome::Filled(call.execute().await) });
            self.calls.push_back(ColdCall { tag: CallTag::Room(key), future });
        }
    }

    fn read_behind(&self, key: RoomKey, since: Position) -> Option<RecoverRoom> {
        let slice = self.rooms.get(key)?;
        Some(RecoverRoom {
            services: Arc::clone(&self.services),
            room: slice.id.clone(),
            policy: Arc::clone(&slice.policy),
            since,
            own_hole: true,
            bytes_max: self.services.rules.limits.page_bytes_max,
            filter: None,
        })
    }

    pub(super) fn finish_read(&mut self, key: RoomKey, outcome: Outcome, host: &mut Host<'_>) {
        let Some(slice) = self.rooms.get_mut(key) else { return };
        match outcome {
            Outcome::Listed(list) => self.finish_listing(key, list, host),
            Outcome::Looked(result) => {
                slice.looking = false;
                // A look that fails is repeated; one that meets a fill knows nothing new.
                if let (Ok(page), None) = (result, &slice.fill) {
                    self.finish_look(key, page, host);
                }
            }
            Outcome::Filled(Ok(page)) => self.fill_with(key, &page, host),
            Outcome::Filled(Err(_)) if self.services.rules.limits.look_every().is_some() => {
                // A broker on another machine comes back; until then everything waits behind the hole.
                slice.fill_failed = true;
            }
            Outcome::Filled(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a hole can't be filled");
                self.end_all_of(key, host);
            }
            _ => self.end_all_of(key, host),
        }
    }

    fn fill_with(&mut self, key: RoomKey, page: &RecoveredPage, host: &mut Host<'_>) {
        if let Some(gap) = page.gap {
            self.announce_gap(key, gap, host);
            if let Some(slice) = self.rooms.get_mut(key) {
                let begin = Position { epoch: page.reached.epoch, offset: page.after };
                slice.audiences.stand_at(begin);
            }
        }
        for published in &page.messages {
            if let (Some(offset), Some(slice)) =
                (published.publication.offset, self.rooms.get_mut(key))
            {
                slice.see(Position { epoch: published.publication.epoch, offset });
            }
            self.admit(key, published, host);
        }
        let Some(slice) = self.rooms.get_mut(key) else { return };
        slice.see(page.reached);
        if page.more {
            return self.fill_behind(key, page.reached);
        }
        let Some(held) = slice.fill.take() else { return };
        self.metrics.holes_filled.add(1);
        if held.is_lost {
            return self.end_all_of(key, host);
        }
        if held.overflowed {
            self.start_fill(key);
            if let Some(slice) = self.rooms.get_mut(key) {
                slice.fill = Some(held.forget_positioned());
            }
            return;
        }
        for (at, (published, _)) in held.publications.into_iter().enumerate() {
            // The log is at least as new as what came before it was read: of another epoch, that
            // is a late message of a log that was lost.
            let positioned = published.publication.offset.is_some();
            let other = published.publication.epoch != page.reached.epoch;
            if !(positioned && other && at < held.n_before_read) {
                self.accept(key, published, host);
            }
        }
        // What waits behind another hole now came before that one is read.
        match self.rooms.get_mut(key).and_then(|slice| slice.fill.as_mut()) {
            Some(held) => held.n_before_read = held.publications.len(),
            None => self.settle_echoes(key, host),
        }
        self.promote(key, host);
    }

    /// Tells all live members of a gap, behind what is already on its way to them. Joiners find
    /// it themselves.
    fn announce_gap(&mut self, key: RoomKey, gap: Gap, host: &mut Host<'_>) {
        let Some(room) = self.rooms.get(key).map(|slice| slice.id.clone()) else { return };
        let told = ServerFrame::Gap { room: &room, gap };
        let document = self.encode_document(key, &told, host);
        let bytes = self.encode(&told, host);
        let frame = Frame { bytes, class: Class::Reliable, key: None };
        self.metrics.gaps.add(gap.reason, 1);
        let mut silent = self.lost_echoes(key, gap);
        let owed = self.rooms.get_mut(key).map(|slice| std::mem::take(&mut slice.owed));
        let owed = owed.into_iter().flatten().filter(|owed| owed.epoch == gap.epoch);
        for Owed { slot, previous, .. } in owed {
            // Of its own one before nobody has told it: for all that it knows, that is missing, too.
            let from = previous.next().map_or(gap.from, |own| own.min(gap.from));
            let told = ServerFrame::Gap { room: &room, gap: Gap { from, ..gap } };
            let (position, command, instead) = (None, None, Some(self.encode(&told, host)));
            silent.push(Silent { slot, position, command, behind: false, instead });
        }
        let chosen = Choice::Everyone(document);
        self.enqueue(key, Item { frame, to: Follows::Nothing, chosen, silent });
        if let Some(slice) = self.rooms.get_mut(key) {
            for joiner in &mut slice.joiners {
                joiner.held.overflow();
            }
        }
    }

    /// The publishes with `echo:false` whose place lies in a gap: their `ack` comes behind it.
    fn lost_echoes(&self, key: RoomKey, gap: Gap) -> SmallVec<[Silent; 1]> {
        let Some(slice) = self.rooms.get(key) else { return SmallVec::new() };
        let lost = |echo: &Echo| {
            if echo.position.epoch == gap.epoch {
                return echo.position.offset <= gap.to;
            }
            // The log is at least as new as what was written down before it was read.
            slice.has_epoch(echo.position) || echo.n_reads < slice.n_reads
        };
        let waiting = self.waiting_echoes(key).into_iter();
        let lost = waiting.filter(|(_, echo)| lost(echo));
        lost.map(|(slot, echo)| {
            let Echo { position, command, .. } = echo;
            Silent { slot, position: Some(position), command, behind: true, instead: None }
        })
        .collect()
    }

    fn waiting_echoes(&self, key: RoomKey) -> SmallVec<[(Slot, Echo); 1]> {
        let Some(slice) = self.rooms.get(key) else { return SmallVec::new() };
        let of = |slot| self.table.get(slot).map_or(&[][..], |entry| &entry.echoes);
        let all = slice.members.iter().flat_map(|m| of(m.slot).iter().map(|e| (m.slot, *e)));
        all.filter(|(_, echo)| echo.room == key && !echo.acknowledged).collect()
    }

    /// A hole is filled. Whose publish is of an epoch that was not met gets the `ack` now if that
    /// epoch is over; if that can't be known yet, the log is asked once more.
    fn settle_echoes(&mut self, key: RoomKey, host: &mut Host<'_>) {
        let mut asks = false;
        for (slot, echo) in self.waiting_echoes(key) {
            let Some(slice) = self.rooms.get_mut(key) else { return };
            if !slice.is_foreign(echo.position) {
                continue;
            }
            if echo.n_reads >= slice.n_reads {
                asks = true;
                continue;
            }
            let room = slice.id.clone();
            let Some(entry) = self.table.get_mut(slot) else { continue };
            let Some(MemberState::Live(place)) = entry.rooms.state(key) else { continue };
            if !slice.put_behind(slot, place, echo.position, echo.command) {
                entry.take_echo(key, echo.position);
                self.acknowledge(slot, echo.command, &room, &echo.receipt(), host);
            }
        }
        if asks && self.rooms.get(key).is_some_and(|slice| slice.fill.is_none()) {
            self.start_fill(key);
        }
    }

    /// Asks again for what had no answer, and compares the positions of all rooms with the broker's, for brokers that
    /// may lose a notification without knowing.
    pub(super) fn look_at_positions(&mut self) {
        let compares = self.services.rules.limits.position_check.is_some();
        let keys: Vec<_> = self.rooms.keys().collect();
        for key in keys {
            self.look_at_list(key);
            let Some(slice) = self.rooms.get_mut(key) else { continue };
            let Some(seen) = slice.seen else { continue };
            if std::mem::take(&mut slice.fill_failed) {
                self.fill_behind(key, seen);
            } else if compares && slice.fill.is_none() && !slice.looking {
                slice.looking = true;
                if let Some(call) = self.read_behind(key, seen) {
                    let future = Box::pin(async move { Outcome::Looked(call.execute().await) });
                    self.calls.push_back(ColdCall { tag: CallTag::Room(key), future });
                }
            }
        }
    }

    /// The broker stands at `page.reached`. What it has more than the slice may be on its way in
    /// the mailbox: messages can be taken from either, a gap only if it is there next time too.
    fn finish_look(&mut self, key: RoomKey, page: RecoveredPage, host: &mut Host<'_>) {
        let Some(slice) = self.rooms.get_mut(key) else { return };
        let Some(seen) = slice.seen else { return };
        if page.reached.epoch != seen.epoch {
            return self.start_fill(key);
        }
        if page.gap.is_some_and(|gap| gap.to > seen.offset) {
            let waited =
                slice.suspect.is_some_and(|at| at.epoch != seen.epoch || at.offset > seen.offset);
            slice.suspect = Some(page.reached);
            if waited {
                slice.suspect = None;
                self.start_fill(key);
            }
            return;
        }
        slice.suspect = None;
        for published in page.messages {
            self.accept(key, published, host);
        }
    }

    fn end_all_of(&mut self, key: RoomKey, host: &mut Host<'_>) {
        let Some(slice) = self.rooms.get(key) else { return };
        let members = slice.members.iter().map(|member| member.slot);
        let slots: Vec<_> = members.chain(slice.joiners.iter().map(|joiner| joiner.slot)).collect();
        for slot in slots.into_iter().filter(|slot| *slot != VACATED) {
            self.end(slot, CloseCode::InsufficientState, None, host);
        }
        if let Some(slice) = self.rooms.get_mut(key) {
            slice.fill = None;
        }
        self.release_if_unused(key);
    }
}
