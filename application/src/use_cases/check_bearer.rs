//! Asks whether a token counts, before there is a connection.
//!
//! It must never let anybody in: whoever passes is authenticated once more when the connection opens.

use core::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::codes::ErrorCode;
use domain::documents::told::Endpoint;
use domain::id::{ClientId, ConnectionId};
use domain::principal::Principal;

use crate::extensions::middleware::{Context, Who};
use crate::ports::TokenError;
use crate::refusal::Refusal;
use crate::services::Services;
use crate::use_cases::authenticate::{AuthenticateError, Credentials, identify};
use crate::view::View;

/// When a client may ask again after the keys could not be had.
const COME_BACK: Duration = Duration::from_secs(1);

/// A token in an upgrade request.
pub struct CheckBearer {
    /// The node's services.
    pub services: Arc<Services>,
    /// Names the request in the security log.
    pub connection: ConnectionId,
    /// The address that it comes from, where it is known.
    pub address: Option<IpAddr>,
    /// The token; none when there is none, or two.
    pub token: Option<String>,
}

impl CheckBearer {
    /// Verifies it.
    ///
    /// # Errors
    /// The answer over HTTP.
    pub async fn execute(self) -> Result<(), Refusal> {
        let Self { services, connection, address, token } = self;
        let client = ClientId::parse(&format!("c-{connection}"));
        let client = client.map_err(|_| Refusal::internal())?;
        let principal = Arc::new(Principal::anonymous());
        let context = Context::default();
        let view = View::Document(Endpoint::Lobby);
        let who =
            Who { connection, client, address, view, place: None, principal, context, fence: None };
        let Some(token) = token else { return Err(unknown("a valid token is needed")) };
        let credentials =
            Credentials { token: Some(token), are_looked_at: true, ..Credentials::default() };
        match identify(&services, &who, &credentials).await {
            Ok(_) => Ok(()),
            Err(AuthenticateError::Token(TokenError::KeysUnavailable)) => {
                Err(Refusal::unavailable(COME_BACK))
            }
            Err(AuthenticateError::TooManyFailures(wait)) => {
                let message = "too many tokens of this address were not accepted";
                Err(Refusal::new(ErrorCode::RateLimited, message).retry_after(wait))
            }
            Err(_) => Err(unknown("the token is not accepted; get a new one")),
        }
    }
}

fn unknown(message: &'static str) -> Refusal {
    Refusal::new(ErrorCode::InvalidToken, message).field("token")
}
