//! RFC 6455 against the Rust client: a server that sends what stands in the table of `cases`, well-formed and not,
//! one case a connection.
//!
//! A message has to be told byte for byte, a ping answered, a close answered, and whatever breaks the framing ends
//! the connection with its code. Afterwards the client comes back by itself, but where the server closed with a code that
//! says to stop: then it is closed, and a new one of the same process connects. It must never be enough that nothing happens.

use std::time::Duration;

use client_tungstenite::{BackoffOptions, Client, Event, Events, Options, RandomSource, Violation};
use domain::codes::should_reconnect;
use tests::frame::{BINARY, CLOSE, Frame, PONG, Received, TEXT, take_masked};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use websocket_codec::handshake::accept_key;

use crate::cases::{self, Back, Case, KIB, MIB, RIGHT, chopped, echoed, fragments};

/// What must happen happens within this.
const SOON: Duration = Duration::from_secs(20);
const HELLO: &str = concat!(
    r#"{"type":"hello","id":null,"accepted_version":2,"features":[],"request_id":"r","#,
    r#""client_id":"c","connection_id":"0000000000000001","user_id":null,"rooms":[],"session":null,"#,
    r#""resumed":[],"heartbeat_interval_ms":3600000,"timestamp":"t"}"#
);
/// Says that the client should come back.
const RESTART: u16 = 1012;

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// A frame of a server.
fn bare(frame: Frame) -> Vec<u8> {
    Frame { mask: None, ..frame }.bytes()
}

/// What a server sends of a case. A frame that claims more than it has is finished: tungstenite looks at a
/// payload when its frame is whole.
fn sent(case: &Case) -> Vec<u8> {
    let whole = case.frames.iter().flat_map(|frame| {
        let mut frame = frame.clone();
        if let Some(claimed) = frame.claimed.take() {
            frame.payload.resize(usize::try_from(claimed).unwrap(), b'x');
        }
        bare(frame)
    });
    whole.collect()
}

/// The server's end of one connection.
struct Wire {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// Takes a connection, upgrades it and greets.
    async fn accept(listener: &TcpListener) -> Self {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-key").then_some(value)
        });
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_key(key.unwrap())
        );
        socket.write_all(answer.as_bytes()).await.unwrap();
        socket.write_all(&bare(Frame::text(HELLO))).await.unwrap();
        Self { socket, buffer: Vec::new() }
    }

    /// Sends a case. A client that has seen enough may be gone before the end.
    async fn send(&mut self, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            if self.socket.write_all(piece).await.is_err() {
                return;
            }
        }
    }

    /// The next frame of the client; none behind its last.
    async fn read(&mut self) -> Option<Received> {
        loop {
            if let Some(frame) = take_masked(&mut self.buffer) {
                return Some(frame);
            }
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }
}

/// The client, the server, and what lies between.
struct Arena {
    listener: TcpListener,
    url: String,
    live: Option<(Client, Events, Wire)>,
}

impl Arena {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        Self { listener, url, live: None }
    }

    /// A client that has been greeted: the one that came back, or a new one.
    async fn greeted(&mut self, name: &str) -> (Client, Events, Wire) {
        if let Some(live) = self.live.take() {
            return live;
        }
        let options = Options {
            message_bytes_max: 16 * MIB,
            // Nothing to wait for: it comes back at once.
            random: RandomSource::new(|| 0),
            // Each connection counts as one that has stood: what breaks the protocol once does not end the client.
            backoff: BackoffOptions { stable_after: Duration::ZERO, ..BackoffOptions::default() },
            ..Options::new(self.url.clone())
        };
        let both = async { tokio::join!(Client::connect(options), Wire::accept(&self.listener)) };
        let (connected, wire) = soon(name, both).await;
        let (client, mut events) = connected.unwrap();
        assert!(matches!(next(&mut events, name).await, Event::Connected(_)), "{name}");
        (client, events, wire)
    }

    async fn run(&mut self, case: &Case) {
        let name = case.name.as_str();
        let (client, mut events, mut wire) = self.greeted(name).await;
        let (frames, code) = match &case.back {
            Back::Frames(frames) => (frames, None),
            Back::Close(frames, code) => (frames, Some(*code)),
        };
        let told = async {
            for (opcode, payload) in frames.iter().filter(|(opcode, _)| *opcode != PONG) {
                assert_told(&mut events, *opcode, payload, name).await;
            }
        };
        let answered = async {
            wire.send(&sent(case), case.piece).await;
            for (_, payload) in frames.iter().filter(|(opcode, _)| *opcode == PONG) {
                let pong = wire.read().await.unwrap_or_else(|| panic!("{name}: no pong"));
                assert_eq!((pong.opcode, &pong.payload), (PONG, payload), "{name}");
            }
        };
        soon(name, async { tokio::join!(told, answered) }).await;
        let code = match code {
            Some(code) => code,
            None => {
                wire.send(&bare(Frame::close(RESTART, "")), usize::MAX).await;
                RESTART
            }
        };
        self.ends(client, events, wire, code, case).await;
    }

    /// The connection ends with this code, and the client goes on as the code says.
    async fn ends(
        &mut self,
        client: Client,
        mut events: Events,
        mut wire: Wire,
        code: u16,
        case: &Case,
    ) {
        let name = case.name.as_str();
        // RFC 6455 section 5.5.1: a close without a code is answered without one, which is told as 1005.
        let is_silent = case
            .frames
            .iter()
            .any(|frame| frame.opcode == CLOSE && frame.payload.is_empty() && frame.rsv == 0);
        let (said, code) =
            if is_silent { (Vec::new(), 1005) } else { (code.to_be_bytes().to_vec(), code) };
        let close = soon(name, wire.read()).await.unwrap_or_else(|| panic!("{name}: no close"));
        assert_eq!(close.opcode, CLOSE, "{name}");
        assert_eq!(close.payload.get(..2).unwrap_or_default(), said, "{name}");
        let last = soon(name, wire.read()).await;
        assert_eq!(last, None, "{name}: a frame behind the close");
        drop(wire);
        let Event::Disconnected { code: told, will_reconnect, .. } = next(&mut events, name).await
        else {
            panic!("{name}: not told that it is over")
        };
        // What the client itself gave up it comes back from.
        let comes_back = should_reconnect(code) || !says_close(case);
        assert_eq!((told, will_reconnect), (code, comes_back), "{name}");
        if will_reconnect {
            let wire = soon(name, Wire::accept(&self.listener)).await;
            assert!(matches!(next(&mut events, name).await, Event::Connected(_)), "{name}");
            self.live = Some((client, events, wire));
        } else {
            let end = next(&mut events, name).await;
            assert!(matches!(end, Event::Closed { code: told, .. } if told == code), "{name}");
        }
    }
}

/// Whether a case ends by a close of the server's that is one, so that its code counts.
fn says_close(case: &Case) -> bool {
    case.frames.iter().any(|frame| {
        let reason = frame.payload.get(2..).unwrap_or_default();
        let is_whole = frame.payload.len() != 1 && frame.payload.len() <= 125;
        frame.opcode == CLOSE && frame.rsv == 0 && is_whole && std::str::from_utf8(reason).is_ok()
    })
}

async fn next(events: &mut Events, name: &str) -> Event {
    soon(name, events.next()).await.unwrap_or_else(|| panic!("{name}: the client has ended"))
}

/// A message is told: a frame of the protocol byte for byte, and what is none as what it is.
async fn assert_told(events: &mut Events, opcode: u8, payload: &[u8], name: &str) {
    if opcode == TEXT && payload.is_empty() {
        // No frame at all.
        return;
    }
    match next(events, name).await {
        Event::Other { body, .. } => {
            assert_eq!(opcode, TEXT, "{name}");
            assert!(body.as_bytes() == payload, "{name}: other bytes");
        }
        Event::Violation(Violation::Malformed { .. }) => {
            assert!(opcode == TEXT && !payload.starts_with(b"{"), "{name}");
        }
        Event::Violation(Violation::Binary { bytes }) => {
            assert_eq!((opcode, payload.len()), (BINARY, bytes), "{name}");
        }
        other => panic!("{name}: {other:?}"),
    }
}

/// Frames of the protocol, so that it is seen that each byte arrives.
fn frames_of_the_protocol() -> Vec<Case> {
    let frame = |fill: &str| format!(r#"{{"type":"fill","fill":"{fill}"}}"#);
    let around = frame("").len();
    let mut all = Vec::new();
    for size in [125, 126, 127, 128, 65_535, 65_536, MIB, 16 * MIB] {
        let payload = frame(&"*".repeat(size - around)).into_bytes();
        let whole = || echoed(format!("a frame of {size} bytes"), TEXT, &payload);
        all.push(whole());
        if size <= MIB {
            all.push(chopped(997, whole()));
        }
        for part in
            [64, KIB, 64 * KIB].into_iter().filter(|part| *part < size && size / part < 20_000)
        {
            let case =
                echoed(format!("a frame of {size} bytes in fragments of {part}"), TEXT, &payload);
            all.push(Case { frames: fragments(TEXT, &payload, part), ..case });
        }
    }
    for right in RIGHT.iter().filter(|right| !right.contains(char::is_control)) {
        let payload = frame(right).into_bytes();
        let whole = || echoed(format!("a frame with {right}"), TEXT, &payload);
        all.push(whole());
        all.push(chopped(1, whole()));
        let bytewise = fragments(TEXT, &payload, 1);
        all.push(Case {
            frames: bytewise,
            name: format!("a frame with {right} bytewise"),
            ..whole()
        });
    }
    all
}

#[track_caller]
fn run(cases: Vec<Case>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut arena = Arena::new().await;
        for case in cases {
            arena.run(&case).await;
        }
        // Still of use.
        let (client, _events, mut wire) = arena.greeted("the end").await;
        let closing = async {
            let close = wire.read().await;
            drop(wire);
            close
        };
        let both = async { tokio::join!(client.close(), closing) };
        let ((), close) = soon("the end", both).await;
        assert_eq!(close.map(|frame| frame.opcode), Some(CLOSE));
    });
}

/// K14: group 1, and what is told byte for byte.
#[test]
fn messages_of_every_framing_size_are_told() {
    run(cases::framing());
    run(frames_of_the_protocol());
}

/// K14: group 2.
#[test]
fn pings_of_a_server_are_answered_and_pongs_are_not() {
    run(cases::pings());
}

/// K14: groups 3 and 4.
#[test]
fn reserved_bits_and_opcodes_of_a_server_end_the_connection() {
    run(cases::reserved());
}

/// K14: group 5.
#[test]
fn fragments_of_a_server_make_one_message() {
    run(cases::fragmentation());
}

/// K14: group 6.
#[test]
fn text_of_a_server_is_utf_8_or_ends_the_connection() {
    run(cases::right_utf_8());
    run(cases::wrong_utf_8());
}

/// K14: group 7.
#[test]
fn closes_of_a_server_are_answered_with_what_may_be_answered() {
    run(cases::closing());
}

/// K14: groups 9 and 10.
#[test]
fn large_messages_of_a_server_are_told_whole_and_larger_ones_are_refused() {
    run(cases::sizes());
    run(cases::cut_sizes());
}
