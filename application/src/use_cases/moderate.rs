//! Does what a moderator says: mutes, bans, puts somebody out of a room, deletes a message.
//!
//! It must never do anything that is not written down, nor for somebody who may not; and it never says
//! in the room what was done, which is for its caller.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use domain::codes::ErrorCode;
use domain::documents::chat;
use domain::id::{Role, UserId};
use domain::moderation::{Act, Deed, Entry};
use domain::policy::NamespacePolicy;
use domain::position::Position;
use domain::principal::Action;
use thiserror::Error;

use crate::extensions::middleware::Who;
use crate::metrics::Row;
use crate::peer::put_out;
use crate::planted::{Mistake, is_planted};
use crate::ports::{BrokerError, EraseError, Moderation, ReadLog, RecordError, Word};
use crate::refusal::Refusal;
use crate::security::{SecurityEvent, TARGET};
use crate::services::Services;
use crate::use_cases::authorize::{NotAllowed, authorize, unsanctioned};

/// When a client may try again after the storage failed.
const COME_BACK: Duration = Duration::from_secs(1);

/// What somebody wants done as a moderator.
pub struct Moderate {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who.
    pub who: Arc<Who>,
    /// The roles that moderate everywhere; others need the right `moderate` in the room.
    pub roles: Arc<[Role]>,
    /// What.
    pub wanted: chat::Moderation,
}

/// Why it was not done.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ModerateRefused {
    /// It may not be done by this one.
    #[error("not allowed")]
    NotAllowed(#[source] NotAllowed),
    /// There is no such room.
    #[error("no such namespace")]
    UnknownRoom,
    /// It is about the one who wants it: its announcement would come from somebody who is muted.
    #[error("nobody moderates itself")]
    Oneself,
    /// The room's log has no such message.
    #[error("the room's log has no such message")]
    UnknownMessage,
    /// This node has nobody who remembers sanctions, or who erases.
    #[error("this node does not moderate")]
    NotAvailable,
    /// It could not be remembered. Unless as many are as may be, it counts until this node ends.
    #[error("the act could not be recorded")]
    Record(#[source] RecordError),
    /// The broker can't be asked, or erases nothing now.
    #[error("the broker did not answer")]
    Broker {
        /// When to come back.
        retry_after: Duration,
    },
}

impl From<ModerateRefused> for Refusal {
    fn from(error: ModerateRefused) -> Self {
        match error {
            ModerateRefused::NotAllowed(error) => error.into(),
            ModerateRefused::UnknownRoom => {
                let message = "this server has no such channel";
                Self::new(ErrorCode::UnknownRoom, message).field("channel")
            }
            ModerateRefused::Oneself => {
                let message = "must be somebody else";
                Self::new(ErrorCode::InvalidField, message).field("user_id")
            }
            ModerateRefused::UnknownMessage => {
                let message = "the channel's log has no such message";
                Self::new(ErrorCode::InvalidPosition, message).field("message_id")
            }
            ModerateRefused::NotAvailable => {
                Self::new(ErrorCode::NotAvailable, "this server moderates nothing")
            }
            ModerateRefused::Record(RecordError::Full) => {
                let message = "as many users are muted or banned on this server as may be";
                Self::new(ErrorCode::RoomFull, message).field("action")
            }
            ModerateRefused::Record(RecordError::Storage(_)) => Self::unavailable(COME_BACK),
            ModerateRefused::Broker { retry_after } => Self::unavailable(retry_after),
        }
    }
}

impl From<BrokerError> for ModerateRefused {
    fn from(error: BrokerError) -> Self {
        let BrokerError::Unavailable { retry_after } = error;
        Self::Broker { retry_after }
    }
}

impl From<EraseError> for ModerateRefused {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::Unknown => Self::UnknownMessage,
            EraseError::Unavailable { retry_after } => Self::Broker { retry_after },
        }
    }
}

impl Moderate {
    /// Checks, writes down and does it. Answers who did it.
    ///
    /// # Errors
    /// [`ModerateRefused`] says why not.
    pub async fn execute(self) -> Result<UserId, ModerateRefused> {
        let policy = self.services.rules.policies.of(&self.wanted.room).cloned();
        let policy = policy.ok_or(ModerateRefused::UnknownRoom)?;
        let by = self.moderator(&policy).await.map_err(ModerateRefused::NotAllowed)?;
        if self.wanted.act.user() == Some(&by) {
            return Err(ModerateRefused::Oneself);
        }
        let moderation = self.services.ports.moderation.clone();
        let moderation = moderation.ok_or(ModerateRefused::NotAvailable)?;
        if let Act::Delete(position) = self.wanted.act {
            self.find(&policy, position).await?;
        }
        let chat::Moderation { room, act, reason } = self.wanted.clone();
        let at = self.services.ports.clock.now().wall;
        let order = self.services.directory.acts.order(&room, &act, at);
        let entry = Entry { at, order, by, room, act, reason };
        let recorded = self.record(&*moderation, &entry).await;
        let erased = match (&recorded, &entry.act, &self.services.ports.erasure) {
            (Ok(()), Act::Delete(position), Some(erasure)) => {
                erasure.erase(&entry.room, &policy, *position).await
            }
            _ => Ok(()),
        };
        self.note(&entry, &recorded, erased.is_ok());
        recorded.map_err(ModerateRefused::Record)?;
        erased?;
        Ok(entry.by)
    }

    /// Who asks, if it may. Whoever is muted or banned in a room moderates nothing there: it could lift
    /// that itself.
    async fn moderator(&self, policy: &Arc<NamespacePolicy>) -> Result<UserId, NotAllowed> {
        let Self { services, who, roles, wanted } = self;
        let user = who.principal.user.clone().ok_or(NotAllowed::Denied(None))?;
        let now = || services.ports.clock.now().wall;
        unsanctioned(services, who, Deed::Speak, &wanted.room, now)?;
        if !who.principal.roles.iter().any(|role| roles.contains(role)) {
            authorize(services, who, Action::Moderate, &wanted.room, policy).await?;
        }
        Ok(user)
    }

    /// Whether the log has the message: what is not there is not written down as deleted.
    async fn find(
        &self,
        policy: &Arc<NamespacePolicy>,
        position: Position,
    ) -> Result<(), ModerateRefused> {
        let ports = &self.services.ports;
        if ports.erasure.is_none() {
            return Err(ModerateRefused::NotAvailable);
        }
        let now = ports.clock.now().wall;
        let after = position.offset.previous();
        let read = ReadLog { after, messages_max: 1, bytes_max: 0, now };
        let page = ports.broker.read(&self.wanted.room, policy, read).await?;
        let found = page.messages.first().and_then(|message| message.publication.offset);
        // One of an ended epoch stays where it was, under the name that readers know it by.
        if page.bounds.names(position) && found == Some(position.offset) {
            return Ok(());
        }
        Err(ModerateRefused::UnknownMessage)
    }

    /// Writes it down. It counts before it is stored, and nobody stays because the disk is slow.
    async fn record(&self, moderation: &dyn Moderation, entry: &Entry) -> Result<(), RecordError> {
        self.services.directory.acts.note(entry);
        let mut recording = moderation.record(entry);
        let at_once = poll_fn(|cx| Poll::Ready(recording.as_mut().poll(cx))).await;
        if at_once != Poll::Ready(Err(RecordError::Full)) {
            if !is_planted(Mistake::BannedStaysIn) {
                put_out(entry, &self.services.mailboxes);
            }
            self.services.ports.peers.tell(&Word::Moderated(entry.clone()));
        }
        match at_once {
            Poll::Ready(recorded) => recorded,
            Poll::Pending if is_planted(Mistake::ActAckedEarly) => Ok(()),
            Poll::Pending => recording.await,
        }
    }

    /// Written each time: only moderators can cause it, at the rate of commands, and what they do is worth
    /// a line. Their words are not in it.
    fn note(&self, entry: &Entry, recorded: &Result<(), RecordError>, erased: bool) {
        let event = SecurityEvent::Moderation;
        self.services.metrics.edge.security.add(event, 1);
        let message = match &entry.act {
            Act::Delete(position) => Some(domain::documents::said::message_id(*position)),
            Act::Mute(..) | Act::Unmute(_) | Act::Kick(_) | Act::Ban(..) | Act::Unban(_) => None,
        };
        // What can't be stored counts all the same, but a message is erased only once that is written down.
        let done = match recorded {
            Ok(()) => erased,
            Err(RecordError::Full) => false,
            Err(RecordError::Storage(_)) => message.is_none(),
        };
        tracing::warn!(
            target: TARGET,
            event = event.label(),
            user = %entry.by,
            action = entry.act.word(),
            room = %entry.room,
            subject = entry.act.user().map(tracing::field::display),
            message_id = message,
            recorded = recorded.is_ok(),
            done,
            left_out = 0,
            "a moderator did something"
        );
    }
}
