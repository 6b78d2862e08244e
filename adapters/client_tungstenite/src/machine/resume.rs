//! Coming back to all rooms at once: which ones to name in `connect`, and what to make of the
//! server's answer.
//!
//! A room that the server does not bring back is asked for like any other; none is forgotten.

use domain::protocol::Resume;
use domain::protocol::client_frame::{RESUME_ROOMS_MAX, encoded_len};
use domain::protocol::server_event as wire;
use domain::room::RoomId;
use tokio::time::Instant;

use super::Machine;
use super::rooms::RoomPhase;
use crate::error::Refusal;
use crate::event::{Event, Gap, Malformed, Subscribed, Violation, position, span};

/// The most bytes of `connect` that rooms take: half of what a server takes as it comes, so that
/// tokens fit beside them.
const RESUME_BYTES_MAX: usize = 32 * 1024;

impl Machine {
    /// The rooms to name in `connect`; they are on the way in from then on. Rooms that the
    /// application waits for to be in are asked for one by one, so that it gets its answer; so are
    /// those that one message does not hold.
    pub(super) fn resume(&mut self) -> Vec<Resume> {
        let (mut resume, mut bytes) = (Vec::new(), 0);
        for (room, entry) in &mut self.rooms {
            let Some(since) = entry.track.since() else { continue };
            let is_asked = self.requests.find_subscribe(room).is_some();
            if is_asked || entry.phase != RoomPhase::Away || resume.len() == RESUME_ROOMS_MAX {
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
        for entry in self.rooms.values_mut().filter(|entry| entry.phase == RoomPhase::Joining) {
            entry.phase = RoomPhase::Away;
        }
    }

    /// What became of the rooms that were named.
    pub(super) fn resumed(&mut self, resumed: Vec<wire::EventResumed<'_>>, now: Instant) {
        for resumed in resumed {
            let done = match resumed {
                wire::EventResumed::Back(back) => self.back(back),
                wire::EventResumed::Refused(refused) => {
                    self.not_back(refused, now);
                    Ok(())
                }
            };
            if let Err(Malformed) = done {
                self.violation(Violation::Malformed { why: "a number is out of range".into() });
            }
        }
        let is_left_out = |(room, phase): (&RoomId, RoomPhase)| {
            let asked = self.requests.find_subscribe(room).is_some();
            (phase == RoomPhase::Joining && !asked).then(|| room.clone())
        };
        let left_out: Vec<_> =
            self.rooms.iter().filter_map(|(r, entry)| is_left_out((r, entry.phase))).collect();
        for room in left_out {
            self.join(&room, now);
        }
    }

    fn back(&mut self, from: wire::EventBack<'_>) -> Result<(), Malformed> {
        let room = from.room;
        match self.rooms.get_mut(&room) {
            Some(entry) if entry.phase == RoomPhase::Joining => entry.phase = RoomPhase::Joined,
            // Left meanwhile; the leave is on its way.
            Some(entry) if entry.phase == RoomPhase::Leaving => return Ok(()),
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
        self.batch(&room, from.messages, reached, more)
    }

    fn not_back(&mut self, from: wire::EventNotBack<'_>, now: Instant) {
        let is_on_its_way = |phase| phase == RoomPhase::Joining;
        if !self.rooms.get(&from.room).is_some_and(|entry| is_on_its_way(entry.phase)) {
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
