//! What `connect` brings back: the ticket, and the rooms with their positions.
//!
//! It must never take a list in part: who may mean one room twice, or more than one connection is
//! in, is told so and gets none of them.

use std::collections::BTreeSet;

use super::{flag_of, parse_room, position, string, text};
use crate::filter::Filter;
use crate::position::Position;
use crate::protocol::client_frame::{
    RESUME_ROOMS_MAX, Rejected, Resume, SESSION_BYTES_MAX, TokenText,
};
use crate::protocol::envelope::{Envelope, Name, parse_integer};
use crate::protocol::json::{self, Members, scan_value, skip_space};
use crate::protocol::selective::decode_filter;

const FIELD: &str = "resume";

pub(super) fn session<'a>(e: &Envelope<'a>) -> Result<Option<TokenText<'a>>, Rejected> {
    let session = text(e, Name::Session)?;
    if session.as_ref().is_some_and(|text| text.len() > SESSION_BYTES_MAX) {
        return Err(Rejected::too_large(
            "session",
            format!("must be at most {SESSION_BYTES_MAX} bytes"),
        ));
    }
    Ok(session.map(TokenText::new))
}

pub(super) fn rooms(e: &Envelope<'_>) -> Result<Vec<Resume>, Rejected> {
    let Some(raw) = e.get(Name::Resume) else { return Ok(Vec::new()) };
    let (mut rooms, mut seen) = (Vec::new(), BTreeSet::new());
    let mut items = Items::open(raw).ok_or_else(no_list)?;
    while let Some(item) = items.next_item()? {
        if rooms.len() == RESUME_ROOMS_MAX {
            return Err(Rejected::too_large(
                FIELD,
                format!("must name at most {RESUME_ROOMS_MAX} rooms"),
            ));
        }
        let resume = entry(item)?;
        if !seen.insert(resume.room.clone()) {
            return Err(Rejected::invalid(FIELD, format!("names {} twice", resume.room)));
        }
        rooms.push(resume);
    }
    Ok(rooms)
}

fn no_list() -> Rejected {
    const SHAPE: &str = "must be a list of {\"room\":string,\"epoch\":string,\"offset\":number,\
                         \"presence\":boolean,\"filter\":condition}, the last two of which may be left out";
    Rejected::invalid(FIELD, SHAPE)
}

fn entry(raw: &str) -> Result<Resume, Rejected> {
    let mut members = Members::open(raw, 0, json::DEPTH_MAX).ok_or_else(no_list)?;
    let (mut room, mut epoch, mut offset) = (None, None, None);
    let (mut presence, mut filter) = (None, None);
    // The whole list has been scanned, so walking it again finds no error.
    while let Ok(Some((key, value))) = members.next_member() {
        let is_unexpected = match &*key {
            "room" => room.replace(string(value).ok_or_else(no_list)?).is_some(),
            "epoch" => epoch.replace(string(value).ok_or_else(no_list)?).is_some(),
            "offset" => offset.replace(parse_integer(value).ok_or_else(no_list)?).is_some(),
            "filter" => filter.replace(filter_of(value)?).is_some(),
            "presence" => presence.replace(flag_of(value).ok_or_else(no_list)?).is_some(),
            _ => true,
        };
        if is_unexpected {
            return Err(no_list());
        }
    }
    let (Some(room), Some(epoch), Some(offset)) = (room, epoch, offset) else {
        return Err(no_list());
    };
    let room = parse_room(FIELD, &room)?;
    let since: Position = position(FIELD, &epoch, offset)?;
    let presence = presence.flatten().unwrap_or(false);
    Ok(Resume { room, since, presence, filter: filter.flatten() })
}

fn filter_of(raw: &str) -> Result<Option<Filter>, Rejected> {
    if raw == "null" {
        return Ok(None);
    }
    // Where it stands is what the client can name.
    let named = |rejected| Rejected { field: Some(FIELD.into()), ..rejected };
    decode_filter(raw).map(Some).map_err(named)
}

/// Walks the items of a list that has been scanned.
struct Items<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Items<'a> {
    fn open(raw: &'a str) -> Option<Self> {
        raw.starts_with('[').then_some(Self { text: raw, at: 1 })
    }

    fn next_item(&mut self) -> Result<Option<&'a str>, Rejected> {
        let bytes = self.text.as_bytes();
        let mut start = skip_space(bytes, self.at);
        match bytes.get(start) {
            Some(b']') | None => return Ok(None),
            Some(b',') => start = skip_space(bytes, start + 1),
            Some(_) => {}
        }
        self.at = scan_value(self.text, start, json::DEPTH_MAX).map_err(|_| no_list())?;
        Ok(Some(&self.text[start..self.at]))
    }
}
