//! `connect` with a ticket and rooms, and `hello` with what became of them.

use super::commands::taken;
use crate::codes::ErrorCode;
use crate::id::{ClientId, ConnectionId, Epoch, UserId};
use crate::position::{Offset, Position};
use crate::protocol::client_frame::{RESUME_ROOMS_MAX, SESSION_BYTES_MAX, UNKNOWN_EPOCH};
use crate::protocol::server_event::EventResumed;
use crate::protocol::{
    ClientFrame, Resume, ResumeOutcome, Resumed, ServerEvent, ServerFrame, decode, decode_server,
};
use crate::recovery::{Gap, GapReason};
use crate::room::RoomId;
use crate::time::Wall;

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch: Epoch::from_bits(epoch), offset: Offset::parse(offset).unwrap() }
}

fn resume_of(list: &str) -> Vec<Resume> {
    let text = format!(r#"{{"type":"connect","resume":{list}}}"#);
    match taken(&text) {
        ClientFrame::Connect { resume, .. } => resume,
        other => panic!("{other:?}"),
    }
}

/// The refusal of a `connect`, checked to be no strike and to carry the command's id.
fn refused(fields: &str) -> (ErrorCode, String) {
    let text = format!(r#"{{"type":"connect","id":7,{fields}}}"#);
    let all: Vec<_> = decode(&text).collect();
    let [Err(rejected)] = all.as_slice() else { panic!("{text}: {all:?}") };
    assert!(!rejected.strike && rejected.id == Some(7), "{rejected:?}");
    (rejected.code, rejected.field.clone().unwrap().into_owned())
}

#[test]
fn rooms_are_taken_in_their_order_with_position_and_wishes() {
    let list = r#"[ {"room":"public:b","epoch":"00000000000000ab","offset":41} ,
        {"offset":0,"presence":true,"epoch":"of another server","room":"public:a"},
        {"room":"public:c","epoch":"00000000000000ab","offset":1,"presence":null} ]"#;
    let of = |name, since, presence| Resume { room: room(name), since, presence, filter: None };
    let unknown = Position { epoch: UNKNOWN_EPOCH, offset: Offset::ZERO };
    assert_eq!(
        resume_of(list),
        [
            of("public:b", at(0xab, 41), false),
            of("public:a", unknown, true),
            of("public:c", at(0xab, 1), false)
        ]
    );
    let filtered = r#"[{"room":"public:a","epoch":"","offset":0,"filter":{"eq":{"a":"1"}}}]"#;
    assert!(resume_of(filtered)[0].filter.is_some());
    assert_eq!(refused(&format!(r#""resume":{}"#, filtered.replace("eq", "ne"))).1, "resume");
    assert!(resume_of("[]").is_empty() && resume_of("null").is_empty());
}

#[test]
fn every_wrong_shape_of_resume_names_the_field() {
    let good = r#""room":"public:a","epoch":"00000000000000ab","offset":1"#;
    for list in [
        "true",
        "1",
        r#""public:a""#,
        "{}",
        "[1]",
        "[null]",
        "[[]]",
        "[{}]",
        r#"[{"room":"public:a"}]"#,
        r#"[{"room":"public:a","epoch":"00000000000000ab"}]"#,
        r#"[{"room":"public:a","offset":1}]"#,
        r#"[{"epoch":"00000000000000ab","offset":1}]"#,
        r#"[{"room":null,"epoch":"00000000000000ab","offset":1}]"#,
        r#"[{"room":7,"epoch":"00000000000000ab","offset":1}]"#,
        r#"[{"room":"lobby","epoch":"00000000000000ab","offset":1}]"#,
        r#"[{"room":"public:a..b","epoch":"00000000000000ab","offset":1}]"#,
        r#"[{"room":"public:a","epoch":171,"offset":1}]"#,
        r#"[{"room":"public:a","epoch":null,"offset":1}]"#,
        r#"[{"room":"public:a","epoch":"00000000000000ab","offset":-1}]"#,
        r#"[{"room":"public:a","epoch":"00000000000000ab","offset":1.5}]"#,
        r#"[{"room":"public:a","epoch":"00000000000000ab","offset":1e1}]"#,
        r#"[{"room":"public:a","epoch":"00000000000000ab","offset":"1"}]"#,
        r#"[{"room":"public:a","epoch":"00000000000000ab","offset":9007199254740992}]"#,
        &format!(r#"[{{{good},"presence":1}}]"#),
        &format!(r#"[{{{good},"since":1}}]"#),
        &format!(r#"[{{{good},"room":"public:a"}}]"#),
        &format!(r#"[{{{good}}},2]"#),
        &format!(r#"[{{{good}}},{{{good}}}]"#),
    ] {
        let invalid = (ErrorCode::InvalidField, "resume".to_owned());
        assert_eq!(refused(&format!(r#""resume":{list}"#)), invalid, "{list}");
    }
    for session in ["1", "{}", "[]", "true"] {
        let invalid = (ErrorCode::InvalidField, "session".to_owned());
        assert_eq!(refused(&format!(r#""session":{session}"#)), invalid, "{session}");
    }
}

/// J10: the rooms of `resume`, and tickets.
#[test]
fn the_limits_of_connect_are_taken_and_one_more_is_refused() {
    let list = |n: usize| {
        let entry = |n| format!(r#"{{"room":"public:{n}","epoch":"{n:016x}","offset":{n}}}"#);
        format!("[{}]", (0..n).map(entry).collect::<Vec<_>>().join(","))
    };
    assert_eq!(resume_of(&list(RESUME_ROOMS_MAX)).len(), RESUME_ROOMS_MAX);
    let too_large = |field: &str| (ErrorCode::TooLarge, field.to_owned());
    let resume = format!(r#""resume":{}"#, list(RESUME_ROOMS_MAX + 1));
    assert_eq!(refused(&resume), too_large("resume"));
    let session = |bytes: usize| format!(r#""session":"{}""#, "s".repeat(bytes));
    let text = format!(r#"{{"type":"connect",{}}}"#, session(SESSION_BYTES_MAX));
    assert!(matches!(taken(&text), ClientFrame::Connect { session: Some(_), .. }));
    assert_eq!(refused(&session(SESSION_BYTES_MAX + 1)), too_large("session"));
    let long = "e".repeat(65);
    let epoch = format!(r#""resume":[{{"room":"public:a","epoch":"{long}","offset":1}}]"#);
    assert_eq!(refused(&epoch), too_large("resume"));
    let long = "r".repeat(256);
    let name = format!(r#""resume":[{{"room":"public:{long}","epoch":"e","offset":1}}]"#);
    assert_eq!(refused(&name), too_large("resume"));
}

#[test]
fn a_ticket_is_hidden_where_a_frame_is_logged() {
    let frame = taken(r#"{"type":"connect","session":"very secret","token":"so is this"}"#);
    let shown = format!("{frame:?}");
    assert!(!shown.contains("secret") && !shown.contains("so is"), "{shown}");
}

#[test]
fn hello_brings_each_room_back_or_says_why_not() {
    const TIME: &str = "2025-11-21T09:38:00.123Z";
    let (user, client) = (UserId::parse("u1").unwrap(), ClientId::parse("tab").unwrap());
    let (a, b, c) = (room("public:a"), room("public:b"), room("public:c"));
    let message = format!(
        r#"{{"type":"message","room":"public:b","epoch":"00000000000000ab","offset":8,"sender":{{"user_id":null,"connection_id":null}},"data":[1],"timestamp":"{TIME}"}}"#
    );
    let offset = |n| Offset::parse(n).unwrap();
    let reason = GapReason::Retention;
    let gap = Gap { epoch: Epoch::from_bits(0xab), from: offset(3), to: offset(7), reason };
    let back = |position, recovered, gap, messages, more| ResumeOutcome::Back {
        position,
        recovered,
        gap,
        messages,
        more,
    };
    let refused = ResumeOutcome::Refused {
        code: ErrorCode::PermissionDenied,
        message: "not \"allowed\"",
        retry_after_ms: None,
    };
    let hello = ServerFrame::Hello {
        id: Some(1),
        features: &["resume"],
        request_id: "r-1",
        client_id: &client,
        connection_id: ConnectionId::from_bits(1),
        user_id: Some(&user),
        rooms: &[],
        session: Some("t"),
        resumed: &[
            Resumed { room: &a, outcome: back(at(0xab, 57), true, None, vec![], false) },
            Resumed {
                room: &b,
                outcome: back(at(0xab, 8), false, Some(gap), vec![message.as_bytes()], true),
            },
            Resumed { room: &c, outcome: refused },
        ],
        heartbeat_interval_ms: 25_000,
    };
    let mut text = Vec::new();
    hello.encode(Wall::from_millis(1_763_717_880_123), &mut text);
    let text = String::from_utf8(text).unwrap();
    let resumed = format!(
        concat!(
            r#""session":"t","resumed":["#,
            r#"{{"room":"public:a","epoch":"00000000000000ab","offset":57,"recovered":true,"gap":null,"messages":[],"more":false}},"#,
            r#"{{"room":"public:b","epoch":"00000000000000ab","offset":8,"recovered":false,"gap":{{"from":3,"to":7,"reason":"retention"}},"messages":[{}],"more":true}},"#,
            r#"{{"room":"public:c","error":{{"code":103,"error":"permission_denied","message":"not \"allowed\"","retry_after_ms":null}}}}"#,
            r#"],"heartbeat_interval_ms":25000"#
        ),
        message
    );
    assert!(text.contains(&resumed), "{text}");
    let Some(Ok(ServerEvent::Hello(read))) = decode_server(&text).next() else { panic!("{text}") };
    assert_eq!(read.session.as_deref(), Some("t"));
    let [EventResumed::Back(first), EventResumed::Back(second), EventResumed::Refused(third)] =
        read.resumed.as_slice()
    else {
        panic!("{:?}", read.resumed)
    };
    assert!(first.recovered && first.gap.is_none() && first.offset == 57);
    assert_eq!(second.gap.as_ref().map(|gap| (gap.from, gap.to)), Some((3, 7)));
    assert_eq!((second.messages.len(), second.more), (1, true));
    assert_eq!((third.error.code, &third.room), (103, &c));
}

#[test]
fn a_hello_of_a_server_without_resume_is_still_one() {
    let text = r#"{"type":"hello","id":null,"accepted_version":2,"request_id":"r","client_id":"c","connection_id":"0000000000000001","user_id":null,"heartbeat_interval_ms":1,"timestamp":"t"}"#;
    let Some(Ok(ServerEvent::Hello(hello))) = decode_server(text).next() else { panic!() };
    assert!(hello.session.is_none() && hello.resumed.is_empty());
}
