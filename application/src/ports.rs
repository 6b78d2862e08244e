//! What the application needs from outside, named by the need.
//!
//! Temperature decides the shape: hot ports (per delivery or per frame) are synchronous and never
//! block; cold ports (at most once per inbound message, about to wait anyway) are `#[async_trait]`.
//! No port may name a technology, require `Clone` or have more than five methods.

pub mod archive;
pub mod authorizer;
pub mod broker;
pub mod clock;
pub mod erasure;
pub mod exposition;
pub mod inbox;
pub mod key_source;
pub mod matches;
pub mod moderation;
pub mod outbox;
pub mod peers;
pub mod presence;
pub mod revocations;
pub mod seats;
pub mod session_tickets;
pub mod spent_tokens;
pub mod succession;
pub mod token_verifier;

pub use archive::{Archive, ArchiveError, ArchivePage, ArchiveRecord, DedupKey, Forget, RoomHead};
pub use authorizer::{Authorizer, AuthorizerError, Question, Verdict};
pub use broker::{
    Broker, BrokerError, LogPage, PublishError, ReadLog, Receipt, RoomTop, SubscriptionToken,
};
pub use clock::{Clock, Entropy, NoEntropy};
pub use erasure::{EraseError, Erasure};
pub use exposition::Exposition;
pub use inbox::{Inbox, InboxError, Letter, LetterId, LetterLimits};
pub use key_source::{KeySource, KeySourceError};
pub use matches::{
    CreateMatchError, Created, Matches, MatchesAfter, MatchesKept, MatchesPage, NoMatches,
    ReadMatchesError, UpdateMatchError,
};
pub use moderation::{ActsOfAll, ActsPage, EntryId, Moderation, ReadEntriesError, RecordError};
pub use outbox::{Batch, Delivered, Outbox};
pub use peers::{
    Heard, KICK_COUNTS, NoPeers, NodeName, Peer, PeerAnswer, PeerQuestion, Peers, Word,
};
pub use presence::{Presence, PresenceError};
pub use revocations::{Revocations, RevokeError};
pub use seats::{EndReplaced, SeatError, Seats, Spread, Standing, Taken};
pub use session_tickets::{NoTickets, SessionTickets, TicketError};
pub use spent_tokens::{NoSpentTokens, SpendError, Spending, SpentTokens};
pub use succession::{Hole, Lives, LivesPage, Succession, Successor};
pub use token_verifier::{NoTokens, TokenError, TokenHint, TokenVerifier};
