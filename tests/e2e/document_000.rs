//! Document 000, "Enhanced Modular WebSocket System": what it says beside matches, sentence by sentence.
//!
//! A host's own middleware and handlers are not the binary's: `tests/shard/extensions.rs` and
//! `tests/shard/sockets.rs` tell of them, and `examples/axum_app` adds some. What is remembered of tokens is told
//! by `published_keys.rs`.

use serde_json::{Value, json};
use tests::server::{Server, exit_of};

use crate::client::{self, Client, until};
use crate::http::get;
use crate::speaker::Speaker;

fn start(more: &[&str]) -> Server {
    let secret = client::secret();
    let mut arguments = vec!["--set", &*secret];
    arguments.extend(more);
    Server::start(&arguments)
}

fn in_lobby(server: &Server, user: &str) -> Speaker {
    let mut speaker = Speaker::open(server, "/ws", user);
    speaker.expect("user_list");
    speaker
}

/// The settings that count, as the command line shows them.
fn printed(arguments: &[&str]) -> String {
    // What production asks of everybody.
    let secret =
        "auth.hmac_secret=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let needed = ["auth.issuer=login", "auth.audience=rooms", secret];
    let needed: Vec<&str> = needed.iter().flat_map(|set| ["--set", set]).collect();
    let (code, shown, errors) = exit_of(&[&["config", "print"], arguments, &needed].concat());
    assert_eq!(code, Some(0), "{errors}");
    shown
}

fn setting<'s>(shown: &'s str, key: &str) -> &'s str {
    let value = shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    let value = value.unwrap_or_else(|| panic!("no {key} in {shown}"));
    value.split(" #").next().unwrap_or_default().trim()
}

#[test]
fn configuration_management_in_one_place_for_development_production_and_testing() {
    for (profile, echo) in [("development", "true"), ("production", "false"), ("testing", "true")] {
        let shown = printed(&["--profile", profile]);
        assert_eq!(setting(&shown, "server.echo_endpoint"), echo, "{profile}");
        // What no profile says otherwise has one default.
        assert_eq!(setting(&shown, "auth.authentication_timeout_ms"), "10000", "{profile}");
        assert_eq!(setting(&shown, "matches.connections_per_match_max"), "500", "{profile}");
        assert_eq!(setting(&shown, "messages.requests_per_minute"), "60", "{profile}");
    }
    // authentication_timeout=15.0, enable_debug_logging=True, max_connections_per_match=500
    let custom = printed(&[
        "--profile",
        "development",
        "--set",
        "auth.authentication_timeout_ms=15000",
        "--set",
        "log.filter=debug",
        "--set",
        "matches.connections_per_match_max=500",
    ]);
    assert_eq!(setting(&custom, "auth.authentication_timeout_ms"), "15000");
    assert_eq!(setting(&custom, "log.filter"), "\"debug\"");
}

#[test]
fn input_validation_at_multiple_levels_names_the_field() {
    let server = start(&[]);
    let mut ann = Client::open_as(&server, "ann");
    for (command, code, field) in [
        (json!({"type": "subscribe"}), 102, json!("room")),
        (json!({"type": "subscribe", "room": "no room"}), 102, json!("room")),
        (json!({"type": "publish", "room": "public:a"}), 102, json!("data")),
        (json!({"type": "nothing_of_the_kind"}), 101, json!("type")),
        (json!({"type": "history", "room": "public:a", "limit": 0}), 102, json!("limit")),
    ] {
        let error = ann.call_for("error", command.clone());
        assert_eq!((&error["code"], &error["field"]), (&json!(code), &field), "{command}");
    }
    // On the documents' endpoints a schema of each type.
    let mut lobby = in_lobby(&server, "ann");
    assert_eq!(lobby.refused(r#"{"type":"typing","is_typing":"yes"}"#), (102, json!("is_typing")));
}

#[test]
fn comprehensive_error_recovery_answers_what_went_wrong_and_the_connection_goes_on() {
    let server = start(&[]);
    let mut ann = Client::open_as(&server, "ann");
    for _ in 0..10 {
        ann.send(&json!("no command at all"));
        ann.expect("error");
    }
    ann.subscribe("public:still-here");
    ann.publish("public:still-here", 1);
    ann.expect("message");
    // Detailed error metrics.
    let told = get(server.addr(), "/api/v1/websocket/metrics").json();
    assert_eq!(told["global"]["errors_total"], 10, "{told}");
    let text = get(server.addr(), "/metrics").body;
    assert!(text.contains(r#"roomkeeper_command_errors_total{error="bad_request"} 10"#), "{text}");
}

#[test]
fn get_global_statistics_and_connection_health_information() {
    let server = start(&[]);
    let _ann = Client::open_as(&server, "ann");
    let told = get(server.addr(), "/api/v1/websocket/metrics").json();
    assert_eq!(told["global"]["connections"], 1);
    assert_eq!(told["matches"], json!({"total": 0, "listed": []}));
    assert_eq!(told["connection_monitor"]["closed_for_silence_total"], 0);
    assert_eq!(get(server.addr(), "/api/v1/websocket/health").json()["status"], "healthy");
}

#[test]
fn rate_limiting_middleware_prevents_message_spam_by_minute_and_by_type() {
    let server = start(&[
        "--set",
        "messages.rate_limit_enabled=true",
        "--set",
        "messages.requests_per_minute=20",
        "--set",
        "messages.requests_of_type_per_minute=typing=3,nothing=1",
    ]);
    let mut ann = in_lobby(&server, "ann");
    for _ in 0..3 {
        ann.say(r#"{"type":"typing","is_typing":true}"#);
    }
    let (code, _) = ann.refused(r#"{"type":"typing","is_typing":true}"#);
    assert_eq!(code, 108);
    // What a handler makes of a message counts with it, as one: 17 are left of the 20.
    for n in 0..17 {
        ann.say(&format!(r#"{{"type":"chat","id":{n},"message":"hi"}}"#));
        ann.expect("ack");
    }
    assert_eq!(ann.refused(r#"{"type":"chat","message":"one more"}"#).0, 108);
    let mut bob = Client::open_as(&server, "bob");
    let refused = (0..40).find_map(|n| {
        let answer = bob.call(json!({"type": "publish", "room": "public:spam", "data": n}));
        (answer["type"] == "error").then_some((n, answer))
    });
    let (n, answer) = refused.expect("it is limited");
    assert_eq!((n, &answer["code"]), (20, &json!(108)));
    assert!(answer["retry_after_ms"].as_u64() > Some(0), "{answer}");
    // Off unless somebody wants it.
    let server = start(&[]);
    let mut bob = Client::open_as(&server, "bob");
    for n in 0..100 {
        bob.publish("public:spam", n);
    }
}

#[test]
fn a_limit_that_is_no_type_and_number_is_refused_at_the_start() {
    for wrong in ["typing", "typing=", "=3", "typing=-1", "typing=many"] {
        let set = format!("messages.requests_of_type_per_minute={wrong}");
        let (code, _, errors) = exit_of(&["config", "check", "--set", &set]);
        assert_ne!(code, Some(0), "{wrong}");
        assert!(errors.contains("requests_of_type_per_minute"), "{wrong}: {errors}");
    }
}

#[test]
fn the_message_logger_tells_of_every_endpoint_and_of_nothing_that_was_said() {
    let server = start(&["--set", "messages.log=true"]);
    let mut ann = Client::open_as(&server, "ann");
    ann.publish("public:logged", "a secret of ann's");
    let mut lobby = in_lobby(&server, "bob");
    lobby.say(r#"{"type":"chat","message":"a secret of bob's","id":1}"#);
    lobby.expect("ack");
    drop(ann);
    let log = until("the log tells of it", || {
        let log = server.log().replace('"', "");
        let words = ["user=ann kind=publish", "user=bob kind=chat", "user=ann code="];
        words.iter().all(|word| log.contains(word)).then_some(log)
    });
    assert!(!log.contains("a secret of"), "{log}");
    assert_eq!(tests::leaks::find(&log), None);
}

/// What a client sends without waiting for its answers.
const PUSHED: u64 = 3_000;

#[test]
fn message_queueing_under_load_is_the_bounded_inbox_that_slows_a_pushy_client_and_loses_nothing() {
    let server = start(&[
        "--set",
        "limits.inbox_commands_max=4",
        // Asked for each message, so that each has to be waited for.
        "--set",
        "messages.rate_limit_enabled=true",
        "--set",
        "messages.requests_per_minute=0",
        "--set",
        "messages.requests_of_type_per_minute=nothing=1",
    ]);
    let mut other = Client::open_as(&server, "bob");
    other.subscribe("public:pushed");
    let mut pushy = Client::open_as(&server, "ann");
    for n in 1..=PUSHED {
        let publish =
            json!({"type": "publish", "id": n, "room": "public:pushed", "data": n, "echo": false});
        pushy.send(&publish);
    }
    let answered: Vec<Value> = (0..PUSHED).map(|_| pushy.expect("ack")["id"].clone()).collect();
    let wanted: Vec<Value> = (1..=PUSHED).map(Value::from).collect();
    assert_eq!(answered, wanted, "each is answered, in order");
    let heard = other.messages(PUSHED as usize);
    assert_eq!(client::data_of(&heard), wanted, "each is heard once, in order");
}
