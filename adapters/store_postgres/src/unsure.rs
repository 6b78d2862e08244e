//! Letters of which nobody knows whether they are stored: the commit had no answer.
//!
//! Whoever was told so says the same again, and it must be the same letter then. It must never keep more of them than
//! it can name, nor any for longer than somebody says the same again because of that.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use application::ports::inbox::Letter;
use domain::id::UserId;
use tokio::time::Instant;

/// The most that are remembered; the oldest go first.
const LETTERS_MAX: usize = 1_024;
/// For how long.
const KEPT: Duration = Duration::from_secs(60);

/// See the module's text.
#[derive(Default)]
pub(crate) struct Unsure {
    hasher: RandomState,
    /// What each says to whom, its name, and when it was tried last; the latest last.
    letters: Mutex<VecDeque<(u64, i64, Instant)>>,
}

impl Unsure {
    /// The name of a letter that was tried just now and says the same, which is no longer remembered.
    pub(crate) fn take(&self, user: &UserId, letter: &Letter, now: Instant) -> Option<i64> {
        let what = self.what(user, letter);
        let mut letters = self.lock();
        while letters.front().is_some_and(|(_, _, at)| now.duration_since(*at) > KEPT) {
            letters.pop_front();
        }
        let place = letters.iter().position(|(other, _, _)| *other == what)?;
        letters.remove(place).map(|(_, name, _)| name)
    }

    /// Nobody knows of this one.
    pub(crate) fn note(&self, user: &UserId, letter: &Letter, name: i64, now: Instant) {
        let what = self.what(user, letter);
        let mut letters = self.lock();
        if letters.len() == LETTERS_MAX {
            letters.pop_front();
        }
        letters.push_back((what, name, now));
    }

    fn what(&self, user: &UserId, letter: &Letter) -> u64 {
        let what = (user.as_str(), letter.sender.user.as_ref().map(UserId::as_str), &letter.data);
        self.hasher.hash_one(what)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, i64, Instant)>> {
        // Every change is one step, so a poisoned queue is still whole.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use domain::message::Sender;
    use domain::time::Wall;

    fn letter(text: &'static str) -> Letter {
        Letter { sender: Sender::default(), data: Bytes::from(text), at: Wall::default() }
    }

    #[test]
    fn the_same_said_again_is_the_same_letter_once_and_not_for_ever() {
        let (unsure, now) = (Unsure::default(), Instant::now());
        let [ann, bob] = ["ann", "bob"].map(|name| UserId::parse(name).unwrap());
        let take = |user, text, at| unsure.take(user, &letter(text), at);
        unsure.note(&ann, &letter("1"), 7, now);
        assert_eq!((take(&bob, "1", now), take(&ann, "2", now)), (None, None));
        assert_eq!((take(&ann, "1", now), take(&ann, "1", now)), (Some(7), None));
        unsure.note(&ann, &letter("1"), 8, now);
        assert_eq!(take(&ann, "1", now + KEPT + Duration::from_millis(1)), None);
        for name in 0..2_000 {
            unsure.note(&ann, &letter("1"), name, now);
        }
        assert_eq!(unsure.lock().len(), LETTERS_MAX);
    }
}
