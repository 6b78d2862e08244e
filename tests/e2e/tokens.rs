//! Tokens: where they come from, how they run out, and how a fresh one takes their place.

use std::time::Duration;

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;
use tests::token::{SECRET, claims, hs256, now, with_claim};

use crate::client::{Client, PATH, secret};

const NO_NOBODY: &str = "auth.allow_anonymous=false";

fn token(user: &str) -> String {
    hs256(SECRET, &claims(user, "chat:*"))
}

/// A token that ends this many seconds from now.
fn short(user: &str, seconds: u64) -> String {
    hs256(SECRET, &with_claim(claims(user, "chat:*"), "exp", json!(now() + seconds)))
}

#[test]
fn a_token_comes_by_query_header_sub_protocol_or_connect() {
    let server = Server::start(&["--set", &secret(), "--set", NO_NOBODY]);
    let token = token("ann");
    let addr = server.addr();

    let by_query = Client::open_at(addr, &format!("{PATH}?token={token}"));
    assert_eq!(by_query.hello["user_id"], "ann");

    let mut socket = RawSocket::connect(addr);
    let head = socket.upgrade(PATH, &[("Authorization", &format!("Bearer {token}"))]);
    assert!(!head.to_ascii_lowercase().contains("sec-websocket-protocol"), "{head}");
    assert_eq!(Client::greeted(socket).hello["user_id"], "ann");

    let mut socket = RawSocket::connect(addr);
    let offered = format!("roomkeeper.v2, bearer.{token}");
    let head = socket.upgrade(PATH, &[("Sec-WebSocket-Protocol", &offered)]).to_ascii_lowercase();
    assert!(head.contains("sec-websocket-protocol: roomkeeper.v2\r\n"), "{head}");
    assert!(!head.contains("bearer."), "the token was sent back");
    assert_eq!(Client::greeted(socket).hello["user_id"], "ann");

    let mut socket = RawSocket::open(addr, PATH);
    socket.send_json(&json!({"type": "connect", "id": 7, "token": token}));
    let hello = socket.expect_json("hello");
    assert_eq!((&hello["id"], &hello["user_id"]), (&json!(7), &json!("ann")));
}

#[test]
fn without_a_good_token_nobody_is_greeted_where_nobody_may_be_nobody() {
    let settings = ["--set", &secret(), "--set", NO_NOBODY];
    let server =
        Server::start(&[&settings[..], &["--set", "auth.authentication_timeout_ms=300"]].concat());
    let addr = server.addr();
    assert_eq!(RawSocket::open(addr, PATH).read_close_code(), 3504);
    let forged = hs256("another secret that is as long as the right one", &claims("ann", "chat:*"));
    let ended = hs256(SECRET, &with_claim(claims("ann", "chat:*"), "exp", json!(now() - 60)));
    for bad in [forged.as_str(), "rubbish", ended.as_str()] {
        let mut by_query = RawSocket::open(addr, &format!("{PATH}?token={bad}"));
        assert_eq!(by_query.read_close(), (3500, "unauthenticated".to_owned()));
        let mut by_connect = RawSocket::open(addr, PATH);
        by_connect.send_json(&json!({"type": "connect", "id": 1, "token": bad}));
        assert_eq!(by_connect.read_close_code(), 3500);
    }
    let mut two = RawSocket::connect(addr);
    let path = format!("{PATH}?token={}", token("ann"));
    let other = format!("Bearer {}", token("bob"));
    assert!(two.upgrade(&path, &[("Authorization", &other)]).starts_with("HTTP/1.1 101"));
    assert_eq!(two.read_close_code(), 3500);
}

/// A15. A16.
#[test]
fn a_token_that_runs_out_is_announced_and_then_ends_the_connection_unless_it_is_refreshed() {
    let server = Server::start(&["--set", &secret(), "--set", "auth.leeway_ms=0"]);
    let path = format!("{PATH}?token={}", short("ann", 2));
    let mut refreshing = Client::open_at(server.addr(), &path);
    let mut careless = Client::open_at(server.addr(), &path);
    refreshing.subscribe("public:stay");
    assert!(refreshing.expect("token_expiring")["expires_at"].is_string());
    let fresh = refreshing.call_for("refreshed", json!({"type": "refresh", "token": token("ann")}));
    assert!(fresh["expires_at"].is_string(), "{fresh}");
    let (values, code) = careless.until_closed();
    assert_eq!(code, 3004);
    let kinds = values.iter().map(|value| value["type"].clone()).collect::<Vec<_>>();
    assert_eq!(kinds, ["token_expiring", "disconnect"]);
    assert_eq!(values[1]["reconnect"], true);
    // Past the end of its first token, the other one is still in its room.
    Client::open(&server).publish("public:stay", "still here");
    assert_eq!(refreshing.expect("message")["data"], "still here");
}

/// A16: the notice, where nothing else happens.
#[test]
fn a_connection_that_is_alone_on_its_worker_is_looked_after_in_time() {
    let server = Server::start(&["--set", &secret(), "--set", "server.workers=1"]);
    let path = format!("{PATH}?token={}", short("ann", 30));
    // Nothing else happens on that worker: only its own timer can bring the notice.
    let socket = RawSocket::open(server.addr(), &path).with_deadline(Duration::from_secs(4));
    Client::greeted(socket).expect("token_expiring");
}

/// A19: fewer rights.
#[test]
fn a_fresh_token_that_allows_less_ends_what_it_does_not_allow() {
    let server = Server::start(&["--set", &secret()]);
    let mut ann = Client::open_as(&server, "ann");
    ann.subscribe("chat:guild/1");
    ann.subscribe("chat:guild/2");
    let less = hs256(SECRET, &claims("ann", "chat:guild/2"));
    ann.call_for("refreshed", json!({"type": "refresh", "token": less}));
    let left = ann.next();
    assert_eq!((&left["type"], &left["room"]), (&json!("unsubscribed"), &json!("chat:guild/1")));
    assert_eq!((&left["code"], &left["reason"]), (&json!(103), &json!("permission_denied")));
    let mut bob = Client::open_as(&server, "bob");
    bob.publish("chat:guild/1", "private");
    bob.publish("chat:guild/2", "hello");
    assert_eq!(ann.next()["data"], "hello");
    let refused = ann.call(json!({"type": "subscribe", "room": "chat:guild/1"}));
    assert_eq!(refused["code"], 103);
}

/// A19: the token of another user.
#[test]
fn a_token_of_somebody_else_is_no_refresh() {
    let server = Server::start(&["--set", &secret()]);
    let mut ann = Client::open_as(&server, "ann");
    ann.ask(json!({"type": "refresh", "token": token("bob")}));
    assert_eq!(ann.until_closed().1, 3500);
}

#[test]
fn a_token_says_who_may_do_what_in_which_room() {
    let server = Server::start(&["--set", &secret()]);
    let mut claims = claims("ann", "chat:read/*");
    claims["rooms"][0]["allow"] = json!(["subscribe"]);
    let path = format!("{PATH}?token={}", hs256(SECRET, &claims));
    let mut ann = Client::open_at(server.addr(), &path);
    ann.subscribe("chat:read/1");
    let publish = json!({"type": "publish", "room": "chat:read/1", "data": 1});
    let history = json!({"type": "history", "room": "chat:read/1"});
    let presence = json!({"type": "presence", "room": "chat:read/1"});
    let elsewhere = json!({"type": "subscribe", "room": "chat:write/1"});
    for command in [publish, history, presence, elsewhere] {
        let refused = ann.call(command.clone());
        assert_eq!(refused["error"], "permission_denied", "{command}");
    }
    // Every user has a room of their own, and nobody else may read it.
    ann.subscribe("user:ann");
    assert_eq!(ann.call(json!({"type": "subscribe", "room": "user:bob"}))["code"], 103);
    let nowhere = ann.call(json!({"type": "subscribe", "room": "nowhere:1"}));
    assert_eq!(nowhere["error"], "unknown_room");
}

#[test]
fn a_token_that_roomkeeper_made_is_good_for_the_server_that_shares_its_data() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let server = Server::start(&["--profile", "development", "--data-dir", data]);
    let create = ["token", "create", "--user", "ada", "--room", "chat:*=subscribe,publish"];
    let (code, token, errors) =
        tests::server::exit_of(&[&create[..], &["--data-dir", data]].concat());
    assert_eq!((code, &errors[..]), (Some(0), ""));
    let mut ada = Client::open_at(server.addr(), &format!("{PATH}?token={}", token.trim()));
    assert_eq!(ada.hello["user_id"], "ada");
    ada.subscribe("chat:made");
    assert_eq!(ada.publish("chat:made", Value::Null)["level"], "durable");
}
