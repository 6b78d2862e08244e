//! Durable rooms on Redis against the contracts that all rooms keep.

use std::future::Future;
use std::sync::Arc;

use application::ports::Broker;
use application::testing::erasure_contract::ErasureContract;
use tests::redis::Redis;

use crate::brokers::{Alone, in_time};

async fn alone() -> Arc<dyn Broker> {
    Alone::start_durable().await
}

async fn where_redis_is(part: impl Future<Output = ()>) {
    if Redis::is_here() {
        in_time("the contract", part).await;
    }
}

application::broker_contract_tests!(
    super::durable_contract::alone,
    super::durable_contract::where_redis_is
);

#[tokio::test]
async fn erasures_keep_the_contract() {
    if !Redis::is_here() {
        return;
    }
    let broker = Alone::start_durable().await;
    let contract = ErasureContract { broker: &*broker, erasure: &*broker, durable: true };
    in_time("the contract", contract.check()).await;
}
