//! Secrets: read from their files, judged, and made up for development.
//!
//! No message, `Debug` or log line may ever hold one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::effective::Effective;
use super::error::{Problem, SettingsError};
use super::layer;
use super::tree::{Profile, Settings};

/// The name of the file in the data directory that keeps the secret made up for development.
pub const DEV_SECRET_FILE: &str = "dev-secret";

/// Bytes of randomness in a secret that is made up.
const MADE_UP_BYTES: usize = 32;

/// The shortest secret that is not weaker than the algorithm (RFC 7518 section 3.2), in bytes.
#[must_use]
pub fn bytes_min(algorithm: &str) -> usize {
    match algorithm {
        "HS384" => 48,
        "HS512" => 64,
        _ => 32,
    }
}

/// Reads every secret that stands in a file. Answers warnings.
///
/// # Errors
/// A file that cannot be read, is empty or, in production, may be read by everyone; a secret
/// that stands in the settings and in a file.
pub fn read_files(
    settings: &mut Settings,
    effective: &Effective,
) -> Result<Vec<String>, SettingsError> {
    let mut reader = Reader::new(effective, settings.profile);
    let auth = &mut settings.auth;
    reader.read("auth.hmac_secret", auth.hmac_secret_file.as_deref(), &mut auth.hmac_secret);
    let ticket_file = auth.ticket_secret_file.as_deref();
    reader.read("auth.ticket_secret", ticket_file, &mut auth.ticket_secret);
    let redis = &mut settings.redis;
    reader.read("redis.password", redis.password_file.as_deref(), &mut redis.password);
    let sentinels = redis.sentinel_password_file.as_deref();
    reader.read("redis.sentinel_password", sentinels, &mut redis.sentinel_password);
    let store = &mut settings.store;
    reader.read("store.password", store.password_file.as_deref(), &mut store.password);
    for (name, key) in &mut settings.api.keys {
        reader.read(&format!("api.keys.{name}.key"), key.key_file.as_deref(), &mut key.key);
    }
    if reader.problems.is_empty() {
        Ok(reader.warnings)
    } else {
        Err(SettingsError { problems: reader.problems })
    }
}

struct Reader<'a> {
    effective: &'a Effective,
    profile: Profile,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(effective: &'a Effective, profile: Profile) -> Self {
        let (problems, warnings) = (Vec::new(), Vec::new());
        Self { effective, profile, problems, warnings }
    }

    fn read(&mut self, key: &str, file: Option<&Path>, secret: &mut Option<SecretString>) {
        let Some(path) = file else { return };
        let file_key = format!("{key}_file");
        if secret.is_some() {
            let reason = format!("is set, and so is {}", self.effective.mention(&file_key));
            self.problems.push(self.effective.problem(key, &reason));
            return;
        }
        match read_secret(path) {
            Ok(text) => *secret = Some(text),
            Err(reason) => {
                self.problems.push(self.effective.problem(&file_key, &reason));
                return;
            }
        }
        if !is_world_readable(path) {
            return;
        }
        let reason = "may be read by every user of the machine; chmod o-r it";
        let problem = self.effective.problem(&file_key, reason);
        if self.profile == Profile::Production {
            self.problems.push(problem);
        } else {
            self.warnings.push(problem.to_string());
        }
    }
}

fn read_secret(path: &Path) -> Result<SecretString, String> {
    let text = layer::read_text(path)?;
    let text = text.strip_suffix('\n').map_or(&*text, |t| t.strip_suffix('\r').unwrap_or(t));
    if text.is_empty() {
        return Err("names an empty file".to_owned());
    }
    Ok(SecretString::from(text))
}

/// Whether every user of the machine may read a file.
#[must_use]
pub fn is_world_readable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

/// Why a secret that is long enough is no secret, if so.
#[must_use]
pub fn weakness(secret: &str) -> Option<&'static str> {
    let mut seen = [false; 256];
    secret.bytes().for_each(|byte| seen[usize::from(byte)] = true);
    // 32 random hexadecimal digits have fewer than 8 different ones once in 10^8 times.
    if seen.iter().filter(|seen| **seen).count() < 8 {
        return Some("must be random; this one repeats a few characters");
    }
    let letters: String = secret.chars().filter(char::is_ascii_alphabetic).collect();
    let mut rest = letters.to_lowercase();
    for word in WELL_KNOWN {
        rest = rest.replace(word, "");
    }
    // Two letters between the words, like an article, make no secret of them.
    if rest.len() < letters.len() && rest.len() <= 2 {
        return Some("must be random; this one is made of well-known words");
    }
    None
}

/// What secrets in examples are made of; longer ones first, since they hold shorter ones.
const WELL_KNOWN: [&str; 27] = [
    "abcdefghijklmnopqrstuvwxyz",
    "development",
    "production",
    "roomkeeper",
    "changeme",
    "password",
    "insecure",
    "example",
    "default",
    "please",
    "secret",
    "string",
    "change",
    "token",
    "least",
    "super",
    "admin",
    "long",
    "bits",
    "your",
    "test",
    "this",
    "hmac",
    "jwt",
    "key",
    "bit",
    "at",
];

/// The secret that signs tokens, and how it came about.
#[derive(Clone, Debug)]
pub enum TokenSecret {
    /// It was configured.
    Configured(SecretString),
    /// It is kept in this file for development.
    Kept(SecretString, PathBuf),
    /// It was made up and ends with this process, because of what the text says.
    OfThisProcess(SecretString, String),
    /// There is none: tokens are verified with public keys only, or not at all.
    None,
}

impl TokenSecret {
    /// The secret itself.
    #[must_use]
    pub const fn secret(&self) -> Option<&SecretString> {
        match self {
            Self::Configured(secret) | Self::Kept(secret, _) | Self::OfThisProcess(secret, _) => {
                Some(secret)
            }
            Self::None => None,
        }
    }
}

/// Finds the secret that signs tokens. Outside production one is made up when no key is
/// configured, and kept in the data directory when there is one, so that `token create` and
/// `serve` have the same.
///
/// # Errors
/// No randomness is to be had.
pub fn token_secret(settings: &Settings) -> io::Result<TokenSecret> {
    if let Some(secret) = &settings.auth.hmac_secret {
        return Ok(TokenSecret::Configured(secret.clone()));
    }
    let auth = &settings.auth;
    let has_other_keys = auth.keys_file.is_some() || auth.jwks_url.is_some();
    if settings.profile == Profile::Production || has_other_keys {
        return Ok(TokenSecret::None);
    }
    let Some(dir) = &settings.server.data_dir else {
        let why = "there is no data directory".to_owned();
        return Ok(TokenSecret::OfThisProcess(made_up()?, why));
    };
    let path = dir.join(DEV_SECRET_FILE);
    match kept_secret(dir, DEV_SECRET_FILE) {
        Ok(secret) => Ok(TokenSecret::Kept(secret, path)),
        // A read-only disk does not stop a trial.
        Err(error) => {
            let why = format!("{} cannot be used: {error}", path.display());
            Ok(TokenSecret::OfThisProcess(made_up()?, why))
        }
    }
}

/// The secret that a file of the data directory keeps; made up if there is none yet.
pub(super) fn kept_secret(dir: &Path, file: &str) -> io::Result<SecretString> {
    let path = &dir.join(file);
    fs::create_dir_all(dir)?;
    if !path.try_exists()? {
        // Written whole under a name of its own and linked, so that of two first starts at one
        // time both use the same secret and none reads half of it.
        let made_up = made_up()?;
        let draft = dir.join(format!("{file}.{}", random_hex::<8>()?));
        let linked = write_private(&draft, &made_up).and_then(|()| {
            fs::hard_link(&draft, path)
                .or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
        });
        // The draft may not exist; then there is nothing to remove.
        let _ = fs::remove_file(&draft);
        linked?;
    }
    let secret = read_secret(path).map_err(io::Error::other)?;
    if secret.expose_secret().len() < MADE_UP_BYTES {
        return Err(io::Error::other("is too short; remove it, and a new one is made"));
    }
    Ok(secret)
}

fn write_private(path: &Path, secret: &SecretString) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", secret.expose_secret())?;
    file.sync_all()
}

pub(super) fn made_up() -> io::Result<SecretString> {
    random_hex::<MADE_UP_BYTES>().map(SecretString::from)
}

/// Twice as many hexadecimal digits that nobody can know.
pub(crate) fn random_hex<const BYTES: usize>() -> io::Result<String> {
    let mut bytes = [0u8; BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
