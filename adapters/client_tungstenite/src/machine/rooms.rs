//! Rooms the application wants to be in: joining them, on every connection anew, and leaving.

use std::time::Duration;

use domain::filter::Filter;
use domain::protocol::ClientFrame;
use domain::room::RoomId;
use tokio::time::Instant;

use super::requests::{Answer, Kind, Pending, Reply};
use super::track::Track;
use super::{Lost, Machine};
use crate::client::SubscribeOptions;
use crate::error::RequestError;

/// How many rooms one client may be in. Servers take fewer.
const ROOMS_MAX: usize = 4096;
/// When to join again after a refusal for the moment that names no time.
const REJOIN_DELAY: Duration = Duration::from_secs(2);

/// One room.
#[derive(Debug)]
pub(crate) struct Room {
    pub(super) phase: RoomPhase,
    pub(super) track: Track,
    pub(super) presence: bool,
    pub(super) filter: Option<Filter>,
}

/// Where the client is with a room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RoomPhase {
    /// Not on this connection.
    Away,
    /// Asked.
    Joining,
    /// In; what was missed may still be coming.
    Joined,
    /// Asked to leave.
    Leaving,
}

impl Machine {
    /// The application wants to be in a room.
    pub(super) fn subscribe(
        &mut self,
        room: &RoomId,
        options: SubscribeOptions,
        reply: Reply,
        deadline: Instant,
    ) {
        let refusal = if self.rooms.contains_key(room) {
            Some(RequestError::AlreadySubscribed)
        } else if self.rooms.len() >= ROOMS_MAX {
            Some(RequestError::TooMany { max: ROOMS_MAX })
        } else {
            None
        };
        if let Some(error) = refusal {
            reply.send(Err(error)).ok();
            return;
        }
        let id = self.requests.next_id();
        let phase = RoomPhase::Away;
        let SubscribeOptions { since, presence, filter } = options;
        let track = Track::new(since, filter.is_some());
        self.rooms.insert(room.clone(), Room { phase, track, presence, filter });
        self.requests.insert(id, Kind::Subscribe(room.clone()), Some(reply), deadline);
        if self.is_online() {
            self.send_subscribe(room, id);
        }
    }

    /// The application wants to leave one.
    pub(super) fn unsubscribe(&mut self, room: RoomId, reply: Reply, deadline: Instant) {
        if let Some(id) = self.requests.find_subscribe(&room)
            && let Some(pending) = self.requests.take(id)
        {
            pending.resolve(Err(RequestError::Unsubscribed));
        }
        let known = self.rooms.get_mut(&room);
        match known.map(|entry| std::mem::replace(&mut entry.phase, RoomPhase::Leaving)) {
            Some(RoomPhase::Joining | RoomPhase::Joined) => {
                self.send_unsubscribe(room, Some(reply), deadline);
            }
            Some(RoomPhase::Away) => {
                self.rooms.remove(&room);
                reply.send(Ok(Answer::Done)).ok();
            }
            Some(RoomPhase::Leaving) | None => {
                reply.send(Ok(Answer::Done)).ok();
            }
        }
    }

    fn send_unsubscribe(&mut self, room: RoomId, reply: Option<Reply>, deadline: Instant) {
        let id = self.requests.next_id();
        self.out.push_frame(&ClientFrame::Unsubscribe { id: Some(id), room: room.clone() });
        self.requests.insert(id, Kind::Unsubscribe(room), reply, deadline);
    }

    /// On a new connection: into every room again that is not on the way in, from where the client
    /// stands.
    pub(super) fn join_away(&mut self, now: Instant) {
        self.retries.clear();
        let away = self.rooms.iter().filter(|(_, entry)| entry.phase == RoomPhase::Away);
        let rooms: Vec<_> = away.map(|(room, _)| room.clone()).collect();
        for room in rooms {
            self.join(&room, now);
        }
    }

    /// Into the rooms whose turn has come.
    pub(super) fn join_due(&mut self, now: Instant) {
        while let Some((at, _)) = self.retries.first()
            && *at <= now
            && let Some((_, room)) = self.retries.pop_first()
        {
            if self.is_online() {
                self.join(&room, now);
            }
        }
    }

    pub(super) fn join(&mut self, room: &RoomId, now: Instant) {
        if !self.rooms.contains_key(room) {
            return;
        }
        let id = self.requests.find_subscribe(room).unwrap_or_else(|| {
            let id = self.requests.next_id();
            let deadline = now + self.settings.request_timeout;
            self.requests.insert(id, Kind::Subscribe(room.clone()), None, deadline);
            id
        });
        self.send_subscribe(room, id);
    }

    fn send_subscribe(&mut self, room: &RoomId, id: u64) {
        let Some(entry) = self.rooms.get_mut(room) else { return };
        entry.phase = RoomPhase::Joining;
        let (since, presence) = (entry.track.since(), entry.presence);
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
        }
    }

    /// Joining again failed for the moment.
    pub(super) fn rejoin_later(&mut self, room: RoomId, after: Option<Duration>, now: Instant) {
        if let Some(entry) = self.rooms.get_mut(&room) {
            entry.phase = RoomPhase::Away;
            self.retries.insert((now + after.unwrap_or(REJOIN_DELAY), room));
        }
    }

    /// A request's time is up.
    pub(super) fn expired(&mut self, pending: Pending, now: Instant) {
        match &pending.kind {
            Kind::Subscribe(room) if pending.reply.is_none() => {
                // Asking again on this connection could only be refused as asking twice.
                self.verdict = Some(Lost::broken(format!("no answer to subscribe to {room}")));
            }
            Kind::Subscribe(room) => {
                // Whoever asked is told that it failed, so it must not succeed behind its back.
                let room = room.clone();
                let entry = self.rooms.get_mut(&room);
                match entry.map(|entry| std::mem::replace(&mut entry.phase, RoomPhase::Leaving)) {
                    Some(RoomPhase::Joining) => {
                        let deadline = now + self.settings.request_timeout;
                        self.send_unsubscribe(room, None, deadline);
                    }
                    Some(_) | None => {
                        self.rooms.remove(&room);
                    }
                }
            }
            Kind::Unsubscribe(room) => {
                self.rooms.remove(room);
            }
            _ => {}
        }
        pending.time_out();
    }
}
