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
use domain::presence::{PresenceKey, PresenceList, PresentMember};
use domain::principal::{Principal, RoomPattern};
use domain::rate_limit::Rate;
use domain::recovery::{EarlierLives, GapReason, LogBounds};
use domain::retention::Retention;
use domain::room::RoomId;
use domain::tags::Tags;
use domain::time::{Now, Wall};
use mockall::{Sequence, predicate};

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

mod authenticate;
mod handlers;
mod join;
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
            seats: Arc::new(crate::seats::NodeSeats::default()),
            peers: Arc::new(crate::ports::NoPeers),
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
        fence: None,
    })
}

fn policy(access: Access) -> Arc<NamespacePolicy> {
    Arc::new(NamespacePolicy {
        subscribe: access,
        publish: access,
        presence: access,
        history: access,
        presence_listed: true,
        presence_named_max: 1_000,
        retention: Retention::default(),
        default_class: Class::Reliable,
        durable: false,
        replicated: false,
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
        fence: None,
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
        bounds: LogBounds {
            epoch,
            first: offset(first),
            last: offset(last),
            earlier: EarlierLives::NONE,
        },
        messages: messages.iter().map(|n| message(epoch, *n)).collect(),
        more,
    }
}

fn top(last: u64) -> RoomTop {
    let bounds = LogBounds {
        epoch: EPOCH,
        first: offset(1),
        last: offset(last),
        earlier: EarlierLives::NONE,
    };
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

fn authenticate(mocks: Mocks, token: Option<&str>) -> Authenticate {
    let credentials = Credentials { token: token.map(str::to_owned), ..Credentials::default() };
    Authenticate { services: mocks.services(), who: who(None), credentials }
}

fn showing(mocks: Mocks, session: &str, token: Option<&str>) -> Authenticate {
    let (session, token) = (Some(session.to_owned()), token.map(str::to_owned));
    let credentials = Credentials { session, token, ..Credentials::default() };
    Authenticate { services: mocks.services(), who: who(None), credentials }
}

fn user(name: &str) -> Principal {
    Principal { user: UserId::parse(name).ok(), ..Principal::default() }
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

/// D11: coming again is in vain.
#[test]
fn a_room_that_has_given_out_its_last_offset_is_not_a_fault_of_the_server() {
    let refusal = Refusal::from(PublishRefused::Broker(PublishError::LogFull));
    assert_eq!((refusal.code, refusal.retry_after), (ErrorCode::NotAvailable, None));
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
    let room = room();
    let call = ListPresence { services, who: who(None), room, policy, is_crowd: false };
    assert!(matches!(call.execute().await, Err(PresenceRefused::Presence(_))));
}

/// A room of so many, of which a list names as many as are asked for.
fn listing(total: usize, n_asked: &'static [usize]) -> Mocks {
    let mut mocks = Mocks::default();
    let mut asked = Sequence::new();
    for n in n_asked {
        let list =
            mocks.presence.expect_list().with(predicate::always(), predicate::eq(*n)).times(1);
        list.in_sequence(&mut asked).returning(move |_, n| {
            let member = |n: usize| PresentMember {
                who: PresenceKey::User(UserId::parse(&format!("u{n}")).unwrap()),
                data: Bytes::new(),
                connections: 1,
            };
            let members = (0..total.min(n)).map(member).collect();
            Box::pin(async move { Ok(PresenceList { seq: 1, total, connections: total, members }) })
        });
    }
    mocks
}

#[tokio::test]
async fn who_asks_in_a_crowd_is_named_a_hundred_and_in_a_room_that_is_none_all_whatever_was_known()
{
    // Followers of up to 1,000 are told names, and go on from this list.
    let cases: [(bool, usize, &[usize], usize); 5] = [
        (false, 700, &[1_000], 700),
        (true, 700, &[100, 1_000], 700),
        (true, 60, &[100], 60),
        (false, 1_001, &[1_000], 100),
        (true, 5_000, &[100], 100),
    ];
    for (is_crowd, total, n_asked, n_named) in cases {
        let services = listing(total, n_asked).services();
        let (policy, room) = (policy(Access::Anyone), room());
        let call = ListPresence { services, who: who(None), room, policy, is_crowd };
        let list = call.execute().await.unwrap();
        assert_eq!((list.members.len(), list.total), (n_named, total), "{is_crowd} {total}");
    }
}
