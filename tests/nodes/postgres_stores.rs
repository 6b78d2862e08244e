//! Stores on one Postgres, each in a schema of its own unless they are to share one.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use store_postgres::{Config, PostgresArchive};
use tests::postgres::Postgres;

/// How long anything here may take.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A name that no other test of this process has used.
pub(crate) fn fresh_schema() -> String {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    format!("s{}", NUMBERS.fetch_add(1, Ordering::Relaxed))
}

/// A store in a schema of its own.
pub(crate) fn config(postgres: &Postgres) -> Config {
    Config { schema: fresh_schema(), ..Config::new(postgres.url().into()) }
}

/// One that gives up soon on what does not answer.
pub(crate) fn impatient(postgres: &Postgres) -> Config {
    Config { answer_timeout: Duration::from_secs(1), ..config(postgres) }
}

pub(crate) async fn build(config: Config) -> Arc<PostgresArchive> {
    Arc::new(PostgresArchive::build(config).await.unwrap())
}

/// What comes of this, which must not take for ever.
pub(crate) async fn in_time<T>(what: &str, done: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, done).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < SOON, "in vain: {what}");
        tokio::task::yield_now().await;
    }
}
