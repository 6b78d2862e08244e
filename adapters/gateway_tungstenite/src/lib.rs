//! A host without HTTP: it takes TCP connections, speaks tungstenite's handshake and framing, and runs
//! the shards on threads of its own.
//!
//! Nothing of it is shared with the other gateway but the application: no axum, no hyper, neither
//! `worker_tokio` nor `websocket_codec`. So it shows that the core runs in hosts that are not ours.
//! It serves `/ws/v2/connect`, `/healthz` and `/readyz`, and must never serve an API.
//!
//! Reading order: [`Gateway`], `door` (sockets in), `head` (requests and answers), `host` (a shard and its
//! thread), `links` (the outbox), `line` (one connection), `framing`, `course`.

#[cfg(test)]
mod contract;
mod course;
mod door;
mod framing;
mod gateway;
mod head;
mod host;
mod line;
mod links;

pub use gateway::{BindError, Config, Gateway, StartError};
