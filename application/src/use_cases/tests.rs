//! The waiting use cases, each alone against mocks of its ports.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::codes::{CloseCode, ErrorCode};
use domain::delivery::Class;
use domain::filter::{Condition, Filter};
use domain::id::{ClientId, ConnectionId, Epoch, MessageKey, UserId};
use domain::message::{Publication, Publish, Sender};
use domain::policy::{Access, AckLevel, NamespacePolicy, Policies};
use domain::position::{Offset, Position};
use domain::principal::{Principal, RoomPattern};
use domain::rate_limit::Rate;
use domain::recovery::{GapReason, LogBounds};
use domain::retention::Retention;
use domain::room::RoomId;
use domain::tags::Tags;
use domain::time::{Now, Wall};
use mockall::Sequence;

use crate::directory::Directory;
use crate::extensions::handlers::{
    HandlerEffect, HandlerMessage, HandlerRegistry, MessageHandler, Publishing,
};
use crate::extensions::middleware::{Context, Inbound, Middleware, MiddlewareChain, Who};
use crate::mailbox::Mailbox;
use crate::metrics::TokenOutcome;
use crate::ports::authorizer::MockAuthorizer;
use crate::ports::broker::MockBroker;
use crate::ports::clock::{MockClock, MockEntropy};
use crate::ports::erasure::MockErasure;
use crate::ports::matches::MockMatches;
use crate::ports::moderation::MockModeration;
use crate::ports::presence::MockPresence;
use crate::ports::revocations::MockRevocations;
use crate::ports::session_tickets::MockSessionTickets;
use crate::ports::spent_tokens::MockSpentTokens;
use crate::ports::token_verifier::MockTokenVerifier;
use crate::ports::{
    AuthorizerError, BrokerError, LogPage, PresenceError, PublishError, Receipt, RoomTop,
    SubscriptionToken, TicketError, TokenError, TokenHint, Verdict,
};
use crate::published::Published;
use crate::refusal::Refusal;
use crate::security::SecurityEvent;
use crate::services::{Ports, Rules, Services};
use crate::use_cases::authenticate::{Authenticate, AuthenticateError, Credentials};
use crate::use_cases::authorize::NotAllowed;
use crate::use_cases::broadcast_message::{BroadcastError, BroadcastMessage};
use crate::use_cases::handle_message::HandleMessage;
use crate::use_cases::join_room::{JoinRefused, JoinRoom};
use crate::use_cases::list_presence::{ListPresence, PresenceRefused};
use crate::use_cases::publish_message::{PublishMessage, PublishRefused};
use crate::use_cases::read_history::{HistoryRefused, ReadHistory};
use crate::use_cases::recover_room::RecoverRoom;
use crate::use_cases::resume_rooms::ResumeRooms;
use crate::use_cases::watch_rooms::{WatchRooms, Watching};

mod handlers;
mod matches;
mod moderation;
mod once;
mod patterns;

const EPOCH: Epoch = Epoch::from_bits(7);
const OTHER: Epoch = Epoch::from_bits(8);

/// The mocks of one test; each expects nothing until told.
#[derive(Default)]
struct Mocks {
    broker: MockBroker,
    presence: MockPresence,
    verifier: MockTokenVerifier,
    tickets: MockSessionTickets,
    authorizer: Option<MockAuthorizer>,
    moderation: Option<MockModeration>,
    erasure: Option<MockErasure>,
    spent_tokens: MockSpentTokens,
    matches: MockMatches,
    entropy: MockEntropy,
    revoked: bool,
    rules: Rules,
}

impl Mocks {
    fn services(self) -> Arc<Services> {
        let mut clock = MockClock::new();
        clock.expect_now().returning(Now::default);
        let mut revocations = MockRevocations::new();
        revocations.expect_concerns().returning(move |_, _| self.revoked);
        let ports = Ports {
            broker: Arc::new(self.broker),
            presence: Arc::new(self.presence),
            token_verifier: Arc::new(self.verifier),
            session_tickets: Arc::new(self.tickets),
            inbox: None,
            moderation: self.moderation.map(|moderation| Arc::new(moderation) as _),
            erasure: self.erasure.map(|erasure| Arc::new(erasure) as _),
            authorizer: self.authorizer.map(|authorizer| Arc::new(authorizer) as _),
            revocations: Arc::new(revocations),
            spent_tokens: Arc::new(self.spent_tokens),
            matches: Arc::new(self.matches),
            clock: Arc::new(clock),
            entropy: Arc::new(self.entropy),
        };
        let directory = Arc::new(Directory::default());
        Arc::new(Services {
            ports,
            rules: self.rules,
            directory,
            mailboxes: Vec::new(),
            metrics: Arc::default(),
            admission: Arc::default(),
        })
    }
}

fn who(user: Option<&str>) -> Arc<Who> {
    let principal =
        Principal { user: user.map(|u| UserId::parse(u).unwrap()), ..Principal::default() };
    Arc::new(Who {
        connection: ConnectionId::from_bits(1),
        client: ClientId::parse("c").unwrap(),
        address: None,
        view: crate::view::View::V2,
        place: None,
        principal: Arc::new(principal),
        context: Context::default(),
    })
}

fn policy(access: Access) -> Arc<NamespacePolicy> {
    Arc::new(NamespacePolicy {
        subscribe: access,
        publish: access,
        presence: access,
        history: access,
        presence_listed: true,
        retention: Retention::default(),
        default_class: Class::Reliable,
        durable: false,
        members_max: 10,
        patterns: true,
    })
}

fn room() -> RoomId {
    RoomId::parse("chat:a").unwrap()
}

fn offset(n: u64) -> Offset {
    Offset::parse(n).unwrap()
}

fn publish() -> Publish {
    Publish {
        room: room(),
        publisher: domain::message::Publisher::Client(ClientId::parse("c").unwrap()),
        msg_id: None,
        class: Class::Reliable,
        key: None,
        sender: Sender::default(),
        data: Bytes::from_static(b"1"),
        tags: Tags::default(),
        ttl: None,
        origin: None,
        at: Wall::default(),
    }
}

fn message(epoch: Epoch, n: u64) -> Arc<Published> {
    Arc::new(Published::new(Publication {
        room: room(),
        epoch,
        offset: Some(offset(n)),
        class: Class::Reliable,
        key: None,
        sender: Sender::default(),
        data: Bytes::from_static(b"1"),
        tags: Tags::default(),
        origin: None,
        at: Wall::default(),
        expires_at: None,
        tombstone: None,
    }))
}

fn page(epoch: Epoch, first: u64, last: u64, messages: &[u64], more: bool) -> LogPage {
    LogPage {
        bounds: LogBounds { epoch, first: offset(first), last: offset(last) },
        messages: messages.iter().map(|n| message(epoch, *n)).collect(),
        more,
    }
}

fn top(last: u64) -> RoomTop {
    let bounds = LogBounds { epoch: EPOCH, first: offset(1), last: offset(last) };
    RoomTop { bounds, latest: Vec::new() }
}

struct Refuses;

#[async_trait::async_trait]
impl Middleware for Refuses {
    async fn process_connection(&self, _: &Who, _: &mut Context) -> Result<(), CloseCode> {
        Err(CloseCode::Forbidden)
    }

    async fn process_message(
        &self,
        _: &Who,
        _: Inbound<'_>,
        _: &mut Context,
    ) -> Result<(), Refusal> {
        Err(Refusal::new(ErrorCode::NotAvailable, "not today"))
    }
}

fn refusing() -> Rules {
    let mut middleware = MiddlewareChain::default();
    middleware.push(Arc::new(Refuses));
    Rules { middleware, allow_anonymous: true, ..Rules::default() }
}

// --- authenticate ---

fn authenticate(mocks: Mocks, token: Option<&str>) -> Authenticate {
    let credentials = Credentials { token: token.map(str::to_owned), ..Credentials::default() };
    Authenticate { services: mocks.services(), who: who(None), credentials }
}

#[tokio::test]
async fn without_a_token_nobody_is_let_in_unless_anonymous_connections_are_allowed() {
    let refused = authenticate(Mocks::default(), None).execute().await.unwrap_err();
    assert_eq!(refused, AuthenticateError::Missing);
    let rules = Rules { allow_anonymous: true, ..Rules::default() };
    let mocks = Mocks { rules, ..Mocks::default() };
    assert!(authenticate(mocks, None).execute().await.unwrap().admission.is_none());
}

#[tokio::test]
async fn a_token_that_is_not_accepted_closes_with_unauthenticated() {
    let mut mocks = Mocks::default();
    mocks.verifier.expect_verify().returning(|_, _| Box::pin(async { Err(TokenError::Expired) }));
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let refused = authenticate(mocks, Some("t")).execute().await.unwrap_err();
    assert_eq!(refused.close_code(), CloseCode::Unauthenticated);
}

/// R08.
#[tokio::test]
async fn an_address_that_showed_too_many_tokens_that_are_none_is_not_looked_at_for_a_while() {
    let mut mocks = Mocks::default();
    mocks.rules.limits.bad_tokens_of_address = Rate::per_minute(3);
    mocks.rules.allow_anonymous = true;
    // The fourth is not verified.
    mocks
        .verifier
        .expect_verify()
        .times(3)
        .returning(|_, _| Box::pin(async { Err(TokenError::Signature) }));
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let services = mocks.services();
    let of = |address: &str, token: Option<&str>| {
        let who = Who { address: address.parse().ok(), ..(*who(None)).clone() };
        let token = token.map(str::to_owned);
        let credentials = Credentials { token, ..Credentials::default() };
        Authenticate { services: Arc::clone(&services), who: Arc::new(who), credentials }
    };
    for _ in 0..3 {
        let refused = of("203.0.113.7", Some("t")).execute().await.unwrap_err();
        assert_eq!(refused, AuthenticateError::Token(TokenError::Signature));
    }
    let refused = of("203.0.113.7", Some("t")).execute().await.unwrap_err();
    assert_eq!(refused, AuthenticateError::TooManyFailures(Duration::from_secs(20)));
    assert_eq!(refused.close_code(), CloseCode::RateLimited);
    assert_eq!(refused.come_back(), Some(Duration::from_secs(20)));
    // Without a token there is nothing to guess.
    assert!(of("203.0.113.7", None).execute().await.is_ok());
}

fn showing(mocks: Mocks, session: &str, token: Option<&str>) -> Authenticate {
    let (session, token) = (Some(session.to_owned()), token.map(str::to_owned));
    let credentials = Credentials { session, token, ..Credentials::default() };
    Authenticate { services: mocks.services(), who: who(None), credentials }
}

fn user(name: &str) -> Principal {
    Principal { user: UserId::parse(name).ok(), ..Principal::default() }
}

#[tokio::test]
async fn a_ticket_that_counts_spares_the_token() {
    // The verifier expects nothing: asking it would fail the test.
    for token in [None, Some("t")] {
        let mut mocks = Mocks::default();
        mocks.tickets.expect_open().times(1).returning(|_, _| Ok(user("u")));
        let authenticated = showing(mocks, "s", token).execute().await.unwrap();
        assert_eq!(*authenticated.who.principal, user("u"));
        assert!(authenticated.admission.is_some(), "it counts as a connection of its user");
    }
}

#[tokio::test]
async fn a_ticket_that_does_not_count_leaves_it_to_the_token_beside_it() {
    let refusing = |error| {
        let mut mocks = Mocks::default();
        mocks.tickets.expect_open().returning(move |_, _| Err(error));
        mocks
    };
    for error in [TicketError::Expired, TicketError::Signature, TicketError::NotTaken] {
        let refused = showing(refusing(error), "s", None).execute().await.unwrap_err();
        assert_eq!(refused, AuthenticateError::Ticket(error));
        assert_eq!(refused.close_code(), CloseCode::Unauthenticated);
        let mut mocks = refusing(error);
        mocks.verifier.expect_verify().times(1).returning(|_, _| Box::pin(async { Ok(user("t")) }));
        let authenticated = showing(mocks, "s", Some("t")).execute().await.unwrap();
        let mut verified = user("t");
        verified.credential.verified_at = Some(Wall::default());
        assert_eq!(*authenticated.who.principal, verified);
    }
    // Nobody in particular is let in here, but not with a ticket that does not count.
    let mut mocks = refusing(TicketError::Expired);
    mocks.rules.allow_anonymous = true;
    assert!(showing(mocks, "s", None).execute().await.is_err());
}

#[tokio::test]
async fn nobody_whose_time_is_over_gets_in_whatever_the_adapter_says() {
    let over = || Principal { expires_at: Some(Wall::from_millis(-60_000)), ..user("u") };
    let mut mocks = Mocks::default();
    mocks.tickets.expect_open().returning(move |_, _| Ok(over()));
    mocks.verifier.expect_verify().times(1).returning(move |_, _| {
        let over = over();
        Box::pin(async move { Ok(over) })
    });
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let call = showing(mocks, "s", Some("t"));
    let services = Arc::clone(&call.services);
    let refused = call.execute().await.unwrap_err();
    assert_eq!(refused, AuthenticateError::Token(TokenError::Expired));
    let edge = &services.metrics.edge;
    assert_eq!((edge.tokens.get(TokenOutcome::Expired), edge.tokens.sum()), (1, 1));
}

#[tokio::test]
async fn who_comes_with_what_was_revoked_is_refused_and_counts_nothing() {
    let mut mocks = Mocks { revoked: true, ..Mocks::default() };
    mocks.rules.limits.connections_per_user_max = 0;
    mocks.verifier.expect_verify().returning(|_, _| Box::pin(async { Ok(user("u")) }));
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let call = authenticate(mocks, Some("t"));
    let services = Arc::clone(&call.services);
    let refused = call.execute().await.unwrap_err();
    assert_eq!(refused.close_code(), CloseCode::Revoked);
    // Guards are told once, and it is not counted as a token that was accepted.
    let edge = &services.metrics.edge;
    assert_eq!((edge.tokens.get(TokenOutcome::Revoked), edge.tokens.sum()), (1, 1));
    assert_eq!(edge.security.get(SecurityEvent::AuthenticationFailed), 1);
    // Neither does a ticket that was made of it bring anybody back.
    let mut mocks = Mocks { revoked: true, ..Mocks::default() };
    mocks.tickets.expect_open().returning(|_, _| Ok(user("u")));
    let call = showing(mocks, "s", None);
    let services = Arc::clone(&call.services);
    let refused = call.execute().await.unwrap_err();
    assert_eq!(refused.close_code(), CloseCode::Revoked);
    let edge = &services.metrics.edge;
    assert_eq!((edge.tokens.sum(), edge.security.sum()), (0, 1));
}

#[tokio::test]
async fn while_keys_can_not_be_fetched_a_client_is_told_to_come_back_rather_than_to_give_up() {
    let mut mocks = Mocks::default();
    let away = || Box::pin(async { Err(TokenError::KeysUnavailable) });
    mocks.verifier.expect_verify().returning(move |_, _| away());
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let refused = authenticate(mocks, Some("t")).execute().await.unwrap_err();
    assert_eq!(refused.close_code(), CloseCode::TryAgainLater);
}

#[tokio::test]
async fn the_connection_over_the_users_limit_is_refused_and_counts_nothing() {
    let mut mocks = Mocks::default();
    mocks.rules.limits.connections_per_user_max = 1;
    let user = || Principal { user: UserId::parse("u").ok(), ..Principal::default() };
    mocks.verifier.expect_verify().returning(move |_, _| {
        let user = user();
        Box::pin(async move { Ok(user) })
    });
    let services = mocks.services();
    let again = || Authenticate {
        services: Arc::clone(&services),
        who: who(None),
        credentials: Credentials { token: Some("t".to_owned()), ..Credentials::default() },
    };
    let first = again().execute().await.unwrap();
    assert_eq!(again().execute().await.unwrap_err(), AuthenticateError::ConnectionLimit);
    drop(first);
    assert!(again().execute().await.is_ok());
}

#[tokio::test]
async fn a_middleware_that_refuses_a_connection_chooses_its_close_code() {
    let mocks = Mocks { rules: refusing(), ..Mocks::default() };
    let refused = authenticate(mocks, None).execute().await.unwrap_err();
    assert_eq!(refused.close_code(), CloseCode::Forbidden);
}

// --- publish ---

fn publishing(mocks: Mocks, access: Access) -> PublishMessage {
    let services = mocks.services();
    PublishMessage { services, who: who(Some("u")), policy: policy(access), publish: publish() }
}

#[tokio::test]
async fn a_publish_that_is_not_allowed_never_reaches_the_broker() {
    let refused = publishing(Mocks::default(), Access::Granted).execute().await;
    assert_eq!(refused, Err(PublishRefused::NotAllowed(NotAllowed::Denied(None))));
    let mocks = Mocks { rules: refusing(), ..Mocks::default() };
    let refused = publishing(mocks, Access::Anyone).execute().await.unwrap_err();
    assert_eq!(Refusal::from(refused).code, ErrorCode::NotAvailable);
}

fn authorizer(answer: Result<Verdict, AuthorizerError>) -> Option<MockAuthorizer> {
    let mut authorizer = MockAuthorizer::new();
    authorizer.expect_authorize().times(1).returning(move |_| {
        let answer = answer.clone();
        Box::pin(async move { answer })
    });
    Some(authorizer)
}

#[tokio::test]
async fn a_hosts_authorizer_decides_in_the_place_of_token_and_policy() {
    let denies = Ok(Verdict::Denied("not on Sundays".into()));
    let mocks = Mocks { authorizer: authorizer(denies), ..Mocks::default() };
    let refused = publishing(mocks, Access::Anyone).execute().await.unwrap_err();
    assert_eq!(refused, PublishRefused::NotAllowed(NotAllowed::Denied(None)));
    assert_eq!(Refusal::from(refused), Refusal::denied());
    let mut mocks = Mocks { authorizer: authorizer(Ok(Verdict::Allowed)), ..Mocks::default() };
    mocks.broker.expect_publish().times(1).returning(|_, _| {
        Box::pin(async { Err(PublishError::Unavailable { retry_after: Duration::ZERO }) })
    });
    let reached = publishing(mocks, Access::Granted).execute().await.unwrap_err();
    assert!(matches!(reached, PublishRefused::Broker(_)), "{reached:?}");
}

/// A25
#[tokio::test]
async fn an_authorizer_without_an_answer_refuses_for_now() {
    for error in [
        AuthorizerError::Timeout,
        AuthorizerError::Busy,
        AuthorizerError::Panicked,
        AuthorizerError::Unavailable("secret host name".to_owned()),
    ] {
        let mut mocks = Mocks { authorizer: authorizer(Err(error)), ..Mocks::default() };
        mocks.rules.explains_denials = true;
        let refused = publishing(mocks, Access::Anyone).execute().await.unwrap_err();
        let refusal = Refusal::from(refused);
        assert_eq!(refusal.code, ErrorCode::Unavailable);
        assert!(refusal.retry_after.is_some() && !refusal.message.contains("secret"));
    }
}

#[tokio::test]
async fn in_development_a_refusal_carries_the_authorizers_reason() {
    let denies = Ok(Verdict::Denied("not on Sundays".into()));
    let mut mocks = Mocks { authorizer: authorizer(denies), ..Mocks::default() };
    mocks.rules.explains_denials = true;
    let refused = publishing(mocks, Access::Anyone).execute().await.unwrap_err();
    let message = Refusal::from(refused).message;
    assert_eq!(message, "denied: publish in chat:a: the authorizer says: not on Sundays");
}

#[tokio::test]
async fn a_publish_that_is_allowed_is_answered_with_the_brokers_position() {
    let receipt = Receipt {
        epoch: EPOCH,
        offset: Some(offset(3)),
        duplicate: false,
        level: AckLevel::Accepted,
    };
    let mut mocks = Mocks::default();
    mocks
        .broker
        .expect_publish()
        .times(1)
        .returning(move |_, _| Box::pin(async move { Ok(receipt) }));
    assert_eq!(publishing(mocks, Access::Anyone).execute().await, Ok(receipt));
}

#[tokio::test]
async fn a_broker_that_is_away_tells_the_client_when_to_come_back() {
    let mut mocks = Mocks::default();
    let away = PublishError::Unavailable { retry_after: Duration::from_millis(1_500) };
    mocks.broker.expect_publish().returning(move |_, _| {
        let away = away.clone();
        Box::pin(async move { Err(away) })
    });
    let refused = publishing(mocks, Access::Anyone).execute().await.unwrap_err();
    let refusal = Refusal::from(refused);
    assert_eq!(refusal.code, ErrorCode::Unavailable);
    assert_eq!(refusal.retry_after, Some(Duration::from_millis(1_500)));
}

// --- broadcast ---

async fn broadcast(default_class: Class, class: Option<Class>, key: bool) -> Option<Class> {
    let published = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&published);
    let mut mocks = Mocks::default();
    let policy = NamespacePolicy { default_class, ..(*policy(Access::Anyone)).clone() };
    mocks.rules.policies.set_namespace("chat", policy);
    mocks.broker.expect_publish().returning(move |publish, _| {
        *seen.lock().unwrap() = Some(publish.class);
        let level = AckLevel::Accepted;
        let receipt = Receipt { epoch: EPOCH, offset: None, duplicate: false, level };
        Box::pin(async move { Ok(receipt) })
    });
    let call = BroadcastMessage {
        services: mocks.services(),
        key_name: ClientId::parse("backend").unwrap(),
        rooms: vec![room()],
        data: Bytes::from_static(b"1"),
        class,
        key: key.then(|| MessageKey::parse("k").unwrap()),
        msg_id: None,
        ttl: None,
        tags: Tags::default(),
        trace: None,
    };
    let (_, result) = call.execute().await.pop().unwrap();
    assert!(result.is_ok() || result == Err(BroadcastError::Key));
    let published = published.lock().unwrap().take();
    assert_eq!(result.is_ok(), published.is_some());
    published
}

#[tokio::test]
async fn a_key_goes_with_the_class_that_the_room_gives_a_message_without_one() {
    let (latest, reliable) = (Class::Latest, Class::Reliable);
    assert_eq!(broadcast(latest, None, true).await, Some(latest));
    assert_eq!(broadcast(latest, None, false).await, None);
    assert_eq!(broadcast(reliable, None, true).await, None);
    assert_eq!(broadcast(reliable, None, false).await, Some(reliable));
    assert_eq!(broadcast(latest, Some(reliable), true).await, None);
    assert_eq!(broadcast(latest, Some(reliable), false).await, Some(reliable));
    assert_eq!(broadcast(reliable, Some(latest), true).await, Some(latest));
    assert_eq!(broadcast(reliable, Some(latest), false).await, None);
}

// --- join and recover ---

fn joining(mocks: Mocks, since: Option<Position>, access: Access) -> JoinRoom {
    JoinRoom {
        services: mocks.services(),
        who: who(Some("u")),
        room: room(),
        policy: policy(access),
        since,
        filter: None,
        presence: false,
        mailbox: Arc::new(Mailbox::new(1, 10)),
        token: SubscriptionToken(1),
        bytes_max: 1_000,
        full: None,
    }
}

#[tokio::test]
async fn who_may_not_subscribe_is_neither_subscribed_nor_listed() {
    let refused = joining(Mocks::default(), None, Access::Granted).execute().await.unwrap_err();
    assert_eq!(refused, JoinRefused::NotAllowed(NotAllowed::Denied(None)));
}

#[tokio::test]
async fn a_join_subscribes_before_it_reads_so_that_nothing_falls_in_between() {
    let (mut mocks, mut order) = (Mocks::default(), Sequence::new());
    mocks
        .broker
        .expect_subscribe()
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _, _, _| Box::pin(async { Ok(top(5)) }));
    mocks
        .presence
        .expect_enter()
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _, _| Box::pin(async { Ok(()) }));
    mocks
        .broker
        .expect_read()
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _, _| Box::pin(async { Ok(page(EPOCH, 1, 5, &[4, 5], false)) }));
    let since = Some(Position { epoch: EPOCH, offset: offset(3) });
    let joined = joining(mocks, since, Access::Anyone).execute().await.unwrap();
    assert!(joined.recovered);
    assert_eq!((joined.page.messages.len(), joined.page.reached.offset), (2, offset(5)));
}

#[tokio::test]
async fn a_join_whose_log_can_not_be_read_leaves_presence_again() {
    let mut mocks = Mocks::default();
    mocks.broker.expect_subscribe().returning(|_, _, _, _| Box::pin(async { Ok(top(5)) }));
    mocks.presence.expect_enter().returning(|_, _, _| Box::pin(async { Ok(()) }));
    mocks.broker.expect_read().returning(|_, _, _| {
        Box::pin(async { Err(BrokerError::Unavailable { retry_after: Duration::from_secs(1) }) })
    });
    mocks.presence.expect_leave().times(1).returning(|_, _, _| Box::pin(async {}));
    let since = Some(Position { epoch: EPOCH, offset: offset(3) });
    let refused = joining(mocks, since, Access::Anyone).execute().await.unwrap_err();
    assert!(matches!(refused, JoinRefused::Broker(_)));
}

#[tokio::test]
async fn what_rooms_bring_back_is_cut_to_one_frame_and_each_says_where_it_goes_on() {
    let mut mocks = Mocks::default();
    mocks.broker.expect_subscribe().returning(|_, _, _, _| Box::pin(async { Ok(top(5)) }));
    mocks.presence.expect_enter().returning(|_, _, _| Box::pin(async { Ok(()) }));
    mocks.broker.expect_read().times(3).returning(|_, _, read| {
        assert!(read.bytes_max <= 1_000);
        Box::pin(async { Ok(page(EPOCH, 1, 5, &[4, 5], false)) })
    });
    let message = page(EPOCH, 1, 5, &[4], false).messages[0].message().len();
    let since = Some(Position { epoch: EPOCH, offset: offset(3) });
    let services = mocks.services();
    let again = || JoinRoom {
        services: Arc::clone(&services),
        ..joining(Mocks::default(), since, Access::Anyone)
    };
    let joins = vec![again(), again(), again()];
    let resumed = ResumeRooms { joins, bytes_max: 3 * message + 1 }.execute().await;
    let resumed: Vec<_> = resumed
        .into_iter()
        .map(Result::unwrap)
        .map(|joined| (joined.page.messages.len(), joined.page.reached.offset, joined.page.more))
        .collect();
    assert_eq!(resumed, [(2, offset(5), false), (1, offset(4), true), (0, offset(3), true)]);
}

#[tokio::test]
async fn a_value_that_has_expired_is_not_handed_to_whoever_joins() {
    let ending = |n: u64, ms: i64| {
        let publication = message(EPOCH, n).publication.clone();
        let expires_at = Some(Wall::from_millis(ms));
        Arc::new(Published::new(Publication { expires_at, ..publication }))
    };
    let mut mocks = Mocks::default();
    mocks.broker.expect_subscribe().times(1).returning(move |_, _, _, _| {
        // It is the first millisecond of all time.
        let latest = vec![ending(1, 0), ending(2, 1)];
        Box::pin(async { Ok(RoomTop { latest, ..top(5) }) })
    });
    mocks.presence.expect_enter().times(1).returning(|_, _, _| Box::pin(async { Ok(()) }));
    let joined = joining(mocks, None, Access::Anyone).execute().await.unwrap();
    let offsets: Vec<_> = joined.latest.iter().map(|value| value.publication.offset).collect();
    assert_eq!(offsets, [Some(offset(2))]);
}

#[tokio::test]
async fn a_room_that_is_refused_is_refused_alone() {
    let mut mocks = Mocks::default();
    mocks.broker.expect_subscribe().times(1).returning(|_, _, _, _| Box::pin(async { Ok(top(5)) }));
    mocks.presence.expect_enter().times(1).returning(|_, _, _| Box::pin(async { Ok(()) }));
    let allowed = joining(mocks, None, Access::Anyone);
    let denied = joining(Mocks::default(), None, Access::Granted);
    let resumed = ResumeRooms { joins: vec![denied, allowed], bytes_max: 1_000 }.execute().await;
    assert!(matches!(resumed.as_slice(), [Err(JoinRefused::NotAllowed(_)), Ok(_)]), "{resumed:?}");
}

async fn recover(since: Position, pages: Vec<LogPage>) -> super::recover_room::RecoveredPage {
    let mut mocks = Mocks::default();
    let n_pages = pages.len();
    let pages = std::sync::Mutex::new(pages.into_iter());
    mocks.broker.expect_read().times(n_pages).returning(move |_, _, _| {
        let next = pages.lock().unwrap().next().unwrap();
        Box::pin(async move { Ok(next) })
    });
    let services = mocks.services();
    let policy = policy(Access::Anyone);
    let (filter, bytes_max) = (None, 1_000);
    let call =
        RecoverRoom { services, room: room(), policy, since, own_hole: false, bytes_max, filter };
    call.execute().await.unwrap()
}

#[tokio::test]
async fn a_position_of_a_lost_epoch_is_read_again_from_the_new_ones_beginning() {
    // The first read begins behind the client's offset, which means nothing in the new epoch.
    let since = Position { epoch: OTHER, offset: offset(2) };
    let pages = vec![page(EPOCH, 1, 4, &[3, 4], false), page(EPOCH, 1, 4, &[1, 2, 3, 4], false)];
    let recovered = recover(since, pages).await;
    assert_eq!(recovered.gap.unwrap().reason, GapReason::EpochChanged);
    assert_eq!(recovered.messages.len(), 4);
}

#[tokio::test]
async fn what_the_log_no_longer_keeps_is_named_before_what_it_does() {
    let since = Position { epoch: EPOCH, offset: offset(2) };
    let recovered = recover(since, vec![page(EPOCH, 6, 7, &[6, 7], false)]).await;
    let gap = recovered.gap.unwrap();
    assert_eq!((gap.from, gap.to, gap.reason), (offset(3), offset(5), GapReason::Retention));
    assert_eq!(recovered.reached.offset, offset(7));
}

#[tokio::test]
async fn a_position_ahead_of_the_log_is_a_gap_and_not_believed() {
    let since = Position { epoch: EPOCH, offset: offset(9) };
    let recovered = recover(since, vec![page(EPOCH, 1, 4, &[], false)]).await;
    assert_eq!(recovered.gap.unwrap().reason, GapReason::UnknownPosition);
    assert_eq!(recovered.reached.offset, offset(4));
}

/// A filter that no message of these tests passes, since none has tags.
fn unmet() -> Option<Filter> {
    let condition = Condition::In { name: "k".into(), values: vec!["v".into()] };
    Filter::build(condition).ok()
}

#[tokio::test]
async fn a_page_that_would_be_empty_for_its_filter_reads_on_but_not_without_end() {
    let since = Position { epoch: EPOCH, offset: offset(0) };
    for (n_pages, more) in [(3, false), (8, true)] {
        let mut mocks = Mocks::default();
        let next = std::sync::atomic::AtomicU64::new(1);
        mocks.broker.expect_read().times(n_pages).returning(move |_, _, read| {
            let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(read.after, offset(n - 1));
            let last = n == n_pages as u64 && !more;
            Box::pin(async move { Ok(page(EPOCH, 1, 99, &[n], !last)) })
        });
        let (services, policy) = (mocks.services(), policy(Access::Anyone));
        let (filter, bytes_max) = (unmet(), 1_000);
        let call = RecoverRoom {
            services,
            room: room(),
            policy,
            since,
            own_hole: false,
            bytes_max,
            filter,
        };
        let page = call.execute().await.unwrap();
        assert!(page.messages.is_empty());
        assert_eq!((page.reached.offset, page.more), (offset(n_pages as u64), more));
    }
}

#[tokio::test]
async fn a_gap_between_two_pages_of_a_filtered_member_is_told_by_the_next_one() {
    let mut mocks = Mocks::default();
    let pages = [page(EPOCH, 1, 9, &[1], true), page(EPOCH, 6, 9, &[6], true)];
    let pages = std::sync::Mutex::new(pages.into_iter());
    mocks.broker.expect_read().times(2).returning(move |_, _, _| {
        let next = pages.lock().unwrap().next().unwrap();
        Box::pin(async move { Ok(next) })
    });
    let since = Position { epoch: EPOCH, offset: offset(0) };
    let (services, policy, filter) = (mocks.services(), policy(Access::Anyone), unmet());
    let bytes_max = 1_000;
    let call =
        RecoverRoom { services, room: room(), policy, since, own_hole: false, bytes_max, filter };
    let page = call.execute().await.unwrap();
    assert_eq!((page.gap, page.reached.offset, page.more), (None, offset(1), true));
}

// --- history and presence ---

#[tokio::test]
async fn history_refuses_a_position_of_another_log() {
    let mut mocks = Mocks::default();
    mocks
        .broker
        .expect_read()
        .returning(|_, _, _| Box::pin(async { Ok(page(EPOCH, 1, 4, &[3, 4], false)) }));
    let call = ReadHistory {
        services: mocks.services(),
        who: who(None),
        room: room(),
        policy: policy(Access::Anyone),
        since: Some(Position { epoch: OTHER, offset: offset(2) }),
        messages_max: 10,
    };
    assert_eq!(call.execute().await.unwrap_err(), HistoryRefused::Position);
}

#[tokio::test]
async fn presence_that_is_away_is_not_an_empty_room() {
    let mut mocks = Mocks::default();
    mocks.presence.expect_list().returning(|_, _| {
        Box::pin(async { Err(PresenceError::Unavailable { retry_after: Duration::from_secs(1) }) })
    });
    let services = mocks.services();
    let policy = policy(Access::Anyone);
    let call = ListPresence { services, who: who(None), room: room(), policy };
    assert!(matches!(call.execute().await, Err(PresenceRefused::Presence(_))));
}

// --- handlers ---
