//! Letters in this process's memory, for a node that keeps nothing on disk: they end with it.
//!
//! Bounded over all users: it must never grow until the process dies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use application::ports::inbox::{Inbox, InboxError, Letter, LetterId};
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
    bytes: usize,
    last: u64,
}

fn bytes_of(letter: &Letter) -> usize {
    LETTER_BYTES + letter.data.len()
}

impl MemoryInbox {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        // Every change is complete before anything can panic.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Inbox for MemoryInbox {
    async fn put(&self, user: &UserId, letter: Letter, letters_max: u32) -> Result<(), InboxError> {
        let mut letters = self.lock();
        let bytes = letters.bytes + bytes_of(&letter);
        if bytes > BYTES_MAX {
            return Err(InboxError::Storage("the memory for letters is used up".to_owned()));
        }
        let id = LetterId(letters.last + 1);
        let of_user = letters.of_users.entry(user.clone()).or_default();
        if of_user.len() >= letters_max as usize {
            return Err(InboxError::Full);
        }
        of_user.push_back((id, letter));
        (letters.last, letters.bytes) = (id.0, bytes);
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
        let bytes: usize = of_user.drain(..n).map(|(_, letter)| bytes_of(&letter)).sum();
        if of_user.is_empty() {
            letters.of_users.remove(user);
        }
        letters.bytes -= bytes;
        Ok(())
    }

    async fn forget(&self, before: Wall) {
        let mut letters = self.lock();
        let mut bytes = 0;
        letters.of_users.retain(|_, of_user| {
            of_user.retain(|(_, letter)| {
                let stays = letter.at >= before;
                bytes += if stays { 0 } else { bytes_of(letter) };
                stays
            });
            !of_user.is_empty()
        });
        letters.bytes -= bytes;
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
        assert_eq!((letters.bytes, letters.of_users.len()), (0, 0));
    }
}
