//! Asks the manager of a match's game what to do with a message, and does what it wants.
//!
//! A cold call like any other: a manager that panics ends its sender's connection, with 1011, and nothing
//! of its message is done. It must never ask a manager about somebody who is not let into the match.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::codes::ErrorCode;
use domain::matches::{Entry, Match, MatchId, may_enter};

use crate::extensions::games::GameMessage;
use crate::extensions::middleware::{Inbound, Who};
use crate::refusal::Refusal;
use crate::services::Services;
use crate::use_cases::handle_message::{Handled, carry_out};

/// When to come back if matches can't be read.
const COME_BACK: Duration = Duration::from_secs(1);

/// A message of somebody who is in a match.
pub struct HandleGameMessage {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who sent it.
    pub who: Arc<Who>,
    /// The match.
    pub id: MatchId,
    /// The message's type.
    pub kind: Arc<str>,
    /// The whole frame, as JSON.
    pub body: Bytes,
}

impl HandleGameMessage {
    /// Validates, handles, publishes, and answers what is left to do.
    ///
    /// # Errors
    /// The answer that the client gets.
    pub async fn execute(self) -> Result<Handled, Refusal> {
        let Self { services, who, id, kind, body } = self;
        // Looked up for each: a match that has ended meanwhile takes no more.
        let found = services.ports.matches.find(&id).await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "a match can't be read");
            Refusal::unavailable(COME_BACK)
        })?;
        let of = Arc::new(found.ok_or_else(no_match)?);
        let is_participant = is_participant(&who, &of)?;
        let manager = services.rules.games.of(&of.game).ok_or_else(no_match)?;
        let text = std::str::from_utf8(&body).unwrap_or_default();
        let place = id.room();
        let inbound =
            Inbound { kind: &kind, room: Some(place.as_str()), body: text, derived: false };
        let context = services.rules.middleware.process_message(&who, inbound).await?;
        manager.validate(&kind, text)?;
        let message = GameMessage {
            of: Arc::clone(&of),
            who: Arc::clone(&who),
            is_participant,
            kind: Arc::clone(&kind),
            body,
            context,
        };
        let effects = manager.handle(message).await?;
        carry_out(&services, &who, &kind, effects, Some(place)).await
    }
}

fn is_participant(who: &Who, of: &Match) -> Result<bool, Refusal> {
    match may_enter(who.principal.user.as_ref(), of) {
        Entry::Participant => Ok(true),
        Entry::Spectator => Ok(false),
        Entry::Refused(why) => Err(Refusal::new(ErrorCode::PermissionDenied, why.to_string())),
    }
}

fn no_match() -> Refusal {
    Refusal::new(ErrorCode::NotAvailable, "there is no such match")
}
