//! Saying something to one connection.
//!
//! A frame is encoded once here and given away; nothing here decides what to say.

use std::sync::Arc;

use bytes::Bytes;
use domain::delivery::Class;
use domain::protocol::ServerFrame;
use domain::room::RoomId;

use super::{Host, Shard, Slot};
use crate::ports::outbox::{Batch, Delivered, Frame};
use crate::published::Published;
use crate::refusal::Refusal;
use crate::view::View;

/// Above this the shard's encoding buffer is given back after use.
const SCRATCH_BYTES_KEPT: usize = 256 << 10;

impl Shard {
    /// Encodes a frame and gives it to one connection.
    pub(super) fn tell(&mut self, slot: Slot, frame: &ServerFrame<'_>, host: &mut Host<'_>) {
        let Some(entry) = self.table.get(slot) else { return };
        let view = entry.view;
        if view == View::V2 {
            let bytes = self.encode(frame, host);
            return self.give(slot, bytes, host);
        }
        self.scratch.clear();
        if view.encode(frame, &entry.who.client, host.now.wall, &mut self.scratch) {
            let bytes = host.outbox.frame(&self.scratch);
            self.give(slot, bytes, host);
        }
    }

    /// Encodes and frames; for a frame that goes to many.
    pub(super) fn encode(&mut self, frame: &ServerFrame<'_>, host: &mut Host<'_>) -> Bytes {
        self.scratch.clear();
        frame.encode(host.now.wall, &mut self.scratch);
        let bytes = host.outbox.frame(&self.scratch);
        if self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.scratch = Vec::new();
        }
        bytes
    }

    /// Gives framed bytes to one connection, in their turn.
    pub(super) fn give(&mut self, slot: Slot, bytes: Bytes, host: &mut Host<'_>) {
        let frame = Frame { bytes, class: Class::Reliable, key: None };
        let batch = Batch { joined: &frame.bytes, frames: std::slice::from_ref(&frame) };
        self.metrics.replies.add(1);
        self.metrics.reply_bytes.add(frame.bytes.len() as u64);
        let delivered = host.outbox.deliver(slot, &batch);
        self.delivered(slot, delivered, host);
    }

    /// How many bytes of encoded messages may go into the next frame for a connection, beside these:
    /// half of what may wait for it and less what waits already, so that live messages fit behind.
    pub(super) fn bytes_left(
        &self,
        slot: Slot,
        messages: &[Arc<Published>],
        host: &Host<'_>,
    ) -> usize {
        let beside: usize = messages.iter().map(|published| published.message().len()).sum();
        let half = self.services.rules.limits.outbound_queue_bytes_max / 2;
        half.saturating_sub(host.outbox.queued_bytes(slot)).saturating_sub(beside)
    }

    /// Notes what became of a delivery.
    pub(super) fn delivered(&mut self, slot: Slot, delivered: Delivered, host: &Host<'_>) {
        match delivered {
            Delivered::Taken => {
                if let Some(sent_at) = self.table.sent_at.get_mut(slot.index as usize) {
                    *sent_at = host.now.monotonic;
                }
            }
            Delivered::Refused => self.refused.push(slot),
            // The host tells of the end itself.
            Delivered::Gone => {}
        }
    }

    /// Answers a command that ended a membership.
    pub(super) fn tell_unsubscribed(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: &RoomId,
        host: &mut Host<'_>,
    ) {
        if command.is_some() {
            let frame = ServerFrame::Unsubscribed { id: command, room, code: None, reason: None };
            self.tell(slot, &frame, host);
        }
    }

    /// Answers a command that can't be carried out.
    pub(super) fn refuse(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        refusal: &Refusal,
        host: &mut Host<'_>,
    ) {
        self.metrics.refusals.add(refusal.code, 1);
        let retry_after_ms =
            refusal.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let frame = ServerFrame::Error {
            id: command,
            code: refusal.code,
            message: &refusal.message,
            field: refusal.field.as_deref(),
            retry_after_ms,
        };
        self.tell(slot, &frame, host);
    }
}
