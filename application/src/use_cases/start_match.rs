//! Starts a match, for the server API, and tells its room.
//!
//! The caller has been authorised by its key. Starting a match that is running changes nothing.

use std::sync::Arc;

use domain::matches::{Match, MatchId, TransitionError};
use domain::time::Wall;

use crate::services::Services;
use crate::use_cases::change_match::{ChangeMatchRefused, ChangedMatch, announce, change};

/// A match that is to begin.
pub struct StartMatch {
    /// The node's services.
    pub services: Arc<Services>,
    /// Its name.
    pub id: MatchId,
}

impl StartMatch {
    /// Starts it and tells its room.
    ///
    /// # Errors
    /// [`ChangeMatchRefused`] says why it does not run, or that its room was not told.
    pub async fn execute(self) -> Result<ChangedMatch, ChangeMatchRefused> {
        let changed = change(&self.services, &self.id, started).await?;
        let at = changed.now.started_at();
        let data = announcement(&changed.now);
        announce(&self.services, &changed, "match_started", at, data).await?;
        Ok(changed)
    }
}

fn started(found: &Match, now: Wall) -> Result<Option<Match>, TransitionError> {
    match found.start(now) {
        Ok(running) => Ok(Some(running)),
        Err(TransitionError::Running) => Ok(None),
        Err(error @ TransitionError::Ended) => Err(error),
    }
}

fn announcement(of: &Match) -> String {
    // Neither name needs an escape, nor does a time.
    let (id, game) = (&of.id, &of.game);
    let at = of.started_at().unwrap_or(of.created_at);
    format!(r#"{{"type":"match_started","match_id":"{id}","game":"{game}","started_at":"{at}"}}"#)
}
