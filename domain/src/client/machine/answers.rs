//! What the server says: answers go to whoever asked, everything else becomes events.
//!
//! A frame that makes no sense is told as a violation and otherwise passed over: what it may have
//! taken with it shows as a hole.

use std::error::Error as _;

use crate::client::error::RequestError;
use crate::client::life::{Lost, Moment};
use crate::client::machine::requests::{Answer, Kind, Pending};
use crate::client::machine::rooms::{RoomPhase, again_at};
use crate::client::machine::{FAREWELL_TIMEOUT, Farewell, Machine};
use crate::client::settings::Token;
use crate::codes::{CloseCode, ErrorCode};
use crate::protocol::client_event::{
    Event, Gap, Hello, HistoryPage, LogEntry, Malformed, Message, Refusal, Status, Subscribed,
    Tombstone, Violation, span,
};
use crate::protocol::server_event as wire;
use crate::protocol::{ServerEvent, decode_server};

/// How many frames of one text may make no sense before the connection is given up.
const MALFORMED_MAX: usize = 16;
/// How much one text may have to tell. Servers put far less into one.
const EVENTS_MAX: usize = 100_000;

impl<R> Machine<R> {
    /// The frames of one text.
    pub(super) fn read(&mut self, text: &str, now: Moment) {
        let mut malformed = 0;
        for event in decode_server(text) {
            let done = match event {
                Ok(event) => {
                    self.event(event, now).map_err(|Malformed| "a number is out of range".into())
                }
                Err(error) => Err(match error.source() {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                }),
            };
            if let Err(why) = done {
                self.violation(Violation::Malformed { why });
                malformed += 1;
            }
            if malformed == MALFORMED_MAX || self.events.len() >= EVENTS_MAX {
                self.verdict = Some(Lost::broken("a text that is no server's"));
            }
            if self.verdict.is_some() {
                return;
            }
        }
    }

    fn event(&mut self, event: ServerEvent<'_>, now: Moment) -> Result<(), Malformed> {
        match event {
            ServerEvent::Hello(mut hello) => {
                let resumed = std::mem::take(&mut hello.resumed);
                let session = hello.session.take();
                let session = session.as_deref();
                self.greeted(hello.id, Hello::from_wire(hello), session, resumed, now);
            }
            ServerEvent::Subscribed(subscribed) => self.subscribed(subscribed, now)?,
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
            ServerEvent::PatternSubscribed(subscribed) => self.following(&subscribed),
            ServerEvent::PatternUnsubscribed(ended) => self.pattern_unsubscribed(ended, now),
            ServerEvent::PresenceState(state) => self.members(state, now),
            ServerEvent::PresenceEvent(change) => self.member_changed(change, now),
            ServerEvent::PresenceEvents(changes) => self.members_changed(changes, now),
            ServerEvent::PresenceCount(count) => self.members_counted(count),
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
                self.token_expires();
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
    pub(super) fn answer(
        &mut self,
        id: Option<u64>,
        fits: impl FnOnce(&Kind) -> bool,
        answer: impl FnOnce() -> Answer,
    ) {
        let Some(pending) = id.and_then(|id| self.requests.take(id)) else { return };
        if fits(&pending.kind) {
            self.resolve(pending, Ok(answer()));
        } else {
            self.wrong_answer(pending);
        }
    }

    pub(super) fn wrong_answer(&mut self, pending: Pending<R>) {
        self.violation(Violation::Malformed { why: "an answer to another question".into() });
        match &pending.kind {
            Kind::Subscribe(room) | Kind::Unsubscribe(room) => {
                // It is not known whether the client is in.
                let reason = format!("a wrong answer about {room}");
                self.verdict = Some(Lost::broken(reason));
                if pending.reply.is_some() {
                    self.rooms.remove(room);
                }
            }
            Kind::SubscribePattern(pattern) | Kind::UnsubscribePattern(pattern) => {
                let reason = format!("a wrong answer about {pattern}");
                self.verdict = Some(Lost::broken(reason));
                if pending.reply.is_some() {
                    self.forget_pattern(pattern);
                }
            }
            // Nobody else would ask for the list again.
            Kind::Members(room) => {
                self.verdict = Some(Lost::broken(format!("a wrong answer about who is in {room}")));
            }
            _ => {}
        }
        let error = pending.unpublished().unwrap_or(RequestError::WrongAnswer);
        self.resolve(pending, Err(error));
    }

    fn subscribed(&mut self, from: wire::Subscribed<'_>, now: Moment) -> Result<(), Malformed> {
        let subscribed = Subscribed::from_wire(&from)?;
        match self.rooms.get_mut(&from.room) {
            Some(entry) if entry.join.is_some() && entry.join == from.id => {
                entry.phase = RoomPhase::Joined;
                (entry.join, entry.wish) = (None, None);
            }
            // Left or given up meanwhile; the leave is on its way.
            Some(entry) if entry.leave.is_some() => return Ok(()),
            Some(_) | None => {
                self.violation(Violation::NotSubscribed { room: from.room });
                return Ok(());
            }
        }
        let fits = |kind: &Kind| matches!(kind, Kind::Subscribe(_));
        self.answer(from.id, fits, || Answer::Subscribed(subscribed.clone()));
        let reached = subscribed.position;
        self.events.push_back(Event::Subscribed(subscribed));
        self.follow_members(&from.room, now);
        self.batch(&from.room, from.messages, reached, from.more)
    }

    fn unsubscribed(&mut self, from: wire::Unsubscribed<'_>) {
        if let Some(id) = from.id {
            self.left(&from.room, id);
            let fits = |kind: &Kind| matches!(kind, Kind::Unsubscribe(_));
            return self.answer(from.id, fits, || Answer::Done);
        }
        let reason = from.reason.map(std::borrow::Cow::into_owned);
        self.put_out(from.room, from.code, reason);
    }

    fn refreshed(&mut self, from: wire::Refreshed<'_>) {
        let Some(pending) = from.id.and_then(|id| self.requests.take(id)) else { return };
        let Kind::Refresh(token) = &pending.kind else { return self.wrong_answer(pending) };
        self.token = Some(token.clone());
        self.session = from.session.map(|session| Token::new(&session));
        let expires_at = from.expires_at.map(std::borrow::Cow::into_owned);
        self.resolve(pending, Ok(Answer::Refreshed(expires_at)));
    }

    fn error(&mut self, id: Option<u64>, refusal: Refusal, now: Moment) {
        let after = refusal.retry_after_ms.map(span);
        let Some(id) = id else { return self.events.push_back(Event::Refused(refusal)) };
        // What may have been stored after all is repeated under its name; and what the client sends again by
        // itself it also sends slower by itself.
        if refusal.is_temporary()
            && let Some(Pending { kind: Kind::Publish(publish), .. }) = self.requests.get_mut(id)
            && (publish.sent > 1 || refusal.code == ErrorCode::Unavailable.number())
        {
            return self.requests.hold(id, again_at(after, now));
        }
        if refusal.is_temporary() && self.leave_later(id, after, now) {
            return;
        }
        let Some(pending) = self.requests.take(id) else { return };
        match &pending.kind {
            Kind::Connect if !refusal.is_temporary() && self.has_resumed() => {
                return self.connect_plainly(now);
            }
            Kind::Connect => {
                let code = if refusal.is_temporary() {
                    CloseCode::TryAgainLater
                } else {
                    CloseCode::Unauthenticated
                };
                self.verdict = Some(Lost { after, ..Lost::new(code.number(), refusal.message) });
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
                self.left(room, id);
                return self.resolve(pending, Ok(Answer::Done));
            }
            Kind::SubscribePattern(pattern) if pending.reply.is_some() => {
                self.forget_pattern(pattern);
            }
            Kind::SubscribePattern(pattern) => {
                return self.not_followed(pattern.clone(), refusal, now);
            }
            Kind::UnsubscribePattern(pattern) => {
                self.unfollowed(pattern, id);
                return self.resolve(pending, Ok(Answer::Done));
            }
            Kind::Refresh(_) if pending.reply.is_none() => return self.refresh_later(now),
            Kind::Members(room) if refusal.is_temporary() => {
                return self.members_unanswered(room, after, now);
            }
            // The server asks for rights before it looks whether it has the message already.
            Kind::Publish(publish) if publish.sent > 1 => {
                let msg_id = publish.msg_id.clone();
                let refusal = Some(Box::new(refusal));
                return self.resolve(pending, Err(RequestError::Unanswered { msg_id, refusal }));
            }
            _ => {}
        }
        self.resolve(pending, Err(RequestError::Refused(refusal)));
    }

    fn disconnect(&mut self, from: &wire::Disconnect<'_>, now: Moment) {
        let after = from.reconnect_after_ms.map(span);
        let lost = Lost { after, ..Lost::new(from.code, from.reason.as_ref()) };
        // The first one counts: another does not put the end off.
        let until = self.farewell.as_ref().map(|farewell| farewell.until);
        let until = until.unwrap_or_else(|| now.at.after(FAREWELL_TIMEOUT));
        self.farewell = Some(Farewell { lost, until });
    }
}
