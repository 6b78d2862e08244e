//! What must not stand in a log: every token, key and payload that this process and the scripts that it
//! ran have sent to a server.
//!
//! Whatever [`crate::raw::RawSocket`] sends is remembered here, what clients in other languages send
//! ([`crate::foreign`]), and what a test publishes by the Rust client ([`said`]); when a server ends, its
//! whole log is searched for it. So every test is a test for this.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Deserializer, Value};

/// The environment variable that tells a script in another language where to write down what it sends:
/// a JSON string a line, one for each text.
pub const RECORD: &str = "FOREIGN_SENT";

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
/// Where commands of any endpoint have what others are to read.
const PAYLOADS: [&str; 5] = ["content", "data", "message", "payload", "text"];
/// Where they show who somebody is.
const CREDENTIALS: [&str; 2] = ["session", "token"];

static SENT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// What of a text must not be logged.
#[derive(Debug, Default)]
struct Secrets {
    texts: Vec<String>,
    has_payload: bool,
}

/// Remembers what of an HTTP request must not be logged; other bytes are none.
pub fn remember_request(bytes: &[u8]) {
    if (bytes.starts_with(b"GET ") || bytes.starts_with(b"POST "))
        && bytes.len() <= TEXT_BYTES_MAX
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        keep(&secrets_of_head(head));
        let mut secrets = Secrets::default();
        for value in Deserializer::from_str(body).into_iter::<Value>().map_while(Result::ok) {
            walk(&value, &mut secrets);
        }
        keep(&secrets.texts);
    }
}

/// Remembers what of a message must not be logged.
pub fn remember(text: &str) {
    keep(&secrets_of(text).texts);
}

/// Remembers the data of a message, JSON, that a test is about to publish by the Rust client, and gives
/// it back.
///
/// # Panics
///
/// When nothing of it is long enough to be looked for.
pub fn said(data: &str) -> &str {
    let value = serde_json::from_str(data).expect("data is JSON");
    let mut texts = Vec::new();
    gather(&value, &mut texts);
    assert!(keep(&texts), "{data} has no text of {CHARACTERS_MIN} characters to look for in logs");
    data
}

/// Remembers what a script has written down, if it has, and removes the file.
///
/// # Panics
///
/// When the script has sent payloads and nothing of any is long enough to be looked for.
pub fn remember_record(file: &Path) {
    let Ok(record) = fs::read_to_string(file) else { return };
    // In a folder for what may be lost.
    fs::remove_file(file).ok();
    let texts = Deserializer::from_str(&record).into_iter::<String>();
    let sent: Vec<_> = texts.map(|text| secrets_of(&text.expect("a text a line"))).collect();
    let has_payload = sent.iter().any(|secrets| secrets.has_payload);
    // All of them, so not by `any`.
    let n_kept = sent.iter().filter(|secrets| keep(&secrets.texts)).count();
    assert!(
        n_kept > 0 || !has_payload,
        "a script has sent no payload of {CHARACTERS_MIN} characters to look for in logs: {record}"
    );
}

/// Keeps what is long enough to be looked for, and tells whether anything is.
fn keep(texts: &[String]) -> bool {
    let mut sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut is_kept = false;
    for text in texts {
        let beginning: String = text.chars().take(CHARACTERS_MAX).collect();
        if beginning.chars().count() >= CHARACTERS_MIN {
            is_kept = true;
            if sent.len() < REMEMBERED_MAX {
                sent.insert(beginning);
            }
        }
    }
    is_kept
}

/// A bearer token or an API key in a header, a sub-protocol or a query.
fn secrets_of_head(head: &str) -> Vec<String> {
    let words = head.split([' ', ',', '\r', '\n', '&', '?']);
    let values =
        words.filter_map(|word| word.strip_prefix("bearer.").or(word.strip_prefix("token=")));
    let bearers = head.match_indices("Bearer ").filter_map(|(at, word)| {
        let rest = &head[at + word.len()..];
        rest.split(['\r', '\n']).next()
    });
    values.chain(bearers).map(str::to_owned).collect()
}

/// Of a message in JSON what its fields say, or all of a plain text.
fn secrets_of(text: &str) -> Secrets {
    let mut secrets = Secrets::default();
    if text.len() > TEXT_BYTES_MAX {
        return Secrets { has_payload: true, ..secrets };
    }
    for value in Deserializer::from_str(text).into_iter::<Value>() {
        let Ok(value) = value else {
            // A piece of JSON could stand in a log by chance, in an example.
            if !text.trim_start().starts_with(['{', '[']) {
                secrets.texts.push(text.to_owned());
            }
            break;
        };
        walk(&value, &mut secrets);
    }
    secrets
}

fn walk(value: &Value, secrets: &mut Secrets) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, secrets)),
        Value::Object(fields) => {
            for (name, value) in fields {
                if PAYLOADS.contains(&name.as_str()) {
                    secrets.has_payload = true;
                    gather(value, &mut secrets.texts);
                } else if CREDENTIALS.contains(&name.as_str()) {
                    gather(value, &mut secrets.texts);
                } else {
                    walk(value, secrets);
                }
            }
        }
        _ => {}
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

    fn assert_found(secret: &str) {
        let planted = format!("fine\nINFO published what={secret} ok\n");
        assert!(find(&planted).is_some_and(|line| line.contains("published")), "{secret}");
    }

    #[test]
    fn what_was_sent_is_found_wherever_it_stood() {
        remember_request(
            b"GET /ws?token=query-secret-1&x=1 HTTP/1.1\r\nAuthorization: Bearer key-secret-2\r\n\
              Sec-WebSocket-Protocol: roomkeeper.v2, bearer.protocol-secret-3\r\n\r\n",
        );
        remember_request(
            b"POST / HTTP/1.1\r\n\r\n{\"publishes\":[{\"data\":{\"inner-name-4\":[\"payload-secret-5\"]}}]}",
        );
        remember(r#"{"type":"connect","token":"command-secret-6"}{"data":"second-secret-7"}"#);
        remember(r#"{"type":"chat","channel":"global","content":"document-secret-8"}"#);
        remember("a plain secret 9");
        assert_eq!(said(r#"{"n":1,"text":"rust-secret-10"}"#).len(), 31);
        for secret in [
            "query-secret-1",
            "key-secret-2",
            "protocol-secret-3",
            "inner-name-4",
            "payload-secret-5",
            "command-secret-6",
            "second-secret-7",
            "document-secret-8",
            "a plain secret 9",
            "rust-secret-10",
        ] {
            assert_found(secret);
        }
        assert_eq!(find("INFO public:x GET /ws global"), None);
    }

    #[test]
    fn what_a_script_wrote_down_is_found_and_its_file_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sent");
        fs::write(&file, r#""{\"data\":1}" "{\"data\":\"foreign-secret-1\"}""#).unwrap();
        remember_record(&file);
        assert_found("foreign-secret-1");
        assert!(!file.exists());
        // One that was killed has written nothing.
        remember_record(&file);
    }

    #[test]
    #[should_panic(expected = "no payload of 8 characters")]
    fn a_script_whose_payloads_can_not_be_looked_for_fails_its_test() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), r#""{\"room\":\"public:long-name\",\"data\":\"short\"}""#).unwrap();
        remember_record(file.path());
    }

    #[test]
    #[should_panic(expected = "no text of 8 characters")]
    fn data_that_can_not_be_looked_for_is_not_said() {
        said(r#"{"n":1}"#);
    }

    #[test]
    fn a_token_that_nobody_remembered_is_found_by_its_look() {
        let token = crate::token::hs256("s", &serde_json::json!({}));
        assert!(find(&format!("WARN refused t={token}")).is_some());
        assert_eq!(find("WARN refused eyJ short"), None);
    }
}
