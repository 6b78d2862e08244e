//! Has all rooms of a pattern come to a shard, for a connection that may subscribe to all of them.
//!
//! It must never ask the broker for somebody who may not: a pattern names rooms that nobody has
//! thought of yet.

use std::sync::Arc;

use domain::principal::{Principal, RoomPattern};

use crate::extensions::middleware::{Inbound, Who};
use crate::mailbox::Mailbox;
use crate::ports::BrokerError;
use crate::services::Services;
use crate::use_cases::authorize::NotAllowed;
use crate::use_cases::join_room::JoinRefused;

/// All that a shard watches. A later one takes the place of an earlier one, whichever the broker
/// hears of first.
pub struct Watching {
    /// Where the shard gets its mail.
    pub mailbox: Arc<Mailbox>,
    /// Which rooms.
    pub patterns: Vec<RoomPattern>,
    /// Larger for what is later.
    pub version: u64,
}

impl Watching {
    /// Tells the broker.
    ///
    /// # Errors
    /// [`BrokerError`] when it does not answer.
    pub async fn execute(self, services: &Services) -> Result<(), BrokerError> {
        services.ports.broker.watch(&self.mailbox, &self.patterns, self.version).await
    }
}

/// Whether a principal may follow all rooms of a pattern. An authorizer answers for one room at a
/// time, and nobody knows all rooms of a pattern: where there is one, nobody may.
pub(crate) fn may_watch(services: &Services, principal: &Principal, pattern: &RoomPattern) -> bool {
    services.ports.authorizer.is_none()
        && principal.may_subscribe_to_all(pattern, &services.rules.policies)
}

/// A connection that wants to follow a pattern.
pub struct WatchRooms {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who follows.
    pub who: Arc<Who>,
    /// Which rooms.
    pub pattern: RoomPattern,
    /// What the shard watches then.
    pub watching: Watching,
}

impl WatchRooms {
    /// Checks, then tells the broker.
    ///
    /// # Errors
    /// [`JoinRefused`] says why it does not follow.
    pub async fn execute(self) -> Result<(), JoinRefused> {
        let Self { services, who, pattern, watching } = self;
        let rules = &services.rules;
        if !may_watch(&services, &who.principal, &pattern) {
            let why = || {
                let reason = "neither the policies nor one grant of the token cover all of it, \
                              or a host's authorizer decides";
                format!("denied: subscribe in {pattern}: {reason}")
            };
            let why = rules.explains_denials.then(why);
            return Err(JoinRefused::NotAllowed(NotAllowed::Denied(why)));
        }
        if !rules.middleware.is_empty() {
            let name = pattern.to_string();
            let inbound =
                Inbound { kind: "subscribe", room: Some(&name), body: "", derived: false };
            let asked = rules.middleware.process_message(&who, inbound).await;
            asked.map_err(JoinRefused::Middleware)?;
        }
        watching.execute(&services).await.map_err(JoinRefused::Broker)
    }
}
