//! The durable log of rooms whose policy asks for one.
//!
//! An implementation must never say that something is stored before it would survive a power
//! cut of the process (SIGKILL), and never store half a batch.

use async_trait::async_trait;
use bytes::Bytes;
use domain::id::{Epoch, MessageId};
use domain::message::{Publication, Publisher};
use domain::position::{Offset, Position};
use domain::recovery::EarlierLives;
use domain::room::RoomId;
use domain::time::Wall;
use thiserror::Error;

/// Where a room's durable log stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RoomHead {
    /// Its epoch, which survives restarts once the room has had a message.
    pub epoch: Epoch,
    /// The last offset given out; [`Offset::ZERO`] for a new room.
    pub last: Offset,
    /// Where the epochs ended that this one goes on from.
    pub earlier: EarlierLives,
}

impl RoomHead {
    /// That of a room that has had one epoch only.
    #[must_use]
    pub const fn new(epoch: Epoch, last: Offset) -> Self {
        Self { epoch, last, earlier: EarlierLives::NONE }
    }
}

/// One message to be stored. Its position is given by the broker; `publication.offset` is set.
#[derive(Clone, Debug)]
pub struct ArchiveRecord {
    /// The message.
    pub publication: Publication,
    /// Whose `msg_id` it is.
    pub publisher: Publisher,
    /// The publisher's name for it.
    pub msg_id: Option<MessageId>,
}

/// What makes two publishes the same.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DedupKey {
    /// The room.
    pub room: RoomId,
    /// Whose `msg_id` it is.
    pub publisher: Publisher,
    /// The publisher's name for it.
    pub msg_id: MessageId,
}

/// A piece of a room's log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArchivePage {
    /// The oldest offset still stored; `last + 1` of the head when nothing is.
    pub first: Offset,
    /// Messages in order of offset, without holes. `origin` is always none.
    pub messages: Vec<Publication>,
}

/// What an archive is to forget.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Forget {
    /// The messages below `first` and those stored before `before`, oldest first and up to the first that
    /// is neither, never the newest offset's place: `open_room` answers the same head afterwards.
    Old {
        /// The first offset that stays.
        first: Offset,
        /// When what stays was stored at the earliest.
        before: Wall,
    },
    /// What one message said: its place, its sender, its time and its `msg_id` stay, as a tombstone with the
    /// reason `deleted`. One that is a tombstone already stays what it is.
    Message(Position),
}

/// Why the archive could not do it. The caller may try again later; nothing was half done.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ArchiveError {
    /// The storage is full, read-only or failing; the text is for the log, never for clients.
    #[error("the archive's storage failed: {0}")]
    Storage(String),
    /// More is waiting to be written than may wait.
    #[error("the archive has too much to write")]
    Overloaded,
    /// The epoch of a record has ended: another one goes on behind it, and nothing is added to it any more.
    #[error("the epoch has ended")]
    Ended,
    /// The archive is shut down.
    #[error("the archive is closed")]
    Closed,
}

/// The durable chat log. All methods are idempotent except `append`, whose records are unique by
/// `(room, epoch, offset)`: appending one twice is an error of the caller and answers `Storage`.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Archive: Send + Sync {
    /// Where a room's log stands. A room that never had a message may be forgotten while the archive
    /// is closed, and only then: anybody can name rooms, so what they leave must not grow for ever.
    /// A room not known yet begins with `fresh` as its epoch, and that
    /// MUST be durable before the answer. A wrong answer reuses offsets: clients would take new
    /// messages for old ones. So an archive that may have lost the newest MUST end the epoch where it stands and
    /// go on with `fresh` behind it: where it can tell by itself, as a replica that was promoted, and where
    /// `known`, the newest place that it has acknowledged to the caller, is of that epoch and not in what it has, or of
    /// an epoch that it has never had.
    async fn open_room(
        &self,
        room: &RoomId,
        fresh: Epoch,
        known: Option<Position>,
    ) -> Result<RoomHead, ArchiveError>;

    /// Stores all records or none, durably, before it answers. Within a room, records MUST come in
    /// order of offset and calls MUST take effect in the order they were made. A wrong `Ok` loses
    /// acknowledged messages.
    async fn append(&self, records: Vec<ArchiveRecord>) -> Result<(), ArchiveError>;

    /// For each key, where the message stored under it stands; none when there is none. The answer
    /// has the order and the length of the keys.
    async fn find(&self, keys: Vec<DedupKey>) -> Result<Vec<Option<Position>>, ArchiveError>;

    /// The messages of `epoch` behind `after`, oldest first: at most `limit`, and no more than fit
    /// in `bytes_max` bytes of data, but the first one always. Those of epochs that `open_room` ended are of the one
    /// that goes on from them, and come under its name. Never skips one, and MUST not load
    /// much beyond either limit: readers rely on it for their memory.
    async fn read(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: Offset,
        limit: u32,
        bytes_max: usize,
    ) -> Result<ArchivePage, ArchiveError>;

    /// Forgets something of a room's log, durably, before it answers. What there is nothing of is
    /// forgotten already.
    async fn forget(&self, room: &RoomId, what: Forget) -> Result<(), ArchiveError>;
}

/// The bytes of a record, for limits on what may wait.
#[must_use]
pub fn record_bytes(record: &ArchiveRecord) -> usize {
    let fixed = 256;
    let Publication { room, data, tags, .. } = &record.publication;
    fixed + room.as_str().len() + Bytes::len(data) + tags.cost_bytes()
}
