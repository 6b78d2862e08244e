//! Tests of the in-memory broker through its ports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod contract;
mod durable;
mod erasing;
mod rooms;
mod support;
