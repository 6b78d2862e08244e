//! The contract of the `seats` port.
//!
//! It must never ask for more than one node: what several share is for the tests of those that can share it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use domain::id::{ConnectionId, UserId};
use domain::seats::{Fence, SeatRule};

use crate::ports::{SeatError, Seats, Standing, Taken};

/// Seats that nobody has taken.
pub struct SeatsContract<'c> {
    /// What is under test.
    pub seats: &'c dyn Seats,
}

type Answer = Result<Taken, SeatError>;

fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap_or_else(|_| unreachable!("a name"))
}

fn id(number: u64) -> ConnectionId {
    ConnectionId::from_bits(number)
}

impl SeatsContract<'_> {
    /// Checks everything below, and leaves nobody behind.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn check(&self) {
        self.a_user_has_as_many_as_it_may_and_no_more().await;
        self.a_seat_is_taken_once_and_left_once_however_often_it_is_said().await;
        self.of_many_at_once_as_many_are_let_in_as_may_be().await;
        self.the_newest_has_the_largest_fence_and_all_others_are_told_to_end().await;
        self.whoever_was_replaced_stays_so_when_the_newest_has_gone().await;
        self.of_many_that_take_over_at_once_exactly_one_holds().await;
    }

    async fn take(&self, name: &str, connection: u64, max: u32) -> Result<(), SeatError> {
        let taken = self.seats.take(&user(name), id(connection), SeatRule::AtMost(max)).await?;
        assert_eq!(taken.fence, None, "beside others nobody needs one");
        assert_eq!(taken.spread.nodes(), 1);
        Ok(())
    }

    async fn take_over(&self, name: &str, connection: u64) -> Fence {
        let taken = self.seats.take(&user(name), id(connection), SeatRule::NewestWins).await;
        let fence = taken.ok().and_then(|taken| taken.fence);
        assert!(fence.is_some(), "the newest is let in");
        fence.unwrap_or_else(|| unreachable!("it is there"))
    }

    fn leave(&self, name: &str, connections: impl IntoIterator<Item = u64>) {
        connections.into_iter().for_each(|one| self.seats.leave(&user(name), id(one)));
    }

    async fn standing(&self, name: &str, fence: Fence) -> Standing {
        let (here, confirmed) =
            (self.seats.standing(&user(name), fence), self.seats.confirm(&user(name), fence).await);
        assert_eq!(here, confirmed, "what one node alone knows is so");
        here
    }

    /// By user.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn a_user_has_as_many_as_it_may_and_no_more(&self) {
        for one in 1..=3 {
            assert_eq!(self.take("ann", one, 3).await, Ok(()));
        }
        assert_eq!(self.take("ann", 4, 3).await, Err(SeatError::Full));
        assert_eq!(self.take("bob", 5, 3).await, Ok(()), "others have their own");
        self.leave("ann", [2]);
        assert_eq!(self.take("ann", 4, 3).await, Ok(()));
        assert_eq!(self.take("ann", 6, 3).await, Err(SeatError::Full));
        assert_eq!(self.take("ann", 6, 5).await, Ok(()), "the rule is that of the newcomer");
        self.leave("ann", [1, 3, 4, 6]);
        self.leave("bob", [5]);
    }

    /// By connection.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn a_seat_is_taken_once_and_left_once_however_often_it_is_said(&self) {
        for _ in 0..3 {
            assert_eq!(self.take("ann", 1, 2).await, Ok(()));
        }
        assert_eq!(self.take("ann", 2, 2).await, Ok(()));
        self.leave("ann", [1, 1, 1, 9]);
        self.leave("nobody", [1]);
        assert_eq!(self.take("ann", 3, 2).await, Ok(()));
        assert_eq!(self.take("ann", 4, 2).await, Err(SeatError::Full));
        self.leave("ann", [4, 2, 3]);
    }

    /// Polled in turns, so that each call has begun before the first ends, if it can wait at all.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn of_many_at_once_as_many_are_let_in_as_may_be(&self) {
        let ann = user("ann");
        let answers = self.at_once(&ann, SeatRule::AtMost(5)).await;
        let mut let_in = 0;
        for (connection, answer) in &answers {
            match answer {
                Ok(_) => let_in += 1,
                Err(error) => {
                    assert_eq!(*error, SeatError::Full);
                    // As everyone does who is refused.
                    self.seats.leave(&ann, *connection);
                }
            }
        }
        // One that is on its way may keep another out that would have fitted.
        assert!((1..=5).contains(&let_in), "{let_in}");
        while let_in < 5 {
            assert_eq!(self.take("ann", 100 + let_in, 5).await, Ok(()));
            let_in += 1;
        }
        assert_eq!(self.take("ann", 200, 5).await, Err(SeatError::Full));
        self.leave("ann", (1..=32).chain(100..=200));
    }

    /// By user, and told at once.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn the_newest_has_the_largest_fence_and_all_others_are_told_to_end(&self) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tells = Arc::clone(&told);
        self.seats.on_replaced(Box::new(move |connection| {
            tells.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }));
        assert_eq!(self.take("ann", 1, 9).await, Ok(()), "from before the rule");
        let bob = self.take_over("bob", 7).await;
        let first = self.take_over("ann", 2).await;
        let second = self.take_over("ann", 3).await;
        assert!(second > first);
        assert_eq!(self.standing("ann", first).await, Standing::Replaced);
        assert_eq!(self.standing("ann", second).await, Standing::Holds);
        assert_eq!(self.standing("bob", bob).await, Standing::Holds);
        let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(told.contains(&id(1)) && told.contains(&id(2)), "{told:?}");
        assert!(!told.contains(&id(3)) && !told.contains(&id(7)), "{told:?}");
        self.leave("ann", [1, 2, 3]);
        self.leave("bob", [7]);
    }

    /// Also while it is still on its way out.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn whoever_was_replaced_stays_so_when_the_newest_has_gone(&self) {
        let first = self.take_over("ann", 1).await;
        let second = self.take_over("ann", 2).await;
        self.leave("ann", [2]);
        assert_eq!(self.standing("ann", first).await, Standing::Replaced);
        let third = self.take_over("ann", 3).await;
        assert!(third > second);
        self.leave("ann", [1, 3]);
        assert!(self.take_over("ann", 4).await > third, "however long nobody was there");
        self.leave("ann", [4]);
    }

    /// As above.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn of_many_that_take_over_at_once_exactly_one_holds(&self) {
        let ann = user("ann");
        let answers = self.at_once(&ann, SeatRule::NewestWins).await;
        let fences: Vec<_> =
            answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()?.fence).collect();
        assert_eq!(fences.len(), answers.len(), "each is let in");
        let mut holds = Vec::new();
        for fence in &fences {
            if self.standing("ann", *fence).await == Standing::Holds {
                holds.push(*fence);
            }
        }
        assert_eq!(holds, fences.iter().max().copied().into_iter().collect::<Vec<_>>());
        self.leave("ann", 1..=32);
    }

    async fn at_once(&self, user: &UserId, rule: SeatRule) -> Vec<(ConnectionId, Answer)> {
        type Call<'c> = Pin<Box<dyn Future<Output = Answer> + Send + 'c>>;
        let call = |number| (id(number), self.seats.take(user, id(number), rule));
        let mut waiting: Vec<(ConnectionId, Call<'_>)> = (1..=32).map(call).collect();
        let mut answers = Vec::new();
        poll_fn(|cx| {
            waiting.retain_mut(|(connection, call)| match call.as_mut().poll(cx) {
                Poll::Ready(answer) => {
                    answers.push((*connection, answer));
                    false
                }
                Poll::Pending => true,
            });
            if waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        answers
    }
}
