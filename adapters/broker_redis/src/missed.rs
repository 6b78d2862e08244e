//! What moderators did while this node was away, and what was said to its users: asked of the store that all nodes share,
//! after each loss of the channel.
//!
//! It must never have done again what this node did or heard itself, never pass over what it could not ask for, and never
//! ask for many users at once.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use application::ports::Peer;
use domain::moderation::{Act, Entry};
use tokio::time::{Instant, sleep};

use crate::broker::RedisBroker;

/// How often it is looked whether this node is in touch, and asked again for what could not be read.
const LOOK: Duration = Duration::from_secs(1);
/// So many users are looked after at a time, and that long after the ones before.
const USERS_AT_ONCE: usize = 64;
const USERS_PAUSE: Duration = Duration::from_millis(250);
/// The most acts that are known to have been done here.
const DONE_MAX: usize = 1_024;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Missed {
    /// The latest acts that were done or heard here. Held for a look or a change.
    done: Mutex<VecDeque<Entry>>,
}

impl Missed {
    /// This was done or heard here.
    pub(crate) fn note(&self, entry: &Entry) {
        let mut done = self.lock();
        if done.len() == DONE_MAX {
            done.pop_front();
        }
        done.push_back(entry.clone());
    }

    /// Has what was missed obeyed, and given to whom it is for, never to end.
    pub(crate) async fn run(
        &self,
        broker: &RedisBroker,
        peer: &OnceLock<Arc<dyn Peer>>,
        obey: impl Fn(Entry),
    ) {
        // Where its store is its own, what it says is known.
        if broker.durable().is_some() {
            tokio::join!(self.obey_all(broker, peer, obey), ring_all(broker, peer));
        }
    }

    async fn obey_all(
        &self,
        broker: &RedisBroker,
        peer: &OnceLock<Arc<dyn Peer>>,
        obey: impl Fn(Entry),
    ) -> Infallible {
        let mut times_on = broker.news().times_on();
        // A loss is noticed with the next look, after an answer that did not come.
        let margin = 4 * broker.config.answer_timeout + 2 * broker.config.probe_interval + LOOK;
        let (mut in_touch, mut since) = (Instant::now(), None);
        loop {
            tokio::select! {
                changed = times_on.changed() => {
                    if changed.is_ok() {
                        since.get_or_insert(in_touch);
                    }
                }
                () = sleep(LOOK) => {}
            }
            if let (Some(from), Some(peer)) = (since, peer.get()) {
                let Some(acts) = peer.acts_of_the_last(from.elapsed() + margin).await else {
                    continue;
                };
                self.unknown(&acts).into_iter().for_each(&obey);
                since = None;
            }
            if since.is_none() && broker.status().is_up() {
                in_touch = Instant::now();
            }
        }
    }

    /// Of these, what was not done here; of what lasts, the latest about each user alone.
    fn unknown(&self, acts: &[Entry]) -> Vec<Entry> {
        let mut latest = BTreeMap::new();
        for (n, act) in acts.iter().enumerate() {
            if let (Some(user), Some(sanction)) = (act.act.user(), act.act.sanction()) {
                latest.insert((&act.room, user, sanction), n);
            }
        }
        let lasting: Vec<usize> = latest.into_values().collect();
        let done = self.lock();
        let is_wanted = |(n, act): &(usize, Entry)| match &act.act {
            Act::Mute(..) | Act::Unmute(_) | Act::Ban(..) | Act::Unban(_) => lasting.contains(n),
            Act::Kick(_) => true,
            // Whoever deleted it took it out of the log of all.
            Act::Delete(_) => false,
        };
        let wanted = acts.iter().cloned().enumerate().filter(is_wanted).map(|(_, act)| act);
        wanted.filter(|act| !done.contains(act)).collect()
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
        for users in peer.users_heard().chunks(USERS_AT_ONCE) {
            users.iter().for_each(|user| peer.letters_wait(user));
            sleep(USERS_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::UserId;
    use domain::room::RoomId;
    use domain::time::Wall;

    fn entry(at: i64, act: Act) -> Entry {
        let (by, room) = (UserId::parse("mod").unwrap(), RoomId::parse("chat:a").unwrap());
        Entry { at: Wall::from_millis(at), by, room, act, reason: None }
    }

    #[test]
    fn only_what_was_not_done_here_is_obeyed_and_of_what_lasts_the_latest() {
        let (ann, bob) = (UserId::parse("ann").unwrap(), UserId::parse("bob").unwrap());
        let missed = Missed::default();
        let kicked = entry(1, Act::Kick(ann.clone()));
        missed.note(&kicked);
        let banned = entry(2, Act::Ban(ann.clone(), None));
        let again = entry(3, Act::Kick(ann.clone()));
        let unbanned = entry(4, Act::Unban(ann.clone()));
        let muted = entry(5, Act::Mute(bob, None));
        let acts = vec![kicked, banned, again.clone(), unbanned.clone(), muted.clone()];
        assert_eq!(missed.unknown(&acts), [again, unbanned, muted]);
        for n in 0..2_000 {
            missed.note(&entry(n, Act::Kick(ann.clone())));
        }
        assert_eq!(missed.lock().len(), DONE_MAX);
    }
}
