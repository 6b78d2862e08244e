//! The sockets of a worker, as the shard's outbox.
//!
//! A delivery is one `send`; only what the kernel does not take is queued, and only then does a
//! writer run. It must never block, and never write into the middle of a frame.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use application::metrics::ShardMetrics;
use application::outbound_queue::{OutboundQueue, Pushed, QueueFull};
use application::ports::outbox::{Batch, Delivered, Ending, Frame, Outbox};
use application::shard::Slot;
use bytes::Bytes;
use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::id::ConnectionId;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use websocket_codec::{CloseCode as WireCode, encode_close, encode_text};

use crate::core::Counted;
use crate::hot::{HotTable, Path, SEALED};
use crate::sealed::{Seal, Way};

/// What a connection's reader is told from outside.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// The inbox is full: don't read.
    pub(crate) paused: Cell<bool>,
    /// The connection is closed: read only to find its end.
    pub(crate) closing: Cell<bool>,
    /// Where the reader waits while paused.
    pub(crate) waker: RefCell<Option<Waker>>,
    /// Set by the reader at the end of the stream.
    pub(crate) ended: Cell<bool>,
    /// Where the closer waits for that.
    pub(crate) closer: RefCell<Option<Waker>>,
}

impl Gate {
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// One connection's way out.
pub(crate) struct Conn {
    generation: u32,
    pub(crate) connection: ConnectionId,
    pub(crate) stream: OwnedWriteHalf,
    /// Only of a connection with TLS.
    pub(crate) seal: Option<Seal>,
    pub(crate) gate: Rc<Gate>,
    /// Only while something waits.
    pub(crate) queue: Option<Box<OutboundQueue>>,
    pub(crate) has_writer: bool,
    /// What waits leaves with the first words, or when its reader begins.
    is_held: bool,
    /// It could not take something and is about to be closed.
    refused: bool,
    _counted: Counted,
}

impl Conn {
    /// What stands for it in the hot table while nothing waits.
    fn mark(&self) -> RawFd {
        if self.seal.is_some() { SEALED } else { self.stream.as_ref().as_raw_fd() }
    }

    /// How many sealed bytes the socket has not taken; nothing waits there without a queue.
    pub(crate) fn pending(&self) -> usize {
        self.seal.as_ref().map_or(0, |seal| seal.borrow().pending())
    }

    /// All that waits.
    fn waits(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes() + self.pending())
    }
}

/// Something that needs a task.
pub(crate) enum Work {
    /// A queue is no longer empty.
    Write(Slot),
    /// A connection is to be closed behind what its queue still has to say.
    Close(Box<Conn>),
}

pub(crate) struct Sockets {
    hot: HotTable,
    conns: Vec<Option<Box<Conn>>>,
    work: Vec<Work>,
    queue_bytes_max: usize,
    total_bytes_max: usize,
    /// What waits for all connections together.
    total_bytes: usize,
    n_queues: usize,
    /// Where bytes are sealed before they are sent; one record.
    scratch: Vec<u8>,
    /// Told whenever something waits, and never on a delivery that the kernel takes.
    metrics: Arc<ShardMetrics>,
}

impl Sockets {
    pub(crate) fn new(
        queue_bytes_max: usize,
        total_bytes_max: usize,
        metrics: Arc<ShardMetrics>,
    ) -> Self {
        Self {
            hot: HotTable::default(),
            conns: Vec::new(),
            work: Vec::new(),
            queue_bytes_max,
            total_bytes_max,
            total_bytes: 0,
            n_queues: 0,
            scratch: Vec::new(),
            metrics,
        }
    }

    /// From now on this many bytes may wait for one connection; what waits already stays.
    pub(crate) const fn set_queue_bytes_max(&mut self, queue_bytes_max: usize) {
        self.queue_bytes_max = queue_bytes_max;
    }

    pub(crate) fn insert(
        &mut self,
        slot: Slot,
        connection: ConnectionId,
        (stream, seal): (TcpStream, Option<Seal>),
        answer: Bytes,
        counted: Counted,
    ) -> (OwnedReadHalf, Rc<Gate>) {
        let (read_half, stream) = stream.into_split();
        let gate = Rc::new(Gate::default());
        let at = slot.index as usize;
        if self.conns.len() <= at {
            self.conns.resize_with(at + 1, || None);
        }
        let conn = Conn {
            generation: slot.generation,
            connection,
            stream,
            seal,
            gate: Rc::clone(&gate),
            queue: None,
            has_writer: false,
            is_held: false,
            refused: false,
            _counted: counted,
        };
        self.hot.insert(slot, conn.mark());
        self.conns[at] = Some(Box::new(conn));
        if !answer.is_empty() {
            let mut queue = OutboundQueue::default();
            queue.start(answer);
            self.hold(slot, queue);
        }
        (read_half, gate)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Conn> {
        let conn = self.conns.get_mut(slot.index as usize)?.as_deref_mut()?;
        (conn.generation == slot.generation).then_some(conn)
    }

    pub(crate) fn poll_work(&mut self) -> Option<Work> {
        self.work.pop()
    }

    /// Takes a connection out; nothing more is delivered to it.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Box<Conn>> {
        self.get_mut(slot)?;
        // Before the stream can go: see there.
        self.hot.remove(slot);
        let conn = self.conns[slot.index as usize].take()?;
        if conn.queue.is_some() {
            self.total_bytes -= conn.waits();
            self.n_queues -= 1;
            self.metrics.waits(self.total_bytes, self.n_queues);
        }
        Some(conn)
    }

    /// Sends a frame about the connection itself before its messages.
    pub(crate) fn send_urgent(&mut self, slot: Slot, frame: Bytes) {
        match self.hot.send(slot, &frame) {
            Path::Gone => {}
            Path::Sent(written) => {
                if written < frame.len() {
                    let mut queue = OutboundQueue::default();
                    queue.start(frame.slice(written..));
                    self.adopt(slot, queue);
                }
            }
            Path::Sealed => {
                let sealed = self.seal(slot, &frame);
                if sealed < frame.len() || self.has_pending(slot) {
                    let mut queue = OutboundQueue::default();
                    queue.start(frame.slice(sealed..));
                    self.adopt(slot, queue);
                }
            }
            Path::Queued => {
                let Some(conn) = self.get_mut(slot) else { return };
                let Some(queue) = &mut conn.queue else { return };
                let before = queue.bytes();
                queue.push_urgent(frame);
                let added = queue.bytes() - before;
                self.total_bytes += added;
                self.metrics.waits(self.total_bytes, self.n_queues);
                self.begin(slot);
            }
        }
    }

    /// Takes note of a queue that has begun, and has a writer started.
    fn adopt(&mut self, slot: Slot, queue: OutboundQueue) {
        self.keep(slot, queue);
        let Some(conn) = self.get_mut(slot) else { return };
        if !std::mem::replace(&mut conn.has_writer, true) {
            self.work.push(Work::Write(slot));
        }
    }

    fn keep(&mut self, slot: Slot, queue: OutboundQueue) {
        let Some(conn) = self.get_mut(slot) else { return };
        conn.queue = Some(Box::new(queue));
        let waits = conn.waits();
        self.total_bytes += waits;
        self.n_queues += 1;
        self.metrics.waits(self.total_bytes, self.n_queues);
        self.hot.queued(slot);
    }

    fn has_pending(&mut self, slot: Slot) -> bool {
        self.get_mut(slot).is_some_and(|conn| conn.pending() > 0)
    }

    /// Seals bytes and sends them, while nothing waits. Answers how many were sealed. What is broken
    /// takes all, and its reader finds out.
    fn seal(&mut self, slot: Slot, bytes: &[u8]) -> usize {
        let conn = self.conns.get_mut(slot.index as usize).and_then(Option::as_deref_mut);
        let Some(conn) = conn.filter(|conn| conn.generation == slot.generation) else { return 0 };
        let Some(seal) = &conn.seal else { return 0 };
        let stream: &TcpStream = conn.stream.as_ref();
        let sent = seal.borrow_mut().send(bytes, &mut self.scratch, Way::Direct(stream));
        sent.unwrap_or_else(|_| {
            let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Both);
            bytes.len()
        })
    }

    /// Takes note of what a session answered by itself, when `before` bytes waited there until now.
    pub(crate) fn answered(&mut self, slot: Slot, before: usize) {
        let Some(conn) = self.get_mut(slot) else { return };
        let (after, has_queue) = (conn.pending(), conn.queue.is_some());
        if has_queue {
            self.total_bytes = self.total_bytes + after - before;
            self.metrics.waits(self.total_bytes, self.n_queues);
        } else if after > 0 {
            self.adopt(slot, OutboundQueue::default());
        }
    }

    /// Writes what the socket takes now. Answers whether the queue is empty.
    pub(crate) fn flush(&mut self, slot: Slot) -> std::io::Result<bool> {
        let conn = self.conns.get_mut(slot.index as usize).and_then(Option::as_deref_mut);
        let conn = conn.filter(|conn| conn.generation == slot.generation);
        let Some(conn) = conn else { return Ok(true) };
        let before = conn.waits();
        let Some(queue) = &mut conn.queue else { return Ok(true) };
        let result = write_queue(&conn.stream, conn.seal.as_ref(), queue, &mut self.scratch);
        let left = conn.waits();
        let empty = left == 0;
        if empty {
            conn.queue = None;
            self.hot.keeps_up(slot, conn.mark());
        }
        self.total_bytes -= before - left;
        self.n_queues -= usize::from(empty);
        self.metrics.waits(self.total_bytes, self.n_queues);
        result.map(|()| empty)
    }

    /// What becomes of a batch that the kernel did not take whole.
    #[cold]
    fn deliver_rest(&mut self, to: Slot, path: Path, batch: &Batch<'_>) -> Delivered {
        match path {
            Path::Sent(written) => self.queue(to, written, batch),
            Path::Queued => {
                let delivered = self.queue(to, 0, batch);
                self.begin(to);
                delivered
            }
            Path::Sealed => {
                let sealed = self.seal(to, batch.joined);
                if sealed == batch.joined.len() && !self.has_pending(to) {
                    return Delivered::Taken;
                }
                self.queue(to, sealed, batch)
            }
            Path::Gone => Delivered::Gone,
        }
    }

    /// What the kernel did not take: frame by frame, so that classes count. A frame that was cut
    /// is always finished; what can't be queued behind it ends the connection, and nothing later
    /// may overtake it until then.
    fn queue(&mut self, to: Slot, written: usize, batch: &Batch<'_>) -> Delivered {
        let (queue_max, metrics) = (self.queue_bytes_max, Arc::clone(&self.metrics));
        let (total, total_max, n_queues) =
            (self.total_bytes, self.total_bytes_max, self.n_queues.max(1));
        let Some(conn) = self.get_mut(to) else { return Delivered::Gone };
        if conn.refused {
            return Delivered::Refused;
        }
        let (fresh, pending) = (conn.queue.is_none(), conn.pending());
        let mut begun = OutboundQueue::default();
        let queue = conn.queue.as_deref_mut().unwrap_or(&mut begun);
        let before = queue.bytes();
        // Over the budget of all, who has more than the average goes first.
        let over = total + batch.joined.len() > total_max
            && (before >= total / n_queues || total > total_max + total_max / 8);
        let mut refused = false;
        let mut end = 0;
        for frame in batch.frames {
            let start = end;
            end += frame.bytes.len();
            if end <= written {
                continue;
            }
            if start < written {
                queue.start(frame.bytes.slice(written - start..));
                continue;
            }
            match if over { Err(QueueFull) } else { queue.push(frame.clone(), queue_max) } {
                Ok(Pushed::Queued) => {}
                Ok(Pushed::Replaced | Pushed::Dropped) => {
                    metrics.dropped.add(frame.class, 1);
                }
                Err(QueueFull) => {
                    refused = true;
                    break;
                }
            }
        }
        let after = queue.bytes();
        conn.refused = refused;
        if !fresh {
            self.total_bytes = self.total_bytes + after - before;
            self.metrics.waits(self.total_bytes, self.n_queues);
        } else if after + pending > 0 {
            self.adopt(to, begun);
        }
        if refused {
            self.hot.queued(to);
            return Delivered::Refused;
        }
        Delivered::Taken
    }
}

/// Writes queued bytes until the socket takes no more. The runtime's readiness is kept right, so
/// that waiting for it is possible afterwards.
pub(crate) fn write_queue(
    stream: &OwnedWriteHalf,
    seal: Option<&Seal>,
    queue: &mut OutboundQueue,
    scratch: &mut Vec<u8>,
) -> std::io::Result<()> {
    if let Some(seal) = seal {
        return seal.borrow_mut().write_queue(queue, scratch, Way::Runtime(stream.as_ref()));
    }
    while let Some(front) = queue.front() {
        match stream.try_write(front) {
            Ok(written) => queue.advance(written),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Outbox for Sockets {
    fn frame(&mut self, message: &[u8]) -> Bytes {
        encode_text(message)
    }

    fn deliver(&mut self, to: Slot, batch: &Batch<'_>) -> Delivered {
        match self.hot.send(to, batch.joined) {
            Path::Sent(written) if written == batch.joined.len() => Delivered::Taken,
            path => self.deliver_rest(to, path, batch),
        }
    }

    fn deliver_to_all(&mut self, to: &[Slot], batch: &Batch<'_>, refused: &mut Vec<Slot>) {
        let bytes: &[u8] = batch.joined;
        for &slot in to {
            match self.hot.send(slot, bytes) {
                Path::Sent(written) if written == bytes.len() => {}
                path => {
                    if self.deliver_rest(slot, path, batch) == Delivered::Refused {
                        refused.push(slot);
                    }
                }
            }
        }
    }

    fn close(&mut self, to: Slot, last: Bytes, Ending { code, reason }: Ending) {
        let Some(mut conn) = self.remove(to) else { return };
        let wire = WireCode::new(code.number()).unwrap_or(WireCode::NORMAL);
        // An orderly end lets what waits go out first; one for slowness can't.
        let orderly = code != CloseCode::SlowConsumer;
        close_conn(&mut conn, last, wire, reason, orderly);
        self.work.push(Work::Close(conn));
    }

    fn set_reading(&mut self, of: Slot, reading: bool) {
        if let Some(conn) = self.get_mut(of) {
            conn.gate.paused.set(!reading);
            if reading {
                conn.gate.wake();
            }
        }
    }

    fn queued_bytes(&self, of: Slot) -> usize {
        let conn = self.conns.get(of.index as usize).and_then(Option::as_deref);
        let conn = conn.filter(|conn| conn.generation == of.generation);
        conn.map_or(0, Conn::waits)
    }
}

/// Leaves a connection with nothing to say but what was begun, its last frame and the close frame.
pub(crate) fn close_conn(
    conn: &mut Conn,
    last: Bytes,
    code: WireCode,
    reason: &str,
    orderly: bool,
) {
    let queue = conn.queue.get_or_insert_default();
    if !orderly {
        queue.drop_messages();
    }
    for bytes in [last, encode_close(code, reason)] {
        if !bytes.is_empty() {
            // The cap was for messages; these two are the end of the queue.
            let _ = queue.push(Frame { bytes, class: Class::Reliable, key: None }, usize::MAX);
        }
    }
    conn.gate.closing.set(true);
    conn.gate.paused.set(false);
    conn.gate.wake();
}

mod held;
#[cfg(test)]
mod tests;
