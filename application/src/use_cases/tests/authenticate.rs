//! Who is let in, as whom, and with what close code others are turned away.

use super::*;

#[tokio::test]
async fn without_a_token_nobody_is_let_in_unless_anonymous_connections_are_allowed() {
    let refused = authenticate(Mocks::default(), None).execute().await.unwrap_err();
    assert_eq!(refused, AuthenticateError::Missing);
    let rules = Rules { allow_anonymous: true, ..Rules::default() };
    let mocks = Mocks { rules, ..Mocks::default() };
    assert!(authenticate(mocks, None).execute().await.unwrap().admission.is_none());
}

#[tokio::test]
async fn a_token_that_is_not_accepted_closes_with_unauthenticated() {
    let mut mocks = Mocks::default();
    mocks.verifier.expect_verify().returning(|_, _| Box::pin(async { Err(TokenError::Expired) }));
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let refused = authenticate(mocks, Some("t")).execute().await.unwrap_err();
    assert_eq!(refused.close_code(), CloseCode::Unauthenticated);
}

/// R08.
#[tokio::test]
async fn an_address_that_showed_too_many_tokens_that_are_none_is_not_looked_at_for_a_while() {
    let mut mocks = Mocks::default();
    mocks.rules.limits.bad_tokens_of_address = Rate::per_minute(3);
    mocks.rules.allow_anonymous = true;
    // The fourth is not verified.
    mocks
        .verifier
        .expect_verify()
        .times(3)
        .returning(|_, _| Box::pin(async { Err(TokenError::Signature) }));
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let services = mocks.services();
    let of = |address: &str, token: Option<&str>| {
        let who = Who { address: address.parse().ok(), ..(*who(None)).clone() };
        let token = token.map(str::to_owned);
        let credentials = Credentials { token, ..Credentials::default() };
        Authenticate { services: Arc::clone(&services), who: Arc::new(who), credentials }
    };
    for _ in 0..3 {
        let refused = of("203.0.113.7", Some("t")).execute().await.unwrap_err();
        assert_eq!(refused, AuthenticateError::Token(TokenError::Signature));
    }
    let refused = of("203.0.113.7", Some("t")).execute().await.unwrap_err();
    assert_eq!(refused, AuthenticateError::TooManyFailures(Duration::from_secs(20)));
    assert_eq!(refused.close_code(), CloseCode::RateLimited);
    assert_eq!(refused.come_back(), Some(Duration::from_secs(20)));
    // Without a token there is nothing to guess.
    assert!(of("203.0.113.7", None).execute().await.is_ok());
}

#[tokio::test]
async fn a_ticket_that_counts_spares_the_token() {
    // The verifier expects nothing: asking it would fail the test.
    for token in [None, Some("t")] {
        let mut mocks = Mocks::default();
        mocks.tickets.expect_open().times(1).returning(|_, _| Ok(user("u")));
        let authenticated = showing(mocks, "s", token).execute().await.unwrap();
        assert_eq!(*authenticated.who.principal, user("u"));
        assert!(authenticated.admission.is_some(), "it counts as a connection of its user");
    }
}

#[tokio::test]
async fn a_ticket_that_does_not_count_leaves_it_to_the_token_beside_it() {
    let refusing = |error| {
        let mut mocks = Mocks::default();
        mocks.tickets.expect_open().returning(move |_, _| Err(error));
        mocks
    };
    for error in [TicketError::Expired, TicketError::Signature, TicketError::NotTaken] {
        let refused = showing(refusing(error), "s", None).execute().await.unwrap_err();
        assert_eq!(refused, AuthenticateError::Ticket(error));
        assert_eq!(refused.close_code(), CloseCode::Unauthenticated);
        let mut mocks = refusing(error);
        mocks.verifier.expect_verify().times(1).returning(|_, _| Box::pin(async { Ok(user("t")) }));
        let authenticated = showing(mocks, "s", Some("t")).execute().await.unwrap();
        let mut verified = user("t");
        verified.credential.verified_at = Some(Wall::default());
        assert_eq!(*authenticated.who.principal, verified);
    }
    // Nobody in particular is let in here, but not with a ticket that does not count.
    let mut mocks = refusing(TicketError::Expired);
    mocks.rules.allow_anonymous = true;
    assert!(showing(mocks, "s", None).execute().await.is_err());
}

#[tokio::test]
async fn nobody_whose_time_is_over_gets_in_whatever_the_adapter_says() {
    let over = || Principal { expires_at: Some(Wall::from_millis(-60_000)), ..user("u") };
    let mut mocks = Mocks::default();
    mocks.tickets.expect_open().returning(move |_, _| Ok(over()));
    mocks.verifier.expect_verify().times(1).returning(move |_, _| {
        let over = over();
        Box::pin(async move { Ok(over) })
    });
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let call = showing(mocks, "s", Some("t"));
    let services = Arc::clone(&call.services);
    let refused = call.execute().await.unwrap_err();
    assert_eq!(refused, AuthenticateError::Token(TokenError::Expired));
    let edge = &services.metrics.edge;
    assert_eq!((edge.tokens.get(TokenOutcome::Expired), edge.tokens.sum()), (1, 1));
}

#[tokio::test]
async fn who_comes_with_what_was_revoked_is_refused_and_counts_nothing() {
    let mut mocks = Mocks { revoked: true, ..Mocks::default() };
    mocks.rules.limits.connections_per_user_max = 0;
    mocks.verifier.expect_verify().returning(|_, _| Box::pin(async { Ok(user("u")) }));
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let call = authenticate(mocks, Some("t"));
    let services = Arc::clone(&call.services);
    let refused = call.execute().await.unwrap_err();
    assert_eq!(refused.close_code(), CloseCode::Revoked);
    // Guards are told once, and it is not counted as a token that was accepted.
    let edge = &services.metrics.edge;
    assert_eq!((edge.tokens.get(TokenOutcome::Revoked), edge.tokens.sum()), (1, 1));
    assert_eq!(edge.security.get(SecurityEvent::AuthenticationFailed), 1);
    // Neither does a ticket that was made of it bring anybody back.
    let mut mocks = Mocks { revoked: true, ..Mocks::default() };
    mocks.tickets.expect_open().returning(|_, _| Ok(user("u")));
    let call = showing(mocks, "s", None);
    let services = Arc::clone(&call.services);
    let refused = call.execute().await.unwrap_err();
    assert_eq!(refused.close_code(), CloseCode::Revoked);
    let edge = &services.metrics.edge;
    assert_eq!((edge.tokens.sum(), edge.security.sum()), (0, 1));
}

#[tokio::test]
async fn while_keys_can_not_be_fetched_a_client_is_told_to_come_back_rather_than_to_give_up() {
    let mut mocks = Mocks::default();
    let away = || Box::pin(async { Err(TokenError::KeysUnavailable) });
    mocks.verifier.expect_verify().returning(move |_, _| away());
    mocks.verifier.expect_describe().returning(|_| TokenHint::default());
    let refused = authenticate(mocks, Some("t")).execute().await.unwrap_err();
    assert_eq!(refused.close_code(), CloseCode::TryAgainLater);
}

#[tokio::test]
async fn the_connection_over_the_users_limit_is_refused_and_counts_nothing() {
    let mut mocks = Mocks::default();
    mocks.rules.limits.connections_per_user_max = 1;
    let user = || Principal { user: UserId::parse("u").ok(), ..Principal::default() };
    mocks.verifier.expect_verify().returning(move |_, _| {
        let user = user();
        Box::pin(async move { Ok(user) })
    });
    let services = mocks.services();
    let again = || Authenticate {
        services: Arc::clone(&services),
        who: who(None),
        credentials: Credentials { token: Some("t".to_owned()), ..Credentials::default() },
    };
    let first = again().execute().await.unwrap();
    assert_eq!(again().execute().await.unwrap_err(), AuthenticateError::ConnectionLimit);
    drop(first);
    assert!(again().execute().await.is_ok());
}

#[tokio::test]
async fn a_middleware_that_refuses_a_connection_chooses_its_close_code() {
    let mocks = Mocks { rules: refusing(), ..Mocks::default() };
    let refused = authenticate(mocks, None).execute().await.unwrap_err();
    assert_eq!(refused.close_code(), CloseCode::Forbidden);
}
