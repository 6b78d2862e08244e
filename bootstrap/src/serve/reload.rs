//! Reads the settings again on SIGHUP and, only if all of them are right, puts those that may
//! change into the server that runs.
//!
//! A mistake leaves everything as it was and is logged; nothing here may end the process or a
//! connection.

use std::sync::Arc;

use auth_jwt::{JwtVerifier, RemoteKeys};
use gateway_axum::Handle;
use secrecy::ExposeSecret;
use tokio::sync::Notify;

use super::build;
use crate::descriptors::Descriptors;
use crate::log::LogFilter;
use crate::sd_notify::ServiceManager;
use crate::settings::reload::{Reload, changed, combined, of};
use crate::settings::secrets::{TokenSecret, token_secret};
use crate::settings::tokens::{chain, verifier_config};
use crate::settings::{Effective, Given, Loaded, Settings, checks, load};

/// What a reload needs: where settings come from, what counts now, and the parts that change.
pub(super) struct Reloader {
    /// The same files, environment and flags as at the start.
    pub(super) given: Given,
    /// What counts now.
    pub(super) settings: Settings,
    /// As the server was started: what can't be reloaded is compared with it.
    pub(super) at_start: Effective,
    /// As it was read last.
    pub(super) last: Effective,
    pub(super) secret: TokenSecret,
    /// Published keys, which go on being fetched.
    pub(super) remote_keys: Option<Arc<RemoteKeys>>,
    pub(super) descriptors: Descriptors,
    pub(super) gateway: Handle,
    pub(super) log_filter: LogFilter,
    pub(super) manager: Arc<ServiceManager>,
    /// How many reloads were refused since the start.
    pub(super) n_refused: u64,
}

impl Reloader {
    /// Reloads each time that it is told to.
    pub(super) async fn run(mut self, told: Arc<Notify>) {
        loop {
            told.notified().await;
            self.manager.reloading();
            let status = match self.reload().await {
                Ok(()) => "serving; the settings were reloaded",
                Err(faults) => {
                    self.n_refused += 1;
                    for fault in faults {
                        tracing::error!(fault, "a setting is wrong");
                    }
                    let refused = self.n_refused;
                    tracing::error!(
                        refused,
                        "the settings were not reloaded; those from before still count"
                    );
                    "serving; the last reload was refused, see the log"
                }
            };
            self.manager.ready(status);
        }
    }

    async fn reload(&mut self) -> Result<(), Vec<String>> {
        let given = self.given.clone();
        // Files may lie on a disk that takes its time.
        let loaded = tokio::task::spawn_blocking(move || load(&given)).await;
        let loaded = loaded.map_err(|error| vec![chain(&error)])?;
        let loaded = loaded.map_err(|error| lines(&error.problems))?;
        let settings = combined(&self.settings, &loaded.settings);
        let problems = checks::find(&settings, &loaded.effective);
        if !problems.is_empty() {
            return Err(lines(&problems));
        }
        let secret = self.secret_for(&settings).map_err(|error| vec![chain(&error)])?;
        let config = verifier_config(&settings, secret.secret());
        let config = config.map_err(|error| vec![chain(&error)])?;
        let verifier = JwtVerifier::build(config).map_err(|error| vec![chain(&error)])?;
        let verifier = match &self.remote_keys {
            Some(keys) => verifier.with_remote(Arc::clone(keys)),
            None => verifier,
        };
        self.log_filter.set(&settings.log.filter).map_err(|error| vec![error])?;
        // From here on nothing can fail.
        self.gateway.node().adopt(build::rules(&settings), Arc::new(verifier));
        self.gateway.replace_config(build::gateway(&settings, self.descriptors));
        self.tell(&loaded, &settings);
        (self.settings, self.secret, self.last) = (settings, secret, loaded.effective);
        Ok(())
    }

    /// A secret that nobody can know needs no successor: tokens of nobody can't be invalid.
    fn secret_for(&self, settings: &Settings) -> std::io::Result<TokenSecret> {
        let next = token_secret(settings)?;
        match (&self.secret, &next) {
            (TokenSecret::OfThisProcess(..), TokenSecret::OfThisProcess(..)) => {
                Ok(self.secret.clone())
            }
            _ => Ok(next),
        }
    }

    fn tell(&self, loaded: &Loaded, settings: &Settings) {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let mut keys = changed(&self.last, &loaded.effective);
        keys.retain(|key| of(key) != Reload::NextStart);
        keys.extend(secrets_that_changed(&self.settings, settings));
        keys.sort_unstable();
        keys.dedup();
        for key in &keys {
            let value = loaded.effective.get(key).map_or("not set", |shown| &shown.value);
            tracing::info!(key, value, "a setting changed");
        }
        for key in changed(&self.at_start, &loaded.effective) {
            if of(&key) == Reload::NextStart {
                tracing::warn!("{key} changed; takes effect at the next start");
            }
        }
        tracing::info!(changed = keys.len(), "the settings were reloaded");
    }
}

fn lines(problems: &[crate::settings::Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Secrets show as a word, so that a change of theirs is seen only here.
fn secrets_that_changed(before: &Settings, after: &Settings) -> Vec<String> {
    let mut keys = Vec::new();
    let text = |secret: &Option<secrecy::SecretString>| {
        secret.as_ref().map(|secret| secret.expose_secret().to_owned())
    };
    if text(&before.auth.hmac_secret) != text(&after.auth.hmac_secret) {
        keys.push("auth.hmac_secret".to_owned());
    }
    let names = before.api.keys.keys().chain(after.api.keys.keys());
    for name in names {
        let key = |settings: &Settings| settings.api.keys.get(name).and_then(|key| text(&key.key));
        if key(before) != key(after) {
            keys.push(format!("api.keys.{name}.key"));
        }
    }
    keys
}
