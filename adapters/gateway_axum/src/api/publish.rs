//! `POST /api/v1/publish`, `/api/v1/batch` and `/api/v1/send`: messages from a backend to a room, to
//! many rooms, many messages, and to a user.
//!
//! The published bytes are passed on as they are. It must never keep a slice of a request: a log
//! would keep the whole of it alive.

use application::node::ApiPublish;
use application::ports::{PublishError, Receipt};
use application::refusal::Refusal;
use application::use_cases::broadcast_message::BroadcastError;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::Response;
use domain::codes::ErrorCode;
use domain::delivery::Class;
use domain::id::{MessageId, MessageKey};
use domain::position::Offset;
use domain::protocol::client_frame::TTL_MS_MAX;
use domain::protocol::compact_lines;
use domain::protocol::json::Elements;
use domain::protocol::selective::decode_tags;
use domain::room::RoomId;
use domain::trace::TraceParent;

use super::fields::{self, Fields, id_refused, invalid};
use super::guard;
use super::out::{Object, answer};
use super::serve::Call;
use crate::answer::HttpRefusal;

/// The most rooms of one publish.
pub(super) const ROOMS_MAX: usize = 100;
/// The most messages of one batch.
pub(super) const BATCH_MAX: usize = 100;
/// The longest key of a batch, in bytes: with `:99` behind it, it is still a `msg_id`.
pub(super) const BATCH_KEY_BYTES_MAX: usize = 125;

/// The header that names a request, so that it can come again.
pub(super) const KEY_HEADER: &str = "Idempotency-Key";

pub(super) async fn publish(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let names = &["room", "rooms", "data", "msg_id", "class", "key", "ttl_ms", "tags"];
    let fields = Fields::read(&call.body, names)?;
    let (rooms, is_list) = match (fields.get("room"), fields.get("rooms")) {
        (Some(_), Some(_)) => return Err(invalid("rooms", "goes without room").into()),
        (_, Some(list)) => (rooms(list)?, true),
        (_, None) => (vec![fields::room("room", &fields.needed_text("room")?)?], false),
    };
    let publish = message(call, &fields, rooms, idempotency_key(call.headers)?)?;
    charge(call, publish.rooms.len() - 1);
    let mut answers = call.shared.node.publish(publish).await;
    if is_list {
        let answers = answers.into_iter();
        return Ok(results(
            answers.map(|(room, answer)| (Some(room), answer.map_err(|error| refusal(&error)))),
        ));
    }
    match answers.pop() {
        Some((room, Ok(receipt))) => Ok(answer(|object| write_receipt(object, &room, &receipt))),
        Some((_, Err(error))) => Err(refusal(&error).into()),
        None => Err(Refusal::internal().into()),
    }
}

pub(super) async fn send(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let names = &["user_id", "data", "msg_id", "class", "key", "ttl_ms", "tags"];
    let fields = Fields::read(&call.body, names)?;
    let user = fields::user(&fields.needed_text("user_id")?)?;
    let room = RoomId::parse(&format!("user:{user}"))
        .map_err(|_| invalid("user_id", "is none that a room can be named after"))?;
    let publish = message(call, &fields, vec![room], idempotency_key(call.headers)?)?;
    let connections = call.shared.node.connections_of(&user).await;
    match call.shared.node.publish(publish).await.pop() {
        Some((room, Ok(receipt))) => Ok(answer(|object| {
            write_receipt(object, &room, &receipt);
            object.number("connections", u64::from(connections));
        })),
        Some((_, Err(error))) => Err(refusal(&error).into()),
        None => Err(Refusal::internal().into()),
    }
}

pub(super) async fn batch(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let fields = Fields::read(&call.body, &["publishes"])?;
    let items = items("publishes", fields.needed_raw("publishes")?, BATCH_MAX)?;
    let key = batch_key(call.headers)?;
    charge(call, items.len() - 1);
    let mut answers = Vec::with_capacity(items.len());
    for (place, item) in items.into_iter().enumerate() {
        answers.push(match read_item(call, item, key, place) {
            Err(refusal) => (None, Err(refusal)),
            Ok(publish) => match call.shared.node.publish(publish).await.pop() {
                Some((room, answer)) => (Some(room), answer.map_err(|error| refusal(&error))),
                None => (None, Err(Refusal::internal())),
            },
        });
    }
    Ok(results(answers))
}

fn read_item(
    call: &Call<'_>,
    item: &str,
    key: Option<&str>,
    place: usize,
) -> Result<ApiPublish, Refusal> {
    if item.len() > call.config.publish_bytes_max {
        let message = format!("is larger than {} bytes", call.config.publish_bytes_max);
        return Err(Refusal::new(ErrorCode::TooLarge, message).field("publishes"));
    }
    let names = &["room", "data", "msg_id", "class", "key", "ttl_ms", "tags"];
    let fields = Fields::read_text(item, names)?;
    let room = fields::room("room", &fields.needed_text("room")?)?;
    // Each message its own id, the same one when the batch is repeated.
    let own = key.map(|key| format!("{key}:{place}"));
    let own = own.filter(|_| fields.get("msg_id").is_none());
    message(call, &fields, vec![room], own.as_deref())
}

/// Everything of a message but where it goes; and whether it may go there.
fn message(
    call: &Call<'_>,
    fields: &Fields<'_>,
    rooms: Vec<RoomId>,
    idempotency_key: Option<&str>,
) -> Result<ApiPublish, Refusal> {
    let data = fields.needed_raw("data")?;
    let class = fields.text("class")?.map(|word| {
        Class::parse(&word).ok_or_else(|| invalid("class", "must be reliable, latest or droppable"))
    });
    let key = fields
        .text("key")?
        .map(|text| MessageKey::parse(&text).map_err(|error| id_refused("key", error)));
    let tags = fields.get("tags").map(|raw| decode_tags(raw).map_err(fields::rejected));
    let publish = ApiPublish {
        key_name: call.key.name.clone(),
        rooms,
        data: Bytes::copy_from_slice(compact_lines(data).as_bytes()),
        class: class.transpose()?,
        key: key.transpose()?,
        msg_id: message_id(idempotency_key, fields.text("msg_id")?.as_deref())?,
        ttl: fields.millis("ttl_ms", TTL_MS_MAX)?,
        trace: trace(call.headers),
        tags: tags.transpose()?.unwrap_or_default(),
    };
    for room in &publish.rooms {
        guard::check_room(call.shared, call.key, call.route, room)?;
    }
    Ok(publish)
}

/// Different rooms, in their order.
fn rooms(raw: &str) -> Result<Vec<RoomId>, Refusal> {
    let mut rooms = Vec::new();
    for item in items("rooms", raw, ROOMS_MAX)? {
        if !item.starts_with('"') {
            return Err(invalid("rooms", "must be a list of different rooms"));
        }
        let room = fields::room("rooms", &domain::protocol::json::unescape(item))?;
        if rooms.contains(&room) {
            return Err(invalid("rooms", "names a room twice"));
        }
        rooms.push(room);
    }
    Ok(rooms)
}

/// The elements of a list that is not empty and not too long.
fn items<'a>(field: &'static str, raw: &'a str, items_max: usize) -> Result<Vec<&'a str>, Refusal> {
    let no_list = || invalid(field, "must be a list that is not empty");
    let mut elements = Elements::open(raw, 0).ok_or_else(no_list)?;
    let mut items = Vec::new();
    // The whole list has been scanned, so walking it again finds no error.
    while let Ok(Some(item)) = elements.next_element() {
        if items.len() == items_max {
            let message = format!("may have {items_max} entries at most");
            return Err(Refusal::new(ErrorCode::TooLarge, message).field(field));
        }
        items.push(item);
    }
    if items.is_empty() { Err(no_list()) } else { Ok(items) }
}

/// The first message was counted when the request was admitted.
fn charge(call: &Call<'_>, messages: usize) {
    if messages > 0 {
        let now = call.shared.node.services().ports.clock.now().monotonic;
        call.key.charge(call.config.api_rate, messages, now);
    }
}

/// The W3C's header; what is not of its form is as if it were not there, as the W3C asks.
fn trace(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all("traceparent").iter();
    let (first, second) = (values.next()?, values.next());
    second.is_none().then(|| TraceParent::parse(first.to_str().ok()?)).flatten()
}

/// What the header says, if it is there.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all("idempotency-key").iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(invalid(KEY_HEADER, "came twice")),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| invalid(KEY_HEADER, "must be printable ASCII"))
        }
    }
}

/// The key of a batch. It is checked before anything is published, and leaves room for the places
/// behind it: otherwise messages would be refused one by one for what the caller did not write.
fn batch_key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(key) = idempotency_key(headers)? else { return Ok(None) };
    if key.len() > BATCH_KEY_BYTES_MAX {
        let message = format!("must be at most {BATCH_KEY_BYTES_MAX} bytes for a batch");
        return Err(Refusal::new(ErrorCode::TooLarge, message).field(KEY_HEADER));
    }
    MessageId::parse(key).map_err(|error| id_refused(KEY_HEADER, error))?;
    Ok(Some(key))
}

/// The `Idempotency-Key` header and `msg_id` are two names of one thing.
fn message_id(header: Option<&str>, body: Option<&str>) -> Result<Option<MessageId>, Refusal> {
    let (field, text) = match (header, body) {
        (Some(header), Some(body)) if header != body => {
            return Err(invalid("msg_id", "differs from the Idempotency-Key header"));
        }
        (_, Some(body)) => ("msg_id", body),
        (Some(header), None) => (KEY_HEADER, header),
        (None, None) => return Ok(None),
    };
    MessageId::parse(text).map(Some).map_err(|error| id_refused(field, error))
}

fn write_receipt(object: &mut Object<'_>, room: &RoomId, receipt: &Receipt) {
    object.text("room", room.as_str());
    object.text("epoch", &receipt.epoch.to_string());
    object.number_or_null("offset", receipt.offset.map(Offset::get));
    object.flag("duplicate", receipt.duplicate);
    object.text("level", receipt.level.word());
}

/// One result for each message, in order: what became of it, or why it did not.
fn results(
    answers: impl IntoIterator<Item = (Option<RoomId>, Result<Receipt, Refusal>)>,
) -> Response {
    let mut failed = 0;
    answer(|object| {
        object.list("results", answers, |object, (room, answer)| match (room, answer) {
            (Some(room), Ok(receipt)) => write_receipt(object, &room, &receipt),
            (room, answer) => {
                failed += 1;
                let refusal = answer.err().unwrap_or_else(Refusal::internal);
                object.text_or_null("room", room.as_ref().map(RoomId::as_str));
                object.object("error", |object| object.refusal(&refusal));
            }
        });
        object.number("failed", failed);
    })
}

fn refusal(error: &BroadcastError) -> Refusal {
    match error {
        BroadcastError::UnknownRoom => {
            Refusal::new(ErrorCode::UnknownRoom, "this server has no such namespace").field("room")
        }
        BroadcastError::Key => invalid("key", "goes with class latest, and only with it"),
        BroadcastError::Broker(PublishError::Unavailable { retry_after }) => {
            tracing::warn!(error = error as &dyn std::error::Error, "publish not taken");
            Refusal::unavailable(*retry_after)
        }
        BroadcastError::Broker(PublishError::LogFull) => Refusal::log_full(),
        BroadcastError::Broker(PublishError::Fenced) => {
            // What the API publishes is nobody's connection's.
            Refusal::internal()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_does_not_go_with_the_rooms_class_is_an_invalid_field() {
        let refusal = refusal(&BroadcastError::Key);
        assert_eq!(refusal.code, ErrorCode::InvalidField);
        assert_eq!(refusal.field.as_deref(), Some("key"));
    }

    #[test]
    fn a_list_of_rooms_is_not_empty_not_too_long_and_names_each_once() {
        let list = |n: usize| {
            let names: Vec<_> = (0..n).map(|n| format!("\"public:{n}\"")).collect();
            format!("[{}]", names.join(","))
        };
        assert_eq!(rooms(&list(ROOMS_MAX)).map(|rooms| rooms.len()), Ok(ROOMS_MAX));
        for (raw, code) in [
            (list(ROOMS_MAX + 1), ErrorCode::TooLarge),
            ("[]".to_owned(), ErrorCode::InvalidField),
            ("{}".to_owned(), ErrorCode::InvalidField),
            (r#"["public:a","public:a"]"#.to_owned(), ErrorCode::InvalidField),
            (r#"["public:a",7]"#.to_owned(), ErrorCode::InvalidField),
            (r#"["public"]"#.to_owned(), ErrorCode::InvalidField),
            (format!(r#"["public:{}"]"#, "x".repeat(300)), ErrorCode::TooLarge),
        ] {
            let refused = rooms(&raw).unwrap_err();
            assert_eq!((refused.code, refused.field.as_deref()), (code, Some("rooms")), "{raw}");
        }
    }

    #[test]
    fn the_header_and_the_field_are_one_id_and_two_that_differ_are_none() {
        let long = "m".repeat(1_000);
        let id = |header, body| message_id(header, body).map(|id| id.map(|id| id.to_string()));
        assert_eq!(id(Some("a"), None), Ok(Some("a".to_owned())));
        assert_eq!(id(Some("a"), Some("a")), id(None, Some("a")));
        assert_eq!(id(Some("a"), Some("b")).unwrap_err().field.unwrap(), "msg_id");
        assert_eq!(id(None, Some(&long)).unwrap_err().code, ErrorCode::TooLarge);
        assert_eq!(id(Some("a b"), None).unwrap_err().field.unwrap(), KEY_HEADER);
    }

    #[test]
    fn the_key_of_a_batch_leaves_room_for_the_last_place_of_the_largest_batch() {
        let key = |text: &str| {
            let headers = HeaderMap::from_iter([(
                axum::http::HeaderName::from_static("idempotency-key"),
                text.parse().unwrap(),
            )]);
            batch_key(&headers).map(|key| key.map(str::to_owned))
        };
        let longest = "k".repeat(BATCH_KEY_BYTES_MAX);
        assert_eq!(key(&longest), Ok(Some(longest.clone())));
        let last = format!("{longest}:{}", BATCH_MAX - 1);
        assert_eq!(last.len(), MessageId::BYTES_MAX);
        for (wrong, code) in [
            (format!("{longest}k"), ErrorCode::TooLarge),
            (String::new(), ErrorCode::InvalidField),
            ("a b".to_owned(), ErrorCode::InvalidField),
        ] {
            let refused = key(&wrong).unwrap_err();
            assert_eq!((refused.code, refused.field.as_deref()), (code, Some(KEY_HEADER)));
        }
    }
}
