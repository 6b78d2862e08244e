//! Ports that fail, one at a time and on every endpoint: clients learn that something is away, and nothing
//! of what the failure says.
//!
//! Each port has to be asked, or its failure would show nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use application::ports::authorizer::MockAuthorizer;
use application::ports::broker::MockBroker;
use application::ports::erasure::MockErasure;
use application::ports::inbox::MockInbox;
use application::ports::matches::MockMatches;
use application::ports::moderation::MockModeration;
use application::ports::presence::MockPresence;
use application::ports::spent_tokens::MockSpentTokens;
use application::ports::token_verifier::MockTokenVerifier;
use application::ports::{
    AuthorizerError, BrokerError, EraseError, InboxError, PresenceError, PublishError,
    ReadMatchesError, RecordError, SpendError,
};
use application::services::Ports;
use application::view::View;
use domain::documents::told::Endpoint;
use domain::id::{Role, TokenId, UserId};
use domain::principal::{Credential, Principal};
use domain::time::Wall;
use serde_json::json;

use crate::host::Host;
use crate::views::rules;

/// What stands in errors that are for the log.
const INSIDE: &str = "inside-0f3a: /var/lib/roomkeeper/archive.db is locked";
const AWAY: Duration = Duration::from_secs(1);

/// How often the port that fails was asked.
#[derive(Clone, Default)]
struct Asked(Arc<AtomicU64>);

impl Asked {
    fn once(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

const VIEWS: [View; 7] = [
    View::V2,
    View::Document(Endpoint::Lobby),
    View::Document(Endpoint::Game),
    View::Document(Endpoint::Chat),
    View::Document(Endpoint::Combat),
    View::Document(Endpoint::World),
    View::Document(Endpoint::Match),
];

const SAID: [&str; 15] = [
    r#"{"type":"subscribe","id":1,"room":"public:a"}"#,
    r#"{"type":"subscribe","id":1,"room":"match:m1"}"#,
    r#"{"type":"subscribe","id":1,"pattern":"public:*"}"#,
    r#"{"type":"publish","id":1,"room":"public:a","data":1}"#,
    r#"{"type":"publish","id":1,"room":"match:m1","data":1}"#,
    r#"{"type":"presence","id":1,"room":"public:a"}"#,
    r#"{"type":"history","id":1,"room":"public:a"}"#,
    r#"{"type":"chat_message","id":1,"content":"x"}"#,
    r#"{"type":"chat_message","id":1,"content":"x","channel":"private","to_user_id":"bob"}"#,
    r#"{"type":"history","id":1,"channel":"global"}"#,
    r#"{"type":"typing","id":1}"#,
    r#"{"type":"users","id":1}"#,
    r#"{"type":"game_action","id":1,"data":{}}"#,
    r#"{"type":"moderation","id":1,"channel":"global","action":"kick","user_id":"bob"}"#,
    r#"{"type":"status","id":1}"#,
];

/// Whoever comes with a token is a moderator; `once` says whether the token counts once.
fn moderator(once: bool) -> MockTokenVerifier {
    let mut verifier = MockTokenVerifier::new();
    verifier.expect_verify().returning(move |_, now: Wall| {
        let id = TokenId::parse("t-1").ok();
        let principal = Principal {
            user: UserId::parse("ann").ok(),
            roles: Role::parse("moderator").into_iter().collect(),
            expires_at: Some(now.after(Duration::from_secs(3_600))),
            credential: Credential { id, once, ..Credential::default() },
            ..Principal::default()
        };
        Box::pin(async { Ok(principal) })
    });
    verifier.expect_describe().returning(|_| Default::default());
    verifier
}

/// A shard with such ports, which everybody talks to from every endpoint.
fn tell_of_a_failure(name: &str, change: impl FnOnce(Ports, Asked) -> Ports) {
    let asked = Asked::default();
    let mut host = Host::with_ports(rules(), |ports| {
        let ports = Ports { token_verifier: Arc::new(moderator(false)), ..ports };
        change(ports, asked.clone())
    });
    for view in VIEWS {
        let slot = host.connect_by(view, Some("a token"));
        host.settle();
        for said in SAID {
            host.say(slot, said);
        }
        host.settle();
        let mut frames = host.line(slot).frames;
        // What it has said is to be deleted, too.
        let own = frames.iter().find_map(|frame| frame["message_id"].as_str());
        let delete = json!({"type": "moderation", "id": 1, "channel": "global", "action": "delete", "message_id": own});
        host.say(slot, &delete.to_string());
        host.settle();
        frames.extend(host.line(slot).frames);
        for frame in frames {
            let text = frame.to_string();
            let tells = text.contains("inside") || text.contains("archive.db");
            assert!(!tells, "{name} on {view:?}: {text}");
        }
    }
    assert!(asked.0.load(Ordering::Relaxed) > 0, "{name} was not asked");
}

/// Makes each method of a mock fail in the same way.
macro_rules! failing {
    ($mock:ident, $asked:ident, $error:expr, $($expect:ident($($argument:pat_param),*)),+) => {{
        let mut mock = $mock::new();
        $(
            let asked = $asked.clone();
            mock.$expect().returning(move |$($argument),*| {
                asked.once();
                Box::pin(async { Err($error) })
            });
        )+
        mock
    }};
}

#[test]
fn a_broker_that_fails_is_away_and_no_more() {
    tell_of_a_failure("the broker", |ports, asked| {
        let mut broker = failing!(
            MockBroker,
            asked,
            BrokerError::Unavailable { retry_after: AWAY },
            expect_subscribe(_, _, _, _),
            expect_watch(_, _, _),
            expect_read(_, _, _)
        );
        broker.expect_publish().returning(|_, _| {
            Box::pin(async { Err(PublishError::Unavailable { retry_after: AWAY }) })
        });
        broker.expect_unsubscribe().returning(|_, _, _| Box::pin(async {}));
        Ports { broker: Arc::new(broker), ..ports }
    });
}

#[test]
fn presence_that_fails_is_away_and_no_more() {
    tell_of_a_failure("presence", |ports, asked| {
        let mut presence = failing!(
            MockPresence,
            asked,
            PresenceError::Unavailable { retry_after: AWAY },
            expect_enter(_, _, _),
            expect_list(_, _),
            expect_update(_, _, _)
        );
        presence.expect_leave().returning(|_, _, _| Box::pin(async {}));
        Ports { presence: Arc::new(presence), ..ports }
    });
}

#[test]
fn an_inbox_that_fails_says_nothing_of_its_storage() {
    tell_of_a_failure("putting a letter", |ports, asked| {
        let mut inbox =
            failing!(MockInbox, asked, InboxError::Storage(INSIDE.to_owned()), expect_put(_, _, _));
        inbox.expect_read().returning(|_, _, _, _| Box::pin(async { Ok(Vec::new()) }));
        Ports { inbox: Some(Arc::new(inbox)), ..ports }
    });
    tell_of_a_failure("reading letters", |ports, asked| {
        let mut inbox = failing!(
            MockInbox,
            asked,
            InboxError::Storage(INSIDE.to_owned()),
            expect_read(_, _, _, _)
        );
        inbox.expect_put().returning(move |_, _, _| Box::pin(async { Ok(()) }));
        Ports { inbox: Some(Arc::new(inbox)), ..ports }
    });
}

#[test]
fn matches_that_can_not_be_read_say_nothing_of_their_storage() {
    tell_of_a_failure("finding a match", |ports, asked| {
        let matches =
            failing!(MockMatches, asked, ReadMatchesError(INSIDE.to_owned()), expect_find(_));
        Ports { matches: Arc::new(matches), ..ports }
    });
}

#[test]
fn moderation_that_can_not_be_written_down_says_nothing_of_its_storage() {
    tell_of_a_failure("recording an act", |ports, asked| {
        let mut moderation = failing!(
            MockModeration,
            asked,
            RecordError::Storage(INSIDE.to_owned()),
            expect_record(_)
        );
        moderation.expect_forbids().returning(|_, _, _, _| None);
        moderation.expect_bans_in().returning(|_| false);
        Ports { moderation: Some(Arc::new(moderation)), ..ports }
    });
    tell_of_a_failure("erasing a message", |ports, asked| {
        let erasure = failing!(
            MockErasure,
            asked,
            EraseError::Unavailable { retry_after: AWAY },
            expect_erase(_, _, _)
        );
        Ports { erasure: Some(Arc::new(erasure)), ..ports }
    });
}

#[test]
fn an_authorizer_that_fails_says_nothing_of_why() {
    tell_of_a_failure("the authorizer", |ports, asked| {
        let authorizer = failing!(
            MockAuthorizer,
            asked,
            AuthorizerError::Unavailable(INSIDE.to_owned()),
            expect_authorize(_)
        );
        Ports { authorizer: Some(Arc::new(authorizer)), ..ports }
    });
}

#[test]
fn a_token_whose_spending_can_not_be_stored_says_nothing_of_the_storage() {
    tell_of_a_failure("spending a token", |ports, asked| {
        let mut spent = failing!(
            MockSpentTokens,
            asked,
            SpendError::Storage(INSIDE.to_owned()),
            expect_spend(_, _, _)
        );
        spent.expect_remembered().returning(|| 0);
        let token_verifier = Arc::new(moderator(true));
        Ports { spent_tokens: Arc::new(spent), token_verifier, ..ports }
    });
}
