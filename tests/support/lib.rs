//! What tests share: the built server as a process, clients that others wrote, a raw socket, and
//! tokens made by hand.
//!
//! Nothing here uses the product's own code, so that a mistake there can't hide itself here; only
//! [`false_server`], where the load tool is tested and not the server, takes its framing.
//! Everything panics with what a person needs to see; nothing sleeps.
//!
//! Suggested reading order: [`server`], [`raw`], [`frame`], [`token`], [`foreign`], [`process`],
//! [`hosts`], [`follower`], [`leaks`], [`cgroup`],
//! [`false_system`], [`tls`], [`redis`], [`redis_many`], [`postgres`], [`false_server`], [`skips`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

pub mod cgroup;
pub mod false_server;
pub mod false_system;
pub mod follower;
pub mod foreign;
pub mod frame;
pub mod hosts;
pub mod leaks;
pub mod postgres;
pub mod process;
pub mod puppet;
pub mod raw;
pub mod redis;
pub mod redis_many;
pub mod server;
pub mod skips;
pub mod tls;
pub mod token;
