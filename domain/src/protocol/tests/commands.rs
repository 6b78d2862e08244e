//! Commands, and every way in which a text is none.

use crate::codes::ErrorCode;
use crate::id::Epoch;
use crate::position::Offset;
use crate::protocol::client_frame::UNKNOWN_EPOCH;
use crate::protocol::{ClientFrame, Rejected, decode};

fn all(text: &str) -> Vec<Result<ClientFrame<'_>, Rejected>> {
    decode(text).collect()
}

pub(super) fn taken(text: &str) -> ClientFrame<'_> {
    match all(text).as_slice() {
        [Ok(frame)] => frame.clone(),
        other => panic!("{text}: {other:?}"),
    }
}

fn refused(text: &str) -> Rejected {
    match all(text).as_slice() {
        [Err(rejected)] => rejected.clone(),
        other => panic!("{text}: {other:?}"),
    }
}

/// The refusal of a command for a field, checked to be no strike and to carry its id.
pub(super) fn refused_field(kind: &str, fields: &str) -> (ErrorCode, String) {
    let comma = if fields.is_empty() { "" } else { "," };
    let rejected = refused(&format!(r#"{{"type":"{kind}","id":7{comma}{fields}}}"#));
    assert!(!rejected.strike, "{rejected:?}");
    assert_eq!(rejected.id, Some(7), "{rejected:?}");
    (rejected.code, rejected.field.unwrap().into_owned())
}

pub(super) fn invalid(field: &str) -> (ErrorCode, String) {
    (ErrorCode::InvalidField, field.to_owned())
}

pub(super) fn too_large(field: &str) -> (ErrorCode, String) {
    (ErrorCode::TooLarge, field.to_owned())
}

fn publish(more: &str) -> String {
    format!(r#""room":"public:r0","data":1{more}"#)
}

#[test]
fn a_text_that_is_no_object_is_a_strike_without_an_id() {
    for text in [
        "",
        " \n",
        "null",
        "true",
        "7",
        "1e400",
        "\"ping\"",
        "[]",
        r#"[{"type":"ping"}]"#,
        "NaN",
        "ping",
        "\u{feff}{\"type\":\"ping\"}",
        "{",
        r#"{"type":"ping","id":1"#,
        r#"{"type":ping}"#,
        r#"{"type":"ping","id":01}"#,
        r#"{"type":"ping",}"#,
        "{}",
        r#"{"type":"\ud800"}"#,
    ] {
        let rejected = refused(text);
        assert!(rejected.strike, "{text:?}");
        assert_eq!((rejected.id, rejected.code), (None, ErrorCode::BadRequest), "{text:?}");
    }
}

#[test]
fn a_type_that_is_no_string_is_a_strike_that_keeps_the_id() {
    for value in ["null", "1", "true", "[]", "{}", r#"["ping"]"#, r#"[{"toString":1}]"#] {
        let rejected = refused(&format!(r#"{{"id":3,"type":{value}}}"#));
        assert!(rejected.strike && rejected.field.as_deref() == Some("type"), "{value}");
        assert_eq!((rejected.id, rejected.code), (Some(3), ErrorCode::BadRequest));
    }
}

#[test]
fn what_stands_behind_a_frame_is_judged_by_itself() {
    let garbage = all(r#"{"type":"ping"} x {"type":"ping"}"#);
    assert!(matches!(garbage.as_slice(), [Ok(_), Err(r)] if r.strike), "{garbage:?}");
    let valid = all(r#"{"type":"ping"}null[1]{"type":"pong"}{}"#);
    assert!(
        matches!(valid.as_slice(), [Ok(_), Err(_), Err(_), Ok(ClientFrame::Pong), Err(_)]),
        "{valid:?}"
    );
    let mut ended = decode("x");
    assert!(ended.next().is_some() && ended.next().is_none() && ended.next().is_none());
}

#[test]
fn data_may_be_nested_to_the_limit_and_one_deeper_is_a_strike() {
    let frame = |depth: usize| {
        let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"type":"publish","id":3,"room":"public:r0","data":{data}}}"#)
    };
    for depth in [1, 64] {
        assert!(matches!(taken(&frame(depth)), ClientFrame::Publish { .. }));
    }
    for depth in [65, 127, 128, 10_000, 1_000_000] {
        let text = frame(depth) + r#"{"type":"ping"}"#;
        let rejected = refused(&text);
        assert!(rejected.strike, "{depth}");
        assert_eq!((rejected.id, rejected.code), (Some(3), ErrorCode::BadRequest));
    }
}

#[test]
fn a_key_that_comes_twice_is_a_strike_however_it_is_spelled() {
    for fields in [
        r#""room":"public:a","room":"public:b""#,
        r#""room":"public:a","\u0072oom":"public:a""#,
        r#""x":1,"x":1"#,
        r#""x":1,"\u0078":1"#,
        r#""__proto__":1,"__proto__":2"#,
    ] {
        let rejected = refused(&format!(r#"{{"type":"subscribe","id":4,{fields}}}"#));
        assert!(rejected.strike && rejected.code == ErrorCode::BadRequest, "{fields}");
        assert_eq!(rejected.id, Some(4), "{fields}");
    }
    for ids in [r#""id":1,"id":2"#, r#""id":1,"id":2,"id":3"#, r#""id":1,"id":1,"x":1,"x":1"#] {
        let text = format!(r#"{{"type":"ping",{ids}}}{{"type":"ping"}}"#);
        let frames = all(&text);
        assert!(matches!(&frames[..], [Err(r), Ok(_)] if r.strike && r.id.is_none()), "{frames:?}");
    }
}

#[test]
fn data_keeps_its_duplicate_keys_and_hostile_names() {
    let hostile = r#"{"a":1,"a":2,"__proto__":{"x":1},"constructor":null,"$ne":"' OR 1=1 --"}"#;
    let text = format!(r#"{{"type":"publish","room":"public:r0","data":{hostile}}}"#);
    assert!(matches!(taken(&text), ClientFrame::Publish { data, .. } if data == hostile));
}

#[test]
fn thirty_two_keys_are_read_and_one_more_is_a_strike() {
    let frame = |n_keys: usize| {
        let extra: String = (2..n_keys).map(|n| format!(r#","k{n}":0"#)).collect();
        format!(r#"{{"type":"x","id":5{extra}}}"#)
    };
    assert!(matches!(taken(&frame(32)), ClientFrame::Other { .. }));
    for n_keys in [33, 10_000] {
        let rejected = refused(&frame(n_keys));
        assert!(rejected.strike && rejected.id == Some(5), "{n_keys}");
    }
}

#[test]
fn an_unknown_field_is_named_and_a_long_name_is_cut() {
    assert_eq!(refused_field("ping", r#""__proto__":{}"#), invalid("__proto__"));
    assert_eq!(refused_field("ping", r#""room":"public:r0""#), invalid("room"));
    let long = "é".repeat(40_000);
    assert_eq!(refused_field("ping", &format!(r#""{long}":1"#)), invalid(&"é".repeat(32)));
    assert_eq!(refused_field("pong", &format!(r#""x{long}":1"#)).1.len(), 63);
}

#[test]
fn ids_are_whole_numbers_that_javascript_keeps() {
    for id in ["0", "1", "9007199254740991"] {
        let expected = id.parse().ok();
        assert_eq!(taken(&format!(r#"{{"type":"ping","id":{id}}}"#)).id(), expected);
    }
    assert_eq!(taken(r#"{"type":"ping","id":null}"#).id(), None);
    for id in [
        "-1",
        "-0",
        "1.0",
        "1e2",
        "9007199254740992",
        "18446744073709551616",
        "\"1\"",
        "true",
        "[1]",
        "{}",
    ] {
        for kind in ["ping", "whatever"] {
            let rejected = refused(&format!(r#"{{"type":"{kind}","id":{id}}}"#));
            assert_eq!(rejected.field.as_deref(), Some("id"), "{id}");
            assert_eq!((rejected.code, rejected.id), (ErrorCode::InvalidField, None));
        }
    }
}

#[test]
fn a_missing_field_and_one_of_another_type_are_named() {
    let wrong = [r#"{"toString":1}"#, "[]", "1.5", "-1", "true"];
    for kind in ["subscribe", "unsubscribe", "publish", "presence", "presence_update", "history"] {
        assert_eq!(refused_field(kind, ""), invalid("room"), "{kind}");
        for value in wrong {
            assert_eq!(refused_field(kind, &format!(r#""room":{value}"#)), invalid("room"));
        }
    }
    for kind in ["publish", "presence_update"] {
        assert_eq!(refused_field(kind, r#""room":"public:r0""#), invalid("data"));
    }
    assert_eq!(refused_field("refresh", ""), invalid("token"));
    for value in wrong {
        assert_eq!(refused_field("connect", &format!(r#""token":{value}"#)), invalid("token"));
        assert_eq!(refused_field("ping", &format!(r#""timestamp":{value}"#)), invalid("timestamp"));
        for name in ["msg_id", "class", "key", "ttl_ms", "tags"] {
            let value = if name == "tags" && value == "{}" { "1" } else { value };
            let fields = publish(&format!(r#","{name}":{value}"#));
            assert_eq!(refused_field("publish", &fields), invalid(name), "{fields}");
        }
    }
    assert_eq!(refused_field("publish", &publish(r#","echo":1"#)), invalid("echo"));
    assert_eq!(
        refused_field("subscribe", r#""room":"public:r0","presence":"yes""#),
        invalid("presence")
    );
}

#[test]
fn null_stands_for_an_absent_field_but_is_a_message() {
    let nulls = r#","msg_id":null,"echo":null,"class":null,"key":null,"ttl_ms":null,"tags":null,"timestamp":null"#;
    let text = format!(r#"{{"type":"publish","room":"public:r0","data":null{nulls}}}"#);
    let frame = taken(&text);
    let ClientFrame::Publish { data, msg_id: None, echo: true, class: None, ttl: None, .. } = frame
    else {
        panic!("{frame:?}")
    };
    assert_eq!(data, "null");
    let connect = taken(r#"{"type":"connect","token":null,"session":null,"resume":null}"#);
    let nobody = ClientFrame::Connect { id: None, token: None, session: None, resume: Vec::new() };
    assert_eq!(connect, nobody);
    let timed = r#"{"type":"subscribe","room":"public:r0","filter":null,"timestamp":"2026-11-21T09:38:00.123Z"}"#;
    assert!(matches!(
        taken(timed),
        ClientFrame::Subscribe { since: None, presence: false, filter: None, .. }
    ));
}

#[test]
fn a_room_name_that_could_mean_something_else_is_refused() {
    for name in [
        "",
        "lobby",
        "public:",
        "public:a..b",
        "public:*",
        "public:{a}",
        r"public:\n",
        r"public:\u0000",
        r"public:\u202ex",
        "public:é",
        r"public:e\u0301",
        "public:🦀",
        r"public:\ud83e\udd80",
    ] {
        assert_eq!(refused_field("subscribe", &format!(r#""room":"{name}""#)), invalid("room"));
    }
    let rejected = refused(r#"{"type":"subscribe","id":7,"room":"public:\ud800"}"#);
    assert!(rejected.strike);
    let at = format!("public:{}", "x".repeat(248));
    assert!(matches!(
        taken(&format!(r#"{{"type":"subscribe","room":"{at}"}}"#)),
        ClientFrame::Subscribe { room, .. } if room.as_str() == at
    ));
    assert_eq!(refused_field("subscribe", &format!(r#""room":"{at}x""#)), too_large("room"));
    // Two spellings of one name in JSON are one room.
    assert!(matches!(
        taken(r#"{"type":"subscribe","room":"\u0070ublic:a\/b"}"#),
        ClientFrame::Subscribe { room, .. } if room.as_str() == "public:a/b"
    ));
}

#[test]
fn message_ids_are_printable_strings_up_to_their_limit() {
    for id in ["0", "-1", "9007199254740992", "18446744073709551616", "[]", "\"\"", "\"a b\""] {
        let fields = publish(&format!(r#","msg_id":{id}"#));
        assert_eq!(refused_field("publish", &fields), invalid("msg_id"), "{id}");
    }
    let at = "m".repeat(128);
    let ok = format!(r#"{{"type":"publish",{}}}"#, publish(&format!(r#","msg_id":"{at}""#)));
    assert!(matches!(taken(&ok), ClientFrame::Publish { msg_id: Some(_), .. }));
    let over = publish(&format!(r#","msg_id":"{at}m""#));
    assert_eq!(refused_field("publish", &over), too_large("msg_id"));
}

#[test]
fn a_key_goes_with_class_latest_only() {
    for (more, is_taken) in [
        (r#","class":"latest","key":"k""#, true),
        (r#","key":"k""#, true),
        (r#","class":"droppable""#, true),
        (r#","class":"latest""#, false),
        (r#","class":"latest","key":null"#, false),
        (r#","class":"reliable","key":"k""#, false),
        (r#","class":"droppable","key":"k""#, false),
    ] {
        if is_taken {
            taken(&format!(r#"{{"type":"publish",{}}}"#, publish(more)));
        } else {
            assert_eq!(refused_field("publish", &publish(more)), invalid("key"), "{more}");
        }
    }
    assert_eq!(refused_field("publish", &publish(r#","class":"Latest""#)), invalid("class"));
}

#[test]
fn every_number_is_taken_at_its_limits_and_refused_beyond_them() {
    for (kind, name, least, most) in
        [("publish", "ttl_ms", 1u64, 86_400_000u64), ("history", "limit", 1, 1000)]
    {
        let base = if kind == "publish" { publish("") } else { r#""room":"public:r0""#.to_owned() };
        for value in [least, most] {
            taken(&format!(r#"{{"type":"{kind}",{base},"{name}":{value}}}"#));
        }
        for value in ["0", "-1", "1.5", "2147483648", "1e1", &(most + 1).to_string()] {
            let fields = format!(r#"{base},"{name}":{value}"#);
            assert_eq!(refused_field(kind, &fields), invalid(name), "{value}");
        }
    }
    assert!(matches!(
        taken(r#"{"type":"history","room":"public:r0"}"#),
        ClientFrame::History { limit: 100, since: None, .. }
    ));
}

#[test]
fn every_size_is_taken_at_its_limit_and_refused_one_byte_above() {
    for (bytes, is_taken) in [(4095, true), (4096, true), (4097, false)] {
        let fields = format!(r#""room":"public:r0","data":"{}""#, "x".repeat(bytes - 2));
        if is_taken {
            taken(&format!(r#"{{"type":"presence_update",{fields}}}"#));
        } else {
            assert_eq!(refused_field("presence_update", &fields), too_large("data"));
        }
    }
    let tags = |count: usize, name: usize, value: usize| {
        let all: Vec<_> = (0..count)
            .map(|n| format!(r#""{n}{}":"{}""#, "n".repeat(name - 1), "v".repeat(value)))
            .collect();
        publish(&format!(r#","tags":{{{}}}"#, all.join(",")))
    };
    taken(&format!(r#"{{"type":"publish",{}}}"#, tags(8, 64, 64)));
    for over in [tags(9, 1, 1), tags(1, 65, 1), tags(1, 1, 65)] {
        assert_eq!(refused_field("publish", &over), too_large("tags"));
    }
    for wrong in [r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":"1","a":"1"}"#, "[]"] {
        let fields = publish(&format!(r#","tags":{wrong}"#));
        assert_eq!(refused_field("publish", &fields), invalid("tags"));
    }
}

/// D11: and one beyond the last is none.
#[test]
fn a_position_of_another_kind_of_epoch_is_one_that_no_log_has() {
    let since = |kind: &str, since: &str| -> Vec<Result<_, _>> {
        decode(&format!(r#"{{"type":"{kind}","id":7,"room":"public:r0","since":{since}}}"#))
            .map(|result| match result {
                Ok(ClientFrame::Subscribe { since, .. } | ClientFrame::History { since, .. }) => {
                    Ok(since.unwrap())
                }
                Ok(other) => panic!("{other:?}"),
                Err(rejected) => Err((rejected.code, rejected.field.unwrap().into_owned())),
            })
            .collect()
    };
    for kind in ["subscribe", "history"] {
        let ours = r#"{"offset": 9007199254740991 , "epoch":"00000000000000ab"}"#;
        let position = since(kind, ours)[0].clone().unwrap();
        assert_eq!((position.epoch, position.offset), (Epoch::from_bits(0xab), Offset::MAX));
        for epoch in ["", "1-0", "00000000000000AB", &"x".repeat(64)] {
            let text = format!(r#"{{"epoch":"{epoch}","offset":0}}"#);
            assert_eq!(since(kind, &text)[0].clone().unwrap().epoch, UNKNOWN_EPOCH);
        }
        let long = format!(r#"{{"epoch":"{}","offset":0}}"#, "x".repeat(65));
        assert_eq!(since(kind, &long), [Err(too_large("since"))]);
        for wrong in [
            "41",
            "\"x\"",
            "[]",
            "{}",
            r#"{"epoch":"x"}"#,
            r#"{"offset":1}"#,
            r#"{"epoch":1,"offset":1}"#,
            r#"{"epoch":"x","offset":"1"}"#,
            r#"{"epoch":"x","offset":-1}"#,
            r#"{"epoch":"x","offset":9007199254740992}"#,
            r#"{"epoch":"x","offset":9007199254740993}"#,
            r#"{"epoch":"x","offset":9223372036854775807}"#,
            r#"{"epoch":"x","offset":9223372036854775808}"#,
            r#"{"epoch":"x","offset":18446744073709551615}"#,
            r#"{"epoch":"x","offset":18446744073709551616}"#,
            r#"{"epoch":"x","offset":1e16}"#,
            r#"{"epoch":"x","offset":1,"more":1}"#,
            r#"{"epoch":"x","offset":1,"offset":1}"#,
        ] {
            assert_eq!(since(kind, wrong), [Err(invalid("since"))], "{wrong}");
        }
    }
}

#[test]
fn a_type_of_nobodys_is_handed_on_whole() {
    let text = r#" {"type":"g\u0061me.move","x":[1, 2],"id":3} "#;
    let ClientFrame::Other { id: Some(3), kind, body } = taken(text) else { panic!() };
    assert_eq!((&*kind, body), ("game.move", text.trim()));
}

#[test]
fn a_token_is_not_shown_by_debug() {
    let frame = taken(r#"{"type":"refresh","token":"secret"}"#);
    assert!(!format!("{frame:?}").contains("secret"));
    assert!(matches!(frame, ClientFrame::Refresh { token, .. } if token.as_str() == "secret"));
}

#[test]
fn a_publish_may_name_a_trace_and_only_in_the_form_of_the_w3c() {
    let with = |value: &str| {
        format!(r#"{{"type":"publish","room":"public:a","data":1,"traceparent":{value}}}"#)
    };
    let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let frame = with(&format!("\"{text}\""));
    let ClientFrame::Publish { trace, .. } = taken(&frame) else { panic!() };
    assert_eq!(trace.unwrap().to_string(), text);
    let frame = with("null");
    assert!(matches!(taken(&frame), ClientFrame::Publish { trace: None, .. }));
    for bad in
        ["7", "\"\"", "\"00-4bf9\"", "\"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\""]
    {
        let rejected = refused(&with(bad));
        assert_eq!(rejected.field.as_deref(), Some("traceparent"), "{bad}");
    }
}
