//! The events of `/ws/game`, which backends send, and what `/ws/combat` and `/ws/world` will do.
//!
//! Nobody but a role that may send events says that something happened in the game.

use std::sync::Arc;

use async_trait::async_trait;
use domain::codes::ErrorCode;
use domain::documents::game::{self, EVENTS};
use domain::documents::place::GAME;
use domain::id::Role;
use domain::protocol::Rejected;
use domain::room::RoomId;

use super::chat::room_of;
use crate::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler, Publishing};
use crate::refusal::Refusal;

/// One type of event.
pub struct GameEvents {
    kind: &'static str,
    roles: Arc<[Role]>,
}

impl GameEvents {
    /// All types; these roles may send them.
    #[must_use]
    pub fn all(roles: &Arc<[Role]>) -> Vec<Arc<dyn MessageHandler>> {
        let handler = |kind| Arc::new(Self { kind, roles: Arc::clone(roles) }) as _;
        EVENTS.into_iter().map(handler).collect()
    }
}

#[async_trait]
impl MessageHandler for GameEvents {
    fn message_type(&self) -> &str {
        self.kind
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        game::event(self.kind, body).map(drop)?;
        Ok(())
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        if !message.who.principal.roles.iter().any(|role| self.roles.contains(role)) {
            return Err(Refusal::denied().field("type"));
        }
        let event = game::event(self.kind, message.text())?;
        let room = match &event.to {
            Some(user) => room_of(user)?,
            None => RoomId::parse(GAME).map_err(|_| Refusal::internal())?,
        };
        // An event names itself whom it is about; its sender is a backend and no player.
        let publishing = Publishing::new(room, event.data.to_owned()).by_server();
        Ok(vec![HandlerEffect::Publish(publishing)])
    }
}

/// A type that is checked as documented and waits for its rules.
pub struct NotHereYet {
    kind: &'static str,
    check: fn(&str) -> Result<RoomId, Rejected>,
}

impl NotHereYet {
    /// `combat_action`.
    #[must_use]
    pub fn combat() -> Arc<dyn MessageHandler> {
        Arc::new(Self { kind: "combat_action", check: game::combat_action })
    }

    /// `player_movement`.
    #[must_use]
    pub fn world() -> Arc<dyn MessageHandler> {
        Arc::new(Self { kind: "player_movement", check: game::player_movement })
    }
}

#[async_trait]
impl MessageHandler for NotHereYet {
    fn message_type(&self) -> &str {
        self.kind
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        (self.check)(body).map(drop)?;
        Ok(())
    }

    async fn handle(&self, _message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let message = "this server has no rules for that yet";
        Err(Refusal::new(ErrorCode::NotAvailable, message).field("type"))
    }
}
