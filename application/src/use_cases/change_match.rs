//! What starting and ending a match have in common: the change itself, and telling the match's room.
//!
//! The change comes first and the announcement behind it, so nobody must ever be told of a change that
//! a restart would take back. Who asks again for a change that was made gets the same answer, and the
//! room is told once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::delivery::Class;
use domain::id::{ClientId, MessageId};
use domain::matches::{Match, MatchId, Phase, TransitionError};
use domain::tags::Tags;
use domain::time::Wall;
use thiserror::Error;

use crate::ports::{ReadMatchesError, UpdateMatchError};
use crate::services::Services;
use crate::use_cases::broadcast_message::{BroadcastError, BroadcastMessage};

/// Whose `msg_id`s the announcements are: no API key can have this name.
const ANNOUNCER: &str = "~matches";

/// How long behind a change its announcement is repeated for who asks for the change again: within the
/// ten minutes for which a room knows a `msg_id`, so that it is there once.
const ANNOUNCED_AGAIN: Duration = Duration::from_secs(300);

/// A match after a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChangedMatch {
    /// As it is now.
    pub now: Match,
    /// Whether the change had been made before.
    pub is_duplicate: bool,
}

/// Why a match was not changed, or its room not told.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ChangeMatchRefused {
    /// There is no match of this name.
    #[error("there is no such match")]
    Missing,
    /// It is not in a phase from which it could be changed so.
    #[error("the match can't become that")]
    Transition(#[source] TransitionError),
    /// Matches can't be read.
    #[error("the match could not be read")]
    Read(#[source] ReadMatchesError),
    /// It changed again and again meanwhile, or the matches did not take the change.
    #[error("the match could not be changed")]
    Update(#[source] UpdateMatchError),
    /// It is changed, but its room was not told: ask again soon.
    #[error("the match is changed, and its room was not told")]
    Announce(#[source] BroadcastError),
}

/// Changes a match: `next` gives what it becomes, or says that there is nothing left to do by giving none.
pub(super) async fn change(
    services: &Services,
    id: &MatchId,
    next: impl Fn(&Match, Wall) -> Result<Option<Match>, TransitionError>,
) -> Result<ChangedMatch, ChangeMatchRefused> {
    let matches = &services.ports.matches;
    let now = services.ports.clock.now().wall;
    // A match can be overtaken once for each phase that it has left.
    for _ in Phase::ALL {
        let found = matches.find(id).await.map_err(ChangeMatchRefused::Read)?;
        let found = found.ok_or(ChangeMatchRefused::Missing)?;
        let Some(next) = next(&found, now).map_err(ChangeMatchRefused::Transition)? else {
            return Ok(ChangedMatch { now: found, is_duplicate: true });
        };
        match matches.update(&next, found.phase()).await {
            Ok(()) => return Ok(ChangedMatch { now: next, is_duplicate: false }),
            Err(UpdateMatchError::Changed) => {}
            Err(UpdateMatchError::Missing) => return Err(ChangeMatchRefused::Missing),
            Err(error) => return Err(ChangeMatchRefused::Update(error)),
        }
    }
    Err(ChangeMatchRefused::Update(UpdateMatchError::Changed))
}

/// Tells the match's room, once however often it is called about one change. `at` is when the match
/// changed.
pub(super) async fn announce(
    services: &Arc<Services>,
    changed: &ChangedMatch,
    word: &str,
    at: Option<Wall>,
    data: String,
) -> Result<(), ChangeMatchRefused> {
    let now = services.ports.clock.now().wall;
    let is_long_ago = at.is_none_or(|at| now.since(at) > ANNOUNCED_AGAIN);
    if changed.is_duplicate && is_long_ago {
        return Ok(());
    }
    // A match of the same name that is made when this one is forgotten is another one.
    let made_at = changed.now.created_at.as_millis();
    let publish = BroadcastMessage {
        services: Arc::clone(services),
        key_name: announcer()?,
        rooms: vec![changed.now.id.room().clone()],
        data: Bytes::from(data),
        class: Some(Class::Reliable),
        key: None,
        msg_id: MessageId::parse(&format!("{word}:{made_at}")).ok(),
        ttl: None,
        tags: Tags::default(),
        trace: None,
    };
    for (_, told) in publish.execute().await {
        told.map_err(ChangeMatchRefused::Announce)?;
    }
    Ok(())
}

fn announcer() -> Result<ClientId, ChangeMatchRefused> {
    // A test announces, so it is a name.
    ClientId::parse(ANNOUNCER)
        .map_err(|_| ChangeMatchRefused::Announce(BroadcastError::UnknownRoom))
}
