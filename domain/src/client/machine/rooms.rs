//! Rooms the application wants to be in: joining them, on every connection anew, and leaving.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::client::error::RequestError;
use crate::client::life::{Lost, Moment};
use crate::client::machine::Machine;
use crate::client::machine::commands::SubscribeOptions;
use crate::client::machine::members::Roster;
use crate::client::machine::requests::{Kind, Pending};
use crate::client::planted::Mistake;
use crate::client::track::Track;
use crate::filter::Filter;
use crate::position::Offset;
use crate::protocol::ClientFrame;
use crate::protocol::client_event::Event;
use crate::room::RoomId;
use crate::time::Monotonic;

/// How many rooms one client may be in. Servers take fewer.
const ROOMS_MAX: usize = 4096;
/// When to ask again after a refusal for the moment that names no time.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// The soonest that something is asked for again, whatever time a refusal names.
pub(super) const ASK_AGAIN_MIN: Duration = Duration::from_millis(100);

/// When to ask again after a refusal for the moment.
pub(super) fn again_at(after: Option<Duration>, now: Moment) -> Monotonic {
    now.at.after(after.unwrap_or(ASK_AGAIN_AFTER).max(ASK_AGAIN_MIN))
}

/// Rooms to be asked about again, and when: each once, whatever a server says how often.
#[derive(Debug, Default)]
pub(super) struct Retries {
    at: BTreeMap<RoomId, Monotonic>,
    order: BTreeSet<(Monotonic, RoomId)>,
}

impl Retries {
    /// Puts a room where its latest refusal wants it.
    fn insert(&mut self, room: RoomId, at: Monotonic) {
        if let Some(before) = self.at.insert(room.clone(), at) {
            self.order.remove(&(before, room.clone()));
        }
        self.order.insert((at, room));
    }

    /// When the first is due.
    pub(super) fn due(&self) -> Option<Monotonic> {
        self.order.first().map(|(at, _)| *at)
    }

    pub(super) fn contains(&self, room: &RoomId) -> bool {
        self.at.contains_key(room)
    }

    /// Takes a room out; answers whether it was to be asked about.
    fn remove(&mut self, room: &RoomId) -> bool {
        let Some(at) = self.at.remove(room) else { return false };
        self.order.remove(&(at, room.clone()))
    }

    fn take_due(&mut self, now: Monotonic) -> Option<RoomId> {
        if self.due()? > now {
            return None;
        }
        let (_, room) = self.order.pop_first()?;
        self.at.remove(&room);
        Some(room)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.at.len().max(self.order.len())
    }
}

/// One room.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) phase: RoomPhase,
    pub(super) track: Track,
    pub(super) presence: bool,
    pub(super) filter: Option<Filter>,
    /// The application's request to be in, as long as it is not answered.
    pub(super) wish: Option<u64>,
    /// The command under way that asks to be in; none where `connect` names the room.
    pub(super) join: Option<u64>,
    /// The last command under way that leaves it: what comes before its answer is of an earlier stay.
    pub(super) leave: Option<u64>,
    /// Where a hole was found that coming back was to fill.
    pub(super) hole_at: Option<Offset>,
    pub(super) roster: Roster,
}

impl Room {
    /// Whether what comes of the room is of this stay.
    pub(super) fn is_in(&self) -> bool {
        self.phase == RoomPhase::Joined && self.leave.is_none()
    }

    /// Whether it is on the way in, named by `connect`.
    pub(super) fn is_named(&self) -> bool {
        self.phase == RoomPhase::Joining && self.join.is_none() && self.leave.is_none()
    }
}

/// Where the client is with a room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RoomPhase {
    /// Not on this connection.
    Away,
    /// Asked.
    Joining,
    /// In; what was missed may still be coming.
    Joined,
    /// Asked to leave.
    Leaving,
}

impl<R> Machine<R> {
    /// The application wants to be in a room.
    pub(super) fn subscribe(
        &mut self,
        room: &RoomId,
        options: SubscribeOptions,
        reply: R,
        deadline: Monotonic,
    ) {
        let known = self.rooms.get(room).map(|entry| (entry.phase, entry.leave));
        let leave = match known {
            // It joins anew behind the answer to its leave, which is said again at once if that was for later.
            Some((RoomPhase::Leaving, leave)) => {
                if self.retries.remove(room) {
                    self.leave_again(room.clone());
                }
                leave
            }
            Some(_) => return self.refuse(reply, RequestError::AlreadySubscribed),
            None if self.rooms.len() >= ROOMS_MAX => {
                return self.refuse(reply, RequestError::TooMany { max: ROOMS_MAX });
            }
            None => None,
        };
        let id = self.requests.next_id();
        let SubscribeOptions { since, presence, filter } = options;
        let entry = Room {
            phase: RoomPhase::Away,
            track: Track::new(since, filter.is_some()),
            presence,
            filter,
            wish: Some(id),
            join: None,
            leave,
            hole_at: None,
            roster: Roster::default(),
        };
        self.rooms.insert(room.clone(), entry);
        self.requests.insert(id, Kind::Subscribe(room.clone()), Some(reply), deadline);
        if self.is_online() {
            self.send_subscribe(room, id);
        }
    }

    /// The application wants to leave one.
    pub(super) fn unsubscribe(&mut self, room: &RoomId, reply: R, deadline: Monotonic) {
        self.forget_join(room);
        let known = self.rooms.get_mut(room);
        match known.map(|entry| std::mem::replace(&mut entry.phase, RoomPhase::Leaving)) {
            Some(RoomPhase::Joining | RoomPhase::Joined) => {
                // Whatever of it was put off, it is not to be left twice for that.
                self.retries.remove(room);
                let id = self.requests.next_id();
                let frame = ClientFrame::Unsubscribe { id: Some(id), room: room.clone() };
                self.out.push_frame(&frame);
                if let Some(entry) = self.rooms.get_mut(room) {
                    entry.leave = Some(id);
                }
                self.requests.insert(id, Kind::Unsubscribe(room.clone()), Some(reply), deadline);
            }
            Some(RoomPhase::Away) => {
                self.rooms.remove(room);
                self.done(reply);
            }
            Some(RoomPhase::Leaving) | None => self.done(reply),
        }
    }

    /// Nobody waits any more for being in.
    pub(super) fn forget_join(&mut self, room: &RoomId) {
        let Some(entry) = self.rooms.get_mut(room) else { return };
        for id in [entry.wish.take(), entry.join.take()].into_iter().flatten() {
            if let Some(pending) = self.requests.take(id) {
                self.resolve(pending, Err(RequestError::Unsubscribed));
            }
        }
    }

    /// A command that left a room is over.
    pub(super) fn left(&mut self, room: &RoomId, id: u64) {
        let Some(entry) = self.rooms.get_mut(room) else { return };
        if entry.leave == Some(id) {
            entry.leave = None;
            if entry.phase == RoomPhase::Leaving {
                self.rooms.remove(room);
            }
        }
    }

    /// Whether a leave is refused for the moment. The client is still in, then, and says it again later.
    pub(super) fn leave_later(&mut self, id: u64, after: Option<Duration>, now: Moment) -> bool {
        let Some(Pending { kind: Kind::Unsubscribe(room), .. }) = self.requests.get_mut(id) else {
            return false;
        };
        let room = room.clone();
        if !self.is_last_leave(&room, id) {
            // Another one is on its way.
            return false;
        }
        if self.room_phase(&room) != Some(RoomPhase::Leaving) {
            // It has joined anew behind it, which no server takes from who is still in.
            self.verdict = Some(Lost::broken(format!("{room} could not be left")));
            return false;
        }
        self.retries.insert(room, again_at(after, now));
        true
    }

    fn is_last_leave(&self, room: &RoomId, id: u64) -> bool {
        self.rooms.get(room).is_some_and(|entry| entry.leave == Some(id))
    }

    fn leave_again(&mut self, room: RoomId) {
        if let Some(id) = self.rooms.get(&room).and_then(|entry| entry.leave) {
            self.out.push_frame(&ClientFrame::Unsubscribe { id: Some(id), room });
        }
    }

    /// The server ended a membership, or does not grant it again.
    pub(super) fn put_out(&mut self, room: RoomId, code: Option<u16>, reason: Option<String>) {
        let was_own = self.own_rooms.remove(&room);
        if self.rooms.get(&room).is_some_and(|entry| entry.leave.is_some()) {
            // Of an earlier stay.
            return;
        }
        self.forget_join(&room);
        if self.rooms.remove(&room).is_some() || was_own {
            self.events.push_back(Event::Unsubscribed { room, code, reason });
        }
    }

    /// On a new connection: into every room again that is not on the way in, from where the client
    /// stands.
    pub(super) fn join_away(&mut self, now: Moment) {
        self.retries.clear();
        let away = self.rooms.iter().filter(|(_, entry)| entry.phase == RoomPhase::Away);
        let rooms: Vec<_> = away.map(|(room, _)| room.clone()).collect();
        for room in rooms {
            self.join(&room, now);
        }
    }

    /// Asks about the rooms whose turn has come.
    pub(super) fn ask_due(&mut self, now: Moment) {
        while let Some(room) = self.retries.take_due(now.at) {
            match self.rooms.get(&room).map(|entry| entry.phase) {
                Some(RoomPhase::Away) if self.is_online() => self.join(&room, now),
                Some(RoomPhase::Joined) => self.ask_members(&room, now),
                Some(RoomPhase::Leaving) => self.leave_again(room),
                _ => {}
            }
        }
    }

    pub(super) fn join(&mut self, room: &RoomId, now: Moment) {
        let Some(entry) = self.rooms.get(room) else { return };
        let id = entry.wish.unwrap_or_else(|| {
            let id = self.requests.next_id();
            let deadline = now.at.after(self.settings.request_timeout);
            self.requests.insert(id, Kind::Subscribe(room.clone()), None, deadline);
            id
        });
        self.send_subscribe(room, id);
    }

    fn send_subscribe(&mut self, room: &RoomId, id: u64) {
        let Some(entry) = self.rooms.get_mut(room) else { return };
        entry.phase = RoomPhase::Joining;
        entry.join = Some(id);
        entry.roster = Roster::default();
        let (since, presence) = (entry.track.position(), entry.presence);
        let (room, filter) = (room.clone(), entry.filter.clone());
        let frame = ClientFrame::Subscribe { id: Some(id), room, since, presence, filter };
        self.out.push_frame(&frame);
    }

    /// Without a connection the client is in no room.
    pub(super) fn leave_all(&mut self) {
        self.retries.clear();
        self.rooms.retain(|_, entry| entry.phase != RoomPhase::Leaving);
        for entry in self.rooms.values_mut() {
            entry.phase = RoomPhase::Away;
            (entry.join, entry.leave) = (None, None);
            entry.roster = Roster::default();
            if self.soil.has(Mistake::PositionForgotten) {
                entry.track = Track::new(None, entry.filter.is_some());
            }
        }
    }

    /// Joining again failed for the moment.
    pub(super) fn rejoin_later(&mut self, room: RoomId, after: Option<Duration>, now: Moment) {
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.phase = RoomPhase::Away;
            entry.join = None;
            self.retries.insert(room, again_at(after, now));
        }
    }

    /// A room is asked about again, when a refusal for the moment says.
    pub(super) fn ask_again(&mut self, room: &RoomId, after: Option<Duration>, now: Moment) {
        self.retries.insert(room.clone(), again_at(after, now));
    }

    /// A request's time is up.
    pub(super) fn expired(&mut self, id: u64, pending: Pending<R>, is_reading: bool, now: Moment) {
        if !is_reading && pending.is_own() {
            // The answer may lie in the socket, which waits for the application and not for the server.
            let Pending { kind, reply, .. } = pending;
            let deadline = now.at.after(self.settings.request_timeout);
            return self.requests.insert(id, kind, reply, deadline);
        }
        match &pending.kind {
            Kind::Subscribe(room) => {
                let phase = self.rooms.get(room).map(|entry| entry.phase);
                if phase == Some(RoomPhase::Joining) {
                    // Asking again on this connection could only be refused as asking twice.
                    let silent = format!("no answer to subscribe to {room}");
                    self.verdict = Some(Lost::broken(silent));
                }
                if pending.reply.is_some() {
                    // Whoever asked is told that it failed, so it must not succeed behind its back.
                    self.rooms.remove(room);
                }
            }
            Kind::Unsubscribe(room) => {
                if self.is_last_leave(room, id) && self.retries.remove(room) {
                    // Refused to its end: the server has the client in, and takes no join from who is.
                    self.verdict = Some(Lost::broken(format!("{room} could not be left")));
                }
                self.left(room, id);
            }
            Kind::SubscribePattern(pattern) => {
                if self.is_asked_to_follow(pattern) {
                    let silent = format!("no answer to subscribe to {pattern}");
                    self.verdict = Some(Lost::broken(silent));
                }
                if pending.reply.is_some() {
                    self.forget_pattern(pattern);
                }
            }
            Kind::UnsubscribePattern(pattern) => self.unfollowed(pattern, id),
            Kind::Refresh(_) if pending.reply.is_none() => self.refresh_later(now),
            Kind::Members(room) => self.members_unanswered(room, None, now),
            Kind::Publish(publish) if !publish.echo => self.requests.insert_late(id),
            _ => {}
        }
        let error = pending.unpublished().unwrap_or(RequestError::TimedOut);
        self.resolve(pending, Err(error));
    }
}
