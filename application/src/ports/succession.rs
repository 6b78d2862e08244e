//! The durable log of a room that several nodes write, and whose broker may lose its memory: one epoch
//! follows another, and offsets run on.
//!
//! The broker gives out positions; this remembers which epochs there were, where each ended, and what was
//! published, whichever node brings it first. An implementation must never let an ended epoch grow, never
//! give one offset of a room to two messages, and never hide that a place is empty.

use async_trait::async_trait;
use domain::id::Epoch;
use domain::message::Publication;
use domain::position::{Offset, Position};
use domain::recovery::{EarlierLives, LogBounds};
use domain::room::RoomId;

use super::archive::{ArchiveError, ArchiveRecord};

/// Which epochs a room's log has had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lives {
    /// The present epoch.
    pub epoch: Epoch,
    /// Its first message is behind this offset; [`Offset::ZERO`] for the first epoch of a room.
    pub behind: Offset,
    /// The highest offset that is stored or was; `behind` as long as the present epoch has none. Below it
    /// places may be empty.
    pub last: Offset,
    /// Where the latest earlier epochs ended.
    pub earlier: EarlierLives,
}

impl Lives {
    /// Those of a room that begins.
    #[must_use]
    pub const fn beginning(epoch: Epoch, behind: Offset) -> Self {
        Self { epoch, behind, last: behind, earlier: EarlierLives::NONE }
    }

    /// The position of the newest message, as far as it is stored.
    #[must_use]
    pub const fn top(&self) -> Position {
        Position { epoch: self.epoch, offset: self.last }
    }

    /// The bounds of a log whose oldest message is `first`.
    #[must_use]
    pub const fn bounds(&self, first: Offset) -> LogBounds {
        LogBounds { epoch: self.epoch, first, last: self.last, earlier: self.earlier }
    }
}

/// The epoch that is to follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Successor {
    /// The epoch that it ends, as far as the caller knows; none for a room of which the archive is not
    /// expected to know anything.
    pub of: Option<Epoch>,
    /// The new epoch.
    pub epoch: Epoch,
    /// It begins behind the last offset that is stored, and behind this one at least: the highest that
    /// the broker still knows to be given out.
    pub behind: Offset,
}

/// Places of a log that hold nothing: never stored, or not yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hole {
    /// The first of them.
    pub from: Offset,
    /// The last of them.
    pub to: Offset,
}

/// A piece of a log that may have holes.
#[derive(Clone, Debug, PartialEq)]
pub struct LivesPage {
    /// What the room was when the page was read.
    pub lives: Lives,
    /// The oldest offset still stored; `last + 1` when nothing is.
    pub first: Offset,
    /// Messages in order of offset, each with the epoch that it was published in. `origin` is always none.
    pub messages: Vec<Publication>,
    /// Every empty place from the first that was asked for and is not older than `first`, up to the last
    /// message of the page; up to `lives.last` where nothing more is stored. In order.
    pub holes: Vec<Hole>,
}

/// The durable log of rooms whose positions come from a broker that nodes share. Implemented beside
/// [`Archive`](super::Archive) by the same value: `find` and `forget` of that one work on these rooms, too.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Succession: Send + Sync {
    /// Which epochs a room has had; none for one that never began.
    async fn lives(&self, room: &RoomId) -> Result<Option<Lives>, ArchiveError>;

    /// Ends the room's present epoch at the last offset that is stored and begins the next one behind it,
    /// in one step and durably before it answers: what is added to the ended epoch afterwards MUST be
    /// refused with [`ArchiveError::Ended`], and what was added before MUST be within its end. A room that
    /// the archive does not know begins with `next`.
    ///
    /// Answers the lives as they are afterwards. Nothing changes where the present epoch is `next.epoch`
    /// already, so it may be asked again; nor where it is not `next.of`, since another node was first:
    /// then the answer names another epoch than `next.epoch`, and that is the one to go on with. An epoch that the room
    /// has had MUST be refused with [`ArchiveError::Storage`]: the caller draws another one. A wrong
    /// answer gives one offset to two messages.
    async fn succeed(&self, room: &RoomId, next: Successor) -> Result<Lives, ArchiveError>;

    /// Stores all records or none, durably, before it answers; of a room in any order, from any node, and
    /// with holes. What is stored already, by its room, epoch, offset, publisher, `msg_id` and time, is
    /// stored: bringing it again is `Ok`. A record of an ended epoch MUST be answered with
    /// [`ArchiveError::Ended`]; one at the place of another message, under another's `msg_id`, at or in
    /// front of `behind`, or of an epoch that never was, with `Storage`.
    async fn place(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError>;

    /// The messages behind `after`, over all epochs, oldest first: at most `limit`, and no more than fit in
    /// `bytes_max` bytes of data, but the first one always. MUST not load much beyond either limit. None
    /// for a room that never began.
    async fn read_lives(
        &self,
        room: &RoomId,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Option<LivesPage>, ArchiveError>;
}

/// The empty places between the messages of a page, for implementations: behind `after` and from `first`
/// on, up to the last message, or up to `last` where the page reaches the end of what is stored.
#[must_use]
pub fn holes(
    after: Offset,
    first: Offset,
    messages: &[Publication],
    last: Option<Offset>,
) -> Vec<Hole> {
    let mut holes = Vec::new();
    // The next place that has to hold something; none behind the last possible offset.
    let mut next = after.next().map(|next| next.max(first));
    let mut reach = |next: Option<Offset>, to: Offset| {
        if let Some(from) = next.filter(|from| *from <= to) {
            holes.push(Hole { from, to });
        }
    };
    for offset in messages.iter().filter_map(|message| message.offset) {
        reach(next, offset.previous());
        next = offset.next();
    }
    if let Some(last) = last {
        reach(next, last);
    }
    holes
}
