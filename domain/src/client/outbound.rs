//! Frames on their way out.
//!
//! It must never grow with what a server says: one `pong` at a time waits in it, and a connection over which
//! far more waits than was asked for is given up ([`crate::client::Machine`]).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::protocol::{ClientFrame, encode_client};

/// Frames on their way out, oldest first.
#[derive(Debug, Default)]
pub struct Outbound {
    queue: VecDeque<Arc<str>>,
    bytes: usize,
    pong_queued: bool,
}

impl Outbound {
    const FRAMES_MAX: usize = 256;
    const BYTES_MAX: usize = 1 << 20;

    /// Whether another command may be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.len() < Self::FRAMES_MAX && self.bytes < Self::BYTES_MAX
    }

    /// How many frames wait, and how many bytes they have.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.queue.len(), self.bytes)
    }

    /// Whether everything is sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next frame to send.
    pub fn pop(&mut self) -> Option<Arc<str>> {
        let frame = self.queue.pop_front()?;
        self.bytes -= frame.len();
        // One answer serves all pings before it; a server can't fill the queue with them.
        self.pong_queued = self.pong_queued && !self.queue.is_empty();
        Some(frame)
    }

    pub(super) fn push(&mut self, frame: Arc<str>) {
        self.bytes += frame.len();
        self.queue.push_back(frame);
    }

    pub(super) fn push_frame(&mut self, frame: &ClientFrame<'_>) {
        self.push(encode_client(frame).into());
    }

    pub(super) fn push_pong(&mut self) {
        if !self.pong_queued {
            self.push_frame(&ClientFrame::Pong);
            self.pong_queued = true;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
