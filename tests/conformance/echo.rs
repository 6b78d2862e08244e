//! RFC 6455 from end to end over the endpoint that echoes: framing, pings, reserved bits and
//! opcodes, fragmentation, UTF-8, closing, large messages. The groups are those of the well-known
//! suite, written again as a table of our own.

use tests::frame::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, TEXT};
use tests::raw::RawSocket;

use crate::arena::{Arena, assert_closes};

const ECHO: &str = "/ws/conformance";
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What comes back for one case.
enum Back {
    /// These frames, and then a close with 1000 as the client asks for it.
    Frames(Vec<(u8, Vec<u8>)>),
    /// These frames, and then a close with this code.
    Close(Vec<(u8, Vec<u8>)>, u16),
}

/// A case: its name, what is sent in pieces of which size, and what comes back.
struct Case {
    name: String,
    sent: Vec<u8>,
    piece: usize,
    back: Back,
}

fn case(name: impl Into<String>, frames: &[Frame], back: Back) -> Case {
    let sent = frames.iter().flat_map(Frame::bytes).collect();
    Case { name: name.into(), sent, piece: usize::MAX, back }
}

/// The same, sent in pieces.
fn chopped(piece: usize, case: Case) -> Case {
    Case { piece, name: format!("{} in pieces of {piece}", case.name), ..case }
}

/// A message of this opcode that is echoed.
fn echoed(name: impl Into<String>, opcode: u8, payload: &[u8]) -> Case {
    let back = Back::Frames(vec![(opcode, payload.to_vec())]);
    case(name, &[Frame::new(opcode, payload)], back)
}

/// A message in fragments of this size.
fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<Frame> {
    let chunks = payload.chunks(size.max(1)).collect::<Vec<_>>();
    let last = chunks.len().saturating_sub(1);
    let frame = |(at, chunk): (usize, &&[u8])| {
        let opcode = if at == 0 { opcode } else { CONTINUATION };
        Frame { fin: at == last, ..Frame::new(opcode, chunk) }
    };
    chunks.iter().enumerate().map(frame).collect()
}

fn begin(opcode: u8, payload: &[u8]) -> Frame {
    Frame { fin: false, ..Frame::new(opcode, payload) }
}

fn end(payload: &[u8]) -> Frame {
    Frame::new(CONTINUATION, payload)
}

fn go_on(payload: &[u8]) -> Frame {
    begin(CONTINUATION, payload)
}

/// Only this code comes back.
fn refused(code: u16) -> Back {
    Back::Close(Vec::new(), code)
}

fn text(payload: &str) -> (u8, Vec<u8>) {
    (TEXT, payload.as_bytes().to_vec())
}

#[track_caller]
fn run(cases: Vec<Case>) {
    let arena = Arena::shared(&[]);
    for case in cases {
        let mut socket = arena.open(ECHO);
        for piece in case.sent.chunks(case.piece) {
            if !socket.try_send(piece) {
                break;
            }
        }
        let (frames, code) = match case.back {
            Back::Frames(frames) => (frames, None),
            Back::Close(frames, code) => (frames, Some(code)),
        };
        for (opcode, payload) in frames {
            expect(&mut socket, opcode, &payload, &case.name);
        }
        if code.is_none() {
            socket.send(&Frame::close(1000, "").bytes());
        }
        assert_closes(&mut socket, code.unwrap_or(1000), &case.name);
    }
    arena.finish();
}

/// The next message, however it is cut into frames.
#[track_caller]
fn expect(socket: &mut RawSocket, opcode: u8, payload: &[u8], name: &str) {
    let mut whole = Vec::new();
    let mut first = None;
    loop {
        let Some(frame) = socket.try_read_frame() else { panic!("{name}: ended too early") };
        assert_eq!(frame.rsv, 0, "{name}");
        whole.extend(frame.payload);
        let kind = *first.get_or_insert(frame.opcode);
        if frame.fin {
            assert_eq!(kind, opcode, "{name}");
            assert!(whole == payload, "{name}: other bytes, {} of {}", whole.len(), payload.len());
            return;
        }
    }
}

/// P28. Group 1.
#[test]
fn messages_of_every_framing_size_come_back() {
    let mut cases = Vec::new();
    for opcode in [TEXT, BINARY] {
        for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
            let payload = vec![if opcode == TEXT { b'*' } else { 0xfe }; size];
            cases.push(echoed(format!("opcode {opcode}, {size} bytes"), opcode, &payload));
            if size > 0 {
                let one = echoed(format!("opcode {opcode}, {size} bytes"), opcode, &payload);
                cases.push(chopped(997, one));
            }
        }
    }
    run(cases);
}

/// P18. P27. Group 2.
#[test]
fn pings_are_answered_in_order_and_pongs_are_not() {
    let pong = |payload: &[u8]| (PONG, payload.to_vec());
    let mut cases = Vec::new();
    for payload in [&b""[..], b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", &[0xfe; 125]] {
        let name = format!("a ping of {} bytes", payload.len());
        let ping = || case(&name, &[Frame::new(PING, payload)], Back::Frames(vec![pong(payload)]));
        cases.push(ping());
        cases.push(chopped(1, ping()));
    }
    cases.push(case("a ping of 126 bytes", &[Frame::new(PING, &[0xfe; 126])], refused(1002)));
    let none = Back::Frames(Vec::new());
    cases.push(case("a pong nobody asked for", &[Frame::new(PONG, b"")], none));
    let both = [Frame::new(PONG, b"unasked"), Frame::new(PING, b"asked")];
    cases.push(case("a pong and a ping", &both, Back::Frames(vec![pong(b"asked")])));
    let payloads = (0..10).map(|n| format!("payload-{n}").into_bytes()).collect::<Vec<_>>();
    for piece in [usize::MAX, 1] {
        let pings = payloads.iter().map(|payload| Frame::new(PING, payload)).collect::<Vec<_>>();
        let pongs = payloads.iter().map(|payload| pong(payload)).collect();
        cases.push(chopped(piece, case("ten pings", &pings, Back::Frames(pongs))));
    }
    run(cases);
}

/// P16. P17. Groups 3 and 4.
#[test]
fn reserved_bits_and_opcodes_close_behind_what_came_before() {
    let mut cases = Vec::new();
    for piece in [usize::MAX, 1] {
        for rsv in 1..8 {
            for opcode in [TEXT, BINARY, PING, CLOSE] {
                let bad = Frame { rsv, ..Frame::new(opcode, b"") };
                let frames = [Frame::text("Hello"), bad, Frame::new(PING, b"")];
                let back = Back::Close(vec![text("Hello")], 1002);
                let name = format!("rsv {rsv} on opcode {opcode}");
                cases.push(chopped(piece, case(name, &frames, back)));
            }
        }
        for opcode in (3..8).chain(11..16) {
            for payload in [&b""[..], b"reserved"] {
                let bad = Frame::new(opcode, payload);
                let name = format!("opcode {opcode}");
                cases.push(chopped(piece, case(&name, std::slice::from_ref(&bad), refused(1002))));
                let frames = [Frame::text("Hello"), bad, Frame::new(PING, b"")];
                let back = Back::Close(vec![text("Hello")], 1002);
                cases.push(chopped(piece, case(name, &frames, back)));
            }
        }
    }
    run(cases);
}

/// P19. Group 5.
#[test]
fn fragments_make_one_message_and_control_frames_may_stand_between() {
    let pong = |payload: &[u8]| (PONG, payload.to_vec());
    let hello = || Back::Frames(vec![text("fragment1fragment2")]);
    let halves = [begin(TEXT, b"fragment1"), end(b"fragment2")];
    let [first, second] = halves.clone();
    let with_ping = [first.clone(), Frame::new(PING, b"ping payload"), second.clone()];
    let pinged = || Back::Frames(vec![pong(b"ping payload"), text("fragment1fragment2")]);
    let two_pings = [
        begin(TEXT, b"fragment1"),
        Frame::new(PING, b"1"),
        go_on(b""),
        Frame::new(PING, b"2"),
        end(b"fragment2"),
    ];
    let cases = vec![
        case("half a ping", &[begin(PING, b"a"), end(b"b")], refused(1002)),
        case("half a pong", &[begin(PONG, b"a"), end(b"b")], refused(1002)),
        case("two fragments", &halves, hello()),
        chopped(1, case("two fragments", &halves, hello())),
        case("a ping between", &with_ping, pinged()),
        chopped(1, case("a ping between", &with_ping, pinged())),
        case("nothing to end", &[end(b"x"), Frame::text("y")], refused(1002)),
        case("nothing to go on with", &[go_on(b"x"), Frame::text("y")], refused(1002)),
        case(
            "ended twice",
            &[first.clone(), second.clone(), end(b"x")],
            Back::Close(vec![text("fragment1fragment2")], 1002),
        ),
        case("begun twice", &[first.clone(), Frame::text("y")], refused(1002)),
        case("begun twice in fragments", &[first.clone(), first, second], refused(1002)),
        case(
            "two pings between",
            &two_pings,
            Back::Frames(vec![pong(b"1"), pong(b"2"), text("fragment1fragment2")]),
        ),
        case(
            "empty fragments",
            &[begin(TEXT, b""), go_on(b""), end(b"")],
            Back::Frames(vec![text("")]),
        ),
        case(
            "one full among empty ones",
            &[begin(BINARY, b""), go_on(b"middle"), end(b"")],
            Back::Frames(vec![(BINARY, b"middle".to_vec())]),
        ),
    ];
    run(cases);
}

/// Texts that are UTF-8, up to the edges.
const RIGHT: &[&str] = &[
    "Hello-µ@ßöäüàá-UTF-8!!",
    "κόσμε",
    "\u{0}",
    "\u{7f}",
    "\u{80}",
    "\u{7ff}",
    "\u{800}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{fffd}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{10000}",
    "\u{fdd0}\u{fdef}",
    "\u{1fffe}\u{10fffe}",
    "\u{10ffff}",
];

/// Bytes that are not, with how many of them show it.
const WRONG: &[(&[u8], usize)] = &[
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", 13),
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited", 13),
    (b"\xf8\x88\x80\x80\x80", 1),
    (b"\xfc\x84\x80\x80\x80\x80", 1),
    (b"\x80", 1),
    (b"\xbf", 1),
    (b"\x80\xbf\x80", 1),
    (b"\xc0 \xc1 ", 1),
    (b"\xe0 ", 2),
    (b"\xf0 ", 2),
    (b"\xc0\xaf", 1),
    (b"\xe0\x80\xaf", 2),
    (b"\xf0\x80\x80\xaf", 2),
    (b"\xe0\x9f\xbf", 2),
    (b"\xf0\x8f\xbf\xbf", 2),
    (b"\xed\xbf\xbf", 2),
    (b"\xf7\xbf\xbf\xbf", 1),
    (b"\xfe", 1),
    (b"\xff", 1),
];

/// P24. Group 6.
#[test]
fn utf_8_comes_back_however_it_is_cut() {
    let mut cases = Vec::new();
    for right in RIGHT {
        let payload = right.as_bytes();
        let echo = || Back::Frames(vec![text(right)]);
        cases.push(case(*right, &[Frame::new(TEXT, payload)], echo()));
        cases.push(chopped(1, case(*right, &[Frame::new(TEXT, payload)], echo())));
        cases.push(case(format!("{right} bytewise"), &fragments(TEXT, payload, 1), echo()));
    }
    let bytes = vec![0xff; 300];
    let back = Back::Frames(vec![(BINARY, bytes.clone())]);
    cases.push(case("binary needs no UTF-8", &fragments(BINARY, &bytes, 7), back));
    run(cases);
}

/// P24. Group 6, where the suite speaks of failing fast.
#[test]
fn what_is_not_utf_8_is_refused_with_the_byte_that_shows_it() {
    let mut cases = Vec::new();
    for (wrong, shown) in WRONG {
        cases.push(case(format!("{wrong:x?}"), &[Frame::new(TEXT, wrong)], refused(1007)));
        let bytewise = fragments(TEXT, wrong, 1);
        cases.push(case(format!("{wrong:x?} bytewise"), &bytewise, refused(1007)));
        // The rest never comes, neither of the frame nor of the message.
        let frame = Frame { claimed: Some(60), ..Frame::new(TEXT, &wrong[..*shown]) };
        cases.push(case(format!("{wrong:x?} unfinished"), &[frame], refused(1007)));
        let fragment = begin(TEXT, &wrong[..*shown]);
        cases.push(case(format!("{wrong:x?} in a fragment"), &[fragment], refused(1007)));
    }
    for cut in [&b"\xce"[..], b"\xe1\xbd", b"\xf4\x8f\xbf"] {
        cases.push(case(format!("{cut:x?} cut"), &[Frame::new(TEXT, cut)], refused(1007)));
        let halves = [begin(TEXT, cut), end(b"")];
        cases.push(case(format!("{cut:x?} cut in fragments"), &halves, refused(1007)));
    }
    run(cases);
}

/// P18. P29. Group 7.
#[test]
fn closes_are_answered_and_nothing_behind_them_counts() {
    let close = || Frame::close(1000, "");
    let large = vec![b'x'; 256 * KIB];
    let mut cases = vec![
        case(
            "a message and a close",
            &[Frame::text("Hello"), close()],
            Back::Close(vec![text("Hello")], 1000),
        ),
        case("two closes", &[close(), close()], refused(1000)),
        case("a ping behind", &[close(), Frame::new(PING, b"")], refused(1000)),
        case("a text behind", &[close(), Frame::text("late")], refused(1000)),
        case("garbage behind", &[close(), Frame::new(3, b"late")], refused(1000)),
        case("inside a message", &[begin(TEXT, b"a"), close(), end(b"b")], refused(1000)),
        case(
            "behind a large message",
            &[Frame::new(TEXT, &large), close(), Frame::new(PING, b"")],
            Back::Close(vec![(TEXT, large.clone())], 1000),
        ),
        case("no code", &[Frame::new(CLOSE, b"")], refused(1000)),
        case("half a code", &[Frame::new(CLOSE, b"\x03")], refused(1002)),
        case("a reason", &[Frame::close(1000, "Hello World!")], refused(1000)),
        case("the longest reason", &[Frame::close(1000, &"*".repeat(123))], refused(1000)),
        case("too long a reason", &[Frame::close(1000, &"*".repeat(124))], refused(1002)),
        case("a bad reason", &[Frame::new(CLOSE, b"\x03\xe8\xce\xba\xed\xa0\x80")], refused(1007)),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(case(format!("code {code}"), &[Frame::close(code, "why")], refused(code)));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        cases.push(case(format!("code {code}"), &[Frame::close(code, "why")], refused(1002)));
    }
    run(cases);
}

/// P28. Group 9.
#[test]
fn messages_up_to_sixteen_mebibytes_come_back_whole() {
    let mut cases = Vec::new();
    for size in [64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB] {
        for opcode in [TEXT, BINARY] {
            cases.push(echoed(format!("opcode {opcode}, {size} bytes"), opcode, &vec![b'*'; size]));
        }
    }
    let more = Frame::new(TEXT, &vec![b'*'; 16 * MIB + 1]);
    cases.push(case("one byte more", &[more], refused(1009)));
    run(cases);
}

/// P28. Group 9, and group 10 of a message that a client cuts by itself.
#[test]
fn large_messages_come_back_from_fragments_and_pieces() {
    let mut cases = Vec::new();
    let payload = (0..MIB).map(|at| b'a' + (at % 23) as u8).collect::<Vec<_>>();
    for size in [64, 256, KIB, 4 * KIB, 64 * KIB, 256 * KIB] {
        for opcode in [TEXT, BINARY] {
            let back = Back::Frames(vec![(opcode, payload.clone())]);
            let name = format!("opcode {opcode} in fragments of {size}");
            cases.push(case(name, &fragments(opcode, &payload, size), back));
        }
    }
    for piece in [64, 256, KIB, 2 * KIB] {
        for opcode in [TEXT, BINARY] {
            cases.push(chopped(piece, echoed(format!("opcode {opcode}"), opcode, &payload)));
        }
    }
    let cut = fragments(TEXT, &payload[..64 * KIB], 1_300);
    let back = Back::Frames(vec![(TEXT, payload[..64 * KIB].to_vec())]);
    cases.push(case("64 KiB in frames of 1300", &cut, back));
    run(cases);
}

/// P28. Group 9.
#[test]
fn a_thousand_messages_come_back_one_after_the_other() {
    let arena = Arena::shared(&[]);
    for opcode in [TEXT, BINARY] {
        let mut socket = arena.open(ECHO);
        for size in [0, 16, 64, 256, KIB] {
            for _ in 0..200 {
                let payload = vec![b'*'; size];
                socket.send(&Frame::new(opcode, &payload).bytes());
                expect(&mut socket, opcode, &payload, "in turn");
            }
        }
    }
    arena.finish();
}

/// P07.
#[test]
fn only_a_lawful_client_id_is_echoed_for() {
    let arena = Arena::shared(&[]);
    for (id, expected) in
        [("a", "101"), ("A-z_0.9~", "101"), ("a%20b", "400"), ("%00", "400"), ("\u{e9}", "400")]
    {
        let head = arena.connect().upgrade(&format!("/ws/{id}"), &[]);
        assert!(head.starts_with(&format!("HTTP/1.1 {expected}")), "{id}: {head}");
    }
    let long = arena.connect().upgrade(&format!("/ws/{}", "a".repeat(129)), &[]);
    assert!(long.starts_with("HTTP/1.1 400"), "{long}");
    arena.finish();
}
