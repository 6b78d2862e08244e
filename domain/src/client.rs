//! A client of protocol v2: the life of its connection, which that of `/ws/client` is, too, its requests, its rooms
//! and where it stands in each.
//!
//! It must never hand the same message over twice, never hide that one is missing, and never grow with
//! what a server sends. It reads no socket and no clock: whoever drives a [`Machine`] brings texts, `now` and
//! random numbers in, and carries out what it asks for. Other clients decide alike: `clients/vectors` holds them all to
//! the same cases.
//!
//! Reading order: [`life`] (when there is a connection), [`backoff`], [`failure`]; [`track`] (the place in a room);
//! [`machine`](Machine) (the protocol over all this), [`Outbound`].

pub mod backoff;
pub mod failure;
pub mod life;
pub mod planted;
pub mod track;

mod error;
mod machine;
mod outbound;
mod settings;

pub use error::RequestError;
pub use failure::ErrorClass;
pub use machine::{Answer, Ask, Effect, Machine, PublishOptions, RoomPhase, SubscribeOptions};
pub use outbound::Outbound;
pub use settings::{Settings, Token, TokenPlace};

#[cfg(test)]
mod tests;
