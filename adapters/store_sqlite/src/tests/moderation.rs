//! Sanctions and the log of moderators on a real file: the port's contract, and what only files can do.

use application::ports::{EntryId, Moderation as _, RecordError};
use application::testing::moderation_contract::{ModerationContract, at, entry};
use domain::message::TombstoneReason;
use domain::moderation::{Act, Deed, Until};

use super::*;
use crate::SqliteModeration;
use crate::moderation::ENTRIES_MAX;

async fn moderation(archive: &Arc<SqliteArchive>) -> SqliteModeration {
    SqliteModeration::load(Arc::clone(archive)).await.unwrap()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

#[tokio::test]
async fn moderation_on_disk_passes_the_contract() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    ModerationContract { moderation: &moderation(&archive).await }.check().await;
}

#[tokio::test]
async fn sanctions_and_their_log_survive_a_restart_and_what_was_lifted_does_not_come_back() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    let before = moderation(&archive).await;
    let span = Some(std::time::Duration::from_secs(60));
    let acts = [
        Act::Ban(user("ann"), None),
        Act::Mute(user("ann"), span),
        Act::Mute(user("bob"), None),
        Act::Unmute(user("bob")),
    ];
    for (n, act) in (0..).zip(acts) {
        before.record(&entry(n, act)).await.unwrap();
    }
    let log = before.read(None, 10).await.unwrap();
    archive.close().await;
    drop((before, archive));

    let archive = Arc::new(build(&directory).await);
    let after = moderation(&archive).await;
    let room = room("chat:a");
    let forbids = |name, deed| after.forbids(&user(name), &room, deed, at(5));
    assert_eq!(forbids("ann", Deed::Enter), Some(Until::Lifted));
    assert_eq!(forbids("bob", Deed::Speak), None);
    assert_eq!(after.read(None, 10).await.unwrap(), log);
    after.record(&entry(6, Act::Unban(user("ann")))).await.unwrap();
    assert_eq!(after.forbids(&user("ann"), &room, Deed::Speak, at(6)), Some(Until::At(at(61))));
    // What is over leaves the file with the next act, too.
    after.record(&entry(61, Act::Kick(user("ann")))).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM sanctions")
        .fetch_one(archive.pools.readers())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_act_that_can_not_be_stored_says_so_and_counts_all_the_same() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    let moderation = moderation(&archive).await;
    sqlx::query("PRAGMA query_only = 1").execute(&archive.pools.writer).await.unwrap();
    let ban = entry(0, Act::Ban(user("ann"), None));
    let recorded = moderation.record(&ban).await;
    assert!(matches!(recorded, Err(RecordError::Storage(_))), "{recorded:?}");
    let forbids = moderation.forbids(&user("ann"), &room("chat:a"), Deed::Enter, at(0));
    assert_eq!(forbids, Some(Until::Lifted));
    assert_eq!(moderation.read(None, 10).await, Ok(Vec::new()));
    sqlx::query("PRAGMA query_only = 0").execute(&archive.pools.writer).await.unwrap();
    assert_eq!(moderation.record(&ban).await, Ok(()));
    assert_eq!(moderation.read(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_log_keeps_the_newest_acts() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    let moderation = moderation(&archive).await;
    moderation.record(&entry(0, Act::Kick(user("ann")))).await.unwrap();
    // As if as many had come since as may be.
    sqlx::query("UPDATE sqlite_sequence SET seq = ? WHERE name = 'moderation_log'")
        .bind(ENTRIES_MAX)
        .execute(&archive.pools.writer)
        .await
        .unwrap();
    moderation.record(&entry(1, Act::Kick(user("bob")))).await.unwrap();
    let log = moderation.read(None, 10).await.unwrap();
    let last = u64::try_from(ENTRIES_MAX).unwrap() + 1;
    assert_eq!(log, [(EntryId(last), entry(1, Act::Kick(user("bob"))))]);
}

#[tokio::test]
async fn nothing_of_an_erased_message_is_left_in_its_row() {
    let directory = tempdir().unwrap();
    let archive = build(&directory).await;
    let room = opened(&archive).await;
    let mut said = record(&room, EPOCH, 1);
    said.publication.expires_at = Some(Wall::MAX);
    archive.append(vec![said]).await.unwrap();
    let position = Position { epoch: EPOCH, offset: offset(1) };
    archive.forget(&room, Forget::Message(position)).await.unwrap();
    archive.close().await;
    drop(archive);
    let archive = build(&directory).await;
    let page = archive.read(&room, EPOCH, Offset::ZERO, 1, usize::MAX).await.unwrap();
    let left = &page.messages[0];
    assert_eq!((left.tombstone, left.data.len()), (Some(TombstoneReason::Deleted), 0));
    assert_eq!((&left.tags, left.expires_at), (&domain::tags::Tags::default(), None));
}
