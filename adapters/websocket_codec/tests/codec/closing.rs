//! Close frames in and out: every code there is, reasons, and the silence afterwards.

use websocket_codec::{
    CLOSE_REASON_BYTES_MAX, CloseCode, Opcode, ProtocolError, Role, encode_close,
};

use crate::support::{Heard, LIMITS, client_frame, decode, decode_as_server, feed_all};

/// Written apart from the crate, by the text of section 7.4 and the IANA registry.
fn may_be_sent(code: u16) -> bool {
    let is_forbidden = code < 1000
        || [1004, 1005, 1006, 1015].contains(&code)
        || (1016..3000).contains(&code)
        || code >= 5000;
    !is_forbidden
}

/// P18: all codes.
#[test]
fn every_one_of_the_65536_close_codes_gets_its_verdict() {
    for code in 0..=u16::MAX {
        assert_eq!(CloseCode::is_valid_on_wire(code), may_be_sent(code), "{code}");
        assert_eq!(CloseCode::new(code).map(CloseCode::get), may_be_sent(code).then_some(code));

        let stream = client_frame(Opcode::Close, true, &code.to_be_bytes());
        let outcome = feed_all(Role::Server, [stream.as_slice()], &LIMITS);
        let expected = match CloseCode::new(code) {
            Some(code) => (vec![Heard::Close(Some((code, String::new())))], None),
            None => (Vec::new(), Some(ProtocolError::CloseCodeInvalid(code))),
        };
        assert_eq!(outcome, expected);
    }
}

#[test]
fn a_close_frame_may_be_empty() {
    let stream = client_frame(Opcode::Close, true, b"");
    assert_eq!(decode_as_server(&stream), (vec![Heard::Close(None)], None));
}

#[test]
fn a_close_reason_may_have_123_bytes() {
    let reason = "\u{e9}".repeat(61) + "!";
    assert_eq!(reason.len(), CLOSE_REASON_BYTES_MAX);
    let payload = [&3005_u16.to_be_bytes(), reason.as_bytes()].concat();
    let stream = client_frame(Opcode::Close, true, &payload);
    let code = CloseCode::new(3005).unwrap();
    assert_eq!(decode_as_server(&stream), (vec![Heard::Close(Some((code, reason)))], None));
}

#[test]
fn a_close_frame_in_the_middle_of_a_message_ends_the_stream() {
    let stream = [
        client_frame(Opcode::Text, false, b"never finish"),
        client_frame(Opcode::Close, true, &1001_u16.to_be_bytes()),
        client_frame(Opcode::Continuation, true, b"ed"),
        vec![0xff; 40],
    ]
    .concat();
    let expected = vec![Heard::Close(Some((CloseCode::GOING_AWAY, String::new())))];
    assert_eq!(decode_as_server(&stream), (expected, None));
}

#[test]
fn an_encoded_close_frame_is_what_the_peer_reads() {
    let frame = encode_close(CloseCode::POLICY_VIOLATION, "too slow");
    assert_eq!(&frame[..], b"\x88\x0a\x03\xf0too slow");
    let heard = Heard::Close(Some((CloseCode::POLICY_VIOLATION, "too slow".to_owned())));
    assert_eq!(decode(Role::Client, &frame, &LIMITS), (vec![heard], None));
}

#[test]
fn a_reason_that_is_too_long_is_cut_between_two_characters() {
    let frame = encode_close(CloseCode::NORMAL, &"\u{20ac}".repeat(50));
    let heard = Heard::Close(Some((CloseCode::NORMAL, "\u{20ac}".repeat(41))));
    assert_eq!(decode(Role::Client, &frame, &LIMITS), (vec![heard], None));

    let frame = encode_close(CloseCode::NORMAL, &"\u{e9}".repeat(62));
    assert_eq!(frame.len(), 2 + 2 + 122);
}
