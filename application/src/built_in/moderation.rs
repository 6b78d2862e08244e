//! `moderation` of `/ws/chat`: what moderators do, said to the room in the server's name.
//!
//! Nothing is said that was not done.

use std::sync::Arc;

use async_trait::async_trait;
use domain::documents::chat;
use domain::id::Role;

use crate::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler, Publishing};
use crate::refusal::Refusal;
use crate::use_cases::moderate::{Moderate, ModerateRefused};

/// `moderation`.
pub struct ChatModeration {
    /// The roles that moderate every channel.
    pub roles: Arc<[Role]>,
}

#[async_trait]
impl MessageHandler for ChatModeration {
    fn message_type(&self) -> &str {
        "moderation"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        chat::moderation(body)?;
        Ok(())
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let wanted = chat::moderation(message.text())?;
        let moderate = Moderate {
            services: Arc::clone(&message.services),
            who: Arc::clone(&message.who),
            roles: Arc::clone(&self.roles),
            wanted: wanted.clone(),
        };
        let by = moderate.execute().await.inspect_err(|error| {
            if let ModerateRefused::Record(_) = error {
                tracing::warn!(error = error as &dyn std::error::Error, "an act was not recorded");
            }
        })?;
        let announcement = Publishing::new(wanted.room.clone(), wanted.announcement(&by));
        Ok(vec![HandlerEffect::Publish(announcement.by_server())])
    }
}
