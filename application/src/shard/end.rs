//! Use case *disconnect*: how connections end, and what is cleaned up behind them.
//!
//! Whatever the reason, a connection leaves its rooms, presence and its user's count exactly once.

use std::sync::Arc;
use std::time::Duration;

use domain::codes::CloseCode;
use domain::protocol::ServerFrame;
use domain::revocation::Revocation;

use super::calls::Outcome;
use super::rooms::RoomKey;
use super::{Host, Shard, Slot};
use crate::mailbox::Control;
use crate::metrics::EndpointKind;
use crate::ports::SubscriptionToken;
use crate::security::SecurityEvent;
use crate::use_cases::leave_room::LeaveRoom;
use crate::view::View;

impl Shard {
    /// Tells a client why and when to come back, closes, and cleans up.
    pub(super) fn end(
        &mut self,
        slot: Slot,
        code: CloseCode,
        come_back: Option<Duration>,
        host: &mut Host<'_>,
    ) {
        let Some(entry) = self.table.get_mut(slot) else { return };
        let (view, ending) = (entry.view, entry.view.ending(code, entry.greeted));
        // Who was told when to come back is not told again, and without that.
        let is_told = entry.leaving && code == CloseCode::ServiceRestart;
        let code = ending.code;
        entry.life.close(code);
        let reconnect_after_ms =
            come_back.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let frame = match view {
            View::V2 if is_told => bytes::Bytes::new(),
            View::V2 => self.encode(&ServerFrame::Disconnect { code, reconnect_after_ms }, host),
            // The close frame says it all.
            View::Client(_) | View::Document(_) | View::Refused(_) => bytes::Bytes::new(),
        };
        host.outbox.close(slot, frame, ending);
        self.forget(slot, code, host);
    }

    /// Cleans up behind a connection that is closed.
    pub(super) fn forget(&mut self, slot: Slot, code: CloseCode, host: &mut Host<'_>) {
        let Some(entry) = self.table.get(slot) else { return };
        let keys: Vec<_> = entry.rooms.rooms().collect();
        for key in keys {
            self.leave_now(slot, key, host);
        }
        self.leave_watches(slot);
        let Some(mut entry) = self.table.remove(slot) else { return };
        let (giving, retry) = (entry.giving.take(), entry.letters_wait.take());
        if giving.is_some() || retry.is_some() {
            drop((giving, retry));
            if let Some(user) = &entry.who.principal.user {
                self.ring_everywhere(user);
            }
        }
        self.metrics.closed.add(code, 1);
        self.metrics.endpoints.sub(EndpointKind::of(entry.view), 1);
        let services = Arc::clone(&self.services);
        if entry.greeted && !services.rules.middleware.is_empty() {
            let who = Arc::clone(&entry.who);
            self.call_detached(Box::pin(async move {
                services.rules.middleware.process_disconnect(&who, code).await;
                Outcome::Done
            }));
        }
    }

    /// Ends the connections that could not take what they had to.
    pub(super) fn close_refused(&mut self, host: &mut Host<'_>) {
        while let Some(slot) = self.refused.pop() {
            self.note(slot, SecurityEvent::SlowConsumer, host.now);
            self.end(slot, CloseCode::SlowConsumer, None, host);
        }
    }

    pub(super) fn obey(&mut self, control: &Control, host: &mut Host<'_>) {
        match control {
            Control::Disconnect(connection, code) => {
                if let Some(slot) = self.table.slot_of(*connection) {
                    self.note_order(slot, *code, host.now);
                    self.end(slot, *code, None, host);
                }
            }
            Control::DisconnectUser(user, code) => {
                for slot in self.table.slots() {
                    let entry = self.table.get(slot);
                    if entry.is_some_and(|e| e.who.principal.user.as_ref() == Some(user)) {
                        self.note_order(slot, *code, host.now);
                        self.end(slot, *code, None, host);
                    }
                }
            }
            Control::Revoke(revocation) => self.revoke(revocation, host),
            Control::PutOut(user, room) => self.put_user_out(user, room, host),
            Control::Ring(user) => self.ring(user),
            Control::Inquire(inquiry) => self.inquire(inquiry, host),
            Control::Drain { until } => self.drain(*until, host),
            // Cold calls hold what they began with; the next step reads the new rules.
            Control::Adopt(services) => {
                self.services = Arc::clone(&services.0);
                self.watch_own_rooms();
                self.adopt_rights(host.now.monotonic);
            }
        }
    }

    /// Ends the connections whose token, user or self was revoked. Those whose token is being
    /// verified right now find out by themselves: the revocation is remembered already.
    fn revoke(&mut self, revocation: &Revocation, host: &mut Host<'_>) {
        let slots = match revocation {
            Revocation::Connection(connection) => {
                self.table.slot_of(*connection).into_iter().collect()
            }
            Revocation::Token(_) | Revocation::User { .. } => self.table.slots(),
        };
        for slot in slots {
            let Some(entry) = self.table.get(slot) else { continue };
            if revocation.concerns(&entry.who.principal, entry.who.connection) {
                self.note_order(slot, CloseCode::Revoked, host.now);
                self.end(slot, CloseCode::Revoked, None, host);
            }
        }
    }

    /// Forgets a slice that nobody is in; answers its subscription, which is to end.
    pub(super) fn release_slice(&mut self, key: RoomKey) -> Option<SubscriptionToken> {
        let slice = self.rooms.get(key)?;
        // A walk keeps its places; the slice is released at its end.
        if !slice.is_unused() && !slice.members.iter().all(|m| m.slot == super::rooms::VACATED) {
            return None;
        }
        if !slice.joiners.is_empty() {
            return None;
        }
        let token = self.rooms.remove(key).map(|slice| slice.token);
        self.metrics.rooms.set(self.rooms.len() as u64);
        token
    }

    /// Forgets a slice that nobody is in and ends its subscription.
    pub(super) fn release_if_unused(&mut self, key: RoomKey) {
        let Some(room) = self.rooms.get(key).map(|slice| slice.id.clone()) else { return };
        let Some(token) = self.release_slice(key) else { return };
        let leave = LeaveRoom {
            services: Arc::clone(&self.services),
            room,
            listed: None,
            unsubscribe: Some((Arc::clone(&self.mailbox), token)),
        };
        self.call_detached(Box::pin(async move {
            leave.execute().await;
            Outcome::Done
        }));
    }
}
