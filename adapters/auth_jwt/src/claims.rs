//! From the claims of a token whose signature fits to a principal.
//!
//! One pass over the text, each claim into its own type. A claim of the wrong type is an error
//! and never counts as absent; nothing here asks a clock.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use application::ports::token_verifier::TokenError;
use domain::id::{Role, TokenId, UserId};
use domain::presence::PresenceKey;
use domain::principal::{Action, Credential, Grant, Principal, RoomPattern};
use domain::time::Wall;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::json::{self, Blame, Names, Text, TextList};

/// More members than issuers send; it bounds the search for duplicates.
const CLAIMS_MAX: usize = 128;
/// The longest name, in bytes: it is repeated wherever a user is shown.
const NAME_BYTES_MAX: usize = 128;
/// The last second with a four-digit year; the same as [`Wall::MAX`].
const SECONDS_MAX: u64 = 253_402_300_799;

/// What the claims are compared with.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) leeway: Duration,
}

/// The claims, each of the right type; whether the required ones are there is not known yet.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    subject: Option<UserId>,
    name: Option<Arc<str>>,
    roles: Vec<Role>,
    grants: Vec<Grant>,
    issuer_seen: bool,
    audience_seen: bool,
    expires_at: Option<Wall>,
    not_before: Option<Wall>,
    issued_at: Option<Wall>,
    id: Option<TokenId>,
    once: bool,
}

/// A principal and when its token counts.
#[derive(Clone, Debug)]
pub(crate) struct Timed {
    principal: Principal,
    expires_at: Wall,
    not_before: Option<Wall>,
}

impl Timed {
    /// Who it is, if the token counts now.
    pub(crate) fn check(&self, leeway: Duration, now: Wall) -> Result<&Principal, TokenError> {
        // In plain milliseconds: `Wall::after` would saturate at the last year.
        let leeway = i64::try_from(leeway.as_millis()).unwrap_or(0);
        if self.not_before.is_some_and(|start| now.as_millis() + leeway < start.as_millis()) {
            return Err(TokenError::NotYetValid);
        }
        if now.as_millis() >= self.expires_at.as_millis() + leeway {
            return Err(TokenError::Expired);
        }
        if self.counts_once() && self.expires_at.since(now) > Credential::ONCE_LIFE_MAX {
            return Err(TokenError::Claim("exp"));
        }
        Ok(&self.principal)
    }

    /// Whether whoever lets somebody in by it has to spend it first.
    pub(crate) const fn counts_once(&self) -> bool {
        self.principal.credential.once
    }

    /// Who it is, once checked.
    pub(crate) fn into_principal(self) -> Principal {
        self.principal
    }
}

impl Claims {
    /// Reads the claims; every one that is there must be right.
    pub(crate) fn read(text: &str, expected: &Expected) -> Result<Self, TokenError> {
        let blame = Blame::default();
        json::read(text, ClaimsSeed { blame: &blame, expected })
            .map_err(|_| blame.member().map_or(TokenError::Malformed, TokenError::Claim))
    }

    /// Checks what is required. The times are checked last: that a token has expired is answered
    /// only when nothing else is wrong with it.
    pub(crate) fn into_timed(self, expected: &Expected) -> Result<Timed, TokenError> {
        let subject = self.subject.ok_or(TokenError::Claim("sub"))?;
        let expires_at = self.expires_at.ok_or(TokenError::Claim("exp"))?;
        if expected.issuer.is_some() && !self.issuer_seen {
            return Err(TokenError::Claim("iss"));
        }
        if expected.audience.is_some() && !self.audience_seen {
            return Err(TokenError::Claim("aud"));
        }
        if self.once && self.id.is_none() {
            return Err(TokenError::Claim("jti"));
        }
        let principal = Principal {
            user: Some(subject),
            name: self.name,
            roles: self.roles,
            grants: self.grants,
            expires_at: Some(expires_at),
            credential: Credential {
                id: self.id,
                issued_at: self.issued_at,
                once: self.once,
                ..Credential::default()
            },
        };
        Ok(Timed { principal, expires_at, not_before: self.not_before })
    }
}

struct ClaimsSeed<'c> {
    blame: &'c Blame,
    expected: &'c Expected,
}

impl<'de> DeserializeSeed<'de> for ClaimsSeed<'_> {
    type Value = Claims;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Claims, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ClaimsSeed<'_> {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        let Self { blame, expected } = self;
        let mut claims = Claims::default();
        let mut names = Names::new(CLAIMS_MAX);
        while let Some(name) = names.next(&mut map)? {
            let map = &mut map;
            match name {
                "sub" => claims.subject = Some(blame.value("sub", map, Text(subject))?),
                "exp" => claims.expires_at = Some(blame.value("exp", map, Instant)?),
                "nbf" => claims.not_before = Some(blame.value("nbf", map, Instant)?),
                "iat" => claims.issued_at = Some(blame.value("iat", map, Instant)?),
                "jti" => {
                    let id = Text(|id: &str| TokenId::parse(id).ok());
                    claims.id = Some(blame.value("jti", map, id)?);
                }
                "once" => claims.once = blame.value("once", map, PhantomData::<bool>)?,
                "iss" => {
                    blame.value("iss", map, Text(|issuer: &str| expected.fits_issuer(issuer)))?;
                    claims.issuer_seen = true;
                }
                "aud" => {
                    blame.value("aud", map, Audience(expected.audience.as_deref()))?;
                    claims.audience_seen = true;
                }
                "name" => claims.name = blame.value("name", map, Text(shown_name))?,
                "roles" => {
                    let item = |role: &str| Role::parse(role).ok();
                    let roles = TextList { n_max: Principal::ROLES_MAX, item };
                    claims.roles = blame.value("roles", map, roles)?;
                }
                "rooms" => claims.grants = blame.value("rooms", map, Rooms)?,
                "typ" => blame.value("typ", map, one_of(&["bearer"]))?,
                "token_use" => blame.value("token_use", map, one_of(&["access"]))?,
                "token_type" => blame.value("token_type", map, one_of(&["access", "bearer"]))?,
                "at_hash" => blame.value("at_hash", map, Text(never))?,
                "c_hash" => blame.value("c_hash", map, Text(never))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(claims)
    }
}

impl Expected {
    fn fits_issuer(&self, issuer: &str) -> Option<()> {
        self.issuer.as_ref().is_none_or(|expected| expected == issuer).then_some(())
    }
}

fn subject(text: &str) -> Option<UserId> {
    if text.starts_with(PresenceKey::ANONYMOUS_PREFIX) {
        return None;
    }
    UserId::parse(text).ok()
}

/// A name is shown to others, so it must not be able to rearrange what stands around it. An
/// empty one is no name.
fn shown_name(text: &str) -> Option<Option<Arc<str>>> {
    let bidirectional = |c: char| {
        matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}')
    };
    if text.len() > NAME_BYTES_MAX || text.chars().any(|c| c.is_control() || bidirectional(c)) {
        return None;
    }
    Some((!text.is_empty()).then(|| Arc::from(text)))
}

fn one_of<'w>(words: &'w [&'w str]) -> Text<impl FnOnce(&str) -> Option<()> + 'w> {
    Text(move |text: &str| words.iter().any(|word| word.eq_ignore_ascii_case(text)).then_some(()))
}

fn never(_: &str) -> Option<()> {
    None
}

/// Seconds since 1970 as a number (RFC 7519, `NumericDate`), within four-digit years.
struct Instant;

impl<'de> DeserializeSeed<'de> for Instant {
    type Value = Wall;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Wall, D::Error> {
        json.deserialize_f64(self)
    }
}

impl Visitor<'_> for Instant {
    type Value = Wall;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds since 1970")
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Wall, E> {
        match i64::try_from(seconds) {
            Ok(whole) if seconds <= SECONDS_MAX => Ok(Wall::from_millis(whole * 1000)),
            Ok(_) | Err(_) => Err(E::custom("a time out of range")),
        }
    }

    fn visit_f64<E: Error>(self, seconds: f64) -> Result<Wall, E> {
        // NaN is in no range. The cast is exact up to the fraction that it is meant to cut.
        if (0.0..=SECONDS_MAX as f64).contains(&seconds) {
            Ok(Wall::from_millis((seconds * 1000.0) as i64))
        } else {
            Err(E::custom("a time out of range"))
        }
    }
}

/// A string or an array of strings that names the expected audience, if one is expected.
struct Audience<'c>(Option<&'c str>);

impl<'de> DeserializeSeed<'de> for Audience<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Audience<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an audience")
    }

    fn visit_str<E: Error>(self, audience: &str) -> Result<(), E> {
        match self.0 {
            Some(expected) if expected != audience => Err(E::custom("another audience")),
            Some(_) | None => Ok(()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut fits = self.0.is_none();
        let same = |audience: &str| Some(self.0 == Some(audience));
        while let Some(found) = seq.next_element_seed(Text(same))? {
            fits |= found;
        }
        if fits { Ok(()) } else { Err(A::Error::custom("other audiences")) }
    }
}

/// The array of grants.
struct Rooms;

impl<'de> DeserializeSeed<'de> for Rooms {
    type Value = Vec<Grant>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Vec<Grant>, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rooms {
    type Value = Vec<Grant>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of grants")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Grant>, A::Error> {
        let mut grants = Vec::new();
        while let Some(grant) = seq.next_element_seed(OneGrant)? {
            if grants.len() >= Principal::GRANTS_MAX {
                return Err(A::Error::custom("too many grants"));
            }
            grants.push(grant);
        }
        Ok(grants)
    }
}

/// `{"pattern": "chat:guild/*", "allow": ["subscribe"]}`, both required and nothing else.
struct OneGrant;

impl<'de> DeserializeSeed<'de> for OneGrant {
    type Value = Grant;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Grant, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneGrant {
    type Value = Grant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a grant")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Grant, A::Error> {
        let (mut pattern, mut allow) = (None, None);
        let mut names = Names::new(2);
        while let Some(name) = names.next(&mut map)? {
            match name {
                "pattern" => {
                    let read = Text(|text: &str| RoomPattern::parse(text).ok());
                    pattern = Some(map.next_value_seed(read)?);
                }
                "allow" => {
                    // No word is needed twice, and there are five.
                    let words = TextList { n_max: 5, item: Action::parse };
                    allow = Some(map.next_value_seed(words)?);
                }
                _ => return Err(A::Error::custom("a member that no grant has")),
            }
        }
        match (pattern, allow) {
            (Some(pattern), Some(allow)) => Ok(Grant::new(pattern, &allow)),
            (_, _) => Err(A::Error::custom("a member is missing")),
        }
    }
}
