//! The durable archive on SQLite, through sqlx.
//!
//! One file in one directory, owned by one process. All writes go through one task that commits
//! in groups; reads go to a few connections of their own. It must never answer `Ok` to a write
//! before SQLite has committed it to the disk, and never let two servers share a directory.
//!
//! Suggested reading order: [`Config`], [`SqliteArchive`], then `open`, `queue`, `writer`, `rows`,
//! `revocations`, `spent_tokens`, `matches`, `inbox`, `moderation`.

mod archive;
mod config;
mod inbox;
mod matches;
mod migrations;
mod moderation;
mod open;
mod queue;
mod revocations;
mod rows;
mod spent_tokens;
mod writer;

#[cfg(test)]
mod tests;

pub use archive::SqliteArchive;
pub use config::{Config, FILE_NAME, Limits, Place};
pub use inbox::SqliteInbox;
pub use matches::SqliteMatches;
pub use moderation::SqliteModeration;
pub use open::BuildError;
pub use revocations::SqliteRevocations;
pub use spent_tokens::SqliteSpentTokens;
