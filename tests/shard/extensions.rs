//! What a host adds: middleware in its order, with what it passes on, and the inbox behind a slow one.

use std::sync::{Arc, Mutex};

use application::extensions::handlers::{HandlerEffect, HandlerMessage, MessageHandler};
use application::extensions::middleware::{Context, Inbound, Middleware, Who};
use application::refusal::Refusal;
use application::view::View;
use async_trait::async_trait;
use domain::codes::{CloseCode, ErrorCode};
use domain::documents::client::Role;
use domain::documents::told::Endpoint;

use crate::host::{Host, open_rules, types};

type Diary = Arc<Mutex<Vec<String>>>;

fn note(diary: &Diary, words: impl Into<String>) {
    diary.lock().unwrap().push(words.into());
}

/// Writes down when it was asked and what those before it found out, and passes on its own name.
struct Link {
    name: &'static str,
    diary: Diary,
    refuses: Option<&'static str>,
}

impl Link {
    fn seen(context: &Context) -> String {
        let names = context.get::<String>("names");
        names.map_or_else(|| "-".to_owned(), |names| (*names).clone())
    }

    fn pass_on(&self, context: &mut Context) {
        let names = format!("{}{}", Self::seen(context), self.name);
        context.set("names", names);
    }
}

#[async_trait]
impl Middleware for Link {
    async fn process_connection(&self, _: &Who, context: &mut Context) -> Result<(), CloseCode> {
        note(&self.diary, format!("{} connection {}", self.name, Self::seen(context)));
        self.pass_on(context);
        Ok(())
    }

    async fn process_message(
        &self,
        _: &Who,
        message: Inbound<'_>,
        context: &mut Context,
    ) -> Result<(), Refusal> {
        let (kind, seen) = (message.kind, Self::seen(context));
        note(&self.diary, format!("{} {kind} {seen}", self.name));
        self.pass_on(context);
        match self.refuses {
            Some(refused) if refused == kind => {
                Err(Refusal::new(ErrorCode::PermissionDenied, "not this one"))
            }
            _ => Ok(()),
        }
    }

    async fn process_disconnect(&self, _: &Who, code: CloseCode) {
        note(&self.diary, format!("{} disconnect {}", self.name, code.number()));
    }
}

/// Answers what middleware found out.
struct Tells;

#[async_trait]
impl MessageHandler for Tells {
    fn message_type(&self) -> &str {
        "tell"
    }

    fn validate(&self, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    async fn handle(&self, message: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let data = format!("\"{}\"", Link::seen(&message.context)).into();
        Ok(vec![HandlerEffect::Reply { kind: "told".to_owned(), data }])
    }
}

fn chain(diary: &Diary, names: &[&'static str], refuses: Option<&'static str>) -> Host {
    let mut rules = open_rules();
    for name in names {
        rules.middleware.push(Arc::new(Link { name, diary: Arc::clone(diary), refuses }));
    }
    rules.handlers.register(Arc::new(Tells)).unwrap();
    Host::new(rules)
}

#[test]
fn the_chain_is_asked_in_its_order_each_link_is_told_what_those_before_found_out() {
    let diary = Diary::default();
    let mut host = chain(&diary, &["a", "b", "c"], None);
    let slot = host.connect(Some("ann"));
    host.say(slot, r#"{"type":"tell","id":1}"#);
    host.say(slot, r#"{"type":"tell","id":2}"#);
    let frames = host.frames(slot);
    assert_eq!(types(&frames), ["hello", "told", "told"]);
    // What was found out at the connection is there for each message; what for a message is gone after.
    assert_eq!((&frames[1]["data"], &frames[2]["data"]), (&"-abcabc".into(), &"-abcabc".into()));
    host.drop_line(slot);
    let told = ["a tell -abc", "b tell -abca", "c tell -abcab"];
    let mut wanted = vec!["a connection -", "b connection -a", "c connection -ab"];
    wanted.extend(told.iter().chain(&told));
    // The last to come is the first to go.
    wanted.extend(["c disconnect 1001", "b disconnect 1001", "a disconnect 1001"]);
    assert_eq!(*diary.lock().unwrap(), wanted);
}

#[test]
fn middleware_comes_in_any_order_and_who_refuses_keeps_the_message_from_those_behind() {
    let diary = Diary::default();
    let mut host = chain(&diary, &["c", "a"], Some("tell"));
    let slot = host.connect(None);
    host.say(slot, r#"{"type":"tell","id":1}"#);
    host.say(slot, r#"{"type":"subscribe","id":2,"room":"public:a"}"#);
    let frames = host.frames(slot);
    assert_eq!(types(&frames), ["hello", "error", "subscribed"]);
    assert_eq!((&frames[1]["code"], &frames[1]["id"]), (&103.into(), &1.into()));
    let asked: Vec<String> = diary.lock().unwrap().clone();
    let wanted =
        ["c connection -", "a connection -c", "c tell -ca", "c subscribe -ca", "a subscribe -cac"];
    assert_eq!(asked, wanted);
}

#[test]
fn message_queueing_under_load_is_the_bounded_inbox_a_pushy_client_is_slowed_and_nothing_is_lost() {
    let diary = Diary::default();
    let mut rules = open_rules();
    rules.limits.inbox_messages_max = 4;
    rules.middleware.push(Arc::new(Link { name: "a", diary: Arc::clone(&diary), refuses: None }));
    rules.handlers.register(Arc::new(Tells)).unwrap();
    let mut host = Host::new(rules);
    let slot = host.connect(None);
    host.frames(slot);
    host.hold_calls = true;
    // The first is under way, four wait.
    for id in 1..=5 {
        assert!(host.line(slot).reading, "not read before {id}");
        host.say_only(slot, &format!(r#"{{"type":"tell","id":{id}}}"#));
    }
    assert!(!host.line(slot).reading, "the sixth is left in the socket");
    host.release_calls();
    let line = host.line(slot);
    let ids: Vec<_> = line.frames.iter().map(|frame| frame["id"].as_u64().unwrap()).collect();
    assert_eq!((ids, line.reading, line.closed), (vec![1, 2, 3, 4, 5], true, None));
}

/// The handler that document 004 adds as an example, and one for a single endpoint.
struct Custom(&'static str);

#[async_trait]
impl MessageHandler for Custom {
    fn message_type(&self) -> &str {
        "custom_message"
    }

    fn validate(&self, body: &str) -> Result<(), Refusal> {
        let message: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let has_content = message["content"].as_str().is_some_and(|content| !content.is_empty());
        let missing = || Refusal::new(ErrorCode::InvalidField, "is missing").field("content");
        has_content.then_some(()).ok_or_else(missing)
    }

    async fn handle(&self, _: HandlerMessage) -> Result<Vec<HandlerEffect>, Refusal> {
        let data = format!("\"{}\"", self.0).into();
        let room = domain::room::RoomId::parse("public:custom").map_err(|_| Refusal::internal())?;
        let kind = "custom_answer".to_owned();
        Ok(vec![HandlerEffect::Reply { kind, data }, HandlerEffect::Join(room)])
    }
}

#[test]
fn a_hosts_handler_answers_on_every_endpoint_and_one_of_an_endpoint_only_there() {
    let mut rules = crate::views::rules();
    rules.handlers.register(Arc::new(Custom("everywhere"))).unwrap();
    rules.handlers.register_at(Endpoint::World, Arc::new(Custom("in the world"))).unwrap();
    let mut host = Host::new(rules);
    // One of each, as a user has no more than a few connections.
    let mut users = 0..;
    for (view, answer) in [
        (View::V2, "everywhere"),
        (View::Client(Role::Frontend), "everywhere"),
        (View::Document(Endpoint::Lobby), "everywhere"),
        (View::Document(Endpoint::Game), "everywhere"),
        (View::Document(Endpoint::Chat), "everywhere"),
        (View::Document(Endpoint::Combat), "everywhere"),
        (View::Document(Endpoint::World), "in the world"),
    ] {
        let slot = host.connect_by(view, Some(&format!("user-{}", users.next().unwrap())));
        host.settle();
        host.frames(slot);
        host.say(slot, r#"{"type":"custom_message","id":7}"#);
        host.settle();
        let refused = host.frames(slot);
        assert_eq!(refused.len(), 1, "{view:?}: {refused:?}");
        assert_eq!((&refused[0]["code"], &refused[0]["field"]), (&102.into(), &"content".into()));
        host.say(slot, r#"{"type":"custom_message","id":7,"content":"x"}"#);
        host.settle();
        let heard = host.frames(slot);
        assert_eq!(heard[0]["type"], "custom_answer", "{view:?}: {heard:?}");
        assert_eq!(heard[0]["data"], answer, "{view:?}: {heard:?}");
        // A room can be joined where there are rooms.
        let joins = !matches!(view, View::Client(_));
        assert!(joins || heard[1]["code"] == 115, "{view:?}: {heard:?}");
    }
}
