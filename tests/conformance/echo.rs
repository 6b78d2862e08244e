//! RFC 6455 from end to end over the endpoint that echoes: framing, pings, reserved bits and
//! opcodes, fragmentation, UTF-8, closing, large messages, by the table in `cases`.

use tests::frame::{BINARY, Frame, TEXT};
use tests::raw::RawSocket;

use crate::arena::{Arena, assert_closes};
use crate::cases::{self, Back, Case, KIB};

const ECHO: &str = "/ws/conformance";

#[track_caller]
fn run(cases: Vec<Case>) {
    let arena = Arena::shared(&[]);
    for case in cases {
        let mut socket = arena.open(ECHO);
        for piece in case.masked().chunks(case.piece) {
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
    run(cases::framing());
}

/// P18. P27. Group 2.
#[test]
fn pings_are_answered_in_order_and_pongs_are_not() {
    run(cases::pings());
}

/// P16. P17. Groups 3 and 4.
#[test]
fn reserved_bits_and_opcodes_close_behind_what_came_before() {
    run(cases::reserved());
}

/// P19. Group 5.
#[test]
fn fragments_make_one_message_and_control_frames_may_stand_between() {
    run(cases::fragmentation());
}

/// P24. Group 6.
#[test]
fn utf_8_comes_back_however_it_is_cut() {
    run(cases::right_utf_8());
}

/// P24. Group 6, where the suite speaks of failing fast.
#[test]
fn what_is_not_utf_8_is_refused_with_the_byte_that_shows_it() {
    run(cases::wrong_utf_8());
}

/// P18. P29. Group 7.
#[test]
fn closes_are_answered_and_nothing_behind_them_counts() {
    run(cases::closing());
}

/// P28. Group 9.
#[test]
fn messages_up_to_sixteen_mebibytes_come_back_whole() {
    run(cases::sizes());
}

/// P28. Group 9, and group 10 of a message that a client cuts by itself.
#[test]
fn large_messages_come_back_from_fragments_and_pieces() {
    run(cases::cut_sizes());
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
