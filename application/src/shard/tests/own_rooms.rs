//! Users in the rooms of their own, over a broker that may lose something.

use std::time::Duration;

use domain::id::UserId;
use domain::principal::Principal;

use super::*;
use crate::extensions::middleware::{Context, Who};
use crate::ports::BrokerError;
use crate::use_cases::authenticate::Authenticated;

const OWN: &str = "user:ann";

fn users() -> Bench {
    Bench::with(|rules| {
        let policy = rules.policies.of(&RoomId::parse(ROOM).unwrap()).unwrap();
        let policy = (**policy).clone();
        rules.policies.set_namespace("user", policy);
        rules.join_user_room = true;
        rules.allow_anonymous = true;
        rules.limits.position_check = None;
        rules.limits.hole_retry = Some(Duration::from_secs(1));
    })
}

fn own(epoch: Epoch, offset: u64) -> Arc<Published> {
    let mut publication = message(epoch, offset, None).publication.clone();
    publication.room = RoomId::parse(OWN).unwrap();
    Arc::new(Published::new(publication))
}

fn filled(messages: Vec<Arc<Published>>, reached: Position) -> Outcome {
    Outcome::Filled(Ok(page(messages, reached)))
}

fn away() -> Outcome {
    Outcome::Filled(Err(BrokerError::Unavailable { retry_after: Duration::from_secs(1) }))
}

impl Bench {
    /// Ann, up to the answer of who she is, with where her room stood.
    fn ann(&mut self, top: Option<Position>) -> Slot {
        let slot = self.shard.reserve();
        self.connections += 1;
        let who = Who {
            connection: ConnectionId::from_bits(self.connections),
            client: ClientId::parse("c").unwrap(),
            address: None,
            view: View::V2,
            place: None,
            principal: Arc::new(Principal {
                user: UserId::parse("ann").ok(),
                ..Principal::anonymous()
            }),
            context: Context::default(),
            fence: None,
        };
        let opening = Opening {
            connection: who.connection,
            client: who.client.clone(),
            token: Some("t".to_owned()),
            conflicting_tokens: false,
            view: View::V2,
            address: None,
            place: None,
        };
        self.give(Input::Opened(slot, opening));
        let call = self.call();
        let authenticated = Authenticated {
            who: Arc::new(who),
            admission: None,
            own_room: RoomId::parse(OWN).ok(),
            own_top: top,
        };
        let resume = Vec::new();
        self.end(call, Outcome::Authenticated { result: Ok(authenticated), resume });
        slot
    }

    fn lose_watched(&mut self) {
        let mut post = Post { watched_hole: true, ..Post::default() };
        self.give(Input::Mail(&mut post));
    }

    /// Some minutes in which nothing comes but what says that a connection is there, until something is asked for.
    fn until_call(&mut self, slot: Slot) -> Option<CallTag> {
        (0..40).find_map(|_| {
            self.now.monotonic = self.now.monotonic.after(Duration::from_secs(10));
            self.say(slot, r#"{"type":"pong"}"#);
            self.give(Input::Tick);
            assert!(self.heard(slot).iter().all(|frame| frame.starts_with("ping")));
            self.call()
        })
    }

    fn second(&mut self) {
        self.now.monotonic = self.now.monotonic.after(Duration::from_millis(1_100));
        self.give(Input::Tick);
    }
}

#[test]
fn a_user_that_comes_before_its_shard_hears_of_users_is_greeted_when_it_does() {
    let mut bench = users();
    let at_start = bench.call();
    bench.end(at_start, Outcome::OwnRooms(false));
    let ann = bench.ann(Some(at(OLD, 0)));
    assert!(bench.heard(ann).is_empty());
    let heard = bench.call();
    bench.end(heard, Outcome::OwnRoomsHeard { is_on: true, resume: Vec::new() });
    assert!(bench.heard(ann)[0].starts_with("hello"));
    bench.mail(&[own(OLD, 1)]);
    assert_eq!(bench.heard(ann), ["message 1/1"]);
}

#[test]
fn what_was_missed_of_a_users_own_room_comes_in_order_before_what_came_meanwhile() {
    let mut bench = users();
    let at_start = bench.call();
    bench.end(at_start, Outcome::OwnRooms(true));
    let ann = bench.ann(Some(at(OLD, 3)));
    bench.heard(ann);
    bench.mail(&[own(OLD, 3), own(OLD, 4)]);
    assert_eq!(bench.heard(ann), ["message 1/4"], "what came before her is not hers");
    bench.lose_watched();
    let fill = bench.call();
    bench.mail(&[own(OLD, 6), own(OLD, 7)]);
    assert!(bench.heard(ann).is_empty());
    // Redis is away, and asked again.
    bench.end(fill, away());
    assert!(bench.call().is_none());
    bench.second();
    let fill = bench.call();
    bench.end(fill, filled(vec![own(OLD, 5), own(OLD, 6)], at(OLD, 6)));
    assert_eq!(bench.heard(ann), ["message 1/5", "message 1/6", "message 1/7"]);
    // One that is passed over is noticed by the next.
    bench.mail(&[own(OLD, 9)]);
    let fill = bench.call();
    bench.end(fill, filled(vec![own(OLD, 8), own(OLD, 9)], at(OLD, 9)));
    assert_eq!(bench.heard(ann), ["message 1/8", "message 1/9"]);
    assert!(bench.call().is_none());
}

#[test]
fn what_nobody_has_any_more_of_a_users_own_room_is_a_gap_and_late_mail_is_asked_about_once() {
    let mut bench = users();
    let at_start = bench.call();
    bench.end(at_start, Outcome::OwnRooms(true));
    let ann = bench.ann(Some(at(OLD, 3)));
    bench.heard(ann);
    bench.lose_watched();
    let fill = bench.call();
    bench.mail(&[own(OLD, 4)]);
    let lost = gap(NEW, 1, 2, GapReason::EpochChanged);
    let page = RecoveredPage { gap: Some(lost), ..page(Vec::new(), at(NEW, 2)) };
    bench.end(fill, Outcome::Filled(Ok(page)));
    let again = bench.call();
    bench.end(again, filled(Vec::new(), at(NEW, 2)));
    assert!(bench.call().is_none());
    bench.mail(&[own(NEW, 3)]);
    assert_eq!(bench.heard(ann), ["gap 2/2", "message 2/3"]);
}

#[test]
fn where_its_beginning_is_not_known_all_of_a_users_own_room_may_have_been_missed() {
    let mut bench = users();
    let at_start = bench.call();
    bench.end(at_start, Outcome::OwnRooms(true));
    let ann = bench.ann(None);
    bench.heard(ann);
    bench.lose_watched();
    let call = bench.call();
    let all = gap(OLD, 1, 4, GapReason::Overflow);
    let page = RecoveredPage { gap: Some(all), ..page(Vec::new(), at(OLD, 4)) };
    bench.end(call, Outcome::Filled(Ok(page)));
    bench.mail(&[own(OLD, 5)]);
    assert_eq!(bench.heard(ann), ["gap 1/4", "message 1/5"]);
}

#[test]
fn a_users_own_room_is_read_now_and_then_so_that_it_neither_runs_out_nor_hides_what_was_lost() {
    let mut bench = users();
    let at_start = bench.call();
    bench.end(at_start, Outcome::OwnRooms(true));
    let ann = bench.ann(Some(at(OLD, 3)));
    bench.heard(ann);
    bench.second();
    assert!(bench.call().is_none(), "not at once");
    let look = bench.until_call(ann);
    // What comes meanwhile waits for nothing, and is told once.
    bench.mail(&[own(OLD, 4)]);
    assert_eq!(bench.heard(ann), ["message 1/4"]);
    bench.end(look, filled(vec![own(OLD, 4)], at(OLD, 4)));
    assert!(bench.heard(ann).is_empty());
    bench.second();
    assert!(bench.call().is_none());
    // One that nobody has heard of.
    let look = bench.until_call(ann);
    bench.end(look, filled(vec![own(OLD, 5)], at(OLD, 5)));
    assert_eq!(bench.heard(ann), ["message 1/5"]);
}

#[test]
fn a_look_at_a_users_own_room_holds_nothing_up_also_where_it_fails_or_comes_late() {
    let mut bench = users();
    let at_start = bench.call();
    bench.end(at_start, Outcome::OwnRooms(true));
    let ann = bench.ann(Some(at(OLD, 3)));
    bench.heard(ann);
    let look = bench.until_call(ann);
    bench.mail(&[own(OLD, 4)]);
    bench.end(look, away());
    bench.second();
    assert!(bench.call().is_none(), "it waits for its turn");
    bench.mail(&[own(OLD, 5)]);
    assert_eq!(bench.heard(ann), ["message 1/4", "message 1/5"]);
    // The answer is older than what came.
    let look = bench.until_call(ann);
    bench.mail(&[own(OLD, 6), own(OLD, 7)]);
    bench.end(look, filled(vec![own(OLD, 6)], at(OLD, 6)));
    bench.mail(&[own(OLD, 8)]);
    assert_eq!(bench.heard(ann), ["message 1/6", "message 1/7", "message 1/8"]);
    // A hole that is noticed meanwhile is filled, and nothing is told twice.
    let look = bench.until_call(ann);
    bench.mail(&[own(OLD, 9), own(OLD, 11)]);
    bench.end(look, filled(vec![own(OLD, 9), own(OLD, 10)], at(OLD, 10)));
    let fill = bench.call();
    bench.end(fill, filled(vec![own(OLD, 11)], at(OLD, 11)));
    assert_eq!(bench.heard(ann), ["message 1/9", "message 1/10", "message 1/11"]);
    assert!(bench.call().is_none());
}

#[test]
fn a_broker_that_finds_out_itself_what_was_lost_is_asked_for_holes_only() {
    let mut bench = users();
    bench.call();
    let member = bench.member(at(OLD, 1));
    bench.second();
    assert!(bench.call().is_none(), "no position is looked at");
    bench.hole();
    let fill = bench.call();
    bench.end(fill, away());
    bench.second();
    let fill = bench.call();
    bench.end(fill, filled(Vec::new(), at(OLD, 1)));
    assert!(bench.heard(member).is_empty());
    bench.second();
    assert!(bench.call().is_none());
}
