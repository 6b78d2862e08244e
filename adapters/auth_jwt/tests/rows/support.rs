//! Keys, tokens made by hand, and a verifier without a runtime.
//!
//! Tokens are assembled from text, so that a test can write what no library would.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use application::ports::token_verifier::{TokenError, TokenVerifier};
use auth_jwt::{Algorithm, Config, JwtVerifier, KeyConfig, KeyMaterial};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use domain::principal::Principal;
use domain::time::Wall;
use jsonwebtoken::EncodingKey;

pub(crate) const SECRET: &[u8] = b"only for tests: 0123456789abcdef";
/// Seconds since 1970.
pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const CLAIMS: &str = r#"{"sub":"u1","exp":1800000600}"#;

pub(crate) const RSA_PRIVATE: &str = include_str!("../keys/rsa_private.pem");
pub(crate) const RSA_PUBLIC: &str = include_str!("../keys/rsa_public.pem");
pub(crate) const EC256_PRIVATE: &str = include_str!("../keys/ec256_private.pem");
pub(crate) const EC256_PUBLIC: &str = include_str!("../keys/ec256_public.pem");
pub(crate) const EC384_PRIVATE: &str = include_str!("../keys/ec384_private.pem");
pub(crate) const EC384_PUBLIC: &str = include_str!("../keys/ec384_public.pem");
pub(crate) const EC521_PRIVATE: &str = include_str!("../keys/ec521_private.pem");
pub(crate) const EC521_PUBLIC: &str = include_str!("../keys/ec521_public.pem");
pub(crate) const ED_PRIVATE: &str = include_str!("../keys/ed25519_private.pem");
pub(crate) const ED_PUBLIC: &str = include_str!("../keys/ed25519_public.pem");

/// Every algorithm, with what signs and what verifies.
pub(crate) fn algorithms() -> Vec<(Algorithm, EncodingKey, KeyMaterial)> {
    use Algorithm::*;
    let mut all = Vec::new();
    for algorithm in [HS256, HS384, HS512] {
        all.push((algorithm, EncodingKey::from_secret(SECRET), secret(SECRET)));
    }
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512] {
        let key = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
        all.push((algorithm, key, pem(RSA_PUBLIC)));
    }
    for (algorithm, private, public) in [
        (ES256, EC256_PRIVATE, EC256_PUBLIC),
        (ES384, EC384_PRIVATE, EC384_PUBLIC),
        (ES512, EC521_PRIVATE, EC521_PUBLIC),
    ] {
        let key = EncodingKey::from_ec_pem(private.as_bytes()).unwrap();
        all.push((algorithm, key, pem(public)));
    }
    let key = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
    all.push((EdDSA, key, pem(ED_PUBLIC)));
    all
}

pub(crate) fn secret(bytes: &[u8]) -> KeyMaterial {
    KeyMaterial::HmacSecret(bytes.to_vec().into())
}

pub(crate) fn pem(text: &str) -> KeyMaterial {
    KeyMaterial::PublicKeyPem(text.to_owned())
}

pub(crate) fn key(kid: Option<&str>, algorithms: &[Algorithm], material: KeyMaterial) -> KeyConfig {
    KeyConfig { kid: kid.map(str::to_owned), algorithms: algorithms.to_vec(), material }
}

pub(crate) fn verifier(keys: Vec<KeyConfig>) -> JwtVerifier {
    JwtVerifier::build(Config { keys, ..Config::default() }).unwrap()
}

/// Accepts HS256 with [`SECRET`].
pub(crate) fn hs256() -> JwtVerifier {
    verifier(vec![key(None, &[Algorithm::HS256], secret(SECRET))])
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs header and claims exactly as they are written.
pub(crate) fn sign(
    algorithm: Algorithm,
    key: &EncodingKey,
    header: impl AsRef<[u8]>,
    claims: impl AsRef<[u8]>,
) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let signature = match algorithm.to_string().parse() {
        Ok(algorithm) => jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap(),
        Err(_) => sign_es512(message.as_bytes()),
    };
    format!("{message}.{signature}")
}

/// The library can't.
fn sign_es512(message: &[u8]) -> String {
    let key = der(EC521_PRIVATE);
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, &key).unwrap();
    b64(key.sign(&SystemRandom::new(), message).unwrap())
}

/// What a PEM block holds.
pub(crate) fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).unwrap()
}

/// An HS256 token with this header.
pub(crate) fn with_header(header: impl AsRef<[u8]>) -> String {
    sign(Algorithm::HS256, &EncodingKey::from_secret(SECRET), header, CLAIMS)
}

/// An HS256 token with these claims.
pub(crate) fn with_claims(claims: impl AsRef<[u8]>) -> String {
    let key = EncodingKey::from_secret(SECRET);
    sign(Algorithm::HS256, &key, r#"{"alg":"HS256","typ":"JWT"}"#, claims)
}

/// An HS256 token with `sub`, `exp` and these members, written with a leading comma each.
pub(crate) fn with_more(members: &str) -> String {
    with_claims(format!(r#"{{"sub":"u1","exp":1800000600{members}}}"#))
}

pub(crate) fn at(seconds: i64) -> Wall {
    Wall::from_millis(seconds * 1000)
}

pub(crate) fn check_at(
    verifier: &JwtVerifier,
    token: &str,
    now: Wall,
) -> Result<Principal, TokenError> {
    let mut answer = pin!(verifier.verify(token, now));
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("verifying waits for nothing"),
    }
}

pub(crate) fn check(verifier: &JwtVerifier, token: &str) -> Result<Principal, TokenError> {
    check_at(verifier, token, at(NOW))
}
