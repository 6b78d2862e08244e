//! The contract of the `matches` port.
//!
//! It must never ask for what only one that keeps them on disk can promise.

use std::time::Duration;

use domain::id::UserId;
use domain::matches::{
    ConnectionsMax, GameType, Match, MatchId, MatchResult, MatchState, Metadata, Participants,
    Phase, Spectators,
};
use domain::time::Wall;

use crate::ports::{
    CreateMatchError, Created, Matches, MatchesAfter, MatchesKept, UpdateMatchError,
};

/// How many an implementation that is checked here keeps, and for how long.
pub const KEPT: MatchesKept = MatchesKept { matches_max: 4, retention: Duration::from_secs(3_600) };

/// A match that waits, with something in every part.
///
/// # Panics
/// When the name is none.
#[must_use]
pub fn waiting(name: &str) -> Match {
    let user = |name| UserId::parse(name).unwrap_or_else(|_| unreachable!("an id"));
    let participants = Participants::new(vec![user("bob"), user("ann")]);
    Match {
        id: MatchId::parse(name).unwrap_or_else(|_| unreachable!("an id")),
        game: GameType::parse("relay").unwrap_or_else(|_| unreachable!("a name")),
        participants: participants.unwrap_or_else(|_| unreachable!("different users")),
        spectators: Spectators::Authenticated,
        connections_max: ConnectionsMax::default(),
        metadata: Metadata::parse("{\"map\": \"\u{e9}\"}").ok(),
        created_at: at(0),
        state: MatchState::Waiting,
    }
}

/// So many seconds behind a present.
#[must_use]
pub fn at(seconds: i64) -> Wall {
    Wall::from_millis(1_700_000_000_000 + seconds * 1_000)
}

/// The same match, over.
///
/// # Panics
/// When it is over already.
#[must_use]
pub fn over(one: &Match, seconds: i64) -> Match {
    let result = MatchResult::parse("{\"won\":\"ann\"}").ok();
    one.end(at(seconds), result).unwrap_or_else(|_| unreachable!("it is not over"))
}

/// The same match, running.
///
/// # Panics
/// When it is not waiting.
#[must_use]
pub fn running(one: &Match, seconds: i64) -> Match {
    one.start(at(seconds)).unwrap_or_else(|_| unreachable!("it waits"))
}

async fn create(matches: &dyn Matches, one: &Match) {
    assert_eq!(matches.create(one).await, Ok(Created::New), "{}", one.id);
}

async fn end(matches: &dyn Matches, one: &Match, seconds: i64) {
    assert_eq!(matches.update(&over(one, seconds), one.phase()).await, Ok(()), "{}", one.id);
}

async fn names(
    matches: &dyn Matches,
    phase: Option<Phase>,
    after: Option<&Match>,
    matches_max: usize,
) -> (Vec<String>, bool) {
    let after = after.map(|one| one.id.clone());
    let list = MatchesAfter { phase, after, matches_max, bytes_max: 1 << 20 };
    let page = matches.list(&list).await;
    let page = page.unwrap_or_else(|error| unreachable!("a page: {error}"));
    (page.matches.iter().map(|one| one.id.to_string()).collect(), page.more)
}

fn listed(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Checks everything below, each over matches of its own that `fresh` makes and that keep [`KEPT`].
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn all<M: Matches>(fresh: impl AsyncFn() -> M) {
    a_match_that_was_made_is_found_and_making_it_again_changes_nothing(&fresh().await).await;
    another_match_of_the_same_name_is_refused_and_leaves_the_first(&fresh().await).await;
    of_two_changes_of_one_version_one_is_taken(&fresh().await).await;
    what_is_not_there_is_neither_found_nor_changed(&fresh().await).await;
    pages_are_in_order_and_leave_nothing_out(&fresh().await).await;
    a_page_keeps_its_byte_limit_and_holds_one_match_at_least(&fresh().await).await;
    when_it_is_full_what_ended_first_goes_and_nothing_that_has_not(&fresh().await).await;
    what_ended_is_forgotten_when_its_time_is_over_and_not_before(&fresh().await).await;
}

/// However far it is by then.
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn a_match_that_was_made_is_found_and_making_it_again_changes_nothing(
    matches: &dyn Matches,
) {
    let made = waiting("m-1");
    create(matches, &made).await;
    assert_eq!(matches.find(&made.id).await, Ok(Some(made.clone())));
    // Somebody asks again, later.
    let again = Match { created_at: at(9), ..made.clone() };
    assert_eq!(matches.create(&again).await, Ok(Created::Already(Box::new(made.clone()))));
    let running = running(&made, 1);
    assert_eq!(matches.update(&running, Phase::Waiting).await, Ok(()));
    assert_eq!(matches.create(&again).await, Ok(Created::Already(Box::new(running.clone()))));
    assert_eq!(matches.find(&made.id).await, Ok(Some(running)));
}

/// One that says something else.
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn another_match_of_the_same_name_is_refused_and_leaves_the_first(matches: &dyn Matches) {
    let made = waiting("m-1");
    create(matches, &made).await;
    for other in [
        Match { metadata: None, ..made.clone() },
        Match { spectators: Spectators::Nobody, ..made.clone() },
        Match { participants: Participants::default(), ..made.clone() },
    ] {
        assert_eq!(matches.create(&other).await, Err(CreateMatchError::Conflict));
    }
    assert_eq!(matches.find(&made.id).await, Ok(Some(made)));
}

/// Compare and set.
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn of_two_changes_of_one_version_one_is_taken(matches: &dyn Matches) {
    let made = waiting("m-1");
    create(matches, &made).await;
    let running = running(&made, 1);
    assert_eq!(matches.update(&running, Phase::Waiting).await, Ok(()));
    // Made of the version before.
    let off = over(&made, 2);
    assert_eq!(matches.update(&off, Phase::Waiting).await, Err(UpdateMatchError::Changed));
    assert_eq!(matches.find(&made.id).await, Ok(Some(running.clone())));
    let ended = over(&running, 3);
    assert_eq!(matches.update(&ended, Phase::Running).await, Ok(()));
    assert_eq!(matches.find(&made.id).await, Ok(Some(ended)));
}

/// Nor does a list know it.
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn what_is_not_there_is_neither_found_nor_changed(matches: &dyn Matches) {
    let nobody = waiting("nobody");
    assert_eq!(matches.find(&nobody.id).await, Ok(None));
    let updated = matches.update(&running(&nobody, 1), Phase::Waiting).await;
    assert_eq!(updated, Err(UpdateMatchError::Missing));
    assert_eq!(names(matches, None, None, 9).await, (Vec::new(), false));
}

/// All of them, or those in one phase.
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn pages_are_in_order_and_leave_nothing_out(matches: &dyn Matches) {
    let [a, b, c, d] = ["a", "B", "c.1", "d"].map(waiting);
    for one in [&c, &a, &d, &b] {
        create(matches, one).await;
    }
    end(matches, &c, 1).await;
    // By bytes: capital letters stand first.
    assert_eq!(names(matches, None, None, 2).await, (listed(&["B", "a"]), true));
    assert_eq!(names(matches, None, Some(&a), 2).await, (listed(&["c.1", "d"]), false));
    assert_eq!(names(matches, None, Some(&d), 2).await, (Vec::new(), false));
    let in_phase = |phase, most| names(matches, Some(phase), None, most);
    assert_eq!(in_phase(Phase::Waiting, 2).await, (listed(&["B", "a"]), true));
    assert_eq!(in_phase(Phase::Waiting, 3).await, (listed(&["B", "a", "d"]), false));
    assert_eq!(in_phase(Phase::Ended, 9).await, (listed(&["c.1"]), false));
    assert_eq!(in_phase(Phase::Running, 9).await, (Vec::new(), false));
}

/// Readers rely on it for their memory.
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn a_page_keeps_its_byte_limit_and_holds_one_match_at_least(matches: &dyn Matches) {
    for name in ["a", "b", "c"] {
        create(matches, &waiting(name)).await;
    }
    let bytes = waiting("a").bytes();
    for (bytes_max, n) in [(0, 1), (bytes, 1), (2 * bytes, 2), (3 * bytes, 3)] {
        let list = MatchesAfter { phase: None, after: None, matches_max: 9, bytes_max };
        let page = matches.list(&list).await.unwrap_or_default();
        assert_eq!((page.matches.len(), page.more), (n, n < 3), "{bytes_max}");
    }
}

/// A match that is played must not go because others come.
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn when_it_is_full_what_ended_first_goes_and_nothing_that_has_not(matches: &dyn Matches) {
    let [a, b, c, d, e, f, g] = ["a", "b", "c", "d", "e", "f", "g"].map(waiting);
    for one in [&a, &b, &c, &d] {
        create(matches, one).await;
    }
    assert_eq!(matches.create(&e).await, Err(CreateMatchError::Full));
    // What is there needs no room.
    assert_eq!(matches.create(&a).await, Ok(Created::Already(Box::new(a.clone()))));
    end(matches, &c, 5).await;
    end(matches, &b, 7).await;
    create(matches, &e).await;
    assert_eq!(names(matches, None, None, 9).await.0, listed(&["a", "b", "d", "e"]));
    create(matches, &f).await;
    assert_eq!(names(matches, None, None, 9).await.0, listed(&["a", "d", "e", "f"]));
    assert_eq!(matches.create(&g).await, Err(CreateMatchError::Full));
}

/// Never early, and never one that has not ended.
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn what_ended_is_forgotten_when_its_time_is_over_and_not_before(matches: &dyn Matches) {
    let [a, b, c] = ["a", "b", "c"].map(waiting);
    for one in [&a, &b, &c] {
        create(matches, one).await;
    }
    end(matches, &a, 10).await;
    end(matches, &b, 20).await;
    let end = at(10).after(KEPT.retention);
    matches.forget(Wall::from_millis(end.as_millis() - 1)).await;
    assert_eq!(names(matches, None, None, 9).await.0, listed(&["a", "b", "c"]));
    matches.forget(end).await;
    assert_eq!(names(matches, None, None, 9).await.0, listed(&["b", "c"]));
    matches.forget(Wall::MAX).await;
    assert_eq!(names(matches, None, None, 9).await.0, listed(&["c"]));
    // A name that is forgotten is free.
    create(matches, &Match { metadata: None, ..a }).await;
}
