//! Where a shard's bytes go: the host's sockets, or a simulator's.
//!
//! Hot: called once per delivery. An implementation must never block, and never reorder what it
//! takes for one connection.

use bytes::Bytes;
use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::id::MessageKey;

use crate::shard::Slot;

/// Messages that leave together: of one room, or to one connection. `joined` is all frames in one piece: a connection
/// that keeps up gets it as one write; one that does not gets the frames one by one, so that
/// its queue can drop by class.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// All frames, one behind the other.
    pub joined: &'a Bytes,
    /// The frames.
    pub frames: &'a [Frame],
}

/// One encoded frame and what a full queue may do with it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The encoded bytes, shared.
    pub bytes: Bytes,
    /// Its class.
    pub class: Class,
    /// Which waiting frame it replaces; only for [`Class::Latest`]. With the room's number, so
    /// that keys of two rooms never meet.
    pub key: Option<(u32, MessageKey)>,
}

/// What became of bytes for one connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivered {
    /// Taken, by the socket or by the queue.
    Taken,
    /// Not taken: the queue is full and the class may not be dropped. The connection must end, and
    /// until then every delivery to it is refused: nothing may overtake what was not taken.
    Refused,
    /// There is no such connection any more.
    Gone,
}

/// What stands in a close frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ending {
    /// The row of the table; its number is sent.
    pub code: CloseCode,
    /// The text behind the number, at most 123 bytes: that of the table, unless an endpoint's document
    /// has its own.
    pub reason: &'static str,
}

impl From<CloseCode> for Ending {
    fn from(code: CloseCode) -> Self {
        Self { code, reason: code.reason() }
    }
}

/// Gives bytes to connections now.
pub trait Outbox {
    /// Wraps one text message in the host's framing. Once per frame and wire format, never per
    /// delivery.
    fn frame(&mut self, message: &[u8]) -> Bytes;

    /// Gives a batch to one connection, all of it or, once something waits, frame by frame. MUST
    /// keep the order of calls per connection, MUST NOT cut a frame, and keeps what waits within
    /// the host's cap. A slow connection costs the others nothing.
    fn deliver(&mut self, to: Slot, batch: &Batch<'_>) -> Delivered;

    /// Gives a batch to many connections, as [`deliver`](Self::deliver) does to each, in one loop
    /// of the host's: that is what a delivery costs. Whose answer is [`Delivered::Refused`] MUST be
    /// added to `refused`.
    fn deliver_to_all(&mut self, to: &[Slot], batch: &Batch<'_>, refused: &mut Vec<Slot>) {
        let refuses = |slot: &Slot| self.deliver(*slot, batch) == Delivered::Refused;
        refused.extend(to.iter().copied().filter(refuses));
    }

    /// Sends a last frame (already framed; may be empty) and closes with a code. The slot is free
    /// for the host to forget; later calls for it answer `Gone`, and calls for an earlier generation
    /// MUST NOT reach a later one.
    fn close(&mut self, to: Slot, last: Bytes, ending: Ending);

    /// Stops or resumes reading from a connection whose inbox is full.
    fn set_reading(&mut self, of: Slot, reading: bool);

    /// How many bytes wait for a connection.
    fn queued_bytes(&self, of: Slot) -> usize;
}
