//! The outbox, members that are followed, and what becomes of requests when the connection ends; each in the
//! fewest frames. It must never repeat what the vectors show.

use serde_json::json;

use super::support::{REQUEST_TIMEOUT, World, ack, hello, refusal, room, settings, subscribed};
use crate::client::life::Phase;
use crate::client::{Ask, RoomPhase, Settings, SubscribeOptions, Token, TokenPlace};
use crate::protocol::client_event::Event;

/// How they ended, in the order of their ends.
fn ends(world: &World) -> Vec<(&str, &str)> {
    world.settled.iter().map(|(name, how)| (name.as_str(), *how)).collect()
}

/// K04: the outbox has a bound, keeps its order, and lets go of what is too old.
#[test]
fn what_is_published_without_a_connection_waits_in_order_up_to_a_bound() {
    let mut world = World::new(Settings { outbox_max: 2, ..settings() });
    for name in ["m-1", "m-2", "m-3"] {
        world.publish(name, true);
    }
    assert_eq!(ends(&world), [("m-3", "outbox_full")]);
    world.open();
    world.say(&hello(None));
    let ids: Vec<_> = ["m-1", "m-2"].iter().map(|id| format!(r#""msg_id":"{id}""#)).collect();
    assert_eq!(world.sent.len(), 2);
    assert!(world.sent.iter().zip(&ids).all(|(frame, id)| frame.contains(id)), "{:?}", world.sent);
    world.say(&ack(1, 1));
    world.advance(60_000);
    assert_eq!(ends(&world)[1..], [("m-1", "acked"), ("m-2", "unanswered")]);
}

#[test]
fn a_leave_that_is_refused_for_the_moment_is_said_again_until_the_client_is_out() {
    let mut world = World::joined(4);
    world.ask("leave", Ask::Unsubscribe(room("public:r")), REQUEST_TIMEOUT);
    world.say(&refusal(2, 114, Some(300)));
    world.sent.clear();
    world.advance(299);
    assert_eq!((world.sent.len(), ends(&world)), (0, vec![]));
    world.advance(1);
    assert_eq!(world.sent, [r#"{"type":"unsubscribe","id":2,"room":"public:r"}"#]);
    world.say(&json!({"type": "unsubscribed", "id": 2, "room": "public:r", "timestamp": "t"}));
    assert_eq!(ends(&world), [("leave", "done")]);
    assert_eq!(world.machine.room_phase(&room("public:r")), None);
}

/// K01: closing while it connects, twice, and asking of what is closed.
#[test]
fn a_client_can_be_closed_at_any_time_and_more_than_once() {
    let mut world = World::new(settings());
    world.join("public:r", SubscribeOptions::default());
    world.publish("m-1", true);
    world.close();
    world.close();
    assert_eq!(ends(&world), [("join", "closed"), ("m-1", "not_sent")]);
    assert_eq!(world.machine.phase(), Phase::Idle);
    world.open();
    world.say(&hello(None));
    world.lose(1006, "");
    world.advance(600_000);
    assert!(!world.is_dialing);
    assert_eq!((world.machine.held(), world.machine.due(true)), ([0; 9], None));
}

/// What whoever counts tickets is told.
#[test]
fn a_client_has_a_ticket_only_where_it_would_show_it() {
    for (token_in, has_one) in [(TokenPlace::ConnectFrame, true), (TokenPlace::Header, false)] {
        let token = Some(Token::new("t"));
        let mut world = World::new(Settings { token, token_in, ..settings() });
        world.open();
        assert!(!world.machine.has_ticket());
        let mut greeting = hello(has_one.then_some(1));
        greeting["session"] = json!("AcL");
        world.say(&greeting);
        assert_eq!(world.machine.has_ticket(), has_one);
        world.lose(1006, "");
        world.advance(0);
        world.open();
        let is_shown = world.sent.iter().any(|frame| frame.contains(r#""session":"AcL""#));
        assert_eq!(is_shown, has_one, "{:?}", world.sent);
    }
}

/// K02: attempts are counted anew once a connection has stood, not once it is open.
#[test]
fn a_server_that_takes_connections_and_drops_them_is_not_asked_ever_faster() {
    let mut world = World::greeted();
    let attempts = |world: &mut World, stands_ms| {
        world.advance(stands_ms);
        world.told.clear();
        world.lose(1006, "");
        world.advance(0);
        world.lose(1006, "");
        let failed = world.told.iter().find_map(|event| match event {
            Event::AttemptFailed { attempt, .. } => Some(*attempt),
            _ => None,
        });
        world.advance(0);
        world.open();
        world.say(&hello(None));
        failed.unwrap()
    };
    assert_eq!([0, 19_999, 20_000, 5].map(|ms| attempts(&mut world, ms)), [1, 3, 1, 3]);
}

/// K03: what the server says about coming back is obeyed, and a stop stays one.
#[test]
fn what_the_server_orders_is_done_and_a_stop_stays_a_stop() {
    for (code, after, comes) in
        [(1012, 7000, true), (1013, 900, true), (3005, 1, true), (4400, 900, false)]
    {
        let mut world = World::greeted();
        world.say(&json!({"type": "disconnect", "code": code, "reason": "r", "reconnect": comes,
            "reconnect_after_ms": after, "timestamp": "t"}));
        world.lose(code, "r");
        world.advance(after - 1);
        assert!(!world.is_dialing, "{code}");
        world.advance(1);
        assert_eq!((world.is_dialing, world.has_ended), (comes, !comes), "{code}");
        world.advance(3_600_000);
        assert_eq!(world.has_ended, !comes, "{code}");
    }
}

/// K09: half open: a ping after one and a quarter intervals of silence, the end after one and a half.
#[test]
fn a_server_that_falls_silent_is_asked_and_then_left() {
    let mut world = World::greeted();
    world.advance(31_249);
    assert_eq!((world.machine.phase(), world.sent.len()), (Phase::Open, 0));
    world.advance(1);
    assert_eq!(world.machine.phase(), Phase::Degraded);
    assert!(world.sent[0].contains(r#""type":"ping""#), "{:?}", world.sent);
    world.say(&json!({"type": "pong", "id": 1, "timestamp": "t"}));
    assert_eq!(world.machine.phase(), Phase::Open);
    world.advance(37_499);
    assert!(!world.has_hung_up);
    world.advance(1);
    assert!(world.has_hung_up && world.is_dialing);
}

#[test]
fn a_server_that_is_not_read_is_not_missed_and_not_dialled() {
    let mut world = World::greeted();
    assert_eq!(world.machine.due(false), None);
    world.lose(1006, "");
    assert_eq!(world.machine.due(false), None);
    assert!(world.machine.due(true).is_some());
}

#[test]
fn a_list_that_is_refused_for_the_moment_is_asked_for_again() {
    let mut world = World::greeted();
    let presence = SubscribeOptions { presence: true, ..SubscribeOptions::default() };
    world.join("public:r", presence);
    world.say(&subscribed(1, 0));
    world.say(&refusal(2, 108, Some(700)));
    world.sent.clear();
    world.advance(699);
    assert_eq!(world.sent.len(), 0);
    world.advance(1);
    assert!(world.sent[0].contains(r#""type":"presence""#), "{:?}", world.sent);
}

#[test]
fn a_room_that_is_left_while_connect_names_it_stays_left() {
    let mut world = World::joined(4);
    world.lose(1006, "");
    world.advance(0);
    world.open();
    world.ask("leave", Ask::Unsubscribe(room("public:r")), REQUEST_TIMEOUT);
    assert_eq!(world.machine.room_phase(&room("public:r")), Some(RoomPhase::Leaving));
    let mut greeting = hello(Some(2));
    greeting["resumed"] = json!([{"room": "public:r", "epoch": "00000000000000a1", "offset": 4,
        "recovered": true, "gap": null, "messages": [], "more": false}]);
    world.say(&greeting);
    world.say(&json!({"type": "unsubscribed", "id": 3, "room": "public:r", "code": null,
        "reason": null, "timestamp": "t"}));
    assert_eq!(ends(&world), [("leave", "done")]);
    assert_eq!(world.machine.room_phase(&room("public:r")), None);
}

/// A server asks for rights before it looks whether it has the message: what is refused on the second try may be
/// there since the first.
#[test]
fn a_repeat_that_is_refused_for_good_says_that_it_is_not_known_what_became_of_it() {
    let mut world = World::greeted();
    world.publish("m-1", true);
    world.lose(1006, "");
    world.advance(0);
    world.open();
    world.say(&hello(None));
    world.say(&refusal(1, 103, None));
    world.publish("m-2", true);
    world.say(&refusal(2, 103, None));
    assert_eq!(ends(&world), [("m-1", "unanswered"), ("m-2", "refused")]);
}

/// While the application does not read, answers lie in the socket.
#[test]
fn a_join_is_not_missed_while_nobody_reads_what_the_server_says() {
    let mut world = World::joined(0);
    world.lose(1006, "");
    world.advance(0);
    world.open();
    // It names no room, so that the client asks for it by itself.
    world.say(&hello(Some(2)));
    world.has_hung_up = false;
    world.advance_unread(60_000);
    let now = world.now();
    world.machine.reads_again(now);
    world.advance(9_999);
    assert_eq!((world.has_hung_up, world.machine.is_online()), (false, true));
    world.advance(1);
    assert!(world.has_hung_up, "what is read and has no answer is missed");
}
