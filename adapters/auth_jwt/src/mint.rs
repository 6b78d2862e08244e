//! Making a token, for the command line and for tests of what an issuer would send.
//!
//! It never makes a token that the verifier would refuse, and it knows HS256 only: whoever has a
//! private key has an issuer, too.

use std::time::Duration;

use application::ports::token_verifier::TokenError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::principal::Action;
use domain::time::Wall;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use secrecy::{ExposeSecret, SecretSlice};
use serde::Serialize;
use thiserror::Error;

use crate::claims::{Claims, Expected};
use crate::config::{Config, KID_BYTES_MAX, KeyProblem};
use crate::keys::check_secret;

/// What a token shall say.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// The user.
    pub subject: String,
    /// What the user is called.
    pub name: Option<String>,
    /// The user's roles.
    pub roles: Vec<String>,
    /// What the user may do beyond the policies.
    pub rooms: Vec<RoomGrant>,
    /// For how long the token is valid; a part of a second counts as a whole one.
    pub ttl: Duration,
    /// The issuer, if the verifier expects one.
    pub issuer: Option<String>,
    /// The audience, if the verifier expects one.
    pub audience: Option<String>,
    /// The token's own name; needed for one that counts once.
    pub id: Option<String>,
    /// Whether it counts once.
    pub once: bool,
}

/// What one may do in the rooms of one pattern.
#[derive(Clone, Debug)]
pub struct RoomGrant {
    /// Like `chat:guild/42` or `chat:guild/*`.
    pub pattern: String,
    /// What is allowed there.
    pub allow: Vec<Action>,
}

/// The secret that signs.
#[derive(Debug)]
pub struct SigningKey {
    /// The key id that the verifier knows this secret by.
    pub kid: Option<String>,
    /// The secret itself.
    pub secret: SecretSlice<u8>,
}

/// Why no token was made.
#[derive(Debug, Error)]
pub enum MintError {
    /// The secret or the key id cannot be used.
    #[error("the signing key cannot be used")]
    Key(#[source] KeyProblem),
    /// The token would be over at once.
    #[error("the token would expire at once; ask for at least one second")]
    Ttl,
    /// The token would be longer than verifiers take by default.
    #[error("the token would have {n_bytes} bytes, more than a verifier takes; grant less in it")]
    TooLong {
        /// How long it would be.
        n_bytes: usize,
    },
    /// The verifier would refuse the token.
    #[error("no server would accept this token; correct the value it names")]
    Refused(#[source] TokenError),
    /// The cryptographic library failed.
    #[error("signing failed inside the cryptographic library")]
    Sign,
}

/// Makes a token that is valid from `now` on.
///
/// # Errors
/// [`MintError`] when the key is unfit or the verifier would refuse the result.
pub fn mint(request: &TokenRequest, key: &SigningKey, now: Wall) -> Result<String, MintError> {
    check_secret(key.secret.expose_secret()).map_err(MintError::Key)?;
    if key.kid.as_ref().is_some_and(|kid| kid.is_empty() || kid.len() > KID_BYTES_MAX) {
        return Err(MintError::Key(KeyProblem::Kid));
    }
    if request.ttl.is_zero() {
        return Err(MintError::Ttl);
    }
    let payload = to_json(&Payload::new(request, now))?;
    let expected = Expected {
        issuer: request.issuer.clone(),
        audience: request.audience.clone(),
        leeway: Duration::ZERO,
    };
    Claims::read(&payload, &expected)
        .and_then(|claims| claims.into_timed(&expected))
        .and_then(|timed| timed.check(expected.leeway, now).map(drop))
        .map_err(MintError::Refused)?;
    let header = to_json(&JoseHeader { alg: "HS256", typ: "JWT", kid: key.kid.as_deref() })?;
    let mut token =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let secret = EncodingKey::from_secret(key.secret.expose_secret());
    let signature = (DEFAULT_PROVIDER.signer_factory)(&jsonwebtoken::Algorithm::HS256, &secret)
        .map_err(|_| MintError::Sign)?
        .try_sign(token.as_bytes())
        .map_err(|_| MintError::Sign)?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    if token.len() > Config::default().token_bytes_max {
        return Err(MintError::TooLong { n_bytes: token.len() });
    }
    Ok(token)
}

fn to_json(value: &impl Serialize) -> Result<String, MintError> {
    serde_json::to_string(value).map_err(|_| MintError::Sign)
}

#[derive(Serialize)]
struct JoseHeader<'r> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'r str>,
}

#[derive(Serialize)]
struct Payload<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'r str>,
    sub: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'r str>,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'r str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    once: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'r str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'r [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rooms: Vec<PayloadGrant<'r>>,
}

#[derive(Serialize)]
struct PayloadGrant<'r> {
    pattern: &'r str,
    allow: Vec<&'static str>,
}

impl<'r> Payload<'r> {
    fn new(request: &'r TokenRequest, now: Wall) -> Self {
        let iat = now.as_millis().div_euclid(1000);
        // Rounded up, so that the token lives at least as long as was asked for.
        let ttl = i64::try_from(request.ttl.as_millis()).unwrap_or(i64::MAX);
        let end = now.as_millis().saturating_add(ttl);
        let exp = end.div_euclid(1000).saturating_add(i64::from(end.rem_euclid(1000) > 0));
        let rooms = request.rooms.iter().map(|grant| PayloadGrant {
            pattern: &grant.pattern,
            allow: grant.allow.iter().map(|action| action.word()).collect(),
        });
        Self {
            iss: request.issuer.as_deref(),
            sub: &request.subject,
            aud: request.audience.as_deref(),
            iat,
            exp,
            jti: request.id.as_deref(),
            once: request.once,
            name: request.name.as_deref(),
            roles: &request.roles,
            rooms: rooms.collect(),
        }
    }
}
