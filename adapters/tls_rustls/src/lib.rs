//! TLS of a server: certificates from files, replaced while it runs, and sessions that turn records
//! into bytes and bytes into records.
//!
//! A leaf: it knows no HTTP, no WebSocket and no connection of the server. It never offers early
//! data, never asks for a client's certificate, and never renegotiates: rustls can't.
//!
//! Reading order: [`Identity`] (a certificate and its key), [`Acceptor`] (what sessions begin with),
//! [`Session`] (sans-io), [`Stream`] (the same over a socket, for the time before the upgrade).

mod acceptor;
mod identity;
mod session;
mod stream;
#[cfg(test)]
mod testing;

pub use acceptor::{Acceptor, MinVersion, SetupError};
pub use identity::{FILE_BYTES_MAX, Identity, LoadError, Part, Validity};
pub use session::{RECORD_BYTES_MAX, Received, Session, TlsError};
pub use stream::{HandshakeError, Stream};
