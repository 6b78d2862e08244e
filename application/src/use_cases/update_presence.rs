//! Changes the data under which a member is listed.
//!
//! The data belongs to the user: all connections of one user show the same.

use std::sync::Arc;

use bytes::Bytes;
use domain::moderation::Deed;
use domain::policy::NamespacePolicy;
use domain::principal::Action;
use domain::room::RoomId;

use crate::extensions::middleware::{Inbound, Who};
use crate::services::Services;
use crate::use_cases::authorize::{authorize, unsanctioned};
use crate::use_cases::join_room::presence_key;
use crate::use_cases::list_presence::PresenceRefused;

/// New data of a member.
pub struct UpdatePresence {
    /// The node's services.
    pub services: Arc<Services>,
    /// The member.
    pub who: Arc<Who>,
    /// The room.
    pub room: RoomId,
    /// Its policy.
    pub policy: Arc<NamespacePolicy>,
    /// The data (JSON).
    pub data: Bytes,
}

impl UpdatePresence {
    /// Checks and changes.
    ///
    /// # Errors
    /// [`PresenceRefused`] says why nothing was changed.
    pub async fn execute(self) -> Result<(), PresenceRefused> {
        let Services { ports, rules, .. } = &*self.services;
        let Self { services, who, room, policy, .. } = &self;
        // What a member shows of itself is said to all the others.
        let now = || ports.clock.now().wall;
        let spoken = unsanctioned(services, who, Deed::Speak, room, now);
        spoken.map_err(PresenceRefused::NotAllowed)?;
        let allowed = authorize(services, who, Action::Presence, room, policy).await;
        allowed.map_err(PresenceRefused::NotAllowed)?;
        if !rules.middleware.is_empty() {
            let inbound = Inbound {
                kind: "presence_update",
                room: Some(self.room.as_str()),
                body: std::str::from_utf8(&self.data).unwrap_or_default(),
            };
            let asked = rules.middleware.process_message(&self.who, inbound).await;
            asked.map_err(PresenceRefused::Middleware)?;
        }
        if !self.policy.presence_listed {
            return Err(PresenceRefused::NotListed);
        }
        let updated = ports.presence.update(&self.room, &presence_key(&self.who), self.data).await;
        updated.map_err(PresenceRefused::Presence)
    }
}
