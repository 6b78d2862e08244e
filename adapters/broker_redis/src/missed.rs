//! What this node was not told: of moderators it is read in the log that all nodes write, and what was said to its users
//! is looked after.
//!
//! The log is followed by its numbers, whatever the clocks of nodes say, all the time and not only after a loss: an act
//! may be stored long after it was done, and by a node that never told anybody. It must never have done again what this
//! node did or heard itself, never pass over what it could not ask for, and never ask for many users at once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use application::ports::{ActsOfAll, EntryId, KICK_COUNTS, Peer};
use domain::moderation::{Act, Entry, LatestActs};
use tokio::time::{Instant, sleep};

use crate::broker::RedisBroker;

/// How often the log is looked at, and how soon again where it could not be read.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The entries of one page, and the most that are compared with each other before they are obeyed.
const PAGE_ACTS: u32 = 256;
const ACTS_MAX: usize = 4_096;
/// So many numbers are looked at again each time: of a Postgres whose place another one has taken, with the last commits
/// lost, they may have been given out twice. It reserves 32 of them at a time.
const LOOKED_AT_AGAIN: u64 = 64;
/// So many users are looked after at a time, and that long after the ones before.
const USERS_AT_ONCE: usize = 64;
const USERS_PAUSE: Duration = Duration::from_millis(250);
/// The most acts that are known to have been done here: all of one look's, and what is heard meanwhile.
const DONE_MAX: usize = 4_096;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Missed {
    /// The latest acts that were done or heard here. Held for a look or a change.
    done: Mutex<VecDeque<Entry>>,
    /// Set where all nodes write one log.
    acts: OnceLock<Arc<dyn ActsOfAll>>,
}

/// How far the log was read.
struct Place {
    reached: EntryId,
    /// When it was last known that nothing is behind it.
    at: Instant,
}

impl Place {
    /// Behind which it is read again: never in front of what was known at the start, unless the log was.
    fn again(&self, begin: EntryId) -> EntryId {
        let again = EntryId(self.reached.0.saturating_sub(LOOKED_AT_AGAIN));
        if self.reached < begin { again } else { again.max(begin) }
    }
}

impl Missed {
    /// This is the log that all nodes write.
    pub(crate) fn follow(&self, acts: Arc<dyn ActsOfAll>) {
        let _ = self.acts.set(acts);
    }

    /// This is done or heard here; says whether it is the first time.
    pub(crate) fn note(&self, entry: &Entry) -> bool {
        let mut done = self.lock();
        if done.contains(entry) {
            return false;
        }
        if done.len() == DONE_MAX {
            done.pop_front();
        }
        done.push_back(entry.clone());
        true
    }

    /// It was not done after all.
    pub(crate) fn forget(&self, entry: &Entry) {
        self.lock().retain(|done| done != entry);
    }

    /// Has what was missed obeyed, and given to whom it is for, never to end. What can't be obeyed now is brought
    /// again; with each is said whether it may have been done too long ago for a kick.
    pub(crate) async fn run(
        &self,
        broker: &RedisBroker,
        peer: &OnceLock<Arc<dyn Peer>>,
        obey: impl Fn(Entry, bool) -> bool,
    ) {
        // Letters of which each node has its own ring there alone.
        let rings = async {
            match broker.durable() {
                Some(_) => ring_all(broker, peer).await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(self.follow_all(broker, peer, obey), rings);
    }

    async fn follow_all(
        &self,
        broker: &RedisBroker,
        peer: &OnceLock<Arc<dyn Peer>>,
        obey: impl Fn(Entry, bool) -> bool,
    ) -> Infallible {
        let mut times_on = broker.news().times_on();
        let (mut place, mut pause) = (None, LOOK_AGAIN);
        loop {
            tokio::select! {
                // What was said while the channel was off is there by now, if it was stored.
                Ok(()) = times_on.changed() => {}
                () = sleep(pause) => {}
            }
            pause = LOOK_AGAIN;
            let (Some(acts), Some(_)) = (self.acts.get(), peer.get()) else { continue };
            let place =
                place.get_or_insert_with(|| Place { reached: acts.begin(), at: Instant::now() });
            if self.look(&**acts, place, Instant::now(), &obey).await {
                pause = LOOK;
            }
        }
    }

    /// Reads on and has obeyed what is new. Says whether that was all.
    async fn look(
        &self,
        acts: &dyn ActsOfAll,
        place: &mut Place,
        now: Instant,
        obey: impl Fn(Entry, bool) -> bool,
    ) -> bool {
        // What is behind the place was stored since that time, but who can say how long after it was done.
        let mut is_late = now.duration_since(place.at) > KICK_COUNTS;
        let mut from = place.again(acts.begin());
        loop {
            let (mut found, mut is_end) = (Vec::new(), false);
            while !is_end && found.len() < ACTS_MAX {
                let Ok(page) = acts.read_on(from, PAGE_ACTS).await else { return false };
                if page.newest < from {
                    // The log came back from a backup, and goes on from there. What is new since then is looked for
                    // among its last, of which none says when it was done.
                    (place.reached, is_late) = (page.newest, true);
                    from = place.again(EntryId(u64::MAX));
                    continue;
                }
                found.extend(page.acts);
                from = page.reached;
                is_end = page.is_end;
            }
            if !self.obey_new(found, |entry| obey(entry, is_late)) {
                return false;
            }
            place.reached = place.reached.max(from);
            if is_end {
                place.at = now;
                return true;
            }
        }
    }

    /// Has obeyed what was not done here; of what lasts, the latest about each user alone. Says whether all was.
    fn obey_new(&self, found: Vec<Entry>, obey: impl Fn(Entry) -> bool) -> bool {
        let mut latest = LatestActs::default();
        found.iter().for_each(|entry| latest.note(entry));
        for entry in found {
            if !self.note(&entry) {
                continue;
            }
            let is_wanted = match &entry.act {
                Act::Mute(..) | Act::Unmute(_) | Act::Ban(..) | Act::Unban(_) => {
                    !latest.is_older(&entry)
                }
                Act::Kick(_) => true,
                // Whoever deleted it took it out of the log of all.
                Act::Delete(_) => false,
            };
            if is_wanted && !obey(entry.clone()) {
                self.forget(&entry);
                return false;
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        // Every change is one step, so a poisoned queue is still whole.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was kept for a user of this node while nobody could ring here waits until it is looked for.
async fn ring_all(broker: &RedisBroker, peer: &OnceLock<Arc<dyn Peer>>) -> Infallible {
    let mut times_on = broker.news().times_on();
    loop {
        if times_on.changed().await.is_err() {
            return std::future::pending().await;
        }
        let Some(peer) = peer.get() else { continue };
        let mut behind = None;
        loop {
            let (users, last) = peer.users_heard(behind.as_ref(), USERS_AT_ONCE);
            users.iter().for_each(|user| peer.letters_wait(user));
            behind = last;
            if behind.is_none() {
                break;
            }
            sleep(USERS_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use application::ports::{ActsPage, ReadEntriesError};
    use async_trait::async_trait;
    use domain::id::UserId;
    use domain::room::RoomId;
    use domain::time::Wall;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn entry(at: i64, act: Act) -> Entry {
        let (by, room) = (user("mod"), RoomId::parse("chat:a").unwrap());
        let at = Wall::from_millis(at);
        Entry { at, order: at, by, room, act, reason: None }
    }

    /// A log with its numbers; there was a node's start behind the fourth of them.
    #[derive(Default)]
    struct Log {
        entries: Mutex<Vec<(u64, Entry)>>,
        is_away: Mutex<bool>,
    }

    #[async_trait]
    impl ActsOfAll for Log {
        fn begin(&self) -> EntryId {
            EntryId(4)
        }

        async fn read_on(&self, behind: EntryId, limit: u32) -> Result<ActsPage, ReadEntriesError> {
            if *self.is_away.lock().unwrap() {
                return Err(ReadEntriesError("away".to_owned()));
            }
            let entries = self.entries.lock().unwrap();
            let found: Vec<_> = entries
                .iter()
                .filter(|(id, _)| *id > behind.0)
                .take(limit as usize)
                .cloned()
                .collect();
            Ok(ActsPage {
                reached: EntryId(found.last().map_or(behind.0, |(id, _)| *id)),
                is_end: found.len() < limit as usize,
                newest: EntryId(entries.iter().map(|(id, _)| *id).max().unwrap_or_default()),
                acts: found.into_iter().map(|(_, entry)| entry).collect(),
            })
        }
    }

    impl Log {
        fn write(&self, id: u64, entry: &Entry) {
            self.entries.lock().unwrap().push((id, entry.clone()));
        }
    }

    struct Bench {
        missed: Missed,
        log: Log,
        place: Place,
        now: Instant,
        obeyed: Mutex<Vec<(Entry, bool)>>,
        takes: usize,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            let place = Place { reached: EntryId(4), at: now };
            let (log, missed) = (Log::default(), Missed::default());
            Self { missed, log, place, now, obeyed: Mutex::default(), takes: usize::MAX }
        }

        async fn look(&mut self) -> bool {
            let obey = |entry, is_late| {
                let mut obeyed = self.obeyed.lock().unwrap();
                let takes = obeyed.len() < self.takes;
                if takes {
                    obeyed.push((entry, is_late));
                }
                takes
            };
            self.missed.look(&self.log, &mut self.place, self.now, obey).await
        }

        fn obeyed(&mut self) -> Vec<Entry> {
            self.obeyed.lock().unwrap().drain(..).map(|(entry, _)| entry).collect()
        }
    }

    #[tokio::test]
    async fn what_is_behind_in_the_log_is_obeyed_whatever_its_clock_says_and_however_late_it_came()
    {
        let mut bench = Bench::new();
        bench.log.write(3, &entry(99, Act::Ban(user("known"), None)));
        let of_today = entry(1_000_000, Act::Ban(user("ann"), None));
        // By a node whose clock is years behind.
        let of_long_ago = entry(1, Act::Ban(user("bob"), None));
        bench.log.write(5, &of_today);
        bench.log.write(8, &of_long_ago);
        assert!(bench.look().await);
        assert_eq!(bench.obeyed(), [of_today, of_long_ago]);
        assert!(bench.look().await && bench.obeyed().is_empty());
        // Stored when this node was in touch again, for long.
        let late = entry(2, Act::Mute(user("carl"), None));
        bench.log.write(9, &late);
        assert!(bench.look().await);
        assert_eq!(bench.obeyed(), [late]);
        // A server that took another's place gives out numbers again.
        let twice = entry(3, Act::Mute(user("dora"), None));
        bench.log.entries.lock().unwrap().retain(|(id, _)| *id < 9);
        bench.log.write(9, &twice);
        assert!(bench.look().await);
        assert_eq!(bench.obeyed(), [twice]);
    }

    #[tokio::test]
    async fn a_log_that_came_back_from_a_backup_is_followed_from_where_it_ends_then() {
        let mut bench = Bench::new();
        for n in 5..=1_000 {
            bench.log.write(n, &entry(1, Act::Ban(user(&format!("u{n}")), None)));
        }
        assert!(bench.look().await);
        assert_eq!(bench.obeyed().len(), 996);
        let kept = |log: &Log| log.entries.lock().unwrap().retain(|(id, _)| *id < 500);
        kept(&bench.log);
        let (new, kicked) =
            (entry(2, Act::Ban(user("ann"), None)), entry(3, Act::Kick(user("bob"))));
        bench.log.write(500, &new);
        bench.log.write(501, &kicked);
        assert!(bench.look().await);
        let obeyed = std::mem::take(bench.obeyed.get_mut().unwrap());
        // Nobody knows when: whoever obeys does not put anybody out for it.
        assert_eq!(obeyed, [(new, true), (kicked, true)]);
        let next = entry(4, Act::Mute(user("carl"), None));
        bench.log.write(502, &next);
        assert!(bench.look().await);
        assert_eq!(bench.obeyed(), [next]);
        // And one that goes back behind the start of this node.
        bench.log.entries.lock().unwrap().clear();
        bench.log.write(1, &entry(5, Act::Ban(user("dora"), None)));
        assert!(bench.look().await);
        assert_eq!(bench.obeyed().len(), 1);
    }

    #[tokio::test]
    async fn more_than_one_page_is_read_to_its_end_and_what_could_not_be_read_or_obeyed_comes_again()
     {
        const ACTS: u64 = 6_000;
        let mut bench = Bench::new();
        for n in 0..ACTS {
            bench.log.write(5 + n, &entry(1, Act::Ban(user(&format!("u{n}")), None)));
        }
        *bench.log.is_away.lock().unwrap() = true;
        assert!(!bench.look().await && bench.obeyed().is_empty());
        *bench.log.is_away.lock().unwrap() = false;
        bench.takes = 5_000;
        assert!(!bench.look().await);
        let first = bench.obeyed();
        bench.takes = usize::MAX;
        assert!(bench.look().await);
        let mut users: Vec<_> =
            first.iter().chain(&bench.obeyed()).map(|entry| entry.act.user().cloned()).collect();
        users.sort();
        users.dedup();
        assert_eq!((first.len(), users.len()), (5_000, ACTS as usize));
    }

    #[tokio::test]
    async fn a_kick_is_obeyed_once_and_one_of_long_ago_is_said_to_be_late() {
        let mut bench = Bench::new();
        let kick = |at| entry(at, Act::Kick(user("ann")));
        bench.log.write(5, &kick(1));
        assert!(bench.look().await);
        // Heard over the channel, before it stands in the log.
        assert!(bench.missed.note(&kick(2)) && !bench.missed.note(&kick(2)));
        bench.log.write(6, &kick(2));
        assert!(bench.look().await && bench.look().await);
        assert_eq!(*bench.obeyed.lock().unwrap(), [(kick(1), false)]);
        *bench.log.is_away.lock().unwrap() = true;
        bench.now += KICK_COUNTS + Duration::from_millis(1);
        assert!(!bench.look().await);
        *bench.log.is_away.lock().unwrap() = false;
        bench.log.write(7, &kick(3));
        assert!(bench.look().await);
        bench.log.write(8, &kick(4));
        assert!(bench.look().await);
        let late: Vec<_> = bench.obeyed.lock().unwrap().drain(1..).collect();
        assert_eq!(late, [(kick(3), true), (kick(4), false)]);
    }

    #[tokio::test]
    async fn of_what_lasts_the_latest_about_each_user_is_obeyed_and_what_was_done_here_is_not() {
        let mut bench = Bench::new();
        let done = entry(1, Act::Mute(user("eve"), None));
        assert!(bench.missed.note(&done));
        let banned = entry(20, Act::Ban(user("ann"), None));
        // Stored behind it, and done before it.
        let before = entry(10, Act::Unban(user("ann")));
        let muted = entry(5, Act::Mute(user("bob"), None));
        let deleted = Act::Delete(domain::position::Position {
            epoch: domain::id::Epoch::from_bits(1),
            offset: domain::position::Offset::MAX,
        });
        for (id, act) in [&done, &banned, &before, &muted, &entry(6, deleted)].iter().enumerate() {
            bench.log.write(5 + id as u64, act);
        }
        assert!(bench.look().await);
        assert_eq!(bench.obeyed(), [banned, muted]);
        for n in 0..5_000 {
            bench.missed.note(&entry(n, Act::Kick(user("ann"))));
        }
        assert_eq!(bench.missed.lock().len(), DONE_MAX);
    }
}
