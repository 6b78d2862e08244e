//! Taking one message out of a room's log.
//!
//! It is read, so that its place keeps who sent it, and then written over in one step; a log that has
//! moved on in between answers that it does not have it.

use std::sync::Arc;

use application::ports::archive::Forget;
use application::ports::{EraseError, Erasure, ReadLog};
use async_trait::async_trait;
use domain::message::TombstoneReason;
use domain::policy::NamespacePolicy;
use domain::position::{Offset, Position};
use domain::room::RoomId;
use domain::time::Wall;
use redis::Cmd;

use crate::broker::{RETRY_AFTER, RedisBroker};
use crate::durable::{Durable, away};
use crate::entry::tombstone_body;
use crate::link::{CallError, Link};

#[async_trait]
impl Erasure for RedisBroker {
    async fn erase(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        position: Position,
    ) -> Result<(), EraseError> {
        match self.call_erase(room, policy, position).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(EraseError::Unknown),
            Err(_) => Err(EraseError::Unavailable { retry_after: RETRY_AFTER }),
        }
    }
}

impl RedisBroker {
    async fn call_erase(
        &self,
        room: &RoomId,
        policy: &NamespacePolicy,
        position: Position,
    ) -> Result<bool, CallError> {
        let after = position.offset.previous();
        // The beginning of time: nothing has aged or expired.
        let now = Wall::default();
        let read = ReadLog { after, messages_max: 1, bytes_max: usize::MAX >> 14, now };
        let (page, _) = self.call_read(room, policy, &read, false).await?;
        let bounds = page.bounds;
        let is_of_it = bounds.names(position);
        let found = page.messages.first().map(|message| &message.publication);
        let Some(found) = found.filter(|found| is_of_it && found.offset == Some(position.offset))
        else {
            return Ok(false);
        };
        // What the archive has is to be gone there first.
        let is_archived = match self.durable_of(policy) {
            Some(durable) => Some(forget(durable, room, position.offset).await?),
            None => None,
        };
        if found.tombstone.is_some() {
            return Ok(true);
        }
        let (link, fresh) = self.link_and_epoch()?;
        let fill = |command: &mut Cmd, link: &Link| {
            self.begin(command, (link, fresh), room, policy, now);
            command
                .arg(bounds.epoch.to_string())
                .arg(position.offset.get())
                .arg(tombstone_body(found, TombstoneReason::Deleted));
        };
        let answer = self.commands.run_script(&link, &self.commands.scripts().erase, fill).await;
        match (answer?, is_archived) {
            // Before what Redis has.
            (redis::Value::Int(_), Some(true)) => Ok(true),
            // It may be on its way into the archive: whoever asks again finds it there, or nowhere.
            (redis::Value::Int(1), Some(false)) => Err(CallError::Away),
            (redis::Value::Int(answer), _) => Ok(answer == 1),
            _ => Err(CallError::Refused("an answer can't be read".to_owned())),
        }
    }
}

/// Has the archive forget what one message said, and answers whether it had it.
async fn forget(durable: &Durable, room: &RoomId, offset: Offset) -> Result<bool, CallError> {
    let page = durable.lives.read_lives(room, offset.previous(), 1, 1).await;
    let page = page.map_err(|error| away(&error))?;
    let stored = page.and_then(|page| page.messages.into_iter().next());
    let Some(stored) = stored.filter(|stored| stored.offset == Some(offset)) else {
        return Ok(false);
    };
    let at = Position { epoch: stored.epoch, offset };
    let forgotten = durable.archive.forget(room, Forget::Message(at)).await;
    forgotten.map(|()| true).map_err(|error| away(&error))
}
