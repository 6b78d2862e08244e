//! Token verification with jsonwebtoken on aws-lc-rs: an adapter of the `token_verifier` port.
//!
//! It must never let a token choose how it is checked: the configuration lists every key and, for
//! each, the algorithms of one family. It never lets one say where keys come from, asks a clock only
//! for the age of published keys, and never writes key material or a token into an error or a log.
//!
//! What a token has to be, from the outside in:
//!
//! - at most [`Config::token_bytes_max`] bytes, three segments, base64url in the one canonical
//!   spelling, header and claims JSON objects in which no member occurs twice;
//! - signed by the key that its `kid` names, with an algorithm that key lists. `none`, `jku`,
//!   `x5u`, `jwk` and `x5c` have no effect, and a header with `crit` is refused. Without `kid`
//!   only the key configured without one fits, or the only key there is;
//! - an access token: `typ` in the header, when present, is `JWT` or `at+jwt`. The marks that
//!   common issuers put into other tokens are refused as well: a claim `token_use` other than
//!   `access`, a claim `token_type` other than `access` or `Bearer`, a claim `typ` other than
//!   `Bearer`, and `at_hash` or `c_hash`, which only an OpenID Connect ID token has. An ID token
//!   without any mark is told apart only by its audience, so configure one;
//! - in its time: `exp` is required, `nbf` is honoured, both with the same leeway;
//! - for us: `iss` and `aud` fit exactly when they are configured. Without a configured audience
//!   a token for anyone is accepted, so production must configure one;
//! - from somebody: `sub` is a user id. `name`, `roles` and `rooms` are optional;
//! - once or often: with `once` it has a `jti` and ends within a day. It is not spent here.

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use cache::CacheUse;
pub use config::{
    BuildError, Config, KEYS_MAX, KID_BYTES_MAX, KeyConfig, KeyMaterial, KeyProblem, LEEWAY_MAX,
    SECRET_BYTES_MIN,
};
pub use inspect::Inspection;
pub use key_file::{EntryProblem, KeyFileError, load_keys};
pub use mint::{MintError, RoomGrant, SigningKey, TokenRequest, mint};
pub use remote::{KeyUsage, REFRESH_INTERVAL, RETRY_MAX, RemoteKeys, UNKNOWN_KID_INTERVAL};
pub use verifier::JwtVerifier;

mod algorithm;
mod config;
mod verifier;

mod cache;
mod claims;
mod compact;
mod json;
mod keys;

mod inspect;
mod jwk_set;
mod remote;

mod key_file;
mod mint;
