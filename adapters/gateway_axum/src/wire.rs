//! A socket on its way to a worker, with TLS or without, as hyper reads and writes it.
//!
//! The handshake is here, within the time that a request's head may take. Who speaks plain HTTP
//! where TLS is spoken is told so, once, in plain text.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tls_rustls::{Acceptor, HandshakeError, Session, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

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
