//! A connection's way in: bytes from the socket through the codec to the shard.
//!
//! All reads of a worker go through one shared buffer; a connection keeps bytes of its own only
//! while a frame is incomplete or its inbox is full. An idle connection owns no buffer.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use application::shard::{Input, Slot};
use bytes::Bytes;
use domain::codes::CloseCode;
use domain::rate_limit::RateLimiter;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Sleep;
use websocket_codec::{CloseCode as WireCode, Decoder, Event, ProtocolError, Role, encode_pong};

use crate::core::Core;
use crate::sealed::{Seal, Way};
use crate::sockets::Work;
use crate::sockets::{Gate, close_conn};
use crate::writer;

/// Reads of one connection before others get their turn.
const READS_PER_TURN: usize = 4;
/// What a closed connection may still send before it is cut.
const DISCARDED_BYTES_MAX: usize = 64 << 20;

/// The reading task of one connection; ends with the connection.
pub(crate) struct Reader {
    core: Rc<Core>,
    slot: Slot,
    stream: OwnedReadHalf,
    /// Only of a connection with TLS.
    seal: Option<Seal>,
    gate: Rc<Gate>,
    decoder: Decoder,
    pings: RateLimiter,
    /// Read but not decoded: the inbox was full. At most one read's worth.
    rest: Vec<u8>,
    discarded: usize,
    /// It has not run yet: what is held back until then leaves first.
    is_fresh: bool,
    /// Only while a message is incomplete.
    message_deadline: Option<Pin<Box<Sleep>>>,
}

impl Reader {
    pub(crate) fn new(
        core: Rc<Core>,
        slot: Slot,
        stream: OwnedReadHalf,
        seal: Option<Seal>,
        gate: Rc<Gate>,
        early: &[u8],
    ) -> Self {
        Self {
            core,
            slot,
            stream,
            seal,
            gate,
            decoder: Decoder::new(Role::Server),
            pings: RateLimiter::default(),
            rest: early.to_vec(),
            discarded: 0,
            is_fresh: true,
            message_deadline: None,
        }
    }

    /// Decodes bytes until they are used up or the inbox is full; answers how many were used.
    fn decode(&mut self, input: &mut [u8]) -> ControlFlow<(), usize> {
        let mut used = 0;
        while used < input.len() {
            if self.gate.closing.get() {
                return ControlFlow::Continue(input.len());
            }
            if self.gate.paused.get() {
                break;
            }
            let decoded = self.decoder.decode(&mut input[used..], &self.core.limits());
            let decoded = match decoded {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.refuse(error);
                    return ControlFlow::Continue(input.len());
                }
            };
            used += decoded.used;
            // The next message may have begun in the same read; its time is its own.
            if decoded.event.is_some() && !self.decoder.is_mid_message() {
                self.message_deadline = None;
            }
            if let Some(event) = decoded.event {
                self.take(event)?;
            }
        }
        ControlFlow::Continue(used)
    }

    fn take(&mut self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Text(text) => self.core.handle(Input::Text(self.slot, &text)),
            Event::Binary(_) => self.close(CloseCode::UnsupportedData),
            Event::Ping(payload) => {
                let (now, rate) = (self.core.now(), self.core.config.pings);
                if self.pings.take(rate, now.monotonic).is_err() {
                    self.close(CloseCode::RateLimited);
                    return ControlFlow::Continue(());
                }
                let pong = encode_pong(&payload);
                self.core.sockets.borrow_mut().send_urgent(self.slot, pong);
                self.core.handle(Input::Heard(self.slot));
            }
            Event::Pong(_) => self.core.handle(Input::Heard(self.slot)),
            Event::Close(frame) => {
                // RFC 6455 section 5.5.1: the answer echoes the code.
                let code = frame.map_or(WireCode::NORMAL, |frame| frame.code);
                self.answer_close(code, "");
                self.core.closed(self.slot, CloseCode::Normal);
            }
        }
        ControlFlow::Continue(())
    }

    /// Closes for a reason that the framing gives.
    fn close(&mut self, code: CloseCode) {
        let wire = WireCode::new(code.number()).unwrap_or(WireCode::PROTOCOL_ERROR);
        self.answer_close(wire, code.reason());
        self.core.closed(self.slot, code);
    }

    fn refuse(&mut self, error: ProtocolError) {
        tracing::debug!(%error, "a connection broke its framing");
        let number = error.close_code().get();
        let known = CloseCode::ALL.into_iter().find(|code| code.number() == number);
        self.close(known.unwrap_or(CloseCode::ProtocolError));
    }

    fn answer_close(&self, code: WireCode, reason: &str) {
        let removed = self.core.sockets.borrow_mut().remove(self.slot);
        if let Some(mut conn) = removed {
            // Who closes first, or breaks the framing, reads nothing more.
            close_conn(&mut conn, Bytes::new(), code, reason, false);
            writer::start(&self.core, Work::Close(conn));
        }
    }

    /// The other side ended or broke.
    fn end(&mut self) {
        self.gate.ended.set(true);
        if let Some(waker) = self.gate.closer.borrow_mut().take() {
            waker.wake();
        }
        if !self.gate.closing.get() {
            self.core.sockets.borrow_mut().remove(self.slot);
            self.core.closed(self.slot, CloseCode::GoingAway);
        }
    }

    fn read_rest(&mut self) -> ControlFlow<()> {
        let mut rest = std::mem::take(&mut self.rest);
        let used = self.decode(&mut rest)?;
        if used < rest.len() {
            rest.drain(..used);
            self.rest = rest;
        }
        ControlFlow::Continue(())
    }

    /// Reads once into the worker's buffer and decodes.
    fn read_once(&mut self, cx: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        let core = Rc::clone(&self.core);
        let mut shared = core.read_buffer.borrow_mut();
        let mut buffer = ReadBuf::new(&mut shared);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        match read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(ControlFlow::Break(())),
            Poll::Ready(Ok(())) => {}
        }
        let bytes = buffer.filled_mut();
        if bytes.is_empty() {
            return Poll::Ready(ControlFlow::Break(()));
        }
        Poll::Ready(match self.seal.clone() {
            None => self.take_read(bytes),
            Some(seal) => self.unseal(&seal, bytes),
        })
    }

    /// Bytes of a connection with TLS: a broken session ends it, and so does the end of the other
    /// side's half, behind what it said.
    fn unseal(&mut self, seal: &Seal, bytes: &mut [u8]) -> ControlFlow<()> {
        let core = Rc::clone(&self.core);
        let mut plain = core.unsealed.borrow_mut();
        plain.clear();
        let before = seal.borrow().pending();
        let stream: &TcpStream = self.stream.as_ref();
        let ended = seal.borrow_mut().receive(bytes, &mut plain, Way::Direct(stream));
        core.sockets.borrow_mut().answered(self.slot, before);
        core.start_writers();
        if !plain.is_empty() {
            self.take_read(&mut plain)?;
        }
        match ended {
            Ok(false) => ControlFlow::Continue(()),
            Ok(true) => ControlFlow::Break(()),
            Err(error) => {
                tracing::debug!(%error, "a connection broke its TLS session");
                ControlFlow::Break(())
            }
        }
    }

    /// Bytes that were read, and without their seal if they had one.
    fn take_read(&mut self, bytes: &mut [u8]) -> ControlFlow<()> {
        if self.gate.closing.get() {
            self.discarded += bytes.len();
            return if self.discarded > DISCARDED_BYTES_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            };
        }
        let used = self.decode(bytes)?;
        self.rest.extend_from_slice(&bytes[used..]);
        ControlFlow::Continue(())
    }

    /// A message that has begun must end in time, however slowly its bytes trickle.
    fn watch_message(&mut self, cx: &mut Context<'_>) {
        if !self.decoder.is_mid_message() || self.gate.closing.get() {
            self.message_deadline = None;
            return;
        }
        let limit: Duration = self.core.config.message_timeout;
        let deadline =
            self.message_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if deadline.as_mut().poll(cx).is_ready() {
            self.message_deadline = None;
            self.close(CloseCode::PolicyViolation);
        }
    }
}

impl Future for Reader {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if std::mem::take(&mut this.is_fresh) {
            this.core.sockets.borrow_mut().begin(this.slot);
            this.core.start_writers();
        }
        for _ in 0..READS_PER_TURN {
            if this.gate.ended.get() {
                return Poll::Ready(());
            }
            if this.gate.paused.get() {
                *this.gate.waker.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if !this.rest.is_empty() {
                if this.read_rest().is_break() {
                    this.end();
                    return Poll::Ready(());
                }
                continue;
            }
            match this.read_once(cx) {
                Poll::Ready(ControlFlow::Continue(())) => {}
                Poll::Ready(ControlFlow::Break(())) => {
                    this.end();
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    *this.gate.waker.borrow_mut() = Some(cx.waker().clone());
                    this.watch_message(cx);
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
