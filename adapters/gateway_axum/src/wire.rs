//! A socket on its way to a worker, with TLS or without, as hyper reads and writes it.
//!
//! The handshake is here, within the time that a request's head may take. Who speaks plain HTTP
//! where TLS is spoken is told so, once, in plain text.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tls_rustls::{Acceptor, HandshakeError, Session, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};

use crate::accept::Handover;
use crate::answer;

/// How long the end of a session may take to be said.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);
/// What is read of a plain request, so that its answer is not cut off by what was left unread.
const PLAIN_REQUEST_BYTES_MAX: u64 = 16 << 10;

/// See the module's text.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<Stream>),
}

/// What a worker needs of it.
pub(crate) struct Parts {
    pub(crate) socket: TcpStream,
    pub(crate) tls: Option<Box<Session>>,
    /// What was read and not asked for.
    pub(crate) early: Vec<u8>,
}

/// Why no session came about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// Plain HTTP came.
    PlainHttp,
    /// It took too long.
    TooSlow,
    /// Nothing that both can speak, or nothing of TLS at all.
    Tls,
    /// The client was gone.
    Gone,
}

impl Wire {
    /// Shakes hands as the server.
    pub(crate) async fn shake_hands(
        socket: TcpStream,
        acceptor: &Acceptor,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let session = acceptor.session().map_err(|_| Failure::Tls)?;
        match timeout_at(deadline, Stream::accept(socket, session)).await {
            Ok(Ok(stream)) => Ok(Self::Tls(Box::new(stream))),
            Ok(Err(HandshakeError::PlainHttp(socket))) => {
                let _ = timeout_at(deadline, answer_in_plain(socket)).await;
                Err(Failure::PlainHttp)
            }
            Ok(Err(HandshakeError::Tls(error))) => {
                tracing::debug!(%error, "no TLS session came about");
                Err(Failure::Tls)
            }
            Ok(Err(HandshakeError::Ended | HandshakeError::Broken(_))) => Err(Failure::Gone),
            Err(_) => Err(Failure::TooSlow),
        }
    }

    /// Ends it behind the last answer. Without TLS there is nothing to say.
    pub(crate) async fn finish(self) {
        if let Self::Tls(mut stream) = self {
            let _ = timeout(LAST_WORDS_TIMEOUT, stream.shutdown()).await;
        }
    }

    /// Takes it apart for a worker; none when the client does not take the last of the answer.
    pub(crate) async fn into_parts(self) -> Option<Parts> {
        match self {
            Self::Plain(socket) => Some(Parts { socket, tls: None, early: Vec::new() }),
            Self::Tls(mut stream) => {
                timeout(LAST_WORDS_TIMEOUT, stream.flush()).await.ok()?.ok()?;
                let (socket, session, early) = stream.into_parts();
                Some(Parts { socket, tls: Some(session), early })
            }
        }
    }
}

/// What came behind the upgrade: of hyper's read buffer and of the session.
pub(crate) fn early(of_hyper: &[u8], of_session: &[u8]) -> Bytes {
    if of_session.is_empty() {
        return Bytes::copy_from_slice(of_hyper);
    }
    [of_hyper, of_session].concat().into()
}

async fn answer_in_plain(mut socket: TcpStream) -> io::Result<()> {
    socket.write_all(answer::TLS_WANTED_RAW).await?;
    socket.shutdown().await?;
    // Until the client ends: with bytes left unread the kernel would cut the answer off.
    let mut rest = socket.take(PLAIN_REQUEST_BYTES_MAX);
    let mut sink = [0; 1_024];
    while rest.read(&mut sink).await? > 0 {}
    Ok(())
}

/// A wire whose other side has to take what it is answered: it breaks when nothing was taken for this
/// long. hyper itself has no such deadline, and a client that pipelines requests and reads nothing
/// would keep its place for ever.
pub(crate) struct Patient {
    wire: Wire,
    patience: Duration,
    /// Only while the socket takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Where the answer to an upgrade is left instead.
    handover: Handover,
}

impl Patient {
    pub(crate) const fn new(wire: Wire, patience: Duration, handover: Handover) -> Self {
        Self { wire, patience, stalled: None, handover }
    }

    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    /// Keeps the answer to an upgrade for the socket's worker. With TLS the session hands over only
    /// what was sent.
    fn keep(&self, pieces: &[IoSlice<'_>]) -> Option<usize> {
        match self.wire {
            Wire::Plain(_) => self.handover.keep(pieces),
            Wire::Tls(_) => None,
        }
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(kept) = self.keep(&[IoSlice::new(bytes)]) {
            return Poll::Ready(Ok(kept));
        }
        let written = Pin::new(&mut self.wire).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(kept) = self.keep(parts) {
            return Poll::Ready(Ok(kept));
        }
        let written = Pin::new(&mut self.wire).poll_write_vectored(cx, parts);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.wire).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.wire).poll_shutdown(cx);
        self.judge(cx, shut)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
        }
    }

    /// Without it hyper joins what it writes, which TLS wants.
    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn pair() -> (Patient, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (theirs, ours) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (ours, peer) = ours.unwrap();
        (Patient::new(Wire::Plain(ours), PATIENCE, Handover::new(peer)), theirs.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_an_answer_for_so_long_is_cut() {
        let (mut ours, _theirs) = pair().await;
        let begun = Instant::now();
        let written = ours.write_all(&vec![b'x'; 64 << 20]).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!((PATIENCE..2 * PATIENCE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_something_of_an_answer_in_time_is_waited_for_anew() {
        let (mut ours, _theirs) = pair().await;
        for _ in 0..10 {
            let stalled = poll_fn(|cx| ours.judge::<()>(cx, Poll::Pending));
            assert!(timeout(PATIENCE - Duration::from_millis(1), stalled).await.is_err());
            poll_fn(|cx| ours.judge(cx, Poll::Ready(Ok(())))).await.unwrap();
        }
        let stalled = poll_fn(|cx| ours.judge::<()>(cx, Poll::Pending)).await;
        assert_eq!(stalled.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
