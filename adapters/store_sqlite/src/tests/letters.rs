//! Letters in a real file: over a restart, in blocks, and where a block is damaged.
//!
//! What every inbox must do is in the port's contract; here is only what a file adds.

use std::sync::Arc;

use application::ports::{Inbox as _, InboxError, Letter, LetterId, LetterLimits};
use application::testing::inbox_contract::InboxContract;
use bytes::Bytes;
use domain::id::UserId;
use domain::message::Sender;
use domain::time::Wall;
use tempfile::tempdir;

use super::build;
use crate::SqliteInbox;

const LIMITS: LetterLimits =
    LetterLimits { of_user: 1_000, of_pair: 300, of_sender: 1_000, of_all: 1_000 };

#[tokio::test]
async fn letters_on_disk_pass_the_contract() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    InboxContract { inbox: &SqliteInbox::load(archive).await.unwrap() }.check().await;
}

#[tokio::test]
async fn letters_wait_over_a_restart_and_a_removed_one_does_not_come_back() {
    let directory = tempdir().unwrap();
    let user = UserId::parse("ann").unwrap();
    let letter = |n: i64| Letter {
        sender: Sender { name: Some("Bob".into()), ..Sender::default() },
        data: Bytes::from(n.to_string()),
        at: Wall::from_millis(n),
    };
    let archive = Arc::new(build(&directory).await);
    let inbox = SqliteInbox::load(Arc::clone(&archive)).await.unwrap();
    for n in 1..=3 {
        inbox.put(&user, letter(n), LIMITS).await.unwrap();
    }
    let first = inbox.read(&user, None, 1, usize::MAX).await.unwrap().remove(0).0;
    inbox.remove(&user, first).await.unwrap();
    drop(inbox);
    archive.close().await;
    drop(archive);
    let archive = Arc::new(build(&directory).await);
    let inbox = SqliteInbox::load(archive).await.unwrap();
    let read = inbox.read(&user, None, 9, usize::MAX).await.unwrap();
    let read: Vec<_> = read.into_iter().map(|(_, letter)| letter).collect();
    assert_eq!(read, [letter(2), letter(3)]);
}

#[tokio::test]
async fn letters_are_forgotten_in_steps_until_all_old_ones_are_gone() {
    let directory = tempdir().unwrap();
    let inbox = SqliteInbox::load(Arc::new(build(&directory).await)).await.unwrap();
    let user = UserId::parse("ann").unwrap();
    // Each is too long for another one beside it, so that every step takes one.
    for n in 1..=10 {
        inbox.put(&user, long(n, 3_000), LIMITS).await.unwrap();
    }
    inbox.forget(Wall::from_millis(9)).await;
    assert_eq!(inbox.read(&user, None, 99, usize::MAX).await.unwrap().len(), 2);
}

/// A letter of this many bytes, numbered by when it was said.
fn long(n: i64, bytes: usize) -> Letter {
    let sender = Sender { user: Some(UserId::parse("bob").unwrap()), ..Sender::default() };
    Letter { sender, data: Bytes::from(vec![b'x'; bytes]), at: Wall::from_millis(n) }
}

/// When the letters of a page were said.
fn times(page: &[(LetterId, Letter)]) -> Vec<i64> {
    page.iter().map(|(_, letter)| letter.at.as_millis()).collect()
}

#[tokio::test]
async fn letters_that_fill_many_blocks_come_page_by_page_and_go_page_by_page() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    let inbox = SqliteInbox::load(Arc::clone(&archive)).await.unwrap();
    let user = UserId::parse("ann").unwrap();
    // Short ones share a block, one is longer than any block should be, and some are about as long.
    let lengths = (0..300).map(|n| if n == 120 { 20_000 } else { 10 + n as usize % 7 * 300 });
    for (n, bytes) in lengths.enumerate() {
        inbox.put(&user, long(n as i64, bytes), LIMITS).await.unwrap();
    }
    let full = inbox.put(&user, long(300, 1), LIMITS).await;
    assert_eq!(full, Err(InboxError::Full), "as many of one pair wait as may");
    let n_blocks = "SELECT count(*) FROM letter_blocks";
    let n_blocks: i64 =
        sqlx::query_scalar(n_blocks).fetch_one(archive.pools.readers()).await.unwrap();
    assert!((40..200).contains(&n_blocks), "{n_blocks}");

    // Read without a removal first: whatever the size of a page, each comes once.
    for (limit, bytes_max) in [(1, usize::MAX), (7, usize::MAX), (100, 5_000), (1_000, usize::MAX)]
    {
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let page = inbox.read(&user, after, limit, bytes_max).await.unwrap();
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            read.extend(times(&page));
        }
        assert_eq!(read, (0..300).collect::<Vec<_>>(), "{limit} {bytes_max}");
    }
    let mut read = Vec::new();
    loop {
        let page = inbox.read(&user, None, 7, usize::MAX).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        inbox.remove(&user, *last).await.unwrap();
        read.extend(times(&page));
        if page.len() == 7 {
            // One comes for each page that goes; its place is behind all others.
            let n = read.len() as i64 + 1_000;
            if n % 2 == 0 {
                inbox.put(&user, long(n, 10), LIMITS).await.unwrap();
            }
        }
    }
    let (old, new): (Vec<_>, Vec<_>) = read.into_iter().partition(|n| *n < 1_000);
    assert_eq!(old, (0..300).collect::<Vec<_>>());
    assert!(new.len() > 15 && new.is_sorted(), "{new:?}");
    let left = "SELECT (SELECT count(*) FROM letter_blocks) + (SELECT count(*) FROM letter_pairs)";
    let left: i64 = sqlx::query_scalar(left).fetch_one(archive.pools.readers()).await.unwrap();
    assert_eq!(left, 0, "nothing is left of blocks or counts");
}

#[tokio::test]
async fn a_letter_that_comes_late_is_forgotten_by_its_own_age_and_leaves_the_others() {
    let directory = tempdir().unwrap();
    let inbox = SqliteInbox::load(Arc::new(build(&directory).await)).await.unwrap();
    let user = UserId::parse("ann").unwrap();
    for n in [9, 2, 8, 1, 7] {
        inbox.put(&user, long(n, 10), LIMITS).await.unwrap();
    }
    inbox.forget(Wall::from_millis(3)).await;
    let read = inbox.read(&user, None, 9, usize::MAX).await.unwrap();
    assert_eq!(times(&read), [9, 8, 7]);
    // The place of one that was forgotten is not used again.
    inbox.put(&user, long(10, 10), LIMITS).await.unwrap();
    let later = inbox.read(&user, read.last().map(|(id, _)| *id), 9, usize::MAX).await.unwrap();
    assert_eq!(times(&later), [10]);
}

#[tokio::test]
async fn a_damaged_block_is_left_out_and_keeps_nothing_behind_it_from_coming() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    let inbox = SqliteInbox::load(Arc::clone(&archive)).await.unwrap();
    let user = UserId::parse("ann").unwrap();
    for n in 0..3 {
        inbox.put(&user, long(n, 3_000), LIMITS).await.unwrap();
    }
    let damage = "UPDATE letter_blocks SET letters = x'0102' WHERE oldest_ms IN (0, 2)";
    let mut connection = archive.pools.writer.acquire().await.unwrap();
    sqlx::query(damage).execute(&mut *connection).await.unwrap();
    drop(connection);
    // Nothing is written into the last block, which can't be read back.
    inbox.put(&user, long(3, 10), LIMITS).await.unwrap();
    let read = inbox.read(&user, None, 1, usize::MAX).await.unwrap();
    assert_eq!(times(&read), [1]);
    inbox.remove(&user, read[0].0).await.unwrap();
    let rest = inbox.read(&user, None, 9, usize::MAX).await.unwrap();
    assert_eq!(times(&rest), [3]);
    // What was lost no longer counts for who wrote it.
    let counted = "SELECT sum(n) FROM letter_pairs";
    let counted: i64 =
        sqlx::query_scalar(counted).fetch_one(archive.pools.readers()).await.unwrap();
    assert_eq!(counted, 1);
    inbox.remove(&user, rest[0].0).await.unwrap();
    let left = "SELECT (SELECT count(*) FROM letter_blocks) + (SELECT count(*) FROM letter_pairs)";
    let left: i64 = sqlx::query_scalar(left).fetch_one(archive.pools.readers()).await.unwrap();
    assert_eq!(left, 0);
}
