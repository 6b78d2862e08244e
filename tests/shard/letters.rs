//! What is said to a user who is on another node, or away from all of them, as one of several nodes sees it.

use std::sync::{Arc, Mutex};

use application::ports::inbox::MockInbox;
use application::ports::peers::MockPeers;
use application::ports::{
    Heard, Inbox, InboxError, Letter, LetterId, LetterLimits, NodeName, Peer, PeerAnswer,
    PeerQuestion, Word,
};
use application::services::Ports;
use application::view::View;
use broker_memory::MemoryInbox;
use domain::documents::told::Endpoint;
use domain::id::UserId;

use crate::host::{Host, ready, types};
use crate::views::rules;

const CHAT: View = View::Document(Endpoint::Chat);
const PRIVATE: &str =
    r#"{"type":"chat_message","id":1,"channel":"private","to_user_id":"ann","content":"hi"}"#;
const LIMITS: LetterLimits =
    LetterLimits { of_user: 100, of_pair: 100, of_sender: 100, of_all: 100 };

fn ann() -> UserId {
    UserId::parse("ann").unwrap()
}

fn letter(n: u64) -> Letter {
    let data = format!(r#"{{"type":"chat_message","content":"{n}"}}"#).into();
    Letter { sender: Default::default(), data, at: domain::time::Wall::from_millis(1) }
}

/// What a node says to its peers, and how they know it.
#[derive(Clone, Default)]
struct Told {
    words: Arc<Mutex<Vec<Word>>>,
    peer: Arc<Mutex<Option<Arc<dyn Peer>>>>,
}

impl Told {
    /// Peers of which this was heard, whatever is asked.
    fn peers(&self, heard: Heard) -> Arc<MockPeers> {
        let mut peers = MockPeers::new();
        peers.expect_name().returning(|| NodeName::parse("a"));
        peers.expect_ask().returning(move |question| {
            assert!(matches!(&question, PeerQuestion::Hears(user) if *user == ann()));
            let heard = heard.clone();
            Box::pin(async move { heard })
        });
        let (words, peer) = (Arc::clone(&self.words), Arc::clone(&self.peer));
        peers.expect_tell().returning(move |word| words.lock().unwrap().push(word.clone()));
        peers.expect_serve().returning(move |one| *peer.lock().unwrap() = Some(one));
        Arc::new(peers)
    }

    fn peer(&self) -> Arc<dyn Peer> {
        self.peer.lock().unwrap().clone().unwrap()
    }
}

fn heard(answers: &[bool], n_missing: usize) -> Heard {
    let node = |n: usize| NodeName::parse(&format!("n{n}")).unwrap();
    let answers = answers.iter().enumerate();
    Heard {
        answers: answers.map(|(n, hears)| (node(n), PeerAnswer::Hears(*hears))).collect(),
        missing: (7..7 + n_missing).map(node).collect(),
        unknown: false,
    }
}

fn host(told: &Told, heard: Heard, inbox: Arc<dyn Inbox>) -> Host {
    let peers = told.peers(heard);
    Host::with_ports(rules(), |ports| Ports { inbox: Some(inbox), peers, ..ports })
}

fn waiting(inbox: &MemoryInbox) -> usize {
    ready(inbox.read(&ann(), None, 9, usize::MAX)).unwrap().len()
}

#[test]
fn what_is_said_to_a_user_whom_another_node_hears_for_is_published_and_waits_nowhere() {
    let (told, inbox) = (Told::default(), Arc::new(MemoryInbox::default()));
    let mut host = host(&told, heard(&[false, true], 1), inbox.clone());
    // Somebody who hears what is published there, and does not count as ann.
    let carl = host.connect_by(View::V2, Some("carl"));
    host.say(carl, r#"{"type":"subscribe","id":1,"room":"user:ann"}"#);
    let bob = host.connect_by(CHAT, Some("bob"));
    host.settle();
    host.frames(carl);
    host.say(bob, PRIVATE);
    host.settle();
    assert_eq!(types(&host.frames(carl)), ["message"]);
    assert_eq!(waiting(&inbox), 0);
    assert!(told.words.lock().unwrap().is_empty());
}

#[test]
fn what_nobody_says_to_hear_waits_and_all_nodes_are_told_of_it() {
    for heard in [heard(&[], 0), heard(&[false], 1), Heard { unknown: true, ..Heard::default() }] {
        let (told, inbox) = (Told::default(), Arc::new(MemoryInbox::default()));
        let mut host = host(&told, heard, inbox.clone());
        let bob = host.connect_by(CHAT, Some("bob"));
        host.settle();
        host.say(bob, PRIVATE);
        host.settle();
        assert_eq!(waiting(&inbox), 1);
        assert_eq!(*told.words.lock().unwrap(), [Word::LettersWait(ann())]);
    }
}

/// It was kept, nobody could say so, and now somebody hears it: published it would be there twice.
#[test]
fn what_may_be_kept_is_the_same_letter_when_it_is_said_again_whoever_hears_the_user_then() {
    let (told, mut inbox) = (Told::default(), MockInbox::new());
    let (puts, mut n_put) = (Arc::new(Mutex::new(Vec::new())), 0);
    let noted = Arc::clone(&puts);
    inbox.expect_put().returning(move |_, letter, _| {
        noted.lock().unwrap().push(letter.data);
        n_put += 1;
        let put = if n_put <= 2 { Err(InboxError::Unsure("gone".to_owned())) } else { Ok(()) };
        Box::pin(async { put })
    });
    inbox.expect_read().returning(|_, _, _, _| Box::pin(async { Ok(Vec::new()) }));
    inbox.expect_release().return_const(());
    let mut host = host(&told, Heard::default(), Arc::new(inbox));
    let bob = host.connect_by(CHAT, Some("bob"));
    host.settle();
    host.frames(bob);
    let say = |host: &mut Host| {
        host.say(bob, PRIVATE);
        host.settle();
        types(&host.frames(bob)).join(" ")
    };
    assert!(say(&mut host).contains("error"));
    // It may be there: whoever hears the user looks.
    assert_eq!(*told.words.lock().unwrap(), [Word::LettersWait(ann())]);
    let phone = host.connect_by(CHAT, Some("ann"));
    host.settle();
    assert_eq!(types(&host.frames(phone)), ["connected"]);
    assert!(say(&mut host).contains("error"));
    assert!(say(&mut host).contains("ack"));
    {
        let puts = puts.lock().unwrap();
        assert!(puts.len() == 3 && puts.iter().all(|data| *data == puts[0]), "{puts:?}");
    }
    assert!(host.frames(phone).is_empty());
    // The same words once more are something new.
    assert!(say(&mut host).contains("ack"));
    assert_eq!(types(&host.frames(phone)), ["chat_message"]);
    assert_eq!(puts.lock().unwrap().len(), 3);
}

#[test]
fn a_node_that_is_told_that_something_waits_gives_it_to_whoever_is_there() {
    let (told, inbox) = (Told::default(), Arc::new(MemoryInbox::default()));
    let mut host = host(&told, Heard::default(), inbox.clone());
    let hears = || ready(told.peer().answer(PeerQuestion::Hears(ann())));
    assert_eq!(
        hears(),
        Some(PeerAnswer::Hears(false)),
        "whoever asks does not wait for somebody who has gone"
    );
    let phone = host.connect_by(CHAT, Some("ann"));
    host.settle();
    assert_eq!(hears(), Some(PeerAnswer::Hears(true)));
    assert_eq!(types(&host.frames(phone)), ["connected"]);
    ready(inbox.put(&ann(), letter(7), LIMITS)).unwrap();
    told.peer().letters_wait(&UserId::parse("bob").unwrap());
    host.settle();
    assert!(host.frames(phone).is_empty());
    told.peer().letters_wait(&ann());
    host.settle();
    assert_eq!(host.frames(phone)[0]["content"], "7");
    assert_eq!(waiting(&inbox), 0);
}

#[test]
fn while_another_node_gives_what_waits_this_one_looks_again_every_second_and_gives_what_is_left() {
    let told = Told::default();
    let mut inbox = MockInbox::new();
    let mut n_read = 0;
    inbox.expect_read().times(5).returning(move |_, _, _, _| {
        n_read += 1;
        let page = match n_read {
            1..=3 => Err(InboxError::Elsewhere),
            4 => Ok(vec![(LetterId(9), letter(9))]),
            _ => Ok(Vec::new()),
        };
        Box::pin(async { page })
    });
    inbox.expect_remove().times(1).returning(|_, _| Box::pin(async { Ok(()) }));
    let mut host = host(&told, Heard::default(), Arc::new(inbox));
    let phone = host.connect_by(CHAT, Some("ann"));
    host.settle();
    assert_eq!(types(&host.frames(phone)), ["connected"]);
    host.pass(1_100);
    host.pass(1_100);
    assert!(host.frames(phone).is_empty());
    host.pass(1_100);
    host.settle();
    assert_eq!(host.frames(phone)[0]["content"], "9");
}

#[test]
fn a_connection_that_breaks_while_it_is_given_something_lets_other_nodes_have_it() {
    let told = Told::default();
    let mut inbox = MockInbox::new();
    inbox
        .expect_read()
        .returning(|_, _, _, _| Box::pin(async { Ok(vec![(LetterId(9), letter(9))]) }));
    inbox.expect_release().withf(|user| *user == ann()).times(1).return_const(());
    let mut host = host(&told, Heard::default(), Arc::new(inbox));
    host.hold_calls = true;
    let phone = host.connect_by(CHAT, Some("ann"));
    // It takes nothing of what it is given: nothing is removed.
    host.slow_down(phone, true);
    host.release_calls();
    host.settle();
    host.drop_line(phone);
    host.settle();
    assert_eq!(*told.words.lock().unwrap(), [Word::LettersWait(ann())]);
}
