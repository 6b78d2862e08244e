//! The in-memory broker and presence against the contracts of their ports.

use std::sync::Arc;

use application::ports::{Broker, Presence};
use application::testing::erasure_contract::ErasureContract;
use application::testing::matches_contract;
use application::testing::revocations_contract::RevocationsContract;
use application::testing::spent_tokens_contract::SpentTokensContract;
use broker_memory::{Config, MemoryBroker};

use crate::support::{Counter, DurableEverywhere, MemoArchive};

fn memory() -> Arc<MemoryBroker> {
    MemoryBroker::build(Config::default(), Arc::new(Counter::default()), None)
}

async fn broker() -> Arc<dyn Broker> {
    memory()
}

async fn presence() -> (Arc<dyn Broker>, Arc<dyn Presence>) {
    let both = memory();
    (Arc::clone(&both) as Arc<dyn Broker>, both)
}

async fn durable() -> Arc<dyn Broker> {
    let archive = Arc::new(MemoArchive::default());
    let broker =
        MemoryBroker::build(Config::default(), Arc::new(Counter::default()), Some(archive));
    tokio::spawn(Arc::clone(&broker).run_committer());
    Arc::new(DurableEverywhere(broker))
}

mod in_memory {
    application::broker_contract_tests!(super::broker, crate::support::within_a_minute);
}

mod in_memory_presence {
    application::presence_contract_tests!(super::presence, crate::support::within_a_minute);
}

/// The same with every room in an archive. What retention keeps is the archive's matter there.
mod through_the_archive {
    application::broker_contract_tests!(super::durable, crate::support::within_a_minute;
        publications_get_offsets_without_holes_in_one_epoch
        an_answered_publish_is_in_the_log
        every_mailbox_gets_what_was_published_byte_for_byte
        two_mailboxes_see_one_order
        concurrent_publishers_see_one_total_order
        a_repeated_msg_id_answers_the_first_position_and_is_not_delivered_again
        msg_ids_of_other_publishers_or_rooms_do_not_meet
        a_publish_without_msg_id_is_never_a_duplicate
        everything_behind_the_answered_position_arrives
        subscribing_again_keeps_one_subscription
        ending_an_older_subscription_changes_nothing
        pages_have_no_holes_and_say_whether_more_follows
        a_page_keeps_its_byte_limit_but_holds_at_least_one_message
        a_position_at_or_ahead_of_the_top_reads_nothing
        an_expired_message_is_read_as_its_tombstone
        a_message_without_position_is_delivered_and_not_logged
        the_newest_of_each_key_meets_who_subscribes
        rooms_do_not_mix
    );
}

#[tokio::test]
async fn revocations_in_memory_keep_the_contract() {
    let span = std::time::Duration::from_secs(3_600);
    let revocations = broker_memory::MemoryRevocations::new(span);
    let now = domain::time::Wall::from_millis(1_700_000_000_000);
    RevocationsContract { revocations: &revocations, span, now }.check().await;
}

#[tokio::test]
async fn spent_tokens_in_memory_keep_the_contract() {
    let spent_tokens = broker_memory::MemorySpentTokens::new(100);
    let now = domain::time::Wall::from_millis(1_700_000_000_000);
    SpentTokensContract { spent_tokens: &spent_tokens, entries_max: Some(100), now }.check().await;
}

#[tokio::test]
async fn matches_in_memory_keep_the_contract() {
    matches_contract::all(async || broker_memory::MemoryMatches::new(matches_contract::KEPT)).await;
}

async fn erasures_keep_the_contract(durable: bool, archive: Option<Arc<MemoArchive>>) {
    let archive = archive.map(|archive| archive as Arc<dyn application::ports::Archive>);
    let broker = MemoryBroker::build(Config::default(), Arc::new(Counter::default()), archive);
    tokio::spawn(Arc::clone(&broker).run_committer());
    let contract = ErasureContract { broker: &*broker, erasure: &*broker, durable };
    crate::support::within_a_minute(contract.check()).await;
}

#[tokio::test]
async fn erasures_in_memory_keep_the_contract() {
    erasures_keep_the_contract(false, None).await;
}

#[tokio::test]
async fn erasures_through_the_archive_keep_the_contract() {
    erasures_keep_the_contract(true, Some(Arc::new(MemoArchive::default()))).await;
}
