//! What somebody outside is told of a node's rooms and connections, page by page, while they come
//! and go; and what one such question costs the shard.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use application::inquiry::{ENDS_MAX, Of, Unanswered, VISITS_MAX, Whom};
use application::shard::Slot;
use application::use_cases::end_connections::EndConnections;
use application::use_cases::list_connections::{ConnectionCursor, ListConnections};
use application::use_cases::list_rooms::{ListRooms, RoomsPage};
use domain::codes::CloseCode;
use domain::id::UserId;
use domain::room::RoomId;
use proptest::prelude::*;

use crate::host::{Host, open_rules, types};

/// Asks, and lets the shard answer, piece by piece; says in how many pieces.
fn asked<T>(
    host: &mut Host,
    ask: impl AsyncFnOnce(&application::node::Node) -> Result<T, Unanswered>,
) -> (T, usize) {
    // The node is asked by a copy of its mailboxes, so that the host can go on meanwhile.
    let node = Arc::clone(&host.node);
    let mut future = pin!(async move { ask(&node).await });
    let mut context = Context::from_waker(Waker::noop());
    for pieces in 0..100_000 {
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return (answer.unwrap(), pieces);
        }
        host.settle();
    }
    panic!("no answer");
}

fn rooms(host: &mut Host, prefix: &str, after: Option<&str>, rooms_max: u32) -> RoomsPage {
    let after = after.map(|name| RoomId::parse(name).unwrap());
    let list = ListRooms { prefix: Arc::from(prefix), after, rooms_max };
    let ask = async |node: &application::node::Node| {
        let turn = node.turn_to_list().await;
        node.rooms(&turn, list).await
    };
    asked(host, ask).0
}

fn names(page: &RoomsPage) -> Vec<&str> {
    page.rooms.iter().map(|here| here.room.as_str()).collect()
}

fn join(host: &mut Host, slot: Slot, room: &str) {
    host.say(slot, &format!(r#"{{"type":"subscribe","id":1,"room":"{room}"}}"#));
    assert_eq!(types(&host.frames(slot)).last(), Some(&"subscribed"), "{room}");
}

fn leave(host: &mut Host, slot: Slot, room: &str) {
    host.say(slot, &format!(r#"{{"type":"unsubscribe","room":"{room}"}}"#));
}

#[test]
fn rooms_are_listed_with_their_members_and_how_far_they_are() {
    let mut host = Host::new(open_rules());
    let (one, other) = (host.member("public:b"), host.member("public:b"));
    join(&mut host, one, "public:a");
    host.say(other, r#"{"type":"publish","room":"public:b","data":1}"#);
    let page = rooms(&mut host, "", None, 10);
    assert_eq!(names(&page), ["public:a", "public:b"]);
    let told: Vec<_> =
        page.rooms.iter().map(|r| (r.members, r.position.unwrap().offset.get())).collect();
    assert_eq!((told, page.more), (vec![(1, 0), (2, 1)], false));
    host.drop_line(other);
    leave(&mut host, one, "public:a");
    let page = rooms(&mut host, "", None, 10);
    assert_eq!((names(&page), page.rooms[0].members), (vec!["public:b"], 1));
}

#[test]
fn a_prefix_is_the_beginning_of_a_name_and_a_page_goes_on_behind_the_last() {
    let mut host = Host::new(open_rules());
    let slot = host.connect(None);
    host.frames(slot);
    for room in ["public:a", "public:a/1", "public:a/2", "public:a0", "public:b"] {
        join(&mut host, slot, room);
    }
    assert_eq!(names(&rooms(&mut host, "public:a/", None, 10)), ["public:a/1", "public:a/2"]);
    assert_eq!(names(&rooms(&mut host, "pub", Some("public:a0"), 10)), ["public:b"]);
    assert!(rooms(&mut host, "chat:", None, 10).rooms.is_empty());
    // A room that has gone is as good a place to go on from as any.
    let page = rooms(&mut host, "public:a", Some("public:a/"), 2);
    assert_eq!((names(&page), page.more), (vec!["public:a/1", "public:a/2"], true));
    let page = rooms(&mut host, "public:a", Some("public:a/2"), 2);
    assert_eq!((names(&page), page.more), (vec!["public:a0"], false));
    // One that stands before the prefix takes nothing away.
    assert_eq!(names(&rooms(&mut host, "public:b", Some("public:a"), 2)), ["public:b"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rooms_that_are_there_throughout_are_each_in_one_page_whatever_comes_and_goes(
        page_size in 1_u32..12,
        stay in proptest::collection::btree_set(0_u32..200, 1..40),
        changes in proptest::collection::vec((0_u32..200, any::<bool>()), 0..120),
    ) {
        let mut host = Host::new(open_rules());
        let mut rules = open_rules();
        rules.limits.rooms_per_connection_max = 1_000;
        host.node.adopt(rules, Arc::clone(&host.node.services().ports.token_verifier));
        host.settle();
        let (staying, passing) = (host.connect(None), host.connect(None));
        let room = |n: &u32| format!("public:r{n:03}");
        for n in &stay {
            join(&mut host, staying, &room(n));
        }
        host.line(passing);
        let (mut seen, mut after, mut changes) = (BTreeMap::<String, u32>::new(), None, changes.into_iter());
        loop {
            let page = rooms(&mut host, "public:r", after.as_deref(), page_size);
            for name in names(&page) {
                *seen.entry(name.to_owned()).or_default() += 1;
            }
            after = page.rooms.last().map(|last| last.room.to_string());
            if !page.more {
                break;
            }
            for (n, comes) in changes.by_ref().take(3) {
                let kind = if comes { "subscribe" } else { "unsubscribe" };
                host.say(passing, &format!(r#"{{"type":"{kind}","id":1,"room":"{}"}}"#, room(&n)));
                host.line(passing);
            }
        }
        for n in &stay {
            prop_assert_eq!(seen.get(&room(n)), Some(&1), "{}", n);
        }
        prop_assert!(seen.values().all(|times| *times == 1));
    }
}

fn connections(
    host: &mut Host,
    of: &Of,
    connections_max: u32,
    mut between: impl FnMut(&mut Host),
) -> (BTreeMap<u64, u32>, usize) {
    let (mut seen, mut from) = (BTreeMap::new(), Some(ConnectionCursor::default()));
    let mut pieces = 0;
    while let Some(at) = from {
        let list = ListConnections { of: of.clone(), from: at, connections_max };
        let ask = async |node: &application::node::Node| {
            let turn = node.turn_to_list().await;
            node.connections(&turn, list).await
        };
        let (page, asked) = asked(host, ask);
        assert!(page.connections.len() <= connections_max as usize);
        for here in &page.connections {
            *seen.entry(here.connection.bits()).or_default() += 1;
        }
        (from, pieces) = (page.next, pieces + asked);
        between(host);
    }
    (seen, pieces)
}

#[test]
fn a_connection_is_listed_as_its_shard_knows_it() {
    let mut host = Host::new(open_rules());
    let ann = host.connect(Some("ann"));
    host.pass(1_500);
    join(&mut host, ann, "public:a");
    let list = ListConnections { connections_max: 10, ..ListConnections::default() };
    let ask = async |node: &application::node::Node| {
        let turn = node.turn_to_list().await;
        node.connections(&turn, list).await
    };
    let (page, _) = asked(&mut host, ask);
    let here = &page.connections[0];
    assert_eq!((here.connection.bits(), here.client.as_str()), (1_000, "client"));
    assert_eq!(here.user, Some(UserId::parse("ann").unwrap()));
    assert_eq!(here.since.to_string(), "2023-11-14T22:13:20.000Z");
    assert_eq!((here.rooms, here.patterns, page.next), (1, 0, None));
}

#[test]
fn connections_are_chosen_by_user_and_by_room_and_newcomers_without_a_hello_are_not_listed() {
    let mut host = Host::new(open_rules());
    let ann = host.connect(Some("ann"));
    let (bob, tab) = (host.connect(Some("bob")), host.connect(Some("ann")));
    for slot in [bob, tab] {
        join(&mut host, slot, "public:a");
    }
    host.hold_calls = true;
    host.connect(Some("ann"));
    let bits = |slot: Slot| 1_000 + u64::from(slot.index);
    let mut of = |user: Option<&str>, room: Option<&str>| {
        let user = user.map(|name| UserId::parse(name).unwrap());
        let room = room.map(|name| RoomId::parse(name).unwrap());
        let (seen, _) = connections(&mut host, &Of { user, room }, 10, |_| {});
        seen.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(of(None, None), [bits(ann), bits(bob), bits(tab)]);
    assert_eq!(of(Some("ann"), None), [bits(ann), bits(tab)]);
    assert_eq!(of(None, Some("public:a")), [bits(bob), bits(tab)]);
    assert_eq!(of(Some("ann"), Some("public:a")), [bits(tab)]);
    assert!(of(Some("ann"), Some("public:nowhere")).is_empty());
}

#[test]
fn connections_that_are_there_throughout_are_each_in_one_page_whatever_comes_and_goes() {
    let mut host = Host::new(open_rules());
    let all: Vec<_> = (0..60).map(|_| host.connect(None)).collect();
    let (mut passing, staying): (Vec<_>, Vec<_>) = all.iter().partition(|slot| slot.index % 3 == 0);
    let (seen, _) = connections(&mut host, &Of::default(), 7, |host| {
        for slot in passing.drain(..passing.len().min(4)) {
            host.drop_line(slot);
        }
        for _ in 0..3 {
            host.connect(None);
        }
    });
    for slot in staying {
        assert_eq!(seen.get(&(1_000 + u64::from(slot.index))), Some(&1), "{slot:?}");
    }
}

/// The work of one step is bounded by what it looks at, whatever is found there.
#[test]
fn a_question_about_many_connections_is_answered_in_bounded_pieces() {
    let mut host = Host::new(open_rules());
    let n = 2 * VISITS_MAX + 10;
    host.connect(Some("ann"));
    for _ in 1..n {
        host.connect(None);
    }
    let user = Some(UserId::parse("nobody-here").unwrap());
    let (seen, pieces) = connections(&mut host, &Of { user, room: None }, 1_000, |_| {});
    assert_eq!((seen.len(), pieces), (0, 3));
    let end = |user: &str| {
        let whom = Whom::User(UserId::parse(user).unwrap());
        EndConnections { whom, code: CloseCode::Idle }
    };
    // Who is not here is known without looking.
    for (user, expected) in [("nobody-here", (0, 0)), ("ann", (1, 3))] {
        let ask = end(user);
        let (ended, pieces) = asked(&mut host, async |node| {
            node.end_connections(&node.turn_to_list().await, ask).await
        });
        assert_eq!((ended, pieces), expected, "{user}");
    }
}

#[test]
fn all_connections_of_a_user_are_ended_with_the_code_that_was_asked_for_and_counted() {
    let mut rules = open_rules();
    rules.limits.connections_per_user_max = 1_000;
    let mut host = Host::new(rules);
    let n = 2 * ENDS_MAX + 1;
    let anns: Vec<_> = (0..n).map(|_| host.connect(Some("ann"))).collect();
    let bob = host.connect(Some("bob"));
    let whom = Whom::User(UserId::parse("ann").unwrap());
    let end = EndConnections { whom, code: CloseCode::Forbidden };
    let again = end.clone();
    let (ended, pieces) =
        asked(&mut host, async |node| node.end_connections(&node.turn_to_list().await, end).await);
    assert_eq!((ended, pieces), (n, 3));
    for slot in anns {
        let line = host.line(slot);
        assert_eq!(line.closed, Some(CloseCode::Forbidden));
        assert_eq!(line.frames.last().unwrap()["reconnect"], false);
    }
    assert_eq!(host.line(bob).closed, None);
    // Repeating it changes nothing.
    let (ended, _) = asked(&mut host, async |node| {
        node.end_connections(&node.turn_to_list().await, again).await
    });
    assert_eq!(ended, 0);
}

#[test]
fn one_listing_is_carried_out_at_a_time() {
    let host = Host::new(open_rules());
    let mut context = Context::from_waker(Waker::noop());
    let node = Arc::clone(&host.node);
    let mut first = pin!(node.turn_to_list());
    let Poll::Ready(turn) = first.as_mut().poll(&mut context) else {
        panic!("nobody is before it")
    };
    let mut second = pin!(node.turn_to_list());
    assert!(second.as_mut().poll(&mut context).is_pending());
    drop(turn);
    assert!(second.as_mut().poll(&mut context).is_ready());
}
