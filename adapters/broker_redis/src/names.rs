//! The names of keys and channels.
//!
//! All keys of a room have its name in braces, so that a Cluster keeps them in one slot. No two rooms
//! may ever share a key: a room's name holds no brace.

use domain::id::{TokenId, UserId};
use domain::room::RoomId;

/// How many keys a room has; the scripts say which is which.
pub(crate) const ROOM_KEYS: usize = 7;
const PARTS: [&str; ROOM_KEYS] = ["head", "log", "latest", "ages", "seen0", "seen1", "seen2"];

/// What names begin with.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
    /// Of channels: those of one database are heard in all of them.
    channels: String,
}

impl Names {
    pub(crate) fn new(prefix: &str, database: i64) -> Self {
        Self { prefix: prefix.to_owned(), channels: format!("{prefix}/{database}") }
    }

    /// Where a server keeps in which life it is.
    pub(crate) fn life(prefix: &str) -> String {
        format!("{prefix}:life")
    }

    /// The keys of a room, in the order of the scripts.
    pub(crate) fn keys(&self, room: &RoomId) -> [String; ROOM_KEYS] {
        PARTS.map(|part| format!("{}:{{{room}}}:{part}", self.prefix))
    }

    /// The first of those, which the whole room goes by.
    pub(crate) fn head(&self, room: &RoomId) -> String {
        format!("{}:{{{room}}}:head", self.prefix)
    }

    /// The keys of who is in a room: what is over all nodes, then what came over one.
    pub(crate) fn presence_keys(&self, room: &RoomId, node: &str) -> [String; 5] {
        let key = |part: &str| format!("{}:{{{room}}}:{part}", self.prefix);
        let over = format!("over:{node}");
        [key("who"), key("names"), key("counts"), key("data"), key(&over)]
    }

    /// The leases of all nodes, and those that are gone.
    pub(crate) fn nodes(&self) -> [String; 2] {
        ["nodes", "gone"].map(|part| format!("{}:{{all}}:{part}", self.prefix))
    }

    /// The rooms that somebody is in over a node.
    pub(crate) fn rooms_of(&self, node: &str) -> String {
        format!("{}:node:{node}:rooms", self.prefix)
    }

    /// Held by who cleans up behind a node that is gone.
    pub(crate) fn reaper_of(&self, node: &str) -> String {
        format!("{}:node:{node}:reaper", self.prefix)
    }

    /// There while a node that is gone may still be heard of, by what was on its way.
    pub(crate) fn late_of(&self, node: &str) -> String {
        format!("{}:node:{node}:late", self.prefix)
    }

    /// What was taken back, and when each may be forgotten.
    pub(crate) fn revocations(&self) -> [String; 2] {
        ["revoked", "revoked-until"].map(|part| format!("{}:{{all}}:{part}", self.prefix))
    }

    /// Whether a token that counts once is used up.
    pub(crate) fn spent_token(&self, id: &TokenId) -> String {
        format!("{}:spent:{id}", self.prefix)
    }

    /// The answers to a question of a node.
    pub(crate) fn answers(&self, asker: &str, number: u64) -> String {
        format!("{}:answers:{asker}:{number}", self.prefix)
    }

    /// Over which nodes a user is connected, and the number under which its newest connection acts.
    pub(crate) fn seats(&self, user: &UserId) -> String {
        format!("{}:{{all}}:seats:{user}", self.prefix)
    }

    /// The channel of all nodes.
    pub(crate) fn news_channel(&self) -> String {
        format!("{}:{{all}}:news", self.channels)
    }

    /// The channel of a room.
    pub(crate) fn room_channel(&self, room: &RoomId) -> String {
        format!("{}:{{{room}}}", self.channels)
    }

    /// The channel of all rooms of a namespace that may be followed by patterns.
    pub(crate) fn namespace_channel(&self, namespace: &str) -> String {
        format!("{}:namespace:{namespace}", self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_room_stand_in_one_slot_and_no_name_is_another_s() {
        let names = Names::new("rk", 3);
        let room = RoomId::parse("chat:guild/42").unwrap();
        let mut all = Vec::from(names.keys(&room));
        assert!(all.iter().all(|name| name.starts_with("rk:{chat:guild/42}")));
        all.push(names.room_channel(&room));
        all.push(names.namespace_channel("chat"));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), ROOM_KEYS + 2);
    }
}
