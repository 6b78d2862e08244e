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
mod brokers;
mod postgres_contract;
mod postgres_faults;
mod postgres_limits;
mod postgres_server;
mod postgres_start;
mod postgres_stores;
mod presence;
mod presence_contract;
mod shared;
mod stories;
mod story;
