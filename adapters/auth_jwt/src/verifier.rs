//! The port's implementation: form, key, signature, claims, in that order.
//!
//! No claim is looked at before the signature fits, and whatever is in doubt is an error.

use application::ports::token_verifier::{TokenError, TokenHint, TokenVerifier};
use async_trait::async_trait;
use domain::principal::Principal;
use domain::time::Wall;

use crate::claims::{Claims, Expected};
use crate::compact::{Compact, Header, decode_text};
use crate::config::{BuildError, Config, LEEWAY_MAX, TOKEN_BYTES_LIMIT};
use crate::keys::KeySet;

/// Verifies JSON Web Tokens with configured keys.
#[derive(Debug)]
pub struct JwtVerifier {
    pub(crate) keys: KeySet,
    expected: Expected,
    token_bytes_max: usize,
}

impl JwtVerifier {
    /// Checks the configuration and takes it.
    ///
    /// # Errors
    /// [`BuildError`] names the first setting or key that cannot be used. No keys at all is not
    /// an error: such a verifier refuses every token.
    pub fn build(config: Config) -> Result<Self, BuildError> {
        let keys = KeySet::compile(&config.keys)?;
        if config.leeway > LEEWAY_MAX {
            return Err(BuildError::Leeway(config.leeway));
        }
        if !(1..=TOKEN_BYTES_LIMIT).contains(&config.token_bytes_max) {
            return Err(BuildError::TokenBytesMax(config.token_bytes_max));
        }
        for (what, value) in [("issuer", &config.issuer), ("audience", &config.audience)] {
            if value.as_ref().is_some_and(String::is_empty) {
                return Err(BuildError::Empty(what));
            }
        }
        let expected =
            Expected { issuer: config.issuer, audience: config.audience, leeway: config.leeway };
        Ok(Self { keys, expected, token_bytes_max: config.token_bytes_max })
    }

    pub(crate) fn check(&self, token: &str, now: Wall) -> Result<Principal, TokenError> {
        if self.keys.is_empty() {
            return Err(TokenError::NoKeys);
        }
        if token.len() > self.token_bytes_max {
            return Err(TokenError::Malformed);
        }
        let token = Compact::split(token)?;
        let header = Header::read(token.header)?;
        self.keys.choose(&header)?.verify(&header, token)?;
        let payload = decode_text(token.payload)?;
        Claims::read(&payload, &self.expected)?.into_principal(&self.expected, now)
    }
}

#[async_trait]
impl TokenVerifier for JwtVerifier {
    async fn verify(&self, token: &str, now: Wall) -> Result<Principal, TokenError> {
        self.check(token, now)
    }

    fn describe(&self, token: &str) -> TokenHint {
        if token.len() > self.token_bytes_max {
            return TokenHint::default();
        }
        let header = Compact::split(token).and_then(|token| Header::read(token.header));
        header.map_or_else(|_| TokenHint::default(), Header::into_hint)
    }
}
