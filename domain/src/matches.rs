//! A match: who plays which game, who may look on, how far it is and how it ended.
//!
//! A pure value: a transition takes a match and gives another, and nothing here knows what a game's
//! messages mean. A match that exists is valid. It must never go back: waiting, running, ended is the only
//! order.
//!
//! Suggested reading order: `names`, `parts`, `lifecycle`, `entry`, `table`.

mod entry;
mod lifecycle;
mod names;
mod parts;
mod table;

pub use entry::{Entry, NotLetIn, may_enter};
pub use lifecycle::{Match, MatchState, Phase, TransitionError};
pub use names::{GameType, MatchId};
pub use parts::{
    ConnectionsMax, JsonPartError, MatchResult, Metadata, Participants, ParticipantsError,
    Spectators,
};
pub use table::{CreatePlan, MatchTable, UpdatePlan};
