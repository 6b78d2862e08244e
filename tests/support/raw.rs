//! A WebSocket client without manners: it sends whatever bytes a test wants and says what came back.
//!
//! Blocking, with a deadline on everything. It answers nothing by itself: no pong, no close.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Deserializer, Value};

use crate::frame::{self, Frame, Received};
use crate::leaks;

/// How long an answer may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The key of RFC 6455 section 1.3, and the answer that it asks for.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One TCP connection.
#[derive(Debug)]
pub struct RawSocket {
    stream: TcpStream,
    buffer: Vec<u8>,
    values: VecDeque<Value>,
    ended: bool,
    deadline: Duration,
}

impl RawSocket {
    /// Connects, and sends nothing yet.
    #[must_use]
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE)
            .unwrap_or_else(|e| panic!("nobody listens on {addr}: {e}"));
        stream.set_nodelay(true).expect("a new socket takes options");
        stream.set_write_timeout(Some(DEADLINE)).expect("a new socket takes options");
        let (buffer, values) = (Vec::new(), VecDeque::new());
        Self { stream, buffer, values, ended: false, deadline: DEADLINE }
    }

    /// Connects and upgrades.
    ///
    /// # Panics
    ///
    /// When the answer isn't a right 101.
    #[must_use]
    pub fn open(addr: SocketAddr, path: &str) -> Self {
        let mut socket = Self::connect(addr);
        let head = socket.upgrade(path, &[]);
        assert!(head.starts_with("HTTP/1.1 101"), "no upgrade: {head}");
        assert!(head.contains(ACCEPT), "a wrong Sec-WebSocket-Accept: {head}");
        socket
    }

    /// The same with another deadline for every answer.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Our side of the connection.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket has an address")
    }

    /// Asks for the upgrade and gives the head of the answer, whatever it is. A header among
    /// `extra_headers` takes the place of the usual one; with an empty value it leaves it out.
    pub fn upgrade(&mut self, path: &str, extra_headers: &[(&str, &str)]) -> String {
        let host = self.stream.peer_addr().expect("a connected socket has a peer").to_string();
        let usual = [
            ("Host", host.as_str()),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ];
        let replaced =
            |name: &str| extra_headers.iter().any(|(extra, _)| extra.eq_ignore_ascii_case(name));
        let kept = usual.iter().filter(|(name, _)| !replaced(name));
        let extra = extra_headers.iter().filter(|(_, value)| !value.is_empty());
        let headers = kept.chain(extra).map(|(name, value)| format!("{name}: {value}\r\n"));
        let head = headers.collect::<String>();
        self.send(format!("GET {path} HTTP/1.1\r\n{head}\r\n").as_bytes());
        self.read_head()
    }

    /// Reads the head of an HTTP answer; what follows it stays to be read.
    ///
    /// # Panics
    ///
    /// When the connection ends first; [`RawSocket::try_read_head`] doesn't mind.
    pub fn read_head(&mut self) -> String {
        let head = self.try_read_head();
        head.unwrap_or_else(|| panic!("closed before the head ended: {:?}", self.rest()))
    }

    /// Reads the head of an HTTP answer; none when the connection ends without one.
    pub fn try_read_head(&mut self) -> Option<String> {
        let end = Instant::now() + self.deadline;
        loop {
            if let Some(at) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.buffer.drain(..at + 4).collect::<Vec<_>>();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.fill(end) {
                return None;
            }
        }
    }

    /// The bare socket, without what was read ahead.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends these bytes.
    ///
    /// # Panics
    ///
    /// When the server doesn't take them; [`RawSocket::try_send`] doesn't mind.
    pub fn send(&mut self, bytes: &[u8]) {
        leaks::remember_request(bytes);
        self.stream.write_all(bytes).expect("the server takes what is sent");
    }

    /// Sends these bytes, to a server that may have closed already; tells whether they went.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        leaks::remember_request(bytes);
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends one frame; [`Frame`] makes stranger ones for [`RawSocket::send`].
    pub fn send_frame(&mut self, opcode: u8, fin: bool, masked: bool, payload: &[u8]) {
        let lawful = Frame::new(opcode, payload);
        let mask = lawful.mask.filter(|_| masked);
        self.send(&Frame { fin, mask, ..lawful }.bytes());
    }

    /// Sends one text frame.
    pub fn send_text(&mut self, text: &str) {
        leaks::remember(text);
        self.send(&Frame::text(text).bytes());
    }

    /// Sends one JSON value in one text frame.
    pub fn send_json(&mut self, value: &Value) {
        self.send_text(&value.to_string());
    }

    /// The next frame: its opcode and its payload.
    ///
    /// # Panics
    ///
    /// When none comes in time, or the connection ends.
    pub fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let frame = self.read_received();
        (frame.opcode, frame.payload)
    }

    /// The next frame with all its bits.
    ///
    /// # Panics
    ///
    /// When none comes in time, or the connection ends.
    pub fn read_received(&mut self) -> Received {
        let end = Instant::now() + self.deadline;
        loop {
            if let Some(frame) = frame::take(&mut self.buffer) {
                return frame;
            }
            assert!(self.fill(end), "closed instead of a frame: {:?}", self.rest());
        }
    }

    /// The next frame; none when the connection ends before one has come.
    ///
    /// # Panics
    ///
    /// When neither happens in time.
    pub fn try_read_frame(&mut self) -> Option<Received> {
        let end = Instant::now() + self.deadline;
        loop {
            if let Some(frame) = frame::take(&mut self.buffer) {
                return Some(frame);
            }
            if !self.fill(end) {
                return None;
            }
        }
    }

    /// The next JSON value of the next text message; frames of control are passed over.
    ///
    /// # Panics
    ///
    /// When a close frame comes, or binary, or what isn't JSON.
    pub fn next_json(&mut self) -> Value {
        while self.values.is_empty() {
            let text = self.read_text();
            for value in Deserializer::from_slice(&text).into_iter::<Value>() {
                let words = String::from_utf8_lossy(&text);
                self.values.push_back(value.unwrap_or_else(|e| panic!("{e} in {words:?}")));
            }
        }
        self.values.pop_front().expect("there is one")
    }

    /// The next JSON value of this type; others are passed over.
    ///
    /// # Panics
    ///
    /// When an `error` comes instead, or a close, or nothing in time.
    pub fn expect_json(&mut self, kind: &str) -> Value {
        loop {
            let value = self.next_json();
            if value["type"] == kind {
                return value;
            }
            assert!(value["type"] != "error", "expected {kind}, got {value}");
        }
    }

    /// The code of the close frame, passing over whatever comes before; 1005 when it has none.
    ///
    /// # Panics
    ///
    /// When the connection ends without a close frame.
    pub fn read_close_code(&mut self) -> u16 {
        self.read_close().0
    }

    /// Code and reason of the close frame, passing over whatever comes before.
    ///
    /// # Panics
    ///
    /// When the connection ends without a close frame.
    pub fn read_close(&mut self) -> (u16, String) {
        loop {
            let (opcode, payload) = self.read_frame();
            if opcode == frame::CLOSE {
                return close_of(&payload);
            }
        }
    }

    /// Reads until the server closes the connection, and gives what came before.
    ///
    /// # Panics
    ///
    /// When it is still open at the deadline.
    pub fn read_until_closed(&mut self) -> Vec<u8> {
        let end = Instant::now() + self.deadline;
        while self.fill(end) {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the server closes the connection within this time; what comes before stays to be
    /// read. Also the way to let time pass on a connection that should stay.
    pub fn ends_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.ended && Instant::now() < end {
            self.fill_until(end);
        }
        self.ended
    }

    /// Reads once, and gives how many bytes that were: none at the end of the connection, or when
    /// nothing came in this time. The bytes are thrown away.
    pub fn skim(&mut self, bytes_max: usize, time: Duration) -> usize {
        self.stream.set_read_timeout(Some(time)).expect("a socket takes options");
        self.stream.read(&mut vec![0; bytes_max]).unwrap_or(0)
    }

    /// Takes as little as the kernel allows before it is read, like a client far away.
    pub fn narrow(&self) {
        rustix::net::sockopt::set_socket_recv_buffer_size(&self.stream, 2048)
            .expect("a socket takes options");
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// Ends the TCP connection with a reset, as a client does that lost its power.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).ok();
    }

    fn read_text(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        loop {
            let Received { fin, opcode, payload, .. } = self.read_received();
            match opcode {
                frame::TEXT | frame::CONTINUATION => text.extend(payload),
                frame::PING | frame::PONG => continue,
                frame::CLOSE => panic!("closed with {:?} instead of text", close_of(&payload)),
                other => panic!("opcode {other} instead of text"),
            }
            if fin {
                return text;
            }
        }
    }

    /// Reads some more; false when the connection has ended.
    fn fill(&mut self, end: Instant) -> bool {
        let left = end.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "nothing more within {:?}: {:?}", self.deadline, self.rest());
        self.fill_until(end);
        !self.ended
    }

    /// Reads once, until `end` at most.
    fn fill_until(&mut self, end: Instant) {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).expect("a socket takes options");
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(count) => self.buffer.extend(&chunk[..count]),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.ended = true,
        }
    }

    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.buffer).chars().take(500).collect()
    }
}

fn close_of(payload: &[u8]) -> (u16, String) {
    match payload {
        [high, low, reason @ ..] => {
            (u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned())
        }
        _ => (1005, String::new()),
    }
}
