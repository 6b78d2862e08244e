//! Letters in this process's memory, for a node that keeps nothing on disk: they end with it.
//!
//! Bounded over all users: it must never grow until the process dies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use application::ports::inbox::{Inbox, InboxError, Letter, LetterId, LetterLimits};
use async_trait::async_trait;
use domain::id::UserId;
use domain::time::Wall;

/// The most bytes of letters, over all users.
const BYTES_MAX: usize = 256 << 20;
/// What a letter takes beside its data, roughly.
const LETTER_BYTES: usize = 256;

/// See the module's text.
#[derive(Debug, Default)]
pub struct MemoryInbox {
    letters: Mutex<Letters>,
}

#[derive(Debug, Default)]
struct Letters {
    of_users: BTreeMap<UserId, VecDeque<(LetterId, Letter)>>,
    /// How many each sender has written.
    of_senders: BTreeMap<Option<UserId>, u32>,
    n: u32,
    bytes: usize,
    last: u64,
}

fn bytes_of(letter: &Letter) -> usize {
    LETTER_BYTES + letter.data.len()
}

impl Letters {
    fn is_full(&self, user: &UserId, sender: Option<&UserId>, limits: LetterLimits) -> bool {
        let of_user = self.of_users.get(user);
        let of_pair = of_user.into_iter().flatten();
        let of_pair = of_pair.filter(|(_, letter)| letter.sender.user.as_ref() == sender).count();
        let of_user = of_user.map_or(0, VecDeque::len);
        let of_sender = self.of_senders.get(&sender.cloned()).copied().unwrap_or_default();
        of_user >= limits.of_user as usize
            || of_pair >= limits.of_pair as usize
            || of_sender >= limits.of_sender
            || self.n >= limits.of_all
    }

    fn counted(&mut self, letter: &Letter) {
        self.n += 1;
        self.bytes += bytes_of(letter);
        *self.of_senders.entry(letter.sender.user.clone()).or_default() += 1;
    }

    fn gone(&mut self, letter: &Letter) {
        self.n -= 1;
        self.bytes -= bytes_of(letter);
        if let Some(n) = self.of_senders.get_mut(&letter.sender.user) {
            *n -= 1;
            if *n == 0 {
                self.of_senders.remove(&letter.sender.user);
            }
        }
    }
}

impl MemoryInbox {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        // Every change is complete before anything can panic.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Inbox for MemoryInbox {
    async fn put(
        &self,
        user: &UserId,
        letter: Letter,
        limits: LetterLimits,
    ) -> Result<(), InboxError> {
        let mut letters = self.lock();
        if letters.bytes + bytes_of(&letter) > BYTES_MAX {
            return Err(InboxError::Storage("the memory for letters is used up".to_owned()));
        }
        if letters.is_full(user, letter.sender.user.as_ref(), limits) {
            return Err(InboxError::Full);
        }
        letters.counted(&letter);
        letters.last += 1;
        let id = LetterId(letters.last);
        letters.of_users.entry(user.clone()).or_default().push_back((id, letter));
        Ok(())
    }

    async fn read(
        &self,
        user: &UserId,
        after: Option<LetterId>,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Vec<(LetterId, Letter)>, InboxError> {
        let letters = self.lock();
        let Some(of_user) = letters.of_users.get(user) else { return Ok(Vec::new()) };
        let from = of_user.partition_point(|(id, _)| Some(*id) <= after);
        let mut bytes = 0;
        let fits = |(place, (_, letter)): &(usize, &(LetterId, Letter))| {
            bytes += letter.data.len();
            *place == 0 || bytes <= bytes_max
        };
        let page = of_user.iter().skip(from).take(limit as usize).enumerate().take_while(fits);
        Ok(page.map(|(_, letter)| letter.clone()).collect())
    }

    async fn remove(&self, user: &UserId, up_to: LetterId) -> Result<(), InboxError> {
        let mut letters = self.lock();
        let Some(of_user) = letters.of_users.get_mut(user) else { return Ok(()) };
        let n = of_user.partition_point(|(id, _)| *id <= up_to);
        let gone: Vec<_> = of_user.drain(..n).collect();
        if of_user.is_empty() {
            letters.of_users.remove(user);
        }
        gone.iter().for_each(|(_, letter)| letters.gone(letter));
        Ok(())
    }

    async fn forget(&self, before: Wall) {
        let mut letters = self.lock();
        // Taken out, since what goes is counted in what they are part of.
        let mut of_users = std::mem::take(&mut letters.of_users);
        of_users.retain(|_, of_user| {
            of_user.retain(|(_, letter)| {
                let stays = letter.at >= before;
                if !stays {
                    letters.gone(letter);
                }
                stays
            });
            !of_user.is_empty()
        });
        letters.of_users = of_users;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use application::testing::inbox_contract::InboxContract;

    #[tokio::test]
    async fn letters_in_memory_pass_the_contract() {
        InboxContract { inbox: &MemoryInbox::default() }.check().await;
    }

    #[tokio::test]
    async fn nothing_is_counted_that_is_not_there_any_more() {
        let inbox = MemoryInbox::default();
        InboxContract { inbox: &inbox }.check().await;
        inbox.forget(Wall::MAX).await;
        let letters = inbox.lock();
        assert_eq!((letters.bytes, letters.n), (0, 0));
        assert_eq!((letters.of_users.len(), letters.of_senders.len()), (0, 0));
    }
}
