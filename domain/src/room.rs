//! Room names: `namespace:rest`.
//!
//! A name that exists is valid and has one spelling, so two names never show as one and none can
//! smuggle a wildcard, a path or a broker's key syntax.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::id::{IdError, check};

/// Why a text is not a room name.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum RoomIdError {
    /// The text as a whole breaks a rule that every id has.
    #[error(transparent)]
    Id(#[from] IdError),
    /// There is no `:` after a namespace, or nothing behind it.
    #[error("must be namespace:name, like public:lobby")]
    Shape,
    /// The namespace is not `[a-z][a-z0-9_-]{0,31}`.
    #[error("its namespace must be 1 to 32 of a-z, 0-9, _ or -, starting with a letter")]
    Namespace,
    /// The name holds `..`, which reads as a path.
    #[error("must not hold '..'")]
    Dots,
}

/// A room's name.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RoomId(Arc<str>);

impl RoomId {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 255;
    /// The longest namespace, in bytes.
    pub const NAMESPACE_BYTES_MAX: usize = 32;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`RoomIdError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, RoomIdError> {
        // ASCII only: one visual name is one byte sequence, without a normalisation table.
        check(text, Self::BYTES_MAX, |b| {
            b.is_ascii_alphanumeric()
                || matches!(b, b':' | b'.' | b'_' | b'~' | b'-' | b'/' | b'@' | b'+' | b'=')
        })?;
        let (namespace, rest) = text.split_once(':').ok_or(RoomIdError::Shape)?;
        if rest.is_empty() {
            return Err(RoomIdError::Shape);
        }
        if !is_namespace(namespace) {
            return Err(RoomIdError::Namespace);
        }
        if rest.contains("..") {
            return Err(RoomIdError::Dots);
        }
        Ok(Self(Arc::from(text)))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the first `:`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(namespace, _)| namespace)
    }

    /// What stands behind the first `:`.
    #[must_use]
    pub fn rest(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, rest)| rest)
    }
}

/// A name is ordered and hashed as its text is, so that a map can be asked by any text: for the first
/// name behind one, say, which need not be a name itself.
impl Borrow<str> for RoomId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Whether a text can be a namespace: `[a-z][a-z0-9_-]{0,31}`.
#[must_use]
pub fn is_namespace(text: &str) -> bool {
    text.len() <= RoomId::NAMESPACE_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

impl fmt::Debug for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomId({})", self.0)
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_names_are_rooms() {
        for name in [
            "chat:global",
            "chat:guild/42",
            "combat:17",
            "world:north",
            "match:a-1",
            "user:u1",
            "public:anything.goes~here",
        ] {
            let room = RoomId::parse(name).unwrap();
            assert_eq!(format!("{}:{}", room.namespace(), room.rest()), name);
        }
    }

    #[test]
    fn a_name_that_could_mean_something_else_is_refused() {
        for name in [
            "",
            "lobby",
            ":x",
            "chat:",
            "Chat:x",
            "chat:a..b",
            "chat:*",
            "chat:{a}",
            "chat:a\nb",
            "chat:\u{0}",
            "chat:\u{202e}x",
            "chat:é",
            "chat:e\u{301}",
            "chat:🦀",
            "chat:a b",
            "9a:x",
        ] {
            assert!(RoomId::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_length_limit_is_exact() {
        let at = format!("public:{}", "x".repeat(RoomId::BYTES_MAX - 7));
        assert!(RoomId::parse(&at).is_ok());
        assert!(RoomId::parse(&format!("{at}x")).is_err());
    }
}
