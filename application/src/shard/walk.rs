//! One batch of a room on its way to the members: how it is put together.
//!
//! Made once per batch; nothing here may be done per member.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::Slot;
use super::audiences::{Choice, Chosen, Part};
use super::rooms::{RoomSlice, Silent, Walk};
use crate::ports::outbox::Frame;
use crate::published::WireFormat;

impl Walk {
    /// Whether somebody sent anything of the batch that it does not want back.
    #[inline]
    pub(super) fn is_silent(&self, slot: Slot) -> bool {
        !self.silent_slots.is_empty() && self.silent_slots.binary_search(&slot).is_ok()
    }

    /// Puts an `ack` at the end of the batch.
    pub(super) fn add_silent(&mut self, silent: Silent) {
        if let Err(at) = self.silent_slots.binary_search(&silent.slot) {
            self.silent_slots.insert(at, silent.slot);
        }
        self.silent.push((self.frames.len().saturating_sub(1), silent));
    }
}

/// Takes the next batch of a room: what waits, of one kind, up to a size.
pub(super) fn begin_walk(slice: &mut RoomSlice, joined_bytes_max: usize) -> Option<Box<Walk>> {
    let to = slice.pending.front()?.to;
    let first = slice.accepted - slice.pending.len() as u64;
    let mut parts = slice.audiences.parts();
    let (mut frames, mut silent, mut bytes) = (Vec::new(), SmallVec::new(), 0);
    while let Some(item) = slice.pending.front() {
        bytes += item.frame.bytes.len();
        let fits = frames.is_empty() || bytes <= joined_bytes_max;
        if item.to != to || !fits {
            break;
        }
        let Some(item) = slice.pending.pop_front() else { break };
        silent.extend(item.silent.into_iter().map(|sender| (frames.len(), sender)));
        if !parts.is_empty() {
            share_out(&item.frame, item.chosen, frames.len(), &mut parts);
        }
        frames.push(item.frame);
    }
    for part in &mut parts {
        part.joined = join(&part.frames);
    }
    let joined = join(&frames);
    let mut silent_slots: SmallVec<[Slot; 2]> = SmallVec::new();
    silent_slots.extend(silent.iter().map(|(_, sender): &(usize, Silent)| sender.slot));
    silent_slots.sort_unstable();
    silent_slots.dedup();
    Some(Box::new(Walk {
        frames,
        joined,
        to,
        parts,
        first,
        next: 0,
        silent,
        silent_slots,
        vacated: false,
    }))
}

/// Puts what is at one place of a batch into the parts of those who get it.
fn share_out(frame: &Frame, chosen: Choice, place: usize, parts: &mut [Part]) {
    let put = |part: &mut Part, frame: Frame| {
        part.frames.push(frame);
        part.places.push(place);
    };
    match chosen {
        Choice::Everyone(document) => {
            for part in parts {
                match part.format {
                    WireFormat::V2 => put(part, frame.clone()),
                    WireFormat::Document if document.is_empty() => {}
                    WireFormat::Document => {
                        put(part, Frame { bytes: document.clone(), ..frame.clone() });
                    }
                }
            }
        }
        Choice::Only(all) => {
            for Chosen { audience, bytes } in all {
                // Who was in that audience may be gone by now.
                if let Some(part) = parts.get_mut(audience.index()) {
                    put(part, Frame { bytes, ..frame.clone() });
                }
            }
        }
    }
}

/// How many of these frames are given together: one at least, and no more than make a piece of this length.
pub(super) fn fit_together(frames: &[Frame], joined_bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |frame: &&Frame| {
        bytes += frame.bytes.len();
        bytes <= joined_bytes_max
    };
    frames.iter().take_while(fits).count().max(1)
}

/// All frames in one piece; one alone is shared as it is.
pub(super) fn join(frames: &[Frame]) -> Bytes {
    if let [one] = frames {
        return one.bytes.clone();
    }
    let mut joined = BytesMut::with_capacity(frames.iter().map(|f| f.bytes.len()).sum());
    for frame in frames {
        joined.extend_from_slice(&frame.bytes);
    }
    joined.freeze()
}
