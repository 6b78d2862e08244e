//! From a token to a principal.

use async_trait::async_trait;
use domain::principal::Principal;
use domain::time::Wall;
use thiserror::Error;

/// Why a token is not accepted. The variants are for the log; a client is told only that its
/// token is not valid, except that it has expired.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TokenError {
    /// Not a token, or larger than one may be.
    #[error("the token is malformed")]
    Malformed,
    /// The algorithm, the key id or the key's family is not configured.
    #[error("no configured key and algorithm fit the token")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim is missing, has the wrong type or the wrong value.
    #[error("the token's claim `{0}` is missing or wrong")]
    Claim(&'static str),
    /// The keys have to be fetched and can't be now; the same token may be good later.
    #[error("the token keys can't be fetched now")]
    KeysUnavailable,
    /// No key is configured, so no token can be accepted.
    #[error("no token key is configured")]
    NoKeys,
}

/// What a token says of itself before anything of it is checked, for the security log. Never the
/// token, and nothing of its claims.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TokenHint {
    /// The algorithm that it names.
    pub algorithm: Option<String>,
    /// The key that it names.
    pub key: Option<String>,
}

/// Verifies tokens.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait TokenVerifier: Send + Sync {
    /// Checks signature, times (against `now`) and claims, and says who it is. MUST answer an
    /// error whenever anything is in doubt: a wrong `Ok` lets somebody in as somebody else. It uses
    /// no token up: of one that counts once it MUST say so
    /// ([`Credential::once`](domain::principal::Credential::once)), with the token's id and its end,
    /// no farther away than
    /// [`ONCE_LIFE_MAX`](domain::principal::Credential::ONCE_LIFE_MAX), each time that it is asked.
    async fn verify(&self, token: &str, now: Wall) -> Result<Principal, TokenError>;

    /// What a refused token says of itself. Both texts are the client's own.
    fn describe(&self, token: &str) -> TokenHint {
        let _ = token;
        TokenHint::default()
    }
}

/// For a host without tokens: whoever brings one is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTokens;

#[async_trait]
impl TokenVerifier for NoTokens {
    async fn verify(&self, _: &str, _: Wall) -> Result<Principal, TokenError> {
        Err(TokenError::NoKeys)
    }
}
