//! Ends a match, for the server API, and tells its room how it ended.
//!
//! The caller has been authorised by its key. How a match has ended must never be changed: ending it
//! again as it ended changes nothing, and otherwise is refused.

use std::sync::Arc;

use domain::matches::{Match, MatchId, MatchResult, TransitionError};

use crate::services::Services;
use crate::use_cases::change_match::{ChangeMatchRefused, ChangedMatch, announce, change};

/// A match that is to end.
pub struct EndMatch {
    /// The node's services.
    pub services: Arc<Services>,
    /// Its name.
    pub id: MatchId,
    /// How it ended; none where nobody says.
    pub result: Option<MatchResult>,
}

impl EndMatch {
    /// Ends it and tells its room.
    ///
    /// # Errors
    /// [`ChangeMatchRefused`] says why it does not end so, or that its room was not told.
    pub async fn execute(self) -> Result<ChangedMatch, ChangeMatchRefused> {
        let result = &self.result;
        let ended = |found: &Match, now| match found.end(now, result.clone()) {
            Ok(ended) => Ok(Some(ended)),
            Err(TransitionError::Ended) if found.result() == result.as_ref() => Ok(None),
            Err(error) => Err(error),
        };
        let changed = change(&self.services, &self.id, ended).await?;
        let at = changed.now.ended_at();
        let data = announcement(&changed.now);
        announce(&self.services, &changed, "match_ended", at, data).await?;
        Ok(changed)
    }
}

fn announcement(of: &Match) -> String {
    // Neither name needs an escape, nor does a time; the result was scanned when it came.
    let (id, game) = (&of.id, &of.game);
    let at = of.ended_at().unwrap_or(of.created_at);
    let result = of.result().map_or("null", MatchResult::as_str);
    format!(
        r#"{{"type":"match_ended","match_id":"{id}","game":"{game}","ended_at":"{at}","result":{result}}}"#
    )
}
