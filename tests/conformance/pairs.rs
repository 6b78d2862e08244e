//! What an attack costs two clients that talk to each other: the same conversation in rounds with
//! and without it, in turns.
//!
//! The attackers share the machine with the server, so the bounds are wide; what was measured
//! stands in `docs/reliability.md`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::frame::{CLOSE, Frame, PING};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::arena::{CONNECT, new_room, subscribe};

const ROUNDS: usize = 12;
const ROUND: Duration = Duration::from_millis(350);
/// Between two messages of a conversation.
const PACE: Duration = Duration::from_millis(1);
/// With the attack the slowest percent may take so many times as long, and so much more: far more
/// than was ever measured, and far less than a client that waits for another one.
const RATIO_MAX: u32 = 5;
const SLACK: Duration = Duration::from_millis(60);

/// Two members of a room.
struct Talk {
    speaker: RawSocket,
    listener: RawSocket,
    room: String,
    n: u64,
}

fn member(server: &Server, room: &str) -> RawSocket {
    let mut socket = RawSocket::open(server.addr(), CONNECT);
    socket.expect_json("hello");
    subscribe(&mut socket, room);
    socket
}

impl Talk {
    fn new(server: &Server, room: &str) -> Self {
        let (speaker, listener) = (member(server, room), member(server, room));
        Self { speaker, listener, room: room.to_owned(), n: 0 }
    }

    /// One message of so many bytes, to its acknowledgement and to its other member.
    fn say(&mut self, bytes: usize) -> Duration {
        self.n += 1;
        let data = json!({"n": self.n, "fill": "x".repeat(bytes)});
        let (id, room) = (self.n, &self.room);
        let publish =
            json!({"type": "publish", "id": id, "room": room, "echo": false, "data": data});
        let begun = Instant::now();
        self.speaker.send_json(&publish);
        while self.speaker.next_json()["id"] != self.n {}
        loop {
            let heard = self.listener.next_json();
            if heard["type"] == "message" {
                assert_eq!(heard["data"]["n"], self.n, "in order, none missing");
                return begun.elapsed();
            }
        }
    }

    fn round(&mut self, bytes: usize) -> Vec<Duration> {
        let end = Instant::now() + ROUND;
        let mut took = Vec::new();
        while Instant::now() < end {
            took.push(self.say(bytes));
            std::thread::park_timeout(PACE);
        }
        took
    }
}

/// Whether a member that read nothing was closed for that, or got all up to message `n` instead.
fn was_closed(socket: &mut RawSocket, n: u64) -> bool {
    // Whatever stands behind it.
    let last = [format!("\"n\":{n}}}"), format!("\"n\":{n},")];
    loop {
        let frame = socket.read_received();
        if frame.opcode == CLOSE {
            let code = frame.payload.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            assert_eq!(code, Some(3001), "closed for something else");
            return true;
        }
        let text = String::from_utf8_lossy(&frame.payload);
        if last.iter().any(|last| text.contains(last)) {
            return false;
        }
    }
}

fn p99(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[track_caller]
fn assert_close(what: &str, mut quiet: Vec<Duration>, mut attacked: Vec<Duration>) {
    let (messages, fewer) = (quiet.len(), attacked.len());
    let (without, with) = (p99(&mut quiet), p99(&mut attacked));
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    eprintln!(
        "{what}: p99 {without:?} without ({messages} messages), {with:?} with ({fewer}), {ratio:.2}"
    );
    assert!(with < without * RATIO_MAX + SLACK, "{what}: {with:?}, and {without:?} without");
}

/// P26.
#[test]
fn a_flood_of_pings_does_not_slow_another_room() {
    let server = Server::start(&[]);
    let mut talk = Talk::new(&server, &new_room());
    // 100,000 a second: ten connections a second, each sends 10,000 at once until it is closed.
    let pings = Frame::new(PING, b"flood").bytes().repeat(10_000);
    let (floods, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    let n_closed = std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut n_closed = 0;
            while !done.load(Ordering::Relaxed) {
                if floods.load(Ordering::Relaxed) {
                    let mut socket = RawSocket::open(server.addr(), CONNECT);
                    socket.try_send(&pings);
                    n_closed += usize::from(socket.read_close_code() == 3005);
                }
                std::thread::park_timeout(Duration::from_millis(100));
            }
            n_closed
        });
        for _ in 0..ROUNDS {
            quiet.extend(talk.round(10));
            floods.store(true, Ordering::Relaxed);
            attacked.extend(talk.round(10));
            floods.store(false, Ordering::Relaxed);
        }
        done.store(true, Ordering::Relaxed);
        attacker.join().expect("the attacker is closed in order")
    });
    assert!(n_closed >= ROUNDS, "only {n_closed} floods");
    assert_close("a flood of pings", quiet, attacked);
}

/// S01.
#[test]
fn a_member_that_stops_reading_does_not_slow_its_room() {
    // More than the kernel and the server together keep for who reads nothing.
    const BYTES: usize = 64 << 10;
    const MESSAGES: usize = 100;
    const PAIRS: usize = 6;
    let server = Server::start(&["--set", "limits.outbound_queue_bytes_max=262144"]);
    let room = new_room();
    let mut talk = Talk::new(&server, &room);
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        quiet.extend((0..MESSAGES).map(|_| talk.say(BYTES)));
        // It is full, then closed, in the middle of the round.
        let mut stalled = [member(&server, &room), member(&server, &room)];
        attacked.extend((0..MESSAGES).map(|_| talk.say(BYTES)));
        for socket in &mut stalled {
            assert!(was_closed(socket, talk.n), "who read nothing is still there");
        }
    }
    assert_close("two members that read nothing", quiet, attacked);
}
