//! Broker and presence in this process's memory; durable rooms go through the archive.
//!
//! Rooms live in stripes with one short lock each: a publish takes its position, enters the log
//! and reaches every subscribed mailbox in one step under that lock. The lock must never be held
//! across an await, and nothing but this crate may give out positions of its rooms.
//!
//! The host spawns [`MemoryBroker::run_committer`] once if it gives an archive, and
//! [`MemoryBroker::run_sweeps`], or calls [`MemoryBroker::sweep`] about once a second.
//!
//! Suggested reading order: `broker`, `stripe`, `room`, `log`, `dedup`, `present`, `durable`,
//! `gate`, `committer`, `queue`, `erase`, `sweep`, `revocations`, `spent_tokens`, `matches`, `inbox`,
//! `moderation`.

mod broker;
mod budget;
mod committer;
mod dedup;
mod durable;
mod erase;
mod gate;
mod inbox;
mod log;
mod matches;
mod moderation;
mod present;
mod queue;
mod revocations;
mod room;
mod spent_tokens;
mod stripe;
mod sweep;
mod watchers;

pub use broker::{Config, MemoryBroker, Usage};
pub use inbox::MemoryInbox;
pub use matches::MemoryMatches;
pub use moderation::MemoryModeration;
pub use revocations::MemoryRevocations;
pub use spent_tokens::MemorySpentTokens;
