//! Reads the settings again on SIGHUP and, only if all of them are right, puts those that may
//! change into the server that runs.
//!
//! A mistake leaves everything as it was and is logged; nothing here may end the process or a
//! connection.

use std::sync::Arc;

use auth_jwt::JwtVerifier;
use gateway_axum::Handle;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, watch};

use super::build;
use super::certificates::Certificates;
use crate::descriptors::Descriptors;
use crate::log::LogFilter;
use crate::sd_notify::ServiceManager;
use crate::settings::reload::{Reload, changed, combined, of};
use crate::settings::secrets::{TokenSecret, token_secret};
use crate::settings::tokens::{Lasting, SeenKeys, chain, verifier_config};
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
    /// The keys of `auth.keys_file` as they were read last.
    pub(super) seen_keys: SeenKeys,
    /// What will be behind the next verifier, too.
    pub(super) lasting: Lasting,
    /// None where TLS is not spoken.
    pub(super) certificates: Option<Certificates>,
    pub(super) descriptors: Descriptors,
    pub(super) gateway: Handle,
    pub(super) log_filter: LogFilter,
    pub(super) manager: Arc<ServiceManager>,
    /// How many reloads were refused since the start.
    pub(super) n_refused: u64,
}

impl Reloader {
    /// Reloads each time that it is told to, until the server stops. Tells the manager both, so
    /// that nothing comes after the news of the end.
    pub(super) async fn run(mut self, told: Arc<Notify>, mut stopped: watch::Receiver<bool>) {
        let manager = Arc::clone(&self.manager);
        tokio::select! {
            biased;
            // That nobody is left who could say it means the end as well.
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = self.reload_forever(&told) => {}
        }
        manager.stopping("telling connections when to come back");
    }

    async fn reload_forever(&mut self, told: &Notify) {
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
        let (given, running) = (self.given.clone(), self.settings.clone());
        let (secret, seen_keys) = (self.secret.clone(), self.seen_keys.clone());
        let certificates = self.certificates.clone();
        // Files may lie on a disk that takes its time.
        let read = tokio::task::spawn_blocking(move || {
            let identity = certificates.map(|certificates| certificates.load()).transpose();
            let identity = identity.map_err(|fault| vec![fault])?;
            Ok::<_, Vec<String>>((read(&given, &running, &secret, &seen_keys)?, identity))
        });
        let (read, identity) = read.await.map_err(|error| vec![chain(&error)])??;
        let Read { loaded, settings, secret, seen_keys, verifier } = read;
        let verifier = self.lasting.behind(verifier);
        self.log_filter.set(&settings.log.filter).map_err(|error| vec![error])?;
        // From here on nothing can fail.
        let node = self.gateway.node();
        let rules = build::rules(&settings, &node.services().ports.clock);
        node.adopt(rules, Arc::new(verifier));
        self.gateway.replace_config(build::gateway(&settings, self.descriptors));
        if let (Some(certificates), Some(identity)) = (&self.certificates, identity) {
            certificates.show(identity);
        }
        self.tell(&loaded, &settings, &seen_keys);
        (self.settings, self.secret, self.last) = (settings, secret, loaded.effective);
        self.seen_keys = seen_keys;
        Ok(())
    }

    fn tell(&self, loaded: &Loaded, settings: &Settings, seen_keys: &SeenKeys) {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let mut keys = changed(&self.last, &loaded.effective);
        keys.retain(|key| of(key) != Reload::NextStart);
        keys.extend(secrets_that_changed(&self.settings, settings));
        let other_keys = !self.seen_keys.are(seen_keys);
        keys.extend(other_keys.then(|| KEYS_FILE.to_owned()));
        keys.sort_unstable();
        keys.dedup();
        for key in &keys {
            let value = loaded.effective.get(key).map_or("not set", |shown| &shown.value);
            let contents =
                if other_keys && key == KEYS_FILE { ", its keys are others" } else { "" };
            tracing::info!(key, value, "a setting changed{contents}");
        }
        for key in self.for_the_next_start(loaded) {
            tracing::warn!("{key} changed; takes effect at the next start");
        }
        tracing::info!(changed = keys.len(), "the settings were reloaded");
    }

    /// What is other than it was at the start and can't be reloaded.
    fn for_the_next_start(&self, loaded: &Loaded) -> Vec<String> {
        let mut keys = changed(&self.at_start, &loaded.effective);
        keys.retain(|key| of(key) == Reload::NextStart);
        // No reload has touched it, so what counts now is what counted at the start.
        let tickets = |settings: &Settings| exposed(settings.auth.ticket_secret.as_ref());
        if tickets(&self.settings) != tickets(&loaded.settings) {
            keys.push("auth.ticket_secret".to_owned());
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

const KEYS_FILE: &str = "auth.keys_file";

/// What a reload found, all of it right.
struct Read {
    loaded: Loaded,
    /// What counts from now on.
    settings: Settings,
    secret: TokenSecret,
    seen_keys: SeenKeys,
    verifier: JwtVerifier,
}

/// Everything that touches a file. It blocks.
fn read(
    given: &Given,
    running: &Settings,
    secret: &TokenSecret,
    seen_keys: &SeenKeys,
) -> Result<Read, Vec<String>> {
    let loaded = load(given).map_err(|error| lines(&error.problems))?;
    let settings = combined(running, &loaded.settings);
    let problems = checks::find(&settings, &loaded.effective);
    if !problems.is_empty() {
        return Err(lines(&problems));
    }
    let secret = successor(secret, &settings).map_err(|error| vec![chain(&error)])?;
    let config = verifier_config(&settings, secret.secret());
    let config = config.map_err(|error| vec![chain(&error)])?;
    let seen_keys = seen_keys.next(&config, secret.secret());
    let verifier = JwtVerifier::build(config).map_err(|error| vec![chain(&error)])?;
    Ok(Read { loaded, settings, secret, seen_keys, verifier })
}

/// A secret that nobody can know needs no successor: tokens of nobody can't be invalid.
fn successor(before: &TokenSecret, settings: &Settings) -> std::io::Result<TokenSecret> {
    let next = token_secret(settings)?;
    match (before, &next) {
        (TokenSecret::OfThisProcess(..), TokenSecret::OfThisProcess(..)) => Ok(before.clone()),
        _ => Ok(next),
    }
}

fn lines(problems: &[crate::settings::Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn exposed(secret: Option<&SecretString>) -> Option<String> {
    secret.map(|secret| secret.expose_secret().to_owned())
}

/// Secrets show as a word, so that a change of theirs is seen only here.
fn secrets_that_changed(before: &Settings, after: &Settings) -> Vec<String> {
    let mut keys = Vec::new();
    let token = |settings: &Settings| exposed(settings.auth.hmac_secret.as_ref());
    if token(before) != token(after) {
        keys.push("auth.hmac_secret".to_owned());
    }
    let names = before.api.keys.keys().chain(after.api.keys.keys());
    for name in names {
        let key = |settings: &Settings| {
            settings.api.keys.get(name).and_then(|key| exposed(key.key.as_ref()))
        };
        if key(before) != key(after) {
            keys.push(format!("api.keys.{name}.key"));
        }
    }
    keys
}
