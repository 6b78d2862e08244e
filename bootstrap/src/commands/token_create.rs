//! `roomkeeper token create`: a token for a user, signed with the secret that the server knows.
//!
//! The secret is never printed, the token only to `out`.

use std::io::{self, Write};

use auth_jwt::{MintError, RoomGrant, SigningKey, TokenRequest, mint};
use domain::time::Wall;
use secrecy::SecretString;
use thiserror::Error;

use crate::cli::TokenCreate;
use crate::settings::Settings;
use crate::settings::secrets::{TokenSecret, random_hex, token_secret};
use crate::settings::tokens;

/// Bytes of randomness in the name of a token that counts once: no two get the same.
const ID_BYTES: usize = 16;

/// Why no token was made.
#[derive(Debug, Error)]
pub enum TokenCreateError {
    /// There is no secret to sign with that a server would know.
    #[error("there is no secret to sign with: {0}")]
    NoSecret(String),
    /// The server would not accept what is signed here.
    #[error("tokens are signed with HS256 here, and auth.algorithms does not name it")]
    Algorithm,
    /// Signing failed.
    #[error("the token could not be made")]
    Mint(#[from] MintError),
    /// The secret or the output failed.
    #[error("input or output failed")]
    Io(#[from] io::Error),
}

/// Makes a token and prints it as one line.
///
/// # Errors
/// [`TokenCreateError`] when there is nothing to sign with, or signing or printing fails.
pub fn execute(
    args: &TokenCreate,
    settings: &Settings,
    now: Wall,
    out: &mut dyn Write,
) -> Result<(), TokenCreateError> {
    let key = signing_key(settings)?;
    let mut request = request(args, settings);
    if args.once {
        request.id = Some(random_hex::<ID_BYTES>()?);
    }
    let token = mint(&request, &key, now)?;
    writeln!(out, "{token}")?;
    Ok(())
}

/// The key that a server of these settings would accept tokens of.
pub(super) fn signing_key(settings: &Settings) -> Result<SigningKey, TokenCreateError> {
    if !settings.auth.algorithms.iter().any(|name| name == "HS256") {
        return Err(TokenCreateError::Algorithm);
    }
    Ok(SigningKey { kid: None, secret: tokens::bytes(&signing_secret(settings)?) })
}

fn signing_secret(settings: &Settings) -> Result<SecretString, TokenCreateError> {
    match token_secret(settings)? {
        TokenSecret::Configured(secret) | TokenSecret::Kept(secret, _) => Ok(secret),
        TokenSecret::OfThisProcess(_, why) => {
            Err(TokenCreateError::NoSecret(format!("{why}; set auth.hmac_secret_file")))
        }
        TokenSecret::None => {
            Err(TokenCreateError::NoSecret("set auth.hmac_secret_file".to_owned()))
        }
    }
}

fn request(args: &TokenCreate, settings: &Settings) -> TokenRequest {
    let grants = args
        .rooms
        .iter()
        .map(|grant| RoomGrant { pattern: grant.pattern.clone(), allow: grant.allow.clone() });
    TokenRequest {
        subject: args.user.as_str().to_owned(),
        name: args.name.clone(),
        roles: args.roles.iter().map(|role| role.as_str().to_owned()).collect(),
        rooms: grants.collect(),
        ttl: args.ttl,
        issuer: settings.auth.issuer.clone(),
        audience: settings.auth.audience.clone(),
        once: args.once,
        id: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{FlagValue, Given, load};
    use application::ports::TokenVerifier;
    use auth_jwt::JwtVerifier;
    use domain::id::UserId;
    use std::time::Duration;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let flags = pairs.iter().map(|(key, value)| FlagValue {
            flag: "--set",
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        });
        load(&Given { flags: flags.collect(), ..Given::default() }).unwrap().settings
    }

    fn args() -> TokenCreate {
        TokenCreate {
            user: UserId::parse("ada").unwrap(),
            name: None,
            roles: Vec::new(),
            rooms: Vec::new(),
            ttl: Duration::from_secs(60),
            once: false,
        }
    }

    fn run(args: &TokenCreate, settings: &Settings) -> Result<String, TokenCreateError> {
        let mut out = Vec::new();
        execute(args, settings, Wall::from_millis(10_500), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn a_newcomers_token_is_accepted_by_a_server_that_nobody_configured() {
        let dir = tempfile::tempdir().unwrap();
        let pairs = [("server.data_dir", dir.path().to_str().unwrap()), ("auth.issuer", "login")];
        let settings = settings(&pairs);
        let token = run(&args(), &settings).unwrap();
        let secret = token_secret(&settings).unwrap();
        let config = tokens::verifier_config(&settings, secret.secret()).unwrap();
        let verifier = JwtVerifier::build(config).unwrap();
        let principal = verifier.verify(token.trim_end(), Wall::from_millis(60_000)).await.unwrap();
        assert_eq!(principal.user, UserId::parse("ada").ok());
        assert!(verifier.verify(token.trim_end(), Wall::from_millis(90_000)).await.is_err());
    }

    #[test]
    fn without_a_secret_that_a_server_could_know_no_token_is_made() {
        let error = run(&args(), &settings(&[("profile", "testing")])).unwrap_err();
        assert!(error.to_string().contains("auth.hmac_secret_file"), "{error}");
        let error = run(&args(), &settings(&[("auth.algorithms", "HS512")])).unwrap_err();
        assert!(matches!(error, TokenCreateError::Algorithm));
    }

    #[tokio::test]
    async fn each_token_that_counts_once_has_a_name_of_its_own_and_ends_within_a_day() {
        let settings = settings(&[("auth.hmac_secret", "kR7vX2nQ9wLp4TzB6mYc8HdF1sGj3KaE")]);
        let secret = token_secret(&settings).unwrap();
        let config = tokens::verifier_config(&settings, secret.secret()).unwrap();
        let verifier = JwtVerifier::build(config).unwrap();
        let once = TokenCreate { once: true, ..args() };
        let mut ids = Vec::new();
        for _ in 0..2 {
            let token = run(&once, &settings).unwrap();
            let verified = verifier.verify(token.trim_end(), Wall::from_millis(60_000)).await;
            let credential = verified.unwrap().credential;
            assert!(credential.once);
            ids.push(credential.id.unwrap());
        }
        assert_ne!(ids[0], ids[1]);
        let week = TokenCreate { ttl: Duration::from_secs(7 * 86_400), ..once };
        let refused = run(&week, &settings).unwrap_err();
        assert!(matches!(refused, TokenCreateError::Mint(MintError::Refused(_))), "{refused:?}");
    }
}
