//! Tokens that were verified before: they get the same answers as at the first time.

use std::sync::Arc;

use application::ports::token_verifier::TokenError;
use auth_jwt::{Algorithm, CacheUse, Config, JwtVerifier};
use jsonwebtoken::EncodingKey;

use crate::support::{RSA_PRIVATE, RSA_PUBLIC, at, check_at, key, pem, sign};

fn rs256(cache_entries_max: usize) -> JwtVerifier {
    let keys = vec![key(None, &[Algorithm::RS256], pem(RSA_PUBLIC))];
    JwtVerifier::build(Config { keys, cache_entries_max, ..Config::default() }).unwrap()
}

fn token(claims: &str) -> String {
    let private = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
    sign(Algorithm::RS256, &private, r#"{"alg":"RS256"}"#, claims)
}

/// T01: a clock that is set back changes when a token counts, and only by that.
#[test]
fn a_remembered_token_ends_and_begins_when_it_would_without_a_memory() {
    let token = token(r#"{"sub":"u1","exp":1800000600,"nbf":1800000100,"jti":"t","iat":7}"#);
    for n_remembered in [0, 10] {
        let verifier = rs256(n_remembered);
        let check = |seconds| check_at(&verifier, &token, at(seconds));
        assert_eq!(check(1_800_000_000), Err(TokenError::NotYetValid));
        let first = check(1_800_000_590).unwrap();
        assert_eq!(check(1_800_000_591), Ok(first.clone()));
        assert_eq!(check(1_800_000_604), Ok(first));
        assert_eq!(check(1_800_000_605), Err(TokenError::Expired));
        // A clock that is set back.
        assert_eq!(check(1_800_000_000), Err(TokenError::NotYetValid));
    }
}

#[test]
fn how_often_the_memory_helped_is_counted_over_the_life_of_more_than_one_verifier() {
    let cache_use = Arc::new(CacheUse::default());
    let token = token(r#"{"sub":"u1","exp":1800000600}"#);
    for _ in 0..2 {
        let verifier = rs256(10).with_cache_use(Arc::clone(&cache_use));
        for _ in 0..3 {
            check_at(&verifier, &token, at(1_800_000_000)).unwrap();
        }
    }
    assert_eq!((cache_use.hits.get(), cache_use.misses.get()), (4, 2));
    // Where nothing is remembered nothing is looked for.
    let verifier = rs256(0).with_cache_use(Arc::clone(&cache_use));
    check_at(&verifier, &token, at(1_800_000_000)).unwrap();
    assert_eq!((cache_use.hits.get(), cache_use.misses.get()), (4, 2));
}

#[test]
fn only_the_token_itself_is_remembered() {
    let verifier = rs256(10);
    let good = token(r#"{"sub":"u1","exp":1800000600}"#);
    let now = at(1_800_000_000);
    check_at(&verifier, &good, now).unwrap();
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let turned: String = signature.chars().rev().collect();
    for forged in [format!("{rest}.{turned}"), format!("{good}A"), good.to_lowercase()] {
        for _ in 0..2 {
            assert!(check_at(&verifier, &forged, now).is_err(), "{forged}");
        }
    }
}

#[test]
fn the_claims_that_a_token_can_be_taken_back_by_are_read() {
    let verifier = rs256(0);
    let now = at(1_800_000_000);
    let with = |more: &str| {
        let claims = format!(r#"{{"sub":"u1","exp":1800000600{more}}}"#);
        check_at(&verifier, &token(&claims), now)
    };
    let credential = with(r#","jti":"t-1","iat":1800000000"#).unwrap().credential;
    assert_eq!(credential.id.unwrap().as_str(), "t-1");
    assert_eq!(credential.issued_at, Some(now));
    assert_eq!(with("").unwrap().credential, domain::principal::Credential::default());
    for bad in [r#","jti":7"#, r#","jti":"""#, r#","jti":"a b""#, r#","jti":null"#] {
        assert_eq!(with(bad), Err(TokenError::Claim("jti")), "{bad}");
    }
    let long = format!(r#","jti":"{}""#, "x".repeat(257));
    assert_eq!(with(&long), Err(TokenError::Claim("jti")));
    assert_eq!(with(r#","iat":"now""#), Err(TokenError::Claim("iat")));
}

/// A20: the memory is no way around spending a token, and such tokens push no others out of it.
#[test]
fn a_token_that_counts_once_is_not_remembered_and_says_so_each_time() {
    let cache_use = Arc::new(CacheUse::default());
    let verifier = rs256(10).with_cache_use(Arc::clone(&cache_use));
    let once = token(r#"{"sub":"u1","exp":1800000600,"jti":"t-1","once":true}"#);
    for _ in 0..3 {
        assert!(check_at(&verifier, &once, at(1_800_000_000)).unwrap().credential.once);
    }
    assert_eq!((cache_use.hits.get(), cache_use.misses.get()), (0, 3));
}
