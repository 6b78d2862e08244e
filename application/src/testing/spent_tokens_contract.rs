//! The contract of the `spent_tokens` port.
//!
//! It must never ask for what only one that keeps them on disk can promise, nor that anything is
//! forgotten at a certain moment.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use domain::id::TokenId;
use domain::time::Wall;

use crate::ports::{SpendError, Spending, SpentTokens};

/// A store in which no token is spent yet, and what is known of it.
pub struct SpentTokensContract<'c> {
    /// What is under test.
    pub spent_tokens: &'c dyn SpentTokens,
    /// How many it remembers, at least 50, as those on their way may take a place, too; none where it
    /// knows no number.
    pub entries_max: Option<usize>,
    /// A present.
    pub now: Wall,
}

type Answer = Result<Spending, SpendError>;

fn id(text: &str) -> TokenId {
    TokenId::parse(text).unwrap_or_else(|_| unreachable!("an id"))
}

impl SpentTokensContract<'_> {
    /// How long the tokens of these tests are remembered.
    const SPAN: Duration = Duration::from_secs(60);

    /// Checks everything below.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn check(&self) {
        self.a_token_counts_once_and_others_beside_it().await;
        self.of_many_at_once_exactly_one_is_the_first().await;
        self.it_stays_spent_until_its_time_is_over().await;
        self.an_answer_that_nobody_waits_for_gives_nobody_a_second_one().await;
        self.a_full_store_refuses_another_and_has_room_when_their_time_is_over().await;
    }

    async fn spend(&self, text: &str, now: Wall) -> Answer {
        self.spent_tokens.spend(&id(text), now.after(Self::SPAN), now).await
    }

    /// By its id.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn a_token_counts_once_and_others_beside_it(&self) {
        assert_eq!(self.spent_tokens.remembered(), 0);
        for text in ["t-1", "t-2", "T-1", "t-11"] {
            assert_eq!(self.spend(text, self.now).await, Ok(Spending::First), "{text}");
            for _ in 0..3 {
                assert_eq!(self.spend(text, self.now).await, Ok(Spending::Again), "{text}");
            }
        }
        assert_eq!(self.spent_tokens.remembered(), 4);
    }

    /// Polled in turns, so that each call has begun before the first ends, if it can wait at all.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn of_many_at_once_exactly_one_is_the_first(&self) {
        let token = id("at-once");
        let until = self.now.after(Self::SPAN);
        let mut waiting: Vec<Pin<Box<dyn Future<Output = Answer> + Send + '_>>> =
            (0..32).map(|_| self.spent_tokens.spend(&token, until, self.now)).collect();
        let mut answers = Vec::new();
        poll_fn(|cx| {
            waiting.retain_mut(|call| match call.as_mut().poll(cx) {
                Poll::Ready(answer) => {
                    answers.push(answer);
                    false
                }
                Poll::Pending => true,
            });
            if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let firsts = answers.iter().filter(|answer| **answer == Ok(Spending::First)).count();
        let agains = answers.iter().filter(|answer| **answer == Ok(Spending::Again)).count();
        assert_eq!((firsts, agains), (1, 31), "{answers:?}");
    }

    /// The last millisecond included, whatever later calls say of its end.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn it_stays_spent_until_its_time_is_over(&self) {
        assert_eq!(self.spend("until", self.now).await, Ok(Spending::First));
        let sooner = self.now.after(Duration::from_secs(1));
        let again = self.spent_tokens.spend(&id("until"), sooner, self.now).await;
        assert_eq!(again, Ok(Spending::Again));
        let end = self.now.after(Self::SPAN);
        for before in [sooner.after(Duration::from_secs(1)), Wall::from_millis(end.as_millis() - 1)]
        {
            assert_eq!(self.spend("until", before).await, Ok(Spending::Again), "{before}");
        }
    }

    /// The connection may be gone before it is known who it was.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn an_answer_that_nobody_waits_for_gives_nobody_a_second_one(&self) {
        let token = id("dropped");
        let until = self.now.after(Self::SPAN);
        let mut firsts = 0;
        {
            let mut dropped = self.spent_tokens.spend(&token, until, self.now);
            let at_once = poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx))).await;
            firsts += usize::from(at_once == Poll::Ready(Ok(Spending::First)));
        }
        for _ in 0..2 {
            let answer = self.spent_tokens.spend(&token, until, self.now).await;
            firsts += usize::from(answer == Ok(Spending::First));
        }
        assert!(firsts <= 1, "{firsts} were the first");
        assert_eq!(self.spend("dropped", self.now).await, Ok(Spending::Again));
    }

    /// Nothing is forgotten to make room.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn a_full_store_refuses_another_and_has_room_when_their_time_is_over(&self) {
        let Some(entries_max) = self.entries_max else { return };
        let fills = entries_max.saturating_sub(self.spent_tokens.remembered());
        assert!(fills > 0, "it has to remember more than {entries_max} for this");
        for n in 0..fills {
            let answer = self.spend(&format!("fill-{n}"), self.now).await;
            assert_eq!(answer, Ok(Spending::First), "{n} of {fills}");
        }
        assert_eq!(self.spent_tokens.remembered(), entries_max);
        for _ in 0..3 {
            assert_eq!(self.spend("one-more", self.now).await, Err(SpendError::Full));
        }
        for text in ["t-1", "fill-0"] {
            assert_ne!(self.spend(text, self.now).await, Ok(Spending::First), "{text}");
        }
        let later = self.now.after(2 * Self::SPAN);
        assert_eq!(self.spend("one-more", later).await, Ok(Spending::First));
        assert_eq!(self.spend("one-more", later).await, Ok(Spending::Again));
        for n in 0..entries_max {
            let answer = self.spend(&format!("later-{n}"), later).await;
            assert_ne!(answer, Ok(Spending::Again), "{n}");
        }
        assert!(self.spent_tokens.remembered() <= entries_max);
    }
}
