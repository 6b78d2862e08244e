//! Game managers: what a host wants done with the messages of its matches, one manager for each type of
//! game.
//!
//! A manager answers effects like a message handler and touches nothing itself. It runs in a cold call: one
//! that fails or panics ends its message or its connection, never the match and never the shard. It must
//! never be asked about a message that its own schemas refuse.

pub mod relay;
pub mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use domain::id::IdError;
use domain::matches::{GameType, Match};
use thiserror::Error;

use crate::extensions::games::relay::Relay;
use crate::extensions::games::schema::MessageSchema;
use crate::extensions::handlers::HandlerEffect;
use crate::extensions::middleware::{Context, Who};
use crate::refusal::Refusal;

/// A message of somebody who is in a match.
#[derive(Clone, Debug)]
pub struct GameMessage {
    /// The match, as it was when the message was taken up.
    pub of: Arc<Match>,
    /// Who sent it.
    pub who: Arc<Who>,
    /// Whether the sender plays; else it looks on.
    pub is_participant: bool,
    /// Its `type`.
    pub kind: Arc<str>,
    /// The whole frame, as JSON.
    pub body: Bytes,
    /// What middleware found out.
    pub context: Context,
}

/// Manages the matches of one type of game.
#[async_trait]
pub trait GameManager: Send + Sync {
    /// The name that it is registered under, which matches are made with.
    fn game_type(&self) -> &str;

    /// The messages of the game and the fields of each.
    fn schemas(&self) -> &[MessageSchema];

    /// Checks a message before anything waits for it: by the schemas, unless a game does more.
    ///
    /// # Errors
    /// The answer that the client gets instead; it names the field that is meant.
    fn validate(&self, kind: &str, body: &str) -> Result<(), Refusal> {
        schema::check(self.schemas(), kind, body)
    }

    /// Does what there is to do. What it publishes to the match's own room is published on its word
    /// alone: who may say what in a match is the game's decision. Every other effect is carried out
    /// under the sender's own rights.
    ///
    /// # Errors
    /// The answer that the client gets instead; no effect is carried out.
    async fn handle(&self, message: GameMessage) -> Result<Vec<HandlerEffect>, Refusal>;
}

/// Why a game can't be registered.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum RegisterGameError {
    /// Another manager has the name.
    #[error("the game `{0}` has a manager already")]
    Taken(String),
    /// The name is none.
    #[error("`{0}` can't name a game: {1}")]
    Name(String, #[source] IdError),
    /// There are as many as may be.
    #[error("at most {} games can be registered", GameRegistry::GAMES_MAX)]
    Full,
}

/// Game managers by the type of their game.
#[derive(Clone)]
pub struct GameRegistry {
    games: BTreeMap<GameType, Arc<dyn GameManager>>,
}

/// The built-in game alone.
impl Default for GameRegistry {
    fn default() -> Self {
        let mut registry = Self::empty();
        // Nothing is taken yet, and a test holds that its name is one.
        let _ = registry.register(Arc::new(Relay));
        registry
    }
}

impl GameRegistry {
    /// The most games of one host.
    pub const GAMES_MAX: usize = 256;

    /// Without the built-in game.
    #[must_use]
    pub const fn empty() -> Self {
        Self { games: BTreeMap::new() }
    }

    /// Adds a manager.
    ///
    /// # Errors
    /// [`RegisterGameError`] when the name is taken or none, or there are too many.
    pub fn register(&mut self, manager: Arc<dyn GameManager>) -> Result<(), RegisterGameError> {
        let name = manager.game_type();
        let game = GameType::parse(name)
            .map_err(|error| RegisterGameError::Name(name.to_owned(), error))?;
        if self.games.contains_key(&game) {
            return Err(RegisterGameError::Taken(name.to_owned()));
        }
        if self.games.len() >= Self::GAMES_MAX {
            return Err(RegisterGameError::Full);
        }
        self.games.insert(game, manager);
        Ok(())
    }

    /// The manager of a game.
    #[must_use]
    pub fn of(&self, game: &GameType) -> Option<&Arc<dyn GameManager>> {
        self.games.get(game)
    }

    /// The names of all games, in their order.
    pub fn names(&self) -> impl Iterator<Item = &GameType> {
        self.games.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str);

    #[async_trait]
    impl GameManager for Named {
        fn game_type(&self) -> &str {
            self.0
        }

        fn schemas(&self) -> &[MessageSchema] {
            &[]
        }

        async fn handle(&self, _: GameMessage) -> Result<Vec<HandlerEffect>, Refusal> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_registry_has_the_built_in_game_and_takes_each_name_once() {
        let mut registry = GameRegistry::default();
        let names =
            |registry: &GameRegistry| registry.names().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&registry), ["relay"]);
        registry.register(Arc::new(Named("chess"))).unwrap();
        assert_eq!(names(&registry), ["chess", "relay"]);
        for taken in ["chess", "relay"] {
            let refused = registry.register(Arc::new(Named(taken))).unwrap_err();
            assert_eq!(refused, RegisterGameError::Taken(taken.to_owned()));
        }
        assert!(registry.of(&GameType::parse("chess").unwrap()).is_some());
        assert!(registry.of(&GameType::parse("go").unwrap()).is_none());
        assert!(names(&GameRegistry::empty()).is_empty());
    }

    #[test]
    fn a_name_that_is_none_and_a_game_too_many_are_refused() {
        let mut registry = GameRegistry::empty();
        for wrong in ["", "Chess", "tic tac toe"] {
            let refused = registry.register(Arc::new(Named(wrong))).unwrap_err();
            assert!(matches!(refused, RegisterGameError::Name(name, _) if name == wrong));
        }
        for n in 0..GameRegistry::GAMES_MAX {
            let name: &'static str = format!("game{n}").leak();
            registry.register(Arc::new(Named(name))).unwrap();
        }
        let more = registry.register(Arc::new(Named("more")));
        assert_eq!(more, Err(RegisterGameError::Full));
    }
}
