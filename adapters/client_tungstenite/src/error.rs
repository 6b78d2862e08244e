//! What can go wrong with connecting, and what it means for the next attempt.

use std::io;
use std::time::Duration;

use domain::client::failure::{Failure, Timeout};
use domain::client::life::{ABNORMAL, Lost};
use domain::codes::{CloseCode, should_reconnect};
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
    /// There is no token to connect with.
    #[error("there is no token: {why}")]
    NoToken {
        /// What its source says.
        why: String,
    },
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
    #[error("the server answered with HTTP status {status} instead of a WebSocket")]
    Http {
        /// The status.
        status: u16,
        /// The `Retry-After` header.
        retry_after: Option<Duration>,
    },
    /// What answers is no WebSocket server.
    #[error("the WebSocket handshake failed")]
    Handshake(#[source] Box<tungstenite::Error>),
    /// The server speaks an extension of WebSocket that was not offered.
    #[error("the server chose an extension of WebSocket that was not offered")]
    UnknownExtension,
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
            Self::Unreachable { .. }
            | Self::NoToken { .. }
            | Self::TimedOut
            | Self::Tls(_)
            | Self::Handshake(_)
            | Self::UnknownExtension => true,
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
    const fn code(&self) -> u16 {
        match self {
            Self::Http { status: 401, .. } => CloseCode::Unauthenticated.number(),
            Self::Http { status: 403, .. } => CloseCode::Forbidden.number(),
            Self::Ended { code, .. } => *code,
            _ => ABNORMAL,
        }
    }

    /// The same for whoever decides when to come back.
    pub(crate) fn as_lost(&self) -> Lost {
        let again = Some(self.is_temporary());
        let lost = Lost::new(self.code(), error_chain(self));
        Lost { after: self.retry_after(), again, ..lost }
    }

    /// An attempt that came to its end behind the handshake, or in none.
    pub(crate) fn ended(failure: Failure, after: Option<Duration>) -> Self {
        let code = failure.code;
        let reason = match failure.timeout {
            Some(Timeout::Connect) if !failure.opened => return Self::TimedOut,
            Some(Timeout::Connect) => "no hello came in time".to_owned(),
            Some(Timeout::Heartbeat) | None if code == ABNORMAL => failure.words(),
            Some(Timeout::Heartbeat) | None => failure.reason,
        };
        Self::Ended { code, reason, after }
    }
}

/// An error and what it comes from, in one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
