//! Broker, presence and seats of several nodes, on one Redis or Valkey server.
//!
//! A room's head, log and memory for retries lie in Redis. One script positions a publish, keeps it and
//! publishes it, so that position and delivery can't part; every node, the publishing one too, gets it
//! over its own subscription. Nothing but those scripts may change a room, and no position is ever given
//! out by a node.
//!
//! The host spawns [`RedisBroker::run`] once; until it has connected, and whenever Redis is away,
//! everything is answered with `Unavailable`.
//!
//! Suggested reading order: `config`, `names`, `entry`, `scripts` with the Lua beside it, `link`, `table`,
//! `subscriber`, `broker`, `erase`, `present`, `presence`, `reaper`,
//! `news`,
//! `revocations`, `spent_tokens`, `seated`, `seats`,
//! `peer_words`, `peers`.

mod broker;
mod config;
mod entry;
mod erase;
mod link;
mod names;
mod news;
mod peer_words;
mod peers;
mod presence;
mod present;
mod reaper;
mod revocations;
mod scripts;
mod seated;
mod seats;
mod spent_tokens;
mod status;
mod subscriber;
mod table;

pub use broker::RedisBroker;
pub use config::{Config, ConfigError};
pub use peers::RedisPeers;
pub use revocations::RedisRevocations;
pub use seats::RedisSeats;
pub use spent_tokens::RedisSpentTokens;
pub use status::Status;
