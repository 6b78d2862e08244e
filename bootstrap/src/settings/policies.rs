//! From settings to the policies of rooms.
//!
//! What a namespace leaves out falls back to the closed side: nobody may do a thing without a
//! grant.

use std::time::Duration;

use domain::delivery::Class;
use domain::policy::{Access, NamespacePolicy, Policies};
use domain::presence::gathering;
use domain::retention::Retention;
use domain::room::RoomId;

use super::namespaces::{AccessWord, ClassWord, Namespace};
use super::tree::Settings;

/// Builds the policies of all namespaces and rooms.
#[must_use]
pub fn to_policies(settings: &Settings) -> Policies {
    let mut policies = Policies::default();
    let base = base_policy(settings);
    let is_shared = settings.redis.url.is_some();
    // The archive of one node is none of a room that several share.
    let is_archived = !is_shared || settings.store.url.is_some();
    let over = |base: &NamespacePolicy, set: &Namespace| {
        let policy = over(base, set);
        NamespacePolicy {
            durable: policy.durable && is_archived,
            replicated: policy.replicated && is_shared,
            ..policy
        }
    };
    for (name, namespace) in &settings.namespaces {
        policies.set_namespace(name, over(&base, namespace));
    }
    for (name, room) in &settings.rooms {
        // Loading has refused names that are no rooms.
        let Ok(id) = RoomId::parse(name) else { continue };
        let namespace = settings
            .namespaces
            .get(id.namespace())
            .map_or_else(|| base.clone(), |n| over(&base, n));
        policies.set_room(id, over(&namespace, room));
    }
    policies
}

fn base_policy(settings: &Settings) -> NamespacePolicy {
    NamespacePolicy {
        subscribe: Access::Granted,
        publish: Access::Granted,
        presence: Access::Granted,
        history: Access::Granted,
        presence_listed: true,
        presence_named_max: gathering::NAMED_MAX,
        retention: Retention {
            messages_max: settings.history.messages_max,
            bytes_max: settings.history.bytes_max,
            age_max: Duration::from_millis(settings.history.age_max_ms),
        },
        default_class: Class::Reliable,
        durable: false,
        replicated: false,
        members_max: settings.server.connections_max,
        patterns: false,
    }
}

fn over(base: &NamespacePolicy, set: &Namespace) -> NamespacePolicy {
    let kept = base.retention;
    NamespacePolicy {
        subscribe: set.subscribe.map_or(base.subscribe, access),
        publish: set.publish.map_or(base.publish, access),
        presence: set.presence.map_or(base.presence, access),
        history: set.history.map_or(base.history, access),
        presence_listed: set.presence_listed.unwrap_or(base.presence_listed),
        presence_named_max: set.presence_named_max.unwrap_or(base.presence_named_max),
        retention: Retention {
            messages_max: set.history_messages_max.unwrap_or(kept.messages_max),
            bytes_max: set.history_bytes_max.unwrap_or(kept.bytes_max),
            age_max: set.history_age_max_ms.map_or(kept.age_max, Duration::from_millis),
        },
        default_class: set.class.map_or(base.default_class, class),
        durable: set.durable.unwrap_or(base.durable),
        replicated: set.replicated.unwrap_or(base.replicated),
        members_max: set.members_max.unwrap_or(base.members_max),
        patterns: set.patterns.unwrap_or(base.patterns),
    }
}

const fn access(word: AccessWord) -> Access {
    match word {
        AccessWord::Anyone => Access::Anyone,
        AccessWord::Authenticated => Access::Authenticated,
        AccessWord::Granted => Access::Granted,
        AccessWord::Owner => Access::Owner,
    }
}

const fn class(word: ClassWord) -> Class {
    match word {
        ClassWord::Reliable => Class::Reliable,
        ClassWord::Latest => Class::Latest,
        ClassWord::Droppable => Class::Droppable,
    }
}
