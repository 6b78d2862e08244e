//! The contract of the `inbox` port.
//!
//! It must never ask for what only one that keeps letters on disk can promise.

#![allow(clippy::expect_used, reason = "a contract suite is a test")]

use bytes::Bytes;
use domain::id::UserId;
use domain::message::Sender;
use domain::time::Wall;

use crate::ports::inbox::{Inbox, InboxError, Letter, LetterId, LetterLimits};

/// An empty inbox.
pub struct InboxContract<'c> {
    /// What is under test.
    pub inbox: &'c dyn Inbox,
}

const LETTERS_MAX: u32 = 5;
const LIMITS: LetterLimits =
    LetterLimits { of_user: LETTERS_MAX, of_pair: 1_000, of_sender: 1_000, of_all: 1_000 };

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a user")
}

/// The letter with this number, written so many milliseconds after 1970.
fn letter(number: u32) -> Letter {
    let name = (number.is_multiple_of(2)).then(|| "Ünal \"B\"".into());
    let sender = Sender { user: Some(user("sender")), name, ..Sender::default() };
    let data = Bytes::from(format!(r#"{{"n":{number},"text":"ü"}}"#));
    Letter { sender, data, at: Wall::from_millis(i64::from(number)) }
}

impl InboxContract<'_> {
    /// Checks everything below.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn check(&self) {
        self.one_sender_and_all_together_have_limits_too().await;
        self.letters_are_answered_in_order_page_by_page().await;
        self.what_was_removed_is_not_answered_again().await;
        self.as_many_letters_wait_as_may_and_no_more().await;
        self.what_is_left_of_a_pair_still_counts().await;
        self.a_page_ends_with_its_bytes_but_not_before_its_first_letter().await;
        self.old_letters_are_forgotten().await;
    }

    async fn put(&self, to: &UserId, numbers: std::ops::RangeInclusive<u32>) {
        for number in numbers {
            assert_eq!(self.inbox.put(to, letter(number), LIMITS).await, Ok(()));
        }
    }

    async fn read(
        &self,
        of: &UserId,
        after: Option<LetterId>,
        limit: u32,
    ) -> Vec<(LetterId, Letter)> {
        self.inbox.read(of, after, limit, usize::MAX).await.expect("it answers")
    }

    async fn all(&self, of: &UserId) -> Vec<Letter> {
        self.read(of, None, 100).await.into_iter().map(|(_, letter)| letter).collect()
    }

    /// Each user's own, as they were put there.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn letters_are_answered_in_order_page_by_page(&self) {
        let (ann, bob) = (user("ann"), user("bob"));
        assert_eq!(self.all(&ann).await, []);
        self.put(&ann, 1..=3).await;
        self.put(&bob, 9..=9).await;
        self.put(&ann, 4..=4).await;
        let first = self.read(&ann, None, 3).await;
        let second = self.read(&ann, first.last().map(|(id, _)| *id), 3).await;
        let read = first.into_iter().chain(second).map(|(_, letter)| letter);
        assert_eq!(read.collect::<Vec<_>>(), (1..=4).map(letter).collect::<Vec<_>>());
        assert_eq!(self.all(&bob).await, [letter(9)]);
    }

    /// Up to one, and no further.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn what_was_removed_is_not_answered_again(&self) {
        let ann = user("removed");
        self.put(&ann, 1..=4).await;
        let read = self.read(&ann, None, 2).await;
        let last = read.last().expect("two letters").0;
        for _ in 0..2 {
            assert_eq!(self.inbox.remove(&ann, last).await, Ok(()));
            assert_eq!(self.all(&ann).await, [letter(3), letter(4)]);
        }
        // A later letter comes behind what was there, also when nothing is left.
        let rest = self.read(&ann, None, 9).await;
        let last = rest.last().expect("two letters").0;
        assert_eq!(self.inbox.remove(&ann, last).await, Ok(()));
        self.put(&ann, 5..=5).await;
        let fresh = self.read(&ann, Some(last), 9).await;
        assert_eq!(fresh.len(), 1);
        assert!(fresh[0].0 > last);
    }

    /// The first that does not fit is refused, and there is room once one is removed.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn as_many_letters_wait_as_may_and_no_more(&self) {
        let (ann, bob) = (user("full"), user("empty"));
        self.put(&ann, 1..=LETTERS_MAX).await;
        let refused = self.inbox.put(&ann, letter(6), LIMITS).await;
        assert_eq!(refused, Err(InboxError::Full));
        self.put(&bob, 1..=1).await;
        let first = self.read(&ann, None, 1).await[0].0;
        assert_eq!(self.inbox.remove(&ann, first).await, Ok(()));
        self.put(&ann, 6..=6).await;
        assert_eq!(self.all(&ann).await.len(), LETTERS_MAX as usize);
    }

    /// What others wrote does not count for a sender, but for all; what was removed counts for none.
    /// It wants that no letter is there.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn one_sender_and_all_together_have_limits_too(&self) {
        let (ann, bob) = (user("ann-of-the-limits"), user("bob-of-the-limits"));
        let from = |name: &str| {
            let sender = Sender { user: Some(user(name)), ..Sender::default() };
            Letter { sender, ..letter(1) }
        };
        let of_sender = LetterLimits { of_sender: 2, ..LIMITS };
        let put = |to, letter, limits| self.inbox.put(to, letter, limits);
        assert_eq!(put(&ann, from("pushy"), of_sender).await, Ok(()));
        assert_eq!(put(&bob, from("pushy"), of_sender).await, Ok(()));
        assert_eq!(put(&ann, from("pushy"), of_sender).await, Err(InboxError::Full));
        assert_eq!(put(&ann, from("another"), of_sender).await, Ok(()));
        let of_all = LetterLimits { of_all: 3, ..LIMITS };
        assert_eq!(put(&ann, from("third"), of_all).await, Err(InboxError::Full));
        let of_pair = LetterLimits { of_pair: 1, ..LIMITS };
        assert_eq!(put(&bob, from("pushy"), of_pair).await, Err(InboxError::Full));
        let one_more = LetterLimits { of_all: 4, ..LIMITS };
        assert_eq!(put(&bob, from("third"), LetterLimits { of_pair: 1, ..one_more }).await, Ok(()));
        let all = self.read(&ann, None, 9).await;
        let last = all.last().expect("two letters").0;
        assert_eq!(self.inbox.remove(&ann, last).await, Ok(()));
        assert_eq!(put(&ann, from("pushy"), of_sender).await, Ok(()));
    }

    /// Neither more nor less, whatever else of them was removed before.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn what_is_left_of_a_pair_still_counts(&self) {
        let ann = user("ann-of-a-pair");
        let limits = LetterLimits { of_pair: 3, ..LIMITS };
        for n in 1..=3 {
            assert_eq!(self.inbox.put(&ann, letter(n), limits).await, Ok(()));
        }
        let first = self.read(&ann, None, 1).await[0].0;
        assert_eq!(self.inbox.remove(&ann, first).await, Ok(()));
        assert_eq!(self.inbox.put(&ann, letter(4), limits).await, Ok(()));
        assert_eq!(self.inbox.put(&ann, letter(5), limits).await, Err(InboxError::Full));
    }

    /// However small.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn a_page_ends_with_its_bytes_but_not_before_its_first_letter(&self) {
        let ann = user("bytes");
        self.put(&ann, 1..=3).await;
        let bytes = letter(1).data.len();
        for (bytes_max, n) in [(0, 1), (bytes, 1), (2 * bytes, 2), (3 * bytes, 3)] {
            let read = self.inbox.read(&ann, None, 9, bytes_max).await.expect("it answers");
            assert_eq!(read.len(), n, "{bytes_max}");
        }
    }

    /// Those from before a moment, and no others.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn old_letters_are_forgotten(&self) {
        let ann = user("old");
        self.put(&ann, 1..=4).await;
        self.inbox.forget(Wall::from_millis(3)).await;
        assert_eq!(self.all(&ann).await, [letter(3), letter(4)]);
    }
}
