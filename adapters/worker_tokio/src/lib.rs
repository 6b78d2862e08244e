//! Runs one shard on a thread of its own: a current-thread tokio runtime that owns the sockets of
//! the shard's connections.
//!
//! It carries bytes and time, and knows the framing; what a message means and who gets it is the
//! shard's to say. No lock is taken and no task is woken per delivery.
//!
//! Reading order: [`Worker`], `core` (shard and sockets together), `sockets` (the outbox) and `hot`,
//! `reader` (a connection's way in), `writer` (what a slow socket did not take), `sealed` (TLS), `echo`,
//! `bounded_authorizer`, `heart` (its signs of life).

mod bounded_authorizer;
mod clock;
#[cfg(test)]
mod contract;
mod core;
mod echo;
mod entropy;
mod heart;
mod hot;
mod reader;
mod sealed;
mod sockets;
mod worker;
mod writer;

pub use bounded_authorizer::BoundedAuthorizer;
pub use clock::SystemClock;
pub use entropy::SystemEntropy;
pub use worker::{Accepted, Config, Purpose, StartError, Worker};
