//! A user in the room of its own, `user:<id>`, without having asked: an entry in a map, fed by one
//! watch for the rooms of all users.
//!
//! It must never tell a message of that room before the `hello` that says so, nor one that a
//! membership of the same connection tells, too.

use std::sync::Arc;

use domain::codes::{CloseCode, ErrorCode};
use domain::id::UserId;
use domain::position::Position;
use domain::protocol::Resume;
use domain::protocol::ServerFrame;
use domain::room::RoomId;

use super::calls::{CallTag, ColdCall, Outcome};
use super::held::Held;
use super::{Host, Shard, Slot};
use crate::extensions::middleware::Who;
use crate::published::WireFormat;
use crate::use_cases::authenticate::own_room;

/// Where a connection is with the room of its own.
#[derive(Debug)]
pub(super) enum OwnRoom {
    /// It is not in it, or has joined it like any other.
    None,
    /// It gets in with its `hello`. Where the room stood before, if that is known.
    Due(Box<(RoomId, Option<Position>)>),
    /// It is in it without having asked.
    In(RoomId),
}

impl OwnRoom {
    pub(super) fn due(room: Option<RoomId>, top: Option<Position>) -> Self {
        room.map_or(Self::None, |room| Self::Due(Box::new((room, top))))
    }

    /// The room that the connection is in.
    pub(super) const fn joined(&self) -> Option<&RoomId> {
        match self {
            Self::In(room) => Some(room),
            Self::None | Self::Due(_) => None,
        }
    }
}

/// The user whose own room this is, if it is that of this connection's.
pub(super) fn owner_of<'w>(who: &'w Who, room: &RoomId) -> Option<&'w UserId> {
    let user = who.principal.user.as_ref()?;
    (room.as_str().strip_prefix("user:") == Some(user.as_str())).then_some(user)
}

impl Shard {
    /// Whether users are in their own room without asking.
    pub(super) fn joins_own_room(&self) -> bool {
        self.services.rules.join_user_room && self.services.ports.authorizer.is_none()
    }

    /// Has the rooms of users come to this shard, if connections are to be in their own.
    pub(super) fn watch_own_rooms(&mut self) {
        let watches = &mut self.watches;
        let is_done = watches.has_own_rooms || watches.asks_for_own_rooms;
        if is_done || !self.services.rules.join_user_room {
            return;
        }
        watches.asks_for_own_rooms = true;
        let (services, watching) = (Arc::clone(&self.services), self.watching());
        let future =
            Box::pin(async move { Outcome::OwnRooms(watching.execute(&services).await.is_ok()) });
        self.calls.push_back(ColdCall { tag: CallTag::OwnRooms, future });
    }

    /// Greets a connection once the rooms of users come to this shard, if it is to be in its own; or when they can't
    /// be had now.
    pub(super) fn greet_when_heard(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        resume: Vec<Resume>,
        host: &mut Host<'_>,
    ) {
        let own_room = self.table.get(slot).map(|entry| &entry.own_room);
        let is_due = matches!(own_room, Some(OwnRoom::Due(_)));
        if !is_due || self.watches.has_own_rooms || !self.fills_own_rooms() {
            return self.greet(slot, command, resume, host);
        }
        self.watches.asks_for_own_rooms = true;
        let (services, watching) = (Arc::clone(&self.services), self.watching());
        let future = Box::pin(async move {
            let is_on = watching.execute(&services).await.is_ok();
            Outcome::OwnRoomsHeard { is_on, resume }
        });
        self.call(slot, command, None, future);
    }

    pub(super) fn finish_own_rooms(&mut self, outcome: &Outcome) {
        self.watches.asks_for_own_rooms = false;
        self.watches.has_own_rooms |= matches!(outcome, Outcome::OwnRooms(true));
    }

    /// Puts a connection into the room of its own if that is due, unless it has joined it. Answers
    /// the room that it is in without having asked.
    pub(super) fn enter_own_room(&mut self, slot: Slot) -> Option<RoomId> {
        let entry = self.table.get_mut(slot)?;
        let (room, top) = match &entry.own_room {
            OwnRoom::None => return None,
            OwnRoom::In(room) => return Some(room.clone()),
            OwnRoom::Due(due) => (**due).clone(),
        };
        entry.own_room = OwnRoom::None;
        if !self.watches.has_own_rooms {
            // It failed at the start; the next connection may have more luck.
            self.watch_own_rooms();
            return None;
        }
        if self.rooms.find(&room).is_some_and(|key| entry.rooms.state(key).is_some()) {
            return None;
        }
        entry.own_room = OwnRoom::In(room.clone());
        if let Some(user) = &entry.who.principal.user {
            self.services.directory.listens(user);
        }
        let own = self.watches.own.entry(room.clone()).or_default();
        if own.slots.is_empty() {
            own.seen = top;
        }
        own.slots.push(slot);
        Some(room)
    }

    /// Takes a connection out of the room of its own; says whether it was in it.
    pub(super) fn leave_own_room(&mut self, slot: Slot, room: &RoomId) -> bool {
        let Some(entry) = self.table.get_mut(slot) else { return false };
        if entry.own_room.joined() != Some(room) {
            return false;
        }
        entry.own_room = OwnRoom::None;
        if let Some(user) = &entry.who.principal.user {
            self.services.directory.listens_no_more(user);
        }
        if let Some(own) = self.watches.own.get_mut(room) {
            own.slots.retain(|other| *other != slot);
            if own.slots.is_empty() {
                self.watches.own.remove(room);
            }
        }
        true
    }

    /// Puts a connection back into the room of its own, which it left to join it and could not.
    /// What came in between was held for the joiner.
    pub(super) fn return_to_own_room(
        &mut self,
        slot: Slot,
        room: &RoomId,
        held: Held,
        host: &mut Host<'_>,
    ) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        let is_own = own_room(&self.services, &entry.who.principal).as_ref() == Some(room);
        if !is_own || held.overflowed || held.is_lost {
            return self.put_out(slot, room, ErrorCode::Unavailable, host);
        }
        entry.own_room = OwnRoom::due(Some(room.clone()), None);
        if self.enter_own_room(slot).is_none() {
            return self.put_out(slot, room, ErrorCode::Unavailable, host);
        }
        for (published, _) in held.publications {
            let origin = published.publication.origin.filter(|origin| !origin.echo);
            if origin.and_then(|origin| self.table.slot_of(origin.connection)) != Some(slot) {
                let frame = self.frame_of(&published, self.format_of(slot), host);
                self.give_frame(slot, &frame, host);
            }
        }
    }

    pub(super) fn put_out(
        &mut self,
        slot: Slot,
        room: &RoomId,
        code: ErrorCode,
        host: &mut Host<'_>,
    ) {
        self.leave_own_room(slot, room);
        if self.format_of(slot) == WireFormat::Document && code == ErrorCode::Unavailable {
            // Its clients have no words to come into a room again.
            return self.end(slot, CloseCode::InsufficientState, None, host);
        }
        let (code, reason) = (Some(code.number()), Some(code.word()));
        self.tell(slot, &ServerFrame::Unsubscribed { id: None, room, code, reason }, host);
    }
}
