//! The scripts: each room is read and changed by them alone.
//!
//! A script must touch the keys of one room, or one user, only (the one that publishes under a fence compares its
//! user's), and do no more at once than a page has entries.

use redis::Script;

/// What those of rooms begin with.
const ROOM: &str = include_str!("scripts/room.lua");
/// What those of presence begin with.
const PRESENCE: &str = include_str!("scripts/presence.lua");

/// All of them, with their hashes.
pub(crate) struct Scripts {
    pub(crate) publish: Script,
    pub(crate) read: Script,
    pub(crate) erase: Script,
    pub(crate) presence_set: Script,
    pub(crate) presence_update: Script,
    pub(crate) presence_list: Script,
    pub(crate) presence_reap: Script,
    pub(crate) lease: Script,
    pub(crate) claim: Script,
    pub(crate) revoke: Script,
    pub(crate) seat: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        let room = |text| Script::new(&format!("{ROOM}\n{text}"));
        let presence = |text| Script::new(&format!("{PRESENCE}\n{text}"));
        Self {
            publish: room(include_str!("scripts/publish.lua")),
            read: room(include_str!("scripts/read.lua")),
            erase: room(include_str!("scripts/erase.lua")),
            presence_set: presence(include_str!("scripts/presence_set.lua")),
            presence_update: presence(include_str!("scripts/presence_update.lua")),
            presence_list: Script::new(include_str!("scripts/presence_list.lua")),
            presence_reap: presence(include_str!("scripts/presence_reap.lua")),
            lease: Script::new(include_str!("scripts/lease.lua")),
            claim: Script::new(include_str!("scripts/claim.lua")),
            revoke: Script::new(include_str!("scripts/revoke.lua")),
            seat: Script::new(include_str!("scripts/seat.lua")),
        }
    }

    pub(crate) const fn all(&self) -> [&Script; 11] {
        [
            &self.publish,
            &self.read,
            &self.erase,
            &self.presence_set,
            &self.presence_update,
            &self.presence_list,
            &self.presence_reap,
            &self.lease,
            &self.claim,
            &self.revoke,
            &self.seat,
        ]
    }
}
