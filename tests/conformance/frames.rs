//! Frames that break RFC 6455 or go on without end, on the endpoint of the protocol.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::frame::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, TEXT};
use tests::hosts::{Part, has};
use tests::raw::RawSocket;

use crate::arena::{Arena, CONNECT, assert_closes, assert_works, new_room, subscribe};

/// The address that echoes.
const ECHO: &str = "/ws/frames";

fn text(payload: &[u8]) -> Frame {
    Frame::new(TEXT, payload)
}

fn begin(payload: &[u8]) -> Frame {
    Frame { fin: false, ..text(payload) }
}

fn go_on(payload: &[u8]) -> Frame {
    Frame { fin: false, ..Frame::new(CONTINUATION, payload) }
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::bytes).collect()
}

/// The head of a masked frame whose length takes 16 or 64 bits although it need not.
fn long_head(opcode: u8, length: &[u8]) -> Vec<u8> {
    let marker = if length.len() == 2 { 126 } else { 127 };
    [&[0x80 | opcode, 0x80 | marker], length, &[1, 2, 3, 4]].concat()
}

/// Sends these bytes on a new connection, which is closed with this code for them.
#[track_caller]
fn assert_refused(arena: &Arena, what: &str, sent: &[u8], code: u16) {
    for path in [CONNECT, ECHO] {
        if path == ECHO && (code == 1003 || !has(Part::EchoEndpoint)) {
            continue;
        }
        let mut socket = arena.open(path);
        socket.try_send(sent);
        assert_closes(&mut socket, code, &format!("{what} to {path}"));
    }
}

/// P15. P16. P17. P18. P19. P24. P25.
#[test]
fn a_frame_that_breaks_the_framing_closes_with_its_code() {
    let arena = Arena::shared(&[]);
    let mut table: Vec<(String, Vec<u8>, u16)> = vec![
        ("unmasked".into(), Frame { mask: None, ..text(b"{}") }.bytes(), 1002),
        ("unmasked ping".into(), Frame { mask: None, ..Frame::new(PING, b"") }.bytes(), 1002),
        ("unmasked close".into(), Frame { mask: None, ..Frame::close(1000, "") }.bytes(), 1002),
        ("long ping".into(), Frame::new(PING, &[0; 126]).bytes(), 1002),
        ("half a ping".into(), Frame { fin: false, ..Frame::new(PING, b"") }.bytes(), 1002),
        ("half a close".into(), Frame { fin: false, ..Frame::close(1000, "") }.bytes(), 1002),
        ("close of one byte".into(), Frame::new(CLOSE, &[3]).bytes(), 1002),
        ("long close".into(), Frame::close(1000, &"x".repeat(124)).bytes(), 1002),
        ("bad reason".into(), Frame::new(CLOSE, &[3, 232, 0xc3, 0x28]).bytes(), 1007),
        ("nothing to continue".into(), Frame::new(CONTINUATION, b"x").bytes(), 1002),
        ("a new text inside".into(), bytes(&[begin(b"a"), text(b"b")]), 1002),
        ("a new binary inside".into(), bytes(&[begin(b"a"), Frame::new(BINARY, b"b")]), 1002),
        ("binary".into(), Frame::new(BINARY, b"{}").bytes(), 1003),
        ("empty binary".into(), Frame::new(BINARY, b"").bytes(), 1003),
    ];
    for rsv in 1..8 {
        table.push((format!("rsv {rsv}"), Frame { rsv, ..text(b"{}") }.bytes(), 1002));
        let ping = Frame { rsv, ..Frame::new(PING, b"") };
        table.push((format!("rsv {rsv} on a ping"), ping.bytes(), 1002));
        let second = Frame { rsv, ..go_on(b"") };
        table.push((format!("rsv {rsv} inside"), bytes(&[begin(b""), second]), 1002));
    }
    for opcode in (3..8).chain(11..16) {
        table.push((format!("opcode {opcode}"), Frame::new(opcode, b"").bytes(), 1002));
    }
    for (what, sent, code) in table {
        assert_refused(&arena, &what, &sent, code);
    }
    arena.finish();
}

/// P18. The codec's own test walks all 65,536.
#[test]
fn a_close_code_comes_back_if_it_may_be_sent_at_all() {
    let arena = Arena::shared(&[]);
    let edges = [0, 1, 999, 1100, 1999, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 32768, 65535];
    for code in edges.into_iter().chain(1000..1017) {
        let lawful = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let lawful = lawful && (code != 1014 || has(Part::Close1014));
        let expected = if lawful { code } else { 1002 };
        assert_refused(&arena, &format!("close {code}"), &Frame::close(code, "").bytes(), expected);
    }
    assert_refused(&arena, "a close without a code", &Frame::new(CLOSE, b"").bytes(), 1000);
    let longest = Frame::close(1000, &"x".repeat(123)).bytes();
    assert_refused(&arena, "the longest reason", &longest, 1000);
    arena.finish();
}

/// P19.
#[test]
fn a_ping_between_fragments_is_answered_and_the_message_still_counts() {
    let arena = Arena::shared(&[]);
    let mut socket = arena.greeted();
    let rest = Frame::new(CONTINUATION, b"\"ping\",\"id\":7}");
    socket.send(&bytes(&[begin(b"{\"type\":"), Frame::new(PING, b"mid"), rest]));
    assert_eq!(socket.read_frame(), (PONG, b"mid".to_vec()));
    assert_eq!(socket.expect_json("pong")["id"], 7);
    arena.finish();
}

/// P20.
#[test]
fn a_declared_length_is_refused_at_once_or_waited_for_without_memory() {
    let arena = Arena::own(&["--set", "limits.message_bytes_max=16777216"]);
    for (length, code) in [
        ((16 << 20) + 1, 1009),
        (1 << 31, 1009),
        (1 << 32, 1009),
        (1 << 62, 1009),
        ((1 << 63) - 1, 1009),
        (1 << 63, 1002),
        ((1 << 63) + 5, 1002),
        (u64::MAX, 1002),
    ] {
        let head = Frame { claimed: Some(length), ..text(b"") }.bytes();
        assert_refused(&arena, &format!("{length} bytes"), &head, code);
    }
    for length in [&[0, 0][..], &[0, 125], &[0; 8], &[0, 0, 0, 0, 0, 0, 0xff, 0xff]] {
        assert_refused(&arena, &format!("{length:?}"), &long_head(TEXT, length), 1002);
    }
    // The limit counts over all fragments, by what is declared.
    let second = Frame { claimed: Some(16 << 20), ..go_on(b"") };
    assert_refused(&arena, "two fragments", &bytes(&[begin(b"x"), second]), 1009);

    let before = arena.server().rss_bytes();
    let waiting = (0..100)
        .map(|_| {
            let mut socket = arena.greeted();
            socket.send(&Frame { claimed: Some(16 << 20), ..text(b"{") }.bytes());
            socket
        })
        .collect::<Vec<_>>();
    assert_works(&mut arena.greeted());
    let grown = arena.server().rss_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for 100 declared messages");
    drop(waiting);
    arena.finish();
}

/// P21. P22.
#[test]
fn fragments_without_end_are_refused_by_their_number_empty_or_not() {
    let arena = Arena::own(&["--set", "limits.fragments_max=1024"]);
    for payload in [&b" "[..], b""] {
        let mut socket = arena.greeted();
        socket.send(&bytes(&[&[begin(b"{")][..], &vec![go_on(payload); 1_022]].concat()));
        socket.send(&Frame::new(CONTINUATION, b"\"type\":\"ping\",\"id\":1}").bytes());
        assert_eq!(socket.expect_json("pong")["id"], 1, "1,024 fragments are a message");

        let before = arena.server().cpu_time();
        let mut socket = arena.greeted();
        let some = bytes(&vec![go_on(payload); 10_000]);
        socket.send(&begin(payload).bytes());
        for _ in 0..20 {
            socket.try_send(&some);
        }
        assert_closes(&mut socket, 1008, "fragments without end");
        let took = arena.server().cpu_time() - before;
        assert!(took < Duration::from_secs(1), "they cost {took:?}");
    }
    arena.finish();
}

/// P23.
#[test]
fn a_message_that_is_not_finished_is_refused_at_its_size_or_at_its_deadline() {
    let arena = Arena::own(&[
        "--set",
        "server.message_timeout_ms=600",
        "--set",
        "limits.message_bytes_max=65536",
    ]);
    let chunk = go_on(&[b' '; 1_024]);
    let exact = bytes(&[&[begin(b"")][..], &vec![chunk; 64]].concat());
    let mut socket = arena.greeted();
    socket.send(&exact);
    socket.send(&go_on(b" ").bytes());
    assert_closes(&mut socket, 1009, "one byte more than the limit");

    let half = Frame { claimed: Some(100), ..text(b"{") }.bytes();
    for (what, sent) in [
        ("all but the end", exact),
        ("one fragment", begin(b"{").bytes()),
        ("half a frame", half),
        ("half a head", vec![0x81]),
    ] {
        let mut socket = arena.greeted();
        let begun = Instant::now();
        socket.send(&sent);
        // Pings are a sign of life, but not of the message.
        for _ in 0..3 {
            if sent.len() > 1 && !sent.ends_with(&half_end()) {
                socket.try_send(&Frame::new(PING, b"").bytes());
            }
            assert!(!socket.ends_within(Duration::from_millis(100)), "{what}: ended early");
        }
        assert_closes(&mut socket, 1008, what);
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(500), "{what}: closed after {took:?} already");
        assert!(took < Duration::from_millis(2_500), "{what}: closed after {took:?} only");
    }
    arena.finish();
}

/// How [`Frame`] masks `{`: the end of a frame of which the rest is missing.
fn half_end() -> Vec<u8> {
    vec![b'{' ^ 0x37]
}

/// P23.
#[test]
fn many_messages_whose_reads_never_end_with_one_are_each_in_time() {
    let arena = Arena::own(&["--set", "server.message_timeout_ms=400"]);
    let mut socket = arena.greeted();
    let ping = Frame::text("{\"type\":\"ping\",\"id\":1}").bytes();
    let (front, back) = ping.split_at(9);
    let begun = Instant::now();
    socket.send(front);
    let mut sent = 0;
    while begun.elapsed() < Duration::from_millis(1_500) {
        socket.send(&[back, front].concat());
        sent += 1;
        assert!(!socket.ends_within(Duration::from_millis(50)), "closed after {sent} messages");
    }
    for _ in 0..sent {
        assert_eq!(socket.expect_json("pong")["id"], 1);
    }
    arena.finish();
}

/// P24.
#[test]
fn bad_utf_8_is_refused_with_its_first_bad_byte() {
    let arena = Arena::shared(&[]);
    for (what, bad) in [
        ("a lone continuation", &b"\x80"[..]),
        ("an overlong slash", b"\xc0\xaf"),
        ("an overlong nul", b"\xe0\x80\x80"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("beyond unicode", b"\xf4\x90"),
        ("five bytes", b"\xf8"),
        ("a cut code point", b"\xe2\x82x"),
    ] {
        let open = begin(b"{\"a\":\"");
        assert_refused(&arena, what, &bytes(&[open.clone(), go_on(bad)]), 1007);
        if has(Part::EarlyUtf8) {
            // Not all of the frame is there yet.
            let mut early = Frame { claimed: Some(50), ..go_on(bad) }.bytes();
            early.splice(..0, open.bytes());
            assert_refused(&arena, what, &early, 1007);
        }
        assert_refused(&arena, what, &text(bad).bytes(), 1007);
    }
    assert_refused(&arena, "a cut end", &text(b"{\"a\":\"\xe2\x82").bytes(), 1007);
    // A code point that is split over frames is whole all the same.
    let mut socket = arena.greeted();
    let room = new_room();
    subscribe(&mut socket, &room);
    let publish = json!({"type": "publish", "id": 1, "room": room, "data": "κόσμε\u{10ffff}"});
    let frames = publish.to_string().into_bytes();
    let (last, rest) = frames.split_last().unwrap();
    let (first, middle) = rest.split_first().unwrap();
    socket.send(&begin(&[*first]).bytes());
    for byte in middle {
        socket.send(&go_on(&[*byte]).bytes());
    }
    socket.send(&Frame::new(CONTINUATION, &[*last]).bytes());
    assert_eq!(socket.expect_json("message")["data"], "κόσμε\u{10ffff}");
    arena.finish();
}

/// P26.
#[test]
fn a_flood_of_pings_ends_its_own_connection_only() {
    let arena = Arena::own(&[]);
    let mut floods = (0..4).map(|_| arena.greeted()).collect::<Vec<_>>();
    let pings = Frame::new(PING, b"flood").bytes().repeat(20_000);
    for flood in &mut floods {
        flood.try_send(&pings);
    }
    for flood in &mut floods {
        assert_closes(flood, 3005, "a flood of pings");
    }
    let took = arena.finish();
    let p99 = took[took.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(500), "the canary's slowest percent took {p99:?}");
}

/// P27.
#[test]
fn a_pong_that_nobody_asked_for_changes_nothing() {
    let arena = Arena::shared(&[]);
    let mut socket = arena.greeted();
    for payload in [&b""[..], b"not asked for", &[0xff; 125]] {
        socket.send(&Frame::new(PONG, payload).bytes());
        assert_works(&mut socket);
    }
    arena.finish();
}

/// P28.
#[test]
fn how_the_bytes_are_cut_makes_no_difference() {
    let arena = Arena::shared(&[]);
    let patterns: &[&[usize]] =
        &[&[1], &[2], &[3], &[5], &[1, 13], &[7, 1, 1, 1], &[126], &[1_000], &[usize::MAX]];
    let mut expected = None;
    for pattern in patterns {
        let room = new_room();
        let mut socket = arena.greeted();
        let publish = |id: u32, data: &str| {
            let value = json!({"type": "publish", "id": id, "room": room, "data": data});
            value.to_string().into_bytes()
        };
        let long = publish(3, &"long ".repeat(100));
        let (head, tail) = long.split_at(77);
        let subscribe = json!({"type": "subscribe", "id": 1, "room": room}).to_string();
        let stream = bytes(&[
            Frame::text(&subscribe),
            text(&publish(2, "one")),
            Frame::new(PING, b"first"),
            begin(head),
            Frame::new(PING, b"second"),
            Frame::new(CONTINUATION, tail),
            text(b"not json"),
            Frame::new(PONG, b"?"),
            Frame::text("{\"type\":\"ping\",\"id\":4}"),
            Frame::text("{\"type\":\"unsubscribe\",\"id\":5,\"room\":\"public:nowhere\"}"),
        ]);
        let mut rest = &stream[..];
        for size in pattern.iter().cycle() {
            let (piece, left) = rest.split_at(rest.len().min(*size));
            socket.send(piece);
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        // Six answers and two messages, so that the close does not overtake what is under way.
        let mut all = Vec::new();
        while all.len() < 8 {
            all.push(socket.next_json());
        }
        socket.send(&Frame::close(1000, "").bytes());
        let mut came = all
            .iter_mut()
            .map(|value| {
                let fields = value.as_object_mut().expect("a frame is an object");
                fields
                    .retain(|name, _| ["type", "id", "offset", "data", "code"].contains(&&**name));
                value.to_string()
            })
            .collect::<Vec<_>>();
        // Answers and messages may come in either order; the rest is as it is.
        came.sort();
        assert_closes(&mut socket, 1000, "the end");
        let expected = expected.get_or_insert_with(|| came.clone());
        assert_eq!(expected, &came, "cut as {pattern:?}");
    }
    arena.finish();
}

/// P28.
#[test]
fn a_thousand_frames_in_one_packet_are_a_thousand_frames() {
    let arena = Arena::shared(&[]);
    let mut socket = arena.greeted();
    let frames = (0..1_000).map(|id| Frame::text(&format!("{{\"type\":\"ping\",\"id\":{id}}}")));
    socket.send(&bytes(&frames.collect::<Vec<_>>()));
    for id in 0..1_000 {
        assert_eq!(socket.expect_json("pong")["id"], id);
    }
    arena.finish();
}

/// P29.
#[test]
fn a_close_is_answered_once_and_nothing_behind_it_counts() {
    let arena = Arena::own(&["--set", "server.close_timeout_ms=600"]);
    let room = new_room();
    let mut member = arena.member(&room);
    let baseline = arena.server().open_fds();
    let publish = json!({"type": "publish", "room": room, "data": "late"}).to_string();

    let mut socket = arena.greeted();
    socket.send(&bytes(&[Frame::close(4321, "bye"), Frame::text(&publish), Frame::new(PING, b"")]));
    assert_closes(&mut socket, 4321, "data behind the close");

    // Both close at one time: each side's frame is one, and the answer is none.
    let mut socket = arena.greeted();
    socket.send(&bytes(&[Frame::new(BINARY, b""), Frame::close(1000, "")]));
    assert_closes(&mut socket, 1003, "closes that cross");

    let begun = Instant::now();
    let mut socket = arena.greeted();
    socket.send(&Frame::new(BINARY, b"").bytes());
    assert_eq!(socket.read_close_code(), 1003, "who never answers the close");
    while arena.server().open_fds() > baseline {
        // Still talking does not keep the socket.
        socket.try_send(&Frame::new(PING, b"").bytes());
        socket.ends_within(Duration::from_millis(20));
        assert!(begun.elapsed() < Duration::from_secs(3), "its descriptor is still held");
    }

    for leave in [|socket: &mut RawSocket| socket.finish(), |_: &mut RawSocket| {}] {
        let mut socket = arena.greeted();
        leave(&mut socket);
        drop(socket);
    }
    arena.greeted().reset();
    arena.until("the descriptors are back", |server| server.open_fds() <= baseline);
    assert_works(&mut member);
    arena.finish();
}
