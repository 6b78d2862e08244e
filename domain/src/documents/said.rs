//! A publication in the words of the documents: the published object itself, with who said it, where
//! and when around it.
//!
//! Encoded once for all members who come by those endpoints. What the server says of its own accord
//! must never be said by a client: its types, its `user`, its `timestamp` are taken from nobody else.

use bytes::Bytes;

use crate::documents::place::Place;
use crate::message::Publication;
use crate::position::Position;
use crate::protocol::json::{self, Members, unescape};
use crate::protocol::push_json_string;

/// Types that only the server and its backends use: one who says them is quoted instead.
const OF_THE_SERVER: [&str; 29] = [
    "achievement",
    "ack",
    "announcement",
    "channel_left",
    "connected",
    "disconnect",
    "error",
    "gap",
    "hello",
    "history",
    "match_created",
    "match_ended",
    "match_started",
    "message",
    "message_deleted",
    "moderation",
    "ping",
    "player_status",
    "pong",
    "state_change",
    "stats",
    "status",
    "system_announcement",
    "token_expiring",
    "user_connected",
    "user_disconnected",
    "user_list",
    "user_update",
    "welcome",
];

/// Encodes a publication as those endpoints say it. None of it for a message that is gone, whose
/// place means nothing there.
///
/// An object with a `type` is said as it is. A text in a chat is a `chat_message`. Anything else is the
/// `data` of a `message`.
pub fn encode(publication: &Publication, out: &mut Vec<u8>) -> bool {
    encode_with(publication, None, out)
}

/// The same with a `message_id`, as in `history`. What is nested so deep that a list of it would be nested
/// deeper than anything may be is a `message` without its data.
pub fn encode_listed(publication: &Publication, out: &mut Vec<u8>) -> bool {
    let position = publication.offset.map(|offset| Position { epoch: publication.epoch, offset });
    let data = std::str::from_utf8(&publication.data).unwrap_or_default();
    let fits = data.is_empty() || json::scan_value(data, 0, LISTED_DEPTH_MAX).is_ok();
    if fits {
        return encode_with(publication, position, out);
    }
    let without = Publication { data: Bytes::new(), ..publication.clone() };
    encode_with(&without, position, out)
}

/// How deep a listed message may be nested: a list and the answer around it are two more.
const LISTED_DEPTH_MAX: u32 = json::DEPTH_MAX - 4;

/// How a message is called where messages are listed: `<epoch>-<offset>`.
#[must_use]
pub fn message_id(position: Position) -> String {
    format!("{}-{}", position.epoch, position.offset.get())
}

fn encode_with(publication: &Publication, listed_as: Option<Position>, out: &mut Vec<u8>) -> bool {
    if publication.tombstone.is_some() {
        return false;
    }
    let data = std::str::from_utf8(&publication.data).unwrap_or_default();
    let place = Place::of(&publication.room);
    // Nobody in particular says nothing in a backend's name either.
    let speaks_itself = publication.sender.connection.is_none();
    let kind = kind(data).filter(|kind| speaks_itself || !OF_THE_SERVER.contains(&&**kind));
    let is_talk = place.channel().is_some() && data.starts_with('"');
    out.extend_from_slice(br#"{"type":"#);
    match &kind {
        Some(kind) => push_json_string(out, kind),
        None if is_talk => out.extend_from_slice(br#""chat_message""#),
        None => out.extend_from_slice(br#""message""#),
    }
    if !speaks_itself {
        push_sender(publication, &place, out);
    }
    // It names another message than itself, also where it is listed.
    let is_of_the_server = publication.sender.connection.is_none();
    let names_another = is_of_the_server && kind.as_deref() == Some("message_deleted");
    let keeps = |key: &str| match key {
        "message_id" => names_another,
        key => is_kept(key, speaks_itself, &place),
    };
    match &kind {
        Some(_) => push_members(data, keeps, out),
        None => push_value(if is_talk { "content" } else { "data" }, data, out),
    }
    push_place(&place, out);
    if let Some(position) = listed_as.filter(|_| !names_another) {
        push_field("message_id", &message_id(position), out);
    }
    out.extend_from_slice(br#","timestamp":""#);
    out.extend_from_slice(&publication.at.to_iso8601_seconds());
    out.extend_from_slice(b"\"}");
    true
}

/// The `type` of an object that has one.
fn kind(data: &str) -> Option<std::borrow::Cow<'_, str>> {
    let mut members = Members::open(data, 0, json::DEPTH_MAX)?;
    while let Ok(Some((key, value))) = members.next_member() {
        if key == "type" {
            return value.starts_with('"').then(|| unescape(value)).filter(|kind| !kind.is_empty());
        }
    }
    None
}

/// Whether a member of the published object is said; the others come from the server.
fn is_kept(key: &str, speaks_itself: bool, place: &Place<'_>) -> bool {
    match key {
        // An `id` is that of an answer.
        "type" | "timestamp" | "id" => false,
        "user" | "user_id" => speaks_itself,
        "channel" | "guild_id" | "party_id" => speaks_itself && place.channel().is_none(),
        "match_id" => speaks_itself && !matches!(place, Place::Match(_)),
        _ => true,
    }
}

fn push_sender(publication: &Publication, place: &Place<'_>, out: &mut Vec<u8>) {
    let sender = &publication.sender;
    let user = sender.user.as_ref().map(|user| user.as_str());
    if place.shows_names() {
        push_text_or_null("user", sender.name.as_deref().or(user), out);
    }
    push_text_or_null("user_id", user, out);
}

fn push_members(data: &str, is_kept: impl Fn(&str) -> bool, out: &mut Vec<u8>) {
    let Some(mut members) = Members::open(data, 0, json::DEPTH_MAX) else { return };
    while let Ok(Some((key, value))) = members.next_member() {
        if is_kept(&key) {
            push_value(&key, value, out);
        }
    }
}

/// `channel` and what names it, or the match.
pub(super) fn push_place(place: &Place<'_>, out: &mut Vec<u8>) {
    if let Some(channel) = place.channel() {
        push_field("channel", channel, out);
    }
    if let Some((name, id)) = place.id() {
        push_field(name, id, out);
    }
}

pub(super) fn push_field(key: &str, text: &str, out: &mut Vec<u8>) {
    push_key(key, out);
    push_json_string(out, text);
}

pub(super) fn push_text_or_null(key: &str, text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => push_field(key, text, out),
        None => push_value(key, "null", out),
    }
}

/// A member whose value is checked JSON; no bytes at all stand for `null`.
pub(super) fn push_value(key: &str, json: &str, out: &mut Vec<u8>) {
    push_key(key, out);
    out.extend_from_slice(if json.is_empty() { b"null" } else { json.as_bytes() });
}

fn push_key(key: &str, out: &mut Vec<u8>) {
    out.push(b',');
    push_json_string(out, key);
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Class;
    use crate::id::{ConnectionId, Epoch, UserId};
    use crate::message::{Sender, TombstoneReason};
    use crate::position::Offset;
    use crate::room::RoomId;
    use crate::tags::Tags;
    use crate::time::Wall;

    fn publication(room: &str, sender: Sender, data: &str) -> Publication {
        Publication {
            room: RoomId::parse(room).unwrap(),
            epoch: Epoch::from_bits(0xab),
            offset: Offset::parse(58).ok(),
            class: Class::Reliable,
            key: None,
            sender,
            data: data.to_owned().into(),
            tags: Tags::default(),
            origin: None,
            at: Wall::from_millis(1_749_225_600_000),
            expires_at: None,
            tombstone: None,
        }
    }

    fn user() -> Sender {
        Sender {
            user: UserId::parse("uuid").ok(),
            name: Some("username".into()),
            connection: Some(ConnectionId::from_bits(1)),
            trace: None,
        }
    }

    fn said(room: &str, sender: Sender, data: &str) -> String {
        let mut out = Vec::new();
        assert!(encode(&publication(room, sender, data), &mut out));
        let text = String::from_utf8(out).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        text
    }

    #[test]
    fn the_chat_message_of_the_document_is_said_as_it_is_printed() {
        let data = r#"{"type":"chat_message","content":"Hello world!"}"#;
        let printed = r#"{"type":"chat_message","user":"username","user_id":"uuid","content":"Hello world!","channel":"global","timestamp":"2025-06-06T16:00:00Z"}"#;
        assert_eq!(said("chat:global", user(), data), printed);
        // So is what a member of protocol v2 says there without more words.
        assert_eq!(said("chat:global", user(), r#""Hello world!""#), printed);
    }

    #[test]
    fn the_achievement_of_the_document_is_said_as_it_is_printed() {
        let data = r#"{"type":"achievement","user_id":"uuid","achievement":"first_kill"}"#;
        let printed = r#"{"type":"achievement","user_id":"uuid","achievement":"first_kill","timestamp":"2025-06-06T16:00:00Z"}"#;
        assert_eq!(said("game:events", Sender::default(), data), printed);
        // Whoever may publish there is no backend.
        let quoted = said("game:events", user(), data);
        assert!(quoted.starts_with(r#"{"type":"message","user_id":"uuid","data":{"#), "{quoted}");
    }

    #[test]
    fn the_movement_of_the_document_is_said_as_it_is_printed() {
        let data = r#"{"type":"player_movement","x":100.5,"y":200.3,"zone":"starter_town"}"#;
        let printed = r#"{"type":"player_movement","user_id":"uuid","x":100.5,"y":200.3,"zone":"starter_town","timestamp":"2025-06-06T16:00:00Z"}"#;
        assert_eq!(said("world:starter_town", user(), data), printed);
    }

    #[test]
    fn nobody_speaks_as_somebody_else_or_as_the_server() {
        let data = r#"{"type":"chat_message","user":"Admin","user_id":"root","timestamp":"x","channel":"guild","content":"hi"}"#;
        let text = said("chat:global", user(), data);
        assert!(
            text.contains(
                r#""user":"username","user_id":"uuid","content":"hi","channel":"global""#
            )
        );
        assert!(!text.contains("Admin") && !text.contains("root") && !text.contains("guild"));
        for kind in OF_THE_SERVER {
            let text = said("chat:global", user(), &format!(r#"{{"type":"{kind}","a":1}}"#));
            assert!(text.starts_with(r#"{"type":"message","user":"username""#), "{text}");
        }
        // Whoever has no name has no other's either.
        let nobody = Sender { user: None, name: None, ..user() };
        let text = said("world:a", nobody, r#"{"type":"player_movement","user_id":"u1"}"#);
        assert!(text.starts_with(r#"{"type":"player_movement","user_id":null,"#), "{text}");
        let own = r#"{"type":"x","id":7,"channel":"private","guild_id":"g","match_id":"m","a":1}"#;
        for room in ["chat:lobby", "match:m1", "world:a", "game:events"] {
            let text = said(room, user(), own);
            assert!(
                !text.contains("private") && !text.contains("\"id\"") && !text.contains("\"g\""),
                "{text}"
            );
        }
        // An escaped spelling is the same type, a second `type` is none.
        let text = said("chat:global", user(), r#"{"type":"\u0065rror","type":"x","a":1}"#);
        assert!(text.starts_with(r#"{"type":"message""#), "{text}");
        let text = said("chat:global", user(), r#"{"type":"x","a":1,"type":"error"}"#);
        assert!(text.starts_with(r#"{"type":"x""#) && !text.contains("error"), "{text}");
    }

    #[test]
    fn a_backend_speaks_for_itself() {
        let data = r#"{"type":"announcement","message":"Server maintenance in 5 minutes"}"#;
        let text = said("chat:lobby", Sender::default(), data);
        let printed = r#"{"type":"announcement","message":"Server maintenance in 5 minutes","timestamp":"2025-06-06T16:00:00Z"}"#;
        assert_eq!(text, printed);
    }

    #[test]
    fn what_has_no_type_is_the_data_of_a_message() {
        for (data, value) in [("7", "7"), ("[1]", "[1]"), ("{\"a\":1}", "{\"a\":1}"), ("", "null")]
        {
            let text = said("chat:global", user(), data);
            assert!(text.contains(&format!(r#""type":"message","user":"username","user_id":"uuid","data":{value},"channel":"global""#)), "{text}");
        }
        let text = said("match:m1", user(), r#""gg""#);
        assert!(text.contains(r#""data":"gg","match_id":"m1""#), "{text}");
    }

    #[test]
    fn a_listed_message_has_an_id_and_a_deleted_one_is_not_said() {
        let mut out = Vec::new();
        let one = publication("chat:guild/42", user(), r#"{"type":"chat_message","content":"a"}"#);
        assert!(encode_listed(&one, &mut out));
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains(
                r#""channel":"guild","guild_id":"42","message_id":"00000000000000ab-58","#
            )
        );
        assert!(!encode(&one.into_tombstone(TombstoneReason::Deleted), &mut Vec::new()));
    }

    #[test]
    fn a_deletion_names_the_message_that_was_deleted_and_only_the_server_says_one() {
        let data = r#"{"type":"message_deleted","message_id":"00000000000000ab-7","by":"ann"}"#;
        let told = r#"{"type":"message_deleted","message_id":"00000000000000ab-7","by":"ann","channel":"global","timestamp":"2025-06-06T16:00:00Z"}"#;
        assert_eq!(said("chat:global", Sender::default(), data), told);
        let mut listed = Vec::new();
        let one = publication("chat:global", Sender::default(), data);
        assert!(encode_listed(&one, &mut listed));
        assert_eq!(String::from_utf8(listed).unwrap(), told);
        let forged = said("chat:global", user(), data);
        assert!(forged.starts_with(r#"{"type":"message","user":"username","#), "{forged}");
    }
}
