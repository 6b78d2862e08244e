//! The connections: opened a few at a time, read and written by one epoll, alive as long as the
//! server lets them.
//!
//! It must never block on one of them, and must never look into a message: whoever calls gets each
//! text and says whether it was one.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

use crate::target::{Notice, Target};
use crate::wire;

const EVENTS_PER_TURN: usize = 1024;
const READ_BYTES: usize = 256 * 1024;
/// How many connections are on their way in at a time.
const OPENING_MAX: usize = 64;
/// While nothing but what has to be answered is waited for.
const REST_TURN_MAX: Duration = Duration::from_millis(100);
const OPEN_DEADLINE: Duration = Duration::from_secs(120);
/// The receive buffer of a member that stops reading, so that it is full soon.
const STALLED_BUFFER_BYTES: usize = 4096;

#[derive(Clone, Copy, Eq, PartialEq)]
enum Phase {
    Upgrading,
    Joining,
    Member,
    Stalled,
    Closed,
}

struct Client {
    stream: TcpStream,
    phase: Phase,
    room: usize,
    /// The beginning of a frame that isn't whole yet.
    partial: Vec<u8>,
    /// What the kernel did not take.
    pending: Vec<u8>,
}

/// Where and when a text arrived: all that one read brought arrived at once.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) member: usize,
    pub(crate) room: usize,
    pub(crate) at: Instant,
}

/// What became of the bytes of one read.
struct Eaten {
    used: usize,
    ended: bool,
}

pub(crate) struct Pool<'a> {
    target: &'a Target,
    addr: SocketAddr,
    wanted: usize,
    rooms: usize,
    epoll: OwnedFd,
    clients: Vec<Client>,
    opening: usize,
    buffer: Vec<u8>,
    events: Vec<Event>,
    /// Connections that the server ended.
    pub(crate) closed: usize,
    /// The first refusal, in the server's words.
    pub(crate) refusal: Option<String>,
    /// Pings of the server's own protocol that were answered.
    pub(crate) pings: u64,
}

impl<'a> Pool<'a> {
    /// Opens `connections` of them, spread over the rooms in turn, and waits until all are in.
    pub(crate) fn open(
        target: &'a Target,
        addr: SocketAddr,
        connections: usize,
        rooms: usize,
    ) -> Self {
        Self::open_hearing(target, addr, connections, rooms, |_, _| false)
    }

    /// The same, with each text that comes meanwhile.
    pub(crate) fn open_hearing(
        target: &'a Target,
        addr: SocketAddr,
        connections: usize,
        rooms: usize,
        mut on_text: impl FnMut(Arrival, &[u8]) -> bool,
    ) -> Self {
        let mut pool = Self {
            target,
            addr,
            wanted: connections,
            rooms,
            epoll: epoll::create(CreateFlags::CLOEXEC).expect("an epoll"),
            clients: Vec::with_capacity(connections),
            opening: 0,
            buffer: vec![0; READ_BYTES],
            events: Vec::with_capacity(EVENTS_PER_TURN),
            closed: 0,
            refusal: None,
            pings: 0,
        };
        let deadline = Instant::now() + OPEN_DEADLINE;
        while pool.clients.len() < connections || pool.opening > 0 {
            pool.open_some();
            pool.turn(Duration::from_millis(100), &mut on_text);
            assert!(pool.refusal.is_none(), "refused: {:?}", pool.refusal);
            assert!(pool.closed == 0, "the server closed a connection that was opening");
            assert!(Instant::now() < deadline, "{} are still not in", pool.opening);
        }
        pool
    }

    /// Opens more, as long as few enough are on their way in.
    fn open_some(&mut self) {
        while self.clients.len() < self.wanted && self.opening < OPENING_MAX {
            self.connect(self.clients.len() % self.rooms);
        }
    }

    /// Answers what has to be answered, for so long.
    pub(crate) fn rest(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.turn(left.min(REST_TURN_MAX), |_, _| false);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    fn connect(&mut self, room: usize) {
        let mut stream = TcpStream::connect(self.addr).expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let request = wire::upgrade(&self.addr.to_string(), &self.target.path(room));
        stream.write_all(request.as_bytes()).expect("a fresh socket takes a request");
        stream.set_nonblocking(true).expect("a socket can wait");
        let key = EventData::new_u64(self.clients.len() as u64);
        epoll::add(&self.epoll, &stream, key, EventFlags::IN).expect("a new descriptor");
        let (partial, pending) = (Vec::new(), Vec::new());
        self.clients.push(Client { stream, phase: Phase::Upgrading, room, partial, pending });
        self.opening += 1;
    }

    /// From now on nothing is read for this member.
    pub(crate) fn stall(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.phase = Phase::Stalled;
        rustix::net::sockopt::set_socket_recv_buffer_size(&client.stream, STALLED_BUFFER_BYTES)
            .expect("a buffer may be small");
        epoll::delete(&self.epoll, &client.stream).expect("a descriptor of this epoll");
    }

    /// Puts a text in line; [`Pool::flush`] sends it.
    pub(crate) fn say(&mut self, at: usize, text: &[u8]) {
        wire::append(&mut self.clients[at].pending, wire::TEXT, text);
    }

    /// Sends what is in line, as far as the kernel takes it; the rest goes in later turns.
    pub(crate) fn flush(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if client.pending.is_empty() || client.phase == Phase::Closed {
            return;
        }
        let taken = match client.stream.write(&client.pending) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            // Its end is an event of the next turn.
            Err(_) => client.pending.len(),
        };
        client.pending.drain(..taken);
        if !client.pending.is_empty() {
            self.watch(at, EventFlags::IN | EventFlags::OUT);
        }
    }

    fn watch(&self, at: usize, flags: EventFlags) {
        let key = EventData::new_u64(at as u64);
        epoll::modify(&self.epoll, &self.clients[at].stream, key, flags)
            .expect("a descriptor of this epoll");
    }

    /// Waits this long at most for something to come, and deals with it. `on_text` gets
    /// each text, and says whether it was a message.
    pub(crate) fn turn(
        &mut self,
        timeout: Duration,
        mut on_text: impl FnMut(Arrival, &[u8]) -> bool,
    ) {
        let timeout = Timespec {
            tv_sec: timeout.as_secs().try_into().expect("a short time"),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("epoll: {error}"),
        }
        for event in &events {
            let (at, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(EventFlags::OUT) {
                self.watch(at, EventFlags::IN);
                self.flush(at);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(at, &mut on_text);
            }
        }
        self.events = events;
    }

    fn read(&mut self, at: usize, on_text: &mut impl FnMut(Arrival, &[u8]) -> bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let client = &mut self.clients[at];
        let ended = match client.stream.read(&mut buffer) {
            Ok(came @ 1..) if client.partial.is_empty() => {
                let eaten = self.eat(at, &buffer[..came], on_text);
                if eaten.used < came {
                    self.clients[at].partial.extend_from_slice(&buffer[eaten.used..came]);
                }
                eaten.ended
            }
            Ok(came @ 1..) => {
                let mut joined = std::mem::take(&mut client.partial);
                joined.extend_from_slice(&buffer[..came]);
                let eaten = self.eat(at, &joined, on_text);
                joined.drain(..eaten.used);
                self.clients[at].partial = joined;
                eaten.ended
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Ok(_) | Err(_) => true,
        };
        self.buffer = buffer;
        if ended {
            self.close(at);
        }
    }

    fn close(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if matches!(client.phase, Phase::Upgrading | Phase::Joining) {
            self.opening -= 1;
        }
        client.phase = Phase::Closed;
        epoll::delete(&self.epoll, &client.stream).expect("a descriptor of this epoll");
        self.closed += 1;
    }

    fn eat(
        &mut self,
        at: usize,
        bytes: &[u8],
        on_text: &mut impl FnMut(Arrival, &[u8]) -> bool,
    ) -> Eaten {
        let (mut used, now) = (0, Instant::now());
        if self.clients[at].phase == Phase::Upgrading {
            match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(head) => used = head + 4,
                None => return Eaten { used: 0, ended: false },
            }
            self.upgraded(at, &bytes[..used]);
        }
        let arrival = Arrival { member: at, room: self.clients[at].room, at: now };
        while let Some((opcode, payload, length)) = wire::front(&bytes[used..]) {
            used += length;
            match opcode {
                wire::TEXT if payload.contains(&b'\n') => {
                    for line in payload.split(|&byte| byte == b'\n') {
                        if !on_text(arrival, line) {
                            self.notice(at, line);
                        }
                    }
                }
                wire::TEXT if on_text(arrival, payload) => {}
                wire::TEXT => self.notice(at, payload),
                wire::PING => {
                    wire::append(&mut self.clients[at].pending, wire::PONG, payload);
                    self.flush(at);
                }
                wire::CLOSE => return Eaten { used, ended: true },
                _ => {}
            }
        }
        Eaten { used, ended: false }
    }

    fn upgraded(&mut self, at: usize, head: &[u8]) {
        let head = String::from_utf8_lossy(head);
        assert!(head.starts_with("HTTP/1.1 101 "), "no upgrade: {head}");
        if let Some(join) = self.target.join(self.clients[at].room) {
            self.clients[at].phase = Phase::Joining;
            self.say(at, join.as_bytes());
            self.flush(at);
        } else {
            self.clients[at].phase = Phase::Member;
            self.opening -= 1;
        }
    }

    fn notice(&mut self, at: usize, text: &[u8]) {
        match self.target.notice(text) {
            Notice::Joined if self.clients[at].phase == Phase::Joining => {
                self.clients[at].phase = Phase::Member;
                self.opening -= 1;
            }
            Notice::Ping => {
                self.pings += 1;
                self.say(at, self.target.pong());
                self.flush(at);
            }
            Notice::Refused => {
                self.refusal.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
            }
            Notice::Joined | Notice::Other => {}
        }
    }
}
