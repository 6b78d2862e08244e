//! The metamorphic law: how the network cuts a stream changes nothing that is heard.

use proptest::prelude::*;
use websocket_codec::{Limits, Opcode, Role, encode_frame};

use crate::support::{Outcome, client_frame, feed_all};

/// Small limits, so that random streams meet them.
const LIMITS: Limits = Limits { message_bytes_max: 400, fragments_max: 5 };

/// Frames that mostly keep the rules: whole messages, fragments and controls, in any order.
fn frames(role: Role) -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        6 => "[a-z\u{e9}\u{20ac}\u{1f600}]{0,40}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => (120..140_usize).prop_map(|len| vec![b'a'; len]),
    ];
    let opcode = prop::sample::select(vec![
        Opcode::Text,
        Opcode::Text,
        Opcode::Binary,
        Opcode::Continuation,
        Opcode::Ping,
        Opcode::Pong,
        Opcode::Close,
    ]);
    (opcode, prop::bool::weighted(0.8), payload).prop_map(
        move |(opcode, fin, payload)| match role {
            Role::Server => client_frame(opcode, fin, &payload),
            Role::Client => encode_frame(opcode, fin, &payload).to_vec(),
        },
    )
}

/// One message in fragments with pings between them, which no random order would often build.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let text = "[a-z\u{e9}\u{20ac}\u{1f600}]{0,60}";
    (text, proptest::collection::vec(any::<prop::sample::Index>(), 0..4), any::<bool>()).prop_map(
        |(text, cuts, with_pings)| {
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            ends.sort_unstable();
            ends.push(text.len());
            let n_frames = ends.len();
            let mut stream = Vec::new();
            let mut start = 0;
            for (index, end) in ends.into_iter().enumerate() {
                let opcode = if index == 0 { Opcode::Text } else { Opcode::Continuation };
                let payload = &text.as_bytes()[start..end];
                stream.extend(client_frame(opcode, index + 1 == n_frames, payload));
                if with_pings {
                    stream.extend(client_frame(
                        Opcode::Ping,
                        true,
                        &text.as_bytes()[start..end.min(start + 125)],
                    ));
                }
                start = end;
            }
            stream
        },
    )
}

fn damaged(stream: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (stream, any::<prop::sample::Index>(), 0..8_u8).prop_map(|(mut stream, index, bit)| {
        if !stream.is_empty() {
            let index = index.index(stream.len());
            stream[index] ^= 1 << bit;
        }
        stream
    })
}

/// Decodes in one piece, with one cut at every place, byte by byte, and in equal pieces.
fn assert_cuts_change_nothing(role: Role, stream: &[u8]) -> Outcome {
    let whole = feed_all(role, [stream], &LIMITS);
    for cut in 0..=stream.len() {
        let (head, tail) = stream.split_at(cut);
        assert_eq!(feed_all(role, [head, tail], &LIMITS), whole, "cut at {cut} of {stream:x?}");
    }
    for size in 1..8 {
        assert_eq!(feed_all(role, stream.chunks(size), &LIMITS), whole, "pieces of {size}");
    }
    whole
}

#[test]
fn pairs_of_cuts_change_nothing_in_a_short_conversation() {
    let stream = [
        client_frame(Opcode::Text, false, "\u{20ac}".as_bytes()),
        client_frame(Opcode::Ping, true, b"p"),
        client_frame(Opcode::Continuation, true, "\u{e9}".as_bytes()),
        client_frame(Opcode::Binary, true, &[3; 126]),
        client_frame(Opcode::Close, true, b"\x03\xe8bye"),
    ]
    .concat();
    let whole = feed_all(Role::Server, [stream.as_slice()], &LIMITS);
    assert_eq!((whole.0.len(), whole.1), (4, None));
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(feed_all(Role::Server, pieces, &LIMITS), whole, "{first}, {second}");
        }
    }
}

proptest! {
    #[test]
    fn cuts_change_nothing_for_a_server(
        frames in proptest::collection::vec(frames(Role::Server), 0..12),
    ) {
        assert_cuts_change_nothing(Role::Server, &frames.concat());
    }

    #[test]
    fn cuts_change_nothing_for_a_client(
        frames in proptest::collection::vec(frames(Role::Client), 0..12),
    ) {
        assert_cuts_change_nothing(Role::Client, &frames.concat());
    }

    /// P28: every cut of frames that are drawn.
    #[test]
    fn cuts_change_nothing_in_a_lawful_conversation(
        parts in proptest::collection::vec(conversation(), 1..4),
    ) {
        let (heard, error) = assert_cuts_change_nothing(Role::Server, &parts.concat());
        prop_assert!(heard.len() >= parts.len());
        prop_assert_eq!(error, None);
    }

    #[test]
    fn cuts_change_nothing_in_a_conversation_with_one_flipped_bit(
        stream in damaged(
            proptest::collection::vec(conversation(), 1..3).prop_map(|parts| parts.concat())
        ),
    ) {
        assert_cuts_change_nothing(Role::Server, &stream);
    }

    #[test]
    fn random_bytes_never_panic_and_cuts_change_nothing(
        stream in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        assert_cuts_change_nothing(Role::Server, &stream);
        assert_cuts_change_nothing(Role::Client, &stream);
    }
}
