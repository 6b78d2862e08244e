//! What a shard tells the security log about its connections.
//!
//! An event names the connection and its user, never a token or anything of a payload.

use domain::codes::{CloseCode, ErrorCode};
use domain::room::RoomId;
use domain::time::Now;

use super::open::request_id;
use super::{Host, Shard, Slot};
use crate::metrics::Row;
use crate::refusal::Refusal;
use crate::security::{SecurityEvent, TARGET};

impl Shard {
    /// Notes that a connection is ended for what it did.
    pub(super) fn note(&mut self, slot: Slot, event: SecurityEvent, now: Now) {
        self.note_because(slot, event, None, now);
    }

    /// The same with a reason that the event's name does not give.
    pub(super) fn note_because(
        &mut self,
        slot: Slot,
        event: SecurityEvent,
        reason: Option<&'static str>,
        now: Now,
    ) {
        let Some(entry) = self.table.get(slot) else { return };
        self.metrics.security.add(event, 1);
        let Some(left_out) = self.security.admit(event, now.monotonic) else { return };
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            request_id = request_id(entry.who.connection),
            user = entry.who.principal.user.as_ref().map(tracing::field::display),
            reason,
            left_out,
            "a connection is ended for what it did"
        );
    }

    /// Notes that a connection is ended on somebody's order, if the reason is one for guards.
    pub(super) fn note_order(&mut self, slot: Slot, code: CloseCode, now: Now) {
        match code {
            CloseCode::Revoked | CloseCode::SessionReplaced => {
                self.note(slot, SecurityEvent::Revoked, now);
            }
            CloseCode::SlowConsumer => self.note(slot, SecurityEvent::SlowConsumer, now),
            _ => {}
        }
    }

    /// Answers a command about a room that can't be carried out, and notes it if it was not
    /// allowed.
    pub(super) fn refuse_in(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        (action, room): (&'static str, &RoomId),
        refusal: &Refusal,
        host: &mut Host<'_>,
    ) {
        self.note_denied(slot, action, room.as_str(), refusal, host.now);
        self.refuse(slot, command, refusal, host);
    }

    /// Notes a refusal, if it is for a missing right. `room` may be a pattern.
    pub(super) fn note_denied(
        &mut self,
        slot: Slot,
        action: &'static str,
        room: &str,
        refusal: &Refusal,
        now: Now,
    ) {
        if refusal.code == ErrorCode::PermissionDenied {
            self.note_in(slot, SecurityEvent::PermissionDenied, Some(action), room, now);
        }
    }

    /// Notes that a connection may not be any more where it was. `room` may be a pattern.
    pub(super) fn note_lost(&mut self, slot: Slot, room: &str, now: Now) {
        self.note_in(slot, SecurityEvent::RightsLost, None, room, now);
    }

    fn note_in(
        &mut self,
        slot: Slot,
        event: SecurityEvent,
        action: Option<&'static str>,
        room: &str,
        now: Now,
    ) {
        let Some(entry) = self.table.get(slot) else { return };
        self.metrics.security.add(event, 1);
        let Some(left_out) = self.security.admit(event, now.monotonic) else { return };
        let words = match action {
            Some(_) => "a command was not allowed",
            None => "a connection may not be in a room any more",
        };
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            request_id = request_id(entry.who.connection),
            user = entry.who.principal.user.as_ref().map(tracing::field::display),
            action,
            room,
            left_out,
            "{words}"
        );
    }
}
