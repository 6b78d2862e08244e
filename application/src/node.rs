//! The composition that a host calls: ports and rules in, shards and the server's own use cases
//! out.
//!
//! It holds no thread and no socket: a host runs each shard wherever it likes.

use core::net::IpAddr;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use domain::codes::{CloseCode, ErrorCode};
use domain::delivery::Class;
use domain::id::{ClientId, ConnectionId, MessageId, MessageKey, UserId};
use domain::position::Position;
use domain::presence::PresenceList;
use domain::revocation::Revocation;
use domain::room::RoomId;
use domain::tags::Tags;
use domain::trace::TraceParent;
use tokio::sync::SemaphorePermit;

use crate::directory::{Directory, Listing};
use crate::inquiry::{Of, Unanswered, Whom};
use crate::mailbox::{Control, Mailbox, NewServices};
use crate::metrics::NodeMetrics;
use crate::peer::ThisNode;
use crate::ports::{NoEntropy, Receipt, RevokeError, TokenVerifier};
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::services::{Ports, Rules, Services};
use crate::shard::Shard;
use crate::use_cases::ask_peers::{
    ConnectionsOfAll, OfAll, PlaceOfAll, begins_here, connections_of_all, end_on_all, rooms_of_all,
};
use crate::use_cases::broadcast_message::{BroadcastError, BroadcastMessage};
use crate::use_cases::check_bearer::CheckBearer;
use crate::use_cases::end_connections::EndConnections;
use crate::use_cases::list_connections::{ConnectionsPage, ListConnections};
use crate::use_cases::list_presence::list_members;
use crate::use_cases::list_rooms::{ListRooms, RoomsPage};
use crate::use_cases::read_history::{HistoryPage, read_page};

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
    /// By what members may choose it.
    pub tags: Tags,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
}

/// The one turn of a node to list something; letting go of it is the next one's turn.
#[derive(Debug)]
pub struct ListingTurn<'a> {
    _place: Option<SemaphorePermit<'a>>,
}

fn unknown_room() -> Refusal {
    Refusal::new(ErrorCode::UnknownRoom, "this server has no such namespace").field("room")
}

/// One node: see the module's text.
pub struct Node {
    /// Held to clone or to replace the `Arc`, never across anything that waits. Shards have theirs.
    services: RwLock<Arc<Services>>,
    mailboxes: Vec<Arc<Mailbox>>,
    listing: Listing,
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
        let mailboxes: Vec<_> = (0..n_shards)
            .map(|_| {
                let id = MAILBOXES.fetch_add(1, Ordering::Relaxed);
                Arc::new(Mailbox::new(id, publications_max).with_bytes_max(bytes_max))
            })
            .collect();
        let ends = mailboxes.clone();
        ports.seats.on_replaced(Box::new(move |connection| {
            for mailbox in &ends {
                mailbox.order(Control::Disconnect(connection, CloseCode::SessionReplaced));
            }
        }));
        let directory = Arc::new(Directory::default());
        ports.peers.serve(Arc::new(ThisNode {
            name: ports.peers.name(),
            directory: Arc::clone(&directory),
            mailboxes: mailboxes.clone(),
            moderation: ports.moderation.clone(),
            clock: Arc::clone(&ports.clock),
        }));
        let metrics = Arc::new(NodeMetrics::new(n_shards));
        let admission = Arc::default();
        let listing = directory.listing.clone();
        let mailboxes_of_all = mailboxes.clone();
        let services =
            Services { ports, rules, directory, mailboxes: mailboxes_of_all, metrics, admission };
        Self { services: RwLock::new(Arc::new(services)), mailboxes, listing }
    }

    /// What the shards share now.
    #[must_use]
    pub fn services(&self) -> Arc<Services> {
        Arc::clone(&self.services.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on under other rules and with another verifier of tokens, while connections stay. Each
    /// shard takes both at once, between two inputs; a command that is under way ends as it began.
    /// Limits of mailboxes and policies of rooms stay as they are: members and logs hold them.
    pub fn adopt(&self, rules: Rules, token_verifier: Arc<dyn TokenVerifier>) {
        // Held while the orders go out, so that of two changes every shard takes the same one last.
        let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Services::clone(&services);
        next.rules = Rules { policies: next.rules.policies, ..rules };
        next.ports.token_verifier = token_verifier;
        *services = Arc::new(next);
        self.order(&Control::Adopt(NewServices(Arc::clone(&services))));
    }

    /// Who is connected, and where.
    #[must_use]
    pub fn registry(&self) -> Registry {
        Registry::new(self.services())
    }

    /// The mailboxes, one per shard, in the order in which shards are numbered.
    #[must_use]
    pub fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.mailboxes
    }

    /// The shard behind a mailbox. A shard is not `Send`: call this on the thread that runs it.
    #[must_use]
    pub fn shard(services: &Arc<Services>, mailbox: &Arc<Mailbox>) -> Shard {
        let now = services.ports.clock.now();
        Shard::new(Arc::clone(services), Arc::clone(mailbox), now)
    }

    /// A fresh connection id.
    ///
    /// # Errors
    /// [`NoEntropy`] when none can be drawn; who wants one must come again.
    pub fn connection_id(&self) -> Result<ConnectionId, NoEntropy> {
        self.services().ports.entropy.bits().map(ConnectionId::from_bits)
    }

    /// Whether somebody who wants to connect has a token that counts, for endpoints that refuse others
    /// over HTTP. Nothing is counted or spent by it: the connection is authenticated once it is open.
    ///
    /// # Errors
    /// [`Refusal`] says why not; with [`ErrorCode::InvalidToken`] when there is no token that counts.
    pub async fn knows_bearer(
        &self,
        token: Option<String>,
        address: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let services = self.services();
        let bits = services.ports.entropy.bits();
        let bits = bits.map_err(|_| Refusal::unavailable(Duration::from_secs(1)))?;
        let connection = ConnectionId::from_bits(bits);
        let check = CheckBearer { services, connection, address, token };
        check.execute().await
    }

    /// Publishes for the server's own API, to each room in order.
    pub async fn publish(
        &self,
        publish: ApiPublish,
    ) -> Vec<(RoomId, Result<Receipt, BroadcastError>)> {
        let ApiPublish { key_name, rooms, data, class, key, msg_id, ttl, tags, trace } = publish;
        let services = self.services();
        let call = BroadcastMessage {
            services,
            key_name,
            rooms,
            data,
            class,
            key,
            msg_id,
            ttl,
            tags,
            trace,
        };
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

    /// Who is in a room, for the server's own API; at most [`Limits::presence_list_max`] of them.
    ///
    /// [`Limits::presence_list_max`]: crate::limits::Limits::presence_list_max
    ///
    /// # Errors
    /// [`Refusal`] says why there is no list.
    pub async fn members(&self, room: &RoomId) -> Result<PresenceList, Refusal> {
        let services = self.services();
        let policy = services.rules.policies.of(room).ok_or_else(unknown_room)?;
        let members_max = services.rules.limits.presence_list_max;
        Ok(list_members(&services, room, policy, members_max).await?)
    }

    /// A page of a room's log behind a position, for the server's own API; at most
    /// [`Limits::history_messages_max`] messages.
    ///
    /// [`Limits::history_messages_max`]: crate::limits::Limits::history_messages_max
    ///
    /// # Errors
    /// [`Refusal`] says why there is no page.
    pub async fn history(
        &self,
        room: &RoomId,
        since: Option<Position>,
        messages_max: u32,
    ) -> Result<HistoryPage, Refusal> {
        let services = self.services();
        let policy = services.rules.policies.of(room).ok_or_else(unknown_room)?;
        let messages_max = messages_max.min(services.rules.limits.history_messages_max);
        Ok(read_page(&services, room, policy, since, messages_max).await?)
    }

    /// Waits for the one turn to list: what is asked for here is found out by looking, and of that
    /// only so much is done at a time.
    pub async fn turn_to_list(&self) -> ListingTurn<'_> {
        // The semaphore is never closed; without a place there would be nobody else to wait for.
        ListingTurn { _place: self.listing.0.acquire().await.ok() }
    }

    /// A page of the rooms that have members here.
    ///
    /// # Errors
    /// [`Unanswered`] when a shard has ended. One that is stuck keeps this waiting.
    pub async fn rooms(
        &self,
        _turn: &ListingTurn<'_>,
        list: ListRooms,
    ) -> Result<RoomsPage, Unanswered> {
        list.execute(&self.mailboxes).await
    }

    /// A page of the connections that are let in.
    ///
    /// # Errors
    /// [`Unanswered`] when a shard has ended. One that is stuck keeps this waiting.
    pub async fn connections(
        &self,
        _turn: &ListingTurn<'_>,
        list: ListConnections,
    ) -> Result<ConnectionsPage, Unanswered> {
        list.execute(&self.mailboxes).await
    }

    /// A page of the rooms that have members on any node. Its turn must be over when others are asked: they
    /// may be asking this one.
    ///
    /// # Errors
    /// As for [`rooms`](Self::rooms).
    pub async fn rooms_of_all(
        &self,
        turn: ListingTurn<'_>,
        list: ListRooms,
    ) -> Result<OfAll<RoomsPage>, Unanswered> {
        let here = self.rooms(&turn, list.clone()).await?;
        drop(turn);
        Ok(rooms_of_all(&self.services().ports.peers, list, here).await)
    }

    /// A page of the connections that are let in, on any node.
    ///
    /// # Errors
    /// As for [`connections`](Self::connections).
    pub async fn connections_of_all(
        &self,
        turn: ListingTurn<'_>,
        of: Of,
        from: PlaceOfAll,
        connections_max: u32,
    ) -> Result<OfAll<ConnectionsOfAll>, Unanswered> {
        let peers = &self.services().ports.peers;
        let here = match begins_here(peers, &from) {
            Some(from) => {
                let list = ListConnections { of: of.clone(), from, connections_max };
                self.connections(&turn, list).await?
            }
            None => ConnectionsPage::default(),
        };
        drop(turn);
        Ok(connections_of_all(peers, of, from, connections_max, here).await)
    }

    /// Ends connections on all nodes and says how many there were.
    ///
    /// # Errors
    /// As for [`end_connections`](Self::end_connections); the other nodes are asked only once those here
    /// have ended.
    pub async fn end_on_all(
        &self,
        turn: ListingTurn<'_>,
        end: EndConnections,
    ) -> Result<OfAll<usize>, Unanswered> {
        let ended = self.end_connections(&turn, end.clone()).await?;
        drop(turn);
        Ok(end_on_all(&self.services().ports.peers, end, ended).await)
    }

    /// How many connections a user has, over all nodes where they can be asked.
    pub async fn connections_of(&self, user: &UserId) -> u32 {
        let services = self.services();
        let everywhere = services.ports.peers.connections_of(user).await;
        everywhere.unwrap_or_else(|| services.directory.connections_of(user))
    }

    /// Ends connections and says how many there were.
    ///
    /// # Errors
    /// [`Unanswered`] when a shard has ended. One that is stuck keeps this waiting.
    pub async fn end_connections(
        &self,
        _turn: &ListingTurn<'_>,
        end: EndConnections,
    ) -> Result<usize, Unanswered> {
        let directory = &self.services().directory;
        if matches!(&end.whom, Whom::User(user) if directory.connections_of(user) == 0) {
            return Ok(0);
        }
        end.execute(&self.mailboxes).await
    }

    /// Takes a token, all of a user's tokens up to a moment, or a connection back: it is remembered
    /// first, so that nobody comes back with it, and then whoever is there by it is closed with
    /// 3507, within a second.
    ///
    /// # Errors
    /// [`RevokeError::Full`] when nothing was done. After [`RevokeError::Storage`] it counts, but
    /// only until this node ends; try again.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), RevokeError> {
        let services = self.services();
        let ports = &services.ports;
        let mut adding = ports.revocations.add(&revocation, ports.clock.now().wall);
        // It counts before it is stored, and nobody stays because the disk is slow.
        let at_once = poll_fn(|cx| Poll::Ready(adding.as_mut().poll(cx))).await;
        if at_once != Poll::Ready(Err(RevokeError::Full)) {
            self.order(&Control::Revoke(revocation.clone()));
        }
        let added = match at_once {
            Poll::Ready(added) => added,
            Poll::Pending => adding.await,
        };
        services.metrics.edge.revocations.add((&added).into(), 1);
        added
    }

    /// Tells every connection to come back later, spread over `window`, and closes them.
    pub fn drain(&self, window: Duration) {
        let until = self.services().ports.clock.now().monotonic.after(window);
        self.order(&Control::Drain { until });
    }

    fn order(&self, control: &Control) {
        for mailbox in &self.mailboxes {
            mailbox.order(control.clone());
        }
    }
}
