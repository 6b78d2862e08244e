//! `chat_message` and `users` of `/ws/games/{match_id}`; every other type is for the manager of the match's
//! game.
//!
//! Participants talk, spectators listen: whoever may not publish in the match's room says nothing.

use std::sync::Arc;

use async_trait::async_trait;
use domain::documents::chat::CONTENT_BYTES_MAX;
use domain::documents::fields::Fields;
use domain::room::RoomId;

use super::lobby::who_is_in;
use crate::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler, Publishing};
use crate::refusal::Refusal;

/// `chat_message`.
pub struct MatchChat;

/// `users`.
pub struct MatchUsers;

/// The room of the match that somebody came to.
fn room_of(message: &HandlerMessage) -> Result<RoomId, Refusal> {
    message.who.place.clone().ok_or_else(Refusal::internal)
}

#[async_trait]
impl MessageHandler for MatchChat {
    fn message_type(&self) -> &str {
        "chat_message"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        Fields::new(body).written("content", CONTENT_BYTES_MAX)?;
        Ok(())
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let content = Fields::new(message.text()).written("content", CONTENT_BYTES_MAX)?;
        let data = format!(r#"{{"type":"chat_message","content":{content}}}"#);
        Ok(vec![HandlerEffect::Publish(Publishing::new(room_of(&message)?, data))])
    }
}

#[async_trait]
impl MessageHandler for MatchUsers {
    fn message_type(&self) -> &str {
        "users"
    }

    fn validate(&self, _body: &str) -> Result<(), Refusal> {
        Ok(())
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let room = room_of(&message)?;
        who_is_in(&message, room, "user_list", |users| users).await
    }
}

/// Both.
#[must_use]
pub(super) fn all() -> [Arc<dyn MessageHandler>; 2] {
    [Arc::new(MatchChat), Arc::new(MatchUsers)]
}
