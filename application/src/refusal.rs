//! What a client is told when a command can't be carried out: one row of the error table with the
//! few details that help it.
//!
//! It must never carry an inner error's text: what went wrong inside is for the log.

use std::borrow::Cow;
use std::time::Duration;

use domain::codes::ErrorCode;

/// The answer to a command that was not carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The row of the error table.
    pub code: ErrorCode,
    /// One sentence for the developer of the client.
    pub message: Cow<'static, str>,
    /// Which field is meant.
    pub field: Option<Cow<'static, str>>,
    /// When the same command may succeed.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with a sentence.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), field: None, retry_after: None }
    }

    /// Names the field.
    #[must_use]
    pub fn field(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Names the time.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Something that the command needs is away.
    #[must_use]
    pub fn unavailable(wait: Duration) -> Self {
        Self::new(ErrorCode::Unavailable, "the server can't do this now; try again later")
            .retry_after(wait)
    }

    /// The room's policy and the token do not allow it. The same words whether the room exists or
    /// not.
    #[must_use]
    pub fn denied() -> Self {
        Self::new(ErrorCode::PermissionDenied, "not allowed in this room")
    }

    /// A newer connection speaks for the user.
    #[must_use]
    pub fn replaced() -> Self {
        let message = "another connection of this user has taken its place";
        Self::new(ErrorCode::PermissionDenied, message)
    }

    /// The room has given out all offsets that there are, and takes nothing more with one.
    #[must_use]
    pub fn log_full() -> Self {
        Self::new(ErrorCode::NotAvailable, "the room has given out its last offset")
    }

    /// A fault of ours.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(ErrorCode::Internal, "the server could not carry this out")
    }
}

impl From<domain::protocol::Rejected> for Refusal {
    fn from(rejected: domain::protocol::Rejected) -> Self {
        let domain::protocol::Rejected { code, field, message, .. } = rejected;
        Self { code, message, field, retry_after: None }
    }
}
