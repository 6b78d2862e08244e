//! From settings to what tokens are verified and signed with.
//!
//! The same check runs at loading and at the start, so that `config check` and a start agree.

use std::time::Duration;

use auth_jwt::{Algorithm, JwtVerifier, KeyConfig, KeyFileError, KeyMaterial};
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
        ..auth_jwt::Config::default()
    })
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
