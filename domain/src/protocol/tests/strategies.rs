//! Random JSON texts, ids and commands. It must never build a text that is not valid: tests that
//! want broken ones break them.

use std::borrow::Cow;
use std::time::Duration;

use proptest::prelude::*;

use crate::delivery::Class;
use crate::filter::{Condition, Filter};
use crate::id::{Epoch, MessageId, MessageKey};
use crate::position::{Offset, Position};
use crate::principal::RoomPattern;
use crate::protocol::{ClientFrame, Resume, TokenText};
use crate::room::RoomId;
use crate::tags::Tags;
use crate::trace::TraceParent;

pub(super) fn space() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", " ", "\n", "\r\n", "\t ", "  \n  "])
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "[a-z \\\\/\"]{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        prop::sample::select(vec![r#""\u00e9""#, r#""\ud83e\udd80""#, r#""\/\b\f""#, r#""""#])
            .prop_map(str::to_owned),
    ]
}

fn leaf() -> impl Strategy<Value = String> {
    let fixed = vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1e400",
        "-1.5E-7",
        "123456789012345678901",
        "{}",
        "[]",
        "{ }",
        "[\n]",
    ];
    prop_oneof![
        prop::sample::select(fixed).prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        string(),
    ]
}

/// One JSON value with white space anywhere between its tokens, none around it.
pub(super) fn json() -> impl Strategy<Value = String> {
    leaf().prop_recursive(5, 48, 6, |inner| {
        let item = (space(), inner, space()).prop_map(|(a, v, b)| format!("{a}{v}{b}")).boxed();
        let member = (space(), string(), space(), item.clone())
            .prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
        prop_oneof![
            prop::collection::vec(item, 1..6).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 1..6).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    })
}

pub(super) fn room() -> impl Strategy<Value = RoomId> {
    "[a-z][a-z0-9_-]{0,8}:[A-Za-z0-9:_~/@+=-]{1,20}".prop_map(|name| RoomId::parse(&name).unwrap())
}

fn id() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(0..=Offset::MAX.get())
}

pub(super) fn position() -> impl Strategy<Value = Position> {
    (any::<u64>(), 0..=Offset::MAX.get()).prop_map(|(epoch, offset)| Position {
        epoch: Epoch::from_bits(epoch),
        offset: Offset::parse(offset).unwrap(),
    })
}

fn token() -> impl Strategy<Value = TokenText<'static>> {
    any::<String>().prop_map(|text| TokenText::new(Cow::Owned(text)))
}

/// A few rooms, all different.
fn resume() -> impl Strategy<Value = Vec<Resume>> {
    let entry = (position(), any::<bool>(), prop::option::of(filter()));
    prop::collection::btree_map(room(), entry, 0..5).prop_map(|rooms| {
        let entry = |(room, (since, presence, filter))| Resume { room, since, presence, filter };
        rooms.into_iter().map(entry).collect()
    })
}

fn pattern() -> impl Strategy<Value = RoomPattern> {
    "[a-z][a-z0-9_-]{0,8}:[A-Za-z0-9:_~/@+=-]{0,20}[*]"
        .prop_map(|text| RoomPattern::parse(&text).unwrap())
}

fn small() -> impl Strategy<Value = String> {
    any::<String>().prop_filter("small", |text| text.len() <= Tags::BYTES_MAX)
}

pub(super) fn trace() -> impl Strategy<Value = Option<TraceParent>> {
    prop::option::of((1u128.., 1u64.., 0u8..)).prop_map(|parts| {
        let (trace, parent, flags) = parts?;
        TraceParent::parse(&format!("00-{trace:032x}-{parent:016x}-{flags:02x}"))
    })
}

pub(super) fn tags() -> impl Strategy<Value = Tags> {
    prop::collection::btree_map(small(), small(), 0..=Tags::COUNT_MAX).prop_map(|pairs| {
        Tags::build(pairs.iter().map(|(name, value)| (&**name, &**value))).unwrap()
    })
}

pub(super) fn filter() -> impl Strategy<Value = Filter> {
    let leaf = (small(), prop::collection::vec(small(), 1..4)).prop_map(|(name, values)| {
        let values = values.into_iter().map(Into::into).collect();
        Condition::In { name: name.into(), values }
    });
    let condition = leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(Condition::And),
            prop::collection::vec(inner.clone(), 1..3).prop_map(Condition::Or),
            inner.prop_map(|part| Condition::Not(Box::new(part))),
        ]
    });
    condition.prop_filter_map("within the limits", |condition| Filter::build(condition).ok())
}

prop_compose! {
    fn publish()(
        id in id(),
        room in room(),
        data in json(),
        msg_id in prop::option::of("[!-~]{1,30}"),
        echo: bool,
        class in prop::sample::select(vec![
            None, Some(Class::Reliable), Some(Class::Latest), Some(Class::Droppable),
        ]),
        key in "[!-~]{1,30}",
        ttl in prop::option::of(1u64..=86_400_000),
        tags in tags(),
        trace in trace(),
    ) -> ClientFrame<'static> {
        ClientFrame::Publish {
            id, room,
            data: data.leak(),
            msg_id: msg_id.map(|text| MessageId::parse(&text).unwrap()),
            echo, class,
            key: (class == Some(Class::Latest)).then(|| MessageKey::parse(&key).unwrap()),
            ttl: ttl.map(Duration::from_millis),
            tags,
            trace,
        }
    }
}

/// Any command. What it borrows is leaked: a test process ends soon enough.
pub(super) fn command() -> impl Strategy<Value = ClientFrame<'static>> {
    let since = || prop::option::of(position());
    prop_oneof![
        4 => publish(),
        1 => (id(), prop::option::of(token()), prop::option::of(token()), resume()).prop_map(
            |(id, token, session, resume)| ClientFrame::Connect { id, token, session, resume }
        ),
        1 => (id(), room(), since(), any::<bool>(), prop::option::of(filter())).prop_map(
            |(id, room, since, presence, filter)| {
                ClientFrame::Subscribe { id, room, since, presence, filter }
            }
        ),
        1 => (id(), pattern(), any::<bool>()).prop_map(|(id, pattern, on)| match on {
            true => ClientFrame::SubscribePattern { id, pattern },
            false => ClientFrame::UnsubscribePattern { id, pattern },
        }),
        1 => (id(), room()).prop_map(|(id, room)| ClientFrame::Unsubscribe { id, room }),
        1 => (id(), room()).prop_map(|(id, room)| ClientFrame::Presence { id, room }),
        1 => (id(), room(), leaf().prop_filter("small", |d| d.len() <= 4096)).prop_map(
            |(id, room, data)| ClientFrame::PresenceUpdate { id, room, data: data.leak() }
        ),
        1 => (id(), room(), since(), 1u32..=1000).prop_map(|(id, room, since, limit)| {
            ClientFrame::History { id, room, since, limit }
        }),
        1 => (id(), token()).prop_map(|(id, token)| ClientFrame::Refresh { id, token }),
        1 => id().prop_map(|id| ClientFrame::Ping { id }),
        1 => Just(ClientFrame::Pong),
        1 => id().prop_map(|id| ClientFrame::Status { id }),
        1 => (0..=Offset::MAX.get(), "x_[a-z]{1,9}", json()).prop_map(|(id, kind, extra)| {
            let body = format!(r#"{{ "type" : "{kind}","id":{id} ,"extra":{extra}}}"#);
            ClientFrame::Other { id: Some(id), kind: Cow::Owned(kind), body: body.leak() }
        }),
    ]
}
