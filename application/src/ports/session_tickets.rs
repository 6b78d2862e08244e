//! Tickets: what a token said, signed by the server, so that whoever comes back need not bring the
//! token again.

use domain::principal::Principal;
use domain::time::Wall;
use thiserror::Error;

/// Why a ticket does not count. The variants are for the log; a client is told only that it has
/// to bring a token.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TicketError {
    /// Not a ticket, or one of another version.
    #[error("the ticket is malformed")]
    Malformed,
    /// It was signed with a secret that is not configured, or not any more.
    #[error("no configured secret fits the ticket")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the ticket's signature is wrong")]
    Signature,
    /// Its time is over.
    #[error("the ticket has expired")]
    Expired,
    /// This server takes no tickets.
    #[error("this server takes no tickets")]
    NotTaken,
}

/// Makes and reads tickets. Called once for a connection: sync, never blocks, a few microseconds
/// at most.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait SessionTickets: Send + Sync {
    /// A ticket that brings this principal back, at most
    /// [`SESSION_BYTES_MAX`](domain::protocol::client_frame::SESSION_BYTES_MAX) bytes of ASCII
    /// that JSON need not escape. It MUST end no later than the principal does, and no later than
    /// the tickets' lifetime after the principal's token was verified
    /// ([`verified_at`](domain::principal::Credential::verified_at)), however many tickets lie
    /// between. None for a principal without a user or a verified token, one whose token has yet to
    /// be spent, one whose time is over, or one too large.
    fn seal(&self, principal: &Principal, now: Wall) -> Option<String>;

    /// Whom a ticket brings back: exactly the principal that it was made for, its own end and its
    /// credential included. MUST answer an error whenever anything is in doubt, and check the
    /// signature, in constant time, before it reads what is signed: a wrong `Ok` lets somebody in
    /// as somebody else. One that was made while the lifetime was longer MUST count no longer than
    /// one made now. A ticket is not used up.
    ///
    /// # Errors
    /// [`TicketError`] says why it does not count.
    fn open(&self, ticket: &str, now: Wall) -> Result<Principal, TicketError>;
}

/// For a host without tickets: everybody comes back with a token.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTickets;

impl SessionTickets for NoTickets {
    fn seal(&self, _: &Principal, _: Wall) -> Option<String> {
        None
    }

    fn open(&self, _: &str, _: Wall) -> Result<Principal, TicketError> {
        Err(TicketError::NotTaken)
    }
}
