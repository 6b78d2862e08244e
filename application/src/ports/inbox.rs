//! What was said to users while they were away, kept until they have been given it.
//!
//! An implementation must never forget a letter that it has taken, but by its age, and never answer one
//! that was removed.

use async_trait::async_trait;
use bytes::Bytes;
use domain::id::UserId;
use domain::message::Sender;
use domain::time::Wall;
use thiserror::Error;

/// Something said to a user who was away.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Who said it. Its connection and trace are not kept.
    pub sender: Sender,
    /// The published JSON.
    pub data: Bytes,
    /// When.
    pub at: Wall,
}

/// The place of a letter in its inbox: later ones have larger numbers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LetterId(pub u64);

/// How many letters may wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LetterLimits {
    /// For one user.
    pub of_user: u32,
    /// For one user from one sender, so that nobody fills another one's inbox alone.
    pub of_pair: u32,
    /// From one sender, for all users together.
    pub of_sender: u32,
    /// For all users together.
    pub of_all: u32,
}

/// Why a letter could not be taken, read or removed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum InboxError {
    /// As many wait as may: for the user, from the sender, or for all.
    #[error("as many letters wait for this user, from this sender or for all as may")]
    Full,
    /// Another node is giving the user what waits.
    #[error("another node gives the user what waits")]
    Elsewhere,
    /// Nobody knows whether it is kept: the commit had no answer. The text is for the log.
    #[error("nobody knows whether the letter is kept: {0}")]
    Unsure(String),
    /// The storage is full, read-only, closed or failing; it may be tried again. The text is for the log.
    #[error("the inbox could not be reached: {0}")]
    Storage(String),
}

/// Letters by user. One user's are answered in the order in which they were taken.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Inbox: Send + Sync {
    /// Keeps a letter. Before `Ok` it MUST be where a restart finds it, if anything survives one. Where as
    /// many wait as may, it MUST be refused; that of all may be kept roughly. A letter that is brought again behind
    /// [`InboxError::Unsure`] within a minute SHOULD be the same, also where it was given and removed meanwhile.
    async fn put(
        &self,
        user: &UserId,
        letter: Letter,
        limits: LetterLimits,
    ) -> Result<(), InboxError>;

    /// The oldest letters of a user behind `after`, at most `limit` and of `bytes_max` bytes of data, but
    /// one at least. Where nodes share what waits, one at a time MUST be answered any of one user's: it has the
    /// turn until nothing is left, until it [releases](Self::release) it, or until it is gone. The others are
    /// answered [`InboxError::Elsewhere`].
    async fn read(
        &self,
        user: &UserId,
        after: Option<LetterId>,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<(LetterId, Letter)>, InboxError>;

    /// Removes a user's letters up to this one. Once answered they MUST NOT be answered again, not over a
    /// restart either, if anything survives one. Idempotent.
    async fn remove(&self, user: &UserId, up_to: LetterId) -> Result<(), InboxError>;

    /// Whoever was given a user's letters takes no more: another node may have them. MUST NOT wait; what can't be
    /// said now MUST be so by itself within seconds.
    fn release(&self, _user: &UserId) {}

    /// Forgets letters from before a moment; called now and then. May put it off.
    async fn forget(&self, before: Wall);
}
