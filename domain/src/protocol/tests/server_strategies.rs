//! Random frames of the server, as it writes them, each with the row of the catalogue that it
//! should fit. It must never write what the application would not.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::frames::line;
use super::strategies::{json, position, room, tags, trace};
use crate::codes::{CloseCode, ErrorCode};
use crate::delivery::Class;
use crate::id::{ClientId, ConnectionId, MessageKey, UserId};
use crate::message::{Publication, Sender, TombstoneReason};
use crate::policy::AckLevel;
use crate::position::Offset;
use crate::presence::gathering::{ChangedMember, PresenceChanges, PresenceCount};
use crate::presence::{PresenceChange, PresenceEvent, PresenceKey, PresenceList, PresentMember};
use crate::principal::RoomPattern;
use crate::protocol::selective::{mark_pattern, mark_previous};
use crate::protocol::{ResumeOutcome, Resumed, ServerFrame, encode_message};
use crate::recovery::{Gap, GapReason};
use crate::room::RoomId;
use crate::time::Wall;

/// The name of the row, and the line.
pub(super) type Said = (&'static str, String);

fn id() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(number())
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, 0..=Offset::MAX.get()]
}

fn offset() -> impl Strategy<Value = Offset> {
    number().prop_map(|number| Offset::parse(number).unwrap())
}

/// What a reader that keeps numbers in 64 bits can read.
fn data() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(String::new()), json()]
        .prop_filter("readable", |text| {
            text.is_empty() || serde_json::from_str::<Value>(text).is_ok()
        })
        .prop_map(|text| Bytes::from(crate::protocol::compact_lines(&text).into_owned()))
}

fn user() -> impl Strategy<Value = UserId> {
    "[!-~]{1,128}".prop_map(|text| UserId::parse(&text).unwrap())
}

fn connection() -> impl Strategy<Value = ConnectionId> {
    any::<u64>().prop_map(ConnectionId::from_bits)
}

fn time() -> impl Strategy<Value = Wall> {
    any::<i64>().prop_map(Wall::from_millis)
}

fn pattern() -> impl Strategy<Value = RoomPattern> {
    "[a-z][a-z0-9_-]{0,8}:[A-Za-z0-9:_~/@+=-]{0,20}[*]"
        .prop_map(|text| RoomPattern::parse(&text).unwrap())
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z ]{0,12}", any::<String>()]
}

fn error_code() -> impl Strategy<Value = ErrorCode> {
    prop::sample::select(ErrorCode::ALL.to_vec())
}

fn who() -> impl Strategy<Value = PresenceKey> {
    prop_oneof![user().prop_map(PresenceKey::User), connection().prop_map(PresenceKey::Anonymous)]
}

fn gap_reason() -> impl Strategy<Value = GapReason> {
    prop::sample::select(vec![
        GapReason::Retention,
        GapReason::EpochChanged,
        GapReason::UnknownPosition,
        GapReason::Overflow,
    ])
}

fn gap() -> impl Strategy<Value = Gap> {
    (position(), offset(), gap_reason()).prop_map(|(from, to, reason)| Gap {
        epoch: from.epoch,
        from: from.offset,
        to,
        reason,
    })
}

prop_compose! {
    fn publication()(
        room in room(),
        position in position(),
        class in prop::sample::select(vec![Class::Reliable, Class::Latest, Class::Droppable]),
        key in "[!-~]{1,64}",
        user in prop::option::of(user()),
        connection in prop::option::of(connection()),
        data in data(),
        tags in tags(),
        trace in trace(),
        at in time(),
    ) -> Publication {
        Publication {
            room,
            epoch: position.epoch,
            offset: class.is_positioned().then_some(position.offset),
            class,
            key: (class == Class::Latest).then(|| MessageKey::parse(&key).unwrap()),
            sender: Sender { user, name: None, connection, trace },
            data, tags, at,
            origin: None, expires_at: None, tombstone: None,
        }
    }
}

/// What a list of messages may hold, and what a member is told live.
fn message() -> impl Strategy<Value = Said> {
    let gone = prop::option::weighted(
        0.2,
        prop::sample::select(vec![TombstoneReason::Expired, TombstoneReason::Deleted]),
    );
    let marks = (prop::option::of(offset()), prop::option::of(pattern()));
    (publication(), gone, marks).prop_map(|(publication, gone, (previous, pattern))| {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if let Some(reason) = gone.filter(|_| publication.offset.is_some()) {
            return ("TombstoneFrame", text(encode_message(&publication.into_tombstone(reason))));
        }
        let name = match publication.class {
            Class::Reliable => "MessageFrame",
            Class::Latest => "LatestMessageFrame",
            Class::Droppable => "DroppableMessageFrame",
        };
        let plain = encode_message(&publication);
        let marked = match (previous.filter(|_| publication.offset.is_some()), pattern) {
            (Some(previous), _) => mark_previous(&plain, previous),
            (None, Some(pattern)) => mark_pattern(&plain, &pattern),
            (None, None) => plain,
        };
        (name, text(marked))
    })
}

fn messages() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(message().prop_map(|(_, line)| line), 0..3)
}

fn slices(lines: &[String]) -> Vec<&[u8]> {
    lines.iter().map(String::as_bytes).collect()
}

type Back = (crate::position::Position, bool, Option<Gap>, Vec<String>, bool);
type NotBack = (ErrorCode, String, Option<u64>);

fn outcomes() -> impl Strategy<Value = Vec<(RoomId, Result<Back, NotBack>)>> {
    let back = (position(), any::<bool>(), prop::option::of(gap()), messages(), any::<bool>());
    let refused = (error_code(), words(), id());
    let outcome = prop_oneof![back.prop_map(Ok), refused.prop_map(Err)];
    prop::collection::vec((room(), outcome), 0..3)
}

fn hello() -> impl Strategy<Value = Said> {
    let who = ("[A-Za-z0-9._~-]{1,128}", connection(), prop::option::of(user()), words());
    let more = (prop::option::of(words()), prop::collection::vec(room(), 0..2), number());
    (id(), who, more, outcomes()).prop_map(|(id, who, more, outcomes)| {
        let (client, connection_id, user, request_id) = who;
        let (session, rooms, heartbeat_interval_ms) = more;
        let resumed: Vec<_> =
            outcomes.iter().map(|(room, outcome)| resumed(room, outcome)).collect();
        let frame = ServerFrame::Hello {
            id,
            features: &["recovery", "presence"],
            request_id: &request_id,
            client_id: &ClientId::parse(&client).unwrap(),
            connection_id,
            user_id: user.as_ref(),
            rooms: &rooms.iter().collect::<Vec<_>>(),
            session: session.as_deref(),
            resumed: &resumed,
            heartbeat_interval_ms,
        };
        ("HelloFrame", line(&frame))
    })
}

fn resumed<'a>(room: &'a RoomId, outcome: &'a Result<Back, NotBack>) -> Resumed<'a> {
    let outcome = match outcome {
        Ok((position, recovered, gap, messages, more)) => ResumeOutcome::Back {
            position: *position,
            recovered: *recovered,
            gap: *gap,
            messages: slices(messages),
            more: *more,
        },
        Err((code, message, retry_after_ms)) => {
            ResumeOutcome::Refused { code: *code, message, retry_after_ms: *retry_after_ms }
        }
    };
    Resumed { room, outcome }
}

/// Frames with messages in them.
fn logs() -> impl Strategy<Value = Said> {
    let fields = (id(), room(), position(), any::<bool>(), messages(), any::<bool>());
    (0..3, fields).prop_map(|(form, (id, room, position, recovered, lines, more))| {
        let (room, messages) = (&room, &*slices(&lines));
        match form {
            0 => {
                let frame =
                    ServerFrame::Subscribed { id, room, position, recovered, messages, more };
                ("SubscribedFrame", line(&frame))
            }
            1 => ("PageFrame", line(&ServerFrame::Page { room, position, messages, more })),
            _ => {
                let frame = ServerFrame::HistoryPage { id, room, position, messages, more };
                ("HistoryFrame", line(&frame))
            }
        }
    })
}

fn memberships() -> impl Strategy<Value = Said> {
    let fields = (id(), room(), pattern(), prop::option::of(error_code()), gap());
    (0..5, fields).prop_map(|(form, (id, room, pattern, code, gap))| {
        let (room, pattern) = (&room, &pattern);
        match form {
            0 => {
                let (number, reason) = (code.map(ErrorCode::number), code.map(ErrorCode::word));
                let frame = ServerFrame::Unsubscribed { id, room, code: number, reason };
                ("UnsubscribedFrame", line(&frame))
            }
            1 => {
                let frame = ServerFrame::PatternUnsubscribed { id, pattern, code };
                ("PatternUnsubscribedFrame", line(&frame))
            }
            2 => {
                let frame = ServerFrame::PatternSubscribed { id, pattern };
                ("PatternSubscribedFrame", line(&frame))
            }
            3 => ("GapFrame", line(&ServerFrame::Gap { room, gap })),
            _ => ("PresenceUpdatedFrame", line(&ServerFrame::PresenceUpdated { id, room })),
        }
    })
}

fn ack() -> impl Strategy<Value = Said> {
    let levels = vec![AckLevel::Accepted, AckLevel::Replicated, AckLevel::Durable];
    let place = (position(), any::<bool>());
    (id(), room(), place, any::<bool>(), prop::sample::select(levels)).prop_map(
        |(id, room, (position, has_place), duplicate, level)| {
            let frame = ServerFrame::Ack {
                id,
                room: &room,
                epoch: position.epoch,
                offset: has_place.then_some(position.offset),
                duplicate,
                level,
            };
            ("AckFrame", line(&frame))
        },
    )
}

fn presence() -> impl Strategy<Value = Said> {
    let member = (who(), data(), 1usize..5);
    let members = prop::collection::vec(member, 0..3);
    let changes = vec![PresenceChange::Join, PresenceChange::Leave, PresenceChange::Update];
    let event = (who(), data(), prop::sample::select(changes));
    (0..4, id(), room(), number(), members, event).prop_map(
        |(form, id, room, seq, members, (who, data, change))| {
            let total = members.len();
            if form == 1 {
                let event = &PresenceEvent { seq, change, who, data, total };
                let frame = ServerFrame::PresenceEvent { room: &room, event };
                return ("PresenceEventFrame", line(&frame));
            }
            if form == 2 {
                let changed = |(who, data, _)| ChangedMember { who, change, data };
                let members = members.into_iter().map(changed).collect();
                let changes = &PresenceChanges { from: seq / 2, seq, total, members };
                let frame = ServerFrame::PresenceEvents { room: &room, changes };
                return ("PresenceEventsFrame", line(&frame));
            }
            if form == 3 {
                let count = PresenceCount { seq, total };
                let frame = ServerFrame::PresenceCount { room: &room, count };
                return ("PresenceCountFrame", line(&frame));
            }
            let member = |(who, data, connections)| PresentMember { who, data, connections };
            let members: Vec<_> = members.into_iter().map(member).collect();
            let list =
                &PresenceList { seq, total: members.len(), connections: members.len(), members };
            ("PresenceFrame", line(&ServerFrame::PresenceState { id, room: &room, list }))
        },
    )
}

fn tokens() -> impl Strategy<Value = Said> {
    (id(), time(), any::<bool>(), prop::option::of(words()), 0..4).prop_map(
        |(id, at, ends, session, form)| match form {
            0 => ("TokenExpiringFrame", line(&ServerFrame::TokenExpiring { expires_at: at })),
            1 => ("PingFrame", line(&ServerFrame::Ping)),
            2 => ("PongFrame", line(&ServerFrame::Pong { id })),
            _ => {
                let expires_at = ends.then_some(at);
                let frame = ServerFrame::Refreshed { id, expires_at, session: session.as_deref() };
                ("RefreshedFrame", line(&frame))
            }
        },
    )
}

fn status() -> impl Strategy<Value = Said> {
    let who = (connection(), prop::option::of(user()), prop::collection::vec(room(), 0..3));
    (id(), who, time(), any::<u32>(), words()).prop_map(
        |(id, (connection_id, user, rooms), connected_since, queued, request_id)| {
            let frame = ServerFrame::Status {
                id,
                connection_id,
                user_id: user.as_ref(),
                rooms: &rooms.iter().collect::<Vec<_>>(),
                connected_since,
                queue_bytes: queued as usize,
                request_id: &request_id,
            };
            ("StatusFrame", line(&frame))
        },
    )
}

fn failures() -> impl Strategy<Value = Said> {
    let closes = prop::sample::select(CloseCode::ALL.to_vec());
    let wait = prop::option::of(number().prop_map(Duration::from_millis));
    let fields = (id(), error_code(), words(), prop::option::of(words()), wait);
    (any::<bool>(), fields, closes).prop_map(|(is_error, fields, close)| {
        let (id, code, message, field, wait) = fields;
        let wait_ms = wait.map(|wait| u64::try_from(wait.as_millis()).unwrap());
        if !is_error {
            let frame = ServerFrame::Disconnect { code: close, reconnect_after_ms: wait_ms };
            return ("DisconnectFrame", line(&frame));
        }
        let frame = ServerFrame::Error {
            id,
            code,
            message: &message,
            field: field.as_deref(),
            retry_after_ms: wait_ms,
        };
        ("ErrorFrame", line(&frame))
    })
}

fn reply() -> impl Strategy<Value = Said> {
    (id(), "x_[a-z]{1,9}", data()).prop_map(|(id, kind, data)| {
        let body = if data.is_empty() { "null" } else { std::str::from_utf8(&data).unwrap() };
        ("HostFrame", line(&ServerFrame::Reply { id, kind: &kind, body }))
    })
}

/// Any frame.
pub(super) fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        3 => message(),
        2 => hello(),
        2 => logs(),
        3 => memberships(),
        1 => ack(),
        2 => presence(),
        2 => tokens(),
        1 => status(),
        3 => failures(),
        1 => reply(),
    ]
}
