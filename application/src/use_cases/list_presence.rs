//! Lists who is in a room.
//!
//! It must never tell who may not look whether anybody is there.

use std::sync::Arc;

use domain::codes::ErrorCode;
use domain::policy::NamespacePolicy;
use domain::presence::{PresenceList, PresentMember};
use domain::principal::Action;
use domain::room::RoomId;
use thiserror::Error;

use crate::extensions::middleware::{Inbound, Who};
use crate::ports::PresenceError;
use crate::refusal::Refusal;
use crate::services::Services;
use crate::use_cases::authorize::{NotAllowed, authorize};
use crate::view::View;

/// What a listed member takes beside its data, at most about: its name and what is around it.
const MEMBER_BYTES: usize = 192;

/// The most members that are named to who asks in a crowd, whose followers are only told how many there are: with as many
/// askers as members each name more costs as much as all of them.
pub const CROWD_LIST_MAX: usize = 100;

/// A question for the members of a room.
pub struct ListPresence {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who asks.
    pub who: Arc<Who>,
    /// The room.
    pub room: RoomId,
    /// Its policy.
    pub policy: Arc<NamespacePolicy>,
    /// Whether the room is known to be a crowd, so that few are asked for at first. Who is named is decided by the list.
    pub is_crowd: bool,
}

/// Why there is no list, or why presence data was not changed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum PresenceRefused {
    /// It may not be done.
    #[error("not allowed")]
    NotAllowed(#[source] NotAllowed),
    /// A middleware refused.
    #[error("a middleware refused the message")]
    Middleware(Refusal),
    /// The room's policy lists nobody.
    #[error("the room lists nobody")]
    NotListed,
    /// Presence did not answer.
    #[error("presence did not answer")]
    Presence(#[source] PresenceError),
}

impl From<PresenceRefused> for Refusal {
    fn from(error: PresenceRefused) -> Self {
        match error {
            PresenceRefused::NotAllowed(error) => error.into(),
            PresenceRefused::Middleware(refusal) => refusal,
            PresenceRefused::NotListed => {
                Self::new(ErrorCode::NotAvailable, "this room does not list its members")
            }
            PresenceRefused::Presence(PresenceError::NotPresent) => {
                Self::new(ErrorCode::NotSubscribed, "subscribe to the room first").field("room")
            }
            PresenceRefused::Presence(PresenceError::Unavailable { retry_after }) => {
                Self::unavailable(retry_after)
            }
        }
    }
}

impl ListPresence {
    /// Checks and lists.
    ///
    /// # Errors
    /// [`PresenceRefused`] says why there is no list.
    pub async fn execute(self) -> Result<PresenceList, PresenceRefused> {
        self.run(false).await
    }

    /// The same for a handler, as part of the message that it handles.
    ///
    /// # Errors
    /// [`PresenceRefused`] says why there is no list.
    pub async fn execute_derived(self) -> Result<PresenceList, PresenceRefused> {
        self.run(true).await
    }

    async fn run(self, derived: bool) -> Result<PresenceList, PresenceRefused> {
        let Services { rules, .. } = &*self.services;
        let Self { services, who, room, policy, .. } = &self;
        let allowed = authorize(services, who, Action::Presence, room, policy).await;
        allowed.map_err(PresenceRefused::NotAllowed)?;
        if !rules.middleware.is_empty() {
            // The clients of the documents ask through a handler, or are told without asking.
            let derived = derived || matches!(who.view, View::Document(_));
            let room = Some(self.room.as_str());
            let inbound = Inbound { kind: "presence", room, body: "", derived };
            let asked = rules.middleware.process_message(&self.who, inbound).await;
            asked.map_err(PresenceRefused::Middleware)?;
        }
        let list = self.list().await?;
        Ok(fit(list, rules.limits.page_bytes_of_one()))
    }

    /// What is known of a crowd may be old by now: a list that followers go on from has to have all.
    async fn list(&self) -> Result<PresenceList, PresenceRefused> {
        let Self { services, room, policy, .. } = self;
        let most = services.rules.limits.presence_list_max;
        let named_max = most.min(policy.presence_named_max as usize);
        let of_crowd = most.min(CROWD_LIST_MAX);
        let first = if self.is_crowd { of_crowd } else { most };
        let mut list = list_members(services, room, policy, first).await?;
        if list.total <= named_max && list.members.len() < list.total.min(most) {
            list = list_members(services, room, policy, most).await?;
        }
        if list.total > named_max {
            list.members.truncate(of_crowd);
        }
        Ok(list)
    }
}

/// Lists the members for somebody who may know.
///
/// # Errors
/// [`PresenceRefused::NotListed`] and [`PresenceRefused::Presence`].
pub(crate) async fn list_members(
    services: &Services,
    room: &RoomId,
    policy: &NamespacePolicy,
    members_max: usize,
) -> Result<PresenceList, PresenceRefused> {
    if !policy.presence_listed {
        return Err(PresenceRefused::NotListed);
    }
    services.ports.presence.list(room, members_max).await.map_err(PresenceRefused::Presence)
}

/// Names only so many that a connection can be given the list: its queue has to hold it.
pub(crate) fn fit(mut list: PresenceList, bytes_max: usize) -> PresenceList {
    let mut bytes = 0;
    let fits = |member: &&PresentMember| {
        bytes += member.data.len() + MEMBER_BYTES;
        bytes <= bytes_max
    };
    let n_members = list.members.iter().take_while(fits).count();
    list.members.truncate(n_members);
    list
}
