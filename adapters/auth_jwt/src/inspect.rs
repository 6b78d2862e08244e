//! Looks at a token for a person: its parts, the key it would be checked with, what comes of it.
//!
//! What it shows is what the token says, whether it is true or not; only the verdict counts, and
//! that is the same check as for a connection. A signature is never shown in full, since with it
//! the token could be used.

use application::ports::token_verifier::TokenError;
use domain::principal::Principal;
use domain::time::Wall;

use crate::compact::{Compact, Header, decode_text};
use crate::config::TOKEN_BYTES_LIMIT;
use crate::verifier::JwtVerifier;

/// How much of a signature is shown, in characters: enough to tell two tokens apart.
const SIGNATURE_CHARS_SHOWN: usize = 6;

/// What there is to see of a token.
#[derive(Debug)]
pub struct Inspection {
    /// The header's text, as it came.
    pub header: Result<String, TokenError>,
    /// The claims' text, as it came. Nobody has vouched for it unless `verdict` is a principal.
    pub claims: Result<String, TokenError>,
    /// The first characters of the signature.
    pub signature_start: String,
    /// How long the signature is, in characters.
    pub signature_chars: usize,
    /// The key that the header leads to, configured or published, by its number and id.
    pub key: Result<String, TokenError>,
    /// Whether that key made the signature.
    pub signature: Result<(), TokenError>,
    /// What a connection with this token would get.
    pub verdict: Result<Principal, TokenError>,
}

impl JwtVerifier {
    /// Looks at a token as it would be checked at `now`.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] for a text that has not three parts or is larger than any token
    /// may be; there is nothing to see in it.
    pub async fn inspect(&self, token: &str, now: Wall) -> Result<Inspection, TokenError> {
        if token.len() > TOKEN_BYTES_LIMIT {
            return Err(TokenError::Malformed);
        }
        let parts = Compact::split(token)?;
        let header = Header::read(parts.header);
        let keys = match &header {
            Ok(header) => self.keys_for(header).await.map(|(keys, _)| (keys, header)),
            Err(error) => Err(*error),
        };
        let keys = keys.as_ref().map_err(|error| *error);
        let key = keys.and_then(|(keys, header)| keys.label_of_chosen(header));
        let signature = keys.and_then(|(keys, header)| keys.choose(header)?.verify(header, parts));
        Ok(Inspection {
            header: decode_text(parts.header),
            claims: decode_text(parts.payload),
            signature_start: parts.signature.chars().take(SIGNATURE_CHARS_SHOWN).collect(),
            signature_chars: parts.signature.chars().count(),
            key,
            signature,
            verdict: self.check(token, now).await,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Algorithm, Config, KeyConfig, KeyMaterial, SigningKey, TokenRequest, mint};
    use secrecy::SecretSlice;
    use std::time::Duration;

    fn secret(byte: u8) -> SecretSlice<u8> {
        SecretSlice::from(vec![byte; 32])
    }

    fn verifier(kid: Option<&str>, byte: u8) -> JwtVerifier {
        let key = KeyConfig {
            kid: kid.map(str::to_owned),
            algorithms: vec![Algorithm::HS256],
            material: KeyMaterial::HmacSecret(secret(byte)),
        };
        JwtVerifier::build(Config { keys: vec![key], ..Config::default() }).unwrap()
    }

    fn token(kid: Option<&str>) -> String {
        let request = TokenRequest {
            subject: "ada".to_owned(),
            name: None,
            roles: Vec::new(),
            rooms: Vec::new(),
            ttl: Duration::from_secs(60),
            ..TokenRequest::default()
        };
        let key = SigningKey { kid: kid.map(str::to_owned), secret: secret(1) };
        mint(&request, &key, Wall::from_millis(1_000_000)).unwrap()
    }

    #[tokio::test]
    async fn a_good_token_shows_its_parts_its_key_and_its_user() {
        let token = token(Some("blue"));
        let now = Wall::from_millis(1_010_000);
        let seen = verifier(Some("blue"), 1).inspect(&token, now).await.unwrap();
        assert!(seen.header.unwrap().contains("HS256"));
        assert!(seen.claims.unwrap().contains("\"ada\""));
        assert_eq!(seen.key.unwrap(), "token key 0 (kid \"blue\")");
        assert_eq!(seen.signature, Ok(()));
        assert_eq!(seen.verdict.unwrap().user.unwrap().as_str(), "ada");
        assert_eq!((seen.signature_start.len(), seen.signature_chars), (6, 43));
    }

    #[tokio::test]
    async fn each_fault_is_told_apart() {
        let now = Wall::from_millis(1_010_000);
        let token = token(Some("blue"));
        let other_id = verifier(Some("red"), 1).inspect(&token, now).await.unwrap();
        assert_eq!(other_id.key.unwrap_err(), TokenError::UnknownKey);
        let other_key = verifier(Some("blue"), 2).inspect(&token, now).await.unwrap();
        assert_eq!(other_key.signature, Err(TokenError::Signature));
        let late = Wall::from_millis(2_000_000);
        let late = verifier(Some("blue"), 1).inspect(&token, late).await.unwrap();
        assert_eq!((late.signature, late.verdict.unwrap_err()), (Ok(()), TokenError::Expired));
        let nothing = verifier(None, 1).inspect("no token", now).await;
        assert_eq!(nothing.unwrap_err(), TokenError::Malformed);
        assert!(verifier(None, 1).inspect(&"a.".repeat(TOKEN_BYTES_LIMIT), now).await.is_err());
    }
}
