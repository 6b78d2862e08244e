//! Presence on Redis against the contract of its port.

use std::future::Future;
use std::sync::Arc;

use application::ports::{Broker, Presence};
use tests::redis::Redis;

use crate::brokers::{Alone, in_time};

async fn alone() -> (Arc<dyn Broker>, Arc<dyn Presence>) {
    let both = Alone::start().await;
    (Arc::clone(&both) as _, both)
}

async fn where_redis_is(part: impl Future<Output = ()>) {
    if Redis::is_here() {
        in_time("the contract", part).await;
    }
}

application::presence_contract_tests!(
    super::presence_contract::alone,
    super::presence_contract::where_redis_is
);
