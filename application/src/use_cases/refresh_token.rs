//! Takes a fresh token of the same user in the place of the old one, and finds out what it does
//! not allow any more.
//!
//! It must never leave somebody with the rights of both tokens: the fresh one counts alone.

use std::sync::Arc;
use std::time::Duration;

use domain::codes::CloseCode;
use thiserror::Error;

use crate::extensions::middleware::Who;
use crate::ports::{SpendError, TokenError};
use crate::refusal::Refusal;
use crate::services::Services;
use crate::use_cases::authenticate::{AuthenticateError, Credentials, identify};
use crate::use_cases::authorize::NotAllowed;
use crate::use_cases::revalidate::{Held, Lost, Revalidate};

/// When a client may try again after a fresh token could not be looked at.
const COME_BACK: Duration = Duration::from_secs(1);

/// A connection with a fresh token.
pub struct RefreshToken {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who it is by the old token.
    pub who: Arc<Who>,
    /// The fresh one.
    pub token: String,
    /// The rooms it is in.
    pub rooms: Vec<Held>,
}

/// Who it is now.
#[derive(Debug)]
pub struct Refreshed {
    /// The connection with the fresh token's principal.
    pub who: Arc<Who>,
    /// What it may not have any more.
    pub lost: Lost,
}

/// Why the fresh token does not count.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum RefreshError {
    /// It does not count.
    #[error("the token does not count")]
    Identify(#[source] AuthenticateError),
    /// It is somebody else's.
    #[error("the token is another user's")]
    OtherUser,
    /// It could not be found out what it allows.
    #[error("no answer what the token allows")]
    NoAnswer(#[source] NotAllowed),
}

impl RefreshError {
    /// How the connection ends; none where it goes on with the old token and may try again.
    #[must_use]
    pub const fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::Identify(
                AuthenticateError::Token(TokenError::KeysUnavailable)
                | AuthenticateError::NotSpendable(SpendError::Full | SpendError::Storage(_)),
            )
            | Self::NoAnswer(_) => None,
            Self::Identify(error) => Some(error.close_code()),
            Self::OtherUser => Some(CloseCode::Unauthenticated),
        }
    }

    /// The answer where the connection goes on.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::unavailable(COME_BACK)
    }
}

impl RefreshToken {
    /// Verifies the token and asks for each room.
    ///
    /// # Errors
    /// [`RefreshError`] says why the old token still counts, or nothing any more.
    pub async fn execute(self) -> Result<Refreshed, RefreshError> {
        let Self { services, who, token, rooms } = self;
        let credentials = Credentials { token: Some(token), ..Credentials::default() };
        let principal = identify(&services, &who, &credentials).await;
        let principal = principal.map_err(RefreshError::Identify)?;
        if principal.user != who.principal.user {
            return Err(RefreshError::OtherUser);
        }
        let who = Arc::new(Who { principal: Arc::new(principal), ..(*who).clone() });
        let (services, fresh) = (Arc::clone(&services), Arc::clone(&who));
        let lost = Revalidate { services, who: fresh, rooms }.execute().await;
        Ok(Refreshed { who, lost: lost.map_err(RefreshError::NoAnswer)? })
    }
}
