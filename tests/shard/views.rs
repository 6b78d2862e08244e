//! The documents' endpoints in one shard: what members are told in their own words, and who is given what
//! waited.

use std::sync::Arc;

use application::built_in::BuiltIn;
use application::limits::Limits;
use application::ports::inbox::MockInbox;
use application::ports::{Inbox, InboxError, Letter, LetterId, LetterLimits};
use application::services::{Ports, Rules};
use application::view::View;
use broker_memory::MemoryInbox;
use domain::documents::told::Endpoint;
use domain::id::UserId;
use domain::policy::Policies;
use serde_json::Value;

use crate::host::{Host, open_policy, open_rules, ready};

/// Rules with the rooms of the documents and their handlers.
pub(crate) fn rules() -> Rules {
    let mut policies = Policies::default();
    for namespace in ["public", "chat", "game", "user", "match"] {
        policies.set_namespace(namespace, open_policy());
    }
    let mut rules = Rules { policies, join_user_room: true, ..open_rules() };
    BuiltIn::default().register(&mut rules.handlers).unwrap();
    rules
}

fn kinds(frames: &[Value]) -> Vec<String> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_member_of_a_room_is_told_in_the_words_of_its_endpoint() {
    let mut host = Host::new(rules());
    let v2 = host.member("chat:global");
    let chat = host.connect_by(View::Document(Endpoint::Chat), Some("ann"));
    host.settle();
    assert_eq!(kinds(&host.frames(chat)), ["connected"]);
    host.frames(v2);
    host.say(chat, r#"{"type":"chat_message","content":"hi"}"#);
    let told = host.frames(v2);
    assert_eq!(told[0]["data"]["content"], "hi");
    let told = host.frames(chat);
    assert_eq!(
        (kinds(&told), &told[0]["user_id"]),
        (vec!["chat_message".to_owned()], &Value::from("ann"))
    );
    // What v2 says comes to both, in the other order of words.
    host.say(v2, r#"{"type":"publish","room":"chat:global","data":{"type":"roll","sides":6}}"#);
    assert_eq!(kinds(&host.frames(v2)), ["message"]);
    let told = host.frames(chat);
    assert_eq!((&told[0]["type"], &told[0]["sides"]), (&Value::from("roll"), &Value::from(6)));
}

#[test]
fn a_user_of_the_lobby_is_not_told_of_itself_and_others_are() {
    let mut host = Host::new(rules());
    let lobby = View::Document(Endpoint::Lobby);
    let ann = host.connect_by(lobby, Some("ann"));
    host.settle();
    assert_eq!(kinds(&host.frames(ann)), ["welcome", "user_list"]);
    let bob = host.connect_by(lobby, Some("bob"));
    host.settle();
    assert_eq!(kinds(&host.frames(bob)), ["welcome", "user_list"]);
    assert_eq!(kinds(&host.frames(ann)), ["user_connected"]);
    let tab = host.connect_by(lobby, Some("bob"));
    host.settle();
    assert_eq!(kinds(&host.frames(ann)), Vec::<String>::new());
    host.drop_line(bob);
    host.settle();
    assert_eq!(kinds(&host.frames(ann)), Vec::<String>::new());
    host.drop_line(tab);
    host.settle();
    assert_eq!(kinds(&host.frames(ann)), ["user_disconnected"]);
}

fn letter(n: u64) -> Letter {
    let data = format!(r#"{{"type":"chat_message","content":"{n}"}}"#).into();
    Letter { sender: Default::default(), data, at: domain::time::Wall::from_millis(1) }
}

const LIMITS: LetterLimits =
    LetterLimits { of_user: 100, of_pair: 100, of_sender: 100, of_all: 100 };

#[test]
fn what_waits_goes_to_one_connection_and_to_the_next_when_that_one_breaks() {
    let inbox = Arc::new(MemoryInbox::default());
    let ann = UserId::parse("ann").unwrap();
    for n in 0..3 {
        ready(inbox.put(&ann, letter(n), LIMITS)).unwrap();
    }
    let mut host = Host::with_ports(rules(), |ports| Ports { inbox: Some(inbox.clone()), ..ports });
    let chat = View::Document(Endpoint::Chat);
    host.hold_calls = true;
    let phone = host.connect_by(chat, Some("ann"));
    // The phone takes nothing of what it is given: nothing is removed.
    host.slow_down(phone, true);
    host.release_calls();
    let laptop = host.connect_by(chat, Some("ann"));
    host.settle();
    assert_eq!(kinds(&host.frames(laptop)), ["connected"]);
    assert_eq!(ready(inbox.read(&ann, None, 9, usize::MAX)).unwrap().len(), 3);
    host.drop_line(phone);
    host.settle();
    let told = host.frames(laptop);
    assert_eq!(kinds(&told), ["chat_message"; 3]);
    assert_eq!(told[2]["content"], "2");
    assert_eq!(ready(inbox.read(&ann, None, 9, usize::MAX)).unwrap().len(), 0);
}

#[test]
fn what_waited_comes_in_one_write_until_that_would_be_too_long() {
    let inbox = Arc::new(MemoryInbox::default());
    let ann = UserId::parse("ann").unwrap();
    let long = |n| Letter { data: format!(r#"{{"content":"{n:01000}"}}"#).into(), ..letter(n) };
    for n in 0..100 {
        ready(inbox.put(&ann, long(n), LIMITS)).unwrap();
    }
    let limits = Limits { joined_bytes_max: 64 << 10, ..Limits::default() };
    let rules = Rules { limits, ..rules() };
    let mut host = Host::with_ports(rules, |ports| Ports { inbox: Some(inbox.clone()), ..ports });
    let phone = host.connect_by(View::Document(Endpoint::Chat), Some("ann"));
    host.settle();
    let line = host.line(phone);
    assert_eq!(line.frames.len(), 101);
    // The greeting, and a hundred letters of about a kilobyte, sixty-four kilobytes at a time.
    assert_eq!(line.writes, 3);
}

#[test]
fn whoever_else_is_in_the_room_of_a_user_does_not_keep_letters_from_the_user() {
    let inbox = Arc::new(MemoryInbox::default());
    let mut host = Host::with_ports(rules(), |ports| Ports { inbox: Some(inbox.clone()), ..ports });
    let carl = host.connect_by(View::V2, Some("carl"));
    host.say(carl, r#"{"type":"subscribe","id":1,"room":"user:ann"}"#);
    let bob = host.connect_by(View::Document(Endpoint::Chat), Some("bob"));
    host.settle();
    assert!(kinds(&host.frames(carl)).contains(&"subscribed".to_owned()));
    let private =
        r#"{"type":"chat_message","id":1,"channel":"private","to_user_id":"ann","content":"hi"}"#;
    host.say(bob, private);
    host.settle();
    let ann = UserId::parse("ann").unwrap();
    assert_eq!(ready(inbox.read(&ann, None, 9, usize::MAX)).unwrap().len(), 1);
    // Ann herself, who joined it by name, hears what is said.
    let phone = host.connect_by(View::V2, Some("ann"));
    host.say(phone, r#"{"type":"subscribe","id":1,"room":"user:ann"}"#);
    host.say(bob, private);
    host.settle();
    assert_eq!(ready(inbox.read(&ann, None, 9, usize::MAX)).unwrap().len(), 1);
    assert_eq!(kinds(&host.frames(phone)).last().unwrap(), "message");
    // She leaves it, and is away again.
    host.say(phone, r#"{"type":"unsubscribe","id":2,"room":"user:ann"}"#);
    host.say(bob, private);
    host.settle();
    assert_eq!(ready(inbox.read(&ann, None, 9, usize::MAX)).unwrap().len(), 2);
}

#[test]
fn what_could_not_be_read_or_removed_is_tried_again_while_the_user_is_there_and_comes_once() {
    let mut inbox = MockInbox::new();
    let mut n_read = 0;
    inbox.expect_read().returning(move |_, _, _, _| {
        n_read += 1;
        let page = match n_read {
            1 | 2 => Err(InboxError::Storage("the disk is away".to_owned())),
            3 => Ok(vec![(LetterId(1), letter(7))]),
            _ => Ok(Vec::new()),
        };
        Box::pin(async { page })
    });
    let mut n_removed = 0;
    inbox.expect_remove().times(3).returning(move |_, up_to| {
        assert_eq!(up_to, LetterId(1));
        n_removed += 1;
        let removed = match n_removed {
            1 | 2 => Err(InboxError::Storage("the disk is full".to_owned())),
            _ => Ok(()),
        };
        Box::pin(async { removed })
    });
    let mut host =
        Host::with_ports(rules(), |ports| Ports { inbox: Some(Arc::new(inbox)), ..ports });
    let ann = host.connect_by(View::Document(Endpoint::Chat), Some("ann"));
    host.settle();
    let mut heard = kinds(&host.frames(ann));
    for _ in 0..6 {
        host.say(ann, r#"{"type":"pong"}"#);
        host.pass(30_000);
        heard.extend(kinds(&host.frames(ann)));
    }
    let said = heard.iter().filter(|kind| *kind != "ping").collect::<Vec<_>>();
    assert_eq!(said, ["connected", "chat_message"]);
}

#[test]
fn what_is_said_to_a_user_who_is_still_on_the_way_in_comes_all_the_same() {
    let inbox = Arc::new(MemoryInbox::default());
    let mut host = Host::with_ports(rules(), |ports| Ports { inbox: Some(inbox.clone()), ..ports });
    let chat = View::Document(Endpoint::Chat);
    let bob = host.connect_by(chat, Some("bob"));
    host.settle();
    host.hold_calls = true;
    let ann = host.connect_by(chat, Some("ann"));
    // It is known who she is; the room that she begins in is still being joined.
    host.release_one(0);
    let private =
        r#"{"type":"chat_message","id":1,"channel":"private","to_user_id":"ann","content":"hi"}"#;
    host.say_only(bob, private);
    host.release_one(host.n_held() - 1);
    host.settle();
    // The message is his own copy.
    assert_eq!(kinds(&host.frames(bob)), ["connected", "ack", "chat_message"]);
    host.release_calls();
    host.settle();
    assert_eq!(kinds(&host.frames(ann)), ["connected", "chat_message"]);
    assert_eq!(
        ready(inbox.read(&UserId::parse("ann").unwrap(), None, 9, usize::MAX)).unwrap().len(),
        0
    );
}
