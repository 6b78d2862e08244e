//! The stories of protocol v2, told of the host in `tests/hosts/bare_tcp.rs`: the same files as the
//! suite `e2e`, another program.
//!
//! What is left out stands in `LEFT_OUT`, with its reason, and nowhere else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

mod client;
mod drain;
mod first_message;
mod full_disk;
mod heartbeat;
mod http;
mod kill;
mod no_descriptors;
mod presence;
mod publishing;
mod recovery;
mod resume;
mod resume_storm;
mod rust_storm;
mod selective;
mod storm;
mod tokens;
