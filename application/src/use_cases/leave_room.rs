//! Takes a connection out of a room: out of presence, and the shard out of the broker's
//! subscribers if it was the last.
//!
//! It can't fail: who wants to go, goes.

use std::sync::Arc;

use domain::id::ConnectionId;
use domain::presence::PresenceKey;
use domain::room::RoomId;

use crate::mailbox::Mailbox;
use crate::ports::SubscriptionToken;
use crate::services::Services;

/// A connection that is no member any more, or a shard without members.
pub struct LeaveRoom {
    /// The node's services.
    pub services: Arc<Services>,
    /// The room.
    pub room: RoomId,
    /// Who was listed, over which connection.
    pub listed: Option<(PresenceKey, ConnectionId)>,
    /// The shard's subscription, if it is to end.
    pub unsubscribe: Option<(Arc<Mailbox>, SubscriptionToken)>,
}

impl LeaveRoom {
    /// Leaves presence, then the broker.
    pub async fn execute(self) {
        if let Some((key, connection)) = &self.listed {
            self.services.ports.presence.leave(&self.room, key, *connection).await;
        }
        if let Some((mailbox, token)) = &self.unsubscribe {
            self.services.ports.broker.unsubscribe(&self.room, mailbox, *token).await;
        }
    }
}
