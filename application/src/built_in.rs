//! The handlers of the documents' endpoints (chat, events of a game, the lobby, matches) and middleware that many
//! hosts want (a log of messages, limits by minute).
//!
//! They use what a host's own handlers use and nothing else, so that a host can leave each out or put its
//! own in its place. None may do what the sender has no right to.

mod chat;
mod game;
mod lobby;
mod matches;
mod message_log;
mod moderation;
mod rate_limit;

use std::sync::Arc;

use domain::documents::told::Endpoint;
use domain::id::Role;

pub use self::chat::{ChatHistory, ChatMessages, ChatTyping};
pub use self::game::{GameEvents, NotHereYet};
pub use self::lobby::{Lobby, LobbySettings};
pub use self::matches::{MatchChat, MatchUsers};
pub use self::message_log::MessageLog;
pub use self::moderation::ChatModeration;
pub use self::rate_limit::{RateLimit, RateLimitConfig};
use crate::extensions::handlers::{HandlerRegistry, MessageHandler, RegisterError};

/// What the built-in handlers can be told.
#[derive(Clone, Debug)]
pub struct BuiltIn {
    /// Of `/ws`.
    pub lobby: LobbySettings,
    /// Whether users may write to each other.
    pub private_messages: bool,
    /// The roles that may send events on `/ws/game`.
    pub event_roles: Arc<[Role]>,
    /// The roles that moderate every channel of `/ws/chat`; others need the right in the room.
    pub moderator_roles: Arc<[Role]>,
}

impl Default for BuiltIn {
    fn default() -> Self {
        let roles =
            |words: &[&str]| words.iter().filter_map(|word| Role::parse(word).ok()).collect();
        Self {
            lobby: LobbySettings::default(),
            private_messages: true,
            event_roles: roles(&["system"]),
            moderator_roles: roles(&["moderator", "admin"]),
        }
    }
}

impl BuiltIn {
    /// Adds the handlers of all endpoints.
    ///
    /// # Errors
    /// [`RegisterError`] when one of their types has a handler there already.
    pub fn register(&self, registry: &mut HandlerRegistry) -> Result<(), RegisterError> {
        let lobby = Lobby::all(&self.lobby);
        let chat: [Arc<dyn MessageHandler>; 4] = [
            Arc::new(ChatMessages { private: self.private_messages }),
            Arc::new(ChatTyping { private: self.private_messages }),
            Arc::new(ChatHistory),
            Arc::new(ChatModeration { roles: Arc::clone(&self.moderator_roles) }),
        ];
        let game = GameEvents::all(&self.event_roles);
        let combat = NotHereYet::combat();
        let world = NotHereYet::world();
        let of = |endpoint| move |handler| (endpoint, handler);
        let all = lobby.into_iter().map(of(Endpoint::Lobby));
        let all = all.chain(chat.into_iter().map(of(Endpoint::Chat)));
        let all = all.chain(game.into_iter().map(of(Endpoint::Game)));
        let all = all.chain(matches::all().into_iter().map(of(Endpoint::Match)));
        let all = all.chain([(Endpoint::Combat, combat), (Endpoint::World, world)]);
        for (endpoint, handler) in all {
            registry.register_at(endpoint, handler)?;
        }
        Ok(())
    }
}
