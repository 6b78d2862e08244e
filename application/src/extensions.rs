//! The places where a host adds its own rules: the middleware chain around every command, the registry
//! of message handlers, and that of game managers.
//!
//! All run in cold calls: one that fails or panics ends its message or its connection, never the
//! shard.

pub mod games;
pub mod handlers;
pub mod middleware;
