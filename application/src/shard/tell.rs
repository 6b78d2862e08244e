//! Saying something to one connection.
//!
//! A frame is encoded once here and given away; nothing here decides what to say.

use std::sync::Arc;

use bytes::Bytes;
use domain::delivery::Class;
use domain::documents::told;
use domain::id::UserId;
use domain::protocol::ServerFrame;
use domain::room::RoomId;

use super::walk::{fit_together, join};
use super::{Host, RoomKey, Shard, Slot};
use crate::metrics::EndpointKind;
use crate::ports::outbox::{Batch, Delivered, Frame};
use crate::published::{Published, WireFormat};
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
        let directory = &self.services.directory;
        let names = |user: &UserId| directory.name_of(user);
        if view.encode(frame, &entry.who, &names, host.now.wall, &mut self.scratch) {
            let bytes = host.outbox.frame(&self.scratch);
            self.give(slot, bytes, host);
        }
        self.keep_scratch_small();
    }

    /// The same frame in the words of the documents, for all of a room who came by their endpoints; empty
    /// when there are no such words, or nobody is there to read them.
    pub(super) fn encode_document(
        &mut self,
        key: RoomKey,
        frame: &ServerFrame<'_>,
        host: &mut Host<'_>,
    ) -> Bytes {
        let slice = self.rooms.get(key);
        if !slice.is_some_and(|slice| slice.audiences.has(WireFormat::Document)) {
            return Bytes::new();
        }
        self.scratch.clear();
        let directory = &self.services.directory;
        let names = |user: &UserId| directory.name_of(user);
        if told::encode_for_all(frame, &names, host.now.wall, &mut self.scratch) {
            host.outbox.frame(&self.scratch)
        } else {
            Bytes::new()
        }
    }

    /// Gives publications, each in a frame of its own, to one who has no words for a page of them; says
    /// whether all were taken.
    pub(super) fn tell_each<'p>(
        &mut self,
        slot: Slot,
        publications: impl IntoIterator<Item = &'p Arc<Published>>,
        host: &mut Host<'_>,
    ) -> bool {
        let frames: Vec<Frame> = publications
            .into_iter()
            .map(|published| self.frame_of(published, WireFormat::Document, host))
            .filter(|frame| !frame.bytes.is_empty())
            .collect();
        let joined_max = self.services.rules.limits.joined_bytes_max;
        let (mut rest, mut are_taken) = (&frames[..], true);
        while !rest.is_empty() {
            let (here, behind) = rest.split_at(fit_together(rest, joined_max));
            are_taken &= self.give_frames(slot, here, host) == Delivered::Taken;
            rest = behind;
        }
        are_taken
    }

    /// Gives messages to one connection, in one write if it keeps up.
    pub(super) fn give_frames(
        &mut self,
        slot: Slot,
        frames: &[Frame],
        host: &mut Host<'_>,
    ) -> Delivered {
        let joined = join(frames);
        let batch = Batch { joined: &joined, frames };
        let delivered = host.outbox.deliver(slot, &batch);
        self.count(1, &batch);
        self.delivered(slot, delivered, host);
        delivered
    }

    /// In which form a connection gets publications.
    pub(super) fn format_of(&self, slot: Slot) -> WireFormat {
        self.table.get(slot).map_or_else(WireFormat::default, |entry| entry.view.format())
    }

    /// Encodes and frames; for a frame that goes to many.
    pub(super) fn encode(&mut self, frame: &ServerFrame<'_>, host: &mut Host<'_>) -> Bytes {
        self.scratch.clear();
        frame.encode(host.now.wall, &mut self.scratch);
        let bytes = host.outbox.frame(&self.scratch);
        self.keep_scratch_small();
        bytes
    }

    fn keep_scratch_small(&mut self) {
        if self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.scratch = Vec::new();
        }
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
        if let Some(entry) = self.table.get(slot) {
            self.metrics.endpoint_refusals.add(EndpointKind::of(entry.view), 1);
        }
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
