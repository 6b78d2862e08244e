//! A server whose system lies to it: the wall clock is set while it runs, accepts fail, there is no
//! randomness.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tests::false_system::FalseSystem;
use tests::frame;
use tests::hosts::{Part, has};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token::{self, SECRET};

use crate::client::{Client, PATH, secret, until, values_of};
use crate::http::get;

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;
/// The last second of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

fn start(system: &FalseSystem, settings: &[&str]) -> Server {
    let environment = system.environment();
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    Server::start_with(settings, &environment)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs().try_into().unwrap()
}

/// The seconds since 1970 that a timestamp says.
fn seconds_of(timestamp: &Value) -> i64 {
    let text = timestamp.as_str().unwrap();
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days of a year that begins with March, so that a leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    (days - 719_468) * 24 * HOUR + number(11..13) * HOUR + number(14..16) * 60 + number(17..19)
}

/// Whether somebody with this token is let in, or the code that it is closed with.
fn comes_in(server: &Server, token: &str) -> Result<(), u16> {
    let mut socket = RawSocket::open(server.addr(), &format!("{PATH}?token={token}"));
    loop {
        let (opcode, payload) = socket.read_frame();
        if opcode == frame::CLOSE {
            return Err(u16::from_be_bytes([payload[0], payload[1]]));
        }
        if values_of(&payload).iter().any(|value| value["type"] == "hello") {
            return Ok(());
        }
    }
}

/// Talks for longer than two heartbeats; whoever is closed meanwhile fails the test.
fn talk(ann: &mut Client, bob: &mut Client, mut carl: Option<&mut Client>) -> Value {
    let begun = Instant::now();
    loop {
        ann.publish("public:clock", 1);
        let message = bob.next();
        if let Some(carl) = &mut carl {
            assert_eq!(carl.call(json!({"type": "ping"}))["type"], "pong");
        }
        if begun.elapsed() > Duration::from_millis(700) {
            return message;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// T01: all but the memory of a publish's `msg_id` and the age of what a log keeps, which go by the
/// wall clock, and newcomers beyond the year 9999 and before 1970.
#[test]
fn a_clock_that_is_set_while_it_runs_changes_timestamps_and_tokens_and_disconnects_nobody() {
    let Some(system) = FalseSystem::build() else { return };
    let server = start(&system, &["--set", "heartbeat.interval_ms=300", "--set", &secret()]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    bob.subscribe("public:clock");
    let claims = token::with_claim(token::claims("carl", "chat:*"), "exp", json!(now() + 2 * HOUR));
    let token = token::hs256(SECRET, &token::with_claim(claims, "nbf", json!(now() - 10)));
    let mut carl = Client::open_at(server.addr(), &format!("{PATH}?token={token}"));
    let mut is_in = true;
    let to = |second: i64| second - now();
    for (off, comes) in [
        (HOUR, Some(Ok(()))),
        (-HOUR, Some(Err(3500))),
        // A leap second is told twice.
        (-1, Some(Ok(()))),
        (0, Some(Ok(()))),
        // Whose token has ended is gone; this costs carl its place.
        (10 * YEAR, Some(Err(3500))),
        (-10 * YEAR, Some(Err(3500))),
        // Over the second at which 32 bits are full, and the last hour that has four digits.
        (to(i64::from(i32::MAX)), Some(Err(3500))),
        (to(LAST_SECOND) - HOUR, Some(Err(3500))),
        // HTTP can't write these dates, and hyper panics over each new connection: who is there stays.
        (to(LAST_SECOND) + HOUR, None),
        (to(-HOUR), None),
        (0, Some(Ok(()))),
    ] {
        system.set_clock_off(off);
        let is_there = is_in && off != 10 * YEAR;
        let message = talk(&mut ann, &mut bob, is_there.then_some(&mut carl));
        // Beyond what can be written the end of it is shown.
        let wanted = (now() + off).clamp(0, LAST_SECOND);
        let shown = seconds_of(&message["timestamp"]);
        assert!((shown - wanted).abs() <= 5, "{message} at {off}");
        if let Some(comes) = comes {
            assert_eq!(comes_in(&server, &token), comes, "{off}");
        }
        if off == 10 * YEAR {
            // Its token has ended by this clock, and this only.
            assert_eq!(carl.until_closed().1, 3004);
            is_in = false;
        }
    }
}

/// R05: whatever accept fails with, the next one comes in, and health tells of what does not pass by
/// itself.
#[test]
fn no_error_of_accept_keeps_the_next_one_out() {
    let Some(system) = FalseSystem::build() else { return };
    let mut server = start(&system, &[]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    bob.subscribe("public:on");
    // ECONNABORTED, EPROTO, EPERM, EINTR, ENETDOWN; ENFILE, EMFILE, ENOBUFS, ENOMEM.
    let passing = [103, 71, 1, 4, 100];
    let exhausted = [23, 24, 105, 12];
    for errno in passing.into_iter().chain(exhausted) {
        system.fail_accepts(3, errno);
        until("somebody comes in", || {
            let mut socket = RawSocket::connect(server.addr());
            socket.try_send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let head = socket.try_read_head()?;
            head.starts_with("HTTP/1.1 200").then_some(())
        });
        ann.publish("public:on", errno);
        assert_eq!(bob.next()["data"], errno);
        if !has(Part::ServerApi) {
            continue;
        }
        let ready = get(server.addr(), "/readyz");
        let is_passing = passing.contains(&errno);
        assert_eq!(ready.status, if is_passing { 200 } else { 503 }, "{errno}: {ready:?}");
        if !is_passing {
            assert_eq!(ready.body.trim(), "no file descriptor was left for a connection");
        }
    }
    until("it is ready again", || (get(server.addr(), "/readyz").status == 200).then_some(()));
    assert!(server.is_running());
}

/// R16: of the system's randomness; ports run out only towards other servers, which there are none of
/// yet.
#[test]
fn without_randomness_nobody_gets_an_id_that_could_be_guessed_and_who_is_there_goes_on() {
    let Some(system) = FalseSystem::build() else { return };
    let mut server = start(&system, &[]);
    let (mut ann, mut bob) = (Client::open(&server), Client::open(&server));
    bob.subscribe("public:known");
    ann.publish("public:known", "before");
    assert_eq!(bob.next()["data"], "before");

    system.set_randomness(false);
    // What was drawn before is given out first.
    until("nobody comes in", || {
        let mut socket = RawSocket::connect(server.addr());
        let head = socket.upgrade(PATH, &[]);
        assert!(head.starts_with("HTTP/1.1 101") || head.starts_with("HTTP/1.1 503"), "{head}");
        head.starts_with("HTTP/1.1 503").then_some(())
    });
    let mut rooms = 0..;
    let refused = until("no room begins", || {
        let room = format!("public:new-{}", rooms.next()?);
        let answer = ann.call(json!({"type": "publish", "room": room, "data": 1}));
        (answer["type"] == "error").then_some(answer)
    });
    assert_eq!(refused["error"], "unavailable", "{refused}");
    ann.publish("public:known", "still here");
    assert_eq!(bob.next()["data"], "still here");
    assert_eq!(get(server.addr(), "/healthz").status, 200);

    system.set_randomness(true);
    let mut late = Client::open(&server);
    late.publish("public:new", "after");
    assert!(server.is_running());
}
