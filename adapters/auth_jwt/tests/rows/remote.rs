//! Keys that a provider publishes: who gets in while it is well, away, slow, hostile, or turning
//! its keys over. Time is virtual.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use application::ports::token_verifier::{TokenError, TokenVerifier};
use application::ports::{KeySource, KeySourceError};
use async_trait::async_trait;
use auth_jwt::{
    Algorithm, Config, JwtVerifier, KeyUsage, REFRESH_INTERVAL, RETRY_MAX, RemoteKeys,
    UNKNOWN_KID_INTERVAL,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::principal::Principal;
use jsonwebtoken::EncodingKey;
use tokio::sync::Semaphore;

use crate::support::{
    CLAIMS, EC256_PRIVATE, EC256_PUBLIC, ED_PRIVATE, ED_PUBLIC, NOW, SECRET, at, b64, key, secret,
    sign,
};

const MAX_AGE: Duration = Duration::from_secs(3_600);

/// The last bytes of a public key's DER, which are the key itself for these two kinds.
fn raw(pem: &str, n_bytes: usize) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body).unwrap();
    der[der.len() - n_bytes..].to_vec()
}

fn ec(kid: &str, more: &str) -> String {
    let point = raw(EC256_PUBLIC, 64);
    let (x, y) = (b64(&point[..32]), b64(&point[32..]));
    format!(r#"{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{x}","y":"{y}"{more}}}"#)
}

fn ed(kid: &str) -> String {
    let x = b64(raw(ED_PUBLIC, 32));
    format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}","alg":"EdDSA"}}"#)
}

fn set(keys: &[String]) -> String {
    format!(r#"{{"keys":[{}],"issued":1}}"#, keys.join(","))
}

fn ec_token(kid: &str) -> String {
    let private = EncodingKey::from_ec_pem(EC256_PRIVATE.as_bytes()).unwrap();
    sign(Algorithm::ES256, &private, format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#), CLAIMS)
}

fn ed_token(kid: &str) -> String {
    let private = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
    sign(Algorithm::EdDSA, &private, format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#), CLAIMS)
}

/// A provider whose answer a test changes.
struct Provider {
    answer: Mutex<Result<String, KeySourceError>>,
    fetches: AtomicUsize,
    /// Without a permit an answer waits.
    open: Semaphore,
}

impl Provider {
    fn publishing(text: String) -> Arc<Self> {
        let (answer, fetches) = (Mutex::new(Ok(text)), AtomicUsize::new(0));
        Arc::new(Self { answer, fetches, open: Semaphore::new(1) })
    }

    fn says(&self, answer: Result<String, KeySourceError>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl KeySource for Provider {
    async fn fetch(&self) -> Result<String, KeySourceError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let _open = self.open.acquire().await.unwrap();
        self.answer.lock().unwrap().clone()
    }
}

/// A verifier that fetches from the provider.
fn starting(provider: &Arc<Provider>, algorithms: &[Algorithm]) -> Arc<JwtVerifier> {
    let source = Arc::clone(provider) as _;
    let remote = RemoteKeys::new(source, algorithms.to_vec(), MAX_AGE);
    let running = Arc::clone(&remote);
    tokio::spawn(async move { running.run().await });
    // Two tokens of one test must not answer for each other.
    let config = Config { cache_entries_max: 0, ..Config::default() };
    Arc::new(JwtVerifier::build(config).unwrap().with_remote(remote))
}

/// Lets time pass by the second, and whatever is due in between happen.
async fn pass(time: Duration) {
    for _ in 0..time.as_secs() {
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

async fn check(verifier: &JwtVerifier, token: &str) -> Result<Principal, TokenError> {
    verifier.verify(token, at(NOW)).await
}

fn es256() -> [Algorithm; 1] {
    [Algorithm::ES256]
}

#[tokio::test(start_paused = true)]
async fn the_first_token_waits_for_the_first_keys() {
    let provider = Provider::publishing(set(&[ec("a", "")]));
    let verifier = starting(&provider, &es256());
    assert!(check(&verifier, &ec_token("a")).await.is_ok());
    assert_eq!(check(&verifier, &ec_token("b")).await, Err(TokenError::UnknownKey));
    assert_eq!(provider.fetches(), 1);
}

/// A49
#[tokio::test(start_paused = true)]
async fn ten_thousand_unknown_key_ids_cause_a_handful_of_fetches() {
    let provider = Provider::publishing(set(&[ec("a", "")]));
    let verifier = starting(&provider, &es256());
    check(&verifier, &ec_token("a")).await.unwrap();
    pass(UNKNOWN_KID_INTERVAL).await;
    let mut asked = Vec::new();
    for n in 0..10_000 {
        let verifier = Arc::clone(&verifier);
        asked.push(tokio::spawn(async move { check(&verifier, &ec_token(&n.to_string())).await }));
    }
    for answer in asked {
        assert_eq!(answer.await.unwrap(), Err(TokenError::UnknownKey));
    }
    assert!(provider.fetches() <= 2, "{} fetches", provider.fetches());
}

#[tokio::test(start_paused = true)]
async fn while_one_fetch_is_under_way_all_who_may_be_helped_by_it_wait_for_that_one() {
    let provider = Provider::publishing(set(&[ec("a", "")]));
    let held = provider.open.acquire().await.unwrap();
    let verifier = starting(&provider, &es256());
    let mut asked = Vec::new();
    for _ in 0..100 {
        let verifier = Arc::clone(&verifier);
        asked.push(tokio::spawn(async move { check(&verifier, &ec_token("a")).await }));
    }
    tokio::task::yield_now().await;
    drop(held);
    for answer in asked {
        assert!(answer.await.unwrap().is_ok());
    }
    assert_eq!(provider.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_found_by_its_first_token_and_one_that_is_gone_counts_no_more() {
    let provider = Provider::publishing(set(&[ec("a", "")]));
    let verifier = starting(&provider, &es256());
    check(&verifier, &ec_token("a")).await.unwrap();
    provider.says(Ok(set(&[ec("b", "")])));
    // At first nobody is believed that there is a new one.
    assert_eq!(check(&verifier, &ec_token("b")).await, Err(TokenError::UnknownKey));
    pass(UNKNOWN_KID_INTERVAL).await;
    assert!(check(&verifier, &ec_token("b")).await.is_ok());
    assert_eq!(check(&verifier, &ec_token("a")).await, Err(TokenError::UnknownKey));
}

/// A22
#[tokio::test(start_paused = true)]
async fn while_the_provider_is_away_known_keys_count_until_their_age_and_unknown_ones_never() {
    let provider = Provider::publishing(set(&[ec("a", "")]));
    let verifier = starting(&provider, &es256());
    check(&verifier, &ec_token("a")).await.unwrap();
    let hostile = ["", "<html>", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[1]}"#];
    let away = [
        Err(KeySourceError::Timeout),
        Err(KeySourceError::Status(503)),
        Err(KeySourceError::Status(302)),
        Err(KeySourceError::TooLarge { bytes_max: 1 }),
    ];
    let hostile = hostile.map(|text| Ok(text.to_owned()));
    for answer in away.into_iter().chain(hostile) {
        provider.says(answer);
        pass(REFRESH_INTERVAL).await;
        assert!(check(&verifier, &ec_token("a")).await.is_ok());
        assert_eq!(check(&verifier, &ec_token("b")).await, Err(TokenError::KeysUnavailable));
    }
    pass(MAX_AGE).await;
    assert_eq!(check(&verifier, &ec_token("a")).await, Err(TokenError::KeysUnavailable));
    // Coming back is noticed without anybody's help.
    provider.says(Ok(set(&[ec("a", "")])));
    pass(RETRY_MAX).await;
    assert!(check(&verifier, &ec_token("a")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn operators_see_how_fetches_end_and_for_how_long_the_keys_last() {
    let provider = Provider::publishing(set(&[ec("a", ""), ec("b", "")]));
    let remote = RemoteKeys::new(Arc::clone(&provider) as _, es256().to_vec(), MAX_AGE);
    assert_eq!(remote.usage(), KeyUsage::default());
    assert!(remote.fetch().await);
    let usage = KeyUsage { fetches: 1, failures: 0, keys: 2, left: MAX_AGE };
    assert_eq!(remote.usage(), usage);
    provider.says(Err(KeySourceError::Timeout));
    tokio::time::advance(Duration::from_secs(100)).await;
    assert!(!remote.fetch().await);
    let left = MAX_AGE - Duration::from_secs(100);
    assert_eq!(remote.usage(), KeyUsage { fetches: 2, failures: 1, left, ..usage });
    tokio::time::advance(MAX_AGE).await;
    let over = KeyUsage { fetches: 2, failures: 1, ..KeyUsage::default() };
    assert_eq!(remote.usage(), over);
}

/// A22
#[tokio::test(start_paused = true)]
async fn a_provider_that_is_away_is_asked_less_and_less_often() {
    let provider = Provider::publishing(String::new());
    let verifier = starting(&provider, &es256());
    pass(Duration::from_secs(3_600)).await;
    let fetches = provider.fetches();
    assert!((100..=130).contains(&fetches), "{fetches}");
    for n in 0..1_000 {
        let unknown = check(&verifier, &ec_token(&n.to_string())).await;
        assert_eq!(unknown, Err(TokenError::KeysUnavailable));
    }
    assert!(provider.fetches() <= fetches + 1);
}

#[tokio::test(start_paused = true)]
async fn the_configuration_says_which_algorithms_count_and_a_published_key_can_only_narrow_them() {
    let keys = [
        ec("plain", ""),
        ec("named", r#","alg":"ES256","use":"sig","issuer":"x""#),
        ec("other", r#","alg":"ES384""#),
        ec("odd", r#","alg":"RSA-OAEP""#),
        ec("enc", r#","use":"enc""#),
        ec("private", r#","d":"AAAA""#),
        ed("ed"),
        format!(r#"{{"kty":"oct","kid":"oct","alg":"HS256","k":"{}"}}"#, b64(SECRET)),
    ];
    let provider = Provider::publishing(set(&keys));
    let verifier = starting(&provider, &es256());
    for good in ["plain", "named"] {
        assert!(check(&verifier, &ec_token(good)).await.is_ok(), "{good}");
    }
    for bad in ["other", "odd", "enc", "private"] {
        let answer = check(&verifier, &ec_token(bad)).await;
        assert_eq!(answer, Err(TokenError::UnknownKey), "{bad}");
    }
    assert_eq!(check(&verifier, &ed_token("ed")).await, Err(TokenError::UnknownKey));
    // A secret that is published is nobody's.
    let private = EncodingKey::from_secret(SECRET);
    let forged = sign(Algorithm::HS256, &private, r#"{"alg":"HS256","kid":"oct"}"#, CLAIMS);
    assert_eq!(check(&verifier, &forged).await, Err(TokenError::UnknownKey));
    let both = starting(&provider, &[Algorithm::ES256, Algorithm::EdDSA]);
    assert!(check(&both, &ed_token("ed")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_configured_key_id_is_never_looked_for_elsewhere() {
    let provider = Provider::publishing(set(&[ec("mine", ""), ec("theirs", "")]));
    let remote = RemoteKeys::new(Arc::clone(&provider) as _, es256().to_vec(), MAX_AGE);
    let running = Arc::clone(&remote);
    tokio::spawn(async move { running.run().await });
    let keys = vec![key(Some("mine"), &[Algorithm::HS256], secret(SECRET))];
    let verifier = JwtVerifier::build(Config { keys, ..Config::default() }).unwrap();
    let verifier = verifier.with_remote(remote);
    assert_eq!(check(&verifier, &ec_token("mine")).await, Err(TokenError::UnknownKey));
    assert!(check(&verifier, &ec_token("theirs")).await.is_ok());
    let private = EncodingKey::from_secret(SECRET);
    let own = sign(Algorithm::HS256, &private, r#"{"alg":"HS256","kid":"mine"}"#, CLAIMS);
    assert!(check(&verifier, &own).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_remembered_token_counts_no_longer_than_the_key_behind_it() {
    let provider = Provider::publishing(set(&[ec("a", ""), ec("b", "")]));
    let remote = RemoteKeys::new(Arc::clone(&provider) as _, es256().to_vec(), MAX_AGE);
    let running = Arc::clone(&remote);
    tokio::spawn(async move { running.run().await });
    let config = Config { cache_life: Duration::from_secs(100_000), ..Config::default() };
    let verifier = JwtVerifier::build(config).unwrap().with_remote(remote);
    for _ in 0..2 {
        check(&verifier, &ec_token("a")).await.unwrap();
    }
    provider.says(Ok(set(&[ec("b", "")])));
    pass(REFRESH_INTERVAL + Duration::from_secs(1)).await;
    assert_eq!(check(&verifier, &ec_token("a")).await, Err(TokenError::UnknownKey));
    check(&verifier, &ec_token("b")).await.unwrap();
    provider.says(Err(KeySourceError::Timeout));
    pass(MAX_AGE + REFRESH_INTERVAL).await;
    assert_eq!(check(&verifier, &ec_token("b")).await, Err(TokenError::KeysUnavailable));
}
