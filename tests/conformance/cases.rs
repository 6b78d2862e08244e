//! RFC 6455 as a table: what is sent, and what comes back. The groups are those of the well-known suite, written
//! again. `echo` tells it of the server, `client` of the Rust client.
//!
//! It must never know who is asked.

use tests::frame::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, TEXT};

pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MIB: usize = 1 << 20;

/// What comes back for one case.
pub(crate) enum Back {
    /// These frames, and then a close with 1000 as the client asks for it.
    Frames(Vec<(u8, Vec<u8>)>),
    /// These frames, and then a close with this code.
    Close(Vec<(u8, Vec<u8>)>, u16),
}

/// A case: its name, what is sent in pieces of which size, and what comes back.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frames: Vec<Frame>,
    pub(crate) piece: usize,
    pub(crate) back: Back,
}

impl Case {
    /// What a client sends.
    pub(crate) fn masked(&self) -> Vec<u8> {
        self.frames.iter().flat_map(Frame::bytes).collect()
    }
}

fn case(name: impl Into<String>, frames: &[Frame], back: Back) -> Case {
    Case { name: name.into(), frames: frames.to_vec(), piece: usize::MAX, back }
}

/// The same, sent in pieces.
pub(crate) fn chopped(piece: usize, case: Case) -> Case {
    Case { piece, name: format!("{} in pieces of {piece}", case.name), ..case }
}

/// A message of this opcode that is echoed.
pub(crate) fn echoed(name: impl Into<String>, opcode: u8, payload: &[u8]) -> Case {
    let back = Back::Frames(vec![(opcode, payload.to_vec())]);
    case(name, &[Frame::new(opcode, payload)], back)
}

/// A message in fragments of this size.
pub(crate) fn fragments(opcode: u8, payload: &[u8], size: usize) -> Vec<Frame> {
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

/// Group 1: framing.
pub(crate) fn framing() -> Vec<Case> {
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
    cases
}

/// Group 2: pings and pongs.
pub(crate) fn pings() -> Vec<Case> {
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
    cases
}

/// Groups 3 and 4: reserved bits and opcodes.
pub(crate) fn reserved() -> Vec<Case> {
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
    cases
}

/// Group 5: fragmentation.
pub(crate) fn fragmentation() -> Vec<Case> {
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
    vec![
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
    ]
}

/// Texts that are UTF-8, up to the edges.
pub(crate) const RIGHT: &[&str] = &[
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

/// Group 6: what is UTF-8.
pub(crate) fn right_utf_8() -> Vec<Case> {
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
    cases
}

/// Group 6: what is not, where the suite speaks of failing fast.
pub(crate) fn wrong_utf_8() -> Vec<Case> {
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
    cases
}

/// Group 7: closing.
pub(crate) fn closing() -> Vec<Case> {
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
    cases
}

/// Group 9: sizes.
pub(crate) fn sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB] {
        for opcode in [TEXT, BINARY] {
            cases.push(echoed(format!("opcode {opcode}, {size} bytes"), opcode, &vec![b'*'; size]));
        }
    }
    let more = Frame::new(TEXT, &vec![b'*'; 16 * MIB + 1]);
    cases.push(case("one byte more", &[more], refused(1009)));
    cases
}

/// Group 9, and group 10 of a message that its sender cuts by itself: sizes in pieces.
pub(crate) fn cut_sizes() -> Vec<Case> {
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
    cases
}
