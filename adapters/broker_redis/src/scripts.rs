//! The scripts: each room is read and changed by them alone.
//!
//! A script must touch the keys of one room, or one user, only (the one that publishes under a fence compares its
//! user's), and do no more at once than a page has entries.

use std::sync::LazyLock;

use redis::Script;

/// How a room's head is written.
const HEAD: &str = include_str!("scripts/head.lua");
/// What several of rooms do.
const COMMON: &str = include_str!("scripts/common.lua");
const TRIM: &str = include_str!("scripts/trim.lua");
/// What those begin with that go on from a room's head.
const ROOM: &str = include_str!("scripts/room.lua");
/// What those of presence begin with.
const PRESENCE: &str = include_str!("scripts/presence.lua");
/// What a subscription asks a room for.
pub(crate) static LATEST: LazyLock<String> =
    LazyLock::new(|| format!("{HEAD}\n{}", include_str!("scripts/latest.lua")));

/// The most keys of one room whose newest `latest` message is kept, and the most bytes of those messages
/// together, descriptions included; the oldest are dropped first. One alone may be longer.
const LATEST_KEYS_MAX: usize = 256;
const LATEST_BYTES_MAX: usize = 1 << 20;

/// All of them, with their hashes.
pub(crate) struct Scripts {
    pub(crate) publish: Script,
    pub(crate) publish_plain: Script,
    pub(crate) read: Script,
    pub(crate) erase: Script,
    pub(crate) begin: Script,
    pub(crate) presence_set: Script,
    pub(crate) presence_update: Script,
    pub(crate) presence_list: Script,
    pub(crate) presence_reap: Script,
    pub(crate) lease: Script,
    pub(crate) claim: Script,
    pub(crate) revoke: Script,
    pub(crate) seat: Script,
    pub(crate) live: Script,
    pub(crate) check: Script,
}

impl Scripts {
    /// Those of one server, or of a Cluster, whose channels lie in slots as keys do. However many brokers a process has,
    /// they are hashed once.
    pub(crate) fn of(is_cluster: bool) -> &'static Self {
        static SINGLE: LazyLock<Scripts> = LazyLock::new(|| Scripts::new(false));
        static CLUSTER: LazyLock<Scripts> = LazyLock::new(|| Scripts::new(true));
        if is_cluster { &CLUSTER } else { &SINGLE }
    }

    fn new(is_cluster: bool) -> Self {
        let say = if is_cluster { "SPUBLISH" } else { "PUBLISH" };
        let script = |text: &str| Script::new(&format!("local SAY = '{say}'\n{text}"));
        let of_room = |parts: &[&str]| script(&[&[HEAD, COMMON], parts].concat().join("\n"));
        let presence = |text| script(&format!("{PRESENCE}\n{text}"));
        let classes = format!(
            "local RELIABLE, LATEST = {}, {}\nlocal LATEST_KEYS_MAX, LATEST_BYTES_MAX = {LATEST_KEYS_MAX}, {LATEST_BYTES_MAX}",
            b'r', b'l'
        );
        Self {
            publish: of_room(&[&classes, TRIM, ROOM, include_str!("scripts/publish.lua")]),
            publish_plain: script(&format!(
                "{HEAD}\n{}",
                include_str!("scripts/publish_plain.lua")
            )),
            read: of_room(&[TRIM, ROOM, include_str!("scripts/read.lua")]),
            erase: of_room(&[ROOM, include_str!("scripts/erase.lua")]),
            begin: of_room(&[include_str!("scripts/begin.lua")]),
            presence_set: presence(include_str!("scripts/presence_set.lua")),
            presence_update: presence(include_str!("scripts/presence_update.lua")),
            presence_list: script(include_str!("scripts/presence_list.lua")),
            presence_reap: presence(include_str!("scripts/presence_reap.lua")),
            lease: script(include_str!("scripts/lease.lua")),
            claim: script(include_str!("scripts/claim.lua")),
            revoke: script(include_str!("scripts/revoke.lua")),
            seat: script(include_str!("scripts/seat.lua")),
            live: script(include_str!("scripts/live.lua")),
            check: script(include_str!("scripts/check.lua")),
        }
    }

    /// Those about leases, presence and seats, by the names of their files.
    #[cfg(feature = "testing")]
    pub(crate) fn texts_of_leases(say: &str) -> Vec<(&'static str, String)> {
        let script = |text: &str| format!("local SAY = '{say}'\n{text}");
        let presence = |text: &str| script(&format!("{PRESENCE}\n{text}"));
        vec![
            ("presence_set", presence(include_str!("scripts/presence_set.lua"))),
            ("presence_update", presence(include_str!("scripts/presence_update.lua"))),
            ("presence_list", script(include_str!("scripts/presence_list.lua"))),
            ("presence_reap", presence(include_str!("scripts/presence_reap.lua"))),
            ("lease", script(include_str!("scripts/lease.lua"))),
            ("claim", script(include_str!("scripts/claim.lua"))),
            ("seat", script(include_str!("scripts/seat.lua"))),
            ("live", script(include_str!("scripts/live.lua"))),
        ]
    }

    pub(crate) const fn all(&self) -> [&Script; 15] {
        [
            &self.publish,
            &self.publish_plain,
            &self.read,
            &self.erase,
            &self.begin,
            &self.presence_set,
            &self.presence_update,
            &self.presence_list,
            &self.presence_reap,
            &self.lease,
            &self.claim,
            &self.revoke,
            &self.seat,
            &self.live,
            &self.check,
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The commands of a script, as it calls them.
    fn called(text: &str) -> BTreeSet<&str> {
        text.split("redis.call('").skip(1).filter_map(|rest| rest.split('\'').next()).collect()
    }

    #[test]
    fn what_a_server_is_tried_for_is_all_that_scripts_need() {
        let scripts = [
            super::ROOM,
            super::COMMON,
            super::TRIM,
            super::PRESENCE,
            include_str!("scripts/latest.lua"),
            include_str!("scripts/publish.lua"),
            include_str!("scripts/publish_plain.lua"),
            include_str!("scripts/read.lua"),
            include_str!("scripts/erase.lua"),
            include_str!("scripts/begin.lua"),
            include_str!("scripts/presence_set.lua"),
            include_str!("scripts/presence_update.lua"),
            include_str!("scripts/presence_list.lua"),
            include_str!("scripts/presence_reap.lua"),
            include_str!("scripts/lease.lua"),
            include_str!("scripts/claim.lua"),
            include_str!("scripts/revoke.lua"),
            include_str!("scripts/seat.lua"),
            include_str!("scripts/live.lua"),
            include_str!("scripts/life.lua"),
        ];
        let check = include_str!("scripts/check.lua");
        let is_tried =
            |command: &str| check.contains(&format!("{{ '{command}'")) || command == "PUBLISH";
        for command in scripts.into_iter().flat_map(called) {
            assert!(is_tried(command), "{command} is not tried by check.lua: add it there");
        }
    }
}
