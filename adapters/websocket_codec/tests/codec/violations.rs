//! One or more broken streams for every [`ProtocolError`], each with its close code, and the proof
//! that it is found at the earliest byte.

use websocket_codec::{Decoder, Limits, Opcode, ProtocolError, Role, encode_text};

use crate::support::{
    Heard, KEY, LIMITS, client_frame, client_header_64, decode, decode_as_server, feed, refused_at,
};

/// A masked empty frame with this first byte.
fn empty_frame(first: u8) -> Vec<u8> {
    [&[first, 0x80], KEY.as_slice()].concat()
}

/// The stream must be refused, in one piece and byte by byte, at its byte `index`.
fn assert_refused(stream: &[u8], index: usize, error: ProtocolError, close_code: u16) {
    assert_eq!(decode_as_server(stream).1, Some(error), "{stream:x?}");
    assert_eq!(refused_at(stream), Some((index, error)), "{stream:x?}");
    assert_eq!(error.close_code().get(), close_code);
}

#[test]
fn an_unmasked_client_frame_is_refused() {
    assert_refused(&encode_text(b"Hello"), 1, ProtocolError::MaskMissing, 1002);
    assert_refused(b"\x89\x00", 1, ProtocolError::MaskMissing, 1002);
}

#[test]
fn a_masked_server_frame_is_refused_by_a_client() {
    let stream = client_frame(Opcode::Text, true, b"Hello");
    let (heard, error) = decode(Role::Client, &stream, &LIMITS);
    assert_eq!((heard, error), (Vec::new(), Some(ProtocolError::MaskForbidden)));
    assert_eq!(ProtocolError::MaskForbidden.close_code().get(), 1002);
}

#[test]
fn reserved_bits_are_refused_on_every_kind_of_frame() {
    for bits in 1..8_u8 {
        for opcode in [0, 1, 2, 8, 9, 10] {
            let first = 0x80 | bits << 4 | opcode;
            assert_refused(&empty_frame(first), 0, ProtocolError::ReservedBit, 1002);
        }
    }
}

#[test]
fn a_compressed_frame_without_the_extension_is_refused_even_inside_a_message() {
    // "Hello" deflated, from RFC 7692 section 7.2.3.1, under RSV1.
    let mut stream = client_frame(Opcode::Text, true, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    stream[0] |= 0x40;
    assert_refused(&stream, 0, ProtocolError::ReservedBit, 1002);

    let open = client_frame(Opcode::Text, false, b"a");
    let mut continuation = client_frame(Opcode::Continuation, true, b"b");
    continuation[0] |= 0x40;
    let stream = [open.as_slice(), &continuation].concat();
    assert_refused(&stream, open.len(), ProtocolError::ReservedBit, 1002);
}

#[test]
fn reserved_opcodes_are_refused() {
    for opcode in (3..=7).chain(11..=15) {
        for fin in [0, 0x80] {
            let error = ProtocolError::ReservedOpcode(opcode);
            assert_refused(&empty_frame(fin | opcode), 0, error, 1002);
        }
    }
}

#[test]
fn fragmented_control_frames_are_refused() {
    for opcode in [8, 9, 10] {
        assert_refused(&empty_frame(opcode), 0, ProtocolError::ControlFragmented, 1002);
    }
}

#[test]
fn control_frames_over_125_bytes_are_refused() {
    for opcode in [Opcode::Close, Opcode::Ping, Opcode::Pong] {
        for len in [126, 127, 65536] {
            let stream = client_frame(opcode, true, &vec![b'a'; len]);
            assert_refused(&stream, 1, ProtocolError::ControlTooLong, 1002);
        }
    }
    let longest = client_frame(Opcode::Ping, true, &[b'a'; 125]);
    assert_eq!(decode_as_server(&longest), (vec![Heard::Ping(vec![b'a'; 125])], None));
}

#[test]
fn a_continuation_of_nothing_is_refused() {
    for first in [0x00, 0x80] {
        assert_refused(&empty_frame(first), 0, ProtocolError::ContinuationUnexpected, 1002);
    }
    let whole = client_frame(Opcode::Text, true, b"done");
    let stream = [whole.as_slice(), &empty_frame(0x80)].concat();
    assert_refused(&stream, whole.len(), ProtocolError::ContinuationUnexpected, 1002);
}

#[test]
fn a_new_message_inside_a_fragmented_one_is_refused() {
    for first in [0x01, 0x02, 0x81, 0x82] {
        let open = client_frame(Opcode::Text, false, b"");
        let stream = [open.as_slice(), &empty_frame(first)].concat();
        assert_refused(&stream, open.len(), ProtocolError::ContinuationExpected, 1002);
    }
}

#[test]
fn lengths_in_more_bytes_than_needed_are_refused() {
    for len in [0_u16, 1, 125] {
        let stream = [&[0x82, 0xfe], len.to_be_bytes().as_slice(), &KEY].concat();
        assert_refused(&stream, 3, ProtocolError::LengthNotMinimal, 1002);
    }
    for len in [0_u64, 125, 126, 65535] {
        assert_refused(&client_header_64(0x82, len), 9, ProtocolError::LengthNotMinimal, 1002);
    }
}

#[test]
fn lengths_with_the_top_bit_are_refused() {
    for len in [1 << 63, (1 << 63) + 5, u64::MAX] {
        assert_refused(&client_header_64(0x82, len), 9, ProtocolError::LengthTopBit, 1002);
    }
}

#[test]
fn a_declared_length_over_the_limit_is_refused_before_mask_and_payload() {
    for len in [65537, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 62, (1 << 63) - 1] {
        assert_refused(&client_header_64(0x82, len), 9, ProtocolError::MessageTooLong, 1009);
    }
    let exact = client_frame(Opcode::Binary, true, &[1; 65536]);
    assert_eq!(decode_as_server(&exact), (vec![Heard::Binary(vec![1; 65536])], None));
}

#[test]
fn small_limits_hold_for_short_lengths_too_and_not_for_control_frames() {
    let limits = Limits { message_bytes_max: 3, fragments_max: 2 };
    let ping = client_frame(Opcode::Ping, true, &[0; 125]);
    let stream = [ping.as_slice(), &client_frame(Opcode::Text, true, b"four")].concat();
    let outcome = decode(Role::Server, &stream, &limits);
    assert_eq!(outcome.0, [Heard::Ping(vec![0; 125])]);
    assert_eq!(outcome.1, Some(ProtocolError::MessageTooLong));
    let stream = client_frame(Opcode::Text, true, b"yes");
    assert_eq!(decode(Role::Server, &stream, &limits).1, None);
}

#[test]
fn fragments_that_add_up_to_more_than_the_limit_are_refused_at_the_header_that_does_it() {
    let half = client_frame(Opcode::Binary, false, &[0; 32768]);
    let other_half = client_frame(Opcode::Continuation, false, &[0; 32768]);
    let ping = client_frame(Opcode::Ping, true, &[0; 125]);
    let one_more = client_frame(Opcode::Continuation, false, &[0]);
    let stream = [half, other_half, ping, one_more].concat();
    let index = stream.len() - 6;
    assert_refused(&stream, index, ProtocolError::MessageTooLong, 1009);
    assert_eq!(decode_as_server(&stream[..index]), (vec![Heard::Ping(vec![0; 125])], None));
}

#[test]
fn one_fragment_over_the_limit_is_refused_whether_it_is_empty_or_not() {
    for payload in [b"".as_slice(), b"x"] {
        let first = client_frame(Opcode::Text, false, payload);
        let next = client_frame(Opcode::Continuation, false, payload);
        let allowed = [first.as_slice(), &next.repeat(1023)].concat();
        assert_eq!(decode_as_server(&allowed), (Vec::new(), None));

        let stream = [allowed.as_slice(), &next].concat();
        assert_refused(&stream, allowed.len(), ProtocolError::FragmentsTooMany, 1008);
        // A message of exactly the limit is whole.
        let last = client_frame(Opcode::Continuation, true, payload);
        let shorter = allowed.len() - next.len();
        let stream = [&allowed[..shorter], &last].concat();
        assert_eq!(decode_as_server(&stream), (vec![Heard::Text(text_of(payload, 1024))], None));
    }
}

fn text_of(payload: &[u8], n_times: usize) -> String {
    String::from_utf8(payload.repeat(n_times)).unwrap()
}

#[test]
fn the_fragment_count_starts_anew_with_each_message() {
    let message = [
        client_frame(Opcode::Text, false, b""),
        client_frame(Opcode::Continuation, false, b"").repeat(1022),
        client_frame(Opcode::Continuation, true, b""),
    ]
    .concat();
    let (heard, error) = decode_as_server(&message.repeat(3));
    assert_eq!((heard.len(), error), (3, None));
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let stream = client_frame(Opcode::Text, true, b"ab\xffcd");
    assert_refused(&stream, 8, ProtocolError::TextInvalid, 1007);
    let cut_short = client_frame(Opcode::Text, true, b"ab\xc3");
    assert_refused(&cut_short, 8, ProtocolError::TextInvalid, 1007);
}

#[test]
fn a_close_frame_of_one_byte_is_refused() {
    let stream = client_frame(Opcode::Close, true, &[3]);
    assert_refused(&stream, 6, ProtocolError::CloseTooShort, 1002);
}

#[test]
fn a_close_code_that_may_not_be_sent_is_refused() {
    let stream = client_frame(Opcode::Close, true, &1005_u16.to_be_bytes());
    assert_refused(&stream, 7, ProtocolError::CloseCodeInvalid(1005), 1002);
}

#[test]
fn a_close_reason_that_is_not_utf8_is_refused() {
    for reason in [b"\xff".as_slice(), b"gone\xe2\x82", b"\xed\xa0\x80"] {
        let payload = [&1000_u16.to_be_bytes(), reason].concat();
        let stream = client_frame(Opcode::Close, true, &payload);
        assert_refused(&stream, stream.len() - 1, ProtocolError::CloseReasonInvalid, 1007);
    }
}

#[test]
fn events_before_an_error_are_delivered_and_nothing_after_it() {
    let stream = [
        client_frame(Opcode::Text, true, b"good"),
        empty_frame(0x83),
        client_frame(Opcode::Text, true, b"late"),
    ]
    .concat();
    let (heard, error) = decode_as_server(&stream);
    assert_eq!(heard, [Heard::Text("good".to_owned())]);
    assert_eq!(error, Some(ProtocolError::ReservedOpcode(3)));

    let mut decoder = Decoder::new(Role::Server);
    let mut heard = Vec::new();
    feed(&mut decoder, &stream, &LIMITS, &mut heard).unwrap_err();
    assert!(decoder.is_ended());
    assert!(!decoder.is_mid_message());
    heard.clear();
    feed(&mut decoder, &client_frame(Opcode::Text, true, b"later"), &LIMITS, &mut heard).unwrap();
    assert_eq!(heard, []);
}
