//! `roomkeeper token inspect`: what a token says, and what this server would make of it.
//!
//! The signature is never printed in full, and no key's material at all. What the token says is
//! printed so that it can't speak to a terminal.

use std::io::{self, Read, Write};

use application::ports::token_verifier::TokenError;
use auth_jwt::Inspection;
use domain::principal::Principal;
use domain::time::Wall;
use secrecy::ExposeSecret;
use serde_json::Value;
use thiserror::Error;

use crate::cli::TokenInspect;
use crate::exit::Exit;
use crate::log::text::{escape, escape_json};
use crate::settings::secrets::token_secret;
use crate::settings::tokens::verifier;
use crate::settings::{Auth, Settings};

/// The most that is read from standard input, in bytes.
const INPUT_BYTES_MAX: u64 = 64 << 10;

/// Why there is nothing to show.
#[derive(Debug, Error)]
pub enum TokenInspectError {
    /// The keys can't be used.
    #[error("the token keys cannot be used: {0}")]
    Keys(String),
    /// Input or output failed.
    #[error("input or output failed")]
    Io(#[from] io::Error),
}

impl TokenInspectError {
    /// How the process ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Keys(_) => Exit::Settings,
            Self::Io(error) => Exit::of_io(error),
        }
    }
}

/// Prints what there is to see; answers whether the server would accept the token at `now`.
///
/// # Errors
/// [`TokenInspectError`] when the settings have no usable keys, or reading or printing fails.
pub async fn execute(
    args: &TokenInspect,
    settings: &Settings,
    now: Wall,
    input: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<bool, TokenInspectError> {
    let mut token = args.token.expose_secret().to_owned();
    if token == "-" {
        token.clear();
        input.take(INPUT_BYTES_MAX + 1).read_to_string(&mut token)?;
    }
    let secret = token_secret(settings)?;
    let (verifier, lasting) =
        verifier(settings, secret.secret()).map_err(TokenInspectError::Keys)?;
    if let Some(remote) = lasting.remote_keys {
        // Without them the token may still be one of a configured key.
        remote.fetch().await;
    }
    let auth = &settings.auth;
    match verifier.inspect(token.trim(), now).await {
        Ok(seen) => {
            show(&seen, out)?;
            verdict(&seen.verdict, auth, now, out)?;
            Ok(seen.verdict.is_ok())
        }
        Err(error) => {
            verdict(&Err(error), auth, now, out)?;
            Ok(false)
        }
    }
}

fn show(seen: &Inspection, out: &mut dyn Write) -> io::Result<()> {
    let part = |part: &Result<String, TokenError>| match part {
        Ok(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) => escape_json(&format!("{value:#}")),
            Err(_) => format!("is not JSON: {}", escape(text)),
        },
        Err(error) => error.to_string(),
    };
    writeln!(out, "header: {}", part(&seen.header))?;
    writeln!(out, "claims: {}", part(&seen.claims))?;
    let (start, chars) = (escape(&seen.signature_start), seen.signature_chars);
    writeln!(out, "signature: {start}… ({chars} characters)")?;
    match (&seen.key, &seen.signature) {
        (Ok(key), Ok(())) => writeln!(out, "key: {key} made the signature"),
        (Ok(key), Err(error)) => writeln!(out, "key: {key} is the one to check with, and {error}"),
        (Err(error), _) => writeln!(out, "key: none ({error})"),
    }
}

fn verdict(
    verdict: &Result<Principal, TokenError>,
    auth: &Auth,
    now: Wall,
    out: &mut dyn Write,
) -> io::Result<()> {
    match verdict {
        Ok(principal) => {
            let user = principal.user.as_ref().map_or("nobody", |user| user.as_str());
            let rooms = principal.grants.len();
            let seconds = principal.expires_at.map_or(0, |end| end.since(now).as_secs());
            // Looking at it does not use it up.
            let once = if principal.credential.once {
                "; it counts once, and whether it has been used only the running server knows"
            } else {
                ""
            };
            writeln!(
                out,
                "valid: user {user}, {rooms} room grants, {seconds} s until its end (and {} ms \
                 of leeway){once}",
                auth.leeway_ms
            )
        }
        Err(error) => writeln!(out, "not valid: {error}{}", advice(*error, auth)),
    }
}

/// What the settings have to do with it.
fn advice(error: TokenError, auth: &Auth) -> String {
    let wanted = |key: &str, value: &Option<String>| {
        value.as_ref().map_or(String::new(), |value| format!("; {key} = {value:?}"))
    };
    match error {
        TokenError::Claim("iss") => wanted("auth.issuer", &auth.issuer),
        TokenError::Claim("aud") => wanted("auth.audience", &auth.audience),
        TokenError::NoKeys => {
            "; set auth.hmac_secret_file, auth.keys_file or auth.jwks_url".to_owned()
        }
        TokenError::UnknownKey => "; compare the header's alg and kid with auth.algorithms and \
                                   the keys of auth.keys_file and auth.jwks_url"
            .to_owned(),
        TokenError::Claim("jti") => {
            "; a token with once needs a jti, which no other token has".to_owned()
        }
        TokenError::Claim("exp") => "; it is in seconds, and within a day with once".to_owned(),
        TokenError::KeysUnavailable => wanted("auth.jwks_url", &auth.jwks_url),
        TokenError::Signature => "; it was signed with another secret or key".to_owned(),
        TokenError::Expired | TokenError::NotYetValid => {
            format!("; clocks may differ by auth.leeway_ms = {}", auth.leeway_ms)
        }
        TokenError::Malformed | TokenError::Claim(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::TokenCreate;
    use crate::commands::token_create;
    use crate::settings::{FlagValue, Given, load};
    use domain::id::UserId;
    use secrecy::SecretString;
    use std::time::Duration;

    const SECRET: &str = "9f86d081884c7d659a2feaa0c55ad015";
    fn born() -> Wall {
        Wall::from_millis(1_000_000)
    }

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let flags = [("auth.hmac_secret", SECRET)].iter().chain(pairs).map(|(key, value)| {
            FlagValue { flag: "--set", key: (*key).to_owned(), value: (*value).to_owned() }
        });
        load(&Given { flags: flags.collect(), ..Given::default() }).unwrap().settings
    }

    fn token(settings: &Settings) -> String {
        token_that(settings, false)
    }

    fn token_that(settings: &Settings, once: bool) -> String {
        let args = TokenCreate {
            user: UserId::parse("ada").unwrap(),
            name: None,
            roles: Vec::new(),
            rooms: Vec::new(),
            ttl: Duration::from_secs(60),
            once,
        };
        let mut out = Vec::new();
        token_create::execute(&args, settings, born(), &mut out).unwrap();
        String::from_utf8(out).unwrap().trim_end().to_owned()
    }

    fn inspect(token: &str, settings: &Settings, now: Wall) -> (bool, String) {
        let mut out = Vec::new();
        let args = TokenInspect { token: SecretString::from("-") };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut input = token.as_bytes();
        let inspected = execute(&args, settings, now, &mut input, &mut out);
        let valid = runtime.block_on(inspected).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains(SECRET), "{text}");
        let signature = token.rsplit('.').next().unwrap().trim();
        assert!(signature.len() < 7 || !text.contains(signature), "{text}");
        (valid, text)
    }

    #[test]
    fn a_token_that_the_server_accepts_is_shown_with_its_user_and_its_key() {
        let settings = settings(&[("auth.issuer", "login")]);
        let token = format!("{}\n", token(&settings));
        let (valid, text) = inspect(&token, &settings, Wall::from_millis(1_020_000));
        assert!(valid, "{text}");
        for part in ["\"alg\": \"HS256\"", "\"sub\": \"ada\"", "token key 0 (no kid) made", "40 s"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said_together_with_the_setting() {
        let ours = settings(&[("auth.issuer", "login"), ("auth.audience", "rooms")]);
        let good = token(&ours);
        let late = Wall::from_millis(9_000_000);
        let (valid, text) = inspect(&good, &ours, late);
        assert!(!valid && text.contains("not valid: the token has expired; clocks"), "{text}");
        assert!(text.contains("made the signature"), "{text}");
        let other = settings(&[("auth.audience", "elsewhere")]);
        let (_, text) = inspect(&good, &other, born());
        assert!(text.contains("auth.audience = \"elsewhere\""), "{text}");
        let stranger = settings(&[("auth.hmac_secret", "0f86d081884c7d659a2feaa0c55ad01f")]);
        let (_, text) = inspect(&good, &stranger, born());
        assert!(text.contains("another secret or key"), "{text}");
        let (valid, text) = inspect("nonsense", &ours, born());
        assert!(!valid && text == "not valid: the token is malformed\n", "{text}");
    }

    #[test]
    fn a_token_that_counts_once_is_shown_as_that_as_often_as_it_is_looked_at() {
        let settings = settings(&[]);
        let token = token_that(&settings, true);
        for _ in 0..2 {
            let (valid, text) = inspect(&token, &settings, born());
            assert!(valid && text.contains("\"once\": true"), "{text}");
            assert!(text.contains("it counts once"), "{text}");
        }
        let (_, text) = inspect(&self::token(&settings), &settings, born());
        assert!(!text.contains("once"), "{text}");
    }

    #[test]
    fn what_a_token_says_cannot_speak_to_the_terminal() {
        // A name of U+009B, `31m`, U+202E, as it is.
        let claims = "eyJzdWIiOiJhZGEiLCJuYW1lIjoiwpszMW3igK4ifQ";
        let token = format!("eyJhbGciOiJIUzI1NiJ9.{claims}.\u{9b}31m");
        let (valid, text) = inspect(&token, &settings(&[]), born());
        assert!(!valid && text.contains("\"ada\""), "{text}");
        let speaks = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(speaks), "{text:?}");
    }
}
