//! Letters of which nobody knows whether they are kept: the commit had no answer.
//!
//! Whoever was told so says the same again, and it must be the same letter then. It must never keep more of them than
//! it can name, nor any for longer than somebody says the same again because of that, and never take what two say for
//! one: who has no name for the server is not remembered.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::id::UserId;

use crate::ports::Letter;

/// The most that are remembered; the oldest go first.
const LETTERS_MAX: usize = 1_024;
/// For how long.
const KEPT: Duration = Duration::from_secs(60);

/// See the module's text. Times are counted from any one moment.
#[derive(Debug)]
pub struct Unsure<T> {
    /// What is known of each, and when it was tried last; the latest last. Held for a look or a change only.
    letters: Mutex<VecDeque<(Said, T, Duration)>>,
    /// How many there are: looked at before each private message, mostly in vain.
    n_letters: AtomicUsize,
}

/// To whom, by whom, and what, as a number: one sender's alone are told apart by it.
type Said = (UserId, UserId, u64);

impl<T> Default for Unsure<T> {
    fn default() -> Self {
        Self { letters: Mutex::default(), n_letters: AtomicUsize::new(0) }
    }
}

impl<T> Unsure<T> {
    /// What is known of a letter that was tried just now and says the same, which is no longer remembered.
    pub fn take(&self, user: &UserId, letter: &Letter, now: Duration) -> Option<T> {
        if self.n_letters.load(Ordering::Acquire) == 0 {
            return None;
        }
        let said = said(user, letter);
        let mut letters = self.lock();
        while letters.front().is_some_and(|(_, _, at)| now.saturating_sub(*at) > KEPT) {
            letters.pop_front();
        }
        let place = said.and_then(|said| letters.iter().position(|(other, _, _)| *other == said));
        let taken = place.and_then(|place| letters.remove(place));
        self.n_letters.store(letters.len(), Ordering::Release);
        taken.map(|(_, known, _)| known)
    }

    /// Nobody knows of this one.
    pub fn note(&self, user: &UserId, letter: &Letter, known: T, now: Duration) {
        let Some(said) = said(user, letter) else { return };
        let mut letters = self.lock();
        if letters.len() == LETTERS_MAX {
            letters.pop_front();
        }
        letters.push_back((said, known, now));
        self.n_letters.store(letters.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Said, T, Duration)>> {
        // Every change is one step, so a poisoned queue is still whole.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// None of a sender who is no user: others look the same.
fn said(user: &UserId, letter: &Letter) -> Option<Said> {
    let sender = letter.sender.user.clone()?;
    let mut hasher = DefaultHasher::new();
    (&letter.sender.name, &letter.data).hash(&mut hasher);
    Some((user.clone(), sender, hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use domain::message::Sender;
    use domain::time::Wall;

    const NOW: Duration = Duration::from_secs(7);

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn letter(text: &'static str) -> Letter {
        let sender = Sender { user: Some(user("carl")), ..Sender::default() };
        Letter { sender, data: Bytes::from(text), at: Wall::default() }
    }

    #[test]
    fn the_same_said_again_is_the_same_letter_once_and_not_for_ever() {
        let unsure = Unsure::default();
        let [ann, bob] = ["ann", "bob"].map(user);
        let take = |user, text, at| unsure.take(user, &letter(text), at);
        unsure.note(&ann, &letter("1"), 7, NOW);
        assert_eq!((take(&bob, "1", NOW), take(&ann, "2", NOW)), (None, None));
        assert_eq!((take(&ann, "1", NOW), take(&ann, "1", NOW)), (Some(7), None));
        unsure.note(&ann, &letter("1"), 8, NOW);
        assert_eq!(take(&ann, "1", NOW + KEPT + Duration::from_millis(1)), None);
        for name in 0..2_000 {
            unsure.note(&ann, &letter("1"), name, NOW);
        }
        assert_eq!(unsure.lock().len(), LETTERS_MAX);
    }

    #[test]
    fn the_same_words_of_somebody_else_are_another_letter() {
        let unsure = Unsure::default();
        let by = |name: Option<&str>, text: Option<&str>| {
            let sender =
                Sender { user: name.map(user), name: text.map(Into::into), ..Sender::default() };
            Letter { sender, ..letter("1") }
        };
        unsure.note(&user("ann"), &by(Some("bob"), Some("Bob")), 1, NOW);
        unsure.note(&user("ann"), &by(None, Some("guest")), 2, NOW);
        for other in [by(Some("bob"), None), by(Some("carl"), Some("Bob")), by(None, Some("guest"))]
        {
            assert_eq!(unsure.take(&user("ann"), &other, NOW), None, "{other:?}");
        }
        assert_eq!(unsure.take(&user("ann"), &by(Some("bob"), Some("Bob")), NOW), Some(1));
    }
}
