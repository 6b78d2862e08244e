//! Every port that the store on Postgres serves keeps its contract, against a real server.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use application::ports::{Archive, MatchesKept};
use application::testing::inbox_contract::InboxContract;
use application::testing::matches_contract::KEPT;
use application::testing::moderation_contract::ModerationContract;
use application::testing::revocations_contract::RevocationsContract;
use application::testing::spent_tokens_contract::SpentTokensContract;
use application::testing::succession_contract::Both;
use application::testing::{archive_contract, matches_contract, succession_contract};
use domain::time::Wall;
use store_postgres::{
    Config, PostgresArchive, PostgresInbox, PostgresMatches, PostgresModeration,
    PostgresRevocations, PostgresSpentTokens, Sharing,
};
use tests::postgres::Postgres;

use crate::postgres_stores::{build, config};

const SPAN: Duration = Duration::from_secs(3_600);

/// Stores that are closed before the next one is made: a server has room for few sessions.
struct Series<'p> {
    postgres: &'p Postgres,
    sharing: Sharing,
    last: RefCell<Option<Arc<PostgresArchive>>>,
}

impl Series<'_> {
    async fn next(&self) -> Arc<PostgresArchive> {
        let last = self.last.borrow_mut().take();
        if let Some(last) = last {
            last.close().await;
        }
        let config = Config { sharing: self.sharing, ..config(self.postgres) };
        let store = build(config).await;
        *self.last.borrow_mut() = Some(Arc::clone(&store));
        store
    }
}

fn series(postgres: &Postgres, sharing: Sharing) -> Series<'_> {
    Series { postgres, sharing, last: RefCell::new(None) }
}

fn now() -> Wall {
    Wall::from_millis(1_700_000_000_000)
}

#[tokio::test]
async fn the_archive_keeps_the_contract() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    for sharing in [Sharing::Alone, Sharing::Shared] {
        let series = series(&postgres, sharing);
        archive_contract::all(async || series.next().await as Arc<dyn Archive>).await;
    }
}

#[tokio::test]
async fn the_archive_lets_epochs_follow_each_other() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let series = series(&postgres, Sharing::Shared);
    succession_contract::all(async || series.next().await as Arc<dyn Both>).await;
}

#[tokio::test]
async fn matches_keep_the_contract() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let series = series(&postgres, Sharing::Shared);
    let kept: MatchesKept = KEPT;
    matches_contract::all(async || PostgresMatches::new(series.next().await, kept)).await;
}

#[tokio::test]
async fn what_must_not_be_forgotten_keeps_its_contracts() {
    if !Postgres::is_here() {
        return;
    }
    let postgres = Postgres::start();
    let store = build(config(&postgres)).await;
    let revocations = PostgresRevocations::load(Arc::clone(&store), SPAN).await.unwrap();
    RevocationsContract { revocations: &revocations, span: SPAN, now: now() }.check().await;
    let spent_tokens = PostgresSpentTokens::load(Arc::clone(&store), 60).await.unwrap();
    let contract =
        SpentTokensContract { spent_tokens: &spent_tokens, entries_max: Some(60), now: now() };
    contract.check().await;
    let moderation = PostgresModeration::load(Arc::clone(&store)).await.unwrap();
    ModerationContract { moderation: &moderation }.check().await;
    let inbox = PostgresInbox::load(Arc::clone(&store)).await.unwrap();
    InboxContract { inbox: &inbox }.check().await;
    store.close().await;
}
