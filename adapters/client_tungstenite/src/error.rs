//! What can go wrong: one enum for connecting, one for a request.

use std::io;
use std::time::Duration;

use domain::codes::{ErrorCode, should_reconnect};
use domain::id::MessageId;
use serde::Serialize;
use thiserror::Error;
use tokio_tungstenite::tungstenite;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL is none, or none of a WebSocket.
    #[error("the URL {why}")]
    BadUrl {
        /// What is wrong with it. The URL itself isn't repeated: it may hold a secret.
        why: &'static str,
    },
    /// The URL holds a token.
    #[error("the URL must not hold a token, because URLs are logged: give it as an option")]
    TokenInUrl,
    /// The token can't stand in a header.
    #[error("the token holds characters that no token has")]
    BadToken,
    /// Nothing answers there.
    #[error("no connection to {address}")]
    Unreachable {
        /// The host and the port.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The server's certificate is not trusted, or is another's, or its time is over; or there is
    /// nobody whose certificates are trusted.
    #[error("the server is not trusted")]
    NotTrusted(#[source] io::Error),
    /// TLS did not come about. The server may not speak it.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// It took longer than `connect_timeout`.
    #[error("the server did not answer in time")]
    TimedOut,
    /// Another answer than the upgrade.
    #[error("the server answered with HTTP {status} instead of a WebSocket")]
    Http {
        /// The status.
        status: u16,
        /// The `Retry-After` header.
        retry_after: Option<Duration>,
    },
    /// What answers is no WebSocket server.
    #[error("the WebSocket handshake failed")]
    Handshake(#[source] Box<tungstenite::Error>),
    /// The server took the connection and ended it before `hello`.
    #[error("the connection ended before it was up: {code} ({reason})")]
    Ended {
        /// The close code.
        code: u16,
        /// The reason that came with it.
        reason: String,
        /// When to come back, if the server said so.
        after: Option<Duration>,
    },
}

impl ConnectError {
    /// Whether nothing listens there.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. }
            if source.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Whether trying the same again may succeed.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::BadUrl { .. } | Self::TokenInUrl | Self::BadToken | Self::NotTrusted(_) => false,
            Self::Unreachable { .. } | Self::TimedOut | Self::Tls(_) | Self::Handshake(_) => true,
            // A captive portal answers with anything; only "no" means no.
            Self::Http { status, .. } => !matches!(status, 401 | 403),
            Self::Ended { code, .. } => should_reconnect(*code),
        }
    }

    /// When the server wants to be asked again.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Http { retry_after, .. } => *retry_after,
            Self::Ended { after, .. } => *after,
            _ => None,
        }
    }

    /// The close code that says the same.
    pub(crate) const fn code(&self) -> u16 {
        match self {
            Self::Http { status: 401, .. } => 3500,
            Self::Http { status: 403, .. } => 3501,
            Self::Ended { code, .. } => *code,
            _ => 1006,
        }
    }
}

/// The server's answer to a command that failed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Refusal {
    /// The number of the row in the protocol's table.
    pub code: u16,
    /// Its word.
    pub error: String,
    /// What is wrong, in words.
    pub message: String,
    /// The field at fault.
    pub field: Option<String>,
    /// When to try again.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// Whether the same command may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        ErrorCode::ALL.iter().any(|row| row.number() == self.code && row.is_temporary())
    }
}

/// Why a request has no good answer.
#[derive(Debug, Error)]
pub enum RequestError {
    /// What was to be sent is not JSON.
    #[error("the data is not JSON")]
    InvalidJson(#[source] serde_json::Error),
    /// The server refused it.
    #[error("the server refused it: {} ({})", .0.message, .0.error)]
    Refused(Refusal),
    /// The client is in that room already, or on its way in or out.
    #[error("the client is in that room already")]
    AlreadySubscribed,
    /// The application left the room before it was in.
    #[error("the room was left before it was joined")]
    Unsubscribed,
    /// There are as many rooms or unanswered requests as there may be.
    #[error("too many at once: at most {max}")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// Too much waits to be acknowledged.
    #[error("the outbox is full: wait for earlier publishes")]
    OutboxFull,
    /// There is no connection now, and the request makes no sense on another.
    #[error("the connection is down")]
    Disconnected,
    /// No answer came.
    #[error("no answer came in time")]
    TimedOut,
    /// No acknowledgement came. The message may have been published or not; publishing it again
    /// under the same id makes it one in any case.
    #[error("no acknowledgement came in time; publish again with message id {msg_id} to be sure")]
    Unanswered {
        /// The id to publish it again with.
        msg_id: MessageId,
    },
    /// The answer was not one to this question.
    #[error("the server gave an answer to another question")]
    WrongAnswer,
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}
