//! What happens to whoever does not keep to the rules, told of the host in `tests/hosts/bare_tcp.rs`: the
//! same files as the suite `conformance`, another program.
//!
//! What is left out stands in `tests/support/hosts.rs`, with its reason, and nowhere else.

#![allow(dead_code, reason = "stories that are left out share what is not used here")]
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
mod frames;
mod handshake;
mod json;
mod limits;
mod many;
mod origin;
mod pairs;
mod slow_consumers;
mod states;

use tests::hosts::assert_told_or_left_out;

#[test]
fn every_story_is_told_of_this_host_or_left_out_for_a_reason() {
    assert_told_or_left_out("conformance", include_str!("main.rs"), include_str!("bare_tcp.rs"));
}
