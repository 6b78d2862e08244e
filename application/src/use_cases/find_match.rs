//! Finds a match by its name, for the server API and for whoever wants to be let in.
//!
//! What it shows must never be shown to somebody who may not know of the match: that is the caller's to
//! decide, by `domain::matches::may_enter` or by a key.

use std::sync::Arc;

use domain::matches::{Match, MatchId};

use crate::ports::ReadMatchesError;
use crate::services::Services;

/// A question for one match.
pub struct FindMatch {
    /// The node's services.
    pub services: Arc<Services>,
    /// Its name.
    pub id: MatchId,
}

impl FindMatch {
    /// Looks for it.
    ///
    /// # Errors
    /// [`ReadMatchesError`] when matches can't be read.
    pub async fn execute(self) -> Result<Option<Match>, ReadMatchesError> {
        self.services.ports.matches.find(&self.id).await
    }
}
