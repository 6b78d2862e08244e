//! Tokens that count once, against mocks of what verifies and what remembers them.

use std::collections::VecDeque;

use domain::id::TokenId;

use super::*;
use crate::ports::{SpendError, Spending};
use crate::use_cases::refresh_token::{RefreshError, RefreshToken};

/// Somebody with a token that counts once, as the verifier says it each time.
fn once(name: &str) -> Principal {
    let mut principal = user(name);
    principal.expires_at = Some(Wall::from_millis(60_000));
    principal.credential.id = TokenId::parse("t-1").ok();
    principal.credential.once = true;
    principal
}

/// Each token is good and counts once; the store gives these answers, one for each time it is asked.
fn spending(answers: &[Result<Spending, SpendError>]) -> Mocks {
    let mut mocks = Mocks::default();
    mocks.verifier.expect_verify().returning(|_, _| Box::pin(async { Ok(once("u")) }));
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let mut left = VecDeque::from(answers.to_vec());
    let spent = &mut mocks.spent_tokens;
    spent.expect_spend().times(answers.len()).returning(move |id, until, now| {
        assert_eq!((id.as_str(), now), ("t-1", Wall::default()));
        // Longer than it could count by the widest leeway.
        assert!(until > Wall::from_millis(60_000 + 60_000), "{until}");
        let answer = left.pop_front().unwrap();
        Box::pin(async move { answer })
    });
    mocks
}

/// A20. A replay is no guess: the address is not turned away for it, and goes on being told 3500.
#[tokio::test]
async fn a_token_that_counts_once_lets_somebody_in_once_and_a_replay_is_no_guess() {
    let again = Ok(Spending::Again);
    let mut mocks = spending(&[Ok(Spending::First), again.clone(), again.clone(), again]);
    mocks.rules.limits.bad_tokens_of_address = Rate::per_minute(1);
    let services = mocks.services();
    let show = || {
        let who = Who { address: "203.0.113.7".parse().ok(), ..(*who(None)).clone() };
        let credentials = Credentials { token: Some("t".to_owned()), ..Credentials::default() };
        Authenticate { services: Arc::clone(&services), who: Arc::new(who), credentials }.execute()
    };
    let first = show().await.unwrap();
    let credential = &first.who.principal.credential;
    assert!(!credential.once, "it is spent, so that a ticket can be made of it");
    assert_eq!(credential.id, TokenId::parse("t-1").ok());
    for _ in 0..3 {
        let refused = show().await.unwrap_err();
        assert_eq!(refused, AuthenticateError::Spent);
        assert_eq!(refused.close_code(), CloseCode::Unauthenticated);
    }
    let edge = &services.metrics.edge;
    let counted = [TokenOutcome::Accepted, TokenOutcome::Spent].map(|row| edge.tokens.get(row));
    assert_eq!((counted, edge.tokens.sum()), ([1, 3], 4));
    assert_eq!(edge.security.get(SecurityEvent::AuthenticationFailed), 3);
}

/// A20: a store that is away. No answer is no yes.
#[tokio::test]
async fn where_nobody_knows_whether_a_token_is_spent_nobody_is_let_in() {
    let away = SpendError::Storage("away".to_owned());
    for (error, code) in [
        (away, CloseCode::TryAgainLater),
        (SpendError::Full, CloseCode::TryAgainLater),
        (SpendError::NotTaken, CloseCode::Unauthenticated),
    ] {
        let call = authenticate(spending(&[Err(error.clone())]), Some("t"));
        let services = Arc::clone(&call.services);
        let refused = call.execute().await.unwrap_err();
        assert_eq!(refused.close_code(), code);
        assert_eq!(refused, AuthenticateError::NotSpendable(error));
        assert_eq!(services.metrics.edge.tokens.get(TokenOutcome::NotSpendable), 1);
    }
}

#[tokio::test]
async fn a_token_that_is_refused_for_another_reason_is_not_spent_and_an_ordinary_one_never() {
    // The store expects nothing: asking it would fail the tests.
    let revoked = Mocks { revoked: true, ..spending(&[]) };
    let refused = authenticate(revoked, Some("t")).execute().await.unwrap_err();
    assert_eq!(refused, AuthenticateError::Revoked);
    let mut ordinary = Mocks::default();
    ordinary.verifier.expect_verify().returning(|_, _| {
        let mut named = once("u");
        named.credential.once = false;
        Box::pin(async move { Ok(named) })
    });
    assert!(authenticate(ordinary, Some("t")).execute().await.is_ok());
    let mut by_ticket = spending(&[]);
    by_ticket.tickets.expect_open().returning(|_, _| Ok(user("u")));
    assert!(showing(by_ticket, "s", Some("t")).execute().await.is_ok());
    // Whatever an adapter says, without a name or an end nothing can be remembered.
    type Spoil = fn(&mut Principal);
    let spoiled: [(Spoil, &str); 2] =
        [(|who| who.credential.id = None, "jti"), (|who| who.expires_at = None, "exp")];
    for (spoil, claim) in spoiled {
        let mut mocks = Mocks::default();
        mocks.verifier.expect_describe().returning(|_| TokenHint::default());
        mocks.verifier.expect_verify().returning(move |_, _| {
            let mut principal = once("u");
            spoil(&mut principal);
            Box::pin(async move { Ok(principal) })
        });
        let refused = authenticate(mocks, Some("t")).execute().await.unwrap_err();
        assert_eq!(refused, AuthenticateError::Token(TokenError::Claim(claim)));
    }
}

/// A20: in a refresh, too.
#[tokio::test]
async fn a_refresh_spends_a_token_that_counts_once_and_goes_on_where_nobody_knows() {
    let refreshing = |answer: Result<Spending, SpendError>| {
        let services = spending(&[answer]).services();
        let (token, rooms) = ("t".to_owned(), Vec::new());
        RefreshToken { services, who: who(Some("u")), token, rooms }.execute()
    };
    let refreshed = refreshing(Ok(Spending::First)).await.unwrap();
    assert!(!refreshed.who.principal.credential.once);
    let spent = refreshing(Ok(Spending::Again)).await.unwrap_err();
    assert_eq!(spent, RefreshError::Identify(AuthenticateError::Spent));
    assert_eq!(spent.close_code(), Some(CloseCode::Unauthenticated));
    for error in [SpendError::Full, SpendError::Storage("away".to_owned())] {
        assert_eq!(refreshing(Err(error)).await.unwrap_err().close_code(), None);
    }
    let not_taken = refreshing(Err(SpendError::NotTaken)).await.unwrap_err();
    assert_eq!(not_taken.close_code(), Some(CloseCode::Unauthenticated));
}
