//! What may be configured, and what is refused before the first token arrives.
//!
//! Nothing here may print key material: every `Debug` and every error leaves it out.

use std::hash::{Hash, Hasher};
use std::mem;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretSlice};
use thiserror::Error;

pub(crate) use crate::algorithm::Algorithm;

/// The most keys one verifier may have; a token without a fitting key costs one walk over them.
pub const KEYS_MAX: usize = 32;
/// The longest key id, in bytes, configured or in a token.
pub const KID_BYTES_MAX: usize = 256;
/// The shortest HMAC secret, in bytes: 256 bits, the least that RFC 7518 allows for HS256.
pub const SECRET_BYTES_MIN: usize = 32;
/// The widest leeway. Clocks that differ by more are a fault to repair, not to allow for.
pub const LEEWAY_MAX: Duration = Duration::from_secs(60);
/// The largest value of [`Config::token_bytes_max`]: more never fits an HTTP header.
pub(crate) const TOKEN_BYTES_LIMIT: usize = 64 * 1024;

/// What a verifier checks tokens against.
#[derive(Debug)]
pub struct Config {
    /// The keys that may have signed a token. With none, every token is refused.
    pub keys: Vec<KeyConfig>,
    /// What `iss` must be, byte for byte; none accepts every issuer that has a key.
    pub issuer: Option<String>,
    /// What `aud` must be or contain, byte for byte; none accepts tokens meant for others.
    pub audience: Option<String>,
    /// By how much the issuer's clock may differ from ours; at most [`LEEWAY_MAX`].
    pub leeway: Duration,
    /// The longest token, in bytes; a longer one is refused unread.
    pub token_bytes_max: usize,
    /// The most verified tokens that are remembered; 0 remembers none. Only signatures with a
    /// public key are worth it.
    pub cache_entries_max: usize,
    /// How long a verified token is remembered, at most.
    pub cache_life: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(5),
            token_bytes_max: 8 * 1024,
            cache_entries_max: 4_096,
            cache_life: Duration::from_secs(60),
        }
    }
}

/// One key and what it may be used for. Its hash is there to know a key again without keeping it.
#[derive(Debug, Hash)]
pub struct KeyConfig {
    /// The key id that a token's header names; none for the one key of tokens without `kid`.
    pub kid: Option<String>,
    /// The algorithms that this key verifies, all of one family: `HS256`, `HS384`, `HS512`; or
    /// `RS256` to `RS512` and `PS256` to `PS512`; or `ES256`; or `ES384`; or `ES512`;
    /// or `EdDSA` (Ed25519).
    pub algorithms: Vec<Algorithm>,
    /// The key itself.
    pub material: KeyMaterial,
}

/// A key in the form in which it was configured.
#[derive(Debug)]
pub enum KeyMaterial {
    /// A secret shared with the issuer, at least [`SECRET_BYTES_MIN`] bytes.
    HmacSecret(SecretSlice<u8>),
    /// One PEM block, `PUBLIC KEY` or `RSA PUBLIC KEY`.
    PublicKeyPem(String),
    /// The two numbers of an RSA key, big-endian.
    RsaComponents {
        /// The modulus.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: Vec<u8>,
    },
    /// A point on P-256, P-384 or P-521, uncompressed (SEC 1: `04`, x, y).
    EcPoint(Vec<u8>),
    /// The 32 bytes of an Ed25519 public key.
    Ed25519(Vec<u8>),
}

impl Hash for KeyMaterial {
    fn hash<H: Hasher>(&self, state: &mut H) {
        mem::discriminant(self).hash(state);
        match self {
            Self::HmacSecret(secret) => secret.expose_secret().hash(state),
            Self::PublicKeyPem(text) => text.hash(state),
            Self::RsaComponents { modulus, exponent } => (modulus, exponent).hash(state),
            Self::EcPoint(bytes) | Self::Ed25519(bytes) => bytes.hash(state),
        }
    }
}

/// Why no verifier can be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// More than [`KEYS_MAX`] keys.
    #[error("{n_keys} token keys are configured; at most {KEYS_MAX} may be, remove the old ones")]
    TooManyKeys {
        /// How many there are.
        n_keys: usize,
    },
    /// Two keys answer to one id, or two have none.
    #[error("{first} and {second} have the same kid or both none; give each its own")]
    DuplicateKid {
        /// The earlier key.
        first: String,
        /// The later key.
        second: String,
    },
    /// The leeway is wider than [`LEEWAY_MAX`].
    #[error("the token leeway is {0:?}; at most {LEEWAY_MAX:?} is allowed")]
    Leeway(Duration),
    /// The token limit is zero or beyond reason.
    #[error("the token limit is {0} bytes; it must be 1 to {TOKEN_BYTES_LIMIT}")]
    TokenBytesMax(usize),
    /// Issuer or audience is the empty text.
    #[error("the token {0} is configured as an empty text; name it or leave it out")]
    Empty(&'static str),
    /// One key cannot be used.
    #[error("{which} cannot be used")]
    Key {
        /// The key's number, from 0, and its id.
        which: String,
        /// What is wrong with it.
        #[source]
        problem: KeyProblem,
    },
}

/// What is wrong with one key.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum KeyProblem {
    /// The id is empty or longer than [`KID_BYTES_MAX`].
    #[error("its kid must be 1 to {KID_BYTES_MAX} bytes; leave it out for a key without one")]
    Kid,
    /// No algorithm is listed.
    #[error("it lists no algorithm; name what the issuer signs with, like RS256")]
    NoAlgorithm,
    /// Algorithms of two families are listed.
    #[error("its algorithms are of more than one family; configure one key for each family")]
    MixedFamilies,
    /// The secret is shorter than [`SECRET_BYTES_MIN`].
    #[error(
        "its secret has {n_bytes} bytes, and {SECRET_BYTES_MIN} random ones are the least; \
         make one with `openssl rand -base64 32`"
    )]
    SecretShort {
        /// How many bytes it has.
        n_bytes: usize,
    },
    /// The secret is the text of a PEM file.
    #[error("its secret is a PEM block; configure that as `pem` with the issuer's algorithm")]
    SecretIsPem,
    /// A secret with an algorithm that needs a public key.
    #[error("it has a secret, but its algorithms need a public key; give the issuer's public key")]
    SecretForPublicKey,
    /// A public key with an algorithm that needs a secret.
    #[error("it has a public key, but its algorithms need a secret; list the issuer's algorithm")]
    PublicKeyForSecret,
    /// A private key.
    #[error(
        "it is a private key, and the server needs only the public one; \
         extract it with `openssl pkey -pubout` and keep the private key at the issuer"
    )]
    PrivateKey,
    /// Not exactly one PEM block of a public key.
    #[error("its PEM must be exactly one block labelled PUBLIC KEY or RSA PUBLIC KEY")]
    Pem,
    /// A key of another kind than its algorithms.
    #[error("it is another kind of key than its algorithms need, or damaged")]
    Kind,
    /// An RSA key of a size that is not safe or not supported.
    #[error("it is an RSA key of {bits} bits; 2048 to 8192 are supported")]
    RsaBits {
        /// The size of its modulus.
        bits: usize,
    },
    /// An elliptic curve key on another curve than its algorithm.
    #[error(
        "ES256 needs a key on P-256, ES384 one on P-384, ES512 one on P-521; no other curve works"
    )]
    Curve,
}
