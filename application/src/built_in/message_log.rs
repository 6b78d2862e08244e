//! A middleware that logs who comes, what type of message they send, and that they go.
//!
//! It must never log what a message says, nor a token.

use async_trait::async_trait;
use domain::codes::CloseCode;
use domain::documents::told::Endpoint;

use crate::extensions::middleware::{Context, Inbound, Middleware, Who};
use crate::refusal::Refusal;
use crate::view::View;

/// Logs at level `info` under the target `messages`.
#[derive(Debug)]
pub struct MessageLog {
    endpoints: Option<Vec<Endpoint>>,
}

impl MessageLog {
    /// For connections by these endpoints of the documents.
    #[must_use]
    pub fn new(endpoints: &[Endpoint]) -> Self {
        Self { endpoints: Some(endpoints.to_vec()) }
    }

    /// For all connections.
    #[must_use]
    pub const fn of_all() -> Self {
        Self { endpoints: None }
    }

    fn concerns(&self, who: &Who) -> bool {
        match (&self.endpoints, who.view) {
            (None, _) => true,
            (Some(endpoints), View::Document(endpoint)) => endpoints.contains(&endpoint),
            (Some(_), View::V2 | View::Client(_) | View::Refused(_)) => false,
        }
    }
}

#[async_trait]
impl Middleware for MessageLog {
    async fn process_connection(&self, who: &Who, _context: &mut Context) -> Result<(), CloseCode> {
        if self.concerns(who) {
            let user = who.principal.user.as_ref().map(tracing::field::display);
            tracing::info!(target: "messages", connection = %who.connection, user, "connected");
        }
        Ok(())
    }

    async fn process_message(
        &self,
        who: &Who,
        message: Inbound<'_>,
        _context: &mut Context,
    ) -> Result<(), Refusal> {
        if self.concerns(who) && !message.derived {
            let user = who.principal.user.as_ref().map(tracing::field::display);
            let Inbound { kind, room, body, .. } = message;
            tracing::info!(
                target: "messages", connection = %who.connection, user, kind, room,
                bytes = body.len(), "message"
            );
        }
        Ok(())
    }

    async fn process_disconnect(&self, who: &Who, code: CloseCode) {
        if self.concerns(who) {
            let user = who.principal.user.as_ref().map(tracing::field::display);
            let code = code.number();
            tracing::info!(target: "messages", connection = %who.connection, user, code, "gone");
        }
    }
}
