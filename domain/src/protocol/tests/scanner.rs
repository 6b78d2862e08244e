//! The scanner against the grammar and against another reader of JSON.

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::strategies::{json, space};
use crate::protocol::json::{
    DEPTH_MAX, JsonError, Members, compact_lines, scan_value, skip_space, unescape,
};
use crate::protocol::push_json_string;

/// Whether the whole text is one value.
fn accepts(text: &str) -> bool {
    scan_value(text, 0, DEPTH_MAX).is_ok_and(|end| skip_space(text.as_bytes(), end) == text.len())
}

/// What another reader says; none where it answers another question (numbers that no `f64` holds
/// end its reading, so what follows them stays unread).
fn other_accepts(text: &str) -> Option<bool> {
    match serde_json::from_str::<Value>(text) {
        Ok(_) => Some(true),
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(_) => Some(false),
    }
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn what_the_grammar_allows_is_taken_to_its_end() {
    for text in [
        "0",
        "-0",
        "10.25",
        "1e400",
        "1E+2",
        "1e-2",
        "true",
        "false",
        "null",
        r#""""#,
        r#""é🦀""#,
        r#""\"\\\/\b\f\n\r\t\u0000""#,
        r#""\ud83e\udd80""#,
        "[]",
        "{}",
        "[ 1 , [ ] , { } ]",
        r#"{"a":{"b":[null]},"a":1}"#,
        "\u{7f}".replace('\u{7f}', "\"\u{7f}\"").as_str(),
    ] {
        assert_eq!(scan_value(text, 0, DEPTH_MAX), Ok(text.len()), "{text}");
    }
}

#[test]
fn what_the_grammar_does_not_allow_is_refused() {
    for text in [
        "",
        " ",
        "01",
        "-01",
        "+1",
        "1.",
        ".1",
        "1e",
        "1e+",
        "-",
        "--1",
        "0x1",
        "1a",
        "NaN",
        "Infinity",
        "nul",
        "nulll",
        "True",
        "truefalse",
        "'a'",
        "\"",
        "\"a",
        "\"\n\"",
        "\"\u{1}\"",
        r#""\x""#,
        r#""\u12""#,
        r#""\u12g4""#,
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\u0041""#,
        r#""\ud800\ud800""#,
        r#""\ud800"#,
        r#""\"#,
        "[",
        "]",
        "[1",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "}",
        "{1:2}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a":1"#,
        "[1}",
        r#"{"a":1]"#,
        "\u{feff}1",
        "//",
        "[1]]",
        "\u{a0}1",
    ] {
        assert!(!accepts(text), "{text:?}");
    }
}

#[test]
fn nesting_is_taken_to_the_limit_and_refused_one_deeper_whatever_its_size() {
    for (depth, is_taken) in [(1, true), (63, true), (64, true), (65, false), (127, false)] {
        assert_eq!(accepts(&nested(depth)), is_taken, "{depth}");
    }
    for depth in [128, 10_000, 1_000_000] {
        assert_eq!(scan_value(&nested(depth), 0, 64), Err(JsonError::TooDeep { at: 64 }));
        let objects = r#"{"a":"#.repeat(depth);
        assert_eq!(scan_value(&objects, 0, 64), Err(JsonError::TooDeep { at: 64 * 5 }));
    }
    assert_eq!(scan_value("[[]]", 0, 1), Err(JsonError::TooDeep { at: 1 }));
    assert_eq!(scan_value("1", 0, 0), Ok(1));
    assert_eq!(scan_value(&nested(65), 0, u32::MAX), Err(JsonError::TooDeep { at: 64 }));
}

#[test]
fn a_special_byte_is_found_at_every_place_of_a_string() {
    for length in 0..40 {
        for special in ["\u{0}", "\u{1f}", "\n"] {
            let text = format!("\"{}{special}{}\"", "é".repeat(length), "x".repeat(9));
            assert_eq!(scan_value(&text, 0, 0), Err(JsonError::Syntax { at: 1 + 2 * length }));
        }
        let text = format!("\"{}\\\"\u{7f}\u{80}!#[]{}\"", "x".repeat(length), "y".repeat(9));
        assert_eq!(scan_value(&text, 0, 0), Ok(text.len()));
    }
}

#[test]
fn members_come_with_their_keys_unescaped_and_their_values_untouched() {
    let text = r#" { "\u0074ype" : [ 1 ] ,"a":"b" } tail"#;
    let mut members = Members::open(text, 1, DEPTH_MAX).unwrap();
    assert_eq!(members.next_member(), Ok(Some((Cow::Borrowed("type"), "[ 1 ]"))));
    assert_eq!(members.next_member(), Ok(Some((Cow::Borrowed("a"), r#""b""#))));
    assert_eq!(members.next_member(), Ok(None));
    assert_eq!(&text[members.end()..], " tail");
    for broken in ["{,}", "{\"a\":1,}", "{\"a\":1 \"b\":2}", "{\"a\"", "{"] {
        let mut members = Members::open(broken, 0, DEPTH_MAX).unwrap();
        let all = std::iter::from_fn(|| members.next_member().transpose()).take(9);
        assert!(all.last().unwrap().is_err(), "{broken}");
    }
    assert!(Members::open("[]", 0, DEPTH_MAX).is_none());
    assert!(Members::open("", 0, DEPTH_MAX).is_none());
}

#[test]
fn a_text_without_line_breaks_is_not_copied() {
    assert!(matches!(compact_lines(r#"{"a": "\n"}"#), Cow::Borrowed(_)));
    assert_eq!(compact_lines("{\r\n \"a\":\n1 }"), "{ \"a\":1 }");
}

proptest! {
    #[test]
    fn every_valid_text_is_taken(text in json()) {
        prop_assert_eq!(scan_value(&text, 0, DEPTH_MAX), Ok(text.len()));
        prop_assert!(serde_json::from_str::<&RawValue>(&text).is_ok());
    }

    #[test]
    fn a_broken_text_is_refused_where_another_reader_refuses_it(
        text in json(),
        at: prop::sample::Index,
        until: prop::sample::Index,
        patch in prop::sample::select(vec![
            "", ",", ":", "\"", "\\", "{", "}", "[", "]", "0", "1", ".", "e", "-", "+", "t", "\n",
            "null", "\\u", "\\ud800", "\\udc00", "\u{0}", "é", "//", " ",
        ]),
    ) {
        let chars: Vec<char> = text.chars().collect();
        let (a, b) = (at.index(chars.len() + 1), until.index(chars.len() + 1));
        let (a, b) = (a.min(b), a.max(b).min(a.min(b) + 2));
        let text: String =
            chars[..a].iter().copied().chain(patch.chars()).chain(chars[b..].iter().copied()).collect();
        if let Some(expected) = other_accepts(&text) {
            prop_assert_eq!(accepts(&text), expected, "{}", text);
        }
    }

    #[test]
    fn a_text_of_json_characters_is_refused_where_another_reader_refuses_it(
        text in r#"[ \n{}\[\]:,"\\u0-9a-fdtrlns.eE+-]{0,14}"#,
    ) {
        if let Some(expected) = other_accepts(&text) {
            prop_assert_eq!(accepts(&text), expected, "{}", text);
        }
    }

    #[test]
    fn a_string_written_and_read_is_the_same(text: String) {
        let mut out = Vec::new();
        push_json_string(&mut out, &text);
        let written = String::from_utf8(out).unwrap();
        prop_assert_eq!(scan_value(&written, 0, 0), Ok(written.len()));
        prop_assert_eq!(&unescape(&written), &text);
        prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }

    #[test]
    fn escapes_mean_what_another_reader_takes_them_for(
        text in r#"(\\["\\/bfnrt]|\\u[0-9a-cA-C][0-9a-fA-F]{3}|\\ud8[0-9a-f]{2}\\udf[0-9a-f]{2}|[a-zé🦀])*"#,
    ) {
        let text = format!("\"{text}\"");
        prop_assert!(accepts(&text));
        prop_assert_eq!(unescape(&text).into_owned(), serde_json::from_str::<String>(&text).unwrap());
    }

    #[test]
    fn a_value_on_one_line_is_the_same_value(text in json(), around in space()) {
        let raw = format!("{around}{text}");
        let line = compact_lines(&raw);
        prop_assert!(!line.contains(['\n', '\r']));
        prop_assert_eq!(line.replace(' ', ""), raw.replace(['\n', '\r', ' '], ""));
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        }
    }
}
