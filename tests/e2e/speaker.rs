//! A client of the documents' endpoints over the raw socket, for the tests that are named after them.
//!
//! It answers the server's `ping` and nothing else by itself.

use serde_json::{Value, json};
use tests::frame;
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token;

pub(crate) struct Speaker {
    pub(crate) socket: RawSocket,
    /// What the server greeted it with.
    pub(crate) greeting: Value,
}

/// A token of this user, with what else its claims say.
pub(crate) fn bearer(user: &str, more: &Value) -> String {
    let mut claims = json!({
        "sub": user,
        "name": format!("{user}'s name"),
        "iat": token::now(),
        "exp": token::now() + 3600,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    token::hs256(token::SECRET, &claims)
}

/// Everything in these rooms.
pub(crate) fn rooms(patterns: &[&str]) -> Value {
    let allow = ["subscribe", "publish", "presence", "history"];
    let grant = |pattern: &&str| json!({"pattern": pattern, "allow": allow});
    json!({"rooms": patterns.iter().map(grant).collect::<Vec<_>>()})
}

impl Speaker {
    pub(crate) fn open(server: &Server, path: &str, user: &str) -> Self {
        Self::open_with(server, path, user, &json!({}))
    }

    pub(crate) fn open_with(server: &Server, path: &str, user: &str, more: &Value) -> Self {
        let token = bearer(user, more);
        Self::greeted(RawSocket::open(server.addr(), &format!("{path}?token={token}")))
    }

    pub(crate) fn greeted(mut socket: RawSocket) -> Self {
        let greeting = socket.next_json();
        Self { socket, greeting }
    }

    pub(crate) fn say(&mut self, message: &str) {
        self.socket.send_text(message);
    }

    /// The next message as it came; pings are answered.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let (opcode, payload) = self.socket.read_frame();
            assert_eq!(opcode, frame::TEXT, "{payload:?}");
            let text = String::from_utf8(payload).unwrap();
            if !text.starts_with(r#"{"type":"ping""#) {
                return text;
            }
            self.socket.send_text(r#"{"type":"pong"}"#);
        }
    }

    /// The next message, or none when the server closes; pings are answered.
    pub(crate) fn hear_or_close(&mut self) -> Option<String> {
        let (opcode, payload) = self.socket.read_frame();
        if opcode == frame::CLOSE {
            return None;
        }
        let text = String::from_utf8(payload).unwrap();
        if text.starts_with(r#"{"type":"ping""#) {
            self.socket.send_text(r#"{"type":"pong"}"#);
        }
        Some(text)
    }

    /// The next message, which has to be of this type.
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        let text = self.hear();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["type"], kind, "{text}");
        value
    }

    /// Says something and hears that it was refused, why, and for which field.
    pub(crate) fn refused(&mut self, message: &str) -> (u64, Value) {
        self.say(message);
        let error = self.expect("error");
        (error["code"].as_u64().unwrap(), error["field"].clone())
    }

    /// Hears nothing that was said before now: the answer to a `ping` comes next.
    pub(crate) fn hears_nothing(&mut self) {
        self.say(r#"{"type":"ping"}"#);
        self.expect("pong");
    }
}

/// `text` with the values of these fields replaced by `…`, so that the rest can be compared.
pub(crate) fn without(text: &str, fields: &[&str]) -> String {
    fields.iter().fold(text.to_owned(), |text, field| {
        let begin = format!("\"{field}\":\"");
        let from =
            text.find(&begin).unwrap_or_else(|| panic!("no {field} in {text}")) + begin.len();
        let to = from + text[from..].find('"').unwrap();
        format!("{}…{}", &text[..from], &text[to..])
    })
}

/// A JSON text that is printed over several lines, as the server would say it: without the space between
/// its parts.
pub(crate) fn one_line(printed: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let says = |c: &char| {
        let ends = *c == '"' && !escaped;
        escaped = in_string && *c == '\\' && !escaped;
        in_string ^= ends;
        in_string || !c.is_whitespace()
    };
    printed.chars().filter(says).collect()
}
