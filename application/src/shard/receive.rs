//! Reading commands: one text may hold several; one is carried out at a time.
//!
//! What waits behind a cold call stays text, bounded in number and bytes; when that is full the
//! socket is not read. So a connection's order is kept, and only a pushy client is slowed.

use std::sync::Arc;

use bytes::Bytes;
use domain::codes::{CloseCode, ErrorCode};
use domain::documents::told::Endpoint;
use domain::matches::MatchId;
use domain::protocol::{self, ClientFrame, Rejected, ServerFrame, TokenText};

use super::calls::Outcome;
use super::join::Wish;
use super::open::request_id;
use super::seated::refused;
use super::table::Waiting;
use super::{Host, Shard, Slot};
use crate::extensions::handlers::HandlerEffect;
use crate::metrics::{CommandKind, EndpointKind};
use crate::refusal::Refusal;
use crate::security::SecurityEvent;
use crate::use_cases::authenticate::Credentials;
use crate::use_cases::handle_game_message::HandleGameMessage;
use crate::use_cases::handle_message::{HandleMessage, Handled};
use crate::view::View;

/// The most bytes that wait before it is known who a connection is.
const UNGREETED_INBOX_BYTES_MAX: usize = 4 << 10;

impl Shard {
    pub(super) fn receive(&mut self, slot: Slot, text: &str, host: &mut Host<'_>) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        entry.life.heard(host.now.monotonic);
        self.metrics.texts_in.add(1);
        self.metrics.endpoint_texts.add(EndpointKind::of(entry.view), 1);
        self.metrics.text_bytes_in.add(text.len() as u64);
        if entry.is_busy() || entry.inbox.is_some() {
            self.put_in_inbox(slot, text, host);
        } else if let Some(rest) = self.read(slot, text, (false, false), host) {
            self.put_back(
                slot,
                Waiting { text: text[rest..].into(), at: 0, is_rest: true, is_own: false },
            );
        }
    }

    /// Carries out the commands of a text until one has to be waited for. Answers where the rest
    /// begins, if there is one.
    fn read(
        &mut self,
        slot: Slot,
        text: &str,
        (is_rest, is_own): (bool, bool),
        host: &mut Host<'_>,
    ) -> Option<usize> {
        let view = if is_own { View::V2 } else { self.table.get(slot)?.view };
        let mut frames = if is_rest { view.decode_rest(text) } else { view.decode(text) };
        while let Some(frame) = frames.next() {
            match frame {
                Ok(frame) => {
                    if !matches!(frame, ClientFrame::Ping { .. } | ClientFrame::Pong)
                        && let Some(entry) = self.table.get_mut(slot)
                    {
                        entry.life.acted(host.now.monotonic);
                    }
                    self.take_frame(slot, frame, host);
                }
                Err(rejected) => self.take_rejected(slot, rejected, host),
            }
            match self.table.get(slot) {
                None => return None,
                Some(entry) if entry.is_busy() => {
                    let rest = frames.rest().len();
                    return (rest > 0).then_some(text.len() - rest);
                }
                Some(_) => {}
            }
        }
        None
    }

    /// Puts a text before all that wait.
    fn put_back(&mut self, slot: Slot, waiting: Waiting) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        let inbox = entry.inbox.get_or_insert_default();
        inbox.bytes += waiting.text.len();
        inbox.texts.push_front(waiting);
    }

    fn put_in_inbox(&mut self, slot: Slot, text: &str, host: &mut Host<'_>) {
        let limits = &self.services.rules.limits;
        let Some(entry) = self.table.get_mut(slot) else { return };
        let bytes_max =
            if entry.greeted { limits.inbox_bytes_max } else { UNGREETED_INBOX_BYTES_MAX };
        let inbox = entry.inbox.get_or_insert_default();
        inbox.bytes += text.len();
        inbox.texts.push_back(Waiting { text: text.into(), at: 0, is_rest: false, is_own: false });
        let full = inbox.texts.len() >= limits.inbox_messages_max || inbox.bytes >= bytes_max;
        if full && !inbox.paused {
            inbox.paused = true;
            host.outbox.set_reading(slot, false);
        }
    }

    /// Goes on with what waited.
    pub(super) fn read_inbox(&mut self, slot: Slot, host: &mut Host<'_>) {
        if let Some(entry) = self.table.get_mut(slot)
            && entry.inbox.as_ref().is_some_and(|inbox| inbox.paused)
        {
            // Its answers are not read: what was under way for it has to do. A page is read only
            // when it has taken the one before.
            entry.life.heard(host.now.monotonic);
        }
        while let Some(entry) = self.table.get_mut(slot) {
            if entry.is_busy() {
                return;
            }
            let Some(inbox) = &mut entry.inbox else { return };
            let Some(waiting) = inbox.texts.pop_front() else {
                let paused = inbox.paused;
                entry.inbox = None;
                if paused {
                    host.outbox.set_reading(slot, true);
                }
                return;
            };
            let Waiting { text, at, is_rest, is_own } = waiting;
            inbox.bytes -= text.len();
            if let Some(rest) = self.read(slot, &text[at..], (is_rest, is_own), host) {
                self.put_back(slot, Waiting { text, at: at + rest, is_rest: true, is_own });
            }
        }
    }

    fn take_rejected(&mut self, slot: Slot, rejected: Rejected, host: &mut Host<'_>) {
        self.metrics.commands.add(CommandKind::Rejected, 1);
        let limit = self.services.rules.limits.unparsable;
        let Some(entry) = self.table.get_mut(slot) else { return };
        if rejected.strike && entry.unparsable.take(limit, host.now.monotonic).is_err() {
            self.note(slot, SecurityEvent::MalformedMessages, host.now);
            self.end(slot, CloseCode::MalformedMessages, None, host);
            return;
        }
        let refusal = Refusal {
            code: rejected.code,
            message: rejected.message,
            field: rejected.field,
            retry_after: None,
        };
        self.refuse(slot, rejected.id, &refusal, host);
    }

    fn take_frame(&mut self, slot: Slot, frame: ClientFrame<'_>, host: &mut Host<'_>) {
        self.metrics.commands.add(CommandKind::of(&frame), 1);
        if matches!(frame, ClientFrame::Pong) || !self.admit_command(slot, frame.id(), host) {
            return;
        }
        let id = frame.id();
        if !matches!(frame, ClientFrame::Ping { .. }) && !self.is_seated(slot, id, host) {
            return;
        }
        match frame {
            ClientFrame::Connect { token, session, resume, .. } => {
                let text = |text: TokenText<'_>| text.as_str().to_owned();
                let (session, token) = (session.map(text), token.map(text));
                self.connect(
                    slot,
                    id,
                    Credentials { session, token, ..Credentials::default() },
                    resume,
                    host,
                );
            }
            ClientFrame::Pong => {}
            ClientFrame::Ping { .. } => self.tell(slot, &ServerFrame::Pong { id }, host),
            frame if !self.table.get(slot).is_some_and(|entry| entry.greeted) => {
                let message = "say who you are with connect first";
                let refusal = Refusal::new(ErrorCode::NotConnected, message);
                self.refuse(slot, frame.id(), &refusal, host);
            }
            ClientFrame::Subscribe { room, since, presence, filter, .. } => {
                self.subscribe(slot, id, Wish { room: &room, since, presence, filter }, host);
            }
            ClientFrame::SubscribePattern { pattern, .. } => {
                self.subscribe_pattern(slot, id, pattern, host);
            }
            ClientFrame::UnsubscribePattern { pattern, .. } => {
                self.unsubscribe_pattern(slot, id, &pattern, host);
            }
            ClientFrame::Unsubscribe { room, .. } => self.unsubscribe(slot, id, &room, host),
            ClientFrame::Publish {
                room, data, msg_id, echo, class, key, ttl, tags, trace, ..
            } => {
                let publish = super::publish::Command {
                    id,
                    room,
                    msg_id,
                    echo,
                    class,
                    key,
                    ttl,
                    tags,
                    trace,
                };
                self.publish(slot, publish, data, host);
            }
            ClientFrame::Presence { room, .. } => self.presence(slot, id, room, host),
            ClientFrame::PresenceUpdate { room, data, .. } => {
                self.presence_update(slot, id, room, data, host);
            }
            ClientFrame::History { room, since, limit, .. } => {
                self.history(slot, id, room, since, limit, host);
            }
            ClientFrame::Refresh { token, .. } => {
                self.refresh(slot, id, token.as_str().to_owned());
            }
            ClientFrame::Status { .. } => self.status(slot, id, host),
            ClientFrame::Other { kind, body, .. } => self.other(slot, id, &kind, body, host),
        }
    }

    /// Whether a command may come now. One that comes too fast is refused; a client that goes on
    /// regardless is closed.
    fn admit_command(&mut self, slot: Slot, id: Option<u64>, host: &mut Host<'_>) -> bool {
        let limits = &self.services.rules.limits;
        let Some(entry) = self.table.get_mut(slot) else { return false };
        let now = host.now.monotonic;
        let taken = entry.commands.take(limits.commands, now).and_then(|()| {
            // Over several nodes each has its share of the user's.
            entry.admission.as_ref().map_or(Ok(()), |admission| {
                let rate = limits.commands_of_user.shared_by(admission.nodes());
                admission.commands().take(rate, now)
            })
        });
        let Err(wait) = taken else { return true };
        if entry.refused_commands.take(limits.refused_commands, host.now.monotonic).is_err() {
            self.note(slot, SecurityEvent::RateLimited, host.now);
            self.end(slot, CloseCode::RateLimited, Some(wait), host);
            return false;
        }
        let message = "commands come too fast";
        let refusal = Refusal::new(ErrorCode::RateLimited, message).retry_after(wait);
        self.refuse(slot, id, &refusal, host);
        false
    }

    fn status(&mut self, slot: Slot, id: Option<u64>, host: &mut Host<'_>) {
        let Some(entry) = self.table.get(slot) else { return };
        let (who, opened_at) = (Arc::clone(&entry.who), entry.opened_at);
        let rooms: Vec<_> = entry
            .rooms
            .rooms()
            .filter_map(|key| self.rooms.get(key).map(|slice| slice.id.clone()))
            .chain(entry.own_room.joined().cloned())
            .collect();
        let status = ServerFrame::Status {
            id,
            connection_id: who.connection,
            user_id: who.principal.user.as_ref(),
            rooms: &rooms.iter().collect::<Vec<_>>(),
            connected_since: opened_at,
            queue_bytes: host.outbox.queued_bytes(slot),
            request_id: &request_id(who.connection),
        };
        self.tell(slot, &status, host);
    }

    /// A message type that the protocol does not have: the host's, or nobody's.
    fn other(&mut self, slot: Slot, id: Option<u64>, kind: &str, body: &str, host: &mut Host<'_>) {
        let Some(view) = self.table.get(slot).map(|entry| entry.view) else { return };
        let Some(handler) = self.services.rules.handlers.of(view, kind).cloned() else {
            if self.ask_manager(slot, id, kind, body) {
                return;
            }
            let message = "this server handles no such type";
            let refusal = Refusal::new(ErrorCode::UnknownType, message).field("type");
            self.refuse(slot, id, &refusal, host);
            return;
        };
        let Some(who) = self.who(slot) else { return };
        let services = Arc::clone(&self.services);
        let (body, kind) = (Bytes::copy_from_slice(body.as_bytes()), kind.to_owned());
        let call = HandleMessage { services, who, handler, kind, body };
        let future = Box::pin(async move { Outcome::Handled(call.execute().await) });
        self.call_seated(slot, id, None, future, refused);
    }

    /// Asks the manager of the match's game, where a connection came to one; says whether it did.
    fn ask_manager(&mut self, slot: Slot, command: Option<u64>, kind: &str, body: &str) -> bool {
        let Some(who) = self.who(slot) else { return false };
        let is_match = who.view == View::Document(Endpoint::Match);
        let place = who.place.as_ref().filter(|_| is_match);
        let Some(id) = place.and_then(MatchId::of_room) else { return false };
        let services = Arc::clone(&self.services);
        let (kind, body) = (kind.into(), Bytes::copy_from_slice(body.as_bytes()));
        let call = HandleGameMessage { services, who, id, kind, body };
        let future = Box::pin(async move { Outcome::Handled(call.execute().await) });
        self.call_seated(slot, command, None, future, refused);
        true
    }

    pub(super) fn finish_handler(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        result: Result<Handled, Refusal>,
        host: &mut Host<'_>,
    ) {
        let Handled { effects, receipt } = match result {
            Ok(handled) => handled,
            Err(refusal) => return self.refuse(slot, command, &refusal, host),
        };
        let Some(view) = self.table.get(slot).map(|entry| entry.view) else { return };
        if let (View::Document(_), Some((room, receipt))) = (view, receipt) {
            self.acknowledge(slot, command, &room, &receipt, host);
        }
        let has_rooms = view.has_rooms();
        let mut own = Vec::new();
        for effect in effects {
            // Joins and leaves are commands of the connection, before those that wait already.
            let frame = match &effect {
                HandlerEffect::Join(_) | HandlerEffect::Leave(_) if !has_rooms => {
                    let message = "this endpoint has no rooms: connect to /ws/v2/connect";
                    let refusal = Refusal::new(ErrorCode::NotAvailable, message);
                    self.refuse(slot, command, &refusal, host);
                    continue;
                }
                HandlerEffect::Join(room) => ClientFrame::Subscribe {
                    id: None,
                    room: room.clone(),
                    since: None,
                    presence: false,
                    filter: None,
                },
                HandlerEffect::Leave(room) => {
                    ClientFrame::Unsubscribe { id: None, room: room.clone() }
                }
                HandlerEffect::Reply { kind, data } => {
                    let body = std::str::from_utf8(data).unwrap_or("null");
                    self.tell(slot, &ServerFrame::Reply { id: command, kind, body }, host);
                    continue;
                }
                HandlerEffect::Close(code) => return self.end(slot, *code, None, host),
                HandlerEffect::Publish(_) => continue,
            };
            own.push(protocol::encode_client(&frame));
        }
        if own.is_empty() {
            return;
        }
        self.put_back(
            slot,
            Waiting { text: own.concat().into(), at: 0, is_rest: false, is_own: true },
        );
    }
}
