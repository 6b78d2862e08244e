//! What several nodes share: the settings of Redis.
//!
//! Nothing here may connect to anything.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use super::tree::{path_or_none, secret_or_none};

/// The Redis that several nodes share.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Its address; none is a node of its own.
    #[serde(deserialize_with = "secret_or_none")]
    pub url: Option<SecretString>,
    /// The password that takes the place of the one in the address; once loaded, also when it stands in
    /// `password_file`.
    #[serde(deserialize_with = "secret_or_none")]
    pub password: Option<SecretString>,
    /// The file that holds it.
    #[serde(deserialize_with = "path_or_none")]
    pub password_file: Option<PathBuf>,
    /// Whether a start without it fails.
    pub required: bool,
    /// The certificates that are trusted.
    #[serde(deserialize_with = "path_or_none")]
    pub ca_file: Option<PathBuf>,
    /// Who the sentinels are told that this is; empty for nobody.
    pub sentinel_username: String,
    /// The password of the sentinels.
    #[serde(deserialize_with = "secret_or_none")]
    pub sentinel_password: Option<SecretString>,
    /// The file that holds it.
    #[serde(deserialize_with = "path_or_none")]
    pub sentinel_password_file: Option<PathBuf>,
    /// How many replicas must have a message of a replicated room.
    pub replicas: u32,
    /// How long they may take.
    pub replication_timeout_ms: u64,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// How long an answer may take.
    pub answer_timeout_ms: u64,
    /// How long a node that says nothing counts as there.
    pub lease_ms: u64,
    /// For how long who has left can come back without having left.
    pub leave_grace_ms: u64,
}
