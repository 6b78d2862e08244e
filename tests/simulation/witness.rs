//! The real in-memory broker with a witness: what it says about positions becomes the checker's
//! truth.
//!
//! The witness adds no delay and no fault, and it must never mend what the broker says. Of a
//! durable room only the disk says what is in its log; of any other, the receipts do.

use std::sync::Arc;

use application::mailbox::Mailbox;
use application::ports::archive::ArchiveRecord;
use application::ports::{
    Broker, BrokerError, LogPage, PublishError, ReadLog, Receipt, RoomTop, SubscriptionToken,
};
use application::published::Published;
use async_trait::async_trait;
use broker_memory::MemoryBroker;
use domain::id::Epoch;
use domain::message::{Publication, Publish};
use domain::policy::{AckLevel, NamespacePolicy};
use domain::position::Offset;
use domain::principal::RoomPattern;
use domain::room::RoomId;

use crate::broker::Life;
use crate::checker::Violation;
use crate::faults::Effect;
use crate::ports::{Core, Shared};

pub(crate) struct Witness {
    pub(crate) broker: Arc<MemoryBroker>,
    pub(crate) core: Shared,
}

impl Core {
    fn accuse(&mut self, invariant: &'static str, text: String) {
        self.violation.get_or_insert_with(|| Violation::new(invariant, text));
    }

    /// The disk says under which epoch a durable room's log goes on.
    pub(crate) fn on_opened(&mut self, room: &RoomId, epoch: Epoch) {
        let Some(sim) = self.rooms.get_mut(room) else { return };
        if sim.lives.is_empty() {
            sim.lives.push(Life { epoch, messages: Vec::new() });
        } else if sim.last() > 0 {
            self.counts.effect(Effect::LogKept);
        }
    }

    /// The disk has stored a batch: from now on its messages are in the log for ever.
    pub(crate) fn on_stored(&mut self, records: Vec<ArchiveRecord>) {
        for ArchiveRecord { publication, .. } in records {
            let room = publication.room.clone();
            let Some(sim) = self.rooms.get_mut(&room) else { return };
            // A name goes with its message when retention trims it; only the process that gave the
            // message its place knows it for longer.
            let here = (sim.last() + 1, sim.process);
            let earlier = sim.stored.insert(publication.data.clone(), here);
            let twice = earlier
                .is_some_and(|(offset, process)| offset >= sim.first || process == sim.process);
            let next = (sim.life().epoch, Offset::parse(sim.last() + 1).ok());
            let place = (publication.epoch, publication.offset);
            sim.push(Arc::new(Published::new(publication)));
            if twice {
                self.accuse("I6", format!("{room} stands twice in the log"));
            }
            if place != next {
                self.accuse("I8", format!("{room} stored {place:?} where {next:?} is next"));
            }
        }
    }

    /// The archive takes no offset twice, so it was asked to.
    pub(crate) fn on_refused_append(&mut self, error: &str) {
        self.accuse("I8", format!("an offset or a name is used again: {error}"));
    }

    /// The broker has told an epoch to somebody.
    fn on_epoch(&mut self, room: &RoomId, epoch: Epoch, policy: &NamespacePolicy) {
        let Some(sim) = self.rooms.get_mut(room) else { return };
        if sim.number_of(epoch).is_some() {
            return;
        }
        if policy.durable {
            let text = format!("{room} is told to have the epoch {epoch:?}, which no log has");
            return self.accuse("I8 (durable)", text);
        }
        sim.lose_log(epoch);
    }

    /// The broker has answered a publish that it had not taken before.
    fn on_receipt(&mut self, publish: Publish, receipt: &Receipt, policy: &NamespacePolicy) {
        self.on_epoch(&publish.room, receipt.epoch, policy);
        let room = publish.room.clone();
        let Some(sim) = self.rooms.get_mut(&room) else { return };
        let positioned = publish.class.is_positioned();
        if receipt.duplicate || (positioned && policy.durable) {
            return;
        }
        let next = positioned.then(|| Offset::parse(sim.last() + 1).ok()).flatten();
        let said = if policy.durable { &mut sim.said_in_memory } else { &mut sim.said };
        let twice = !said.insert(publish.data.clone());
        let published = Arc::new(Published::new(Publication {
            room: publish.room,
            epoch: receipt.epoch,
            offset: receipt.offset,
            class: publish.class,
            key: publish.key.clone(),
            sender: publish.sender,
            tags: publish.tags,
            data: publish.data,
            origin: publish.origin,
            at: publish.at,
            expires_at: publish.ttl.map(|ttl| publish.at.after(ttl)),
            tombstone: None,
        }));
        if positioned {
            sim.push(published);
        } else if let Some(key) = publish.key {
            sim.set_newest(Some(key), published);
        }
        if twice {
            self.accuse("I6", format!("{room} stands twice in the log"));
        }
        if receipt.offset != next {
            self.accuse("I8", format!("{room} gave out {:?}, not {next:?}", receipt.offset));
        }
    }
}

#[async_trait]
impl Broker for Witness {
    async fn publish(
        &self,
        publish: Publish,
        policy: &Arc<NamespacePolicy>,
    ) -> Result<Receipt, PublishError> {
        {
            let mut core = self.core.lock();
            core.vouch(&publish);
            core.on_spoken(&publish);
        }
        let receipt = self.broker.publish(publish.clone(), policy).await?;
        // In the same step as the delivery, or the commit was before it.
        self.core.lock().on_receipt(publish, &receipt, policy);
        Ok(receipt)
    }

    fn level_of_delivery(&self, policy: &NamespacePolicy) -> Option<AckLevel> {
        self.broker.level_of_delivery(policy)
    }

    async fn subscribe(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        mailbox: &Arc<Mailbox>,
        token: SubscriptionToken,
    ) -> Result<RoomTop, BrokerError> {
        let top = self.broker.subscribe(room, policy, mailbox, token).await?;
        let mut core = self.core.lock();
        core.on_epoch(room, top.bounds.epoch, policy);
        core.on_subscribed(room, mailbox, token);
        Ok(top)
    }

    async fn unsubscribe(&self, room: &RoomId, mailbox: &Arc<Mailbox>, token: SubscriptionToken) {
        self.broker.unsubscribe(room, mailbox, token).await;
        self.core.lock().on_unsubscribed(room, mailbox, token);
    }

    async fn watch(
        &self,
        mailbox: &Arc<Mailbox>,
        patterns: &[RoomPattern],
        version: u64,
    ) -> Result<(), BrokerError> {
        self.broker.watch(mailbox, patterns, version).await
    }

    async fn read(
        &self,
        room: &RoomId,
        policy: &Arc<NamespacePolicy>,
        read: ReadLog,
    ) -> Result<LogPage, BrokerError> {
        let page = self.broker.read(room, policy, read).await?;
        self.core.lock().on_epoch(room, page.bounds.epoch, policy);
        Ok(page)
    }
}
