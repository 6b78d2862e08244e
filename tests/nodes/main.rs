//! What several nodes share, over real servers that each test starts for itself.
//!
//! Nodes are brokers in one process here, or built binaries; the servers are never mocks. Where none can be
//! started a test says that it is left out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

mod broker_contract;
mod broker_faults;
mod broker_losses;
mod brokers;
mod churn;
mod clocks;
mod cluster;
mod cluster_presence;
mod draining;
mod durable;
mod durable_contract;
mod durable_server;
mod durable_stories;
mod false_answers;
mod fleet;
mod heads;
mod letters;
mod links;
mod lives;
mod passage;
mod positions;
mod postgres_contract;
mod postgres_failover;
mod postgres_false;
mod postgres_faults;
mod postgres_limits;
mod postgres_migrations;
mod postgres_server;
mod postgres_sharing;
mod postgres_start;
mod postgres_stores;
mod presence;
mod presence_churn;
mod presence_contract;
mod proxy;
mod replicated;
mod rules;
mod seats;
mod sentinels;
mod shared;
mod slow_links;
mod stopped;
mod stories;
mod storm;
mod story;
mod tiny_disk;
mod told;
