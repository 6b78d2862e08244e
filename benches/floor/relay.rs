//! The relay: connections by descriptor, rooms as lists of them, and the one loop over epoll.
//!
//! It must never allocate, look anything up by name, or copy a frame per member as long as the
//! kernel takes what it is given: that is what makes it the floor.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use websocket_codec::handshake::accept_key;

use crate::frame::{self, Front};

const EVENTS_PER_TURN: usize = 1024;
const READ_BYTES: usize = 256 * 1024;
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// A member that leaves more than this unread is dropped, so that memory has an end.
const PENDING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// When a message is sent.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Mode {
    /// At once, alone.
    Each,
    /// At the end of the turn, with all others that came for its room.
    Batch,
}

struct Connection {
    stream: TcpStream,
    /// The room and the place in it, once the handshake is done.
    seat: Option<(usize, usize)>,
    /// The beginning of what isn't whole yet.
    partial: Vec<u8>,
    /// What the kernel did not take.
    pending: Vec<u8>,
}

#[derive(Default)]
struct Room {
    members: Vec<usize>,
    /// Frames of this turn, in `Mode::Batch`.
    turn: Vec<u8>,
}

/// Everything the process knows.
pub(crate) struct Relay {
    mode: Mode,
    epoll: OwnedFd,
    listener: TcpListener,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    rooms: Vec<Room>,
    names: HashMap<Vec<u8>, usize>,
    /// Rooms with something in `turn`.
    busy: Vec<usize>,
    /// One frame on its way out, in `Mode::Each`.
    frame: Vec<u8>,
}

impl Relay {
    pub(crate) fn new(listener: TcpListener, mode: Mode) -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("an epoll");
        listener.set_nonblocking(true).expect("a listener can wait");
        epoll::add(&epoll, &listener, key(listener.as_raw_fd() as usize), EventFlags::IN)
            .expect("a new descriptor");
        Self {
            mode,
            epoll,
            listener,
            connections: Vec::new(),
            rooms: Vec::new(),
            names: HashMap::new(),
            busy: Vec::new(),
            frame: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) {
        let door = self.listener.as_raw_fd() as usize;
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_PER_TURN);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("epoll: {error}"),
            }
            for event in &events {
                let (at, flags) = (event.data.u64() as usize, event.flags);
                if at == door {
                    self.accept();
                    continue;
                }
                if flags.contains(EventFlags::OUT) {
                    self.drain(at);
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.read(at, &mut buffer);
                }
            }
            self.end_turn();
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).expect("a socket can wait");
            stream.set_nodelay(true).expect("a TCP socket");
            let at = stream.as_raw_fd() as usize;
            epoll::add(&self.epoll, &stream, key(at), EventFlags::IN).expect("a new descriptor");
            if self.connections.len() <= at {
                self.connections.resize_with(at + 1, || None);
            }
            let connection =
                Connection { stream, seat: None, partial: Vec::new(), pending: Vec::new() };
            self.connections[at] = Some(connection);
        }
    }

    fn read(&mut self, at: usize, buffer: &mut [u8]) {
        let Some(connection) = &mut self.connections[at] else { return };
        let kept = connection.partial.len();
        buffer[..kept].copy_from_slice(&connection.partial);
        let came = match connection.stream.read(&mut buffer[kept..]) {
            Ok(came @ 1..) => came,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => return self.leave(at),
        };
        let bytes = &mut buffer[..kept + came];
        let Some(used) = self.consume(at, bytes) else { return self.leave(at) };
        let Some(connection) = &mut self.connections[at] else { return };
        // The usual case is a whole frame: nothing was kept and nothing is left.
        if kept > 0 || used < bytes.len() {
            connection.partial.clear();
            connection.partial.extend_from_slice(&bytes[used..]);
            connection.partial.shrink_to_fit();
        }
    }

    /// How many of the bytes are dealt with; nothing when the connection has to end.
    fn consume(&mut self, at: usize, bytes: &mut [u8]) -> Option<usize> {
        let (room, mut used) = match self.connections[at].as_ref()?.seat {
            Some((room, _)) => (room, 0),
            None => match find(bytes, b"\r\n\r\n") {
                Some(end) => (self.admit(at, &bytes[..end])?, end + 4),
                None => return (bytes.len() <= HEAD_BYTES_MAX).then_some(0),
            },
        };
        loop {
            let rest = &mut bytes[used..];
            match frame::front(rest) {
                Front::Partial => return Some(used),
                Front::Wrong => return None,
                Front::Whole(inbound) => {
                    let payload = &rest[inbound.start..inbound.end];
                    match inbound.opcode {
                        frame::TEXT => self.publish(room, payload),
                        frame::CLOSE => return None,
                        frame::PING => {
                            let mut pong = Vec::new();
                            frame::append(&mut pong, frame::PONG, payload);
                            send(&self.epoll, &mut self.connections, at, &pong);
                        }
                        _ => {}
                    }
                    used += inbound.end;
                }
            }
        }
    }

    /// Answers the upgrade and takes a seat in the room of the query.
    fn admit(&mut self, at: usize, head: &[u8]) -> Option<usize> {
        let head = std::str::from_utf8(head).ok()?;
        let mut lines = head.split("\r\n");
        let (_, query) = lines.next()?.split(' ').nth(1)?.split_once('?')?;
        let name = query.split('&').find_map(|pair| pair.strip_prefix("room="))?;
        let named = |line: &&str| {
            line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case("sec-websocket-key"))
        };
        let (_, key) = lines.find(named)?.split_once(':')?;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_key(key.trim())
        );
        let next = self.rooms.len();
        let room = *self.names.entry(name.as_bytes().to_vec()).or_insert(next);
        if room == next {
            self.rooms.push(Room::default());
        }
        let members = &mut self.rooms[room].members;
        self.connections[at].as_mut()?.seat = Some((room, members.len()));
        members.push(at);
        send(&self.epoll, &mut self.connections, at, answer.as_bytes());
        Some(room)
    }

    fn publish(&mut self, room: usize, payload: &[u8]) {
        if self.mode == Mode::Batch {
            let turn = &mut self.rooms[room].turn;
            if turn.is_empty() {
                self.busy.push(room);
            }
            frame::append(turn, frame::TEXT, payload);
            return;
        }
        self.frame.clear();
        frame::append(&mut self.frame, frame::TEXT, payload);
        for &member in &self.rooms[room].members {
            send(&self.epoll, &mut self.connections, member, &self.frame);
        }
    }

    fn end_turn(&mut self) {
        for room in self.busy.drain(..) {
            let room = &mut self.rooms[room];
            for &member in &room.members {
                send(&self.epoll, &mut self.connections, member, &room.turn);
            }
            room.turn.clear();
        }
    }

    /// Sends what was kept back, as far as the kernel takes it now.
    fn drain(&mut self, at: usize) {
        let Some(connection) = &mut self.connections[at] else { return };
        if let Ok(taken) = connection.stream.write(&connection.pending) {
            connection.pending.drain(..taken);
        }
        if connection.pending.is_empty() {
            connection.pending = Vec::new();
            let modified = epoll::modify(&self.epoll, &connection.stream, key(at), EventFlags::IN);
            modified.expect("a descriptor of this epoll");
        }
    }

    fn leave(&mut self, at: usize) {
        let Some(connection) = self.connections[at].take() else { return };
        let Some((room, place)) = connection.seat else { return };
        let members = &mut self.rooms[room].members;
        members.swap_remove(place);
        if let Some(&moved) = members.get(place)
            && let Some(moved) = &mut self.connections[moved]
        {
            moved.seat = Some((room, place));
        }
    }
}

/// One `send`, unless something waits already; what the kernel doesn't take waits.
#[inline]
fn send(epoll: &OwnedFd, connections: &mut [Option<Connection>], at: usize, bytes: &[u8]) {
    let Some(connection) = &mut connections[at] else { return };
    if !connection.pending.is_empty() {
        return hold(connection, bytes);
    }
    let taken = match connection.stream.write(bytes) {
        Ok(taken) if taken == bytes.len() => return,
        Ok(taken) => taken,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        // The end of this connection is an event of the next turn.
        Err(_) => return,
    };
    let flags = EventFlags::IN | EventFlags::OUT;
    epoll::modify(epoll, &connection.stream, key(at), flags).expect("a descriptor of this epoll");
    hold(connection, &bytes[taken..]);
}

#[cold]
fn hold(connection: &mut Connection, bytes: &[u8]) {
    connection.pending.extend_from_slice(bytes);
    if connection.pending.len() > PENDING_BYTES_MAX {
        // Ignored: a socket that is gone already needs no shutdown.
        let _ = connection.stream.shutdown(Shutdown::Both);
    }
}

const fn key(descriptor: usize) -> EventData {
    EventData::new_u64(descriptor as u64)
}

fn find(bytes: &[u8], words: &[u8]) -> Option<usize> {
    bytes.windows(words.len()).position(|window| window == words)
}
