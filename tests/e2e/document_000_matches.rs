//! Document 000, "Enhanced Modular WebSocket System": what it says of matches, sentence by sentence.

use serde_json::{Value, json};
use tests::raw::RawSocket;
use tests::server::Server;

use crate::client::{self, Client};
use crate::http::{Answer, ask};
use crate::speaker::{Speaker, bearer, without};

const KEY: &str = "a-key-of-the-backend-that-is-long-enough";

pub(crate) fn start(more: &[&str]) -> Server {
    let secret = client::secret();
    let key = format!("api.keys.backend.key={KEY}");
    let scopes = "api.keys.backend.scopes=matches,publish";
    let mut arguments = vec!["--set", &*secret, "--set", &*key, "--set", scopes];
    arguments.extend(more);
    Server::start(&arguments)
}

pub(crate) fn post(server: &Server, path: &str, body: &Value) -> Answer {
    let authorization = format!("Bearer {KEY}");
    let headers = [("Authorization", &*authorization), ("Content-Type", "application/json")];
    let answer = ask(server.addr(), "POST", path, &headers, &body.to_string());
    assert!((200..300).contains(&answer.status), "{answer:?}");
    answer
}

/// A relay match of these users, with what else is said of it.
pub(crate) fn make(server: &Server, id: &str, users: &[&str], more: &Value) {
    let mut body = json!({"id": id, "game": "relay", "participants": users});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    post(server, "/api/v1/matches", &body);
}

fn path(id: &str, user: &str) -> String {
    format!("/ws/games/{id}?token={}", bearer(user, &json!({})))
}

/// Somebody in the match who has been told who is there.
pub(crate) fn enter(server: &Server, id: &str, user: &str) -> Speaker {
    let mut speaker = Speaker::greeted(RawSocket::open(server.addr(), &path(id, user)));
    assert_eq!(speaker.greeting["type"], "connected", "{}", speaker.greeting);
    speaker.expect("user_list");
    speaker
}

fn closed(server: &Server, path: &str) -> (u16, String) {
    RawSocket::open(server.addr(), path).read_close()
}

#[test]
fn connection_parameters_are_validated_before_anything_else() {
    let server = start(&[]);
    let token = bearer("ann", &json!({}));
    let long = "m".repeat(129);
    for path in [
        format!("/ws/games/{long}?token={token}"),
        format!("/ws/games/a%20b?token={token}"),
        format!("/ws/games/a..b?token={token}"),
        format!("/ws/games/%2e%2e?token={token}"),
        "/ws/games/m1?token=".to_owned(),
        format!("/ws/games/m1?token={token}&client_id=a%20b"),
    ] {
        assert_eq!(closed(&server, &path), (1008, "Invalid parameters".to_owned()), "{path}");
    }
    // What is valid in itself is looked at then: who comes, and whether there is such a match.
    assert_eq!(closed(&server, "/ws/games/m1?token=nonsense").0, 3500);
    assert_eq!(closed(&server, "/ws/games/m1").0, 3500);
    assert_eq!(closed(&server, &format!("/ws/games/m1?token={token}")).0, 3501);
}

#[test]
fn a_match_is_for_its_participants() {
    let server = start(&[]);
    make(&server, "m1", &["ann", "bob"], &json!({}));
    let mut ann = enter(&server, "m1", "ann");
    let greeting = &ann.greeting;
    assert_eq!(
        (&greeting["endpoint"], &greeting["channels"]),
        (&json!("match"), &json!(["match:m1", "private"]))
    );
    let bob = enter(&server, "m1", "bob");
    assert_eq!(
        without(&ann.hear(), &["timestamp"]),
        r#"{"type":"user_connected","user":"bob's name","user_id":"bob","match_id":"m1","timestamp":"…"}"#
    );
    assert_eq!(closed(&server, &path("m1", "carl")), (3501, "forbidden".to_owned()));
    assert_eq!(closed(&server, "/ws/games/m1").0, 3500);
    drop(bob);
    assert_eq!(ann.expect("user_disconnected")["user_id"], "bob");
}

#[test]
fn spectators_look_on_where_the_match_lets_them_and_say_nothing() {
    let server = start(&[]);
    make(&server, "open", &["ann"], &json!({"spectators": "anyone"}));
    make(&server, "known", &["ann"], &json!({"spectators": "authenticated"}));
    let mut ann = enter(&server, "open", "ann");
    let mut nobody = Speaker::greeted(RawSocket::open(server.addr(), "/ws/games/open"));
    assert_eq!(nobody.greeting["user_id"], Value::Null);
    nobody.expect("user_list");
    ann.expect("user_connected");
    let mut carl = enter(&server, "open", "carl");
    ann.expect("user_connected");
    nobody.expect("user_connected");
    ann.say(r#"{"type":"game_action","data":{"move":"e4"}}"#);
    for hears in [&mut ann, &mut carl, &mut nobody] {
        let heard = hears.expect("game_action");
        assert_eq!((&heard["data"], &heard["user_id"]), (&json!({"move": "e4"}), &json!("ann")));
    }
    for silent in [&mut carl, &mut nobody] {
        assert_eq!(silent.refused(r#"{"type":"game_action","data":{}}"#).0, 103);
        assert_eq!(silent.refused(r#"{"type":"chat_message","content":"gg"}"#).0, 103);
    }
    ann.hears_nothing();
    drop(enter(&server, "known", "carl"));
    assert_eq!(closed(&server, "/ws/games/known").0, 3500);
}

#[test]
fn a_game_has_its_messages_and_the_match_its_chat() {
    let server = start(&[]);
    make(&server, "m1", &["ann", "bob"], &json!({}));
    let mut ann = enter(&server, "m1", "ann");
    let mut bob = enter(&server, "m1", "bob");
    ann.expect("user_connected");
    ann.say(r#"{"type":"game_message","data":{"text":[1,2]},"id":3}"#);
    assert_eq!(
        without(&bob.hear(), &["timestamp"]),
        r#"{"type":"game_message","user":"ann's name","user_id":"ann","data":{"text":[1,2]},"match_id":"m1","timestamp":"…"}"#
    );
    let mut kinds = [ann.hear(), ann.hear()].map(|text| text[9..12].to_owned());
    kinds.sort();
    assert_eq!(kinds, ["ack", "gam"]);
    bob.say(r#"{"type":"chat_message","content":"good luck"}"#);
    let heard = ann.expect("chat_message");
    assert_eq!((&heard["content"], &heard["match_id"]), (&json!("good luck"), &json!("m1")));
    bob.expect("chat_message");
    for (said, code, field) in [
        (r#"{"type":"game_action"}"#, 102, json!("data")),
        (r#"{"type":"game_action","data":"e4"}"#, 102, json!("data")),
        (r#"{"type":"castle","data":{}}"#, 101, json!("type")),
        (r#"{"type":"chat_message"}"#, 102, json!("content")),
    ] {
        assert_eq!(ann.refused(said), (code, field), "{said}");
    }
    bob.hears_nothing();
}

#[test]
fn a_match_takes_as_many_connections_as_it_may_and_no_more() {
    let server = start(&[]);
    make(&server, "m1", &["ann", "bob"], &json!({"max_connections": 2, "spectators": "anyone"}));
    let _ann = enter(&server, "m1", "ann");
    let bob = enter(&server, "m1", "bob");
    assert_eq!(closed(&server, "/ws/games/m1").0, 1013);
    drop(bob);
    // A place that is free again is anybody's.
    let deadline = std::time::Instant::now() + client::SOON;
    loop {
        let mut socket = RawSocket::open(server.addr(), "/ws/games/m1");
        let (opcode, payload) = socket.read_frame();
        if opcode == tests::frame::TEXT {
            assert!(String::from_utf8_lossy(&payload).contains("connected"));
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the place stays taken");
    }
}

#[test]
fn the_start_and_the_end_of_a_match_are_told_and_an_ended_one_takes_nobody() {
    let server = start(&[]);
    make(&server, "m1", &["ann"], &json!({}));
    let mut ann = enter(&server, "m1", "ann");
    post(&server, "/api/v1/matches/m1/start", &json!({}));
    assert_eq!(ann.expect("match_started")["match_id"], "m1");
    post(&server, "/api/v1/matches/m1/end", &json!({"result": {"winner": "ann"}}));
    assert_eq!(ann.expect("match_ended")["result"], json!({"winner": "ann"}));
    assert_eq!(ann.refused(r#"{"type":"game_action","data":{}}"#).0, 103);
    assert_eq!(closed(&server, &path("m1", "ann")).0, 3501);
}

#[test]
fn a_match_is_the_same_room_over_protocol_v2_under_the_same_checks() {
    let server = start(&[]);
    make(&server, "m1", &["ann", "bob"], &json!({}));
    let mut ann = enter(&server, "m1", "ann");
    let mut bob = Client::open_as(&server, "bob");
    bob.subscribe("match:m1");
    ann.expect("user_connected");
    ann.say(r#"{"type":"chat_message","content":"hi"}"#);
    ann.expect("chat_message");
    assert_eq!(bob.expect("message")["data"], json!({"type": "chat_message", "content": "hi"}));
    // What is said in a match is checked by its game, which only its own endpoint asks.
    let data = json!({"type": "game_action", "data": {"move": "z9"}});
    let refused = bob.call(json!({"type": "publish", "room": "match:m1", "data": data}));
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!(103)));
    let mut carl = Client::open_as(&server, "carl");
    let refused = carl.call(json!({"type": "subscribe", "room": "match:m1"}));
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!(103)));
}
