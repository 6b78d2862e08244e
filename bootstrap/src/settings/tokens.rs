//! From settings to what tokens are verified and signed with.
//!
//! The same check runs at loading and at the start, so that `config check` and a start agree.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use auth_jwt::{
    Algorithm, CacheUse, JwtVerifier, KeyConfig, KeyFileError, KeyMaterial, RemoteKeys,
};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::effective::Effective;
use super::error::Problem;
use super::tree::Settings;

/// What the verifier of a start needs: the settings, and the secret that
/// [`token_secret`](super::secrets::token_secret) found for it, if any.
///
/// # Errors
/// The keys file, which loading has read already, cannot be used any more.
pub fn verifier_config(
    settings: &Settings,
    secret: Option<&SecretString>,
) -> Result<auth_jwt::Config, KeyFileError> {
    let auth = &settings.auth;
    let mut keys = Vec::new();
    if let Some(secret) = secret {
        // The names are those that loading lets through, which the library has all.
        let algorithms = auth.algorithms.iter().filter_map(|name| name.parse::<Algorithm>().ok());
        let material = KeyMaterial::HmacSecret(bytes(secret));
        keys.push(KeyConfig { kid: None, algorithms: algorithms.collect(), material });
    }
    if let Some(path) = &auth.keys_file {
        keys.extend(auth_jwt::load_keys(path)?);
    }
    Ok(auth_jwt::Config {
        keys,
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        leeway: Duration::from_millis(auth.leeway_ms),
        cache_entries_max: auth.token_cache_max,
        cache_life: Duration::from_millis(auth.token_cache_age_ms),
        ..auth_jwt::Config::default()
    })
}

/// Knows the keys of `auth.keys_file` again without keeping them: by a hash under a key that this
/// process drew, so that it tells nobody anything.
#[derive(Clone, Debug, Default)]
pub struct SeenKeys {
    state: RandomState,
    hash: Option<u64>,
}

impl SeenKeys {
    /// These keys, to be compared with those before. `config` is what [`verifier_config`] made
    /// with the same `secret`.
    #[must_use]
    pub fn next(&self, config: &auth_jwt::Config, secret: Option<&SecretString>) -> Self {
        // The secret's key comes first; the others are the file's.
        let of_file = config.keys.get(usize::from(secret.is_some())..);
        Self { state: self.state.clone(), hash: of_file.map(|keys| self.state.hash_one(keys)) }
    }

    /// Whether these are the same keys in the same order. Both must come from one value.
    #[must_use]
    pub fn are(&self, others: &Self) -> bool {
        self.hash == others.hash
    }
}

/// What outlives the verifier that a reload replaces.
#[derive(Clone, Debug, Default)]
pub struct Lasting {
    /// Published keys, which go on being fetched; whoever asks for them must run them.
    pub remote_keys: Option<Arc<RemoteKeys>>,
    /// What the memory of verified tokens is good for.
    pub cache_use: Arc<CacheUse>,
}

impl Lasting {
    /// Puts it behind a verifier.
    #[must_use]
    pub fn behind(&self, verifier: JwtVerifier) -> JwtVerifier {
        let verifier = verifier.with_cache_use(Arc::clone(&self.cache_use));
        match &self.remote_keys {
            Some(keys) => verifier.with_remote(Arc::clone(keys)),
            None => verifier,
        }
    }
}

/// The verifier of a start, and what will be behind its successors.
///
/// # Errors
/// What a start would say; loading has checked it before.
#[cfg(feature = "jwks")]
pub fn verifier(
    settings: &Settings,
    secret: Option<&SecretString>,
) -> Result<(JwtVerifier, Lasting), String> {
    let config = verifier_config(settings, secret).map_err(|error| chain(&error))?;
    let verifier = JwtVerifier::build(config).map_err(|error| chain(&error))?;
    let auth = &settings.auth;
    let Some(url) = &auth.jwks_url else {
        let lasting = Lasting::default();
        return Ok((lasting.behind(verifier), lasting));
    };
    let source = jwks_hyper::HttpKeySource::build(url);
    let source = source.map_err(|error| format!("auth.jwks_url: {}", chain(&error)))?;
    // The names are those that loading lets through, which the library has all.
    let algorithms = auth.jwks_algorithms.iter().filter_map(|name| name.parse().ok()).collect();
    let max_age = Duration::from_millis(auth.jwks_max_age_ms);
    let remote = RemoteKeys::new(Arc::new(source), algorithms, max_age);
    let lasting = Lasting { remote_keys: Some(remote), ..Lasting::default() };
    Ok((lasting.behind(verifier), lasting))
}

/// The same in a build that fetches nothing.
///
/// # Errors
/// What a start would say; loading has checked it before.
#[cfg(not(feature = "jwks"))]
pub fn verifier(
    settings: &Settings,
    secret: Option<&SecretString>,
) -> Result<(JwtVerifier, Lasting), String> {
    if settings.auth.jwks_url.is_some() {
        return Err(
            "auth.jwks_url is set, but this build fetches no keys (feature jwks)".to_owned()
        );
    }
    let config = verifier_config(settings, secret).map_err(|error| chain(&error))?;
    let verifier = JwtVerifier::build(config).map_err(|error| chain(&error))?;
    let lasting = Lasting::default();
    Ok((lasting.behind(verifier), lasting))
}

/// The bytes of a secret, as the adapter takes them.
#[must_use]
pub fn bytes(secret: &SecretString) -> SecretSlice<u8> {
    SecretSlice::from(secret.expose_secret().as_bytes().to_vec())
}

/// Whether a start with the configured keys would get a verifier.
#[must_use]
pub fn check(settings: &Settings, effective: &Effective) -> Vec<Problem> {
    let auth = &settings.auth;
    #[cfg(feature = "jwks")]
    if let Some(url) = &auth.jwks_url
        && let Err(error) = jwks_hyper::check_url(url)
    {
        return vec![effective.problem("auth.jwks_url", &chain(&error))];
    }
    if auth.keys_file.is_none() && auth.hmac_secret.is_none() {
        return Vec::new();
    }
    let key = if auth.keys_file.is_some() { "auth.keys_file" } else { "auth.hmac_secret" };
    let fault = match verifier_config(settings, auth.hmac_secret.as_ref()) {
        Ok(config) => JwtVerifier::build(config).err().map(|error| chain(&error)),
        Err(error) => Some(chain(&error)),
    };
    fault.map(|fault| effective.problem(key, &fault)).into_iter().collect()
}

/// An error with its causes, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::set;
    use super::*;

    const ONE: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const OTHER: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

    #[test]
    fn other_keys_in_the_file_are_seen_and_another_hmac_secret_is_none_of_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |kid: &str, secret: &str| {
            let text =
                format!(r#"{{"keys":[{{"kid":"{kid}","alg":["HS256"],"secret":"{secret}"}}]}}"#);
            std::fs::write(file.path(), text).unwrap();
        };
        let seen = |before: &SeenKeys, secret: &str| {
            let pairs =
                [("auth.keys_file", file.path().to_str().unwrap()), ("auth.hmac_secret", secret)];
            let settings = set(&pairs).unwrap().settings;
            let secret = settings.auth.hmac_secret.as_ref();
            before.next(&verifier_config(&settings, secret).unwrap(), secret)
        };
        write("a", ONE);
        let first = seen(&SeenKeys::default(), ONE);
        assert!(first.are(&seen(&first, ONE)));
        assert!(first.are(&seen(&first, OTHER)));
        write("a", OTHER);
        let second = seen(&first, ONE);
        assert!(!first.are(&second));
        write("b", OTHER);
        assert!(!second.are(&seen(&first, ONE)));
    }
}
