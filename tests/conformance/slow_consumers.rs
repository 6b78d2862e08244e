//! Clients that read too slowly, or not at all, or are gone without a word. Each costs the server
//! a bounded amount, and others nothing.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::frame::{CLOSE, Frame, PING, PONG, TEXT};
use tests::raw::RawSocket;

use crate::arena::{Arena, assert_closes, assert_works, new_room, subscribe};

const KIB: usize = 1 << 10;
const MIB: u64 = 1 << 20;

/// A member that sees who leaves, and publishes.
struct Publisher {
    socket: RawSocket,
    room: String,
    n_published: u64,
    left: usize,
}

impl Publisher {
    fn join(arena: &Arena, room: &str) -> Self {
        let mut socket = arena.greeted();
        socket.send_json(&json!({"type": "subscribe", "id": 1, "room": room, "presence": true}));
        socket.expect_json("subscribed");
        Self { socket, room: room.to_owned(), n_published: 0, left: 0 }
    }

    /// Publishes so many bytes, and notes who has left.
    fn publish(&mut self, bytes: usize, more: &Value) {
        self.n_published += 1;
        let n = self.n_published;
        let data = json!({"n": n, "fill": "x".repeat(bytes)});
        let mut command =
            json!({"type": "publish", "id": n, "room": self.room, "echo": false, "data": data});
        for (name, value) in more.as_object().into_iter().flatten() {
            command[name] = value.clone();
        }
        self.socket.send_json(&command);
        while self.next_but_leaves()["type"] != "ack" {}
    }

    fn next_but_leaves(&mut self) -> Value {
        let value = self.socket.next_json();
        assert_ne!(value["type"], "error", "{value}");
        let changes = match value["type"].as_str() {
            Some("presence_event") => std::slice::from_ref(&value),
            Some("presence_events") => value["changes"].as_array().unwrap(),
            _ => &[],
        };
        self.left += changes.iter().filter(|change| change["event"] == "leave").count();
        value
    }

    /// Waits for the next to leave.
    fn wait_for_leave(&mut self) {
        let before = self.left;
        while self.left == before {
            self.next_but_leaves();
        }
    }
}

/// The `n` of a message, without reading all of it.
fn number_of(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).expect("the server writes UTF-8");
    let (_, rest) = text.split_once("\"data\":{\"fill\":").or_else(|| text.split_once("\"n\":"))?;
    let rest = rest.rsplit_once("\"n\":").map_or(rest, |(_, rest)| rest);
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Reads on to message `n` of each, and complains about any that is missing.
fn read_to(sockets: &mut [RawSocket], n: u64) {
    for socket in sockets {
        loop {
            let frame = socket.read_received();
            assert_ne!(frame.opcode, CLOSE, "a healthy member was closed");
            if let Some(number) = number_of(&frame.payload) {
                assert_eq!(number, n, "a healthy member missed a message");
                break;
            }
        }
    }
}

/// S01.
#[test]
fn one_of_five_hundred_that_stops_reading_is_closed_and_the_others_get_all() {
    const READERS: usize = 4;
    let arena = Arena::own(&[]);
    let room = new_room();
    let mut groups = (0..READERS)
        .map(|_| (0..498 / READERS).map(|_| arena.member(&room)).collect::<Vec<_>>())
        .collect::<Vec<_>>();
    let mut slow = arena.member(&room);
    let mut publisher = Publisher::join(&arena, &room);
    let before = arena.server().rss_bytes();
    let (done, is_done) = channel();
    let readers = groups.iter_mut().map(|_| channel::<u64>()).collect::<Vec<_>>();
    let mut peak = before;
    std::thread::scope(|scope| {
        let mut wanted = Vec::new();
        for (group, (want, is_wanted)) in groups.iter_mut().zip(readers) {
            wanted.push(want);
            let done = done.clone();
            scope.spawn(move || {
                for n in is_wanted {
                    read_to(group, n);
                    let _ = done.send(());
                }
            });
        }
        // So long as the slow one is there, as fast as the others read; then some more.
        let mut after = 0;
        while after < 5 {
            publisher.publish(128 * KIB, &Value::Null);
            for want in &wanted {
                want.send(publisher.n_published).expect("the readers read");
            }
            for _ in 0..READERS {
                is_done.recv_timeout(Duration::from_secs(20)).expect("all others get everything");
            }
            peak = peak.max(arena.server().rss_bytes());
            after += usize::from(publisher.left > 0);
            assert!(publisher.n_published < 200, "the slow one is still there");
        }
    });
    let grown = peak.saturating_sub(before);
    assert!(grown < 64 * MIB, "{} KiB for one that does not read", grown / 1024);
    assert_eq!(publisher.left, 1, "only the slow one left");
    assert_closes(&mut slow, 3001, "who does not read");
    let took = arena.finish();
    let p90 = took[took.len() * 9 / 10];
    assert!(p90 < Duration::from_secs(1), "the canary's slowest tenth took {p90:?}");
}

/// S01. Answers count like messages: a client that asks and never reads is slow too.
#[test]
fn a_client_that_asks_and_never_reads_is_closed() {
    let arena = Arena::own(&["--set", "limits.outbound_queue_bytes_max=65536"]);
    let room = new_room();
    let mut publisher = Publisher::join(&arena, &room);
    for _ in 0..20 {
        publisher.publish(16 * KIB, &Value::Null);
    }
    let before = arena.server().rss_bytes();
    let mut slow = arena.member(&room);
    let ask = Frame::text(&json!({"type": "history", "room": room}).to_string()).bytes();
    let end = Instant::now() + Duration::from_secs(10);
    // Its own leave is seen only by reading; here by the server not taking any more.
    while slow.try_send(&ask.repeat(4)) && publisher.left == 0 {
        assert!(Instant::now() < end, "it is still there");
        publisher.publish(1, &Value::Null);
    }
    let grown = arena.server().rss_bytes().saturating_sub(before);
    assert!(grown < 32 * MIB, "{} KiB for one that does not read", grown / 1024);
    assert_closes(&mut slow, 3001, "who asks and does not read");
    arena.finish();
}

/// S03.
#[test]
fn who_reads_a_little_but_never_catches_up_is_closed_in_time() {
    let arena = Arena::own(&[
        "--set",
        "server.lag_timeout_ms=1200",
        "--set",
        "limits.outbound_queue_bytes_max=67108864",
    ]);
    let room = new_room();
    let mut slow = arena.member(&room);
    slow.narrow();
    let mut publisher = Publisher::join(&arena, &room);
    let begun = Instant::now();
    for _ in 0..128 {
        publisher.publish(64 * KIB, &Value::Null);
    }
    let full = Instant::now();
    let (stop, stopped) = channel::<()>();
    let reader = std::thread::spawn(move || {
        let pace = Duration::from_millis(50);
        while matches!(stopped.recv_timeout(pace), Err(RecvTimeoutError::Timeout)) {
            slow.skim(64, pace);
        }
    });
    publisher.wait_for_leave();
    drop(stop);
    reader.join().expect("the slow one reads to its end");
    assert!(begun.elapsed() > Duration::from_millis(1_100), "closed at once");
    assert!(full.elapsed() < Duration::from_secs(6), "closed after {:?} only", full.elapsed());
    arena.finish();
}

/// S04.
#[test]
fn a_close_that_nobody_reads_frees_its_socket_in_time() {
    let arena = Arena::own(&[
        "--set",
        "server.close_timeout_ms=700",
        "--set",
        "limits.outbound_queue_bytes_max=65536",
    ]);
    let room = new_room();
    let mut publisher = Publisher::join(&arena, &room);
    let baseline = arena.server().open_fds();
    let slow = (0..5).map(|_| arena.member(&room)).collect::<Vec<_>>();
    assert!(arena.server().open_fds() >= baseline + 5);
    while publisher.left < 5 {
        publisher.publish(128 * KIB, &Value::Null);
        assert!(publisher.n_published < 200, "they are still there");
    }
    let closed = Instant::now();
    arena.until("the descriptors are back", |server| server.open_fds() <= baseline);
    let took = closed.elapsed();
    assert!(took < Duration::from_secs(3), "freed after {took:?} only");
    drop(slow);
    arena.finish();
}

/// S07.
#[test]
fn a_slow_reader_of_latest_values_gets_the_last_of_each_key() {
    let arena = Arena::own(&["--set", "limits.outbound_queue_bytes_max=1048576"]);
    let room = new_room();
    let mut slow = arena.member(&room);
    let mut publisher = Publisher::join(&arena, &room);
    for _ in 0..100 {
        for key in ["a", "b"] {
            publisher.publish(64 * KIB, &json!({"class": "latest", "key": key}));
        }
    }
    assert_eq!(publisher.left, 0, "conflation leaves nothing to be too slow for");
    let mut numbers = Vec::new();
    while numbers.last() != Some(&200) {
        let frame = slow.read_received();
        assert_ne!(frame.opcode, CLOSE);
        numbers.extend(number_of(&frame.payload));
    }
    assert!(numbers.contains(&199), "the last value of the other key: {numbers:?}");
    assert!(numbers.len() < 190, "nothing was left out: the reader was not slow");
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_works(&mut slow);
    arena.finish();
}

/// S08.
#[test]
fn a_pong_does_not_wait_behind_queued_messages() {
    let arena = Arena::own(&["--set", "limits.outbound_queue_bytes_max=67108864"]);
    let (room, side) = (new_room(), new_room());
    let mut observer = arena.member(&side);
    let mut slow = arena.member(&room);
    let mut publisher = Publisher::join(&arena, &room);
    for _ in 0..160 {
        publisher.publish(64 * KIB, &Value::Null);
    }
    slow.send(&Frame::new(PING, b"still there?").bytes());
    // When this has come, the ping in front of it has been read.
    slow.send_json(&json!({"type": "publish", "room": side, "data": 1}));
    observer.expect_json("message");
    let resumed = Instant::now();
    let mut before = 0;
    let pong_after = loop {
        let frame = slow.read_received();
        match frame.opcode {
            PONG => break resumed.elapsed(),
            TEXT => before += u64::from(number_of(&frame.payload).is_some()),
            other => panic!("opcode {other}"),
        }
    };
    assert!(before < 160 - 16, "the pong came behind {before} of 160 messages");
    assert!(pong_after < Duration::from_secs(1), "the pong took {pong_after:?}");
    read_rest(&mut slow, before + 1, 160);
    arena.finish();
}

fn read_rest(socket: &mut RawSocket, from: u64, to: u64) {
    for n in from..=to {
        read_to(std::slice::from_mut(socket), n);
    }
}

/// S09.
#[test]
fn a_client_that_is_gone_without_a_word_is_noticed_and_leaves() {
    let arena = Arena::own(&["--set", "heartbeat.interval_ms=300"]);
    let room = new_room();
    let mut gone = arena.greeted();
    assert_eq!(subscribe(&mut gone, &room)["room"], room);
    let mut observer = Publisher::join(&arena, &room);
    let begun = Instant::now();
    loop {
        let value = observer.next_but_leaves();
        if value["type"] == "ping" {
            observer.socket.send_json(&json!({"type": "pong"}));
        }
        if observer.left == 1 {
            break;
        }
    }
    let took = begun.elapsed();
    let range = Duration::from_millis(350)..Duration::from_secs(3);
    assert!(range.contains(&took), "it left after {took:?}");
    assert_eq!(gone.expect_json("ping")["type"], "ping");
    let disconnect = gone.expect_json("disconnect");
    assert_eq!((&disconnect["code"], &disconnect["reconnect"]), (&json!(3002), &json!(true)));
    assert_closes(&mut gone, 3002, "no sign of life");
    arena.finish();
}

/// S09. Who only listens in a busy room is asked too, and lives by its answers.
#[test]
fn who_only_listens_in_a_busy_room_is_pinged_and_stays() {
    let arena = Arena::own(&["--set", "heartbeat.interval_ms=200"]);
    let room = new_room();
    let mut listener = arena.member(&room);
    let mut publisher = Publisher::join(&arena, &room);
    let begun = Instant::now();
    let mut n_pings = 0;
    while begun.elapsed() < Duration::from_millis(1_500) {
        publisher.publish(1, &Value::Null);
        loop {
            let value = listener.next_json();
            match value["type"].as_str() {
                Some("message") => break,
                Some("ping") => {
                    n_pings += 1;
                    listener.send_json(&json!({"type": "pong"}));
                }
                _ => {}
            }
        }
        assert!(!listener.ends_within(Duration::from_millis(10)), "it is closed");
    }
    assert!((2..=20).contains(&n_pings), "{n_pings} pings");
    arena.finish();
}
