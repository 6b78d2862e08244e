//! Tokens that count once and have been used, remembered until they could not be used anyway.
//!
//! An implementation must never forget one early, neither over a restart that its tokens survive nor
//! to make room for another, and never call a token fresh because it can't find out.

use async_trait::async_trait;
use domain::id::TokenId;
use domain::time::Wall;
use thiserror::Error;

/// The most spent tokens that one store should remember at a time, unless it says otherwise: with
/// tokens of a minute, 2,500 new connections a second. In memory one of them is about 150 bytes.
pub const SPENT_TOKENS_MAX: usize = 500_000;

/// What came of spending a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spending {
    /// It is used up from now on, and was not before.
    First,
    /// It was used up before.
    Again,
}

/// Why nobody knows whether a token was used before. It lets nobody in.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SpendError {
    /// As many are remembered as may be; the oldest end by themselves. The token is not spent.
    #[error("as many spent tokens are remembered as may be")]
    Full,
    /// This host takes no tokens that count once.
    #[error("this host takes no tokens that count once")]
    NotTaken,
    /// The storage does not answer, or is full, read-only, closed or failing. The token may be spent
    /// all the same. The text is for the log.
    #[error("it could not be stored that the token is spent: {0}")]
    Storage(String),
}

/// Remembers which tokens are used up. Called once for each token that counts once, and never for
/// others.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait SpentTokens: Send + Sync {
    /// Uses a token up. Of all calls with one id, at the same time, on every node that shares the
    /// store, and after every restart that the store's data survives, at most one MUST be answered
    /// [`Spending::First`] until `until`, the moment that this call names, has passed; and before
    /// that answer it MUST be where all of them find it. It may be remembered for longer. `now` is
    /// there to forget what is over, a bounded number with each call.
    async fn spend(&self, id: &TokenId, until: Wall, now: Wall) -> Result<Spending, SpendError>;

    /// How many are remembered, those included whose time is over and that are not forgotten yet.
    /// For monitoring; MUST NOT block for longer than a look into memory.
    fn remembered(&self) -> usize;
}

/// For a host without such tokens: whoever brings one is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSpentTokens;

#[async_trait]
impl SpentTokens for NoSpentTokens {
    async fn spend(&self, _: &TokenId, _: Wall, _: Wall) -> Result<Spending, SpendError> {
        Err(SpendError::NotTaken)
    }

    fn remembered(&self) -> usize {
        0
    }
}
