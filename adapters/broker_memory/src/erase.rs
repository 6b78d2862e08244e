//! Taking one message out of a room's log: in the archive first, then in memory.
//!
//! It must never answer before both are done, and never leave a message in memory that the archive has
//! erased.

use std::sync::Arc;

use application::ports::{Archive, ArchiveError, EraseError, Erasure, Forget};
use async_trait::async_trait;
use domain::policy::NamespacePolicy;
use domain::position::{Offset, Position};
use domain::room::RoomId;

use crate::broker::{MemoryBroker, RETRY_AFTER};
use crate::durable::Open;
use crate::stripe::Stripe;

const AWAY: EraseError = EraseError::Unavailable { retry_after: RETRY_AFTER };

#[async_trait]
impl Erasure for MemoryBroker {
    async fn erase(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        position: Position,
    ) -> Result<(), EraseError> {
        match self.archive().filter(|_| policy.durable) {
            None => self.erase_here(room, position),
            Some(archive) => {
                let position = self.find_stored(archive, room, policy, position).await?;
                let erased = archive.forget(room, Forget::Message(position)).await;
                // Also after a failure: only its answer may have been lost.
                if let Some(room) = self.stripe(room).rooms.get_mut(room) {
                    room.erase(position.offset, &self.budget);
                }
                erased.map_err(|error| away(&error))
            }
        }
    }
}

impl MemoryBroker {
    fn erase_here(&self, id: &RoomId, position: Position) -> Result<(), EraseError> {
        let mut stripe = self.stripe(id);
        let room = stripe.rooms.get_mut(id).ok_or(EraseError::Unknown)?;
        let is_of_this_log = room.head.known().is_some_and(|head| head.epoch == position.epoch);
        if is_of_this_log && room.erase(position.offset, &self.budget) {
            return Ok(());
        }
        Err(EraseError::Unknown)
    }

    /// Where a durable room's log has the message, as far as is known here: of an earlier epoch that the log goes on
    /// from, under the present one.
    async fn find_stored(
        &self,
        archive: &Arc<dyn Archive>,
        id: &RoomId,
        policy: &NamespacePolicy,
        position: Position,
    ) -> Result<Position, EraseError> {
        let bounds = |stripe: &mut Stripe| {
            let room = stripe.rooms.get(id)?;
            room.head.known().map(|head| room.bounds(head))
        };
        let opened = self.with_open(archive, id, policy, Open::Recent, bounds).await;
        let bounds = opened.map_err(|_| AWAY)?.ok_or(AWAY)?;
        let is_in = |offset: Offset| offset >= bounds.first && offset <= bounds.last;
        if bounds.names(position) && is_in(position.offset) {
            return Ok(Position { epoch: bounds.epoch, offset: position.offset });
        }
        Err(EraseError::Unknown)
    }
}

fn away(error: &ArchiveError) -> EraseError {
    tracing::warn!(error = error as &dyn std::error::Error, "a message was not erased");
    AWAY
}
