//! All that the server says on the endpoints of the documents beside publications: greetings, who
//! comes and goes, answers, errors.
//!
//! It must never tell what a document has no words for, nor leave a loss untold: a `gap` is said.

use std::fmt;
use std::sync::Arc;

use crate::documents::place::Place;
use crate::documents::said::{
    self, message_id, push_field, push_place, push_text_or_null, push_value,
};
use crate::id::UserId;
use crate::position::Position;
use crate::presence::{PresenceChange, PresenceKey, PresenceList};
use crate::protocol::encode::{Line, push_json_string};
use crate::protocol::json::{self, Members};
use crate::protocol::{ResumeOutcome, Resumed, ServerFrame};
use crate::room::RoomId;
use crate::time::Wall;

/// Which of those endpoints.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Endpoint {
    /// `/ws`.
    Lobby,
    /// `/ws/game`.
    Game,
    /// `/ws/chat`.
    Chat,
    /// `/ws/combat`.
    Combat,
    /// `/ws/world`.
    World,
    /// `/ws/games/{match_id}`.
    Match,
}

impl Endpoint {
    /// What it is called in the greeting.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lobby => "lobby",
            Self::Game => "game",
            Self::Chat => "chat",
            Self::Combat => "combat",
            Self::World => "world",
            Self::Match => "match",
        }
    }
}

/// What users are called.
pub type Names<'a> = &'a dyn Fn(&UserId) -> Option<Arc<str>>;

/// Whom it is told.
#[derive(Clone, Copy)]
pub struct Listener<'a> {
    /// By which endpoint it came.
    pub endpoint: Endpoint,
    /// Its label.
    pub client: &'a str,
    /// What users are called.
    pub names: Names<'a>,
}

impl fmt::Debug for Listener<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Encodes a frame as those endpoints say it; none of it for one that they don't.
#[must_use]
pub fn encode(frame: &ServerFrame<'_>, to: Listener<'_>, now: Wall, out: &mut Vec<u8>) -> bool {
    match frame {
        ServerFrame::Hello { .. } => greet(frame, to, now, out),
        ServerFrame::Ping => Line::begin(out, "ping").end_with_seconds(now),
        ServerFrame::Pong { id } => answer("pong", *id, now, out, |_| {}),
        ServerFrame::Status { id, user_id, rooms, connected_since, request_id, .. } => {
            answer("status", *id, now, out, |out| {
                push_field("status", "connected", out);
                push_text_or_null("user_id", user_id.map(UserId::as_str), out);
                push_channels(rooms.iter().copied(), out);
                push_time("connected_since", *connected_since, out);
                push_field("request_id", request_id, out);
            });
        }
        ServerFrame::Error { id, code, message, field, retry_after_ms } => {
            answer("error", *id, now, out, |out| {
                push_value("code", &code.number().to_string(), out);
                push_field("error", code.word(), out);
                push_field("message", message, out);
                push_text_or_null("field", *field, out);
                let retry = retry_after_ms.map(|ms| ms.to_string());
                push_value("retry_after_ms", retry.as_deref().unwrap_or("null"), out);
            });
        }
        ServerFrame::Ack { id: Some(_), room, epoch, offset, duplicate, .. } => {
            let ServerFrame::Ack { id, .. } = frame else { return false };
            answer("ack", *id, now, out, |out| {
                push_place(&Place::of(room), out);
                let position = offset.map(|offset| Position { epoch: *epoch, offset });
                push_text_or_null("message_id", position.map(message_id).as_deref(), out);
                push_value("duplicate", if *duplicate { "true" } else { "false" }, out);
            });
        }
        ServerFrame::PresenceState { id, list, .. } => {
            answer("user_list", *id, now, out, |out| push_users(list, to.names, out));
        }
        ServerFrame::Unsubscribed { id, room, code, reason } => {
            answer("channel_left", *id, now, out, |out| {
                push_place(&Place::of(room), out);
                let code = code.map(|code| code.to_string());
                push_value("code", code.as_deref().unwrap_or("null"), out);
                push_text_or_null("reason", *reason, out);
            });
        }
        ServerFrame::Reply { id, kind, body } => answer(kind, *id, now, out, |out| {
            if !push_object(body, out) {
                push_value("data", body, out);
            }
        }),
        ServerFrame::Ack { .. }
        | ServerFrame::PresenceEvent { .. }
        | ServerFrame::PresenceEvents { .. }
        | ServerFrame::PresenceCount { .. }
        | ServerFrame::Gap { .. }
        | ServerFrame::TokenExpiring { .. }
        | ServerFrame::Subscribed { .. }
        | ServerFrame::Page { .. }
        | ServerFrame::HistoryPage { .. }
        | ServerFrame::PatternSubscribed { .. }
        | ServerFrame::PatternUnsubscribed { .. }
        | ServerFrame::PresenceUpdated { .. }
        | ServerFrame::Refreshed { .. }
        | ServerFrame::Disconnect { .. } => return encode_event(frame, to.names, now, out),
    }
    true
}

/// What comes without having been asked for.
fn encode_event(frame: &ServerFrame<'_>, names: Names<'_>, now: Wall, out: &mut Vec<u8>) -> bool {
    match frame {
        ServerFrame::PresenceEvent { room, event } => {
            let kind = match event.change {
                PresenceChange::Join => "user_connected",
                PresenceChange::Leave => "user_disconnected",
                PresenceChange::Update => "user_update",
            };
            answer(kind, None, now, out, |out| {
                push_user(&event.who, names, out);
                if event.change == PresenceChange::Update {
                    push_data(&event.data, out);
                }
                push_place(&Place::of(room), out);
            });
        }
        ServerFrame::Gap { room, gap } => answer("gap", None, now, out, |out| {
            push_place(&Place::of(room), out);
            let missed = gap.to.get().saturating_sub(gap.from.get()) + 1;
            push_value("missed", &missed.to_string(), out);
            push_field("reason", gap.reason.word(), out);
        }),
        ServerFrame::TokenExpiring { expires_at } => {
            answer("token_expiring", None, now, out, |out| {
                push_time("expires_at", *expires_at, out);
            });
        }
        // Positions, patterns, tickets and what answers only them; why a connection ends stands in
        // the close frame. Who comes and goes is said one by one.
        ServerFrame::Ack { .. }
        | ServerFrame::PresenceEvents { .. }
        | ServerFrame::PresenceCount { .. }
        | ServerFrame::Subscribed { .. }
        | ServerFrame::Page { .. }
        | ServerFrame::HistoryPage { .. }
        | ServerFrame::PatternSubscribed { .. }
        | ServerFrame::PatternUnsubscribed { .. }
        | ServerFrame::PresenceUpdated { .. }
        | ServerFrame::Refreshed { .. }
        | ServerFrame::Disconnect { .. }
        // Answered above.
        | ServerFrame::Hello { .. }
        | ServerFrame::Ping
        | ServerFrame::Pong { .. }
        | ServerFrame::Status { .. }
        | ServerFrame::Error { .. }
        | ServerFrame::PresenceState { .. }
        | ServerFrame::Unsubscribed { .. }
        | ServerFrame::Reply { .. } => return false,
    }
    true
}

/// Encodes a frame that goes to all members of a room who came by any of those endpoints; none of it for
/// one that they don't say.
#[must_use]
pub fn encode_for_all(
    frame: &ServerFrame<'_>,
    names: Names<'_>,
    now: Wall,
    out: &mut Vec<u8>,
) -> bool {
    // What goes to all names neither an endpoint nor a client.
    encode(frame, Listener { endpoint: Endpoint::Lobby, client: "", names }, now, out)
}

/// An answer carries the `id` of what it answers, if that had one.
fn answer(
    kind: &str,
    id: Option<u64>,
    now: Wall,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    out.extend_from_slice(br#"{"type":"#);
    push_json_string(out, kind);
    if let Some(id) = id {
        push_value("id", &id.to_string(), out);
    }
    fill(out);
    push_time("timestamp", now, out);
    out.push(b'}');
}

fn greet(frame: &ServerFrame<'_>, to: Listener<'_>, now: Wall, out: &mut Vec<u8>) {
    let ServerFrame::Hello { request_id, connection_id, user_id, rooms, .. } = frame else {
        return;
    };
    let ServerFrame::Hello { resumed, heartbeat_interval_ms, .. } = frame else { return };
    let kind = if to.endpoint == Endpoint::Lobby { "welcome" } else { "connected" };
    answer(kind, None, now, out, |out| {
        let name = user_id.and_then(to.names);
        let user = user_id.map(UserId::as_str);
        push_text_or_null("user", name.as_deref().or(user), out);
        push_text_or_null("user_id", user, out);
        push_field("connection_id", &connection_id.to_string(), out);
        push_field("endpoint", to.endpoint.word(), out);
        let joined = resumed.iter().filter_map(|Resumed { room, outcome }| {
            matches!(outcome, ResumeOutcome::Back { .. }).then_some(*room)
        });
        push_channels(joined.chain(rooms.iter().copied()), out);
        push_field("client_id", to.client, out);
        push_field("request_id", request_id, out);
        push_value("heartbeat_interval_ms", &heartbeat_interval_ms.to_string(), out);
    });
}

/// The places that somebody is in, as `global`, `guild/42`, `private`.
fn push_channels<'r>(rooms: impl Iterator<Item = &'r RoomId>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","channels":["#);
    let mut is_first = true;
    for room in rooms {
        let place = Place::of(room);
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        let name = match &place {
            Place::Lobby | Place::Channel(_) | Place::Guild(_) | Place::Party(_) => room.rest(),
            Place::Private(_) => "private",
            Place::Match(_) | Place::Event | Place::Elsewhere => room.as_str(),
        };
        push_json_string(out, name);
    }
    out.push(b']');
}

fn push_user(who: &PresenceKey, names: Names<'_>, out: &mut Vec<u8>) {
    match who {
        PresenceKey::User(user) => {
            push_field("user", names(user).as_deref().unwrap_or(user.as_str()), out);
            push_field("user_id", user.as_str(), out);
        }
        PresenceKey::Anonymous(_) => {
            push_value("user", "null", out);
            push_value("user_id", "null", out);
        }
    }
}

fn push_users(list: &PresenceList, names: Names<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","users":["#);
    for (place, member) in list.members.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        // Each field brings a comma before it; that of the first opens the object.
        let start = out.len();
        push_user(&member.who, names, out);
        push_value("connections", &member.connections.to_string(), out);
        push_data(&member.data, out);
        if let Some(first) = out.get_mut(start) {
            *first = b'{';
        }
        out.push(b'}');
    }
    out.push(b']');
    push_value("total_users", &list.total.to_string(), out);
    push_value("total_connections", &list.connections.to_string(), out);
}

/// What a member shows of itself, if it does.
fn push_data(data: &[u8], out: &mut Vec<u8>) {
    if let Some(data) = std::str::from_utf8(data).ok().filter(|data| !data.is_empty()) {
        push_value("data", data, out);
    }
}

fn push_time(key: &'static str, time: Wall, out: &mut Vec<u8>) {
    let seconds = time.to_iso8601_seconds();
    push_field(key, std::str::from_utf8(&seconds).unwrap_or_default(), out);
}

/// The members of an object beside those that are the server's; false when it is none.
fn push_object(body: &str, out: &mut Vec<u8>) -> bool {
    let Some(mut members) = Members::open(body, 0, json::DEPTH_MAX) else { return false };
    while let Ok(Some((key, value))) = members.next_member() {
        if !matches!(&*key, "type" | "id" | "timestamp") {
            push_value(&key, value, out);
        }
    }
    true
}

/// Who is there, as the object that `user_list` is said with.
#[must_use]
pub fn users(list: &PresenceList, names: Names<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    push_users(list, names, &mut out);
    if let Some(first) = out.first_mut() {
        *first = b'{';
    }
    out.push(b'}');
    out
}

/// The messages of a page of history, each as it was said and with its id.
#[must_use]
pub fn listed<'p>(
    publications: impl IntoIterator<Item = &'p crate::message::Publication>,
) -> Vec<u8> {
    let mut out = vec![b'['];
    for publication in publications {
        let before = out.len();
        if before > 1 {
            out.push(b',');
        }
        if !said::encode_listed(publication, &mut out) {
            out.truncate(before);
        }
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::ErrorCode;
    use crate::id::{ClientId, ConnectionId};
    use crate::presence::{PresenceEvent, PresentMember};

    fn told(endpoint: Endpoint, frame: &ServerFrame<'_>) -> Option<String> {
        let names = |user: &UserId| (user.as_str() == "u1").then(|| Arc::from("Ann"));
        let to = Listener { endpoint, client: "c1", names: &names };
        let mut out = Vec::new();
        let said = encode(frame, to, Wall::from_millis(1_749_225_600_999), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(!said || serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        said.then_some(text)
    }

    fn hello<'a>(client: &'a ClientId, user: Option<&'a UserId>) -> ServerFrame<'a> {
        ServerFrame::Hello {
            id: None,
            features: &[],
            request_id: "r-1",
            client_id: client,
            connection_id: ConnectionId::from_bits(7),
            user_id: user,
            rooms: &[],
            session: Some("ticket"),
            resumed: &[],
            heartbeat_interval_ms: 30_000,
        }
    }

    #[test]
    fn a_greeting_says_who_one_is_and_where_and_gives_no_ticket_away() {
        let (client, user) = (ClientId::parse("c1").unwrap(), UserId::parse("u1").unwrap());
        let text = told(Endpoint::Lobby, &hello(&client, Some(&user))).unwrap();
        assert_eq!(
            text,
            r#"{"type":"welcome","user":"Ann","user_id":"u1","connection_id":"0000000000000007","endpoint":"lobby","channels":[],"client_id":"c1","request_id":"r-1","heartbeat_interval_ms":30000,"timestamp":"2025-06-06T16:00:00Z"}"#
        );
        let text = told(Endpoint::Game, &hello(&client, None)).unwrap();
        assert!(text.starts_with(r#"{"type":"connected","user":null,"user_id":null,"#), "{text}");
    }

    #[test]
    fn users_come_go_and_are_listed_by_name_once_each() {
        let user = UserId::parse("u1").unwrap();
        let room = RoomId::parse("chat:lobby").unwrap();
        let who = PresenceKey::User(user);
        let event =
            |change| PresenceEvent { seq: 1, change, who: who.clone(), data: "".into(), total: 1 };
        let join = event(PresenceChange::Join);
        let text = told(Endpoint::Lobby, &ServerFrame::PresenceEvent { room: &room, event: &join });
        assert_eq!(
            text.unwrap(),
            r#"{"type":"user_connected","user":"Ann","user_id":"u1","timestamp":"2025-06-06T16:00:00Z"}"#
        );
        let member = PresentMember { who, data: "{\"a\":1}".into(), connections: 2 };
        let list = PresenceList { seq: 1, total: 1, connections: 2, members: vec![member] };
        let frame = ServerFrame::PresenceState { id: Some(3), room: &room, list: &list };
        assert_eq!(
            told(Endpoint::Lobby, &frame).unwrap(),
            r#"{"type":"user_list","id":3,"users":[{"user":"Ann","user_id":"u1","connections":2,"data":{"a":1}}],"total_users":1,"total_connections":2,"timestamp":"2025-06-06T16:00:00Z"}"#
        );
    }

    #[test]
    fn an_error_names_code_word_field_and_nothing_else() {
        let frame = ServerFrame::Error {
            id: None,
            code: ErrorCode::InvalidField,
            message: "is missing",
            field: Some("content"),
            retry_after_ms: None,
        };
        assert_eq!(
            told(Endpoint::Chat, &frame).unwrap(),
            r#"{"type":"error","code":102,"error":"invalid_field","message":"is missing","field":"content","retry_after_ms":null,"timestamp":"2025-06-06T16:00:00Z"}"#
        );
    }

    #[test]
    fn a_reply_is_said_flat_and_can_not_pretend_to_be_another_frame() {
        let body = r#"{"channel":"global","type":"error","id":9,"timestamp":"x","more":false}"#;
        let frame = ServerFrame::Reply { id: Some(4), kind: "history", body };
        assert_eq!(
            told(Endpoint::Chat, &frame).unwrap(),
            r#"{"type":"history","id":4,"channel":"global","more":false,"timestamp":"2025-06-06T16:00:00Z"}"#
        );
        let frame = ServerFrame::Reply { id: None, kind: "x", body: "[1]" };
        assert!(told(Endpoint::Chat, &frame).unwrap().starts_with(r#"{"type":"x","data":[1],"#));
    }

    #[test]
    fn nobody_is_told_of_positions_and_tickets() {
        let frame = ServerFrame::Refreshed { id: Some(1), expires_at: None, session: Some("t") };
        assert_eq!(told(Endpoint::Chat, &frame), None);
    }
}
