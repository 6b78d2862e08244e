//! Rights that change while somebody is there: a host's authorizer that changes its mind or gives
//! no answer, tokens and users that are taken back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use application::metrics::{AuthorizerOutcome, JoinOutcome, RevokeOutcome, TokenOutcome};
use application::node::Node;
use application::ports::{Authorizer, AuthorizerError, Question, Verdict};
use application::security::SecurityEvent;
use application::services::Rules;
use async_trait::async_trait;
use domain::codes::CloseCode;
use domain::id::{ConnectionId, UserId};
use domain::policy::{Access, NamespacePolicy};
use domain::principal::Action;
use domain::revocation::Revocation;
use domain::time::Wall;
use serde_json::{Value, json};

use crate::host::{Host, open_policy, open_rules, ready, types};

/// Allows what token and policy allow, but for what a test takes away.
#[derive(Default)]
struct Owner {
    denies: Mutex<Vec<(Action, &'static str)>>,
    is_away: Mutex<bool>,
    asked: Mutex<usize>,
}

impl Owner {
    fn denies(&self, action: Action, room: &'static str) {
        self.denies.lock().unwrap().push((action, room));
    }

    fn goes(&self, away: bool) {
        *self.is_away.lock().unwrap() = away;
    }

    fn asked(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[async_trait]
impl Authorizer for Owner {
    async fn authorize(&self, question: Question) -> Result<Verdict, AuthorizerError> {
        *self.asked.lock().unwrap() += 1;
        if *self.is_away.lock().unwrap() {
            return Err(AuthorizerError::Timeout);
        }
        let denies = self.denies.lock().unwrap();
        let is_meant = |(action, room): &(Action, &str)| {
            *action == question.action && *room == question.room.as_str()
        };
        let denied = denies.iter().any(is_meant);
        Ok(if denied { Verdict::Denied("the owner says no".into()) } else { Verdict::Allowed })
    }
}

fn rules(interval_ms: Option<u64>) -> Rules {
    Rules { revalidate_interval: interval_ms.map(Duration::from_millis), ..open_rules() }
}

fn hosted(rules: Rules) -> (Host, Arc<Owner>) {
    let owner = Arc::new(Owner::default());
    let host = Host::with_authorizer(rules, Some(Arc::clone(&owner) as _));
    (host, owner)
}

/// A little more than the second after which they are looked at again: timers are coarse.
const LOOK_MS: u64 = 1_100;

const PUBLISH: &str = r#"{"type":"publish","id":9,"room":"public:a","data":1}"#;

fn subscribe(room: &str) -> String {
    format!(r#"{{"type":"subscribe","id":1,"room":"{room}"}}"#)
}

#[test]
fn a_hosts_authorizer_decides_every_command_that_needs_a_right() {
    let (mut host, owner) = hosted(rules(None));
    let slot = host.member("public:a");
    for action in [Action::Subscribe, Action::Publish, Action::Presence, Action::History] {
        owner.denies(action, "public:a");
        owner.denies(action, "public:b");
    }
    let follow = r#"{"type":"subscribe","id":9,"room":"public:b","presence":true}"#;
    for command in [
        &subscribe("public:b"),
        follow,
        PUBLISH,
        r#"{"type":"history","id":9,"room":"public:a"}"#,
        r#"{"type":"presence","id":9,"room":"public:a"}"#,
        r#"{"type":"presence_update","id":9,"room":"public:a","data":{}}"#,
    ] {
        host.say(slot, command);
        let frames = host.frames(slot);
        assert_eq!(types(&frames), ["error"], "{command}");
        assert_eq!(frames[0]["code"], 103, "{command}");
        // What the host thinks is not for strangers.
        assert_eq!(frames[0]["message"], "not allowed in this room");
    }
}

/// A25
#[test]
fn no_answer_of_the_authorizer_is_no_yes_and_the_client_is_told_to_come_back() {
    let (mut host, owner) = hosted(rules(None));
    let slot = host.member("public:a");
    owner.goes(true);
    for command in [&subscribe("public:b"), PUBLISH, r#"{"type":"history","room":"public:a"}"#] {
        host.say(slot, command);
        let frames = host.frames(slot);
        assert_eq!((types(&frames), &frames[0]["code"]), (vec!["error"], &114.into()));
        assert_eq!(frames[0]["retry_after_ms"], 1_000);
    }
    owner.goes(false);
    host.say(slot, PUBLISH);
    assert_eq!(types(&host.frames(slot)), ["ack", "message"]);
}

/// A24
#[test]
fn who_loses_a_room_leaves_it_at_the_next_look_and_gets_nothing_of_it_any_more() {
    let (mut host, owner) = hosted(rules(Some(1_000)));
    let slot = host.member("public:a");
    host.say(slot, &subscribe("public:b"));
    host.frames(slot);
    host.pass(900);
    assert_eq!(owner.asked(), 2);
    owner.denies(Action::Subscribe, "public:a");
    host.pass(LOOK_MS - 900);
    let frames = host.frames(slot);
    assert_eq!(types(&frames), ["unsubscribed"]);
    assert_eq!((&frames[0]["room"], &frames[0]["code"]), (&"public:a".into(), &103.into()));
    assert_eq!(owner.asked(), 2);
    let other = host.connect(None);
    host.say(other, PUBLISH);
    assert!(host.frames(slot).is_empty());
    // It goes on from there, with the room that is left.
    owner.asked();
    host.pass(LOOK_MS);
    assert_eq!(owner.asked(), 1);
}

/// What is counted of the only shard's security events of a kind.
fn noted(host: &Host, event: SecurityEvent) -> u64 {
    host.node.services().metrics.shards[0].security.get(event)
}

#[test]
fn guards_are_told_of_each_refusal_and_of_each_room_that_is_lost() {
    let (mut host, owner) = hosted(rules(Some(1_000)));
    let slot = host.member("public:a");
    owner.denies(Action::Subscribe, "public:b");
    host.say(slot, &subscribe("public:b"));
    assert_eq!(noted(&host, SecurityEvent::PermissionDenied), 1);
    owner.denies(Action::Subscribe, "public:a");
    host.pass(LOOK_MS);
    assert_eq!(types(&host.frames(slot)), ["error", "unsubscribed"]);
    assert_eq!(noted(&host, SecurityEvent::RightsLost), 1);
    owner.goes(true);
    host.say(slot, &subscribe("public:c"));
    // No answer is no denial.
    assert_eq!(noted(&host, SecurityEvent::PermissionDenied), 1);
    let services = host.node.services();
    let answers = &services.metrics.edge.authorizer;
    let of = |outcome| answers.get(outcome);
    assert_eq!(of(AuthorizerOutcome::Allowed), 1);
    assert_eq!(of(AuthorizerOutcome::Denied), 2);
    assert_eq!(of(AuthorizerOutcome::Timeout), 1);
}

#[test]
fn a_fresh_token_that_allows_less_is_noted_for_each_room_and_pattern_that_goes() {
    let mut rules = open_rules();
    let policy = NamespacePolicy { subscribe: Access::Granted, ..open_policy() };
    rules.policies.set_namespace("chat", policy);
    let mut host = Host::new(rules);
    let slot = host.connect(Some("granted:chat:*:ann"));
    host.say(slot, &subscribe("chat:a"));
    host.say(slot, r#"{"type":"subscribe","id":2,"pattern":"chat:*"}"#);
    assert_eq!(types(&host.frames(slot)), ["hello", "subscribed", "subscribed"]);
    host.say(slot, r#"{"type":"refresh","id":3,"token":"ann"}"#);
    assert_eq!(types(&host.frames(slot)), ["refreshed", "unsubscribed", "unsubscribed"]);
    assert_eq!(noted(&host, SecurityEvent::RightsLost), 2);
    assert_eq!(noted(&host, SecurityEvent::PermissionDenied), 0);
}

#[test]
fn a_shorter_interval_and_a_first_one_count_for_who_is_there_already_one_after_the_other() {
    for first in [None, Some(3_600_000)] {
        let (mut host, owner) = hosted(rules(first));
        for _ in 0..4 {
            host.member("public:a");
        }
        owner.asked();
        host.pass(LOOK_MS);
        assert_eq!(owner.asked(), 0);
        let verifier = Arc::clone(&host.node.services().ports.token_verifier);
        host.node.adopt(rules(Some(1_000)), verifier);
        host.settle();
        // All within the interval, and not all at once.
        host.pass(LOOK_MS / 2);
        let asked = owner.asked();
        assert!((1..=3).contains(&asked), "{asked}");
        host.pass(LOOK_MS / 2);
        assert!(asked + owner.asked() >= 4);
        let verifier = Arc::clone(&host.node.services().ports.token_verifier);
        host.node.adopt(rules(None), verifier);
        host.settle();
        host.pass(2 * LOOK_MS);
        assert_eq!(owner.asked(), 0);
    }
}

#[test]
fn who_may_not_follow_presence_any_more_stays_in_the_room_and_hears_nobody_come() {
    let (mut host, owner) = hosted(rules(Some(1_000)));
    let slot = host.connect(None);
    host.say(slot, r#"{"type":"subscribe","id":1,"room":"public:a","presence":true}"#);
    host.frames(slot);
    owner.denies(Action::Presence, "public:a");
    host.pass(LOOK_MS);
    host.member("public:a");
    assert!(host.frames(slot).is_empty());
    let other = host.connect(None);
    host.say(other, PUBLISH);
    assert_eq!(types(&host.frames(slot)), ["message"]);
}

#[test]
fn an_authorizer_that_stays_away_ends_the_connection_and_one_that_comes_back_in_time_does_not() {
    let (mut host, owner) = hosted(rules(Some(1_000)));
    let slot = host.member("public:a");
    owner.goes(true);
    host.pass(LOOK_MS);
    assert_eq!(host.line(slot).closed, None);
    owner.goes(false);
    host.pass(LOOK_MS);
    owner.goes(true);
    host.pass(LOOK_MS);
    assert_eq!(host.line(slot).closed, None);
    host.pass(LOOK_MS);
    assert_eq!(host.line(slot).closed, Some(CloseCode::TryAgainLater));
}

#[test]
fn a_connection_is_asked_about_once_at_a_time_and_its_commands_do_not_wait() {
    let (mut host, owner) = hosted(rules(Some(1_000)));
    let slot = host.member("public:a");
    host.hold_calls = true;
    host.pass(3 * LOOK_MS);
    host.hold_calls = false;
    host.say(slot, PUBLISH);
    assert_eq!(types(&host.frames(slot)), ["ack", "message"]);
    owner.asked();
    owner.denies(Action::Subscribe, "public:a");
    host.release_calls();
    // One question about one room, though three looks were due.
    assert_eq!(owner.asked(), 1);
    assert_eq!(types(&host.frames(slot)), ["unsubscribed"]);
}

#[test]
fn an_answer_about_an_older_token_takes_nothing_away() {
    let (mut host, owner) = hosted(rules(Some(1_000)));
    let slot = host.connect(Some("ann"));
    host.say(slot, &subscribe("public:a"));
    host.hold_calls = true;
    host.pass(LOOK_MS);
    host.hold_calls = false;
    host.say(slot, r#"{"type":"refresh","id":2,"token":"ann"}"#);
    assert!(types(&host.frames(slot)).contains(&"refreshed"));
    owner.denies(Action::Subscribe, "public:a");
    host.release_calls();
    assert!(host.frames(slot).is_empty());
    // The next look is about the token that counts.
    host.pass(LOOK_MS);
    assert_eq!(types(&host.frames(slot)), ["unsubscribed"]);
}

#[test]
fn a_refresh_asks_the_authorizer_for_each_room_and_without_an_answer_changes_nothing() {
    let (mut host, owner) = hosted(rules(None));
    let slot = host.connect(Some("ann"));
    host.say(slot, &subscribe("public:a"));
    host.frames(slot);
    owner.goes(true);
    host.say(slot, r#"{"type":"refresh","id":2,"token":"ann"}"#);
    let line = host.line(slot);
    assert_eq!((types(&line.frames), line.closed), (vec!["error"], None));
    assert_eq!(line.frames[0]["code"], 114);
    owner.goes(false);
    owner.denies(Action::Subscribe, "public:a");
    host.say(slot, r#"{"type":"refresh","id":3,"token":"ann"}"#);
    assert_eq!(types(&host.frames(slot)), ["refreshed", "unsubscribed"]);
}

#[test]
fn whether_a_room_is_full_is_told_to_those_alone_who_may_be_in_it() {
    let mut rules = rules(None);
    let policy = NamespacePolicy { members_max: 1, ..open_policy() };
    rules.policies.set_namespace("public", policy);
    let (mut host, owner) = hosted(rules);
    host.member("public:a");
    let late = host.connect(None);
    host.frames(late);
    host.say(late, &subscribe("public:a"));
    assert_eq!(host.frames(late)[0]["code"], 117);
    assert_eq!(noted(&host, SecurityEvent::PermissionDenied), 0);
    owner.denies(Action::Subscribe, "public:a");
    host.say(late, &subscribe("public:a"));
    assert_eq!(host.frames(late)[0]["code"], 103);
    assert_eq!(noted(&host, SecurityEvent::PermissionDenied), 1);
    let services = host.node.services();
    assert_eq!(services.metrics.shards[0].joins.get(JoinOutcome::Refused), 2);
    assert_eq!(services.metrics.shards[0].members.get(), 1);
}

#[test]
fn who_comes_back_to_a_full_room_is_told_so_in_its_hello_and_only_if_it_may_know() {
    let mut rules = rules(None);
    let policy = NamespacePolicy { members_max: 1, ..open_policy() };
    rules.policies.set_namespace("public", policy);
    let (mut host, owner) = hosted(rules);
    host.member("public:a");
    host.member("public:b");
    owner.denies(Action::Subscribe, "public:b");
    let late = host.connect(None);
    host.frames(late);
    let room =
        |name| format!(r#"{{"room":"public:{name}","epoch":"0000000000000001","offset":1}}"#);
    let rooms = ["a", "b", "c"].map(room).join(",");
    host.say(late, &format!(r#"{{"type":"connect","id":1,"resume":[{rooms}]}}"#));
    let hello = host.frames(late).remove(0);
    let resumed = hello["resumed"].as_array().unwrap();
    let codes: Vec<_> = resumed.iter().map(|room| room["error"]["code"].as_u64()).collect();
    assert_eq!(codes, [Some(117), Some(103), None], "{hello}");
}

#[test]
fn in_development_the_refusal_says_which_rule_it_was() {
    let mut rules = Rules { explains_denials: true, ..open_rules() };
    let policy = NamespacePolicy { subscribe: Access::Granted, ..open_policy() };
    rules.policies.set_namespace("chat", policy);
    let mut host = Host::new(rules);
    let slot = host.connect(None);
    host.frames(slot);
    host.say(slot, &subscribe("chat:a"));
    let message = host.frames(slot)[0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("subscribe = granted, and there is no token"), "{message}");
}

fn revoke(host: &mut Host, revocation: Revocation) {
    let node: &Node = &host.node;
    assert_eq!(ready(node.revoke(revocation)), Ok(()));
    host.settle();
}

fn user(name: &str) -> Revocation {
    let now = Wall::from_millis(1_700_000_000_000);
    Revocation::User { user: UserId::parse(name).unwrap(), issued_until: now }
}

#[test]
fn a_user_who_is_revoked_is_gone_at_once_from_everywhere_and_others_are_not() {
    let mut host = Host::new(open_rules());
    let (ann, tab, bob) =
        (host.connect(Some("ann")), host.connect(Some("ann")), host.connect(Some("bob")));
    let nobody = host.connect(None);
    revoke(&mut host, user("ann"));
    for slot in [ann, tab] {
        let line = host.line(slot);
        assert_eq!(line.closed, Some(CloseCode::Revoked));
        assert_eq!(line.frames.last().unwrap()["code"], 3507);
        assert_eq!(line.frames.last().unwrap()["reconnect"], false);
    }
    assert_eq!(host.line(bob).closed, None);
    assert_eq!(host.line(nobody).closed, None);
    assert_eq!(noted(&host, SecurityEvent::Revoked), 2);
    let back = host.connect(Some("ann"));
    assert_eq!(host.line(back).closed, Some(CloseCode::Revoked));
    let services = host.node.services();
    let edge = &services.metrics.edge;
    assert_eq!(edge.security.get(SecurityEvent::AuthenticationFailed), 1);
    assert_eq!(edge.tokens.get(TokenOutcome::Revoked), 1);
    assert_eq!(edge.revocations.get(RevokeOutcome::Kept), 1);
    assert_eq!(services.ports.revocations.remembered(), 1);
}

#[test]
fn one_connection_is_revoked_by_its_id_even_if_it_is_anonymous() {
    let mut host = Host::new(open_rules());
    let (one, other) = (host.connect(None), host.connect(None));
    let id = host.frames(one)[0]["connection_id"].as_str().unwrap().to_owned();
    revoke(&mut host, Revocation::Connection(ConnectionId::parse(&id).unwrap()));
    assert_eq!(host.line(one).closed, Some(CloseCode::Revoked));
    assert_eq!(host.line(other).closed, None);
}

#[test]
fn whose_token_is_revoked_while_it_is_being_verified_is_not_let_in() {
    let mut host = Host::new(open_rules());
    host.hold_calls = true;
    let slot = host.connect(Some("ann"));
    // The token was looked at before it was revoked, the answer comes behind.
    let outcomes = host.run_held();
    revoke(&mut host, user("ann"));
    host.complete(outcomes);
    let line = host.line(slot);
    assert_eq!(line.closed, Some(CloseCode::Revoked));
    assert!(!types(&line.frames).contains(&"hello"));
    assert_eq!(noted(&host, SecurityEvent::Revoked), 1);
}

#[test]
fn a_revoked_token_is_no_refresh() {
    let mut host = Host::new(open_rules());
    let slot = host.connect(Some("ann"));
    // Without the order that ends the connection, so that it is still there to ask.
    let services = host.node.services();
    let now = Wall::from_millis(1_700_000_000_000);
    assert_eq!(ready(services.ports.revocations.add(&user("ann"), now)), Ok(()));
    host.say(slot, r#"{"type":"refresh","id":2,"token":"ann"}"#);
    assert_eq!(host.line(slot).closed, Some(CloseCode::Revoked));
}

#[test]
fn a_room_that_is_lost_while_its_page_waits_leaves_the_connection_able_to_speak() {
    let owner = Arc::new(Owner::default());
    let interval = Duration::from_millis(1_000);
    let mut rules = Rules { revalidate_interval: Some(interval), ..open_rules() };
    rules.limits.page_messages_max = 1;
    let mut host = Host::with_authorizer(rules, Some(Arc::clone(&owner) as _));
    let publisher = host.member("public:a");
    for n in 0..5 {
        host.say(
            publisher,
            &format!(r#"{{"type":"publish","id":{n},"room":"public:a","data":{n}}}"#),
        );
    }
    let frames = host.frames(publisher);
    let epoch = frames.iter().find_map(|frame| frame.get("epoch").cloned()).unwrap();
    let slot = host.connect(None);
    host.frames(slot);
    host.slow_down(slot, true);
    let since = json!({"epoch": epoch, "offset": 0});
    let text = json!({"type": "subscribe", "id": 1, "room": "public:a", "since": since});
    host.say(slot, &text.to_string());
    // Both wait: the page for the client, and the command for the page.
    host.say(slot, r#"{"type":"ping","id":2}"#);
    owner.denies(Action::Subscribe, "public:a");
    host.pass(1_500);
    host.slow_down(slot, false);
    let frames = host.frames(slot);
    let told: Vec<_> = frames.iter().map(|f| (f["type"].as_str().unwrap(), &f["id"])).collect();
    assert!(told.contains(&("unsubscribed", &Value::Null)), "{told:?}");
    assert!(told.contains(&("pong", &json!(2))), "{told:?}");
    host.say(slot, r#"{"type":"ping","id":3}"#);
    assert_eq!(host.frames(slot).last().unwrap()["id"], 3);
}

#[test]
fn a_room_that_is_lost_while_it_is_joined_is_refused_and_leaves_no_ghost() {
    let owner = Arc::new(Owner::default());
    let interval = Duration::from_millis(1_000);
    let rules = Rules { revalidate_interval: Some(interval), ..open_rules() };
    let mut host = Host::with_authorizer(rules, Some(Arc::clone(&owner) as _));
    let slot = host.connect(Some("ann"));
    host.frames(slot);
    host.hold_calls = true;
    host.say(slot, r#"{"type":"subscribe","id":1,"room":"public:a"}"#);
    host.pass(1_200);
    assert_eq!(host.n_held(), 2);
    owner.denies(Action::Subscribe, "public:a");
    // The look at the rights ends, then the leave; the join was allowed before, and ends last.
    host.release_one(1);
    owner.denies.lock().unwrap().clear();
    host.release_one(1);
    host.release_one(0);
    host.hold_calls = false;
    host.release_calls();
    let frames = host.frames(slot);
    assert_eq!((types(&frames), &frames[0]["code"]), (vec!["error"], &json!(103)));
    let other = host.connect(Some("bob"));
    host.say(other, r#"{"type":"presence","id":3,"room":"public:a"}"#);
    assert_eq!(host.frames(other).last().unwrap()["total"], json!(0));
}
