//! Presence over this process: events leave under the lock that numbers them.
//!
//! A member's data and numbering are the domain's; nothing here may invent an event.

use std::collections::BTreeSet;
use std::sync::Arc;

use application::mailbox::Mail;
use application::ports::{Presence, PresenceError};
use async_trait::async_trait;
use bytes::Bytes;
use domain::id::ConnectionId;
use domain::presence::{PresenceEvent, PresenceKey, PresenceList, RoomPresence};
use domain::room::RoomId;

use crate::broker::{MemoryBroker, RETRY_AFTER};

/// The members of one room, and which they are: an update that changes nothing has to be told
/// from one of somebody who is not here, without walking all members under the lock.
#[derive(Debug, Default)]
pub(crate) struct Present {
    room: RoomPresence,
    keys: BTreeSet<PresenceKey>,
}

impl Present {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn enter(&mut self, who: &PresenceKey, connection: ConnectionId) -> Option<PresenceEvent> {
        let event = self.room.enter(who, connection)?;
        self.keys.insert(who.clone());
        Some(event)
    }

    fn leave(&mut self, who: &PresenceKey, connection: ConnectionId) -> Option<PresenceEvent> {
        let event = self.room.leave(who, connection)?;
        self.keys.remove(who);
        Some(event)
    }

    fn update(
        &mut self,
        who: &PresenceKey,
        data: Bytes,
    ) -> Result<Option<PresenceEvent>, PresenceError> {
        let event = self.room.update(who, data);
        if event.is_none() && !self.keys.contains(who) {
            return Err(PresenceError::NotPresent);
        }
        Ok(event)
    }
}

#[async_trait]
impl Presence for MemoryBroker {
    async fn enter(
        &self,
        room: &RoomId,
        who: &PresenceKey,
        connection: ConnectionId,
    ) -> Result<(), PresenceError> {
        let mut stripe = self.stripe(room);
        let here = stripe
            .room(room, &self.budget)
            .ok_or(PresenceError::Unavailable { retry_after: RETRY_AFTER })?;
        if let Some(event) = here.presence.enter(who, connection) {
            here.deliver(&Mail::Presence(room.clone(), Arc::new(event)));
        }
        Ok(())
    }

    async fn leave(&self, room: &RoomId, who: &PresenceKey, connection: ConnectionId) {
        let mut stripe = self.stripe(room);
        let Some(here) = stripe.rooms.get_mut(room) else { return };
        if let Some(event) = here.presence.leave(who, connection) {
            here.deliver(&Mail::Presence(room.clone(), Arc::new(event)));
        }
        stripe.touch(room);
    }

    async fn update(
        &self,
        room: &RoomId,
        who: &PresenceKey,
        data: Bytes,
    ) -> Result<(), PresenceError> {
        let mut stripe = self.stripe(room);
        let here = stripe.rooms.get_mut(room).ok_or(PresenceError::NotPresent)?;
        if let Some(event) = here.presence.update(who, data)? {
            here.deliver(&Mail::Presence(room.clone(), Arc::new(event)));
        }
        Ok(())
    }

    async fn list(&self, room: &RoomId, members_max: usize) -> Result<PresenceList, PresenceError> {
        let stripe = self.stripe(room);
        Ok(stripe
            .rooms
            .get(room)
            .map(|here| here.presence.room.list(members_max))
            .unwrap_or_default())
    }
}
