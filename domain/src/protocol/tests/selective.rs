//! Tags, filters and patterns on the wire.

use bytes::Bytes;
use proptest::prelude::*;

use super::commands::{invalid, refused_field, taken, too_large};
use super::frames::{line, publication};
use super::strategies::{filter, tags};
use crate::filter::Filter;
use crate::message::{Publication, TombstoneReason};
use crate::position::Offset;
use crate::principal::RoomPattern;
use crate::protocol::selective::{
    FILTER_BYTES_MAX, mark_pattern, mark_previous, parse_tags, push_tags,
};
use crate::protocol::{
    ClientFrame, ServerEvent, ServerFrame, decode_server, encode_client, encode_message,
};
use crate::tags::Tags;

fn subscribe(filter: &str) -> String {
    format!(r#""room":"public:r0","filter":{filter}"#)
}

fn filter_of(json: &str) -> Filter {
    let text = format!(r#"{{"type":"subscribe",{}}}"#, subscribe(json));
    let ClientFrame::Subscribe { filter: Some(filter), .. } = taken(&text) else { panic!() };
    filter
}

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_documented_filter_is_taken_and_decides() {
    let filter = filter_of(r#"{"and":[{"eq":{"lang":"de"}},{"not":{"in":{"kind":["a","b"]}}}]}"#);
    let matches =
        |pairs: &[(&str, &str)]| filter.matches(&Tags::build(pairs.iter().copied()).unwrap());
    assert!(matches(&[("lang", "de")]));
    assert!(matches(&[("kind", "c"), ("lang", "de")]));
    assert!(!matches(&[("kind", "b"), ("lang", "de")]));
    assert!(!matches(&[("lang", "en")]));
    assert!(!matches(&[]));
    // What is escaped is the same.
    assert_eq!(
        filter_of(r#"{"eq":{"l\u0061ng":"d\u0065"}}"#),
        filter_of(r#"{"eq":{"lang":"de"}}"#)
    );
}

#[test]
fn a_filter_of_another_shape_is_refused_by_name() {
    for wrong in [
        "1",
        "\"x\"",
        "[]",
        "{}",
        "true",
        r#"{"xor":[]}"#,
        r#"{"and":[]}"#,
        r#"{"or":[]}"#,
        r#"{"and":{"eq":{"a":"1"}}}"#,
        r#"{"and":[1]}"#,
        r#"{"not":[]}"#,
        r#"{"not":null}"#,
        r#"{"eq":{}}"#,
        r#"{"eq":{"a":1}}"#,
        r#"{"eq":{"a":"1","b":"2"}}"#,
        r#"{"eq":"a"}"#,
        r#"{"in":{"a":"1"}}"#,
        r#"{"in":{"a":[]}}"#,
        r#"{"in":{"a":[1]}}"#,
        r#"{"eq":{"a":"1"},"eq":{"a":"2"}}"#,
        r#"{"eq":{"a":"1"},"not":{"eq":{"a":"2"}}}"#,
    ] {
        assert_eq!(refused_field("subscribe", &subscribe(wrong)), invalid("filter"), "{wrong}");
    }
    for kind in ["publish", "history", "presence"] {
        let data = if kind == "publish" { r#","data":1"# } else { "" };
        let fields = format!(r#"{}{data}"#, subscribe(r#"{"eq":{"a":"1"}}"#));
        assert_eq!(refused_field(kind, &fields), invalid("filter"), "{kind}");
    }
}

#[test]
fn every_limit_of_a_filter_is_exact_on_the_wire() {
    let nots = |levels: usize| {
        let (open, close) = (r#"{"not":"#.repeat(levels - 1), "}".repeat(levels - 1));
        format!(r#"{open}{{"eq":{{"a":"1"}}}}{close}"#)
    };
    let wide =
        |parts: usize| format!(r#"{{"or":[{}]}}"#, vec![r#"{"eq":{"a":"1"}}"#; parts].join(","));
    let values =
        |count: usize| format!(r#"{{"in":{{"a":[{}]}}}}"#, vec![r#""v""#; count].join(","));
    let long = |bytes: usize| format!(r#"{{"eq":{{"a":"{}"}}}}"#, "x".repeat(bytes));
    let spaced = |bytes: usize| format!(r#"{{{}"eq":{{"a":"1"}}}}"#, " ".repeat(bytes - 16));
    for at in [nots(8), wide(31), values(64), long(64), spaced(FILTER_BYTES_MAX)] {
        filter_of(&at);
    }
    for over in [nots(9), wide(32), values(65), long(65), spaced(FILTER_BYTES_MAX + 1), nots(60)] {
        assert_eq!(refused_field("subscribe", &subscribe(&over)), too_large("filter"), "{over}");
    }
}

#[test]
fn a_pattern_ends_with_a_star_and_comes_alone() {
    let text = r#"{"type":"subscribe","id":1,"pattern":"game:zone/*"}"#;
    let pattern = RoomPattern::parse("game:zone/*").unwrap();
    assert_eq!(
        taken(text),
        ClientFrame::SubscribePattern { id: Some(1), pattern: pattern.clone() }
    );
    let left = ClientFrame::UnsubscribePattern { id: None, pattern };
    assert_eq!(taken(r#"{"type":"unsubscribe","pattern":"game:zone/*"}"#), left);
    for kind in ["subscribe", "unsubscribe"] {
        for wrong in [r#""*""#, r#""game:zone/1""#, r#""ga*""#, r#""game:*x*""#, r#""""#, "1"] {
            let fields = format!(r#""pattern":{wrong}"#);
            assert_eq!(refused_field(kind, &fields), invalid("pattern"), "{wrong}");
        }
        let long = format!(r#""pattern":"game:{}*""#, "x".repeat(250));
        assert_eq!(refused_field(kind, &long), too_large("pattern"));
        let both = r#""pattern":"game:*","room":"game:a""#;
        assert_eq!(refused_field(kind, both), invalid("room"));
    }
    for (field, value) in [("since", "{}"), ("presence", "true"), ("filter", "{}")] {
        let fields = format!(r#""pattern":"game:*","{field}":{value}"#);
        assert_eq!(refused_field("subscribe", &fields), invalid(field));
    }
    assert_eq!(refused_field("publish", r#""pattern":"game:*","data":1"#), invalid("pattern"));
}

#[test]
fn only_a_message_with_tags_has_them_and_a_tombstone_never() {
    let none = text_of(encode_message(&publication()));
    assert!(!none.contains("tags"));
    let tags = Tags::build([("lang", "de"), ("k\"", "v\n")]).unwrap();
    let tagged = Publication { tags, ..publication() };
    let text = text_of(encode_message(&tagged));
    assert!(text.contains(r#"},"tags":{"k\"":"v\n","lang":"de"},"data":"#), "{text}");
    let gone = tagged.into_tombstone(TombstoneReason::Deleted);
    assert!(!text_of(encode_message(&gone)).contains("lang"));
}

#[test]
fn a_mark_stands_before_the_time_and_changes_nothing_else() {
    let plain = text_of(encode_message(&publication()));
    let (body, tail) = plain.split_at(plain.rfind(r#","timestamp""#).unwrap());
    let previous = Offset::parse(41).unwrap();
    let marked = text_of(mark_previous(plain.as_bytes(), previous));
    assert_eq!(marked, format!(r#"{body},"previous":41{tail}"#));
    let pattern = RoomPattern::parse("public:r*").unwrap();
    let marked = text_of(mark_pattern(plain.as_bytes(), &pattern));
    assert_eq!(marked, format!(r#"{body},"pattern":"public:r*"{tail}"#));
    let Some(Ok(ServerEvent::Message(read))) = decode_server(&marked).next() else { panic!() };
    assert_eq!((read.pattern.as_deref(), read.previous), (Some("public:r*"), None));
}

#[test]
fn the_answers_about_a_pattern_say_that_nothing_is_recovered() {
    let pattern = &RoomPattern::parse("game:*").unwrap();
    let text = line(&ServerFrame::PatternSubscribed { id: Some(2), pattern });
    let expected = r#"{"type":"subscribed","id":2,"room":null,"pattern":"game:*","epoch":null,"offset":null,"recovered":false,"messages":[],"more":false,"timestamp":"#;
    assert!(text.starts_with(expected), "{text}");
    let read = decode_server(&text).next().unwrap().unwrap();
    assert!(matches!(read, ServerEvent::PatternSubscribed(told) if told.pattern == "game:*"));
    let code = Some(crate::codes::ErrorCode::PermissionDenied);
    let text = line(&ServerFrame::PatternUnsubscribed { id: None, pattern, code });
    let expected = r#"{"type":"unsubscribed","id":null,"room":null,"pattern":"game:*","code":103,"reason":"permission_denied","timestamp":"#;
    assert!(text.starts_with(expected), "{text}");
    let read = decode_server(&text).next().unwrap().unwrap();
    assert!(matches!(read, ServerEvent::PatternUnsubscribed(told) if told.code == Some(103)));
}

proptest! {
    #[test]
    fn a_filter_written_and_read_is_the_same(filter in filter()) {
        let room = crate::room::RoomId::parse("public:r0").unwrap();
        let frame = ClientFrame::Subscribe {
            id: None, room, since: None, presence: false, filter: Some(filter.clone()),
        };
        let text = encode_client(&frame);
        let ClientFrame::Subscribe { filter: read, .. } = taken(&text) else { panic!() };
        prop_assert_eq!(read, Some(filter));
    }

    #[test]
    fn tags_written_and_read_are_the_same(tags in tags(), offset in 0u64..1_000_000) {
        let mut out = Vec::new();
        push_tags(&mut out, &tags);
        prop_assert_eq!(parse_tags(&text_of(out)), Some(tags.clone()));
        let message = Publication { tags: tags.clone(), data: Bytes::new(), ..publication() };
        let previous = Offset::parse(offset).unwrap();
        let text = text_of(mark_previous(&encode_message(&message), previous));
        let Some(Ok(ServerEvent::Message(read))) = decode_server(&text).next() else { panic!() };
        let pairs = read.tags.iter().map(|(name, value)| (&**name, &**value));
        prop_assert_eq!(Tags::build(pairs), Ok(tags));
        prop_assert_eq!(read.previous, Some(offset));
    }

    #[test]
    fn no_text_at_all_is_taken_for_tags_that_are_none(text: String) {
        if let Some(tags) = parse_tags(&text) {
            prop_assert!(tags.iter().count() <= Tags::COUNT_MAX);
        }
    }

    #[test]
    fn no_json_upsets_the_reader_of_filters(json in super::strategies::json()) {
        let text = format!(r#"{{"type":"subscribe",{}}}"#, subscribe(&json));
        prop_assert_eq!(crate::protocol::decode(&text).count(), 1);
    }
}
