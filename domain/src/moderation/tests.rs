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
    Entry { at: at(seconds), by, room, act, reason: None }
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
    set.apply(&entry(5, Act::Unmute(ann.clone()))).unwrap();
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
        set.apply(&entry(0, Act::Mute(name(n), span))).unwrap();
    }
    let one_more = |seconds| entry(seconds, Act::Ban(user("late"), None));
    assert_eq!(set.apply(&one_more(9)), Err(SanctionsFull));
    assert!(set.forbids(&name(0), &room("chat:a"), Deed::Speak, at(9)).is_some());
    // Who is muted may be muted for longer, and less.
    assert_eq!(set.apply(&entry(9, Act::Mute(name(7), minute()))), Ok(()));
    assert_eq!(set.apply(&one_more(10)), Ok(()));
    assert_eq!(set.apply(&entry(10, Act::Unmute(name(8)))), Ok(()));
    assert_eq!(set.len(), Sanctions::SANCTIONS_MAX - 1);
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
    }
}
