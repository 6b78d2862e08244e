//! What happens to whoever does not keep to the rules: each bad input gets its documented answer,
//! and nothing else suffers.
//!
//! Every test runs against the built server from outside. A canary (`arena`) talks on the same
//! server all the while, and a test ends by asking how it was. The rows named in front of a test
//! are those of the fault catalogue.
//!
//! Suggested reading order: `arena`, `handshake`, `frames`, `cases`, `echo`, `client`, `json`, `states`, `origin`,
//! `auth`, `boundaries`, `limits`, `slow_consumers`, `many`, `pairs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may stop where it stands; its helpers are outside #[test] functions"
)]

mod arena;
mod auth;
mod boundaries;
mod cases;
mod client;
mod echo;
mod frames;
mod handshake;
mod json;
mod limits;
mod many;
mod origin;
mod pairs;
mod slow_consumers;
mod states;
