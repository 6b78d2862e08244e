//! Tokens made for the command line.

use std::time::Duration;

use application::ports::token_verifier::TokenError;
use auth_jwt::{
    Algorithm, Config, JwtVerifier, KeyProblem, MintError, RoomGrant, SigningKey, TokenRequest,
    mint,
};
use domain::principal::{Action, Grant, RoomPattern};
use domain::time::Wall;

use crate::support::{NOW, SECRET, at, check, key, secret};

fn signing_key() -> SigningKey {
    SigningKey { kid: Some("cli".to_owned()), secret: SECRET.to_vec().into() }
}

fn request() -> TokenRequest {
    TokenRequest {
        subject: "u1".to_owned(),
        ttl: Duration::from_secs(600),
        ..TokenRequest::default()
    }
}

#[test]
fn a_minted_token_says_what_was_asked_for() {
    let request = TokenRequest {
        name: Some("Zoë".to_owned()),
        roles: vec!["moderator".to_owned()],
        rooms: vec![RoomGrant {
            pattern: "chat:guild/*".to_owned(),
            allow: vec![Action::Subscribe, Action::Moderate],
        }],
        issuer: Some("cli".to_owned()),
        audience: Some("roomkeeper".to_owned()),
        ..request()
    };
    let token = mint(&request, &signing_key(), at(NOW)).unwrap();
    let verifier = JwtVerifier::build(Config {
        keys: vec![key(Some("cli"), &[Algorithm::HS256], secret(SECRET))],
        issuer: Some("cli".to_owned()),
        audience: Some("roomkeeper".to_owned()),
        ..Config::default()
    })
    .unwrap();
    let who = check(&verifier, &token).unwrap();
    assert_eq!(who.user.unwrap().as_str(), "u1");
    assert_eq!(who.name.as_deref(), Some("Zoë"));
    assert_eq!(who.roles[0].as_str(), "moderator");
    let pattern = RoomPattern::parse("chat:guild/*").unwrap();
    assert_eq!(who.grants, [Grant::new(pattern, &[Action::Subscribe, Action::Moderate])]);
    assert_eq!(who.expires_at, Some(at(NOW + 600)));
}

#[test]
fn a_minted_token_that_counts_once_has_the_name_that_was_asked_for() {
    let once = TokenRequest { id: Some("t-1".to_owned()), once: true, ..request() };
    let token = mint(&once, &signing_key(), at(NOW)).unwrap();
    let verifier =
        crate::support::verifier(vec![key(Some("cli"), &[Algorithm::HS256], secret(SECRET))]);
    let credential = check(&verifier, &token).unwrap().credential;
    assert!(credential.once);
    assert_eq!(credential.id.unwrap().as_str(), "t-1");
}

#[test]
fn a_part_of_a_second_counts_as_a_whole_one() {
    let brief = TokenRequest { ttl: Duration::from_millis(1), ..request() };
    let token = mint(&brief, &signing_key(), at(NOW)).unwrap();
    let verifier =
        crate::support::verifier(vec![key(Some("cli"), &[Algorithm::HS256], secret(SECRET))]);
    assert_eq!(check(&verifier, &token).unwrap().expires_at, Some(at(NOW + 1)));
}

#[test]
fn nothing_is_minted_that_the_verifier_would_refuse() {
    let refused = |request: TokenRequest| match mint(&request, &signing_key(), at(NOW)) {
        Err(MintError::Refused(error)) => error,
        other => panic!("{other:?}"),
    };
    let bad = TokenRequest { subject: "a b".to_owned(), ..request() };
    assert_eq!(refused(bad), TokenError::Claim("sub"));
    let bad = TokenRequest { subject: "anonymous:1".to_owned(), ..request() };
    assert_eq!(refused(bad), TokenError::Claim("sub"));
    let bad = TokenRequest { name: Some("a\nb".to_owned()), ..request() };
    assert_eq!(refused(bad), TokenError::Claim("name"));
    let bad = TokenRequest { roles: vec![String::new()], ..request() };
    assert_eq!(refused(bad), TokenError::Claim("roles"));
    let everywhere = RoomGrant { pattern: "*".to_owned(), allow: vec![Action::Publish] };
    let bad = TokenRequest { rooms: vec![everywhere], ..request() };
    assert_eq!(refused(bad), TokenError::Claim("rooms"));
    let bad = TokenRequest { ttl: Duration::MAX, ..request() };
    assert_eq!(refused(bad), TokenError::Claim("exp"));
    let once = TokenRequest { once: true, ..request() };
    assert_eq!(refused(once.clone()), TokenError::Claim("jti"));
    let id = Some("t-1".to_owned());
    let bad = TokenRequest { id, ttl: Duration::from_secs(86_401), ..once };
    assert_eq!(refused(bad), TokenError::Claim("exp"));
}

#[test]
fn nothing_is_minted_with_an_unfit_key_or_for_no_time() {
    let short = SigningKey { kid: None, secret: SECRET[..31].to_vec().into() };
    let answer = mint(&request(), &short, at(NOW));
    assert!(matches!(answer, Err(MintError::Key(KeyProblem::SecretShort { n_bytes: 31 }))));
    let unnamed = SigningKey { kid: Some(String::new()), secret: SECRET.to_vec().into() };
    assert!(matches!(mint(&request(), &unnamed, at(NOW)), Err(MintError::Key(KeyProblem::Kid))));
    let none = TokenRequest { ttl: Duration::ZERO, ..request() };
    assert!(matches!(mint(&none, &signing_key(), at(NOW)), Err(MintError::Ttl)));
    let long =
        vec![RoomGrant { pattern: format!("chat:{}", "x".repeat(240)), allow: Vec::new() }; 64];
    let bad = TokenRequest { rooms: long, ..request() };
    assert!(matches!(mint(&bad, &signing_key(), at(NOW)), Err(MintError::TooLong { .. })));
    let before = Wall::from_millis(-5000);
    assert!(mint(&request(), &signing_key(), before).is_err());
}
