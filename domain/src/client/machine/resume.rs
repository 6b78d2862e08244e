//! Coming back to all rooms at once: which ones to name in `connect`, and what to make of the
//! server's answer.
//!
//! A room that the server does not bring back is asked for like any other; none is forgotten.

use crate::client::life::Moment;
use crate::client::machine::Machine;
use crate::client::machine::rooms::{Room, RoomPhase};
use crate::protocol::Resume;
use crate::protocol::client_event::{
    Event, Gap, Malformed, Refusal, Subscribed, Violation, position, span,
};
use crate::protocol::client_frame::{RESUME_ROOMS_MAX, encoded_len};
use crate::protocol::server_event as wire;
use crate::room::RoomId;

/// The most bytes of `connect` that rooms take: half of what a server takes as it comes, so that
/// tokens fit beside them.
const RESUME_BYTES_MAX: usize = 32 * 1024;

impl<R> Machine<R> {
    /// The rooms to name in `connect`; they are on the way in from then on. Rooms that the
    /// application waits for to be in are asked for one by one, so that it gets its answer; so are
    /// those that one message does not hold.
    pub(super) fn resume(&mut self) -> Vec<Resume> {
        let (mut resume, mut bytes) = (Vec::new(), 0);
        for (room, entry) in &mut self.rooms {
            let Some(since) = entry.track.position() else { continue };
            if entry.wish.is_some()
                || entry.phase != RoomPhase::Away
                || resume.len() == RESUME_ROOMS_MAX
            {
                continue;
            }
            let (room, presence, filter) = (room.clone(), entry.presence, entry.filter.clone());
            let named = Resume { room, since, presence, filter };
            bytes += encoded_len(&named);
            if bytes > RESUME_BYTES_MAX {
                break;
            }
            entry.phase = RoomPhase::Joining;
            resume.push(named);
        }
        resume
    }

    /// None of the rooms that were named is on the way in any more.
    pub(super) fn rooms_away(&mut self) {
        for entry in self.rooms.values_mut().filter(|entry| entry.is_named()) {
            entry.phase = RoomPhase::Away;
        }
    }

    /// What became of the rooms that were named.
    pub(super) fn resumed(&mut self, resumed: Vec<wire::EventResumed<'_>>, now: Moment) {
        for resumed in resumed {
            let done = match resumed {
                wire::EventResumed::Back(back) => self.back(back, now),
                wire::EventResumed::Refused(refused) => {
                    self.not_back(refused, now);
                    Ok(())
                }
            };
            if let Err(Malformed) = done {
                self.violation(Violation::Malformed { why: "a number is out of range".into() });
            }
            if self.verdict.is_some() {
                return;
            }
        }
        let left_out = |(_, entry): &(&RoomId, &Room)| entry.is_named();
        let rooms: Vec<_> =
            self.rooms.iter().filter(left_out).map(|(room, _)| room.clone()).collect();
        for room in rooms {
            self.join(&room, now);
        }
    }

    fn back(&mut self, from: wire::EventBack<'_>, now: Moment) -> Result<(), Malformed> {
        let room = from.room;
        match self.rooms.get_mut(&room) {
            Some(entry) if entry.is_named() => entry.phase = RoomPhase::Joined,
            // Left meanwhile; the leave is on its way.
            Some(entry) if entry.leave.is_some() => return Ok(()),
            Some(_) | None => {
                self.violation(Violation::NotSubscribed { room });
                return Ok(());
            }
        }
        let reached = position(from.epoch, from.offset)?;
        if let Some(gap) = from.gap {
            self.gap(Gap {
                room: room.clone(),
                epoch: from.epoch,
                from: position(from.epoch, gap.from)?.offset,
                to: position(from.epoch, gap.to)?.offset,
                reason: gap.reason.into_owned(),
            });
        }
        let (recovered, more) = (from.recovered, from.more);
        let subscribed = Subscribed { room: room.clone(), position: reached, recovered, more };
        self.events.push_back(Event::Subscribed(subscribed));
        self.follow_members(&room, now);
        self.batch(&room, from.messages, reached, more)
    }

    fn not_back(&mut self, from: wire::EventNotBack<'_>, now: Moment) {
        if !self.rooms.get(&from.room).is_some_and(Room::is_named) {
            return;
        }
        let wire::EventResumeError { code, error, message, retry_after_ms } = from.error;
        let (error, message) = (error.into_owned(), message.into_owned());
        let refusal = Refusal { code, error, message, field: None, retry_after_ms };
        if refusal.is_temporary() {
            self.rejoin_later(from.room, retry_after_ms.map(span), now);
        } else {
            self.put_out(from.room, Some(refusal.code), Some(refusal.error));
        }
    }
}
