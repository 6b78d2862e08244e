//! The stories of protocol v2, told of the host in `tests/hosts/bare_tcp.rs`: the same files as the
//! suite `e2e`, another program.
//!
//! What is left out stands in `tests/support/hosts.rs`, with its reason, and nowhere else.

#![allow(dead_code, reason = "stories that are left out share what is not used here")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed step of a test stops the test, with words"
)]

mod authorization;
mod client;
mod drain;
mod false_system;
mod first_message;
mod full_disk;
mod heartbeat;
mod http;
mod kill;
mod memory;
mod no_descriptors;
mod once;
mod presence;
mod protocol_files;
mod publishing;
mod recovery;
mod resume;
mod resume_storm;
mod rust_storm;
mod selective;
mod storm;
mod tokens;

use tests::hosts::assert_told_or_left_out;

#[test]
fn every_story_is_told_of_this_host_or_left_out_for_a_reason() {
    assert_told_or_left_out("e2e", include_str!("main.rs"), include_str!("bare_tcp.rs"));
}
