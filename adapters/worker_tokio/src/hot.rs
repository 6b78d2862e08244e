//! The few bytes of each connection that a delivery touches, side by side: 500 deliveries read
//! one run of memory instead of following 500 pointers.
//!
//! The one place with `unsafe`: a descriptor is kept as a number here while its owner, the
//! connection's stream, sits in the same worker's table. The table must take the number out
//! before it lets the stream go.
#![allow(unsafe_code, reason = "a descriptor is borrowed from the table's own stream, see above")]

use std::os::fd::{BorrowedFd, RawFd};

use application::shard::Slot;
use rustix::io::Errno;
use rustix::net::SendFlags;

/// What a delivery can count on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Path {
    /// Nothing waits: these bytes of the given ones were taken.
    Sent(usize),
    /// Something waits: new bytes go behind it.
    Queued,
    /// Nothing waits, but the bytes have to be sealed first, which is done elsewhere.
    Sealed,
    /// There is no such connection, or its socket is broken.
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Hot {
    generation: u32,
    /// The descriptor while nothing waits, else one of the marks, which are negative.
    descriptor: RawFd,
}

const QUEUED: RawFd = -1;
const GONE: RawFd = -2;
/// In the place of the descriptor of a connection with TLS.
pub(crate) const SEALED: RawFd = -3;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct HotTable {
    entries: Vec<Hot>,
}

impl HotTable {
    /// A connection came. `descriptor`, if it is no mark, must stay open until `remove` or `queued`.
    pub(crate) fn insert(&mut self, slot: Slot, descriptor: RawFd) {
        let at = slot.index as usize;
        if self.entries.len() <= at {
            self.entries.resize(at + 1, Hot { generation: 0, descriptor: GONE });
        }
        self.entries[at] = Hot { generation: slot.generation, descriptor };
    }

    /// Something waits for it now.
    pub(crate) fn queued(&mut self, slot: Slot) {
        if let Some(hot) = self.get_mut(slot) {
            hot.descriptor = QUEUED;
        }
    }

    /// Nothing waits for it any more. `descriptor` is as for `insert`.
    pub(crate) fn keeps_up(&mut self, slot: Slot, descriptor: RawFd) {
        if let Some(hot) = self.get_mut(slot) {
            hot.descriptor = descriptor;
        }
    }

    /// It is gone; must be called before its stream is.
    pub(crate) fn remove(&mut self, slot: Slot) {
        self.queued(slot);
        if let Some(hot) = self.get_mut(slot) {
            hot.descriptor = GONE;
        }
    }

    fn get_mut(&mut self, slot: Slot) -> Option<&mut Hot> {
        let hot = self.entries.get_mut(slot.index as usize)?;
        (hot.generation == slot.generation && hot.descriptor != GONE).then_some(hot)
    }

    /// One `send`, if nothing waits. Not through the runtime: it has nothing to add while the
    /// socket keeps up. A broken socket is as good as gone; its reader finds out.
    #[inline]
    pub(crate) fn send(&self, to: Slot, bytes: &[u8]) -> Path {
        let Some(hot) = self.entries.get(to.index as usize) else { return Path::Gone };
        if hot.generation != to.generation {
            return Path::Gone;
        }
        // One comparison for all that is not a plain socket which keeps up.
        if hot.descriptor < 0 {
            return match hot.descriptor {
                QUEUED => Path::Queued,
                SEALED => Path::Sealed,
                _ => Path::Gone,
            };
        }
        // SAFETY: the table of connections holds the stream that owns this descriptor for as long
        // as the entry holds its number: `Sockets` inserts and removes both together, and this
        // borrow ends with the call.
        let socket = unsafe { BorrowedFd::borrow_raw(hot.descriptor) };
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(written) => Path::Sent(written),
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => Path::Sent(0),
            Err(_) => Path::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn slot(index: u32, generation: u32) -> Slot {
        Slot { index, generation }
    }

    #[test]
    fn a_slot_of_another_generation_finds_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        let mut table = HotTable::default();
        table.insert(slot(3, 1), ours.as_raw_fd());
        assert_eq!(table.send(slot(3, 0), b"x"), Path::Gone);
        assert_eq!(table.send(slot(9, 0), b"x"), Path::Gone);
        assert_eq!(table.send(slot(3, 1), b"hello"), Path::Sent(5));
        let mut got = [0; 5];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
    }

    #[test]
    fn while_something_waits_nothing_overtakes_it_and_what_is_gone_stays_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut table = HotTable::default();
        table.insert(slot(0, 0), ours.as_raw_fd());
        table.queued(slot(0, 0));
        assert_eq!(table.send(slot(0, 0), b"x"), Path::Queued);
        table.keeps_up(slot(0, 0), ours.as_raw_fd());
        assert_eq!(table.send(slot(0, 0), b"x"), Path::Sent(1));
        table.keeps_up(slot(0, 0), SEALED);
        assert_eq!(table.send(slot(0, 0), b"x"), Path::Sealed);
        table.remove(slot(0, 0));
        table.keeps_up(slot(0, 0), ours.as_raw_fd());
        assert_eq!(table.send(slot(0, 0), b"x"), Path::Gone);
    }
}
