//! Who is connected over this node, as it should stand in Redis, and what of that is still to be said.
//!
//! Nothing here speaks to Redis. A change must never be dropped before Redis has it, and nobody whose own
//! fence is still on its way may be taken for replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use application::planted::{Mistake, is_planted};
use application::ports::{Spread, Standing};
use domain::id::{ConnectionId, UserId};

/// Of a connection that others may be beside.
pub(crate) const NO_FENCE: u64 = 0;
/// Of one that waits for its answer: larger than all that others can have.
const PENDING: u64 = u64::MAX;

/// A user that is connected here, or whose leave is still to be told.
#[derive(Debug, Default)]
struct Here {
    connections: BTreeMap<ConnectionId, u64>,
    /// The largest that was heard of.
    fence: u64,
    /// Of the last change.
    version: u64,
    /// Whether Redis may have been told of it.
    is_said: bool,
    spread: Arc<Spread>,
}

/// What is said of one user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Said {
    pub(crate) user: UserId,
    pub(crate) connections: usize,
    pub(crate) version: u64,
    pub(crate) fence: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Seated {
    users: BTreeMap<UserId, Here>,
    /// Those of whom something is to be told; at most one entry for each user.
    untold: BTreeSet<UserId>,
    /// Who was taken last to be told of: the next turn begins behind.
    taken: Option<UserId>,
    versions: u64,
}

impl Seated {
    /// A connection comes. What is answered is to be said, in the order in which it is answered: those that came
    /// before it and wait, too, are counted, those behind it are not. None where `max` others are known already.
    pub(crate) fn come(
        &mut self,
        user: &UserId,
        connection: ConnectionId,
        max: usize,
    ) -> Option<(Said, Arc<Spread>)> {
        if self.users.len() >= max && !self.users.contains_key(user) {
            return None;
        }
        self.versions += 1;
        let here = self.users.entry(user.clone()).or_default();
        here.connections.entry(connection).or_insert(PENDING);
        here.version = self.versions;
        Some((said(user, here), Arc::clone(&here.spread)))
    }

    /// Redis is told of a user, whether or not an answer comes.
    pub(crate) fn saying(&mut self, user: &UserId) {
        if let Some(here) = self.users.get_mut(user) {
            here.is_said = true;
        }
    }

    /// A connection goes, or was not let in. Says whether that is to be told.
    pub(crate) fn go(&mut self, user: &UserId, connection: ConnectionId) -> bool {
        let Some(here) = self.users.get_mut(user) else { return false };
        if here.connections.remove(&connection).is_none() {
            return false;
        }
        if is_planted(Mistake::SeatFreedTwice) {
            here.connections.pop_first();
        }
        if here.connections.is_empty() && !here.is_said {
            // Redis has nothing to forget.
            self.users.remove(user);
            self.untold.remove(user);
            return false;
        }
        if !is_planted(Mistake::LeaveUnversioned) {
            self.versions += 1;
            here.version = self.versions;
        }
        self.untold.insert(user.clone());
        true
    }

    /// A connection is let in, under its own fence if it has one. Answers who is replaced, which it may be itself.
    pub(crate) fn seat(
        &mut self,
        user: &UserId,
        connection: ConnectionId,
        fence: u64,
    ) -> Vec<ConnectionId> {
        if let Some(own) =
            self.users.get_mut(user).and_then(|here| here.connections.get_mut(&connection))
        {
            *own = fence;
        }
        self.hear_fence(user, fence)
    }

    /// A user has this fence now. Answers who is replaced.
    pub(crate) fn hear_fence(&mut self, user: &UserId, fence: u64) -> Vec<ConnectionId> {
        let Some(here) = self.users.get_mut(user) else { return Vec::new() };
        here.fence = here.fence.max(fence);
        if here.fence == NO_FENCE {
            return Vec::new();
        }
        let (fence, all) = (here.fence, here.connections.iter());
        let is_older =
            |own: u64| own < fence || (own == fence && is_planted(Mistake::NewestReplaced));
        all.filter(|(_, own)| is_older(**own)).map(|(connection, _)| *connection).collect()
    }

    /// A user is here over this many nodes.
    pub(crate) fn hear_spread(&self, user: &UserId, nodes: u32) {
        if let Some(here) = self.users.get(user) {
            here.spread.set(nodes);
        }
    }

    /// The same, of an answer. A word of a later change may have come past it, over another connection: where both
    /// differ it is asked for once more.
    pub(crate) fn hear_answered(&mut self, user: &UserId, nodes: u32) {
        if self.users.get(user).is_some_and(|here| here.spread.nodes() != nodes) {
            self.hear_spread(user, nodes);
            self.note(user);
        }
    }

    /// What is known here of a fence.
    pub(crate) fn standing(&self, user: &UserId, fence: u64) -> Standing {
        match self.users.get(user) {
            Some(here) if here.fence <= fence => Standing::Holds,
            _ => Standing::Replaced,
        }
    }

    /// Has one told again.
    pub(crate) fn note(&mut self, user: &UserId) {
        if self.users.contains_key(user) {
            self.untold.insert(user.clone());
        }
    }

    /// Has all told again, to a Redis that may know nothing of them.
    pub(crate) fn note_all(&mut self) {
        self.untold.extend(self.users.keys().cloned());
    }

    /// Has those told again whose fences may have grown unheard.
    pub(crate) fn note_fenced(&mut self) {
        let fenced = self.users.iter().filter(|(_, here)| here.fence > NO_FENCE);
        self.untold.extend(fenced.map(|(user, _)| user.clone()));
    }

    /// Has those told again who are here over several nodes.
    pub(crate) fn note_spread(&mut self) {
        let spread = self.users.iter().filter(|(_, here)| here.spread.nodes() > 1);
        self.untold.extend(spread.map(|(user, _)| user.clone()));
    }

    /// What is to be told next, at most `max`. All come in turn, so that those who are told again and again don't hold
    /// up the others.
    pub(crate) fn take(&mut self, max: usize) -> Vec<Said> {
        let taken = self.taken.take();
        let from = taken.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let first = self.next_untold((from, Bound::Unbounded)).take(max);
        let mut next: Vec<_> = first.cloned().collect();
        if let Some(taken) = taken {
            let left = max - next.len();
            let others = self.next_untold((Bound::Unbounded, Bound::Included(taken)));
            let others: Vec<_> = others.take(left).cloned().collect();
            next.extend(others);
        }
        let mut all = Vec::with_capacity(next.len());
        for user in &next {
            self.untold.remove(user);
            if let Some(here) = self.users.get_mut(user) {
                here.is_said = true;
                all.push(said(user, here));
            }
        }
        self.taken = next.pop();
        all
    }

    /// Whether something is to be told.
    pub(crate) fn is_untold(&self) -> bool {
        self.next_untold((Bound::Unbounded, Bound::Unbounded)).next().is_some()
    }

    /// Nothing is told of who has a connection that waits for its answer: what it said would be the older word.
    fn next_untold(&self, range: (Bound<UserId>, Bound<UserId>)) -> impl Iterator<Item = &UserId> {
        let waits = |here: &Here| here.connections.values().any(|own| *own == PENDING);
        self.untold.range(range).filter(move |user| !self.users.get(*user).is_some_and(waits))
    }

    /// Redis has it, and has answered. Answers who is replaced.
    pub(crate) fn hear_told(&mut self, said: &Said, fence: u64, nodes: u32) -> Vec<ConnectionId> {
        self.hear_answered(&said.user, nodes);
        let replaced = self.hear_fence(&said.user, fence);
        self.told(said);
        replaced
    }

    /// Redis has it: who has gone, and has not come back meanwhile, is forgotten.
    fn told(&mut self, said: &Said) {
        let is_gone = |here: &Here| here.connections.is_empty() && here.version == said.version;
        if self.users.get(&said.user).is_some_and(is_gone) {
            self.users.remove(&said.user);
        }
    }
}

fn said(user: &UserId, here: &Here) -> Said {
    Said {
        user: user.clone(),
        connections: here.connections.len(),
        version: here.version,
        fence: if is_planted(Mistake::FenceNotRetold) { NO_FENCE } else { here.fence },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> UserId {
        UserId::parse("ann").unwrap()
    }

    fn id(bits: u64) -> ConnectionId {
        ConnectionId::from_bits(bits)
    }

    fn come(seated: &mut Seated, user: &UserId, bits: u64) -> (Said, Arc<Spread>) {
        let came = seated.come(user, id(bits), 9).unwrap();
        seated.saying(user);
        came
    }

    #[test]
    fn who_waits_for_its_own_fence_is_not_replaced_by_another_s_until_it_has_it() {
        let mut seated = Seated::default();
        come(&mut seated, &ann(), 1);
        seated.seat(&ann(), id(1), NO_FENCE);
        come(&mut seated, &ann(), 2);
        // Its own may be told of before the answer with it.
        assert_eq!(seated.hear_fence(&ann(), 20), [id(1)]);
        assert_eq!(seated.seat(&ann(), id(2), 20), [id(1)]);
        assert_eq!(seated.standing(&ann(), 20), Standing::Holds);
        come(&mut seated, &ann(), 3);
        assert_eq!(seated.hear_fence(&ann(), 40), [id(1), id(2)]);
        assert_eq!(seated.seat(&ann(), id(3), 30), [id(1), id(2), id(3)], "too late itself");
        assert_eq!(seated.standing(&ann(), 30), Standing::Replaced);
    }

    #[test]
    fn who_has_gone_is_remembered_until_redis_has_been_told_of_the_last_change() {
        let mut seated = Seated::default();
        let (came, _) = come(&mut seated, &ann(), 1);
        seated.seat(&ann(), id(1), NO_FENCE);
        assert!(seated.go(&ann(), id(1)) && !seated.go(&ann(), id(1)));
        let gone = seated.take(9);
        assert_eq!((gone.len(), gone[0].connections), (1, 0));
        assert!(gone[0].version > came.version);
        seated.told(&came);
        assert_eq!(seated.users.len(), 1);
        let (again, _) = come(&mut seated, &ann(), 2);
        seated.told(&gone[0]);
        assert_eq!((seated.users.len(), again.connections), (1, 1), "back before it was told");
        assert!(again.version > gone[0].version);
        seated.go(&ann(), id(2));
        let gone = seated.take(9);
        seated.told(&gone[0]);
        assert!(seated.users.is_empty() && !seated.is_untold());
    }

    #[test]
    fn of_those_that_come_at_once_each_says_its_own_number_and_nothing_is_told_over_them() {
        let mut seated = Seated::default();
        let said: Vec<_> = (1..=3).map(|bits| come(&mut seated, &ann(), bits).0).collect();
        assert_eq!(said.iter().map(|one| one.connections).collect::<Vec<_>>(), [1, 2, 3]);
        seated.note_all();
        seated.go(&ann(), id(3));
        assert!(!seated.is_untold() && seated.take(9).is_empty());
        seated.seat(&ann(), id(1), NO_FENCE);
        assert!(!seated.is_untold());
        seated.seat(&ann(), id(2), NO_FENCE);
        assert_eq!(seated.take(9).iter().map(|one| one.connections).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn what_is_said_again_is_what_is_so_then() {
        let mut seated = Seated::default();
        let (_, spread) = come(&mut seated, &ann(), 1);
        seated.seat(&ann(), id(1), NO_FENCE);
        come(&mut seated, &UserId::parse("bob").unwrap(), 2);
        seated.seat(&UserId::parse("bob").unwrap(), id(2), 5);
        seated.note_fenced();
        assert_eq!(seated.take(9).iter().map(|one| one.fence).collect::<Vec<_>>(), [5]);
        seated.hear_spread(&ann(), 3);
        assert_eq!(spread.nodes(), 3);
        seated.note_spread();
        assert_eq!(seated.take(9)[0].user, ann());
        seated.note_all();
        assert_eq!((seated.take(1).len(), seated.take(9).len()), (1, 1));
    }

    #[test]
    fn an_answer_that_a_later_word_came_past_is_asked_for_once_more() {
        let mut seated = Seated::default();
        let (said, spread) = come(&mut seated, &ann(), 1);
        seated.seat(&ann(), id(1), NO_FENCE);
        seated.hear_answered(&ann(), 2);
        let again = seated.take(9);
        seated.hear_told(&again[0], NO_FENCE, 2);
        assert!(!seated.is_untold(), "it was so");
        // The other node has left: its word is here before the answer to what was asked in front of it.
        seated.hear_spread(&ann(), 1);
        seated.hear_told(&said, NO_FENCE, 2);
        let again = seated.take(9);
        assert_eq!((spread.nodes(), again.len()), (2, 1));
        seated.hear_told(&again[0], NO_FENCE, 1);
        let last = seated.take(9);
        seated.hear_told(&last[0], NO_FENCE, 1);
        assert_eq!((spread.nodes(), seated.is_untold()), (1, false));
    }

    #[test]
    fn who_comes_and_goes_while_nobody_can_be_told_leaves_nothing_and_there_are_never_too_many() {
        let mut seated = Seated::default();
        let user = |number: u64| UserId::parse(&format!("u{number}")).unwrap();
        for number in 0..1_000 {
            assert!(seated.come(&user(number), id(number), 3).is_some());
            seated.seat(&user(number), id(number), NO_FENCE);
            seated.note(&user(number));
            assert!(!seated.go(&user(number), id(number)));
        }
        assert!(seated.users.is_empty() && seated.untold.is_empty());
        for number in 0..3 {
            come(&mut seated, &user(number), number);
            // Redis may have been told, so it is to be told of this, too.
            assert!(seated.go(&user(number), id(number)));
        }
        assert!(seated.come(&user(3), id(3), 3).is_none());
        assert!(seated.come(&user(0), id(3), 3).is_some());
    }

    #[test]
    fn those_who_can_t_be_told_of_don_t_hold_up_the_others() {
        let mut seated = Seated::default();
        for (name, bits) in [("a", 1), ("b", 2), ("c", 3)] {
            let user = UserId::parse(name).unwrap();
            come(&mut seated, &user, bits);
            seated.seat(&user, id(bits), NO_FENCE);
        }
        seated.note_all();
        let mut order = String::new();
        for _ in 0..4 {
            let one = seated.take(1).remove(0);
            order.push_str(one.user.as_str());
            if one.user.as_str() == "a" {
                seated.note(&one.user);
            }
        }
        assert_eq!(order, "abca");
    }
}
