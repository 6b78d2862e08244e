//! Five thousand at once that connect and do nothing: each costs the server a bounded amount until
//! its deadline, and nothing afterwards.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tests::frame::CLOSE;
use tests::hosts::{Part, has};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token::SECRET;

use crate::arena::CONNECT;

const MANY: usize = 5_000;
/// Long enough for all of them to be there at the same time.
const TIMEOUT: Duration = Duration::from_secs(12);
/// How far from its deadline the end of a connection may be seen.
const NEAR: Duration = Duration::from_millis(500);
const SETTLED: Duration = Duration::from_secs(10);

/// Both ends count: the server raises its own limit.
fn raise_descriptor_limit() {
    let before = getrlimit(Resource::Nofile);
    let enough = MANY as u64 + 500;
    assert!(before.maximum.is_none_or(|most| most >= enough), "the hard limit is {before:?}");
    if before.current.is_some_and(|soft| soft < enough) {
        let wanted = Rlimit { current: Some(enough), maximum: before.maximum };
        setrlimit(Resource::Nofile, wanted).expect("the soft limit may be raised");
    }
}

/// Opens all of them, in order, while another thread waits for the end of each, in order. Answers
/// how long each was open, and how much memory the server had taken when all were there.
fn open_and_wait(
    server: &Server,
    open: impl Fn() -> RawSocket,
    end: impl Fn(&mut RawSocket) + Send,
) -> (Vec<Duration>, u64) {
    // Once it has answered, it has opened what it needs for itself.
    let mut probe = RawSocket::connect(server.addr());
    probe.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    probe.read_until_closed();
    let (baseline, before) = (server.open_fds(), server.rss_bytes());
    let (opened, waiting) = channel::<(Instant, RawSocket)>();
    let (took, peak) = std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            let ended = waiting.into_iter().map(|(begun, mut socket)| {
                end(&mut socket);
                begun.elapsed()
            });
            ended.collect::<Vec<_>>()
        });
        for _ in 0..MANY {
            let socket = open();
            opened.send((Instant::now(), socket)).expect("somebody waits");
        }
        // The last of them may still wait to be accepted.
        let all_there = Instant::now() + TIMEOUT / 4;
        while server.open_fds() < MANY && Instant::now() < all_there {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let there = server.open_fds();
        assert!(there >= MANY, "only {there} descriptors are open at once");
        let peak = server.rss_bytes();
        drop(opened);
        (waiter.join().expect("each ended as it should"), peak)
    });
    let until = Instant::now() + SETTLED;
    while server.open_fds() > baseline {
        assert!(Instant::now() < until, "{} descriptors stay", server.open_fds() - baseline);
        std::thread::park_timeout(Duration::from_millis(5));
    }
    (took, peak.saturating_sub(before))
}

/// All at their deadline; on a machine that is busy with other tests one in a hundred may be late.
#[track_caller]
fn assert_on_time(mut took: Vec<Duration>, grown: u64, bytes_each: u64) {
    took.sort_unstable();
    let (first, p99, last) = (took[0], took[MANY * 99 / 100], took[MANY - 1]);
    let each = grown / MANY as u64;
    eprintln!("{MANY}: first {first:?}, p99 {p99:?}, last {last:?}, {each} bytes each");
    assert!(first > TIMEOUT - NEAR, "closed after {first:?} already");
    assert!(p99 < TIMEOUT + NEAR, "one in a hundred is closed after {p99:?} only");
    assert!(last < TIMEOUT + 4 * NEAR, "the last is closed after {last:?} only");
    assert!(each < bytes_each, "{each} bytes for each");
}

/// P11.
#[test]
fn five_thousand_that_say_nothing_are_gone_at_their_deadline() {
    raise_descriptor_limit();
    let timeout = format!("server.handshake_timeout_ms={}", TIMEOUT.as_millis());
    let server = Server::start(&["--set", &timeout]);
    let open = || RawSocket::connect(server.addr());
    let (took, grown) = open_and_wait(&server, open, |socket| {
        assert!(socket.ends_within(TIMEOUT + SETTLED), "it is still open");
    });
    // HTTP has a buffer for each head that it waits for.
    assert_on_time(took, grown, 24 << 10);
}

/// A09.
#[test]
fn five_thousand_that_never_say_who_they_are_are_closed_at_their_deadline() {
    raise_descriptor_limit();
    let timeout = format!("auth.authentication_timeout_ms={}", TIMEOUT.as_millis());
    let secret = format!("auth.hmac_secret={SECRET}");
    let server = Server::start(&[
        "--set",
        "auth.allow_anonymous=false",
        "--set",
        &secret,
        "--set",
        &timeout,
    ]);
    let open = || RawSocket::open(server.addr(), CONNECT).with_deadline(TIMEOUT + SETTLED);
    let (took, grown) = open_and_wait(&server, open, |socket| {
        assert_eq!(socket.expect_json("disconnect")["code"], json!(3504));
        let frame = socket.read_received();
        let code = frame.payload.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
        assert_eq!((frame.opcode, code), (CLOSE, Some(3504)));
    });
    // 4 KiB may be buffered; a client that says nothing has no buffer, where the host can do without.
    let bytes_each = if has(Part::BufferlessIdling) { 4 << 10 } else { 10 << 10 };
    assert_on_time(took, grown, bytes_each);
}
