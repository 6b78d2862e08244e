//! Identifiers as newtypes, each with one fallible constructor.
//!
//! An id that exists is valid. No id may be built from a network's bytes except through `parse`,
//! and none normalises silently: two spellings are two ids or an error, never one by accident.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Why a text is not an id.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum IdError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than the id's maximum.
    #[error("must be at most {bytes_max} bytes")]
    TooLong {
        /// The id's maximum, in bytes.
        bytes_max: usize,
    },
    /// The text holds a character outside the id's alphabet.
    #[error("holds a character that is not allowed there")]
    Alphabet,
    /// The text uses a prefix that the server keeps for itself.
    #[error("uses a reserved prefix")]
    Reserved,
}

/// Checks length and alphabet, the two rules every text id shares.
pub(crate) fn check(text: &str, bytes_max: usize, allowed: fn(u8) -> bool) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > bytes_max {
        return Err(IdError::TooLong { bytes_max });
    }
    if !text.bytes().all(allowed) {
        return Err(IdError::Alphabet);
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, max $max:expr, alphabet $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest text this id may have, in bytes.
            pub const BYTES_MAX: usize = $max;

            /// Checks and takes a text.
            ///
            /// # Errors
            /// [`IdError`] when the text is empty, too long or outside the alphabet.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text, Self::BYTES_MAX, $allowed)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(crate) const fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-')
}

const fn printable(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

text_id! {
    /// A person or service, as the token's `sub` names it: printable ASCII without spaces, so that
    /// no two ids look alike and none needs normalising.
    UserId, max 128, alphabet printable
}

text_id! {
    /// A label that a client gives itself to be recognised over reconnects. It grants nothing and
    /// is not unique: browser tabs share it. Alphabet: RFC 3986 section 2.3, unreserved.
    ClientId, max 128, alphabet unreserved
}

text_id! {
    /// The client's own name for one publish; unique per user (else client id) and room.
    MessageId, max 128, alphabet printable
}

text_id! {
    /// Says which earlier `latest` message a new one replaces.
    MessageKey, max 64, alphabet printable
}

text_id! {
    /// A role named by a token, like `moderator`.
    Role, max 64, alphabet printable
}

text_id! {
    /// The name of one token, its `jti`.
    TokenId, max 256, alphabet printable
}

/// One connection, unique among all nodes with overwhelming likelihood (64 random bits). It is
/// public: knowing it grants nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// How long its text is.
    pub const TEXT_BYTES: usize = 16;

    /// Takes 64 bits that the caller drew at random.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits it was made from.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Reads the sixteen lower-case hexadecimal digits that `Display` writes.
    ///
    /// # Errors
    /// [`IdError::Alphabet`] for any other text.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        parse_hex16(text).map(Self)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One life of a room's log. It changes when the log is lost, so that offsets of two logs are
/// never compared.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Epoch(u64);

impl Epoch {
    /// Takes 64 bits that the caller drew at random.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits it was made from.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Reads the sixteen lower-case hexadecimal digits that `Display` writes.
    ///
    /// # Errors
    /// [`IdError::Alphabet`] for any other text.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        parse_hex16(text).map(Self)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn parse_hex16(text: &str) -> Result<u64, IdError> {
    // `from_str_radix` alone would take `+1` and upper case: two spellings of one id.
    let canonical =
        text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !canonical {
        return Err(IdError::Alphabet);
    }
    u64::from_str_radix(text, 16).map_err(|_| IdError::Alphabet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_at_its_maximum_is_taken_and_one_byte_more_is_refused() {
        let at = "u".repeat(UserId::BYTES_MAX);
        assert!(UserId::parse(&at).is_ok());
        assert_eq!(UserId::parse(&format!("{at}u")), Err(IdError::TooLong { bytes_max: 128 }));
    }

    #[test]
    fn a_user_id_with_spaces_controls_or_lookalikes_is_refused() {
        for text in ["a b", "a\n", "\u{0}", "а", "e\u{301}", "\u{202e}abc", "\u{7f}"] {
            assert_eq!(UserId::parse(text), Err(IdError::Alphabet), "{text:?}");
        }
        assert_eq!(UserId::parse(""), Err(IdError::Empty));
    }

    #[test]
    fn a_client_id_takes_uuids_and_short_labels_and_nothing_that_needs_escaping() {
        assert!(ClientId::parse("abc-123").is_ok());
        assert!(ClientId::parse("550e8400-e29b-41d4-a716-446655440000").is_ok());
        assert!(ClientId::parse("a/b").is_err());
        assert!(ClientId::parse("a b").is_err());
    }

    #[test]
    fn an_epoch_has_exactly_one_spelling() {
        let epoch = Epoch::from_bits(0x00ab);
        assert_eq!(epoch.to_string(), "00000000000000ab");
        assert_eq!(Epoch::parse("00000000000000ab"), Ok(epoch));
        for other in ["00000000000000AB", "+0000000000000ab", "ab", "", "00000000000000abc"] {
            assert!(Epoch::parse(other).is_err(), "{other:?}");
        }
    }
}
