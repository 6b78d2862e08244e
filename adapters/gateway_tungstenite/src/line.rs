//! One connection: tungstenite reads it, the shard hears what came, and what did not fit is written
//! when the socket takes it.
//!
//! tungstenite answers pings into a buffer of ours, which goes the way of all frames. It must never
//! write to the socket itself: it would write into the middle of a frame.

use std::any::Any;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use application::mailbox::Control;
use application::outbound_queue::OutboundQueue;
use application::ports::Outbox;
use application::shard::{Input, Slot};
use bytes::Bytes;
use domain::codes::CloseCode;
use domain::id::ConnectionId;
use domain::rate_limit::RateLimiter;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

use crate::course::Course;
use crate::host::Host;
use crate::links::{Signals, write_queue};

/// What one connection may be read before others get their turn, in messages and in bytes.
const MESSAGES_PER_TURN: usize = 64;
const BYTES_PER_TURN: usize = 64 << 10;
/// tungstenite keeps this much for each connection.
const READ_BUFFER_BYTES: usize = 2 << 10;
/// What a closed connection may still send before it is cut.
const DISCARDED_BYTES_MAX: usize = 64 << 20;

/// The task of one connection; ends with it.
pub(crate) struct Line {
    host: Rc<Host>,
    slot: Slot,
    read: OwnedReadHalf,
    write: Rc<OwnedWriteHalf>,
    signals: Rc<Signals>,
    context: WebSocketContext,
    course: Course,
    pings: RateLimiter,
    /// There may be more to read without waiting.
    has_unread: bool,
    /// Since when a message is incomplete.
    begun: Option<Instant>,
    /// Since when something waits to be written.
    lags: Option<Instant>,
    _counted: Counted,
}

/// A connection in its host's count, and its place.
struct Counted {
    host: Rc<Host>,
    _permit: Box<dyn Any + Send>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.host.n_connections.set(self.host.n_connections.get() - 1);
    }
}

impl Line {
    pub(crate) fn new(
        host: &Rc<Host>,
        slot: Slot,
        connection: ConnectionId,
        stream: TcpStream,
        early: Vec<u8>,
        permit: Box<dyn Any + Send>,
    ) -> Self {
        let (read, write) = stream.into_split();
        let write = Rc::new(write);
        let signals = host.links.borrow_mut().insert(slot, connection, Rc::clone(&write));
        let bytes_max = Some(host.message_limits().0);
        let mut course = Course::default();
        course.follow(&early);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(bytes_max)
            .max_frame_size(bytes_max);
        let context = WebSocketContext::from_partially_read(early, Role::Server, Some(config));
        host.n_connections.set(host.n_connections.get() + 1);
        Self {
            host: Rc::clone(host),
            slot,
            read,
            write,
            signals,
            context,
            course,
            pings: RateLimiter::default(),
            has_unread: true,
            begun: None,
            lags: None,
            _counted: Counted { host: Rc::clone(host), _permit: permit },
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            let last_words = self.signals.last_words.borrow_mut().take();
            if let Some(last_words) = last_words {
                return self.finish(last_words).await;
            }
            if self.step().await.is_break() {
                return self.broke();
            }
        }
    }

    /// Reads, writes or waits, whatever comes first. Breaks when the socket does.
    async fn step(&mut self) -> ControlFlow<()> {
        let reads = !self.signals.paused.get();
        if reads && self.has_unread {
            let read = self.read_some();
            yield_now().await;
            return read;
        }
        let lags = self.host.links.borrow().queued_bytes(self.slot) > 0;
        let config = &self.host.config;
        let now = Instant::now();
        self.lags = lags.then(|| self.lags.unwrap_or(now));
        let after = |since: Option<Instant>, limit: Duration| since.unwrap_or(now) + limit;
        let lags_until = after(self.lags, config.lag_max);
        let message_until = after(self.begun, config.message_timeout);
        tokio::select! {
            biased;
            () = self.signals.news.notified() => {}
            ready = self.write.writable(), if lags => {
                let flushed = self.host.links.borrow_mut().flush(self.slot);
                if ready.and(flushed).is_err() {
                    return ControlFlow::Break(());
                }
            }
            ready = self.read.readable(), if reads => {
                self.has_unread = true;
                if ready.is_err() {
                    return ControlFlow::Break(());
                }
            }
            // Who leaves something waiting for so long is too slow, however much it reads.
            () = sleep_until(lags_until), if lags => self.order_away(),
            // However slowly its bytes trickle, a message must end in time.
            () = sleep_until(message_until), if reads && self.begun.is_some() => {
                self.close(CloseCode::PolicyViolation);
            }
        }
        ControlFlow::Continue(())
    }

    fn order_away(&self) {
        let connection = self.host.links.borrow_mut().connection(self.slot);
        if let Some(connection) = connection {
            let order = Control::Disconnect(connection, CloseCode::SlowConsumer);
            self.host.handle(Input::Order(order));
        }
    }

    /// Reads until there is no more, others want their turn, or the inbox is full.
    fn read_some(&mut self) -> ControlFlow<()> {
        let mut left = BYTES_PER_TURN;
        // The rules may have changed.
        let (bytes_max, fragments_max) = self.host.message_limits();
        let size = Some(bytes_max);
        self.context.set_config(|config| {
            (config.max_message_size, config.max_frame_size) = (size, size);
        });
        for _ in 0..MESSAGES_PER_TURN {
            if self.signals.paused.get() || self.signals.last_words.borrow().is_some() {
                return ControlFlow::Continue(());
            }
            let (out, has_ended) = (Vec::new(), false);
            let course = &mut self.course;
            let mut wire = Wire { read: &self.read, course, out, left: &mut left, has_ended };
            let result = self.context.read(&mut wire);
            let Wire { out, has_ended, .. } = wire;
            if !out.is_empty() {
                self.host.links.borrow_mut().send_urgent(self.slot, out.into());
            }
            // tungstenite would take what must be refused, or wait for its end.
            let fault = self.course.fault(bytes_max, fragments_max);
            match result {
                Ok(message) => match fault {
                    None => self.take(message),
                    Some(code) => {
                        self.close(code);
                        return ControlFlow::Continue(());
                    }
                },
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(code) = fault {
                        self.close(code);
                    }
                    let begun = || self.begun.unwrap_or_else(Instant::now);
                    self.begun = self.course.is_mid_message().then(begun);
                    self.has_unread = left == 0;
                    return ControlFlow::Continue(());
                }
                Err(_) if has_ended => return ControlFlow::Break(()),
                Err(error) => {
                    let code = code_of(&error).map(|code| match code {
                        _ if self.course.is_misspelled() => CloseCode::ProtocolError,
                        code => code,
                    });
                    let Some(code) = code else { return ControlFlow::Break(()) };
                    tracing::debug!(%error, "a connection broke its framing");
                    self.close(code);
                    return ControlFlow::Continue(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Text(text) => {
                // The next one may have begun in the same read; its time is its own.
                self.begun = None;
                self.host.handle(Input::Text(self.slot, text.as_str()));
            }
            Message::Binary(_) => self.close(CloseCode::UnsupportedData),
            Message::Ping(_) => {
                if self.pings.take(self.host.config.pings, self.host.now()).is_err() {
                    self.close(CloseCode::RateLimited);
                } else {
                    self.host.handle(Input::Heard(self.slot));
                }
            }
            Message::Pong(_) => self.host.handle(Input::Heard(self.slot)),
            Message::Close(frame) => {
                // RFC 6455 section 5.5.1: the answer echoes the code.
                let code = frame.map_or(CloseCode::Normal.number(), |frame| frame.code.into());
                self.end(code, "", CloseCode::Normal);
            }
            // tungstenite never reads one.
            Message::Frame(_) => {}
        }
    }

    /// Closes for a reason that the framing gives.
    fn close(&self, code: CloseCode) {
        self.end(code.number(), code.reason(), code);
    }

    fn end(&self, code: u16, reason: &str, told: CloseCode) {
        self.host.links.borrow_mut().end(self.slot, Bytes::new(), code, reason, false);
        self.host.handle(Input::Closed(self.slot, told));
    }

    /// The other side ended or broke.
    fn broke(&self) {
        if self.host.links.borrow_mut().remove(self.slot) {
            self.host.handle(Input::Closed(self.slot, CloseCode::GoingAway));
        }
    }

    /// Says what is left to say, then waits for the other side to end, both within one deadline. It
    /// is read meanwhile: data left unread would make the kernel cut the line before the close
    /// frame is seen.
    async fn finish(self, last_words: OutboundQueue) {
        let Self { host, read, write, _counted, .. } = self;
        let orderly = speak_and_listen(read, write, last_words);
        let _ = timeout(host.config.close_timeout, orderly).await;
    }
}

async fn speak_and_listen(
    read: OwnedReadHalf,
    write: Rc<OwnedWriteHalf>,
    mut last_words: OutboundQueue,
) -> io::Result<()> {
    let mut discarded = 0;
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let mut write = Some(write);
    loop {
        if let Some(speaking) = &write {
            write_queue(speaking, &mut last_words)?;
            if last_words.is_empty() {
                // The last holder of this half: the other side sees the end.
                write = None;
            }
        }
        let speaks = async {
            match &write {
                Some(write) => write.writable().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = speaks => ready?,
            ready = read.readable() => {
                ready?;
                match read.try_read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(n) => discarded += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                if discarded > DISCARDED_BYTES_MAX {
                    return Ok(());
                }
            }
        }
    }
}

/// With which code a connection is closed that broke its framing; none when there is nobody left to
/// tell.
fn code_of(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Capacity(_) => Some(CloseCode::MessageTooBig),
        Error::Utf8(_) => Some(CloseCode::InvalidPayload),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::ProtocolError),
        _ => None,
    }
}

/// The socket, as tungstenite sees it: it reads what there is, within a budget, and what it writes
/// is kept for the queue.
struct Wire<'a> {
    read: &'a OwnedReadHalf,
    course: &'a mut Course,
    out: Vec<u8>,
    /// How many bytes may still be read in this turn.
    left: &'a mut usize,
    has_ended: bool,
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if *self.left == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = buffer.len().min(*self.left);
        let result = self.read.try_read(&mut buffer[..length]);
        match &result {
            Ok(0) => self.has_ended = true,
            Ok(n) => {
                *self.left -= n;
                self.course.follow(&buffer[..*n]);
            }
            Err(error) => self.has_ended = error.kind() != io::ErrorKind::WouldBlock,
        }
        result
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
