//! What a namespace allows and keeps.
//!
//! A policy is a value that configuration builds once; nothing here may look anything up.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::delivery::Class;
use crate::presence::gathering;
use crate::principal::RoomPattern;
use crate::retention::Retention;
use crate::room::RoomId;

/// Who may do a thing in a room when no grant of the token says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Everyone, without a token too.
    Anyone,
    /// Everyone with a valid token.
    Authenticated,
    /// Only who holds a grant for the room.
    Granted,
    /// Only the user whose id is the room's name behind the namespace.
    Owner,
}

/// How safe a publish is when it is acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AckLevel {
    /// Positioned and handed to the broker.
    Accepted,
    /// A replica has it too.
    Replicated,
    /// Committed by the database.
    Durable,
}

impl AckLevel {
    /// The word in `ack.level`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Replicated => "replicated",
            Self::Durable => "durable",
        }
    }
}

/// The rules of every room in one namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamespacePolicy {
    /// Who may subscribe.
    pub subscribe: Access,
    /// Who may publish.
    pub publish: Access,
    /// Who may list the members and follow their coming and going.
    pub presence: Access,
    /// Who may read the log.
    pub history: Access,
    /// Whether members are listed at all.
    pub presence_listed: bool,
    /// With how many members followers are told who comes and goes; with more only how many there are.
    pub presence_named_max: u32,
    /// What the log keeps.
    pub retention: Retention,
    /// The class of a publish that names none.
    pub default_class: Class,
    /// Whether acknowledgement waits for the archive's commit. Delivery does, too, where one process gives out the
    /// positions; where nodes share them it may come before.
    pub durable: bool,
    /// Whether the acknowledgement waits until a replica of the broker's has it too. Delivery does not.
    pub replicated: bool,
    /// The most members one node takes into one room.
    pub members_max: u32,
    /// Whether one may subscribe to many of these rooms by a pattern.
    pub patterns: bool,
}

impl Default for NamespacePolicy {
    /// The closed side: nobody may do a thing without a grant.
    fn default() -> Self {
        Self {
            subscribe: Access::Granted,
            publish: Access::Granted,
            presence: Access::Granted,
            history: Access::Granted,
            presence_listed: true,
            presence_named_max: gathering::NAMED_MAX,
            retention: Retention::default(),
            default_class: Class::Reliable,
            durable: false,
            replicated: false,
            members_max: 100_000,
            patterns: false,
        }
    }
}

impl NamespacePolicy {
    /// What an acknowledgement of a `reliable` publish means here on one node.
    #[must_use]
    pub const fn ack_level(&self) -> AckLevel {
        match (self.durable, self.replicated) {
            (true, _) => AckLevel::Durable,
            (false, true) => AckLevel::Replicated,
            (false, false) => AckLevel::Accepted,
        }
    }
}

/// The policies of all namespaces, looked up by a room's name. Exact room names win over their
/// namespace, so `chat:global` can be open while `chat:guild/42` needs a grant.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    rooms: BTreeMap<RoomId, Arc<NamespacePolicy>>,
    namespaces: BTreeMap<Arc<str>, Arc<NamespacePolicy>>,
}

impl Policies {
    /// Sets the policy of a whole namespace.
    pub fn set_namespace(&mut self, namespace: &str, policy: NamespacePolicy) {
        self.namespaces.insert(Arc::from(namespace), Arc::new(policy));
    }

    /// Sets the policy of one room.
    pub fn set_room(&mut self, room: RoomId, policy: NamespacePolicy) {
        self.rooms.insert(room, Arc::new(policy));
    }

    /// The policy of a room; none when its namespace is not one that this server has.
    #[must_use]
    pub fn of(&self, room: &RoomId) -> Option<&Arc<NamespacePolicy>> {
        // Most configurations name few rooms; the empty map costs one comparison.
        self.rooms.get(room).or_else(|| self.namespaces.get(room.namespace()))
    }

    /// The policies of all rooms that a pattern means: that of its namespace, and those of the
    /// rooms that have one of their own. None when the namespace is not one that this server has.
    pub fn of_pattern(&self, pattern: &RoomPattern) -> impl Iterator<Item = &NamespacePolicy> {
        let namespace = self.namespaces.get(pattern.namespace());
        let rooms = self.rooms.iter().filter(|(room, _)| pattern.matches(room));
        let rooms = rooms.map(|(_, policy)| policy).filter(move |_| namespace.is_some());
        namespace.into_iter().chain(rooms).map(|policy| &**policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(subscribe: Access) -> NamespacePolicy {
        NamespacePolicy {
            subscribe,
            publish: Access::Granted,
            presence: Access::Granted,
            history: Access::Granted,
            presence_listed: true,
            presence_named_max: 1_000,
            retention: Retention::default(),
            default_class: Class::Reliable,
            durable: false,
            replicated: false,
            members_max: 10,
            patterns: false,
        }
    }

    #[test]
    fn a_room_of_its_own_wins_over_its_namespace_and_an_unknown_namespace_has_no_policy() {
        let mut policies = Policies::default();
        policies.set_namespace("chat", policy(Access::Granted));
        let global = RoomId::parse("chat:global").unwrap();
        policies.set_room(global.clone(), policy(Access::Authenticated));
        assert_eq!(policies.of(&global).unwrap().subscribe, Access::Authenticated);
        let guild = RoomId::parse("chat:guild/1").unwrap();
        assert_eq!(policies.of(&guild).unwrap().subscribe, Access::Granted);
        assert!(policies.of(&RoomId::parse("nowhere:x").unwrap()).is_none());
    }
}
