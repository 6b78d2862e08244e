//! The connection registry: who is in a room, which connections a user has, and what is known of each.
//!
//! It keeps nothing: shards are asked, a bounded piece at a time, and one listing at a time for the whole
//! node. It decides nothing either; who asks has been let in.

use std::sync::Arc;

use domain::id::UserId;
use domain::room::RoomId;

use crate::inquiry::{ConnectionHere, Of, PAGE_MAX, Unanswered};
use crate::services::Services;
use crate::use_cases::list_connections::ListConnections;

/// See the module's text.
#[derive(Clone)]
pub struct Registry {
    services: Arc<Services>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// The most connections of one answer.
    pub const CONNECTIONS_MAX: u32 = PAGE_MAX;

    pub(crate) const fn new(services: Arc<Services>) -> Self {
        Self { services }
    }

    /// The connections in a room, at most [`Self::CONNECTIONS_MAX`] of them. A shard that is stuck keeps
    /// this waiting: whoever has timers puts one around it.
    ///
    /// # Errors
    /// [`Unanswered`] when a shard has ended.
    pub async fn in_room(&self, room: &RoomId) -> Result<Vec<ConnectionHere>, Unanswered> {
        self.list(Of { room: Some(room.clone()), user: None }).await
    }

    /// The connections of a user, at most [`Self::CONNECTIONS_MAX`] of them.
    ///
    /// # Errors
    /// As for [`Self::in_room`].
    pub async fn of_user(&self, user: &UserId) -> Result<Vec<ConnectionHere>, Unanswered> {
        if self.count_of(user) == 0 {
            return Ok(Vec::new());
        }
        self.list(Of { user: Some(user.clone()), room: None }).await
    }

    /// How many connections a user has; nobody waits for it.
    #[must_use]
    pub fn count_of(&self, user: &UserId) -> u32 {
        self.services.directory.connections_of(user)
    }

    async fn list(&self, of: Of) -> Result<Vec<ConnectionHere>, Unanswered> {
        let Services { directory, mailboxes, .. } = &*self.services;
        // The semaphore is never closed; without a place there would be nobody else to wait for.
        let _turn = directory.listing.0.acquire().await.ok();
        let list = ListConnections {
            of,
            connections_max: Self::CONNECTIONS_MAX,
            ..ListConnections::default()
        };
        list.execute(mailboxes).await.map(|page| page.connections)
    }
}
