//! The two places where a host adds its own rules: the middleware chain around every command, and
//! the registry of message handlers.
//!
//! Both run in cold calls: one that fails or panics ends its message or its connection, never the
//! shard.

pub mod handlers;
pub mod middleware;
