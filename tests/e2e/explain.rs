//! Which rule says yes or no: on the command line, and in development in the error itself.

use serde_json::json;
use tests::server::{Server, exit_of};
use tests::token::{SECRET, claims, hs256};

use crate::client::{Client, PATH, secret};

/// What a refused publish says, from a server that runs in this profile.
fn refusal(profile: &str) -> String {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let production =
        ["--set", "auth.issuer=us", "--set", "auth.audience=us", "--set", "log.filter=warn"];
    let secret = secret();
    let own = ["--profile", profile, "--data-dir", data, "--set", &secret];
    let more = if profile == "production" { &production[..] } else { &[] };
    let server = Server::start(&[&own, more].concat());
    let mut claims = claims("ann", "chat:guild/8");
    claims["iss"] = json!("us");
    claims["aud"] = json!("us");
    let path = format!("{PATH}?token={}", hs256(SECRET, &claims));
    let mut ann = Client::open_at(server.addr(), &path);
    let refused = ann.call(json!({"type": "publish", "room": "chat:guild/7", "data": 1}));
    assert_eq!(refused["code"], 103);
    refused["message"].as_str().unwrap().to_owned()
}

#[test]
fn the_command_line_and_a_server_in_development_give_the_same_reason() {
    let token = hs256(SECRET, &claims("ann", "chat:guild/8"));
    let secret = secret();
    let words = ["explain", "--set", &secret, "--token", &token, "publish"];
    let (code, answer, errors) = exit_of(&[&words[..], &["chat:guild/7"]].concat());
    assert_eq!((code, &errors[..]), (Some(1), ""));
    assert!(
        answer.contains("rooms[0] of the token allows publish only in chat:guild/8"),
        "{answer}"
    );
    assert_eq!(refusal("development"), answer.trim_end());
    let (code, answer, _) = exit_of(&[&words[..], &["chat:guild/8"]].concat());
    assert_eq!(code, Some(0), "{answer}");
}

#[test]
fn strangers_are_not_told_why() {
    for profile in ["production", "testing"] {
        assert_eq!(refusal(profile), "not allowed in this room", "{profile}");
    }
}

#[test]
fn without_a_token_it_is_said_what_nobody_in_particular_may() {
    let secret = secret();
    let (code, answer, _) = exit_of(&["explain", "--set", &secret, "subscribe", "public:lobby"]);
    assert_eq!(code, Some(0), "{answer}");
    assert!(answer.contains("subscribe = anyone"), "{answer}");
    let (code, answer, _) = exit_of(&["explain", "--set", &secret, "publish", "chat:x"]);
    assert_eq!(code, Some(1), "{answer}");
    assert!(answer.contains("there is no token"), "{answer}");
    let (code, _, errors) = exit_of(&["explain", "fly", "chat:x"]);
    assert_eq!(code, Some(2), "{errors}");
}
