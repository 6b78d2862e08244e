//! Tokens, users and connections that a backend takes back while they are in use.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256, now, with_claim, without_claim};

use crate::client::{Client, PATH, secret};
use crate::http::{Answer, ask};

const KEY: &str = "k7Qp2vXz9LmN4rTs8WbYc3Df6GhJ5KaE";
/// How long everything may take until the last connection is closed.
const WITHIN: Duration = Duration::from_secs(1);

fn settings() -> [String; 3] {
    let scopes = "api.keys.backend.scopes=publish,revoke".to_owned();
    [secret(), format!("api.keys.backend.key={KEY}"), scopes]
}

fn server() -> Server {
    let [secret, key, scopes] = settings();
    let workers = "server.workers=3";
    Server::start(&["--set", &secret, "--set", &key, "--set", &scopes, "--set", workers])
}

fn revoke(server: &Server, body: &Value) -> Answer {
    let authorization = format!("Bearer {KEY}");
    let headers = [("Authorization", authorization.as_str())];
    ask(server.addr(), "POST", "/api/v1/revoke", &headers, &body.to_string())
}

fn at(token: &str) -> String {
    format!("{PATH}?token={token}")
}

fn refused(server: &Server, token: &str) -> (u16, String) {
    RawSocket::open(server.addr(), &at(token)).read_close()
}

/// A17
#[test]
fn a_revoked_user_is_gone_within_a_second_and_does_not_come_back_with_the_same_token() {
    let server = server();
    let token = hs256(SECRET, &claims("ann", "chat:*"));
    let mut anns = (0..3).map(|_| Client::open_at(server.addr(), &at(&token))).collect::<Vec<_>>();
    let mut bob = Client::open_as(&server, "bob");
    for client in anns.iter_mut().chain([&mut bob]) {
        client.subscribe("chat:room");
    }
    let begun = Instant::now();
    let answer = revoke(&server, &json!({"user_id": "ann"}));
    assert_eq!((answer.status, answer.json()), (200, json!({"revoked": true})));
    for ann in &mut anns {
        let (values, code) = ann.until_closed();
        assert_eq!(code, 3507);
        let last = values.last().unwrap();
        assert_eq!((&last["type"], &last["reconnect"]), (&json!("disconnect"), &json!(false)));
    }
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    assert_eq!(refused(&server, &token), (3507, "revoked".to_owned()));
    // Nor with the ticket that was made of it.
    let session = anns[0].hello["session"].clone();
    let mut back = RawSocket::open(server.addr(), PATH);
    back.send_json(&json!({"type": "connect", "id": 1, "session": session}));
    assert_eq!(back.read_close_code(), 3507);
    // Whoever is not meant notices nothing.
    bob.publish("chat:room", "still here");
    assert_eq!(bob.expect("message")["data"], "still here");
    // A token that is issued afterwards is a new beginning.
    let later = hs256(SECRET, &with_claim(claims("ann", "chat:*"), "iat", json!(now() + 2)));
    assert_eq!(Client::open_at(server.addr(), &at(&later)).hello["user_id"], "ann");
}

/// A17
#[test]
fn what_is_revoked_stays_so_when_the_server_is_killed_and_started_again() {
    let [secret, key, scopes] = settings();
    let mut server = Server::start_durable(&["--set", &secret, "--set", &key, "--set", &scopes]);
    let token = hs256(SECRET, &claims("ann", "chat:*"));
    let mut named = claims("bob", "chat:*");
    named["jti"] = json!("t-1");
    let named = hs256(SECRET, &named);
    for body in [json!({"user_id": "ann"}), json!({"token_id": "t-1"})] {
        assert_eq!(revoke(&server, &body).status, 200);
    }
    server.kill();
    server.restart();
    assert_eq!(refused(&server, &token).0, 3507);
    assert_eq!(refused(&server, &named).0, 3507);
    assert_eq!(Client::open_as(&server, "bob").hello["user_id"], "bob");
}

#[test]
fn one_token_is_revoked_by_its_id_and_another_of_the_same_user_is_not() {
    let server = server();
    let token = |id: &str| {
        let mut claims = claims("ann", "chat:*");
        claims["jti"] = json!(id);
        hs256(SECRET, &claims)
    };
    let mut one = Client::open_at(server.addr(), &at(&token("t-1")));
    let mut other = Client::open_at(server.addr(), &at(&token("t-2")));
    let session = one.hello["session"].clone();
    let begun = Instant::now();
    assert_eq!(revoke(&server, &json!({"token_id": "t-1"})).status, 200);
    assert_eq!(one.until_closed().1, 3507);
    assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    // Nor does the ticket count that was made of it.
    let mut back = RawSocket::open(server.addr(), PATH);
    back.send_json(&json!({"type": "connect", "id": 1, "session": session}));
    assert_eq!(back.read_close_code(), 3507);
    other.subscribe("chat:room");
    // Nor can it be slipped in by a refresh.
    other.ask(json!({"type": "refresh", "token": token("t-1")}));
    assert_eq!(other.until_closed().1, 3507);
}

#[test]
fn one_connection_is_revoked_by_its_id_and_its_user_may_come_back() {
    let server = server();
    let mut ann = Client::open_as(&server, "ann");
    let mut nobody = Client::open(&server);
    for client in [&mut ann, &mut nobody] {
        let id = client.hello["connection_id"].clone();
        let begun = Instant::now();
        assert_eq!(revoke(&server, &json!({"connection_id": id})).status, 200);
        assert_eq!(client.until_closed().1, 3507);
        assert!(begun.elapsed() < WITHIN, "{:?}", begun.elapsed());
    }
    assert_eq!(Client::open_as(&server, "ann").hello["user_id"], "ann");
}

#[test]
fn a_token_that_does_not_say_when_it_was_issued_is_revoked_with_its_user() {
    let server = server();
    let token = hs256(SECRET, &without_claim(claims("ann", "chat:*"), "iat"));
    let mut ann = Client::open_at(server.addr(), &at(&token));
    // Up to a moment long before.
    let body = json!({"user_id": "ann", "issued_until": 1_000});
    assert_eq!(revoke(&server, &body).status, 200);
    assert_eq!(ann.until_closed().1, 3507);
    // Those that say that they are younger are not meant.
    assert_eq!(Client::open_as(&server, "ann").hello["user_id"], "ann");
}
