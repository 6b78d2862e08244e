//! What all shards of a node share: the ports, the policies, the limits and the host's own rules.
//!
//! Nothing in here is changed after it is built: new rules come as another value, by an order that
//! each shard takes between two inputs (see [`Control::Adopt`](crate::mailbox::Control::Adopt)).

use std::sync::Arc;
use std::time::Duration;

use domain::connection::Timing;
use domain::drain::DrainMode;
use domain::matches::ConnectionsMax;
use domain::policy::Policies;

use crate::admission::Admission;
use crate::directory::Directory;
use crate::extensions::games::GameRegistry;
use crate::extensions::handlers::HandlerRegistry;
use crate::extensions::middleware::MiddlewareChain;
use crate::limits::Limits;
use crate::mailbox::Mailbox;
use crate::metrics::NodeMetrics;
use crate::ports::{
    Authorizer, Broker, Clock, Entropy, Erasure, Inbox, Matches, Moderation, NoMatches, NoPeers,
    NoSpentTokens, NoTickets, NoTokens, Peers, Presence, Revocations, Seats, SessionTickets,
    SpentTokens, TokenVerifier,
};
use crate::seats::NodeSeats;

/// The adapters a node runs on.
#[derive(Clone)]
pub struct Ports {
    /// Positions and delivers publications.
    pub broker: Arc<dyn Broker>,
    /// Knows who is where.
    pub presence: Arc<dyn Presence>,
    /// Tells who a token's bearer is.
    pub token_verifier: Arc<dyn TokenVerifier>,
    /// Lets those who were here before come back without a token.
    pub session_tickets: Arc<dyn SessionTickets>,
    /// Decides instead of token and policy; none leaves it to them. It should be one that always
    /// answers within a time, like `worker_tokio::BoundedAuthorizer`.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// Knows what was taken back.
    pub revocations: Arc<dyn Revocations>,
    /// Keeps what is said to users who are away; none keeps nothing for them.
    pub inbox: Option<Arc<dyn Inbox>>,
    /// Knows who is muted or banned; with none nobody can be.
    pub moderation: Option<Arc<dyn Moderation>>,
    /// Takes single messages out of logs; with none they stay.
    pub erasure: Option<Arc<dyn Erasure>>,
    /// Knows which tokens that count once are used up.
    pub spent_tokens: Arc<dyn SpentTokens>,
    /// Knows which connections may be there for a user.
    pub seats: Arc<dyn Seats>,
    /// The other nodes.
    pub peers: Arc<dyn Peers>,
    /// Remembers matches.
    pub matches: Arc<dyn Matches>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Draws random bits.
    pub entropy: Arc<dyn Entropy>,
}

impl Ports {
    /// The least that a node needs: nobody is known by a token, nobody comes back by a ticket, no
    /// token counts once, policies decide, nobody moderates, neither letters nor matches are kept, and
    /// there are no other nodes.
    /// What a host has more of it sets itself.
    #[must_use]
    pub fn new<B: Broker + Presence + 'static>(
        broker: Arc<B>,
        revocations: Arc<dyn Revocations>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            presence: Arc::clone(&broker) as _,
            broker,
            token_verifier: Arc::new(NoTokens),
            session_tickets: Arc::new(NoTickets),
            authorizer: None,
            revocations,
            inbox: None,
            moderation: None,
            erasure: None,
            spent_tokens: Arc::new(NoSpentTokens),
            seats: Arc::new(NodeSeats::default()),
            peers: Arc::new(NoPeers),
            matches: Arc::new(NoMatches),
            clock,
            entropy,
        }
    }
}

/// The rules of a node.
#[derive(Clone, Default)]
pub struct Rules {
    /// What namespaces allow and keep.
    pub policies: Policies,
    /// What clients can't grow beyond.
    pub limits: Limits,
    /// The intervals of a connection's life.
    pub timing: Timing,
    /// The same on `/ws/game`, `/ws/chat`, `/ws/combat` and `/ws/world`.
    pub channel_timing: Timing,
    /// Whether a connection without a token is let in.
    pub allow_anonymous: bool,
    /// Whether a user has one connection only, the newest: it ends all others with 3505, and they may do
    /// nothing any more. [`Limits::connections_per_user_max`] is of no interest then.
    pub single_session: bool,
    /// Whether a connection is in the room of its own user, `user:<id>`, without asking.
    pub join_user_room: bool,
    /// Whether a client whose command is denied is told which rule did; for development.
    pub explains_denials: bool,
    /// How often the authorizer is asked again for the rooms that a connection is in; none asks
    /// only when a token is refreshed. Without an authorizer nothing can have changed.
    pub revalidate_interval: Option<Duration>,
    /// What a host wants asked first.
    pub middleware: MiddlewareChain,
    /// What a host wants done with message types of its own.
    pub handlers: HandlerRegistry,
    /// What a host wants done with the messages of its matches, by the type of their game.
    pub games: GameRegistry,
    /// The most connections of a match that names no number of its own.
    pub match_connections_max: ConnectionsMax,
    /// How a node that stops parts with its clients.
    pub drain_mode: DrainMode,
}

/// Ports and rules together, shared by all shards and cold calls of a node.
#[derive(Clone)]
pub struct Services {
    /// The adapters.
    pub ports: Ports,
    /// The rules.
    pub rules: Rules,
    /// How many connections each user has.
    pub directory: Arc<Directory>,
    /// The mailboxes of this node's shards: a publisher waits while one of them is crowded, so
    /// that a flood slows its source rather than tearing holes.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// What the node counts about itself; its shards in the order of their mailboxes.
    pub metrics: Arc<NodeMetrics>,
    /// Whether newcomers are let in; without a watch on the memory, they are.
    pub admission: Arc<Admission>,
}
