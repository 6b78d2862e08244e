//! The durable archive on Postgres, through sqlx, for one server or for several nodes.
//!
//! Writes wait in one bounded queue and are committed in groups by a few connections, never two groups of one
//! room at a time; reads have a few connections of their own. It must never answer `Ok` to a write before
//! Postgres has committed it to the disk, never let what waits grow while Postgres is away or slow, and never
//! wait for it without an end.
//!
//! Suggested reading order: [`Config`], [`PostgresArchive`], then `connect`, `status`, `queue`, `writer`,
//! `batch`, `life`, `rows`, `readers`, `read`, `succession`, `revocations`, `spent_tokens`, `matches`, `letter_turns`,
//! `inbox`, `moderation`.

mod archive;
mod batch;
mod config;
mod connect;
mod error;
mod inbox;
mod letter_turns;
mod life;
mod matches;
mod migrations;
mod moderation;
mod open;
mod queue;
mod read;
mod readers;
mod revocations;
mod rows;
mod spent_tokens;
mod status;
mod succession;
mod writer;

pub use archive::PostgresArchive;
pub use config::{Config, ConfigError, Limits, Sharing};
pub use inbox::PostgresInbox;
pub use matches::PostgresMatches;
pub use moderation::PostgresModeration;
pub use open::BuildError;
pub use read::{FIND_MESSAGES, READ_EPOCH, READ_LIVES};
pub use revocations::PostgresRevocations;
pub use spent_tokens::PostgresSpentTokens;
pub use status::Status;
