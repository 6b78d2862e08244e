//! What the verifier makes of tokens and keys, bad ones above all. A doc line `A30`, `A31`, … on
//! a test is its row in the table of bad tokens.
//!
//! Nothing here sleeps or asks a clock.

// Helpers are outside of test functions, where the house rules would not let them unwrap.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod algorithms;
mod claims;
mod contract;
mod encoding;
mod grants;
mod header;
mod key_file;
mod minting;
mod remembered;
mod remote;
