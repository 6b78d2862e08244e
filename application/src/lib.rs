//! The use cases of Roomkeeper against port traits, and the shard that owns connections.
//!
//! It names no technology: no socket, no database, no clock of its own. Whoever hosts it passes
//! time in and carries bytes out.
//!
//! Suggested reading order: [`ports`], [`mailbox`], [`published`], [`shard`].

pub mod admission;
pub mod built_in;
pub mod client_address;
pub mod directory;
pub mod extensions;
pub mod inquiry;
pub mod limits;
pub mod mailbox;
pub mod metrics;
pub mod node;
pub mod origin;
pub mod outbound_queue;
mod peer;
pub mod planted;
pub mod ports;
pub mod published;
pub mod refusal;
pub mod registry;
pub mod sanctions;
pub mod seats;
pub mod security;
pub mod services;
pub mod shard;
pub mod short_visits;
pub mod suspects;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timer_wheel;
pub mod traces;
pub mod unsure;
pub mod upgrade;
pub mod use_cases;
pub mod view;
