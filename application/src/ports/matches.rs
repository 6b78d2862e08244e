//! Matches, remembered from when they are made until some time after they have ended.
//!
//! An implementation must never lose a change that it has answered, and never let one of two changes
//! that were made of the same version write over the other.

use std::time::Duration;

use async_trait::async_trait;
use domain::matches::{Match, MatchId, Phase};
use domain::time::Wall;
use thiserror::Error;

/// How many matches are kept, and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MatchesKept {
    /// The most matches at one time. At it those that ended first are forgotten for new ones.
    pub matches_max: usize,
    /// How long one is kept after it has ended.
    pub retention: Duration,
}

impl MatchesKept {
    /// Whoever ended at this moment or before need not be kept any more.
    #[must_use]
    pub fn forgotten_until(&self, now: Wall) -> Wall {
        let retention = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        Wall::from_millis(now.as_millis().saturating_sub(retention))
    }
}

impl Default for MatchesKept {
    fn default() -> Self {
        Self { matches_max: 10_000, retention: Duration::from_secs(24 * 3_600) }
    }
}

/// What became of a match that was to be made. Both are the same to whoever asks again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Created {
    /// It was made.
    New,
    /// It was there already, made alike; this is how far it is.
    Already(Box<Match>),
}

/// Why a match was not made. Nothing was half done.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CreateMatchError {
    /// There is another of this name that was made otherwise.
    #[error("there is another match of this name")]
    Conflict,
    /// As many are kept as may be, and none of them has ended.
    #[error("as many matches are kept as may be")]
    Full,
    /// This host keeps no matches.
    #[error("no matches are kept here")]
    NotKept,
    /// The storage is full, read-only, closed or failing. The text is for the log.
    #[error("the match could not be stored: {0}")]
    Storage(String),
}

/// Why a match was not changed. Nothing was half done.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum UpdateMatchError {
    /// There is no match of this name.
    #[error("there is no such match")]
    Missing,
    /// It is in another phase by now: look again.
    #[error("the match has changed meanwhile")]
    Changed,
    /// The storage is full, read-only, closed or failing. The text is for the log.
    #[error("the match could not be stored: {0}")]
    Storage(String),
}

/// Matches can't be read now. The text is for the log.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("matches could not be read: {0}")]
pub struct ReadMatchesError(pub String);

/// A question for a page of matches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MatchesAfter {
    /// Only those in this phase; none asks for all.
    pub phase: Option<Phase>,
    /// The last match of the page before.
    pub after: Option<MatchId>,
    /// The most matches of the page.
    pub matches_max: usize,
    /// The most bytes of the page, by [`Match::bytes`]; one match comes in any case.
    pub bytes_max: usize,
}

/// A page of matches.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MatchesPage {
    /// In the order of their names.
    pub matches: Vec<Match>,
    /// Whether there are later ones.
    pub more: bool,
}

/// The matches of one server.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Matches: Send + Sync {
    /// Remembers a match that is waiting. Idempotent by its name: one that
    /// [is made alike](Match::is_made_like) changes nothing, however far it is by now, and is
    /// [`Created::Already`]. Where as many are kept as may be, the one that ended first MUST go for it,
    /// and one that has not ended MUST NOT. Before the answer it MUST be where a restart finds it, if
    /// anything survives one.
    async fn create(&self, new: &Match) -> Result<Created, CreateMatchError>;

    /// Puts a match in the place of the one of its name, if that is in the phase `from`: of two such
    /// calls at most one is answered with `Ok`. The same about restarts as for `create`. A wrong `Ok`
    /// starts a match twice, or loses how it ended.
    async fn update(&self, next: &Match, from: Phase) -> Result<(), UpdateMatchError>;

    /// The match of a name, if there is one. MUST see what `create` and `update` have answered before.
    async fn find(&self, id: &MatchId) -> Result<Option<Match>, ReadMatchesError>;

    /// The next matches in the order of their names. One that is there throughout MUST be in exactly one
    /// page, if it does not change its phase where one is asked for. MUST NOT load much beyond the
    /// limits of the page.
    async fn list(&self, list: &MatchesAfter) -> Result<MatchesPage, ReadMatchesError>;

    /// Forgets those that ended so long ago that they need not be kept, and no other; called from time
    /// to time. May put it off.
    async fn forget(&self, now: Wall);
}

/// For a host without matches: there are none, and none can be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMatches;

#[async_trait]
impl Matches for NoMatches {
    async fn create(&self, _: &Match) -> Result<Created, CreateMatchError> {
        Err(CreateMatchError::NotKept)
    }

    async fn update(&self, _: &Match, _: Phase) -> Result<(), UpdateMatchError> {
        Err(UpdateMatchError::Missing)
    }

    async fn find(&self, _: &MatchId) -> Result<Option<Match>, ReadMatchesError> {
        Ok(None)
    }

    async fn list(&self, _: &MatchesAfter) -> Result<MatchesPage, ReadMatchesError> {
        Ok(MatchesPage::default())
    }

    async fn forget(&self, _: Wall) {}
}
