//! What members show of themselves: at a pace, and above it the newest takes the place of what waits.
//!
//! Every update that is taken is answered, and with what became of the one that took its place. It must never let an
//! older one overtake a newer.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use domain::codes::ErrorCode;
use domain::protocol::{ServerFrame, compact_lines};
use domain::room::RoomId;
use smallvec::SmallVec;

use super::calls::Outcome;
use super::seated::unanswered;
use super::{Host, Shard, Slot};
use crate::refusal::Refusal;
use crate::use_cases::list_presence::PresenceRefused;
use crate::use_cases::update_presence::UpdatePresence;

/// The most rooms of one connection whose updates wait; above it `rate_limited`.
const ROOMS_MAX: usize = 8;
/// The most updates of one room that wait to be answered together; above it `rate_limited`.
const COMMANDS_MAX: usize = 64;

/// The commands that one update answers.
type Commands = SmallVec<[Option<u64>; 1]>;

/// An update that waits for its time, and those whose place it took.
#[derive(Debug)]
struct Waiting {
    room: RoomId,
    data: Bytes,
    commands: Commands,
}

/// The updates of one connection that came too fast, oldest room first.
#[derive(Debug, Default)]
pub(super) struct Showing {
    waiting: VecDeque<Waiting>,
}

impl Showing {
    /// Takes an update of a room, if there is place.
    fn hold(&mut self, room: &RoomId, data: Bytes, command: Option<u64>) -> bool {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.room == *room) {
            if waiting.commands.len() >= COMMANDS_MAX {
                return false;
            }
            waiting.data = data;
            waiting.commands.push(command);
            return true;
        }
        let has_place = self.waiting.len() < ROOMS_MAX;
        if has_place {
            let commands = SmallVec::from_buf([command]);
            self.waiting.push_back(Waiting { room: room.clone(), data, commands });
        }
        has_place
    }
}

impl Shard {
    pub(super) fn presence_update(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: RoomId,
        data: &str,
        host: &mut Host<'_>,
    ) {
        let limits = &self.services.rules.limits;
        if self.services.rules.policies.of(&room).is_some()
            && data.len() > limits.metadata_bytes_max
        {
            let message = "presence data is larger than this server takes";
            let refusal = Refusal::new(ErrorCode::TooLarge, message).field("data");
            return self.refuse(slot, command, &refusal, host);
        }
        let (rate, now) = (limits.presence_updates, host.now.monotonic);
        let data = Bytes::copy_from_slice(compact_lines(data).as_bytes());
        let commands = SmallVec::from_buf([command]);
        if !self.may_show(slot, &room) {
            return self.show(slot, room, data, commands, host);
        }
        let Some(entry) = self.table.get_mut(slot) else { return };
        let has_waiting = entry.showing.is_some();
        // What waits is older; then it is only looked when the next may be taken.
        let mut limiter = entry.presence_updates;
        let taken = limiter.take(rate, now);
        if taken.is_ok() && !has_waiting {
            entry.presence_updates = limiter;
            return self.show(slot, room, data, commands, host);
        }
        let wait = taken.err().unwrap_or_default();
        if entry.showing.get_or_insert_default().hold(&room, data, command) {
            return self.visit_at(slot, now.after(wait));
        }
        let message = "presence data changes too fast";
        let refusal = Refusal::new(ErrorCode::RateLimited, message).retry_after(wait);
        self.refuse(slot, command, &refusal, host);
    }

    /// Carries out what waits, one after the other, as far as its time has come.
    pub(super) fn show_waiting(&mut self, slot: Slot, host: &mut Host<'_>) {
        let (rate, now) = (self.services.rules.limits.presence_updates, host.now.monotonic);
        while let Some(entry) = self.table.get_mut(slot) {
            // Behind its end there is another look.
            if entry.is_busy() {
                return;
            }
            let Some(showing) = &mut entry.showing else { return };
            if let Err(wait) = entry.presence_updates.take(rate, now) {
                return self.visit_at(slot, now.after(wait));
            }
            let next = showing.waiting.pop_front();
            if showing.waiting.is_empty() {
                entry.showing = None;
            }
            let Some(Waiting { room, data, commands }) = next else { return };
            self.show(slot, room, data, commands, host);
        }
    }

    /// Gives up what waits for a room that the connection leaves: it was for this stay there.
    pub(super) fn drop_waiting(&mut self, slot: Slot, room: &RoomId, host: &mut Host<'_>) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        let Some(showing) = &mut entry.showing else { return };
        let Some(at) = showing.waiting.iter().position(|waiting| waiting.room == *room) else {
            return;
        };
        let given_up = showing.waiting.remove(at);
        if showing.waiting.is_empty() {
            entry.showing = None;
        }
        for id in given_up.into_iter().flat_map(|waiting| waiting.commands) {
            self.refuse_non_member(slot, id, host);
        }
    }

    /// Whether the connection is in the room, which has rules; else the update is refused without waiting.
    fn may_show(&self, slot: Slot, room: &RoomId) -> bool {
        let member = self.rooms.find(room).and_then(|key| self.table.get(slot)?.rooms.state(key));
        member.is_some() && self.services.rules.policies.of(room).is_some()
    }

    fn show(
        &mut self,
        slot: Slot,
        room: RoomId,
        data: Bytes,
        mut commands: Commands,
        host: &mut Host<'_>,
    ) {
        let policy = match self.find_policy(&room) {
            Ok(policy) if self.may_show(slot, &room) => policy,
            Ok(_) => {
                return commands.into_iter().for_each(|id| self.refuse_non_member(slot, id, host));
            }
            Err(refusal) => {
                return commands.into_iter().for_each(|id| self.refuse(slot, id, &refusal, host));
            }
        };
        let Some(who) = self.who(slot) else { return };
        let services = Arc::clone(&self.services);
        // The newest is the call's own; the others are answered with it.
        let command = commands.pop().flatten();
        let (beside, room_unanswered) = (commands.clone(), room.clone());
        let call = UpdatePresence { services, who, room: room.clone(), policy, data };
        let future = Box::pin(async move {
            Outcome::PresenceUpdated { result: call.execute().await, room, beside: commands }
        });
        let otherwise = move || {
            let result = Err(PresenceRefused::Presence(unanswered()));
            Outcome::PresenceUpdated { result, room: room_unanswered, beside }
        };
        self.call_seated(slot, command, None, future, otherwise);
    }

    pub(super) fn finish_presence_update(
        &mut self,
        slot: Slot,
        (command, beside): (Option<u64>, Commands),
        room: &RoomId,
        result: Result<(), PresenceRefused>,
        host: &mut Host<'_>,
    ) {
        let refusal = result.err().map(Refusal::from);
        for command in beside.into_iter().chain([command]) {
            match &refusal {
                None if command.is_some() => {
                    self.tell(slot, &ServerFrame::PresenceUpdated { id: command, room }, host);
                }
                None => {}
                Some(refusal) => {
                    self.refuse_in(slot, command, ("presence", room), refusal, host);
                }
            }
        }
    }
}
