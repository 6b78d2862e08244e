//! Publishes one message to one room.
//!
//! It must never hand anything to the broker that middleware or policy has not allowed.

use std::sync::Arc;
use std::time::Duration;

use domain::message::Publish;
use domain::moderation::Deed;
use domain::policy::NamespacePolicy;
use domain::principal::Action;
use thiserror::Error;

use crate::extensions::middleware::{Inbound, Who};
use crate::mailbox::Mailbox;
use crate::planted::{Mistake, is_planted};
use crate::ports::{PublishError, Receipt, Standing};
use crate::refusal::Refusal;
use crate::services::Services;
use crate::use_cases::authorize::{NotAllowed, authorize, unsanctioned};

/// Where nobody can know whether its connection may still speak for its user.
const AWAY: PublishError = PublishError::Unavailable { retry_after: Duration::from_secs(1) };

/// A publish of a connection.
pub struct PublishMessage {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who publishes.
    pub who: Arc<Who>,
    /// The room's policy.
    pub policy: Arc<NamespacePolicy>,
    /// The message.
    pub publish: Publish,
}

/// Why a publish was not taken.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum PublishRefused {
    /// It may not be done.
    #[error("not allowed")]
    NotAllowed(#[source] NotAllowed),
    /// A middleware refused.
    #[error("a middleware refused the message")]
    Middleware(Refusal),
    /// The broker did not take it.
    #[error("the broker did not take it")]
    Broker(#[source] PublishError),
}

impl From<PublishRefused> for Refusal {
    fn from(error: PublishRefused) -> Self {
        match error {
            PublishRefused::NotAllowed(error) => error.into(),
            PublishRefused::Middleware(refusal) => refusal,
            PublishRefused::Broker(PublishError::Unavailable { retry_after }) => {
                Self::unavailable(retry_after)
            }
            PublishRefused::Broker(PublishError::LogFull) => Self::log_full(),
            PublishRefused::Broker(PublishError::Fenced) => Self::replaced(),
        }
    }
}

impl PublishMessage {
    /// Checks, then publishes.
    ///
    /// # Errors
    /// [`PublishRefused`] says why it was not taken.
    pub async fn execute(self) -> Result<Receipt, PublishRefused> {
        self.check(true, false).await?;
        self.publish().await
    }

    /// Whether moderators, policy and middleware allow it. Where the sender needs no right, somebody has
    /// decided; whoever is muted says nothing all the same. What a handler publishes is derived.
    pub(super) async fn check(
        &self,
        needs_right: bool,
        derived: bool,
    ) -> Result<(), PublishRefused> {
        let Self { services, who, policy, publish } = self;
        let sanctioned = unsanctioned(services, who, Deed::Speak, &publish.room, || publish.at);
        if publish.msg_id.is_none() || !is_planted(Mistake::RetryNotMuted) {
            sanctioned.map_err(PublishRefused::NotAllowed)?;
        }
        if needs_right {
            let allowed = authorize(services, who, Action::Publish, &publish.room, policy).await;
            allowed.map_err(PublishRefused::NotAllowed)?;
        }
        if !services.rules.middleware.is_empty() {
            let inbound = Inbound {
                kind: "publish",
                room: Some(publish.room.as_str()),
                body: std::str::from_utf8(&publish.data).unwrap_or_default(),
                derived,
            };
            let asked = services.rules.middleware.process_message(who, inbound).await;
            asked.map_err(PublishRefused::Middleware)?;
        }
        Ok(())
    }

    /// Publishes what [`check`](Self::check) has allowed.
    pub(super) async fn publish(self) -> Result<Receipt, PublishRefused> {
        let Self { services, who, policy, publish } = self;
        Mailbox::relief_of_all(&services.mailboxes).await;
        // It may have waited. A broker that several nodes share looks once more.
        if let (Some(user), Some(fence)) = (&who.principal.user, publish.fence) {
            match services.ports.seats.standing(user, fence) {
                Standing::Holds => {}
                Standing::Replaced => return Err(PublishRefused::Broker(PublishError::Fenced)),
                Standing::Unknown => return Err(PublishRefused::Broker(AWAY)),
            }
        }
        services.ports.broker.publish(publish, &policy).await.map_err(PublishRefused::Broker)
    }
}
