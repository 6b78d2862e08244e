//! Lists the matches of this server page by page, for the server API.
//!
//! Names are the order, so a match that is there throughout is in exactly one page. The caller has been
//! authorised by its key.

use std::sync::Arc;

use domain::matches::{MatchId, Phase};

use crate::ports::{MatchesAfter, MatchesPage, ReadMatchesError};
use crate::services::Services;

/// A question for a page of matches.
pub struct ListMatches {
    /// The node's services.
    pub services: Arc<Services>,
    /// Only those in this phase; none asks for all.
    pub phase: Option<Phase>,
    /// The last match of the page before.
    pub after: Option<MatchId>,
    /// The most matches of the page; above [`ListMatches::PAGE_MAX`] that many.
    pub matches_max: u32,
}

impl ListMatches {
    /// The most matches of one page.
    pub const PAGE_MAX: u32 = 1_000;
    /// The most bytes of one page; then the rest is on the next.
    pub const PAGE_BYTES_MAX: usize = 1 << 20;

    /// Asks for the page.
    ///
    /// # Errors
    /// [`ReadMatchesError`] when matches can't be read.
    pub async fn execute(self) -> Result<MatchesPage, ReadMatchesError> {
        let list = MatchesAfter {
            phase: self.phase,
            after: self.after,
            matches_max: self.matches_max.clamp(1, Self::PAGE_MAX) as usize,
            bytes_max: Self::PAGE_BYTES_MAX,
        };
        self.services.ports.matches.list(&list).await
    }
}
