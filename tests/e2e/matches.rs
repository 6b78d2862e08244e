//! Matches over the server API: a backend makes them, starts and ends them, and their rooms hear of it;
//! what it asks for twice happens once, and what it was told survives a kill.

use serde_json::{Value, json};
use tests::server::Server;
use tests::token::{SECRET, claims, hs256};

use crate::client::{Client, PATH, SOON, secret, until};
use crate::http::{Answer, ask};
use crate::server_api::{by, key, server};

const MATCHES: &str = "/api/v1/matches";

fn post(server: &Server, path: &str, body: &Value) -> Answer {
    by(server, "all", "POST", &format!("{MATCHES}{path}"), &body.to_string())
}

fn done(server: &Server, path: &str, body: &Value) -> Value {
    let answer = post(server, path, body);
    assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
    answer.json()
}

fn get(server: &Server, path: &str) -> Value {
    let answer = by(server, "all", "GET", &format!("{MATCHES}{path}"), "");
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

/// Status, code and field of a refusal.
fn refused(answer: &Answer) -> (u16, u64, String) {
    let error = answer.json();
    let field = error["field"].as_str().unwrap_or_default().to_owned();
    (answer.status, error["code"].as_u64().unwrap(), field)
}

fn new(id: &str) -> Value {
    json!({"id": id, "game": "relay", "participants": ["bob", "ann"]})
}

fn ids(list: &Value) -> Vec<&str> {
    list["matches"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect()
}

/// Somebody who may be in the rooms of matches.
fn member(server: &Server, room: &str) -> Client {
    let token = hs256(SECRET, &claims("ann", "match:*"));
    let mut member = Client::open_at(server.addr(), &format!("{PATH}?token={token}"));
    member.subscribe(room);
    member
}

#[test]
fn a_match_is_made_started_and_ended_and_its_room_hears_of_both() {
    let server = server(&[]);
    let mut ann = member(&server, "match:m-1");
    let mut body = new("m-1");
    body["spectators"] = json!("authenticated");
    body["max_connections"] = json!(7);
    body["metadata"] = json!({"map": "é", "rounds": [1, 2]});
    let made = done(&server, "", &body);
    let of = &made["match"];
    assert_eq!(made["duplicate"], false);
    let wanted = json!({
        "id": "m-1", "room": "match:m-1", "game": "relay", "state": "waiting",
        "participants": ["bob", "ann"], "spectators": "authenticated", "max_connections": 7,
        "metadata": {"map": "é", "rounds": [1, 2]}, "created_at": of["created_at"],
        "started_at": null, "ended_at": null, "result": null,
    });
    assert_eq!(*of, wanted);
    assert_eq!(get(&server, "/m-1"), wanted);

    let started = done(&server, "/m-1/start", &json!({}));
    assert_eq!(started["match"]["state"], "running");
    let heard = ann.expect("message");
    let wanted = json!({
        "type": "match_started", "match_id": "m-1", "game": "relay",
        "started_at": started["match"]["started_at"],
    });
    assert_eq!(heard["data"], wanted);
    assert_eq!(heard["sender"]["user_id"], Value::Null);

    let ended = done(&server, "/m-1/end", &json!({"result": {"won": "ann", "by": 2}}));
    assert_eq!(ended["match"]["result"], json!({"won": "ann", "by": 2}));
    let wanted = json!({
        "type": "match_ended", "match_id": "m-1", "game": "relay",
        "ended_at": ended["match"]["ended_at"], "result": {"won": "ann", "by": 2},
    });
    assert_eq!(ann.expect("message")["data"], wanted);
    assert_eq!(get(&server, "/m-1"), ended["match"]);
}

#[test]
fn what_a_backend_asks_for_again_happens_once() {
    let server = server(&[]);
    let mut ann = member(&server, "match:m-1");
    for (path, body, kind) in [
        ("", new("m-1"), None),
        ("/m-1/start", json!({}), Some("match_started")),
        ("/m-1/end", json!({"result": 1}), Some("match_ended")),
    ] {
        for is_duplicate in [false, true, true] {
            assert_eq!(done(&server, path, &body)["duplicate"], is_duplicate, "{path}");
        }
        if let Some(kind) = kind {
            assert_eq!(ann.expect("message")["data"]["type"], kind);
        }
    }
    assert_eq!(ann.log("match:m-1", 10).len(), 2);
    // Without an id of its own, a request is known by its key.
    let authorization = format!("Bearer {}", key("all"));
    let body = json!({"game": "relay", "participants": []});
    let drawn = |idempotency_key: &str| {
        let mut headers = vec![("Authorization", authorization.as_str())];
        if !idempotency_key.is_empty() {
            headers.push(("Idempotency-Key", idempotency_key));
        }
        let answer = ask(server.addr(), "POST", MATCHES, &headers, &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        (answer["match"]["id"].as_str().unwrap().to_owned(), answer["duplicate"] == true)
    };
    let (first, again) = (drawn("order-17"), drawn("order-17"));
    assert_eq!((&first.0, first.1, again.1), (&again.0, false, true));
    assert_ne!(drawn("order-18").0, first.0);
    assert_ne!(drawn("").0, drawn("").0);
    let body = json!({"game": "relay", "participants": ["eve"]}).to_string();
    let headers = [("Authorization", authorization.as_str()), ("Idempotency-Key", "order-17")];
    let other = ask(server.addr(), "POST", MATCHES, &headers, &body);
    assert_eq!(refused(&other), (409, 102, "id".to_owned()));
}

#[test]
fn a_match_never_goes_back_and_what_is_wrong_with_a_request_is_named() {
    let server = server(&[]);
    done(&server, "", &new("over"));
    done(&server, "/over/end", &json!({"result": 1}));
    assert_eq!(get(&server, "/over")["started_at"], Value::Null);
    let as_made = new("over");
    let but = |name: &str, value: Value| {
        let mut body = as_made.clone();
        body[name] = value;
        body
    };
    for (path, body, wanted) in [
        ("/over/start", json!({}), (409, 115, "match_id")),
        ("/over/end", json!({"result": 2}), (409, 115, "match_id")),
        ("/nobody/start", json!({}), (404, 115, "match_id")),
        ("/nobody/end", json!({}), (404, 115, "match_id")),
        ("/a*b/start", json!({}), (400, 102, "match_id")),
        ("", but("participants", json!(["ann"])), (409, 102, "id")),
        ("", but("metadata", json!(1)), (409, 102, "id")),
        ("", but("game", json!("chess")), (400, 102, "game")),
        ("", but("game", json!("No Game")), (400, 102, "game")),
        ("", but("id", json!("a/b")), (400, 102, "id")),
        ("", but("id", json!("a..b")), (400, 102, "id")),
        ("", but("id", json!("m".repeat(129))), (413, 109, "id")),
        ("", but("participants", json!(["ann", "ann"])), (400, 102, "participants")),
        ("", but("participants", json!(["a b"])), (400, 102, "participants")),
        ("", but("participants", json!("ann")), (400, 102, "participants")),
        ("", but("participants", json!(vec!["u"; 129])), (413, 109, "participants")),
        ("", but("spectators", json!("all")), (400, 102, "spectators")),
        ("", but("max_connections", json!(0)), (400, 102, "max_connections")),
        ("", but("metadata", json!("x".repeat(4_096))), (413, 109, "metadata")),
        ("", but("colour", json!(1)), (400, 102, "colour")),
        ("", json!({"game": "relay"}), (400, 102, "participants")),
        ("", json!({"participants": []}), (400, 102, "game")),
        ("/over/end", json!({"result": "x".repeat(16_384)}), (413, 109, "result")),
    ] {
        let (status, code, field) = wanted;
        let answer = post(&server, path, &body);
        assert_eq!(refused(&answer), (status, code, field.to_owned()), "{path} {answer:?}");
    }
    // Which games there are is said.
    let chess = post(&server, "", &but("game", json!("chess"))).json();
    assert!(chess["message"].as_str().unwrap().contains("relay"), "{chess}");
    // As it was.
    assert_eq!(get(&server, "/over")["result"], 1);
    let none = by(&server, "all", "GET", &format!("{MATCHES}/nobody"), "");
    assert_eq!(refused(&none), (404, 115, "match_id".to_owned()));
}

#[test]
fn matches_are_listed_page_by_page_and_by_state() {
    let server = server(&[]);
    for id in ["c", "a", "d", "b"] {
        done(&server, "", &new(id));
    }
    done(&server, "/b/start", &json!({}));
    // Nothing is a request, too.
    assert_eq!(by(&server, "all", "POST", &format!("{MATCHES}/c/end"), "").status, 200);
    let first = get(&server, "?limit=3");
    assert_eq!((ids(&first), &first["next"]), (vec!["a", "b", "c"], &json!("c")));
    let second = get(&server, "?limit=3&after=c");
    assert_eq!((ids(&second), &second["next"]), (vec!["d"], &Value::Null));
    for (state, wanted) in
        [("waiting", vec!["a", "d"]), ("running", vec!["b"]), ("ended", vec!["c"])]
    {
        let list = get(&server, &format!("?state={state}"));
        assert_eq!((ids(&list), &list["next"]), (wanted, &Value::Null), "{state}");
    }
}

#[test]
fn a_key_that_is_limited_to_rooms_reaches_the_matches_of_these_rooms_alone() {
    let settings = [
        secret(),
        format!("api.keys.all.key={}", key("all")),
        "api.keys.all.scopes=matches".to_owned(),
        format!("api.keys.limited.key={}", key("limited")),
        "api.keys.limited.scopes=matches".to_owned(),
        "api.keys.limited.rooms=match:a-*,public:one".to_owned(),
    ];
    let arguments: Vec<&str> = settings.iter().flat_map(|set| ["--set", set]).collect();
    let server = Server::start(&arguments);
    done(&server, "", &new("b-1"));
    let limited = |method: &str, path: &str, body: &Value| {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        by(&server, "limited", method, &format!("{MATCHES}{path}"), &body)
    };
    assert_eq!(limited("POST", "", &new("a-1")).status, 200);
    assert_eq!(limited("GET", "/a-1", &Value::Null).status, 200);
    assert_eq!(limited("POST", "/a-1/start", &json!({})).status, 200);
    let unnamed = json!({"game": "relay", "participants": []});
    for (method, path, body) in [
        ("POST", "", &new("b-1")),
        ("POST", "", &new("b-2")),
        ("POST", "", &unnamed),
        ("GET", "/b-1", &Value::Null),
        ("GET", "/nobody", &Value::Null),
        ("POST", "/b-1/start", &json!({})),
        ("POST", "/b-1/end", &json!({})),
        ("GET", "", &Value::Null),
    ] {
        let answer = limited(method, path, body);
        assert_eq!(refused(&answer), (403, 103, "room".to_owned()), "{method} {path} {body}");
    }
    assert_eq!(get(&server, "/b-1")["state"], "waiting");
}

#[test]
fn when_as_many_matches_are_kept_as_may_be_ended_ones_go_and_others_stay() {
    let server = server(&["--set", "matches.matches_max=2"]);
    done(&server, "", &new("a"));
    done(&server, "", &new("b"));
    let full = post(&server, "", &new("c"));
    assert_eq!(refused(&full), (503, 114, String::new()));
    assert!(full.head.to_ascii_lowercase().contains("retry-after: 10\r\n"), "{}", full.head);
    done(&server, "/a/end", &json!({}));
    done(&server, "", &new("c"));
    assert_eq!(ids(&get(&server, "")), ["b", "c"]);
}

#[test]
fn a_match_is_forgotten_some_time_after_it_has_ended() {
    let server = server(&["--set", "matches.retention_ms=1000"]);
    done(&server, "", &new("over"));
    done(&server, "", &new("waits"));
    done(&server, "/over/end", &json!({}));
    until(&format!("it is forgotten within {SOON:?}"), || {
        (ids(&get(&server, "")) == ["waits"]).then_some(())
    });
    // Its name is free.
    let mut other = new("over");
    other["metadata"] = json!("another");
    assert_eq!(done(&server, "", &other)["duplicate"], false);
}

#[test]
fn what_was_answered_about_matches_is_there_after_a_kill() {
    let settings = [
        secret(),
        format!("api.keys.all.key={}", key("all")),
        "api.keys.all.scopes=matches".to_owned(),
        "matches.connections_per_match_max=9".to_owned(),
    ];
    let arguments: Vec<&str> = settings.iter().flat_map(|set| ["--set", set]).collect();
    let mut server = Server::start_durable(&arguments);
    for id in ["waits", "runs", "over"] {
        done(&server, "", &new(id));
    }
    done(&server, "/runs/start", &json!({}));
    done(&server, "/over/start", &json!({}));
    done(&server, "/over/end", &json!({"result": {"won": ["ann", "ü"]}}));
    let before = get(&server, "");
    assert_eq!(ids(&before), ["over", "runs", "waits"]);
    assert_eq!(before["matches"][0]["max_connections"], 9);
    server.kill();
    server.restart();
    assert_eq!(get(&server, ""), before);
    // And they go on from there.
    assert_eq!(done(&server, "/runs/start", &json!({}))["duplicate"], true);
    assert_eq!(done(&server, "/runs/end", &json!({}))["duplicate"], false);
    assert_eq!(post(&server, "/over/start", &json!({})).status, 409);
    let before = get(&server, "");
    server.terminate();
    server.wait();
    server.restart();
    assert_eq!(get(&server, ""), before);
}
