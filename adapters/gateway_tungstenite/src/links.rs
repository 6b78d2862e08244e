//! The connections of one shard, as its outbox.
//!
//! A delivery is one write; only what the kernel does not take is queued, and then the connection's
//! own task writes on. It must never block, and never write into the middle of a frame.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use application::metrics::ShardMetrics;
use application::outbound_queue::{OutboundQueue, Pushed, QueueFull};
use application::ports::outbox::{Batch, Delivered, Ending, Frame, Outbox};
use application::shard::Slot;
use bytes::Bytes;
use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::id::ConnectionId;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::framing;

/// What a connection's task is told.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// The inbox is full: don't read.
    pub(crate) paused: Cell<bool>,
    /// The connection is closed, and this is left to say.
    pub(crate) last_words: RefCell<Option<OutboundQueue>>,
    /// One of these has changed, or something waits to be written.
    pub(crate) news: Notify,
}

/// One connection's way out.
struct Link {
    generation: u32,
    connection: ConnectionId,
    write: Rc<OwnedWriteHalf>,
    queue: OutboundQueue,
    /// It could not take something and is about to be closed.
    refused: bool,
    signals: Rc<Signals>,
}

/// See the module's text.
pub(crate) struct Links {
    links: Vec<Option<Link>>,
    queue_bytes_max: usize,
    total_bytes_max: usize,
    /// What waits for all connections together, and for how many.
    total_bytes: usize,
    n_queues: usize,
    metrics: Arc<ShardMetrics>,
}

impl Links {
    pub(crate) fn new(
        queue_bytes_max: usize,
        total_bytes_max: usize,
        metrics: Arc<ShardMetrics>,
    ) -> Self {
        let (links, total_bytes, n_queues) = (Vec::new(), 0, 0);
        Self { links, queue_bytes_max, total_bytes_max, total_bytes, n_queues, metrics }
    }

    /// From now on this many bytes may wait for one connection; what waits already stays.
    pub(crate) const fn set_queue_bytes_max(&mut self, queue_bytes_max: usize) {
        self.queue_bytes_max = queue_bytes_max;
    }

    pub(crate) fn insert(
        &mut self,
        slot: Slot,
        connection: ConnectionId,
        write: Rc<OwnedWriteHalf>,
    ) -> Rc<Signals> {
        let signals = Rc::new(Signals::default());
        let at = slot.index as usize;
        if self.links.len() <= at {
            self.links.resize_with(at + 1, || None);
        }
        let queue = OutboundQueue::default();
        let (generation, refused) = (slot.generation, false);
        let told = Rc::clone(&signals);
        self.links[at] =
            Some(Link { generation, connection, write, queue, refused, signals: told });
        signals
    }

    /// Writes what the socket takes now.
    pub(crate) fn flush(&mut self, slot: Slot) -> io::Result<()> {
        let Some(link) = self.get_mut(slot) else { return Ok(()) };
        let before = link.queue.bytes();
        let result = write_queue(&link.write, &mut link.queue);
        let after = link.queue.bytes();
        self.account(before, after);
        result
    }

    /// Sends bytes about the connection itself before its messages.
    pub(crate) fn send_urgent(&mut self, slot: Slot, bytes: Bytes) {
        let Some(link) = self.get_mut(slot) else { return };
        let before = link.queue.bytes();
        if before > 0 {
            link.queue.push_urgent(bytes);
        } else {
            let written = written(&link.write, &bytes);
            link.queue.start(bytes.slice(written..));
        }
        let after = link.queue.bytes();
        if after > 0 {
            link.signals.news.notify_one();
        }
        self.account(before, after);
    }

    /// Takes a connection out; nothing more is delivered to it.
    pub(crate) fn remove(&mut self, slot: Slot) -> bool {
        self.take(slot).is_some()
    }

    /// Takes a connection out and leaves its task with what was begun, a last frame and the close
    /// frame to send. In order, or without the messages that wait.
    pub(crate) fn end(&mut self, slot: Slot, last: Bytes, code: u16, reason: &str, orderly: bool) {
        let Some(Link { mut queue, signals, .. }) = self.take(slot) else { return };
        if !orderly {
            queue.drop_messages();
        }
        for bytes in [last, framing::close(code, reason)] {
            if !bytes.is_empty() {
                // The cap was for messages; these two are the end of the queue.
                let frame = Frame { bytes, class: Class::Reliable, key: None };
                let _ = queue.push(frame, usize::MAX);
            }
        }
        *signals.last_words.borrow_mut() = Some(queue);
        signals.news.notify_one();
    }

    fn take(&mut self, slot: Slot) -> Option<Link> {
        self.get_mut(slot)?;
        let link = self.links[slot.index as usize].take()?;
        self.account(link.queue.bytes(), 0);
        Some(link)
    }

    fn get_mut(&mut self, slot: Slot) -> Option<&mut Link> {
        let link = self.links.get_mut(slot.index as usize)?.as_mut()?;
        (link.generation == slot.generation).then_some(link)
    }

    /// The id of a connection.
    pub(crate) fn connection(&mut self, slot: Slot) -> Option<ConnectionId> {
        self.get_mut(slot).map(|link| link.connection)
    }

    /// A queue has become longer or shorter.
    fn account(&mut self, before: usize, after: usize) {
        if before == after {
            return;
        }
        self.total_bytes = self.total_bytes + after - before;
        self.n_queues += usize::from(before == 0);
        self.n_queues -= usize::from(after == 0);
        self.metrics.waits(self.total_bytes, self.n_queues);
    }

    /// What the kernel did not take: frame by frame, so that classes count. A frame that was cut is
    /// finished; what can't be queued behind it ends the connection, and nothing later may overtake
    /// it until then.
    fn queue(&mut self, to: Slot, written: usize, batch: &Batch<'_>) -> Delivered {
        let (bytes_max, metrics) = (self.queue_bytes_max, Arc::clone(&self.metrics));
        let (total, total_max) = (self.total_bytes + batch.joined.len(), self.total_bytes_max);
        let average = self.total_bytes / self.n_queues.max(1);
        let Some(link) = self.get_mut(to) else { return Delivered::Gone };
        let before = link.queue.bytes();
        // Over the budget of all, who has more than the average goes first.
        let is_over = total > total_max && (before >= average || total > total_max / 8 * 9);
        let mut end = 0;
        for frame in batch.frames {
            let start = end;
            end += frame.bytes.len();
            if end <= written {
                continue;
            }
            if start < written {
                link.queue.start(frame.bytes.slice(written - start..));
                continue;
            }
            let pushed =
                if is_over { Err(QueueFull) } else { link.queue.push(frame.clone(), bytes_max) };
            match pushed {
                Ok(Pushed::Queued) => {}
                Ok(Pushed::Replaced | Pushed::Dropped) => metrics.dropped.add(frame.class, 1),
                Err(QueueFull) => {
                    link.refused = true;
                    break;
                }
            }
        }
        let (after, refused) = (link.queue.bytes(), link.refused);
        link.signals.news.notify_one();
        self.account(before, after);
        if refused { Delivered::Refused } else { Delivered::Taken }
    }
}

impl Outbox for Links {
    fn frame(&mut self, message: &[u8]) -> Bytes {
        framing::text(message)
    }

    fn deliver(&mut self, to: Slot, batch: &Batch<'_>) -> Delivered {
        let Some(link) = self.get_mut(to) else { return Delivered::Gone };
        if link.refused {
            return Delivered::Refused;
        }
        let written = if link.queue.is_empty() { written(&link.write, batch.joined) } else { 0 };
        if written == batch.joined.len() {
            return Delivered::Taken;
        }
        self.queue(to, written, batch)
    }

    fn close(&mut self, to: Slot, last: Bytes, Ending { code, reason }: Ending) {
        // An orderly end lets what waits go out first; one for slowness can't.
        let orderly = code != CloseCode::SlowConsumer;
        self.end(to, last, code.number(), reason, orderly);
    }

    fn set_reading(&mut self, of: Slot, reading: bool) {
        if let Some(link) = self.get_mut(of) {
            link.signals.paused.set(!reading);
            link.signals.news.notify_one();
        }
    }

    fn queued_bytes(&self, of: Slot) -> usize {
        let link = self.links.get(of.index as usize).and_then(Option::as_ref);
        link.filter(|link| link.generation == of.generation).map_or(0, |link| link.queue.bytes())
    }
}

/// How many of these bytes the socket takes now. A broken one takes all; its reader finds out.
fn written(write: &OwnedWriteHalf, bytes: &[u8]) -> usize {
    match write.try_write(bytes) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(_) => bytes.len(),
    }
}

/// Writes queued bytes until the socket takes no more.
pub(crate) fn write_queue(write: &OwnedWriteHalf, queue: &mut OutboundQueue) -> io::Result<()> {
    while let Some(front) = queue.front() {
        match write.try_write(front) {
            Ok(written) => queue.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
