//! The settings that count, each with its value in a form that may be shown and its source.
//!
//! The value of a secret is never kept here.

use std::collections::BTreeMap;

use super::error::Problem;
use super::layer::Origin;
use super::schema::{Raw, Typed};

/// How a hidden value shows.
const HIDDEN: &str = "(hidden)";
/// The longest value that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// One setting that counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown {
    /// Its value as TOML writes it, or a word in its place.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Another value that the operator gave in a weaker place, with that place.
    pub overruled: Option<(String, Origin)>,
}

/// All settings that count, by key.
#[derive(Clone, Debug, Default)]
pub struct Effective(BTreeMap<String, Shown>);

impl Effective {
    /// Notes a value; a later one replaces it.
    pub fn set(&mut self, key: String, typed: &Typed, secret: bool, origin: Origin) {
        let value = shown(typed, secret);
        let before = self.0.remove(&key);
        let overruled = before.and_then(|before| match before.origin {
            Origin::Default | Origin::Profile(_) => None,
            _ if before.value == value => before.overruled,
            weaker => Some((before.value, weaker)),
        });
        self.0.insert(key, Shown { value, origin, overruled });
    }

    /// All keys in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Shown)> {
        self.0.iter().map(|(key, shown)| (key.as_str(), shown))
    }

    /// The setting with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Shown> {
        self.0.get(key)
    }

    /// A problem with the value that counts.
    #[must_use]
    pub fn problem(&self, key: &str, reason: &str) -> Problem {
        let shown = self.get(key);
        Problem {
            key: key.to_owned(),
            value: shown.map(|shown| shown.value.clone()),
            reason: reason.to_owned(),
            origin: shown.map(|shown| shown.origin.clone()),
        }
    }

    /// A key with its value and source, for a reason that names a second key.
    #[must_use]
    pub fn mention(&self, key: &str) -> String {
        self.get(key).map_or_else(
            || key.to_owned(),
            |shown| format!("{key} = {} (from {})", shown.value, shown.origin),
        )
    }
}

/// A value as TOML writes it; a secret only as a word, unless it is empty.
fn shown(typed: &Typed, secret: bool) -> String {
    match typed {
        Typed::Text(text) if secret && !text.is_empty() => HIDDEN.to_owned(),
        Typed::Flag(flag) => flag.to_string(),
        Typed::Number(number) => number.to_string(),
        Typed::Text(text) => format!("{text:?}"),
        Typed::List(items) => format!("{items:?}"),
    }
}

/// A value that was not accepted, shortened.
#[must_use]
pub fn shown_raw(raw: &Raw, secret: bool) -> String {
    let text = match raw {
        _ if secret => HIDDEN.to_owned(),
        Raw::Untyped(text) => format!("{text:?}"),
        Raw::Typed(typed) => shown(typed, false),
        Raw::Other(text) => text.clone(),
        Raw::EmptySection => "{}".to_owned(),
    };
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    let start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    format!("{start}…")
}
