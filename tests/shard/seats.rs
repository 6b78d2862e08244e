//! Connections of which only the newest may act.

use std::sync::Arc;
use std::time::Duration;

use application::ports::seats::MockSeats;
use application::ports::{SeatError, Standing, Taken};
use application::services::{Ports, Rules};
use domain::codes::CloseCode;
use domain::seats::{Fence, SeatRule};
use serde_json::json;

use crate::host::{Host, open_rules, types};

fn one_session() -> Rules {
    Rules { single_session: true, ..open_rules() }
}

fn publish(id: u64) -> String {
    json!({"type": "publish", "id": id, "room": "public:a", "data": id}).to_string()
}

/// D01, on one node.
#[test]
fn the_newest_connection_of_a_user_ends_the_one_before_and_nobody_else_s() {
    let mut host = Host::new(one_session());
    let (ann, bob) = (host.connect(Some("ann")), host.connect(Some("bob")));
    for slot in [ann, bob] {
        host.settle();
        assert_eq!(types(&host.frames(slot)), ["hello"]);
    }
    let newer = host.connect(Some("ann"));
    host.settle();
    assert_eq!(host.line(ann).closed, Some(CloseCode::SessionReplaced));
    assert_eq!(types(&host.frames(newer)), ["hello"]);
    for slot in [bob, newer] {
        host.say(slot, &publish(1));
        assert_eq!(types(&host.frames(slot)), ["ack"]);
    }
    let nobody = [host.connect(None), host.connect(None)];
    host.settle();
    assert!(nobody.iter().all(|slot| host.line(*slot).closed.is_none()), "they are no user's");
}

/// D01: what was under way when the newer one came.
#[test]
fn a_publish_on_its_way_is_not_published_once_a_newer_connection_is_there() {
    let mut host = Host::new(one_session());
    let ann = host.connect(Some("ann"));
    host.settle();
    host.frames(ann);
    host.hold_calls = true;
    host.say(ann, &publish(1));
    host.connect(Some("ann"));
    assert_eq!(host.n_held(), 2);
    // The newer one is let in, and the older one has not been told.
    host.release_one(1);
    host.release_one(0);
    assert_eq!(host.line(ann).closed, Some(CloseCode::SessionReplaced));
    host.release_calls();
    // The order to end it finds nobody any more.
    host.settle();
    let reader = host.connect(Some("bob"));
    host.settle();
    host.frames(reader);
    host.say(reader, &json!({"type": "history", "id": 1, "room": "public:a"}).to_string());
    assert_eq!(host.frames(reader)[0]["messages"], json!([]));
}

fn seats(standing: Standing, confirmed: Standing) -> MockSeats {
    let mut seats = MockSeats::new();
    seats.expect_on_replaced().returning(|_| ());
    seats.expect_leave().returning(|_, _| ());
    seats.expect_take().returning(|_, _, rule| {
        assert_eq!(rule, SeatRule::NewestWins);
        Box::pin(async { Ok(Taken { fence: Fence::new(1), spread: Arc::default() }) })
    });
    seats.expect_standing().returning(move |_, _| standing);
    seats.expect_confirm().returning(move |_, _| Box::pin(async move { confirmed }));
    seats
}

const COMMANDS: [&str; 6] = [
    r#"{"type":"subscribe","id":1,"room":"public:a"}"#,
    r#"{"type":"subscribe","id":1,"pattern":"public:*"}"#,
    r#"{"type":"history","id":1,"room":"public:a"}"#,
    r#"{"type":"presence","id":1,"room":"public:a"}"#,
    r#"{"type":"refresh","id":1,"token":"ann"}"#,
    r#"{"type":"publish","id":1,"room":"public:a","data":1}"#,
];

#[test]
fn each_command_of_a_connection_that_was_replaced_elsewhere_ends_it() {
    for command in COMMANDS {
        let replaced = seats(Standing::Holds, Standing::Replaced);
        let mut host =
            Host::with_ports(one_session(), |ports| Ports { seats: Arc::new(replaced), ..ports });
        let ann = host.connect(Some("ann"));
        host.settle();
        host.frames(ann);
        host.say(ann, command);
        let is_publish = command.contains("publish");
        // What is published is compared where it is, and the broker of this test has one node only.
        let expected = (!is_publish).then_some(CloseCode::SessionReplaced);
        assert_eq!(host.line(ann).closed, expected, "{command}");
    }
}

#[test]
fn where_nobody_can_know_whether_it_is_the_newest_each_command_is_refused_for_now() {
    for (standing, confirmed) in
        [(Standing::Unknown, Standing::Unknown), (Standing::Holds, Standing::Unknown)]
    {
        for command in COMMANDS {
            if confirmed != standing && command.contains("publish") {
                continue;
            }
            let unknown = seats(standing, confirmed);
            let mut host = Host::with_ports(one_session(), |ports| Ports {
                seats: Arc::new(unknown),
                ..ports
            });
            let ann = host.connect(Some("ann"));
            host.settle();
            host.frames(ann);
            host.say(ann, command);
            let line = host.line(ann);
            assert_eq!((types(&line.frames), line.closed), (vec!["error"], None), "{command}");
            assert_eq!(line.frames[0]["error"], "unavailable", "{command}");
            host.say(ann, r#"{"type":"ping","id":2}"#);
            assert_eq!(types(&host.frames(ann)), ["pong"]);
        }
    }
}

#[test]
fn a_newcomer_whose_seat_can_not_be_asked_for_comes_back_later_and_has_left() {
    let mut seats = MockSeats::new();
    seats.expect_on_replaced().returning(|_| ());
    seats.expect_leave().times(1).returning(|_, _| ());
    let retry_after = Duration::from_secs(1);
    seats.expect_take().returning(move |_, _, _| {
        Box::pin(async move { Err(SeatError::Unavailable { retry_after }) })
    });
    let mut host =
        Host::with_ports(one_session(), |ports| Ports { seats: Arc::new(seats), ..ports });
    let ann = host.connect(Some("ann"));
    host.settle();
    let line = host.line(ann);
    assert_eq!(line.closed, Some(CloseCode::TryAgainLater));
    assert_eq!(line.frames[0]["reconnect_after_ms"], 1_000);
}

#[test]
fn who_said_in_time_who_it_is_is_told_to_come_back_where_that_can_not_be_decided_in_time() {
    let rules = Rules { allow_anonymous: false, ..one_session() };
    let mut host = Host::new(rules);
    host.hold_calls = true;
    let (named, asked) = (host.connect(Some("ann")), host.connect(None));
    host.say(asked, r#"{"type":"connect","id":1,"token":"bob"}"#);
    let silent = host.connect(None);
    host.pass(9_000);
    for slot in [named, asked, silent] {
        assert_eq!(host.line(slot).closed, None);
    }
    host.pass(2_000);
    for slot in [named, asked] {
        let line = host.line(slot);
        assert_eq!(line.closed, Some(CloseCode::TryAgainLater));
        assert_eq!(line.frames[0]["reconnect"], true);
    }
    assert_eq!(host.line(silent).closed, Some(CloseCode::AuthenticationTimeout));
    // What is decided too late takes nobody's seat.
    host.hold_calls = false;
    host.release_calls();
    host.settle();
    for name in ["ann", "bob"] {
        let user = domain::id::UserId::parse(name).unwrap();
        assert_eq!(host.node.services().directory.connections_of(&user), 0);
    }
}

#[test]
fn a_user_over_several_nodes_has_its_share_of_the_rate_on_each() {
    let mut rules = open_rules();
    rules.limits.commands_of_user = domain::rate_limit::Rate::new(1, 8);
    let mut seats = MockSeats::new();
    seats.expect_on_replaced().returning(|_| ());
    seats.expect_leave().returning(|_, _| ());
    seats.expect_take().returning(|_, _, _| {
        let spread: Arc<application::ports::Spread> = Arc::default();
        spread.set(4);
        Box::pin(async { Ok(Taken { fence: None, spread }) })
    });
    let mut host = Host::with_ports(rules, |ports| Ports { seats: Arc::new(seats), ..ports });
    let ann = host.connect(Some("ann"));
    host.settle();
    host.frames(ann);
    for _ in 0..8 {
        host.say(ann, r#"{"type":"ping","id":1}"#);
    }
    let taken = host.frames(ann).iter().filter(|frame| frame["type"] == "pong").count();
    assert_eq!(taken, 2);
}
