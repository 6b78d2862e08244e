//! Asks whether a connection may do a thing in a room: the host's authorizer if there is one, else
//! the token's claims and the room's policy, and for a match's room who is in the match.
//!
//! Every command that needs a right comes through here. No answer must never become a yes.

use std::sync::Arc;
use std::time::Duration;

use domain::codes::ErrorCode;
use domain::decision::Asked;
use domain::documents::told::Endpoint;
use domain::matches::{Entry, MatchId, may_enter};
use domain::moderation::Deed;
use domain::policy::NamespacePolicy;
use domain::principal::Action;
use domain::room::RoomId;
use domain::time::Wall;
use thiserror::Error;

use crate::extensions::middleware::Who;
use crate::ports::ReadMatchesError;
use crate::ports::authorizer::{Authorizer, AuthorizerError, Question, Verdict};
use crate::refusal::Refusal;
use crate::services::Services;
use crate::view::View;

/// When a client may ask again after the authorizer gave no answer.
const COME_BACK: Duration = Duration::from_secs(1);

/// Why a thing may not be done.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum NotAllowed {
    /// The rule says no. The text says which rule it was, where clients are told (development).
    #[error("not allowed")]
    Denied(Option<String>),
    /// A moderator has muted or banned the user there.
    #[error("muted or banned by a moderator")]
    Sanctioned {
        /// What may not be done.
        deed: Deed,
        /// How long not; none until a moderator lifts it.
        retry_after: Option<Duration>,
    },
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
            NotAllowed::Sanctioned { deed, retry_after } => {
                let message = match deed {
                    Deed::Speak => "a moderator has muted you in this room",
                    Deed::Enter => "a moderator has banned you from this room",
                };
                Self { retry_after, ..Self::new(ErrorCode::PermissionDenied, message) }
            }
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
    match action {
        // Looked at where something is said: not everything that is needs a right.
        Action::Publish | Action::Moderate => {}
        Action::Subscribe | Action::Presence | Action::History => {
            unsanctioned(services, who, Deed::Enter, room, || services.ports.clock.now().wall)?;
        }
    }
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

/// Whether no moderator has forbidden it. Asked whatever rights there are; the time is looked up only where
/// there is somebody who knows of moderators.
pub(crate) fn unsanctioned(
    services: &Services,
    who: &Who,
    deed: Deed,
    room: &RoomId,
    now: impl FnOnce() -> Wall,
) -> Result<(), NotAllowed> {
    let (Some(moderation), Some(user)) = (&services.ports.moderation, &who.principal.user) else {
        return Ok(());
    };
    let now = now();
    match moderation.forbids(user, room, deed, now) {
        None => Ok(()),
        Some(until) => Err(NotAllowed::Sanctioned { deed, retry_after: until.wait(now) }),
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
        // What is said in a match is its game's decision: by other ways than its endpoint it takes a grant.
        Entry::Participant if action == Action::Publish => {
            who.view == View::Document(Endpoint::Match)
        }
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
