//! `roomkeeper explain`: whether a token may do a thing in a room, and which rule decides, by the
//! same settings, keys and code as the server.
//!
//! What was revoked or is used up it can't know: that is the running server's. It must never print the
//! token, nor use it up.

use std::io::{self, Write};

use application::ports::TokenVerifier as _;
use domain::decision::Asked;
use domain::principal::Principal;
use domain::time::Wall;
use secrecy::ExposeSecret as _;
use thiserror::Error;

use crate::cli::Explain;
use crate::settings::secrets::token_secret;
use crate::settings::tokens::verifier;
use crate::settings::{Settings, to_policies};

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// The keys can't be used.
    #[error("{0}")]
    Keys(String),
    /// The secret or the output failed.
    #[error("input or output failed")]
    Io(#[from] io::Error),
}

/// Prints the answer as one line, and says whether it is yes. Of a token that counts once another
/// line says so.
///
/// # Errors
/// [`ExplainError`] when the keys can't be used or nothing can be printed.
pub async fn execute(
    args: &Explain,
    settings: &Settings,
    now: Wall,
    out: &mut dyn Write,
) -> Result<bool, ExplainError> {
    let Explain { action, room, .. } = args;
    let denied = |why: String| format!("denied: {} in {room}: {why}", action.word());
    let bearer = bearer(args, settings, now).await?;
    let counts_once = bearer.as_ref().is_ok_and(|principal| principal.credential.once);
    let (allowed, answer) = match bearer {
        Err(why) => (false, denied(why)),
        Ok(principal) => match to_policies(settings).of(room) {
            None => (false, denied(unknown_namespace(settings, room.namespace()))),
            Some(policy) => {
                let asked = Asked { principal: &principal, action: *action, room, policy };
                (asked.decide().allowed, asked.explain())
            }
        },
    };
    writeln!(out, "{answer}")?;
    if counts_once {
        writeln!(
            out,
            "note: the token counts once, and whether it has been used only the running server \
             knows"
        )?;
    }
    Ok(allowed)
}

/// Who it is, or why nobody is let in with that.
async fn bearer(
    args: &Explain,
    settings: &Settings,
    now: Wall,
) -> Result<Result<Principal, String>, ExplainError> {
    let Some(token) = &args.token else {
        return Ok(if settings.auth.allow_anonymous {
            Ok(Principal::anonymous())
        } else {
            Err("there is no token, and auth.allow_anonymous is false".to_owned())
        });
    };
    let secret = token_secret(settings)?;
    let (verifier, lasting) = verifier(settings, secret.secret()).map_err(ExplainError::Keys)?;
    if let Some(remote) = lasting.remote_keys {
        // Without them the token may still be one of a configured key.
        remote.fetch().await;
    }
    let verified = verifier.verify(token.expose_secret(), now).await;
    Ok(verified.map_err(|error| format!("the token is not accepted: {error}")))
}

fn unknown_namespace(settings: &Settings, namespace: &str) -> String {
    let known: Vec<&str> = settings.namespaces.keys().map(String::as_str).collect();
    format!("this server has no namespace {namespace}; it has {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{RoomGrant, TokenCreate};
    use crate::commands::token_create;
    use crate::settings::{FlagValue, Given, load};
    use domain::id::UserId;
    use domain::principal::Action;
    use domain::room::RoomId;
    use secrecy::SecretString;
    use std::time::Duration;

    const SECRET: &str = "auth.hmac_secret=kR7vX2nQ9wLp4TzB6mYc8HdF1sGj3KaE";

    fn settings(pairs: &[&str]) -> Settings {
        let flags = pairs.iter().map(|pair| {
            let (key, value) = pair.split_once('=').unwrap();
            FlagValue { flag: "--set", key: key.to_owned(), value: value.to_owned() }
        });
        load(&Given { flags: flags.collect(), ..Given::default() }).unwrap().settings
    }

    fn token(settings: &Settings, pattern: &str, allow: Action) -> String {
        token_that(settings, pattern, allow, false)
    }

    fn token_that(settings: &Settings, pattern: &str, allow: Action, once: bool) -> String {
        let args = TokenCreate {
            user: UserId::parse("ada").unwrap(),
            name: None,
            roles: Vec::new(),
            rooms: vec![RoomGrant { pattern: pattern.to_owned(), allow: vec![allow] }],
            ttl: Duration::from_secs(60),
            once,
        };
        let mut out = Vec::new();
        token_create::execute(&args, settings, Wall::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap().trim_end().to_owned()
    }

    async fn explain(settings: &Settings, token: Option<&str>, room: &str) -> (bool, String) {
        let args = Explain {
            action: Action::Publish,
            room: RoomId::parse(room).unwrap(),
            token: token.map(SecretString::from),
        };
        let mut out = Vec::new();
        let allowed = execute(&args, settings, Wall::default(), &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(token.is_none_or(|token| !text.contains(token)), "{text}");
        (allowed, text)
    }

    #[tokio::test]
    async fn the_answer_names_the_rule_that_decides() {
        let settings = settings(&[SECRET]);
        let token = token(&settings, "chat:guild/*", Action::Publish);
        let (allowed, text) = explain(&settings, Some(&token), "chat:guild/7").await;
        assert!(allowed, "{text}");
        assert_eq!(
            text,
            "allowed: publish in chat:guild/7: rooms[0] of the token (chat:guild/*) allows \
             publish\n"
        );
        let (allowed, text) = explain(&settings, Some(&token), "chat:other").await;
        assert!(!allowed && text.contains("only in chat:guild/*"), "{text}");
        let (allowed, text) = explain(&settings, None, "public:lobby").await;
        assert!(allowed && text.contains("publish = anyone"), "{text}");
    }

    #[tokio::test]
    async fn of_a_token_that_counts_once_it_is_said_that_it_does_as_often_as_one_asks() {
        let settings = settings(&[SECRET]);
        let token = token_that(&settings, "chat:guild/*", Action::Publish, true);
        for _ in 0..2 {
            let (allowed, text) = explain(&settings, Some(&token), "chat:guild/7").await;
            assert!(allowed, "{text}");
            let lines: Vec<_> = text.lines().collect();
            assert!(lines.len() == 2 && lines[1].starts_with("note: the token counts once"));
        }
    }

    #[tokio::test]
    async fn a_bad_token_no_token_and_an_unknown_namespace_are_said_to_be_that() {
        let settings = settings(&[SECRET, "auth.allow_anonymous=false"]);
        let (allowed, text) = explain(&settings, None, "public:lobby").await;
        assert!(!allowed && text.contains("auth.allow_anonymous"), "{text}");
        let (allowed, text) = explain(&settings, Some("rubbish"), "public:lobby").await;
        assert!(!allowed && text.contains("not accepted: the token is malformed"), "{text}");
        let token = token(&settings, "nowhere:*", Action::Publish);
        let (allowed, text) = explain(&settings, Some(&token), "nowhere:x").await;
        assert!(!allowed && text.contains("no namespace nowhere; it has chat,"), "{text}");
    }
}
