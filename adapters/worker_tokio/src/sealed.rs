//! A connection's TLS, shared by its reader and its way out on the worker's one thread.
//!
//! Bytes are sealed a record's worth at a time and only while the socket takes what was sealed, so
//! that at most one sealed step waits beside the queue; and what waits there is counted with it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use application::outbound_queue::OutboundQueue;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tls_rustls::{RECORD_BYTES_MAX, Session, TlsError};
use tokio::net::TcpStream;

/// A session with what its socket has not taken yet.
pub(crate) struct Sealed {
    session: Box<Session>,
    /// Records that were begun to be sent; empty, and without memory, while the socket keeps up.
    pending: Vec<u8>,
    at: usize,
}

pub(crate) type Seal = Rc<RefCell<Sealed>>;

/// How the socket is written to.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    /// Past the runtime, for the time that the socket keeps up.
    Direct(&'a TcpStream),
    /// Through the runtime, so that waiting for the socket is possible afterwards.
    Runtime(&'a TcpStream),
}

impl Way<'_> {
    /// Answers how much the socket took; nothing while it is full.
    fn write(self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Direct(stream) => {
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                match rustix::net::send(stream, bytes, flags) {
                    Ok(written) => Ok(written),
                    Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => Ok(0),
                    Err(error) => Err(error.into()),
                }
            }
            Self::Runtime(stream) => match stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                written => written,
            },
        }
    }
}

impl Sealed {
    pub(crate) fn new(session: Box<Session>) -> Seal {
        Rc::new(RefCell::new(Self { session, pending: Vec::new(), at: 0 }))
    }

    /// How many sealed bytes the socket has not taken.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len() - self.at
    }

    /// Takes received bytes; see [`Session::receive`]. What the session has to answer goes out, or
    /// waits. Answers whether the other side has ended.
    pub(crate) fn receive(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        way: Way<'_>,
    ) -> Result<bool, TlsError> {
        let mut answer = Vec::new();
        let received = self.session.receive(incoming, plain, &mut answer);
        // A broken socket is found by the next read.
        let _ = self.push(&answer, way);
        received.map(|received| received.ended)
    }

    /// Seals and sends until the socket takes no more. Answers how many of `plain` were sealed:
    /// the rest has to wait in plain.
    pub(crate) fn send(
        &mut self,
        plain: &[u8],
        scratch: &mut Vec<u8>,
        way: Way<'_>,
    ) -> io::Result<usize> {
        let mut sealed = 0;
        for step in plain.chunks(RECORD_BYTES_MAX) {
            if self.pending() > 0 {
                break;
            }
            scratch.clear();
            self.session.seal(step, scratch).map_err(broken)?;
            sealed += step.len();
            self.push(scratch, way)?;
        }
        Ok(sealed)
    }

    /// Sends what is sealed. Answers whether the socket took all of it.
    pub(crate) fn flush(&mut self, way: Way<'_>) -> io::Result<bool> {
        while self.at < self.pending.len() {
            match way.write(&self.pending[self.at..])? {
                0 => return Ok(false),
                written => self.at += written,
            }
        }
        (self.pending, self.at) = (Vec::new(), 0);
        Ok(true)
    }

    /// Sends what is sealed and then a queue, until the socket takes no more.
    pub(crate) fn write_queue(
        &mut self,
        queue: &mut OutboundQueue,
        scratch: &mut Vec<u8>,
        way: Way<'_>,
    ) -> io::Result<()> {
        while self.flush(way)? {
            let Some(front) = queue.front() else { return Ok(()) };
            let sealed = self.send(front, scratch, way)?;
            queue.advance(sealed);
        }
        Ok(())
    }

    /// Says that nothing more comes, behind what waits.
    pub(crate) fn close(&mut self, way: Way<'_>) -> io::Result<()> {
        let mut notice = Vec::new();
        self.session.close(&mut notice).map_err(broken)?;
        self.push(&notice, way)
    }

    /// Sends records behind those that wait, and keeps what the socket does not take.
    fn push(&mut self, records: &[u8], way: Way<'_>) -> io::Result<()> {
        let mut written = 0;
        if self.pending() == 0 {
            while written < records.len() {
                match way.write(&records[written..])? {
                    0 => break,
                    n => written += n,
                }
            }
        }
        if written < records.len() {
            self.pending.extend_from_slice(&records[written..]);
        }
        Ok(())
    }
}

fn broken(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
