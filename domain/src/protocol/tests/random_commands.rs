//! Random commands, whole and damaged.

use proptest::prelude::*;

use super::commands::taken;
use super::strategies::{command, json, space};
use crate::codes::ErrorCode;
use crate::protocol::{ClientFrame, decode, encode_client};

proptest! {
    #[test]
    fn a_command_written_and_read_is_the_same(frame in command()) {
        let text = encode_client(&frame);
        prop_assert_eq!(taken(&text), frame);
    }

    #[test]
    fn several_frames_in_one_text_are_read_in_order(
        frames in prop::collection::vec((command(), space()), 1..8), before in space(),
    ) {
        let written = frames.iter().map(|(frame, after)| encode_client(frame) + after);
        let text: String = std::iter::once(before.to_owned()).chain(written).collect();
        let read: Vec<_> = decode(&text).map(Result::unwrap).collect();
        let expected: Vec<_> = frames.iter().map(|(frame, _)| frame.clone()).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn data_comes_out_byte_for_byte(data in json(), a in space(), b in space()) {
        let text = format!(r#"{{"room":"public:r0","data":{a}{data}{b},"type":"publish"}}"#);
        let frame = taken(&text);
        let ClientFrame::Publish { data: got, .. } = frame else { panic!() };
        prop_assert_eq!(got, data);
    }

    #[test]
    fn no_text_at_all_upsets_the_reader(text: String) {
        prop_assert!(decode(&text).count() >= 1);
    }

    #[test]
    fn a_damaged_command_is_a_command_or_a_refusal_and_never_more(
        frame in command(), at: prop::sample::Index, patch in any::<char>(),
    ) {
        let mut chars: Vec<char> = encode_client(&frame).chars().collect();
        let at = at.index(chars.len());
        chars[at] = patch;
        let text: String = chars.into_iter().collect();
        for result in decode(&text) {
            if let Err(rejected) = result {
                prop_assert_eq!(rejected.strike, rejected.code == ErrorCode::BadRequest);
                prop_assert!(rejected.strike || rejected.field.is_some());
            }
        }
    }

    #[test]
    fn fields_of_random_values_are_refused_by_name_or_taken(
        kind in prop::sample::select(vec![
            "connect", "subscribe", "unsubscribe", "publish", "presence", "presence_update",
            "history", "refresh", "ping", "pong", "status",
        ]),
        fields in prop::collection::hash_map(
            prop::sample::select(vec![
                "room", "data", "msg_id", "echo", "class", "key", "ttl_ms", "tags", "since",
                "presence", "filter", "limit", "token", "session", "resume", "timestamp", "id",
                "traceparent",
            ]),
            json(),
            0..6,
        ),
    ) {
        let all: String = fields.iter().map(|(name, value)| format!(r#","{name}":{value}"#)).collect();
        let text = format!(r#"{{"type":"{kind}"{all}}}"#);
        let results: Vec<_> = decode(&text).collect();
        prop_assert_eq!(results.len(), 1);
        if let Err(rejected) = &results[0] {
            prop_assert!(!rejected.strike);
            let field = rejected.field.as_deref().unwrap();
            let is_at_fault = fields.contains_key(field) || field == "key";
            prop_assert!(is_at_fault || rejected.message == "is missing", "{:?}", rejected);
        }
    }
}
