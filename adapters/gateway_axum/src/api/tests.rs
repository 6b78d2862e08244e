//! The table and its router, and the way of a request as far as no worker is needed.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use domain::id::ClientId;
use domain::rate_limit::Rate;
use domain::scope::KeyRights;
use hyper::body::Frame;
use tower::ServiceExt;

use super::*;
use crate::shared::tests::shared_with;

/// A body that never comes.
struct Withheld;

impl axum::body::HttpBody for Withheld {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

fn key(scopes: &[Scope]) -> ApiKey {
    let name = ClientId::parse("backend").unwrap();
    ApiKey::new(name, "a secret", KeyRights::new(scopes, Vec::new()))
}

async fn asked(
    route: &Route,
    scopes: &[Scope],
    authorization: &str,
    body: Body,
    change: impl FnOnce(&mut Config),
) -> Response {
    let shared = shared_with(&[], |config| {
        config.api_keys = vec![key(scopes)];
        config.handshake_timeout = Duration::from_millis(20);
        change(config);
    });
    let method = if matches!(route.takes, Takes::Query(_)) { "GET" } else { "POST" };
    let path = route.path.replace("{match_id}", "m-1");
    let request = Request::builder().method(method).uri(path);
    let request = request.header(header::AUTHORIZATION, authorization).body(body).unwrap();
    router().with_state(shared).oneshot(request).await.unwrap()
}

#[test]
fn every_route_has_an_address_and_a_name_of_its_own() {
    let is_get = |route: &Route| matches!(route.takes, Takes::Query(_));
    let paths: BTreeSet<_> = ROUTES.iter().map(|route| (route.path, is_get(route))).collect();
    let names: BTreeSet<_> = ROUTES.iter().map(|route| route.deed.word()).collect();
    assert_eq!((paths.len(), names.len()), (ROUTES.len(), ROUTES.len()));
    assert!(paths.iter().all(|(path, _)| path.starts_with("/api/v1/")));
}

#[test]
fn every_scope_opens_something_and_only_the_description_is_for_every_key() {
    let scopes: BTreeSet<_> = ROUTES.iter().filter_map(|route| route.scope).collect();
    assert_eq!(scopes, Scope::ALL.into_iter().collect());
    let open: Vec<_> = ROUTES.iter().filter(|route| route.scope.is_none()).collect();
    assert!(matches!(open[..], [Route { deed: Deed::Describe, .. }]));
}

#[tokio::test]
async fn who_has_no_key_or_lacks_the_scope_is_refused_before_any_of_the_body_has_come() {
    for route in &ROUTES {
        let withheld = || Body::new(Withheld);
        let unknown = asked(route, &Scope::ALL, "Bearer wrong", withheld(), |_| {}).await;
        assert_eq!(unknown.status(), StatusCode::UNAUTHORIZED, "{}", route.path);
        let Some(scope) = route.scope else { continue };
        let others: Vec<_> = Scope::ALL.into_iter().filter(|other| *other != scope).collect();
        let refused = asked(route, &others, "Bearer a secret", withheld(), |_| {}).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{}", route.path);
        let challenge = refused.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.contains(&format!("scope=\"{}\"", scope.word())), "{challenge}");
    }
}

#[tokio::test]
async fn a_key_that_is_used_too_fast_is_refused_before_any_of_the_body_has_come() {
    let slow = |config: &mut Config| {
        config.api_rate = Rate::new(1, 1);
        config.api_keys[0].charge(config.api_rate, 1, domain::time::Monotonic::START);
    };
    for route in &ROUTES {
        let refused = asked(route, &Scope::ALL, "Bearer a secret", Body::new(Withheld), slow).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "{}", route.path);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    }
}

/// R10: a body that does not come.
#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_answered_with_408() {
    let takes_body = |route: &&Route| matches!(route.takes, Takes::Body { .. });
    for route in ROUTES.iter().filter(takes_body) {
        let late = asked(route, &Scope::ALL, "Bearer a secret", Body::new(Withheld), |_| {}).await;
        assert_eq!(late.status(), StatusCode::REQUEST_TIMEOUT, "{}", route.path);
    }
}
