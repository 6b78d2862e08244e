//! Broker, presence and seats of several nodes, on Redis or Valkey: one server, one that sentinels name, or a Cluster.
//!
//! A room's head, log and memory for retries lie in Redis. One script positions a publish, keeps it and
//! publishes it, so that position and delivery can't part; every node, the publishing one too, gets it
//! over its own subscription. Nothing but those scripts may change a room, and no position is ever given
//! out by a node.
//!
//! The host spawns [`RedisBroker::run`] once; until it has connected, and whenever Redis is away,
//! everything is answered with `Unavailable`.
//!
//! Suggested reading order: `config`, `servers`, `names`, `entry`, `scripts` with the Lua beside it, `answers`,
//! `wire`, `line`, `sentinel`, `slots`, `cluster`, `batch`, `link`, `keeper`, `replicate`, `topics`, `behind`, `rooms`,
//! `table`, `subscriber`, `pushes`, `looks`, `broker`, `publish`, `gate`, `durable`, `reading`, `erase`, `present`,
//! `presence`, `former`, `parting`, `reaper`, `news`, `revocations`, `spent_tokens`,
//! `seated`, `seats`, `spread`, `peer_words`, `collected`, `missed`, `peers`.

mod answers;
mod batch;
mod behind;
mod broker;
mod cluster;
mod collected;
mod config;
mod durable;
mod entry;
mod erase;
mod former;
mod gate;
mod head;
mod keeper;
mod kept;
mod line;
mod link;
mod looks;
mod missed;
mod names;
mod news;
mod parting;
mod peer_words;
mod peers;
mod plain;
mod presence;
mod present;
mod publish;
mod pushes;
mod reading;
mod reaper;
mod replicate;
mod revocations;
mod rooms;
mod scripts;
mod seated;
mod seats;
mod sentinel;
mod servers;
mod slots;
mod sparing;
mod spent_tokens;
mod spread;
mod status;
mod subscriber;
mod table;
#[cfg(feature = "testing")]
pub mod testing;
mod topics;
mod wire;

pub use broker::{RedisBroker, StartError};
pub use config::{Config, ConfigError};
pub use durable::DurableLog;
pub use kept::KeptRevocations;
pub use peers::RedisPeers;
pub use revocations::RedisRevocations;
pub use seats::RedisSeats;
pub use spent_tokens::RedisSpentTokens;
pub use status::Status;
