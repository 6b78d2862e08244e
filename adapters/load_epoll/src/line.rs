//! The sockets: dialled without waiting, upgraded, read and written by one epoll. A line is dialled as often as whoever
//! it belongs to wants it.
//!
//! It must never wait for one of them, never keep more for one than it is told, never look into a text, and never dial
//! by itself.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::mem;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use domain::client::life::ABNORMAL;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use websocket_codec::handshake::accept_key;
use websocket_codec::{CloseCode, Decoder, Limits, Opcode, Role, encode_close, encode_masked};

use crate::address::Target;
use crate::random::Random;

const EVENTS_PER_TURN: usize = 1024;
const READ_BYTES: usize = 256 << 10;
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What waits for one connection to be written. Behind that nothing is taken: the server does not read.
const PENDING_BYTES_MAX: usize = 4 << 20;
/// What a server may say in one message.
const LIMITS: Limits = Limits { message_bytes_max: 64 << 20, fragments_max: 65_536 };
/// The key of the timer, which is no line.
const TIMER: u64 = u64::MAX;
/// Where in a key it stands how often the line had been dialled.
const DIALS_SHIFT: u32 = 32;
/// What a close frame without a code is called.
const NO_CODE: u16 = 1005;
/// Sixteen bytes, as RFC 6455 wants them; they protect nothing here.
const KEY: &str = "cm9vbWtlZXBlci1iZW5jaA==";

#[derive(Clone, Copy, Eq, PartialEq)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
    Ended,
}

struct Line {
    /// None where it has ended: the descriptor is free then.
    stream: Option<TcpStream>,
    phase: Phase,
    /// How often it was dialled: what epoll tells of an earlier socket is of no account.
    dials: u32,
    decoder: Decoder,
    /// The beginning of the answer to the upgrade.
    head: Vec<u8>,
    /// What the kernel did not take yet.
    pending: Vec<u8>,
}

/// What is heard of a line.
pub(crate) enum Heard<'a> {
    /// It is upgraded.
    Opened,
    Text(&'a str),
    /// A message of so many bytes that is no text.
    Binary(usize),
    /// A frame of the WebSocket's own, which is answered where it has to be.
    Control,
    Ended(End),
}

/// How a line ended.
pub(crate) enum End {
    /// Before it was open, by the network.
    Failed(io::Error),
    /// Before it was open: the first line of another answer, and when it says to try again.
    NoUpgrade { answer: String, retry_after: Option<Duration> },
    /// By a close frame, or without one.
    Closed { code: u16, reason: String },
}

/// Whoever hears what comes.
pub(crate) type Ear<'e> = dyn FnMut(&mut Lines, usize, Instant, Heard<'_>) + 'e;

pub(crate) struct Lines {
    targets: Vec<Target>,
    epoll: OwnedFd,
    timer: OwnedFd,
    armed: Option<Instant>,
    lines: Vec<Line>,
    buffer: Vec<u8>,
    events: Vec<Event>,
    random: Random,
    accept: String,
}

impl Lines {
    pub(crate) fn new(targets: &[Target], seed: u64) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Self {
            targets: targets.to_vec(),
            epoll,
            timer,
            armed: None,
            lines: Vec::new(),
            buffer: vec![0; READ_BYTES],
            events: Vec::with_capacity(EVENTS_PER_TURN),
            random: Random::new(seed),
            accept: accept_key(KEY),
        })
    }

    /// From now on lines are dialled to these, in turn.
    pub(crate) fn go_to(&mut self, targets: &[Target]) {
        self.targets = targets.to_vec();
    }

    pub(crate) fn target_of(&self, at: usize) -> &Target {
        &self.targets[at % self.targets.len()]
    }

    /// Begins to open line number `at`, which has no socket or is the next one that never had.
    pub(crate) fn dial(&mut self, at: usize, token: Option<&str>) -> io::Result<()> {
        if at == self.lines.len() {
            self.lines.push(Line::without_socket());
        }
        let target = self.target_of(at);
        let family = if target.addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &target.addr) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        let pending = upgrade(target, token).into_bytes();
        let dials = self.lines[at].dials.wrapping_add(1);
        let line = Line { phase: Phase::Connecting, dials, pending, ..Line::without_socket() };
        epoll::add(&self.epoll, &stream, line.key(at), EventFlags::IN | EventFlags::OUT)?;
        self.lines[at] = Line { stream: Some(stream), ..line };
        Ok(())
    }

    /// Whether it has no socket.
    pub(crate) fn is_free(&self, at: usize) -> bool {
        self.lines.get(at).is_none_or(|line| line.phase == Phase::Ended)
    }

    /// Whether it is open, and a text will be sent.
    pub(crate) fn takes(&self, at: usize) -> bool {
        let line = self.lines.get(at);
        line.is_some_and(|line| line.phase == Phase::Open && line.pending.len() < PENDING_BYTES_MAX)
    }

    /// Says a text; whether it will be sent.
    pub(crate) fn say(&mut self, at: usize, text: &str) -> bool {
        if !self.takes(at) {
            return false;
        }
        let mask = (self.random.next() as u32).to_be_bytes();
        self.put(at, &encode_masked(Opcode::Text, true, text.as_bytes(), mask));
        true
    }

    fn put(&mut self, at: usize, frame: &[u8]) {
        let was_waiting = !self.lines[at].pending.is_empty();
        self.lines[at].pending.extend_from_slice(frame);
        if !was_waiting {
            self.flush(at);
        }
    }

    /// Sends what waits, as far as the kernel takes it; the rest goes in later turns.
    fn flush(&mut self, at: usize) {
        let Line { stream: Some(stream), pending, .. } = &mut self.lines[at] else { return };
        let taken = match stream.write(pending) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            // Its end is an event of the next turn.
            Err(_) => pending.len(),
        };
        pending.drain(..taken);
        if pending.is_empty() {
            *pending = Vec::new();
        } else {
            self.watch(at, EventFlags::IN | EventFlags::OUT);
        }
    }

    fn watch(&self, at: usize, flags: EventFlags) {
        let line = &self.lines[at];
        if let Some(stream) = &line.stream {
            // It is in this epoll, and has a descriptor.
            let _ = epoll::modify(&self.epoll, stream, line.key(at), flags);
        }
    }

    /// Resets a line, without a word to the server.
    pub(crate) fn cut(&mut self, at: usize) {
        if let Some(Line { stream: Some(stream), .. }) = self.lines.get(at) {
            // Refused: it then ends as all sockets do.
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
        self.hang_up(at);
    }

    /// Lets go of a line's socket.
    pub(crate) fn hang_up(&mut self, at: usize) {
        if let Some(line) = self.lines.get_mut(at) {
            *line = Line { dials: line.dials, ..Line::without_socket() };
        }
    }

    /// Ends all lines as RFC 6455 wants it, as far as the kernel takes it at once.
    pub(crate) fn close_all(&mut self) {
        let close = encode_close(CloseCode::NORMAL, "");
        // A server wants every frame of a client masked.
        let frame = encode_masked(Opcode::Close, true, &close[2..], [0; 4]);
        for at in 0..self.lines.len() {
            if self.lines[at].phase == Phase::Open {
                self.put(at, &frame);
            }
            self.hang_up(at);
        }
    }

    /// Deals with what comes, and waits for it until then at most.
    pub(crate) fn turn(&mut self, until: Instant, ear: &mut Ear<'_>) -> io::Result<()> {
        let at_once = self.arm(until)?;
        let mut events = mem::take(&mut self.events);
        events.clear();
        let timeout = at_once.then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
        match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let (key, flags) = (event.data.u64(), event.flags);
            if key == TIMER {
                self.armed = None;
                // Read, so that it is quiet again.
                let _ = rustix::io::read(&self.timer, &mut [0_u8; 8]);
                continue;
            }
            let (at, dials) = (key as u32 as usize, (key >> DIALS_SHIFT) as u32);
            if self.lines[at].dials != dials {
                continue;
            }
            if flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
                self.writable(at, ear);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(at, ear);
            }
        }
        self.events = events;
        Ok(())
    }

    /// Sets the timer, which epoll's own is too coarse for; whether the time has come already.
    fn arm(&mut self, until: Instant) -> io::Result<bool> {
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(true);
        }
        if self.armed != Some(until) {
            let value = Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            };
            let once =
                Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(self.timer.as_fd(), TimerfdTimerFlags::empty(), &once)?;
            self.armed = Some(until);
        }
        Ok(false)
    }

    fn writable(&mut self, at: usize, ear: &mut Ear<'_>) {
        let line = &mut self.lines[at];
        let Some(stream) = &line.stream else { return };
        if line.phase == Phase::Connecting {
            match stream.take_error() {
                Ok(None) => line.phase = Phase::Upgrading,
                Ok(Some(error)) | Err(error) => return self.end(at, End::Failed(error), ear),
            }
        }
        self.watch(at, EventFlags::IN);
        self.flush(at);
    }

    fn read(&mut self, at: usize, ear: &mut Ear<'_>) {
        let mut buffer = mem::take(&mut self.buffer);
        let came = match &mut self.lines[at].stream {
            Some(stream) => stream.read(&mut buffer),
            None => Err(ErrorKind::WouldBlock.into()),
        };
        let now = Instant::now();
        match came {
            Ok(came @ 1..) => match self.lines[at].phase {
                Phase::Upgrading => self.upgrade(at, &buffer[..came], now, ear),
                Phase::Open => self.decode(at, &mut buffer[..came], now, ear),
                Phase::Connecting | Phase::Ended => {}
            },
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) if self.lines[at].phase != Phase::Open => {
                self.end(at, End::Failed(error), ear);
            }
            Ok(_) if self.lines[at].phase != Phase::Open => {
                let ended = io::Error::from(ErrorKind::UnexpectedEof);
                self.end(at, End::Failed(ended), ear);
            }
            Ok(_) | Err(_) => {
                let reason = "without a close frame".to_owned();
                self.end(at, End::Closed { code: ABNORMAL, reason }, ear);
            }
        }
        self.buffer = buffer;
    }

    fn upgrade(&mut self, at: usize, bytes: &[u8], now: Instant, ear: &mut Ear<'_>) {
        let head = &mut self.lines[at].head;
        head.extend_from_slice(bytes);
        let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
            if head.len() > HEAD_BYTES_MAX {
                let answer = "a head without end".to_owned();
                self.end(at, End::NoUpgrade { answer, retry_after: None }, ear);
            }
            return;
        };
        let mut rest = head.split_off(end + 4);
        let head = mem::take(head);
        let text = String::from_utf8_lossy(&head);
        let answer = text.lines().next().unwrap_or_default().to_owned();
        let accepted = header(&text, "sec-websocket-accept") == Some(&*self.accept);
        if answer.split(' ').nth(1) != Some("101") || !accepted {
            let retry_after = retry_after(&text);
            return self.end(at, End::NoUpgrade { answer, retry_after }, ear);
        }
        self.lines[at].phase = Phase::Open;
        ear(self, at, now, Heard::Opened);
        if !rest.is_empty() {
            self.decode(at, &mut rest, now, ear);
        }
    }

    fn decode(&mut self, at: usize, bytes: &mut [u8], now: Instant, ear: &mut Ear<'_>) {
        // Taken out, since the listener may use this value meanwhile.
        let mut decoder = mem::replace(&mut self.lines[at].decoder, Decoder::new(Role::Client));
        let mut used = 0;
        while used < bytes.len() && self.lines[at].phase == Phase::Open {
            let decoded = match decoder.decode(&mut bytes[used..], &LIMITS) {
                Ok(decoded) => decoded,
                Err(error) => {
                    let reason = format!("it broke RFC 6455: {error}");
                    return self.end(at, End::Closed { code: ABNORMAL, reason }, ear);
                }
            };
            used += decoded.used;
            if let Some(event) = decoded.event {
                self.event(at, event, now, ear);
            }
        }
        // Whoever heard it may have let go of the line.
        if self.lines[at].phase == Phase::Open {
            self.lines[at].decoder = decoder;
        }
    }

    fn event(
        &mut self,
        at: usize,
        event: websocket_codec::Event<'_>,
        now: Instant,
        ear: &mut Ear<'_>,
    ) {
        match event {
            websocket_codec::Event::Text(text) => ear(self, at, now, Heard::Text(&text)),
            websocket_codec::Event::Ping(payload) => {
                let frame = encode_masked(Opcode::Pong, true, &payload, [0; 4]);
                self.put(at, &frame);
                ear(self, at, now, Heard::Control);
            }
            websocket_codec::Event::Pong(_) => ear(self, at, now, Heard::Control),
            websocket_codec::Event::Binary(bytes) => {
                ear(self, at, now, Heard::Binary(bytes.len()));
            }
            websocket_codec::Event::Close(frame) => {
                let (code, reason) = match frame {
                    Some(frame) => (frame.code.get(), frame.reason.to_string()),
                    None => (NO_CODE, String::new()),
                };
                self.end(at, End::Closed { code, reason }, ear);
            }
        }
    }

    fn end(&mut self, at: usize, end: End, ear: &mut Ear<'_>) {
        self.hang_up(at);
        ear(self, at, Instant::now(), Heard::Ended(end));
    }
}

impl Line {
    /// One that was never dialled.
    fn without_socket() -> Self {
        Self {
            stream: None,
            phase: Phase::Ended,
            dials: 0,
            decoder: Decoder::new(Role::Client),
            head: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// What epoll calls it: its number, and which of its sockets is meant.
    fn key(&self, at: usize) -> EventData {
        EventData::new_u64(u64::from(self.dials) << DIALS_SHIFT | at as u64)
    }
}

/// The request that asks for a WebSocket.
fn upgrade(target: &Target, token: Option<&str>) -> String {
    let (path, host) = (&target.path, &target.host);
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: roomkeeper-bench\r\n\
         Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n"
    );
    if let Some(token) = token {
        // A header, since addresses end up in logs.
        let _ = write!(head, "Authorization: Bearer {token}\r\n");
    }
    head.push_str("\r\n");
    head
}

/// The value of a header in the head of an answer.
fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}

/// When an answer says to try again, in seconds. A date is passed over.
fn retry_after(head: &str) -> Option<Duration> {
    header(head, "retry-after")?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_in_a_header_and_an_answer_says_when_to_try_again() {
        let target = Target::resolve("ws://127.0.0.1:8000").unwrap();
        assert!(!upgrade(&target, None).contains("Authorization"));
        let head = upgrade(&target, Some("secret"));
        assert!(head.starts_with("GET /ws/v2/connect HTTP/1.1\r\n") && head.ends_with("\r\n\r\n"));
        assert_eq!(header(&head, "authorization"), Some("Bearer secret"));
        let busy = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n\r\n";
        assert_eq!(retry_after(busy), Some(Duration::from_secs(2)));
        assert_eq!(retry_after(&busy.replace('2', "Fri, 27 Nov 2026 13:00:00 GMT")), None);
    }
}
