//! The secrets that sign session tickets: configured, kept in the data directory, or made up.
//!
//! Unlike a token's secret nobody else needs one, so one is made up in every profile. No message
//! may ever hold one.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tickets_hmac::HmacTickets;

use super::effective::Effective;
use super::error::Problem;
use super::secrets::{kept_secret, made_up, weakness};
use super::tree::{Profile, Settings};

/// The name of the file in the data directory that keeps the secret when none is configured.
pub const TICKET_SECRET_FILE: &str = "ticket-secret";

/// The secrets that sign tickets, the first one the signer, and how they came about.
#[derive(Debug)]
pub enum TicketSecrets {
    /// They were configured.
    Configured(Vec<SecretString>),
    /// One is kept in this file.
    Kept(SecretString, PathBuf),
    /// One was made up and ends with this process, because of what the text says: whoever comes
    /// back after a restart needs a token.
    OfThisProcess(SecretString, String),
}

impl TicketSecrets {
    /// The secrets themselves.
    #[must_use]
    pub fn secrets(&self) -> &[SecretString] {
        match self {
            Self::Configured(secrets) => secrets,
            Self::Kept(secret, _) | Self::OfThisProcess(secret, _) => std::slice::from_ref(secret),
        }
    }
}

/// Finds the secrets.
///
/// # Errors
/// No randomness is to be had.
pub fn ticket_secrets(settings: &Settings) -> io::Result<TicketSecrets> {
    if let Some(text) = &settings.auth.ticket_secret {
        return Ok(TicketSecrets::Configured(split(text)));
    }
    let Some(dir) = &settings.server.data_dir else {
        let why = "there is no data directory".to_owned();
        return Ok(TicketSecrets::OfThisProcess(made_up()?, why));
    };
    let path = dir.join(TICKET_SECRET_FILE);
    match kept_secret(dir, TICKET_SECRET_FILE) {
        Ok(secret) => Ok(TicketSecrets::Kept(secret, path)),
        Err(error) => {
            let why = format!("{} cannot be used: {error}", path.display());
            Ok(TicketSecrets::OfThisProcess(made_up()?, why))
        }
    }
}

fn split(text: &SecretString) -> Vec<SecretString> {
    text.expose_secret().split_whitespace().map(SecretString::from).collect()
}

/// How long a ticket counts at most; zero gives out none and takes none.
#[must_use]
pub const fn lifetime(settings: &Settings) -> Duration {
    Duration::from_millis(settings.auth.ticket_lifetime_ms)
}

/// What tokens are judged by, for the tickets' keys: who has a ticket of a server that judges
/// otherwise, or of a profile that is less strict, needs a token here.
#[must_use]
pub fn judged_by(settings: &Settings) -> String {
    // No part holds a control character, and none is empty when it is set.
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let (issuer, audience) = (part(&settings.auth.issuer), part(&settings.auth.audience));
    format!("{}\n{issuer}\n{audience}", settings.profile.word())
}

/// What is wrong with the configured secrets, if anything.
pub(super) fn check(settings: &Settings, effective: &Effective) -> Option<Problem> {
    let text = settings.auth.ticket_secret.as_ref()?;
    let secrets = split(text);
    let fault = match HmacTickets::build(&secrets, &judged_by(settings), lifetime(settings)) {
        Err(error) => Some(error.to_string()),
        Ok(_) if settings.profile == Profile::Production => {
            secrets.iter().find_map(|secret| weakness(secret.expose_secret())).map(str::to_owned)
        }
        Ok(_) => None,
    };
    fault.map(|fault| effective.problem("auth.ticket_secret", &fault))
}

#[cfg(test)]
mod tests {
    use super::super::tests::set;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const ONE: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const OTHER: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

    fn shown(secrets: &TicketSecrets) -> Vec<&str> {
        secrets.secrets().iter().map(ExposeSecret::expose_secret).collect()
    }

    #[test]
    fn several_ticket_secrets_are_taken_in_their_order_from_the_setting_or_its_file() {
        let both = format!("{ONE} {OTHER}");
        let settings = set(&[("auth.ticket_secret", &both)]).unwrap().settings;
        assert_eq!(shown(&ticket_secrets(&settings).unwrap()), [ONE, OTHER]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{OTHER}\n{ONE}\n")).unwrap();
        let path = file.path().to_str().unwrap();
        let settings = set(&[("auth.ticket_secret_file", path)]).unwrap().settings;
        assert_eq!(shown(&ticket_secrets(&settings).unwrap()), [OTHER, ONE]);
    }

    #[test]
    fn a_ticket_secret_that_is_short_or_well_known_is_refused_and_never_shown() {
        let nine = [ONE; 9].join(" ");
        for (value, words) in [("hunter2", "32"), (&format!("{ONE} hunter2"), "32"), (&nine, "8")] {
            let error = set(&[("auth.ticket_secret", value)]).unwrap_err();
            assert!(error.starts_with("auth.ticket_secret = ") && error.contains(words), "{error}");
            assert!(!error.contains("hunter2") && !error.contains(ONE), "{error}");
        }
        let well_known = "secretsecretsecretsecretsecretsecret";
        assert!(set(&[("auth.ticket_secret", well_known)]).is_ok());
        let production = [
            ("profile", "production"),
            ("auth.allow_anonymous", "true"),
            ("auth.ticket_secret", well_known),
        ];
        let error = set(&production).unwrap_err();
        assert!(error.starts_with("auth.ticket_secret = ") && error.contains("random"), "{error}");
    }

    #[test]
    fn the_profile_the_issuer_and_the_audience_each_make_other_tickets() {
        let of = |pairs: &[(&str, &str)]| judged_by(&set(pairs).unwrap().settings);
        let all = [
            of(&[]),
            of(&[("profile", "testing")]),
            of(&[("auth.issuer", "login")]),
            of(&[("auth.audience", "login")]),
            of(&[("auth.issuer", "login"), ("auth.audience", "login")]),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
        assert_eq!(of(&[]), all[0]);
    }

    #[test]
    fn a_secret_made_up_is_kept_for_the_next_start_in_every_profile() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_str().unwrap();
        let of = |profile: &str| {
            let more = ("auth.allow_anonymous", "true");
            let pairs = [("profile", profile), ("server.data_dir", data), more];
            ticket_secrets(&set(&pairs).unwrap().settings).unwrap()
        };
        let (first, second) = (of("development"), of("production"));
        assert!(matches!(first, TicketSecrets::Kept(..)), "{first:?}");
        assert_eq!(shown(&first), shown(&second));
        let mode = std::fs::metadata(dir.path().join(TICKET_SECRET_FILE)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let nowhere = set(&[("profile", "testing")]).unwrap().settings;
        assert!(matches!(ticket_secrets(&nowhere).unwrap(), TicketSecrets::OfThisProcess(..)));
    }
}
