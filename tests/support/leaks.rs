//! What must not stand in a log: every token, key and payload that this process has sent to a
//! server.
//!
//! Whatever [`crate::raw::RawSocket`] sends is remembered here, and when a server ends, its whole
//! log is searched for it. So every test is a test for this.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde_json::{Deserializer, Value};

/// Shorter texts could stand in a log by chance.
const CHARACTERS_MIN: usize = 8;
/// Logs cut long values, so only the beginning of a text is looked for.
const CHARACTERS_MAX: usize = 48;
/// Longer texts are made of one letter.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// A flood says the same again.
const REMEMBERED_MAX: usize = 5_000;
/// What begins like this is base64url of `{"`: the header of a token, whoever made it.
const TOKEN_BEGINS: &str = "eyJ";
/// The shortest header, `{"alg":"HS256"}`, has 20 characters.
const TOKEN_CHARACTERS_MIN: usize = 16;

static SENT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Remembers what of an HTTP request must not be logged; other bytes are none.
pub fn remember_request(bytes: &[u8]) {
    if (bytes.starts_with(b"GET ") || bytes.starts_with(b"POST "))
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        remember(text);
    }
}

/// Remembers what of a text must not be logged.
pub fn remember(text: &str) {
    if text.len() > TEXT_BYTES_MAX {
        return;
    }
    let mut found = Vec::new();
    for word in text.split([' ', ',', '\r', '\n', '&', '?']) {
        // A bearer token or an API key in a header, a sub-protocol or a query.
        let value = word.strip_prefix("bearer.").or_else(|| word.strip_prefix("token="));
        found.extend(value.map(str::to_owned));
    }
    for (at, _) in text.match_indices("Bearer ") {
        let rest = &text[at + "Bearer ".len()..];
        found.extend(rest.split(['\r', '\n']).next().map(str::to_owned));
    }
    let body = text.split_once("\r\n\r\n").map_or(text, |(_, body)| body);
    for value in Deserializer::from_str(body).into_iter::<Value>().map_while(Result::ok) {
        for field in ["data", "token"] {
            gather(&value[field], &mut found);
        }
    }
    let mut sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
    for text in found {
        let beginning: String = text.chars().take(CHARACTERS_MAX).collect();
        if beginning.chars().count() >= CHARACTERS_MIN && sent.len() < REMEMBERED_MAX {
            sent.insert(beginning);
        }
    }
}

fn gather(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| gather(item, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                found.push(name.clone());
                gather(value, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Something in `log` that must not stand there, with its line.
#[must_use]
pub fn find(log: &str) -> Option<String> {
    let sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
    log.lines().find_map(|line| {
        let secret = sent.iter().find(|secret| line.contains(secret.as_str()));
        let secret = secret.map(String::as_str).or_else(|| token(line));
        secret.map(|secret| format!("{secret:?} stands in the log: {line}"))
    })
}

/// A token's beginning.
fn token(line: &str) -> Option<&str> {
    line.match_indices(TOKEN_BEGINS).find_map(|(at, _)| {
        let rest = &line[at..];
        let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let end = rest.find(|c| !is_of_token(c)).unwrap_or(rest.len());
        (end >= TOKEN_CHARACTERS_MIN).then(|| &rest[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_found_wherever_it_stood() {
        remember(
            "GET /ws?token=query-secret-1&x=1 HTTP/1.1\r\nAuthorization: Bearer key-secret-2\r\n",
        );
        remember("Sec-WebSocket-Protocol: roomkeeper.v2, bearer.protocol-secret-3\r\n\r\n");
        remember(
            "POST / HTTP/1.1\r\n\r\n{\"room\":\"public:x\",\"data\":{\"inner-name-4\":[\"payload-secret-5\"]}}",
        );
        remember(r#"{"type":"connect","token":"command-secret-6"}{"data":"second-secret-7"}"#);
        for secret in [
            "query-secret-1",
            "key-secret-2",
            "protocol-secret-3",
            "inner-name-4",
            "payload-secret-5",
            "command-secret-6",
            "second-secret-7",
        ] {
            let planted = format!("fine\nINFO published what={secret} ok\n");
            assert!(find(&planted).is_some_and(|line| line.contains("published")), "{secret}");
        }
        assert_eq!(find("INFO public:x GET /ws"), None);
    }

    #[test]
    fn a_token_that_nobody_remembered_is_found_by_its_look() {
        let token = crate::token::hs256("s", &serde_json::json!({}));
        assert!(find(&format!("WARN refused t={token}")).is_some());
        assert_eq!(find("WARN refused eyJ short"), None);
    }
}
