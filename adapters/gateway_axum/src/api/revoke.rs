//! `POST /api/v1/revoke`: takes a token, a user's tokens or a connection back, for a backend that
//! holds an API key.
//!
//! The answer comes when it counts and is stored; connections end right behind it. It must never
//! answer that something is taken back which would be forgotten.

use std::sync::Arc;

use application::ports::RevokeError;
use application::refusal::Refusal;
use axum::response::Response;
use domain::codes::ErrorCode;
use domain::id::TokenId;
use domain::revocation::Revocation;
use domain::time::{Now, Wall};

use super::fields::{Fields, connection, id_refused, invalid, user};
use super::out;
use super::serve::Call;
use crate::answer::{self, HttpRefusal};
use crate::notice;

/// When the same request may succeed after the storage failed.
const COME_BACK: std::time::Duration = std::time::Duration::from_secs(1);

pub(super) async fn revoke(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let (shared, key) = (Arc::clone(call.shared), call.key.name.clone());
    let now = shared.node.services().ports.clock.now();
    let revocation = read(&call.body, now)?;
    let (of, name) = (revocation.clone(), key.clone());
    // A task of its own: a backend that hangs up takes the request with it, not the deed.
    let deed = tokio::spawn(async move {
        let revoked = shared.node.revoke(of.clone()).await;
        notice::revocation(&shared, &name, &of, (&revoked).into());
        revoked
    });
    match deed.await.map_err(|_| answer::broken())? {
        Ok(()) => Ok(out::answer(|object| object.flag("revoked", true))),
        Err(error) => {
            let cause = &error as &dyn std::error::Error;
            tracing::error!(error = cause, ?revocation, %key, "a revocation is not stored");
            Err(refusal(&error).into())
        }
    }
}

fn read(body: &[u8], now: Now) -> Result<Revocation, Refusal> {
    let names = &["token_id", "user_id", "connection_id", "issued_until"];
    let fields = Fields::read(body, names)?;
    // Seconds since 1970, as in a token's `iat`.
    let issued_until = fields.number("issued_until")?;
    if issued_until.is_some() && fields.get("user_id").is_none() {
        return Err(invalid("issued_until", "goes with user_id only"));
    }
    let ids = (fields.text("token_id")?, fields.text("user_id")?, fields.text("connection_id")?);
    match ids {
        (Some(id), None, None) => {
            let id = TokenId::parse(&id).map_err(|error| id_refused("token_id", error))?;
            Ok(Revocation::Token(id))
        }
        (None, Some(id), None) => {
            let issued_until = match issued_until {
                None => now.wall,
                Some(seconds) => moment(seconds, now.wall)?,
            };
            Ok(Revocation::User { user: user(&id)?, issued_until })
        }
        (None, None, Some(id)) => Ok(Revocation::Connection(connection(&id)?)),
        _ => {
            let message = "name one of token_id, user_id and connection_id";
            Err(Refusal::new(ErrorCode::InvalidField, message))
        }
    }
}

fn moment(seconds: u64, now: Wall) -> Result<Wall, Refusal> {
    let ms = i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let moment = Wall::from_millis(ms);
    // What is issued later is not known yet; it would lock somebody out whom nobody knows.
    if moment > now {
        return Err(invalid("issued_until", "must be seconds since 1970 that are not ahead"));
    }
    Ok(moment)
}

fn refusal(error: &RevokeError) -> Refusal {
    let message = match error {
        RevokeError::Full => "as many revocations are remembered as may be; nothing was done",
        RevokeError::Storage(_) => {
            "it counts now, but could not be stored and would be forgotten by a restart; try again"
        }
    };
    Refusal::new(ErrorCode::Unavailable, message).retry_after(COME_BACK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::{ConnectionId, UserId};
    use domain::time::Monotonic;

    fn at(seconds: i64) -> Now {
        Now { monotonic: Monotonic::START, wall: Wall::from_millis(seconds * 1_000) }
    }

    #[test]
    fn a_storage_that_fails_is_said_without_its_words() {
        let told = refusal(&RevokeError::Storage("/var/lib/secret.db is full".to_owned()));
        assert_eq!(told.code, ErrorCode::Unavailable);
        assert!(told.message.contains("could not be stored"));
        assert!(!format!("{told:?}").contains("secret"), "{told:?}");
    }

    #[test]
    fn one_thing_is_named_and_a_users_moment_is_now_unless_it_is_said() {
        let user = |issued_until| Revocation::User {
            user: UserId::parse("ann").unwrap(),
            issued_until: Wall::from_millis(issued_until),
        };
        let read = |body: &str| read(body.as_bytes(), at(100));
        assert_eq!(read(r#"{"user_id":"ann"}"#), Ok(user(100_000)));
        assert_eq!(read(r#"{"user_id":"ann","issued_until":7}"#), Ok(user(7_000)));
        assert_eq!(
            read(r#"{"token_id":"t-1"}"#),
            Ok(Revocation::Token(TokenId::parse("t-1").unwrap()))
        );
        assert_eq!(
            read(r#"{"connection_id":"00000000000000ff"}"#),
            Ok(Revocation::Connection(ConnectionId::from_bits(255)))
        );
    }

    #[test]
    fn what_is_no_revocation_is_refused_with_what_is_wrong() {
        for (body, field) in [
            ("", None),
            ("[]", None),
            ("{}", None),
            (r#"{"user_id":"ann","token_id":"t"}"#, None),
            (r#"{"user":"ann"}"#, Some("user")),
            (r#"{"user_id":""}"#, Some("user_id")),
            (r#"{"token_id":"a b"}"#, Some("token_id")),
            (r#"{"connection_id":"x"}"#, Some("connection_id")),
            (r#"{"token_id":"t","issued_until":1}"#, Some("issued_until")),
            (r#"{"user_id":"ann","issued_until":101}"#, Some("issued_until")),
            (r#"{"user_id":"ann","issued_until":-1}"#, Some("issued_until")),
        ] {
            let refused = read(body.as_bytes(), at(100)).unwrap_err();
            assert_eq!(refused.field.as_deref(), field, "{body}: {refused:?}");
        }
    }
}
