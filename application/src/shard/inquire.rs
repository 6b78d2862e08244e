//! Answers to what somebody outside asks of this shard, one bounded piece at a time: its rooms by
//! name, its connections by slot, and the end of some of them.
//!
//! It keeps nothing between two pieces. A slot is a place that a connection has for all of its
//! life, so whoever is there throughout is met once, whoever else comes and goes.

use std::ops::Bound;

use domain::codes::CloseCode;
use domain::room::RoomId;

use super::rooms::RoomKey;
use super::table::Entry;
use super::{Host, Shard, Slot};
use crate::inquiry::{
    Answer, ConnectionHere, ENDS_MAX, Inquiry, Of, Question, RoomHere, VISITS_MAX, Whom,
};

impl Shard {
    pub(super) fn inquire(&mut self, inquiry: &Inquiry, host: &mut Host<'_>) {
        inquiry.answer(match &inquiry.question {
            Question::Rooms { prefix, after, rooms_max } => {
                self.list_rooms(prefix, after.as_ref(), *rooms_max)
            }
            Question::Connections { from, of, connections_max } => {
                self.list_connections(*from, of, *connections_max)
            }
            Question::End { from, whom, code } => self.end_some(*from, whom, *code, host),
        });
    }

    fn list_rooms(&self, prefix: &str, after: Option<&RoomId>, rooms_max: usize) -> Answer {
        let mut keys = self.rooms.behind(prefix, after).peekable();
        let mut rooms = Vec::new();
        while rooms.len() < rooms_max {
            let Some(key) = keys.next() else { break };
            let Some(slice) = self.rooms.get(key) else { continue };
            rooms.push(RoomHere {
                room: slice.id.clone(),
                members: slice.seats.taken(),
                position: slice.seen,
            });
        }
        Answer::Rooms { rooms, more: keys.peek().is_some() }
    }

    fn list_connections(&self, from: u32, of: &Of, connections_max: usize) -> Answer {
        let room = of.room.as_ref().map(|room| (room, self.rooms.find(room)));
        let until = self.table.end().min(from.saturating_add(VISITS_MAX));
        let (mut connections, mut at) = (Vec::new(), from);
        while at < until && connections.len() < connections_max {
            let entry = self.table.entry_at(at).filter(|(_, entry)| is_of(entry, of, room));
            connections.extend(entry.map(|(_, entry)| describe(entry)));
            at += 1;
        }
        Answer::Connections { connections, next: (at < self.table.end()).then_some(at) }
    }

    fn end_some(&mut self, from: u32, whom: &Whom, code: CloseCode, host: &mut Host<'_>) -> Answer {
        let user = match whom {
            Whom::User(user) => user,
            Whom::Connection(connection) => {
                let slot = self.table.slot_of(*connection);
                let count = slot.map_or(0, |slot| self.end_on_order(slot, code, host));
                return Answer::Ended { count, next: None };
            }
        };
        let until = self.table.end().min(from.saturating_add(VISITS_MAX));
        let (mut count, mut at) = (0, from);
        while at < until && count < ENDS_MAX {
            if let Some((slot, entry)) = self.table.entry_at(at)
                && entry.who.principal.user.as_ref() == Some(user)
            {
                count += self.end_on_order(slot, code, host);
            }
            at += 1;
        }
        Answer::Ended { count, next: (at < self.table.end()).then_some(at) }
    }

    fn end_on_order(&mut self, slot: Slot, code: CloseCode, host: &mut Host<'_>) -> usize {
        self.note_order(slot, code, host.now);
        self.end(slot, code, None, host);
        1
    }
}

/// Whether a connection is let in and one of those that are asked for.
fn is_of(entry: &Entry, of: &Of, room: Option<(&RoomId, Option<RoomKey>)>) -> bool {
    let is_in = |(room, key): (&RoomId, Option<RoomKey>)| {
        entry.own_room.joined() == Some(room)
            || key.is_some_and(|key| entry.rooms.state(key).is_some())
    };
    entry.greeted
        && of.user.as_ref().is_none_or(|user| entry.who.principal.user.as_ref() == Some(user))
        && room.is_none_or(is_in)
}

fn describe(entry: &Entry) -> ConnectionHere {
    ConnectionHere {
        connection: entry.who.connection,
        client: entry.who.client.clone(),
        user: entry.who.principal.user.clone(),
        since: entry.opened_at,
        rooms: entry.rooms.len() + usize::from(entry.own_room.joined().is_some()),
        patterns: entry.patterns.len(),
    }
}

/// Where the rooms begin that are asked for.
pub(super) fn first_of<'a>(prefix: &'a str, after: Option<&'a RoomId>) -> Bound<&'a str> {
    match after.map(RoomId::as_str) {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    }
}
