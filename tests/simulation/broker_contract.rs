//! The simulated broker, and the presence beside it, against the contracts of their ports, in fine weather:
//! what a seed takes away from the contract is what its weather says, and nothing else.
//!
//! Left out of the broker's contract is what is about patterns of rooms: no client of a simulation follows
//! one, and [`SimBroker`] refuses to be asked to watch any.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use application::mailbox::Mailbox;
use application::ports::{
    Broker, BrokerError, LogPage, Presence, PublishError, ReadLog, Receipt, RoomTop,
    SubscriptionToken,
};
use async_trait::async_trait;
use domain::id::Epoch;
use domain::message::Publish;
use domain::policy::{AckLevel, NamespacePolicy};
use domain::principal::RoomPattern;
use domain::room::RoomId;

use crate::broker::{Outgoing, SimBroker, SimRoom};
use crate::ports::{Core, Shared, SimPresence};
use crate::rng::Rng;

/// More milliseconds than any part of a contract takes.
const MOMENTS_MAX: u64 = 1_000_000;

type Mailboxes = Arc<Mutex<BTreeMap<u64, Arc<Mailbox>>>>;

/// What a world has beside the broker: time, and a way for mail.
#[derive(Clone)]
struct Surroundings {
    core: Shared,
    mailboxes: Mailboxes,
}

thread_local! {
    /// Of the test that runs on this thread.
    static SURROUNDINGS: RefCell<Option<Surroundings>> = const { RefCell::new(None) };
}

/// The broker, which knows its mailboxes by their numbers only.
struct Hosted {
    broker: SimBroker,
    mailboxes: Mailboxes,
}

#[async_trait]
impl Broker for Hosted {
    async fn publish(
        &self,
        publish: Publish,
        policy: &Arc<NamespacePolicy>,
    ) -> Result<Receipt, PublishError> {
        self.broker.publish(publish, policy).await
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
        self.mailboxes.lock().unwrap().insert(mailbox.id(), Arc::clone(mailbox));
        self.broker.subscribe(room, policy, mailbox, token).await
    }

    async fn unsubscribe(&self, room: &RoomId, mailbox: &Arc<Mailbox>, token: SubscriptionToken) {
        self.broker.unsubscribe(room, mailbox, token).await;
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
        self.broker.read(room, policy, read).await
    }
}

/// A core with the rooms that the contracts speak of; retention is the policies' alone.
fn surroundings() -> Surroundings {
    let mut core = Core::new(Rng::new(5));
    for (number, name) in (1..).zip(["public:a", "public:b"]) {
        let room = SimRoom::new(Epoch::from_bits(number), u32::MAX);
        core.rooms.insert(RoomId::parse(name).unwrap(), room);
    }
    let made = Surroundings { core: Shared::new(core), mailboxes: Mailboxes::default() };
    SURROUNDINGS.set(Some(made.clone()));
    made
}

async fn broker() -> Arc<dyn Broker> {
    let Surroundings { core, mailboxes } = surroundings();
    Arc::new(Hosted { broker: SimBroker { core, node: 0, over: None }, mailboxes })
}

async fn presence() -> (Arc<dyn Broker>, Arc<dyn Presence>) {
    let Surroundings { core, mailboxes } = surroundings();
    let presence = Arc::new(SimPresence { core: core.clone(), node: 0 });
    (Arc::new(Hosted { broker: SimBroker { core, node: 0, over: None }, mailboxes }), presence)
}

/// Polls in each millisecond, in which what is due arrives as in a world.
async fn while_time_passes(contract: impl Future<Output = ()>) {
    let mut contract = pin!(contract);
    let mut on_the_way = BTreeMap::new();
    for moment in 0..MOMENTS_MAX {
        let polled = poll_fn(|context| Poll::Ready(contract.as_mut().poll(context))).await;
        if polled.is_ready() {
            return;
        }
        let Surroundings { core, mailboxes } =
            SURROUNDINGS.with_borrow(Clone::clone).expect("the contract has asked for its broker");
        let mut core = core.lock();
        for (number, outgoing) in core.outgoing.drain(..).enumerate() {
            on_the_way.insert((outgoing.arrives_ms, moment, number), outgoing);
        }
        core.now_ms += 1;
        let later = on_the_way.split_off(&(core.now_ms + 1, 0, 0));
        for arrived in std::mem::replace(&mut on_the_way, later).into_values() {
            if !core.is_left_over(&arrived) {
                let Outgoing { mailbox, mail, .. } = arrived;
                mailboxes.lock().unwrap()[&mailbox].put(mail);
            }
        }
    }
    panic!("it waits for what does not come");
}

mod broker_in_fine_weather {
    application::broker_contract_tests!(super::broker, super::while_time_passes, without patterns);
}

mod presence_in_fine_weather {
    application::presence_contract_tests!(super::presence, super::while_time_passes);
}
