//! Spent tokens in a real file: over a restart, and where they can't be stored.

use super::*;

/// How many spent tokens are remembered in these tests.
const SPENT_MAX: usize = 20;

async fn spent_tokens(archive: &Arc<SqliteArchive>) -> SqliteSpentTokens {
    SqliteSpentTokens::load(Arc::clone(archive), SPENT_MAX).await.unwrap()
}

/// A token that is remembered for [`SPAN`].
async fn spend(
    spent_tokens: &SqliteSpentTokens,
    id: &str,
    now: Wall,
) -> Result<Spending, SpendError> {
    spent_tokens.spend(&TokenId::parse(id).unwrap(), now.after(SPAN), now).await
}

#[tokio::test]
async fn spent_tokens_in_a_file_keep_the_contract() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    let spent_tokens = SqliteSpentTokens::load(Arc::clone(&archive), 60).await.unwrap();
    let now = Wall::from_millis(1_700_000_000_000);
    let contract = SpentTokensContract { spent_tokens: &spent_tokens, entries_max: Some(60), now };
    contract.check().await;
}

#[tokio::test]
async fn what_is_spent_stays_so_over_a_restart_and_takes_its_place_there_too() {
    let directory = tempdir().unwrap();
    let now = Wall::from_millis(1_700_000_000_000);
    let archive = Arc::new(build(&directory).await);
    let before = spent_tokens(&archive).await;
    for n in 0..SPENT_MAX {
        assert_eq!(spend(&before, &format!("t-{n}"), now).await, Ok(Spending::First));
    }
    archive.close().await;
    drop((before, archive));

    let archive = Arc::new(build(&directory).await);
    let after = spent_tokens(&archive).await;
    assert_eq!(after.remembered(), SPENT_MAX);
    assert_eq!(spend(&after, "one-more", now).await, Err(SpendError::Full));
    // Those whose time is over make room, on disk too.
    let later = now.after(SPAN);
    assert_eq!(spend(&after, "one-more", later).await, Ok(Spending::First));
    assert_eq!(after.remembered(), 1);
    archive.close().await;
    drop((after, archive));

    let archive = Arc::new(build(&directory).await);
    let found = spent_tokens(&archive).await;
    assert_eq!(found.remembered(), 1);
    assert_eq!(spend(&found, "one-more", later).await, Ok(Spending::Again));
}

#[tokio::test]
async fn what_can_not_be_stored_as_spent_is_nobodys_first_and_takes_no_place() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    let spent_tokens = spent_tokens(&archive).await;
    let now = Wall::from_millis(1_700_000_000_000);
    sqlx::query("PRAGMA query_only = 1").execute(&archive.pools.writer).await.unwrap();
    for _ in 0..2 * SPENT_MAX {
        let refused = spend(&spent_tokens, "t-1", now).await;
        assert!(matches!(refused, Err(SpendError::Storage(_))), "{refused:?}");
    }
    sqlx::query("PRAGMA query_only = 0").execute(&archive.pools.writer).await.unwrap();
    assert_eq!(spend(&spent_tokens, "t-1", now).await, Ok(Spending::First));
    assert_eq!(spent_tokens.remembered(), 1);
    archive.close().await;
    let closed = spend(&spent_tokens, "t-2", now).await;
    assert!(matches!(closed, Err(SpendError::Storage(_))), "{closed:?}");
    assert_eq!(spent_tokens.remembered(), 1);
}

#[tokio::test]
async fn spent_tokens_that_nobody_waits_for_are_counted_all_the_same() {
    let directory = tempdir().unwrap();
    let archive = Arc::new(build(&directory).await);
    let spent_tokens = spent_tokens(&archive).await;
    let now = Wall::from_millis(1_700_000_000_000);
    for n in 0..5 {
        let id = TokenId::parse(&format!("t-{n}")).unwrap();
        let mut gone = spent_tokens.spend(&id, now.after(SPAN), now);
        assert!(poll_once(&mut gone).await.is_none());
    }
    // Behind the others in the queue.
    assert_eq!(spend(&spent_tokens, "t-0", now).await, Ok(Spending::Again));
    assert_eq!(spent_tokens.remembered(), 5);
}
