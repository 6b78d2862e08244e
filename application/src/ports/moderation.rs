//! Who is muted or banned in which room, and what moderators did, written down.
//!
//! An implementation must never forget a sanction early, neither over a restart nor to make room for
//! another, and never begin one without its line in the log of what moderators did.

use async_trait::async_trait;
use domain::id::UserId;
use domain::moderation::{Deed, Entry, Until};
use domain::room::RoomId;
use domain::time::Wall;
use thiserror::Error;

/// The place of an entry in the log of what moderators did: later ones have larger numbers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct EntryId(pub u64);

/// Why an act is not remembered as it should be. It may be tried again.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum RecordError {
    /// As many users are muted or banned as may be. Nothing was done.
    #[error("as many users are muted or banned as may be")]
    Full,
    /// It counts, but a restart would forget it, and it may stand in no log: the storage is full,
    /// read-only, closed or failing. The text is for the log.
    #[error("the act could not be stored: {0}")]
    Storage(String),
}

/// A piece of the log, oldest first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ActsPage {
    /// What is in it that can be read.
    pub acts: Vec<Entry>,
    /// The last entry that was looked at.
    pub reached: EntryId,
    /// Whether nothing was behind that.
    pub is_end: bool,
    /// The newest entry there is; where there were any to look at, the last of them at least. It is in front of what
    /// was read before where the log came back from a backup.
    pub newest: EntryId,
}

/// Why the log could not be read; the text is for the log of the server.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("what moderators did could not be read: {0}")]
pub struct ReadEntriesError(pub String);

/// Sanctions by user and room, and the log of all acts.
#[async_trait]
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
pub trait Moderation: Send + Sync {
    /// Until when a user may not do a thing in a room; none where it may. Asked for every publish: it
    /// MUST NOT block for longer than a look into memory, and while nobody is muted or banned it MUST
    /// NOT even take a lock.
    fn forbids(&self, user: &UserId, room: &RoomId, deed: Deed, now: Wall) -> Option<Until>;

    /// Whether anybody may be banned from a room. Asked once for every message that a pattern matches; where
    /// it says no, nobody who follows the pattern is looked at. What holds for `forbids` holds here.
    fn bans_in(&self, _room: &RoomId) -> bool {
        true
    }

    /// Does what an act says of its user and writes it down, sanctions or not. `forbids` MUST see it
    /// before this waits for anything; before `Ok` both MUST be where a restart finds them, if anything
    /// survives one. With as many sanctions as may be, it is refused and nothing is written. Where several nodes bring
    /// acts, one that is older than another about the same SHOULD be written down and change nothing else.
    async fn record(&self, entry: &Entry) -> Result<(), RecordError>;

    /// The newest entries before this one, newest first, at most `limit`. The oldest may be forgotten
    /// once there are very many; the others follow each other without a hole.
    async fn read(
        &self,
        before: Option<EntryId>,
        limit: u32,
    ) -> Result<Vec<(EntryId, Entry)>, ReadEntriesError>;

    /// Forgets sanctions whose time is over; called now and then. May put it off.
    async fn forget(&self, now: Wall);
}

/// The log of what moderators did where several nodes write it, as one of them follows it.
#[async_trait]
pub trait ActsOfAll: Send + Sync {
    /// An entry that this node knew at its start, with all in front of it.
    fn begin(&self) -> EntryId;

    /// The entries behind one, of which `limit` are looked at. None may come later in front of what was answered: a
    /// node that has read so far never looks there again.
    async fn read_on(&self, behind: EntryId, limit: u32) -> Result<ActsPage, ReadEntriesError>;
}
