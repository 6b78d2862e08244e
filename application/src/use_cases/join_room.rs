//! Makes a connection a member of a room: subscribes the shard, enters presence, and reads what
//! the client missed.
//!
//! The order matters: subscribe first, read second, so that no message falls between the log and
//! the live stream. It must never subscribe for somebody who may not.

use std::sync::Arc;

use domain::codes::ErrorCode;
use domain::documents::told::Endpoint;
use domain::filter::Filter;
use domain::matches::{MatchId, Phase};
use domain::policy::NamespacePolicy;
use domain::position::Position;
use domain::presence::PresenceKey;
use domain::principal::Action;
use domain::recovery::{Gap, GapReason};
use domain::room::RoomId;
use thiserror::Error;

use crate::extensions::middleware::{Inbound, Who};
use crate::mailbox::Mailbox;
use crate::planted::{Mistake, is_planted};
use crate::ports::{BrokerError, PresenceError, SubscriptionToken};
use crate::published::Published;
use crate::refusal::Refusal;
use crate::services::Services;
use crate::use_cases::authorize::{NotAllowed, authorize};
use crate::use_cases::recover_room::{RecoverRoom, RecoveredPage};
use crate::view::View;

/// A connection that wants to be a member.
pub struct JoinRoom {
    /// The node's services.
    pub services: Arc<Services>,
    /// Who joins.
    pub who: Arc<Who>,
    /// The room.
    pub room: RoomId,
    /// Its policy.
    pub policy: Arc<NamespacePolicy>,
    /// What the client has; none begins with what comes next.
    pub since: Option<Position>,
    /// Whether the client wants to follow who comes and goes.
    pub presence: bool,
    /// Which messages the client wants; none means all.
    pub filter: Option<Filter>,
    /// Where the shard gets its mail.
    pub mailbox: Arc<Mailbox>,
    /// The shard's subscription.
    pub token: SubscriptionToken,
    /// The most bytes of data to read of what it missed; at least one message is read.
    pub bytes_max: usize,
    /// Why there is no place for it; then it is only asked whether it may know that.
    pub full: Option<Refusal>,
}

/// What the new member begins with.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Where the room stood when the shard's subscription took effect.
    pub top: Position,
    /// What it missed, or where the room stands if it named no position.
    pub page: RecoveredPage,
    /// Whether everything it missed is there or follows.
    pub recovered: bool,
    /// The newest `latest` message of each key.
    pub latest: Vec<Arc<Published>>,
    /// Whether they come with the next page instead of this one. When the log has no more, that
    /// page is not read from it: a room without history would answer a gap for what the member is
    /// about to get live.
    pub latest_later: bool,
}

impl Joined {
    /// Cuts what the member begins with to what fits in `bytes_left` bytes of encoded messages,
    /// and takes from them what it needs; the rest is read again as a page.
    pub fn fit(&mut self, bytes_left: &mut usize) {
        let mut takes = |published: &Arc<Published>| {
            let bytes = published.message().len();
            let fits = bytes <= *bytes_left;
            *bytes_left -= if fits { bytes } else { 0 };
            fits
        };
        let n_fitting = self.page.messages.iter().take_while(|published| takes(published)).count();
        if let Some(first) = self.page.messages.get(n_fitting) {
            // The first that does not fit is the next one to be read.
            if let Some(offset) = first.publication.offset {
                self.page.reached.offset = offset.previous();
            }
            self.page.messages.truncate(n_fitting);
            self.page.more = true;
        }
        let bytes: usize = self.latest.iter().map(|published| published.message().len()).sum();
        self.latest_later = bytes > *bytes_left;
        *bytes_left -= if self.latest_later { 0 } else { bytes };
    }
}

/// Why a connection is not a member.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum JoinRefused {
    /// It may not be done.
    #[error("not allowed")]
    NotAllowed(#[source] NotAllowed),
    /// All seats are taken, or all places for filters.
    #[error("the room is full")]
    Full(Refusal),
    /// A middleware refused.
    #[error("a middleware refused the message")]
    Middleware(Refusal),
    /// The broker did not answer.
    #[error("the broker did not answer")]
    Broker(#[source] BrokerError),
    /// Presence did not answer.
    #[error("presence did not answer")]
    Presence(#[source] PresenceError),
}

impl From<JoinRefused> for Refusal {
    fn from(error: JoinRefused) -> Self {
        match error {
            JoinRefused::NotAllowed(error) => error.into(),
            JoinRefused::Full(refusal) => refusal,
            JoinRefused::Middleware(refusal) => refusal,
            JoinRefused::Broker(BrokerError::Unavailable { retry_after })
            | JoinRefused::Presence(PresenceError::Unavailable { retry_after }) => {
                Self::unavailable(retry_after)
            }
            JoinRefused::Presence(PresenceError::NotPresent) => Self::internal(),
        }
    }
}

/// Under which name a connection is listed.
#[must_use]
pub fn presence_key(who: &Who) -> PresenceKey {
    match &who.principal.user {
        Some(user) => PresenceKey::User(user.clone()),
        None => PresenceKey::Anonymous(who.connection),
    }
}

impl JoinRoom {
    /// Checks, subscribes, enters and reads.
    ///
    /// # Errors
    /// [`JoinRefused`] says why it is not a member; presence has been left again then.
    pub async fn execute(self) -> Result<Joined, JoinRefused> {
        self.authorize().await?;
        let ports = &self.services.ports;
        let top = ports
            .broker
            .subscribe(&self.room, &self.policy, &self.mailbox, self.token)
            .await
            .map_err(JoinRefused::Broker)?;
        let listed = self.policy.presence_listed.then(|| presence_key(&self.who));
        if let Some(key) = &listed {
            let entered = ports.presence.enter(&self.room, key, self.who.connection).await;
            if let Err(error) = entered {
                // Only the answer may have been lost.
                ports.presence.leave(&self.room, key, self.who.connection).await;
                return Err(JoinRefused::Presence(error));
            }
        }
        let page = match self.since {
            None => RecoveredPage {
                gap: None,
                after: top.bounds.last,
                messages: Vec::new(),
                reached: top.bounds.top(),
                more: false,
            },
            Some(since) => match self.recover(since).await {
                Ok(page) => page,
                Err(error) => {
                    if let Some(key) = &listed {
                        ports.presence.leave(&self.room, key, self.who.connection).await;
                    }
                    return Err(JoinRefused::Broker(error));
                }
            },
        };
        let hides =
            |gap: Gap| gap.reason == GapReason::EpochChanged && is_planted(Mistake::LostLogHidden);
        let page = RecoveredPage { gap: page.gap.filter(|gap| !hides(*gap)), ..page };
        let recovered = self.since.is_some() && page.gap.is_none();
        let (top, mut latest) = (top.bounds.top(), top.latest);
        if !latest.is_empty() {
            // The broker drops them in its own time.
            let now = ports.clock.now().wall;
            latest.retain(|published| !published.publication.is_expired(now));
        }
        if let Some(filter) = &self.filter {
            latest.retain(|published| filter.passes(&published.publication));
        }
        Ok(Joined { top, page, recovered, latest, latest_later: false })
    }

    async fn authorize(&self) -> Result<(), JoinRefused> {
        let Self { services, who, room, policy, .. } = self;
        // Following who comes and goes is a right of its own; so is reading the log, but not for
        // what was missed while away: that belongs to the subscription.
        let rights = [Some(Action::Subscribe), self.presence.then_some(Action::Presence)];
        let returns = self.since.is_some() && is_planted(Mistake::ReturnNotAsked);
        for action in rights.into_iter().flatten().filter(|_| !returns) {
            let allowed = authorize(services, who, action, room, policy).await;
            allowed.map_err(JoinRefused::NotAllowed)?;
        }
        self.check_match().await?;
        // That a room is full is nothing for those to know who may not be in it.
        if let Some(full) = &self.full {
            return Err(JoinRefused::Full(full.clone()));
        }
        if self.services.rules.middleware.is_empty() {
            return Ok(());
        }
        // The clients of the documents have no word for it: there the server brings them in.
        let derived = matches!(self.who.view, View::Document(_));
        let room = Some(self.room.as_str());
        let inbound = Inbound { kind: "subscribe", room, body: "", derived };
        let asked = self.services.rules.middleware.process_message(&self.who, inbound).await;
        asked.map(drop).map_err(JoinRefused::Middleware)
    }

    /// A match has a limit of its own on connections. The joiner has its seat already.
    async fn check_match(&self) -> Result<(), JoinRefused> {
        let Some(id) = MatchId::of_room(&self.room) else { return Ok(()) };
        let found = self.services.ports.matches.find(&id).await;
        let found = found.map_err(|error| JoinRefused::NotAllowed(NotAllowed::NoMatch(error)))?;
        // A grant for all matches is none for one that there is not, where one comes to a match.
        let is_there = found.as_ref().is_some_and(|of| of.phase() != Phase::Ended);
        if !is_there && self.who.view == View::Document(Endpoint::Match) {
            return Err(JoinRefused::NotAllowed(NotAllowed::Denied(None)));
        }
        let Some(of) = found else { return Ok(()) };
        if self.services.directory.seats_taken(&self.room) > of.connections_max.get() {
            let refusal = Refusal::new(ErrorCode::RoomFull, "the match is full").field("room");
            return Err(JoinRefused::Full(refusal));
        }
        Ok(())
    }

    async fn recover(&self, since: Position) -> Result<RecoveredPage, BrokerError> {
        let recover = RecoverRoom {
            services: Arc::clone(&self.services),
            room: self.room.clone(),
            policy: Arc::clone(&self.policy),
            since,
            own_hole: false,
            bytes_max: self.bytes_max,
            filter: self.filter.clone(),
        };
        recover.execute().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Directory;
    use crate::extensions::middleware::Context;
    use crate::ports::RoomTop;
    use crate::ports::broker::MockBroker;
    use crate::ports::clock::{MockClock, MockEntropy};
    use crate::ports::presence::MockPresence;
    use crate::ports::revocations::MockRevocations;
    use crate::ports::token_verifier::MockTokenVerifier;
    use crate::services::{Ports, Rules};
    use domain::delivery::Class;
    use domain::id::{ClientId, ConnectionId, Epoch};
    use domain::policy::Access;
    use domain::position::Offset;
    use domain::principal::Principal;
    use domain::recovery::{EarlierLives, LogBounds};
    use domain::retention::Retention;
    use std::time::Duration;

    fn open() -> NamespacePolicy {
        NamespacePolicy {
            subscribe: Access::Anyone,
            publish: Access::Anyone,
            presence: Access::Anyone,
            history: Access::Anyone,
            presence_listed: true,
            presence_named_max: 1_000,
            retention: Retention::default(),
            default_class: Class::Reliable,
            durable: false,
            replicated: false,
            members_max: 10,
            patterns: false,
        }
    }

    #[tokio::test]
    async fn whoever_could_not_enter_presence_leaves_it_since_only_the_answer_may_be_lost() {
        let (mut broker, mut presence) = (MockBroker::new(), MockPresence::new());
        let bounds = LogBounds {
            epoch: Epoch::from_bits(1),
            first: Offset::ZERO,
            last: Offset::ZERO,
            earlier: EarlierLives::NONE,
        };
        broker.expect_subscribe().returning(move |_, _, _, _| {
            Box::pin(async move { Ok(RoomTop { bounds, latest: Vec::new() }) })
        });
        let away = PresenceError::Unavailable { retry_after: Duration::from_secs(1) };
        let error = away.clone();
        presence.expect_enter().returning(move |_, _, _| {
            let error = error.clone();
            Box::pin(async move { Err(error) })
        });
        presence.expect_leave().times(1).returning(|_, _, _| Box::pin(async {}));
        let ports = Ports {
            broker: Arc::new(broker),
            presence: Arc::new(presence),
            token_verifier: Arc::new(MockTokenVerifier::new()),
            session_tickets: Arc::new(crate::ports::NoTickets),
            inbox: None,
            moderation: None,
            erasure: None,
            authorizer: None,
            revocations: Arc::new(MockRevocations::new()),
            spent_tokens: Arc::new(crate::ports::NoSpentTokens),
            seats: Arc::new(crate::seats::NodeSeats::default()),
            peers: Arc::new(crate::ports::NoPeers),
            matches: Arc::new(crate::ports::NoMatches),
            clock: Arc::new(MockClock::new()),
            entropy: Arc::new(MockEntropy::new()),
        };
        let services = Services {
            ports,
            rules: Rules::default(),
            directory: Arc::new(Directory::default()),
            mailboxes: Vec::new(),
            metrics: Arc::default(),
            admission: Arc::default(),
        };
        let who = Who {
            connection: ConnectionId::from_bits(1),
            client: ClientId::parse("c").unwrap(),
            address: None,
            view: crate::view::View::V2,
            place: None,
            principal: Arc::new(Principal::anonymous()),
            context: Context::default(),
            fence: None,
        };
        let join = JoinRoom {
            services: Arc::new(services),
            who: Arc::new(who),
            room: RoomId::parse("public:a").unwrap(),
            policy: Arc::new(open()),
            since: None,
            presence: true,
            filter: None,
            mailbox: Arc::new(Mailbox::new(1, 10)),
            token: SubscriptionToken(1),
            bytes_max: 1_000,
            full: None,
        };
        assert_eq!(join.execute().await.unwrap_err(), JoinRefused::Presence(away));
    }
}
