//! The fields of a JSON body and the parameters of a query, with the same numbers for the same
//! faults as over WebSocket.
//!
//! It must never choose between two fields of one name, and never pass over one that it does not
//! know.

use std::borrow::Cow;
use std::time::Duration;

use application::refusal::Refusal;
use domain::codes::ErrorCode;
use domain::id::{ConnectionId, IdError, UserId};
use domain::protocol::client_frame::Rejected;
use domain::protocol::json::{self, Members};
use domain::room::{RoomId, RoomIdError};

/// The longest name of a field that is shown to whoever sent it, in bytes.
const SHOWN_BYTES_MAX: usize = 64;

/// A refusal that names a field.
pub(super) fn invalid(field: &'static str, message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(ErrorCode::InvalidField, message).field(field)
}

/// The same numbers for the same faults as over WebSocket.
pub(super) fn id_refused(field: &'static str, error: IdError) -> Refusal {
    let code = match error {
        IdError::TooLong { .. } => ErrorCode::TooLarge,
        IdError::Empty | IdError::Alphabet | IdError::Reserved => ErrorCode::InvalidField,
    };
    Refusal::new(code, error.to_string()).field(field)
}

/// What the domain says of a part that it reads.
pub(super) fn rejected(rejected: Rejected) -> Refusal {
    Refusal { field: rejected.field, ..Refusal::new(rejected.code, rejected.message) }
}

pub(super) fn room(field: &'static str, text: &str) -> Result<RoomId, Refusal> {
    RoomId::parse(text).map_err(|error| room_refused(field, error))
}

/// The same for what names a room, or is named by one.
pub(super) fn room_refused(field: &'static str, error: RoomIdError) -> Refusal {
    match error {
        RoomIdError::Id(error) => id_refused(field, error),
        RoomIdError::Shape | RoomIdError::Namespace | RoomIdError::Dots => {
            invalid(field, error.to_string())
        }
    }
}

pub(super) fn user(text: &str) -> Result<UserId, Refusal> {
    UserId::parse(text).map_err(|error| id_refused("user_id", error))
}

pub(super) fn connection(text: &str) -> Result<ConnectionId, Refusal> {
    ConnectionId::parse(text).map_err(|_| invalid("connection_id", "must be 16 hexadecimal digits"))
}

fn unknown(name: &str) -> Refusal {
    let shown = name[..name.floor_char_boundary(SHOWN_BYTES_MAX)].to_owned();
    Refusal::new(ErrorCode::InvalidField, "is not known here").field(shown)
}

fn missing(field: &'static str) -> Refusal {
    invalid(field, "is required")
}

fn no_object() -> Refusal {
    Refusal::new(ErrorCode::BadRequest, "the body must be one JSON object")
}

/// The most fields that a body may have.
const FIELDS_MAX: usize = 12;

/// One JSON object of which every field is known.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    names: &'static [&'static str],
    values: [Option<&'a str>; FIELDS_MAX],
}

impl<'a> Fields<'a> {
    /// Reads a whole body.
    pub(super) fn read(body: &'a [u8], names: &'static [&'static str]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body)
            .map_err(|_| Refusal::new(ErrorCode::BadRequest, "the body is not UTF-8"))?;
        Self::read_text(text.trim_matches([' ', '\t', '\n', '\r']), names)
    }

    /// Reads an object that is all of a text.
    pub(super) fn read_text(
        text: &'a str,
        names: &'static [&'static str],
    ) -> Result<Self, Refusal> {
        debug_assert!(names.len() <= FIELDS_MAX, "there is a place for each");
        let mut fields = Self { names, values: [None; FIELDS_MAX] };
        let mut members = Members::open(text, 0, json::DEPTH_MAX).ok_or_else(no_object)?;
        let broken = |error: json::JsonError| {
            Refusal::new(ErrorCode::BadRequest, format!("the body is not JSON: {error}"))
        };
        while let Some((name, value)) = members.next_member().map_err(broken)? {
            let place = names.iter().position(|known| *known == name);
            let value_of = place.and_then(|place| fields.values.get_mut(place));
            let Some(value_of) = value_of else { return Err(unknown(&name)) };
            if value_of.replace(value).is_some() {
                let message = "the body has a key twice";
                return Err(Refusal::new(ErrorCode::BadRequest, message));
            }
        }
        if members.end() == text.len() { Ok(fields) } else { Err(no_object()) }
    }

    /// A value as it stands in the body, `null` included.
    pub(super) fn raw(&self, name: &'static str) -> Option<&'a str> {
        let place = self.names.iter().position(|known| *known == name)?;
        self.values.get(place).copied().flatten()
    }

    /// The same; `null` counts as absent.
    pub(super) fn get(&self, name: &'static str) -> Option<&'a str> {
        self.raw(name).filter(|raw| *raw != "null")
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(raw) = self.get(name) else { return Ok(None) };
        if raw.starts_with('"') {
            Ok(Some(json::unescape(raw)))
        } else {
            Err(invalid(name, "must be a string"))
        }
    }

    pub(super) fn needed_text(&self, name: &'static str) -> Result<Cow<'a, str>, Refusal> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    pub(super) fn needed_raw(&self, name: &'static str) -> Result<&'a str, Refusal> {
        self.raw(name).ok_or_else(|| missing(name))
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<Option<bool>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(invalid(name, "must be true or false")),
        }
    }

    /// A whole number that is not below zero.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let Some(raw) = self.get(name) else { return Ok(None) };
        let invalid = || invalid(name, "must be a whole number that is not negative");
        digits(raw).map(Some).ok_or_else(invalid)
    }

    /// A time of some milliseconds.
    pub(super) fn millis(
        &self,
        name: &'static str,
        ms_max: u64,
    ) -> Result<Option<Duration>, Refusal> {
        match self.get(name).map(digits) {
            None => Ok(None),
            Some(Some(ms)) if (1..=ms_max).contains(&ms) => Ok(Some(Duration::from_millis(ms))),
            Some(_) => Err(invalid(name, format!("must be a whole number from 1 to {ms_max}"))),
        }
    }
}

fn digits(text: &str) -> Option<u64> {
    // `u64::from_str` takes `+1`, too.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The parameters of a query, each of which is known.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn read(query: &'a str, names: &[&'static str]) -> Result<Self, Refusal> {
        let mut found: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let known = names.iter().find(|known| **known == name).copied();
            let name = known.ok_or_else(|| unknown(name))?;
            if found.iter().any(|(known, _)| *known == name) {
                return Err(invalid(name, "came twice"));
            }
            let value = percent_decoded(value)
                .ok_or_else(|| invalid(name, "must be UTF-8, percent-encoded"))?;
            found.push((name, value));
        }
        Ok(Self(found))
    }

    pub(super) fn get(&self, name: &'static str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }

    pub(super) fn room(&self, name: &'static str) -> Result<Option<RoomId>, Refusal> {
        self.get(name).map(|text| room(name, text)).transpose()
    }

    pub(super) fn needed_room(&self) -> Result<RoomId, Refusal> {
        self.room("room")?.ok_or_else(|| missing("room"))
    }

    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        digits(text).map(Some).ok_or_else(|| invalid(name, "must be a whole number"))
    }

    /// How many entries an answer may have.
    pub(super) fn limit(&self) -> Result<u32, Refusal> {
        const DEFAULT: u64 = 100;
        let limit = self.number("limit")?.unwrap_or(DEFAULT);
        u32::try_from(limit)
            .ok()
            .filter(|limit| (1..=1_000).contains(limit))
            .ok_or_else(|| invalid("limit", "must be a whole number from 1 to 1000"))
    }
}

/// Without a meaning for `+`, which is itself in a room's name: spaces are in none of the values.
fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'%' {
            let hex = behind.get(..2)?;
            let digit = |byte: u8| char::from(byte).to_digit(16);
            bytes.push((digit(hex[0])? * 16 + digit(hex[1])?) as u8);
            rest = behind.get(2..)?;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["room", "data"];

    fn refused(body: &str) -> (ErrorCode, Option<String>) {
        let refusal = Fields::read(body.as_bytes(), NAMES).unwrap_err();
        (refusal.code, refusal.field.map(Cow::into_owned))
    }

    #[test]
    fn a_body_that_leaves_open_what_it_says_is_no_body() {
        for body in ["", "[]", "1", "{", "{} {}", "{}x", r#"{"room":1,"room":1}"#, r#"{"room":}"#] {
            assert_eq!(refused(body), (ErrorCode::BadRequest, None), "{body}");
        }
        assert!(Fields::read(b"{\"room\":\"\xff\"}", NAMES).is_err());
        assert!(Fields::read(b" {\"room\":\"x\"}\n", NAMES).is_ok());
    }

    #[test]
    fn a_field_that_is_not_known_is_named_and_a_long_name_is_cut() {
        assert_eq!(refused(r#"{"colour":1}"#), (ErrorCode::InvalidField, Some("colour".into())));
        let long = format!(r#"{{"{}":1}}"#, "ü".repeat(100));
        assert_eq!(refused(&long).1.unwrap().len(), 64);
    }

    #[test]
    fn a_value_of_another_type_is_refused_by_its_name() {
        let fields = Fields::read(br#"{"room":7,"data":null}"#, NAMES).unwrap();
        assert_eq!(fields.text("room").unwrap_err().field.unwrap(), "room");
        assert!(fields.flag("room").is_err() && fields.number("room") == Ok(Some(7)));
        assert_eq!((fields.raw("data"), fields.get("data")), (Some("null"), None));
    }

    #[test]
    fn a_query_is_decoded_and_what_it_does_not_know_or_says_twice_is_refused() {
        let names = &["room", "limit"];
        let query = Query::read("room=chat%3Aguild%2f7+1&limit=5", names).unwrap();
        assert_eq!(query.get("room"), Some("chat:guild/7+1"));
        assert_eq!(query.limit(), Ok(5));
        for (wrong, field) in
            [("x=1", "x"), ("room=a&room=b", "room"), ("room=%zz", "room"), ("room=%e", "room")]
        {
            let refusal = Query::read(wrong, names).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(field), "{wrong}");
        }
        for limit in ["0", "1001", "-1", "", "+5", "99999999999999999999999"] {
            let text = format!("limit={limit}");
            assert!(Query::read(&text, names).unwrap().limit().is_err(), "{limit}");
        }
    }
}
