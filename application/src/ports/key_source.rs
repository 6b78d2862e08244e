//! Where the keys of an identity provider are published.
//!
//! It gives a text and judges nothing: which keys in it may be used is for whoever verifies
//! tokens.

use async_trait::async_trait;
use thiserror::Error;

/// Why there is no text. The variants are for the log.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum KeySourceError {
    /// No connection, or it broke.
    #[error("the key set can't be fetched: {0}")]
    Unreachable(String),
    /// Nothing whole came in time.
    #[error("the key set did not come in time")]
    Timeout,
    /// Another status than 200. Nobody is followed elsewhere.
    #[error("the key set was answered with status {0}, not with 200; redirects are not followed")]
    Status(u16),
    /// The answer is larger than allowed.
    #[error("the key set is larger than {bytes_max} bytes")]
    TooLarge {
        /// The most bytes taken.
        bytes_max: usize,
    },
    /// The answer is no text.
    #[error("the key set is not UTF-8")]
    NotText,
}

/// Fetches a JSON Web Key Set.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait KeySource: Send + Sync {
    /// The whole text, as it is published now. MUST come from the configured place itself, MUST be
    /// bounded in bytes and time, and MUST NOT be called more than once at a time.
    async fn fetch(&self) -> Result<String, KeySourceError>;
}
