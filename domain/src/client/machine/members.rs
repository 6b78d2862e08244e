//! Who is in the rooms that are followed: the list, and what changes.
//!
//! It must never leave a change out in silence: what was missed is asked for as a new list, of which one
//! at a time is on its way.

use std::time::Duration;

use crate::client::life::Moment;
use crate::client::machine::Machine;
use crate::client::machine::requests::{Answer, Kind};
use crate::protocol::client_event::{Event, PresenceChange, PresenceCount, PresenceState};
use crate::protocol::{ClientFrame, server_event as wire};
use crate::room::RoomId;

/// How far the application knows who is there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Roster {
    /// The number of the last change that it knows of.
    seq: u64,
    /// Whether it has a list to which the changes since then belong.
    is_listed: bool,
    /// Whether a list is on its way.
    is_asked: bool,
    /// Whether only numbers are told: then a list that is too old is not asked for again, one comes.
    is_counted: bool,
}

/// What a change means for what is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum News {
    /// The list holds it already.
    Old,
    /// It is news.
    Next,
    /// It is news, and something before it is missing.
    Missed,
}

impl Roster {
    /// A list came. Whether it is of use.
    fn listed(&mut self, seq: u64) -> bool {
        self.is_listed = seq >= self.seq;
        self.is_counted &= !self.is_listed;
        self.seq = self.seq.max(seq);
        self.is_listed
    }

    /// Only their number is told: there is no list until the server sends one.
    fn counted(&mut self, seq: u64) {
        (self.is_listed, self.is_counted) = (false, true);
        self.seq = self.seq.max(seq);
    }

    /// The changes from one number to another came.
    fn changed(&mut self, from: u64, seq: u64) -> News {
        if seq <= self.seq {
            return News::Old;
        }
        let is_next = from <= self.seq.saturating_add(1);
        self.seq = seq;
        // Names behind a number, too, where the list between them was of no use: of a server that has lost its count.
        if std::mem::take(&mut self.is_counted) || (self.is_listed && !is_next) {
            self.is_listed = false;
            return News::Missed;
        }
        // While a list is on its way it is enough to know how far it has to reach.
        News::Next
    }
}

impl<R> Machine<R> {
    /// The client is in: who else is?
    pub(super) fn follow_members(&mut self, room: &RoomId, now: Moment) {
        if self.rooms.get(room).is_some_and(|entry| entry.presence) {
            self.ask_members(room, now);
        }
    }

    /// Asks for the list of a room that is followed.
    pub(super) fn ask_members(&mut self, room: &RoomId, now: Moment) {
        let Some(entry) = self.rooms.get_mut(room) else { return };
        // A server that has refused it for the moment is asked when that is over, whatever it says meanwhile.
        let is_put_off = self.retries.contains(room);
        if !entry.is_in() || !entry.presence || entry.roster.is_asked || is_put_off {
            return;
        }
        entry.roster.is_asked = true;
        let id = self.requests.next_id();
        self.out.push_frame(&ClientFrame::Presence { id: Some(id), room: room.clone() });
        let deadline = now.at.after(self.settings.request_timeout);
        self.requests.insert(id, Kind::Members(room.clone()), None, deadline);
    }

    /// The list that was asked for does not come.
    pub(super) fn forget_asked(&mut self, room: &RoomId) {
        if let Some(entry) = self.rooms.get_mut(room) {
            entry.roster.is_asked = false;
        }
    }

    /// No list came: later, then.
    pub(super) fn members_unanswered(
        &mut self,
        room: &RoomId,
        after: Option<Duration>,
        now: Moment,
    ) {
        self.forget_asked(room);
        self.ask_again(room, after, now);
    }

    /// A list came: asked for by the application, by the client, or by nobody.
    pub(super) fn members(&mut self, from: wire::PresenceState<'_>, now: Moment) {
        let pending = from.id.and_then(|id| self.requests.take(id));
        let state = PresenceState::from_wire(from);
        let room = state.room.clone();
        if let Some(entry) = self.rooms.get_mut(&room)
            && entry.is_in()
            && entry.presence
        {
            let is_answer = pending
                .as_ref()
                .is_some_and(|asked| matches!(&asked.kind, Kind::Members(asked) if *asked == room));
            if is_answer {
                entry.roster.is_asked = false;
            }
            if entry.roster.listed(state.seq) {
                self.events.push_back(Event::Members(state.clone()));
            } else if entry.roster.is_counted {
                // A list comes by itself.
            } else if is_answer {
                // Older than what is known: not at once, or a server that has no other is asked without end.
                self.members_unanswered(&room, None, now);
            } else {
                self.ask_members(&room, now);
            }
        }
        let Some(pending) = pending else { return };
        let fits = match &pending.kind {
            Kind::Presence => true,
            Kind::Members(asked) => *asked == room,
            _ => false,
        };
        if fits {
            self.resolve(pending, Ok(Answer::Presence(state)));
        } else {
            self.wrong_answer(pending);
        }
    }

    /// Somebody came, went or changed.
    pub(super) fn member_changed(&mut self, from: wire::PresenceEvent<'_>, now: Moment) {
        let change = PresenceChange::from_wire(from);
        let (room, seq) = (change.room.clone(), change.seq);
        self.changed(&room, (seq, seq), vec![change], now);
    }

    /// What became of those who came, went or changed meanwhile.
    pub(super) fn members_changed(&mut self, from: wire::PresenceEvents<'_>, now: Moment) {
        let (room, span) = (from.room.clone(), (from.from, from.seq));
        self.changed(&room, span, PresenceChange::all_from_wire(from), now);
    }

    fn changed(
        &mut self,
        room: &RoomId,
        (from, seq): (u64, u64),
        changes: Vec<PresenceChange>,
        now: Moment,
    ) {
        let Some(entry) = self.rooms.get_mut(room) else { return };
        if !entry.is_in() || !entry.presence {
            return;
        }
        let news = entry.roster.changed(from, seq);
        if news != News::Old {
            self.events.extend(changes.into_iter().map(Event::Presence));
        }
        if news == News::Missed {
            self.ask_members(room, now);
        }
    }

    /// How many there are, where names would be too many.
    pub(super) fn members_counted(&mut self, from: wire::PresenceCount<'_>) {
        let Some(entry) = self.rooms.get_mut(&from.room) else { return };
        if entry.is_in() && entry.presence {
            entry.roster.counted(from.seq);
            self.events.push_back(Event::PresenceCount(PresenceCount::from_wire(from)));
        }
    }
}
