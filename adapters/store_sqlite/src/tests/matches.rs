//! Matches against real SQLite files: the port's contract, and what only files can do.

use std::cell::Cell;
use std::sync::Arc;

use application::ports::{
    CreateMatchError, Created, Matches as _, MatchesAfter, MatchesKept, UpdateMatchError,
};
use application::testing::matches_contract::{self, KEPT, at, over, running, waiting};
use domain::matches::{Match, MatchResult, Phase};
use tempfile::{TempDir, tempdir};

use super::build;
use crate::{Config, SqliteArchive, SqliteMatches};

async fn load(archive: &Arc<SqliteArchive>, kept: MatchesKept) -> SqliteMatches {
    SqliteMatches::load(Arc::clone(archive), kept).await.unwrap()
}

async fn opened(directory: &TempDir) -> (Arc<SqliteArchive>, SqliteMatches) {
    let archive = Arc::new(build(directory).await);
    let matches = load(&archive, KEPT).await;
    (archive, matches)
}

async fn all_of(matches: &SqliteMatches) -> Vec<Match> {
    let list = MatchesAfter { phase: None, after: None, matches_max: 99, bytes_max: usize::MAX };
    matches.list(&list).await.unwrap().matches
}

#[tokio::test]
async fn matches_in_a_file_keep_the_contract() {
    let parent = tempdir().unwrap();
    let n = Cell::new(0);
    let fresh = async || {
        n.set(n.get() + 1);
        let config = Config::in_directory(parent.path().join(n.get().to_string()));
        load(&Arc::new(SqliteArchive::build(config).await.unwrap()), KEPT).await
    };
    matches_contract::all(fresh).await;
}

#[tokio::test]
async fn matches_are_there_after_a_restart_as_far_as_they_were() {
    let directory = tempdir().unwrap();
    let (archive, matches) = opened(&directory).await;
    let waits = Match { metadata: None, ..waiting("waits") };
    let runs = running(&waiting("runs"), 5);
    let ended = over(&running(&waiting("ended"), 5), 6);
    let off = waiting("off").end(at(7), MatchResult::parse("null").ok()).unwrap();
    for name in ["waits", "runs", "ended", "off"] {
        let made = if name == "waits" { waits.clone() } else { waiting(name) };
        assert_eq!(matches.create(&made).await, Ok(Created::New));
    }
    matches.update(&runs, Phase::Waiting).await.unwrap();
    matches.update(&running(&waiting("ended"), 5), Phase::Waiting).await.unwrap();
    matches.update(&ended, Phase::Running).await.unwrap();
    matches.update(&off, Phase::Waiting).await.unwrap();
    archive.close().await;
    drop((matches, archive));

    let (archive, matches) = opened(&directory).await;
    assert_eq!(all_of(&matches).await, [ended.clone(), off, runs.clone(), waits.clone()]);
    // What goes for another is gone on the disk, too.
    assert_eq!(matches.create(&waiting("z")).await, Ok(Created::New));
    matches.forget(at(7).after(KEPT.retention)).await;
    archive.close().await;
    drop((matches, archive));

    let (_archive, matches) = opened(&directory).await;
    assert_eq!(all_of(&matches).await, [runs, waits, waiting("z")]);
}

#[tokio::test]
async fn a_smaller_maximum_than_before_is_kept_as_soon_as_something_is_made() {
    let directory = tempdir().unwrap();
    let (archive, matches) = opened(&directory).await;
    for (name, ended_at) in [("a", 3), ("b", 2), ("c", 1), ("d", 4)] {
        matches.create(&waiting(name)).await.unwrap();
        matches.update(&over(&waiting(name), ended_at), Phase::Waiting).await.unwrap();
    }
    let fewer = load(&archive, MatchesKept { matches_max: 2, ..KEPT }).await;
    assert_eq!(all_of(&fewer).await.len(), 4);
    assert_eq!(fewer.create(&waiting("e")).await, Ok(Created::New));
    let names: Vec<_> = all_of(&fewer).await.iter().map(|one| one.id.to_string()).collect();
    assert_eq!(names, ["d", "e"]);
}

#[tokio::test]
async fn a_change_that_can_not_be_stored_is_none_and_says_so() {
    let directory = tempdir().unwrap();
    let (archive, matches) = opened(&directory).await;
    let made = waiting("m");
    matches.create(&made).await.unwrap();
    archive.close().await;
    let started = matches.update(&running(&made, 1), Phase::Waiting).await;
    assert!(matches!(started, Err(UpdateMatchError::Storage(_))), "{started:?}");
    let other = matches.create(&waiting("other")).await;
    assert!(matches!(other, Err(CreateMatchError::Storage(_))), "{other:?}");
    assert_eq!(all_of(&matches).await, [made]);
}

#[tokio::test]
async fn a_change_whose_caller_has_gone_is_on_the_disk_and_in_memory_alike() {
    let directory = tempdir().unwrap();
    let (archive, matches) = opened(&directory).await;
    let made = waiting("m");
    {
        let mut creating = matches.create(&made);
        // As far as its first wait, and no further.
        let _ = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(creating.as_mut().poll(cx).is_pending())
        })
        .await;
    }
    // The next change has its turn behind it.
    assert_eq!(matches.update(&running(&made, 1), Phase::Waiting).await, Ok(()));
    let stored = load(&archive, KEPT).await;
    assert_eq!(all_of(&stored).await, all_of(&matches).await);
}

#[tokio::test]
async fn many_changes_at_one_time_come_one_after_the_other() {
    let directory = tempdir().unwrap();
    let (archive, matches) = opened(&directory).await;
    let matches = Arc::new(matches);
    matches.create(&waiting("m")).await.unwrap();
    let starts = (0..8).map(|n| {
        let matches = Arc::clone(&matches);
        tokio::spawn(
            async move { matches.update(&running(&waiting("m"), n), Phase::Waiting).await },
        )
    });
    let mut taken = 0;
    for start in starts.collect::<Vec<_>>() {
        match start.await.unwrap() {
            Ok(()) => taken += 1,
            Err(error) => assert_eq!(error, UpdateMatchError::Changed),
        }
    }
    assert_eq!(taken, 1);
    let stored = load(&archive, KEPT).await;
    assert_eq!(all_of(&stored).await, all_of(&matches).await);
}

#[tokio::test]
async fn a_row_that_is_no_match_stops_the_start() {
    for broken in
        ["phase = 7", "started_at_ms = 1", "spectators = 9", "id = 'a/b'", "metadata = '{'"]
    {
        let directory = tempdir().unwrap();
        let (archive, matches) = opened(&directory).await;
        matches.create(&waiting("m")).await.unwrap();
        let update = format!("UPDATE matches SET {broken}");
        sqlx::query(sqlx::AssertSqlSafe(update)).execute(&archive.pools.writer).await.unwrap();
        let loaded = SqliteMatches::load(Arc::clone(&archive), KEPT).await;
        assert!(loaded.is_err(), "{broken}");
    }
}
