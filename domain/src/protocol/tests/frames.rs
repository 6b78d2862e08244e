//! What the server writes, and what a client reads of it.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::strategies::{json, position, room};
use crate::codes::{CloseCode, ErrorCode};
use crate::delivery::Class;
use crate::id::{ClientId, ConnectionId, Epoch, MessageKey, UserId};
use crate::message::{Publication, Sender, TombstoneReason};
use crate::policy::AckLevel;
use crate::position::{Offset, Position};
use crate::presence::gathering::{ChangedMember, PresenceChanges, PresenceCount};
use crate::presence::{PresenceChange, PresenceEvent, PresenceKey, PresenceList, PresentMember};
use crate::protocol::server_event::{self as event, LogEntry};
use crate::protocol::{ServerEvent, ServerFrame, compact_lines, decode_server, encode_message};
use crate::recovery::{Gap, GapReason};
use crate::room::RoomId;
use crate::tags::Tags;
use crate::time::Wall;
use crate::trace::TraceParent;

const TIME: &str = "2025-11-21T09:38:00.123Z";

fn now() -> Wall {
    Wall::from_millis(1_763_717_880_123)
}

fn lobby() -> RoomId {
    RoomId::parse("public:r0").unwrap()
}

fn at(offset: u64) -> Position {
    Position { epoch: Epoch::from_bits(0xab), offset: Offset::parse(offset).unwrap() }
}

pub(super) fn line(frame: &ServerFrame<'_>) -> String {
    let mut out = b"before".to_vec();
    frame.encode(now(), &mut out);
    let text = String::from_utf8(out).unwrap();
    let text = text.strip_prefix("before").unwrap().to_owned();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (value["type"].as_str(), value["timestamp"].as_str()),
        (Some(frame.kind()), Some(TIME))
    );
    text
}

fn event(text: &str) -> ServerEvent<'_> {
    let mut events = decode_server(text);
    let event = events.next().unwrap().unwrap();
    assert!(events.next().is_none());
    event
}

pub(super) fn publication() -> Publication {
    Publication {
        room: lobby(),
        epoch: Epoch::from_bits(0xab),
        offset: Offset::parse(58).ok(),
        class: Class::Reliable,
        key: None,
        sender: Sender {
            user: UserId::parse("u\"1\\").ok(),
            name: Some("never said".into()),
            connection: Some(ConnectionId::from_bits(0xfe)),
            trace: None,
        },
        data: Bytes::from_static(br#"{"a": [1]}"#),
        tags: Tags::default(),
        origin: None,
        at: now(),
        expires_at: None,
        tombstone: None,
    }
}

fn message(publication: &Publication) -> String {
    String::from_utf8(encode_message(publication)).unwrap()
}

#[test]
fn a_message_has_its_fields_in_their_order() {
    assert_eq!(
        message(&publication()),
        format!(
            r#"{{"type":"message","room":"public:r0","epoch":"00000000000000ab","offset":58,"sender":{{"user_id":"u\"1\\","connection_id":"00000000000000fe"}},"data":{{"a": [1]}},"timestamp":"{TIME}"}}"#
        )
    );
    let from_nobody = Publication { sender: Sender::default(), ..publication() };
    assert!(message(&from_nobody).contains(r#""sender":{"user_id":null,"connection_id":null}"#));
}

#[test]
fn only_another_class_than_reliable_is_named() {
    let latest = Publication {
        class: Class::Latest,
        offset: None,
        key: MessageKey::parse("k\"").ok(),
        ..publication()
    };
    let expected =
        r#""epoch":"00000000000000ab","offset":null,"class":"latest","key":"k\"","sender":"#;
    assert!(message(&latest).contains(expected));
    let droppable = Publication { class: Class::Droppable, offset: None, ..publication() };
    assert!(message(&droppable).contains(r#""offset":null,"class":"droppable","sender":"#));
}

#[test]
fn a_message_that_is_gone_leaves_its_place_and_nothing_of_itself() {
    for (reason, word) in
        [(TombstoneReason::Expired, "expired"), (TombstoneReason::Deleted, "deleted")]
    {
        assert_eq!(
            message(&publication().into_tombstone(reason)),
            format!(
                r#"{{"type":"tombstone","room":"public:r0","epoch":"00000000000000ab","offset":58,"reason":"{word}","timestamp":"{TIME}"}}"#
            )
        );
    }
}

#[test]
fn hello_and_status_say_who_is_connected() {
    let (user, client) = (UserId::parse("u1").unwrap(), ClientId::parse("tab").unwrap());
    let hello = ServerFrame::Hello {
        id: None,
        features: &["history", "presence"],
        request_id: "r-1",
        client_id: &client,
        connection_id: ConnectionId::from_bits(1),
        user_id: None,
        rooms: &[&lobby()],
        session: None,
        resumed: &[],
        heartbeat_interval_ms: 25_000,
    };
    let text = line(&hello);
    assert_eq!(
        text,
        format!(
            r#"{{"type":"hello","id":null,"server_time":"{TIME}","accepted_version":2,"features":["history","presence"],"request_id":"r-1","client_id":"tab","connection_id":"0000000000000001","user_id":null,"rooms":["public:r0"],"session":null,"resumed":[],"heartbeat_interval_ms":25000,"timestamp":"{TIME}"}}"#
        )
    );
    assert!(
        matches!(event(&text), ServerEvent::Hello(hello) if hello.features.len() == 2 && hello.rooms == ["public:r0"])
    );
    let status = ServerFrame::Status {
        id: Some(10),
        connection_id: ConnectionId::from_bits(1),
        user_id: Some(&user),
        rooms: &[&lobby()],
        connected_since: now(),
        queue_bytes: 7,
        request_id: "r-1",
    };
    let text = line(&status);
    assert_eq!(
        text,
        format!(
            r#"{{"type":"status","id":10,"connection_id":"0000000000000001","user_id":"u1","rooms":["public:r0"],"connected_since":"{TIME}","queue_bytes":7,"request_id":"r-1","timestamp":"{TIME}"}}"#
        )
    );
    assert!(matches!(event(&text), ServerEvent::Status(status) if status.queue_bytes == 7));
}

#[test]
fn a_log_is_told_in_pages_of_messages_as_they_were_sent() {
    let room = lobby();
    let live = encode_message(&publication());
    let gone = encode_message(&publication().into_tombstone(TombstoneReason::Deleted));
    let messages: &[&[u8]] = &[&live, &gone];
    let (id, position) = (Some(2), at(58));
    let subscribed = line(&ServerFrame::Subscribed {
        id,
        room: &room,
        position,
        recovered: true,
        messages,
        more: false,
    });
    assert!(subscribed.starts_with(
        r#"{"type":"subscribed","id":2,"room":"public:r0","epoch":"00000000000000ab","offset":58,"recovered":true,"messages":[{"type":"message","#
    ));
    assert!(subscribed.ends_with(&format!(r#"],"more":false,"timestamp":"{TIME}"}}"#)));
    let ServerEvent::Subscribed(read) = event(&subscribed) else { panic!() };
    let [LogEntry::Message(message), LogEntry::Tombstone(tombstone)] = &read.messages[..] else {
        panic!()
    };
    assert_eq!((message.data, &*tombstone.reason), (r#"{"a": [1]}"#, "deleted"));
    let page = ServerFrame::Page { room: &room, position, messages: &[], more: true };
    assert_eq!(
        line(&page),
        format!(
            r#"{{"type":"page","room":"public:r0","epoch":"00000000000000ab","offset":58,"messages":[],"more":true,"timestamp":"{TIME}"}}"#
        )
    );
    assert!(matches!(event(&line(&page)), ServerEvent::Page(page) if page.more));
    let history =
        line(&ServerFrame::HistoryPage { id, room: &room, position, messages, more: true });
    assert!(history.starts_with(
        r#"{"type":"history","id":2,"room":"public:r0","epoch":"00000000000000ab","offset":58,"messages":[{"#
    ));
    assert!(matches!(event(&history), ServerEvent::HistoryPage(page) if page.messages.len() == 2));
}

#[test]
fn presence_is_told_whole_and_in_changes() {
    let room = lobby();
    let anonymous = PresenceKey::Anonymous(ConnectionId::from_bits(1));
    let list = PresenceList {
        seq: 9,
        total: 5,
        connections: 6,
        members: vec![
            PresentMember { who: anonymous.clone(), data: Bytes::new(), connections: 1 },
            PresentMember {
                who: PresenceKey::User(UserId::parse("u\"").unwrap()),
                data: Bytes::from_static(b"{}"),
                connections: 2,
            },
        ],
    };
    let state = line(&ServerFrame::PresenceState { id: Some(5), room: &room, list: &list });
    assert_eq!(
        state,
        format!(
            r#"{{"type":"presence","id":5,"room":"public:r0","seq":9,"total":5,"members":[{{"user_id":"anonymous:0000000000000001","data":null,"connections":1}},{{"user_id":"u\"","data":{{}},"connections":2}}],"timestamp":"{TIME}"}}"#
        )
    );
    let ServerEvent::PresenceState(read) = event(&state) else { panic!() };
    assert_eq!((read.members[0].data, &*read.members[1].user_id), ("null", "u\""));
    let change = PresenceEvent {
        seq: 9,
        change: PresenceChange::Join,
        who: anonymous.clone(),
        data: Bytes::new(),
        total: 3,
    };
    let text = line(&ServerFrame::PresenceEvent { room: &room, event: &change });
    assert_eq!(
        text,
        format!(
            r#"{{"type":"presence_event","room":"public:r0","seq":9,"total":3,"event":"join","user_id":"anonymous:0000000000000001","data":null,"timestamp":"{TIME}"}}"#
        )
    );
    assert!(matches!(event(&text), ServerEvent::PresenceEvent(read) if read.data == "null"));
    let left = ChangedMember { who: anonymous, change: PresenceChange::Leave, data: Bytes::new() };
    let changes = PresenceChanges { from: 5, seq: 9, total: 3, members: vec![left] };
    let text = line(&ServerFrame::PresenceEvents { room: &room, changes: &changes });
    assert_eq!(
        text,
        format!(
            r#"{{"type":"presence_events","room":"public:r0","from":5,"seq":9,"total":3,"changes":[{{"event":"leave","user_id":"anonymous:0000000000000001","data":null}}],"timestamp":"{TIME}"}}"#
        )
    );
    let ServerEvent::PresenceEvents(read) = event(&text) else { panic!() };
    assert_eq!((read.from, &*read.changes[0].event), (5, "leave"));
    let count = PresenceCount { seq: 9, total: 5_000 };
    let text = line(&ServerFrame::PresenceCount { room: &room, count });
    assert_eq!(
        text,
        format!(
            r#"{{"type":"presence_count","room":"public:r0","seq":9,"total":5000,"timestamp":"{TIME}"}}"#
        )
    );
    assert!(matches!(event(&text), ServerEvent::PresenceCount(read) if read.total == 5_000));
    let updated = line(&ServerFrame::PresenceUpdated { id: Some(6), room: &room });
    assert!(matches!(event(&updated), ServerEvent::PresenceUpdated(read) if read.id == Some(6)));
}

#[test]
fn the_short_frames_are_exactly_these() {
    let room = lobby();
    let gap = Gap {
        epoch: at(0).epoch,
        from: at(42).offset,
        to: at(50).offset,
        reason: GapReason::Retention,
    };
    let (epoch, offset) = (gap.epoch, Some(at(58).offset));
    let level = AckLevel::Accepted;
    for (frame, expected) in [
        (
            ServerFrame::Gap { room: &room, gap },
            r#""gap","room":"public:r0","epoch":"00000000000000ab","from":42,"to":50,"reason":"retention""#,
        ),
        (
            ServerFrame::Ack { id: Some(3), room: &room, epoch, offset, duplicate: false, level },
            r#""ack","id":3,"room":"public:r0","epoch":"00000000000000ab","offset":58,"duplicate":false,"level":"accepted""#,
        ),
        (
            ServerFrame::Unsubscribed { id: Some(4), room: &room, code: None, reason: None },
            r#""unsubscribed","id":4,"room":"public:r0","code":null,"reason":null"#,
        ),
        (
            ServerFrame::Unsubscribed {
                id: None,
                room: &room,
                code: Some(103),
                reason: Some("permission_denied"),
            },
            r#""unsubscribed","id":null,"room":"public:r0","code":103,"reason":"permission_denied""#,
        ),
        (
            ServerFrame::Refreshed { id: Some(8), expires_at: None, session: Some("s") },
            r#""refreshed","id":8,"expires_at":null,"session":"s""#,
        ),
        (
            ServerFrame::TokenExpiring { expires_at: Wall::from_millis(0) },
            r#""token_expiring","expires_at":"1970-01-01T00:00:00.000Z""#,
        ),
        (ServerFrame::Ping, r#""ping""#),
        (ServerFrame::Pong { id: Some(9) }, r#""pong","id":9"#),
        (
            ServerFrame::Error {
                id: None,
                code: ErrorCode::InvalidField,
                message: "bad \"x\"\n",
                field: Some("ro\u{1}om"),
                retry_after_ms: Some(5),
            },
            r#""error","id":null,"code":102,"error":"invalid_field","message":"bad \"x\"\n","field":"ro\u0001om","retry_after_ms":5"#,
        ),
        (
            ServerFrame::Disconnect {
                code: CloseCode::ServiceRestart,
                reconnect_after_ms: Some(1830),
            },
            r#""disconnect","code":1012,"reason":"restart","reconnect":true,"reconnect_after_ms":1830"#,
        ),
        (
            ServerFrame::Reply { id: Some(1), kind: "game.\"x", body: "[1]" },
            r#""game.\"x","id":1,"data":[1]"#,
        ),
    ] {
        let text = line(&frame);
        assert_eq!(text, format!(r#"{{"type":{expected},"timestamp":"{TIME}"}}"#));
        let is_other = matches!(event(&text), ServerEvent::Other { .. });
        assert_eq!(is_other, matches!(frame, ServerFrame::Reply { .. }), "{text}");
    }
}

#[test]
fn a_client_skips_what_it_does_not_know_and_reports_what_makes_no_sense() {
    let text = r#"{"type":"pong","new":{"x":[1]},"timestamp":""}
        {"type":"next_year","id":1}{"type":"pong"}{"type":1} {"type":"ping","timestamp":"t"} x {}"#;
    let events: Vec<_> = decode_server(text).collect();
    assert!(matches!(&events[0], Ok(ServerEvent::Pong(event::Pong { id: None, .. }))));
    assert!(matches!(
        &events[1],
        Ok(ServerEvent::Other { body: r#"{"type":"next_year","id":1}"#, .. })
    ));
    assert!(events[2].is_err() && events[3].is_err() && events[5].is_err());
    assert!(matches!(&events[4], Ok(ServerEvent::Ping(_))));
    assert_eq!(events.len(), 6);
    assert_eq!(decode_server("").count(), 0);
}

#[test]
fn a_frame_that_holds_frames_that_hold_frames_is_refused_without_going_down_into_them() {
    let open = r#"{"type":"page","room":"public:r0","epoch":"","offset":1,"more":false,"timestamp":"","messages":["#;
    let text = format!("{}{}", open.repeat(10_000), "]}".repeat(10_000));
    assert!(decode_server(&text).next().unwrap().is_err());
}

prop_compose! {
    fn publications()(
        room in room(), position in position(), data in json(), user in "[!-~]{0,20}",
        connection: Option<u64>, millis in 0i64..4_000_000_000_000,
        class in prop::sample::select(vec![Class::Reliable, Class::Latest, Class::Droppable]),
        key in "[!-~]{1,20}",
    ) -> Publication {
        Publication {
            room,
            epoch: position.epoch,
            offset: class.is_positioned().then_some(position.offset),
            class,
            key: MessageKey::parse(&key).ok().filter(|_| class == Class::Latest),
            sender: Sender {
                user: UserId::parse(&user).ok(),
                name: None,
                connection: connection.map(ConnectionId::from_bits),
                trace: None,
            },
            data: Bytes::from(compact_lines(&data).into_owned()),
            at: Wall::from_millis(millis),
            ..publication()
        }
    }
}

proptest! {
    #[test]
    fn a_message_written_and_read_is_the_same(publication in publications()) {
        let text = message(&publication);
        prop_assert!(!text.contains(['\n', '\r']));
        let ServerEvent::Message(read) = event(&text) else { panic!() };
        prop_assert_eq!(&read.room, &publication.room);
        prop_assert_eq!(read.epoch, publication.epoch);
        prop_assert_eq!(read.offset, publication.offset.map(Offset::get));
        prop_assert_eq!(read.key.as_deref(), publication.key.as_ref().map(MessageKey::as_str));
        let class = read.class.as_deref().map_or(Some(Class::Reliable), Class::parse);
        prop_assert_eq!(class, Some(publication.class));
        prop_assert_eq!(
            read.sender.user_id.as_deref(),
            publication.sender.user.as_ref().map(UserId::as_str)
        );
        prop_assert_eq!(
            read.sender.connection_id.as_deref().map(|id| ConnectionId::parse(id).unwrap()),
            publication.sender.connection
        );
        prop_assert_eq!(read.data.as_bytes(), &publication.data[..]);
        prop_assert_eq!(read.timestamp, publication.at.to_string());
    }

    #[test]
    fn one_allocation_is_enough_for_a_message(publication in publications()) {
        let out = encode_message(&publication);
        // Only escapes in names, which nothing counts beforehand, may need more.
        let text = String::from_utf8_lossy(&out);
        let escapes = text.matches('\\').count();
        let fixed = 224 + publication.room.as_str().len() + publication.data.len()
            + publication.sender.user.as_ref().map_or(0, |u| u.as_str().len())
            + publication.key.as_ref().map_or(0, |k| k.as_str().len());
        prop_assert!(out.len() <= fixed + escapes);
    }

    #[test]
    fn no_text_at_all_upsets_a_client(text: String) {
        prop_assert!(decode_server(&text).count() <= text.len());
    }
}

#[test]
fn a_message_names_the_trace_that_its_sender_named_and_else_has_no_such_field() {
    let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut publication = publication();
    let without = String::from_utf8(encode_message(&publication)).unwrap();
    assert!(!without.contains("traceparent"));
    publication.sender.trace = TraceParent::parse(text);
    let with = String::from_utf8(encode_message(&publication)).unwrap();
    let field = format!(r#","traceparent":"{text}""#);
    assert_eq!(with.replacen(&field, "", 1), without);
    assert!(serde_json::from_str::<serde_json::Value>(&with).is_ok());
}
