//! The HTTP and WebSocket host: axum answers HTTP and the upgrade, then hyper is left behind and
//! the socket goes to a worker.
//!
//! It decides who may open a socket at all (address, origin, headers, limits), never what a
//! connection may do: that is the application's.
//!
//! Reading order: [`Gateway`], `accept` (sockets in), `routes`, `upgrade` (the handshake), [`Mount`]
//! (the same inside somebody else's application), `api` (the server API), `operations` (what
//! operators ask for), `answer` (what refusals look like), `notice` (what guards are told).

mod accept;
mod answer;
mod api;
mod gateway;
mod handshake;
mod monitoring;
mod mount;
mod notice;
mod operations;
mod routes;
mod secure_headers;
mod shared;
mod upgrade;
mod wire;

pub use api::ApiKey;
pub use gateway::{BindError, Config, Gateway, Handle, Probe};
pub use mount::Mount;
