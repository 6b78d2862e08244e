//! The frames that say who is in a room, as bytes.
//!
//! It must never name a member otherwise than any other frame does.

use std::borrow::Cow;

use super::ServerFrame;
use crate::presence::gathering::ChangedMember;
use crate::presence::{PresenceKey, PresentMember};
use crate::protocol::encode::Line;

impl ServerFrame<'_> {
    pub(super) fn encode_presence(&self, line: &mut Line<'_>) {
        if let Self::PresenceState { id, room, list } = self {
            line.number_or_null("id", *id);
            line.text("room", room.as_str());
            line.number("seq", list.seq);
            line.number("total", u64::try_from(list.total).unwrap_or(u64::MAX));
            line.list("members", &list.members, encode_member);
        }
        if let Self::PresenceEvent { room, event } = self {
            line.text("room", room.as_str());
            line.number("seq", event.seq);
            line.number("total", u64::try_from(event.total).unwrap_or(u64::MAX));
            line.text("event", event.change.word());
            line.text("user_id", &name_of(&event.who));
            line.raw("data", &event.data);
        }
        if let Self::PresenceEvents { room, changes } = self {
            line.text("room", room.as_str());
            line.number("from", changes.from);
            line.number("seq", changes.seq);
            line.number("total", u64::try_from(changes.total).unwrap_or(u64::MAX));
            line.list("changes", &changes.members, encode_changed);
        }
        if let Self::PresenceCount { room, count } = self {
            line.text("room", room.as_str());
            line.number("seq", count.seq);
            line.number("total", u64::try_from(count.total).unwrap_or(u64::MAX));
        }
        if let Self::PresenceUpdated { id, room } = self {
            line.number_or_null("id", *id);
            line.text("room", room.as_str());
        }
    }
}

fn encode_member(out: &mut Vec<u8>, member: &PresentMember) {
    let mut item = Line::item(out, "user_id", &name_of(&member.who));
    item.raw("data", &member.data);
    item.number("connections", u64::try_from(member.connections).unwrap_or(u64::MAX));
    item.close();
}

fn encode_changed(out: &mut Vec<u8>, member: &ChangedMember) {
    let mut item = Line::item(out, "event", member.change.word());
    item.text("user_id", &name_of(&member.who));
    item.raw("data", &member.data);
    item.close();
}

fn name_of(who: &PresenceKey) -> Cow<'_, str> {
    match who {
        PresenceKey::User(user) => Cow::Borrowed(user.as_str()),
        PresenceKey::Anonymous(_) => Cow::Owned(who.to_string()),
    }
}
