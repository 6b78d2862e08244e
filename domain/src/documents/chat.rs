//! What is said on `/ws/chat`: messages, typing, questions for the past, moderation.
//!
//! A command that exists is valid in itself; whether it may be carried out is not known here. What
//! somebody wrote is passed on byte for byte.

use std::borrow::Cow;
use std::time::Duration;

use crate::documents::fields::Fields;
use crate::documents::place::Place;
use crate::documents::said::message_id;
use crate::id::{Epoch, UserId};
pub use crate::moderation::Act;
use crate::position::{Offset, Position};
use crate::protocol::Rejected;
use crate::room::RoomId;

/// The longest text of one message, in bytes.
pub const CONTENT_BYTES_MAX: usize = 4096;
/// The longest reason of a moderator, in bytes.
pub const REASON_BYTES_MAX: usize = 256;
/// How many messages `history` asks for when it does not say.
pub const HISTORY_LIMIT_DEFAULT: u64 = 50;
/// The most messages that one `history` may ask for.
pub const HISTORY_LIMIT_MAX: u64 = 1000;
/// The longest mute or ban that ends, in seconds: ten years.
pub const DURATION_SECONDS_MAX: u64 = 315_360_000;

/// `chat_message`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    /// Where to.
    pub target: Target,
    /// What was written: a JSON string, as it came.
    pub content: &'a str,
}

/// Where something is said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// A room of many.
    Room(RoomId),
    /// One user, over all of its connections.
    User(UserId),
}

impl Message<'_> {
    /// The published object; `to_user_id` stands in the sender's own copy of a private message.
    #[must_use]
    pub fn data(&self, to_user_id: Option<&UserId>) -> String {
        let to = to_user_id.map_or_else(String::new, |user| {
            let mut text = Vec::new();
            crate::protocol::push_json_string(&mut text, user.as_str());
            format!(r#","to_user_id":{}"#, String::from_utf8_lossy(&text))
        });
        format!(r#"{{"type":"chat_message","content":{}{to}}}"#, self.content)
    }
}

/// `typing`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Typing {
    /// Where to.
    pub target: Target,
    /// Whether somebody began or stopped.
    pub is_typing: bool,
}

impl Typing {
    /// The published object.
    #[must_use]
    pub fn data(&self) -> String {
        format!(r#"{{"type":"typing","is_typing":{}}}"#, self.is_typing)
    }
}

/// `history`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct History {
    /// Which room.
    pub room: RoomId,
    /// Only what was said before this message; none means up to the newest.
    pub before: Option<Position>,
    /// How many at most.
    pub limit: u32,
}

/// `moderation`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Moderation {
    /// Which room.
    pub room: RoomId,
    /// What is done.
    pub act: Act,
    /// Why, in the moderator's words.
    pub reason: Option<String>,
}

impl Moderation {
    /// The published object, in the server's name: who did what. Why a message was deleted is for the
    /// audit log alone: it would say again what is gone.
    #[must_use]
    pub fn announcement(&self, by: &UserId) -> String {
        let text = |text: &str| {
            let mut quoted = Vec::new();
            crate::protocol::push_json_string(&mut quoted, text);
            String::from_utf8_lossy(&quoted).into_owned()
        };
        let by = text(by.as_str());
        let reason = self.reason.as_deref().map_or_else(|| "null".to_owned(), text);
        let (user, span) = match &self.act {
            Act::Delete(position) => {
                let id = message_id(*position);
                return format!(r#"{{"type":"message_deleted","message_id":"{id}","by":{by}}}"#);
            }
            Act::Mute(user, span) | Act::Ban(user, span) => (user, *span),
            Act::Unmute(user) | Act::Kick(user) | Act::Unban(user) => (user, None),
        };
        let (word, user) = (self.act.word(), text(user.as_str()));
        let seconds = span.map_or_else(|| "null".to_owned(), |span| span.as_secs().to_string());
        format!(
            r#"{{"type":"moderation","action":"{word}","user_id":{user},"by":{by},"duration_seconds":{seconds},"reason":{reason}}}"#
        )
    }
}

/// Reads a `chat_message`.
///
/// # Errors
/// What is wrong, with the field.
pub fn message(body: &str) -> Result<Message<'_>, Rejected> {
    let fields = Fields::new(body);
    let target = target(fields)?;
    Ok(Message { target, content: fields.written("content", CONTENT_BYTES_MAX)? })
}

/// Reads a `typing`.
///
/// # Errors
/// What is wrong, with the field.
pub fn typing(body: &str) -> Result<Typing, Rejected> {
    let fields = Fields::new(body);
    Ok(Typing { target: target(fields)?, is_typing: fields.flag("is_typing", true)? })
}

/// Reads a `history`.
///
/// # Errors
/// What is wrong, with the field.
pub fn history(body: &str) -> Result<History, Rejected> {
    let fields = Fields::new(body);
    let limit = fields.whole("limit", 1..=HISTORY_LIMIT_MAX)?.unwrap_or(HISTORY_LIMIT_DEFAULT);
    let before = fields.text("before")?;
    let before = before.map(|text| position("before", &text)).transpose()?;
    Ok(History { room: room(fields)?, before, limit: u32::try_from(limit).unwrap_or(u32::MAX) })
}

/// Reads a `moderation`.
///
/// # Errors
/// What is wrong, with the field.
pub fn moderation(body: &str) -> Result<Moderation, Rejected> {
    let fields = Fields::new(body);
    let room = room(fields)?;
    let user = || fields.needed_user("user_id");
    let seconds = fields.whole("duration_seconds", 1..=DURATION_SECONDS_MAX);
    let span = || Ok::<_, Rejected>(seconds?.map(Duration::from_secs));
    let act = match &*fields.needed_text("action")? {
        "mute" => Act::Mute(user()?, span()?),
        "unmute" => Act::Unmute(user()?),
        "kick" => Act::Kick(user()?),
        "ban" => Act::Ban(user()?, span()?),
        "unban" => Act::Unban(user()?),
        "delete" => Act::Delete(position("message_id", &fields.needed_text("message_id")?)?),
        _ => {
            let words = "must be mute, unmute, kick, ban, unban or delete";
            return Err(Rejected::invalid("action", words));
        }
    };
    fields.note("reason", REASON_BYTES_MAX)?;
    let reason = fields.text("reason")?.map(Cow::into_owned);
    Ok(Moderation { room, act, reason })
}

/// A message's id, `<epoch>-<offset>`.
fn position(field: &'static str, text: &str) -> Result<Position, Rejected> {
    let parts = text.split_once('-').and_then(|(epoch, offset)| {
        let is_number = offset.bytes().all(|byte| byte.is_ascii_digit());
        let offset = offset.parse().ok().filter(|_| is_number)?;
        Some(Position {
            epoch: Epoch::parse(epoch).ok()?,
            offset: Offset::parse(offset).ok().filter(|offset| *offset > Offset::ZERO)?,
        })
    });
    parts.ok_or_else(|| Rejected::invalid(field, "must be the message_id of a message"))
}

/// Where something is said to many.
fn room(fields: Fields<'_>) -> Result<RoomId, Rejected> {
    match target(fields)? {
        Target::Room(room) => Ok(room),
        Target::User(_) => {
            Err(Rejected::invalid("channel", "must be a channel that is not private"))
        }
    }
}

/// `channel`, which is `global` when it is left out, and what names it.
fn target(fields: Fields<'_>) -> Result<Target, Rejected> {
    let channel = fields.text("channel")?.unwrap_or(Cow::Borrowed("global"));
    let (place, field) = match &*channel {
        "guild" => (Place::Guild(fields.needed_text("guild_id")?), "guild_id"),
        "party" => (Place::Party(fields.needed_text("party_id")?), "party_id"),
        "private" => return fields.needed_user("to_user_id").map(Target::User),
        "" => return Err(Rejected::invalid("channel", "must not be empty")),
        name if name.contains('/') => {
            let words = "must be global, guild, party, private or another channel's name";
            return Err(Rejected::invalid("channel", words));
        }
        _ => (Place::Channel(channel.clone()), "channel"),
    };
    let invalid = |error: crate::room::RoomIdError| Rejected::invalid(field, error.to_string());
    let room = place.room().map_err(invalid)?;
    room.map(Target::Room).ok_or_else(|| Rejected::invalid(field, "is no channel"))
}

#[cfg(test)]
mod tests;
