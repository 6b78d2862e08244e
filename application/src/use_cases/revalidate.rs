//! Asks again for the rooms that a connection is in: after a fresh token, and from time to time
//! where a host's authorizer may have changed its mind.
//!
//! It only finds out; who has lost a room leaves it in the shard.

use std::sync::Arc;

use domain::policy::NamespacePolicy;
use domain::principal::Action;
use domain::room::RoomId;

use crate::extensions::middleware::Who;
use crate::services::Services;
use crate::shard::RoomKey;
use crate::use_cases::authorize::{NotAllowed, authorize};

/// A room that a connection is in.
#[derive(Clone, Debug)]
pub struct Held {
    /// The shard's slice of it.
    pub key: RoomKey,
    /// The room.
    pub room: RoomId,
    /// Its policy.
    pub policy: Arc<NamespacePolicy>,
    /// Whether the connection follows who comes and goes.
    pub follows: bool,
}

/// What a connection may not have any more.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lost {
    /// Rooms it may not be in.
    pub rooms: Vec<RoomKey>,
    /// Rooms whose members it may not follow.
    pub presence: Vec<RoomKey>,
}

/// A connection whose rights are to be looked at again.
pub struct Revalidate {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who it is, by its newest token.
    pub who: Arc<Who>,
    /// The rooms it is in.
    pub rooms: Vec<Held>,
}

impl Revalidate {
    /// Asks for each room.
    ///
    /// # Errors
    /// [`NotAllowed::NoAnswer`] at the first question without an answer: then nothing is known.
    pub async fn execute(&self) -> Result<Lost, NotAllowed> {
        let mut lost = Lost::default();
        for held in &self.rooms {
            if !self.may(held, Action::Subscribe).await? {
                lost.rooms.push(held.key);
            } else if held.follows && !self.may(held, Action::Presence).await? {
                lost.presence.push(held.key);
            }
        }
        Ok(lost)
    }

    async fn may(&self, held: &Held, action: Action) -> Result<bool, NotAllowed> {
        let Self { services, who, .. } = self;
        match authorize(services, who, action, &held.room, &held.policy).await {
            Ok(()) => Ok(true),
            Err(NotAllowed::Denied(_) | NotAllowed::Sanctioned { .. }) => Ok(false),
            Err(error @ (NotAllowed::NoAnswer(_) | NotAllowed::NoMatch(_))) => Err(error),
        }
    }
}
