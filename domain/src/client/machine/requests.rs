//! Requests that wait for their answers, and among them the outbox: publishes that are sent again
//! on the next connection until one is acknowledged.
//!
//! Each is resolved exactly once, and there are never more than the named maxima.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::client::error::RequestError;
use crate::client::settings::Token;
use crate::id::MessageId;
use crate::principal::RoomPattern;
use crate::protocol::client_event::{Ack, HistoryPage, PresenceState, Status, Subscribed};
use crate::room::RoomId;
use crate::time::Monotonic;

/// How many requests other than publishes wait at once.
pub(super) const REQUESTS_MAX: usize = 1024;

/// A good answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Ask::Subscribe`](super::Ask::Subscribe).
    Subscribed(Subscribed),
    /// To [`Ask::Publish`](super::Ask::Publish).
    Acked(Ack),
    /// To [`Ask::History`](super::Ask::History).
    History(HistoryPage),
    /// To [`Ask::Presence`](super::Ask::Presence).
    Presence(PresenceState),
    /// To [`Ask::Status`](super::Ask::Status).
    Status(Status),
    /// To [`Ask::Refresh`](super::Ask::Refresh): when the token runs out.
    Refreshed(Option<String>),
    /// To all else.
    Done,
}

/// What an unanswered request was about.
#[derive(Debug)]
pub(super) enum Kind {
    Connect,
    /// Without a reply it is the client's own doing, after a reconnect.
    Subscribe(RoomId),
    Unsubscribe(RoomId),
    /// Without a reply it is the client's own doing, as with [`Kind::Subscribe`].
    SubscribePattern(RoomPattern),
    UnsubscribePattern(RoomPattern),
    Publish(Publish),
    /// Without a reply the client shows a token that it has asked for.
    Refresh(Token),
    History,
    Presence,
    /// The list of a room that is followed, which the client asks for by itself.
    Members(RoomId),
    PresenceUpdate,
    Status,
    Ping,
}

/// A publish in the outbox.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) msg_id: MessageId,
    pub(super) echo: bool,
    /// The encoded command, always under the same id and message id.
    pub(super) frame: Arc<str>,
    /// How often it was sent.
    pub(super) sent: u32,
    /// Not to be sent again before.
    pub(super) held_until: Option<Monotonic>,
}

#[derive(Debug)]
pub(super) struct Pending<R> {
    pub(super) kind: Kind,
    pub(super) reply: Option<R>,
    deadline: Monotonic,
}

impl<R> Pending<R> {
    /// Whether the client asked by itself, and nobody waits for the answer but the client.
    pub(super) fn is_own(&self) -> bool {
        self.reply.is_none() && matches!(self.kind, Kind::Subscribe(_) | Kind::Members(_))
    }

    /// What to say of a publish that nothing more is done for: whether it may have happened.
    pub(super) fn unpublished(&self) -> Option<RequestError> {
        let Kind::Publish(Publish { msg_id, sent, .. }) = &self.kind else { return None };
        let msg_id = msg_id.clone();
        Some(match sent {
            0 => RequestError::NotSent { msg_id },
            _ => RequestError::Unanswered { msg_id, refusal: None },
        })
    }
}

/// All unanswered requests of one client, in the order in which they were made.
#[derive(Debug)]
pub(super) struct Requests<R> {
    last_id: u64,
    pending: BTreeMap<u64, Pending<R>>,
    deadlines: BTreeSet<(Monotonic, u64)>,
    held: BTreeSet<(Monotonic, u64)>,
    /// Publishes without echo that time ran out for on this connection: their places are still to be
    /// known.
    late: BTreeSet<u64>,
    publishes: usize,
    publish_bytes: usize,
}

impl<R> Default for Requests<R> {
    fn default() -> Self {
        Self {
            last_id: 0,
            pending: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            held: BTreeSet::new(),
            late: BTreeSet::new(),
            publishes: 0,
            publish_bytes: 0,
        }
    }
}

impl<R> Requests<R> {
    /// An id that was never used.
    pub(super) const fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) const fn publishes(&self) -> usize {
        self.publishes
    }

    pub(super) const fn publish_bytes(&self) -> usize {
        self.publish_bytes
    }

    /// How many are no publishes.
    pub(super) fn others(&self) -> usize {
        self.pending.len() - self.publishes
    }

    pub(super) fn insert(&mut self, id: u64, kind: Kind, reply: Option<R>, deadline: Monotonic) {
        if let Kind::Publish(publish) = &kind {
            self.publishes += 1;
            self.publish_bytes += publish.frame.len();
        }
        self.deadlines.insert((deadline, id));
        self.pending.insert(id, Pending { kind, reply, deadline });
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Pending<R>> {
        self.pending.get_mut(&id)
    }

    pub(super) fn take(&mut self, id: u64) -> Option<Pending<R>> {
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

    /// Takes the next one whose time is up, with its id.
    pub(super) fn take_expired(&mut self, now: Monotonic) -> Option<(u64, Pending<R>)> {
        let (deadline, id) = *self.deadlines.first()?;
        if deadline > now { None } else { self.take(id).map(|pending| (id, pending)) }
    }

    /// Gives the server until then for what the client asked by itself.
    pub(super) fn put_off_own(&mut self, until: Monotonic) {
        for (id, pending) in self.pending.iter_mut().filter(|(_, pending)| pending.is_own()) {
            self.deadlines.remove(&(pending.deadline, *id));
            self.deadlines.insert((until, *id));
            pending.deadline = until;
        }
    }

    /// Takes all that make no sense on another connection.
    pub(super) fn take_lost(&mut self) -> Vec<Pending<R>> {
        self.release_held();
        self.late.clear();
        let lost = |pending: &Pending<R>| match &pending.kind {
            Kind::Publish(_) => false,
            Kind::Subscribe(_) | Kind::SubscribePattern(_) => pending.reply.is_none(),
            _ => true,
        };
        let ids = self.pending.iter().filter(|(_, p)| lost(p)).map(|(id, _)| *id);
        let ids = ids.collect::<Vec<_>>();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    pub(super) fn take_all(&mut self) -> Vec<Pending<R>> {
        let all = std::mem::take(self);
        self.last_id = all.last_id;
        all.pending.into_values().collect()
    }

    /// Remembers a publish without echo whose acknowledgement may come after all.
    pub(super) fn insert_late(&mut self, id: u64) {
        if self.late.len() < REQUESTS_MAX {
            self.late.insert(id);
        }
    }

    /// Whether the id is that of one.
    pub(super) fn take_late(&mut self, id: u64) -> bool {
        self.late.remove(&id)
    }

    /// The frames of the whole outbox, in order, for a new connection.
    pub(super) fn publish_frames(&mut self) -> Vec<Arc<str>> {
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
    fn release_held(&mut self) {
        for (_, id) in std::mem::take(&mut self.held) {
            if let Some(Pending { kind: Kind::Publish(publish), .. }) = self.pending.get_mut(&id) {
                publish.held_until = None;
            }
        }
    }

    /// Keeps a publish back until then.
    pub(super) fn hold(&mut self, id: u64, until: Monotonic) {
        if let Some(Pending { kind: Kind::Publish(publish), .. }) = self.pending.get_mut(&id) {
            if let Some(before) = publish.held_until.replace(until) {
                self.held.remove(&(before, id));
            }
            self.held.insert((until, id));
        }
    }

    /// The frame of the next publish that was kept back long enough.
    pub(super) fn next_unheld(&mut self, now: Monotonic) -> Option<Arc<str>> {
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

    /// How much is held in all.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.pending.len()
            + self.deadlines.len()
            + self.held.len()
            + self.publishes
            + self.publish_bytes
    }

    /// How many acknowledgements may still come after their time.
    #[cfg(test)]
    pub(super) fn late(&self) -> usize {
        self.late.len()
    }

    /// When to look again.
    pub(super) fn due(&self) -> Option<Monotonic> {
        let first = |set: &BTreeSet<(Monotonic, u64)>| set.first().map(|(at, _)| *at);
        [first(&self.deadlines), first(&self.held)].into_iter().flatten().min()
    }
}
