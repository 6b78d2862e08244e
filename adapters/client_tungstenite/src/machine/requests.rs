//! Requests that wait for their answers, and among them the outbox: publishes that are sent again
//! on the next connection until one is acknowledged.
//!
//! Each is resolved exactly once, and there are never more than the named maxima.

use std::collections::{BTreeMap, BTreeSet};

use domain::id::MessageId;
use domain::room::RoomId;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::error::RequestError;
use crate::event::{Ack, HistoryPage, PresenceState, Status, Subscribed};
use crate::options::Token;

/// How many requests other than publishes wait at once.
pub(crate) const REQUESTS_MAX: usize = 1024;

/// A good answer.
#[derive(Debug)]
pub(crate) enum Answer {
    Subscribed(Subscribed),
    Acked(Ack),
    History(HistoryPage),
    Presence(PresenceState),
    Status(Status),
    Refreshed(Option<String>),
    Done,
}

/// Whom to answer.
pub(crate) type Reply = oneshot::Sender<Result<Answer, RequestError>>;

/// What an unanswered request was about.
#[derive(Debug)]
pub(crate) enum Kind {
    Connect,
    /// Without a reply it is the client's own doing, after a reconnect.
    Subscribe(RoomId),
    Unsubscribe(RoomId),
    Publish(Publish),
    Refresh(Token),
    History,
    Presence,
    PresenceUpdate,
    Status,
    Ping,
}

/// A publish in the outbox.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) msg_id: MessageId,
    pub(crate) echo: bool,
    /// The encoded command, always under the same id and message id.
    pub(crate) frame: Utf8Bytes,
    /// How often it was sent.
    pub(crate) sent: u32,
    /// Not to be sent again before.
    pub(crate) held_until: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) kind: Kind,
    pub(crate) reply: Option<Reply>,
    deadline: Instant,
}

impl Pending {
    /// Answers whoever asked. Who doesn't listen any more doesn't mind.
    pub(crate) fn resolve(self, result: Result<Answer, RequestError>) {
        if let Some(reply) = self.reply {
            reply.send(result).ok();
        }
    }

    /// Answers that time is up.
    pub(crate) fn time_out(self) {
        let error = match &self.kind {
            Kind::Publish(publish) => RequestError::Unanswered { msg_id: publish.msg_id.clone() },
            _ => RequestError::TimedOut,
        };
        self.resolve(Err(error));
    }
}

/// All unanswered requests of one client, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    last_id: u64,
    pending: BTreeMap<u64, Pending>,
    deadlines: BTreeSet<(Instant, u64)>,
    held: BTreeSet<(Instant, u64)>,
    publishes: usize,
    publish_bytes: usize,
}

impl Requests {
    /// An id that was never used.
    pub(crate) const fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) const fn publishes(&self) -> usize {
        self.publishes
    }

    pub(crate) const fn publish_bytes(&self) -> usize {
        self.publish_bytes
    }

    /// How many are no publishes.
    pub(crate) fn others(&self) -> usize {
        self.pending.len() - self.publishes
    }

    pub(crate) fn insert(&mut self, id: u64, kind: Kind, reply: Option<Reply>, deadline: Instant) {
        if let Kind::Publish(publish) = &kind {
            self.publishes += 1;
            self.publish_bytes += publish.frame.len();
        }
        self.deadlines.insert((deadline, id));
        self.pending.insert(id, Pending { kind, reply, deadline });
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Pending> {
        self.pending.get_mut(&id)
    }

    pub(crate) fn take(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.deadlines.remove(&(pending.deadline, id));
        if let Kind::Publish(publish) = &pending.kind {
            self.publishes -= 1;
            self.publish_bytes -= publish.frame.len();
            if let Some(until) = publish.held_until {
                self.held.remove(&(until, id));
            }
        }
        Some(pending)
    }

    /// Takes the next one whose time is up.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Pending> {
        let (deadline, id) = *self.deadlines.first()?;
        if deadline > now { None } else { self.take(id) }
    }

    /// Takes all that make no sense on another connection.
    pub(crate) fn take_lost(&mut self) -> Vec<Pending> {
        let lost = |pending: &Pending| match &pending.kind {
            Kind::Publish(_) => false,
            Kind::Subscribe(_) => pending.reply.is_none(),
            _ => true,
        };
        let ids = self.pending.iter().filter(|(_, p)| lost(p)).map(|(id, _)| *id);
        let ids = ids.collect::<Vec<_>>();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    pub(crate) fn take_all(&mut self) -> Vec<Pending> {
        let all = std::mem::take(self);
        self.last_id = all.last_id;
        all.pending.into_values().collect()
    }

    /// The unanswered subscribe of the application for a room.
    pub(crate) fn find_subscribe(&self, room: &RoomId) -> Option<u64> {
        let of_room = |pending: &Pending| matches!(&pending.kind, Kind::Subscribe(r) if r == room);
        self.pending.iter().find(|(_, pending)| of_room(pending)).map(|(id, _)| *id)
    }

    /// The frames of the whole outbox, in order, for a new connection.
    pub(crate) fn publish_frames(&mut self) -> Vec<Utf8Bytes> {
        let frames = self.pending.values_mut().filter_map(|pending| match &mut pending.kind {
            Kind::Publish(publish) => {
                publish.sent = publish.sent.saturating_add(1);
                Some(publish.frame.clone())
            }
            _ => None,
        });
        frames.collect()
    }

    /// Keeps nothing back any more: the next connection sends it all.
    pub(crate) fn release_held(&mut self) {
        for (_, id) in std::mem::take(&mut self.held) {
            if let Some(Pending { kind: Kind::Publish(publish), .. }) = self.pending.get_mut(&id) {
                publish.held_until = None;
            }
        }
    }

    /// Keeps a publish back until then.
    pub(crate) fn hold(&mut self, id: u64, until: Instant) {
        if let Some(Pending { kind: Kind::Publish(publish), .. }) = self.pending.get_mut(&id) {
            publish.held_until = Some(until);
            self.held.insert((until, id));
        }
    }

    /// The frame of the next publish that was kept back long enough.
    pub(crate) fn next_unheld(&mut self, now: Instant) -> Option<Utf8Bytes> {
        let (until, id) = *self.held.first()?;
        if until > now {
            return None;
        }
        self.held.remove(&(until, id));
        let Kind::Publish(publish) = &mut self.pending.get_mut(&id)?.kind else { return None };
        publish.held_until = None;
        publish.sent = publish.sent.saturating_add(1);
        Some(publish.frame.clone())
    }

    /// When to look again.
    pub(crate) fn due(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, u64)>| set.first().map(|(at, _)| *at);
        [first(&self.deadlines), first(&self.held)].into_iter().flatten().min()
    }
}
