//! What is held back when a connection begins: the answer to its upgrade, until there are words to go with it.
//!
//! It must leave before anything else, and must not wait for anything but what the connection does next.

use application::outbound_queue::OutboundQueue;
use application::shard::Slot;
use rustix::net::SendFlags;
use tokio::net::TcpStream;

use super::{Sockets, Work};

/// What leaves in one write with a held answer, but for the last frame of it.
const BEGINNING_BYTES_MAX: usize = 64 << 10;

impl Sockets {
    /// Sends what is held back for a connection: its answer and the first words behind that, in one write.
    /// What the socket does not take is the writer's. Does nothing for any other connection.
    pub(crate) fn begin(&mut self, slot: Slot) {
        let conn = self.conns.get_mut(slot.index as usize).and_then(Option::as_deref_mut);
        let conn = conn.filter(|conn| conn.generation == slot.generation && conn.is_held);
        let Some(conn) = conn else { return };
        conn.is_held = false;
        let Some(queue) = &mut conn.queue else { return };
        self.scratch.clear();
        for bytes in queue.iter() {
            self.scratch.extend_from_slice(bytes);
            if self.scratch.len() >= BEGINNING_BYTES_MAX {
                break;
            }
        }
        // Not through the runtime, whose driver may not have seen the socket yet. A broken one is the
        // writer's to find.
        let stream: &TcpStream = conn.stream.as_ref();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = rustix::net::send(stream, &self.scratch, flags).unwrap_or(0);
        queue.advance_all(sent);
        self.total_bytes -= sent;
        if queue.is_empty() {
            conn.queue = None;
            self.n_queues -= 1;
            // Who could not take something gets nothing behind it.
            if !conn.refused {
                self.hot.keeps_up(slot, conn.mark());
            }
        } else {
            conn.has_writer = true;
            self.work.push(Work::Write(slot));
        }
        self.metrics.waits(self.total_bytes, self.n_queues);
    }

    /// Takes note of a queue that has begun and is held until something is said behind it, or until its
    /// reader begins.
    pub(super) fn hold(&mut self, slot: Slot, queue: OutboundQueue) {
        self.keep(slot, queue);
        if let Some(conn) = self.get_mut(slot) {
            conn.is_held = true;
        }
    }
}
