//! Who is let into a match, and as what.
//!
//! It must never let somebody in because something is missing: without a user nobody is a participant.

use thiserror::Error;

use crate::id::UserId;
use crate::matches::lifecycle::{Match, Phase};
use crate::matches::parts::Spectators;

/// As what somebody may be in a match.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entry {
    /// One who plays.
    Participant,
    /// One who looks on.
    Spectator,
    /// Nobody.
    Refused(NotLetIn),
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum NotLetIn {
    /// Whoever looks on must be known, and nobody is.
    #[error("spectators of this match need a token")]
    Unknown,
    /// The match is for its participants.
    #[error("this match is for its participants")]
    NoSpectators,
    /// One could be there, but the match is over. Only who may know of the match learns it.
    #[error("the match has ended")]
    Ended,
}

/// As what a user may be in a match now; `None` is a connection without a user.
#[must_use]
pub fn may_enter(user: Option<&UserId>, of: &Match) -> Entry {
    let entry = if user.is_some_and(|user| of.participants.contains(user)) {
        Entry::Participant
    } else {
        match (of.spectators, user) {
            (Spectators::Nobody, _) => Entry::Refused(NotLetIn::NoSpectators),
            (Spectators::Authenticated, None) => Entry::Refused(NotLetIn::Unknown),
            (Spectators::Authenticated, Some(_)) | (Spectators::Anyone, _) => Entry::Spectator,
        }
    };
    match (entry, of.phase()) {
        (Entry::Participant | Entry::Spectator, Phase::Ended) => Entry::Refused(NotLetIn::Ended),
        (entry, Phase::Waiting | Phase::Running | Phase::Ended) => entry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matches::{ConnectionsMax, GameType, MatchId, MatchState, Participants};
    use crate::time::Wall;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn of(spectators: Spectators) -> Match {
        Match {
            id: MatchId::parse("m").unwrap(),
            game: GameType::parse("relay").unwrap(),
            participants: Participants::new(vec![user("ann"), user("bob")]).unwrap(),
            spectators,
            connections_max: ConnectionsMax::default(),
            metadata: None,
            created_at: Wall::default(),
            state: MatchState::Waiting,
        }
    }

    #[test]
    fn participants_play_and_others_look_on_where_they_may() {
        use Entry::{Participant, Refused, Spectator};
        let rows = [
            (Spectators::Nobody, Refused(NotLetIn::NoSpectators), Refused(NotLetIn::NoSpectators)),
            (Spectators::Authenticated, Spectator, Refused(NotLetIn::Unknown)),
            (Spectators::Anyone, Spectator, Spectator),
        ];
        for (spectators, known, unknown) in rows {
            let waiting = of(spectators);
            let running = waiting.start(Wall::default()).unwrap();
            for open in [waiting, running] {
                assert_eq!(may_enter(Some(&user("ann")), &open), Participant);
                assert_eq!(may_enter(Some(&user("eve")), &open), known, "{spectators:?}");
                assert_eq!(may_enter(None, &open), unknown, "{spectators:?}");
            }
        }
    }

    #[test]
    fn a_match_that_is_over_is_closed_and_tells_it_to_those_who_could_have_been_there() {
        let over = |spectators| of(spectators).end(Wall::default(), None).unwrap();
        let ended = Entry::Refused(NotLetIn::Ended);
        assert_eq!(may_enter(Some(&user("bob")), &over(Spectators::Nobody)), ended);
        assert_eq!(may_enter(None, &over(Spectators::Anyone)), ended);
        let stranger = may_enter(Some(&user("eve")), &over(Spectators::Nobody));
        assert_eq!(stranger, Entry::Refused(NotLetIn::NoSpectators));
    }
}
