//! Places of a room's log, live or missed: what is told, and what is asked for again.
//!
//! It must never take a place before the message is known to be the next, nor go on with a list once the
//! connection is to be given up.

use crate::client::life::Lost;
use crate::client::machine::Machine;
use crate::client::machine::requests::{Answer, Kind};
use crate::client::machine::rooms::RoomPhase;
use crate::client::planted::Mistake;
use crate::client::track::{Place, Track};
use crate::codes::CloseCode;
use crate::position::Position;
use crate::protocol::client_event::{Ack, Event, Gap, LogEntry, Malformed, Violation, position};
use crate::protocol::server_event as wire;
use crate::recovery::GapReason;
use crate::room::RoomId;

/// Why messages will not come that the server neither sent nor named, twice at the same place.
const MISSING: &str = "missing";

impl<R> Machine<R> {
    pub(super) fn page(&mut self, from: wire::Page<'_>) -> Result<(), Malformed> {
        let reached = position(from.epoch, from.offset)?;
        self.batch(&from.room, from.messages, reached, from.more)
    }

    /// What was missed, up to `reached`.
    pub(super) fn batch(
        &mut self,
        room: &RoomId,
        messages: Vec<wire::LogEntry<'_>>,
        reached: Position,
        more: bool,
    ) -> Result<(), Malformed> {
        for entry in messages {
            self.entry(LogEntry::from_wire(entry)?);
            if self.verdict.is_some() {
                return Ok(());
            }
        }
        let Some(track) = self.track(room) else { return Ok(()) };
        let place = track.reach(reached);
        if place == Place::Duplicate {
            let (room, to) = (room.clone(), reached.offset);
            self.violation(Violation::WentBack { room, to });
        }
        if !self.is_promised(room, place, reached) {
            return Ok(());
        }
        let Some(track) = self.track(room) else { return Ok(()) };
        if matches!(place, Place::BehindHole { .. }) {
            track.stand(reached);
        }
        let position = track.position().unwrap_or(reached);
        if !more {
            self.events.push_back(Event::CaughtUp { room: room.clone(), position });
        }
        Ok(())
    }

    /// Where the client stands in a room. None for one that it is leaving, whose messages may
    /// still be on their way, and for one that it never asked for.
    fn track(&mut self, room: &RoomId) -> Option<&mut Track> {
        match self.rooms.get(room).map(|entry| (entry.phase, entry.leave)) {
            Some((RoomPhase::Leaving, _) | (_, Some(_))) => None,
            Some((RoomPhase::Joining | RoomPhase::Joined, None)) => {
                self.rooms.get_mut(room).map(|entry| &mut entry.track)
            }
            Some((RoomPhase::Away, None)) | None => {
                self.violation(Violation::NotSubscribed { room: room.clone() });
                None
            }
        }
    }

    /// Whether what comes of the room is told without a place: the server put the client into it, and no
    /// subscription will bring it. One that begins with what comes next may begin behind it.
    fn is_only_own(&self, room: &RoomId) -> bool {
        self.own_rooms.contains(room)
            && self.rooms.get(room).is_none_or(|entry| {
                let is_out = matches!(entry.phase, RoomPhase::Away | RoomPhase::Joining);
                is_out && entry.track.position().is_none()
            })
    }

    /// Whether a subscription from a position, on its way or to come, brings what comes of the room.
    fn is_brought(&self, room: &RoomId) -> bool {
        match self.room_phase(room) {
            Some(RoomPhase::Joining) => true,
            Some(RoomPhase::Away) => self.own_rooms.contains(room),
            _ => false,
        }
    }

    /// One place of a log, live or missed.
    pub(super) fn entry(&mut self, entry: LogEntry) {
        let (room, epoch, offset, previous) = match &entry {
            LogEntry::Message(message) if message.pattern.is_some() => {
                let pattern = message.pattern.clone().unwrap_or_default();
                return self.pattern_message(&pattern, entry);
            }
            LogEntry::Message(message) => {
                (&message.room, message.epoch, message.offset, message.previous)
            }
            LogEntry::Tombstone(tombstone) => {
                (&tombstone.room, tombstone.epoch, tombstone.offset, None)
            }
        };
        let room = room.clone();
        if self.is_only_own(&room) {
            return self.tell(entry);
        }
        if self.is_brought(&room) {
            return;
        }
        let Some(track) = self.track(&room) else { return };
        if let Some(offset) = offset {
            let at = Position { epoch, offset };
            let place = track.look(at, previous);
            if !self.is_promised(&room, place, at) {
                return;
            }
            if let Some(entry) = self.rooms.get_mut(&room) {
                entry.track.accept(at, previous);
            }
            match place {
                Place::Next | Place::BehindHole { .. } | Place::NewEpoch => {}
                Place::Own => return,
                Place::Duplicate => return self.violation(Violation::Duplicate { room, offset }),
            }
        }
        self.tell(entry);
    }

    pub(super) fn tell(&mut self, entry: LogEntry) {
        self.events.push_back(match entry {
            LogEntry::Message(message) => Event::Message(message),
            LogEntry::Tombstone(tombstone) => Event::Tombstone(tombstone),
        });
    }

    /// Whether to go on with a place that the server names. What is missing is asked for again once, by
    /// coming back; what is missing then, too, will not come.
    fn is_promised(&mut self, room: &RoomId, place: Place, at: Position) -> bool {
        let (from, to, reason) = match place {
            Place::Next | Place::Own | Place::Duplicate => return true,
            Place::NewEpoch => {
                self.violation(Violation::EpochChanged { room: room.clone() });
                (at.offset, at.offset.previous(), GapReason::EpochChanged.word())
            }
            Place::BehindHole { from, to } => {
                self.violation(Violation::Hole { room: room.clone(), from, to });
                let Some(entry) = self.rooms.get_mut(room) else { return false };
                let stood = entry.track.position().map(|position| position.offset);
                if entry.hole_at != stood {
                    entry.hole_at = stood;
                    let code = CloseCode::InsufficientState.number();
                    self.verdict = Some(Lost::new(code, format!("{room}: messages are missing")));
                    return false;
                }
                (from, to, MISSING)
            }
        };
        let (room, reason) = (room.clone(), reason.to_owned());
        self.events.push_back(Event::Gap(Gap { room, epoch: at.epoch, from, to, reason }));
        true
    }

    pub(super) fn gap(&mut self, gap: Gap) {
        if self.is_only_own(&gap.room) {
            return self.events.push_back(Event::Gap(gap));
        }
        if self.own_rooms.contains(&gap.room) && self.is_brought(&gap.room) {
            return;
        }
        let Some(track) = self.track(&gap.room) else { return };
        let mut gap = gap;
        if let Place::BehindHole { from, to } = track.skip(&gap) {
            // What is missing before it will not come either.
            self.violation(Violation::Hole { room: gap.room.clone(), from, to });
            gap.from = from;
        }
        self.events.push_back(Event::Gap(gap));
    }

    pub(super) fn ack(&mut self, ack: wire::Ack<'_>) -> Result<(), Malformed> {
        let Some(id) = ack.id else { return Ok(()) };
        let pending = self.requests.take(id);
        let publish = match pending.as_ref().map(|pending| &pending.kind) {
            Some(Kind::Publish(publish)) => Some((publish.echo, publish.msg_id.clone())),
            _ => None,
        };
        let is_silent = match &publish {
            Some((echo, _)) => !echo,
            None => self.requests.take_late(id),
        };
        // In its publisher's own order the acknowledgement stands for the message. That of a duplicate comes before
        // it, for one that was repeated: the message itself is not wanted back either way.
        if is_silent
            && !self.soil.has(Mistake::PlaceNotPassed)
            && let Some(offset) = ack.offset
            && let Some(entry) = self.rooms.get_mut(&ack.room)
            && let Ok(at) = position(ack.epoch, offset)
        {
            entry.track.pass(at);
        }
        // Without one it was of a publish that is over.
        let Some(pending) = pending else { return Ok(()) };
        let Some((_, msg_id)) = publish else {
            self.wrong_answer(pending);
            return Ok(());
        };
        match Ack::from_wire(ack, msg_id) {
            Ok(ack) => self.resolve(pending, Ok(Answer::Acked(ack))),
            Err(malformed) => {
                let unanswered = pending.unpublished();
                if let Some(error) = unanswered {
                    self.resolve(pending, Err(error));
                }
                return Err(malformed);
            }
        }
        Ok(())
    }
}
