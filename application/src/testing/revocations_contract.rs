//! The contract of the `revocations` port.
//!
//! It must never ask for what only one that keeps them on disk can promise.

use std::time::Duration;

use std::future::poll_fn;
use std::task::Poll;

use domain::id::{ConnectionId, TokenId, UserId};
use domain::principal::{Credential, Principal};
use domain::revocation::Revocation;
use domain::time::Wall;

use crate::ports::Revocations;

/// An empty set of revocations and what is known of it.
pub struct RevocationsContract<'c> {
    /// What is under test.
    pub revocations: &'c dyn Revocations,
    /// How long it remembers each.
    pub span: Duration,
    /// A present.
    pub now: Wall,
}

fn other() -> ConnectionId {
    ConnectionId::from_bits(1)
}

impl RevocationsContract<'_> {
    /// Checks everything below.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn check(&self) {
        self.nothing_is_revoked_before_something_is().await;
        self.a_token_counts_as_revoked_from_the_answer_on().await;
        self.it_counts_before_anything_is_waited_for().await;
        self.a_user_may_come_back_with_a_later_token().await;
        self.a_connection_is_meant_by_its_id().await;
        self.each_is_forgotten_when_its_time_is_over_and_not_before().await;
    }

    fn bearer(&self, user: &str, token: &str, issued_at: Wall) -> Principal {
        let id = TokenId::parse(token).ok();
        let credential = Credential { id, issued_at: Some(issued_at), ..Credential::default() };
        Principal { user: UserId::parse(user).ok(), credential, ..Principal::default() }
    }

    async fn add(&self, revocation: &Revocation, now: Wall) {
        assert_eq!(self.revocations.add(revocation, now).await, Ok(()));
        // Once more changes nothing.
        assert_eq!(self.revocations.add(revocation, now).await, Ok(()));
    }

    /// An empty set concerns nobody.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn nothing_is_revoked_before_something_is(&self) {
        let ann = self.bearer("ann", "t-1", self.now);
        assert_eq!(self.revocations.remembered(), 0);
        assert!(!self.revocations.concerns(&ann, other()));
        assert!(!self.revocations.concerns(&Principal::anonymous(), other()));
    }

    /// By its id, whoever carries it.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn a_token_counts_as_revoked_from_the_answer_on(&self) {
        let id = TokenId::parse("t-1").unwrap_or_else(|_| unreachable!("an id"));
        self.add(&Revocation::Token(id), self.now).await;
        // Once, though it was said twice.
        assert_eq!(self.revocations.remembered(), 1);
        let concerns =
            |token| self.revocations.concerns(&self.bearer("ann", token, self.now), other());
        assert!(concerns("t-1") && !concerns("t-2"));
    }

    /// The storage may be slow; nobody comes back meanwhile.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn it_counts_before_anything_is_waited_for(&self) {
        let id = TokenId::parse("t-slow").unwrap_or_else(|_| unreachable!("an id"));
        let revocation = Revocation::Token(id);
        let mut adding = self.revocations.add(&revocation, self.now);
        let at_once = poll_fn(|cx| Poll::Ready(adding.as_mut().poll(cx))).await;
        assert!(self.revocations.concerns(&self.bearer("ann", "t-slow", self.now), other()));
        let added = match at_once {
            Poll::Ready(added) => added,
            Poll::Pending => adding.await,
        };
        assert_eq!(added, Ok(()));
    }

    /// Everything that was issued until then, nothing that was issued later.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn a_user_may_come_back_with_a_later_token(&self) {
        let user = UserId::parse("bob").unwrap_or_else(|_| unreachable!("an id"));
        self.add(&Revocation::User { user, issued_until: self.now }, self.now).await;
        let concerns = |user, issued_at| {
            self.revocations.concerns(&self.bearer(user, "t-3", issued_at), other())
        };
        let later = self.now.after(Duration::from_secs(1));
        assert!(concerns("bob", self.now) && concerns("bob", Wall::default()));
        assert!(!concerns("bob", later) && !concerns("cat", self.now));
    }

    /// Also an anonymous one.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn a_connection_is_meant_by_its_id(&self) {
        let id = ConnectionId::from_bits(7);
        self.add(&Revocation::Connection(id), self.now).await;
        assert!(self.revocations.concerns(&Principal::anonymous(), id));
        assert!(!self.revocations.concerns(&Principal::anonymous(), other()));
    }

    /// Never early.
    ///
    /// # Panics
    /// When the implementation breaks the contract.
    pub async fn each_is_forgotten_when_its_time_is_over_and_not_before(&self) {
        let id = ConnectionId::from_bits(8);
        self.add(&Revocation::Connection(id), self.now).await;
        let end = self.now.after(self.span);
        self.revocations.forget(Wall::from_millis(end.as_millis() - 1)).await;
        assert!(self.revocations.concerns(&Principal::anonymous(), id));
        assert!(self.revocations.remembered() > 0);
        self.revocations.forget(end.after(Duration::from_secs(1))).await;
        assert!(!self.revocations.concerns(&Principal::anonymous(), id));
        assert_eq!(self.revocations.remembered(), 0);
    }
}
