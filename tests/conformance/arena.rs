//! A server, and two clients in a room of their own that exchange messages while a test does its
//! worst: the canary.
//!
//! Servers are shared between the tests that run at one time with the same arguments, and end with
//! the last of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;

/// Where the protocol is spoken.
pub(crate) const CONNECT: &str = "/ws/v2/connect";
/// How often the canary says something.
const PACE: Duration = Duration::from_millis(5);
/// The longest that one message of the canary may take on a machine that is busy with other tests.
const LATENCY_MAX: Duration = Duration::from_secs(2);

type Servers = BTreeMap<Vec<String>, Weak<Server>>;

/// A server with a canary on it.
pub(crate) struct Arena {
    server: Arc<Server>,
    canary: Option<Canary>,
}

impl Arena {
    /// One that other tests use at the same time.
    pub(crate) fn shared(arguments: &[&str]) -> Self {
        static SERVERS: Mutex<Servers> = Mutex::new(Servers::new());
        let key = arguments.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let server = {
            // A test that failed while it started a server left nothing half done here.
            let mut servers = SERVERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            servers.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
                let server = Arc::new(Server::start(arguments));
                servers.insert(key, Arc::downgrade(&server));
                server
            })
        };
        let canary = Canary::start(&server, PACE, CONNECT);
        Self { server, canary: Some(canary) }
    }

    /// One that nobody else uses.
    pub(crate) fn own(arguments: &[&str]) -> Self {
        Self::own_with(arguments, PACE, CONNECT)
    }

    /// One that nobody else uses, with a canary that says something every `pace` and connects
    /// under `path`, which may carry a token.
    pub(crate) fn own_with(arguments: &[&str], pace: Duration, path: &str) -> Self {
        let server = Arc::new(Server::start(arguments));
        let canary = Canary::start(&server, pace, path);
        Self { server, canary: Some(canary) }
    }

    /// The server.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// A connection that hasn't said anything yet.
    pub(crate) fn connect(&self) -> RawSocket {
        RawSocket::connect(self.server.addr())
    }

    /// An upgraded connection.
    pub(crate) fn open(&self, path: &str) -> RawSocket {
        RawSocket::open(self.server.addr(), path)
    }

    /// A connection that the server has greeted.
    pub(crate) fn greeted(&self) -> RawSocket {
        let mut socket = self.open(CONNECT);
        socket.expect_json("hello");
        socket
    }

    /// A member of `room`.
    pub(crate) fn member(&self, room: &str) -> RawSocket {
        let mut socket = self.greeted();
        subscribe(&mut socket, room);
        socket
    }

    /// Waits until this is so.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut so: impl FnMut(&Server) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !so(&self.server) {
            assert!(Instant::now() < end, "not within ten seconds: {what}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// The end of a test: nothing else has suffered. Gives how long the canary's messages took,
    /// the shortest first.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Vec<Duration> {
        let mut took = self.canary.take().expect("it is asked once").finish();
        took.sort_unstable();
        assert!(!took.is_empty(), "the canary said nothing");
        let slowest = took[took.len() - 1];
        assert!(slowest < LATENCY_MAX, "a message of the canary took {slowest:?}");
        took
    }
}

/// A room that no other test uses.
pub(crate) fn new_room() -> String {
    static ROOMS: AtomicU64 = AtomicU64::new(0);
    format!("public:room-{}", ROOMS.fetch_add(1, Ordering::Relaxed))
}

/// Joins a room.
pub(crate) fn subscribe(socket: &mut RawSocket, room: &str) -> Value {
    socket.send_json(&json!({"type": "subscribe", "id": 1, "room": room}));
    socket.expect_json("subscribed")
}

/// Asks for a sign of life, in answer to which nothing but this may come.
#[track_caller]
pub(crate) fn assert_works(socket: &mut RawSocket) {
    socket.send_json(&json!({"type": "ping", "id": 4242}));
    let answer = socket.next_json();
    assert!(answer["type"] == "pong" && answer["id"] == 4242, "instead of a pong: {answer}");
}

/// The server closes with this code, and then the connection ends.
#[track_caller]
pub(crate) fn assert_closes(socket: &mut RawSocket, code: u16, why: &str) {
    loop {
        let Some(frame) = socket.try_read_frame() else {
            panic!("{why}: ended without a close frame");
        };
        if frame.opcode == tests::frame::CLOSE {
            let given =
                frame.payload.first_chunk().map_or(1005, |bytes| u16::from_be_bytes(*bytes));
            assert_eq!(given, code, "{why}");
            break;
        }
    }
    socket.finish();
    assert!(socket.try_read_frame().is_none(), "{why}: a frame came behind the close");
}

/// Two clients that talk.
struct Canary {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Canary {
    fn start(server: &Server, pace: Duration, path: &str) -> Self {
        let (stop, stopped) = channel();
        let room = new_room();
        let open = || {
            let mut socket = RawSocket::open(server.addr(), path);
            socket.expect_json("hello");
            subscribe(&mut socket, &room);
            socket
        };
        let (mut speaker, mut listener) = (open(), open());
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            for n in 0u64.. {
                let begun = Instant::now();
                let publish =
                    json!({"type": "publish", "id": n, "room": room, "echo": false, "data": n});
                speaker.send_json(&publish);
                assert_eq!(next(&mut speaker, "ack")["id"], n);
                assert_eq!(next(&mut listener, "message")["data"], n);
                took.push(begun.elapsed());
                match stopped.recv_timeout(pace) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            took
        });
        Self { stop, thread }
    }

    fn finish(self) -> Vec<Duration> {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|_| panic!("the canary died"))
    }
}

/// The next frame of this kind; the server's pings are answered.
fn next(socket: &mut RawSocket, kind: &str) -> Value {
    loop {
        let value = socket.next_json();
        if value["type"] == kind {
            return value;
        }
        assert!(value["type"] != "error", "the canary was refused: {value}");
        if value["type"] == "ping" {
            socket.send_json(&json!({"type": "pong"}));
        }
    }
}
