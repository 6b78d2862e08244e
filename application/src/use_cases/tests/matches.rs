//! The use cases about matches, each alone against mocks of its ports.

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::task::{Context as TaskContext, Poll, Waker};

use domain::id::MessageId;
use domain::matches::{
    ConnectionsMax, GameType, Match, MatchId, MatchResult, MatchState, Participants, Phase,
    Spectators, TransitionError,
};
use domain::message::Publisher;

use super::handlers::{wants_publish, wants_reply};
use super::*;
use crate::extensions::games::schema::MessageSchema;
use crate::extensions::games::{GameManager, GameMessage};
use crate::ports::{CreateMatchError, Created, UpdateMatchError};
use crate::use_cases::change_match::ChangeMatchRefused;
use crate::use_cases::create_match::{CreateMatch, CreateMatchRefused};
use crate::use_cases::end_match::EndMatch;
use crate::use_cases::handle_game_message::HandleGameMessage;
use crate::use_cases::start_match::StartMatch;

fn ms(ms: i64) -> Wall {
    Wall::from_millis(ms)
}

fn waiting() -> Match {
    Match {
        id: MatchId::parse("m-1").unwrap(),
        game: GameType::parse("relay").unwrap(),
        participants: Participants::new(vec![UserId::parse("ann").unwrap()]).unwrap(),
        spectators: Spectators::Anyone,
        connections_max: ConnectionsMax::default(),
        metadata: None,
        created_at: ms(-600_000),
        state: MatchState::Waiting,
    }
}

fn result(text: &str) -> Option<MatchResult> {
    Some(MatchResult::parse(text).unwrap())
}

/// Matches that find these, one after the other, and the last one from then on.
fn finding(mocks: &mut Mocks, found: Vec<Match>) {
    let left = Mutex::new(found);
    mocks.matches.expect_find().returning(move |id| {
        let mut left = left.lock().unwrap();
        let next = if left.len() > 1 { left.remove(0) } else { left[0].clone() };
        let found = (next.id == *id).then_some(next);
        Box::pin(async move { Ok(found) })
    });
}

/// What is published, in the rooms of matches and in one that is closed.
fn publishing_to(mocks: &mut Mocks) -> Arc<Mutex<Vec<Publish>>> {
    for namespace in ["match", "closed"] {
        let closed = (*policy(Access::Granted)).clone();
        mocks.rules.policies.set_namespace(namespace, closed);
    }
    let published = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&published);
    mocks.broker.expect_publish().returning(move |publish, _| {
        seen.lock().unwrap().push(publish);
        let level = AckLevel::Accepted;
        let receipt = Receipt { epoch: EPOCH, offset: None, duplicate: false, level };
        Box::pin(async move { Ok(receipt) })
    });
    published
}

fn texts(published: &Mutex<Vec<Publish>>) -> Vec<String> {
    let published = published.lock().unwrap();
    published.iter().map(|one| String::from_utf8(one.data.to_vec()).unwrap()).collect()
}

fn create(services: Arc<Services>, game: &str) -> CreateMatch {
    CreateMatch {
        services,
        id: None,
        game: GameType::parse(game).unwrap(),
        participants: Participants::default(),
        spectators: Spectators::Nobody,
        connections_max: None,
        metadata: None,
    }
}

#[tokio::test]
async fn a_match_without_a_name_is_made_under_one_that_is_drawn_and_takes_the_nodes_limit() {
    let mut mocks = Mocks::default();
    mocks.rules.match_connections_max = ConnectionsMax::new(7).unwrap();
    mocks.entropy.expect_bits().returning(|| Ok(0xab));
    mocks.matches.expect_create().times(1).returning(|_| Box::pin(async { Ok(Created::New) }));
    let made = create(mocks.services(), "relay").execute().await.unwrap();
    assert!(!made.is_duplicate && made.made.phase() == Phase::Waiting);
    assert_eq!(made.made.id.as_str(), "00000000000000ab00000000000000ab");
    assert_eq!(made.made.connections_max.get(), 7);
}

#[tokio::test]
async fn a_match_that_is_made_again_is_answered_as_it_is_by_now() {
    let mut mocks = Mocks::default();
    let running = waiting().start(ms(0)).unwrap();
    let known = running.clone();
    mocks.matches.expect_create().returning(move |_| {
        let known = Box::new(known.clone());
        Box::pin(async move { Ok(Created::Already(known)) })
    });
    let again = CreateMatch { id: Some(waiting().id), ..create(mocks.services(), "relay") };
    let made = again.execute().await.unwrap();
    assert_eq!((made.made, made.is_duplicate), (running, true));
}

#[tokio::test]
async fn a_match_of_a_game_that_nobody_manages_is_not_made_and_the_games_are_named() {
    let refused = create(Mocks::default().services(), "chess").execute().await;
    assert_eq!(refused, Err(CreateMatchRefused::UnknownGame("relay".to_owned())));
}

#[tokio::test]
async fn matches_that_are_full_refuse_another() {
    let mut mocks = Mocks::default();
    let full = |_: &Match| Box::pin(async { Err(CreateMatchError::Full) }) as _;
    mocks.matches.expect_create().returning(full);
    let new = CreateMatch { id: Some(waiting().id), ..create(mocks.services(), "relay") };
    assert_eq!(new.execute().await, Err(CreateMatchRefused::Matches(CreateMatchError::Full)));
}

#[tokio::test]
async fn a_match_that_starts_is_stored_first_and_then_told_to_its_room() {
    let mut mocks = Mocks::default();
    finding(&mut mocks, vec![waiting()]);
    let published = publishing_to(&mut mocks);
    let seen = Arc::clone(&published);
    mocks.matches.expect_update().times(1).returning(move |next, from| {
        assert!(seen.lock().unwrap().is_empty(), "told before it is stored");
        assert_eq!((next.phase(), from), (Phase::Running, Phase::Waiting));
        Box::pin(async { Ok(()) })
    });
    let start = StartMatch { services: mocks.services(), id: waiting().id };
    let changed = start.execute().await.unwrap();
    assert!(!changed.is_duplicate && changed.now.started_at() == Some(ms(0)));
    let wanted = r#"{"type":"match_started","match_id":"m-1","game":"relay","started_at":"1970-01-01T00:00:00.000Z"}"#;
    assert_eq!(texts(&published), [wanted]);
    let told = published.lock().unwrap().remove(0);
    assert_eq!(told.room.as_str(), "match:m-1");
    assert_eq!(told.publisher, Publisher::ApiKey(ClientId::parse("~matches").unwrap()));
    assert_eq!(told.msg_id, MessageId::parse("match_started:-600000").ok());
}

#[tokio::test]
async fn a_start_that_is_asked_for_again_is_told_again_under_its_name_and_not_after_a_while() {
    for (started_at, times) in [(-300_000, 1), (-300_001, 0)] {
        let mut mocks = Mocks::default();
        finding(&mut mocks, vec![waiting().start(ms(started_at)).unwrap()]);
        let published = publishing_to(&mut mocks);
        let start = StartMatch { services: mocks.services(), id: waiting().id };
        assert!(start.execute().await.unwrap().is_duplicate);
        let published = published.lock().unwrap();
        assert_eq!(published.len(), times, "{started_at}");
        let name = MessageId::parse("match_started:-600000").ok();
        assert!(published.iter().all(|told| told.msg_id == name));
    }
}

#[tokio::test]
async fn a_change_that_is_overtaken_is_judged_again_by_what_the_match_is_then() {
    let mut mocks = Mocks::default();
    let ended = waiting().end(ms(0), None).unwrap();
    finding(&mut mocks, vec![waiting(), ended]);
    let changed = |_: &Match, _| Box::pin(async { Err(UpdateMatchError::Changed) }) as _;
    mocks.matches.expect_update().times(1).returning(changed);
    let start = StartMatch { services: mocks.services(), id: waiting().id };
    let refused = start.execute().await;
    assert_eq!(refused, Err(ChangeMatchRefused::Transition(TransitionError::Ended)));
}

#[tokio::test]
async fn a_match_ends_once_and_stays_as_it_ended() {
    let end = |found: Match, result: Option<MatchResult>| async move {
        let mut mocks = Mocks::default();
        finding(&mut mocks, vec![found]);
        let published = publishing_to(&mut mocks);
        mocks.matches.expect_update().returning(|_, _| Box::pin(async { Ok(()) }));
        let end = EndMatch { services: mocks.services(), id: waiting().id, result };
        let ended = end.execute().await.map(|changed| changed.is_duplicate);
        (ended, texts(&published))
    };
    let running = waiting().start(ms(-9)).unwrap();
    let (ended, told) = end(running, result(r#"{"won":"ann"}"#)).await;
    let wanted = r#"{"type":"match_ended","match_id":"m-1","game":"relay","ended_at":"1970-01-01T00:00:00.000Z","result":{"won":"ann"}}"#;
    assert_eq!((ended, told), (Ok(false), vec![wanted.to_owned()]));
    let (ended, told) = end(waiting(), None).await;
    assert_eq!(ended, Ok(false));
    assert!(told[0].ends_with(r#""result":null}"#), "{told:?}");
    let over = waiting().end(ms(-400_000), result("1")).unwrap();
    assert_eq!(end(over.clone(), result("1")).await, (Ok(true), Vec::new()));
    let refused = Err(ChangeMatchRefused::Transition(TransitionError::Ended));
    for other in [result("2"), None] {
        assert_eq!(end(over.clone(), other).await, (refused.clone(), Vec::new()));
    }
}

#[tokio::test]
async fn who_starts_what_is_not_there_or_can_not_be_told_learns_which() {
    let mut mocks = Mocks::default();
    mocks.matches.expect_find().returning(|_| Box::pin(async { Ok(None) }));
    let start = StartMatch { services: mocks.services(), id: waiting().id };
    assert_eq!(start.execute().await, Err(ChangeMatchRefused::Missing));

    let mut mocks = Mocks::default();
    finding(&mut mocks, vec![waiting()]);
    // No policy for the rooms of matches.
    mocks.matches.expect_update().times(1).returning(|_, _| Box::pin(async { Ok(()) }));
    let start = StartMatch { services: mocks.services(), id: waiting().id };
    let refused = start.execute().await;
    assert_eq!(refused, Err(ChangeMatchRefused::Announce(BroadcastError::UnknownRoom)));
}

async fn say(mocks: Mocks, user: Option<&str>, body: &str) -> Result<Vec<HandlerEffect>, Refusal> {
    let kind = if body.contains("game_message") { "game_message" } else { "game_action" };
    let call = HandleGameMessage {
        services: mocks.services(),
        who: who(user),
        id: waiting().id,
        kind: Arc::from(kind),
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    call.execute().await.map(|handled| handled.effects)
}

const ACTION: &str = r#"{"type":"game_action","id":1,"data":{"x": 1}}"#;

#[tokio::test]
async fn what_a_participant_sends_in_the_built_in_game_goes_to_the_matchs_room_as_the_senders() {
    for body in [ACTION, "{\"type\":\"game_message\",\"data\":{\n\"x\": 1}}"] {
        let mut mocks = Mocks::default();
        finding(&mut mocks, vec![waiting().start(ms(0)).unwrap()]);
        let published = publishing_to(&mut mocks);
        assert_eq!(say(mocks, Some("ann"), body).await, Ok(Vec::new()));
        let kind = if body == ACTION { "game_action" } else { "game_message" };
        assert_eq!(texts(&published), [format!(r#"{{"type":"{kind}","data":{{"x": 1}}}}"#)]);
        let sent = published.lock().unwrap().remove(0);
        assert_eq!(sent.room.as_str(), "match:m-1");
        assert_eq!(sent.sender.user, UserId::parse("ann").ok());
    }
}

#[tokio::test]
async fn who_looks_on_or_is_not_let_in_sends_nothing_and_a_wrong_message_names_its_field() {
    let nobody = || Match { spectators: Spectators::Nobody, ..waiting() };
    let rows = [
        (waiting(), Some("eve"), ACTION, ErrorCode::PermissionDenied, None),
        (waiting(), None, ACTION, ErrorCode::PermissionDenied, None),
        (nobody(), Some("eve"), ACTION, ErrorCode::PermissionDenied, None),
        (
            waiting().end(ms(0), None).unwrap(),
            Some("ann"),
            ACTION,
            ErrorCode::PermissionDenied,
            None,
        ),
        (waiting(), Some("ann"), "{}", ErrorCode::InvalidField, Some("data")),
        (waiting(), Some("ann"), r#"{"data":[1]}"#, ErrorCode::InvalidField, Some("data")),
        (waiting(), Some("ann"), r#"{"data":{},"x":1}"#, ErrorCode::InvalidField, Some("x")),
    ];
    for (found, user, body, code, field) in rows {
        let mut mocks = Mocks::default();
        finding(&mut mocks, vec![found]);
        let published = publishing_to(&mut mocks);
        let refused = say(mocks, user, body).await.unwrap_err();
        assert_eq!((refused.code, refused.field.as_deref()), (code, field), "{user:?} {body}");
        assert!(texts(&published).is_empty());
    }
}

#[tokio::test]
async fn middleware_is_asked_about_each_message_of_a_game() {
    let mut mocks = Mocks { rules: refusing(), ..Mocks::default() };
    finding(&mut mocks, vec![waiting()]);
    let refused = say(mocks, Some("ann"), ACTION).await.unwrap_err();
    assert_eq!(refused.message, "not today");
}

enum Does {
    Effects(Vec<HandlerEffect>),
    Panics,
}

#[async_trait::async_trait]
impl GameManager for Does {
    fn game_type(&self) -> &str {
        "own"
    }

    fn schemas(&self) -> &[MessageSchema] {
        const ANY: &[MessageSchema] = &[MessageSchema { kind: "game_action", fields: &[] }];
        ANY
    }

    async fn handle(&self, _: GameMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        match self {
            Self::Effects(effects) => Ok(effects.clone()),
            Self::Panics => panic!("a manager at fault"),
        }
    }
}

fn own_game(does: Does) -> (Mocks, Arc<Mutex<Vec<Publish>>>) {
    let mut mocks = Mocks::default();
    mocks.rules.games.register(Arc::new(does)).unwrap();
    let game = GameType::parse("own").unwrap();
    finding(&mut mocks, vec![Match { game, ..waiting() }]);
    let published = publishing_to(&mut mocks);
    (mocks, published)
}

#[tokio::test]
async fn a_manager_decides_about_the_matchs_room_alone_and_elsewhere_the_senders_rights_do() {
    let own = wants_publish("match:m-1", "1");
    let (mocks, published) = own_game(Does::Effects(vec![own.clone(), wants_reply(b"2")]));
    assert_eq!(say(mocks, Some("ann"), "{}").await, Ok(vec![wants_reply(b"2")]));
    assert_eq!(texts(&published), ["1"]);
    for elsewhere in ["match:m-2", "closed:a"] {
        let effects = vec![own.clone(), wants_publish(elsewhere, "2")];
        let (mocks, published) = own_game(Does::Effects(effects));
        let refused = say(mocks, Some("ann"), "{}").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::PermissionDenied, "{elsewhere}");
        assert!(texts(&published).is_empty());
    }
}

/// A cold call is polled behind a guard: what a panic leaves must be as if it had not been asked for.
#[test]
fn a_manager_that_panics_leaves_nothing_behind_but_its_panic() {
    let (mocks, published) = own_game(Does::Panics);
    let services = mocks.services();
    for _ in 0..2 {
        let call = HandleGameMessage {
            services: Arc::clone(&services),
            who: who(Some("ann")),
            id: waiting().id,
            kind: Arc::from("game_action"),
            body: Bytes::from_static(b"{}"),
        };
        let mut call = Box::pin(call.execute());
        let mut cx = TaskContext::from_waker(Waker::noop());
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut cx)));
        assert!(!matches!(polled, Ok(Poll::Pending)), "it waits for nothing");
        assert!(polled.is_err(), "the panic is the guard's");
    }
    assert!(texts(&published).is_empty());
}
