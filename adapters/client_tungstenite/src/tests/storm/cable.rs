//! What lies between the clients and the server of the storm: bytes that stop anywhere, in the middle of a frame too,
//! and dialling that fails or hangs. It must never look into the bytes.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use super::Rng;
use super::server::{Server, serve};
use crate::dial::{BoxFuture, Dial, Wire};

/// How much is on its way at most.
const PIPE_BYTES: usize = 1024;

/// What all share: numbers, the server, and whether there is a storm.
pub(super) struct Weather {
    rng: Mutex<Rng>,
    server: Mutex<Server>,
    is_stormy: Mutex<bool>,
}

impl Weather {
    pub(super) fn new(seed: u64) -> Self {
        let rng = Mutex::new(Rng(seed));
        Self { rng, server: Mutex::default(), is_stormy: Mutex::new(false) }
    }

    pub(super) fn next(&self) -> u64 {
        self.rng.lock().unwrap().next()
    }

    pub(super) fn below(&self, n: u64) -> u64 {
        self.rng.lock().unwrap().below(n)
    }

    pub(super) fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap()
    }

    pub(super) fn is_stormy(&self) -> bool {
        *self.is_stormy.lock().unwrap()
    }

    /// From now on cables end.
    pub(super) fn break_loose(&self) {
        *self.is_stormy.lock().unwrap() = true;
    }

    pub(super) fn calm_down(&self) {
        *self.is_stormy.lock().unwrap() = false;
    }
}

/// Dials the server, if the weather lets it.
pub(super) struct StormDial(pub(super) Arc<Weather>);

impl Dial for StormDial {
    fn dial(&self, _: &str, _: u16) -> BoxFuture<io::Result<Box<dyn Wire>>> {
        let weather = Arc::clone(&self.0);
        Box::pin(async move {
            match if weather.is_stormy() { weather.below(50) } else { 50 } {
                0 => std::future::pending().await,
                1..4 => return Err(io::ErrorKind::ConnectionRefused.into()),
                _ => {}
            }
            let (ours, theirs) = duplex(PIPE_BYTES);
            tokio::spawn(serve(theirs, Arc::clone(&weather)));
            Ok(Box::new(Cable::new(ours, weather)) as Box<dyn Wire>)
        })
    }
}

/// A client's end of a connection that passes so many bytes in a storm, and then none.
struct Cable {
    pipe: DuplexStream,
    down: u64,
    up: u64,
    /// Whether its end is silence: neither side is told.
    is_silent: bool,
    /// Nothing passes any more, whatever the weather.
    is_over: bool,
    weather: Arc<Weather>,
}

impl Cable {
    fn new(pipe: DuplexStream, weather: Arc<Weather>) -> Self {
        // A greeting and a page always fit, or nobody would ever catch up.
        let down = 2500 + weather.below(5_000);
        let up = 600 + weather.below(4_000);
        let is_silent = weather.below(25) == 0;
        Self { pipe, down, up, is_silent, is_over: false, weather }
    }

    /// How many of so many bytes pass.
    fn passes(&mut self, wanted: usize, left: u64) -> usize {
        self.is_over |= left == 0 && self.weather.is_stormy();
        match (self.is_over, self.weather.is_stormy()) {
            (true, _) => 0,
            (false, true) => wanted.min(usize::try_from(left).unwrap_or(usize::MAX)),
            (false, false) => wanted,
        }
    }
}

impl AsyncRead for Cable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; PIPE_BYTES];
        let (wanted, left) = (bytes.len().min(buf.remaining()), self.down);
        let passes = self.passes(wanted, left);
        if self.is_over {
            return if self.is_silent { Poll::Pending } else { Poll::Ready(Ok(())) };
        }
        let mut part = ReadBuf::new(&mut bytes[..passes]);
        ready!(Pin::new(&mut self.pipe).poll_read(cx, &mut part))?;
        self.down = self.down.saturating_sub(part.filled().len() as u64);
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = self.up;
        let passes = self.passes(buf.len(), left);
        if self.is_over {
            // What is said into a dead line is lost, and nobody knows.
            let said =
                if self.is_silent { Ok(buf.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) };
            return Poll::Ready(said);
        }
        let written = ready!(Pin::new(&mut self.pipe).poll_write(cx, &buf[..passes]))?;
        self.up = self.up.saturating_sub(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
