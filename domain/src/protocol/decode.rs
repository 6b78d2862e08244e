//! Decoding what clients send: one text, any number of frames.
//!
//! It must never stop at the first refusal that leaves clear where the next frame begins, and
//! never go on after one that does not.

mod resume;

use std::borrow::Cow;
use std::iter::FusedIterator;
use std::time::Duration;

use crate::codes::ErrorCode;
use crate::delivery::Class;
use crate::documents::lobby::PLAIN_TEXT;
use crate::filter::Filter;
use crate::id::{Epoch, IdError, MessageId, MessageKey};
use crate::position::{Offset, Position};
use crate::principal::RoomPattern;
use crate::protocol::client_frame::{
    ClientFrame, EPOCH_BYTES_MAX, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, METADATA_BYTES_MAX,
    Rejected, TTL_MS_MAX, TokenText, UNKNOWN_EPOCH,
};
use crate::protocol::envelope::{Envelope, Name, parse_integer};
use crate::protocol::json::{self, JsonError, Members};
use crate::protocol::selective::{decode_filter, decode_tags};
use crate::room::{RoomId, RoomIdError};
use crate::tags::Tags;
use crate::trace::TraceParent;

/// Reads the frames of one text message, in order. A text without any is one rejection.
#[must_use]
pub const fn decode(text: &str) -> Frames<'_> {
    Frames { text, at: 0, state: State::Start, dialect: Dialect::V2 }
}

/// The same for the endpoints of the documents: of the protocol's own commands only `ping`, `pong` and
/// `status`, with whatever fields a client gives them, and every other type is the host's.
#[must_use]
pub const fn decode_document(text: &str) -> Frames<'_> {
    Frames { text, at: 0, state: State::Start, dialect: Dialect::Document }
}

/// The same where people may write plain text: what does not begin like an object is one message of the
/// type [`PLAIN_TEXT`], with the text as it came.
#[must_use]
pub const fn decode_plain(text: &str) -> Frames<'_> {
    Frames { text, at: 0, state: State::Start, dialect: Dialect::Plain }
}

/// The frames of one text message. It ends behind the last value, or behind the first that is not
/// JSON or nested too deep: where the next one would begin is then unknown.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    text: &'a str,
    at: usize,
    state: State,
    dialect: Dialect,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Dialect {
    V2,
    Document,
    Plain,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Start,
    Running,
    Ended,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<ClientFrame<'a>, Rejected>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Ended {
            return None;
        }
        let start = json::skip_space(self.text.as_bytes(), self.at);
        let Some(&first) = self.text.as_bytes().get(start) else {
            let was_empty = self.state == State::Start;
            self.state = State::Ended;
            return was_empty.then(|| Err(Rejected::strike("the text holds no frame")));
        };
        if first != b'{' && self.state == State::Start && self.dialect == Dialect::Plain {
            self.state = State::Ended;
            let kind = Cow::Borrowed(PLAIN_TEXT);
            return Some(Ok(ClientFrame::Other { id: None, kind, body: self.text }));
        }
        self.state = State::Running;
        if first != b'{' {
            return Some(Err(self.refuse_other_value(start)));
        }
        let mut envelope = Envelope::default();
        match envelope.read(self.text, start) {
            Ok(end) => {
                self.at = end;
                let body = &self.text[start..end];
                Some(match self.dialect {
                    Dialect::V2 => decode_envelope(&envelope, body),
                    Dialect::Document | Dialect::Plain => decode_system(&envelope, body),
                })
            }
            Err(error) => {
                self.state = State::Ended;
                let mut rejected = Rejected::strike(error.to_string());
                // What is broken may have broken the id too; what is too deep has not.
                if matches!(error, JsonError::TooDeep { .. }) {
                    rejected.id = envelope.id().unwrap_or(None);
                }
                Some(Err(rejected))
            }
        }
    }
}

impl FusedIterator for Frames<'_> {}

impl<'a> Frames<'a> {
    /// What has not been read yet; empty at the end.
    #[must_use]
    pub fn rest(&self) -> &'a str {
        match self.state {
            State::Start | State::Running => self.text[self.at..].trim_ascii_start(),
            State::Ended => "",
        }
    }

    fn refuse_other_value(&mut self, start: usize) -> Rejected {
        match json::scan_value(self.text, start, json::DEPTH_MAX) {
            Ok(end) => {
                self.at = end;
                Rejected::strike("a frame is a JSON object")
            }
            Err(error) => {
                self.state = State::Ended;
                Rejected::strike(error.to_string())
            }
        }
    }
}

fn decode_envelope<'a>(
    envelope: &Envelope<'a>,
    body: &'a str,
) -> Result<ClientFrame<'a>, Rejected> {
    let id = envelope.id();
    let known_id = *id.as_ref().unwrap_or(&None);
    let decoded = match (envelope.check(), decode_kind(envelope), id) {
        (Ok(()), Ok(kind), Ok(id)) => decode_command(envelope, id, kind, body),
        // What leaves open what the frame says comes before what the frame says.
        (Err(rejected), ..) | (_, Err(rejected), _) | (.., Err(rejected)) => Err(rejected),
    };
    decoded.map_err(|rejected| Rejected { id: known_id, ..rejected })
}

/// A message of a document. Its clients know nothing of ids: what is none is left out.
fn decode_system<'a>(envelope: &Envelope<'a>, body: &'a str) -> Result<ClientFrame<'a>, Rejected> {
    let id = envelope.id().unwrap_or(None);
    let kind = envelope.check().and_then(|()| decode_kind(envelope));
    let kind = kind.map_err(|rejected| Rejected { id, ..rejected })?;
    Ok(match &*kind {
        "ping" => ClientFrame::Ping { id },
        "pong" => ClientFrame::Pong,
        "status" => ClientFrame::Status { id },
        PLAIN_TEXT => return Err(Rejected::invalid("type", "is reserved")),
        _ => ClientFrame::Other { id, kind, body },
    })
}

fn decode_kind<'a>(envelope: &Envelope<'a>) -> Result<Cow<'a, str>, Rejected> {
    envelope.get(Name::Type).and_then(string).ok_or_else(|| Rejected {
        field: Some(Cow::Borrowed("type")),
        ..Rejected::strike("'type' must be a string")
    })
}

fn decode_command<'a>(
    e: &Envelope<'a>,
    id: Option<u64>,
    kind: Cow<'a, str>,
    body: &'a str,
) -> Result<ClientFrame<'a>, Rejected> {
    // Clients need not send a timestamp, and the server believes its own clock only.
    text(e, Name::Timestamp)?;
    match &*kind {
        "publish" => decode_publish(e, id),
        "subscribe" => decode_subscribe(e, id),
        "unsubscribe" => decode_unsubscribe(e, id),
        "presence" => {
            e.only(const { Name::bits_of("presence") })?;
            Ok(ClientFrame::Presence { id, room: room(e)? })
        }
        "presence_update" => {
            e.only(const { Name::bits_of("presence_update") })?;
            let (room, data) = (room(e)?, data(e)?);
            if data.len() > METADATA_BYTES_MAX {
                return Err(Rejected::too_large("data", "must be at most 4096 bytes of JSON"));
            }
            Ok(ClientFrame::PresenceUpdate { id, room, data })
        }
        "history" => {
            e.only(const { Name::bits_of("history") })?;
            Ok(ClientFrame::History { id, room: room(e)?, since: since(e)?, limit: limit(e)? })
        }
        "connect" => {
            e.only(const { Name::bits_of("connect") })?;
            let token = text(e, Name::Token)?.map(TokenText::new);
            let session = resume::session(e)?;
            Ok(ClientFrame::Connect { id, token, session, resume: resume::rooms(e)? })
        }
        "refresh" => {
            e.only(const { Name::bits_of("refresh") })?;
            let token = text(e, Name::Token)?.ok_or_else(|| missing(Name::Token))?;
            Ok(ClientFrame::Refresh { id, token: TokenText::new(token) })
        }
        "ping" => e.only(const { Name::bits_of("ping") }).map(|()| ClientFrame::Ping { id }),
        "pong" => e.only(const { Name::bits_of("pong") }).map(|()| ClientFrame::Pong),
        "status" => e.only(const { Name::bits_of("status") }).map(|()| ClientFrame::Status { id }),
        _ => Ok(ClientFrame::Other { id, kind, body }),
    }
}

fn decode_publish<'a>(e: &Envelope<'a>, id: Option<u64>) -> Result<ClientFrame<'a>, Rejected> {
    e.only(const { Name::bits_of("publish") })?;
    let (room, data) = (room(e)?, data(e)?);
    let id_error = |name: Name| move |error| id_rejected(name.word(), error);
    let msg_id = text(e, Name::MsgId)?
        .map(|text| MessageId::parse(&text).map_err(id_error(Name::MsgId)))
        .transpose()?;
    let key = text(e, Name::Key)?
        .map(|text| MessageKey::parse(&text).map_err(id_error(Name::Key)))
        .transpose()?;
    let class = class(e)?;
    match (class, &key) {
        (Some(Class::Latest), None) => {
            return Err(Rejected::invalid("key", "is required with class latest"));
        }
        (Some(Class::Reliable | Class::Droppable), Some(_)) => {
            return Err(Rejected::invalid("key", "is only for class latest"));
        }
        (Some(Class::Latest) | None, Some(_))
        | (Some(Class::Reliable | Class::Droppable) | None, None) => {}
    }
    let tags = tags(e)?;
    let echo = flag(e, Name::Echo)?.unwrap_or(true);
    let (ttl, trace) = (ttl(e)?, trace(e)?);
    Ok(ClientFrame::Publish { id, room, data, msg_id, echo, class, key, ttl, tags, trace })
}

fn trace(e: &Envelope<'_>) -> Result<Option<TraceParent>, Rejected> {
    let invalid = || Rejected::invalid("traceparent", "must be a W3C traceparent of version 00");
    let text = text(e, Name::Traceparent)?;
    text.map(|text| TraceParent::parse(&text).ok_or_else(invalid)).transpose()
}

fn room(e: &Envelope<'_>) -> Result<RoomId, Rejected> {
    let name = text(e, Name::Room)?.ok_or_else(|| missing(Name::Room))?;
    parse_room("room", &name)
}

fn parse_room(field: &'static str, name: &str) -> Result<RoomId, Rejected> {
    RoomId::parse(name).map_err(|error| match error {
        RoomIdError::Id(error) => id_rejected(field, error),
        RoomIdError::Shape | RoomIdError::Namespace | RoomIdError::Dots => {
            Rejected::invalid(field, error.to_string())
        }
    })
}

/// `null` is a message like any other, so only an absent `data` is missing.
fn data<'a>(e: &Envelope<'a>) -> Result<&'a str, Rejected> {
    e.raw(Name::Data).ok_or_else(|| missing(Name::Data))
}

fn class(e: &Envelope<'_>) -> Result<Option<Class>, Rejected> {
    let Some(word) = text(e, Name::Class)? else { return Ok(None) };
    let invalid = || Rejected::invalid("class", "must be reliable, latest or droppable");
    Class::parse(&word).map(Some).ok_or_else(invalid)
}

fn ttl(e: &Envelope<'_>) -> Result<Option<Duration>, Rejected> {
    let Some(raw) = e.get(Name::TtlMs) else { return Ok(None) };
    match parse_integer(raw) {
        Some(millis @ 1..=TTL_MS_MAX) => Ok(Some(Duration::from_millis(millis))),
        _ => Err(Rejected::invalid("ttl_ms", "must be a whole number from 1 to 86400000")),
    }
}

fn limit(e: &Envelope<'_>) -> Result<u32, Rejected> {
    let Some(raw) = e.get(Name::Limit) else { return Ok(HISTORY_LIMIT_DEFAULT) };
    parse_integer(raw)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| (1..=HISTORY_LIMIT_MAX).contains(number))
        .ok_or_else(|| Rejected::invalid("limit", "must be a whole number from 1 to 1000"))
}

fn since(e: &Envelope<'_>) -> Result<Option<Position>, Rejected> {
    let Some(raw) = e.get(Name::Since) else { return Ok(None) };
    let invalid = || Rejected::invalid("since", "must be {\"epoch\":string,\"offset\":number}");
    let mut members = Members::open(raw, 0, json::DEPTH_MAX).ok_or_else(invalid)?;
    let (mut epoch, mut offset) = (None, None);
    // The whole object has been scanned, so walking it again finds no error.
    while let Ok(Some((key, value))) = members.next_member() {
        let previous = match &*key {
            "epoch" => epoch.replace(string(value).ok_or_else(invalid)?).is_some(),
            "offset" => offset.replace(parse_integer(value).ok_or_else(invalid)?).is_some(),
            _ => true,
        };
        if previous {
            return Err(invalid());
        }
    }
    let (Some(epoch), Some(offset)) = (epoch, offset) else { return Err(invalid()) };
    position("since", &epoch, offset).map(Some)
}

fn position(field: &'static str, epoch: &str, offset: u64) -> Result<Position, Rejected> {
    if epoch.len() > EPOCH_BYTES_MAX {
        return Err(Rejected::too_large(field, "its epoch must be at most 64 bytes"));
    }
    // Not an error: after a change of servers, clients come with positions of the old kind.
    let epoch = Epoch::parse(epoch).unwrap_or(UNKNOWN_EPOCH);
    let offset = Offset::parse(offset)
        .map_err(|error| Rejected::invalid(field, format!("its offset {error}")))?;
    Ok(Position { epoch, offset })
}

fn tags(e: &Envelope<'_>) -> Result<Tags, Rejected> {
    e.get(Name::Tags).map_or_else(|| Ok(Tags::default()), decode_tags)
}

fn filter(e: &Envelope<'_>) -> Result<Option<Filter>, Rejected> {
    e.get(Name::Filter).map(decode_filter).transpose()
}

fn decode_subscribe<'a>(e: &Envelope<'a>, id: Option<u64>) -> Result<ClientFrame<'a>, Rejected> {
    e.only(const { Name::bits_of("subscribe") })?;
    if let Some(pattern) = pattern(e)? {
        return Ok(ClientFrame::SubscribePattern { id, pattern });
    }
    let presence = flag(e, Name::Presence)?.unwrap_or(false);
    let (room, since, filter) = (room(e)?, since(e)?, filter(e)?);
    Ok(ClientFrame::Subscribe { id, room, since, presence, filter })
}

fn decode_unsubscribe<'a>(e: &Envelope<'a>, id: Option<u64>) -> Result<ClientFrame<'a>, Rejected> {
    e.only(const { Name::bits_of("unsubscribe") })?;
    if let Some(pattern) = pattern(e)? {
        return Ok(ClientFrame::UnsubscribePattern { id, pattern });
    }
    Ok(ClientFrame::Unsubscribe { id, room: room(e)? })
}

/// The pattern of a command that has one; then it has nothing else.
fn pattern(e: &Envelope<'_>) -> Result<Option<RoomPattern>, Rejected> {
    let Some(text) = text(e, Name::Pattern)? else { return Ok(None) };
    e.has_only(Name::Pattern)?;
    if text.len() > RoomId::BYTES_MAX {
        return Err(Rejected::too_large("pattern", "must be at most 255 bytes"));
    }
    let parsed = RoomPattern::parse(&text).ok().filter(RoomPattern::is_prefix);
    let message = "must be the beginning of a room's name with its namespace, and a final *";
    parsed.map(Some).ok_or_else(|| Rejected::invalid("pattern", message))
}

fn flag(e: &Envelope<'_>, name: Name) -> Result<Option<bool>, Rejected> {
    let invalid = || Rejected::invalid(name.word(), "must be true or false");
    e.raw(name).map_or(Ok(None), |raw| flag_of(raw).ok_or_else(invalid))
}

/// A flag; `null` counts as absent. None for any other value.
fn flag_of(raw: &str) -> Option<Option<bool>> {
    match raw {
        "null" => Some(None),
        "true" => Some(Some(true)),
        "false" => Some(Some(false)),
        _ => None,
    }
}

fn text<'a>(e: &Envelope<'a>, name: Name) -> Result<Option<Cow<'a, str>>, Rejected> {
    let Some(raw) = e.get(name) else { return Ok(None) };
    let invalid = || Rejected::invalid(name.word(), "must be a string");
    string(raw).map(Some).ok_or_else(invalid)
}

fn string(raw: &str) -> Option<Cow<'_, str>> {
    raw.starts_with('"').then(|| json::unescape(raw))
}

fn missing(name: Name) -> Rejected {
    Rejected::invalid(name.word(), "is missing")
}

fn id_rejected(field: &'static str, error: IdError) -> Rejected {
    let code = match error {
        IdError::TooLong { .. } => ErrorCode::TooLarge,
        IdError::Empty | IdError::Alphabet | IdError::Reserved => ErrorCode::InvalidField,
    };
    Rejected::field(code, field, error.to_string())
}
