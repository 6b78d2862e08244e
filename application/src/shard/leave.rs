//! Use case *leave*: a connection's way out of a room, by its own wish, by an order or by a join that
//! came to nothing.
//!
//! It must never leave anything of a connection behind in a room, in presence or at the broker.

use std::sync::Arc;

use domain::membership::MemberState;
use domain::room::RoomId;

use super::calls::{JoinTag, Outcome};
use super::own_room::owner_of;
use super::rooms::{Member, RoomKey, VACATED};
use super::{Host, Shard, Slot};
use crate::planted::{Mistake, is_planted};
use crate::use_cases::join_room::presence_key;
use crate::use_cases::leave_room::LeaveRoom;

impl Shard {
    pub(super) fn unsubscribe(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: &RoomId,
        host: &mut Host<'_>,
    ) {
        let state = self.rooms.find(room).and_then(|key| {
            let state = self.table.get(slot)?.rooms.state(key)?;
            Some((key, state))
        });
        let Some((key, _)) = state else {
            if self.leave_own_room(slot, room) {
                return self.tell_unsubscribed(slot, command, room, host);
            }
            return self.refuse_non_member(slot, command, host);
        };
        let leave = self.leave_room(slot, key, host);
        self.tell_unsubscribed(slot, command, room, host);
        if let Some(leave) = leave {
            // The next join of this connection waits until presence has seen the leave.
            let future = Box::pin(async move {
                leave.execute().await;
                Outcome::Done
            });
            self.call(slot, None, None, future);
        }
    }

    /// Ends a membership without waiting for anything.
    pub(super) fn leave_now(&mut self, slot: Slot, key: RoomKey, host: &mut Host<'_>) {
        if let Some(leave) = self.leave_room(slot, key, host) {
            self.call_detached(Box::pin(async move {
                leave.execute().await;
                Outcome::Done
            }));
        }
    }

    /// Takes a connection out of a slice and answers what is left to do outside.
    fn leave_room(&mut self, slot: Slot, key: RoomKey, host: &mut Host<'_>) -> Option<LeaveRoom> {
        self.answer_echoes(slot, key, host);
        let who = self.who(slot)?;
        self.remove_from_slice(slot, key);
        let slice = self.rooms.get(key)?;
        let listed = slice.policy.presence_listed.then(|| (presence_key(&who), who.connection));
        let room = slice.id.clone();
        self.drop_waiting(slot, &room, host);
        let unsubscribe = self.release_slice(key).map(|token| (Arc::clone(&self.mailbox), token));
        if listed.is_none() && unsubscribe.is_none() {
            return None;
        }
        Some(LeaveRoom { services: Arc::clone(&self.services), room, listed, unsubscribe })
    }

    /// Gives the acknowledgements that waited for a place in an order that the connection will
    /// not see any more.
    fn answer_echoes(&mut self, slot: Slot, key: RoomKey, host: &mut Host<'_>) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        if entry.echoes.is_empty() {
            return;
        }
        let Some(slice) = self.rooms.get(key) else { return };
        let room = slice.id.clone();
        let mut waiting = Vec::new();
        entry.echoes.retain(|echo| {
            if echo.room == key && !echo.acknowledged {
                waiting.push(*echo);
            }
            echo.room != key
        });
        for echo in waiting {
            self.acknowledge(slot, echo.command, &room, &echo.receipt(), host);
        }
    }

    /// Takes a connection out of a slice's lists and out of its own.
    pub(super) fn remove_from_slice(&mut self, slot: Slot, key: RoomKey) {
        self.drop_pages(slot, key);
        let Some(entry) = self.table.get_mut(slot) else { return };
        let state = entry.rooms.leave(key);
        let Some(slice) = self.rooms.get_mut(key) else { return };
        if state.is_some() {
            slice.seats.give_back();
            self.metrics.members.sub(1);
            if let Some(user) = owner_of(&entry.who, &slice.id) {
                self.services.directory.listens_no_more(user);
            }
        }
        match state {
            None => {}
            Some(MemberState::Joining) => {
                let joiner = slice.joiner(slot).map(|joiner| (joiner.follows, joiner.audience));
                if let Some((follows, audience)) = joiner {
                    slice.n_followers -= u32::from(follows.is_any());
                    slice.audiences.leave(audience);
                }
                slice.joiners.retain(|joiner| joiner.slot != slot);
            }
            Some(MemberState::Live(place)) => {
                let place = place as usize;
                let Member { follows, audience, .. } = slice.members[place];
                slice.n_followers -= u32::from(follows.is_any());
                slice.audiences.leave(audience);
                if let Some(walk) = &mut slice.walk {
                    walk.vacated = true;
                    slice.members[place].slot = VACATED;
                    return;
                }
                slice.members.swap_remove(place);
                if let Some(moved) = slice.members.get(place).map(|member| member.slot)
                    && let Some(entry) = self.table.get_mut(moved)
                {
                    entry.rooms.place(key, place as u32);
                }
            }
        }
    }

    /// Undoes a join whose connection is gone.
    pub(super) fn undo(&mut self, tag: Option<JoinTag>, outcome: Outcome) {
        let Some(tag) = tag else { return };
        drop(outcome);
        if is_planted(Mistake::GhostOfJoin) {
            return;
        }
        // A slice that is gone has ended its subscription, but this join may have renewed it.
        let gone = self.rooms.get(tag.key).is_none();
        let leave = LeaveRoom {
            services: Arc::clone(&self.services),
            room: tag.room,
            listed: tag.listed,
            unsubscribe: gone.then(|| (Arc::clone(&self.mailbox), tag.token)),
        };
        self.call_detached(Box::pin(async move {
            leave.execute().await;
            Outcome::Done
        }));
    }
}
