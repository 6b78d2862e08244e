//! Connections of which only the newest may act: every command of one is asked for its place first.
//!
//! What is known here comes first and costs a look; where others could know better they are asked, outside of
//! the shard. It must never let a command through because nobody answered.

use std::sync::Arc;
use std::time::Duration;

use domain::codes::CloseCode;

use super::calls::{CallFuture, JoinTag, Outcome};
use super::{Host, Shard, Slot};
use crate::ports::{BrokerError, PresenceError, Standing};
use crate::refusal::Refusal;
use crate::use_cases::join_room::JoinRefused;

/// When a client may try again where nobody can know.
const COME_BACK: Duration = Duration::from_secs(1);

/// What most commands come to where nobody can know.
pub(super) fn refused() -> Outcome {
    Outcome::Handled(Err(Refusal::unavailable(COME_BACK)))
}

/// The same of presence.
pub(super) const fn unanswered() -> PresenceError {
    PresenceError::Unavailable { retry_after: COME_BACK }
}

/// The same of joins.
pub(super) const fn not_joined() -> JoinRefused {
    JoinRefused::Broker(BrokerError::Unavailable { retry_after: COME_BACK })
}

impl Shard {
    /// Whether a connection may act for its user, as far as is known here. One that may not is ended.
    pub(super) fn is_seated(&mut self, slot: Slot, id: Option<u64>, host: &mut Host<'_>) -> bool {
        let Some(entry) = self.table.get(slot) else { return false };
        let (Some(user), Some(fence)) = (&entry.who.principal.user, entry.who.fence) else {
            return true;
        };
        match self.services.ports.seats.standing(user, fence) {
            Standing::Holds => true,
            Standing::Replaced => {
                self.replace(slot, host);
                false
            }
            Standing::Unknown => {
                self.refuse(slot, id, &Refusal::unavailable(COME_BACK), host);
                false
            }
        }
    }

    /// A newer connection speaks for its user.
    pub(super) fn replace(&mut self, slot: Slot, host: &mut Host<'_>) {
        self.note_order(slot, CloseCode::SessionReplaced, host.now);
        self.end(slot, CloseCode::SessionReplaced, None, host);
    }

    /// Hands the work of a command to the host, as [`call`](Self::call) does. Where only the newest
    /// connection of a user may act, it is asked first whether this is that one.
    pub(super) fn call_seated(
        &mut self,
        slot: Slot,
        command: Option<u64>,
        room: Option<JoinTag>,
        future: CallFuture,
        otherwise: impl FnOnce() -> Outcome + Send + 'static,
    ) {
        let Some(who) = self.who(slot) else { return };
        let Some(fence) = who.fence else { return self.call(slot, command, room, future) };
        let services = Arc::clone(&self.services);
        let asked = async move {
            let Some(user) = &who.principal.user else { return future.await };
            match services.ports.seats.confirm(user, fence).await {
                Standing::Holds => future.await,
                Standing::Replaced => Outcome::Replaced,
                Standing::Unknown => otherwise(),
            }
        };
        self.call(slot, command, room, Box::pin(asked));
    }
}
