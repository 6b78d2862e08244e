//! What the messages of a game look like: the types there are, and the fields of each.
//!
//! It only looks where values end and what they begin with, like the protocol itself. A field that is
//! not known must never be passed over, and a refusal always names the field.

use std::borrow::Cow;

use domain::codes::ErrorCode;
use domain::protocol::json::{self, Members};

use crate::refusal::Refusal;

/// What a field may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldKind {
    /// Any JSON.
    Any,
    /// A JSON object.
    Object,
    /// A list.
    List,
    /// A text of at most so many bytes.
    Text {
        /// The most bytes, escapes undone.
        bytes_max: usize,
    },
    /// A number.
    Number,
    /// A whole number between two bounds, both allowed.
    Whole {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// True or false.
    Flag,
    /// One of a few words.
    Word(&'static [&'static str]),
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it may hold.
    pub kind: FieldKind,
    /// Whether it has to be there; else it may be absent or null.
    pub is_required: bool,
}

impl Field {
    /// A field that has to be there.
    #[must_use]
    pub const fn required(name: &'static str, kind: FieldKind) -> Self {
        Self { name, kind, is_required: true }
    }

    /// A field that may be absent or null.
    #[must_use]
    pub const fn optional(name: &'static str, kind: FieldKind) -> Self {
        Self { name, kind, is_required: false }
    }
}

/// One type of message.
#[derive(Clone, Copy, Debug)]
pub struct MessageSchema {
    /// Its `type`.
    pub kind: &'static str,
    /// Its fields; [those of every frame](ENVELOPE) need not be named.
    pub fields: &'static [Field],
}

/// The fields that every frame may have, whatever its game.
pub const ENVELOPE: &[&str] = &["type", "id", "timestamp"];

/// The most fields of one message that are looked at; more are refused.
pub const FIELDS_MAX: usize = 32;

/// How deep a value may be nested: one less than anything that is published, so that a game can put it
/// into an object of its own.
const VALUE_DEPTH_MAX: u32 = json::DEPTH_MAX - 1;

/// The longest name of a field that is shown to whoever sent it, in bytes.
const SHOWN_BYTES_MAX: usize = 64;

/// Checks a frame of this type against the schemas of a game.
///
/// # Errors
/// `unknown_type` for a type that the game has not; `bad_request` for what is no object; else
/// `invalid_field` or `too_large` with the field.
pub fn check(schemas: &[MessageSchema], kind: &str, body: &str) -> Result<(), Refusal> {
    let Some(schema) = schemas.iter().find(|schema| schema.kind == kind) else {
        let message = "this game has no such message";
        return Err(Refusal::new(ErrorCode::UnknownType, message).field("type"));
    };
    let no_object = || Refusal::new(ErrorCode::BadRequest, "the message must be one JSON object");
    let body = body.trim_matches([' ', '\t', '\n', '\r']);
    let mut members = Members::open(body, 0, VALUE_DEPTH_MAX).ok_or_else(no_object)?;
    let mut seen: Vec<Cow<'_, str>> = Vec::new();
    while let Some((name, value)) = members.next_member().map_err(|_| no_object())? {
        if seen.contains(&name) {
            return Err(invalid(&name, "is there twice"));
        }
        if seen.len() == FIELDS_MAX {
            return Err(Refusal::new(ErrorCode::TooLarge, "the message has too many fields"));
        }
        match schema.fields.iter().find(|field| field.name == name) {
            Some(field) if value == "null" && !field.is_required => {}
            Some(field) => check_value(field, value)?,
            None if ENVELOPE.contains(&&*name) => {}
            None => return Err(invalid(&name, "is not known here")),
        }
        seen.push(name);
    }
    if members.end() != body.len() {
        return Err(no_object());
    }
    let is_missing = |field: &&Field| field.is_required && !seen.iter().any(|n| n == field.name);
    match schema.fields.iter().find(is_missing) {
        Some(field) => Err(invalid(field.name, "is required")),
        None => Ok(()),
    }
}

fn check_value(field: &Field, value: &str) -> Result<(), Refusal> {
    let wrong = |what: String| Err(invalid(field.name, format!("must be {what}")));
    match field.kind {
        FieldKind::Any => Ok(()),
        FieldKind::Object if value.starts_with('{') => Ok(()),
        FieldKind::Object => wrong("an object".to_owned()),
        FieldKind::List if value.starts_with('[') => Ok(()),
        FieldKind::List => wrong("a list".to_owned()),
        FieldKind::Text { bytes_max } if value.starts_with('"') => {
            if json::unescape(value).len() <= bytes_max {
                return Ok(());
            }
            let message = format!("must be at most {bytes_max} bytes");
            Err(Refusal::new(ErrorCode::TooLarge, message).field(field.name))
        }
        FieldKind::Text { .. } => wrong("a string".to_owned()),
        FieldKind::Number if value.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => Ok(()),
        FieldKind::Number => wrong("a number".to_owned()),
        FieldKind::Whole { min, max } => match value.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(()),
            _ => wrong(format!("a whole number from {min} to {max}")),
        },
        FieldKind::Flag if matches!(value, "true" | "false") => Ok(()),
        FieldKind::Flag => wrong("true or false".to_owned()),
        FieldKind::Word(words) => {
            let is_one = value.starts_with('"') && words.contains(&&*json::unescape(value));
            if is_one { Ok(()) } else { wrong(format!("one of {}", words.join(", "))) }
        }
    }
}

fn invalid(name: &str, message: impl Into<Cow<'static, str>>) -> Refusal {
    let shown = name[..name.floor_char_boundary(SHOWN_BYTES_MAX)].to_owned();
    Refusal::new(ErrorCode::InvalidField, message).field(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVES: &[MessageSchema] = &[
        MessageSchema {
            kind: "move",
            fields: &[
                Field::required("to", FieldKind::Text { bytes_max: 4 }),
                Field::optional("turn", FieldKind::Whole { min: 1, max: 9 }),
                Field::optional("how", FieldKind::Word(&["walk", "run"])),
                Field::optional("sure", FieldKind::Flag),
                Field::optional("speed", FieldKind::Number),
                Field::optional("path", FieldKind::List),
                Field::optional("data", FieldKind::Object),
                Field::optional("more", FieldKind::Any),
            ],
        },
        MessageSchema { kind: "resign", fields: &[] },
    ];

    fn refused(kind: &str, body: &str) -> (ErrorCode, Option<String>) {
        let refusal = check(MOVES, kind, body).expect_err(body);
        (refusal.code, refusal.field.map(Cow::into_owned))
    }

    #[test]
    fn a_message_of_its_schema_is_taken_with_the_fields_of_every_frame() {
        for body in [
            r#"{"type":"move","to":"e2e4"}"#,
            r#"{"type":"move","id":7,"timestamp":"x","to":"\u0061","turn":9,"how":"run"}"#,
            r#" {"to":"","sure":false,"speed":-1.5e3,"path":[],"data":{},"more":null} "#,
            r#"{"to":"a","turn":null,"how":null,"data":null}"#,
        ] {
            assert_eq!(check(MOVES, "move", body), Ok(()), "{body}");
        }
        assert_eq!(check(MOVES, "resign", r#"{"type":"resign"}"#), Ok(()));
    }

    #[test]
    fn a_refusal_names_the_field() {
        for (body, field) in [
            (r#"{"type":"move"}"#, "to"),
            (r#"{"to":null}"#, "to"),
            (r#"{"to":7}"#, "to"),
            (r#"{"to":"a","to":"b"}"#, "to"),
            (r#"{"to":"a","turn":0}"#, "turn"),
            (r#"{"to":"a","turn":1.5}"#, "turn"),
            (r#"{"to":"a","turn":99999999999999999999}"#, "turn"),
            (r#"{"to":"a","how":"fly"}"#, "how"),
            (r#"{"to":"a","sure":1}"#, "sure"),
            (r#"{"to":"a","speed":"1"}"#, "speed"),
            (r#"{"to":"a","path":{}}"#, "path"),
            (r#"{"to":"a","data":[]}"#, "data"),
            (r#"{"to":"a","colour":1}"#, "colour"),
        ] {
            assert_eq!(
                refused("move", body),
                (ErrorCode::InvalidField, Some(field.into())),
                "{body}"
            );
        }
        assert_eq!(refused("move", r#"{"to":"e2e4+"}"#), (ErrorCode::TooLarge, Some("to".into())));
        let long = format!(r#"{{"{}":1}}"#, "ü".repeat(100));
        assert_eq!(refused("move", &long).1.map(|shown| shown.len()), Some(64));
    }

    #[test]
    fn a_type_that_the_game_has_not_and_what_is_no_object_are_refused() {
        let unknown = (ErrorCode::UnknownType, Some("type".to_owned()));
        assert_eq!(refused("jump", "{}"), unknown);
        for body in ["", "[]", "1", "{", "{} {}", r#"{"to":}"#] {
            assert_eq!(refused("move", body), (ErrorCode::BadRequest, None), "{body}");
        }
        let many: Vec<_> = (0..=FIELDS_MAX).map(|n| format!("\"f{n}\":1")).collect();
        let any: &[MessageSchema] = &[MessageSchema { kind: "x", fields: &[] }];
        let first = check(any, "x", &format!("{{{}}}", many.join(","))).expect_err("unknown");
        assert_eq!(first.field.as_deref(), Some("f0"));
    }
}
