//! Who is muted or banned where: single acts, and random ones beside a list that is searched.

use proptest::prelude::*;

use super::*;

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

fn at(seconds: i64) -> Wall {
    Wall::from_millis(seconds * 1_000)
}

fn entry(seconds: i64, act: Act) -> Entry {
    let (by, room) = (user("mod"), room("chat:a"));
    Entry { at: at(seconds), order: at(seconds), by, room, act, reason: None }
}

fn minute() -> Option<Duration> {
    Some(Duration::from_secs(60))
}

#[test]
fn a_mute_forbids_to_speak_and_a_ban_to_be_there_too_in_that_room_alone() {
    let mut set = Sanctions::default();
    set.apply(&entry(0, Act::Mute(user("ann"), minute()))).unwrap();
    set.apply(&entry(0, Act::Ban(user("bob"), None))).unwrap();
    let forbids = |name, place, deed| set.forbids(&user(name), &room(place), deed, at(1));
    assert_eq!(forbids("ann", "chat:a", Deed::Speak), Some(Until::At(at(60))));
    assert_eq!(forbids("ann", "chat:a", Deed::Enter), None);
    assert_eq!(forbids("bob", "chat:a", Deed::Speak), Some(Until::Lifted));
    assert_eq!(forbids("bob", "chat:a", Deed::Enter), Some(Until::Lifted));
    assert_eq!(forbids("bob", "chat:b", Deed::Enter), None);
    assert_eq!(forbids("carl", "chat:a", Deed::Speak), None);
}

#[test]
fn a_sanction_ends_with_its_time_or_when_it_is_lifted() {
    let mut set = Sanctions::default();
    let ann = user("ann");
    let speaks = |set: &Sanctions, seconds| {
        set.forbids(&user("ann"), &room("chat:a"), Deed::Speak, at(seconds)).is_none()
    };
    set.apply(&entry(0, Act::Mute(ann.clone(), minute()))).unwrap();
    assert!(!speaks(&set, 59) && speaks(&set, 60));
    set.apply(&entry(4, Act::Unmute(ann.clone()))).unwrap();
    assert!(speaks(&set, 5) && set.is_empty());
    // Lifting one lifts no other.
    set.apply(&entry(5, Act::Mute(ann.clone(), None))).unwrap();
    set.apply(&entry(5, Act::Unban(ann.clone()))).unwrap();
    assert!(!speaks(&set, 1_000_000));
    // A later one takes the place of an earlier one.
    set.apply(&entry(6, Act::Mute(ann.clone(), minute()))).unwrap();
    assert!(!speaks(&set, 65) && speaks(&set, 66));
    // Of a mute and a ban the longer one is told.
    set.apply(&entry(7, Act::Ban(ann.clone(), Some(Duration::from_secs(5))))).unwrap();
    let told = set.forbids(&ann, &room("chat:a"), Deed::Speak, at(8));
    assert_eq!((told, set.len()), (Some(Until::At(at(66))), 2));
    assert_eq!((set.forget(at(12)), set.len(), set.forget(at(66))), (1, 1, 1));
    assert!(set.is_empty());
}

#[test]
fn a_kick_and_a_deletion_leave_no_sanction() {
    let mut set = Sanctions::default();
    let position = Position {
        epoch: crate::id::Epoch::from_bits(1),
        offset: crate::position::Offset::parse(1).unwrap(),
    };
    for act in [Act::Kick(user("ann")), Act::Delete(position)] {
        set.apply(&entry(0, act)).unwrap();
    }
    assert!(set.is_empty());
}

#[test]
fn a_full_set_refuses_another_forgets_what_is_over_first_and_goes_on_lifting() {
    let mut set = Sanctions::default();
    let name = |n: usize| user(&format!("u{n}"));
    for n in 0..Sanctions::SANCTIONS_MAX {
        let span = (n == 0).then_some(Duration::from_secs(10));
        // The first room takes what is asked for below, the others the rest.
        let place = room(&format!("chat:{}", n / 9_000));
        let place = if n < 9_000 { room("chat:a") } else { place };
        let mute = Entry { room: place, ..entry(0, Act::Mute(name(n), span)) };
        set.apply(&mute).unwrap();
    }
    let one_more = |seconds| entry(seconds, Act::Ban(user("late"), None));
    assert_eq!(set.apply(&one_more(9)), Err(SanctionsFull));
    assert!(set.forbids(&name(0), &room("chat:a"), Deed::Speak, at(9)).is_some());
    // Who is muted may be muted for longer, and less.
    assert_eq!(set.apply(&entry(9, Act::Mute(name(7), minute()))), Ok(true));
    assert_eq!(set.apply(&one_more(10)), Ok(true));
    assert_eq!(set.apply(&entry(10, Act::Unmute(name(8)))), Ok(true));
    assert_eq!(set.len(), Sanctions::SANCTIONS_MAX - 1);
}

#[test]
fn a_room_that_is_full_of_them_leaves_room_for_others() {
    let mut set = Sanctions::default();
    let name = |n: usize| user(&format!("u{n}"));
    for n in 0..Sanctions::SANCTIONS_PER_ROOM_MAX {
        set.apply(&entry(0, Act::Mute(name(n), None))).unwrap();
    }
    assert_eq!(set.apply(&entry(0, Act::Ban(name(0), None))), Err(SanctionsFull));
    let elsewhere = Entry { room: room("chat:b"), ..entry(0, Act::Ban(name(0), None)) };
    assert_eq!(set.apply(&elsewhere), Ok(true));
    assert_eq!(set.apply(&entry(0, Act::Unmute(name(1)))), Ok(true));
    assert_eq!(set.apply(&entry(0, Act::Ban(name(0), None))), Ok(true));
}

#[test]
fn forgetting_goes_in_steps_that_do_not_hold_the_set_for_long() {
    let mut set = Sanctions::default();
    let n = Sanctions::FORGOTTEN_AT_ONCE + 5;
    for n in 0..n {
        set.apply(&entry(0, Act::Mute(user(&format!("u{n}")), minute()))).unwrap();
    }
    assert_eq!(set.forget(at(59)), 0);
    assert_eq!(set.forget(at(60)), Sanctions::FORGOTTEN_AT_ONCE);
    assert_eq!((set.forget(at(60)), set.len()), (5, 0));
}

#[test]
fn a_room_has_bans_from_the_first_to_the_last_that_is_lifted() {
    let mut set = Sanctions::default();
    let place = entry(0, Act::Kick(user("a"))).room;
    set.apply(&entry(0, Act::Mute(user("a"), None))).unwrap();
    assert!(!set.bans_in(&place));
    set.apply(&entry(0, Act::Ban(user("a"), None))).unwrap();
    set.apply(&entry(0, Act::Ban(user("a"), minute()))).unwrap();
    set.apply(&entry(0, Act::Ban(user("b"), None))).unwrap();
    set.apply(&entry(1, Act::Unban(user("b")))).unwrap();
    assert!(set.bans_in(&place) && !set.bans_in(&room("chat:b")));
    assert_eq!(set.forget(at(60)), 1);
    assert!(!set.bans_in(&place));
}

/// One step of a random story: who, where, what, how long.
fn step() -> impl Strategy<Value = (u8, u8, u8, Option<u8>)> {
    (0_u8..3, 0_u8..2, 0_u8..5, proptest::option::of(0_u8..20))
}

proptest! {
    #[test]
    fn the_set_says_what_the_last_act_of_each_kind_says(steps in prop::collection::vec(step(), 0..60)) {
        let mut set = Sanctions::default();
        let mut acts: Vec<Entry> = Vec::new();
        for (second, (who, place, what, span)) in (0..).zip(steps) {
            let who = user(&format!("u{who}"));
            let span = span.map(|seconds| Duration::from_secs(seconds.into()));
            let act = match what {
                0 => Act::Mute(who, span),
                1 => Act::Unmute(who),
                2 => Act::Ban(who, span),
                3 => Act::Unban(who),
                _ => {
                    set.forget(at(second));
                    continue;
                }
            };
            let entry = Entry { room: room(&format!("chat:{place}")), ..entry(second, act) };
            set.apply(&entry).unwrap();
            acts.push(entry);
            let last = |who: &UserId, place: &RoomId, sanction: Sanction| {
                let of = |e: &&Entry| {
                    e.act.user() == Some(who) && e.room == *place && e.act.sanction() == Some(sanction)
                };
                let until = acts.iter().rev().find(of).and_then(Entry::until);
                until.filter(|until| !until.is_over(at(second)))
            };
            for who in (0..3).map(|n| user(&format!("u{n}"))) {
                for place in (0..2).map(|n| room(&format!("chat:{n}"))) {
                    let (mute, ban) =
                        (last(&who, &place, Sanction::Mute), last(&who, &place, Sanction::Ban));
                    prop_assert_eq!(set.forbids(&who, &place, Deed::Enter, at(second)), ban);
                    prop_assert_eq!(set.forbids(&who, &place, Deed::Speak, at(second)), mute.max(ban));
                }
            }
        }
        set.forget(Wall::MAX);
        prop_assert!(set.by_end.iter().all(|(until, _)| *until == Until::Lifted));
        let held: usize = set.of_users.values().flat_map(BTreeMap::values)
            .map(|held| usize::from(held.mute.is_some()) + usize::from(held.ban.is_some())).sum();
        prop_assert_eq!(held, set.len());
        let in_rooms: usize = set.in_rooms.values().map(|counted| counted.all).sum();
        prop_assert_eq!(in_rooms, set.len());
    }
}

#[test]
fn of_two_acts_that_cross_the_later_one_counts_on_every_node_whichever_came_first() {
    let ann = user("ann");
    let acts = [
        entry(1, Act::Ban(ann.clone(), None)),
        entry(2, Act::Unban(ann.clone())),
        entry(2, Act::Ban(ann.clone(), minute())),
        entry(1, Act::Mute(ann.clone(), None)),
    ];
    let forbidden = |order: [usize; 4]| {
        let mut set = Sanctions::default();
        for n in order {
            set.apply(&acts[n]).unwrap();
        }
        [Deed::Speak, Deed::Enter].map(|deed| set.forbids(&ann, &acts[0].room, deed, at(3)))
    };
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]] {
        assert_eq!(forbidden(order), [Some(Until::Lifted), None], "{order:?}");
    }
    let mut set = Sanctions::default();
    assert_eq!((set.apply(&acts[1]), set.apply(&acts[0])), (Ok(true), Ok(false)));
}

/// Behind what a node did whose clock is far ahead.
#[test]
fn a_sanction_lasts_as_long_as_it_is_meant_to_wherever_it_stands_among_others() {
    let (mut set, ann) = (Sanctions::default(), user("ann"));
    set.apply(&entry(10_000, Act::Unmute(ann.clone()))).unwrap();
    let mute = Entry { order: at(10_001), ..entry(0, Act::Mute(ann.clone(), minute())) };
    assert_eq!(set.apply(&mute), Ok(true));
    let speaks = |second| set.forbids(&ann, &mute.room, Deed::Speak, at(second)).is_none();
    assert!(!speaks(59) && speaks(60));
}

#[test]
fn only_so_many_of_the_latest_acts_are_known() {
    let mut acts = LatestActs::default();
    let lift = |n: usize| entry(i64::try_from(n).unwrap(), Act::Unmute(user(&format!("u{n}"))));
    for n in 0..=LatestActs::ACTS_MAX {
        acts.note(&lift(n));
        acts.note(&lift(n));
    }
    assert_eq!((acts.latest.len(), acts.by_order.len()), (10_000, 10_000));
    let room = lift(0).room;
    let latest = |name: &str| acts.latest(&room, &Act::Mute(user(name), None));
    assert_eq!((latest("u0"), latest("u1")), (None, Some(at(1))));
    assert!(acts.is_older(&entry(0, Act::Mute(user("u1"), None))));
}
