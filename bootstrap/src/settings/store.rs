//! Where durable rooms and what must not be forgotten are kept, if not in the data directory: the settings
//! of Postgres.
//!
//! Nothing here may connect to anything.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::effective::Effective;
use super::error::Problem;
use super::tree::{path_or_none, secret_or_none};

/// The Postgres that keeps what has to last.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Its address; none keeps all in the data directory.
    #[serde(deserialize_with = "secret_or_none")]
    pub url: Option<SecretString>,
    /// The password that takes the place of the one in the address; once loaded, also when it stands in
    /// `password_file`.
    #[serde(deserialize_with = "secret_or_none")]
    pub password: Option<SecretString>,
    /// The file that holds it.
    #[serde(deserialize_with = "path_or_none")]
    pub password_file: Option<PathBuf>,
    /// The schema of the tables.
    pub schema: String,
    /// The most connections, those that write included.
    pub connections_max: usize,
    /// How long a statement may take.
    pub answer_timeout_ms: u64,
}

/// Whether the address is one of a Postgres; what it is otherwise is nobody's to see.
pub(super) fn check(store: &Store, effective: &Effective) -> Option<Problem> {
    let url = store.url.as_ref()?.expose_secret();
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    let reason = "must be an address like postgres://USER:PASSWORD@HOST:PORT/DATABASE";
    (!is_postgres).then(|| effective.problem("store.url", reason))
}

/// Whether this is the name of a schema.
pub(super) fn is_schema(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=40).contains(&text.len())
        && text.bytes().all(is_plain)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
}
