//! Rights that are looked at again: the rooms that a connection loses by a fresh token, and the
//! host's authorizer asked from time to time.
//!
//! It runs on the connection's one deadline, beside its commands and at most once at a time. A
//! question without an answer must never keep somebody in a room for good.

use std::sync::Arc;

use domain::codes::{CloseCode, ErrorCode};
use domain::id::UserId;
use domain::membership::MemberState;
use domain::protocol::ServerFrame;
use domain::room::RoomId;
use domain::time::Monotonic;

use super::calls::{CallTag, ColdCall, Outcome};
use super::rooms::{Follows, RoomKey};
use super::{Host, Shard, Slot};
use crate::use_cases::revalidate::{Held, Lost, Revalidate};

/// Where a connection stands with the authorizer; only where it is asked from time to time.
#[derive(Debug)]
pub(super) struct Rights {
    /// When it is asked again.
    at: Monotonic,
    /// Tells an answer about an older token from the one that is waited for.
    round: u32,
    under_way: bool,
    /// Whether the last time nothing could be found out.
    unanswered: bool,
}

impl Shard {
    /// What a connection that opens begins with.
    pub(super) fn rights(&self, now: Monotonic) -> Option<Box<Rights>> {
        let interval = self.services.rules.revalidate_interval?;
        self.services.ports.authorizer.as_ref()?;
        let at = now.after(interval);
        Some(Box::new(Rights { at, round: 0, under_way: false, unanswered: false }))
    }

    /// The rooms that a connection is in.
    pub(super) fn held(&self, slot: Slot) -> Vec<Held> {
        let Some(entry) = self.table.get(slot) else { return Vec::new() };
        let held = entry.rooms.rooms().filter_map(|key| {
            let slice = self.rooms.get(key)?;
            let follows = match entry.rooms.state(key)? {
                MemberState::Live(place) => slice.members.get(place as usize)?.follows.is_any(),
                MemberState::Joining => {
                    slice.joiners.iter().any(|j| j.slot == slot && j.follows.is_any())
                }
            };
            let (room, policy) = (slice.id.clone(), Arc::clone(&slice.policy));
            Some(Held { key, room, policy, follows })
        });
        held.collect()
    }

    /// Asks the authorizer if it is time. Answers when it is next, if ever.
    pub(super) fn look_at_rights(&mut self, slot: Slot, host: &Host<'_>) -> Option<Monotonic> {
        let interval = self.services.rules.revalidate_interval?;
        let entry = self.table.get_mut(slot)?;
        let rights = entry.rights.as_mut()?;
        if host.now.monotonic < rights.at {
            return Some(rights.at);
        }
        rights.at = host.now.monotonic.after(interval);
        let (at, round) = (rights.at, rights.round);
        if std::mem::replace(&mut rights.under_way, true) {
            return Some(at);
        }
        let who = Arc::clone(&entry.who);
        let (services, rooms) = (Arc::clone(&self.services), self.held(slot));
        let call = Revalidate { services, who, rooms };
        let future = Box::pin(async move { Outcome::Revalidated(call.execute().await) });
        self.calls.push_back(ColdCall { tag: CallTag::Rights { slot, round }, future });
        Some(at)
    }

    /// The authorizer has answered, or nothing could be found out: the second time in a row the
    /// client is sent away to come back, as it may have lost its rights by now.
    pub(super) fn finish_revalidation(
        &mut self,
        slot: Slot,
        round: u32,
        outcome: Outcome,
        host: &mut Host<'_>,
    ) {
        let Some(rights) = self.table.get_mut(slot).and_then(|entry| entry.rights.as_mut()) else {
            return;
        };
        rights.under_way = false;
        if rights.round != round {
            return;
        }
        if let Outcome::Revalidated(Ok(lost)) = outcome {
            rights.unanswered = false;
            self.take_away(slot, &lost, host);
        } else if std::mem::replace(&mut rights.unanswered, true) {
            self.end(slot, CloseCode::TryAgainLater, None, host);
        }
    }

    /// Other rules count: who was not asked about so far is from now on, and nobody later than the
    /// new interval wants it. They come one after the other, as an authorizer that is asked about
    /// all at once would have no answer for most. Where nobody is to be asked any more, the next
    /// look sees that.
    pub(super) fn adopt_rights(&mut self, now: Monotonic) {
        let Some(interval) = self.services.rules.revalidate_interval else { return };
        let slots = self.table.slots();
        let n_slots = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        for (n, slot) in (1..).zip(slots) {
            let by = now.after(interval.saturating_mul(n) / n_slots);
            let fresh = self.rights(now);
            let Some(entry) = self.table.get_mut(slot).filter(|entry| entry.greeted) else {
                continue;
            };
            let Some(rights) = entry.rights.take().or(fresh) else { continue };
            let at = rights.at.min(by);
            entry.rights = Some(Box::new(Rights { at, ..*rights }));
            self.visit_at(slot, at);
        }
    }

    /// A fresh token was looked at just now: what is still asked about the old one is no matter.
    pub(super) fn restart_rights(&mut self, slot: Slot, now: Monotonic) {
        let Some(interval) = self.services.rules.revalidate_interval else { return };
        let Some(rights) = self.table.get_mut(slot).and_then(|entry| entry.rights.as_mut()) else {
            return;
        };
        rights.round = rights.round.wrapping_add(1);
        rights.at = now.after(interval);
        rights.unanswered = false;
    }

    /// Ends what a connection may not have any more, and says so.
    pub(super) fn take_away(&mut self, slot: Slot, lost: &Lost, host: &mut Host<'_>) {
        for key in &lost.presence {
            self.unfollow(slot, *key);
        }
        for key in &lost.rooms {
            let Some(room) = self.rooms.get(*key).map(|slice| slice.id.clone()) else { continue };
            let Some(state) = self.table.get(slot).and_then(|entry| entry.rooms.state(*key)) else {
                continue;
            };
            let slice = self.rooms.get_mut(*key);
            let joiner = slice.and_then(|slice| slice.joiner(slot));
            // Who does not know yet that it is in is refused when its join has ended.
            let is_told = state != MemberState::Joining || joiner.is_some_and(|j| j.told);
            self.leave_now(slot, *key, host);
            self.note_lost(slot, room.as_str(), host.now);
            if !is_told {
                continue;
            }
            let code = ErrorCode::PermissionDenied;
            let frame = ServerFrame::Unsubscribed {
                id: None,
                room: &room,
                code: Some(code.number()),
                reason: Some(code.word()),
            };
            self.tell(slot, &frame, host);
        }
    }

    /// Takes all connections of a user out of a room, those included that are on their way in. Who is
    /// banned at the same time can't come back: that is known already.
    pub(super) fn put_user_out(&mut self, user: &UserId, room: &RoomId, host: &mut Host<'_>) {
        let Some(key) = self.rooms.find(room) else { return };
        let lost = Lost { rooms: vec![key], presence: Vec::new() };
        for slot in self.table.slots() {
            let entry = self.table.get(slot);
            if entry.is_some_and(|entry| entry.who.principal.user.as_ref() == Some(user)) {
                self.take_away(slot, &lost, host);
            }
        }
    }

    fn unfollow(&mut self, slot: Slot, key: RoomKey) {
        let Some(entry) = self.table.get(slot) else { return };
        let Some(slice) = self.rooms.get_mut(key) else { return };
        let followed = match entry.rooms.state(key) {
            Some(MemberState::Live(place)) => {
                slice.members.get_mut(place as usize).map(|member| &mut member.follows)
            }
            Some(MemberState::Joining) => slice.joiner(slot).map(|joiner| &mut joiner.follows),
            None => None,
        };
        let Some(followed) = followed else { return };
        let was = std::mem::replace(followed, Follows::Nothing);
        slice.n_followers -= u32::from(was.is_any());
    }
}
