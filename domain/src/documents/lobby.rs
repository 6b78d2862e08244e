//! What is said on `/ws`: `chat`, `typing`, announcements, questions who is here; and plain text, which
//! is a `chat`.
//!
//! A command that exists is valid in itself; whether it may be carried out is not known here.

use crate::documents::chat::CONTENT_BYTES_MAX;
use crate::documents::fields::Fields;
use crate::id::UserId;
use crate::protocol::{Rejected, push_json_string};

/// The type under which plain text reaches the handlers. No client can name it, since a client that
/// names a type sends an object.
pub const PLAIN_TEXT: &str = "text/plain";

/// Who hears something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Audience {
    /// Everybody, the sender too where the server echoes.
    Everybody,
    /// One user, over all of its connections.
    User(UserId),
}

/// `chat`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chat {
    /// Who hears it.
    pub to: Audience,
    /// The published object.
    pub data: String,
}

/// Reads a `chat`: its text is `message`, or `content`.
///
/// # Errors
/// What is wrong, with the field.
pub fn chat(body: &str) -> Result<Chat, Rejected> {
    let fields = Fields::new(body);
    let field = if fields.raw("message").is_none() && fields.raw("content").is_some() {
        "content"
    } else {
        "message"
    };
    let text = fields.written(field, CONTENT_BYTES_MAX)?;
    Ok(Chat { to: audience(fields)?, data: format!(r#"{{"type":"chat","message":{text}}}"#) })
}

/// Reads plain text.
///
/// # Errors
/// What is wrong.
pub fn plain(text: &str) -> Result<Chat, Rejected> {
    if text.trim().is_empty() {
        return Err(Rejected::invalid("message", "must not be empty"));
    }
    if text.len() > CONTENT_BYTES_MAX {
        let words = format!("must be at most {CONTENT_BYTES_MAX} bytes");
        return Err(Rejected::too_large("message", words));
    }
    let mut data = br#"{"type":"chat","message":"#.to_vec();
    push_json_string(&mut data, text);
    data.push(b'}');
    Ok(Chat { to: Audience::Everybody, data: String::from_utf8_lossy(&data).into_owned() })
}

/// Reads a `typing`; the published object.
///
/// # Errors
/// What is wrong, with the field.
pub fn typing(body: &str) -> Result<String, Rejected> {
    let is_typing = Fields::new(body).flag("is_typing", true)?;
    Ok(format!(r#"{{"type":"typing","is_typing":{is_typing}}}"#))
}

/// Reads an `announcement`.
///
/// # Errors
/// What is wrong, with the field.
pub fn announcement(body: &str) -> Result<Chat, Rejected> {
    let fields = Fields::new(body);
    let text = fields.written("message", CONTENT_BYTES_MAX)?;
    let data = format!(r#"{{"type":"announcement","message":{text}}}"#);
    Ok(Chat { to: audience(fields)?, data })
}

fn audience(fields: Fields<'_>) -> Result<Audience, Rejected> {
    Ok(fields.user("to_user_id")?.map_or(Audience::Everybody, Audience::User))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_may_call_its_text_message_or_content() {
        for name in ["message", "content"] {
            let read = chat(&format!(r#"{{"type":"chat","{name}":"hi"}}"#)).unwrap();
            assert_eq!(read.data, r#"{"type":"chat","message":"hi"}"#);
            assert_eq!(read.to, Audience::Everybody);
        }
        let read = chat(r#"{"type":"chat","message":"hi","to_user_id":"u2"}"#).unwrap();
        assert_eq!(read.to, Audience::User(UserId::parse("u2").unwrap()));
        for (body, field) in [
            (r#"{"type":"chat"}"#, "message"),
            (r#"{"type":"chat","message":7}"#, "message"),
            (r#"{"type":"chat","content":" "}"#, "content"),
            (r#"{"type":"chat","message":"x","to_user_id":7}"#, "to_user_id"),
        ] {
            assert_eq!(chat(body).unwrap_err().field.unwrap(), field, "{body}");
        }
    }

    #[test]
    fn plain_text_is_a_chat() {
        let read = plain("hello \"you\"\n").unwrap();
        assert_eq!(read.data, r#"{"type":"chat","message":"hello \"you\"\n"}"#);
        assert!(plain(" \n").is_err());
        assert!(plain(&"x".repeat(CONTENT_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_printed_announcement_is_taken() {
        let printed = r#"{"type":"announcement","message":"Server maintenance in 5 minutes"}"#;
        assert_eq!(announcement(printed).unwrap().data, printed);
        assert_eq!(
            typing(r#"{"type":"typing"}"#).unwrap(),
            r#"{"type":"typing","is_typing":true}"#
        );
    }
}
