//! Plain echo of text and binary: what a conformance suite talks to.
//!
//! It knows no rooms and no protocol. A client that does not read its echoes is not read. When
//! the node drains, each is told with the close frame alone.

use std::any::Any;
use std::io;
use std::rc::Rc;

use domain::rate_limit::RateLimiter;
use tls_rustls::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::timeout;
use websocket_codec::{
    CloseCode, Decoder, Event, Opcode, Role, encode_close, encode_frame, encode_pong,
};

use crate::core::{Core, Counted};

/// The socket of an echo, with TLS or without.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<Stream>),
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, tls: Option<Box<tls_rustls::Session>>) -> Self {
        match tls {
            None => Self::Plain(stream),
            Some(session) => Self::Tls(Box::new(Stream::new(stream, session))),
        }
    }

    async fn readable(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Tls(stream) => stream.readable().await,
        }
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_read(buffer),
            Self::Tls(stream) => Ok(stream.take_plain(buffer)),
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
        }
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer).await,
            Self::Tls(stream) => stream.read(buffer).await,
        }
    }
}

pub(crate) fn start(
    core: &Rc<Core>,
    stream: Wire,
    early: &[u8],
    permit: Option<Box<dyn Any + Send>>,
) {
    let counted = core.counted(permit);
    let session = Session {
        core: Rc::clone(core),
        stream,
        draining: core.draining(),
        decoder: Decoder::new(Role::Server),
        pings: RateLimiter::default(),
        out: Vec::new(),
        closing: false,
        _counted: counted,
    };
    let early = early.to_vec();
    spawn_local(async move {
        // Its end, in whatever way, is all there is to know.
        let _ = session.run(early).await;
    });
}

/// Waits until the node drains. The worker outlives its sessions, so its end says the same.
async fn drained(draining: &mut watch::Receiver<bool>) {
    drop(draining.wait_for(|draining| *draining).await);
}

struct Session {
    core: Rc<Core>,
    stream: Wire,
    draining: watch::Receiver<bool>,
    decoder: Decoder,
    pings: RateLimiter,
    out: Vec<u8>,
    closing: bool,
    _counted: Counted,
}

impl Session {
    async fn run(mut self, mut early: Vec<u8>) -> io::Result<()> {
        self.decode(&mut early);
        drop(early);
        loop {
            if !self.out.is_empty() {
                let out = std::mem::take(&mut self.out);
                let (lag_max, close_timeout) =
                    (self.core.config.lag_max, self.core.config.close_timeout);
                let draining = &mut self.draining;
                tokio::select! {
                    written = timeout(lag_max, self.stream.write_all(&out)) => written??,
                    // A frame that was begun is finished or nothing more is said.
                    () = async {
                        drained(draining).await;
                        tokio::time::sleep(close_timeout).await;
                    } => return Ok(()),
                }
            }
            if self.closing {
                return self.close().await;
            }
            tokio::select! {
                biased;
                () = drained(&mut self.draining) => {
                    self.end(CloseCode::SERVICE_RESTART);
                    continue;
                }
                readable = self.stream.readable() => readable?,
            }
            let core = Rc::clone(&self.core);
            let mut buffer = core.read_buffer.borrow_mut();
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.decode(&mut buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn decode(&mut self, input: &mut [u8]) {
        let mut used = 0;
        while used < input.len() && !self.closing {
            match self.decoder.decode(&mut input[used..], &self.core.limits()) {
                Ok(decoded) => {
                    used += decoded.used;
                    if let Some(event) = decoded.event {
                        self.answer(event);
                    }
                }
                Err(error) => self.end(error.close_code()),
            }
        }
    }

    fn answer(&mut self, event: Event<'_>) {
        let frame = match event {
            Event::Text(text) => encode_frame(Opcode::Text, true, text.as_bytes()),
            Event::Binary(data) => encode_frame(Opcode::Binary, true, &data),
            Event::Ping(payload) => {
                let (now, rate) = (self.core.now().monotonic, self.core.config.pings);
                if self.pings.take(rate, now).is_err() {
                    return self.end(CloseCode::POLICY_VIOLATION);
                }
                encode_pong(&payload)
            }
            Event::Pong(_) => return,
            Event::Close(frame) => {
                return self.end(frame.map_or(CloseCode::NORMAL, |frame| frame.code));
            }
        };
        self.out.extend_from_slice(&frame);
    }

    fn end(&mut self, code: CloseCode) {
        self.out.extend_from_slice(&encode_close(code, ""));
        self.closing = true;
    }

    /// Waits for the other side to end, so that it sees the close frame.
    async fn close(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let rest = async {
            let mut sink = [0; 4096];
            while self.stream.read(&mut sink).await? > 0 {}
            Ok(())
        };
        timeout(self.core.config.close_timeout, rest).await?
    }
}
