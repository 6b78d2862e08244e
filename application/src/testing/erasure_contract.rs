//! The contract of the `erasure` port, beside the broker whose logs it changes.
//!
//! It knows both ports only; nothing here may depend on where a log is.
#![allow(clippy::unwrap_used, reason = "a contract suite is a test")]

use std::sync::Arc;

use domain::id::Epoch;
use domain::message::TombstoneReason;
use domain::policy::NamespacePolicy;
use domain::position::{Offset, Position};
use domain::retention::Retention;
use domain::room::RoomId;

use crate::ports::{Broker, EraseError, Erasure, ReadLog};
use crate::published::Published;
use crate::testing::broker_contract::{at, named, policy, publish, room};

/// A broker without rooms, and its other side.
pub struct ErasureContract<'c> {
    /// Publishes and reads.
    pub broker: &'c dyn Broker,
    /// What is under test.
    pub erasure: &'c dyn Erasure,
    /// Whether rooms are durable.
    pub durable: bool,
}

impl ErasureContract<'_> {
    /// Checks everything below.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn check(&self) {
        self.an_erased_message_leaves_its_place_and_nothing_else_changes().await;
        self.what_the_log_does_not_have_is_unknown().await;
        self.an_erased_message_is_known_by_its_name_still().await;
    }

    fn policy(&self) -> Arc<NamespacePolicy> {
        let policy = policy(Retention::default());
        Arc::new(NamespacePolicy { durable: self.durable, ..NamespacePolicy::clone(&policy) })
    }

    async fn fill(&self, name: &str) -> Epoch {
        let mut epoch = None;
        for n in 1..=3 {
            let publish = named(publish(name, "u1", &format!("m{n}")), &format!("id{n}"));
            epoch = Some(self.broker.publish(publish, &self.policy()).await.unwrap().epoch);
        }
        epoch.unwrap()
    }

    async fn read(&self, room: &RoomId) -> Vec<Arc<Published>> {
        let read =
            ReadLog { after: Offset::ZERO, messages_max: 10, bytes_max: 1 << 20, now: at(1) };
        self.broker.read(room, &self.policy(), read).await.unwrap().messages
    }

    async fn erase(&self, room: &RoomId, epoch: Epoch, offset: u64) -> Result<(), EraseError> {
        let position = Position { epoch, offset: Offset::parse(offset).unwrap() };
        self.erasure.erase(room, &self.policy(), position).await
    }

    /// Once and again; others stay what they are.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn an_erased_message_leaves_its_place_and_nothing_else_changes(&self) {
        let epoch = self.fill("public:a").await;
        let before = self.read(&room("public:a")).await;
        for _ in 0..2 {
            assert_eq!(self.erase(&room("public:a"), epoch, 2).await, Ok(()));
            let after = self.read(&room("public:a")).await;
            let erased = before[1].publication.clone().into_tombstone(TombstoneReason::Deleted);
            assert_eq!(after.len(), 3);
            assert_eq!(after[1].publication, erased);
            for n in [0, 2] {
                assert_eq!(after[n].publication, before[n].publication);
            }
        }
        // What comes after it has the next place.
        let next = publish("public:a", "u1", "m4");
        let receipt = self.broker.publish(next, &self.policy()).await.unwrap();
        assert_eq!((receipt.epoch, receipt.offset), (epoch, Offset::parse(4).ok()));
    }

    /// A room without messages, another epoch, a place that nobody was given.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn what_the_log_does_not_have_is_unknown(&self) {
        let epoch = self.fill("public:b").await;
        let unknown = Err(EraseError::Unknown);
        assert_eq!(self.erase(&room("public:none"), epoch, 1).await, unknown);
        let other = Epoch::from_bits(epoch.bits() ^ 1);
        assert_eq!(self.erase(&room("public:b"), other, 1).await, unknown);
        assert_eq!(self.erase(&room("public:b"), epoch, 4).await, unknown);
        let all = self.read(&room("public:b")).await;
        assert!(all.iter().all(|published| published.publication.tombstone.is_none()));
    }

    /// Who says it again is told that it was said: a retry must not bring it back.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn an_erased_message_is_known_by_its_name_still(&self) {
        let epoch = self.fill("public:c").await;
        assert_eq!(self.erase(&room("public:c"), epoch, 1).await, Ok(()));
        let again = named(publish("public:c", "u1", "m1"), "id1");
        let receipt = self.broker.publish(again, &self.policy()).await.unwrap();
        assert!(receipt.duplicate);
        assert_eq!(self.read(&room("public:c")).await.len(), 3);
    }
}
