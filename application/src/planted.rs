//! Mistakes that a test plants, to see whether it would be found: each at a place where it could
//! really be made.
//!
//! Without the feature `testing` none exists, and nothing is asked at run time.

/// One mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mistake {
    /// A hole in the live stream is not noticed.
    HoleIgnored,
    /// A joiner gets again, from what was held, what a page had already.
    HeldNotTrimmed,
    /// A joiner becomes live although what was held does not lead on from its last page.
    JoinedOverHole,
    /// A client is told that it has recovered although the log was lost.
    LostLogHidden,
    /// Who vanishes in the middle of a join stays listed.
    GhostOfJoin,
    /// A joiner with a filter does not get what was held for it.
    HeldForFilterLost,
    /// The `ack` of a publish without echo does not wait for its place.
    AckTooEarly,
    /// A durable publish is acknowledged before the archive has it.
    AckBeforeCommit,
    /// An append that seemed to fail is taken not to have happened, so its offsets are free.
    DoubtForgotten,
    /// The archive is not asked whether it has a retried publish already.
    RetryNotLookedUp,
    /// A process that starts takes a new epoch for a durable room that has one.
    EpochRedrawn,
    /// Letters are removed before the socket has taken them.
    LettersRemovedEarly,
    /// Letters are given to a connection without asking whether it is its turn.
    LettersToEveryone,
    /// Who is banned stays in the room that it is in.
    BannedStaysIn,
    /// Whoever has a name for a publish is not asked again whether a moderator lets it speak.
    RetryNotMuted,
    /// Who names a position in a room is taken to be allowed there: it was before.
    ReturnNotAsked,
    /// A moderator is told that something is done before a restart would find it.
    ActAckedEarly,
    /// What a node said of members is taken back although its lease was not claimed first.
    ReapedUnclaimed,
    /// Leases are claimed as soon as Redis is back, before all nodes had the time to renew theirs.
    ClaimedAtOnce,
    /// A Redis that may have lost who is here is not told it again.
    NotSaidAgain,
    /// What was said under a former name is taken back before all of it is said again.
    FormerTakenEarly,
    /// That somebody has left is told although the time to come back is not over.
    GraceForgotten,
    /// A change of presence that could not be told is dropped.
    ChangeDropped,
    /// Whoever has its user's largest fence is taken for replaced by it.
    NewestReplaced,
    /// A Redis that has lost a user's fence is not told it again.
    FenceNotRetold,
    /// A seat is given back twice: the second time it is that of another connection of the user.
    SeatFreedTwice,
    /// That a seat was given back is said under the version of what was said before.
    LeaveUnversioned,
    /// A token that counts once is looked up, answered, and marked as used up then.
    SpentAfterAnswer,
    /// A node that is drained in turn ends all connections at once.
    DrainedAtOnce,
    /// Whoever comes to a node that drains is let in and stays.
    NewcomerForgotten,
}

#[cfg(feature = "testing")]
mod soil {
    use std::cell::Cell;

    use super::Mistake;

    thread_local! {
        static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// Plants a mistake, or none, for everything that runs on this thread.
    pub fn plant(mistake: Option<Mistake>) {
        PLANTED.with(|planted| planted.set(mistake));
    }

    /// Whether a mistake is to be made here.
    #[must_use]
    pub fn is_planted(mistake: Mistake) -> bool {
        PLANTED.with(|planted| planted.get() == Some(mistake))
    }
}

#[cfg(feature = "testing")]
pub use self::soil::{is_planted, plant};

/// Nothing is planted outside of tests.
#[cfg(not(feature = "testing"))]
#[must_use]
pub const fn is_planted(_: Mistake) -> bool {
    false
}
