//! A session over a socket, for the handshake and for HTTP before the upgrade.
//!
//! What is sealed and not yet taken by the socket is one write of the caller's at most, and a write
//! waits until it has gone.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::session::{RECORD_BYTES_MAX, Session, TlsError};

/// What is read at once; it lies on the stack.
const READ_BYTES: usize = 8 << 10;
/// What is sealed of one write.
const WRITE_BYTES_MAX: usize = RECORD_BYTES_MAX;

/// Why a handshake did not come to its end.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The first byte is none of TLS: the way a request of plain HTTP begins. Its socket is given
    /// back, so that it can be told.
    #[error("plain HTTP came where TLS is spoken")]
    PlainHttp(TcpStream),
    /// The other side was gone before the end.
    #[error("the connection ended in the handshake")]
    Ended,
    /// The network.
    #[error("the connection broke in the handshake")]
    Broken(#[source] io::Error),
    /// TLS.
    #[error("no TLS session came about")]
    Tls(#[source] TlsError),
}

/// See the module's text.
pub struct Stream {
    socket: TcpStream,
    session: Box<Session>,
    /// Read and not asked for yet.
    plain: Vec<u8>,
    plain_at: usize,
    /// Sealed and not taken by the socket yet.
    sealed: Vec<u8>,
    sealed_at: usize,
    ended: bool,
    closed: bool,
}

impl Stream {
    /// A stream whose session has begun before.
    #[must_use]
    pub const fn new(socket: TcpStream, session: Box<Session>) -> Self {
        Self {
            socket,
            session,
            plain: Vec::new(),
            plain_at: 0,
            sealed: Vec::new(),
            sealed_at: 0,
            ended: false,
            closed: false,
        }
    }

    /// Shakes hands. Who is refused is told by an alert. It has no deadline of its own.
    ///
    /// # Errors
    /// [`HandshakeError`]
    pub async fn accept(socket: TcpStream, session: Session) -> Result<Self, HandshakeError> {
        let mut first = [0];
        match socket.peek(&mut first).await {
            Ok(0) => return Err(HandshakeError::Ended),
            // A method begins with a letter, and no record of TLS does.
            Ok(_) if first[0].is_ascii_alphabetic() => {
                return Err(HandshakeError::PlainHttp(socket));
            }
            Ok(_) => {}
            Err(error) => return Err(HandshakeError::Broken(error)),
        }
        let mut stream = Self::new(socket, Box::new(session));
        while stream.session.is_handshaking() {
            let filled = std::future::poll_fn(|cx| stream.poll_fill(cx)).await;
            let flushed = std::future::poll_fn(|cx| stream.poll_send(cx)).await;
            match filled {
                Ok(()) if stream.ended => return Err(HandshakeError::Ended),
                Ok(()) => flushed.map_err(HandshakeError::Broken)?,
                Err(Fill::Io(error)) => return Err(HandshakeError::Broken(error)),
                Err(Fill::Tls(error)) => return Err(HandshakeError::Tls(error)),
            }
        }
        Ok(stream)
    }

    /// Waits until something can be read, or the end.
    ///
    /// # Errors
    /// The network's, and TLS's as [`io::ErrorKind::InvalidData`].
    pub async fn readable(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            while self.plain_at == self.plain.len() && !self.ended {
                ready!(self.poll_fill(cx)).map_err(Fill::into_io)?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Takes what was read already, as much as there is room for; nothing is the end behind
    /// [`Self::readable`].
    pub fn take_plain(&mut self, room: &mut [u8]) -> usize {
        let rest = &self.plain[self.plain_at..];
        let n = rest.len().min(room.len());
        room[..n].copy_from_slice(&rest[..n]);
        self.plain_at += n;
        if self.plain_at == self.plain.len() {
            (self.plain, self.plain_at) = (Vec::new(), 0);
        }
        n
    }

    /// The socket, the session, and what was read and not asked for. What was written must have
    /// been flushed.
    #[must_use]
    pub fn into_parts(mut self) -> (TcpStream, Box<Session>, Vec<u8>) {
        let plain = self.plain.split_off(self.plain_at);
        (self.socket, self.session, plain)
    }

    /// Reads once from the socket.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fill>> {
        let mut room = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut room);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)).map_err(Fill::Io)?;
        let bytes = buffer.filled_mut();
        if bytes.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        if self.plain_at == self.plain.len() {
            self.plain.clear();
            self.plain_at = 0;
        }
        let received = self.session.receive(bytes, &mut self.plain, &mut self.sealed);
        match received {
            Ok(received) => {
                self.ended = received.ended;
                // What the session itself has to say does not wait for a write.
                let _ = self.poll_send(cx);
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                let _ = self.poll_send(cx);
                Poll::Ready(Err(Fill::Tls(error)))
            }
        }
    }

    /// Sends what is sealed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sealed_at < self.sealed.len() {
            let rest = &self.sealed[self.sealed_at..];
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sealed_at += written;
        }
        (self.sealed, self.sealed_at) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

enum Fill {
    Io(io::Error),
    Tls(TlsError),
}

impl Fill {
    fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::Tls(error) => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

fn of_tls(error: TlsError) -> io::Error {
    Fill::Tls(error).into_io()
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.plain_at == this.plain.len() && !this.ended {
            ready!(this.poll_fill(cx)).map_err(Fill::into_io)?;
        }
        let n = this.take_plain(buffer.initialize_unfilled());
        buffer.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let n = bytes.len().min(WRITE_BYTES_MAX);
        this.session.seal(&bytes[..n], &mut this.sealed).map_err(of_tls)?;
        // What the socket does not take now goes before the next write, or at the flush.
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            // A session that is broken has said so.
            let _ = this.session.close(&mut this.sealed);
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
