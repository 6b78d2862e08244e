//! The composition that a host calls: ports and rules in, shards and the server's own use cases
//! out.
//!
//! It holds no thread and no socket: a host runs each shard wherever it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use domain::codes::CloseCode;
use domain::delivery::Class;
use domain::id::{ClientId, ConnectionId, MessageId, MessageKey, UserId};
use domain::room::RoomId;

use crate::directory::Directory;
use crate::mailbox::{Control, Mailbox};
use crate::ports::Receipt;
use crate::services::{Ports, Rules, Services};
use crate::shard::Shard;
use crate::use_cases::broadcast_message::{BroadcastError, BroadcastMessage};

/// A publish by the server's own API.
#[derive(Clone, Debug)]
pub struct ApiPublish {
    /// The name of the key that allowed it; its `msg_id`s are its own.
    pub key_name: ClientId,
    /// Where to.
    pub rooms: Vec<RoomId>,
    /// The published JSON.
    pub data: Bytes,
    /// How it is delivered; none takes each room's default.
    pub class: Option<Class>,
    /// What it replaces.
    pub key: Option<MessageKey>,
    /// The caller's name for it.
    pub msg_id: Option<MessageId>,
    /// How long it may be delivered.
    pub ttl: Option<Duration>,
}

/// One node: see the module's text.
pub struct Node {
    services: Arc<Services>,
}

/// Mailboxes are told apart within one process, so that two nodes of a simulation can share a
/// broker.
static MAILBOXES: AtomicU64 = AtomicU64::new(1);

impl Node {
    /// Puts a node together. It has as many shards as the host means to run, and each must be
    /// run.
    #[must_use]
    pub fn build(ports: Ports, rules: Rules, n_shards: usize) -> Self {
        let publications_max = rules.limits.mailbox_publications_max;
        let bytes_max = rules.limits.mailbox_bytes_max;
        let mailboxes = (0..n_shards)
            .map(|_| {
                let id = MAILBOXES.fetch_add(1, Ordering::Relaxed);
                Arc::new(Mailbox::new(id, publications_max).with_bytes_max(bytes_max))
            })
            .collect();
        let directory = Arc::new(Directory::default());
        Self { services: Arc::new(Services { ports, rules, directory, mailboxes }) }
    }

    /// What the shards share.
    #[must_use]
    pub const fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// The mailboxes, one per shard, in the order in which shards are numbered.
    #[must_use]
    pub fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.services.mailboxes
    }

    /// The shard behind a mailbox. A shard is not `Send`: call this on the thread that runs it.
    #[must_use]
    pub fn shard(services: &Arc<Services>, mailbox: &Arc<Mailbox>) -> Shard {
        let now = services.ports.clock.now();
        Shard::new(Arc::clone(services), Arc::clone(mailbox), now)
    }

    /// A fresh connection id.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        ConnectionId::from_bits(self.services.ports.entropy.bits())
    }

    /// Publishes for the server's own API, to each room in order.
    pub async fn publish(
        &self,
        publish: ApiPublish,
    ) -> Vec<(RoomId, Result<Receipt, BroadcastError>)> {
        let ApiPublish { key_name, rooms, data, class, key, msg_id, ttl } = publish;
        let services = Arc::clone(&self.services);
        let call = BroadcastMessage { services, key_name, rooms, data, class, key, msg_id, ttl };
        call.execute().await
    }

    /// Ends one connection, on whichever shard it is.
    pub fn disconnect(&self, connection: ConnectionId, code: CloseCode) {
        self.order(&Control::Disconnect(connection, code));
    }

    /// Ends all connections of a user.
    pub fn disconnect_user(&self, user: &UserId, code: CloseCode) {
        self.order(&Control::DisconnectUser(user.clone(), code));
    }

    /// Tells every connection to come back later, spread over `window`, and closes them.
    pub fn drain(&self, window: Duration) {
        let until = self.services.ports.clock.now().monotonic.after(window);
        self.order(&Control::Drain { until });
    }

    fn order(&self, control: &Control) {
        for mailbox in &self.services.mailboxes {
            mailbox.order(control.clone());
        }
    }
}
