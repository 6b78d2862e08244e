//! The outer form of a token: three segments, and the header that names algorithm and key.
//!
//! Everything here runs on bytes nobody vouches for. It must stay cheap and must never take from
//! the header more than the two names by which a configured key is found.

use std::fmt;

use application::ports::token_verifier::{TokenError, TokenHint};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use crate::config::{Algorithm, KID_BYTES_MAX};
use crate::json::{self, Blame, Names, Text};

/// More members than any issuer sends; it bounds the search for duplicates.
const HEADER_MEMBERS_MAX: usize = 32;

/// A token taken apart, nothing decoded yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compact<'t> {
    /// Header and payload with the dot between them: what the signature covers.
    pub(crate) signed: &'t str,
    pub(crate) header: &'t str,
    pub(crate) payload: &'t str,
    pub(crate) signature: &'t str,
}

impl<'t> Compact<'t> {
    /// Splits at the dots; there must be exactly two.
    pub(crate) fn split(token: &'t str) -> Result<Self, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') || signature.is_empty() {
            return Err(TokenError::Malformed);
        }
        Ok(Self { signed, header, payload, signature })
    }
}

/// Decodes base64url without padding. The engine refuses every second spelling of the same
/// bytes: padding, the other alphabet, white space, and bits set behind the last byte.
pub(crate) fn decode(segment: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenError::Malformed)
}

/// Decodes a segment that holds text.
pub(crate) fn decode_text(segment: &str) -> Result<String, TokenError> {
    String::from_utf8(decode(segment)?).map_err(|_| TokenError::Malformed)
}

/// What the header says that matters.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
}

impl Header {
    /// Reads the header's segment.
    pub(crate) fn read(segment: &str) -> Result<Self, TokenError> {
        let text = decode_text(segment)?;
        let blame = Blame::default();
        let raw = json::read(&text, RawHeaderSeed(&blame)).map_err(|_| {
            // `typ` says what the token is for, as a claim does; the rest is its form.
            match blame.member() {
                Some("typ") => TokenError::Claim("typ"),
                Some(_) | None => TokenError::Malformed,
            }
        })?;
        if raw.critical {
            // No extension is implemented, so none that must be understood is.
            return Err(TokenError::Claim("crit"));
        }
        let algorithm = raw.algorithm.ok_or(TokenError::Malformed)?;
        Ok(Self { algorithm: algorithm.ok_or(TokenError::UnknownKey)?, kid: raw.kid })
    }

    /// What it says, for the security log.
    pub(crate) fn into_hint(self) -> TokenHint {
        TokenHint { algorithm: Some(format!("{:?}", self.algorithm)), key: self.kid }
    }
}

#[derive(Default)]
struct RawHeader {
    /// Absent, or the word, or a word that is no algorithm.
    algorithm: Option<Option<Algorithm>>,
    kid: Option<String>,
    critical: bool,
}

struct RawHeaderSeed<'b>(&'b Blame);

impl<'de> DeserializeSeed<'de> for RawHeaderSeed<'_> {
    type Value = RawHeader;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<RawHeader, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RawHeaderSeed<'_> {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let Self(blame) = self;
        let mut header = RawHeader::default();
        let mut names = Names::new(HEADER_MEMBERS_MAX);
        while let Some(name) = names.next(&mut map)? {
            match name {
                "alg" => {
                    let word = Text(|word: &str| Some(word.parse().ok()));
                    header.algorithm = Some(blame.value("alg", &mut map, word)?);
                }
                "kid" => {
                    let kid = Text(|kid: &str| {
                        (kid.len() <= KID_BYTES_MAX).then(|| Some(kid.to_owned()))
                    });
                    header.kid = blame.value("kid", &mut map, kid)?;
                }
                "typ" => blame.value("typ", &mut map, Text(access_token_type))?,
                "crit" => {
                    header.critical = true;
                    map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(header)
    }
}

fn access_token_type(word: &str) -> Option<()> {
    (word.eq_ignore_ascii_case("JWT") || word.eq_ignore_ascii_case("at+jwt")).then_some(())
}
