//! The account of mutes, bans and kicks: which are acknowledged and last, which may be in force, and who was
//! put out when. The checker asks it; what breaks it is I18.
//!
//! *Behind* an acknowledgement is what began when the moderator had it: a command that was sent, a publish
//! that a shard took up, a turn in which a shard obeyed. What was under way by then proves nothing. Once
//! another act about the same sanction begins, nothing is certain until that is acknowledged; an act that
//! fails, or dies with its process, may count or not. It must never be asked by the application.

use std::collections::BTreeSet;

use domain::id::UserId;
use domain::moderation::{Deed, Entry, Sanction};
use domain::room::RoomId;

use crate::ports::WALL_START_MS;

/// Whom, where and what.
pub(crate) type Key = (UserId, RoomId, Sanction);

/// A sanction that is acknowledged, and that nothing has touched since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    pub(crate) acked_ms: u64,
    /// [`u64::MAX`] until a moderator lifts it.
    end_ms: u64,
    /// The process that was told of it.
    pub(crate) node: usize,
}

/// An act that is not acknowledged yet.
#[derive(Clone, Copy, Debug)]
struct Begun {
    began_ms: u64,
    /// When the sanction ends; none for an act that lifts one.
    end_ms: Option<u64>,
    node: usize,
}

/// One kind of sanction of one user in one room.
#[derive(Debug)]
struct Case {
    key: Key,
    begun: Option<Begun>,
    holds: Option<Holds>,
    /// The last moment at which it may be in force.
    may_end_ms: u64,
}

impl Case {
    fn forbids(&self, user: &str, room: &RoomId, deed: Deed) -> bool {
        let (of, place, sanction) = &self.key;
        let concerns = match deed {
            Deed::Speak => true,
            Deed::Enter => *sanction == Sanction::Ban,
        };
        concerns && of.as_str() == user && place == room
    }
}

#[derive(Debug, Default)]
pub(crate) struct Docket {
    /// A seed has few.
    cases: Vec<Case>,
    /// When a shard has put a user out of a room last.
    put_out: Vec<(UserId, RoomId, u64)>,
    /// What moderators wait for: one act about a sanction at a time.
    under_way: BTreeSet<Key>,
}

/// Which sanction an act begins or ends; none for a kick.
fn key_of(entry: &Entry) -> Option<Key> {
    Some((entry.act.user()?.clone(), entry.room.clone(), entry.act.sanction()?))
}

fn end_of(entry: &Entry) -> Option<u64> {
    let moment = entry.until()?.moment();
    Some(moment.map_or(u64::MAX, |at| (at.as_millis() - WALL_START_MS).cast_unsigned()))
}

impl Docket {
    /// A moderator is about to act. Answers whether nobody waits for another act about the same.
    pub(crate) fn take_up(&mut self, key: Key) -> bool {
        self.under_way.insert(key)
    }

    /// The process is gone, and whoever waited for it has no answer.
    pub(crate) fn forget_waiting(&mut self) {
        self.under_way.clear();
    }

    /// The application has an act recorded: from now on it counts, and the one before does no more.
    pub(crate) fn begin(&mut self, entry: &Entry, now_ms: u64, node: usize) {
        let Some(key) = key_of(entry) else { return };
        let end_ms = end_of(entry);
        let begun = Some(Begun { began_ms: now_ms, end_ms, node });
        if let Some(case) = self.cases.iter_mut().find(|case| case.key == key) {
            case.begun = begun;
            case.holds = None;
            case.may_end_ms = case.may_end_ms.max(end_ms.unwrap_or(0));
        } else {
            let may_end_ms = end_ms.unwrap_or(0);
            self.cases.push(Case { key, begun, holds: None, may_end_ms });
        }
    }

    /// The moderator has an answer.
    pub(crate) fn end(&mut self, key: &Key, acked: bool, now_ms: u64) {
        self.under_way.remove(key);
        let Some(case) = self.cases.iter_mut().find(|case| case.key == *key) else { return };
        let Some(Begun { began_ms, end_ms, node }) = case.begun.take().filter(|_| acked) else {
            return;
        };
        case.may_end_ms = end_ms.unwrap_or_else(|| case.may_end_ms.min(began_ms));
        case.holds = end_ms.map(|end_ms| Holds { acked_ms: now_ms, end_ms, node });
    }

    /// A shard has taken a user out of a room.
    pub(crate) fn on_put_out(&mut self, user: &UserId, room: &RoomId, now_ms: u64) {
        self.put_out.retain(|(of, place, _)| of != user || place != room);
        self.put_out.push((user.clone(), room.clone(), now_ms));
    }

    /// The acknowledged sanction that forbade something from before a moment until now.
    pub(crate) fn in_force(
        &self,
        user: &str,
        room: &RoomId,
        deed: Deed,
        (since_ms, now_ms): (u64, u64),
    ) -> Option<Holds> {
        let cases = self.cases.iter().filter(|case| case.forbids(user, room, deed));
        let mut holds = cases.filter_map(|case| case.holds);
        holds.find(|holds| holds.acked_ms < since_ms && now_ms < holds.end_ms)
    }

    /// Whether something may have been forbidden at some moment from this one on.
    pub(crate) fn may_forbid(&self, user: &str, room: &RoomId, deed: Deed, since_ms: u64) -> bool {
        let mut cases = self.cases.iter().filter(|case| case.forbids(user, room, deed));
        cases.any(|case| case.may_end_ms >= since_ms)
    }

    /// Whether something was forbidden, and is so no more.
    pub(crate) fn is_over(&self, user: &str, room: &RoomId, deed: Deed, since_ms: u64) -> bool {
        let was = self.cases.iter().any(|case| case.forbids(user, room, deed));
        was && !self.may_forbid(user, room, deed, since_ms)
    }

    /// Whether a shard has put a user out of a room at this moment or later.
    pub(crate) fn put_out_since(&self, user: &str, room: &RoomId, since_ms: u64) -> bool {
        let mut of_user = self.put_out.iter().filter(|(of, ..)| of.as_str() == user);
        of_user.any(|(_, place, at_ms)| place == room && *at_ms >= since_ms)
    }

    /// The bans that are acknowledged and last.
    pub(crate) fn bans(&self, now_ms: u64) -> impl Iterator<Item = (&UserId, &RoomId, Holds)> {
        let bans = self.cases.iter().filter(|case| case.key.2 == Sanction::Ban);
        bans.filter_map(move |case| {
            let holds = case.holds.filter(|holds| now_ms < holds.end_ms)?;
            Some((&case.key.0, &case.key.1, holds))
        })
    }

    /// What may still be in force.
    pub(crate) fn may_last(&self, now_ms: u64) -> Vec<Key> {
        let lasting = self.cases.iter().filter(|case| case.may_end_ms > now_ms);
        lasting.map(|case| case.key.clone()).collect()
    }

    /// What may be in force until a moderator lifts it.
    pub(crate) fn endless(&self) -> Vec<Key> {
        self.may_last(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use domain::moderation::Act;
    use domain::time::Wall;

    fn entry(at_ms: i64, act: Act) -> Entry {
        let (by, room) = (UserId::parse("mod").unwrap(), RoomId::parse("chat:a").unwrap());
        let at = Wall::from_millis(WALL_START_MS + at_ms);
        Entry { at, order: at, by, room, act, reason: None }
    }

    /// An act at a moment, and its answer ten milliseconds later.
    fn act(docket: &mut Docket, at_ms: u64, acked: bool, act: Act) {
        let entry = entry(i64::try_from(at_ms).unwrap(), act);
        docket.begin(&entry, at_ms, 0);
        docket.end(&key_of(&entry).unwrap(), acked, at_ms + 10);
    }

    #[test]
    fn a_ban_is_certain_behind_its_acknowledgement_until_it_ends_or_another_act_begins() {
        let (mut docket, user) = (Docket::default(), UserId::parse("ann").unwrap());
        let span = Some(Duration::from_millis(1_000));
        act(&mut docket, 100, true, Act::Ban(user.clone(), span));
        let room = RoomId::parse("chat:a").unwrap();
        let certain = |docket: &Docket, since_ms, now_ms| {
            docket.in_force("ann", &room, Deed::Enter, (since_ms, now_ms)).is_some()
        };
        assert!(!certain(&docket, 110, 200));
        assert!(certain(&docket, 111, 1_099));
        assert!(!certain(&docket, 111, 1_100));
        assert!(docket.may_forbid("ann", &room, Deed::Speak, 1_100));
        assert!(!docket.may_forbid("ann", &room, Deed::Speak, 1_101));
        // Lifted or not: who is told that it failed knows nothing.
        act(&mut docket, 500, false, Act::Unban(user.clone()));
        assert!(!certain(&docket, 520, 530));
        assert!(docket.may_forbid("ann", &room, Deed::Enter, 520));
        act(&mut docket, 600, true, Act::Unban(user));
        assert!(!docket.may_forbid("ann", &room, Deed::Enter, 601));
        assert!(docket.is_over("ann", &room, Deed::Enter, 601));
    }

    #[test]
    fn a_mute_forbids_to_speak_and_nothing_else() {
        let (mut docket, user) = (Docket::default(), UserId::parse("ann").unwrap());
        act(&mut docket, 100, true, Act::Mute(user, None));
        let room = RoomId::parse("chat:a").unwrap();
        assert!(docket.may_forbid("ann", &room, Deed::Speak, 9_000));
        assert!(!docket.may_forbid("ann", &room, Deed::Enter, 0));
        assert_eq!(docket.endless().len(), 1);
    }
}
