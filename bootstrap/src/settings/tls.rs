//! The certificate and its key as settings: whether both are there, can be used, and still count.
//!
//! Here are the same looks as at a start, so that `config check` finds what a start would.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tls_rustls::{Identity, LoadError, Part, Validity};

use super::Profile;
use super::effective::Effective;
use super::error::Problem;
use super::secrets::is_world_readable;
use super::tokens::chain;
use super::tree::Settings;

const CERT: &str = "server.tls.cert_file";
const KEY: &str = "server.tls.key_file";

/// Reads the certificate and its key; none where TLS is not spoken. It blocks.
///
/// # Errors
/// [`LoadError`] names the file.
pub fn identity(settings: &Settings) -> Result<Option<Identity>, LoadError> {
    let files = settings.server.tls.files();
    files.map(|(certificate, key)| Identity::load(certificate, key)).transpose()
}

/// What is wrong with them, and what is only worth a warning.
#[must_use]
pub fn check(settings: &Settings, effective: &Effective) -> (Vec<Problem>, Option<String>) {
    let tls = &settings.server.tls;
    for (missing, present, key, other) in
        [(&tls.key_file, &tls.cert_file, KEY, CERT), (&tls.cert_file, &tls.key_file, CERT, KEY)]
    {
        if missing.is_none() && present.is_some() {
            let reason = format!("must be set, since {}", effective.mention(other));
            return (vec![effective.problem(key, &reason)], None);
        }
    }
    if let Some(key) = tls.key_file.as_deref().filter(|path| is_world_readable(path)) {
        let reason =
            format!("{} may be read by every user of the machine; chmod o-r it", key.display());
        let problem = effective.problem(KEY, &reason);
        if settings.profile == Profile::Production {
            return (vec![problem], None);
        }
    }
    match identity(settings) {
        Ok(identity) => (Vec::new(), identity.as_ref().and_then(warning)),
        Err(error) => {
            let at = match error.part() {
                Part::Certificate => CERT,
                Part::Key => KEY,
            };
            (vec![effective.problem(at, &chain(&error))], None)
        }
    }
}

/// What is to be said about a certificate that can be used all the same.
#[must_use]
pub fn warning(identity: &Identity) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    match identity.validity(now) {
        Validity::Valid => None,
        Validity::Expired => Some(format!(
            "the certificate in {CERT} has expired: clients refuse it; renew it, and it is taken \
             without a restart"
        )),
        Validity::NotYet => Some(format!(
            "the certificate in {CERT} is not valid yet: clients refuse it until then; is this \
             machine's clock right?"
        )),
    }
}
