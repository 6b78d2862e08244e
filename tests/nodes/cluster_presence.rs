//! Presence on a Cluster against the contract of its port.

use std::future::Future;
use std::sync::Arc;

use application::ports::{Broker, Presence};
use tests::redis::Redis;
use tests::redis_many::Shards;

use crate::brokers::{Alone, in_time};

async fn alone() -> (Arc<dyn Broker>, Arc<dyn Presence>) {
    let shards = Shards::start();
    let both = Alone::with(shards.url(), shards).await;
    (Arc::clone(&both) as _, both)
}

async fn where_redis_is(part: impl Future<Output = ()>) {
    if Redis::is_here() {
        in_time("the contract", part).await;
    }
}

application::presence_contract_tests!(
    super::cluster_presence::alone,
    super::cluster_presence::where_redis_is
);
