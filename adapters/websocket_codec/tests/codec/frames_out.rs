//! Frames for the wire: the bytes of the RFC, the edges of the lengths, and the way back.

use bytes::BytesMut;
use proptest::prelude::*;
use websocket_codec::{
    Opcode, Role, append_text, encode_frame, encode_masked, encode_ping, encode_pong, encode_text,
    header_len,
};

use crate::support::{Heard, KEY, LIMITS, decode};

#[test]
fn the_examples_of_the_rfc_encode() {
    assert_eq!(&encode_text(b"Hello")[..], b"\x81\x05Hello");
    assert_eq!(&encode_frame(Opcode::Text, false, b"Hel")[..], b"\x01\x03Hel");
    assert_eq!(&encode_frame(Opcode::Continuation, true, b"lo")[..], b"\x80\x02lo");
    assert_eq!(&encode_ping(b"Hello")[..], b"\x89\x05Hello");
    assert_eq!(&encode_pong(b"Hello")[..], b"\x8a\x05Hello");
    let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(&encode_masked(Opcode::Text, true, b"Hello", KEY)[..], masked);
    assert_eq!(&encode_frame(Opcode::Binary, true, &[0; 256])[..4], b"\x82\x7e\x01\x00");
    let header = b"\x82\x7f\0\0\0\0\0\x01\0\0";
    assert_eq!(&encode_frame(Opcode::Binary, true, &[0; 65536])[..10], header);
}

#[test]
fn lengths_are_encoded_minimally_at_every_edge() {
    for (payload_len, header) in [
        (0, vec![0x82, 0]),
        (125, vec![0x82, 125]),
        (126, vec![0x82, 126, 0, 126]),
        (65535, vec![0x82, 126, 255, 255]),
        (65536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        let frame = encode_frame(Opcode::Binary, true, &vec![1; payload_len]);
        assert_eq!(header_len(payload_len), header.len());
        assert_eq!(&frame[..header.len()], header);
        assert_eq!(frame.len(), header.len() + payload_len);
    }
}

#[test]
fn a_pong_never_breaks_the_rule_it_answers_to() {
    assert_eq!(encode_pong(&[1; 125]).len(), 127);
    assert_eq!(encode_pong(&[1; 500]).len(), 127);
    assert_eq!(encode_ping(&[1; 500]).len(), 127);
}

#[test]
fn appended_texts_are_the_frames_one_after_the_other() {
    let expected = [encode_text(b"one"), encode_text(&[b'2'; 200])].concat();
    let mut vec = Vec::new();
    let mut bytes = BytesMut::new();
    for payload in [b"one".as_slice(), &[b'2'; 200]] {
        append_text(&mut vec, payload);
        append_text(&mut bytes, payload);
    }
    assert_eq!(vec, expected);
    assert_eq!(&bytes[..], expected);
}

proptest! {
    #[test]
    fn what_is_encoded_is_what_the_other_side_hears(
        payload in proptest::collection::vec(any::<u8>(), 0..300),
        key: [u8; 4],
    ) {
        let expected = (vec![Heard::Binary(payload.clone())], None);
        let from_server = encode_frame(Opcode::Binary, true, &payload);
        prop_assert_eq!(&decode(Role::Client, &from_server, &LIMITS), &expected);
        let from_client = encode_masked(Opcode::Binary, true, &payload, key);
        prop_assert_eq!(&decode(Role::Server, &from_client, &LIMITS), &expected);
    }
}
