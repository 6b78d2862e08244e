//! The port's contract, once for each family of algorithms.

use std::time::Duration;

use application::testing::token_verifier_contract::TokenVerifierContract;
use auth_jwt::Algorithm;
use domain::id::UserId;
use domain::time::Wall;

use crate::support::{NOW, algorithms, at, key, sign, verifier};

async fn check(wanted: Algorithm) {
    let (algorithm, private, material) =
        algorithms().into_iter().find(|(algorithm, ..)| *algorithm == wanted).unwrap();
    let verifier = verifier(vec![key(Some("k1"), &[algorithm], material)]);
    let mint = |expires_at: Wall| {
        let exp = expires_at.as_millis() / 1000;
        let header = format!(r#"{{"alg":"{algorithm:?}","typ":"JWT","kid":"k1"}}"#);
        sign(algorithm, &private, header, format!(r#"{{"sub":"u1","exp":{exp}}}"#))
    };
    TokenVerifierContract {
        verifier: &verifier,
        mint: &mint,
        subject: UserId::parse("u1").unwrap(),
        leeway: Duration::from_secs(5),
        now: at(NOW),
    }
    .check()
    .await;
}

/// A48
#[tokio::test]
async fn hs256_keeps_the_contract() {
    check(Algorithm::HS256).await;
}

/// A48
#[tokio::test]
async fn rs256_keeps_the_contract() {
    check(Algorithm::RS256).await;
}

/// A48
#[tokio::test]
async fn ps256_keeps_the_contract() {
    check(Algorithm::PS256).await;
}

/// A48
#[tokio::test]
async fn es256_keeps_the_contract() {
    check(Algorithm::ES256).await;
}

/// A48
#[tokio::test]
async fn es384_keeps_the_contract() {
    check(Algorithm::ES384).await;
}

/// A48
#[tokio::test]
async fn es512_keeps_the_contract() {
    check(Algorithm::ES512).await;
}

/// A48
#[tokio::test]
async fn eddsa_keeps_the_contract() {
    check(Algorithm::EdDSA).await;
}
