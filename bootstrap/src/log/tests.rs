//! Tests of the log, by the lines it writes.

use super::*;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn lines_of(format: LogFormat, log: impl FnOnce()) -> Vec<String> {
    let captured = Captured::default();
    let writer = captured.clone();
    let layer = EventLog { format, colour: false, writer: move || writer.clone() };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

const ATTACK: &str = "\u{1b}]0;owned\u{7}\r\n2026 ERROR forged\u{9b}31m\u{202e}";

/// J20.
#[test]
fn a_field_of_an_attacker_stays_on_its_line_and_says_nothing_to_the_terminal() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let lines = lines_of(format, || {
            tracing::info!(user = ATTACK, room = ?ATTACK, agent = %ATTACK, "came: {ATTACK}");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].chars().any(|c| c.is_control() || c == '\u{202e}'), "{lines:?}");
    }
}

/// J20: the length of a field.
#[test]
fn a_long_field_is_cut() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let long = "x".repeat(1 << 20);
        let lines = lines_of(format, || tracing::info!(user = long, "came"));
        assert!(lines[0].len() < 2 * FIELD_BYTES_MAX + 100, "{}", lines[0].len());
        assert!(lines[0].contains("(1048320 bytes more)"));
    }
}

#[test]
fn a_line_for_people_reads_as_a_sentence() {
    let lines = lines_of(LogFormat::Text, || {
        let span = tracing::info_span!("connection", id = 7, user = tracing::field::Empty);
        span.record("user", "ada");
        let _in = span.enter();
        tracing::warn!(room = "public:lobby", why = "two words", n = 3, "left");
    });
    let (_, rest) = lines[0].split_once(' ').unwrap();
    assert_eq!(
        rest,
        " WARN bootstrap::log::tests: left room=public:lobby why=\"two words\" n=3 \
         connection{id=7 user=ada}"
    );
}

#[test]
fn a_line_for_machines_is_an_object_whose_own_keys_cannot_be_taken() {
    let lines = lines_of(LogFormat::Json, || {
        let _in = tracing::info_span!("connection", id = 7).entered();
        tracing::error!(level = "forged", ok = false, n = 3, "failed");
    });
    let value: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(value["level"], "error");
    assert_eq!(value["field_level"], "forged");
    assert_eq!(value["message"], "failed");
    assert_eq!(value["ok"], false);
    assert_eq!(value["spans"][0]["id"], 7);
    assert_eq!(value["timestamp"].as_str().unwrap().len(), 24);
}

#[test]
fn an_error_is_logged_with_all_its_causes() {
    let inner = std::io::Error::other("the disk is full");
    let outer = crate::commands::token_create::TokenCreateError::Io(inner);
    let error: &(dyn std::error::Error + 'static) = &outer;
    let lines = lines_of(LogFormat::Text, || tracing::error!(error, "failed"));
    assert!(lines[0].ends_with("error=\"input or output failed: the disk is full\""), "{lines:?}");
}

#[test]
fn what_a_postgres_remarks_is_no_line_and_the_security_log_is_written_once() {
    assert!(!is_for_main(POSTGRES_NOTICES, false) && !is_for_main(POSTGRES_NOTICES, true));
    assert!(is_for_main(TARGET, false) && !is_for_main(TARGET, true));
    assert!(is_for_main("store_postgres::writer", true));
}
