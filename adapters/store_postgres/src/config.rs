//! What an archive is built from. Nothing here may read a file or connect to anything.

use std::time::Duration;

use secrecy::SecretString;
use thiserror::Error;

/// Whether other nodes may use the same tables at the same time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sharing {
    /// One server has them, and a second one is refused.
    Alone,
    /// Several nodes have them, which agree about positions elsewhere.
    Shared,
}

/// Where the tables are, and how much may wait for them.
#[derive(Clone, Debug)]
pub struct Config {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with the options of libpq behind `?`.
    pub url: SecretString,
    /// A password that takes the place of the one in the address.
    pub password: Option<SecretString>,
    /// The schema that holds the tables; made if it is missing.
    pub schema: String,
    /// Who else may use it.
    pub sharing: Sharing,
    /// Whether a server that may lose what it has committed (`fsync=off`) is taken all the same, with a warning.
    pub accepts_loss: bool,
    /// Connections that write, each one group at a time.
    pub writers: usize,
    /// The most connections that read; where there are several, one of them is for what has to be read before
    /// something is committed.
    pub readers_max: usize,
    /// The most reads that wait for one of them; more are refused as overload.
    pub reads_waiting_max: usize,
    /// How long connecting, a statement and waiting for a connection may each take.
    pub answer_timeout: Duration,
    /// How long the start goes on trying to reach the server.
    pub start_timeout: Duration,
    /// How much may wait to be written, and how much is committed at once.
    pub limits: Limits,
}

impl Config {
    /// The schema's name, unless the configuration gives another.
    pub const SCHEMA: &'static str = "roomkeeper";

    /// The most connections that write.
    pub const WRITERS_MAX: usize = 16;

    /// With the usual limits, for one server.
    #[must_use]
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            password: None,
            schema: Self::SCHEMA.to_owned(),
            sharing: Sharing::Alone,
            accepts_loss: false,
            writers: 2,
            readers_max: 6,
            reads_waiting_max: 1_024,
            answer_timeout: Duration::from_secs(2),
            start_timeout: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

/// What can't be meant in a configuration. Shows no part of the address.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ConfigError {
    /// The address is none, for this reason.
    #[error("must be postgres://USER@HOST:PORT/DATABASE; {0}")]
    Url(&'static str),
    /// The schema's name.
    #[error("the schema must be 1 to 40 of a-z, 0-9 and _, and begin with a letter")]
    Schema,
}

/// How much may wait to be written, and how much one transaction takes. A single call may pass a
/// limit when nothing else waits: refused, it could never be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The most records that may wait; more are refused as overload.
    pub queue_records_max: usize,
    /// The most bytes that may wait; more are refused as overload.
    pub queue_bytes_max: usize,
    /// Where a transaction stops taking calls: beyond this, a larger group saves no more time
    /// and everyone in it waits longer.
    pub batch_records_max: usize,
    /// The same in bytes, so that large messages do not make a long transaction either.
    pub batch_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Well under a second of work; what waits longer is better refused.
            queue_records_max: 32_768,
            queue_bytes_max: 64 * 1024 * 1024,
            batch_records_max: 2_000,
            batch_bytes_max: 4 * 1024 * 1024,
        }
    }
}
