//! What waits for one connection whose socket takes nothing at the moment.
//!
//! Bounded in bytes; frames leave in order and whole. It never decides more than
//! [`domain::delivery::decide_slow`] does, and a keeping-up connection has none.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use domain::delivery::{Class, SlowDecision, decide_slow};

use crate::ports::outbox::Frame;

/// The queue of one connection. Frames that tell about the connection itself (pong, close,
/// errors) go before messages, but never into the middle of one.
#[derive(Debug, Default)]
pub struct OutboundQueue {
    /// What the socket took in part; must be finished before anything else.
    started: Bytes,
    urgent: VecDeque<Bytes>,
    waiting: VecDeque<Frame>,
    bytes: usize,
}

/// What became of a frame that was not refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pushed {
    /// It waits.
    Queued,
    /// It waits, and the one that it replaces is gone.
    Replaced,
    /// It is of a class that a crowded queue drops.
    Dropped,
}

/// The queue is full and the frame may not be dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueueFull;

impl OutboundQueue {
    /// The urgent lane's own bound: what a client can provoke (pongs, errors) never grows beyond
    /// it; when it is full the newest is dropped.
    pub const URGENT_BYTES_MAX: usize = 16 << 10;

    /// How many bytes wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Keeps the rest of bytes that the socket took in part. Only for an empty queue.
    pub fn start(&mut self, rest: Bytes) {
        self.bytes += rest.len();
        self.started = rest;
    }

    /// Takes a frame, or drops one by class.
    ///
    /// # Errors
    /// [`QueueFull`] when the connection has to end.
    pub fn push(&mut self, frame: Frame, bytes_max: usize) -> Result<Pushed, QueueFull> {
        let replaces = frame.class == Class::Latest && self.remove_older(&frame);
        match decide_slow(frame.class, self.bytes, frame.bytes.len(), bytes_max) {
            SlowDecision::Drop => return Ok(Pushed::Dropped),
            SlowDecision::Close => return Err(QueueFull),
            SlowDecision::Queue | SlowDecision::Replace => {}
        }
        self.bytes += frame.bytes.len();
        self.waiting.push_back(frame);
        Ok(if replaces { Pushed::Replaced } else { Pushed::Queued })
    }

    /// Puts a frame about the connection itself before all messages.
    pub fn push_urgent(&mut self, frame: Bytes) {
        let waiting: usize = self.urgent.iter().map(Bytes::len).sum();
        if waiting + frame.len() <= Self::URGENT_BYTES_MAX {
            self.bytes += frame.len();
            self.urgent.push_back(frame);
        }
    }

    /// The next bytes to write.
    #[must_use]
    pub fn front(&self) -> Option<&Bytes> {
        if !self.started.is_empty() {
            return Some(&self.started);
        }
        self.urgent.front().or_else(|| self.waiting.front().map(|frame| &frame.bytes))
    }

    /// All that waits, in the order in which it leaves.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        let waiting = self.waiting.iter().map(|frame| &frame.bytes);
        std::iter::once(&self.started).chain(&self.urgent).chain(waiting)
    }

    /// The socket took this many bytes of what [`iter`](Self::iter) gave.
    pub fn advance_all(&mut self, mut written: usize) {
        while let Some(front) = self.front().filter(|_| written > 0) {
            let step = front.len().min(written);
            self.advance(step);
            written -= step;
        }
    }

    /// The socket took this many bytes of [`front`](Self::front).
    pub fn advance(&mut self, written: usize) {
        if self.started.is_empty() {
            self.started = match self.urgent.pop_front() {
                Some(frame) => frame,
                None => self.waiting.pop_front().map(|frame| frame.bytes).unwrap_or_default(),
            };
        }
        let written = written.min(self.started.len());
        self.started.advance(written);
        self.bytes -= written;
        if self.started.is_empty() {
            // Let go of the shared frame.
            self.started = Bytes::new();
        }
    }

    /// Drops the messages that wait, so that only what was begun and what is urgent still goes
    /// out; for a connection that is about to be closed.
    pub fn drop_messages(&mut self) {
        let dropped: usize = self.waiting.drain(..).map(|frame| frame.bytes.len()).sum();
        self.bytes -= dropped;
    }

    /// Answers whether there was one.
    fn remove_older(&mut self, newer: &Frame) -> bool {
        if newer.key.is_none() {
            return false;
        }
        let same = |frame: &Frame| frame.class == Class::Latest && frame.key == newer.key;
        let at = self.waiting.iter().position(same);
        let older = at.and_then(|at| self.waiting.remove(at));
        if let Some(older) = &older {
            self.bytes -= older.bytes.len();
        }
        older.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::MessageKey;
    use proptest::prelude::*;

    fn frame(class: Class, key: Option<&str>, bytes: &'static [u8]) -> Frame {
        let key = key.map(|key| (1, MessageKey::parse(key).unwrap()));
        Frame { bytes: Bytes::from_static(bytes), class, key }
    }

    fn drain(queue: &mut OutboundQueue, step: usize) -> Vec<u8> {
        let mut out = vec![];
        while let Some(front) = queue.front() {
            let n = front.len().min(step);
            out.extend_from_slice(&front[..n]);
            queue.advance(n);
        }
        out
    }

    #[test]
    fn a_newer_latest_takes_the_place_of_an_older_one_with_its_key() {
        let mut queue = OutboundQueue::default();
        queue.push(frame(Class::Latest, Some("a"), b"a1"), 100).unwrap();
        queue.push(frame(Class::Latest, Some("b"), b"b1"), 100).unwrap();
        queue.push(frame(Class::Latest, Some("a"), b"a2"), 100).unwrap();
        assert_eq!(drain(&mut queue, 100), b"b1a2");
    }

    #[test]
    fn a_newer_latest_fits_where_the_one_it_replaces_stood_and_else_ends_the_connection() {
        let mut queue = OutboundQueue::default();
        queue.push(frame(Class::Reliable, None, b"12345678"), 10).unwrap();
        queue.push(frame(Class::Latest, Some("a"), b"a1"), 10).unwrap();
        let replaced = queue.push(frame(Class::Latest, Some("a"), b"a2"), 10);
        assert_eq!(replaced, Ok(Pushed::Replaced));
        assert_eq!(queue.push(frame(Class::Latest, Some("b"), b"b1"), 10), Err(QueueFull));
        assert_eq!(drain(&mut queue, 100), b"12345678a2");
    }

    #[test]
    fn urgent_frames_overtake_messages_but_never_split_one() {
        let mut queue = OutboundQueue::default();
        queue.push(frame(Class::Reliable, None, b"first"), 100).unwrap();
        queue.push(frame(Class::Reliable, None, b"second"), 100).unwrap();
        queue.advance(2);
        queue.push_urgent(Bytes::from_static(b"!"));
        assert_eq!(drain(&mut queue, 3), b"rst!second");
    }

    #[test]
    fn a_full_queue_refuses_reliable_and_swallows_droppable() {
        let mut queue = OutboundQueue::default();
        queue.push(frame(Class::Reliable, None, b"12345678"), 10).unwrap();
        let dropped = queue.push(frame(Class::Droppable, None, b"123"), 10);
        assert_eq!(dropped, Ok(Pushed::Dropped));
        assert_eq!(queue.push(frame(Class::Reliable, None, b"123"), 10), Err(QueueFull));
        assert_eq!(queue.bytes(), 8);
        queue.drop_messages();
        assert!(queue.is_empty());
    }

    #[test]
    fn what_was_taken_of_several_frames_at_once_is_gone_and_the_next_goes_on_in_its_middle() {
        let mut queue = OutboundQueue::default();
        queue.start(Bytes::from_static(b"begun"));
        queue.push(frame(Class::Reliable, None, b"first"), 100).unwrap();
        queue.push_urgent(Bytes::from_static(b"!"));
        assert_eq!(queue.iter().flatten().copied().collect::<Vec<_>>(), b"begun!first");
        queue.advance_all(8);
        assert_eq!(queue.bytes(), 3);
        assert_eq!(drain(&mut queue, 100), b"rst");
        queue.advance_all(1);
        assert!(queue.is_empty());
    }

    proptest! {
        #[test]
        fn bytes_always_counts_what_is_left_and_never_passes_the_cap(
            steps in proptest::collection::vec((0u8..5, 1usize..30), 0..200),
        ) {
            static DATA: [u8; 64] = [7; 64];
            let (cap, mut queue) = (200, OutboundQueue::default());
            let mut left = 0;
            for (step, n) in steps {
                let class = [Class::Reliable, Class::Latest, Class::Droppable][usize::from(step) % 3];
                if step < 3 {
                    let key = (class == Class::Latest).then_some("k");
                    let _ = queue.push(frame(class, key, &DATA[..n]), cap);
                } else if let Some(front) = queue.front() {
                    let n = n.min(front.len());
                    queue.advance(n);
                }
                prop_assert!(queue.bytes() <= cap);
                left = queue.bytes();
            }
            prop_assert_eq!(drain(&mut queue, 9).len(), left);
            prop_assert!(queue.is_empty());
        }
    }
}
