//! Text that stops being UTF-8: refused at the byte that proves it, wherever the cuts are.

use websocket_codec::{Decoder, Opcode, ProtocolError, Role};

use crate::support::{Heard, LIMITS, client_frame, decode_as_server, feed, refused_at};

#[test]
fn a_bad_byte_in_the_second_of_three_fragments_is_refused_there() {
    let first = client_frame(Opcode::Text, false, "\u{3ba}".as_bytes());
    let second = client_frame(Opcode::Continuation, false, b"ok\xf4\x90\x80\x80more");
    let third = client_frame(Opcode::Continuation, true, b"end");
    let stream = [first.as_slice(), &second, &third].concat();
    assert_eq!(decode_as_server(&stream), (Vec::new(), Some(ProtocolError::TextInvalid)));
    // Header 2, mask key 4, "ok", 0xf4, and 0x90 is the culprit.
    let index = first.len() + 6 + 3;
    assert_eq!(refused_at(&stream), Some((index, ProtocolError::TextInvalid)));
}

#[test]
fn a_bad_byte_is_refused_in_a_frame_that_has_not_wholly_arrived() {
    let whole = client_frame(Opcode::Text, true, &[b"good \xc0".as_slice(), &[b'x'; 500]].concat());
    let arrived = &whole[..30];
    let mut decoder = Decoder::new(Role::Server);
    let result = feed(&mut decoder, arrived, &LIMITS, &mut Vec::new());
    assert_eq!(result, Err(ProtocolError::TextInvalid));
}

#[test]
fn a_code_point_may_be_split_between_fragments_and_pings() {
    let text = "a\u{e9}\u{20ac}\u{1f600}z";
    for cut in 0..=text.len() {
        let (head, tail) = text.as_bytes().split_at(cut);
        let stream = [
            client_frame(Opcode::Text, false, head),
            client_frame(Opcode::Ping, true, b"\xff"),
            client_frame(Opcode::Continuation, true, tail),
        ]
        .concat();
        let expected = vec![Heard::Ping(vec![0xff]), Heard::Text(text.to_owned())];
        assert_eq!(decode_as_server(&stream), (expected, None));
    }
}

#[test]
fn every_byte_of_a_text_may_be_its_own_fragment() {
    let text = "\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}\u{7f}\u{80}";
    let mut stream = client_frame(Opcode::Text, false, b"");
    for byte in text.as_bytes() {
        stream.extend(client_frame(Opcode::Continuation, false, &[*byte]));
    }
    stream.extend(client_frame(Opcode::Continuation, true, b""));
    assert_eq!(decode_as_server(&stream), (vec![Heard::Text(text.to_owned())], None));
}

#[test]
fn a_message_that_ends_inside_a_code_point_is_refused_at_its_end() {
    for text in ["\u{e9}", "\u{20ac}", "\u{1f600}"] {
        for cut in 1..text.len() {
            let stream = [
                client_frame(Opcode::Text, false, &text.as_bytes()[..cut]),
                client_frame(Opcode::Continuation, true, b""),
            ]
            .concat();
            let expected = Some((stream.len() - 1, ProtocolError::TextInvalid));
            assert_eq!(refused_at(&stream), expected);
        }
    }
}

#[test]
fn overlong_forms_surrogates_and_too_large_values_are_refused_at_their_second_byte() {
    for bad in [b"\xe0\x80\xaf".as_slice(), b"\xf0\x8f\xbf\xbf", b"\xed\xbf\xbf", b"\xf4\x90"] {
        let stream = client_frame(Opcode::Text, true, &[bad, b"rest"].concat());
        assert_eq!(refused_at(&stream), Some((7, ProtocolError::TextInvalid)));
    }
    for bad in [b"\xc0\xaf".as_slice(), b"\xc1\xbf", b"\xf5\x80\x80\x80", b"\x80", b"\xfe"] {
        let stream = client_frame(Opcode::Text, true, &[bad, b"rest"].concat());
        assert_eq!(refused_at(&stream), Some((6, ProtocolError::TextInvalid)));
    }
}

#[test]
fn a_text_is_checked_anew_after_a_refused_or_a_finished_one() {
    let open = client_frame(Opcode::Text, true, "\u{e9}".as_bytes());
    let bad = client_frame(Opcode::Text, true, b"\xa9");
    let stream = [open.as_slice(), &bad].concat();
    assert_eq!(decode_as_server(&stream).1, Some(ProtocolError::TextInvalid));
}

#[test]
fn binary_messages_and_pings_may_hold_any_bytes() {
    let bytes: Vec<u8> = (0..=255).collect();
    let stream = [
        client_frame(Opcode::Binary, false, &bytes),
        client_frame(Opcode::Ping, true, &bytes[131..]),
        client_frame(Opcode::Continuation, true, &bytes),
    ]
    .concat();
    let expected = vec![Heard::Ping(bytes[131..].to_vec()), Heard::Binary(bytes.repeat(2))];
    assert_eq!(decode_as_server(&stream), (expected, None));
}
