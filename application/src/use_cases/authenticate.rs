//! Finds out who a connection is, and whether it may open.
//!
//! It must never let a connection in when the token, the limit or a middleware is in doubt.

use std::sync::Arc;

use domain::codes::CloseCode;
use domain::principal::Principal;
use thiserror::Error;

use crate::directory::Admission;
use crate::extensions::middleware::Who;
use crate::ports::TokenError;
use crate::services::Services;

/// A connection that wants to open, or to be known as a user.
pub struct Authenticate {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who it is so far.
    pub who: Arc<Who>,
    /// Its token; none asks to be let in anonymously.
    pub token: Option<String>,
}

/// Who it is.
#[derive(Debug)]
pub struct Authenticated {
    /// The connection with its principal and context.
    pub who: Arc<Who>,
    /// Its place among the user's connections; none for an anonymous one.
    pub admission: Option<Admission>,
}

/// Why a connection may not open.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum AuthenticateError {
    /// No token, and anonymous connections are not let in.
    #[error("a token is needed")]
    Missing,
    /// The token is not accepted.
    #[error("the token is not accepted")]
    Token(#[source] TokenError),
    /// The user has as many connections as allowed.
    #[error("the user has as many connections as allowed")]
    ConnectionLimit,
    /// A middleware refused.
    #[error("a middleware refused the connection")]
    Refused(CloseCode),
}

impl AuthenticateError {
    /// The code with which the connection is closed.
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Missing | Self::Token(_) => CloseCode::Unauthenticated,
            Self::ConnectionLimit => CloseCode::ConnectionLimit,
            Self::Refused(code) => code,
        }
    }
}

impl Authenticate {
    /// Verifies, counts, and asks the middleware.
    ///
    /// # Errors
    /// [`AuthenticateError`] says why it may not open.
    pub async fn execute(self) -> Result<Authenticated, AuthenticateError> {
        let Services { ports, rules, directory, .. } = &*self.services;
        let principal = match &self.token {
            None if rules.allow_anonymous => Principal::anonymous(),
            None => return Err(AuthenticateError::Missing),
            Some(token) => ports
                .token_verifier
                .verify(token, ports.clock.now().wall)
                .await
                .map_err(AuthenticateError::Token)?,
        };
        let admission = match &principal.user {
            None => None,
            Some(user) => Some(
                directory
                    .admit(user, rules.limits.connections_per_user_max)
                    .map_err(|_| AuthenticateError::ConnectionLimit)?,
            ),
        };
        let mut who = Who { principal: Arc::new(principal), ..(*self.who).clone() };
        who.context =
            rules.middleware.process_connection(&who).await.map_err(AuthenticateError::Refused)?;
        Ok(Authenticated { who: Arc::new(who), admission })
    }
}
