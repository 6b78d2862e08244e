//! What the server says: answers go to whoever asked, everything else becomes events.
//!
//! A frame that makes no sense is told as a violation and otherwise passed over: what it may have
//! taken with it shows as a hole.

use std::time::Duration;

use domain::position::Position;
use domain::protocol::server_event as wire;
use domain::protocol::{ServerEvent, decode_server};
use domain::room::RoomId;
use tokio::time::Instant;

use super::requests::{Answer, Kind, Pending};
use super::rooms::RoomPhase;
use super::track::{Place, Reached, Track};
use super::{FAREWELL_TIMEOUT, Farewell, Lost, Machine};
use crate::error::{Refusal, RequestError};
use crate::event::{
    Ack, Event, Gap, Hello, HistoryPage, LogEntry, Malformed, Message, PresenceChange,
    PresenceState, Status, Subscribed, Tombstone, Violation, position, span,
};
use crate::options::Token;

impl Machine {
    /// A text message came.
    pub(crate) fn text(&mut self, text: &str, now: Instant) {
        for event in decode_server(text) {
            let done = match event {
                Ok(event) => {
                    self.event(event, now).map_err(|Malformed| "a number is out of range".into())
                }
                Err(error) => Err(error_chain(&error)),
            };
            if let Err(why) = done {
                self.violation(Violation::Malformed { why });
            }
        }
    }

    pub(crate) fn violation(&mut self, violation: Violation) {
        tracing::warn!(%violation, "the server broke a promise of the protocol");
        self.events.push_back(Event::Violation(violation));
    }

    fn event(&mut self, event: ServerEvent<'_>, now: Instant) -> Result<(), Malformed> {
        match event {
            ServerEvent::Hello(mut hello) => {
                let resumed = std::mem::take(&mut hello.resumed);
                let session = hello.session.take();
                let session = session.as_deref();
                self.greeted(hello.id, Hello::from_wire(hello), session, resumed, now);
            }
            ServerEvent::Subscribed(subscribed) => self.subscribed(subscribed)?,
            ServerEvent::Page(page) => self.page(page)?,
            ServerEvent::Message(message) => {
                self.entry(LogEntry::Message(Message::from_wire(message)?));
            }
            ServerEvent::Tombstone(tombstone) => {
                self.entry(LogEntry::Tombstone(Tombstone::from_wire(tombstone)?));
            }
            ServerEvent::Gap(gap) => self.gap(Gap::from_wire(gap)?),
            ServerEvent::Ack(ack) => self.ack(ack)?,
            ServerEvent::Unsubscribed(unsubscribed) => self.unsubscribed(unsubscribed),
            ServerEvent::PatternSubscribed(_) | ServerEvent::PatternUnsubscribed(_) => {
                tracing::debug!("an answer about a pattern, which this client asks for none of");
            }
            ServerEvent::PresenceState(state) => {
                self.answer(
                    state.id,
                    |kind| matches!(kind, Kind::Presence),
                    || Answer::Presence(PresenceState::from_wire(state)),
                );
            }
            ServerEvent::PresenceEvent(change) => {
                self.events.push_back(Event::Presence(PresenceChange::from_wire(change)));
            }
            ServerEvent::PresenceUpdated(updated) => {
                let fits = |kind: &Kind| matches!(kind, Kind::PresenceUpdate);
                self.answer(updated.id, fits, || Answer::Done);
            }
            ServerEvent::HistoryPage(page) => {
                let id = page.id;
                let page = HistoryPage::from_wire(page)?;
                self.answer(id, |kind| matches!(kind, Kind::History), || Answer::History(page));
            }
            ServerEvent::Refreshed(refreshed) => self.refreshed(refreshed),
            ServerEvent::TokenExpiring(expiring) => {
                let expires_at = expiring.expires_at.into_owned();
                self.events.push_back(Event::TokenExpiring { expires_at });
            }
            ServerEvent::Ping(_) => self.out.push_pong(),
            ServerEvent::Pong(pong) => {
                self.answer(pong.id, |kind| matches!(kind, Kind::Ping), || Answer::Done);
            }
            ServerEvent::Status(status) => {
                self.answer(
                    status.id,
                    |kind| matches!(kind, Kind::Status),
                    || Answer::Status(Status::from_wire(status)),
                );
            }
            ServerEvent::ErrorEvent(error) => self.error(error.id, Refusal::from_wire(error), now),
            ServerEvent::Disconnect(disconnect) => self.disconnect(&disconnect, now),
            ServerEvent::Other { kind, body } => {
                let (kind, body) = (kind.into_owned(), body.to_owned());
                self.events.push_back(Event::Other { kind, body });
            }
        }
        Ok(())
    }

    /// Answers the request with that id. One that is not there any more was given up.
    fn answer(
        &mut self,
        id: Option<u64>,
        fits: impl FnOnce(&Kind) -> bool,
        answer: impl FnOnce() -> Answer,
    ) {
        let Some(pending) = id.and_then(|id| self.requests.take(id)) else {
            tracing::debug!(id, "an answer to a request that is over");
            return;
        };
        if fits(&pending.kind) {
            pending.resolve(Ok(answer()));
        } else {
            self.wrong_answer(pending);
        }
    }

    fn wrong_answer(&mut self, pending: Pending) {
        self.violation(Violation::Malformed { why: "an answer to another question".into() });
        pending.resolve(Err(RequestError::WrongAnswer));
    }

    fn subscribed(&mut self, from: wire::Subscribed<'_>) -> Result<(), Malformed> {
        let subscribed = Subscribed::from_wire(&from)?;
        match self.rooms.get_mut(&from.room) {
            Some(room) if room.phase == RoomPhase::Joining => room.phase = RoomPhase::Joined,
            // Left or given up meanwhile; the leave is on its way.
            Some(room) if room.phase == RoomPhase::Leaving => return Ok(()),
            Some(_) | None => {
                self.violation(Violation::NotSubscribed { room: from.room });
                return Ok(());
            }
        }
        let fits = |kind: &Kind| matches!(kind, Kind::Subscribe(_));
        self.answer(from.id, fits, || Answer::Subscribed(subscribed.clone()));
        let reached = subscribed.position;
        self.events.push_back(Event::Subscribed(subscribed));
        self.batch(&from.room, from.messages, reached, from.more)
    }

    fn page(&mut self, from: wire::Page<'_>) -> Result<(), Malformed> {
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
        }
        let Some(track) = self.track(room) else { return Ok(()) };
        let room = room.clone();
        match track.reach(reached) {
            Reached::Same => {}
            Reached::BehindHole { from, to } => {
                self.violation(Violation::Hole { room: room.clone(), from, to });
            }
            Reached::NewEpoch => self.violation(Violation::EpochChanged { room: room.clone() }),
            Reached::WentBack => {
                let to = reached.offset;
                self.violation(Violation::WentBack { room: room.clone(), to });
            }
        }
        if !more {
            self.events.push_back(Event::CaughtUp { room, position: reached });
        }
        Ok(())
    }

    /// Where the client stands in a room. None for one that it is leaving, whose messages may
    /// still be on their way, and for one that it never asked for.
    fn track(&mut self, room: &RoomId) -> Option<&mut Track> {
        match self.rooms.get(room).map(|entry| entry.phase) {
            Some(RoomPhase::Leaving) => None,
            Some(RoomPhase::Joining | RoomPhase::Joined) => {
                self.rooms.get_mut(room).map(|entry| &mut entry.track)
            }
            Some(RoomPhase::Away) | None => {
                self.violation(Violation::NotSubscribed { room: room.clone() });
                None
            }
        }
    }

    /// One place of a log, live or missed.
    fn entry(&mut self, entry: LogEntry) {
        let (room, epoch, offset, previous) = match &entry {
            // A pattern has no position: what it brings is told as it comes.
            LogEntry::Message(message) if message.pattern.is_some() => return self.tell(entry),
            LogEntry::Message(message) => {
                (&message.room, message.epoch, message.offset, message.previous)
            }
            LogEntry::Tombstone(tombstone) => {
                (&tombstone.room, tombstone.epoch, tombstone.offset, None)
            }
        };
        let room = room.clone();
        if self.own_rooms.contains(&room) {
            match self.rooms.get(&room).map(|entry| entry.phase) {
                None | Some(RoomPhase::Away) => return self.tell(entry),
                // The subscription on its way begins before this message, and brings it too.
                Some(RoomPhase::Joining) => return,
                Some(RoomPhase::Joined | RoomPhase::Leaving) => {}
            }
        }
        let Some(track) = self.track(&room) else { return };
        if let Some(offset) = offset {
            match track.accept(Position { epoch, offset }, previous) {
                Place::Next => {}
                Place::Own => return,
                Place::Duplicate => return self.violation(Violation::Duplicate { room, offset }),
                Place::BehindHole { from, to } => {
                    self.violation(Violation::Hole { room, from, to });
                }
                Place::NewEpoch => self.violation(Violation::EpochChanged { room }),
            }
        }
        self.tell(entry);
    }

    fn tell(&mut self, entry: LogEntry) {
        self.events.push_back(match entry {
            LogEntry::Message(message) => Event::Message(message),
            LogEntry::Tombstone(tombstone) => Event::Tombstone(tombstone),
        });
    }

    pub(super) fn gap(&mut self, gap: Gap) {
        if self.own_rooms.contains(&gap.room) {
            match self.rooms.get(&gap.room).map(|entry| entry.phase) {
                None | Some(RoomPhase::Away) => return self.events.push_back(Event::Gap(gap)),
                // The subscription on its way tells of it, too.
                Some(RoomPhase::Joining) => return,
                Some(RoomPhase::Joined | RoomPhase::Leaving) => {}
            }
        }
        let Some(track) = self.track(&gap.room) else { return };
        if let Some((from, to)) = track.skip(&gap) {
            self.violation(Violation::Hole { room: gap.room.clone(), from, to });
        }
        self.events.push_back(Event::Gap(gap));
    }

    fn ack(&mut self, ack: wire::Ack<'_>) -> Result<(), Malformed> {
        let Some(pending) = ack.id.and_then(|id| self.requests.take(id)) else {
            tracing::debug!(id = ack.id, "an acknowledgement of a publish that is over");
            return Ok(());
        };
        let Kind::Publish(publish) = &pending.kind else {
            self.wrong_answer(pending);
            return Ok(());
        };
        let ack = match Ack::from_wire(ack, publish.msg_id.clone()) {
            Ok(ack) => ack,
            Err(malformed) => {
                pending.resolve(Err(RequestError::WrongAnswer));
                return Err(malformed);
            }
        };
        // In its publisher's own order the acknowledgement stands for the message.
        if !publish.echo
            && !ack.duplicate
            && let Some(offset) = ack.offset
            && let Some(entry) = self.rooms.get_mut(&ack.room)
        {
            entry.track.pass(Position { epoch: ack.epoch, offset });
        }
        pending.resolve(Ok(Answer::Acked(ack)));
        Ok(())
    }

    fn unsubscribed(&mut self, from: wire::Unsubscribed<'_>) {
        if from.id.is_some() {
            if self.rooms.get(&from.room).is_some_and(|room| room.phase == RoomPhase::Leaving) {
                self.rooms.remove(&from.room);
            }
            let fits = |kind: &Kind| matches!(kind, Kind::Unsubscribe(_));
            return self.answer(from.id, fits, || Answer::Done);
        }
        let reason = from.reason.map(std::borrow::Cow::into_owned);
        self.put_out(from.room, from.code, reason);
    }

    /// The server ended a membership, or does not grant it again.
    pub(super) fn put_out(&mut self, room: RoomId, code: Option<u16>, reason: Option<String>) {
        let was_own = self.own_rooms.remove(&room);
        if self.rooms.remove(&room).is_some() || was_own {
            self.events.push_back(Event::Unsubscribed { room, code, reason });
        }
    }

    fn refreshed(&mut self, from: wire::Refreshed<'_>) {
        let Some(pending) = from.id.and_then(|id| self.requests.take(id)) else { return };
        let Kind::Refresh(token) = &pending.kind else { return self.wrong_answer(pending) };
        self.token = Some(token.clone());
        self.session = from.session.map(|session| Token::new(&session));
        let expires_at = from.expires_at.map(std::borrow::Cow::into_owned);
        pending.resolve(Ok(Answer::Refreshed(expires_at)));
    }

    fn error(&mut self, id: Option<u64>, refusal: Refusal, now: Instant) {
        let after = refusal.retry_after_ms.map(span);
        // What the client sends again by itself it also sends slower by itself.
        if let Some(id) = id
            && refusal.is_temporary()
            && let Some(Pending { kind: Kind::Publish(publish), .. }) = self.requests.get_mut(id)
            && publish.sent > 1
        {
            return self.requests.hold(id, now + after.unwrap_or(RESEND_DELAY));
        }
        let Some(pending) = id.and_then(|id| self.requests.take(id)) else {
            if id.is_none() {
                self.events.push_back(Event::Refused(refusal));
            }
            return;
        };
        match &pending.kind {
            Kind::Connect if !refusal.is_temporary() && self.has_resumed() => {
                return self.connect_plainly(now);
            }
            Kind::Connect => {
                let code = if refusal.is_temporary() { 1013 } else { 3500 };
                self.verdict = Some(Lost { code, reason: refusal.message, after });
                return;
            }
            Kind::Subscribe(room) if pending.reply.is_some() => {
                self.rooms.remove(room);
            }
            Kind::Subscribe(room) if refusal.is_temporary() => {
                return self.rejoin_later(room.clone(), after, now);
            }
            Kind::Subscribe(room) => {
                return self.put_out(room.clone(), Some(refusal.code), Some(refusal.error));
            }
            Kind::Unsubscribe(room) => {
                // It is not in the room, which is what was wanted.
                self.rooms.remove(room);
                return pending.resolve(Ok(Answer::Done));
            }
            _ => {}
        }
        pending.resolve(Err(RequestError::Refused(refusal)));
    }

    fn disconnect(&mut self, from: &wire::Disconnect<'_>, now: Instant) {
        let lost = Lost {
            code: from.code,
            reason: from.reason.as_ref().to_owned(),
            after: from.reconnect_after_ms.map(span),
        };
        self.farewell = Some(Farewell { lost, until: now + FAREWELL_TIMEOUT });
    }
}

/// When to publish again after a refusal for the moment that names no time.
const RESEND_DELAY: Duration = Duration::from_secs(2);

/// An error and what it comes from, in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
