//! A match and its life: waiting, running, ended.
//!
//! Nothing but the state ever changes, and it never changes twice to the same phase. So the phase says which
//! of two versions of a match is the later one, and storage compares it where it must not write over
//! another change.

use thiserror::Error;

use crate::id::UserId;
use crate::matches::names::{GameType, MatchId};
use crate::matches::parts::{ConnectionsMax, MatchResult, Metadata, Participants, Spectators};
use crate::time::Wall;

/// How far a match is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// It was made and has not begun.
    Waiting,
    /// It is being played.
    Running,
    /// It is over.
    Ended,
}

impl Phase {
    /// Every phase, in the order of a match's life.
    pub const ALL: [Self; 3] = [Self::Waiting, Self::Running, Self::Ended];

    /// The word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.word() == word)
    }
}

/// How far a match is, with what is known from then on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MatchState {
    /// It was made and has not begun.
    Waiting,
    /// It is being played.
    Running {
        /// Since when.
        started_at: Wall,
    },
    /// It is over.
    Ended {
        /// When it began; none for one that was called off before.
        started_at: Option<Wall>,
        /// When it ended.
        ended_at: Wall,
        /// How; none where nobody said.
        result: Option<MatchResult>,
    },
}

/// Why a match can't become what was asked for.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TransitionError {
    /// It is being played already.
    #[error("the match is running already")]
    Running,
    /// It is over.
    #[error("the match has ended")]
    Ended,
}

/// One match.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Match {
    /// Its name.
    pub id: MatchId,
    /// What is played.
    pub game: GameType,
    /// Who plays.
    pub participants: Participants,
    /// Who may look on.
    pub spectators: Spectators,
    /// The most connections at one time.
    pub connections_max: ConnectionsMax,
    /// What its maker keeps with it.
    pub metadata: Option<Metadata>,
    /// When it was made.
    pub created_at: Wall,
    /// How far it is.
    pub state: MatchState,
}

impl Match {
    /// How far it is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.state {
            MatchState::Waiting => Phase::Waiting,
            MatchState::Running { .. } => Phase::Running,
            MatchState::Ended { .. } => Phase::Ended,
        }
    }

    /// When it began, if it did.
    #[must_use]
    pub const fn started_at(&self) -> Option<Wall> {
        match self.state {
            MatchState::Waiting => None,
            MatchState::Running { started_at } => Some(started_at),
            MatchState::Ended { started_at, .. } => started_at,
        }
    }

    /// When it ended, if it did.
    #[must_use]
    pub const fn ended_at(&self) -> Option<Wall> {
        match self.state {
            MatchState::Waiting | MatchState::Running { .. } => None,
            MatchState::Ended { ended_at, .. } => Some(ended_at),
        }
    }

    /// How it ended, if it did and somebody said.
    #[must_use]
    pub const fn result(&self) -> Option<&MatchResult> {
        match &self.state {
            MatchState::Waiting | MatchState::Running { .. } => None,
            MatchState::Ended { result, .. } => result.as_ref(),
        }
    }

    /// The same match, being played since `now`, or since it was made where the clock went back.
    ///
    /// # Errors
    /// [`TransitionError`] when it is not waiting.
    pub fn start(&self, now: Wall) -> Result<Self, TransitionError> {
        match self.state {
            MatchState::Waiting => {
                let started_at = now.max(self.created_at);
                Ok(Self { state: MatchState::Running { started_at }, ..self.clone() })
            }
            MatchState::Running { .. } => Err(TransitionError::Running),
            MatchState::Ended { .. } => Err(TransitionError::Ended),
        }
    }

    /// The same match, over since `now`. One that has not begun is called off by this.
    ///
    /// # Errors
    /// [`TransitionError::Ended`] when it is over already.
    pub fn end(&self, now: Wall, result: Option<MatchResult>) -> Result<Self, TransitionError> {
        let started_at = match self.state {
            MatchState::Waiting => None,
            MatchState::Running { started_at } => Some(started_at),
            MatchState::Ended { .. } => return Err(TransitionError::Ended),
        };
        let ended_at = now.max(started_at.unwrap_or(self.created_at));
        Ok(Self { state: MatchState::Ended { started_at, ended_at, result }, ..self.clone() })
    }

    /// Whether another match says the same but for how far it is and when it was made: making it again
    /// changes nothing.
    #[must_use]
    pub fn is_made_like(&self, other: &Self) -> bool {
        let Self { id, game, participants, spectators, connections_max, metadata, .. } = self;
        (id, game, participants) == (&other.id, &other.game, &other.participants)
            && (spectators, connections_max) == (&other.spectators, &other.connections_max)
            && *metadata == other.metadata
    }

    /// The bytes of its texts and something for the rest, for limits on what is kept and sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const FIXED: usize = 256;
        let of_user = |user: &UserId| user.as_str().len() + 3;
        FIXED
            + self.participants.iter().map(of_user).sum::<usize>()
            + self.metadata.as_ref().map_or(0, |metadata| metadata.as_str().len())
            + self.result().map_or(0, |result| result.as_str().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: i64) -> Wall {
        Wall::from_millis(ms)
    }

    fn made() -> Match {
        Match {
            id: MatchId::parse("m-1").unwrap(),
            game: GameType::parse("relay").unwrap(),
            participants: Participants::default(),
            spectators: Spectators::Nobody,
            connections_max: ConnectionsMax::default(),
            metadata: None,
            created_at: at(1_000),
            state: MatchState::Waiting,
        }
    }

    fn result(text: &str) -> Option<MatchResult> {
        Some(MatchResult::parse(text).unwrap())
    }

    #[test]
    fn a_match_waits_runs_and_ends_and_says_since_when() {
        let waiting = made();
        assert_eq!((waiting.phase(), waiting.started_at()), (Phase::Waiting, None));
        let running = waiting.start(at(2_000)).unwrap();
        assert_eq!((running.phase(), running.started_at()), (Phase::Running, Some(at(2_000))));
        assert_eq!(running.start(at(2_001)), Err(TransitionError::Running));
        let ended = running.end(at(3_000), result("{\"won\":\"ann\"}")).unwrap();
        assert_eq!((ended.phase(), ended.ended_at()), (Phase::Ended, Some(at(3_000))));
        assert_eq!(
            (ended.started_at(), ended.result()),
            (Some(at(2_000)), result("{\"won\":\"ann\"}").as_ref())
        );
        assert_eq!(ended.start(at(4_000)), Err(TransitionError::Ended));
        assert_eq!(ended.end(at(4_000), None), Err(TransitionError::Ended));
        assert!(ended.is_made_like(&waiting));
    }

    #[test]
    fn a_match_that_has_not_begun_can_be_called_off() {
        let off = made().end(at(5_000), None).unwrap();
        assert_eq!((off.phase(), off.started_at()), (Phase::Ended, None));
        assert_eq!((off.ended_at(), off.result()), (Some(at(5_000)), None));
    }

    #[test]
    fn a_match_that_is_made_otherwise_is_another_one() {
        let other = Match { spectators: Spectators::Anyone, ..made() };
        assert!(!made().is_made_like(&other));
        let metadata = Metadata::parse("1").ok();
        assert!(!made().is_made_like(&Match { metadata, ..made() }));
        assert!(made().is_made_like(&Match { created_at: at(9), ..made() }));
    }

    #[test]
    fn every_phase_is_read_from_its_word() {
        for phase in Phase::ALL {
            assert_eq!(Phase::parse(phase.word()), Some(phase));
        }
        assert_eq!(Phase::parse("paused"), None);
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Start(i64),
        End(i64, bool),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        // The clock may go back, also to before the match was made.
        prop_oneof![
            (0..5_000_i64).prop_map(Deed::Start),
            (0..5_000_i64, any::<bool>()).prop_map(|(now, has)| Deed::End(now, has)),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_asked_of_a_match_it_never_goes_back_and_its_times_are_in_order(
            deeds in proptest::collection::vec(deed(), 0..12),
        ) {
            let mut now = made();
            for deed in deeds {
                let next = match deed {
                    Deed::Start(at_ms) => now.start(at(at_ms)),
                    Deed::End(at_ms, has) => now.end(at(at_ms), has.then(|| result("1")).flatten()),
                };
                let Ok(next) = next else {
                    // What is refused is refused for what it is in.
                    let is_over = now.phase() == Phase::Ended;
                    prop_assert!(is_over || next == Err(TransitionError::Running));
                    continue;
                };
                prop_assert!(next.phase() > now.phase());
                prop_assert!(next.is_made_like(&now) && next.created_at == now.created_at);
                if now.started_at().is_some() {
                    prop_assert_eq!(next.started_at(), now.started_at());
                }
                let times = [Some(next.created_at), next.started_at(), next.ended_at()];
                let times: Vec<_> = times.into_iter().flatten().collect();
                prop_assert!(times.is_sorted(), "{times:?}");
                now = next;
            }
        }
    }
}
