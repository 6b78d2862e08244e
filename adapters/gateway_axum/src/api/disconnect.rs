//! `POST /api/v1/disconnect`: ends a connection, or all of a user, with a code that a client knows
//! what to do with.
//!
//! It must never end with a code that says something untrue, like a broken frame or a revocation.

use std::sync::Arc;

use application::inquiry::Whom;
use application::refusal::Refusal;
use application::use_cases::end_connections::EndConnections;
use axum::response::Response;
use domain::codes::{CloseCode, ErrorCode};

use super::fields::{Fields, connection, invalid, user};
use super::list::{missing, turn, whole};
use super::out;
use super::serve::Call;
use crate::answer::{self, HttpRefusal};
use crate::notice;

/// The codes that somebody may end a connection with. The number tells the client whether to come
/// back.
pub(super) const CODES: [CloseCode; 7] = [
    CloseCode::GoingAway,
    CloseCode::ServiceRestart,
    CloseCode::TryAgainLater,
    CloseCode::RateLimited,
    CloseCode::Idle,
    CloseCode::Forbidden,
    CloseCode::SessionReplaced,
];

pub(super) async fn disconnect(call: &Call<'_>) -> Result<Response, HttpRefusal> {
    let (whom, code) = read(&call.body)?;
    let (shared, key) = (Arc::clone(call.shared), call.key.name.clone());
    // A task of its own: a backend that hangs up takes the request with it, not the deed.
    let deed = tokio::spawn(async move {
        let end = EndConnections { whom: whom.clone(), code };
        let turn = turn(&shared).await?;
        let ended = whole(&shared, shared.node.end_on_all(turn, end)).await;
        let count = ended.as_ref().ok().map(|ended| ended.found);
        notice::disconnection(&shared, &key, &whom, code, count);
        ended
    });
    let ended = deed.await.map_err(|_| answer::broken())??;
    Ok(out::answer(|object| {
        object.number("disconnected", ended.found as u64);
        object.number("code", u64::from(code.number()));
        object.flag("reconnect", code.reconnect());
        missing(object, &ended);
    }))
}

fn read(body: &[u8]) -> Result<(Whom, CloseCode), Refusal> {
    let fields = Fields::read(body, &["connection_id", "user_id", "code", "reconnect"])?;
    let whom = match (fields.text("connection_id")?, fields.text("user_id")?) {
        (Some(id), None) => Whom::Connection(connection(&id)?),
        (None, Some(id)) => Whom::User(user(&id)?),
        _ => {
            let message = "name one of connection_id and user_id";
            return Err(Refusal::new(ErrorCode::InvalidField, message));
        }
    };
    Ok((whom, code(fields.number("code")?, fields.flag("reconnect")?)?))
}

/// The code that was named, or the one for what the clients are to do.
fn code(number: Option<u64>, reconnect: Option<bool>) -> Result<CloseCode, Refusal> {
    let Some(number) = number else {
        let is_to_stop = reconnect == Some(false);
        return Ok(if is_to_stop { CloseCode::Forbidden } else { CloseCode::GoingAway });
    };
    let code = CODES.into_iter().find(|code| u64::from(code.number()) == number);
    let code =
        code.ok_or_else(|| invalid("code", "must be 1001, 1012, 1013, 3005, 3006, 3501 or 3505"))?;
    if reconnect.is_some_and(|reconnect| reconnect != code.reconnect()) {
        return Err(invalid("reconnect", "contradicts code, whose number tells clients"));
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::{ConnectionId, UserId};

    #[test]
    fn the_code_is_named_or_follows_from_what_clients_are_to_do() {
        let ann = || Whom::User(UserId::parse("ann").unwrap());
        let read = |body: &str| read(body.as_bytes());
        assert_eq!(read(r#"{"user_id":"ann"}"#), Ok((ann(), CloseCode::GoingAway)));
        for (more, code) in [
            (r#""reconnect":true"#, CloseCode::GoingAway),
            (r#""reconnect":false"#, CloseCode::Forbidden),
            (r#""code":3005"#, CloseCode::RateLimited),
            (r#""code":3505,"reconnect":false"#, CloseCode::SessionReplaced),
        ] {
            assert_eq!(read(&format!(r#"{{"user_id":"ann",{more}}}"#)), Ok((ann(), code)));
        }
        let one = Whom::Connection(ConnectionId::from_bits(255));
        let body = r#"{"connection_id":"00000000000000ff","code":null}"#;
        assert_eq!(read(body), Ok((one, CloseCode::GoingAway)));
    }

    #[test]
    fn a_code_that_would_be_untrue_and_a_contradiction_are_refused() {
        for (body, field) in [
            (r#"{"user_id":"ann","code":3507}"#, Some("code")),
            (r#"{"user_id":"ann","code":1002}"#, Some("code")),
            (r#"{"user_id":"ann","code":"1001"}"#, Some("code")),
            (r#"{"user_id":"ann","code":1001,"reconnect":false}"#, Some("reconnect")),
            (r#"{"user_id":"ann","reconnect":1}"#, Some("reconnect")),
            (r#"{"user_id":"a b"}"#, Some("user_id")),
            (r#"{"connection_id":"x"}"#, Some("connection_id")),
            (r#"{"user_id":"ann","connection_id":"00000000000000ff"}"#, None),
            ("{}", None),
        ] {
            let refused = read(body.as_bytes()).unwrap_err();
            assert_eq!(refused.field.as_deref(), field, "{body}");
        }
    }

    #[test]
    fn the_sentence_about_codes_names_all_of_them() {
        let refused = code(Some(1), None).unwrap_err();
        for code in CODES {
            assert!(refused.message.contains(&code.number().to_string()), "{code:?}");
        }
    }
}
