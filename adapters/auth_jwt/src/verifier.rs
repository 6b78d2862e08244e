//! The port's implementation: form, key, signature, claims, in that order.
//!
//! No claim is looked at before the signature fits, and whatever is in doubt is an error.

use std::sync::Arc;

use application::ports::token_verifier::{TokenError, TokenHint, TokenVerifier};
use async_trait::async_trait;
use domain::principal::Principal;
use domain::time::Wall;

use crate::cache::{CacheUse, TokenCache};
use crate::claims::{Claims, Expected};
use crate::compact::{Compact, Header, decode_text};
use crate::config::{BuildError, Config, LEEWAY_MAX, TOKEN_BYTES_LIMIT};
use crate::keys::KeySet;
use crate::remote::RemoteKeys;

/// Verifies JSON Web Tokens with configured keys, and with keys that a provider publishes.
#[derive(Debug)]
pub struct JwtVerifier {
    pub(crate) keys: Arc<KeySet>,
    remote: Option<Arc<RemoteKeys>>,
    expected: Expected,
    token_bytes_max: usize,
    cache: TokenCache,
    cache_use: Arc<CacheUse>,
}

impl JwtVerifier {
    /// Checks the configuration and takes it.
    ///
    /// # Errors
    /// [`BuildError`] names the first setting or key that cannot be used. No keys at all is not
    /// an error: such a verifier refuses every token.
    pub fn build(config: Config) -> Result<Self, BuildError> {
        let keys = KeySet::compile(&config.keys)?;
        if config.leeway > LEEWAY_MAX {
            return Err(BuildError::Leeway(config.leeway));
        }
        if !(1..=TOKEN_BYTES_LIMIT).contains(&config.token_bytes_max) {
            return Err(BuildError::TokenBytesMax(config.token_bytes_max));
        }
        for (what, value) in [("issuer", &config.issuer), ("audience", &config.audience)] {
            if value.as_ref().is_some_and(String::is_empty) {
                return Err(BuildError::Empty(what));
            }
        }
        let expected =
            Expected { issuer: config.issuer, audience: config.audience, leeway: config.leeway };
        let cache = TokenCache::new(config.cache_entries_max, config.cache_life);
        let token_bytes_max = config.token_bytes_max;
        let keys = Arc::new(keys);
        let cache_use = Arc::default();
        Ok(Self { keys, remote: None, expected, token_bytes_max, cache, cache_use })
    }

    /// The same with the keys that a provider publishes beside the configured ones. A key id that
    /// is configured is never looked for there.
    #[must_use]
    pub fn with_remote(self, remote: Arc<RemoteKeys>) -> Self {
        Self { remote: Some(remote), ..self }
    }

    /// The same, and what its memory is good for is counted here.
    #[must_use]
    pub fn with_cache_use(self, cache_use: Arc<CacheUse>) -> Self {
        Self { cache_use, ..self }
    }

    pub(crate) async fn check(&self, token: &str, now: Wall) -> Result<Principal, TokenError> {
        if self.keys.is_empty() && self.remote.is_none() {
            return Err(TokenError::NoKeys);
        }
        if token.len() > self.token_bytes_max {
            return Err(TokenError::Malformed);
        }
        // HMAC costs no more than the look, so a verifier without other keys has no cache.
        let is_costly = self.remote.is_some() || self.keys.is_costly();
        let digest = if is_costly { self.cache.digest(token) } else { None };
        let leeway = self.expected.leeway;
        if let Some(digest) = &digest {
            if let Some(timed) = self.cache.find(digest, self.generation(), now) {
                self.cache_use.hits.add(1);
                return timed.check(leeway, now).cloned();
            }
            self.cache_use.misses.add(1);
        }
        let token = Compact::split(token)?;
        let header = Header::read(token.header)?;
        let (generation, is_costly) = self.check_signature(&header, token).await?;
        let payload = decode_text(token.payload)?;
        let timed = Claims::read(&payload, &self.expected)?.into_timed(&self.expected)?;
        timed.check(leeway, now)?;
        // One that counts once comes back for nothing but a refusal.
        match digest.filter(|_| is_costly && !timed.counts_once()) {
            None => Ok(timed.into_principal()),
            Some(digest) => {
                let timed = Arc::new(timed);
                self.cache.put(digest, Arc::clone(&timed), generation, now);
                timed.check(leeway, now).cloned()
            }
        }
    }

    /// Which remote keys count now.
    fn generation(&self) -> Option<u64> {
        self.remote.as_ref()?.current().map(|(_, generation)| generation)
    }

    /// Answers which remote keys it was, if any, and whether it was costly.
    async fn check_signature(
        &self,
        header: &Header,
        token: Compact<'_>,
    ) -> Result<(Option<u64>, bool), TokenError> {
        let (keys, generation) = self.keys_for(header).await?;
        let key = keys.choose(header)?;
        key.verify(header, token)?;
        Ok((generation, key.is_costly()))
    }

    /// The keys among which to look for the header's, and which remote ones they are, if they are.
    pub(crate) async fn keys_for(
        &self,
        header: &Header,
    ) -> Result<(Arc<KeySet>, Option<u64>), TokenError> {
        let is_configured = header.kid.as_deref().is_some_and(|kid| self.keys.has(kid));
        match &self.remote {
            Some(remote) if !is_configured && self.keys.choose(header).is_err() => {
                let (keys, generation) = remote.keys_for(header).await?;
                Ok((keys, Some(generation)))
            }
            _ => Ok((Arc::clone(&self.keys), None)),
        }
    }
}

#[async_trait]
impl TokenVerifier for JwtVerifier {
    async fn verify(&self, token: &str, now: Wall) -> Result<Principal, TokenError> {
        self.check(token, now).await
    }

    fn describe(&self, token: &str) -> TokenHint {
        if token.len() > self.token_bytes_max {
            return TokenHint::default();
        }
        let header = Compact::split(token).and_then(|token| Header::read(token.header));
        header.map_or_else(|_| TokenHint::default(), Header::into_hint)
    }
}
