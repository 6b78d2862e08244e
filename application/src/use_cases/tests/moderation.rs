//! What moderators may do, and what those whom they mute or ban may not.

use domain::documents::chat;
use domain::id::Role;
use domain::moderation::{Act, Deed, Until};
use domain::principal::{Action, Grant};
use domain::recovery::EarlierLives;
use mockall::predicate::{always, eq};

use super::*;
use crate::mailbox::Control;
use crate::ports::{EraseError, RecordError};
use crate::use_cases::moderate::{Moderate, ModerateRefused};
use crate::use_cases::update_presence::UpdatePresence;

/// One that forbids this to the user `u` in the tests' room for 5 s.
fn forbidding(deeds: &'static [Deed]) -> Option<MockModeration> {
    let mut moderation = MockModeration::new();
    let end = Until::At(Wall::default().after(Duration::from_secs(5)));
    moderation.expect_forbids().returning(move |user, place, deed, _| {
        let is_meant = user.as_str() == "u" && *place == room() && deeds.contains(&deed);
        is_meant.then_some(end)
    });
    Some(moderation)
}

const MUTED: &[Deed] = &[Deed::Speak];
const BANNED: &[Deed] = &[Deed::Speak, Deed::Enter];

fn sanctioned(deed: Deed) -> NotAllowed {
    NotAllowed::Sanctioned { deed, retry_after: Some(Duration::from_secs(5)) }
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

#[tokio::test]
async fn a_muted_user_publishes_nothing_with_or_without_the_right_and_is_told_for_how_long() {
    for needs_right in [true, false] {
        let mocks = Mocks { moderation: forbidding(MUTED), ..Mocks::default() };
        let publishing = publishing(mocks, Access::Anyone);
        let refused = publishing.check(needs_right, false).await.unwrap_err();
        assert_eq!(refused, PublishRefused::NotAllowed(sanctioned(Deed::Speak)));
        let refusal = Refusal::from(refused);
        assert_eq!(
            (refusal.code, refusal.retry_after),
            (ErrorCode::PermissionDenied, Some(Duration::from_secs(5)))
        );
        assert!(refusal.message.contains("muted"), "{}", refusal.message);
    }
    let mocks = Mocks { moderation: forbidding(MUTED), ..Mocks::default() };
    let services = mocks.services();
    let policy = policy(Access::Anyone);
    let data = Bytes::from_static(b"{}");
    let update = UpdatePresence { services, who: who(Some("u")), room: room(), policy, data };
    let refused = PresenceRefused::NotAllowed(sanctioned(Deed::Speak));
    assert_eq!(update.execute().await, Err(refused));
}

#[tokio::test]
async fn others_and_nobody_in_particular_are_heard() {
    for name in [Some("v"), None] {
        let mocks = Mocks { moderation: forbidding(BANNED), ..Mocks::default() };
        let publishing = PublishMessage { who: who(name), ..publishing(mocks, Access::Anyone) };
        assert_eq!(publishing.check(true, false).await, Ok(()));
    }
}

#[tokio::test]
async fn a_banned_user_joins_and_reads_nothing_whatever_its_rights_and_the_authorizer_say() {
    let refused = sanctioned(Deed::Enter);
    // The authorizer is not even asked.
    let mocks = Mocks {
        moderation: forbidding(BANNED),
        authorizer: Some(MockAuthorizer::new()),
        ..Mocks::default()
    };
    let joined = joining(mocks, None, Access::Anyone).execute().await;
    assert_eq!(joined.unwrap_err(), JoinRefused::NotAllowed(refused.clone()));
    let mocks = Mocks { moderation: forbidding(BANNED), ..Mocks::default() };
    let read = ReadHistory {
        services: mocks.services(),
        who: who(Some("u")),
        room: room(),
        policy: policy(Access::Anyone),
        since: None,
        messages_max: 1,
    };
    assert_eq!(read.execute().await.unwrap_err(), HistoryRefused::NotAllowed(refused.clone()));
    let mocks = Mocks { moderation: forbidding(BANNED), ..Mocks::default() };
    let (services, policy) = (mocks.services(), policy(Access::Anyone));
    let (who, room) = (who(Some("u")), room());
    let list = ListPresence { services, who, room, policy, is_crowd: false };
    assert_eq!(list.execute().await.unwrap_err(), PresenceRefused::NotAllowed(refused));
}

/// A node that takes `expected` and answers so, one shard's mailbox of it, and `moderation` for it.
fn moderating(mut mocks: Mocks, who: Arc<Who>, act: Act) -> (Moderate, Arc<Mailbox>) {
    mocks.rules.policies.set_namespace("chat", NamespacePolicy::clone(&policy(Access::Anyone)));
    let mailbox = Arc::new(Mailbox::new(1, 10));
    let services = Services::clone(&mocks.services());
    let services = Services { mailboxes: vec![Arc::clone(&mailbox)], ..services };
    let roles = Role::parse("moderator").into_iter().collect();
    let wanted = chat::Moderation { room: room(), act, reason: Some("rude".to_owned()) };
    (Moderate { services: Arc::new(services), who, roles, wanted }, mailbox)
}

/// One that forbids nobody anything and answers this when something is recorded, at most once.
fn recording(answer: Result<(), RecordError>) -> Option<MockModeration> {
    let mut moderation = MockModeration::new();
    moderation.expect_forbids().returning(|_, _, _, _| None);
    moderation.expect_record().times(0..=1).returning(move |_| {
        let answer = answer.clone();
        Box::pin(async move { answer })
    });
    Some(moderation)
}

/// The user `m`, with these roles and grants.
fn somebody(roles: &[&str], grants: Vec<Grant>) -> Arc<Who> {
    let roles = roles.iter().map(|role| Role::parse(role).unwrap()).collect();
    let principal = Principal { roles, grants, ..Principal::clone(&who(Some("m")).principal) };
    Arc::new(Who { principal: Arc::new(principal), ..Who::clone(&who(Some("m"))) })
}

fn moderator() -> Arc<Who> {
    somebody(&["moderator"], Vec::new())
}

#[tokio::test]
async fn a_role_moderates_everywhere_and_a_grant_where_it_is_given() {
    let grant =
        |pattern: &str, action| vec![Grant::new(RoomPattern::parse(pattern).unwrap(), &[action])];
    for (who, may) in [
        (moderator(), true),
        (somebody(&["player"], grant("chat:a", Action::Moderate)), true),
        (somebody(&[], grant("chat:b", Action::Moderate)), false),
        (somebody(&[], grant("chat:a", Action::Publish)), false),
        (somebody(&["player"], Vec::new()), false),
        (who(None), false),
    ] {
        let mocks = Mocks { moderation: recording(Ok(())), ..Mocks::default() };
        let (moderate, _) = moderating(mocks, who, Act::Kick(user("u")));
        let services = Arc::clone(&moderate.services);
        let done = moderate.execute().await;
        let denied = Err(ModerateRefused::NotAllowed(NotAllowed::Denied(None)));
        assert_eq!(done, if may { Ok(user("m")) } else { denied });
        let noted = services.metrics.edge.security.get(SecurityEvent::Moderation);
        assert_eq!(noted, u64::from(may));
    }
}

#[tokio::test]
async fn whoever_is_muted_or_banned_in_a_room_moderates_nothing_there() {
    let mocks = Mocks { moderation: forbidding(MUTED), ..Mocks::default() };
    let muted = Who::clone(&moderator());
    let principal = Principal { user: Some(user("u")), ..Principal::clone(&muted.principal) };
    let muted = Arc::new(Who { principal: Arc::new(principal), ..muted });
    let (moderate, _) = moderating(mocks, muted, Act::Unmute(user("u")));
    let refused = ModerateRefused::NotAllowed(sanctioned(Deed::Speak));
    assert_eq!(moderate.execute().await, Err(refused));
}

#[tokio::test]
async fn nobody_moderates_itself() {
    let mocks = Mocks { moderation: recording(Ok(())), ..Mocks::default() };
    let (moderate, mailbox) = moderating(mocks, moderator(), Act::Ban(user("m"), None));
    let refused = moderate.execute().await.unwrap_err();
    assert_eq!(refused, ModerateRefused::Oneself);
    let refusal = Refusal::from(refused);
    assert_eq!(
        (refusal.code, refusal.field.as_deref()),
        (ErrorCode::InvalidField, Some("user_id"))
    );
    assert_eq!(mailbox.take_orders(), []);
}

#[tokio::test]
async fn what_is_recorded_names_who_where_what_why_and_when() {
    let mut moderation = MockModeration::new();
    moderation.expect_forbids().returning(|_, _, _, _| None);
    let act = Act::Mute(user("u"), Some(Duration::from_secs(60)));
    let entry = domain::moderation::Entry {
        at: Wall::default(),
        order: Wall::default(),
        by: user("m"),
        room: room(),
        act: act.clone(),
        reason: Some("rude".to_owned()),
    };
    moderation.expect_record().with(eq(entry)).times(1).returning(|_| Box::pin(async { Ok(()) }));
    let mocks = Mocks { moderation: Some(moderation), ..Mocks::default() };
    let (moderate, mailbox) = moderating(mocks, moderator(), act);
    assert_eq!(moderate.execute().await, Ok(user("m")));
    // A muted user stays where it is.
    assert_eq!(mailbox.take_orders(), []);
}

#[tokio::test]
async fn whoever_is_kicked_or_banned_is_put_out_also_where_it_could_not_be_stored() {
    let storage = || RecordError::Storage("full".to_owned());
    for act in [Act::Kick(user("u")), Act::Ban(user("u"), None)] {
        for (answer, is_put_out) in
            [(Ok(()), true), (Err(storage()), true), (Err(RecordError::Full), false)]
        {
            let mocks = Mocks { moderation: recording(answer.clone()), ..Mocks::default() };
            let (moderate, mailbox) = moderating(mocks, moderator(), act.clone());
            let done = moderate.execute().await;
            assert_eq!(done, answer.map(|()| user("m")).map_err(ModerateRefused::Record));
            let order = Control::PutOut(user("u"), room());
            let orders: Vec<_> = is_put_out.then_some(order).into_iter().collect();
            assert_eq!(mailbox.take_orders(), orders);
        }
    }
    let codes =
        [RecordError::Full, storage()].map(|e| Refusal::from(ModerateRefused::Record(e)).code);
    assert_eq!(codes, [ErrorCode::RoomFull, ErrorCode::Unavailable]);
}

/// Of a log whose epoch went on from the first message of another.
fn deleting(at: Position, mut mocks: Mocks) -> Moderate {
    mocks.broker.expect_read().returning(|_, _, read| {
        let next = read.after.next().unwrap().get();
        let messages: &[u64] = if next <= 2 { &[next] } else { &[] };
        let mut page = page(EPOCH, 1, 2, messages, false);
        page.bounds.earlier = EarlierLives::new([Position { epoch: OTHER, offset: offset(1) }]);
        Box::pin(async move { Ok(page) })
    });
    moderating(mocks, moderator(), Act::Delete(at)).0
}

fn place(epoch: Epoch, n: u64) -> Position {
    Position { epoch, offset: offset(n) }
}

#[tokio::test]
async fn a_message_is_erased_once_that_is_written_down_and_what_is_not_there_is_neither() {
    let mut sequence = Sequence::new();
    let (mut moderation, mut erasure) = (MockModeration::new(), MockErasure::new());
    moderation.expect_forbids().returning(|_, _, _, _| None);
    let recorded = moderation.expect_record().times(1).in_sequence(&mut sequence);
    recorded.returning(|_| Box::pin(async { Ok(()) }));
    let erased = erasure.expect_erase().times(1).in_sequence(&mut sequence);
    let erased = erased.with(eq(room()), always(), eq(place(EPOCH, 2)));
    erased.returning(|_, _, _| Box::pin(async { Ok(()) }));
    let mocks = Mocks { moderation: Some(moderation), erasure: Some(erasure), ..Mocks::default() };
    assert_eq!(deleting(place(EPOCH, 2), mocks).execute().await, Ok(user("m")));
    // Nothing is written down and nothing erased.
    for unknown in [place(EPOCH, 3), place(OTHER, 2)] {
        let mut moderation = MockModeration::new();
        moderation.expect_forbids().returning(|_, _, _, _| None);
        let erasure = Some(MockErasure::new());
        let mocks = Mocks { moderation: Some(moderation), erasure, ..Mocks::default() };
        let refused = deleting(unknown, mocks).execute().await.unwrap_err();
        assert_eq!(refused, ModerateRefused::UnknownMessage);
        let refusal = Refusal::from(refused);
        assert_eq!(refusal.code, ErrorCode::InvalidPosition);
        assert_eq!(refusal.field.as_deref(), Some("message_id"));
    }
}

#[tokio::test]
async fn a_message_of_an_epoch_that_has_ended_is_erased_under_the_name_that_its_readers_know() {
    let mut erasure = MockErasure::new();
    let erased = erasure.expect_erase().with(eq(room()), always(), eq(place(OTHER, 1))).times(1);
    erased.returning(|_, _, _| Box::pin(async { Ok(()) }));
    let mocks = Mocks { moderation: recording(Ok(())), erasure: Some(erasure), ..Mocks::default() };
    assert_eq!(deleting(place(OTHER, 1), mocks).execute().await, Ok(user("m")));
}

#[tokio::test]
async fn a_deletion_that_failed_is_no_success() {
    let mut erasure = MockErasure::new();
    let wait = Duration::from_secs(1);
    let away = EraseError::Unavailable { retry_after: wait };
    erasure.expect_erase().returning(move |_, _, _| Box::pin(async move { Err(away) }));
    let moderation = recording(Ok(()));
    let mocks = Mocks { moderation, erasure: Some(erasure), ..Mocks::default() };
    let refused = deleting(place(EPOCH, 2), mocks).execute().await;
    assert_eq!(refused, Err(ModerateRefused::Broker { retry_after: wait }));
    // A node that has nobody for it says so, and writes nothing down.
    let mut moderation = MockModeration::new();
    moderation.expect_forbids().returning(|_, _, _, _| None);
    let mocks = Mocks { moderation: Some(moderation), ..Mocks::default() };
    assert_eq!(
        deleting(place(EPOCH, 2), mocks).execute().await,
        Err(ModerateRefused::NotAvailable)
    );
    let (moderate, _) = moderating(Mocks::default(), moderator(), Act::Kick(user("u")));
    assert_eq!(moderate.execute().await, Err(ModerateRefused::NotAvailable));
}

#[tokio::test]
async fn an_act_stands_behind_what_is_known_about_the_same_whatever_the_clock_says_and_is_done_now()
{
    let later = Wall::from_millis(1_000_000);
    let mut moderation = MockModeration::new();
    moderation.expect_forbids().returning(|_, _, _, _| None);
    let now = Wall::default();
    let is_later = move |entry: &domain::moderation::Entry| entry.order > later && entry.at == now;
    let recorded = moderation.expect_record().withf(is_later).times(1);
    recorded.returning(|_| Box::pin(async { Ok(()) }));
    let mocks = Mocks { moderation: Some(moderation), ..Mocks::default() };
    let (moderate, _) = moderating(mocks, moderator(), Act::Unban(user("u")));
    // Of another node, whose clock is ahead.
    let act = Act::Ban(user("u"), None);
    let (by, room, reason) = (user("m"), room(), None);
    let heard = domain::moderation::Entry { at: later, order: later, by, room, act, reason };
    moderate.services.directory.acts.note(&heard);
    assert_eq!(moderate.execute().await, Ok(user("m")));
}
