//! Asks whether a connection may do a thing in a room: the host's authorizer if there is one, else
//! the token's claims and the room's policy, and for a match's room who is in the match.
//!
//! Every command that needs a right comes through here. No answer must never become a yes.

use std::sync::Arc;
use std::time::Duration;

use domain::codes::ErrorCode;
use domain::decision::Asked;
use domain::matches::{Entry, MatchId, may_enter};
use domain::policy::NamespacePolicy;
use domain::principal::Action;
use domain::room::RoomId;
use thiserror::Error;

use crate::extensions::middleware::Who;
use crate::ports::ReadMatchesError;
use crate::ports::authorizer::{Authorizer, AuthorizerError, Question, Verdict};
use crate::refusal::Refusal;
use crate::services::Services;

/// When a client may ask again after the authorizer gave no answer.
const COME_BACK: Duration = Duration::from_secs(1);

/// Why a thing may not be done.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum NotAllowed {
    /// The rule says no. The text says which rule it was, where clients are told (development).
    #[error("not allowed")]
    Denied(Option<String>),
    /// The authorizer gave no answer.
    #[error("no answer whether it is allowed")]
    NoAnswer(#[source] AuthorizerError),
    /// The match can't be read.
    #[error("no answer who is in the match")]
    NoMatch(#[source] ReadMatchesError),
}

impl From<NotAllowed> for Refusal {
    fn from(error: NotAllowed) -> Self {
        match error {
            NotAllowed::Denied(None) => Self::denied(),
            NotAllowed::Denied(Some(why)) => Self::new(ErrorCode::PermissionDenied, why),
            NotAllowed::NoAnswer(_) | NotAllowed::NoMatch(_) => Self::unavailable(COME_BACK),
        }
    }
}

/// Whether `who` may do `action` in `room`.
///
/// # Errors
/// [`NotAllowed`] when a rule says no, and when there is no answer.
pub async fn authorize(
    services: &Services,
    who: &Arc<Who>,
    action: Action,
    room: &RoomId,
    policy: &Arc<NamespacePolicy>,
) -> Result<(), NotAllowed> {
    // In place and without a box: publishing comes through here.
    match &services.ports.authorizer {
        None => match by_claims(services, who, action, room, policy) {
            Err(denied) if MatchId::of_room(room).is_some() => {
                by_match(services, who, action, room).await?.then_some(()).ok_or(denied)
            }
            decided => decided,
        },
        Some(authorizer) => ask(services, &**authorizer, who, action, room, policy).await,
    }
}

/// What token and policy say, for a node without an authorizer.
pub(crate) fn by_claims(
    services: &Services,
    who: &Who,
    action: Action,
    room: &RoomId,
    policy: &NamespacePolicy,
) -> Result<(), NotAllowed> {
    let asked = Asked { principal: &who.principal, action, room, policy };
    if asked.decide().allowed {
        return Ok(());
    }
    Err(NotAllowed::Denied(services.rules.explains_denials.then(|| asked.explain())))
}

/// What a match says of who is in it: participants may do everything there but moderate, spectators
/// everything but speak.
async fn by_match(
    services: &Services,
    who: &Who,
    action: Action,
    room: &RoomId,
) -> Result<bool, NotAllowed> {
    let Some(id) = MatchId::of_room(room) else { return Ok(false) };
    let found = services.ports.matches.find(&id).await.map_err(NotAllowed::NoMatch)?;
    let Some(of) = found else { return Ok(false) };
    Ok(match may_enter(who.principal.user.as_ref(), &of) {
        Entry::Participant => action != Action::Moderate,
        Entry::Spectator => {
            matches!(action, Action::Subscribe | Action::Presence | Action::History)
        }
        Entry::Refused(_) => false,
    })
}

async fn ask(
    services: &Services,
    authorizer: &dyn Authorizer,
    who: &Arc<Who>,
    action: Action,
    room: &RoomId,
    policy: &Arc<NamespacePolicy>,
) -> Result<(), NotAllowed> {
    let claims = Asked { principal: &who.principal, action, room, policy }.decide();
    let question = Question {
        who: Arc::clone(who),
        action,
        room: room.clone(),
        policy: Arc::clone(policy),
        claims,
    };
    let answer = authorizer.authorize(question).await;
    services.metrics.edge.authorizer.add((&answer).into(), 1);
    match answer {
        Ok(Verdict::Allowed) => Ok(()),
        Ok(Verdict::Denied(reason)) => {
            let action = action.word();
            tracing::debug!(action, %room, %reason, "the authorizer denies");
            let explain = || format!("denied: {action} in {room}: the authorizer says: {reason}");
            Err(NotAllowed::Denied(services.rules.explains_denials.then(explain)))
        }
        Err(error) => {
            let cause = &error as &dyn std::error::Error;
            tracing::warn!(error = cause, action = action.word(), "no answer of the authorizer");
            Err(NotAllowed::NoAnswer(error))
        }
    }
}
