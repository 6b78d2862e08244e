//! Tags, filters and what marks a message that was chosen: their JSON, in both directions.
//!
//! It must never take what [`Tags`] and [`Filter`] would refuse, nor encode a message again to say
//! for whom it was chosen: a mark is put into the bytes that everyone gets.

use std::borrow::Cow;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::filter::{Condition, Filter, FilterError};
use crate::position::Offset;
use crate::principal::RoomPattern;
use crate::protocol::client_frame::Rejected;
use crate::protocol::encode::{push_json_string, push_number};
use crate::protocol::json::{self, Elements, Members};
use crate::tags::{Tags, TagsError};
use crate::time::Wall;

/// The largest filter, in bytes of JSON.
pub const FILTER_BYTES_MAX: usize = 4096;

/// What stands before and behind the time at the end of every frame of the server.
const TIMESTAMP_BEGIN: &[u8] = br#","timestamp":""#;
const TIMESTAMP_END: &[u8] = b"\"}";

/// Reads `tags`; `raw` is one whole JSON value.
///
/// # Errors
/// What to answer when it is something else than tags.
pub fn decode_tags(raw: &str) -> Result<Tags, Rejected> {
    let invalid = || Rejected::invalid("tags", "must be an object of different names to strings");
    let mut members = Members::open(raw, 0, json::DEPTH_MAX).ok_or_else(invalid)?;
    let mut pairs = SmallVec::<[(Cow<'_, str>, Cow<'_, str>); Tags::COUNT_MAX]>::new();
    // The whole object has been scanned, so walking it again finds no error.
    while let Ok(Some((name, value))) = members.next_member() {
        let value = string(value).ok_or_else(invalid)?;
        // One more than may be is enough to be refused for it.
        if pairs.len() <= Tags::COUNT_MAX {
            pairs.push((name, value));
        }
    }
    let tags = Tags::build(pairs.iter().map(|(name, value)| (&**name, &**value)));
    tags.map_err(|error| match error {
        TagsError::TooMany | TagsError::TooLong => Rejected::too_large("tags", error.to_string()),
        TagsError::Duplicate => invalid(),
    })
}

/// Reads a filter that stands in no frame, as a person writes it.
///
/// # Errors
/// Why it is none.
pub fn parse_filter(text: &str) -> Result<Filter, Rejected> {
    let raw = serde_json::from_str::<&RawValue>(text)
        .map_err(|error| Rejected::invalid("filter", format!("is not JSON ({error})")))?;
    decode_filter(raw.get())
}

/// Reads `filter`; `raw` is a scanned value.
pub(super) fn decode_filter(raw: &str) -> Result<Filter, Rejected> {
    if raw.len() > FILTER_BYTES_MAX {
        return Err(Rejected::too_large("filter", "must be at most 4096 bytes of JSON"));
    }
    let condition = decode_condition(raw, 1)?;
    Filter::build(condition).map_err(filter_rejected)
}

fn filter_rejected(error: FilterError) -> Rejected {
    match error {
        FilterError::Empty => Rejected::invalid("filter", error.to_string()),
        FilterError::TooDeep
        | FilterError::TooManyConditions
        | FilterError::TooManyValues
        | FilterError::TooLong => Rejected::too_large("filter", error.to_string()),
    }
}

/// A condition is an object with one key. The depth is checked on the way down, so that no text
/// decides how deep this goes.
fn decode_condition(raw: &str, depth: usize) -> Result<Condition, Rejected> {
    if depth > Filter::DEPTH_MAX {
        return Err(filter_rejected(FilterError::TooDeep));
    }
    let (word, value) = only_member(raw)?;
    match &*word {
        "and" => Ok(Condition::And(decode_conditions(value, depth)?)),
        "or" => Ok(Condition::Or(decode_conditions(value, depth)?)),
        "not" => Ok(Condition::Not(Box::new(decode_condition(value, depth + 1)?))),
        "eq" => {
            let (name, value) = only_member(value)?;
            let value = string(value).ok_or_else(invalid_filter)?;
            Ok(Condition::In { name: name.into(), values: vec![value.into()] })
        }
        "in" => {
            let (name, list) = only_member(value)?;
            let mut elements = Elements::open(list, 0).ok_or_else(invalid_filter)?;
            let mut values = Vec::new();
            while let Ok(Some(value)) = elements.next_element() {
                if values.len() == Filter::VALUES_MAX {
                    return Err(filter_rejected(FilterError::TooManyValues));
                }
                values.push(string(value).ok_or_else(invalid_filter)?.into());
            }
            Ok(Condition::In { name: name.into(), values })
        }
        _ => Err(invalid_filter()),
    }
}

fn decode_conditions(raw: &str, depth: usize) -> Result<Vec<Condition>, Rejected> {
    let mut elements = Elements::open(raw, 0).ok_or_else(invalid_filter)?;
    let mut parts = Vec::new();
    while let Ok(Some(part)) = elements.next_element() {
        if parts.len() == Filter::CONDITIONS_MAX {
            return Err(filter_rejected(FilterError::TooManyConditions));
        }
        parts.push(decode_condition(part, depth + 1)?);
    }
    Ok(parts)
}

fn only_member(raw: &str) -> Result<(Cow<'_, str>, &str), Rejected> {
    let mut members = Members::open(raw, 0, json::DEPTH_MAX).ok_or_else(invalid_filter)?;
    match (members.next_member(), members.next_member()) {
        (Ok(Some(only)), Ok(None)) => Ok(only),
        _ => Err(invalid_filter()),
    }
}

fn invalid_filter() -> Rejected {
    let message = "each condition must be one of {\"and\":[…]}, {\"or\":[…]}, {\"not\":…}, \
                   {\"eq\":{name:value}} and {\"in\":{name:[value,…]}}";
    Rejected::invalid("filter", message)
}

fn string(raw: &str) -> Option<Cow<'_, str>> {
    raw.starts_with('"').then(|| json::unescape(raw))
}

/// Writes tags as a JSON object.
pub fn push_tags(out: &mut Vec<u8>, tags: &Tags) {
    out.push(b'{');
    for (index, (name, value)) in tags.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_json_string(out, name);
        out.push(b':');
        push_json_string(out, value);
    }
    out.push(b'}');
}

/// Reads what [`push_tags`] wrote; none for anything that can't be tags.
#[must_use]
pub fn parse_tags(text: &str) -> Option<Tags> {
    let end = json::scan_value(text, 0, 1).ok()?;
    if end != text.len() { None } else { decode_tags(text).ok() }
}

/// Writes a condition as JSON.
pub(super) fn push_condition(out: &mut Vec<u8>, condition: &Condition) {
    match condition {
        Condition::And(parts) => push_conditions(out, br#"{"and":["#, parts),
        Condition::Or(parts) => push_conditions(out, br#"{"or":["#, parts),
        Condition::Not(part) => {
            out.extend_from_slice(br#"{"not":"#);
            push_condition(out, part);
            out.push(b'}');
        }
        Condition::In { name, values } if values.len() == 1 => {
            out.extend_from_slice(br#"{"eq":{"#);
            push_json_string(out, name);
            out.push(b':');
            values.iter().for_each(|value| push_json_string(out, value));
            out.extend_from_slice(b"}}");
        }
        Condition::In { name, values } => {
            out.extend_from_slice(br#"{"in":{"#);
            push_json_string(out, name);
            out.extend_from_slice(b":[");
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                push_json_string(out, value);
            }
            out.extend_from_slice(b"]}}");
        }
    }
}

fn push_conditions(out: &mut Vec<u8>, begin: &[u8], parts: &[Condition]) {
    out.extend_from_slice(begin);
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_condition(out, part);
    }
    out.extend_from_slice(b"]}");
}

/// A message for members of one filter: with the offset up to which they have all that they want.
/// `message` is what [`encode_message`](super::encode_message) made.
#[must_use]
pub fn mark_previous(message: &[u8], previous: Offset) -> Vec<u8> {
    mark(message, br#","previous":"#, |out| push_number(out, previous.get()))
}

/// A message for those who follow a pattern of rooms: with the pattern that brought it.
/// `message` is what [`encode_message`](super::encode_message) made.
#[must_use]
pub fn mark_pattern(message: &[u8], pattern: &RoomPattern) -> Vec<u8> {
    mark(message, br#","pattern":"#, |out| push_json_string(out, &pattern.to_string()))
}

fn mark(message: &[u8], key: &[u8], value: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    const MARK_BYTES: usize = 40;
    let tail = TIMESTAMP_BEGIN.len() + Wall::ISO8601_BYTES + TIMESTAMP_END.len();
    let (body, tail) = message.split_at(message.len().saturating_sub(tail));
    let mut out = Vec::with_capacity(message.len() + MARK_BYTES);
    out.extend_from_slice(body);
    out.extend_from_slice(key);
    value(&mut out);
    out.extend_from_slice(tail);
    out
}
