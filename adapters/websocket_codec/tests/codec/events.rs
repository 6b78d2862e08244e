//! Streams that keep the rules, and the events they must give (RFC 6455 section 5.7 and others).

use std::borrow::Cow;

use websocket_codec::{Decoder, Event, Opcode, Role, encode_frame, encode_text};

use crate::support::{Heard, LIMITS, client_frame, decode, decode_as_server, feed_all};

#[test]
fn the_examples_of_the_rfc_decode() {
    let hello = || vec![Heard::Text("Hello".to_owned())];
    let as_client = |stream: &[u8]| decode(Role::Client, stream, &LIMITS);

    assert_eq!(as_client(b"\x81\x05Hello"), (hello(), None));
    assert_eq!(as_client(b"\x01\x03Hel\x80\x02lo"), (hello(), None));
    assert_eq!(as_client(b"\x89\x05Hello"), (vec![Heard::Ping(b"Hello".to_vec())], None));
    let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(decode_as_server(masked), (hello(), None));
    let masked_pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(decode_as_server(masked_pong), (vec![Heard::Pong(b"Hello".to_vec())], None));

    let long = vec![7; 256];
    let stream = [b"\x82\x7e\x01\x00", long.as_slice()].concat();
    assert_eq!(as_client(&stream), (vec![Heard::Binary(long)], None));
    let longer = vec![7; 65536];
    let stream = [b"\x82\x7f\0\0\0\0\0\x01\0\0", longer.as_slice()].concat();
    assert_eq!(as_client(&stream), (vec![Heard::Binary(longer)], None));
}

#[test]
fn a_whole_frame_in_the_input_is_borrowed_from_it() {
    for opcode in [Opcode::Text, Opcode::Binary, Opcode::Ping, Opcode::Pong] {
        let mut input = client_frame(opcode, true, b"{\"type\":\"hello\"}");
        let mut decoder = Decoder::new(Role::Server);
        let decoded = decoder.decode(&mut input, &LIMITS).unwrap();
        let is_borrowed = matches!(
            decoded.event,
            Some(
                Event::Text(Cow::Borrowed(_))
                    | Event::Binary(Cow::Borrowed(_))
                    | Event::Ping(Cow::Borrowed(_))
                    | Event::Pong(Cow::Borrowed(_))
            )
        );
        assert!(is_borrowed, "{opcode:?}");
        assert_eq!(decoder.buffer_bytes(), 0);
    }
}

#[test]
fn a_caller_may_stop_after_any_event_and_find_the_rest_untouched() {
    let first = client_frame(Opcode::Text, true, b"one");
    let second = client_frame(Opcode::Text, true, b"two");
    let mut input = [first.as_slice(), &second].concat();
    let mut decoder = Decoder::new(Role::Server);

    let decoded = decoder.decode(&mut input, &LIMITS).unwrap();
    assert_eq!(decoded.used, first.len());
    assert_eq!(decoded.event, Some(Event::Text(Cow::Borrowed("one"))));
    assert_eq!(&input[first.len()..], second);

    let decoded = decoder.decode(&mut input[first.len()..], &LIMITS).unwrap();
    assert_eq!(decoded.event, Some(Event::Text(Cow::Borrowed("two"))));
}

#[test]
fn an_event_does_not_keep_the_decoder_borrowed() {
    let stream = encode_frame(Opcode::Text, false, b"a");
    let mut decoder = Decoder::new(Role::Client);
    let mut input = [&stream[..], b"\x80\x01b", &encode_text(b"c")].concat();
    let (head, tail) = input.split_at_mut(6);
    let first = decoder.decode(head, &LIMITS).unwrap().event;
    let second = decoder.decode(tail, &LIMITS).unwrap().event;
    assert_eq!(first, Some(Event::Text("ab".into())));
    assert_eq!(second, Some(Event::Text("c".into())));
}

#[test]
fn control_frames_between_fragments_are_delivered_at_once_and_leave_the_message_alone() {
    let stream = [
        client_frame(Opcode::Text, false, b"Hel"),
        client_frame(Opcode::Ping, true, b"are you there"),
        client_frame(Opcode::Continuation, false, b""),
        client_frame(Opcode::Pong, true, b""),
        client_frame(Opcode::Continuation, true, b"lo"),
    ]
    .concat();
    let expected = vec![
        Heard::Ping(b"are you there".to_vec()),
        Heard::Pong(Vec::new()),
        Heard::Text("Hello".to_owned()),
    ];
    assert_eq!(decode_as_server(&stream), (expected, None));
}

#[test]
fn empty_messages_and_messages_of_empty_fragments_are_messages() {
    let stream = [
        client_frame(Opcode::Text, true, b""),
        client_frame(Opcode::Binary, false, b""),
        client_frame(Opcode::Continuation, false, b""),
        client_frame(Opcode::Continuation, true, b""),
    ]
    .concat();
    let expected = vec![Heard::Text(String::new()), Heard::Binary(Vec::new())];
    assert_eq!(decode_as_server(&stream), (expected, None));
}

#[test]
fn a_thousand_frames_in_one_input_are_a_thousand_events() {
    let stream = client_frame(Opcode::Text, true, b"x").repeat(1000);
    let (heard, error) = decode_as_server(&stream);
    assert_eq!(heard, vec![Heard::Text("x".to_owned()); 1000]);
    assert_eq!(error, None);
}

#[test]
fn a_pong_of_any_payload_is_only_reported() {
    let stream = [
        client_frame(Opcode::Pong, true, b"never asked for"),
        client_frame(Opcode::Pong, true, &[0xff; 125]),
        client_frame(Opcode::Text, true, b"on"),
    ]
    .concat();
    let (heard, error) = decode_as_server(&stream);
    assert_eq!((heard.len(), error), (3, None));
}

#[test]
fn an_empty_input_is_no_event() {
    assert_eq!(feed_all(Role::Server, [b"".as_slice()], &LIMITS), (Vec::new(), None));
    let decoded = Decoder::new(Role::Server).decode(&mut [], &LIMITS).map(|done| done.used);
    assert_eq!(decoded, Ok(0));
}

#[test]
fn a_message_in_progress_shows_from_its_first_byte_to_its_last() {
    let mut stream = [
        client_frame(Opcode::Text, false, b"a"),
        client_frame(Opcode::Ping, true, b"p"),
        client_frame(Opcode::Continuation, true, b"b"),
    ]
    .concat();
    let mut decoder = Decoder::new(Role::Server);
    assert!(!decoder.is_mid_message());
    let last = stream.len() - 1;
    for (index, byte) in stream.chunks_mut(1).enumerate() {
        decoder.decode(byte, &LIMITS).unwrap();
        assert_eq!(decoder.is_mid_message(), index < last, "byte {index}");
    }
}
