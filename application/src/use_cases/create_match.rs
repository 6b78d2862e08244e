//! Makes a match, for the server API.
//!
//! The caller has been authorised by its key. A match of a game that nobody manages must never be made.

use std::sync::Arc;

use domain::matches::{
    ConnectionsMax, GameType, Match, MatchId, MatchState, Metadata, Participants, Spectators,
};
use thiserror::Error;

use crate::ports::{CreateMatchError, Created};
use crate::services::Services;

/// A match that is to be made.
pub struct CreateMatch {
    /// The node's services.
    pub services: Arc<Services>,
    /// Its name; none draws one.
    pub id: Option<MatchId>,
    /// What is played.
    pub game: GameType,
    /// Who plays.
    pub participants: Participants,
    /// Who may look on.
    pub spectators: Spectators,
    /// The most connections at one time; none takes the node's.
    pub connections_max: Option<ConnectionsMax>,
    /// What is kept with it.
    pub metadata: Option<Metadata>,
}

/// A match that is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MadeMatch {
    /// As it is now.
    pub made: Match,
    /// Whether it had been made before.
    pub is_duplicate: bool,
}

/// Why a match was not made.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CreateMatchRefused {
    /// Nobody manages such games here. The games that are managed are named.
    #[error("no such game; there are: {0}")]
    UnknownGame(String),
    /// The matches did not take it.
    #[error("the match was not taken")]
    Matches(#[source] CreateMatchError),
}

impl CreateMatch {
    /// Makes it, or finds that it was made.
    ///
    /// # Errors
    /// [`CreateMatchRefused`] says why there is none.
    pub async fn execute(self) -> Result<MadeMatch, CreateMatchRefused> {
        let Services { ports, rules, .. } = &*self.services;
        if rules.games.of(&self.game).is_none() {
            let names: Vec<_> = rules.games.names().map(GameType::as_str).collect();
            return Err(CreateMatchRefused::UnknownGame(names.join(", ")));
        }
        let id = match self.id {
            Some(id) => id,
            None => drawn(&self.services)?,
        };
        let new = Match {
            id,
            game: self.game,
            participants: self.participants,
            spectators: self.spectators,
            connections_max: self.connections_max.unwrap_or(rules.match_connections_max),
            metadata: self.metadata,
            created_at: ports.clock.now().wall,
            state: MatchState::Waiting,
        };
        match ports.matches.create(&new).await.map_err(CreateMatchRefused::Matches)? {
            Created::New => Ok(MadeMatch { made: new, is_duplicate: false }),
            Created::Already(known) => Ok(MadeMatch { made: *known, is_duplicate: true }),
        }
    }
}

/// 128 random bits: nobody finds the match of others by guessing.
fn drawn(services: &Services) -> Result<MatchId, CreateMatchRefused> {
    let entropy = &services.ports.entropy;
    let no_name = || {
        let why = "no name could be drawn: the system has no randomness now".to_owned();
        CreateMatchRefused::Matches(CreateMatchError::Storage(why))
    };
    let bits = || entropy.bits().map_err(|_| no_name());
    let text = format!("{:016x}{:016x}", bits()?, bits()?);
    MatchId::parse(&text).map_err(|_| no_name())
}
