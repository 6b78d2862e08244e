//! Session tickets signed with HMAC-SHA256 (aws-lc-rs): an adapter of the `session_tickets` port.
//!
//! A ticket is base64url, without padding and in the one canonical spelling, of
//!
//! ```text
//! version (1 byte) | key id (4) | contents | HMAC-SHA256 of all before it (32)
//! ```
//!
//! The signing key is derived from a configured secret under a label of its own, so that neither a
//! token signed with that secret is a ticket nor a ticket anything else. The contents are those of
//! the principal, in the clear: they are the bearer's own. They must never be looked at before the
//! signature fits, and no secret, key or ticket may stand in an error.
//!
//! Suggested reading order: `tickets`, `contents`.

mod contents;
mod tickets;

pub use tickets::{BuildError, HmacTickets, SECRET_BYTES_MIN, SECRETS_MAX};
